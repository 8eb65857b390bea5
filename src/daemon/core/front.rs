//! What serves a mount: FUSE, or the NFS server with a client of the system in front of it.
//!
//! Not here: what is checked before a mount (`shell`), the servers themselves (`mount`).

use super::blocking;
use crate::daemon::mounts;
use crate::error::{Error, Kind, Result};
#[cfg(target_os = "linux")]
use crate::mount::fuse::FuseMount;
use crate::mount::nfs::NfsServer;
use std::path::Path;

/// What serves a mount.
pub(super) enum Front {
    /// The kernel's own file system in user space.
    #[cfg(target_os = "linux")]
    Fuse(FuseMount),
    /// A server, and whether this process had the system mount it.
    Nfs(NfsServer, bool),
}

impl Front {
    /// Whether somebody else unmounted it.
    pub(super) fn is_over(&self, at: &Path) -> bool {
        match self {
            #[cfg(target_os = "linux")]
            Front::Fuse(f) => f.is_over(),
            Front::Nfs(_, false) => false,
            Front::Nfs(s, true) => cfg!(target_os = "linux") && !mounts::nfs_at(at, &s.export()),
        }
    }

    /// Asks the system to unmount; `Busy` while programs use it, unless `force`.
    pub(super) async fn ask(&self, at: &Path, force: bool) -> Result<()> {
        if self.is_over(at) {
            return Ok(());
        }
        let at = at.to_owned();
        match self {
            #[cfg(target_os = "linux")]
            Front::Fuse(_) => blocking(move || ask_fuse(&at, force)).await,
            Front::Nfs(_, false) => Ok(()),
            Front::Nfs(_, true) => blocking(move || mounts::unmount_nfs(&at, force)).await,
        }
    }

    /// Lets go of what was unmounted, when the kernel has; what clients had written is sealed.
    pub(super) async fn end(self) -> Result<()> {
        match self {
            #[cfg(target_os = "linux")]
            Front::Fuse(f) => blocking(move || f.unmount()).await,
            Front::Nfs(s, _) => {
                s.stop().await;
                Ok(())
            }
        }
    }
}

/// Asks the kernel (or, for a user, the helper) to unmount; `Busy` while programs use it, unless `lazy`.
#[cfg(target_os = "linux")]
fn ask_fuse(at: &Path, lazy: bool) -> Result<()> {
    use rustix::mount::{UnmountFlags, unmount};
    let doing = || format!("unmounting {}", at.display());
    if rustix::process::geteuid().is_root() {
        let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
        return match unmount(at, flags) {
            // Somebody was quicker.
            Err(rustix::io::Errno::INVAL) | Ok(()) => Ok(()),
            Err(e) => Err(Error::io(doing(), e.into())),
        };
    }
    let flag = if lazy { "-uz" } else { "-u" };
    let out = std::process::Command::new("fusermount3").arg(flag).arg("--").arg(at).output();
    let out = out.map_err(|e| Error::io(doing(), e).hint("fusermount3 comes with the package fuse3"))?;
    let text = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    match out.status.success() || text.contains("not found in") {
        true => Ok(()),
        false if text.contains("busy") => Err(Error::new(Kind::Busy, doing())),
        false => Err(Error::new(Kind::Io, format!("{}: {text}", doing()))),
    }
}
