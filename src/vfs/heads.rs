//! What a name stands for: its register, the heads that are seen of it, and which of them an operation replaces.
//!
//! Must: whoever has a file open for writing replaces only what it has seen, not what arrived meanwhile.
//! Not here: which heads are visible (`model::view`), what an operation writes (`model::ops`).

use super::Vfs;
use crate::error::Result;
use crate::model::brake::in_effect;
use crate::model::entry::Entry;
use crate::model::ops::{Accepted, Target};
use crate::model::view::{View, view};
use crate::model::{RelPath, Version};
use crate::state::rows::*;
use crate::state::tree::{has_children, path_of_dir};
use crate::state::{Ns, Read, Tree, holds};
use std::borrow::Cow;
use std::sync::atomic::Ordering;

/// A path of the namespace as an operation finds it.
pub(crate) struct At {
    pub dir: u64,
    /// Name of the register (not of the sibling).
    pub name: String,
    pub path: RelPath,
    pub reg: Register,
    /// What of it the name stands for.
    pub target: Target,
}

impl Vfs {
    /// Runs `body` on the view of a register; none if nothing of it is to be seen.
    pub(crate) fn with_view<T>(&self, r: &Read<'_>, reg: &Register, body: impl FnOnce(&View<'_>, &Entry) -> T) -> Result<Option<T>> {
        let implied = reg.dir != 0 && has_children(r, reg.dir)?;
        let me = self.device().0;
        let entry = in_effect(&reg.entry, &me);
        Ok(view(&entry, implied, self.options.conflict_mode, &me).map(|v| body(&v, &entry)))
    }

    /// A register's entry as this device sees it.
    pub(crate) fn entry<'a>(&self, reg: &'a Register) -> Cow<'a, Entry> {
        in_effect(&reg.entry, &self.device().0)
    }

    /// The same as far as whoever has the shown file open for writing has seen it: without heads that arrived while
    /// it kept its place. `body` gets the view and the entry that is of.
    pub(crate) fn with_seen<T>(&self, r: &Read<'_>, reg: &Register, body: impl FnOnce(Option<&View<'_>>, &Entry) -> T) -> Result<T> {
        let me = self.device().0;
        let entry = in_effect(&reg.entry, &me);
        if reg.ino == 0 || reg.ino == reg.dir || !self.waits(reg) {
            let implied = reg.dir != 0 && has_children(r, reg.dir)?;
            return Ok(body(view(&entry, implied, self.options.conflict_mode, &me).as_ref(), &entry));
        }
        let mut seen = Entry::default();
        if let Some(i) = r.get::<Inode>(Tree::Inode, reg.ino)? {
            let unsealed = self.loaded(reg.ino).is_some_and(|n| n.unsealed.load(Ordering::Acquire));
            let accept = r.get::<Local>(Tree::Local, reg.ino)?.and_then(|l| l.accept).filter(|_| unsealed);
            for h in &entry.heads {
                // What its next seal replaces (it was renamed over that), or what it was. `shows` is of one path only; the
                // other names of a hard link go by what the file held at its last seal.
                let accepted = accept.as_ref().is_some_and(|(p, a)| *p == h.path && a.clock.ge(&h.vclock));
                let was = i.links.len() == 1 && i.shows.ge(&h.vclock);
                // Listed beside it all the time: not to be replaced, and to be left their names.
                let listed = reg.sibs.iter().any(|s| s.clock == h.vclock);
                if h.is_tombstone() || accepted || was || listed || holds(r, reg.ino, &i, h)? {
                    seen.merge(h.clone());
                }
            }
        }
        Ok(body(view(&seen, false, self.options.conflict_mode, &me).as_ref(), &seen))
    }

    /// Whether somebody writes a file of this register, so that what it shows may be behind its view.
    pub(crate) fn waits(&self, reg: &Register) -> bool {
        self.is_busy(reg.ino) || reg.sibs.iter().any(|s| self.is_busy(s.ino))
    }

    /// The register that a name belongs to, with that register's own name; none for local-only names.
    pub(crate) fn owner(&self, r: &Read<'_>, dir: u64, name: &str) -> Result<Option<(String, Register)>> {
        let of = match r.get::<Slot>(Tree::Entry, slot_key(dir, name))? {
            Some(Slot::Register(reg)) => return Ok(Some((name.to_owned(), *reg))),
            Some(Slot::Sibling { of, .. }) => of,
            Some(Slot::LocalOnly { .. }) | None => return Ok(None),
        };
        Ok(match r.get::<Slot>(Tree::Entry, slot_key(dir, &of))? {
            Some(Slot::Register(reg)) => Some((of, *reg)),
            _ => None,
        })
    }

    /// What a name stands for: register and target. `Slot::LocalOnly` is none.
    pub(crate) fn at(&self, r: &Read<'_>, dir: u64, name: &str) -> Result<Option<At>> {
        let sib = match r.get::<Slot>(Tree::Entry, slot_key(dir, name))? {
            Some(Slot::Sibling { ino, .. }) => Some(ino),
            _ => None,
        };
        let Some((of, reg)) = self.owner(r, dir, name)? else { return Ok(None) };
        let target = match sib {
            None => Target::Path,
            Some(ino) => {
                let clock = reg.sibs.iter().find(|s| s.ino == ino).map(|s| s.clock.clone()).unwrap_or_default();
                let found = self.with_view(r, &reg, |v, _| {
                    v.siblings.iter().position(|s| s.head.vclock == clock || s.equals.iter().any(|e| e.vclock == clock))
                })?;
                match found.flatten() {
                    Some(i) => Target::Sibling(i),
                    None => return Ok(None),
                }
            }
        };
        let path = path_of_dir(r, dir)?.join(&of);
        Ok(Some(At { dir, name: of, path, reg, target }))
    }

    /// What a save to an inode replaces, as things are shown now.
    pub(crate) fn accept_now(&self, r: &Read<'_>, i: &Inode) -> Result<Option<(RelPath, Accepted)>> {
        let Some((dir, name)) = i.links.first() else { return Ok(None) };
        let Some(at) = self.at(r, *dir, name)? else { return Ok(None) };
        let acc = self.accepted(r, &at)?;
        Ok(Some((at.path, acc)))
    }

    /// What replacing what a name stands for accepts.
    pub(crate) fn accepted(&self, r: &Read<'_>, at: &At) -> Result<Accepted> {
        match at.target {
            Target::Path => self.with_seen(r, &at.reg, |v, seen| match v {
                Some(v) => Accepted::to_write(v, Target::Path),
                None => Accepted::of_entry(seen),
            }),
            t => Ok(self.with_view(r, &at.reg, |v, _| Accepted::to_write(v, t))?.unwrap_or_default()),
        }
    }

    /// The head that an inode shows under another name than `new`; none if nothing of it is sealed.
    pub(crate) fn head_of(&self, ns: &Ns<'_, '_>, ino: u64, i: &Inode, new: (u64, &str)) -> Result<Option<Version>> {
        for (dir, name) in i.links.iter().filter(|l| (l.0, l.1.as_str()) != new) {
            let Some((_, reg)) = self.owner(ns.t, *dir, name)? else { continue };
            for h in self.entry(&reg).live() {
                if i.links.len() == 2 && h.vclock == i.shows || holds(ns.t, ino, i, h)? {
                    return Ok(Some(h.clone()));
                }
            }
        }
        Ok(None)
    }
}
