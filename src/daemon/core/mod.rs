//! The drive of this machine in one process: state, store, fleet, files and mounts put together.
//!
//! Must: the state's lock is held from before the database is opened until after it is closed.
//! Must: shutting down unmounts first (nothing can be written any more), then seals, then stops publishing, then
//! closes the database; nothing of it waits for the store.
//! Not here: what a request means in detail (one file each beside this one).

mod activity;
mod adopt;
mod brake;
mod cache;
mod conflicts;
mod device;
mod diff;
mod doctor;
mod facts;
mod find;
mod front;
mod gc;
mod git;
mod history;
mod hydrate;
mod ignore;
mod log;
mod ls;
mod mount;
mod paths;
mod pull;
mod push;
mod status;
mod store;
mod total;
mod trash;
mod why;

use super::config::Config;
use super::protocol::{MountInfo, Request, Response};
use super::service::{Progress, Service};
use crate::clock::{Clock, SystemClock};
use crate::content::{FetchOptions, Fetcher};
use crate::error::{Error, IoContext, Kind, Result};
use crate::fleet::blocking;
use crate::fleet::bus::Bus;
use crate::fleet::nats::Nats;
use crate::fleet::{Fleet, GcOptions, Identity, Me, Options as FleetOptions, Parts, Registry};
use crate::model::view::ConflictMode as Mode;
use crate::state::Replica;
use crate::state::lock::StateLock;
use crate::store::count::{CountedStore, Counts};
use crate::store::keys::Keys;
use crate::store::s3::S3Options;
use crate::store::switch::SwitchStore;
use crate::store::{StoreRef, open};
use crate::vfs::{Invalidate, Options as VfsOptions, Vfs, VfsFiles};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long a read of bytes that are not here waits for the store before the program gets an error.
const READ_DEADLINE: Duration = Duration::from_secs(30);
/// The deadline; for tests with a store that never answers, `TCFS_TEST_READ_DEADLINE_MS` in the environment shortens it.
fn read_deadline() -> Duration {
    let given = std::env::var("TCFS_TEST_READ_DEADLINE_MS").ok().and_then(|v| v.parse().ok());
    given.map_or(READ_DEADLINE, Duration::from_millis)
}

/// How often the database is committed, so that others see it and a start replays little.
const COMMIT_EVERY: Duration = Duration::from_millis(500);
/// How often files that are held open are looked at, and the write-ahead file is moved into the database.
const HOUSEKEEPING: Duration = Duration::from_secs(2);
/// How long an answer is kept back at most until the mounts show what it says.
const SHOWN: Duration = Duration::from_millis(500);
/// How long a background task may take to end.
const ENDING: Duration = Duration::from_secs(5);
/// How long enrolling at the start waits for the store; without it the machine enrols and registers later.
const ENROL_PATIENCE: Duration = Duration::from_secs(5);

/// The drive, opened.
pub struct Core {
    pub(super) config: Arc<Config>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) vfs: Arc<Vfs>,
    pub(super) fleet: Arc<Fleet>,
    pub(super) store: StoreRef,
    /// What it was asked so far.
    counts: Arc<Counts>,
    /// The same, to be exchanged.
    pub(super) switch: Arc<SwitchStore>,
    pub(super) keys: Keys,
    pinner: Arc<hydrate::Pinner>,
    git: Arc<git::Keeper>,
    pub(super) replica: Arc<Replica>,
    pub(super) enrolled_now: AtomicBool,
    mounts: Arc<Mutex<Vec<mount::Mounted>>>,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// Itself, for what goes on on another thread.
    this: Weak<Core>,
    started_at: i64,
    /// On the cache and the state, which is let go last: who waits for that takes both.
    locks: Mutex<Vec<StateLock>>,
}

fn s3_options(config: &Config, wanted: bool) -> Result<S3Options> {
    if !wanted {
        return Ok(S3Options::default());
    }
    let c = config.s3_credentials()?;
    Ok(S3Options {
        endpoint: config.s3.endpoint.clone(),
        region: Some(config.s3.region.clone()),
        access_key_id: Some(c.access_key_id),
        secret_access_key: Some(c.secret_access_key),
        session_token: c.session_token,
        allow_http: config.s3.allow_http,
        ..S3Options::default()
    })
}

