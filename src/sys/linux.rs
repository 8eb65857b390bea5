//! Linux: everything is there.

use super::KeptOpen;
use rustix::fs::{AtFlags, CWD, FallocateFlags, MemfdFlags, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::OnceLock;

pub(super) fn clone_file(from: &File, to: &File) -> io::Result<()> {
    Ok(rustix::fs::ioctl_ficlone(to, from)?)
}

pub(super) fn copy_range(from: &File, at: u64, to: &File, to_at: u64, len: usize) -> io::Result<usize> {
    let (mut a, mut b) = (at, to_at);
    Ok(rustix::fs::copy_file_range(from, Some(&mut a), to, Some(&mut b), len)?)
}

pub(super) fn fallocate(file: &File, mode: i32, at: u64, len: u64) -> io::Result<()> {
    Ok(rustix::fs::fallocate(file, FallocateFlags::from_bits_retain(mode as u32), at, len)?)
}

pub(super) fn sync_disk(dir: &File) -> io::Result<bool> {
    rustix::fs::syncfs(dir)?;
    Ok(true)
}

pub(super) fn scratch_file() -> io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create("tcfs", MemfdFlags::CLOEXEC)?))
}

/// The kernel itself says so: it grants a read lease only on a file that nobody can write.
pub(super) fn kept_open(file: &File) -> io::Result<KeptOpen> {
    // SAFETY: the descriptor is open for as long as `file` lives.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) } == 0 {
        // SAFETY: as above.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
        return Ok(KeptOpen::ByNone);
    }
    let e = io::Error::last_os_error();
    Ok(if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY)) { KeptOpen::ByAWriter } else { KeptOpen::NotTold })
}

pub(super) fn disk_kind(file: &File) -> io::Result<u64> {
    Ok(rustix::fs::fstatfs(file)?.f_type as u64 & 0xFFFF_FFFF)
}

pub(super) fn boot_text() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

pub(super) fn descriptors() -> &'static Path {
    Path::new("/proc/self/fd")
}

pub(super) fn small_pages() -> io::Result<()> {
    // SAFETY: plain numbers; the call changes only how this process gets its memory.
    if unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

pub(super) fn may_mount() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    capabilities(None).is_ok_and(|c| c.effective.contains(CapabilitySet::SYS_ADMIN))
}

pub(super) fn keep_capabilities_here() -> io::Result<()> {
    Ok(rustix::thread::clear_ambient_capability_set()?)
}

/// A file without a name on the disk of `dir`; none where that disk cannot.
pub fn unnamed_file(dir: &Path) -> io::Result<Option<File>> {
    // It gets its name through its entry there.
    static TOLD: OnceLock<bool> = OnceLock::new();
    if !*TOLD.get_or_init(|| descriptors().exists()) {
        return Ok(None);
    }
    match rustix::fs::open(dir, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::from_raw_mode(0o666)) {
        Ok(fd) => Ok(Some(File::from(fd))),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Gives such a file a name; `AlreadyExists` if somebody has it.
pub fn give_name(file: &File, path: &Path) -> io::Result<()> {
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::linkat(CWD, open.as_str(), CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}
