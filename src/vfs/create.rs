//! Making names: files, directories, links and nodes.
//!
//! Must: what a name replaces is fixed when it is made; a conflict is a head that arrived later.

use super::attr::Attr;
use super::names::{path_for, spelled};
use super::{Opened, Touches, Vfs};
use crate::error::{Error, Kind, Result};
use crate::model::ops::{self, Accepted};
use crate::model::{Hash, Version};
use crate::state::rows::*;
use crate::state::tree::path_of_dir;
use crate::state::{Change, Ns, Read, Tree};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

/// So many names a file has at most on this machine; what file systems have.
pub const LINKS_MAX: usize = 65_000;

impl Vfs {
    /// `ignored`: what [`Vfs::ignored`] said before the transaction.
    fn is_local_name(&self, r: &Read<'_>, dir: u64, parent: &Inode, name: &str, is_dir: bool, ignored: bool) -> Result<bool> {
        Ok(ignored || parent.local_only || self.rules.is_local(|| path_of_dir(r, dir), name, is_dir)?)
    }

    /// Makes and opens a regular file. `Exists` if the name is taken.
    pub fn create(self: &Arc<Self>, dir: u64, name: &[u8], mode: u32, uid: u32, gid: u32) -> Result<(Attr, Opened)> {
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
        let dir = self.live(dir);
        let (given, name) = (spelled(name), self.new_name(dir, name)?);
        let ignored = self.ignored(dir, &name, false)?.is_some();
        let since = self.moment();
        let mut made = None;
        let done = self.change_settled(&[(dir, given)], Touches::Only(&[dir]), |ns| {
            let parent = self.dir_inode(ns.t, dir)?;
            let local = self.is_local_name(ns.t, dir, &parent, &name, false, ignored)?;
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
            // In use and busy before anybody can see the name: a version of it that arrives then waits for the seal.
            let mut node = self.node_of(ino, inode.clone(), None, true)?;
            let st = node.st.get_mut();
            st.accept = accept;
            st.overlay = true;
            st.dirty_since = Some(Instant::now());
            st.applied_before = self.applied.load(Ordering::Acquire);
            node.unsealed = AtomicBool::new(!local);
            node.writers = AtomicU32::new(u32::from(open));
            node.opens = AtomicU32::new(1);
            let node = Arc::new(node);
            self.nodes.insert(ino, node.clone());
            made = Some(node);
            Ok(inode)
        });
        let (inode, node) = match (done, made) {
            (Ok(inode), Some(node)) => (inode, node),
            (done, made) => {
                made.map(|n| self.nodes.remove(&n.ino));
                return Err(done.err().unwrap_or_else(|| Error::new(Kind::Internal, "a file was made without a node")));
            }
        };
        if !open {
            let sealed = self.seal_if_needed(&node);
            self.unhold(&node);
            sealed?;
        }
        Ok(self.attr_of(node.ino, &inode, since))
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
        ns.changes.push(Change::Name { dir, name: name.to_owned(), was: 0 });
        Ok(())
    }

    /// Makes a directory.
    pub fn mkdir(&self, dir: u64, name: &[u8], mode: u32, uid: u32, gid: u32) -> Result<Attr> {
        self.room()?;
        let dir = self.live(dir);
        let (given, name) = (spelled(name), self.new_name(dir, name)?);
        let ignored = self.ignored(dir, &name, true)?.is_some();
        let (ino, inode) = self.change_settled(&[(dir, given)], Touches::Only(&[dir]), |ns| {
            let parent = self.dir_inode(ns.t, dir)?;
            if ns.slot(dir, &name)?.is_some_and(|s| s.ino() != 0) {
                return Err(Error::new(Kind::Exists, format!("{name:?} exists")));
            }
            let gid = parent.group_for(gid);
            let mode = mode | parent.mode & 0o2000;
            if self.is_local_name(ns.t, dir, &parent, &name, true, ignored)? {
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
        Ok(Attr::of_row(ino, &inode))
    }

    /// Makes a symbolic link.
    pub fn symlink(&self, dir: u64, name: &[u8], target: &[u8], uid: u32, gid: u32) -> Result<Attr> {
        self.room()?;
        let dir = self.live(dir);
        let (given, name) = (spelled(name), self.new_name(dir, name)?);
        let target = std::str::from_utf8(target).map_err(|_| Error::new(Kind::NotUtf8, format!("the target of {name:?} is not UTF-8")))?;
        if target.is_empty() || target.len() > 4095 {
            let kind = if target.is_empty() { Kind::NotFound } else { Kind::NameTooLong };
            return Err(Error::new(kind, format!("the target of {name:?} is empty or longer than 4095 bytes")));
        }
        let ignored = self.ignored(dir, &name, false)?.is_some();
        let (ino, inode) = self.change_settled(&[(dir, given)], Touches::Only(&[dir]), |ns| {
            let parent = self.dir_inode(ns.t, dir)?;
            let local = self.is_local_name(ns.t, dir, &parent, &name, false, ignored)?;
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
        Ok(Attr::of_row(ino, &inode))
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
        let (given, name) = (spelled(name), self.new_name(dir, name)?);
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
        Ok(Attr::of_row(ino, &inode))
    }

    /// Gives a file one more name.
    ///
    /// Errors: `CrossDevice` if the file is local-only and the name is not, or the other way round.
    pub fn link(&self, ino: u64, dir: u64, name: &[u8]) -> Result<Attr> {
        self.room()?;
        let dir = self.live(dir);
        let (given, name) = (spelled(name), self.new_name(dir, name)?);
        let ignored = self.ignored(dir, &name, false)?.is_some();
        let since = self.moment();
        let inode = self.change_settled(&[(dir, given)], Touches::Only(&[dir, ino]), |ns| {
            let parent = self.dir_inode(ns.t, dir)?;
            let mut i = ns.inode(ino)?;
            if i.kind == FileType::Dir {
                return Err(Error::new(Kind::NotPermitted, "a directory cannot have a second name"));
            }
            if i.links.is_empty() {
                return Err(Error::new(Kind::NotFound, "the file has no name left to link from"));
            }
            if i.links.len() >= LINKS_MAX {
                return Err(Error::new(Kind::TooManyLinks, format!("{name:?}: the file has {LINKS_MAX} names")));
            }
            if !i.kind.is_special() && i.local_only != self.is_local_name(ns.t, dir, &parent, &name, false, ignored)? {
                // One file cannot be in the drive and not; programs copy instead, or rename.
                return Err(Error::new(Kind::CrossDevice, format!("{name:?} is on the other side of what never leaves this machine")));
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
        Ok(self.attr_of(ino, &inode, since))
    }

    /// Where the bytes of uncut versions come from: the last seal of `ino`.
    pub(crate) fn files_of(&self, ns: &Ns<'_, '_>, versions: &[Version], ino: u64) -> Result<Vec<(Hash, u64, u64)>> {
        if !versions.iter().any(Version::is_uncut) {
            return Ok(Vec::new());
        }
        let local: Option<Local> = ns.t.get(Tree::Local, ino)?;
        Ok(local.and_then(|l| l.token).map(|(token, wgen)| (token, ino, wgen)).into_iter().collect())
    }
}
