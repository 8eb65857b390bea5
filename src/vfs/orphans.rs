//! Inodes that lost their last name: their rows and bytes go when nobody has them open.
//!
//! Must: bytes that a program synced and that are nowhere else go only when the loss of the name is durable: after a power
//! cut the name may be back.

use super::Vfs;
use crate::error::{Error, Result};
use crate::state::Tree;
use crate::state::rows::{Inode, Local, Promise};
use std::sync::atomic::Ordering;

impl Vfs {
    /// Removes the bytes and rows of an inode without names, unless it is open.
    pub(crate) fn orphaned(&self, ino: u64) {
        if let Some(n) = self.loaded(ino) {
            n.gone.store(true, Ordering::Release);
            if n.opens.load(Ordering::Acquire) > 0 {
                return;
            }
            self.nodes.remove(&ino);
        }
        match self.remove_inode(ino, false) {
            Ok(true) => {}
            Ok(false) => {
                self.orphans.lock().push(ino);
                // On a full disk whoever removes a file needs the space now.
                if self.replica.db().is_low()
                    && let Err(e) = self.free_orphans()
                {
                    tracing::warn!(ino, error = %e, "the bytes of a removed file could not be freed yet");
                }
            }
            Err(e) => tracing::warn!(ino, error = %e, "the bytes of a removed file could not be freed; the next start tries again"),
        }
    }

    /// Frees what waits until the loss of its last name is durable. Blocking on the local disk if something does.
    pub fn free_orphans(&self) -> Result<()> {
        let waiting = std::mem::take(&mut *self.orphans.lock());
        if waiting.is_empty() {
            return Ok(());
        }
        if let Err(e) = self.sync() {
            self.orphans.lock().extend(waiting);
            return Err(e);
        }
        for ino in waiting {
            if self.loaded(ino).is_none_or(|n| n.opens.load(Ordering::Acquire) == 0) {
                self.remove_inode(ino, true)?;
            }
        }
        Ok(())
    }

    /// Removes rows and bytes. False if they have to stay for now: a program synced these bytes, they are nowhere else,
    /// and a power cut could still bring the name back (unless the loss of it is `durable`).
    pub(crate) fn remove_inode(&self, ino: u64, durable: bool) -> Result<bool> {
        let mut wait = false;
        let gone = self.replica.db().write(|t| {
            let Some(i) = t.get::<Inode>(Tree::Inode, ino)? else {
                // Bytes that were being copied in when the process ended.
                t.del(Tree::Orphan, ino)?;
                return Ok(Some(()));
            };
            if !i.links.is_empty() {
                t.del(Tree::Orphan, ino)?;
                return Ok(None);
            }
            let local = t.get::<Local>(Tree::Local, ino)?;
            if !durable && local.as_ref().is_some_and(|l| l.promise != Promise::None) {
                wait = true;
                return Ok(None);
            }
            if let (Some(c), Some(l)) = (&i.content, &local) {
                super::hydrate::forget_chunks(t, ino, c, l)?;
            }
            t.del(Tree::Inode, ino)?;
            t.del(Tree::Local, ino)?;
            t.del(Tree::ChunkList, ino)?;
            t.del(Tree::Orphan, ino)?;
            t.del(Tree::Unsealed, ino)?;
            Ok(Some(()))
        })?;
        if gone.is_some() {
            self.cache.lock().remove(ino);
            for overlay in [true, false] {
                let path = self.local_path(ino, overlay);
                match std::fs::remove_file(&path) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::io(format!("removing {}", path.display()), e));
                    }
                    _ => {}
                }
            }
        }
        Ok(!wait)
    }
}