/// The event bus, if one is configured.
fn bus(config: &Config, me: &Arc<Me>) -> Result<Option<Arc<dyn Bus>>> {
    let Some(options) = config.nats()? else { return Ok(None) };
    Ok(Some(Nats::new(options, me.clone())?))
}

impl Core {
    /// Opens everything. The machine is enrolled if it was not.
    pub async fn open(config: &Config, lock: StateLock) -> Result<Arc<Core>> {
        let config = Arc::new(config.clone());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (opened, keys) = open::open(&config.store.to_string(), &s3_options(&config, store::is_s3(&config.store))?)?;
        let switch = SwitchStore::new(opened);
        let (counted, counts) = CountedStore::new(switch.clone());
        let store: StoreRef = counted;
        let state = config.dirs.state.clone();
        let dir = state.clone();
        let known = config.clone();
        let replica = blocking(move || {
            let replica = Replica::open(&dir).map(Arc::new)?;
            store::check_moved(&replica, &known)?;
            if let Err(e) = replica.db().keep_reserve(crate::state::reserve::BYTES) {
                tracing::warn!(error = %e, "no space is kept back for the local state: it may not be writable on a full disk");
            }
            Ok(replica)
        })
        .await?;
        let (me, enrolled_now) = who(&config, &store, &replica, &*clock).await?;
        let me = Me::new(me);
        let cache_dir = config.cache.dir.clone();
        std::fs::create_dir_all(&cache_dir).doing(|| format!("making the cache directory {}", cache_dir.display()))?;
        let cache_lock = StateLock::of_cache(&cache_dir)?;
        let disk = rustix::fs::statvfs(&cache_dir).map(|s| s.f_blocks * s.f_frsize).unwrap_or(u64::MAX);
        let options = VfsOptions {
            state_dir: state.clone(),
            cache_max: config.cache.cap(disk),
            cache_dir,
            conflict_mode: match config.conflict_mode.as_str() {
                "interactive" => Mode::Interactive,
                "defer" => Mode::Defer,
                _ => Mode::Auto,
            },
            hydrate_whole_below: config.cache.hydrate_whole_below.0,
            read_deadline: read_deadline(),
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            exclude_patterns: config.exclude_patterns.clone(),
            // As bundles they stay where they are.
            sync_git_dirs: config.sync_git_dirs && config.git_sync_mode.as_str() != "bundle",
            move_at_once: crate::vfs::MOVE_AT_ONCE,
            readers: config.hydration.clone(),
            min_free: config.cache.min_free.0,
            brake: config.brake,
            boot: crate::vfs::boot_id(),
        };
        let fetcher = Fetcher::new(store.clone(), keys.clone(), clock.clone(), FetchOptions::default());
        let (r, c, m) = (replica.clone(), clock.clone(), me.clone());
        let vfs = blocking(move || {
            let vfs = Vfs::open(r, fetcher, c, m, options)?;
            vfs.refresh_conflicts()?;
            Ok(vfs)
        })
        .await?;
        let fleet = Fleet::new(Parts {
            replica: replica.clone(),
            store: store.clone(),
            keys: keys.clone(),
            files: Arc::new(VfsFiles(vfs.clone())),
            clock: clock.clone(),
            bus: bus(&config, &me)?,
            me,
            state_dir: state,
            options: FleetOptions {
                poll_interval: Some(config.poll_interval()),
                gc: GcOptions { enabled: config.gc.enabled, ..GcOptions::default() },
                ..FleetOptions::default()
            },
        })?;
        let (stop, stopped) = watch::channel(false);
        let mounts = Arc::default();
        let git = git::Keeper::new(vfs.clone(), clock.clone(), &config, Arc::clone(&mounts));
        let started_at = clock.now_ms();
        let core = Arc::new_cyclic(|this| Core {
            this: this.clone(),
            started_at,
            git,
            config,
            clock,
            pinner: hydrate::Pinner::new(vfs.clone()),
            vfs,
            fleet,
            store,
            counts,
            switch,
            keys,
            replica,
            enrolled_now: AtomicBool::new(enrolled_now),
            mounts,
            stop,
            tasks: Mutex::default(),
            locks: Mutex::new(vec![cache_lock, lock]),
        });
        core.vfs.tells(Arc::new(facts::OfCore(Arc::downgrade(&core))));
        core.start(&stopped);
        Ok(core)
    }

