//! The outbox goes into the store: rounds of plan, cut, fix, put, finish.
//!
//! Must: rows go out in sealed order. One exception: a single file on which nothing depends may be passed over while it
//! is large or slow (the bulk lane), or while its sealed bytes are gone because it is being written again; and what fails
//! for a reason of its own (its bytes cannot be read here) holds up only what names its paths.
//! Must: an error never ends publishing; it backs off, says so, and goes on.
//! No timer stands between a single save and its batch: a round begins when a row is added and ends with what is ready.
//! Only a burst of saves is let pass first (`burst`).
//! Not here: what belongs together (`plan`), which of it can go out (`ready`), uploads (`cuts`), the log (`batch`), what
//! people see of it (`status`).

mod ready;
mod status;

use super::backoff::backoff;
use super::batch::{ChunkLists, Draft};
use super::burst::Burst;
use super::core::{Fleet, blocking, id_changed};
use super::cuts::Progress;
use super::plan::{Group, Plan, Row, content_mut, token};
use super::tokens::Stands;
use crate::content::codec;
use crate::error::{Error, Kind, Result};
use crate::model::{Hash, RelPath, VClock, Version, record};
use crate::state::Tree;
use crate::state::rows::{DirMove, Sealed};
use crate::state::tree::register_at;
use bytes::Bytes;
use ready::{See, Verdict};
pub(super) use status::PublishState;
pub use status::PublishStatus;
use std::cell::Cell;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Versions that a round looks at, if nothing makes it look further.
const WINDOW: usize = 1000;
/// Rows read in one go.
const PAGE: usize = 256;
/// First wait after an error; doubles to the longest, with jitter.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// What a round did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// The outbox is empty.
    Idle,
    /// Rows wait: for uploads in the bulk lane, or for a file that is being written.
    Waiting,
    /// A batch is in the log, or rows went that had nothing to say.
    Published {
        /// Versions in it.
        versions: usize,
    },
}

impl Fleet {
    /// Publishes until `stop` says true.
    pub(super) async fn publish_loop(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut failures = 0u32;
        let mut burst = Burst::default();
        while !*stop.borrow() {
            tokio::select! {
                () = burst.pass(&self.woken) => {}
                _ = stop.wait_for(|s| *s) => break,
            }
            let wake = self.wake.notified();
            let progress = self.cuts.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            let done = tokio::select! {
                r = self.round() => r,
                _ = stop.wait_for(|s| *s) => break,
            };
            let failure = match done {
                Ok(Round::Published { .. }) => {
                    failures = 0;
                    self.works();
                    continue;
                }
                Ok(Round::Idle) => {
                    failures = 0;
                    self.works();
                    tokio::select! { _ = wake => {}, _ = stop.wait_for(|s| *s) => break }
                    continue;
                }
                Ok(Round::Waiting) => {
                    failures = 0;
                    tokio::select! { _ = wake => {}, _ = progress => {}, _ = stop.wait_for(|s| *s) => break }
                    continue;
                }
                Err(e) if e.kind() == Kind::Interrupted => continue,
                Err(e) => e,
            };
            self.fails(&failure);
            failures += 1;
            // An error of one file is no reason to let others wait.
            let of_one_file = !matches!(failure.kind(), Kind::Unavailable | Kind::Timeout | Kind::Unauthorized);
            tokio::select! {
                _ = tokio::time::sleep(backoff(BACKOFF, failures.saturating_sub(1))) => {}
                _ = wake, if of_one_file => {}
                _ = self.returned.notified() => {}
                _ = stop.wait_for(|s| *s) => break,
            }
        }
        self.keep_cuts(&HashSet::new());
    }

    /// One round: publishes what is ready at the front of the outbox as one batch.
    ///
    /// Cancel-safe: what was uploaded and what was fixed is found again.
    /// Errors: of the store (try again), of the local state; `Interrupted` if this device took a new id meanwhile.
    pub async fn round(self: &Arc<Self>) -> Result<Round> {
        let done = self.try_round().await;
        if let Err(e) = &done {
            self.lost(e);
        }
        done
    }

    async fn try_round(self: &Arc<Self>) -> Result<Round> {
        self.connect().await?;
        if let Some(versions) = self.finish_fixed().await? {
            return Ok(Round::Published { versions });
        }
        self.write_out_moves().await?;
        let mut through = 0;
        let mut synced: HashSet<Hash> = HashSet::new();
        // By path as well: a file that was moved has the same bytes under each name it had.
        let mut searched: HashSet<(Hash, RelPath)> = HashSet::new();
        let (plan, ready, why) = loop {
            let this = self.clone();
            let plan = Arc::new(blocking(move || this.plan(through)).await?);
            if plan.rows.is_empty() {
                self.keep_cuts(&HashSet::new());
                return Ok(Round::Idle);
            }
            if let Some(stray) = stray_id(&plan, &self.me().id) {
                let _log = self.log.lock().await;
                self.readdress(&stray).await?;
                continue;
            }
            self.start(&plan);
            let sync = self.start_sync(&plan, &mut synced);
            let verdict = self.wait_for(&plan, &searched).await;
            sync.await?;
            match verdict {
                Verdict::Search(token, version, from) => {
                    let (this, path) = (self.clone(), version.path.clone());
                    let (found, upto) = blocking(move || this.find_later(&version, from)).await?;
                    self.cuts.searched(&token, &path, upto);
                    searched.insert((token, path));
                    through = found.unwrap_or(0).max(through);
                }
                Verdict::Go(ready, why) => break (plan, ready, why),
                Verdict::Wait(_) => return Err(Error::new(Kind::Internal, "a round ended while it had to wait")),
            }
        };
        if ready.is_empty() {
            return why.map_or(Ok(Round::Waiting), Err);
        }
        let published = self.send(&plan, &ready, &synced).await?;
        // What stands in the way of the rest is met again, first thing, in the next round.
        Ok(Round::Published { versions: published })
    }

