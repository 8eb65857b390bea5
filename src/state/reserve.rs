//! Space kept back on the disk for the local state, so that it can be written when everybody else has filled the disk.
//!
//! The file `<state>/reserve` is allocated while there is room. When the database or its journal meets a full disk,
//! a piece of it is given up and the write is tried again; removing files therefore works on a full disk, and what it
//! frees makes the reserve whole again.
//!
//! Must: given up in pieces, never at once: a kernel that writes local files directly takes what is free without asking.
//! Must: while a piece is missing, `is_low` says so, and whoever only adds (new files, written and fetched bytes) is
//! refused: the rest is for removing and for what was written already.
//! Not here: who asks (`db`), who is refused (`vfs`).

use crate::error::{Error, IoContext, Result};
use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes kept back.
pub const BYTES: u64 = 64 << 20;
/// Bytes given up at a time.
const PIECE: u64 = 8 << 20;
/// Free bytes that must remain when the reserve is made whole again; else it would be given up at once.
const MARGIN: u64 = 1 << 20;

/// The reserve of one state directory.
pub struct Reserve {
    path: PathBuf,
    held: Mutex<Held>,
    low: AtomicBool,
}

struct Held {
    file: Option<File>,
    /// Allocated now.
    now: u64,
    /// To be allocated; 0 until [`Reserve::keep`] said how much.
    want: u64,
}

impl Reserve {
    /// The reserve as an earlier process left it in `dir`. Allocates nothing.
    pub fn found(dir: &Path) -> Reserve {
        let path = dir.join("reserve");
        let file = OpenOptions::new().write(true).open(&path).ok();
        let now = file.as_ref().and_then(|f| f.metadata().ok()).map_or(0, |m| m.len());
        Reserve { path, held: Mutex::new(Held { file, now, want: 0 }), low: AtomicBool::new(false) }
    }

    /// From now on `bytes` are to be kept back. Without room for them it goes on with what is there.
    pub fn keep(&self, bytes: u64) -> Result<()> {
        {
            let mut h = self.held.lock();
            h.want = bytes;
            if h.file.is_none() {
                let f = OpenOptions::new().write(true).create(true).truncate(false).open(&self.path);
                h.file = Some(f.doing(|| format!("making the reserve {}", self.path.display()))?);
            }
        }
        self.refill()
    }

    /// Gives a piece up. False if nothing is left to give.
    pub fn give_up(&self) -> bool {
        let mut h = self.held.lock();
        let Some(f) = h.file.as_ref().filter(|_| h.now > 0) else { return false };
        let left = h.now.saturating_sub(PIECE);
        if let Err(e) = f.set_len(left) {
            tracing::error!(error = %e, "the reserve of the local state could not be used");
            return false;
        }
        h.now = left;
        if !self.low.swap(true, Ordering::AcqRel) {
            tracing::warn!(left, "the disk is full: the reserve of the local state is used; nothing new is taken until there is room");
        }
        true
    }

    /// Whether a piece is missing, after trying to get it back. Cheap while none is.
    pub fn is_low(&self) -> bool {
        if !self.low.load(Ordering::Acquire) {
            return false;
        }
        if let Err(e) = self.refill() {
            tracing::debug!(error = %e, "the reserve cannot be made whole yet");
        }
        self.low.load(Ordering::Acquire)
    }

    /// Makes the reserve whole if there is room. Errors of the disk other than being full.
    pub fn refill(&self) -> Result<()> {
        let mut h = self.held.lock();
        let missing = h.want.saturating_sub(h.now);
        let Some(f) = h.file.as_ref().filter(|_| missing > 0) else {
            if h.want > 0 {
                self.low.store(false, Ordering::Release);
            }
            return Ok(());
        };
        let doing = || format!("allocating the reserve {}", self.path.display());
        let disk = rustix::fs::fstatvfs(f).map_err(std::io::Error::from).doing(doing)?;
        let free = if rustix::process::geteuid().is_root() { disk.f_bfree } else { disk.f_bavail }.saturating_mul(disk.f_frsize);
        if free < missing + MARGIN {
            self.low.store(true, Ordering::Release);
            return Ok(());
        }
        let (start, all) = (h.now, h.want);
        match crate::sys::fallocate(f, 0, start, all - start) {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                // A disk that counts in another way: what was allocated in part is let go.
                self.low.store(true, Ordering::Release);
                return f.set_len(start).doing(doing);
            }
            // A disk without allocation keeps nothing back; it must not look full for ever.
            Err(e) if e.kind() == ErrorKind::Unsupported => {
                h.want = h.now;
                self.low.store(false, Ordering::Release);
                return Ok(());
            }
            Err(e) => return Err(Error::io(doing(), e)),
        }
        h.now = all;
        if self.low.swap(false, Ordering::AcqRel) {
            tracing::info!("there is room again: the reserve of the local state is whole");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn allocated(dir: &Path) -> u64 {
        std::fs::metadata(dir.join("reserve")).map_or(0, |m| m.blocks() * 512)
    }

    #[test]
    fn is_given_up_in_pieces_and_made_whole_when_there_is_room() {
        let t = tempfile::tempdir().unwrap();
        let r = Reserve::found(t.path());
        assert!(!r.give_up(), "gave up what it does not have");
        r.keep(3 * PIECE).unwrap();
        assert_eq!(allocated(t.path()), 3 * PIECE);
        assert!(!r.is_low());
        assert!(r.give_up());
        assert_eq!(allocated(t.path()), 2 * PIECE);
        // There is room on this disk, so asking makes it whole.
        assert!(!r.is_low());
        assert_eq!(allocated(t.path()), 3 * PIECE);
        for _ in 0..3 {
            assert!(r.give_up());
        }
        assert!(!r.give_up());
        assert_eq!(allocated(t.path()), 0);
    }

    #[test]
    fn what_an_earlier_process_kept_can_be_given_up_before_anything_is_allocated() {
        let t = tempfile::tempdir().unwrap();
        Reserve::found(t.path()).keep(2 * PIECE).unwrap();
        let r = Reserve::found(t.path());
        assert!(r.give_up() && r.give_up() && !r.give_up());
        assert!(r.is_low(), "nobody said how much is to be kept, so it cannot be whole");
        r.keep(PIECE).unwrap();
        assert!(!r.is_low());
    }
}
