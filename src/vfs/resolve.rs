//! Versions written by choice, not by a program on the mount: the end of a conflict, an old version restored.
//!
//! Must: bytes that are only here follow the version that holds them; a version that would take the last trace of
//! unpublished bytes is refused ([`Vfs::unpublished`] says which ones to wait for).
//! Not here: which head is chosen (`model::resolve`), finding versions in history (`daemon::core::history`).

use super::{Touches, Vfs, not_found};
use crate::error::{Error, Kind, Result};
use crate::model::entry::Entry;
use crate::model::ops::{self, Accepted, Attrs};
use crate::model::resolve::{Keep, resolve};
use crate::model::sibling::sibling_names;
use crate::model::{RelPath, Version};
use crate::state::rows::*;
use crate::state::tree::{dir_of, past_of, path_of_dir, register_at};
use crate::state::{Ns, PARTED, Read, Scan, Tree};
use std::collections::HashMap;
use std::sync::atomic::Ordering;

/// Meta key: siblings are shown although the mode is `defer`.
const SHOW: &str = "show_siblings";

/// A path in conflict.
pub struct InConflict {
    /// Path of the entry.
    pub path: RelPath,
    /// Visible heads with the paths they have or would have in the mount, the shown one first.
    pub heads: Vec<(RelPath, Version)>,
}

impl Vfs {
    /// The register that a path or the name of one of its siblings stands for.
    pub fn entry_of(&self, path: &RelPath) -> Result<RelPath> {
        let Some(parent) = path.parent() else { return Ok(path.clone()) };
        self.replica.read(|r| {
            let slot = match dir_of(r, &parent)? {
                Some(dir) => r.get::<Slot>(Tree::Entry, slot_key(dir, path.file_name()))?,
                None => None,
            };
            Ok(match slot {
                Some(Slot::Sibling { of, .. }) => parent.join(&of),
                _ => path.clone(),
            })
        })
    }

    /// Every path in conflict, in order; read from an index of them.
    pub fn conflicts(&self) -> Result<Vec<InConflict>> {
        let mut out = self.replica.read(|r| {
            let mut out = Vec::new();
            for (dir, name) in in_conflict(r)? {
                let Some(Slot::Register(reg)) = r.get::<Slot>(Tree::Entry, slot_key(dir, &name))? else { continue };
                let at = path_of_dir(r, dir)?;
                let heads = self.with_view(r, &reg, |v, _| {
                    let names = self.names_of(r, dir, &name, &reg, v);
                    let shown = v.shown.map(|s| (at.join(&name), s.clone()));
                    let siblings = v.siblings.iter().zip(names).map(|(s, n)| (at.join(&n), s.head.clone()));
                    shown.into_iter().chain(siblings).collect::<Vec<_>>()
                })?;
                if let Some(heads) = heads {
                    out.push(InConflict { path: at.join(&name), heads });
                }
            }
            Ok(out)
        })?;
        out.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(out)
    }

    /// Every path that is shown although somebody moved away what it held, with the tombstone that tells where to; only
    /// where that place is there. In order; read from an index of them.
    pub fn parted(&self) -> Result<Vec<(RelPath, Version)>> {
        let mut out = self.replica.read(|r| {
            let mut out = Vec::new();
            for (dir, name) in indexed(r, Tree::Meta, PARTED)? {
                let Some(Slot::Register(reg)) = r.get::<Slot>(Tree::Entry, slot_key(dir, &name))? else { continue };
                let path = path_of_dir(r, dir)?.join(&name);
                for t in self.entry(&reg).tombstones() {
                    let Some(to) = &t.moved_to else { continue };
                    if register_at(r, to)?.is_some_and(|there| there.ino != 0) {
                        out.push((path.clone(), t.clone()));
                    }
                }
            }
            Ok(out)
        })?;
        out.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(out)
    }

    /// How many paths are in conflict.
    pub fn conflict_count(&self) -> Result<u64> {
        self.replica.read(|r| r.count(Tree::Conflict))
    }

