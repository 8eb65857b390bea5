//! The daemon's end of the socket: accepts, checks who it is, passes requests to the service.
//!
//! Must: only the same user and root are served, whatever the mode of the socket file.
//! Must: a client that goes away cancels its running request; a slow one holds up only itself.
//! Must: bound only by the owner of the state, so that a socket file found there is a dead daemon's.
//! Not here: what requests do (`service`).

use super::paths::{SOCKET_PATH_MAX, short_dir};
use super::protocol::{FromClient, FromDaemon, Hello, Request, WireError};
use super::service::{Progress, Service, Update};
use crate::error::{Error, IoContext, Kind, Result};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Longest request line; paths are at most 4096 bytes, so this leaves room for any escape.
const LINE_MAX: u64 = 1 << 20;
/// Updates in flight to a client before a list waits for it.
const UPDATES: usize = 256;
/// How long running requests may go on once the daemon stops.
const LAST_REQUESTS: Duration = Duration::from_secs(5);

/// A bound socket.
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    open: Arc<AtomicUsize>,
}

impl Server {
    /// Binds `path` with mode 0600, over the socket that a dead daemon left. Its directory must exist, except for
    /// the short one below `/tmp`, which is made.
    pub fn bind(path: &Path) -> Result<Server> {
        let doing = || format!("opening the socket {}", path.display());
        if path.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(Error::new(Kind::NameTooLong, format!("{}: over {SOCKET_PATH_MAX} bytes", doing())));
        }
        if let Some(dir) = short_dir(path) {
            private_dir(dir, true)?;
        }
        match std::fs::symlink_metadata(path) {
            Ok(m) if m.file_type().is_socket() => std::fs::remove_file(path).doing(doing)?,
            Ok(_) => return Err(Error::new(Kind::Exists, format!("{}: something else is there", doing()))),
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).doing(doing)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).doing(doing)?;
        Ok(Server { listener, path: path.to_owned(), open: Arc::new(AtomicUsize::new(0)) })
    }

    /// Counts the clients that are connected.
    pub fn connections(&self) -> Arc<AtomicUsize> {
        self.open.clone()
    }

    /// Serves until `stop` says true; then accepts nobody, removes the socket, and gives running requests a moment.
    pub async fn serve(self, service: Arc<dyn Service>, mut stop: watch::Receiver<bool>) {
        let mut clients = JoinSet::new();
        let for_clients = stop.clone();
        loop {
            tokio::select! {
                () = stopped(&mut stop) => break,
                Some(_) = clients.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let (service, open, stop) = (service.clone(), self.open.clone(), for_clients.clone());
                        open.fetch_add(1, Ordering::SeqCst);
                        clients.spawn(async move {
                            let _count = Count(open);
                            if let Err(e) = client(stream, service, stop).await {
                                tracing::debug!(error = %e, "a client left");
                            }
                        });
                    }
                    Err(e) => {
                        // Out of descriptors, most likely: others close theirs sooner or later.
                        tracing::warn!(error = %e, "accepting a client");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
        drop(self.listener);
        let _ = std::fs::remove_file(&self.path);
        let _ = tokio::time::timeout(LAST_REQUESTS, async { while clients.join_next().await.is_some() {} }).await;
        clients.shutdown().await;
    }
}

/// Returns once `stop` says true, or can no longer say anything.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|s| *s).await;
}

/// One fewer client when dropped.
struct Count(Arc<AtomicUsize>);

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Checks that `dir` is a directory of ours that nobody else can enter; makes it if asked to.
pub fn private_dir(dir: &Path, make: bool) -> Result<()> {
    if make {
        match std::fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::io(format!("making the socket directory {}", dir.display()), e));
            }
            _ => {}
        }
    }
    let m = std::fs::symlink_metadata(dir).doing(|| format!("looking at the socket directory {}", dir.display()))?;
    if m.is_dir() && m.uid() == rustix::process::getuid().as_raw() && m.mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(Error::new(Kind::Denied, format!("{} is not a private directory of this user", dir.display()))
        .hint("somebody else may have made it; have it removed, or use a shorter --state-dir"))
}

