//! Looking at entries from outside a mount: by path, with what a listing of the drive tells beyond `stat`.
//!
//! Not here: names and attributes themselves (`names`, `attr`).

use super::{Attr, Vfs, not_found};
use crate::error::Result;
use crate::model::RelPath;
use crate::state::Tree;
use crate::state::rows::*;
use std::sync::atomic::Ordering;

/// Names read at a time.
const PAGE: usize = 1024;

/// Where a file's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// None here.
    Stub,
    /// Some.
    Partial,
    /// All.
    Hydrated,
    /// All, not published.
    Pending,
    /// It never leaves this machine.
    LocalOnly,
}

/// What a listing tells of an entry besides its attributes.
#[derive(Clone, Debug)]
pub struct Look {
    /// Where its bytes are.
    pub held: Held,
    /// How many of them are here.
    pub here: u64,
    /// It has siblings, or is one.
    pub conflict: bool,
    /// Name of the device that wrote what is shown; empty where nobody did (a directory that exists through its
    /// children, local-only files).
    pub device: String,
}

/// An entry as it was found on a walk.
#[derive(Clone, Debug)]
pub struct Found {
    /// Directory it is in; 0 for the root itself.
    pub dir: u64,
    /// Its name there.
    pub name: String,
    /// Its path.
    pub path: RelPath,
    /// Its attributes.
    pub attr: Attr,
}

impl Vfs {
    /// The entry at a path, symbolic links not followed.
    pub fn find(&self, path: &RelPath) -> Result<Found> {
        let attr = self.resolve(path.as_str())?;
        let dir = match path.parent() {
            Some(p) => self.resolve(p.as_str())?.ino,
            None => 0,
        };
        Ok(Found { dir, name: path.file_name().to_owned(), path: path.clone(), attr })
    }

    /// Whether anything is shown at a path.
    pub fn exists(&self, path: &RelPath) -> bool {
        self.resolve(path.as_str()).is_ok()
    }

    /// What is in a directory, in order of names. Entries that go away meanwhile are left out.
    pub fn list(&self, dir: &Found) -> Result<Vec<Found>> {
        let (mut cookie, mut out) = (0, Vec::new());
        loop {
            let page = self.readdir(dir.attr.ino, cookie, PAGE, true)?;
            let Some(last) = page.last() else { break };
            cookie = last.cookie;
            out.extend(page.into_iter().filter_map(|e| {
                let path = dir.path.join(&e.name);
                Some(Found { dir: dir.attr.ino, name: e.name, path, attr: e.attr? })
            }));
        }
        out.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(out)
    }

    /// What a listing tells of an entry.
    pub fn look(&self, f: &Found) -> Result<Look> {
        let (inode, local, register, sibling) = self.replica.read(|r| {
            let inode: Inode = r.get(Tree::Inode, f.attr.ino)?.ok_or_else(|| not_found(f.path.as_str()))?;
            let local: Option<Local> = if inode.kind == FileType::File { r.get(Tree::Local, f.attr.ino)? } else { None };
            let slot = if f.dir == 0 { None } else { r.get::<Slot>(Tree::Entry, slot_key(f.dir, &f.name))? };
            let (register, sibling) = match slot {
                Some(Slot::Sibling { of, .. }) => (r.get::<Slot>(Tree::Entry, slot_key(f.dir, &of))?, true),
                other => (other, false),
            };
            let conflict = sibling || f.dir != 0 && r.get::<()>(Tree::Conflict, slot_key(f.dir, &f.name))?.is_some();
            Ok((inode, local, register, conflict))
        })?;
        let mut device = String::new();
        if let Some(Slot::Register(r)) = &register
            && !inode.local_only
        {
            let entry = self.entry(r);
            let shows = entry.live().find(|h| h.vclock == inode.shows);
            let dir = || entry.live().find(|h| h.is_dir() == (inode.kind == FileType::Dir));
            device = shows.or_else(dir).map_or(String::new(), |h| h.device_name.clone());
        }
        let (held, here) = self.held(&inode, f.attr.ino, local);
        if held == Held::Pending && device.is_empty() {
            device = self.device().1;
        }
        Ok(Look { held, here, conflict: sibling, device })
    }

    fn held(&self, inode: &Inode, ino: u64, local: Option<Local>) -> (Held, u64) {
        if inode.local_only {
            return (Held::LocalOnly, inode.size);
        }
        if inode.kind != FileType::File {
            return (Held::Hydrated, 0);
        }
        let judge = |size: u64, cut: bool, open: bool, have: &crate::model::ranges::RangeSet| match have.total().min(size) {
            _ if open || !cut => (Held::Pending, size),
            n if n == size => (Held::Hydrated, size),
            0 => (Held::Stub, 0),
            n => (Held::Partial, n),
        };
        if let Some(n) = self.loaded(ino) {
            let st = n.st.lock();
            let open = n.unsealed.load(Ordering::Acquire) || !st.dirty.is_empty() || st.token.is_some();
            return judge(st.size, st.content.as_ref().is_some_and(|c| !c.manifest.is_zero()), open, &st.have);
        }
        let local = local.unwrap_or_default();
        let cut = inode.content.as_ref().is_some_and(|c| !c.manifest.is_zero());
        judge(inode.size, cut, !local.dirty.is_empty() || local.token.is_some(), &local.have)
    }
}
