//! `device list`, `enroll`, `rename`, `revoke`.
//!
//! Must: what is listed when the store does not answer is what it last said; who is enrolled is never guessed.
//! Not here: the registry's objects (`fleet::registry`).

use super::{Core, blocking};
use crate::daemon::protocol::{
    Device, DeviceEnroll, DeviceRef, DeviceRename, DeviceRevoke, Devices, Enrolled, Item, Response, Revoked as Answer,
};
use crate::daemon::service::Progress;
use crate::error::{Error, Kind, Result};
use crate::fleet::registry::{Listed, Record, Revoked};
use crate::fleet::{Fleet, facts};
use crate::state::{Replica, Scan, Tree, prefix_end};
use crate::store::list_all;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

/// How long the registry is waited for.
const REGISTRY: Duration = Duration::from_secs(15);
/// How often a daemon reads the registry again, besides when it hears of a device it does not know.
const REFRESH: Duration = Duration::from_secs(300);
/// How often it looks whether it heard of one.
const LOOK: Duration = Duration::from_secs(5);

/// A device as it lies in the local database.
#[derive(serde::Serialize, serde::Deserialize)]
struct Row {
    record: Record,
    shown_name: String,
    revoked: Option<Revoked>,
}

/// What the store last said of the fleet. Blocking.
fn remembered(replica: &Replica) -> Result<Vec<Listed>> {
    let mut out = Vec::new();
    replica.read(|r| {
        r.scan(Tree::Device, Scan::From(&[], &prefix_end(&[])), usize::MAX >> 1, |_, text: String| {
            // A row that a later tcfs wrote is left out.
            if let Ok(row) = serde_json::from_str::<Row>(&text) {
                out.push(Listed { record: row.record, shown_name: row.shown_name, revoked: row.revoked });
            }
            Ok(())
        })
    })?;
    out.sort_by(|a, b| (&a.shown_name, &a.record.id).cmp(&(&b.shown_name, &b.record.id)));
    Ok(out)
}

/// How many devices are enrolled and not revoked, as far as known here. Blocking; reads one row for each device.
pub(super) fn count(replica: &Replica) -> Result<u64> {
    Ok(remembered(replica)?.iter().filter(|d| d.revoked.is_none()).count() as u64)
}

fn remember(replica: &Replica, devices: &[Listed]) -> Result<()> {
    let before = remembered(replica)?;
    if before == devices {
        return Ok(());
    }
    replica.db().write(|t| {
        for old in &before {
            t.del(Tree::Device, old.record.id.as_str())?;
        }
        for d in devices {
            let row = Row { record: d.record.clone(), shown_name: d.shown_name.clone(), revoked: d.revoked.clone() };
            let text = serde_json::to_string(&row).map_err(|e| Error::new(Kind::Internal, "remembering a device").source(e))?;
            t.put(Tree::Device, d.record.id.as_str(), &text)?;
        }
        Ok(())
    })
}

/// Reads the registry and remembers it.
async fn refresh(fleet: &Arc<Fleet>, replica: &Arc<Replica>) -> Result<Vec<Listed>> {
    let listing = fleet.registry().list().await?;
    for line in &listing.damaged {
        tracing::error!("{line}");
    }
    let (replica, devices) = (replica.clone(), listing.devices);
    blocking(move || remember(&replica, &devices).map(|()| devices)).await
}

