//! System calls that std lacks, with `io::Result` and paths.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A path as a C string.
pub fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

/// -1 becomes the last error.
pub fn check(r: impl Into<i64>) -> io::Result<i64> {
    match r.into() {
        -1 => Err(io::Error::last_os_error()),
        n => Ok(n),
    }
}

/// The errno of a result that should have failed; panics if it did not.
#[track_caller]
pub fn errno<T>(r: io::Result<T>) -> i32 {
    match r {
        Ok(_) => panic!("succeeded, but should have failed"),
        Err(e) => e.raw_os_error().unwrap_or_else(|| panic!("no errno in {e}")),
    }
}

/// open(2) with any flags.
pub fn open(path: &Path, flags: i32, mode: u32) -> io::Result<File> {
    // SAFETY: the string outlives the call; the descriptor returned is ours alone.
    unsafe { Ok(File::from_raw_fd(check(libc::open(c(path).as_ptr(), flags | libc::O_CLOEXEC, mode))? as i32)) }
}

/// renameat2(2).
pub fn rename(from: &Path, to: &Path, flags: u32) -> io::Result<()> {
    let (f, t) = (c(from), c(to));
    // SAFETY: both strings outlive the call.
    check(unsafe { libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, f.as_ptr(), libc::AT_FDCWD, t.as_ptr(), flags) }).map(drop)
}

/// fallocate(2).
pub fn fallocate(f: &File, mode: i32, at: i64, len: i64) -> io::Result<()> {
    // SAFETY: plain integers and an open descriptor.
    check(unsafe { libc::fallocate(f.as_raw_fd(), mode, at, len) }).map(drop)
}

/// lseek(2) with any whence.
pub fn seek(f: &File, at: i64, whence: i32) -> io::Result<i64> {
    // SAFETY: plain integers and an open descriptor.
    check(unsafe { libc::lseek(f.as_raw_fd(), at, whence) })
}

/// copy_file_range(2) at explicit offsets.
pub fn copy_range(from: &File, mut at: i64, to: &File, mut dest: i64, len: usize) -> io::Result<usize> {
    // SAFETY: the offsets are locals that outlive the call.
    check(unsafe { libc::copy_file_range(from.as_raw_fd(), &mut at, to.as_raw_fd(), &mut dest, len, 0) as i64 }).map(|n| n as usize)
}

/// setxattr(2) with XATTR_CREATE/XATTR_REPLACE flags.
pub fn set_xattr(path: &Path, name: &str, value: &[u8], flags: i32) -> io::Result<()> {
    let (p, n) = (c(path), CString::new(name).unwrap());
    // SAFETY: pointers and length describe live buffers.
    check(unsafe { libc::lsetxattr(p.as_ptr(), n.as_ptr(), value.as_ptr().cast(), value.len(), flags) }).map(drop)
}

/// The value of an attribute.
pub fn get_xattr(path: &Path, name: &str) -> io::Result<Vec<u8>> {
    let (p, n) = (c(path), CString::new(name).unwrap());
    let mut buf = vec![0u8; 65536];
    // SAFETY: pointers and length describe live buffers.
    let len = check(unsafe { libc::lgetxattr(p.as_ptr(), n.as_ptr(), buf.as_mut_ptr().cast(), buf.len()) as i64 })?;
    buf.truncate(len as usize);
    Ok(buf)
}

/// Removes an attribute.
pub fn remove_xattr(path: &Path, name: &str) -> io::Result<()> {
    let (p, n) = (c(path), CString::new(name).unwrap());
    // SAFETY: both strings outlive the call.
    check(unsafe { libc::lremovexattr(p.as_ptr(), n.as_ptr()) }).map(drop)
}

/// Names of the attributes, sorted.
pub fn list_xattr(path: &Path) -> io::Result<Vec<String>> {
    let mut buf = vec![0u8; 65536];
    // SAFETY: pointers and length describe live buffers.
    let len = check(unsafe { libc::llistxattr(c(path).as_ptr(), buf.as_mut_ptr().cast(), buf.len()) as i64 })?;
    let mut names: Vec<String> =
        buf[..len as usize].split(|b| *b == 0).filter(|n| !n.is_empty()).map(|n| String::from_utf8_lossy(n).into_owned()).collect();
    names.sort();
    Ok(names)
}

/// A time for [`set_times`]: seconds and nanoseconds, or UTIME_NOW / UTIME_OMIT in the second.
pub type Time = (i64, i64);
/// Leave this time as it is.
pub const OMIT: Time = (0, libc::UTIME_OMIT);
/// Take the present time.
pub const NOW: Time = (0, libc::UTIME_NOW);