    /// Names of the siblings of a view: those they have, else those they would get.
    fn names_of(&self, r: &Read<'_>, dir: u64, name: &str, reg: &Register, v: &crate::model::View<'_>) -> Vec<String> {
        let own = |n: &str| reg.sibs.iter().any(|s| s.name == n);
        let slot = |n: &str| r.get::<Slot>(Tree::Entry, slot_key(dir, n)).is_ok_and(|s| s.is_some_and(|s| s.ino() != 0));
        let would = sibling_names(name, v, &|n| n == name || !own(n) && slot(n));
        let has = |h: &Version| reg.sib_of(&h.vclock).map(|s| s.name.clone());
        v.siblings.iter().zip(would).map(|(s, n)| has(s.head).unwrap_or(n)).collect()
    }

    /// Brings every path in conflict to what the mode of this start, or a change of what is shown, says.
    pub fn refresh_conflicts(&self) -> Result<()> {
        let show = self.replica.read(|r| r.get::<bool>(Tree::Meta, SHOW))?.unwrap_or(false);
        self.show_siblings(show);
        let all = self.replica.read(in_conflict)?;
        if all.is_empty() {
            return Ok(());
        }
        self.change(&[], |ns| all.iter().try_for_each(|(dir, name)| ns.reconcile(*dir, name)))
    }

    /// From now on shows or hides siblings in `defer` mode, over restarts too.
    pub fn set_show_siblings(&self, on: bool) -> Result<()> {
        self.replica.db().write(|t| t.put(Tree::Meta, SHOW, &on))?;
        self.refresh_conflicts()
    }

    /// Whether siblings are shown in the mount.
    pub fn siblings_shown(&self) -> bool {
        self.options.conflict_mode != crate::model::ConflictMode::Defer || self.show_siblings.load(Ordering::Relaxed)
    }

    /// Whether a path has visible heads whose bytes are not in the store yet.
    pub fn unpublished(&self, path: &RelPath) -> Result<bool> {
        let reg = self.replica.read(|r| register_at(r, path))?;
        Ok(reg.is_some_and(|r| r.entry.live().any(Version::is_uncut)))
    }

    /// Ends the conflict of `path`. Returns the paths of the files that exist now, the entry's own first.
    ///
    /// Errors: `NotFound` if there is nothing or no conflict, `Busy` while one of the versions is open for writing.
    pub fn resolve_conflict(&self, path: &RelPath, keep: &Keep) -> Result<Vec<RelPath>> {
        let parent = path.parent().ok_or_else(|| Error::new(Kind::NotFound, "the root is not in conflict"))?;
        let name = path.file_name();
        let paths = self.change_settled(&[], Touches::Anything, |ns| {
            let none = || Error::new(Kind::NotFound, format!("{path} is not in conflict")).hint("`tcfs conflicts` lists what is");
            let dir = dir_of(ns.t, &parent)?.ok_or_else(none)?;
            let mut reg = match ns.slot(dir, name)? {
                Some(Slot::Register(r)) => *r,
                _ => return Err(none()),
            };
            let inos: Vec<u64> = std::iter::once(reg.ino).chain(reg.sibs.iter().map(|s| s.ino)).collect();
            if inos.iter().any(|i| (ns.ctx.busy)(*i)) {
                return Err(Error::new(Kind::Busy, format!("{path} is open for writing")).hint("close it, then resolve"));
            }
            let author = self.author();
            let made = self.with_view(ns.t, &reg, |v, e| {
                if !v.is_conflict() {
                    return Err(none());
                }
                let names = self.names_of(ns.t, dir, name, &reg, v);
                let mut there = HashMap::new();
                for path in names.iter().map(|n| parent.join(n)) {
                    let reg = register_at(ns.t, &path)?;
                    there.extend(reg.map(|r| (path, r.entry)));
                }
                let lookup = |p: &RelPath| there.get(p).cloned();
                let made = resolve(ops::At { path, entry: e }, v, keep, &names, &lookup, &author)?;
                let heads: Vec<Version> = v.siblings.iter().map(|s| s.head.clone()).collect();
                let all: Vec<Version> = v.visible().cloned().collect();
                let shown = v.shown.map(|s| s.vclock.clone());
                Ok((made, names, heads, all, shown))
            })?;
            let (made, names, heads, all, shown) = made.ok_or_else(none)??;
            let mut row = Sealed { ..self.sealed_row() };
            let mut paths = vec![path.clone()];
            // What becomes a file of its own takes its inode, and so its bytes, along.
            for (n, head) in names.iter().zip(&heads).filter(|_| *keep == Keep::Both) {
                let to = parent.join(n);
                let Some(v) = made.iter().find(|v| v.path == to) else { continue };
                match reg.sibs.iter().position(|s| s.clock == head.vclock) {
                    Some(at) => {
                        let s = reg.sibs.remove(at);
                        self.follow(ns, s.ino, v, &mut row)?;
                        let mut own = Register { ino: s.ino, ..Register::default() };
                        ns.merge_into(&mut own, v)?;
                        ns.put_slot(dir, &s.name, &Slot::Register(Box::new(own)))?;
                    }
                    None if v.is_uncut() => {
                        return Err(
                            Error::new(Kind::Busy, format!("{to} is not in the store yet")).hint("try again when it is: `tcfs wait`")
                        );
                    }
                    None => {
                        ns.merge(v)?;
                        ns.reconcile(dir, n)?;
                    }
                }
                paths.push(to);
            }
            for v in made.iter().filter(|v| v.path == *path) {
                // The inode of the head whose content goes on shows the new version.
                if !v.is_tombstone()
                    && let Some(from) = all.iter().find(|h| h.same_content(v))
                {
                    let sib = reg.sibs.iter_mut().find(|s| s.clock == from.vclock);
                    let ino = match sib {
                        Some(s) => {
                            s.clock = v.vclock.clone();
                            s.ino
                        }
                        None if shown.as_ref() == Some(&from.vclock) => reg.ino,
                        // A sibling that no inode shows: the file at the path has other bytes.
                        None => 0,
                    };
                    if ino != 0 && ino != reg.dir {
                        self.follow(ns, ino, v, &mut row)?;
                    }
                }
                ns.merge_into(&mut reg, v)?;
            }
            ns.put_slot(dir, name, &Slot::Register(Box::new(reg)))?;
            ns.reconcile(dir, name)?;
            row.versions = made;
            self.enqueue(ns, row)?;
            Ok(paths)
        })?;
        self.sealed.notify_one();
        Ok(paths)
    }

