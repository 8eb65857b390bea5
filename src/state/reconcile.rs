//! Reconciling: a name, its siblings and their inodes are brought to what the view of the register says.
//!
//! Must: an inode that is open for writing or has unsealed bytes keeps its name; reconciling waits for its seal.
//! Must: a head that stays visible keeps its inode.
//! Must: an inode whose bytes are nowhere else is hidden, never freed, while a head needs them.
//! Not here: which heads are visible, and who has the name (`model::view`).

use super::inode::{file_type, holds};
use super::namespace::Ns;
use super::read::Scan;
use super::replica::Change;
use super::rows::*;
use super::schema::{Tree, prefix_end};
use super::tree::has_children;
use crate::error::Result;
use crate::model::brake::in_effect;
use crate::model::sibling::sibling_names;
use crate::model::view::{ConflictMode, view};
use crate::model::{VClock, Version};

impl Ns<'_, '_> {
    /// Brings the visible tree under one name to what the register's view says; goes on with the parents whose
    /// existence depends on it.
    pub fn reconcile(&mut self, dir: u64, name: &str) -> Result<()> {
        if self.reconcile_one(dir, name)? { self.reconcile_up(dir) } else { Ok(()) }
    }

    /// The second half of [`Ns::reconcile`]: a name in `dir` came or went, which may decide whether `dir` exists.
    pub fn reconcile_up(&mut self, dir: u64) -> Result<()> {
        let mut dir = dir;
        while dir != ROOT {
            let up = self.inode(dir)?;
            let Some((parent, own)) = up.links.first().cloned() else { return Ok(()) };
            if !self.reconcile_one(parent, &own)? {
                return Ok(());
            }
            dir = parent;
        }
        Ok(())
    }

