//! Others' logs into the tree here: cursors, batches, healing.
//!
//! Must: a batch is applied in one transaction with its cursor, what it heals included; applying it again changes
//! nothing. Must: a missing number stops that device's cursor until it appears; a damaged batch stops it too and is said
//! so. Must: one bad record, or one bad device, does not stop the others. Own log: never.
//! Not here: when (`follow`), what a merge means (`model`), names and inodes (`state`).

use super::core::{Fleet, blocking};
use super::facts;
use super::identity::Identity;
use crate::content::codec;
use crate::error::{Error, Kind, Result};
use crate::model::record::{self, Line};
use crate::model::{self, RelPath, Version};
use crate::state::db::prefix_end;
use crate::state::rows::{Cursor, Time};
use crate::state::tree::{dir_of, register_at};
use crate::state::{Arrivals, Ns, Scan, Tree};
use crate::store::keys::Keys;
use crate::store::list_all;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Most bytes the lines of one batch may have.
pub(super) const LINES_MAX: usize = 256 << 20;
/// Devices whose logs are read at a time.
const DEVICES: usize = 8;
/// Batches fetched ahead of the one being applied, when a device is far behind.
const AHEAD: u64 = 16;

/// What a catch-up found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaughtUp {
    /// Batches applied.
    pub batches: u64,
    /// Versions in them that were new here.
    pub versions: u64,
    /// What could not be read or applied, as sentences.
    pub problems: Vec<String>,
}

/// What is known of who has a log.
#[derive(Default)]
pub(super) struct Discovery {
    /// Devices beside those with a cursor.
    devices: BTreeSet<String>,
    /// Problems told of already, by device: not told again until they change.
    told: BTreeMap<String, String>,
    /// Highest number seen in listings, to notice gaps.
    listed: HashMap<String, u64>,
    /// Whether a snapshot to start from was looked for.
    started: bool,
}

impl Fleet {
    /// Applies everything that other devices have published. One at a time; a second caller waits, then looks again.
    ///
    /// Cancel-safe. Errors: of the store (try again) or of the local state; a device whose log is damaged is only
    /// reported.
    pub async fn catch_up(self: &Arc<Self>) -> Result<CaughtUp> {
        self.catch_up_as(false).await
    }

    /// The same; `list_logs` also lists all logs, to find devices that no registry names and gaps.
    pub(super) async fn catch_up_as(self: &Arc<Self>, list_logs: bool) -> Result<CaughtUp> {
        let mut known = self.catching.lock().await;
        let done = self.try_catch_up(&mut known, list_logs).await;
        if let Err(e) = &done {
            self.lost(e);
        }
        done
    }

    async fn try_catch_up(self: &Arc<Self>, known: &mut Discovery, list_logs: bool) -> Result<CaughtUp> {
        self.connect().await?;
        self.still_ours().await?;
        self.discover(known, list_logs).await?;
        let me = self.me().id.clone();
        let mut out = CaughtUp::default();
        let is_new = !known.started && self.cursors()?.values().all(|seq| *seq == 0);
        if is_new && known.devices.iter().any(|d| *d != me) {
            out.versions += self.start_from_snapshot(&mut out.problems).await?.unwrap_or(0);
        }
        known.started = true;
        self.learn_keys(&known.devices).await;
        let cursors = self.cursors()?;
        let devices: BTreeSet<&String> = known.devices.iter().chain(cursors.keys()).filter(|d| **d != me).collect();
        let mut pulls = Vec::with_capacity(devices.len());
        for d in devices {
            let from = cursors.get(d).copied().unwrap_or(0);
            let last = self.revoked_after(d).unwrap_or(u64::MAX);
            let listed = known.listed.get(d).copied().unwrap_or(0);
            pulls.push(self.clone().pull(d.clone(), from, last, listed));
        }
        let pulled: Vec<(String, Pulled)> = stream::iter(pulls).buffer_unordered(DEVICES).collect().await;
        let mut failed = None;
        for (device, p) in pulled {
            out.batches += p.batches;
            out.versions += p.versions;
            for line in p.damaged {
                tracing::error!("{line}");
                out.problems.push(line);
            }
            match p.stopped {
                None => drop(known.told.remove(&device)),
                Some(e) if matches!(e.kind(), Kind::Corrupt | Kind::NotFound | Kind::Invalid | Kind::Unsupported) => {
                    let text = format!("the log of {device} stands still: {e}");
                    if known.told.insert(device, text.clone()).as_ref() != Some(&text) {
                        tracing::error!("{text}");
                    }
                    out.problems.push(text);
                }
                Some(e) => failed = Some(e),
            }
        }
        failed.map_or(Ok(out), Err)
    }

