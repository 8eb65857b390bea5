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
    /// A new image of `bytes` (sparse) with the given file system (`ext4` or `btrfs`), mounted at `mnt`.
    #[track_caller]
    pub fn create(kind: &str, file: &Path, bytes: u64, mnt: &Path) -> Image {
        tools::need_root("a loop mount");
        std::fs::File::create(file).unwrap().set_len(bytes).unwrap();
        let mkfs = tools::find(&format!("mkfs.{kind}"));
        // No lazy initialisation: it would write to the image later, at its own pace. No reserve for root: the disk is full when it is full.
        let args: &[&str] =
            if kind == "ext4" { &["-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"] } else { &["-q", "-f"] };
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
        let done = Command::new("umount").arg(&self.mnt).output();
        if !done.is_ok_and(|d| d.status.success()) {
            sys::detach(&self.mnt);
        }
    }
}