    /// One name only. True if a name appeared or vanished, so that the directory's own existence may have changed:
    /// whoever does not write what keeps it goes on with [`Ns::reconcile_up`].
    pub fn reconcile_one(&mut self, dir: u64, name: &str) -> Result<bool> {
        let Some(Slot::Register(mut r)) = self.slot(dir, name)? else { return Ok(false) };
        let was = r.ino;
        let was_dir = was != 0 && was == r.dir;
        // Whoever writes keeps the name; the seal comes back here.
        if was != 0 && !was_dir && (self.ctx.busy)(was) || r.sibs.iter().any(|s| (self.ctx.busy)(s.ino)) {
            // Also the start after a kill does: an open file without changes leaves no other trace.
            self.t.put(Tree::Meta, waits_key(dir, name), &(dir, name))?;
            return Ok(false);
        }
        if self.t.get::<(u64, String)>(Tree::Meta, waits_key(dir, name))?.is_some() {
            self.t.del(Tree::Meta, waits_key(dir, name))?;
        }
        let implied = r.dir != 0 && has_children(self.t, r.dir)?;
        if r.entry.live().any(Version::is_bundle) {
            // Nothing of it is to be seen; whoever takes bundles in hears of it.
            self.changes.push(Change::Name { dir, name: name.to_owned(), was: r.ino });
        }
        let entry = in_effect(&r.entry, self.ctx.me).into_owned();
        let seen = view(&entry, implied, self.ctx.mode, self.ctx.me);
        if was != 0 && !was_dir && self.inode(was)?.local_only {
            if seen.is_none() {
                return Ok(false);
            }
            self.move_aside(dir, name, was)?;
            r.ino = 0;
            self.put_slot(dir, name, &Slot::Register(r.clone()))?;
        }
        let was = r.ino;
        self.note_conflict(dir, name, seen.as_ref().is_some_and(|v| v.is_conflict()))?;
        self.note_parted(dir, name, &entry)?;
        if seen.as_ref().is_some_and(|v| v.is_dir && v.shown.is_none()) && !entry.heads.is_empty() && r.dir != 0 {
            self.changes.push(Change::Kept(r.dir));
        }
        let show_siblings = self.ctx.mode != ConflictMode::Defer || self.ctx.show_siblings;
        // A head whose bytes are only here is shown in any case: without a name they would be freed.
        let listed = |h: &Version| show_siblings || h.is_uncut();

        // Inodes that are shown now, to be kept by the heads that stay.
        let mut pool: Vec<(VClock, u64, String)> = Vec::new();
        if was != 0 && !was_dir {
            // The clock of a hard link may be that of another name: it is known by what it holds.
            let i = self.inode(was)?;
            let clock = if i.links.len() > 1 { VClock::new() } else { i.shows };
            pool.push((clock, was, name.to_owned()));
        }
        for s in &r.sibs {
            pool.push((s.clock.clone(), s.ino, s.name.clone()));
        }

        // Heads that will be shown: an inode that shows one of them is not to be had for another of equal content.
        let shown = seen.as_ref().filter(|v| !v.is_dir).and_then(|v| v.shown);
        let clocks: Vec<VClock> =
            shown.into_iter().chain(seen.iter().flat_map(|v| &v.siblings).map(|s| s.head)).map(|h| h.vclock.clone()).collect();

        let mut now_ino = 0;
        let mut attr_of: Option<(&Version, u32, (i64, u32))> = None;
        match &seen {
            None => {}
            Some(v) if v.is_dir => {
                if r.dir == 0 {
                    r.dir = self.gone_dir(dir, name)?;
                }
                now_ino = r.dir;
                let mut i = self.inode(r.dir)?;
                let revived = i.dead;
                if revived {
                    i.dead = false;
                    i.generation += 1;
                    i.subdirs = self.count_subdirs(r.dir)?;
                    (i.ctime, i.mtime) = (self.ctx.now, self.made_at.unwrap_or(self.ctx.now));
                }
                if let Some(h) = v.shown
                    && (revived || i.shows != h.vclock || i.mode != v.mode & 0o7777)
                {
                    i.take(h, v.mode, v.mtime, self.ctx.now);
                    self.changes.push(Change::Attr(r.dir));
                }
                self.put_inode(r.dir, &i)?;
            }
            Some(v) => {
                if let Some(h) = v.shown {
                    now_ino = self.pick(&mut pool, h, &clocks)?;
                    attr_of = Some((h, v.mode, v.mtime));
                }
            }
        }
        if was_dir && now_ino != r.dir {
            let mut i = self.inode(r.dir)?;
            i.dead = true;
            self.put_inode(r.dir, &i)?;
        }

        // Siblings, with the inodes they had.
        let taken_names: Vec<String> = match &seen {
            Some(v) if v.siblings.iter().any(|s| listed(s.head)) => {
                let t = &*self.t;
                // Also where only tombstones lie: a sibling's slot has no room for them.
                let taken = |n: &str| match t.get::<Slot>(Tree::Entry, slot_key(dir, n)) {
                    Ok(Some(Slot::Sibling { of, .. })) => of != name,
                    Ok(None) => n == name,
                    Ok(Some(_)) | Err(_) => true,
                };
                sibling_names(name, v, &taken)
            }
            _ => Vec::new(),
        };
        let mut sibs = Vec::new();
        for (s, n) in seen.iter().flat_map(|v| &v.siblings).zip(&taken_names).filter(|(s, _)| listed(s.head)) {
            let ino = self.pick(&mut pool, s.head, &clocks)?;
            sibs.push((Sib { name: n.clone(), ino, clock: s.head.vclock.clone() }, s.head));
        }

        // Names that went or now lead elsewhere.
        let mut changed = false;
        let old: Vec<(String, u64)> = std::iter::once((name.to_owned(), if was_dir { 0 } else { was }))
            .chain(r.sibs.iter().map(|s| (s.name.clone(), s.ino)))
            .filter(|(_, i)| *i != 0)
            .collect();
        let new: Vec<(String, u64)> = std::iter::once((name.to_owned(), if now_ino == r.dir { 0 } else { now_ino }))
            .chain(sibs.iter().map(|(s, _)| (s.name.clone(), s.ino)))
            .filter(|(_, i)| *i != 0)
            .collect();
        for (n, i) in new.iter().filter(|x| !old.contains(x)) {
            self.add_link(*i, dir, n)?;
            if n != name {
                self.put_slot(dir, n, &Slot::Sibling { ino: *i, of: name.to_owned() })?;
                let was = old.iter().find(|(m, _)| m == n).map_or(0, |(_, i)| *i);
                self.changes.push(Change::Name { dir, name: n.clone(), was });
                changed = true;
            }
        }
        for (n, i) in old.iter().filter(|x| !new.contains(x)) {
            if self.holds_only_bytes(&entry, *i)? {
                self.hide(*i, dir, n)?;
            } else {
                self.drop_link(*i, dir, n)?;
            }
            if n != name {
                if !new.iter().any(|(m, _)| m == n) {
                    self.del_slot(dir, n)?;
                }
                self.changes.push(Change::Name { dir, name: n.clone(), was: *i });
                changed = true;
            }
        }
        r.ino = now_ino;
        r.sibs = sibs.iter().map(|(s, _)| s.clone()).collect();
        let now_dir = now_ino != 0 && now_ino == r.dir;
        let gone = !r.entry.heads.is_empty() || r.ino != 0 || r.dir != 0;
        if gone {
            self.put_slot(dir, name, &Slot::Register(r))?;
        } else {
            self.del_slot(dir, name)?;
        }

        // Attributes.
        if let Some((h, mode, mtime)) = attr_of {
            self.show(now_ino, h, mode, mtime)?;
        }
        for (s, h) in &sibs {
            self.show(s.ino, h, h.mode, h.mtime)?;
        }
        if was != now_ino {
            self.changes.push(Change::Name { dir, name: name.to_owned(), was });
            changed = true;
        }
        if changed {
            self.touch_dir(dir, i32::from(now_dir) - i32::from(was_dir))?;
        }
        Ok(changed)
    }

