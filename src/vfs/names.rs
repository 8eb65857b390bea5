//! Looking names up, listing, making and removing them.

use super::attr::Attr;
use super::node::Node;
use super::{Opened, Touches, Vfs, not_found};
use crate::error::{Error, Kind, Result};
use crate::model::entry::Entry;
use crate::model::ops::{self, Accepted, Target};
use crate::model::path::{NameError, PATH_MAX, name as check_name};
use crate::model::view::{ConflictMode, View, view};
use crate::model::{RelPath, Version};
use crate::state::rows::*;
use crate::state::tree::{has_children, path_of_dir, stale};
use crate::state::{Ns, Read, Scan, Tree, holds};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// One line of a listing.
#[derive(Clone, Debug)]
pub struct DirEntry {
    /// Name.
    pub name: String,
    /// Inode.
    pub ino: u64,
    /// What it is.
    pub kind: FileType,
    /// Pass to continue after this line; stable while others come and go.
    pub cookie: u64,
    /// Attributes, if they were asked for.
    pub attr: Option<Attr>,
}

/// A sibling's old name after it took over its path's name.
pub(crate) struct Alias {
    dir: u64,
    name: String,
    ino: u64,
    until: Instant,
}

/// How long the name of a sibling that took its path's name still works.
const ALIAS: Duration = Duration::from_secs(60);
/// Rows read per page of a listing.
const PAGE: usize = 512;

/// A name as bytes from a program.
pub(crate) fn parse_name(bytes: &[u8]) -> Result<String> {
    check_name(bytes).map_err(|e| {
        let kind = match e {
            NameError::NotUtf8 => Kind::NotUtf8,
            NameError::TooLong => Kind::NameTooLong,
            NameError::Invalid => Kind::BadName,
        };
        Error::new(kind, format!("{:?}: {e}", String::from_utf8_lossy(bytes)))
    })
}

/// A name as the caller spelled it. That, and no other spelling of the name, is what its kernel knows that it changed.
pub(crate) fn spelled(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or("")
}

