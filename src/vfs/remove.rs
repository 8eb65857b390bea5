//! Removing names: `unlink` and `rmdir`.
//!
//! Must: a removal is a version; a directory that would go with its last child is kept by one in the same batch.
//! Not here: freeing the bytes (`orphans`).

use super::names::{ALIAS, Alias, parse_name, spelled};
use super::{Touches, Vfs, is_control, not_found};
use crate::error::{Error, Kind, Result};
use crate::model::ops::{self, Author, Target};
use crate::model::view::{ConflictMode, View};
use crate::model::{Entry, RelPath, Version, brake};
use crate::state::rows::*;
use crate::state::tree::has_children;
use crate::state::{Change, Ns};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Why a name is removed: the brake counts, and may hold back, what is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A program deletes.
    Deleted,
    /// Something else takes the name.
    Replaced,
}

impl Vfs {
    /// Removes a name of anything but a directory.
    pub fn unlink(&self, dir: u64, name: &[u8]) -> Result<()> {
        let dir = self.live(dir);
        if is_control(dir) {
            return self.remove_found(dir, &parse_name(name)?);
        }
        let (given, name) = (spelled(name), self.unalias(dir, &parse_name(name)?)?);
        let until = Instant::now() + ALIAS;
        let promoted = self.change_settled(&[(dir, given)], Touches::Only(&[dir]), |ns| {
            self.dir_inode(ns.t, dir)?;
            self.unlink_in(ns, dir, &name, Cause::Deleted)
        })?;
        self.aliases.lock().extend(promoted.into_iter().map(|(name, ino)| Alias { dir, name, ino, until }));
        self.sealed.notify_one();
        Ok(())
    }

