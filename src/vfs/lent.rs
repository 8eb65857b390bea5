//! Local files that the kernel reads and writes by itself (passthrough): lending them, and whether they were written.
//!
//! A file that is lent gets a time of change that no clock gives. The kernel sets the real one before the first byte of
//! a write, and before the first store into each page of a mapping that was clean: while the mark stands, nothing was
//! written.
//! Must: asked only of disks of which that is known. A mapping of a file in memory (tmpfs) is written without a trace.
//! Not here: when to seal (`seal`), handing the file to the kernel (`mount`).

use super::Vfs;
use super::node::St;
use super::open::Handle;
use crate::error::{IoContext, Result};
use crate::model::ranges::RangeSet;
use crate::state::rows::Time;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a file is as long as its mark stands. Each is a time in whole seconds, because some disks keep no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// What it was when it was lent, sealed or published.
    Lent = 1,
    /// What it was when a copy of it was begun, which may or may not have been sealed.
    Copied = 2,
}

/// ext2 to ext4, XFS, btrfs.
const KNOWN: [u64; 3] = [0xEF53, 0x5846_5342, 0x9123_683E];

/// Marks a file as unwritten from here on. False if its disk cannot be trusted to take the mark off again. Must not be
/// called while somebody may write the file and what was written before is not known.
pub(super) fn watch(file: &File, mark: Mark) -> Result<bool> {
    use rustix::fs::{Timespec, Timestamps, UTIME_OMIT};
    let disk = crate::sys::disk_kind(file).doing(|| "looking at the disk of a local file")?;
    if !KNOWN.contains(&disk) {
        return Ok(false);
    }
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mark as i64, tv_nsec: 0 },
    };
    rustix::fs::futimens(file, &times).map_err(std::io::Error::from).doing(|| "marking a local file")?;
    Ok(true)
}

/// The mark of [`watch`], if it stands.
pub(super) fn mark_of(file: &Metadata) -> Option<Mark> {
    let stands = |m: &Mark| (file.mtime(), file.mtime_nsec()) == (*m as i64, 0);
    [Mark::Lent, Mark::Copied].into_iter().find(stands)
}

/// Time of change of a local file, as it says itself.
pub(super) fn mtime_of(file: &File) -> Result<Time> {
    let m = file.metadata().doing(|| "looking at a local file")?;
    Ok(Time { sec: m.mtime(), nsec: m.mtime_nsec() as u32 })
}

impl Vfs {
    /// Notes that the kernel works on the local file of this handle directly. To be called before the open is
    /// answered; `file` is what to lend.
    pub fn lend(&self, fh: u64) -> Result<Option<Arc<File>>> {
        let h = self.handle(fh)?;
        let mut st = h.node.st.lock();
        if st.cached > 0 || !st.is_whole() {
            return Ok(None);
        }
        let first = h.write && !st.lent_writing;
        let sealed = !h.node.unsealed.load(Ordering::Acquire) && !st.local_only;
        let unsynced_boot = st.unsynced_boot;
        // In the row before the first byte: after a kill it says that there are no marks to go by.
        let known = std::mem::replace(&mut st.lent, true);
        st.stale_row |= !known;
        if h.write {
            // From here on the kernel writes without asking: everything may change.
            let size = st.size;
            self.before_change(&h.node, &mut st, 0..size.max(1))?;
        }
        let file = self.local_file(&h.node, &mut st)?;
        if first && sealed && watch(&file, Mark::Lent)? {
            // Until the file itself says otherwise it is what was sealed or published.
            (st.sealed_wgen, st.unsynced_boot) = (Some(st.wgen), unsynced_boot);
        } else if h.write && !st.is_sealed() {
            st.dirty = RangeSet::of(0..st.size);
            st.wgen += 1;
            st.stale_row = true;
        }
        st.lent_writing |= h.write;
        if h.write && !h.lent.swap(true, Ordering::AcqRel) {
            // At once: a seal of the open before this one must not come between, it would take the file for quiet.
            st.passthrough_writers += 1;
        }
        if first {
            st.seen_mtime = mtime_of(&file)?;
        }
        // (A file that was never cut is taken as it lies in any case.)
        if h.write && !known && !sealed && st.content.is_some() {
            self.persist(&h.node, &mut st)?;
        }
        Ok(Some(file))
    }

