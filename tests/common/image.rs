//! Small disks: file systems in image files on loop devices, for full disks and power cuts.
//!
//! Needs root. Each is unmounted on drop, lazily if something still holds it.

use super::cli::run;
use super::{sys, tools};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A mounted image.
pub struct Image {
    file: PathBuf,
    mnt: PathBuf,
}

impl Image {
    /// A new image of `bytes` (sparse) with the given file system (`ext2`, `ext4` or `btrfs`), mounted at `mnt`.
    #[track_caller]
    pub fn create(kind: &str, file: &Path, bytes: u64, mnt: &Path) -> Image {
        tools::need_root("a loop mount");
        std::fs::File::create(file).unwrap().set_len(bytes).unwrap();
        let mkfs = tools::find(&format!("mkfs.{kind}"));
        // No lazy initialisation: it would write to the image later, at its own pace. No reserve for root: the disk is full when it is full.
        let args: &[&str] =
            if kind == "btrfs" { &["-q", "-f"] } else { &["-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"] };
        run(Command::new(mkfs).args(args).arg(file), Duration::from_secs(60)).ok();
        Image::open(file, mnt)
    }

    /// Mounts an existing image; a journal is replayed, as after a power cut.
    #[track_caller]
    pub fn open(file: &Path, mnt: &Path) -> Image {
        std::fs::create_dir_all(mnt).unwrap();
        run(Command::new("mount").args(["-o", "loop"]).arg(file).arg(mnt), Duration::from_secs(60)).ok();
        Image { file: file.to_owned(), mnt: mnt.to_owned() }
    }

    /// Where it is mounted.
    pub fn root(&self) -> &Path {
        &self.mnt
    }

    /// The image file.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        unmount(&self.mnt);
    }
}

fn unmount(at: &Path) {
    let done = Command::new("umount").arg(at).output();
    if !done.is_ok_and(|d| d.status.success()) {
        sys::detach(at);
    }
}

/// A disk in memory, of which the size can be changed while it is used: an image on one that is full is a disk on which
/// writing back fails.
pub struct Memory(PathBuf);

impl Memory {
    /// Mounted at `mnt`, with room for `bytes`.
    #[track_caller]
    pub fn create(bytes: u64, mnt: &Path) -> Memory {
        tools::need_root("a disk in memory");
        std::fs::create_dir_all(mnt).unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "none"]).arg(mnt), Duration::from_secs(60)).ok();
        Memory(mnt.to_owned())
    }

    /// Leaves room for `bytes` more than it holds.
    #[track_caller]
    pub fn room(&self, bytes: u64) {
        let now = rustix::fs::statvfs(&self.0).unwrap();
        let size = (now.f_blocks - now.f_bfree) * now.f_frsize + bytes;
        run(Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&self.0), Duration::from_secs(60)).ok();
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}
