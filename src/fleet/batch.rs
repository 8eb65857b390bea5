//! Batches of the own log: fixed here, put, and the rows behind them taken out of the outbox.
//!
//! Must: the bytes of batch N are durable in the local database before its first PUT and never rebuilt. Must: rows
//! leave the outbox only when the object was read back with these bytes: a store without conditional puts may have let
//! a clone of this machine write over it.
//! The caller holds the `log` lock.

use super::apply::LINES_MAX;
use super::core::{Fleet, blocking, id_changed};
use super::facts;
use super::files::{Outcome, Resolved};
use super::plan::{Row, content, token};
use super::tokens::Stands;
use crate::content::codec;
use crate::error::{Error, Kind, Result};
use crate::model::manifest::Manifest;
use crate::model::{ChunkRef, Hash, RelPath, Version};
use crate::state::rows::{Batch, Sealed, Slot};
use crate::state::tree::dir_of;
use crate::state::{Ns, Tree};
use crate::store::PutMode;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Paths whose heads are changed in one transaction.
const HEADS: usize = 100;
/// Published batches whose bytes are kept.
const KEPT: u64 = 64;

/// What is to be fixed as the next batch.
pub(super) struct Draft {
    /// Id under which the versions were planned.
    pub(super) me: String,
    pub(super) versions: Vec<Version>,
    pub(super) rows: Vec<Row>,
    pub(super) forget: Vec<(RelPath, Vec<Version>)>,
    pub(super) repointed: Vec<(Version, Version)>,
    /// The lines, compressed.
    pub(super) body: Bytes,
}

/// Chunk lists of files just uploaded, by token.
pub(super) type ChunkLists = HashMap<Hash, Vec<ChunkRef>>;

impl Fleet {
    /// The batch that is fixed and not known to be out.
    pub(super) fn fixed(&self) -> Result<Option<(u64, Batch)>> {
        let id = &self.me().id;
        self.replica.read(|r| {
            let next = facts::published(r, id)? + 1;
            Ok(r.get::<Batch>(Tree::Batch, next)?.map(|b| (next, b)))
        })
    }

    /// Fixes a draft as the next batch, durably; none if nothing of it has to be said, then its rows are gone. Blocking.
    pub(super) fn fix(&self, draft: Draft) -> Result<Option<(u64, Batch)>> {
        let rows: Vec<u64> = draft.rows.iter().map(|r| r.seq).collect();
        let silent = draft.versions.is_empty();
        let told = if silent { resolve(&draft.rows, &[], &ChunkLists::new()) } else { Vec::new() };
        if silent {
            self.files.resolved(&told)?;
        }
        let fixed = self.transact(|ns, me| {
            if me.id != draft.me {
                return Err(id_changed());
            }
            for (path, versions) in &draft.forget {
                forget(ns, path, versions)?;
            }
            for (old, new) in &draft.repointed {
                change_heads(ns, &new.path, |h| same(h, old).then(|| Version { moved_to: new.moved_to.clone(), ..h.clone() }))?;
            }
            if silent {
                self.drop_rows(ns, &rows, &told)?;
                return Ok(None);
            }
            let seq = facts::published(ns.t, &me.id)? + 1;
            let batch = Batch { body: draft.body.to_vec(), rows, versions: draft.versions };
            ns.t.put(Tree::Batch, seq, &batch)?;
            Ok(Some((seq, batch)))
        })?;
        if fixed.is_some() {
            self.replica.db().sync()?;
        } else {
            self.gone_out.notify_waiters();
        }
        Ok(fixed)
    }

    /// Puts a fixed batch under its number. False if another object is there: this machine was cloned or rolled back.
    pub(super) async fn put_batch(&self, seq: u64, body: &[u8]) -> Result<bool> {
        let key = self.keys.batch(&self.me().id, seq);
        self.store.put(&key, Bytes::copy_from_slice(body), PutMode::IfAbsent).await?;
        let there = self.store.get(&key).await?;
        if there == body {
            return Ok(true);
        }
        Ok(!self.is_anothers(&key, &there, Some(body)).await?)
    }

    /// Whether `there`, just read under an own log key, was written by another machine. `ours`: what this one fixed for it,
    /// and did not read back; it is ours all the same if reading once more gives that.
    ///
    /// Errors: another machine's batch is whole, and the same whenever it is read; what is not was damaged on its way, or
    /// where it lies, and is no reason to take another id.
    pub(super) async fn is_anothers(&self, key: &str, there: &[u8], ours: Option<&[u8]>) -> Result<bool> {
        let again = self.store.get(key).await?;
        if ours.is_some_and(|ours| again == ours) {
            return Ok(false);
        }
        if again != there {
            return Err(Error::new(Kind::Unavailable, format!("reading {key} back: the store gives other bytes each time")));
        }
        let lines = blocking({
            let key = key.to_owned();
            move || codec::decode_lines(&key, &again, LINES_MAX)
        });
        lines.await.map_err(|e| {
            e.context("a batch of this device's own log reads otherwise than it was written")
                .hint("the store, or the way to it, damages objects: it is tried again; `tcfs doctor` looks at the store")
        })?;
        Ok(true)
    }

