//! A new id for this device: because it found another's object in its own log (it was cloned or rolled back), or
//! because it is enrolled anew.
//!
//! Must: what was not published moves to the new id in one transaction: outbox, heads, inodes, open files. Must: what
//! was published stays as it is, and the old log is from then on read like anybody else's.
//! Not here: the mapping of clocks (`model::reissue`), noticing (`link`). The caller holds the `log` lock.

use super::core::{Fleet, blocking, id_changed};
use super::facts;
use super::identity::Identity;
use crate::error::Result;
use crate::model::RelPath;
use crate::model::reissue::Reissue;
use crate::model::vclock::COUNTER_MAX;
use crate::state::rows::{Batch, Cursor, Inode, Local, Sealed, Slot};
use crate::state::tree::{locate, register_at};
use crate::state::{Ns, Read, Tree};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Rows read at a time.
const PAGE: usize = 1000;

impl Fleet {
    /// Takes a fresh id under the same name.
    pub(super) async fn take_new_id(self: &Arc<Self>, from: &str, why: &str) -> Result<()> {
        let name = self.me().name.clone();
        let new = Identity::create(&name, &*self.clock)?;
        tracing::warn!(
            old = from,
            new = new.id,
            "{why}: this machine goes on under a new device id; what was not published goes out under it"
        );
        self.become_device(from, new).await
    }

    /// Enrols this machine anew under an identity that is in the registry already: everything not published goes on
    /// under it.
    ///
    /// Errors: of the local state.
    pub async fn enroll_as(self: &Arc<Self>, new: Identity) -> Result<()> {
        let _log = self.log.lock().await;
        let from = self.me().id.clone();
        self.become_device(&from, new).await
    }

    async fn become_device(self: &Arc<Self>, from: &str, new: Identity) -> Result<()> {
        let (this, from) = (self.clone(), from.to_owned());
        blocking(move || {
            let before = this.me.get();
            let done = this.replica_change(&from, &new, true);
            if done.is_err() {
                // The transaction may have failed after the shared identity was set.
                this.me.set((*before).clone());
            }
            done?;
            new.save(&this.state_dir)
        })
        .await?;
        self.online.store(false, std::sync::atomic::Ordering::SeqCst);
        Ok(())
    }

    /// Moves versions in the outbox that carry an id this device had before (sealed in the moment of a change) to the
    /// present one.
    pub(super) async fn readdress(self: &Arc<Self>, from: &str) -> Result<()> {
        let (this, from) = (self.clone(), from.to_owned());
        blocking(move || {
            let me = this.me.get();
            this.replica_change(&from, &me, false)
        })
        .await
    }

    fn replica_change(&self, from: &str, new: &Identity, take: bool) -> Result<()> {
        let (first, forgotten) = self.transact_as(&new.id, |ns| {
            if take && self.me.get().id != from {
                return Err(id_changed());
            }
            let (rows, first) = unpublished(ns.t, from)?;
            let forgotten = if take { Forgotten::find(ns.t, from, &rows)? } else { Forgotten::default() };
            {
                let published = |path: &RelPath, actor: &str| first.published(path, actor);
                let raised = |path: &RelPath| forgotten.raised(path, &published);
                let change = Reissue { old_id: from, new_id: &new.id, published: &published, raised: &raised };
                let fixed = Reissue { raised: &|_| 0, ..change };
                let mut again = Vec::new();
                for (seq, mut row) in rows {
                    let is_fixed = forgotten.rows.contains(&seq);
                    let change = if is_fixed { &fixed } else { &change };
                    row.versions = row.versions.iter().map(|v| change.version(v)).collect();
                    again.extend(row.versions.iter().filter(|v| is_fixed && forgotten.paths.contains_key(&v.path)).cloned());
                    ns.t.put(Tree::Outbox, seq, &row)?;
                }
                // What was fixed under the old id is planned and fixed again; its bytes are in the store.
                while let Some((seq, _)) = ns.t.scan_int::<Batch>(Tree::Batch, 0, u64::MAX, 1)?.pop().filter(|_| take) {
                    ns.t.del(Tree::Batch, seq)?;
                }
                for path in first.of_path.keys() {
                    change_register(ns, path, &change)?;
                }
                for v in &again {
                    let (dir, _) = ns.merge(v)?;
                    ns.reconcile(dir, v.path.file_name())?;
                }
                change_open_files(ns, &change)?;
            }
            if take {
                let last = facts::published(ns.t, from)?;
                ns.t.put(Tree::Cursor, from, &Cursor { seq: last, at: self.clock.now_ms() })?;
                facts::set_published(ns.t, &new.id, 0)?;
                facts::set_identity(ns.t, new)?;
                self.me.set(new.clone());
            }
            Ok((first, forgotten))
        })?;
        let published = |path: &RelPath, actor: &str| match first.of_path.contains_key(path) {
            true => first.published(path, actor),
            false => self.replica.read(|r| register_at(r, path)).ok().flatten().map_or(0, |r| r.entry.clock().get(actor)),
        };
        let raised = |path: &RelPath| forgotten.raised(path, &published);
        self.files.new_id(&Reissue { old_id: from, new_id: &new.id, published: &published, raised: &raised });
        Ok(())
    }

