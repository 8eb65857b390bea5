//! What the parts of the fleet layer share: replica, store, identity, the transaction in which they all work.
//!
//! Lock order: `catching` → `link` → `log` (asynchronous, held across store calls) → the database. The small mutexes
//! (`cuts`, statuses) are leaves.

use super::bus::Bus;
use super::cuts::Cuts;
use super::facts;
use super::files::Files;
use super::follow::FollowState;
use super::gc::{GcOptions, LeaseState};
use super::hear::HearState;
use super::identity::{Identity, Me};
use super::publish::PublishState;
use super::registry::Registry;
use super::tokens::Tokens;
use crate::clock::Clock;
use crate::content::{UploadOptions, Uploader};
use crate::error::{Error, Kind, Result};
use crate::model::ops::Author;
use crate::state::rows::Time;
use crate::state::{Ctx, Ns, Replica};
use crate::store::StoreRef;
use crate::store::keys::Keys;
use futures_util::FutureExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// What may be set.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bounds of the upload pipeline for what goes out in order.
    pub upload: UploadOptions,
    /// Bounds for the bulk lane, which must not stand in the way of the other.
    pub bulk: UploadOptions,
    /// From this size on a single file goes to the bulk lane at once, bytes.
    pub bulk_from: u64,
    /// After this time an upload steps into the bulk lane.
    pub bulk_after: Duration,
    /// How often logs are looked at besides notifications. None: 5 s for a store that tells of changes (a directory),
    /// else 30 s.
    pub poll_interval: Option<Duration>,
    /// A snapshot is not worth while for fewer records. None: 10,000.
    pub snapshot_from: Option<u64>,
    /// Times of garbage collection.
    pub gc: GcOptions,
}

impl Default for Options {
    fn default() -> Self {
        let bulk = UploadOptions { puts: 8, files: 2, memory: 32 << 20, known: 16 << 10, ..UploadOptions::default() };
        Options {
            upload: UploadOptions::default(),
            bulk,
            bulk_from: 16 << 20,
            bulk_after: Duration::from_secs(2),
            poll_interval: None,
            snapshot_from: None,
            gc: GcOptions::default(),
        }
    }
}

/// What a fleet layer is made of.
pub struct Parts {
    /// The local state.
    pub replica: Arc<Replica>,
    /// The store.
    pub store: StoreRef,
    /// Where things lie in it.
    pub keys: Keys,
    /// The layer that has the bytes.
    pub files: Arc<dyn Files>,
    /// Time and randomness.
    pub clock: Arc<dyn Clock>,
    /// This device.
    pub me: Arc<Me>,
    /// Where the identity file lies.
    pub state_dir: PathBuf,
    /// The event bus, if there is one.
    pub bus: Option<Arc<dyn Bus>>,
    /// What may be set.
    pub options: Options,
}

/// One device's part in the fleet. Shared by `Arc`; every call may come from any task.
pub struct Fleet {
    pub(super) replica: Arc<Replica>,
    pub(super) store: StoreRef,
    pub(super) keys: Keys,
    pub(super) files: Arc<dyn Files>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) me: Arc<Me>,
    pub(super) state_dir: PathBuf,
    pub(super) options: Options,
    pub(super) uploader: Uploader,
    pub(super) bulk: Uploader,
    pub(super) cuts: Cuts,
    pub(super) tokens: Tokens,
    /// Whether the own log was checked since the store was last lost.
    pub(super) online: AtomicBool,
    pub(super) link: tokio::sync::Mutex<super::link::Link>,
    /// One catch-up at a time.
    pub(super) catching: tokio::sync::Mutex<super::apply::Discovery>,
    /// Who fixes, puts or re-addresses batches of the own log.
    pub(super) log: tokio::sync::Mutex<()>,
    /// Rows were added.
    pub(super) wake: Notify,
    /// How often somebody said so.
    pub(super) woken: AtomicU64,
    /// The store answers again.
    pub(super) returned: Notify,
    /// Somebody wants to hear of others' batches now.
    pub(super) look: Notify,
    /// Rows left the outbox.
    pub(super) gone_out: Notify,
    pub(super) publishing: PublishState,
    pub(super) following: FollowState,
    pub(super) snapshots: super::snapshot::SnapshotState,
    pub(super) lease: LeaseState,
    /// One collection at a time.
    pub(super) collecting: tokio::sync::Mutex<()>,
    pub(super) hearing: HearState,
    pub(super) feed: super::feed::Feed,
    pub(super) bus: Option<Arc<dyn Bus>>,
}

