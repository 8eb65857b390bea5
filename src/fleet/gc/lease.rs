//! This device's part in garbage collection, wherever that is done: it reads what is condemned, and renews its lease.
//!
//! Must: a lease says that this device goes by a list only after it does, and names what it took before that and has not
//! published: both under the `log` lock, so that no batch is fixed in between. Must: until the lists were read once, nothing
//! is published.

use super::super::core::{Fleet, blocking};
use super::super::facts;
use super::{Holder, secs};
use crate::clock::Moment;
use crate::content::codec;
use crate::content::condemned::Doom;
use crate::error::{Error, Kind, Result};
use crate::model::gc::{Edition, List};
use crate::model::lease::{FORMAT, Lease};
use crate::model::{FileContent, Hash, Version};
use crate::state::rows::{Batch, Inode, Local, Sealed};
use crate::state::{Read, Tree};
use crate::store::keys::Keys;
use crate::store::{PutMode, get_if_there, list_all};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A list that unpacks to more is none: twice what a collector writes ([`super::sweep::LIST_MAX`]).
const UNPACKED_MAX: usize = 96 << 20;
/// An object may go a little before its time by the clock of another server of the store.
const EARLY: i64 = 600;
/// Rows read in one go.
const PAGE: usize = 2000;

/// What this device knows of garbage collection elsewhere.
#[derive(Default)]
pub(in super::super) struct LeaseState {
    /// When the lists were last read.
    read: parking_lot::Mutex<Option<Moment>>,
    /// When the lease was last renewed.
    renewed: parking_lot::Mutex<Option<Instant>>,
    /// One at a time.
    renewing: tokio::sync::Mutex<()>,
    /// Held by who has content in the store that it has not sealed yet.
    taking: tokio::sync::RwLock<()>,
}

/// All lists, as read.
struct Lists {
    objects: HashMap<Hash, Doom>,
    editions: BTreeMap<String, Edition>,
    unreadable: bool,
}

/// Who belongs to this store.
pub(super) struct Members {
    /// Device ids that are not revoked.
    pub(super) active: BTreeSet<String>,
    /// Those that are.
    pub(super) revoked: BTreeSet<String>,
    /// When each enrolled, seconds since 1970 by its clock, as far as that can be read.
    enrolled: BTreeMap<String, i64>,
}

impl Fleet {
    /// Reads the lists unless that was done a short while ago. Before the first batch goes out.
    ///
    /// Errors: of the store.
    pub(in super::super) async fn know_condemned(self: &Arc<Self>) -> Result<()> {
        let fresh = self.options.gc.lease_every;
        if self.lease.read.lock().is_some_and(|at| at.is_within(fresh, &*self.clock)) {
            return Ok(());
        }
        let _one = self.lease.renewing.lock().await;
        let lists = self.read_lists().await?;
        let _log = self.log.lock().await;
        self.go_by(lists.objects, lists.unreadable);
        Ok(())
    }

    /// Renews the lease if that is due. Called after others' logs were applied.
    ///
    /// Errors: of the store, of the local state.
    pub(in super::super) async fn renew_lease_if_due(self: &Arc<Self>) -> Result<()> {
        let due = self.lease.renewed.lock().is_none_or(|at| at.elapsed() >= self.options.gc.lease_every);
        if due { self.renew_lease().await } else { Ok(()) }
    }