    /// Tells the others of a batch that is in the log and takes it out of the outbox. `chunks`: the lists of what was just
    /// uploaded; after a crash they come from the store.
    pub(super) async fn finish(self: &Arc<Self>, seq: u64, batch: Batch, mut chunks: ChunkLists) -> Result<()> {
        self.say_batch(seq, &batch.versions).await;
        let this = self.clone();
        let wanted = batch.rows.clone();
        let rows: Vec<Row> = blocking(move || {
            this.replica.read(|r| {
                let mut found = Vec::with_capacity(wanted.len());
                for seq in wanted {
                    if let Some(sealed) = r.get::<Sealed>(Tree::Outbox, seq)? {
                        found.push(Row { seq, sealed });
                    }
                }
                Ok(found)
            })
        })
        .await?;
        for (token, v) in cut_versions(&rows, &batch.versions) {
            let Some(c) = content(v).filter(|_| !chunks.contains_key(&token)) else { continue };
            let list = match &c.chunks {
                Some(list) => list.clone(),
                None => self.chunk_list(&c.manifest).await?,
            };
            chunks.insert(token, list);
        }
        let this = self.clone();
        blocking(move || {
            let told = resolve(&rows, &batch.versions, &chunks);
            this.files.resolved(&told)?;
            let roots: HashMap<Hash, Hash> = told.iter().filter_map(|r| Some((r.token, root_of(r)?))).collect();
            let mut of_path: BTreeMap<&RelPath, Vec<&Version>> = BTreeMap::new();
            for v in &batch.versions {
                of_path.entry(&v.path).or_default().push(v);
            }
            let of_path: Vec<(&RelPath, Vec<&Version>)> = of_path.into_iter().collect();
            // Doing this twice does no harm, so it need not be one transaction with what follows: programs on the mount
            // wait for none of them long.
            for page in of_path.chunks(HEADS) {
                this.transact(|ns, _| page.iter().try_for_each(|(path, published)| settle_heads(ns, path, published, &roots)))?;
            }
            this.transact(|ns, me| {
                if facts::published(ns.t, &me.id)? + 1 != seq || ns.t.get::<Batch>(Tree::Batch, seq)?.is_none() {
                    return Err(id_changed());
                }
                // The bytes are kept for a while: a store that forgets its latest objects gets them again.
                ns.t.put(Tree::Batch, seq, &Batch { body: batch.body, rows: Vec::new(), versions: Vec::new() })?;
                if seq > KEPT {
                    ns.t.del(Tree::Batch, seq - KEPT)?;
                }
                facts::set_published(ns.t, &me.id, seq)?;
                facts::grow(ns.t, batch.versions.len())?;
                this.drop_rows(ns, &batch.rows, &told)
            })?;
            this.works();
            this.gone_out.notify_waiters();
            this.went_out(&batch.versions);
            Ok(())
        })
        .await
    }

    /// Puts own batches again that the store has lost, as far as they are kept. `last`: the last one published.
    pub(super) async fn put_missing(self: &Arc<Self>, last: u64) -> Result<()> {
        let id = self.me().id.clone();
        let mut missing = Vec::new();
        for seq in (1..=last).rev() {
            if self.store.head(&self.keys.batch(&id, seq)).await?.is_some() {
                break;
            }
            let kept = self.replica.read(|r| r.get::<Batch>(Tree::Batch, seq))?;
            let Some(kept) = kept else {
                tracing::error!(seq, "the store has lost batches of this device's log that are not kept here: other devices wait for them");
                break;
            };
            missing.push((seq, kept.body));
        }
        for (seq, body) in missing.into_iter().rev() {
            tracing::warn!(seq, "the store has lost a batch of this device's log: it is put again");
            if !self.put_batch(seq, &body).await? {
                return Err(Error::new(
                    Kind::Unavailable,
                    format!("putting batch {seq} of this device's log again: something else is there"),
                ));
            }
        }
        Ok(())
    }

    /// Removes rows from the outbox; what their tokens stand for is kept as long as others may name them.
    fn drop_rows(&self, ns: &mut Ns<'_, '_>, rows: &[u64], told: &[Resolved]) -> Result<()> {
        for seq in rows {
            ns.t.del(Tree::Outbox, *seq)?;
        }
        let known: Vec<(Hash, Stands)> = told
            .iter()
            .map(|r| match &r.outcome {
                Outcome::Cut { content, .. } => (r.token, Stands::Content(content.clone())),
                Outcome::Dropped { base } => (r.token, Stands::Base(*base)),
            })
            .collect();
        let left = |from: u64| -> Result<bool> { Ok(!ns.t.scan_int::<Sealed>(Tree::Outbox, from, u64::MAX, 1)?.is_empty()) };
        let later = left(rows.iter().max().map_or(0, |m| m + 1))?;
        if !later && !left(0)? {
            self.tokens.clear(ns.t)?;
        }
        self.tokens.keep(ns.t, &known, later)
    }

