//! What this device wrote to a path follows it when another device has moved the path away: in the tree here.
//!
//! Must: in the transaction that applies the move, except for files that are being written: their seal comes back here.
//! Must: the inode goes along, with the bytes that may lie nowhere else yet.
//! Not here: which versions that takes (`model::heal`).

use crate::error::{Error, Result};
use crate::model::brake::in_effect;
use crate::model::ops::Author;
use crate::model::{Entry, RelPath, Version, heal};
use crate::state::rows::{ROOT, Register, Sealed, Sib, Slot, slot_after, slot_end, slot_name};
use crate::state::tree::{dir_of, locate, register_at};
use crate::state::{Change, Ns, Read, Scan, Tree};
use std::cell::RefCell;

/// Name of the sibling as which an inode waits for its new name; no file can have it.
const ON_ITS_WAY: &str = "/moved";

/// Lets own work follow these tombstones, in order. Writes one outbox row if there was anything to do and brings the
/// names concerned up to date. True if there was.
pub fn follow_moves<'v>(
    ns: &mut Ns<'_, '_>,
    tombstones: impl IntoIterator<Item = &'v Version>,
    author: &Author,
    boot: u64,
) -> Result<bool> {
    let mut row = Sealed { versions: Vec::new(), files: Vec::new(), at: author.now_ms, boot, recovered: false };
    let mut touched = Vec::new();
    for t in tombstones {
        if register_at(ns.t, &t.path)?.is_some_and(|r| is_busy(ns, &r)) {
            continue;
        }
        let busy = ns.ctx.busy;
        let lookup = Lookup { t: ns.t, me: &author.device_id, busy, failed: RefCell::new(None) };
        let healed = heal::heal(t, &lookup, author)?;
        if let Some(e) = lookup.failed.into_inner() {
            return Err(e);
        }
        for pair in healed.chunks(2) {
            for v in pair {
                touched.push((ns.merge(v)?.0, v.path.file_name().to_owned()));
            }
            if let [moved, gone] = pair
                && let Some(ino) = carry(ns, moved, gone)?
            {
                super::moves::files(ns, ino, pair, &mut row)?;
            }
        }
        row.versions.extend(healed);
    }
    if row.versions.is_empty() {
        return Ok(false);
    }
    let seq = ns.next_id();
    ns.t.put(Tree::Outbox, seq, &row)?;
    touched.sort();
    touched.dedup();
    for (dir, name) in touched {
        ns.reconcile(dir, &name)?;
        ns.reconcile_up(dir)?;
    }
    Ok(true)
}

/// For a path that was just sealed: follows moves that arrived while it was being written, of the path itself or of a
/// directory above it.
pub fn after_seal(ns: &mut Ns<'_, '_>, path: &RelPath, author: &Author, boot: u64) -> Result<bool> {
    let mut moves = Vec::new();
    for (i, p) in std::iter::once(path.clone()).chain(path.ancestors()).enumerate() {
        let entry = register_at(ns.t, &p)?.unwrap_or_default().entry;
        // A directory's move has no base; a file's says nothing about what lies below it.
        moves.extend(entry.tombstones().filter(|t| t.moved_to.is_some() && (i == 0 || t.base.is_none())).cloned());
    }
    follow_moves(ns, &moves, author, boot)
}

/// Whether a file under this name, or a sibling of it, is being written.
fn is_busy(ns: &Ns<'_, '_>, r: &Register) -> bool {
    busy_register(r, ns.ctx.busy)
}

fn busy_register(r: &Register, busy: &dyn Fn(u64) -> bool) -> bool {
    r.ino != 0 && r.ino != r.dir && busy(r.ino) || r.sibs.iter().any(|s| busy(s.ino))
}