/// Keeps what is known of the fleet fresh until `stop` says true.
pub(super) async fn keep_fresh(fleet: Arc<Fleet>, replica: Arc<Replica>, mut stop: watch::Receiver<bool>) {
    let mut last: Option<tokio::time::Instant> = None;
    // Whom the registry was asked for and may not have: not at every look.
    let mut asked: BTreeSet<String> = BTreeSet::new();
    while !*stop.borrow() {
        let due = last.is_none_or(|at| at.elapsed() >= REFRESH);
        let strangers = || -> Result<BTreeSet<String>> {
            let known = remembered(&replica)?;
            let mut all = fleet.heard_of()?;
            all.retain(|id| !known.iter().any(|d| d.record.id == *id));
            Ok(all)
        };
        let strangers = strangers().unwrap_or_default();
        let recent = last.is_some_and(|at| at.elapsed() < LOOK * 6);
        if fleet.is_online() && (due || !strangers.is_subset(&asked) || !recent && !strangers.is_empty()) {
            match tokio::time::timeout(REGISTRY, refresh(&fleet, &replica)).await {
                Ok(Ok(_)) => (last, asked) = (Some(tokio::time::Instant::now()), strangers),
                Ok(Err(e)) => tracing::debug!(error = %e, "reading the registry"),
                Err(_) => tracing::debug!("reading the registry takes too long"),
            }
        }
        let wait = if last.is_none() { LOOK / 10 } else { LOOK };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.wait_for(|s| *s) => return,
        }
    }
}

impl Core {
    pub(super) async fn device_list(&self, progress: &Progress) -> Result<Response> {
        let mut offline = self.catch_up().await?;
        let fresh = if offline { None } else { tokio::time::timeout(REGISTRY, refresh(&self.fleet, &self.replica)).await.ok() };
        let devices = match fresh {
            Some(Ok(d)) => d,
            Some(Err(e)) if !e.kind().is_transient() => return Err(e),
            _ => {
                offline = true;
                let replica = self.replica.clone();
                blocking(move || remembered(&replica)).await?
            }
        };
        let list = self.devices_known(devices)?;
        let devices = list.len() as u64;
        for d in list {
            progress.item(Item::Device(d)).await?;
        }
        Ok(Response::Devices(Devices { devices, offline }))
    }

    /// What is known of the fleet without asking anybody. Blocking on the local state.
    pub(super) fn devices_now(&self) -> Result<Vec<Device>> {
        self.devices_known(remembered(&self.replica)?)
    }

    fn devices_known(&self, devices: Vec<Listed>) -> Result<Vec<Device>> {
        let me = self.fleet.me();
        let cursors = self.fleet.cursors()?;
        let own = self.replica.read(|r| facts::published(r, &me.id))?;
        let presence = self.fleet.presence();
        let on_bus = self.fleet.bus_status().is_some_and(|b| b.connected).then_some(true);
        let mut list: Vec<Device> = devices
            .into_iter()
            .map(|d| (presence.get(&d.record.id), d))
            .map(|(heard, d)| Device {
                name: d.shown_name,
                this: d.record.id == me.id,
                online: if d.record.id == me.id { on_bus } else { heard.map(|p| p.online) },
                enrolled_at: d.record.enrolled_at.saturating_mul(1000),
                last_seen_at: (d.record.last_seen > 0).then(|| d.record.last_seen.saturating_mul(1000)).max(heard.map(|p| p.heard_at)),
                applied: if d.record.id == me.id { own } else { cursors.get(&d.record.id).copied().unwrap_or(0) },
                revoked: d.revoked.is_some(),
                public_key: d.record.public_key,
                id: d.record.id,
            })
            .collect();
        if !list.iter().any(|d| d.this) {
            // Not registered yet: it is enrolled all the same.
            list.push(Device {
                id: me.id.clone(),
                name: me.name.clone(),
                this: true,
                enrolled_at: me.enrolled_at.saturating_mul(1000),
                applied: own,
                public_key: me.public_key(),
                ..Device::default()
            });
        }
        Ok(list)
    }