/// utimensat(2); does not follow a symlink.
pub fn set_times(path: &Path, atime: Time, mtime: Time) -> io::Result<()> {
    let t = [libc::timespec { tv_sec: atime.0, tv_nsec: atime.1 }, libc::timespec { tv_sec: mtime.0, tv_nsec: mtime.1 }];
    // SAFETY: the array has the two elements the call reads.
    check(unsafe { libc::utimensat(libc::AT_FDCWD, c(path).as_ptr(), t.as_ptr(), libc::AT_SYMLINK_NOFOLLOW) }).map(drop)
}

/// mknod(2): fifo, socket or device node.
pub fn mknod(path: &Path, mode: u32, dev: u64) -> io::Result<()> {
    // SAFETY: the string outlives the call.
    check(unsafe { libc::mknod(c(path).as_ptr(), mode, dev) }).map(drop)
}

/// statvfs(2).
pub fn statvfs(path: &Path) -> io::Result<libc::statvfs> {
    // SAFETY: the structure is plain data that the call fills.
    unsafe {
        let mut s = std::mem::zeroed();
        check(libc::statvfs(c(path).as_ptr(), &mut s))?;
        Ok(s)
    }
}

/// A non-blocking open-file-description lock on `[start, start+len)`; `kind` is F_RDLCK, F_WRLCK or F_UNLCK.
pub fn ofd_lock(f: &File, kind: i32, start: i64, len: i64) -> io::Result<()> {
    // SAFETY: the structure is plain data and outlives the call.
    unsafe {
        let mut l: libc::flock = std::mem::zeroed();
        (l.l_type, l.l_whence, l.l_start, l.l_len) = (kind as i16, libc::SEEK_SET as i16, start, len);
        check(libc::fcntl(f.as_raw_fd(), libc::F_OFD_SETLK, &l)).map(drop)
    }
}

/// flock(2) without waiting.
pub fn flock(f: &File, how: i32) -> io::Result<()> {
    // SAFETY: plain integers and an open descriptor.
    check(unsafe { libc::flock(f.as_raw_fd(), how | libc::LOCK_NB) }).map(drop)
}

/// A mapping of a file that is unmapped on drop.
pub struct Map {
    at: *mut u8,
    len: usize,
}

impl Map {
    /// Maps `[0, len)`, shared or private.
    pub fn new(f: &File, len: usize, shared: bool, writable: bool) -> io::Result<Map> {
        let prot = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        let flags = if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
        // SAFETY: the kernel chooses the address; the mapping is owned by the value returned.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, f.as_raw_fd(), 0) };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Map { at: at.cast(), len }) }
    }

    /// The bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping lives as long as self and is only reached through it.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.len) }
    }

    /// msync(MS_SYNC).
    pub fn sync(&self) -> io::Result<()> {
        // SAFETY: the range is exactly the mapping.
        check(unsafe { libc::msync(self.at.cast(), self.len, libc::MS_SYNC) }).map(drop)
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the range is exactly the mapping, and nobody holds a slice of it any more.
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}

/// Throws away clean page cache, dentries and inodes; needs root.
pub fn drop_caches() {
    // SAFETY: no arguments.
    unsafe { libc::sync() };
    if let Err(e) = std::fs::write("/proc/sys/vm/drop_caches", "3") {
        println!("caches were not dropped ({e}); figures are warm ones");
    }
}

/// Lazily detaches whatever is mounted at `path`; for clean-up, so the result does not matter.
pub fn detach(path: &Path) {
    // SAFETY: the string outlives the call.
    unsafe { libc::umount2(c(path).as_ptr(), libc::MNT_DETACH) };
}

/// Whether `path` is a mount point now, from the kernel's table (never asks the file system mounted there).
pub fn is_mounted(path: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let wanted = path.to_string_lossy().replace('\\', "\\134").replace(' ', "\\040").replace('\n', "\\012");
    table.lines().any(|l| l.split(' ').nth(4) == Some(&wanted))
}

/// Whether process `pid` still runs (a zombie does not).
pub fn alive(pid: i32) -> bool {
    // Thread by thread: the first one can be gone while another still holds the files of the process.
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().any(|t| {
        let stat = std::fs::read_to_string(t.path().join("stat")).unwrap_or_default();
        !matches!(stat.rsplit(')').next().and_then(|r| r.trim_start().chars().next()), None | Some('Z' | 'X'))
    })
}

/// Processor time that a process has had, its own and the system's for it.
pub fn processor_time(pid: i32) -> std::time::Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name, in parentheses, may hold spaces; of what comes after it the 12th and 13th field count ticks.
    let rest = text.rsplit_once(')').unwrap_or_else(|| panic!("/proc/{pid}/stat: {text}")).1;
    let ticks: u64 = rest.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum();
    // SAFETY: asks for a number.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as u64;
    std::time::Duration::from_millis(ticks * 1000 / per_second)
}

/// (`VmRSS`, `VmHWM`) of a process in bytes.
pub fn memory(pid: i32) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = text.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("no {name} of process {pid}"));
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    };
    (field("VmRSS:"), field("VmHWM:"))
}
