//! A machine that serves its drive by NFS, and a client in this process.

use super::common::{Mounted, World};
use nfs3_client::tokio::{TokioConnector, TokioIo};
use nfs3_client::{Nfs3Client, Nfs3Connection, Nfs3ConnectionBuilder};
use nfs3_types::nfs3::*;
use nfs3_types::rpc::{auth_unix, opaque_auth};
use nfs3_types::xdr_codec::Opaque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Where it is to be mounted, by somebody else.
pub const AT: &str = "/mnt/tcfs";

/// A machine that serves.
pub struct Served {
    pub m: Mounted,
    pub port: u16,
    pub export: String,
    pub command: String,
}

type Result<T> = std::result::Result<T, nfsstat3>;

impl Served {
    #[track_caller]
    pub fn new(w: &Arc<World>, name: &str) -> Served {
        Served::of(w.device(name).off())
    }

    /// One with settings.
    #[track_caller]
    pub fn of(m: Mounted) -> Served {
        let mut s = Served { m, port: 0, export: String::new(), command: String::new() };
        s.serve();
        s
    }

    /// Begins to serve, or goes on after a kill.
    #[track_caller]
    pub fn serve(&mut self) {
        let mut args = vec!["--json", "mount", "--backend", "nfs", "--no-mount", AT];
        args.extend(self.m.mount_args().iter().map(String::as_str));
        let done = self.m.cli(&args).ok();
        let answer = &done.json()[0];
        self.command = answer["command"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        let word = |s: &str| {
            self.command.split([' ', ',']).find_map(|w| w.strip_prefix(s)).unwrap_or_else(|| panic!("{s} in {}", self.command)).to_owned()
        };
        self.port = word("port=").parse().unwrap();
        self.export = word("127.0.0.1:");
    }

    /// Ends the daemon as a crash does.
    pub fn kill(&self) {
        let pid = self.m.status()["pid"].as_i64().unwrap() as i32;
        // SAFETY: the id came from this machine's own daemon.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        super::common::until("the killed daemon is gone", Duration::from_secs(30), || (!super::common::sys::alive(pid)).then_some(()));
    }

    fn connection(&self, uid: u32, path: &str) -> (Runtime, std::result::Result<Connection, nfs3_client::ConnectError>) {
        connection(self.port, uid, path)
    }

    /// Tries to mount.
    pub fn mount_as(&self, uid: u32, path: &str) -> std::result::Result<(), String> {
        self.connection(uid, path).1.map(drop).map_err(|e| format!("{e:?}"))
    }

    /// A client of the owner.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::of(self.port, &self.export)
    }

    /// A client that says it is `uid` and has a handle.
    pub fn client_as(&self, uid: u32, root: &nfs_fh3) -> Client {
        let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let stream = rt.block_on(tokio::net::TcpStream::connect(("127.0.0.1", self.port))).unwrap();
        let credential = opaque_auth::auth_unix(&auth_unix { uid, gid: uid, ..auth_unix::default() });
        Client { rt, root: root.clone(), c: Nfs3Client::new_with_auth(TokioIo::new(stream), credential, opaque_auth::default()) }
    }

    /// What the server tells of its exports.
    pub fn exports(&self) -> Vec<String> {
        let (rt, c) = self.connection(0, &self.export);
        let mut c = c.unwrap();
        let all = rt.block_on(c.mount_client.export()).unwrap();
        all.0.iter().map(|e| String::from_utf8_lossy(&e.ex_dir.0).into_owned()).collect()
    }

    /// Sends bytes on a connection of its own, and reads what comes for a moment.
    pub fn raw(&self, bytes: &[u8]) {
        let mut s = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        s.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        // It may have closed the connection already.
        let _ = s.write_all(bytes);
        let _ = s.read(&mut [0; 4096]);
    }

    /// Versions of a file that this machine has published or is about to.
    pub fn log_versions(&self, path: &str) -> usize {
        let all = self.m.cli(&["--json", "history", path]);
        if all.code != 0 {
            return 0;
        }
        all.json().iter().filter(|v| v["type"] == "version").count()
    }
}

type Connection = Nfs3Connection<TokioIo<tokio::net::TcpStream>>;

