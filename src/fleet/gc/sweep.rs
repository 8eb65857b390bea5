//! Condemning and removing.
//!
//! Must: an object is removed only if it was on the list for the grace, was not put since, is not needed, and every device
//! knows that it is condemned. Must: the list in the store has it until it is gone: who stops in the middle goes on next
//! time.
//! Must: only names that this program gives are touched.

use super::super::core::Fleet;
use super::mark::{Marked, Tell};
use super::secs;
use crate::clock::Moment;
use crate::content::codec;
use crate::error::{Error, Kind, Result};
use crate::model::Hash;
use crate::model::gc::{Condemned, Edition, FORMAT, Header, List, Sort};
use crate::store::{ObjectMeta, PutMode};
use futures_util::stream::{self, StreamExt};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Removals under way.
const PARALLEL: usize = 8;
/// An object is removed at once after the last look at it, or looked at again.
const AT_ONCE: Duration = Duration::from_secs(5);
/// Longest wait for the answer to a removal; with [`AT_ONCE`] far below what a publisher waits out.
const REMOVAL: Duration = Duration::from_secs(30);
/// Largest difference between this machine's clock and the store's with which anything is removed.
const SKEW: i64 = 24 * 3600;

/// Most objects on a list: each device keeps it in memory. More garbage waits for the next time.
pub(super) const LIST_MAX: usize = 500_000;

/// Objects and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub objects: u64,
    /// Bytes as stored.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, size: u64) {
        self.objects += 1;
        self.bytes += size;
    }
}

/// A device that holds garbage collection back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub device: String,
    /// When it last renewed its lease, seconds since 1970 by the store; none if it has none.
    pub lease_at: Option<i64>,
}

/// What a collection found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Objects in the store that could be collected if nothing needed them.
    pub all: Amount,
    /// Of those, what something needs.
    pub needed: Amount,
    /// Not needed, and too young to be judged: perhaps on their way into a record.
    pub young: Amount,
    /// Not needed, on the list, and not to go yet.
    pub condemned: Amount,
    /// Not needed, on the list for long enough, and held back by a device.
    pub held: Amount,
    /// Removed; in a dry run what would be.
    pub removed: Amount,
    /// When the next objects on the list have been there for long enough, seconds since 1970 by the store.
    pub next_at: Option<i64>,
    /// Devices that hold back what could go otherwise.
    pub holders: Vec<Holder>,
    /// From when on everything that was deleted or replaced can be brought back, seconds since 1970 by the store; none:
    /// everything that was ever published.
    pub history_from: Option<i64>,
}

/// An object that is not needed.
struct Garbage {
    sort: Sort,
    hash: Hash,
    size: u64,
    /// Edition in which it was condemned, and when; none: it is not on the list.
    condemned: Option<(u64, i64)>,
}

/// The list as the store has it.
struct Before {
    edition: Edition,
    objects: HashMap<(Sort, Hash), (u64, i64)>,
    since: BTreeMap<String, u64>,
}