    /// Finishes what is fixed. The number of its versions.
    async fn finish_fixed(self: &Arc<Self>) -> Result<Option<usize>> {
        let _log = self.log.lock().await;
        let this = self.clone();
        let Some((seq, batch)) = blocking(move || this.fixed()).await? else { return Ok(None) };
        let versions = batch.versions.len();
        self.put_and_finish(seq, batch, ChunkLists::new()).await?;
        Ok(Some(versions))
    }

    async fn put_and_finish(self: &Arc<Self>, seq: u64, batch: crate::state::rows::Batch, chunks: ChunkLists) -> Result<()> {
        let me = self.me().id.clone();
        if !self.put_batch(seq, &batch.body).await? {
            self.take_new_id(&me, "another machine wrote to this device's log").await?;
            return Err(id_changed());
        }
        self.finish(seq, batch, chunks).await
    }

    async fn write_out_moves(self: &Arc<Self>) -> Result<()> {
        let this = self.clone();
        blocking(move || {
            if this.replica.read(|r| r.scan_int::<DirMove>(Tree::Move, 0, u64::MAX, 1))?.is_empty() {
                return Ok(());
            }
            this.transact(|ns, _| this.files.expand_moves(ns))
        })
        .await
    }

    /// Reads the window, and on to row `through`, and plans it. Blocking.
    fn plan(&self, through: u64) -> Result<Plan> {
        // Each read lets go of the database: programs on the mount do not wait for a plan.
        let (mut rows, mut versions, mut from) = (Vec::new(), 0, 0);
        let whole = loop {
            let page: Vec<(u64, Sealed)> = self.replica.read(|r| r.scan_int(Tree::Outbox, from, u64::MAX, PAGE))?;
            let Some((last, _)) = page.last() else { break true };
            from = last + 1;
            let (full, mut cut) = (page.len() == PAGE, false);
            for (seq, sealed) in page {
                if versions >= WINDOW && seq > through {
                    cut = true;
                    break;
                }
                // Rows that are only waited for do not use the window up.
                let held = |p: Option<&Progress>| matches!(See::of(p, self.options.bulk_after), See::Slow | See::Gone);
                let held = sealed.files.iter().any(|(t, ..)| self.cuts.see(t, held));
                versions += if held { 0 } else { sealed.versions.len().max(1) };
                rows.push(Row { seq, sealed });
            }
            if cut || !full {
                break !cut;
            }
        };
        let failed = Cell::new(None);
        let heads = |path: &RelPath| match self.replica.read(|r| register_at(r, path)) {
            Ok(found) => found.map_or_else(VClock::new, |reg| reg.entry.clock()),
            Err(e) => {
                failed.set(Some(e));
                VClock::new()
            }
        };
        let stands = |t: &Hash| self.stands(t, &failed);
        let mut plan = Plan::new(rows, &heads, &stands);
        plan.whole = whole;
        failed.into_inner().map_or(Ok(plan), Err)
    }

    /// What a token stands for whose row has gone.
    fn stands(&self, token: &Hash, failed: &Cell<Option<Error>>) -> Option<Stands> {
        match self.replica.read(|r| self.tokens.get(r, token)) {
            Ok(found) => found,
            Err(e) => {
                failed.set(Some(e));
                None
            }
        }
    }

    /// Starts the uploads that a plan needs; ends those it does not.
    fn start(self: &Arc<Self>, plan: &Plan) {
        let mut wanted = HashSet::new();
        for (g, v) in plan.groups.iter().flat_map(|g| g.versions.iter().map(move |v| (g, v))) {
            if let Some(t) = token(v)
                && wanted.insert(t)
            {
                let bulk = g.passable && size(v) > self.options.bulk_from;
                self.start_cut(t, plan.sources.get(&t).copied(), v, bulk);
            }
        }
        self.keep_cuts(&wanted);
    }