    /// Counts an open as served by the kernel from the local file (`true`) or over us.
    pub fn count_open(&self, fh: u64, passthrough: bool) -> Result<()> {
        let h = self.handle(fh)?;
        let mut st = h.node.st.lock();
        if passthrough {
            st.passthrough += 1;
        } else {
            st.cached += 1;
            if h.lent.swap(false, Ordering::AcqRel) {
                st.passthrough_writers -= 1;
            }
        }
        drop(st);
        if passthrough {
            self.handles.alter(&fh, |_, h| Arc::new(Handle::new(h.node.clone(), h.write, true, h.lent.load(Ordering::Acquire))));
        }
        Ok(())
    }

    /// How a node is open in the kernel: (directly, over us).
    pub fn open_modes(&self, ino: u64) -> (u32, u32) {
        self.loaded(ino).map_or((0, 0), |n| {
            let st = n.st.lock();
            (st.passthrough, st.cached)
        })
    }

    /// Takes over what a kernel wrote directly: size and time from the local file.
    pub(crate) fn absorb(&self, st: &mut St) -> Result<()> {
        if st.lent_writing {
            let m = match &st.file {
                Some(f) => f.metadata(),
                None => std::fs::metadata(self.local_path(st.ino, st.overlay)),
            };
            let m = m.doing(|| "looking at a local file")?;
            let mtime = Time { sec: m.mtime(), nsec: m.mtime_nsec() as u32 };
            // Compared with what the local file itself said last: the time shown may have been set by hand since.
            if m.len() != st.size || mtime != st.seen_mtime {
                st.size = m.len();
                st.mtime = mtime;
                st.seen_mtime = mtime;
                st.wgen += 1;
                st.unsynced_boot = self.boot;
                (st.stale_row, st.stale_attr) = (true, true);
                st.last_write = std::time::Instant::now();
                st.dirty_since.get_or_insert(st.last_write);
            }
            st.have = RangeSet::of(0..st.size);
            if !st.is_sealed() {
                st.dirty = RangeSet::of(0..st.size);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn mark_stands_until_the_first_byte_is_written_also_through_a_mapping() {
        // Beside the build, which is no tmpfs.
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, vec![7u8; 8192]).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        if !watch(&file, Mark::Lent).unwrap() {
            return; // Not a disk that is asked.
        }
        let mark = || mark_of(&std::fs::metadata(&path).unwrap());
        std::fs::read(&path).unwrap();
        assert_eq!(mark(), Some(Mark::Lent));
        (&file).write_all(b"x").unwrap();
        assert_eq!(mark(), None);
        watch(&file, Mark::Copied).unwrap();
        assert_eq!(mark(), Some(Mark::Copied));
        // SAFETY: a fresh mapping of 8192 bytes of a file that long, unmapped below.
        unsafe {
            use std::os::fd::AsRawFd;
            let p = libc::mmap(std::ptr::null_mut(), 8192, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file.as_raw_fd(), 0);
            assert_ne!(p, libc::MAP_FAILED);
            let p = p.cast::<u8>();
            assert_eq!(p.add(4096).read_volatile(), 7);
            assert_eq!(mark(), Some(Mark::Copied), "reading is not writing");
            p.add(4096).write_volatile(8);
            assert_eq!(mark(), None);
            // Cleaned and marked again, the next store into the same page is seen too.
            watch(&file, Mark::Copied).unwrap();
            file.sync_data().unwrap();
            assert_eq!(mark(), Some(Mark::Copied));
            p.add(4096).write_volatile(9);
            assert_eq!(mark(), None);
            libc::munmap(p.cast(), 8192);
        }
    }
}
