//! Connections: records in, calls to where they are answered, replies out.
//!
//! Must: only the loopback is listened on. Must: nobody but the owner of the drive (and root) is served, unless others were
//! let in; an unknown caller learns nothing. Must: what was done is not done twice because an answer was lost.

use super::buffers::Buffers;
use super::procedures::Nfs;
use super::replies::Replies;
use super::wire::{Args, Call, Caller, Garbage, Reply, read_record};
use nfs3_types::rpc::accept_stat;
use nfs3_types::{mount, nfs3};
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};

/// Calls of one connection that are answered at a time; what comes beyond waits in the connection.
const CALLS: usize = 256;
/// Connections at a time. A kernel has one or two.
const CONNECTIONS: usize = 64;

/// What is served to whom.
pub(super) struct Server {
    pub(super) nfs: Arc<Nfs>,
    pub(super) buffers: Arc<Buffers>,
    pub(super) replies: Replies,
    /// The owner of the drive.
    pub(super) owner: u32,
    /// Others may come in too, as far as modes let them.
    pub(super) others: bool,
}

/// Serves until `stop` says true.
pub(super) async fn serve(server: Arc<Server>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            a = listener.accept() => a,
            _ = stop.wait_for(|s| *s) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let Ok(permit) = room.clone().try_acquire_owned() else {
                    tracing::warn!("more than {CONNECTIONS} connections to the NFS server: one was closed");
                    continue;
                };
                let (server, mut stop) = (server.clone(), stop.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        done = connection(server, stream) => {
                            if let Err(e) = done {
                                tracing::debug!(error = %e, "a connection to the NFS server ended");
                            }
                        }
                        _ = stop.wait_for(|s| *s) => {}
                    }
                    drop(permit);
                });
            }
            Err(e) => {
                tracing::warn!(error = %e, "taking a connection to the NFS server");
                // Out of descriptors, mostly: until there are some.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(server: Arc<Server>, stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut from, to) = stream.into_split();
    let (send, receive) = mpsc::unbounded_channel();
    let writing = tokio::spawn(write_replies(to, receive, server.buffers.clone()));
    let calls = Arc::new(Semaphore::new(CALLS));
    let done = loop {
        let record = match read_record(&mut from).await {
            Ok(Some(r)) => r,
            Ok(None) => break Ok(()),
            Err(e) => break Err(e),
        };
        let Ok(permit) = calls.clone().acquire_owned().await else { break Ok(()) };
        let (server, send) = (server.clone(), send.clone());
        tokio::spawn(async move {
            if let Some(reply) = answer(&server, &Arc::new(record)).await {
                let _ = send.send(reply);
            }
            drop(permit);
        });
    };
    drop(send);
    let _ = writing.await;
    done
}

async fn write_replies(mut to: OwnedWriteHalf, mut replies: mpsc::UnboundedReceiver<Reply>, buffers: Arc<Buffers>) {
    while let Some(Reply(bytes)) = replies.recv().await {
        if to.write_all(&bytes).await.is_err() {
            return;
        }
        buffers.give(bytes);
    }
}

/// The reply to a record; none to what is no call.
async fn answer(server: &Arc<Server>, record: &Arc<Vec<u8>>) -> Option<Reply> {
    let mut args = Args(record);
    let call = match args.call() {
        Ok(c) => c,
        Err(Garbage) => {
            tracing::debug!("a record that is no call was passed over");
            return None;
        }
    };
    let (xid, at) = (call.xid, record.len() - args.0.len());
    if call.rpc_version != 2 {
        return Some(Reply::other_rpc(xid));
    }
    let (is_nfs, version) = match call.program {
        nfs3::PROGRAM => (true, nfs3::VERSION),
        mount::PROGRAM => (false, mount::VERSION),
        _ => return Some(Reply::failed(xid, accept_stat::PROG_UNAVAIL)),
    };
    if call.version != version {
        return Some(Reply::other_version(xid, version));
    }
    // Whether anybody is there may be asked by everybody.
    if call.procedure == 0 {
        return Some(Reply::of(xid, &nfs3_types::xdr_codec::Void));
    }
    if !is_nfs {
        // Who does not say who he is may be a mount helper; the path is what he has to know.
        if call.caller.as_ref().is_some_and(|c| !server.is_served(c)) {
            return Some(Reply::refused(xid));
        }
        let (nfs, record) = (server.nfs.clone(), record.clone());
        let done = tokio::task::spawn_blocking(move || nfs.answer_mount(xid, call.procedure, Args(&record[at..]))).await;
        return Some(done.unwrap_or_else(|_| Reply::failed(xid, accept_stat::SYSTEM_ERR)));
    }
    let Some(caller) = call.caller.clone().filter(|c| server.is_served(c)) else {
        tracing::warn!(uid = call.caller.map(|c| c.uid), "a caller who is not the owner of the drive was refused");
        return Some(Reply::refused(xid));
    };
    if !changes(&call) {
        return Some(server.nfs.answer(&call, caller, record, at).await);
    }
    // Not done twice: a client that lost its connection sends it again.
    let slot = server.replies.slot(record);
    Some(slot.get_or_init(|| server.nfs.answer(&call, caller, record, at)).await.clone())
}

/// Whether doing a call again would give another answer.
fn changes(call: &Call) -> bool {
    use nfs3::NFS_PROGRAM::*;
    let changing = [NFSPROC3_SETATTR, NFSPROC3_CREATE, NFSPROC3_MKDIR, NFSPROC3_SYMLINK, NFSPROC3_REMOVE, NFSPROC3_RMDIR, NFSPROC3_RENAME];
    changing.iter().any(|p| *p as u32 == call.procedure)
}

impl Server {
    fn is_served(&self, caller: &Caller) -> bool {
        self.others || caller.uid == self.owner || caller.uid == 0
    }
}
