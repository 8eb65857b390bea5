//! What is needed: marking.
//!
//! Must: whatever cannot be read or understood keeps more, never less; what would keep an unknown amount is an error.
//! Must: leases are read before the logs: what a device no longer names in its lease is in its log by then.
//! Memory: eight bytes for each object that is needed.

use super::super::apply::{LINES_MAX, is_id};
use super::super::core::{Fleet, blocking};
use super::super::older;
use super::super::snapshot::{Lines, header_of};
use super::lease::Members;
use super::secs;
use crate::content::codec;
use crate::error::{Error, Kind, Result};
use crate::model::lease::Lease;
use crate::model::manifest::Manifest;
use crate::model::record::{self, Line as Record};
use crate::model::snapshot::Line;
use crate::model::{FileContent, Hash, Version};
use crate::state::rows::{Inode, Slot};
use crate::state::{Scan, Tree, prefix_end};
use crate::store::{ObjectMeta, get_if_there, list_all};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Requests under way.
const PARALLEL: usize = 32;

/// What is told of the progress: what is done, how much of it, and of how much where that is known.
pub(super) type Tell<'a> = &'a (dyn Fn(&str, u64, Option<u64>) + Sync);

/// The objects that are needed.
#[derive(Default)]
pub(super) struct Live {
    /// By eight bytes of their hashes: two with the same keep each other, which does no harm.
    objects: HashSet<u64>,
    /// Manifests whose chunks are not known yet.
    unread: Vec<Hash>,
}

impl Live {
    pub(super) fn has(&self, hash: &Hash) -> bool {
        self.objects.contains(&short(hash))
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.objects.len() as u64
    }

    fn chunk(&mut self, hash: &Hash) {
        self.objects.insert(short(hash));
    }

    fn manifest(&mut self, id: &Hash) {
        if !id.is_zero() && self.objects.insert(short(id)) {
            self.unread.push(*id);
        }
    }

    fn content(&mut self, c: &FileContent) {
        match &c.chunks {
            // The record says what its manifest says.
            Some(chunks) => {
                self.objects.insert(short(&c.manifest));
                chunks.iter().for_each(|c| self.chunk(&c.0));
            }
            None => self.manifest(&c.manifest),
        }
    }

    fn version(&mut self, v: &Version) {
        v.kind.contents().for_each(|c| self.content(c));
    }

    /// All that a record which is not understood may name.
    fn text(&mut self, text: &[u8]) {
        for hash in Hash::named_in(text) {
            self.chunk(&hash);
            self.unread.push(hash);
        }
    }

    fn lines(&mut self, lines: &[u8]) {
        for line in lines.split(|b| *b == b'\n').filter(|l| !l.trim_ascii().is_empty()) {
            match record::decode(line).pop() {
                Some(Record::Version(v)) => self.version(&v),
                Some(Record::Parked(_) | Record::Damaged(_)) | None => self.text(line),
            }
        }
    }
}

fn short(hash: &Hash) -> u64 {
    let mut b = [0; 8];
    b.copy_from_slice(&hash.0[..8]);
    u64::from_le_bytes(b)
}

/// What marking found.
pub(super) struct Marked {
    pub(super) live: Live,
    /// Leases by device.
    pub(super) leases: BTreeMap<String, Lease>,
    /// Where history ends: a snapshot. None: nothing that ever was in a log is given up.
    pub(super) horizon: Option<Horizon>,
    /// Nothing that the store has from before this time is removed, seconds since 1970: there is an older layout.
    pub(super) not_before: Option<i64>,
}

/// A snapshot as old as history is long.
pub(super) struct Horizon {
    pub(super) meta: ObjectMeta,
    pub(super) cursors: BTreeMap<String, u64>,
}

