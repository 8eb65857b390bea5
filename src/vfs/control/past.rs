//! The tree of names as it was: which version of which path counted at a moment, and what a listing showed then.
//!
//! A moment is one of the authors' clocks (`Version::written_at`): what a machine did shortly before and others had not seen
//! yet counts. What was shown follows from the heads of that moment by the rules of the present (`model::view`), so a
//! conflict of then has its siblings.
//!
//! Must: nothing is written, nothing is fetched. Cost: a listing reads the names that were ever in that directory, and the
//! history of those that changed since.

use super::super::Vfs;
use crate::error::Result;
use crate::model::brake::in_effect;
use crate::model::entry::Entry;
use crate::model::sibling::sibling_names;
use crate::model::view::{View, view};
use crate::model::{RelPath, Version};
use crate::state::rows::{Register, Slot, slot_after, slot_end, slot_key, slot_name};
use crate::state::tree::{dir_of, past_of};
use crate::state::{Read, Scan, Tree, prefix_end};
use std::collections::BTreeMap;

/// A name as it was.
pub(super) struct Was {
    pub(super) name: String,
    /// None: a directory that was there through what lay in it.
    pub(super) version: Option<Version>,
    pub(super) is_dir: bool,
    /// With the type bits.
    pub(super) mode: u32,
    pub(super) mtime: (i64, u32),
}

impl Was {
    fn of(name: &str, v: &View<'_>) -> Was {
        Was { name: name.to_owned(), version: v.shown.cloned(), is_dir: v.is_dir, mode: v.mode, mtime: v.mtime }
    }

    fn sibling(name: String, head: &Version) -> Was {
        let mode = head.kind.type_bits() | head.mode & 0o7777;
        Was { name, version: Some(head.clone()), is_dir: false, mode, mtime: head.mtime }
    }
}

/// Every name that was ever in a directory, with its register if it has one.
pub(super) type Ever = BTreeMap<String, Option<Box<Register>>>;

/// Reads them.
pub(super) fn ever_in(r: &Read<'_>, dir: &RelPath) -> Result<Ever> {
    let mut out = Ever::new();
    if let Some(number) = dir_of(r, dir)? {
        let (from, to) = (slot_after(number, 0), slot_end(number));
        r.scan(Tree::Entry, Scan::From(&from, &to), usize::MAX >> 1, |k, s: Slot| {
            if let Slot::Register(reg) = s {
                out.insert(slot_name(k).to_owned(), Some(reg));
            }
            Ok(())
        })?;
    }
    // What has no register any more has a history at most. From name to name, whatever lies below each.
    let prefix = if dir.is_root() { Vec::new() } else { format!("{dir}/").into_bytes() };
    let end = prefix_end(&prefix);
    let mut from = prefix.clone();
    loop {
        let mut found: Option<Vec<u8>> = None;
        r.scan(Tree::History, Scan::From(&from, &end), 1, |k, _: Version| {
            found = Some(k.to_vec());
            Ok(())
        })?;
        let Some(key) = found else { return Ok(out) };
        let rest = &key[prefix.len()..];
        let len = rest.iter().position(|b| *b == b'/' || *b == 0).unwrap_or(rest.len());
        if let Ok(name) = std::str::from_utf8(&rest[..len])
            && !name.is_empty()
        {
            out.entry(name.to_owned()).or_default();
        }
        // Past this name's own versions, or past all that lies below it.
        let after = rest.get(len).copied().unwrap_or(0) + 1;
        from = [&key[..prefix.len() + len], &[after]].concat();
    }
}

/// Whether a path ever had a version, or anything below it had.
pub(super) fn was_ever(r: &Read<'_>, path: &RelPath) -> Result<bool> {
    let Some(parent) = path.parent() else { return Ok(true) };
    if let Some(dir) = dir_of(r, &parent)?
        && let Some(Slot::Register(_)) = r.get::<Slot>(Tree::Entry, slot_key(dir, path.file_name()))?
    {
        return Ok(true);
    }
    Ok(!past_of(r, path)?.is_empty() || below(r, path)?)
}

/// Whether anything below a path has a history.
fn below(r: &Read<'_>, path: &RelPath) -> Result<bool> {
    let prefix = format!("{path}/").into_bytes();
    let mut any = false;
    r.scan(Tree::History, Scan::From(&prefix, &prefix_end(&prefix)), 1, |_, _: Version| {
        any = true;
        Ok(())
    })?;
    Ok(any)
}