impl Fleet {
    /// Puts the parts together and settles who this device is: the identity in the database, if there is one, else the
    /// given one. Reads and writes local state only.
    ///
    /// Errors: of the local state; `Corrupt` for a damaged identity.
    pub fn new(parts: Parts) -> Result<Arc<Fleet>> {
        let Parts { replica, store, keys, files, clock, me, state_dir, bus, mut options } = parts;
        // One knowledge of what is condemned for all that is published.
        options.bulk.condemned = options.upload.condemned.clone();
        let given = me.get();
        match replica.read(facts::identity)? {
            Some(known) if known != *given => {
                // A crash came between the change of the database and of the file.
                known.save(&state_dir)?;
                me.set(known);
            }
            Some(_) => {}
            None => replica.db().write(|t| facts::set_identity(t, &given))?,
        }
        let tokens = replica.read(Tokens::open)?;
        Ok(Arc::new(Fleet {
            uploader: Uploader::new(store.clone(), keys.clone(), clock.clone(), options.upload.clone()),
            bulk: Uploader::new(store.clone(), keys.clone(), clock.clone(), options.bulk.clone()),
            cuts: Cuts::new(),
            tokens,
            online: AtomicBool::new(false),
            link: Default::default(),
            catching: Default::default(),
            log: Default::default(),
            wake: Notify::new(),
            woken: AtomicU64::new(0),
            returned: Notify::new(),
            look: Notify::new(),
            gone_out: Notify::new(),
            publishing: PublishState::default(),
            following: FollowState::default(),
            snapshots: Default::default(),
            lease: LeaseState::default(),
            collecting: Default::default(),
            hearing: HearState::default(),
            feed: Default::default(),
            bus,
            replica,
            store,
            keys,
            files,
            clock,
            me,
            state_dir,
            options,
        }))
    }

    /// This device as it is now.
    pub fn me(&self) -> Arc<Identity> {
        self.me.get()
    }

    /// The registry of the fleet.
    pub fn registry(&self) -> Registry {
        Registry::new(self.store.clone())
    }

    /// Publishes, follows and listens until `stop` says true, writes a snapshot and collects garbage now and then. Returns
    /// when all have stopped; what is pending stays in the outbox.
    pub async fn run(self: Arc<Self>, stop: tokio::sync::watch::Receiver<bool>) {
        // Boxed each for itself: the compiler does not see through the join that they may move between threads.
        let publishing = self.clone().publish_loop(stop.clone()).boxed();
        let hearing = self.clone().hear_loop(stop.clone()).boxed();
        let following = self.clone().follow_loop(stop.clone()).boxed();
        let collecting = self.clone().gc_loop(stop.clone()).boxed();
        let snapshots = self.snapshot_loop(stop).boxed();
        tokio::join!(publishing, hearing, following, snapshots, collecting);
    }

    /// Rows were added to the outbox.
    pub fn wake(&self) {
        self.woken.fetch_add(1, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// Others may have published: look at once.
    pub fn look(&self) {
        self.look.notify_one();
    }

    /// Whether the store was last seen answering.
    pub fn is_online(&self) -> bool {
        self.online.load(Ordering::SeqCst)
    }

    /// Gives this device another name. The id stays.
    ///
    /// Errors: `Usage` for a bad name, `Exists` if another device has it; of the store.
    pub async fn rename(self: &Arc<Self>, name: &str) -> Result<()> {
        let new = self.me().renamed(name)?;
        let devices = self.registry().list().await?.devices;
        if devices.iter().any(|d| d.revoked.is_none() && d.shown_name == name && d.record.id != new.id) {
            return Err(Error::new(Kind::Exists, format!("another device has the name {name:?}")).hint("see `tcfs device list`"));
        }
        self.registry().put_own(&new, &*self.clock).await?;
        let this = self.clone();
        blocking(move || {
            new.save(&this.state_dir)?;
            this.replica.db().write(|t| {
                facts::set_identity(t, &new)?;
                this.me.set(new.clone());
                Ok(())
            })
        })
        .await?;
        self.registry().rebuild_view().await
    }

    /// One transaction on the namespace, as this device; tells the layer above what changed. Blocking.
    pub(super) fn transact<T>(&self, body: impl FnOnce(&mut Ns<'_, '_>, &Identity) -> Result<T>) -> Result<T> {
        let settings = self.files.settings();
        let me = self.me.get();
        let busy = |ino| self.files.busy(ino);
        let ctx = Ctx {
            mode: settings.mode,
            show_siblings: settings.show_siblings,
            me: &me.id,
            now: Time::from_ns(self.clock.now_ns()),
            uid: settings.uid,
            gid: settings.gid,
            busy: &busy,
        };
        let (out, changes) = self.replica.write(&ctx, |ns| {
            // The id changes only inside a transaction, so here it is settled.
            if self.me.get().id != me.id {
                return Err(id_changed());
            }
            body(ns, &me)
        })?;
        if !changes.is_empty() {
            self.files.changed(changes);
        }
        Ok(out)
    }

    /// Who writes now.
    pub(super) fn author(&self, me: &Identity) -> Author {
        Author { device_id: me.id.clone(), device_name: me.name.clone(), now_ms: self.clock.now_ms() }
    }
}

/// The id changed between taking it and using it; the caller starts anew.
pub(super) fn id_changed() -> Error {
    Error::new(Kind::Interrupted, "this device took a new id meanwhile")
}

/// Runs `f` where blocking is allowed.
pub(crate) async fn blocking<T: Send + 'static>(f: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(f).await {
        Ok(r) => r,
        Err(e) if e.is_cancelled() => Err(Error::new(Kind::Interrupted, "the program is stopping")),
        Err(e) => Err(Error::new(Kind::Internal, "a task of the daemon failed").source(e)),
    }
}