async fn client(stream: UnixStream, service: Arc<dyn Service>, mut stop: watch::Receiver<bool>) -> Result<()> {
    let peer = stream.peer_cred().doing(|| "asking who the client is")?;
    let (read, mut write) = stream.into_split();
    let me = rustix::process::getuid().as_raw();
    if !may_ask(peer.uid(), me) {
        let e = Error::new(Kind::Denied, format!("this daemon belongs to user {me}; user {} is not served", peer.uid()));
        return send(&mut write, &FromDaemon::Error(WireError::from(&e))).await;
    }
    send(&mut write, &FromDaemon::Hello(Hello::here())).await?;
    let mut read = BufReader::new(read);
    loop {
        // Between requests a stopping daemon closes; a request that has begun is finished.
        let line = tokio::select! {
            line = read_line(&mut read) => line?,
            () = stopped(&mut stop) => return Ok(()),
        };
        let Some(line) = line else { return Ok(()) };
        let FromClient::Request(request) = match serde_json::from_slice(&line) {
            Ok(r) => r,
            Err(e) => {
                let e = Error::new(Kind::Invalid, "this request is not understood").source(e).hint("is it of another version of tcfs?");
                send(&mut write, &FromDaemon::Error(WireError::from(&e))).await?;
                continue;
            }
        };
        answer(request, &service, &mut read, &mut write).await?;
    }
}

/// Whether a process of user `peer` may ask the daemon of user `me`.
fn may_ask(peer: u32, me: u32) -> bool {
    peer == me || peer == 0
}

/// Runs one request; dropped with everything in it when the client goes away.
async fn answer(
    request: Request,
    service: &Arc<dyn Service>,
    read: &mut BufReader<OwnedReadHalf>,
    write: &mut OwnedWriteHalf,
) -> Result<()> {
    let op = request.op();
    let (progress, mut updates) = Progress::channel(UPDATES);
    let call = service.call(request, &progress);
    tokio::pin!(call);
    let mut watch_client = true;
    let result = loop {
        tokio::select! {
            biased;
            Some(update) = updates.recv() => send(write, &frame(update)).await?,
            result = &mut call => break result,
            more = read.fill_buf(), if watch_client => match more {
                Ok(bytes) if !bytes.is_empty() => watch_client = false,
                _ => {
                    tracing::debug!(op, "the client went away, the request is dropped");
                    return Err(Error::new(Kind::Interrupted, "the client went away"));
                }
            },
        }
    };
    // What was reported before the end is sent before it.
    while let Ok(update) = updates.try_recv() {
        send(write, &frame(update)).await?;
    }
    let last = match result {
        Ok(response) => FromDaemon::Result(Box::new(response)),
        Err(e) => {
            tracing::debug!(op, error = %e, kind = e.kind().name(), "a request failed");
            FromDaemon::Error(WireError::from(&e))
        }
    };
    send(write, &last).await
}

fn frame(update: Update) -> FromDaemon {
    match update {
        Update::Progress(p) => FromDaemon::Progress(p),
        Update::Item(i) => FromDaemon::Item(i),
    }
}

/// A line without its newline; none at the end.
async fn read_line(read: &mut BufReader<OwnedReadHalf>) -> Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    read.take(LINE_MAX).read_until(b'\n', &mut line).await.doing(|| "reading a request")?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) => Err(Error::new(Kind::Invalid, "a request without an end")),
    }
}

async fn send(write: &mut OwnedWriteHalf, frame: &FromDaemon) -> Result<()> {
    let mut line = serde_json::to_vec(frame).map_err(|e| Error::new(Kind::Internal, "writing an answer").source(e))?;
    line.push(b'\n');
    write.write_all(&line).await.doing(|| "answering a client")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_and_root_are_served() {
        assert!(may_ask(1000, 1000) && may_ask(0, 1000));
        assert!(!may_ask(1001, 1000) && !may_ask(1000, 0));
    }

    #[test]
    fn a_directory_that_others_can_enter_is_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("d");
        private_dir(&dir, true).unwrap();
        private_dir(&dir, true).unwrap();
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(private_dir(&dir, true).unwrap_err().kind(), Kind::Denied);
        std::os::unix::fs::symlink(tmp.path(), tmp.path().join("l")).unwrap();
        assert_eq!(private_dir(&tmp.path().join("l"), true).unwrap_err().kind(), Kind::Denied);
    }

    #[tokio::test]
    async fn the_socket_is_private_and_replaces_only_a_socket() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("s");
        drop(Server::bind(&path).unwrap());
        let again = Server::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        drop(again);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(Server::bind(&path).err().unwrap().kind(), Kind::Exists);
        let long = tmp.path().join("x".repeat(120));
        assert_eq!(Server::bind(&long).err().unwrap().kind(), Kind::NameTooLong);
    }
}