    pub(super) async fn device_enroll(&self, request: DeviceEnroll) -> Result<Response> {
        let me = self.fleet.me();
        let just_now = self.enrolled_now.swap(false, Ordering::SeqCst);
        let wanted = request.name.clone().unwrap_or_else(|| self.config.device_name.0.clone());
        crate::fleet::identity::check_name(&wanted)?;
        let mut notes = Vec::new();
        if me.name == wanted && !request.replace || !just_now && !request.replace && request.name.is_none() {
            if let Err(e) = self.register().await {
                notes.push(format!("the store does not answer ({e}): the fleet hears of this machine when it does"));
            }
            let device = DeviceRef { id: me.id.clone(), name: me.name.clone() };
            return Ok(Response::Enrolled(Enrolled { device, already: !just_now, replaced: None, notes }));
        }
        if !just_now && !request.replace {
            return Err(Error::new(Kind::Exists, format!("this machine is enrolled as {} ({})", me.name, me.id))
                .hint(format!("`tcfs device rename {wanted}` renames it; --replace enrols it anew")));
        }
        let offline = |e: Error| e.context(format!("enrolling this machine as {wanted}")).hint("enrolling under a name needs the store");
        self.fleet.connect().await.map_err(offline)?;
        let last = self.last_batches().await?;
        let of = |id: &str| last.get(id).copied().unwrap_or(0);
        let registry = self.fleet.registry();
        let enrolled = registry.enroll(&wanted, request.replace, &of, &*self.clock).await.map_err(offline)?;
        self.fleet.enroll_as(enrolled.identity.clone()).await?;
        if just_now && of(&me.id) == 0 {
            // The id that opening the drive just gave it was never used.
            registry.withdraw(&me.id).await?;
        }
        self.fleet.connect().await?;
        refresh(&self.fleet, &self.replica).await?;
        if enrolled.identity.name != wanted {
            notes.push(format!("another device has the name {wanted}; --replace revokes that one and takes its name"));
        }
        let replaced = enrolled.replaced.iter().find(|id| **id != me.id || !just_now);
        let replaced = replaced.map(|id| DeviceRef { id: id.clone(), name: wanted.clone() });
        let device = DeviceRef { id: enrolled.identity.id.clone(), name: enrolled.identity.name.clone() };
        Ok(Response::Enrolled(Enrolled { device, already: false, replaced, notes }))
    }

    /// Writes this machine's own object and the merged view.
    async fn register(&self) -> Result<()> {
        let work = async {
            self.fleet.connect().await?;
            let registry = self.fleet.registry();
            registry.put_own(&self.fleet.me(), &*self.clock).await?;
            registry.rebuild_view().await?;
            refresh(&self.fleet, &self.replica).await.map(drop)
        };
        tokio::time::timeout(REGISTRY, work).await.unwrap_or_else(|_| Err(Error::new(Kind::Timeout, "it takes too long")))
    }

    pub(super) async fn device_rename(&self, request: DeviceRename) -> Result<Response> {
        self.fleet.connect().await?;
        self.fleet.rename(&request.name).await?;
        refresh(&self.fleet, &self.replica).await?;
        let me = self.fleet.me();
        let device = DeviceRef { id: me.id.clone(), name: me.name.clone() };
        Ok(Response::Enrolled(Enrolled { device, already: true, replaced: None, notes: Vec::new() }))
    }

    pub(super) async fn device_revoke(&self, request: DeviceRevoke) -> Result<Response> {
        self.fleet.connect().await?;
        let registry = self.fleet.registry();
        let found = registry.find(&request.device).await?;
        let (id, me) = (found.record.id.clone(), self.fleet.me());
        if id == me.id {
            return Err(Error::new(Kind::Usage, "this machine cannot shut itself out")
                .hint("revoke it from another one; `tcfs device enroll --replace` gives this one a new identity"));
        }
        let last = self.last_batches().await?.get(&id).copied().unwrap_or(0);
        registry.revoke(&id, last, &me.id, &*self.clock).await?;
        registry.rebuild_view().await?;
        // An earlier revocation stands.
        let mark = registry.revoked(&id).await?.map_or(last, |r| r.revoked_after);
        refresh(&self.fleet, &self.replica).await?;
        Ok(Response::Revoked(Answer { device: DeviceRef { id, name: found.shown_name }, revoked_after: mark }))
    }

    /// The last batch of each log in the store.
    async fn last_batches(&self) -> Result<HashMap<String, u64>> {
        let mut out: BTreeMap<String, u64> = BTreeMap::new();
        for o in list_all(&*self.store, &self.keys.logs()).await? {
            if let Some((device, seq)) = self.keys.parse_batch(&o.key) {
                let last = out.entry(device).or_default();
                *last = seq.max(*last);
            }
        }
        Ok(out.into_iter().collect())
    }
}