impl Fleet {
    /// Marks what is needed, removes what was condemned long enough ago, and condemns what else is not needed; `dry`: looks
    /// only. `tell` hears what is being done, and how much of it is done.
    ///
    /// Cancel-safe: what was removed is gone, everything else is done next time. Errors: of the store; `Corrupt` if it
    /// cannot be known what is needed; `Unsupported` if the store does not tell times, or a later tcfs is at work.
    pub async fn collect(self: &Arc<Self>, dry: bool, tell: Tell<'_>) -> Result<Collected> {
        let _one = self.collecting.lock().await;
        self.connect().await?;
        self.catch_up_as(true).await?;
        // As every publisher this device goes by its own list.
        self.renew_lease().await?;
        let now = self.store_time().await?;
        let skewed = (self.clock.now_ms() / 1000 - now).abs() > SKEW;
        let me = self.me().id.clone();
        let before = self.list_before(&me).await?;
        let members = self.members().await?;
        let marked = self.mark(&members, now, tell).await?;
        let mut out = Collected { history_from: marked.horizon.as_ref().map(|h| h.meta.modified), ..Collected::default() };
        let mut garbage = self.find_garbage(&marked, &before, now, tell, &mut out).await?;
        let grace = secs(self.options.gc.grace);
        let mut holders: BTreeSet<&String> = BTreeSet::new();
        let mut due = Vec::new();
        for (i, g) in garbage.iter().enumerate() {
            let Some((since, at)) = g.condemned else {
                out.condemned.add(g.size);
                continue;
            };
            if now - at < grace {
                out.condemned.add(g.size);
                out.next_at = Some(out.next_at.unwrap_or(i64::MAX).min(at + grace));
                continue;
            }
            let knows = |d: &&String| {
                let lease = marked.leases.get(*d);
                lease.is_some_and(|l| {
                    !l.everything && l.has_applied(&before.since) && l.lists.get(&me).is_some_and(|e| e.knows(before.edition.series, since))
                })
            };
            let mut free = !skewed;
            for d in members.active.iter().filter(|d| !knows(d)) {
                holders.insert(d);
                free = false;
            }
            match free {
                true => due.push(i),
                false => out.held.add(g.size),
            }
        }
        if skewed {
            tracing::warn!("nothing is removed: the clock of this machine and that of the store differ by more than a day");
        }
        for device in holders {
            let meta = self.store.head(&self.keys.lease(device)).await?;
            out.holders.push(Holder { device: device.clone(), lease_at: meta.map(|m| m.modified) });
        }
        if dry {
            due.iter().for_each(|i| out.removed.add(garbage[*i].size));
            return Ok(out);
        }
        let removed = self.remove(&garbage, &due, grace, tell).await?;
        for i in &removed {
            out.removed.add(garbage[*i].size);
        }
        let mut i = 0..;
        garbage.retain(|_| i.next().is_some_and(|i| !removed.contains(&i)));
        if marked.leases.values().any(|l| l.everything) {
            // What that device needs would only have to be put again.
            garbage.retain(|g| g.condemned.is_some());
        }
        let since = marked.horizon.map(|h| h.cursors).unwrap_or_default();
        self.condemn(&me, before.edition, since, &garbage).await?;
        Ok(out)
    }

    /// This device's list; a new series if there is none that can be read.
    async fn list_before(&self, me: &str) -> Result<Before> {
        match self.read_list(me).await {
            Ok(Some((list, at))) => {
                let time = |t: i64| if t == 0 { at } else { t };
                let objects = list.objects.iter().map(|o| ((o.0, o.1), (o.2, time(o.3)))).collect();
                Ok(Before { edition: list.header.edition, objects, since: list.header.since })
            }
            Ok(None) => Ok(self.new_series()),
            Err(e) if e.kind() == Kind::Corrupt => {
                tracing::warn!("{e}: a new list is begun");
                Ok(self.new_series())
            }
            Err(e) => Err(e),
        }
    }

    fn new_series(&self) -> Before {
        Before { edition: Edition { series: self.clock.random(), number: 0 }, objects: HashMap::new(), since: BTreeMap::new() }
    }

    /// Goes through all objects.
    async fn find_garbage(&self, marked: &Marked, before: &Before, now: i64, tell: Tell<'_>, out: &mut Collected) -> Result<Vec<Garbage>> {
        let grace = secs(self.options.gc.grace);
        let mut garbage = Vec::new();
        let (mut seen, mut new) = (0, 0);
        for (sort, prefix) in
            [(Sort::Chunk, self.keys.chunks()), (Sort::Manifest, self.keys.manifests()), (Sort::Snapshot, self.keys.snapshots())]
        {
            let mut after: Option<String> = None;
            loop {
                let page = self.store.list(&prefix, after.as_deref()).await?;
                for o in &page.objects {
                    let Some(hash) = o.key.strip_prefix(&prefix).and_then(|name| name.parse::<Hash>().ok()) else { continue };
                    seen += 1;
                    out.all.add(o.size);
                    if is_needed(marked, sort, &hash, o) {
                        out.needed.add(o.size);
                        continue;
                    }
                    if now - o.modified < grace {
                        out.young.add(o.size);
                        continue;
                    }
                    // Put again after it was condemned: whoever did that may need it.
                    let condemned = before.objects.get(&(sort, hash)).copied().filter(|(_, at)| o.modified + grace <= *at);
                    if condemned.is_none() {
                        if new >= LIST_MAX {
                            out.condemned.add(o.size);
                            continue;
                        }
                        new += 1;
                    }
                    garbage.push(Garbage { sort, hash, size: o.size, condemned });
                }
                tell("going through objects", seen, None);
                match page.next {
                    Some(n) => after = Some(n),
                    None => break,
                }
            }
        }
        Ok(garbage)
    }