/// Connects to a server on one port, and mounts.
fn connection(port: u16, uid: u32, path: &str) -> (Runtime, std::result::Result<Connection, nfs3_client::ConnectError>) {
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let credential = opaque_auth::auth_unix(&auth_unix { uid, gid: uid, ..auth_unix::default() });
    let mount = Nfs3ConnectionBuilder::new(TokioConnector, "127.0.0.1", path)
        .connect_from_privileged_port(false)
        .mount_port(port)
        .nfs3_port(port)
        .credential(credential)
        .mount();
    let c = rt.block_on(async { tokio::time::timeout(Duration::from_secs(60), mount).await.expect("the server answers") });
    (rt, c)
}

/// A client, one call at a time.
pub struct Client {
    rt: Runtime,
    root: nfs_fh3,
    c: Nfs3Client<TokioIo<tokio::net::TcpStream>>,
}

/// The reply of a call; whoever is refused by the server itself gets PERM.
macro_rules! call {
    ($self:ident, $name:ident, $args:expr) => {{
        let args = $args;
        let call = $self.c.$name(&args);
        let reply = $self.rt.block_on(async { tokio::time::timeout(Duration::from_secs(60), call).await.expect("the server answers") });
        match reply {
            Ok(Nfs3Result::Ok(r)) => Ok(r),
            Ok(Nfs3Result::Err((status, _))) => Err(status),
            Err(_) => Err(nfsstat3::NFS3ERR_PERM),
        }
    }};
}

fn at<'a>(dir: &nfs_fh3, name: &'a str) -> diropargs3<'a> {
    diropargs3 { dir: dir.clone(), name: name.as_bytes().into() }
}

fn made(fh: post_op_fh3) -> nfs_fh3 {
    fh.unwrap()
}

impl Client {
    /// One of this user, of any server.
    #[track_caller]
    pub fn of(port: u16, export: &str) -> Client {
        // SAFETY: no arguments, cannot fail.
        let uid = unsafe { libc::geteuid() };
        let (rt, c) = connection(port, uid, export);
        let c = c.unwrap_or_else(|e| panic!("mounting {export} on port {port}: {e:?}"));
        let root = c.root_nfs_fh3();
        Client { rt, root, c: c.into_nfs3_client() }
    }

    pub fn root(&self) -> nfs_fh3 {
        self.root.clone()
    }

    pub fn attr(&mut self, object: &nfs_fh3) -> Result<fattr3> {
        Ok(call!(self, getattr, GETATTR3args { object: object.clone() })?.obj_attributes)
    }

    pub fn lookup(&mut self, dir: &nfs_fh3, name: &str) -> Result<nfs_fh3> {
        Ok(call!(self, lookup, LOOKUP3args { what: at(dir, name) })?.object)
    }

    pub fn mkdir(&mut self, dir: &nfs_fh3, name: &str, mode: u32) -> Result<nfs_fh3> {
        let attributes = sattr3 { mode: set_mode3::Some(mode), ..sattr3::default() };
        Ok(made(call!(self, mkdir, MKDIR3args { where_: at(dir, name), attributes })?.obj))
    }

    pub fn create(&mut self, dir: &nfs_fh3, name: &str, mode: u32) -> Result<nfs_fh3> {
        let how = createhow3::GUARDED(sattr3 { mode: set_mode3::Some(mode), ..sattr3::default() });
        Ok(made(call!(self, create, CREATE3args { where_: at(dir, name), how })?.obj))
    }

    pub fn exclusive(&mut self, dir: &nfs_fh3, name: &str, verifier: [u8; 8]) -> Result<nfs_fh3> {
        let how = createhow3::EXCLUSIVE(createverf3(verifier));
        Ok(made(call!(self, create, CREATE3args { where_: at(dir, name), how })?.obj))
    }

    pub fn symlink(&mut self, dir: &nfs_fh3, name: &str, target: &str) -> Result<nfs_fh3> {
        let symlink = symlinkdata3 { symlink_attributes: sattr3::default(), symlink_data: target.as_bytes().into() };
        Ok(made(call!(self, symlink, SYMLINK3args { where_: at(dir, name), symlink })?.obj))
    }

    pub fn write(&mut self, file: &nfs_fh3, offset: u64, data: &[u8], stable: stable_how) -> Result<(u32, writeverf3)> {
        let args = WRITE3args { file: file.clone(), offset, count: data.len() as u32, stable, data: Opaque::borrowed(data) };
        let r = call!(self, write, args)?;
        assert!(r.committed as u32 >= stable as u32);
        Ok((r.count, r.verf))
    }