impl Vfs {
    /// What a directory showed at a moment, in order of names.
    pub(super) fn list_at(&self, r: &Read<'_>, dir: &RelPath, at: i64) -> Result<Vec<Was>> {
        let me = self.device().0;
        let ever = ever_in(r, dir)?;
        let (mut out, mut conflicts) = (Vec::new(), Vec::new());
        for (name, reg) in &ever {
            let path = dir.join(name);
            let entry = self.entry_at(r, reg.as_deref(), &path, at, &me)?;
            let implied = self.implied_at(r, reg.as_deref(), &path, at, &entry)?;
            if let Some(v) = view(&entry, implied, self.options.conflict_mode, &me) {
                out.push(Was::of(name, &v));
                if v.is_conflict() {
                    conflicts.push((name.clone(), entry));
                }
            }
        }
        if self.siblings_shown() {
            let taken: std::collections::BTreeSet<String> = out.iter().map(|w| w.name.clone()).collect();
            for (name, entry) in conflicts {
                let implied = out.iter().any(|w| w.name == name && w.is_dir);
                let Some(v) = view(&entry, implied, self.options.conflict_mode, &me) else { continue };
                let names = sibling_names(&name, &v, &|n| taken.contains(n));
                out.extend(names.into_iter().zip(&v.siblings).map(|(n, s)| Was::sibling(n, s.head)));
            }
            out.sort_by(|a, b| a.name.cmp(&b.name));
        }
        Ok(out)
    }

    /// One name of that listing.
    pub(super) fn name_at(&self, r: &Read<'_>, dir: &RelPath, name: &str, at: i64) -> Result<Option<Was>> {
        let me = self.device().0;
        let path = dir.join(name);
        let reg = match dir_of(r, dir)? {
            Some(number) => match r.get::<Slot>(Tree::Entry, slot_key(number, name))? {
                Some(Slot::Register(reg)) => Some(reg),
                _ => None,
            },
            None => None,
        };
        let entry = self.entry_at(r, reg.as_deref(), &path, at, &me)?;
        let implied = self.implied_at(r, reg.as_deref(), &path, at, &entry)?;
        if let Some(v) = view(&entry, implied, self.options.conflict_mode, &me) {
            return Ok(Some(Was::of(name, &v)));
        }
        if !name.contains(".conflict-") {
            return Ok(None);
        }
        Ok(self.list_at(r, dir, at)?.into_iter().find(|w| w.name == name))
    }

    /// The heads of a path at a moment, as this device sees them.
    fn entry_at(&self, r: &Read<'_>, reg: Option<&Register>, path: &RelPath, at: i64, me: &str) -> Result<Entry> {
        let heads = reg.map_or(&[][..], |reg| &reg.entry.heads[..]);
        let then = |v: &Version| v.written_at <= at;
        // Heads have replaced all that is in history.
        let entry = if !heads.is_empty() && heads.iter().all(then) {
            Entry { heads: heads.to_vec() }
        } else {
            Entry::of(heads.iter().cloned().chain(past_of(r, path)?).filter(then))
        };
        Ok(in_effect(&entry, me).into_owned())
    }

    /// Whether a path was a directory through what lay below it.
    fn implied_at(&self, r: &Read<'_>, reg: Option<&Register>, path: &RelPath, at: i64, entry: &Entry) -> Result<bool> {
        if entry.live().any(Version::is_dir) {
            return Ok(true);
        }
        Ok((reg.is_some_and(|reg| reg.dir != 0) || below(r, path)?) && self.any_at(r, path, at)?)
    }

    /// Whether anything below a directory was there.
    fn any_at(&self, r: &Read<'_>, dir: &RelPath, at: i64) -> Result<bool> {
        let me = self.device().0;
        let ever = ever_in(r, dir)?;
        for (name, reg) in &ever {
            if self.entry_at(r, reg.as_deref(), &dir.join(name), at, &me)?.is_live() {
                return Ok(true);
            }
        }
        for (name, reg) in &ever {
            let path = dir.join(name);
            if (reg.as_ref().is_some_and(|reg| reg.dir != 0) || below(r, &path)?) && self.any_at(r, &path, at)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