impl Fleet {
    /// Marks. `now`: the store's time.
    pub(super) async fn mark(self: &Arc<Self>, members: &Members, now: i64, tell: Tell<'_>) -> Result<Marked> {
        let leases = self.read_leases(members).await?;
        let mut live = Live::default();
        for lease in leases.values() {
            lease.chunks.iter().for_each(|h| live.chunk(h));
            lease.manifests.iter().for_each(|h| live.manifest(h));
        }
        tell("reading the tree", live.len(), None);
        let this = self.clone();
        let mut live = blocking(move || this.mark_tree(live)).await?;
        let horizon = self.mark_horizon(&mut live, members, &leases, now).await?;
        let since = horizon.as_ref().map(|h| h.cursors.clone()).unwrap_or_default();
        self.mark_logs(&mut live, members, &since, tell).await?;
        let mut not_before = None;
        if !self.store.list(&self.keys.old_index(), None).await?.objects.is_empty() {
            let reached = older::reach(&self.store, &self.keys).await?;
            reached.chunks.iter().for_each(|h| live.chunk(h));
            // Their chunks are among those.
            reached.manifests.iter().filter_map(|id| id.parse().ok()).for_each(|id: Hash| live.chunk(&id));
            let identity = crate::store::identity::read(&*self.store, &self.keys).await?;
            not_before = Some(identity.map_or(i64::MAX, |i| i.created));
        }
        self.mark_manifests(&mut live, tell).await?;
        Ok(Marked { live, leases, horizon, not_before })
    }

    async fn read_leases(&self, members: &Members) -> Result<BTreeMap<String, Lease>> {
        let mut out = BTreeMap::new();
        for device in &members.active {
            if let Some(body) = get_if_there(&*self.store, &self.keys.lease(device)).await? {
                out.insert(device.clone(), Lease::parse(device, &body)?);
            }
        }
        Ok(out)
    }

    /// Heads of all paths here, versions that files here still show, records that wait. Blocking.
    fn mark_tree(&self, mut live: Live) -> Result<Live> {
        let all = prefix_end(&[]);
        self.replica.db().read_beside(|r| {
            r.scan(Tree::Entry, Scan::From(&[], &all), usize::MAX >> 1, |_, slot: Slot| {
                if let Slot::Register(reg) = slot {
                    reg.entry.heads.iter().for_each(|v| live.version(v));
                }
                Ok(())
            })?;
            let mut from = 0;
            loop {
                let page: Vec<(u64, Inode)> = r.scan_int(Tree::Inode, from, u64::MAX, 4096)?;
                let Some((last, _)) = page.last() else { break };
                from = last + 1;
                page.iter().filter_map(|(_, i)| i.content.as_ref()).for_each(|c| live.content(c));
            }
            r.scan(Tree::Parked, Scan::From(&[], &all), usize::MAX >> 1, |_, text: String| {
                live.text(text.as_bytes());
                Ok(())
            })
        })?;
        Ok(live)
    }