    /// The chunk list of a manifest of our own.
    async fn chunk_list(&self, id: &Hash) -> Result<Vec<ChunkRef>> {
        let body = self.store.get(&self.keys.manifest(id)).await?;
        if Hash::of(&body) != *id {
            return Err(Error::new(Kind::Corrupt, format!("reading manifest {id}: its bytes have another hash")));
        }
        let list = Manifest::parse(&body)?.chunk_refs();
        list.ok_or_else(|| Error::new(Kind::Corrupt, format!("reading manifest {id}: it has no sizes")))
    }
}

fn root_of(r: &Resolved) -> Option<Hash> {
    match &r.outcome {
        Outcome::Cut { content, .. } => Some(content.root),
        Outcome::Dropped { .. } => None,
    }
}

/// Tokens of rows, with the published version that has their bytes now.
fn cut_versions<'a>(rows: &[Row], published: &'a [Version]) -> HashMap<Hash, &'a Version> {
    let by_clock: HashMap<_, &Version> = published.iter().map(|v| ((&v.path, &v.vclock), v)).collect();
    let sealed = rows.iter().flat_map(|r| &r.sealed.versions);
    sealed.filter_map(|v| Some((token(v)?, *by_clock.get(&(&v.path, &v.vclock))?))).collect()
}

/// What became of the tokens of rows that go.
pub(super) fn resolve(rows: &[Row], published: &[Version], chunks: &ChunkLists) -> Vec<Resolved> {
    let cut = cut_versions(rows, published);
    let mut bases: HashMap<Hash, Option<Hash>> = HashMap::new();
    for v in rows.iter().flat_map(|r| &r.sealed.versions) {
        if let Some(t) = token(v) {
            bases.entry(t).or_insert(v.base);
        }
    }
    // A base that is itself a token of these rows: its root, or what it was based on.
    let settle = |mut base: Option<Hash>| {
        for _ in 0..=bases.len() {
            match base {
                Some(b) if cut.contains_key(&b) => return content(cut[&b]).map(|c| c.root),
                Some(b) if bases.contains_key(&b) => base = bases[&b],
                _ => break,
            }
        }
        base
    };
    let files = rows.iter().flat_map(|r| &r.sealed.files);
    files
        .filter_map(|(token, ino, wgen)| {
            let outcome = match cut.get(token) {
                Some(v) => Outcome::Cut { content: content(v)?.clone(), chunks: chunks.get(token).cloned().unwrap_or_default() },
                None => Outcome::Dropped { base: settle(*bases.get(token)?) },
            };
            Some(Resolved { token: *token, ino: *ino, wgen: *wgen, outcome })
        })
        .collect()
}

/// Whether both are one version of one path, whatever became of its tokens.
fn same(a: &Version, b: &Version) -> bool {
    a.vclock == b.vclock && a.device_id == b.device_id
}

/// Gives heads of a path their published form; bases of later heads take roots for tokens.
fn settle_heads(ns: &mut Ns<'_, '_>, path: &RelPath, published: &[&Version], roots: &HashMap<Hash, Hash>) -> Result<()> {
    change_heads(ns, path, |h| {
        if let Some(p) = published.iter().find(|p| same(p, h)) {
            return (*p != h).then(|| (*p).clone());
        }
        let root = roots.get(&h.base?)?;
        Some(Version { base: Some(*root), ..h.clone() })
    })?;
    // Only now is it known whether heads hold the same bytes.
    let Some(dir) = path.parent().map(|p| dir_of(ns.t, &p)).transpose()?.flatten() else { return Ok(()) };
    match ns.slot(dir, path.file_name())? {
        Some(Slot::Register(r)) if r.entry.live().nth(1).is_some() => ns.reconcile(dir, path.file_name()),
        _ => Ok(()),
    }
}

/// Changes heads of an entry in their place: the register is written only if one did change.
fn change_heads(ns: &mut Ns<'_, '_>, path: &RelPath, change: impl Fn(&Version) -> Option<Version>) -> Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    let Some(dir) = dir_of(ns.t, &parent)? else { return Ok(()) };
    let Some(Slot::Register(mut r)) = ns.slot(dir, path.file_name())? else { return Ok(()) };
    if !r.entry.change(change) {
        return Ok(());
    }
    let several = r.entry.heads.len() > 1;
    ns.put_slot(dir, path.file_name(), &Slot::Register(r))?;
    // Now that its root is known, a head may turn out to hold the same as another.
    if several { ns.reconcile(dir, path.file_name()) } else { Ok(()) }
}

/// Forgets what never left this device: the heads of a path that was made and removed before anybody heard of it.
fn forget(ns: &mut Ns<'_, '_>, path: &RelPath, versions: &[Version]) -> Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    let Some(dir) = dir_of(ns.t, &parent)? else { return Ok(()) };
    let Some(Slot::Register(mut r)) = ns.slot(dir, path.file_name())? else { return Ok(()) };
    r.entry.heads.retain(|h| !versions.iter().any(|v| same(v, h)));
    if r.entry.is_empty() && r.ino == 0 && r.dir == 0 {
        return ns.del_slot(dir, path.file_name());
    }
    ns.put_slot(dir, path.file_name(), &Slot::Register(r))
}
