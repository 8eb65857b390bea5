//! macOS: what the standard library has. The rest is said to be missing, and callers copy, sync file by file, and so on.
//!
//! `File::sync_all` is `F_FULLFSYNC` there, which reaches the disk itself.

use super::KeptOpen;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

fn missing<T>(what: &str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::Unsupported, format!("{what}: not on this system")))
}

pub(super) fn clone_file(_: &File, _: &File) -> io::Result<()> {
    missing("a copy by reference between open files")
}

pub(super) fn copy_range(_: &File, _: u64, _: &File, _: u64, _: usize) -> io::Result<usize> {
    missing("a copy within the kernel")
}

/// By writing, and only behind the end.
pub(super) fn fallocate(file: &File, mode: i32, at: u64, len: u64) -> io::Result<()> {
    if mode != 0 || file.metadata()?.len() > at {
        return missing("allocating within a file");
    }
    let zeros = vec![0; len.min(1 << 20) as usize];
    let (mut at, end) = (at, at.saturating_add(len));
    while at < end {
        let n = (end - at).min(zeros.len() as u64);
        file.write_all_at(&zeros[..n as usize], at)?;
        at += n;
    }
    Ok(())
}

pub(super) fn sync_disk(_: &File) -> io::Result<bool> {
    Ok(false)
}

/// A file of the temporary directory whose name goes at once.
pub(super) fn scratch_file() -> io::Result<File> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("tcfs-{}-{n}", std::process::id()));
    // One that an earlier process of this number left.
    let _ = std::fs::remove_file(&path);
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

pub(super) fn kept_open(_: &File) -> io::Result<KeptOpen> {
    Ok(KeptOpen::NotTold)
}

pub(super) fn disk_kind(_: &File) -> io::Result<u64> {
    Ok(0)
}

pub(super) fn boot_text() -> String {
    let told = Command::new("sysctl").args(["-n", "kern.bootsessionuuid"]).output();
    told.ok().filter(|o| o.status.success()).map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
}

pub(super) fn descriptors() -> &'static Path {
    Path::new("/dev/fd")
}

pub(super) fn may_mount() -> bool {
    rustix::process::geteuid().is_root()
}

pub(super) fn keep_capabilities_here() -> io::Result<()> {
    Ok(())
}

pub(super) fn small_pages() -> io::Result<()> {
    Ok(())
}

/// A file without a name on the disk of `dir`: not here.
pub fn unnamed_file(_: &Path) -> io::Result<Option<File>> {
    Ok(None)
}

/// Gives such a file a name; there is none.
pub fn give_name(_: &File, _: &Path) -> io::Result<()> {
    missing("giving a name to a file that has none")
}