    /// Finds the snapshot at which history ends, and marks what it has.
    async fn mark_horizon(
        self: &Arc<Self>,
        live: &mut Live,
        members: &Members,
        leases: &BTreeMap<String, Lease>,
        now: i64,
    ) -> Result<Option<Horizon>> {
        let mut objects = list_all(&*self.store, &self.keys.snapshots()).await?;
        objects.retain(|o| o.modified > 0 && now - o.modified >= secs(self.options.gc.history));
        objects.sort_by_key(|o| std::cmp::Reverse(o.modified));
        for meta in objects {
            let found = async {
                let body = self.store.get(&meta.key).await?;
                let header = header_of(&meta.key, &body)?;
                let applied = members.active.iter().all(|d| leases.get(d).is_some_and(|l| l.has_applied(&header.cursors)));
                if !applied || self.unusable(&header).await?.is_some() {
                    return Ok(None);
                }
                self.examine(&meta.key, &header, body.clone()).await?;
                Ok::<_, Error>(Some((header, body)))
            };
            match found.await {
                Ok(Some((header, body))) => {
                    let (key, taken) = (meta.key.clone(), std::mem::take(live));
                    *live = blocking(move || mark_snapshot(&key, &body, taken)).await?;
                    return Ok(Some(Horizon { meta, cursors: header.cursors }));
                }
                Ok(None) => {}
                Err(e) if matches!(e.kind(), Kind::Corrupt | Kind::NotFound | Kind::Unsupported) => {
                    tracing::warn!("{} is no end of history: {e}", meta.key);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    /// Every record after `since`.
    async fn mark_logs(self: &Arc<Self>, live: &mut Live, members: &Members, since: &BTreeMap<String, u64>, tell: Tell<'_>) -> Result<()> {
        let mut last: BTreeMap<String, u64> = self.cursors()?;
        members.active.iter().chain(&members.revoked).filter(|d| is_id(d)).for_each(|d| {
            last.entry(d.clone()).or_default();
        });
        for o in list_all(&*self.store, &self.keys.logs()).await? {
            if let Some((device, seq)) = self.keys.parse_batch(&o.key).filter(|(d, _)| is_id(d)) {
                let known = last.entry(device).or_default();
                *known = seq.max(*known);
            }
        }
        let mut batches = 0;
        for (device, listed) in last {
            let mut next = since.get(&device).copied().unwrap_or(0) + 1;
            loop {
                // Beyond what is listed as well: a listing may lag.
                let upto = listed.max(next).min(next + PARALLEL as u64 - 1);
                let fetches: Vec<_> = (next..=upto).map(|seq| self.batch(&device, seq)).collect();
                let bodies: Vec<Option<(String, Bytes)>> = stream::iter(fetches).buffered(PARALLEL).try_collect().await?;
                let missing = bodies.iter().position(Option::is_none);
                let after = missing.is_some_and(|i| bodies[i..].iter().any(Option::is_some));
                for (key, body) in bodies.into_iter().flatten() {
                    batches += 1;
                    let mut taken = std::mem::take(live);
                    *live = blocking(move || {
                        taken.lines(&codec::decode_lines(&key, &body, LINES_MAX)?);
                        Ok(taken)
                    })
                    .await?;
                }
                tell("reading logs", batches, None);
                match missing.map(|i| next + i as u64) {
                    None => next = upto + 1,
                    Some(seq) if after || listed >= seq => {
                        let what = format!("batch {seq} of the log of {device} is missing");
                        return Err(Error::new(Kind::Corrupt, what).hint("nothing is collected: what it says is needed is not known"));
                    }
                    Some(_) => break,
                }
            }
        }
        Ok(())
    }

    async fn batch(&self, device: &str, seq: u64) -> Result<Option<(String, Bytes)>> {
        let key = self.keys.batch(device, seq);
        Ok(get_if_there(&*self.store, &key).await?.map(|body| (key, body)))
    }

    /// The chunks of manifests that name more than a record does.
    async fn mark_manifests(&self, live: &mut Live, tell: Tell<'_>) -> Result<()> {
        let unread = std::mem::take(&mut live.unread);
        let all = unread.len() as u64;
        let get = async |id: Hash| (id, get_if_there(&*self.store, &self.keys.manifest(&id)).await);
        let mut bodies = stream::iter(unread).map(get).buffer_unordered(PARALLEL);
        let mut n = 0;
        while let Some((id, body)) = bodies.next().await {
            n += 1;
            if n % 256 == 0 {
                tell("reading manifests", n, Some(all));
            }
            match body? {
                Some(body) if Hash::of(&body) == id => Manifest::parse(&body)?.chunks().iter().for_each(|h| live.chunk(h)),
                Some(_) => {
                    let what = format!("the manifest {id} does not have the bytes of its name");
                    return Err(Error::new(Kind::Corrupt, what).hint("nothing is collected: which chunks it needs is not known"));
                }
                // It was collected, and its version is one of an old log; or it never was one.
                None => {}
            }
        }
        Ok(())
    }
}

/// Heads and records of a snapshot. What was in history when it was written is older than history is long.
fn mark_snapshot(key: &str, body: &[u8], mut live: Live) -> Result<Live> {
    let mut lines = Lines::new(key, body)?;
    while let Some(line) = lines.next()? {
        match line {
            Line::Head(v) => live.version(&v),
            Line::Unknown(text) => live.text(text.as_bytes()),
            Line::Parked(p) => live.text(p.text.as_bytes()),
            Line::Past(_) | Line::End(_) => {}
        }
    }
    Ok(live)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_is_not_understood_everything_counts_that_it_may_name() {
        let (a, b) = (Hash::of(b"a"), Hash::of(b"b"));
        let mut live = Live::default();
        live.lines(
            format!("{{\"v\":9,\"x\":[\"{a}\"]}}\n{{\"v\":1,\"kind\":{{\"novel\":{{\"m\":\"{b}\"}}}}}}\nnoise {a}0 {}\n", "f".repeat(63))
                .as_bytes(),
        );
        assert!(live.has(&a) && live.has(&b) && live.len() == 2);
        assert_eq!(live.unread.len(), 2, "each may be a manifest");
    }
}