/// Takes the inode that shows the moved head from its old name to its new path; which one, if there is one.
fn carry(ns: &mut Ns<'_, '_>, moved: &Version, gone: &Version) -> Result<Option<u64>> {
    if moved.is_dir() {
        return Ok(None);
    }
    let (Some((from_dir, mut from)), Some((dir, mut to))) = (locate(ns.t, &gone.path)?, locate(ns.t, &moved.path)?) else {
        return Ok(None);
    };
    let from_name = gone.path.file_name();
    let shows_it = from.ino != 0 && from.ino != from.dir && ns.inode(from.ino)?.shows == gone.wrote;
    // Off the old name at once: while it had both, nobody could tell which of the two its clock is of.
    let (ino, old) = if shows_it {
        (std::mem::take(&mut from.ino), from_name.to_owned())
    } else if let Some(at) = from.sibs.iter().position(|s| s.clock == gone.wrote) {
        let s = from.sibs.remove(at);
        ns.del_slot(from_dir, &s.name)?;
        (s.ino, s.name)
    } else {
        return Ok(None);
    };
    ns.put_slot(from_dir, from_name, &Slot::Register(from))?;
    let mut i = ns.inode(ino)?;
    i.links.retain(|l| !(l.0 == from_dir && l.1 == old));
    i.shows = moved.vclock.clone();
    ns.put_inode(ino, &i)?;
    ns.changes.push(Change::Name { dir: from_dir, name: old, was: ino });
    ns.touch_dir(from_dir, 0)?;
    // As a sibling that shows the head already it is what reconciling finds for it. Where somebody is writing at the
    // target, it waits there under this name until that is sealed.
    to.sibs.push(Sib { name: ON_ITS_WAY.to_owned(), ino, clock: moved.vclock.clone() });
    ns.put_slot(dir, moved.path.file_name(), &Slot::Register(to))?;
    ns.add_link(ino, dir, ON_ITS_WAY)?;
    ns.reconcile(dir, moved.path.file_name())?;
    ns.changes.retain(|c| !matches!(c, Change::Name { name, .. } if name == ON_ITS_WAY));
    Ok(Some(ino))
}

/// The tree as heal reads it, inside the transaction.
struct Lookup<'a, 't> {
    t: &'a Read<'t>,
    me: &'a str,
    busy: &'a dyn Fn(u64) -> bool,
    failed: RefCell<Option<Error>>,
}

impl Lookup<'_, '_> {
    fn note<T: Default>(&self, r: Result<T>) -> T {
        r.unwrap_or_else(|e| {
            self.failed.borrow_mut().get_or_insert(e);
            T::default()
        })
    }

    /// Own live entries below a directory that nobody is writing: heal has no use for others.
    fn own_below(&self, dir: &RelPath) -> Result<Vec<RelPath>> {
        let mut out = Vec::new();
        let Some(number) = (if dir.is_root() { Some(ROOT) } else { dir_of(self.t, dir)? }) else { return Ok(out) };
        let mut todo = vec![(number, dir.clone())];
        while let Some((number, path)) = todo.pop() {
            let (mut from, end) = (slot_after(number, 0), slot_end(number));
            loop {
                let (mut rows, mut last) = (0, Vec::new());
                self.t.scan(Tree::Entry, Scan::From(&from, &end), 1024, |k, s: Slot| {
                    rows += 1;
                    last = k.to_vec();
                    if let Slot::Register(r) = s {
                        let path = path.join(slot_name(k));
                        if in_effect(&r.entry, self.me).live().any(|h| h.device_id == self.me) && !busy_register(&r, self.busy) {
                            out.push(path.clone());
                        }
                        if r.dir != 0 {
                            todo.push((r.dir, path));
                        }
                    }
                    Ok(())
                })?;
                if rows < 1024 {
                    break;
                }
                last.push(0);
                from = last;
            }
        }
        Ok(out)
    }
}

impl heal::Lookup for Lookup<'_, '_> {
    fn entry(&self, path: &RelPath) -> Option<Entry> {
        self.note(register_at(self.t, path)).map(|r| in_effect(&r.entry, self.me).into_owned())
    }

    fn below(&self, dir: &RelPath) -> Vec<RelPath> {
        self.note(self.own_below(dir))
    }
}