    /// Returns sibling names that are no longer listed because their head took the name.
    pub(crate) fn unlink_in(&self, ns: &mut Ns<'_, '_>, dir: u64, name: &str, cause: Cause) -> Result<Vec<(String, u64)>> {
        let slot = ns.slot(dir, name)?.filter(|s| s.ino() != 0).ok_or_else(|| not_found(name))?;
        let ino = slot.ino();
        let inode = ns.inode(ino)?;
        if inode.kind == FileType::Dir {
            return Err(Error::new(Kind::IsDir, format!("{name:?} is a directory")));
        }
        if let Slot::LocalOnly { .. } = slot {
            ns.del_slot(dir, name)?;
            ns.drop_link(ino, dir, name)?;
            ns.changes.push(Change::Name { dir, name: name.to_owned(), was: ino });
            ns.touch_dir(dir, 0)?;
            // A directory that only this file kept was removed elsewhere.
            ns.reconcile_up(dir)?;
            return Ok(Vec::new());
        }
        let at = self.at(ns.t, dir, name)?;
        let mut out = Vec::new();
        let mut came_or_went = true;
        let mut promoted = Vec::new();
        if let Some(at) = at {
            let mut reg = at.reg;
            let hidden = self.options.conflict_mode == ConflictMode::Defer && !self.show_siblings.load(Ordering::Relaxed);
            let author = self.author();
            let removal = |v: &View<'_>, t| self.removal(&at.path, &reg.entry, v, t, cause, &author);
            let tomb = match at.target {
                Target::Path if !hidden => self.with_seen(ns.t, &reg, |v, _| {
                    let v = v.filter(|v| v.shown.is_some())?;
                    Some(removal(v, Target::Path))
                })?,
                Target::Path => self
                    .with_view(ns.t, &reg, |v, e| {
                        let shown = v.shown?;
                        Some(ops::remove_all(&at.path, e, v, &author).map(|t| (t, Some(shown.clone()))))
                    })?
                    .flatten(),
                t => self.with_view(ns.t, &reg, |v, _| removal(v, t))?,
            };
            if at.target == Target::Path {
                promoted = reg.sibs.iter().map(|s| (s.name.clone(), s.ino)).collect();
                reg.ino = 0;
            } else {
                reg.sibs.retain(|s| s.ino != ino);
            }
            if let Some((tomb, was)) = tomb.transpose()? {
                self.count_removal(ns, cause, &tomb, was.as_ref())?;
                ns.merge_into(&mut reg, &tomb)?;
                out.push(tomb);
            }
            if name != at.name {
                ns.del_slot(dir, name)?;
            }
            let empty = reg.entry.is_empty() && reg.dir == 0 && reg.sibs.is_empty() && reg.ino == 0;
            if empty {
                ns.del_slot(dir, &at.name)?
            } else {
                ns.put_slot(dir, &at.name, &Slot::Register(Box::new(reg)))?
            }
            ns.drop_link(ino, dir, name)?;
            ns.changes.push(Change::Name { dir, name: name.to_owned(), was: ino });
            ns.touch_dir(dir, 0)?;
            came_or_went = ns.reconcile_one(dir, &at.name)? || ns.slot(dir, name)?.is_none_or(|s| s.ino() == 0);
        } else {
            // A sibling whose head was resolved away while it was open for writing: only the name is left.
            if let Some((of, mut reg)) = self.owner(ns.t, dir, name)? {
                reg.sibs.retain(|s| s.ino != ino);
                ns.put_slot(dir, &of, &Slot::Register(Box::new(reg)))?;
            }
            ns.del_slot(dir, name)?;
            ns.drop_link(ino, dir, name)?;
            ns.changes.push(Change::Name { dir, name: name.to_owned(), was: ino });
        }
        self.keep_parent(ns, dir, &mut out)?;
        if came_or_went {
            ns.reconcile_up(dir)?;
        }
        if !out.is_empty() {
            self.enqueue(ns, Sealed { versions: out, ..self.sealed_row() })?;
        }
        // Only those that really vanished from the listing.
        let mut gone = Vec::new();
        for (n, i) in promoted {
            if ns.slot(dir, &n)?.is_none() {
                gone.push((n, i));
            }
        }
        Ok(gone)
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, dir: u64, name: &[u8]) -> Result<()> {
        let dir = self.live(dir);
        let (given, name) = (spelled(name), self.old_name(dir, name)?);
        self.change_settled(&[(dir, given)], Touches::Only(&[dir]), |ns| {
            self.dir_inode(ns.t, dir)?;
            self.rmdir_in(ns, dir, &name, Cause::Deleted)
        })?;
        self.sealed.notify_one();
        Ok(())
    }

    pub(crate) fn rmdir_in(&self, ns: &mut Ns<'_, '_>, dir: u64, name: &str, cause: Cause) -> Result<()> {
        let slot = ns.slot(dir, name)?.filter(|s| s.ino() != 0).ok_or_else(|| not_found(name))?;
        let ino = slot.ino();
        let mut inode = ns.inode(ino)?;
        if inode.kind != FileType::Dir {
            return Err(Error::new(Kind::NotDir, format!("{name:?} is not a directory")));
        }
        if has_children(ns.t, ino)? {
            return Err(Error::new(Kind::NotEmpty, format!("{name:?} is not empty")));
        }
        if inode.local_only {
            inode.dead = true;
            ns.put_inode(ino, &inode)?;
            self.clear_local(ns, dir, name, slot)?;
            ns.drop_link(ino, dir, name)?;
            ns.changes.push(Change::Name { dir, name: name.to_owned(), was: ino });
            ns.touch_dir(dir, -1)?;
            return ns.reconcile_up(dir);
        }
        let Slot::Register(mut reg) = slot else { return Err(not_found(name)) };
        self.still_a_dir(ns, &reg, name)?;
        let path = ns.path_of_dir(dir)?.join(name);
        let author = self.author();
        let tomb = self.with_view(ns.t, &reg, |v, e| self.removal(&path, e, v, Target::Path, cause, &author))?;
        let mut out = Vec::new();
        if let Some(tomb) = tomb {
            let (tomb, was) = tomb?;
            self.count_removal(ns, cause, &tomb, was.as_ref())?;
            ns.merge_into(&mut reg, &tomb)?;
            out.push(tomb);
        }
        ns.put_slot(dir, name, &Slot::Register(reg))?;
        let came_or_went = ns.reconcile_one(dir, name)?;
        self.keep_parent(ns, dir, &mut out)?;
        if came_or_went {
            ns.reconcile_up(dir)?;
        }
        if !out.is_empty() {
            self.enqueue(ns, Sealed { versions: out, ..self.sealed_row() })?;
        }
        Ok(())
    }