    pub fn commit(&mut self, file: &nfs_fh3) -> Result<writeverf3> {
        Ok(call!(self, commit, COMMIT3args { file: file.clone(), offset: 0, count: 0 })?.verf)
    }

    pub fn read(&mut self, file: &nfs_fh3, offset: u64, count: u32) -> Result<(Vec<u8>, bool)> {
        let r = call!(self, read, READ3args { file: file.clone(), offset, count })?;
        Ok((r.data.to_vec(), r.eof))
    }

    pub fn rename(&mut self, from: &nfs_fh3, name: &str, to: &nfs_fh3, new: &str) -> Result<()> {
        call!(self, rename, RENAME3args { from: at(from, name), to: at(to, new) }).map(drop)
    }

    /// What a client does with an open file that is removed.
    pub fn set_aside_by_rename(&mut self, dir: &nfs_fh3, name: &str, aside: &str) -> Result<()> {
        self.rename(dir, name, dir, aside)
    }

    pub fn remove(&mut self, dir: &nfs_fh3, name: &str) -> Result<()> {
        call!(self, remove, REMOVE3args { object: at(dir, name) }).map(drop)
    }

    pub fn rmdir(&mut self, dir: &nfs_fh3, name: &str) -> Result<()> {
        call!(self, rmdir, RMDIR3args { object: at(dir, name) }).map(drop)
    }

    pub fn link(&mut self, file: &nfs_fh3, dir: &nfs_fh3, name: &str) -> Result<()> {
        call!(self, link, LINK3args { file: file.clone(), link: at(dir, name) }).map(drop)
    }

    pub fn mknod(&mut self, dir: &nfs_fh3, name: &str, what: mknoddata3) -> Result<()> {
        call!(self, mknod, MKNOD3args { where_: at(dir, name), what }).map(drop)
    }

    fn set(&mut self, object: &nfs_fh3, new_attributes: sattr3, guard: Option<nfstime3>) -> Result<()> {
        let guard = guard.map_or(sattrguard3::None, sattrguard3::Some);
        call!(self, setattr, SETATTR3args { object: object.clone(), new_attributes, guard }).map(drop)
    }

    pub fn chmod(&mut self, object: &nfs_fh3, mode: u32, guard: Option<nfstime3>) -> Result<()> {
        self.set(object, sattr3 { mode: set_mode3::Some(mode), ..sattr3::default() }, guard)
    }

    pub fn resize(&mut self, object: &nfs_fh3, size: u64) -> Result<()> {
        self.set(object, sattr3 { size: set_size3::Some(size), ..sattr3::default() }, None)
    }

    pub fn access(&mut self, object: &nfs_fh3, access: u32) -> Result<u32> {
        Ok(call!(self, access, ACCESS3args { object: object.clone(), access })?.access)
    }

    pub fn fsstat(&mut self, root: &nfs_fh3) -> Result<FSSTAT3resok> {
        call!(self, fsstat, FSSTAT3args { fsroot: root.clone() })
    }

    pub fn fsinfo(&mut self, root: &nfs_fh3) -> Result<FSINFO3resok> {
        call!(self, fsinfo, FSINFO3args { fsroot: root.clone() })
    }

    pub fn pathconf(&mut self, object: &nfs_fh3) -> Result<PATHCONF3resok> {
        call!(self, pathconf, PATHCONF3args { object: object.clone() })
    }

    /// Names and cookies of a page of a listing, and whether it is the last.
    pub fn page(&mut self, dir: &nfs_fh3, cookie: u64, room: u32, plus: bool) -> Result<(Vec<(String, u64)>, bool)> {
        let name = |n: &filename3<'_>| String::from_utf8(n.as_ref().to_vec()).unwrap();
        let cookieverf = cookieverf3::default();
        if plus {
            let args = READDIRPLUS3args { dir: dir.clone(), cookie, cookieverf, dircount: room, maxcount: room };
            let r = call!(self, readdirplus, args)?.reply;
            assert!(r.entries.0.iter().all(|e| e.name_attributes.is_some() && e.name_handle.is_some()));
            return Ok((r.entries.0.iter().map(|e| (name(&e.name), e.cookie)).collect(), r.eof));
        }
        let r = call!(self, readdir, READDIR3args { dir: dir.clone(), cookie, cookieverf, count: room })?.reply;
        Ok((r.entries.0.iter().map(|e| (name(&e.name), e.cookie)).collect(), r.eof))
    }
}
