//! What one system can and another cannot: the calls on files that Linux has, and what takes their place on macOS.
//!
//! Must: every function is there on each system, with the same meaning; where a system lacks something it says so, and the
//! caller does without. Nothing outside of the two files below (and FUSE, which only Linux has) names a call that one system
//! lacks: a test looks (`tests/layers.rs`).
//! Not here: mounts and processes (`daemon::mounts`), which directories a system's customs are (`daemon::paths`).

#[cfg(not(target_os = "macos"))]
#[path = "sys/linux.rs"]
mod here;
#[cfg(target_os = "macos")]
#[path = "sys/macos.rs"]
mod here;

pub use here::{give_name, unnamed_file};

use std::fs::File;
use std::io;
use std::path::Path;

/// [`fallocate`]: the size stays as it is.
pub const KEEP_SIZE: i32 = 1;
/// [`fallocate`]: the range becomes a hole. Together with [`KEEP_SIZE`].
pub const PUNCH_HOLE: i32 = 2;
/// [`fallocate`]: the range reads as zeros.
pub const ZERO_RANGE: i32 = 16;

/// Makes all of `from` the content of the empty file `to` without copying (a reflink). `Unsupported`, or another error,
/// where the disk cannot.
pub fn clone_file(from: &File, to: &File) -> io::Result<()> {
    here::clone_file(from, to)
}

/// Copies at most `len` bytes within the kernel, at the two offsets; how many, 0 at the end of `from`. `Unsupported`, or
/// another error, where system or disk cannot.
pub fn copy_range(from: &File, at: u64, to: &File, to_at: u64, len: usize) -> io::Result<usize> {
    here::copy_range(from, at, to, to_at, len)
}

/// Allocates, punches or zeroes a range; `mode` is made of the constants above, which are Linux's. `Unsupported` where system
/// or disk cannot.
pub fn fallocate(file: &File, mode: i32, at: u64, len: u64) -> io::Result<()> {
    here::fallocate(file, mode, at, len)
}

/// Makes every change of the disk that `dir` lies on durable. False where the system has no call that promises it: then
/// nothing was done.
pub fn sync_disk(dir: &File) -> io::Result<bool> {
    here::sync_disk(dir)
}

/// An empty file that has no name and goes with its last descriptor; in memory where the system can.
pub fn scratch_file() -> io::Result<File> {
    here::scratch_file()
}

/// Who can write a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptOpen {
    /// Nobody.
    ByNone,
    /// Somebody can.
    ByAWriter,
    /// System or disk does not tell.
    NotTold,
}

/// Whether anybody has a descriptor, or a shared mapping, that can write this file, which is open here for reading.
pub fn kept_open(file: &File) -> io::Result<KeptOpen> {
    here::kept_open(file)
}

/// The kind of the disk, as Linux numbers it; 0 where that is not told.
pub fn disk_kind(file: &File) -> io::Result<u64> {
    here::disk_kind(file)
}

/// What is another text after each boot of the machine; empty where that is not to be had.
pub fn boot_text() -> String {
    here::boot_text()
}

/// Where the open descriptors of this process are listed.
pub fn descriptors() -> &'static Path {
    here::descriptors()
}

/// Asks the system not to give this process memory in large pages. Best effort.
pub fn small_pages() -> io::Result<()> {
    here::small_pages()
}

/// Whether this process may mount by itself, without a setuid helper, and hand files to the kernel (passthrough): it is root, or
/// was given `CAP_SYS_ADMIN`.
pub fn may_mount() -> bool {
    here::may_mount()
}

/// Programs that are started from now on are not given the capabilities that this process was given one by one (Linux's
/// ambient ones); it keeps them itself. To be called while there is one thread.
pub fn keep_capabilities_here() -> io::Result<()> {
    here::keep_capabilities_here()
}

/// Seconds by which this machine's zone is ahead of UTC at a moment (seconds since 1970), summer time included.
pub fn zone_offset(at: i64) -> i32 {
    // SAFETY: all zeros is a valid `tm`: numbers, and a name that may be null.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    let at = at as libc::time_t;
    // SAFETY: both pointers are to values on this stack; the reentrant form keeps nothing of them.
    let done = unsafe { libc::localtime_r(&at, &mut tm) };
    if done.is_null() { 0 } else { i32::try_from(tm.tm_gmtoff).unwrap_or(0) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn what_is_offered_keeps_its_word_or_says_that_it_cannot() {
        let t = tempfile::tempdir().unwrap();
        let open = |name: &str| File::options().read(true).write(true).create(true).truncate(false).open(t.path().join(name)).unwrap();
        let (a, b) = (open("a"), open("b"));
        a.write_all_at(b"0123456789", 0).unwrap();
        if let Ok(n) = copy_range(&a, 2, &b, 1, 3) {
            assert!(n > 0 && std::fs::read(t.path().join("b")).unwrap() == b"\x00234"[..=n]);
        }
        if clone_file(&a, &open("c")).is_ok() {
            assert_eq!(std::fs::read(t.path().join("c")).unwrap(), b"0123456789");
        }
        if fallocate(&a, PUNCH_HOLE | KEEP_SIZE, 0, 4).is_ok() {
            assert_eq!(std::fs::read(t.path().join("a")).unwrap(), b"\x00\x00\x00\x00456789");
        }
        let s = scratch_file().unwrap();
        s.write_all_at(b"x", 7).unwrap();
        assert_eq!(s.metadata().unwrap().len(), 8);
        sync_disk(&File::open(t.path()).unwrap()).unwrap();
        drop((a, b));
        let a = File::open(t.path().join("a")).unwrap();
        assert_ne!(kept_open(&a).unwrap(), KeptOpen::ByAWriter);
        let writer = open("a");
        assert_ne!(kept_open(&a).unwrap(), KeptOpen::ByNone);
        drop(writer);
        assert!(std::fs::read_dir(descriptors()).unwrap().count() > 0);
        assert!(!boot_text().is_empty() && boot_text() == boot_text());
        disk_kind(&a).unwrap();
        if let Some(f) = unnamed_file(t.path()).unwrap() {
            give_name(&f, &t.path().join("named")).unwrap();
            assert!(t.path().join("named").is_file());
            assert_eq!(give_name(&f, &t.path().join("named")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        }
    }
}