    /// Last batch applied of each device.
    pub fn cursors(&self) -> Result<BTreeMap<String, u64>> {
        self.replica.read(facts::cursors)
    }

    /// Last batch applied of one device.
    pub(super) fn cursor_of(&self, device: &str) -> Result<u64> {
        self.replica.read(|r| Ok(r.get::<Cursor>(Tree::Cursor, device)?.map_or(0, |c| c.seq)))
    }

    /// The last batch that counts of a device that was revoked, as far as this device has heard.
    fn revoked_after(&self, device: &str) -> Option<u64> {
        self.following.revoked.lock().get(device).copied()
    }

    /// Whether a device's batch counts no more, as far as this device has heard.
    pub(super) fn is_revoked(&self, device: &str, seq: u64) -> bool {
        self.revoked_after(device).is_some_and(|last| seq > last)
    }

    async fn discover(&self, known: &mut Discovery, list_logs: bool) -> Result<()> {
        let prefix = Keys::devices();
        for object in list_all(&*self.store, &prefix).await? {
            let name = object.key.strip_prefix(&prefix).unwrap_or("");
            if let Some(id) = name.strip_suffix(".json").filter(|id| is_id(id)) {
                known.devices.insert(id.to_owned());
            } else if let Some(id) = name.strip_suffix(".revoked").filter(|id| is_id(id) && self.revoked_after(id).is_none()) {
                match self.registry().revoked(id).await {
                    Ok(Some(mark)) => drop(self.following.revoked.lock().insert(id.to_owned(), mark.revoked_after)),
                    Ok(None) => {}
                    Err(e) if e.kind() == Kind::Corrupt => tracing::error!("{e}"),
                    Err(e) => return Err(e),
                }
            }
        }
        self.following.seen.lock().clone_from(&known.devices);
        if list_logs {
            for object in list_all(&*self.store, &self.keys.logs()).await? {
                if let Some((device, seq)) = self.keys.parse_batch(&object.key).filter(|(d, _)| is_id(d)) {
                    let last = known.listed.entry(device.clone()).or_default();
                    *last = seq.max(*last);
                    known.devices.insert(device);
                }
            }
        }
        Ok(())
    }

    /// Applies a device's batches after `cursor` up to `last`, until one is not there.
    async fn pull(self: Arc<Self>, device: String, mut cursor: u64, last: u64, listed: u64) -> (String, Pulled) {
        let mut out = Pulled::default();
        let mut ahead = 1;
        while cursor < last {
            let end = cursor.saturating_add(ahead).min(last);
            let fetches: Vec<_> = (cursor + 1..=end).map(|seq| self.clone().fetch(device.clone(), seq)).collect();
            let mut bodies = stream::iter(fetches).buffered(AHEAD as usize);
            while let Some((seq, body)) = bodies.next().await {
                let applied = match body {
                    Ok(body) => self.apply_batch(&device, seq, body).await,
                    Err(e) if e.kind() == Kind::NotFound => {
                        if listed > seq {
                            let what = format!("batch {seq} is missing although batch {listed} is there");
                            out.stopped = Some(Error::new(Kind::NotFound, what));
                        }
                        return (device, out);
                    }
                    Err(e) => Err(e),
                };
                match applied {
                    Ok(a) => {
                        cursor = seq;
                        out.batches += 1;
                        out.versions += a.versions;
                        out.damaged.extend(a.damaged);
                    }
                    Err(e) => {
                        out.stopped = Some(e);
                        return (device, out);
                    }
                }
            }
            ahead = (ahead * 2).min(AHEAD);
        }
        (device, out)
    }