    /// Itself, for work on another thread.
    fn shared(&self) -> Result<Arc<Core>> {
        self.this.upgrade().ok_or_else(|| Error::new(Kind::Interrupted, "the drive is being closed"))
    }

    fn start(self: &Arc<Self>, stopped: &watch::Receiver<bool>) {
        // Before anything happens.
        let activity = activity::write_down(self, stopped.clone());
        let fleet = tokio::spawn(self.fleet.clone().run(stopped.clone()));
        let bell = {
            let (sealed, fleet, mut stopped) = (self.vfs.sealed.clone(), self.fleet.clone(), stopped.clone());
            tokio::spawn(async move {
                while !*stopped.borrow() {
                    tokio::select! {
                        () = sealed.notified() => fleet.wake(),
                        _ = stopped.changed() => return,
                    }
                }
            })
        };
        let commits = {
            let (replica, mut stopped) = (self.replica.clone(), stopped.clone());
            tokio::spawn(async move {
                while !*stopped.borrow() {
                    tokio::select! {
                        () = tokio::time::sleep(COMMIT_EVERY) => {}
                        _ = stopped.changed() => return,
                    }
                    let r = replica.clone();
                    if let Err(e) = blocking(move || r.db().commit()).await {
                        tracing::error!(error = %e, "committing the local state; it is tried again");
                    }
                }
            })
        };
        let house = {
            let (vfs, replica, mut stopped) = (self.vfs.clone(), self.replica.clone(), stopped.clone());
            tokio::spawn(async move {
                while !*stopped.borrow() {
                    tokio::select! {
                        () = tokio::time::sleep(HOUSEKEEPING) => {}
                        _ = stopped.changed() => return,
                    }
                    let (v, r) = (vfs.clone(), replica.clone());
                    let done = blocking(move || {
                        // One file that cannot be sealed must not keep the rest from being done.
                        let sealed = v.seal_quiet().and(v.brake_earlier());
                        v.clear_leavings()?;
                        v.free_orphans()?;
                        v.sync_waiting()?;
                        v.evict_if_disk_full();
                        v.tidy();
                        r.db().checkpoint()?;
                        sealed
                    });
                    if let Err(e) = done.await {
                        tracing::error!(error = %e, "housekeeping of the local state; it is tried again");
                    }
                }
            })
        };
        let pins = {
            let watch: Arc<dyn Invalidate> = self.pinner.clone();
            self.vfs.watch(watch);
            tokio::spawn(self.pinner.clone().run(stopped.clone()))
        };
        let devices = tokio::spawn(device::keep_fresh(self.fleet.clone(), self.replica.clone(), stopped.clone()));
        let repositories = tokio::spawn(self.git.clone().run(stopped.clone()));
        self.tasks.lock().extend([activity, fleet, commits, house, pins, devices, repositories]);
        // Rings for as long as the process lives; ended with it.
        self.tasks.lock().push(bell);
    }
}

/// Who this machine is: as the database or the identity file says, else enrolled now.
async fn who(config: &Config, store: &StoreRef, replica: &Replica, clock: &dyn Clock) -> Result<(Identity, bool)> {
    if let Some(id) = replica.read(crate::fleet::facts::identity)? {
        return Ok((id, false));
    }
    match Identity::load(&config.dirs.state) {
        Ok(id) => return Ok((id, false)),
        Err(e) if e.kind() == Kind::NotEnrolled => {}
        Err(e) => return Err(e),
    }
    let name = &config.device_name.0;
    let registry = Registry::new(store.clone());
    let enrolled = tokio::time::timeout(ENROL_PATIENCE, registry.enroll(name, false, &|_| 0, clock)).await;
    let identity = match enrolled {
        Ok(Ok(e)) => e.identity,
        Ok(Err(e)) if !e.kind().is_transient() => return Err(e.context(format!("enrolling this machine as {name}"))),
        other => {
            let why = match other {
                Ok(Err(e)) => e.to_string(),
                _ => "it takes too long".to_owned(),
            };
            tracing::warn!(why, "the store does not answer: this machine enrols itself and is registered later");
            Identity::create(name, clock)?
        }
    };
    identity.save(&config.dirs.state)?;
    tracing::info!(id = identity.id, "this machine is enrolled");
    Ok((identity, true))
}

