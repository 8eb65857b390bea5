//! Writing a directory move out, entry by entry.
//!
//! The tree moved in one row; the registers below it still hold the versions of their old paths. Writing out gives
//! each its versions at the new path and leaves tombstones at the old one, in pages, so that nothing is locked for
//! long. Nobody merges, applies or moves again before it is done (`Tree::Move` is empty then).
//!
//! Must: a page (registers, tombstones, outbox row) is one transaction; a crash between pages goes on where it was.

use crate::error::Result;
use crate::model::brake::in_effect;
use crate::model::entry::Entry;
use crate::model::ops::{self, At, Author};
use crate::model::view::view;
use crate::model::{Hash, RelPath, Version};
use crate::state::rows::*;
use crate::state::tree::has_children;
use crate::state::{Change, Ctx, Ns, Replica, Scan, Tree};

/// Registers per transaction.
const PAGE: usize = 500;
/// Slots read at a time.
const SCAN: usize = 512;

/// Writes out pending moves, at most `pages` pages of them. Returns what changed in the visible tree.
pub fn write_out_all(replica: &Replica, ctx: &Ctx<'_>, author: &Author, boot: u64, pages: usize) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    let mut left = pages;
    loop {
        let moves: Vec<(u64, DirMove)> = replica.read(|r| r.scan_int(Tree::Move, 0, u64::MAX, 1))?;
        let Some((id, mv)) = moves.into_iter().next() else { return Ok(changes) };
        let mut at = Vec::new();
        loop {
            if left == 0 {
                return Ok(changes);
            }
            left -= 1;
            let (done, more) = replica.write(ctx, |ns| page(ns, id, &mv, PAGE, author, boot, &mut at))?;
            changes.extend(more);
            if done {
                break;
            }
        }
    }
}

/// Writes out every pending move within the caller's transaction.
pub fn write_out_in(ns: &mut Ns<'_, '_>, author: &Author, boot: u64) -> Result<()> {
    loop {
        let moves: Vec<(u64, DirMove)> = ns.t.scan_int(Tree::Move, 0, u64::MAX, 1)?;
        let Some((id, mv)) = moves.into_iter().next() else { return Ok(()) };
        let mut at = Vec::new();
        while !page(ns, id, &mv, PAGE, author, boot, &mut at)? {}
    }
}

/// Writes a move out at once if at most `small` registers are below it; true if it was.
pub fn write_out_small(ns: &mut Ns<'_, '_>, id: u64, mv: &DirMove, small: usize, author: &Author, boot: u64) -> Result<bool> {
    if count(ns, mv.dir, small.saturating_add(1))? > small {
        return Ok(false);
    }
    page(ns, id, mv, usize::MAX, author, boot, &mut Vec::new())
}

/// Slots of `dir` from a key on, with their keys.
fn slots(ns: &Ns<'_, '_>, dir: u64, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Slot)>> {
    let mut out = Vec::new();
    ns.t.scan(Tree::Entry, Scan::From(from, &slot_end(dir)), limit, |k, s: Slot| {
        out.push((k.to_vec(), s));
        Ok(())
    })?;
    Ok(out)
}

fn count(ns: &Ns<'_, '_>, dir: u64, enough: usize) -> Result<usize> {
    let mut n = 0;
    let mut below = Vec::new();
    ns.t.scan(Tree::Entry, Scan::From(&slot_after(dir, 0), &slot_end(dir)), enough, |_, s: Slot| {
        n += 1;
        if let Slot::Register(r) = s
            && r.dir != 0
        {
            below.push(r.dir);
        }
        Ok(())
    })?;
    for d in below {
        if n >= enough {
            break;
        }
        n += count(ns, d, enough - n)?;
    }
    Ok(n)
}

/// One page; true when the move is written out (and its row gone). `at`: where the page before ended, empty at first
/// and after a restart.
fn page(ns: &mut Ns<'_, '_>, id: u64, mv: &DirMove, limit: usize, author: &Author, boot: u64, at: &mut Vec<Vec<u8>>) -> Result<bool> {
    // Somebody else may have finished it since it was read; what was made there meanwhile did not move.
    if ns.t.get::<DirMove>(Tree::Move, id)?.is_none() {
        return Ok(true);
    }
    let row = Sealed { versions: Vec::new(), files: Vec::new(), at: author.now_ms, boot, recovered: false };
    let mut w = Walk { id, left: limit, author, row, at };
    let done = w.dir(ns, 0, (mv.dir, &mv.to), (mv.old, &mv.from), mv.under)?;
    let row = w.row;
    if done {
        ns.t.del(Tree::Move, id)?;
    }
    if !row.versions.is_empty() {
        let n = ns.next_id();
        ns.t.put(Tree::Outbox, n, &row)?;
    }
    Ok(done)
}

