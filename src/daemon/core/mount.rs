//! Mounting and unmounting this machine's drive.

use super::{Core, blocking};
use crate::daemon::protocol::{Backend, DeviceRef, Mount, MountInfo, Mounted as Answer, Response, Unmount, Unmounted};
use crate::error::{Error, Kind, Result};
use crate::mount::fuse::{FuseMount, MountOptions, mount};
use rustix::mount::{UnmountFlags, unmount};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a mount waits for the changes of other devices; without the store it shows what is here.
const CATCH_UP: Duration = Duration::from_secs(5);

/// A mount of this process.
pub(super) struct Mounted {
    pub info: MountInfo,
    pub fuse: FuseMount,
}

/// Asks the kernel (or, for a user, the helper) to unmount; `Busy` while programs use it, unless `lazy`.
fn ask(at: &Path, lazy: bool) -> Result<()> {
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

/// Takes a mount away at the end of the process: gently, then lazily.
pub(super) fn detach(m: Mounted) -> Result<()> {
    if !m.fuse.is_over() && ask(&m.info.mountpoint, false).is_err() {
        ask(&m.info.mountpoint, true)?;
    }
    m.fuse.unmount()
}

impl Core {
    pub(super) async fn mount(&self, request: Mount) -> Result<Response> {
        if request.backend == Backend::Nfs {
            return Err(Error::new(Kind::Unsupported, "the NFS backend is not part of this build").hint("leave --backend out"));
        }
        let options =
            MountOptions { allow_other: request.allow_other, read_only: request.read_only, no_passthrough: request.no_passthrough };
        // A machine that joins or returns shows the fleet's files at once, if the store answers.
        self.fleet.first_look(CATCH_UP).await;
        let notes = self.store_notes()?;
        let (vfs, at) = (self.vfs.clone(), request.mountpoint.clone());
        let fuse = blocking(move || mount(vfs, &at, &options)).await?;
        let info = MountInfo {
            mountpoint: request.mountpoint,
            backend: "fuse".to_owned(),
            read_only: request.read_only,
            allow_other: request.allow_other,
            passthrough: fuse.passthrough(),
            since: self.clock.now_ms(),
        };
        let at = info.mountpoint.clone();
        self.mounts.lock().push(Mounted { info: info.clone(), fuse });
        // The mount answers before anybody is told that it is there.
        blocking(move || std::fs::metadata(&at).map(|_| ()).map_err(|e| Error::io(format!("looking at {}", at.display()), e))).await?;
        let me = self.fleet.me();
        Ok(Response::Mounted(Answer {
            mount: info,
            device: Some(DeviceRef { id: me.id.clone(), name: me.name.clone() }),
            enrolled_now: self.enrolled_now.swap(false, Ordering::Relaxed),
            already: false,
            entries: self.replica.read(crate::state::tree::names)?,
            notes,
        }))
    }

    /// What is to be said of a store that was looked at and did not answer as it should.
    ///
    /// Errors: those that waiting does not mend, such as another store than the one this state belongs to: what would be
    /// written could never go out.
    fn store_notes(&self) -> Result<Vec<String>> {
        let seen = self.fleet.follow_status();
        let here = "the drive shows what is here, and what is written goes out when it answers";
        match (seen.last_error, seen.last_kind) {
            (Some(text), Some((kind @ (Kind::Usage | Kind::Unsupported), hint))) => {
                let e = Error::new(kind, text);
                Err(match hint {
                    Some(h) => e.hint(h),
                    None => e,
                })
            }
            (Some(text), _) => Ok(vec![format!("the store does not answer: {text}; {here}")]),
            (None, _) if seen.caught_up_at.is_none() => Ok(vec![format!("the store takes long to answer; {here}")]),
            (None, _) => Ok(Vec::new()),
        }
    }

    pub(super) async fn unmount(&self, request: Unmount) -> Result<Response> {
        let which: Vec<Mounted> = {
            let mut all = self.mounts.lock();
            let (go, stay) =
                std::mem::take(&mut *all).into_iter().partition(|m| request.mountpoint.as_ref().is_none_or(|w| *w == m.info.mountpoint));
            *all = stay;
            go
        };
        let mut done = Vec::new();
        for m in which {
            let (at, force) = (m.info.mountpoint.clone(), request.force);
            let asked = blocking(move || {
                let asked = if m.fuse.is_over() { Ok(()) } else { ask(&at, force) };
                Ok((asked.err(), m))
            })
            .await?;
            match asked {
                (Some(e), m) => {
                    self.mounts.lock().push(m);
                    return Err(e);
                }
                (None, m) => {
                    done.push(m.info.mountpoint.clone());
                    if request.force {
                        // Programs may still hold it: it is let go when they end, or with this process.
                        tokio::task::spawn_blocking(move || drop(m));
                    } else {
                        blocking(move || m.fuse.unmount()).await?;
                    }
                }
            }
        }
        let vfs = self.vfs.clone();
        blocking(move || vfs.seal_closed()).await?;
        Ok(Response::Unmounted(Unmounted { mountpoints: done, pending: 0, daemon_stops: false }))
    }
}