impl Core {
    async fn answer(&self, request: Request, progress: &Progress) -> Result<Response> {
        match request {
            Request::Status => self.status().await,
            Request::Mount(m) => self.mount(m).await,
            Request::Unmount(u) => self.unmount(u).await,
            Request::Wait(w) => self.wait(w).await,
            Request::Push(p) => self.push(p, progress).await,
            Request::Pull(p) => self.pull(p, progress).await,
            Request::Ls(l) => self.ls(l, progress).await,
            Request::Hydrate(p) => self.hydrate(p, progress).await,
            Request::Unsync(p) => self.unsync(p, progress).await,
            Request::Pin(p) => self.pin(p).await,
            Request::Unpin(p) => self.unpin(p).await,
            Request::GitStatus(g) => self.git_status(g, progress).await,
            Request::Ignore(i) => self.ignore(i, progress).await,
            Request::History(p) => self.history(p, progress).await,
            Request::Restore(r) => self.restore(r, progress).await,
            Request::Conflicts(c) => self.conflicts(c, progress).await,
            Request::ConflictDiff(d) => self.conflict_diff(d, progress).await,
            Request::ResolveConflict(r) => self.resolve_conflict(r, progress).await,
            Request::Approve(a) => self.approve(a, progress).await,
            Request::DeviceList => self.device_list(progress).await,
            Request::DeviceEnroll(e) => self.device_enroll(e).await,
            Request::DeviceRename(r) => self.device_rename(r).await,
            Request::DeviceRevoke(r) => self.device_revoke(r).await,
            Request::Doctor => self.doctor(progress).await,
            Request::StoreShow => self.store_show().await,
            Request::StoreMove(m) => self.store_move(m, progress).await,
            Request::StoreCopy(m) => self.store_copy(m, progress).await,
            Request::Adopt(a) => self.adopt(a, progress).await,
            Request::Pending => self.pending(progress).await,
            Request::Told(t) => self.told(t).await,
            Request::Why(p) => self.why(p).await,
            Request::Find(f) => self.find(f, progress).await,
            Request::Log(l) => self.log(l, progress).await,
            Request::Trash(t) => self.trash(t, progress).await,
            Request::CacheList(c) => self.cache_list(c, progress).await,
            Request::Diff(d) => self.diff(d, progress).await,
            Request::Follow => self.follow(progress).await,
            Request::Gc(g) => self.gc(g, progress).await,
            // The process around this service ends it.
            other @ (Request::Stop | Request::Stay) => Err(Error::new(Kind::Unsupported, format!("{} is not possible here", other.op()))),
        }
    }
}

#[async_trait]
impl Service for Core {
    async fn call(&self, request: Request, progress: &Progress) -> Result<Response> {
        let answer = self.answer(request, progress).await;
        // Whoever looks at the mount next finds it so.
        self.vfs.all_heard(SHOWN).await;
        answer
    }

    fn mounts(&self) -> Vec<MountInfo> {
        self.mounts.lock().iter().filter(|m| !m.front.is_over(&m.info.mountpoint)).map(|m| m.info.clone()).collect()
    }

    async fn shutdown(&self) {
        let _git = self.git.working.lock().await;
        let mounts = std::mem::take(&mut *self.mounts.lock());
        for m in mounts {
            let at = m.info.mountpoint.clone();
            if let Err(e) = mount::detach(m).await {
                tracing::warn!(mountpoint = %at.display(), error = %e, "unmounting at the end");
            }
        }
        let vfs = self.vfs.clone();
        if let Err(e) = blocking(move || vfs.seal_all()).await {
            tracing::error!(error = %e, "sealing at the end; the next start seals what is left");
        }
        self.stop.send_replace(true);
        let tasks: Vec<JoinHandle<()>> = std::mem::take(&mut *self.tasks.lock());
        for mut t in tasks {
            // Each ends by itself when it is told to stop; one that hangs on the store is cut off, which it survives.
            if tokio::time::timeout(ENDING, &mut t).await.is_err() {
                t.abort();
            }
        }
        let vfs = self.vfs.clone();
        if let Err(e) = blocking(move || vfs.close()).await {
            tracing::error!(error = %e, "closing the local state; the next start replays its journal");
        }
        self.locks.lock().clear();
        self.enrolled_now.store(false, Ordering::Relaxed);
    }
}
