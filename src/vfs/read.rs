//! Reading: at once where the bytes are here, else after they were fetched.
//!
//! Must: only a call that says so (`async`) waits for the store, and only up to the read deadline.
//! Not here: fetching (`hydrate`).

use super::{Brings, Vfs, control};
use crate::content::Priority;
use crate::error::{Error, Kind, Result};
use bytes::Bytes;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A range that can be read at once.
pub struct ReadNow {
    from: Source,
    /// Bytes to read at the offset asked for; less than asked at the end of the file.
    pub len: usize,
}

enum Source {
    /// The local file.
    File(Arc<File>),
    /// The bytes themselves.
    Bytes(Bytes),
}

impl ReadNow {
    /// From a local file.
    pub(super) fn file(file: Arc<File>, len: usize) -> ReadNow {
        ReadNow { from: Source::File(file), len }
    }

    /// What was asked for.
    pub(super) fn bytes(bytes: Bytes) -> ReadNow {
        ReadNow { len: bytes.len(), from: Source::Bytes(bytes) }
    }

    /// The local file that they are in; none for bytes that are in no file.
    pub fn local(&self) -> Option<&File> {
        match &self.from {
            Source::File(file) => Some(file),
            Source::Bytes(_) => None,
        }
    }

    /// Reads the bytes at `offset`, which is the one asked for, into `buf`, which has `len` bytes. Blocking on the local disk.
    pub fn read_into(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let file = match &self.from {
            Source::File(file) => file,
            Source::Bytes(bytes) => {
                buf.copy_from_slice(&bytes[..buf.len()]);
                return Ok(());
            }
        };
        let mut done = 0;
        while done < buf.len() {
            match file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("reading local bytes", e)),
            }
        }
        // A sparse end that the local file does not have yet reads as zeros.
        buf[done..].fill(0);
        Ok(())
    }
}

/// For so long after a read that found no store further reads through the same handle do not wait for it, milliseconds.
const GAVE_UP: i64 = 1000;

impl Vfs {
    /// What of a read can be served at once; none if bytes must be fetched ([`Vfs::hydrate_read`]).
    pub fn read_now(self: &Arc<Self>, fh: u64, off: u64, len: usize) -> Result<Option<ReadNow>> {
        if control::is_handle(fh) {
            return Ok(None);
        }
        let h = self.handle(fh)?;
        let (now, whole, size) = {
            let mut st = h.node.st.lock();
            let end = off.saturating_add(len as u64).min(st.size);
            let len = end.saturating_sub(off) as usize;
            // First the file, which tells whether it is still there.
            let file = self.local_file(&h.node, &mut st)?;
            if len > 0 && !st.is_here(off..end) { (None, false, st.size) } else { (Some(ReadNow::file(file, len)), st.is_whole(), st.size) }
        };
        let brings = h.allowance.get();
        if now.is_none() && brings == Brings::Nothing {
            return Err(Error::new(Kind::Denied, format!("inode {}: this program may not bring bytes here", h.node.ino)));
        }
        if !whole && brings == Brings::All {
            let range = h.ahead.lock().on_read(off, len as u64, size);
            self.prefetch(&h.node, range);
        }
        Ok(now)
    }

    /// Brings the bytes of a read here, waiting for the store up to the read deadline. Cancel-safe.
    pub async fn hydrate_read(self: &Arc<Self>, fh: u64, off: u64, len: usize) -> Result<ReadNow> {
        if control::is_handle(fh) {
            return self.read_control(fh, off, len).await.map(ReadNow::bytes);
        }
        let h = self.handle(fh)?;
        let range = off..off.saturating_add(len as u64);
        // A kernel asks again at once, for less, when a read failed: that must not take the deadline twice.
        let since = self.clock.now_ms() - h.gave_up.load(Ordering::Acquire);
        if (0..GAVE_UP).contains(&since) {
            return Err(Error::new(Kind::Timeout, format!("reading inode {}: the store did not answer just now", h.node.ino)));
        }
        let mut done = self.hydrate_range(&h.node, range.clone(), Priority::Foreground).await;
        if done.as_ref().is_err_and(|e| e.kind() == Kind::NoSpace) {
            match self.read_aside(&h.node, range).await {
                Ok((file, len)) => return Ok(ReadNow::file(Arc::new(file), len)),
                Err(e) => done = Err(e),
            }
        }
        if let Err(e) = done {
            if e.kind().is_transient() {
                h.gave_up.store(self.clock.now_ms(), Ordering::Release);
            }
            let path = self.path_of(h.node.ino).map_or_else(|_| format!("inode {}", h.node.ino), |p| p.to_string());
            let e = e.context(format!("reading {path:?} at {off}"));
            // The file is there; it is its bytes that are not to be had.
            return Err(if e.kind() == Kind::NotFound {
                Error::new(Kind::Corrupt, "the store has lost a part of a file").source(e)
            } else {
                e
            });
        }
        let mut st = h.node.st.lock();
        let end = off.saturating_add(len as u64).min(st.size);
        Ok(ReadNow::file(self.local_file(&h.node, &mut st)?, end.saturating_sub(off) as usize))
    }

    /// `SEEK_DATA` / `SEEK_HOLE`: by the local file where all is here, else everything counts as data.
    pub fn seek(&self, fh: u64, off: i64, whence: i32) -> Result<i64> {
        if control::is_handle(fh) {
            return self.seek_control(fh, off, whence);
        }
        let h = self.handle(fh)?;
        let mut st = h.node.st.lock();
        self.absorb(&mut st)?;
        let nothing = || Error::new(Kind::Invalid, "seeking beyond the end");
        if off < 0 || off as u64 >= st.size {
            return Err(Error::new(Kind::BeyondEnd, "seeking beyond the end"));
        }
        let whole = st.is_whole();
        match whence {
            libc::SEEK_DATA | libc::SEEK_HOLE if whole => {
                let file = self.local_file(&h.node, &mut st)?;
                let from = match whence {
                    libc::SEEK_DATA => rustix::fs::SeekFrom::Data(off as u64),
                    _ => rustix::fs::SeekFrom::Hole(off as u64),
                };
                // The offset of the shared descriptor is used by nobody: all I/O names its own.
                rustix::fs::seek(&*file, from).map(|n| n as i64).map_err(|e| Error::io("seeking", e.into()))
            }
            libc::SEEK_DATA => Ok(off),
            libc::SEEK_HOLE => Ok(st.size as i64),
            _ => Err(nothing()),
        }
    }
}