    /// Reconciles every name that waited for a writer when the last process ended.
    pub fn reconcile_waiting(&mut self) -> Result<()> {
        let mut waiting: Vec<(u64, String)> = Vec::new();
        self.t.scan(Tree::Meta, Scan::From(WAITS, &prefix_end(WAITS)), usize::MAX, |_, at| {
            waiting.push(at);
            Ok(())
        })?;
        for (dir, name) in waiting {
            self.t.del(Tree::Meta, waits_key(dir, &name))?;
            self.reconcile(dir, &name)?;
        }
        Ok(())
    }

    /// The inode that shows this head already, or one with the same content, or a new one.
    fn pick(&mut self, pool: &mut Vec<(VClock, u64, String)>, h: &Version, others: &[VClock]) -> Result<u64> {
        if let Some(at) = pool.iter().position(|(c, ..)| *c == h.vclock) {
            return Ok(pool.remove(at).1);
        }
        for at in 0..pool.len() {
            if others.contains(&pool[at].0) {
                continue;
            }
            let i = self.inode(pool[at].1)?;
            if holds(self.t, pool[at].1, &i, h)? {
                return Ok(pool.remove(at).1);
            }
        }
        let ino = self.next_id();
        let mut i = Inode::new(file_type(h), h.mode & 0o7777, self.ctx.uid, self.ctx.gid, self.ctx.now);
        i.take(h, h.mode, h.mtime, self.ctx.now);
        i.atime = i.mtime;
        i.btime = i.mtime;
        self.put_inode(ino, &i)?;
        Ok(ino)
    }

    fn show(&mut self, ino: u64, h: &Version, mode: u32, mtime: (i64, u32)) -> Result<()> {
        let mut i = self.inode(ino)?;
        if i.shows == h.vclock && i.mode == mode & 0o7777 && i.mtime == mtime.into() {
            return Ok(());
        }
        i.take(h, mode, mtime, self.ctx.now);
        self.put_inode(ino, &i)?;
        self.changes.push(Change::Attr(ino));
        Ok(())
    }

    fn count_subdirs(&self, dir: u64) -> Result<u32> {
        let (mut from, end, mut n) = (slot_after(dir, 0), slot_end(dir), 0);
        loop {
            let (mut rows, mut last) = (0, Vec::new());
            self.t.scan(Tree::Entry, Scan::From(&from, &end), 1024, |k, s: Slot| {
                if let Slot::Register(r) = &s
                    && r.ino != 0
                    && r.ino == r.dir
                {
                    n += 1;
                }
                rows += 1;
                last = k.to_vec();
                Ok(())
            })?;
            if rows < 1024 {
                return Ok(n);
            }
            last.push(0);
            from = last;
        }
    }
}

/// Meta keys of names whose reconciling waits for a writer.
const WAITS: &[u8] = b"waits\0";

fn waits_key(dir: u64, name: &str) -> Vec<u8> {
    [WAITS, &slot_key(dir, name)].concat()
}
