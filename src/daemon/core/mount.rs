//! Mounting and unmounting this machine's drive.

use super::front::Front;
use super::{Core, blocking};
use crate::daemon::mounts;
use crate::daemon::paths::Platform;
use crate::daemon::protocol::{DeviceRef, Mount, MountInfo, Mounted as Answer, Response, Unmount, Unmounted};
use crate::error::{Error, Kind, Result};
#[cfg(not(target_os = "macos"))]
use crate::mount::fuse::{MountOptions, mount};
use crate::mount::nfs::{NfsOptions, NfsServer};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a mount waits for the changes of other devices; without the store it shows what is here.
const CATCH_UP: Duration = Duration::from_secs(5);

/// A mount of this process.
pub(super) struct Mounted {
    pub info: MountInfo,
    pub front: Front,
}

/// Takes a mount away at the end of the process: gently, then lazily.
pub(super) async fn detach(m: Mounted) -> Result<()> {
    if m.front.ask(&m.info.mountpoint, false).await.is_err() {
        m.front.ask(&m.info.mountpoint, true).await?;
    }
    m.front.end().await
}

impl Core {
    pub(super) async fn mount(&self, request: Mount) -> Result<Response> {
        // A machine that joins or returns shows the fleet's files at once, if the store answers.
        self.fleet.first_look(CATCH_UP).await;
        let notes = self.store_notes()?;
        let (front, info) = if request.backend.is_nfs() { self.serve_nfs(&request).await? } else { self.mount_fuse(&request).await? };
        let at = info.mountpoint.clone();
        self.mounts.lock().push(Mounted { info: info.clone(), front });
        // The mount answers before anybody is told that it is there.
        if info.command.is_none() {
            blocking(move || std::fs::metadata(&at).map(|_| ()).map_err(|e| Error::io(format!("looking at {}", at.display()), e))).await?;
        }
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

    #[cfg(not(target_os = "macos"))]
    async fn mount_fuse(&self, request: &Mount) -> Result<(Front, MountInfo)> {
        let options =
            MountOptions { allow_other: request.allow_other, read_only: request.read_only, no_passthrough: request.no_passthrough };
        let (vfs, at) = (self.vfs.clone(), request.mountpoint.clone());
        let fuse = blocking(move || mount(vfs, &at, &options)).await?;
        let info = MountInfo { backend: "fuse".to_owned(), passthrough: fuse.passthrough(), ..self.info(request) };
        Ok((Front::Fuse(fuse), info))
    }

    #[cfg(target_os = "macos")]
    async fn mount_fuse(&self, _: &Mount) -> Result<(Front, MountInfo)> {
        Err(Error::new(Kind::Unsupported, "FUSE is served on Linux only").hint("leave --backend out: the drive is served by NFS"))
    }

    async fn serve_nfs(&self, request: &Mount) -> Result<(Front, MountInfo)> {
        if self.mounts.lock().iter().any(|m| matches!(m.front, Front::Nfs { .. })) {
            return Err(Error::new(Kind::Exists, "the drive is served by NFS already, and by one server only")
                .hint("`tcfs status` says where; `tcfs unmount` ends it"));
        }
        let options = NfsOptions {
            port: self.config.nfs.port.unwrap_or(0),
            allow_other: request.allow_other,
            read_only: request.read_only,
            keep_spotlight_out: Platform::here() == Platform::MacOs,
            state_dir: self.config.dirs.state.clone(),
        };
        let server = NfsServer::start(self.vfs.clone(), &*self.clock, &options).await?;
        let (export, at) = (server.export(), request.mountpoint.clone());
        let command = mounts::mount_command(Platform::here(), server.port(), &export, &at);
        let mut info = MountInfo { backend: "nfs".to_owned(), ..self.info(request) };
        if request.no_mount {
            info.command = Some(command.join(" "));
            server.admit(true);
            return Ok((Front::nfs(server, false), info));
        }
        let (there, with) = (at.clone(), export.clone());
        // Left by a daemon that died: its client waits, and has found this one by now.
        let done = if blocking(move || Ok(mounts::nfs_at(&there, &with) == Some(true))).await? {
            Ok(())
        } else {
            server.admit(true);
            let done = blocking(move || mounts::mount_nfs(&command, &at)).await;
            server.admit(false);
            done
        };
        match done {
            Ok(()) => Ok((Front::nfs(server, true), info)),
            Err(e) => {
                server.stop().await;
                Err(e)
            }
        }
    }

    fn info(&self, request: &Mount) -> MountInfo {
        MountInfo {
            mountpoint: request.mountpoint.clone(),
            read_only: request.read_only,
            allow_other: request.allow_other,
            since: self.clock.now_ms(),
            ..MountInfo::default()
        }
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
        // Forced, it does not wait for anybody.
        let _git = if request.force { None } else { Some(self.git.working.lock().await) };
        let which: Vec<Mounted> = {
            let mut all = self.mounts.lock();
            let (go, stay) =
                std::mem::take(&mut *all).into_iter().partition(|m| request.mountpoint.as_ref().is_none_or(|w| *w == m.info.mountpoint));
            *all = stay;
            go
        };
        let mut done = Vec::new();
        for m in which {
            let at = m.info.mountpoint.clone();
            if let Err(e) = m.front.ask(&at, request.force).await {
                self.mounts.lock().push(m);
                return Err(e);
            }
            done.push(at);
            if request.force {
                // Programs may still hold it: it is let go when they end, or with this process.
                tokio::spawn(m.front.end());
            } else {
                m.front.end().await?;
            }
        }
        let vfs = self.vfs.clone();
        blocking(move || vfs.seal_closed()).await?;
        Ok(Response::Unmounted(Unmounted { mountpoints: done, pending: 0, daemon_stops: false }))
    }
}