    /// An inode shows `v` from now on; where its bytes come from if they are not cut.
    fn follow(&self, ns: &mut Ns<'_, '_>, ino: u64, v: &Version, row: &mut Sealed) -> Result<()> {
        let mut i = ns.inode(ino)?;
        i.shows = v.vclock.clone();
        ns.put_inode(ino, &i)?;
        row.files.extend(self.files_of(ns, std::slice::from_ref(v), ino)?);
        Ok(())
    }

    /// Makes the content of `from`, a version of any path, the present one of `path`. What is shown there is replaced,
    /// siblings stay. Nothing is fetched. False if the path has that content already.
    ///
    /// Errors: `IsDir` if a directory is there and `from` is none, `Busy` if the bytes of `from` are not published.
    pub fn restore(&self, path: &RelPath, from: &Version) -> Result<bool> {
        let parent = path.parent().ok_or_else(|| Error::new(Kind::Invalid, "the root cannot be restored"))?;
        if from.is_uncut() {
            return Err(Error::new(Kind::Busy, format!("the bytes of this version of {} are not in the store yet", from.path))
                .hint("try again when they are: `tcfs wait`"));
        }
        let name = path.file_name();
        let ignored = self.ignored_path(path, from.is_dir())?.is_some();
        let done = self.change_settled(&[], Touches::Anything, |ns| {
            let dir = ns.ensure_dir(&parent)?;
            if ignored || ns.inode(dir)?.local_only || self.rules.is_local(|| Ok(parent.clone()), name, from.is_dir())? {
                return Err(Error::new(Kind::NotPermitted, format!("{path} never leaves this machine and has no history")));
            }
            if let Some(Slot::Sibling { of, .. }) = ns.slot(dir, name)? {
                return Err(Error::new(Kind::Exists, format!("{path} is a version of {of:?} that is in conflict"))
                    .hint("resolve the conflict first: `tcfs conflicts` lists it"));
            }
            let mut reg = ns.register(dir, name)?;
            let plan = self.with_view(ns.t, &reg, |v, _| {
                if v.is_dir != from.is_dir() && (v.is_dir || v.shown.is_some()) {
                    let what = if v.is_dir { "a directory is there now" } else { "a file is there now" };
                    return Err(Error::new(Kind::IsDir, format!("restoring {path}: {what}")).hint("--to PATH restores it elsewhere"));
                }
                let same = v.shown.is_some_and(|s| s.same_content(from) && s.mode == from.mode);
                Ok((!same && !v.is_dir).then(|| Accepted::to_write(v, ops::Target::Path)))
            })?;
            let accepted = match plan {
                None => Accepted::of_entry(&reg.entry),
                Some(p) => match p? {
                    Some(a) => a,
                    None => return Ok(false),
                },
            };
            let v = ops::write(path, &reg.entry, &accepted, from.kind.content().clone(), Attrs::of(from), &self.author())?;
            ns.merge_into(&mut reg, &v)?;
            ns.put_slot(dir, name, &Slot::Register(Box::new(reg)))?;
            ns.reconcile(dir, name)?;
            self.enqueue(ns, Sealed { versions: vec![v], ..self.sealed_row() })?;
            Ok(true)
        })?;
        self.sealed.notify_one();
        Ok(done)
    }

