//! Local files that the kernel writes by itself (passthrough): whether it did.
//!
//! A file that is lent gets a time of change that no clock gives. The kernel sets the real one before the first byte of
//! a write, and before the first store into each page of a mapping that was clean: while the mark stands, nothing was
//! written.
//! Must: asked only of disks of which that is known. A mapping of a file in memory (tmpfs) is written without a trace.
//! Not here: when to seal (`seal`).

use crate::error::{IoContext, Result};
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;

/// Whole seconds, because some disks keep no others.
const MARK: i64 = 1;

/// ext2 to ext4, XFS, btrfs.
const KNOWN: [u64; 3] = [0xEF53, 0x5846_5342, 0x9123_683E];

/// Marks a file as unwritten. False if its disk cannot be trusted to take the mark off again. Must not be called while
/// somebody may write the file and what was written before is not known.
pub(super) fn watch(file: &File) -> Result<bool> {
    use rustix::fs::{Timespec, Timestamps, UTIME_OMIT};
    let disk = rustix::fs::fstatfs(file).map_err(std::io::Error::from).doing(|| "looking at the disk of a local file")?;
    if !KNOWN.contains(&(disk.f_type as u64 & 0xFFFF_FFFF)) {
        return Ok(false);
    }
    let times =
        Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification: Timespec { tv_sec: MARK, tv_nsec: 0 } };
    rustix::fs::futimens(file, &times).map_err(std::io::Error::from).doing(|| "marking a local file")?;
    Ok(true)
}

/// Whether the mark of [`watch`] stands.
pub(super) fn is_unwritten(file: &Metadata) -> bool {
    (file.mtime(), file.mtime_nsec()) == (MARK, 0)
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
        if !watch(&file).unwrap() {
            return; // Not a disk that is asked.
        }
        let unwritten = || is_unwritten(&std::fs::metadata(&path).unwrap());
        std::fs::read(&path).unwrap();
        assert!(unwritten());
        (&file).write_all(b"x").unwrap();
        assert!(!unwritten());
        watch(&file).unwrap();
        assert!(unwritten());
        // SAFETY: a fresh mapping of 8192 bytes of a file that long, unmapped below.
        unsafe {
            use std::os::fd::AsRawFd;
            let p = libc::mmap(std::ptr::null_mut(), 8192, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file.as_raw_fd(), 0);
            assert_ne!(p, libc::MAP_FAILED);
            let p = p.cast::<u8>();
            assert_eq!(p.add(4096).read_volatile(), 7);
            assert!(unwritten(), "reading is not writing");
            p.add(4096).write_volatile(8);
            assert!(!unwritten());
            // Cleaned and marked again, the next store into the same page is seen too.
            watch(&file).unwrap();
            file.sync_data().unwrap();
            assert!(unwritten());
            p.add(4096).write_volatile(9);
            assert!(!unwritten());
            libc::munmap(p.cast(), 8192);
        }
    }
}
