//! Passthrough: the kernel reads and writes local files itself.
//!
//! Must: while an inode has passthrough opens every open of it uses the same backing id, and while it has cached
//! opens none is passthrough: the kernel answers a mixture with EIO.
//! Not here: whether a file may be lent (`vfs::lent`).

use super::Fuse;
use fuser::BackingId;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A read-only descriptor of the same local file: what the kernel is given must not itself count as a writer.
pub(super) fn read_only(file: &std::fs::File) -> io::Result<std::fs::File> {
    use std::os::fd::AsRawFd;
    std::fs::File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Files below this are served over us: registering a backing file costs more than it saves.
pub(super) const PASSTHROUGH_FROM: u64 = 128 << 10;

impl Fuse {
    /// The backing id for an open, if the kernel is to use the local file itself.
    pub(super) fn backing(
        &self,
        ino: u64,
        fh: u64,
        wants: bool,
        open: impl FnOnce(&std::fs::File) -> io::Result<BackingId>,
    ) -> Option<Arc<BackingId>> {
        let shard = self.backing.entry(ino);
        let (direct, _) = self.vfs.open_modes(ino);
        if direct == 0 && !(wants && self.passthrough.load(Ordering::Relaxed)) {
            return None;
        }
        match self.vfs.lend(fh) {
            Ok(Some(file)) => {
                let id = match shard {
                    dashmap::Entry::Occupied(mut o) => {
                        o.get_mut().1 += 1;
                        o.get().0.clone()
                    }
                    dashmap::Entry::Vacant(v) => match open(&file) {
                        Ok(id) => {
                            let id = Arc::new(id);
                            v.insert((id.clone(), 1));
                            id
                        }
                        Err(e) => {
                            tracing::info!(error = %e, "passthrough is not possible here; files are served by the daemon");
                            self.passthrough.store(false, Ordering::Relaxed);
                            return None;
                        }
                    },
                };
                Some(id)
            }
            Ok(None) => None,
            Err(e) => {
                tracing::warn!(ino, error = %e, "lending a local file to the kernel");
                None
            }
        }
    }

    pub(super) fn unback(&self, ino: u64) {
        if let dashmap::Entry::Occupied(mut o) = self.backing.entry(ino) {
            o.get_mut().1 -= 1;
            if o.get().1 == 0 {
                o.remove();
            }
        }
    }
}
