//! What the daemon does around the core: looks at mountpoints before they are mounted, names who keeps one busy,
//! fills in what only the process knows, and decides when the daemon ends.
//!
//! Must: a daemon that `tcfs mount` started ends with its last mount; one that `tcfs daemon start` or a service
//! manager started stays until it is told to stop.
//! Not here: the drive (the service behind this one).

use super::config::{Config, StoreUrl};
use super::mounts::{self, Answer, MountEntry};
use super::pathargs::real_parent;
use super::paths::Platform;
use super::protocol::{Backend, Followed, Mount, MountInfo, Mounted, Request, Response, Status, Stopped, Unmount, Unmounted, Wait};
use super::service::{Progress, Service};
use crate::error::{Error, Kind, Result};
use crate::mount::nfs::last_export;
use async_trait::async_trait;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, watch};

/// How long a daemon that ends with its last mount goes on publishing, while the store answers.
const LAST_PUBLISHING: Duration = Duration::from_secs(10);

/// What decides whether a daemon without a mount goes on.
#[derive(Debug, Default)]
pub struct Life {
    /// It goes on until it is told to stop.
    pub stays: AtomicBool,
    /// It has had a mount.
    pub mounted: AtomicBool,
}

/// A [`Service`] around the core's.
pub struct Shell {
    inner: Arc<dyn Service>,
    config: Arc<Config>,
    life: Arc<Life>,
    stop: watch::Sender<bool>,
    /// Mounts and unmounts are done one after the other.
    mounting: Mutex<()>,
}

impl Shell {
    /// Wraps `inner`; `stop` is told when the daemon is to end, `life` says whether it does without a mount.
    pub fn new(inner: Arc<dyn Service>, config: Arc<Config>, life: Arc<Life>, stop: watch::Sender<bool>) -> Shell {
        Shell { inner, config, life, stop, mounting: Mutex::new(()) }
    }

    async fn status(&self) -> Result<Status> {
        match self.inner.call(Request::Status, &Progress::none()).await? {
            Response::Status(mut s) => {
                s.stays = self.life.stays.load(Ordering::SeqCst);
                Ok(s)
            }
            other => Err(unexpected("status", &other)),
        }
    }

    async fn mount(&self, request: Mount, progress: &Progress) -> Result<Response> {
        let result = self.try_mount(request, progress).await;
        if result.is_err() && self.inner.mounts().is_empty() {
            self.nothing_left();
        }
        result
    }

    async fn try_mount(&self, mut request: Mount, progress: &Progress) -> Result<Response> {
        let _one = self.mounting.lock().await;
        let (config, active, wanted) = (self.config.clone(), self.inner.mounts(), request.clone());
        let prepared = tokio::task::spawn_blocking(move || prepare(&config, &active, &wanted))
            .await
            .map_err(|e| Error::new(Kind::Internal, "preparing the mountpoint").source(e))??;
        if let Prepared::Already(mount) = prepared {
            let s = self.status().await?;
            return Ok(Response::Mounted(Mounted { mount, device: s.device, already: true, entries: s.entries, ..Mounted::default() }));
        }
        let Prepared::Ready { mountpoint, notes } = prepared else { unreachable!("both cases are handled") };
        request.mountpoint = mountpoint;
        match self.inner.call(Request::Mount(request), progress).await? {
            Response::Mounted(mut m) => {
                self.life.mounted.store(true, Ordering::SeqCst);
                tracing::info!(mountpoint = %m.mount.mountpoint.display(), backend = m.mount.backend, "mounted");
                m.notes.splice(0..0, notes);
                if m.mount.backend == "fuse" && !m.mount.allow_other && rustix::process::getuid().is_root() {
                    m.notes.push("only root sees this mount; --allow-other shows it to other users".to_owned());
                }
                Ok(Response::Mounted(m))
            }
            other => Err(unexpected("mount", &other)),
        }
    }