    fn key_of(&self, g: &Garbage) -> String {
        match g.sort {
            Sort::Chunk => self.keys.chunk(&g.hash),
            Sort::Manifest => self.keys.manifest(&g.hash),
            Sort::Snapshot => self.keys.snapshot(&g.hash.to_hex()),
        }
    }

    /// Removes what is due. Which went.
    async fn remove(&self, garbage: &[Garbage], due: &[usize], grace: i64, tell: Tell<'_>) -> Result<HashSet<usize>> {
        let mut gone = HashSet::new();
        // Manifests and snapshots first: one that is there has its chunks.
        let (chunks, others): (Vec<usize>, Vec<usize>) = due.iter().partition(|i| garbage[**i].sort == Sort::Chunk);
        for part in [others, chunks] {
            let removals: Vec<_> = part.into_iter().map(|i| self.remove_one(i, &garbage[i], grace)).collect();
            let mut removals = stream::iter(removals).buffer_unordered(PARALLEL);
            while let Some(done) = removals.next().await {
                gone.extend(done?);
                tell("removing", gone.len() as u64, Some(due.len() as u64));
            }
        }
        Ok(gone)
    }

    /// A last look, and at once the removal.
    async fn remove_one(&self, i: usize, g: &Garbage, grace: i64) -> Result<Option<usize>> {
        let key = self.key_of(g);
        let Some((_, condemned_at)) = g.condemned else { return Ok(None) };
        loop {
            let looked = Moment::now(&*self.clock);
            let Some(meta) = self.store.head(&key).await? else { return Ok(Some(i)) };
            if meta.modified + grace > condemned_at {
                return Ok(None);
            }
            // A machine that slept here looks again.
            if !looked.is_within(AT_ONCE, &*self.clock) {
                continue;
            }
            return match tokio::time::timeout(REMOVAL, self.store.delete(&key)).await {
                Ok(done) => done.map(|()| Some(i)),
                Err(_) => {
                    let what = format!("removing {key}: no answer within {} s", REMOVAL.as_secs());
                    Err(Error::new(Kind::Timeout, what))
                }
            };
        }
    }

    /// Writes the next edition of this device's list.
    async fn condemn(&self, me: &str, last: Edition, since: BTreeMap<String, u64>, garbage: &[Garbage]) -> Result<()> {
        let edition = Edition { number: last.number + 1, ..last };
        let object = |g: &Garbage| {
            let (came, at) = g.condemned.unwrap_or((edition.number, 0));
            Condemned(g.sort, g.hash, came, at)
        };
        let header = Header { condemned: FORMAT, device_id: me.to_owned(), at: self.clock.now_ms(), edition, since };
        // Those that wait longest first.
        let (old, new): (Vec<&Garbage>, Vec<&Garbage>) = garbage.iter().partition(|g| g.condemned.is_some());
        let list = List { header, objects: old.into_iter().chain(new).take(LIST_MAX).map(object).collect() };
        let body = codec::encode_lines(&list.encode()?)?;
        self.store.put(&self.keys.condemned_by(me), body, PutMode::Overwrite).await?;
        Ok(())
    }
}

fn is_needed(marked: &Marked, sort: Sort, hash: &Hash, o: &ObjectMeta) -> bool {
    if marked.not_before.is_some_and(|t| o.modified < t) || o.modified <= 0 {
        return true;
    }
    match sort {
        Sort::Chunk | Sort::Manifest => marked.live.has(hash),
        // History ends at one; those before it are of no use to anybody.
        Sort::Snapshot => marked.horizon.as_ref().is_none_or(|h| o.modified >= h.meta.modified),
    }
}