/// The path of `name` in `dir`; `NameTooLong` if no record could carry it.
pub(crate) fn path_for(r: &Read<'_>, dir: u64, name: &str) -> Result<RelPath> {
    let path = path_of_dir(r, dir)?.join(name);
    if path.as_str().len() > PATH_MAX {
        return Err(Error::new(Kind::NameTooLong, format!("{name:?}: its path is longer than {PATH_MAX} bytes")));
    }
    Ok(path)
}

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
        Ok(view(&reg.entry, implied, self.options.conflict_mode, &me).map(|v| body(&v, &reg.entry)))
    }

    /// The same as far as whoever has the shown file open for writing has seen it: without heads that arrived while
    /// it kept its place. `body` gets the view and the entry that is of.
    pub(crate) fn with_seen<T>(&self, r: &Read<'_>, reg: &Register, body: impl FnOnce(Option<&View<'_>>, &Entry) -> T) -> Result<T> {
        let me = self.device().0;
        if reg.ino == 0 || reg.ino == reg.dir || !self.waits(reg) {
            let implied = reg.dir != 0 && has_children(r, reg.dir)?;
            return Ok(body(view(&reg.entry, implied, self.options.conflict_mode, &me).as_ref(), &reg.entry));
        }
        let mut seen = Entry::default();
        if let Some(i) = r.get::<Inode>(Tree::Inode, reg.ino)? {
            let unsealed = self.loaded(reg.ino).is_some_and(|n| n.unsealed.load(Ordering::Acquire));
            let accept = r.get::<Local>(Tree::Local, reg.ino)?.and_then(|l| l.accept).filter(|_| unsealed);
            for h in &reg.entry.heads {
                // What its next seal replaces (it was renamed over that), or what it was. `shows` is of one path only; the
                // other names of a hard link go by what the file held at its last seal.
                let accepted = accept.as_ref().is_some_and(|(p, a)| *p == h.path && a.clock.ge(&h.vclock));
                let was = i.links.len() == 1 && i.shows.ge(&h.vclock);
                if h.is_tombstone() || accepted || was || holds(r, reg.ino, &i, h)? {
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
    pub(crate) fn accept_now(&self, ino: u64) -> Result<Option<(RelPath, Accepted)>> {
        self.replica.read(|r| {
            let i: Inode = r.get(Tree::Inode, ino)?.ok_or_else(|| stale(ino))?;
            let Some((dir, name)) = i.links.first() else { return Ok(None) };
            let Some(at) = self.at(r, *dir, name)? else { return Ok(None) };
            let acc = self.accepted(r, &at)?;
            Ok(Some((at.path, acc)))
        })
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

    pub(crate) fn dir_inode(&self, r: &Read<'_>, dir: u64) -> Result<Inode> {
        let d: Inode = r.get(Tree::Inode, dir)?.ok_or_else(|| stale(dir))?;
        if d.kind != FileType::Dir {
            return Err(Error::new(Kind::NotDir, format!("inode {dir} is not a directory")));
        }
        if d.dead {
            return Err(Error::new(Kind::NotFound, format!("directory {dir} was removed")));
        }
        Ok(d)
    }

    /// Finds a name in a directory.
    pub fn lookup(&self, dir: u64, name: &[u8]) -> Result<Attr> {
        let name = parse_name(name)?;
        let ino = self.replica.read(|r| {
            let slot: Option<Slot> = r.get(Tree::Entry, slot_key(dir, &name))?;
            if slot.is_none() && r.get::<Inode>(Tree::Inode, dir)?.ok_or_else(|| stale(dir))?.kind != FileType::Dir {
                return Err(Error::new(Kind::NotDir, format!("inode {dir} is not a directory")));
            }
            Ok(slot.map_or(0, |s| s.ino()))
        })?;
        let ino = if ino == 0 { self.alias(dir, &name).ok_or_else(|| not_found(&name))? } else { ino };
        self.getattr(ino)
    }

    fn alias(&self, dir: u64, name: &str) -> Option<u64> {
        let mut all = self.aliases.lock();
        all.retain(|a| a.until > Instant::now());
        all.iter().find(|a| a.dir == dir && a.name == name).map(|a| a.ino)
    }

    /// Whether a name only works for a while after what it led to took another one: not to be kept in mind by caches.
    pub fn is_fleeting(&self, dir: u64, name: &[u8]) -> bool {
        std::str::from_utf8(name).is_ok_and(|n| self.alias(dir, n).is_some())
    }

    /// The present name of what an old sibling name led to.
    pub(crate) fn unalias(&self, dir: u64, name: &str) -> Result<String> {
        let here = self.replica.read(|r| r.get::<Slot>(Tree::Entry, slot_key(dir, name)))?;
        if here.is_some_and(|s| s.ino() != 0) {
            return Ok(name.to_owned());
        }
        let Some(ino) = self.alias(dir, name) else { return Ok(name.to_owned()) };
        let i: Option<Inode> = self.replica.read(|r| r.get(Tree::Inode, ino))?;
        Ok(i.and_then(|i| i.links.into_iter().find(|l| l.0 == dir)).map_or(name.to_owned(), |l| l.1))
    }

    /// Lines of a listing after `cookie` (0 = from the start), at most `max`; `.` and `..` are the front end's.
    pub fn readdir(&self, dir: u64, cookie: u64, max: usize, attrs: bool) -> Result<Vec<DirEntry>> {
        let mut out: Vec<(DirEntry, Option<Inode>)> = Vec::new();
        self.replica.read(|r| {
            let d: Inode = r.get(Tree::Inode, dir)?.ok_or_else(|| stale(dir))?;
            if d.kind != FileType::Dir {
                return Err(Error::new(Kind::NotDir, format!("inode {dir} is not a directory")));
            }
            let end = slot_end(dir);
            let mut from = slot_after(dir, cookie);
            loop {
                let (mut rows, mut last) = (0, Vec::new());
                let mut found = Vec::new();
                r.scan(Tree::Entry, Scan::From(&from, &end), PAGE, |k, s: Slot| {
                    rows += 1;
                    last.clear();
                    last.extend_from_slice(k);
                    if s.ino() != 0 {
                        found.push((slot_name(k).to_owned(), s.ino()));
                    }
                    Ok(())
                })?;
                for (name, ino) in found {
                    // One damaged row must not fail the listing.
                    let Ok(Some(i)) = r.get::<Inode>(Tree::Inode, ino) else {
                        tracing::error!(dir, name, ino, "a name without its inode is left out of a listing");
                        continue;
                    };
                    let cookie = cookie_of(&name);
                    out.push((DirEntry { name, ino, kind: i.kind, cookie, attr: None }, attrs.then_some(i)));
                    if out.len() >= max {
                        return Ok(());
                    }
                }
                if rows < PAGE {
                    return Ok(());
                }
                last.push(0);
                from = last;
            }
        })?;
        Ok(out
            .into_iter()
            .map(|(mut e, i)| {
                e.attr = i.map(|i| self.attr_of(e.ino, &i));
                e
            })
            .collect())
    }

    fn is_local_name(&self, r: &Read<'_>, dir: u64, parent: &Inode, name: &str, is_dir: bool) -> Result<bool> {
        Ok(parent.local_only || self.rules.is_local(|| path_of_dir(r, dir), name, is_dir)?)
    }

    /// Makes and opens a regular file. `Exists` if the name is taken.
    pub fn create(self: &std::sync::Arc<Self>, dir: u64, name: &[u8], mode: u32, uid: u32, gid: u32) -> Result<(Attr, Opened)> {
        let attr = self.make_file(dir, name, mode, uid, gid, true)?;
        let opened = self.open_file(attr.ino, true, false);
        // The open that `make_file` counted, so that the seal could not come in between.
        if let Some(n) = self.loaded(attr.ino) {
            n.writers.fetch_sub(1, Ordering::AcqRel);
            self.unhold(&n);
        }
        Ok((attr, opened?))
    }

    /// Makes an empty regular file; `open`: leave it unsealed and held for a writer.
    pub(crate) fn make_file(&self, dir: u64, name: &[u8], mode: u32, uid: u32, gid: u32, open: bool) -> Result<Attr> {
        self.room()?;
        let (given, name) = (spelled(name), parse_name(name)?);
        let (ino, inode, accept) = self.change_settled(&[(dir, given)], Touches::Only(&[dir]), |ns| {
            let parent = self.dir_inode(ns.t, dir)?;
            let local = self.is_local_name(ns.t, dir, &parent, &name, false)?;
            let gid = parent.group_for(gid);
            let (ino, mut inode) = (ns.next_id(), Inode::new(FileType::File, mode & 0o7777, uid, gid, ns.ctx.now));
            inode.links.push((dir, name.clone()));
            inode.local_only = local;
            self.take_name(ns, dir, &name, ino, local)?;
            ns.put_inode(ino, &inode)?;
            ns.touch_dir(dir, 0)?;
            let mut accept = None;
            if !local {
                ns.t.put(Tree::Unsealed, ino, &())?;
                let path = path_for(ns.t, dir, &name)?;
                if let Some(Slot::Register(r)) = ns.slot(dir, &name)? {
                    accept = Some((path, Accepted::of_entry(&r.entry)));
                }
            }
            Ok((ino, inode, accept))
        })?;
        let node = self.hold(ino)?;
        {
            let mut st = node.st.lock();
            st.accept = accept;
            st.overlay = true;
            st.dirty_since = Some(Instant::now());
            st.applied_before = self.applied.load(Ordering::Acquire);
            node.unsealed.store(!st.local_only, Ordering::Release);
        }
        if open {
            node.writers.fetch_add(1, Ordering::AcqRel);
        } else {
            self.seal_if_needed(&node)?;
            self.unhold(&node);
        }
        Ok(self.attr_of(ino, &inode))
    }

    /// Puts an inode under a free name.
    pub(crate) fn take_name(&self, ns: &mut Ns<'_, '_>, dir: u64, name: &str, ino: u64, local: bool) -> Result<()> {
        match ns.slot(dir, name)? {
            Some(s) if s.ino() != 0 => return Err(Error::new(Kind::Exists, format!("{name:?} exists"))),
            // Tombstones under the name stay where they are, also beside a local file.
            Some(Slot::Register(mut r)) => {
                r.ino = ino;
                ns.put_slot(dir, name, &Slot::Register(r))?;
            }
            _ if local => ns.put_slot(dir, name, &Slot::LocalOnly { ino })?,
            _ => ns.put_slot(dir, name, &Slot::Register(Box::new(Register { ino, ..Register::default() })))?,
        }
        ns.changes.push(crate::state::Change::Name { dir, name: name.to_owned(), was: 0 });
        Ok(())
    }

    /// Makes a directory.
    pub fn mkdir(&self, dir: u64, name: &[u8], mode: u32, uid: u32, gid: u32) -> Result<Attr> {
        self.room()?;
        let (given, name) = (spelled(name), parse_name(name)?);
        let (ino, inode) = self.change_settled(&[(dir, given)], Touches::Only(&[dir]), |ns| {
            let parent = self.dir_inode(ns.t, dir)?;
            if ns.slot(dir, &name)?.is_some_and(|s| s.ino() != 0) {
                return Err(Error::new(Kind::Exists, format!("{name:?} exists")));
            }
            let gid = parent.group_for(gid);
            let mode = mode | parent.mode & 0o2000;
            if self.is_local_name(ns.t, dir, &parent, &name, true)? {
                let ino = ns.next_id();
                let mut i = Inode::new(FileType::Dir, mode & 0o7777, uid, gid, ns.ctx.now);
                i.links.push((dir, name.clone()));
                i.local_only = true;
                self.take_name(ns, dir, &name, ino, true)?;
                ns.put_inode(ino, &i)?;
                ns.touch_dir(dir, 1)?;
                return Ok((ino, i));
            }
            let path = path_for(ns.t, dir, &name)?;
            let entry = ns.register(dir, &name)?.entry;
            let v = ops::mkdir(&path, &entry, mode, ns.ctx.now.pair(), &self.author())?;
            ns.merge(&v)?;
            ns.reconcile(dir, &name)?;
            let ino = ns.slot(dir, &name)?.map_or(0, |s| s.ino());
            let mut i = ns.inode(ino)?;
            (i.uid, i.gid, i.mode) = (uid, gid, mode & 0o7777);
            (i.atime, i.btime) = (ns.ctx.now, ns.ctx.now);
            ns.put_inode(ino, &i)?;
            self.enqueue(ns, Sealed { versions: vec![v], ..self.sealed_row() })?;
            Ok((ino, i))
        })?;
        self.sealed.notify_one();
        Ok(self.attr_of(ino, &inode))
    }

    /// Makes a symbolic link.
    pub fn symlink(&self, dir: u64, name: &[u8], target: &[u8], uid: u32, gid: u32) -> Result<Attr> {
        self.room()?;
        let (given, name) = (spelled(name), parse_name(name)?);
        let target = std::str::from_utf8(target).map_err(|_| Error::new(Kind::NotUtf8, format!("the target of {name:?} is not UTF-8")))?;
        if target.is_empty() || target.len() > 4095 {
            let kind = if target.is_empty() { Kind::NotFound } else { Kind::NameTooLong };
            return Err(Error::new(kind, format!("the target of {name:?} is empty or longer than 4095 bytes")));
        }
        let (ino, inode) = self.change_settled(&[(dir, given)], Touches::Only(&[dir]), |ns| {
            let parent = self.dir_inode(ns.t, dir)?;
            let local = self.is_local_name(ns.t, dir, &parent, &name, false)?;
            let ino = ns.next_id();
            let mut i = Inode::new(FileType::Symlink, 0o777, uid, parent.group_for(gid), ns.ctx.now);
            i.links.push((dir, name.clone()));
            i.target = target.to_owned();
            i.size = target.len() as u64;
            i.local_only = local;
            self.take_name(ns, dir, &name, ino, local)?;
            if !local {
                let path = path_for(ns.t, dir, &name)?;
                let mut r = ns.register(dir, &name)?;
                let v = ops::symlink(&path, &r.entry, target, ns.ctx.now.pair(), &self.author())?;
                ns.merge_into(&mut r, &v)?;
                ns.put_slot(dir, &name, &Slot::Register(Box::new(r)))?;
                i.shows = v.vclock.clone();
                self.enqueue(ns, Sealed { versions: vec![v], ..self.sealed_row() })?;
            }
            ns.put_inode(ino, &i)?;
            ns.touch_dir(dir, 0)?;
            Ok((ino, i))
        })?;
        self.sealed.notify_one();
        Ok(self.attr_of(ino, &inode))
    }

    /// Makes a fifo, socket or device node (local-only), or an empty regular file.
    pub fn mknod(&self, dir: u64, name: &[u8], mode: u32, rdev: u32, uid: u32, gid: u32) -> Result<Attr> {
        let kind = match mode & 0o170000 {
            0 | 0o100000 => return self.make_file(dir, name, mode, uid, gid, false),
            0o010000 => FileType::Fifo,
            0o140000 => FileType::Socket,
            0o020000 => FileType::Char,
            0o060000 => FileType::Block,
            _ => return Err(Error::new(Kind::Invalid, "making a node of an unknown type")),
        };
        let (given, name) = (spelled(name), parse_name(name)?);
        let (ino, inode) = self.change_settled(&[(dir, given)], Touches::Only(&[dir]), |ns| {
            let gid = self.dir_inode(ns.t, dir)?.group_for(gid);
            let ino = ns.next_id();
            let mut i = Inode::new(kind, mode & 0o7777, uid, gid, ns.ctx.now);
            i.links.push((dir, name.clone()));
            (i.rdev, i.local_only) = (rdev, true);
            self.take_name(ns, dir, &name, ino, true)?;
            ns.put_inode(ino, &i)?;
            ns.touch_dir(dir, 0)?;
            Ok((ino, i))
        })?;
        Ok(self.attr_of(ino, &inode))
    }

    /// Gives a file one more name.
    pub fn link(&self, ino: u64, dir: u64, name: &[u8]) -> Result<Attr> {
        self.room()?;
        let (given, name) = (spelled(name), parse_name(name)?);
        let inode = self.change_settled(&[(dir, given)], Touches::Only(&[dir, ino]), |ns| {
            self.dir_inode(ns.t, dir)?;
            let mut i = ns.inode(ino)?;
            if i.kind == FileType::Dir {
                return Err(Error::new(Kind::NotPermitted, "a directory cannot have a second name"));
            }
            if i.links.is_empty() {
                return Err(Error::new(Kind::NotFound, "the file has no name left to link from"));
            }
            if i.links.len() >= 65_000 {
                return Err(Error::new(Kind::TooManyLinks, format!("{name:?}: the file has 65,000 names")));
            }
            self.take_name(ns, dir, &name, ino, i.local_only)?;
            i.links.push((dir, name.clone()));
            i.ctime = ns.ctx.now;
            ns.put_inode(ino, &i)?;
            if !i.local_only {
                path_for(ns.t, dir, &name)?;
            }
            if !i.local_only
                && let Some(head) = self.head_of(ns, ino, &i, (dir, &name))?
            {
                let path = ns.path_of_dir(dir)?.join(&name);
                let mut r = ns.register(dir, &name)?;
                let attrs = ops::Attrs { mode: i.mode, ..ops::Attrs::of(&head) };
                let v = ops::write(&path, &r.entry, &Accepted::of_entry(&r.entry), head.kind.clone(), attrs, &self.author())?;
                ns.merge_into(&mut r, &v)?;
                ns.put_slot(dir, &name, &Slot::Register(Box::new(r)))?;
                let files = self.files_of(ns, std::slice::from_ref(&v), ino)?;
                self.enqueue(ns, Sealed { versions: vec![v], files, ..self.sealed_row() })?;
            }
            ns.touch_dir(dir, 0)?;
            ns.inode(ino)
        })?;
        self.sealed.notify_one();
        Ok(self.attr_of(ino, &inode))
    }

    /// The head that an inode shows under another name than `new`; none if nothing of it is sealed.
    pub(crate) fn head_of(&self, ns: &Ns<'_, '_>, ino: u64, i: &Inode, new: (u64, &str)) -> Result<Option<Version>> {
        for (dir, name) in i.links.iter().filter(|l| (l.0, l.1.as_str()) != new) {
            let Some((_, reg)) = self.owner(ns.t, *dir, name)? else { continue };
            for h in reg.entry.live() {
                if i.links.len() == 2 && h.vclock == i.shows || holds(ns.t, ino, i, h)? {
                    return Ok(Some(h.clone()));
                }
            }
        }
        Ok(None)
    }

    /// Where the bytes of uncut versions come from: the last seal of `ino`.
    pub(crate) fn files_of(&self, ns: &Ns<'_, '_>, versions: &[Version], ino: u64) -> Result<Vec<(crate::model::Hash, u64, u64)>> {
        if !versions.iter().any(Version::is_uncut) {
            return Ok(Vec::new());
        }
        let local: Option<Local> = ns.t.get(Tree::Local, ino)?;
        Ok(local.and_then(|l| l.token).map(|(token, wgen)| (token, ino, wgen)).into_iter().collect())
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
        if r.entry.live().any(Version::is_dir) {
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

    /// Removes a name of anything but a directory.
    pub fn unlink(&self, dir: u64, name: &[u8]) -> Result<()> {
        let (given, name) = (spelled(name), self.unalias(dir, &parse_name(name)?)?);
        let before = Instant::now() + ALIAS;
        let promoted = self.change_settled(&[(dir, given)], Touches::Only(&[dir]), |ns| {
            self.dir_inode(ns.t, dir)?;
            self.unlink_in(ns, dir, &name)
        })?;
        self.aliases.lock().extend(promoted.into_iter().map(|(name, ino)| Alias { dir, name, ino, until: before }));
        self.sealed.notify_one();
        Ok(())
    }

    /// Returns sibling names that are no longer listed because their head took the name.
    pub(crate) fn unlink_in(&self, ns: &mut Ns<'_, '_>, dir: u64, name: &str) -> Result<Vec<(String, u64)>> {
        let slot = ns.slot(dir, name)?.filter(|s| s.ino() != 0).ok_or_else(|| not_found(name))?;
        let ino = slot.ino();
        let inode = ns.inode(ino)?;
        if inode.kind == FileType::Dir {
            return Err(Error::new(Kind::IsDir, format!("{name:?} is a directory")));
        }
        if let Slot::LocalOnly { .. } = slot {
            ns.del_slot(dir, name)?;
            ns.drop_link(ino, dir, name)?;
            ns.changes.push(crate::state::Change::Name { dir, name: name.to_owned(), was: ino });
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
            let tomb = match at.target {
                Target::Path if !hidden => self.with_seen(ns.t, &reg, |v, _| {
                    let v = v.filter(|v| v.shown.is_some())?;
                    Some(ops::remove(&at.path, &reg.entry, v, Target::Path, &author))
                })?,
                Target::Path => {
                    self.with_view(ns.t, &reg, |v, e| v.shown.is_some().then(|| ops::remove_all(&at.path, e, v, &author)))?.flatten()
                }
                t => self.with_view(ns.t, &reg, |v, e| ops::remove(&at.path, e, v, t, &author))?,
            };
            if at.target == Target::Path {
                promoted = reg.sibs.iter().map(|s| (s.name.clone(), s.ino)).collect();
                reg.ino = 0;
            } else {
                reg.sibs.retain(|s| s.ino != ino);
            }
            if let Some(tomb) = tomb.transpose()? {
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
            ns.changes.push(crate::state::Change::Name { dir, name: name.to_owned(), was: ino });
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
            ns.changes.push(crate::state::Change::Name { dir, name: name.to_owned(), was: ino });
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
        let (given, name) = (spelled(name), parse_name(name)?);
        self.change_settled(&[(dir, given)], Touches::Only(&[dir]), |ns| {
            self.dir_inode(ns.t, dir)?;
            self.rmdir_in(ns, dir, &name)
        })?;
        self.sealed.notify_one();
        Ok(())
    }

    pub(crate) fn rmdir_in(&self, ns: &mut Ns<'_, '_>, dir: u64, name: &str) -> Result<()> {
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
            ns.changes.push(crate::state::Change::Name { dir, name: name.to_owned(), was: ino });
            ns.touch_dir(dir, -1)?;
            return ns.reconcile_up(dir);
        }
        let Slot::Register(mut reg) = slot else { return Err(not_found(name)) };
        self.still_a_dir(ns, &reg, name)?;
        let path = ns.path_of_dir(dir)?.join(name);
        let author = self.author();
        let tomb = self.with_view(ns.t, &reg, |v, e| ops::remove(&path, e, v, Target::Path, &author))?;
        let mut out = Vec::new();
        if let Some(tomb) = tomb {
            let tomb = tomb?;
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

    /// The directory that a directory is in; the root is in itself.
    pub fn parent(&self, dir: u64) -> Result<u64> {
        let i: Inode = self.replica.read(|r| r.get(Tree::Inode, dir)?.ok_or_else(|| stale(dir)))?;
        Ok(i.links.first().map_or(ROOT, |l| l.0))
    }

    /// Follows a path of the namespace to its inode, symlinks not followed.
    pub fn resolve(&self, path: &str) -> Result<Attr> {
        let mut ino = ROOT;
        for part in path.split('/').filter(|p| !p.is_empty() && *p != ".") {
            ino = self.lookup(ino, part.as_bytes()).map_err(|e| e.context(path.to_owned()))?.ino;
        }
        self.getattr(ino)
    }

    /// A path by which an inode can be reached.
    pub fn path_of(&self, ino: u64) -> Result<RelPath> {
        self.replica.read(|r| {
            let i: Inode = r.get(Tree::Inode, ino)?.ok_or_else(|| stale(ino))?;
            if ino == ROOT || i.kind == FileType::Dir && !i.local_only {
                return path_of_dir(r, ino);
            }
            let (dir, name) = i.links.first().ok_or_else(|| stale(ino))?;
            Ok(path_of_dir(r, *dir)?.join(name))
        })
    }

    pub(crate) fn regular(&self, node: &Node) -> Result<Inode> {
        self.replica.read(|r| r.get(Tree::Inode, node.ino)?.ok_or_else(|| stale(node.ino)))
    }
}
