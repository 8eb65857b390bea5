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
mod buffers;
mod convert;
mod files;
mod handle;
mod info;
mod listing;
mod making;
mod mountd;
mod procedures;
mod replies;
mod secret;
mod server;
mod sweeps;
mod wire;

use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::vfs::{ROOT, Vfs};
use buffers::Buffers;
use files::Files;
use nfs3_types::nfs3::writeverf3;
use procedures::Nfs;
use secret::Secret;
use server::Server;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    /// The file is to be there by which Spotlight leaves a volume alone.
    pub keep_spotlight_out: bool,
    /// Where the export is kept from one start to the next.
    pub state_dir: PathBuf,
}

/// A server of the drive; stops when dropped, without closing what is open: [`NfsServer::stop`] does.
pub struct NfsServer {
    nfs: Arc<Nfs>,
    files: Arc<Files>,
    port: u16,
    export: String,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

/// The path that a server with this state is mounted by, as far as there was one before.
pub fn last_export(state_dir: &Path) -> Option<String> {
    Secret::last(state_dir).map(|s| s.path())
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
        let export = secret.path();
        let owner = rustix::process::geteuid().as_raw();
        let buffers = Arc::new(Buffers::default());
        let files = Arc::new(Files::new(vfs.clone(), buffers.clone()));
        if options.keep_spotlight_out {
            let vfs = vfs.clone();
            let made = tokio::task::spawn_blocking(move || keep_spotlight_out(&vfs, owner)).await;
            if let Ok(Err(e)) = made {
                tracing::warn!(error = %e, "Spotlight may index the drive, and so fetch it");
            }
        }
        let nfs = Arc::new(Nfs {
            vfs,
            files: files.clone(),
            secret,
            read_only: options.read_only,
            verifier: writeverf3(clock.random().to_be_bytes()),
            admits: AtomicBool::new(false),
        });
        let server = Arc::new(Server { nfs: nfs.clone(), buffers, replies: Default::default(), owner, others: options.allow_other });
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(server::serve(server, listener, stopped.clone()));
        let closing = tokio::spawn(close_quiet(files.clone(), stopped));
        Ok(NfsServer { nfs, files, port, export, stop, tasks: vec![serving, closing] })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it can be mounted: at first not. A path that is mounted is in the system's table for everybody to see, so
    /// it opens the drive only while whoever is to mount it does; clients that have it go on.
    pub fn admit(&self, on: bool) {
        self.nfs.admits.store(on, Ordering::Release);
    }

    /// The path that a client has to name. It is what keeps others out.
    pub fn export(&self) -> String {
        self.export.clone()
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

/// Makes the file in the root that tells Spotlight to leave this volume alone, if it is not there. It never leaves this
/// machine.
fn keep_spotlight_out(vfs: &Arc<Vfs>, owner: u32) -> Result<()> {
    let group = rustix::process::getegid().as_raw();
    match vfs.create(ROOT, b".metadata_never_index", 0o644, owner, group) {
        Ok((_, opened)) => vfs.release(opened.fh),
        Err(e) if e.kind() == Kind::Exists => Ok(()),
        Err(e) => Err(e),
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