    /// The version that removes what `target` shows, and what that was. While the brake is on, it goes under it.
    fn removal(
        &self,
        path: &RelPath,
        entry: &Entry,
        view: &View<'_>,
        target: Target,
        cause: Cause,
        author: &Author,
    ) -> Result<(Version, Option<Version>)> {
        let held = match cause {
            Cause::Deleted if self.brake.is_on() => brake::remove(path, entry, view, target, author)?,
            _ => None,
        };
        let v = match held {
            Some(v) => v,
            None => ops::remove(path, entry, view, target, author)?,
        };
        Ok((v, ops::head(view, target).cloned()))
    }

    fn count_removal(&self, ns: &Ns<'_, '_>, cause: Cause, by: &Version, was: Option<&Version>) -> Result<()> {
        match was {
            _ if by.is_held_back() => self.brake.holds(),
            Some(was) if cause == Cause::Deleted => self.brake.note(ns.t, was, by)?,
            _ => {}
        }
        Ok(())
    }

    /// Whether the removal of a child leaves the directory without anything that makes it exist; then the version
    /// that keeps it. `Dir` versions go into the same batch as the removal. To be called before the removal is
    /// reconciled upwards, so that the directory does not go and come back.
    pub(crate) fn keep_parent(&self, ns: &mut Ns<'_, '_>, dir: u64, out: &mut Vec<Version>) -> Result<()> {
        if dir == ROOT || has_children(ns.t, dir)? {
            return Ok(());
        }
        let d = ns.inode(dir)?;
        let Some((up, name)) = d.links.first().cloned() else { return Ok(()) };
        if d.local_only {
            return Ok(());
        }
        let mut r = ns.register(up, &name)?;
        if self.entry(&r).live().any(Version::is_dir) {
            return Ok(());
        }
        let path = ns.path_of_dir(dir)?;
        let mut v = ops::keep_parent(&path, &r.entry, d.mtime.pair(), &self.author())?;
        v.mode = FileType::Dir.bits() | d.mode;
        ns.merge_into(&mut r, &v)?;
        ns.put_slot(up, &name, &Slot::Register(Box::new(r)))?;
        out.push(v);
        Ok(())
    }

    /// `Busy` for a directory that another machine removed and that is only still shown because a file beside it is open
    /// for writing: what is under the name then is not the directory.
    pub(crate) fn still_a_dir(&self, ns: &Ns<'_, '_>, reg: &Register, name: &str) -> Result<()> {
        if self.waits(reg) && self.with_view(ns.t, reg, |v, _| !v.is_dir)?.unwrap_or(true) {
            return Err(Error::new(Kind::Busy, format!("{name:?} was removed elsewhere, and a file beside it is being written")));
        }
        Ok(())
    }

    /// Takes a local-only inode out of its slot; tombstones under the name stay.
    pub(crate) fn clear_local(&self, ns: &mut Ns<'_, '_>, dir: u64, name: &str, slot: Slot) -> Result<()> {
        match slot {
            Slot::Register(mut r) => {
                r.ino = 0;
                ns.put_slot(dir, name, &Slot::Register(r))
            }
            _ => ns.del_slot(dir, name),
        }
    }
}