    async fn unmount(&self, request: Unmount, progress: &Progress) -> Result<Response> {
        let _one = self.mounting.lock().await;
        let active: Vec<PathBuf> = self.inner.mounts().into_iter().map(|m| m.mountpoint).collect();
        let which = match &request.mountpoint {
            None => active,
            Some(m) => {
                vec![active.into_iter().find(|a| a == m || *a == real_parent(m)).ok_or_else(|| not_mounted(m, &self.inner.mounts()))?]
            }
        };
        for m in &which {
            let one = Unmount { mountpoint: Some(m.clone()), force: request.force };
            match self.inner.call(Request::Unmount(one), progress).await {
                Ok(_) => tracing::info!(mountpoint = %m.display(), force = request.force, "unmounted"),
                Err(e) if e.kind() == Kind::Busy => {
                    let at = m.clone();
                    let users = tokio::task::spawn_blocking(move || mounts::users(&at)).await.unwrap_or_default();
                    return Err(mounts::busy(m, &users));
                }
                Err(e) => return Err(e),
            }
        }
        let ends = self.inner.mounts().is_empty() && !self.life.stays.load(Ordering::SeqCst);
        if ends {
            self.publish_a_little(progress).await;
        }
        let pending = self.status().await.map_or(0, |s| s.pending);
        if ends {
            self.nothing_left();
        }
        Ok(Response::Unmounted(Unmounted { mountpoints: which, pending, daemon_stops: ends }))
    }

    /// Publishes what is pending before the daemon ends, if the store answers and it does not take long. What is
    /// left is kept and goes out next time, so every failure here is fine.
    async fn publish_a_little(&self, progress: &Progress) {
        match self.status().await {
            Ok(s) if s.pending > 0 && s.store_state.reachable => {
                let wait = Wait { path: None, timeout_ms: Some(LAST_PUBLISHING.as_millis() as u64) };
                if let Err(e) = self.inner.call(Request::Wait(wait), progress).await {
                    tracing::info!(error = %e, "not everything was published before the end; it goes out with the next mount");
                }
            }
            _ => {}
        }
    }

    fn nothing_left(&self) {
        if !self.life.stays.load(Ordering::SeqCst) {
            tracing::info!("nothing is mounted any more, the daemon ends");
            self.stop.send_replace(true);
        }
    }
}

#[async_trait]
impl Service for Shell {
    async fn call(&self, request: Request, progress: &Progress) -> Result<Response> {
        match request {
            Request::Status => self.status().await.map(Response::Status),
            Request::Mount(m) => self.mount(m, progress).await,
            Request::Unmount(u) => self.unmount(u, progress).await,
            Request::Stay => {
                self.life.stays.store(true, Ordering::SeqCst);
                self.status().await.map(Response::Status)
            }
            Request::Stop => {
                let pending = self.status().await.map_or(0, |s| s.pending);
                tracing::info!(pending, "told to stop");
                self.stop.send_replace(true);
                Ok(Response::Stopped(Stopped { pending }))
            }
            // It would go on for ever: the end of the daemon is its end.
            Request::Follow => {
                let mut stop = self.stop.subscribe();
                tokio::select! {
                    done = self.inner.call(Request::Follow, progress) => done,
                    _ = stop.wait_for(|s| *s) => Ok(Response::Followed(Followed::default())),
                }
            }
            other => self.inner.call(other, progress).await,
        }
    }

    fn mounts(&self) -> Vec<MountInfo> {
        self.inner.mounts()
    }

    async fn shutdown(&self) {
        self.inner.shutdown().await;
    }
}

enum Prepared {
    Already(MountInfo),
    Ready { mountpoint: PathBuf, notes: Vec<String> },
}

