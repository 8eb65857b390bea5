//! The drive as an NFS version 3 server on the loopback: the Mac's way, which works on Linux as well.
//!
//! Why not a ready server around our tree: those that were measured know no difference between removing a file and a
//! directory, drop the mode of a new directory, answer ACCESS, FSSTAT and PATHCONF by themselves, do not say who calls, and
//! answer an error when a client has many reads under way. Its types of the protocol are used, the procedures are ours.
//!
//! A file is sealed after quiet, for there is no close (`files`). What changes elsewhere changes times here, which is what
//! clients go by.
//!
//! Must: no call waits for the network longer than a moment; the rest of what it waits for goes on without it.
//! Not here: what each operation does (`vfs`), the system's own client (`daemon`).

mod access;
mod convert;
mod files;
mod handle;
mod info;
mod listing;
mod mountd;
mod procedures;
mod replies;
mod secret;
mod server;
mod wire;

use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::vfs::Vfs;
use files::Files;
use nfs3_types::nfs3::writeverf3;
use procedures::Nfs;
use secret::Secret;
use server::Server;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How often it is looked which files were quiet for long enough.
const LOOK: Duration = Duration::from_millis(250);

/// How to serve.
#[derive(Clone, Debug, Default)]
pub struct NfsOptions {
    /// The port to listen on; 0: the one of last time, at first any.
    pub port: u16,
    /// Other users may use it too.
    pub allow_other: bool,
    /// Nothing can be changed.
    pub read_only: bool,
    /// Where the export is kept from one start to the next.
    pub state_dir: PathBuf,
}

/// A server of the drive; stops when dropped, without closing what is open: [`NfsServer::stop`] does.
pub struct NfsServer {
    files: Arc<Files>,
    port: u16,
    export: String,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl NfsServer {
    /// Begins to serve. To be called within a runtime.
    ///
    /// Errors: `Busy` if somebody else has the port; of the disk; `Corrupt` for a damaged export file.
    pub async fn start(vfs: Arc<Vfs>, clock: &dyn Clock, options: &NfsOptions) -> Result<NfsServer> {
        let mut secret = Secret::load(&options.state_dir, clock)?;
        let listener = listen(options.port, secret.port).await?;
        let port = listener.local_addr().map_err(|e| Error::io("asking for the port of the NFS server", e))?.port();
        if secret.port != port {
            secret.port = port;
            secret.save(&options.state_dir)?;
        }
        let export = secret.export.clone();
        let files = Arc::new(Files::new(vfs.clone()));
        let nfs = Arc::new(Nfs {
            vfs,
            files: files.clone(),
            secret,
            read_only: options.read_only,
            verifier: writeverf3(clock.random().to_be_bytes()),
        });
        let owner = rustix::process::geteuid().as_raw();
        let server = Arc::new(Server { nfs, replies: Default::default(), owner, others: options.allow_other });
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(server::serve(server, listener, stopped.clone()));
        let closing = tokio::spawn(close_quiet(files.clone(), stopped));
        Ok(NfsServer { files, port, export, stop, tasks: vec![serving, closing] })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path that a client has to name. It is what keeps others out.
    pub fn export(&self) -> String {
        format!("/{}", self.export)
    }

    /// Ends all connections, then closes, and so seals, what clients had written. Clients wait, and go on with the next
    /// server.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        for t in std::mem::take(&mut self.tasks) {
            let _ = t.await;
        }
        let files = self.files.clone();
        let _ = tokio::task::spawn_blocking(move || files.close_quiet(true)).await;
    }
}

impl Drop for NfsServer {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// Listens on the port that is asked for, or on that of last time, or on any.
async fn listen(asked: u16, last: u16) -> Result<TcpListener> {
    let at = |port: u16| TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let port = if asked != 0 { asked } else { last };
    match at(port).await {
        Ok(l) => Ok(l),
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            let which = if asked != 0 { "" } else { ", on which clients have it mounted" };
            Err(Error::new(Kind::Busy, format!("port {port} of the NFS server{which}, is in use by another program"))
                .hint("end that program, or choose another port: nfs.port in the configuration"))
        }
        Err(e) => Err(Error::io(format!("listening on 127.0.0.1:{port}"), e)),
    }
}

async fn close_quiet(files: Arc<Files>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = stop.wait_for(|s| *s) => return,
        }
        let f = files.clone();
        let _ = tokio::task::spawn_blocking(move || f.close_quiet(false)).await;
    }
}

/// What mounts it here, on a line: with the system's own client.
pub fn mount_command(port: u16, export: &str, at: &Path) -> Vec<String> {
    let at = at.display();
    if cfg!(target_os = "macos") {
        let options =
            format!("vers=3,tcp,port={port},mountport={port},locallocks,noresvport,rsize=1048576,wsize=1048576,actimeo=1,hard,intr");
        return ["/sbin/mount_nfs", "-o", &options, &format!("127.0.0.1:{export}"), &at.to_string()].map(str::to_owned).into();
    }
    let options = format!(
        "vers=3,proto=tcp,mountproto=tcp,port={port},mountport={port},local_lock=all,nolock,noacl,noresvport,rsize=1048576,wsize=1048576,actimeo=1,hard"
    );
    ["mount", "-t", "nfs", "-o", &options, &format!("127.0.0.1:{export}"), &at.to_string()].map(str::to_owned).into()
}