    /// As `transact`, in the name of an id that is only being taken.
    fn transact_as<T>(&self, id: &str, body: impl FnOnce(&mut Ns<'_, '_>) -> Result<T>) -> Result<T> {
        let settings = self.files.settings();
        let busy = |ino| self.files.busy(ino);
        let ctx = crate::state::Ctx {
            mode: settings.mode,
            show_siblings: settings.show_siblings,
            me: id,
            now: crate::state::rows::Time::from_ns(self.clock.now_ns()),
            uid: settings.uid,
            gid: settings.gid,
            busy: &busy,
        };
        let (out, changes) = self.replica.write(&ctx, body)?;
        if !changes.is_empty() {
            self.files.changed(changes);
        }
        Ok(out)
    }
}

/// Own counters that have not left this device.
#[derive(Default)]
struct First {
    /// Path → actor → lowest counter pending.
    of_path: BTreeMap<RelPath, HashMap<String, u64>>,
}

impl First {
    /// The published part of an own counter: one below the first pending; all of it where none is pending, whatever rows
    /// and registers say of that actor.
    fn published(&self, path: &RelPath, actor: &str) -> u64 {
        self.of_path.get(path).and_then(|of| of.get(actor)).map_or(COUNTER_MAX, |n| n - 1)
    }
}

/// What the batch that is fixed and not out leaves unsaid: paths that were made and removed again before anybody heard of
/// them. Their heads were forgotten when it was fixed, its rows still have them, and now that it is planned anew they count
/// again: a version that was written to such a path since must not have a clock of theirs.
#[derive(Default)]
struct Forgotten {
    /// Rows of the batch.
    rows: BTreeSet<u64>,
    /// Path → actor → highest counter that was forgotten.
    paths: BTreeMap<RelPath, HashMap<String, u64>>,
}

impl Forgotten {
    fn find(r: &Read<'_>, id: &str, rows: &[(u64, Sealed)]) -> Result<Forgotten> {
        let mut out = Forgotten::default();
        let Some(batch) = r.get::<Batch>(Tree::Batch, facts::published(r, id)? + 1)? else { return Ok(out) };
        let said: BTreeSet<&RelPath> = batch.versions.iter().map(|v| &v.path).collect();
        out.rows = batch.rows.iter().copied().collect();
        let fixed = rows.iter().filter(|(seq, _)| out.rows.contains(seq)).flat_map(|(_, row)| &row.versions);
        for v in fixed.filter(|v| v.device_id == id && !said.contains(&v.path)) {
            let n = v.vclock.get(&v.actor);
            out.paths.entry(v.path.clone()).or_default().entry(v.actor.clone()).and_modify(|m| *m = n.max(*m)).or_insert(n);
        }
        Ok(out)
    }

    /// How many counters of a path were forgotten.
    fn raised(&self, path: &RelPath, published: &dyn Fn(&RelPath, &str) -> u64) -> u64 {
        let of = self.paths.get(path).into_iter().flatten();
        of.map(|(actor, n)| n.saturating_sub(published(path, actor))).max().unwrap_or(0)
    }
}

/// Outbox rows with versions by `id`, and the first pending counters of each path.
fn unpublished(r: &Read<'_>, id: &str) -> Result<(Vec<(u64, Sealed)>, First)> {
    let mut first = First::default();
    let mut rows = Vec::new();
    let mut from = 0;
    loop {
        let page: Vec<(u64, Sealed)> = r.scan_int(Tree::Outbox, from, u64::MAX, PAGE)?;
        let Some((last, _)) = page.last() else { break };
        from = last + 1;
        for (_, row) in &page {
            for v in row.versions.iter() {
                if v.device_id == id {
                    let n = v.vclock.get(&v.actor);
                    let of = first.of_path.entry(v.path.clone()).or_default();
                    of.entry(v.actor.clone()).and_modify(|m| *m = (*m).min(n)).or_insert(n);
                }
            }
        }
        rows.extend(page.into_iter().filter(|(_, row)| row.versions.iter().any(|v| v.device_id == id)));
    }
    Ok((rows, first))
}

/// Heads of one path, and the clocks by which inodes and siblings know them.
fn change_register(ns: &mut Ns<'_, '_>, path: &RelPath, change: &Reissue<'_>) -> Result<()> {
    let Some((dir, mut r)) = locate(ns.t, path)? else { return Ok(()) };
    let name = path.file_name();
    r.entry = change.entry(&r.entry);
    let mut shown: Vec<u64> = r.sibs.iter().map(|s| s.ino).collect();
    shown.push(r.ino);
    for s in &mut r.sibs {
        s.clock = change.clock(path, &s.clock);
    }
    ns.put_slot(dir, name, &Slot::Register(r))?;
    for ino in shown.into_iter().filter(|i| *i != 0) {
        if let Some(mut i) = ns.t.get::<Inode>(Tree::Inode, ino)? {
            i.shows = change.clock(path, &i.shows);
            ns.put_inode(ino, &i)?;
        }
    }
    ns.reconcile(dir, name)
}

/// What files with unsealed bytes had accepted.
fn change_open_files(ns: &mut Ns<'_, '_>, change: &Reissue<'_>) -> Result<()> {
    let mut from = 0;
    loop {
        let page: Vec<(u64, Local)> = ns.t.scan_int(Tree::Local, from, u64::MAX, PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        from = last + 1;
        for (ino, mut local) in page {
            let Some(accept) = &local.accept else { continue };
            let (path, accept) = accept;
            local.accept = Some((path.clone(), change.accepted(path, accept)));
            ns.t.put(Tree::Local, ino, &local)?;
        }
    }
}