    async fn fetch(self: Arc<Self>, device: String, seq: u64) -> (u64, Result<Bytes>) {
        let body = self.store.get(&self.keys.batch(&device, seq)).await;
        (seq, body)
    }

    /// Applies one batch.
    async fn apply_batch(self: &Arc<Self>, device: &str, seq: u64, body: Bytes) -> Result<Applied> {
        let (this, device) = (self.clone(), device.to_owned());
        blocking(move || {
            let key = this.keys.batch(&device, seq);
            let lines = record::decode(&codec::decode_lines(&key, &body, LINES_MAX)?);
            let mut damaged = Vec::new();
            let mut versions = Vec::with_capacity(lines.len());
            let mut parked = Vec::new();
            for (i, line) in lines.into_iter().enumerate() {
                match line {
                    Line::Version(v) if v.path.is_root() => damaged.push(format!("{key}: a version of the root is not applied")),
                    Line::Version(v) => versions.push(*v),
                    Line::Parked(text) => parked.push((i as u64, text)),
                    Line::Damaged(e) => damaged.push(format!("{key}: {e}")),
                }
            }
            let new = this.apply_next(&device, seq, &versions, &parked)?;
            Ok(Applied { versions: new, damaged })
        })
        .await
    }

    /// The same for versions that came over the bus.
    pub(super) async fn apply_versions(self: &Arc<Self>, device: &str, seq: u64, versions: Vec<Version>) -> Result<u64> {
        let (this, device) = (self.clone(), device.to_owned());
        blocking(move || this.apply_next(&device, seq, &versions, &[])).await
    }

    /// One transaction: versions, records of later formats, cursor. Does nothing if the batch is not the next one.
    fn apply_next(&self, device: &str, seq: u64, versions: &[Version], parked: &[(u64, String)]) -> Result<u64> {
        let new = self.transact(|ns, me| {
            let cursor: Cursor = ns.t.get(Tree::Cursor, device)?.unwrap_or_default();
            if cursor.seq + 1 != seq {
                // Another way than this one has applied it.
                return Ok(0);
            }
            for (i, text) in parked {
                ns.t.put(Tree::Parked, parked_key(device, seq, *i), text)?;
            }
            facts::grow(ns.t, versions.len() + parked.len())?;
            let new = self.merge_all(ns, me, versions)?;
            ns.t.put(Tree::Cursor, device, &Cursor { seq, at: self.clock.now_ms() })?;
            Ok(new)
        })?;
        if new > 0 {
            self.came(versions);
        }
        Ok(new)
    }

    /// Merges versions, heals, brings the names concerned up to date. How many changed their entry.
    pub(super) fn merge_all(&self, ns: &mut Ns<'_, '_>, me: &Identity, versions: &[Version]) -> Result<u64> {
        self.files.expand_moves(ns)?;
        // Parents first: what comes into a directory is newer than the directory or was known to who wrote it.
        let mut touched: BTreeMap<(usize, u64, String), i64> = BTreeMap::new();
        let mut moves = Vec::new();
        let mut new = 0;
        let mut arrivals = Arrivals::of(versions);
        for v in versions {
            if arrivals.bring(ns, v, Time::from_ms(listed_at(v)).min(ns.ctx.now))? {
                new += 1;
                continue;
            }
            let (dir, changed) = ns.merge(v)?;
            if changed {
                new += 1;
                arrivals.forget(&v.path);
                let at = touched.entry((v.path.components().count(), dir, v.path.file_name().to_owned())).or_insert(i64::MIN);
                *at = listed_at(v).max(*at);
                if v.moved_to.is_some() {
                    moves.push(v);
                }
            }
        }
        for t in &moves {
            let Some(to) = &t.moved_to else { continue };
            let Some(dir) = to.parent().map(|p| dir_of(ns.t, &p)).transpose()?.flatten() else { continue };
            // What came along with its directory changed no listing.
            let at = if came_along(ns, t, to)? { i64::MIN } else { t.written_at };
            touched.entry((to.components().count(), dir, to.file_name().to_owned())).and_modify(|was| *was = at);
        }
        if super::healing::follow_moves(ns, moves, &self.author(me), self.files.settings().boot)? {
            self.wake();
        }
        for ((_, dir, name), at) in &touched {
            ns.made_at = (*at != i64::MIN).then(|| Time::from_ms(*at).min(ns.ctx.now)).or(Some(Time::default()));
            ns.reconcile(*dir, name)?;
        }
        ns.made_at = None;
        arrivals.finish(ns)?;
        Ok(new)
    }