    /// While this lives no lease is renewed: content that lies in the store is about to be sealed in versions, and a lease
    /// would not name it yet.
    pub async fn hold_lease(&self) -> tokio::sync::RwLockReadGuard<'_, ()> {
        self.lease.taking.read().await
    }

    /// Reads the lists and renews the lease; later, while somebody holds it ([`Fleet::hold_lease`]).
    ///
    /// Cancel-safe. Errors: of the store, of the local state.
    pub async fn renew_lease(self: &Arc<Self>) -> Result<()> {
        let _one = self.lease.renewing.lock().await;
        let Ok(_nobody) = self.lease.taking.try_write() else { return Ok(()) };
        let lists = self.read_lists().await?;
        let lease = {
            let _log = self.log.lock().await;
            self.go_by(lists.objects, lists.unreadable);
            let this = self.clone();
            blocking(move || this.lease_now(lists.editions)).await?
        };
        self.store.put(&self.keys.lease(&lease.device_id), lease.encode()?.into(), PutMode::Overwrite).await?;
        *self.lease.renewed.lock() = Some(Instant::now());
        Ok(())
    }

    /// From now on these objects are as good as gone. The caller holds `log`.
    fn go_by(&self, objects: HashMap<Hash, Doom>, unreadable: bool) {
        self.options.upload.condemned.set(objects, unreadable);
        self.drop_condemned_cuts();
        *self.lease.read.lock() = Some(Moment::now(&*self.clock));
    }

    async fn read_lists(&self) -> Result<Lists> {
        let prefix = self.keys.condemned();
        // Devices by name as well: a listing may lag.
        let mut devices: BTreeSet<String> = self.cursors()?.into_keys().collect();
        devices.insert(self.me().id.clone());
        for o in list_all(&*self.store, &prefix).await? {
            devices.extend(o.key.strip_prefix(&prefix).filter(|id| super::super::apply::is_id(id)).map(str::to_owned));
        }
        let mut out = Lists { objects: HashMap::new(), editions: BTreeMap::new(), unreadable: false };
        for device in devices {
            match self.read_list(&device).await {
                Ok(None) => {}
                Ok(Some((list, at))) => {
                    out.editions.insert(device, list.header.edition);
                    for o in &list.objects {
                        let since = if o.3 == 0 { at } else { o.3 };
                        let doom = Doom { from: since + secs(self.options.gc.grace) - EARLY };
                        let known = out.objects.entry(o.1).or_insert(doom);
                        known.from = known.from.min(doom.from);
                    }
                }
                // Nothing of it goes before this device has said that it goes by a list in which it is.
                Err(e) if matches!(e.kind(), Kind::Corrupt | Kind::Unsupported) => {
                    tracing::warn!("{e}: until it is written anew, nothing that is in the store already is relied on");
                    out.unreadable = true;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(out)
    }

    /// A device's list, and the store's time of it.
    ///
    /// Errors: of the store; `Corrupt`, `Unsupported`.
    pub(super) async fn read_list(&self, device: &str) -> Result<Option<(List, i64)>> {
        let key = self.keys.condemned_by(device);
        // First the time: of a list that is replaced meanwhile it is too early rather than too late.
        let Some(meta) = self.store.head(&key).await? else { return Ok(None) };
        let Some(body) = get_if_there(&*self.store, &key).await? else { return Ok(None) };
        let device = device.to_owned();
        let list = blocking(move || List::parse(&device, &codec::decode_lines(&key, &body, UNPACKED_MAX)?)).await?;
        Ok(Some((list, meta.modified)))
    }

    /// The lease as it is to be written. Blocking.
    fn lease_now(&self, lists: BTreeMap<String, Edition>) -> Result<Lease> {
        let mut lease = Lease { lease: FORMAT, at: self.clock.now_ms(), lists, ..Lease::default() };
        self.replica.db().read_beside(|r| {
            lease.device_id = facts::identity(r)?.map_or_else(|| self.me().id.clone(), |me| me.id);
            lease.cursors = facts::applied(r, &lease.device_id)?;
            unpublished(r, &mut lease)?;
            under_overlays(r, &mut lease)
        })?;
        Ok(lease)
    }

    /// Devices that have not renewed their leases for `longer`: they hold back what was condemned since.
    ///
    /// Errors: of the store.
    pub async fn gc_holders(&self, longer: Duration) -> Result<Vec<Holder>> {
        let prefix = self.keys.leases();
        let leases: BTreeMap<String, i64> = list_all(&*self.store, &prefix)
            .await?
            .into_iter()
            .filter_map(|o| Some((o.key.strip_prefix(&prefix)?.to_owned(), o.modified)))
            .collect();
        let members = self.members().await?;
        let since = self.clock.now_ms() / 1000 - secs(longer);
        // One that has none yet has had no time to write one, or never came here.
        let is_away = |device: &String| match leases.get(device) {
            Some(at) => *at < since,
            None => members.enrolled.get(device).is_none_or(|at| *at < since),
        };
        let away = members.active.iter().filter(|d| **d != self.me().id && is_away(d));
        Ok(away.map(|device| Holder { device: device.clone(), lease_at: leases.get(device).copied() }).collect())
    }

    /// Before a version of history is made the present one: its content is in the store, and stays there.
    ///
    /// Errors: `NotFound` if it was collected; of the store, if it may be about to be.
    pub async fn secure(&self, v: &Version) -> Result<()> {
        for c in v.kind.contents().filter(|c| !c.manifest.is_zero()) {
            match self.keep(c).await {
                Ok(true) => {}
                Ok(false) => {
                    let what = format!("the bytes of that version of {} are no longer in the store", v.path);
                    return Err(Error::new(Kind::NotFound, what).hint("what was deleted or replaced is kept for 30 days"));
                }
                // As far as is known here nobody is going to remove it.
                Err(e) if e.kind().is_transient() && !self.is_condemned(&c.manifest) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Devices that belong to this store, by the registry.
    ///
    /// Errors: of the store.
    pub(super) async fn members(&self) -> Result<Members> {
        let home = self.replica.read(facts::store_id)?;
        let prefix = Keys::devices();
        let mut out = Members { active: BTreeSet::from([self.me().id.clone()]), revoked: BTreeSet::new(), enrolled: BTreeMap::new() };
        for o in list_all(&*self.store, &prefix).await? {
            let name = o.key.strip_prefix(&prefix).unwrap_or("");
            if let Some(id) = name.strip_suffix(".revoked") {
                out.revoked.insert(id.to_owned());
            } else if let Some(id) = name.strip_suffix(".json") {
                out.active.insert(id.to_owned());
            }
        }
        out.active.retain(|id| !out.revoked.contains(id));
        // A bucket may have several stores, each with a prefix of its own, and has one registry.
        let listing = self.registry().list().await?;
        for d in listing.devices {
            let elsewhere = !d.record.store.is_empty() && home.as_ref().is_some_and(|h| *h != d.record.store);
            if elsewhere && d.record.id != self.me().id {
                out.active.remove(&d.record.id);
            }
            out.enrolled.insert(d.record.id, d.record.enrolled_at);
        }
        Ok(out)
    }
}

fn name(c: &FileContent, lease: &mut Lease) {
    lease.needs(c.manifest, c.chunks.iter().flatten().map(|c| c.0));
}

/// What is sealed, and what is fixed as the next batch.
fn unpublished(r: &Read<'_>, lease: &mut Lease) -> Result<()> {
    let mut from = 0;
    loop {
        let page: Vec<(u64, Sealed)> = r.scan_int(Tree::Outbox, from, u64::MAX, PAGE)?;
        let Some((last, _)) = page.last() else { break };
        from = last + 1;
        page.iter().flat_map(|(_, s)| &s.versions).flat_map(|v| v.kind.contents()).for_each(|c| name(c, lease));
    }
    let fixed = r.get::<Batch>(Tree::Batch, facts::published(r, &lease.device_id)? + 1)?;
    fixed.iter().flat_map(|b| &b.versions).flat_map(|v| v.kind.contents()).for_each(|c| name(c, lease));
    Ok(())
}

/// What unpublished bytes lie over, and what files without a name still show to who has them open.
fn under_overlays(r: &Read<'_>, lease: &mut Lease) -> Result<()> {
    let mut from = 0;
    loop {
        let page: Vec<(u64, Local)> = r.scan_int(Tree::Local, from, u64::MAX, PAGE)?;
        let Some((last, _)) = page.last() else { break };
        from = last + 1;
        for (ino, _) in page.iter().filter(|(_, l)| l.overlay || !l.dirty.is_empty()) {
            if let Some(c) = r.get::<Inode>(Tree::Inode, *ino)?.and_then(|i| i.content) {
                name(&c, lease);
            }
        }
    }
    let orphans: Vec<(u64, ())> = r.scan_int(Tree::Orphan, 0, u64::MAX, usize::MAX >> 1)?;
    for (ino, ()) in orphans {
        if let Some(c) = r.get::<Inode>(Tree::Inode, ino)?.and_then(|i| i.content) {
            name(&c, lease);
        }
    }
    Ok(())
}