/// Everything that is checked before a mount. Blocks.
fn prepare(config: &Config, active: &[MountInfo], request: &Mount) -> Result<Prepared> {
    let mut notes = Vec::new();
    if !request.mountpoint.is_absolute() {
        return Err(Error::new(Kind::Usage, format!("{}: a mountpoint is an absolute path", request.mountpoint.display())));
    }
    // Not resolved whole yet: the last component may be a mount that hangs.
    let at = real_parent(&super::paths::normalize(&request.mountpoint));
    if let Some(m) = active.iter().find(|m| m.mountpoint == at) {
        return Ok(Prepared::Already(m.clone()));
    }
    if request.no_mount {
        // It may be the path of another system.
        return Ok(Prepared::Ready { mountpoint: at, notes });
    }
    let left = mounts::ours_at(&at);
    let own = |l: &MountEntry| l.is_nfs() && last_export(&config.dirs.state).is_some_and(|e| l.is_of(&e));
    if request.backend.is_nfs() && left.as_ref().is_some_and(own) {
        // It answers nobody before it is served again, so it is not asked anything.
        notes.push(format!("{} was still mounted by a daemon that ended; its programs go on", at.display()));
        return Ok(Prepared::Ready { mountpoint: at, notes });
    }
    if left.is_some() {
        let shown = at.display();
        match mounts::probe(&at) {
            Answer::Dead => {
                mounts::clean_stale(&at)?;
                tracing::warn!(mountpoint = %shown, "a mount left by a daemon that died was cleaned up");
                notes.push(format!("{shown} was still mounted by a daemon that died; that was cleaned up"));
            }
            Answer::Alive => {
                return Err(Error::new(Kind::Exists, format!("another daemon has its drive mounted on {shown}"))
                    .hint("mount elsewhere, or unmount that one with its own --state-dir"));
            }
            Answer::Hangs => {
                return Err(Error::new(Kind::Busy, format!("the mount on {shown} does not answer"))
                    .hint(format!("tcfs unmount --force {shown} takes it away")));
            }
        }
    }
    if Platform::here() == Platform::Linux && request.backend != Backend::Nfs {
        let env = config_path_env();
        mounts::check_fuse(!crate::sys::may_mount(), request.allow_other, &env)?;
    }
    let mut keep: Vec<(&str, &Path)> = vec![("state", &config.dirs.state), ("cache", &config.cache.dir)];
    if let StoreUrl::Dir(d) = &config.store {
        keep.push(("store", d));
    }
    let inside = active.iter().map(|m| m.mountpoint.as_path()).find(|m| at.starts_with(m));
    if let Some(m) = inside {
        return Err(Error::new(Kind::Usage, format!("{} lies inside the drive itself, on {}", at.display(), m.display()))
            .hint("mount it on a directory outside of the drive"));
    }
    let mountpoint = mounts::prepare_mountpoint(&at, &keep)?;
    Ok(Prepared::Ready { mountpoint, notes })
}

fn config_path_env() -> super::paths::Env {
    std::env::var("PATH").map(|p| [("PATH".to_owned(), p)].into()).unwrap_or_default()
}

fn not_mounted(wanted: &Path, active: &[MountInfo]) -> Error {
    let e = Error::new(Kind::NotFound, format!("the drive is not mounted on {}", wanted.display()));
    match active {
        [] => e.hint("nothing is mounted"),
        some => {
            e.hint(format!("it is mounted on {}", some.iter().map(|m| m.mountpoint.display().to_string()).collect::<Vec<_>>().join(", ")))
        }
    }
}