/// A page being written.
struct Walk<'a> {
    id: u64,
    left: usize,
    author: &'a Author,
    row: Sealed,
    /// Key of the slot that is next (or is being gone through), for each level of the tree.
    at: &'a mut Vec<Vec<u8>>,
}

impl Walk<'_> {
    /// Goes through one directory; false if the page is full before its end.
    fn dir(
        &mut self,
        ns: &mut Ns<'_, '_>,
        level: usize,
        (dir, path): (u64, &RelPath),
        (old, old_path): (u64, &RelPath),
        under: u64,
    ) -> Result<bool> {
        let id = self.id;
        let resumed = self.at.get(level).filter(|k| k.starts_with(&dir.to_be_bytes())).cloned();
        let mut from = resumed.unwrap_or_else(|| slot_after(dir, 0));
        loop {
            let some = slots(ns, dir, &from, SCAN)?;
            let more = some.len() == SCAN;
            for (key, slot) in some {
                from.clone_from(&key);
                from.push(0);
                let Slot::Register(r) = slot else { continue };
                let name = slot_name(&key);
                let below = if r.epoch >= id {
                    // Gone through before, a directory perhaps not to its end.
                    let o = if lives(ns, &r)? { child_dir(ns, old, name)? } else { 0 };
                    if o == 0 { None } else { Some((r.dir, o, child_dir(ns, under, name)?)) }
                } else if self.left == 0 {
                    self.at.resize(level + 1, Vec::new());
                    self.at[level] = key;
                    return Ok(false);
                } else {
                    self.left -= 1;
                    entry(ns, (dir, path), (old, old_path), under, name, *r, id, self.author, &mut self.row)?
                };
                if let Some((d, o, u)) = below {
                    if !self.dir(ns, level + 1, (d, &path.join(name)), (o, &old_path.join(name)), u)? {
                        self.at[level] = key;
                        return Ok(false);
                    }
                    self.at.truncate(level + 1);
                }
            }
            if !more {
                break;
            }
        }
        self.beneath(ns, dir, under)
    }

    /// Registers that only the new path had (all gone): their tombstones count there from now on.
    fn beneath(&self, ns: &mut Ns<'_, '_>, dir: u64, under: u64) -> Result<bool> {
        if under == 0 {
            return Ok(true);
        }
        for (key, slot) in slots(ns, under, &slot_after(under, 0), usize::MAX)? {
            let name = slot_name(&key);
            let went = matches!(ns.slot(dir, name)?, Some(Slot::Register(r)) if r.epoch >= self.id);
            if let Slot::Register(u) = slot
                && !went
            {
                // A local-only file or a sibling of that name stays; `register` makes the room.
                let shown = ns.register(dir, name)?.ino;
                relink(ns, u.dir, dir, name)?;
                ns.put_slot(dir, name, &Slot::Register(Box::new(Register { epoch: self.id, ino: shown, ..*u })))?;
            }
            ns.del_slot(under, name)?;
        }
        ns.t.del(Tree::Inode, under)?;
        Ok(true)
    }
}

/// Whether there is a directory to go through: one that is shown, or has something to show and waits for a writer of
/// a file of its name.
fn lives(ns: &Ns<'_, '_>, r: &Register) -> Result<bool> {
    Ok(r.dir != 0 && (r.ino == r.dir || has_children(ns.t, r.dir)?))
}

/// A gone directory goes on under another one.
fn relink(ns: &mut Ns<'_, '_>, gone: u64, dir: u64, name: &str) -> Result<()> {
    if gone != 0
        && let Some(mut d) = ns.t.get::<Inode>(Tree::Inode, gone)?
    {
        d.links = vec![(dir, name.to_owned())];
        ns.put_inode(gone, &d)?;
    }
    Ok(())
}

fn child_dir(ns: &Ns<'_, '_>, dir: u64, name: &str) -> Result<u64> {
    Ok(match ns.slot(dir, name)? {
        Some(Slot::Register(r)) if dir != 0 => r.dir,
        _ => 0,
    })
}