    /// Makes the bytes of a plan durable here, beside the uploads; those of the bulk lane when they are done.
    fn start_sync(self: &Arc<Self>, plan: &Plan, synced: &mut HashSet<Hash>) -> impl Future<Output = Result<()>> + use<> {
        let mut inos = Vec::new();
        for v in plan
            .groups
            .iter()
            .filter(|g| !g.passable || g.versions.iter().all(|v| size(v) <= self.options.bulk_from))
            .flat_map(|g| &g.versions)
        {
            if let Some(t) = token(v)
                && let Some((ino, _)) = plan.sources.get(&t)
                && synced.insert(t)
            {
                inos.push(*ino);
            }
        }
        let this = self.clone();
        let task = (!inos.is_empty()).then(|| tokio::spawn(blocking(move || this.files.sync_data(&inos))));
        async move {
            match task {
                Some(t) => t.await.map_err(|e| Error::new(Kind::Internal, "syncing files before publishing").source(e))?,
                None => Ok(()),
            }
        }
    }

    /// The first row from `from` on that has a version of the path which replaces `v`; and how far was looked.
    fn find_later(&self, v: &Version, mut from: u64) -> Result<(Option<u64>, u64)> {
        loop {
            let page: Vec<(u64, Sealed)> = self.replica.read(|r| r.scan_int(Tree::Outbox, from, u64::MAX, PAGE))?;
            for (seq, row) in &page {
                if row.versions.iter().any(|w| w.path == v.path && w.vclock.covers(&v.vclock)) {
                    return Ok((Some(*seq), *seq));
                }
            }
            match page.last() {
                Some((last, _)) => from = last + 1,
                None => return Ok((None, from.max(1))),
            }
        }
    }

    /// Fixes, puts and finishes the groups that are ready. The number of versions.
    async fn send(self: &Arc<Self>, plan: &Arc<Plan>, ready: &[usize], synced: &HashSet<Hash>) -> Result<usize> {
        let groups: Vec<&Group> = ready.iter().map(|i| &plan.groups[*i]).collect();
        let late: Vec<u64> = groups
            .iter()
            .flat_map(|g| &g.versions)
            .filter_map(token)
            .filter(|t| !synced.contains(t))
            .filter_map(|t| plan.sources.get(&t).map(|s| s.0))
            .collect();
        if !late.is_empty() {
            let this = self.clone();
            blocking(move || this.files.sync_data(&late)).await?;
        }
        let _log = self.log.lock().await;
        if !self.is_online() {
            return Err(Error::new(Kind::Unavailable, "the store was lost while a batch was made ready"));
        }
        let (this, plan2, ready2) = (self.clone(), plan.clone(), ready.to_vec());
        let (draft, chunks) = blocking(move || this.compose(&plan2, &ready2)).await?;
        self.note_current(draft.versions.last());
        self.confirm_manifests(&draft.versions).await?;
        let this = self.clone();
        let tokens: HashSet<Hash> = chunks.keys().copied().collect();
        let published = draft.versions.len();
        if let Some((seq, batch)) = blocking(move || this.fix(draft)).await? {
            self.put_and_finish(seq, batch, chunks).await?;
        }
        self.cuts.retain(|t| !tokens.contains(t));
        self.note_current(None);
        Ok(published)
    }

    /// The batch of some groups: versions with their content, lines compressed. Blocking.
    fn compose(&self, plan: &Plan, ready: &[usize]) -> Result<(Draft, ChunkLists)> {
        let mut chunks = ChunkLists::new();
        let mut draft = Draft {
            me: self.me().id.clone(),
            versions: Vec::new(),
            rows: Vec::new(),
            forget: Vec::new(),
            repointed: Vec::new(),
            body: Bytes::new(),
        };
        let failed = Cell::new(None);
        let root = |t: &Hash| self.cuts.done(t).map(|f| f.content.root);
        let stands = |t: &Hash| self.stands(t, &failed);
        for g in ready.iter().map(|i| &plan.groups[*i]) {
            for v in &g.versions {
                let mut v = v.clone();
                if v.is_tombstone() {
                    v.base = plan.base(&v, &root, &stands);
                }
                if let Some(t) = token(&v) {
                    let gone = || Error::new(Kind::Interrupted, format!("publishing {:?}: its upload was given up", v.path));
                    let file = self.cuts.done(&t).ok_or_else(gone)?;
                    if let Some(c) = content_mut(&mut v) {
                        *c = file.content.clone();
                    }
                    chunks.insert(t, file.chunks.clone());
                }
                draft.versions.push(v);
            }
            for path in &g.forget {
                let of = plan.rows_of(g).iter().flat_map(|r| &r.sealed.versions).filter(|v| v.path == *path);
                draft.forget.push((path.clone(), of.cloned().collect()));
            }
            draft.repointed.extend(g.repointed.iter().cloned());
            draft.rows.extend(plan.rows_of(g).iter().cloned());
        }
        if let Some(e) = failed.into_inner() {
            return Err(e);
        }
        let lines = record::encode(&draft.versions)?;
        draft.body = codec::encode_lines(&lines)?;
        Ok((draft, chunks))
    }
}

fn size(v: &Version) -> u64 {
    super::plan::content(v).map_or(0, |c| c.size)
}

/// An id under which a row was sealed just before this device took another.
fn stray_id(plan: &Plan, me: &str) -> Option<String> {
    let versions = plan.rows.iter().flat_map(|r| &r.sealed.versions);
    versions.map(|v| &v.device_id).find(|id| *id != me).cloned()
}