/// An answer of the wrong kind: a bug, but no reason to fall over.
pub fn unexpected(op: &str, got: &Response) -> Error {
    let got: String = format!("{got:?}").chars().take(60).collect();
    Error::new(Kind::Internal, format!("the answer to {op} is of another kind: {got}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::daemon::config::Sources;
    use crate::daemon::paths::Env;
    use std::sync::atomic::AtomicU64;

    /// A core that mounts nothing really.
    #[derive(Default)]
    pub struct FakeCore {
        pub mounts: parking_lot::Mutex<Vec<MountInfo>>,
        pub busy: AtomicBool,
        pub refuse: AtomicBool,
        pub pending: AtomicU64,
        pub ended: AtomicBool,
    }

    #[async_trait]
    impl Service for FakeCore {
        async fn call(&self, request: Request, _: &Progress) -> Result<Response> {
            match request {
                Request::Mount(_) if self.refuse.load(Ordering::SeqCst) => Err(Error::new(Kind::Unavailable, "no store")),
                Request::Mount(m) => {
                    let mount = MountInfo { mountpoint: m.mountpoint, backend: "fuse".into(), ..MountInfo::default() };
                    self.mounts.lock().push(mount.clone());
                    Ok(Response::Mounted(Mounted { mount, ..Mounted::default() }))
                }
                Request::Unmount(u) => {
                    if self.busy.load(Ordering::SeqCst) && !u.force {
                        return Err(Error::new(Kind::Busy, "busy"));
                    }
                    self.mounts.lock().retain(|m| Some(&m.mountpoint) != u.mountpoint.as_ref());
                    Ok(Response::Unmounted(Unmounted::default()))
                }
                Request::Status => {
                    let mut s = Status { pending: self.pending.load(Ordering::SeqCst), ..Status::default() };
                    s.store_state.reachable = true;
                    Ok(Response::Status(s))
                }
                Request::Wait(_) => {
                    self.pending.store(0, Ordering::SeqCst);
                    Ok(Response::Waited(Default::default()))
                }
                other => Err(Error::new(Kind::Unsupported, other.op())),
            }
        }
        fn mounts(&self) -> Vec<MountInfo> {
            self.mounts.lock().clone()
        }
        async fn shutdown(&self) {
            self.ended.store(true, Ordering::SeqCst);
        }
    }

    pub fn config_in(dir: &Path) -> Arc<Config> {
        let sources = Sources {
            platform: Platform::Linux,
            env: Env::from([
                ("HOME".to_owned(), dir.join("home").display().to_string()),
                ("TCFS_STATE_DIR".to_owned(), dir.join("state").display().to_string()),
            ]),
            cwd: dir.to_owned(),
            host: "yoga".into(),
            config_file: None,
            flags: vec![],
        };
        Arc::new(Config::load(&sources).unwrap())
    }

    struct Up {
        shell: Shell,
        core: Arc<FakeCore>,
        stop: watch::Receiver<bool>,
        tmp: tempfile::TempDir,
    }

    fn up(stays: bool) -> Up {
        let tmp = tempfile::tempdir().unwrap();
        let core = Arc::new(FakeCore::default());
        let (tx, stop) = watch::channel(false);
        Up {
            shell: Shell::new(core.clone(), config_in(tmp.path()), Arc::new(Life { stays: AtomicBool::new(stays), ..Life::default() }), tx),
            core,
            stop,
            tmp,
        }
    }

    async fn mount(up: &Up, name: &str) -> Result<Mounted> {
        let mountpoint = up.tmp.path().join(name);
        match up.shell.call(Request::Mount(Mount { mountpoint, ..Mount::default() }), &Progress::none()).await? {
            Response::Mounted(m) => Ok(m),
            other => panic!("{other:?}"),
        }
    }

    async fn unmount(up: &Up, name: Option<&str>, force: bool) -> Result<Unmounted> {
        let mountpoint = name.map(|n| up.tmp.path().join(n));
        match up.shell.call(Request::Unmount(Unmount { mountpoint, force }), &Progress::none()).await? {
            Response::Unmounted(u) => Ok(u),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_daemon_started_by_mount_publishes_and_ends_with_its_last_mount() {
        let up = up(false);
        mount(&up, "a").await.unwrap();
        mount(&up, "b").await.unwrap();
        up.core.pending.store(3, Ordering::SeqCst);
        let u = unmount(&up, Some("a"), false).await.unwrap();
        assert_eq!((u.daemon_stops, u.pending, *up.stop.borrow()), (false, 3, false));
        let u = unmount(&up, Some("b"), false).await.unwrap();
        assert_eq!((u.daemon_stops, u.pending, *up.stop.borrow()), (true, 0, true));
    }

    #[tokio::test]
    async fn a_daemon_that_stays_outlives_its_mounts_until_told() {
        let up = up(true);
        mount(&up, "a").await.unwrap();
        assert!(!unmount(&up, None, false).await.unwrap().daemon_stops);
        assert!(!*up.stop.borrow());
        up.shell.call(Request::Stop, &Progress::none()).await.unwrap();
        assert!(*up.stop.borrow());
    }

    #[tokio::test]
    async fn a_daemon_started_by_mount_can_be_told_to_stay() {
        let up = up(false);
        mount(&up, "a").await.unwrap();
        let Response::Status(s) = up.shell.call(Request::Stay, &Progress::none()).await.unwrap() else { panic!() };
        assert!(s.stays);
        assert!(!unmount(&up, None, false).await.unwrap().daemon_stops);
        assert!(!*up.stop.borrow());
    }

    #[tokio::test]
    async fn a_first_mount_that_fails_ends_the_daemon_and_a_second_does_not() {
        let first = up(false);
        first.core.refuse.store(true, Ordering::SeqCst);
        assert_eq!(mount(&first, "a").await.unwrap_err().kind(), Kind::Unavailable);
        assert!(*first.stop.borrow());
        let second = up(false);
        mount(&second, "a").await.unwrap();
        assert_eq!(mount(&second, "state/x").await.unwrap_err().kind(), Kind::Usage);
        assert!(!*second.stop.borrow());
    }

    #[tokio::test]
    async fn mounting_twice_says_so_and_inside_itself_is_refused() {
        let up = up(false);
        assert!(!mount(&up, "a").await.unwrap().already);
        assert!(mount(&up, "a").await.unwrap().already);
        assert_eq!(up.core.mounts.lock().len(), 1);
        let e = mount(&up, "a/b").await.unwrap_err();
        assert!(e.to_string().contains("inside the drive itself"), "{e}");
    }

    #[tokio::test]
    async fn a_busy_mount_names_its_users_and_stays() {
        let up = up(false);
        mount(&up, "a").await.unwrap();
        up.core.busy.store(true, Ordering::SeqCst);
        let mut user = std::process::Command::new("sleep").arg("60").current_dir(up.tmp.path().join("a")).spawn().unwrap();
        let e = unmount(&up, None, false).await.unwrap_err();
        user.kill().unwrap();
        user.wait().unwrap();
        assert!(e.kind() == Kind::Busy && e.to_string().contains(&format!("sleep (process {}) works in it", user.id())), "{e:?}");
        assert!(!*up.stop.borrow());
        assert!(unmount(&up, None, true).await.unwrap().daemon_stops);
    }

    #[tokio::test]
    #[cfg(not(target_os = "macos"))]
    async fn a_mount_left_by_a_dead_daemon_is_cleaned_up_and_a_hanging_one_is_not() {
        use crate::daemon::mounts::tests::unserved;
        let up = up(true);
        let at = up.tmp.path().canonicalize().unwrap().join("a");
        let Some(device) = unserved(&at) else { return };
        let e = mount(&up, "a").await.unwrap_err();
        assert!(e.kind() == Kind::Busy && e.hint_text().unwrap().contains("--force"), "{e:?}");
        drop(device);
        let m = mount(&up, "a").await.unwrap();
        assert!(m.notes[0].contains("cleaned up"), "{:?}", m.notes);
        assert!(mounts::ours_at(&at).is_none());
    }

    #[tokio::test]
    async fn what_is_not_mounted_cannot_be_unmounted() {
        let up = up(false);
        mount(&up, "a").await.unwrap();
        let e = unmount(&up, Some("z"), false).await.unwrap_err();
        assert!(e.kind() == Kind::NotFound && e.hint_text().unwrap().contains("/a"), "{e:?}");
    }

    #[tokio::test]
    async fn status_says_whether_the_process_stays() {
        for stays in [false, true] {
            let up = up(stays);
            let Response::Status(s) = up.shell.call(Request::Status, &Progress::none()).await.unwrap() else { panic!() };
            assert_eq!(s.stays, stays);
        }
    }
}