    /// The heads of a path, and what this device knows of versions before, oldest first. Tombstones included.
    pub fn versions(&self, path: &RelPath) -> Result<(Entry, Vec<Version>)> {
        self.replica.read(|r| {
            let entry = register_at(r, path)?.map(|r| r.entry).unwrap_or_default();
            Ok((entry, past_of(r, path)?))
        })
    }

    /// Paths below a directory that ever had a version, present or not.
    pub fn ever_below(&self, dir: &RelPath) -> Result<Vec<RelPath>> {
        let mut out = std::collections::BTreeSet::new();
        self.replica.read(|r| {
            let prefix = if dir.is_root() { Vec::new() } else { format!("{dir}/").into_bytes() };
            let end = crate::state::prefix_end(&prefix);
            r.scan(Tree::History, Scan::From(&prefix, &end), usize::MAX >> 1, |_, v: Version| {
                out.insert(v.path);
                Ok(())
            })?;
            let mut todo: Vec<(u64, RelPath)> = dir_of(r, dir)?.map(|d| (d, dir.clone())).into_iter().collect();
            while let Some((number, path)) = todo.pop() {
                let (from, to) = (slot_after(number, 0), slot_end(number));
                r.scan(Tree::Entry, Scan::From(&from, &to), usize::MAX >> 1, |k, s: Slot| {
                    if let Slot::Register(reg) = s {
                        let path = path.join(slot_name(k));
                        if reg.dir != 0 {
                            todo.push((reg.dir, path.clone()));
                        }
                        if !reg.entry.is_empty() {
                            out.insert(path);
                        }
                    }
                    Ok(())
                })?;
            }
            Ok(())
        })?;
        Ok(out.into_iter().collect())
    }

    /// The version that a path shows now; none if it shows nothing or a directory without a version.
    pub fn shown(&self, path: &RelPath) -> Result<Option<Version>> {
        self.replica.read(|r| match register_at(r, path)? {
            Some(reg) => Ok(self.with_view(r, &reg, |v, _| v.shown.cloned())?.flatten()),
            None => Ok(None),
        })
    }

    /// For messages: the entry must exist.
    pub fn must_exist(&self, path: &RelPath) -> Result<()> {
        if self.exists(path) { Ok(()) } else { Err(not_found(path.as_str())) }
    }
}

fn in_conflict(r: &Read<'_>) -> Result<Vec<(u64, String)>> {
    indexed(r, Tree::Conflict, &[])
}

/// The slots that an index names: its keys after `prefix`.
pub(super) fn indexed(r: &Read<'_>, tree: Tree, prefix: &[u8]) -> Result<Vec<(u64, String)>> {
    let mut out = Vec::new();
    let end = crate::state::prefix_end(prefix);
    r.scan(tree, Scan::From(prefix, &end), usize::MAX >> 1, |k, _: ()| {
        let k = k.get(prefix.len()..).unwrap_or_default();
        if let Some(dir) = k.get(..8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes) {
            out.push((dir, slot_name(k).to_owned()));
        }
        Ok(())
    })?;
    Ok(out)
}