    /// Applies records that an older tcfs parked and this one knows. Blocking. How many.
    pub fn apply_parked(&self) -> Result<u64> {
        let mut rows: Vec<(Vec<u8>, String)> = Vec::new();
        self.replica.read(|r| {
            r.scan(Tree::Parked, Scan::From(&[], &prefix_end(&[])), usize::MAX >> 1, |k, text: String| {
                rows.push((k.to_vec(), text));
                Ok(())
            })
        })?;
        let mut n = 0;
        for (key, text) in rows {
            let Some(v) = parse_unapplied(&text) else { continue };
            self.transact(|ns, me| {
                self.merge_all(ns, me, std::slice::from_ref(&v))?;
                ns.t.del(Tree::Parked, key)
            })?;
            n += 1;
        }
        Ok(n)
    }
}

#[derive(Default)]
struct Pulled {
    batches: u64,
    versions: u64,
    damaged: Vec<String>,
    stopped: Option<Error>,
}

struct Applied {
    versions: u64,
    damaged: Vec<String>,
}

/// When a version changed the listing of its directory, milliseconds since 1970. A file is sealed after its last close,
/// which the kernel tells a moment later: whoever set the directory's time after that close did so before.
fn listed_at(v: &Version) -> i64 {
    match v.kind {
        model::Kind::File(_) => v.written_at.min(Time::from(v.mtime).ms()),
        _ => v.written_at,
    }
}

/// Whether what a tombstone says went to `to` went there because the directory it was in was moved.
fn came_along(ns: &Ns<'_, '_>, t: &Version, to: &RelPath) -> Result<bool> {
    let Some(was_in) = t.path.parent().filter(|p| !p.is_root()) else { return Ok(false) };
    if to.file_name() != t.path.file_name() {
        return Ok(false);
    }
    let is_in = to.parent();
    Ok(register_at(ns.t, &was_in)?.is_some_and(|r| r.entry.tombstones().any(|d| d.moved_to == is_in)))
}

/// Whether a name from the store can be a device id.
pub(super) fn is_id(s: &str) -> bool {
    record::is_device(s).is_ok()
}

/// The version that a line is, if this tcfs applies it.
pub(super) fn version_of(line: Line) -> Option<Version> {
    match line {
        Line::Version(v) if !v.path.is_root() => Some(*v),
        _ => None,
    }
}

/// A record that was parked, if this tcfs knows it.
pub(super) fn parse_unapplied(text: &str) -> Option<Version> {
    record::decode(text.as_bytes()).pop().and_then(version_of)
}

pub(super) fn parked_key(device: &str, seq: u64, line: u64) -> Vec<u8> {
    let mut k = device.as_bytes().to_vec();
    k.push(0);
    k.extend_from_slice(&seq.to_be_bytes());
    k.extend_from_slice(&line.to_be_bytes());
    k
}

/// Device, batch and line of a [`parked_key`].
pub(super) fn parse_parked_key(key: &[u8]) -> Option<(String, u64, u64)> {
    let at = key.len().checked_sub(17)?;
    let number = |from: usize| key.get(from..from + 8)?.try_into().ok().map(u64::from_be_bytes);
    let device = std::str::from_utf8(key.get(..at)?).ok()?;
    Some((device.to_owned(), number(at + 1)?, number(at + 9)?))
}