/// One register. For a directory: its number, and those of the gone ones at the old path and beneath the new.
#[allow(clippy::too_many_arguments)]
fn entry(
    ns: &mut Ns<'_, '_>,
    (dir, path): (u64, &RelPath),
    (old, old_path): (u64, &RelPath),
    under: u64,
    name: &str,
    mut r: Register,
    id: u64,
    author: &Author,
    row: &mut Sealed,
) -> Result<Option<(u64, u64, u64)>> {
    let (from, to) = (old_path.join(name), path.join(name));
    let there = match ns.slot(under, name)? {
        Some(Slot::Register(u)) if under != 0 => u.entry.clone(),
        _ => Entry::default(),
    };
    let deeper = child_dir(ns, under, name)?;
    let implied = r.dir != 0 && has_children(ns.t, r.dir)?;
    let me = ns.ctx.me;
    let before = in_effect(&r.entry, me).into_owned();
    let braked = r.entry.heads.iter().any(Version::is_held_back);
    let mode = ns.ctx.mode;
    let mut made: Vec<Version> = Vec::new();
    let mut clocks = Vec::new();
    if let Some(v) = view(&before, implied, mode, me) {
        made = ops::move_entry(At { path: &from, entry: &before }, &v, At { path: &to, entry: &there }, author)?;
        if v.is_dir && r.ino == r.dir {
            keep_time(&mut made, &to, &ns.inode(r.dir)?);
        }
        // A directory without a version gets one, which no head stands for.
        let fresh = usize::from(v.is_dir && v.shown.is_none());
        let there = made.iter().filter(|m| m.path == to && !m.is_tombstone()).skip(fresh);
        clocks = v.visible().map(|h| h.vclock.clone()).zip(there.map(|m| m.vclock.clone())).collect();
    }
    if made.is_empty() {
        // Seen by nobody, and moved all the same.
        made = ops::move_bundles(At { path: &from, entry: &r.entry }, At { path: &to, entry: &there }, author)?;
    }
    let mut left = Register { epoch: id, entry: std::mem::replace(&mut r.entry, there), ..Register::default() };
    r.epoch = id;
    for v in &made {
        if v.path == to {
            ns.merge_into(&mut r, v)?;
        } else {
            ns.merge_into(&mut left, v)?;
        }
    }
    // What shows a head shows the same head under its new clock.
    let renamed = |c: &crate::model::VClock| clocks.iter().find(|(was, _)| was == c).map(|(_, now)| now.clone());
    if r.ino != 0 {
        let mut i = ns.inode(r.ino)?;
        // A hard link's clock may be that of another name; it is known by what it holds.
        if i.links.len() == 1
            && let Some(now) = renamed(&i.shows)
        {
            i.shows = now;
            ns.put_inode(r.ino, &i)?;
        }
        files(ns, r.ino, &made, row)?;
    }
    for s in &mut r.sibs {
        if let Some(now) = renamed(&s.clock) {
            let mut i = ns.inode(s.ino)?;
            (s.clock, i.shows) = (now.clone(), now);
            ns.put_inode(s.ino, &i)?;
        }
        files(ns, s.ino, &made, row)?;
    }
    let mut below = None;
    if r.dir != 0 && (implied || r.ino == r.dir) {
        left.dir = ns.gone_dir(old, name)?;
        below = Some((r.dir, left.dir, deeper));
    } else {
        // A directory that is gone stays at the old path with its tombstones; that of the new path counts here.
        left.dir = r.dir;
        relink(ns, left.dir, old, name)?;
        r.dir = deeper;
        relink(ns, deeper, dir, name)?;
    }
    if braked {
        // What this device removed under the brake stays behind: the others see it there.
        ns.note_braked(old, name, &left.entry)?;
        ns.note_braked(dir, name, &r.entry)?;
    }
    if !left.entry.is_empty() || left.dir != 0 {
        ns.put_slot(old, name, &Slot::Register(Box::new(left)))?;
    }
    let conflict = made.len() > 2;
    if r.entry.is_empty() && r.ino == 0 && r.dir == 0 {
        ns.del_slot(dir, name)?;
    } else {
        ns.put_slot(dir, name, &Slot::Register(Box::new(r)))?;
    }
    if under != 0 && (below.is_none() || deeper == 0) {
        // A directory's stays until it has been gone through.
        ns.del_slot(under, name)?;
    }
    row.versions.extend(made);
    if conflict {
        // The heads are versions that replaced nothing now: an emptied file hides beside a full one.
        ns.reconcile_one(dir, name)?;
    }
    Ok(below)
}

/// The version of a moved directory tells the time of its listing, which had no version.
pub fn keep_time(made: &mut [Version], to: &RelPath, dir: &Inode) {
    for v in made.iter_mut().filter(|v| v.is_dir() && v.path == *to) {
        v.mtime = dir.mtime.pair();
    }
}

/// Notes where the bytes of moved, uncut versions come from.
pub(super) fn files(ns: &Ns<'_, '_>, ino: u64, made: &[Version], row: &mut Sealed) -> Result<()> {
    let uncut: Vec<Hash> = made.iter().filter(|v| v.is_uncut()).filter_map(|v| v.file().map(|c| c.root)).collect();
    if uncut.is_empty() {
        return Ok(());
    }
    if let Some((token, wgen)) = ns.t.get::<Local>(Tree::Local, ino)?.and_then(|l| l.token)
        && uncut.contains(&token)
        && !row.files.iter().any(|f| f.0 == token)
    {
        row.files.push((token, ino, wgen));
    }
    Ok(())
}
