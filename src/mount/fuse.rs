//! The drive as a FUSE file system (Linux).
//!
//! The kernel caches names, attributes and pages for a day and is told of what changes without it. A remote version
//! comes as a new inode, so cached pages never go stale.
//!
//! What programs watch with inotify is told to them besides (`retell`).
//!
//! Must: no handler waits for the network: what needs it is answered from a task later.
//! Not here: the operations (`filesystem`), what each does (`vfs`).

mod convert;
mod filesystem;
mod invalidate;
mod passthrough;
mod retell;
mod watches;

use crate::error::{Error, Kind, Result};
use crate::vfs::{Invalidate, Vfs};
use dashmap::DashMap;
use fuser::{BackgroundSession, BackingId, Config, MountOption, SessionACL};
use invalidate::{Teller, Told, tell};
use retell::{Retell, Reteller};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

/// Threads that take requests: with two cores, more only wait for each other.
const THREADS: usize = 3;

/// How to mount.
#[derive(Clone, Debug, Default)]
pub struct MountOptions {
    /// Other users may use it too.
    pub allow_other: bool,
    /// Nothing can be changed.
    pub read_only: bool,
    /// Never let the kernel use local files itself.
    pub no_passthrough: bool,
}

/// A mounted drive; unmounts when dropped.
pub struct FuseMount {
    session: Option<BackgroundSession>,
    vfs: Arc<Vfs>,
    watcher: Arc<dyn Invalidate>,
    told: Vec<std::thread::JoinHandle<()>>,
    stop: mpsc::Sender<Told>,
    passthrough: Arc<AtomicBool>,
    /// Where.
    pub mountpoint: PathBuf,
}

/// Mounts `vfs` on `mountpoint`. To be called within a runtime.
///
/// Errors: `NotFound` with the package to install if a helper is needed and missing; what the kernel says otherwise.
pub fn mount(vfs: Arc<Vfs>, mountpoint: &Path, options: &MountOptions) -> Result<FuseMount> {
    let passthrough = !options.no_passthrough && crate::sys::may_mount();
    let possible = Arc::new(AtomicBool::new(passthrough));
    let retell = Arc::new(Retell::default());
    let fs = Fuse {
        vfs: vfs.clone(),
        rt: tokio::runtime::Handle::current(),
        passthrough: possible.clone(),
        backing: DashMap::new(),
        retell: retell.clone(),
    };
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("tcfs".into()),
        MountOption::Subtype("tcfs".into()),
        MountOption::DefaultPermissions,
        MountOption::NoAtime,
        // What comes from other machines gets no special powers here.
        MountOption::NoSuid,
        MountOption::NoDev,
    ];
    if options.read_only {
        config.mount_options.push(MountOption::RO);
    }
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(THREADS);
    let session = fuser::spawn_mount(fs, mountpoint, &config).map_err(|e| explain(mountpoint, options, e))?;
    let notifier = session.notifier();
    let (tx, rx) = mpsc::channel();
    let watcher: Arc<dyn Invalidate> = Arc::new(Teller(tx.clone()));
    vfs.watch(watcher.clone());
    let (news, told_of) = mpsc::channel();
    let reteller = Reteller::new(retell, vfs.clone(), notifier.clone(), mountpoint);
    let thread = |name: &str, work: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(|e| Error::io("starting a thread of the mount", e))
    };
    let told = vec![
        thread("fuse-notify", Box::new(move || tell(&notifier, &rx, &news)))?,
        thread("fuse-retell", Box::new(move || reteller.run(&told_of)))?,
    ];
    Ok(FuseMount { session: Some(session), vfs, watcher, told, stop: tx, passthrough: possible, mountpoint: mountpoint.to_owned() })
}

fn explain(mountpoint: &Path, options: &MountOptions, e: io::Error) -> Error {
    let at = mountpoint.display();
    if !Path::new("/dev/fuse").exists() {
        return Error::new(Kind::Unsupported, format!("mounting on {at}: this kernel has no /dev/fuse"))
            .hint("load the module (modprobe fuse), or in a container start it with --device /dev/fuse");
    }
    let helped = !crate::sys::may_mount();
    if helped && e.kind() == io::ErrorKind::NotFound {
        return Error::new(Kind::NotFound, format!("mounting on {at}: fusermount3 is missing"))
            .hint("install it: apt install fuse3 (Debian, Ubuntu), dnf install fuse3 (Fedora), pacman -S fuse3 (Arch)");
    }
    let err = Error::io(format!("mounting on {at}"), e);
    if helped && options.allow_other {
        return err.hint("--allow-other needs the line `user_allow_other` in /etc/fuse.conf");
    }
    err
}

impl FuseMount {
    /// Unmounts; waits until the kernel has let go. `Busy` if programs have files open in it.
    pub fn unmount(mut self) -> Result<()> {
        self.end()
    }

    /// Whether large files are read and written by the kernel directly.
    pub fn passthrough(&self) -> bool {
        self.passthrough.load(Ordering::Relaxed)
    }

    /// Whether the kernel has ended the session (somebody unmounted it).
    pub fn is_over(&self) -> bool {
        self.session.as_ref().is_none_or(|s| s.guard.is_finished())
    }

    fn end(&mut self) -> Result<()> {
        self.vfs.unwatch(&self.watcher);
        let _ = self.stop.send(Told::Stop);
        for t in self.told.drain(..) {
            let _ = t.join();
        }
        match self.session.take() {
            Some(s) if s.guard.is_finished() => Ok(()),
            Some(s) => match s.umount_and_join() {
                // Unmounted already (by us, through the kernel or the helper), the session is just ending.
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(()),
                other => other.map_err(|e| Error::io(format!("unmounting {}", self.mountpoint.display()), e)),
            },
            None => Ok(()),
        }
    }
}

impl Drop for FuseMount {
    fn drop(&mut self) {
        if let Err(e) = self.end() {
            tracing::warn!(error = %e, "unmounting");
        }
    }
}

struct Fuse {
    vfs: Arc<Vfs>,
    rt: tokio::runtime::Handle,
    passthrough: Arc<AtomicBool>,
    backing: DashMap<u64, (Arc<BackingId>, u32)>,
    retell: Arc<Retell>,
}
