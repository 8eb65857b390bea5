//! `fsync`: bytes, size and names so far are on the disk when it returns.
//!
//! Must: the local file is synced before the row that says so, and the row before the answer. Must: after a sync that
//! failed none succeeds until the bytes are in the store or written anew from the start.

use super::node::{Node, St};
use super::{Vfs, control};
use crate::error::{Error, Kind, Result};
use crate::state::rows::Promise;
use std::sync::atomic::Ordering;

/// Whether a file has bytes that are not published.
fn only_here(node: &Node, st: &St) -> bool {
    node.unsealed.load(Ordering::Acquire) || st.token.is_some()
}

impl Vfs {
    /// Makes bytes, size and everything named so far durable here. Blocking on the local disk.
    pub fn fsync(&self, fh: u64) -> Result<()> {
        if control::is_handle(fh) {
            return Ok(());
        }
        let h = self.handle(fh)?;
        self.fsync_node(&h.node)
    }

    pub(crate) fn fsync_node(&self, node: &Node) -> Result<()> {
        let (file, wgen) = {
            let mut st = node.st.lock();
            self.absorb(&mut st)?;
            if st.promise == Promise::Broken && only_here(node, &st) {
                return Err(Error::new(Kind::Io, format!("syncing inode {}: the disk failed to take its bytes before", node.ino))
                    .hint("write the file anew, or wait until it is published (`tcfs wait`); and look at the disk"));
            }
            if st.unsynced_boot == 0 && !st.stale_row && !st.stale_attr && !st.lent_writing {
                // On the disk already, but not because a program was told so: from now on it is.
                if only_here(node, &st) && st.promise == Promise::None {
                    (st.promise, st.stale_row) = (Promise::Kept, true);
                    self.persist(node, &mut st)?;
                }
                drop(st);
                return self.sync();
            }
            (self.local_file(node, &mut st)?, st.wgen)
        };
        if let Err(e) = file.sync_all() {
            let mut st = node.st.lock();
            (st.promise, st.stale_row) = (Promise::Broken, true);
            if let Err(e) = self.persist(node, &mut st) {
                tracing::error!(ino = node.ino, error = %e, "that its bytes could not be synced is forgotten at the next start");
            }
            return Err(Error::io(format!("syncing the local bytes of inode {}", node.ino), e));
        }
        // The name of a new local file.
        if let Some(dir) = self.local_path(node.ino, true).parent() {
            crate::state::journal::sync_dir(dir)?;
        }
        {
            let mut st = node.st.lock();
            if st.wgen == wgen {
                st.unsynced_boot = 0;
            }
            if only_here(node, &st) && st.promise == Promise::None {
                st.promise = Promise::Kept;
            }
            st.stale_row = true;
            self.persist(node, &mut st)?;
        }
        self.sync()
    }
}
