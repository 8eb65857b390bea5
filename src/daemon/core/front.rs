//! What serves a mount: FUSE, or the NFS server with a client of the system in front of it.
//!
//! Not here: what is checked before a mount (`shell`), the servers themselves (`mount`).

use super::blocking;
use crate::daemon::mounts;
use crate::error::Result;
#[cfg(not(target_os = "macos"))]
use crate::mount::fuse::FuseMount;
use crate::mount::nfs::NfsServer;
use parking_lot::Mutex;
use std::path::Path;
use std::time::{Duration, Instant};

/// What serves a mount.
pub(super) enum Front {
    /// The kernel's own file system in user space.
    #[cfg(not(target_os = "macos"))]
    Fuse(FuseMount),
    /// A server.
    Nfs {
        server: NfsServer,
        /// This process had the system mount it.
        mounted: bool,
        /// When the system's table was last looked at, and whether it had gone from there.
        looked: Mutex<(Instant, bool)>,
    },
}

/// How long what the system's table said of a mount by NFS is good for: on macOS it takes a program to read it.
const LOOKED: Duration = Duration::from_secs(5);

impl Front {
    /// Whether somebody else unmounted it.
    pub(super) fn is_over(&self, at: &Path) -> bool {
        match self {
            #[cfg(not(target_os = "macos"))]
            Front::Fuse(f) => f.is_over(),
            Front::Nfs { mounted: false, .. } => false,
            Front::Nfs { server, looked, .. } => {
                let mut looked = looked.lock();
                if looked.0.elapsed() > LOOKED {
                    *looked = (Instant::now(), mounts::nfs_at(at, &server.export()) == Some(false));
                }
                looked.1
            }
        }
    }

    /// A server that just began.
    pub(super) fn nfs(server: NfsServer, mounted: bool) -> Front {
        Front::Nfs { server, mounted, looked: Mutex::new((Instant::now(), false)) }
    }

    /// Asks the system to unmount; `Busy` while programs use it, unless `force`.
    pub(super) async fn ask(&self, at: &Path, force: bool) -> Result<()> {
        if self.is_over(at) {
            return Ok(());
        }
        let at = at.to_owned();
        match self {
            #[cfg(not(target_os = "macos"))]
            Front::Fuse(_) => blocking(move || ask_fuse(&at, force)).await,
            Front::Nfs { mounted: false, .. } => Ok(()),
            Front::Nfs { .. } => blocking(move || mounts::unmount_nfs(&at, force)).await,
        }
    }

    /// Lets go of what was unmounted, when the kernel has; what clients had written is sealed.
    pub(super) async fn end(self) -> Result<()> {
        match self {
            #[cfg(not(target_os = "macos"))]
            Front::Fuse(f) => blocking(move || f.unmount()).await,
            Front::Nfs { server, .. } => {
                server.stop().await;
                Ok(())
            }
        }
    }
}

/// Asks the kernel (or, for a user, the helper) to unmount; `Busy` while programs use it, unless `lazy`.
#[cfg(not(target_os = "macos"))]
fn ask_fuse(at: &Path, lazy: bool) -> Result<()> {
    use crate::error::{Error, Kind};
    use rustix::mount::{UnmountFlags, unmount};
    let doing = || format!("unmounting {}", at.display());
    if crate::sys::may_mount() {
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
