//! What leaves the namespace by a rename: for the fleet it is deleted, here it goes on under a local-only name.
//!
//! Programs make a directory under another name first, put something into it, and rename it (cargo does so with `target`). It
//! goes as a new directory into which its files are moved: whoever holds the old one is led to it (`Vfs::live`).
//!
//! Must: all its bytes are here, and nowhere that they could be evicted from, before the fleet hears that it is gone.
//! Not here: the way in (`local`), what is local-only (`rules`, `ignores`).

use super::super::names::DirEntry;
use super::super::node::{Node, St};
use super::super::remove::Cause;
use super::super::{Touches, Vfs};
use crate::error::{Error, Kind, Result};
use crate::model::VClock;
use crate::state::Tree;
use crate::state::rows::*;
use std::sync::Arc;

impl Vfs {
    /// Moves a file, a symbolic link or a small directory to a name that is local-only.
    ///
    /// Errors: `CrossDevice` if it is not all here, has other names, or is being written: programs copy it then.
    pub(super) fn leave(&self, own: &[(u64, &str); 2], from: (u64, &str), to: (u64, &str)) -> Result<()> {
        let ino = self.ino_at(from.0, from.1)?;
        let inode: Option<Inode> = self.replica.read(|r| r.get(Tree::Inode, ino))?;
        match inode.filter(|i| !i.local_only).map(|i| i.kind) {
            Some(FileType::File) => {
                let node = self.hold(ino)?;
                let done = self.leave_with(&node, own, from, to);
                self.unhold(&node);
                done
            }
            Some(FileType::Symlink) => self.leave_in(ino, None, own, from, to),
            Some(FileType::Dir) => {
                let mut left = self.options.move_at_once;
                self.all_here(ino, from.1, &mut left)?;
                self.leave_dir(ino, from, to)?;
                // The kernel has taken the old directory along to the new name.
                self.watchers.read().iter().for_each(|w| w.name(to.0, to.1, ino));
                Ok(())
            }
            _ => Err(cannot(from.1, "is no file of the drive")),
        }
    }

    /// Refuses, before anything is moved, what could not be moved whole.
    fn all_here(&self, dir: u64, name: &str, left: &mut usize) -> Result<()> {
        for DirEntry { name: child, ino, .. } in self.readdir(dir, 0, usize::MAX, false)? {
            *left = left.checked_sub(1).ok_or_else(|| cannot(name, "has very much in it"))?;
            let inode: Option<Inode> = self.replica.read(|r| r.get(Tree::Inode, ino))?;
            match inode {
                Some(i) if i.local_only => {}
                Some(i) if i.kind == FileType::Dir => self.all_here(ino, name, left)?,
                Some(i) if i.links.len() != 1 => return Err(cannot(&child, "has other names")),
                Some(i) if i.kind == FileType::File => {
                    let node = self.hold(ino)?;
                    let closed = self.seal_closing(&node);
                    let (whole, busy) = (node.st.lock().is_whole(), node.is_busy());
                    self.unhold(&node);
                    closed?;
                    if busy || !whole {
                        return Err(cannot(&child, "is being written, or not all here"));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn leave_dir(&self, dir: u64, from: (u64, &str), to: (u64, &str)) -> Result<()> {
        let inode: Option<Inode> = self.replica.read(|r| r.get(Tree::Inode, dir))?;
        let Some(inode) = inode else { return Err(cannot(from.1, "is gone")) };
        if self.ino_at(to.0, to.1)? != 0 {
            // One that is there is empty, or a rename over it is refused.
            self.rmdir(to.0, to.1.as_bytes())?;
        }
        let there = self.mkdir(to.0, to.1.as_bytes(), inode.mode, inode.uid, inode.gid)?.ino;
        for DirEntry { name, ino, .. } in self.readdir(dir, 0, usize::MAX, false)? {
            let below: Option<Inode> = self.replica.read(|r| r.get(Tree::Inode, ino))?;
            if below.is_some_and(|i| i.kind == FileType::Dir && !i.local_only) {
                self.leave_dir(ino, (dir, &name), (there, &name))?;
            } else {
                self.rename(dir, name.as_bytes(), there, name.as_bytes(), true)?;
            }
        }
        self.left.lock().insert(dir, there);
        self.rmdir(from.0, from.1.as_bytes())
    }

    fn leave_with(&self, node: &Arc<Node>, own: &[(u64, &str); 2], from: (u64, &str), to: (u64, &str)) -> Result<()> {
        self.seal_closing(node)?;
        let mut st = node.st.lock();
        self.absorb(&mut st)?;
        if node.is_busy() || st.copying.is_some() {
            return Err(cannot(from.1, "is being written"));
        }
        if !st.is_whole() {
            return Err(cannot(from.1, "is not all here"));
        }
        // Out of the cache, where it could be evicted; if somebody emptied that, it is not all here.
        let cached = !st.overlay;
        self.to_overlay(node, &mut st)?;
        let done = if st.is_whole() {
            self.leave_in(node.ino, Some((node, &mut st)), own, from, to)
        } else {
            Err(cannot(from.1, "is not all here"))
        };
        if done.is_err() && cached && !st.have.is_empty() {
            self.to_cache(node, &mut st)?;
            self.persist(node, &mut st)?;
            self.cache.lock().at_least(node.ino, st.have.total());
        }
        done
    }

    fn leave_in(
        &self,
        ino: u64,
        mut file: Option<(&Arc<Node>, &mut St)>,
        own: &[(u64, &str); 2],
        (dir, name): (u64, &str),
        (to, to_name): (u64, &str),
    ) -> Result<()> {
        let was = file.as_ref().map(|(_, st)| (st.content.clone(), st.token, st.dirty.clone(), st.accept.clone()));
        let done = self.change_settled(own, Touches::Moving(&[(dir, name), (to, to_name)]), |ns| {
            let mut inode = ns.inode(ino)?;
            if ns.slot(dir, name)?.is_none_or(|s| s.ino() != ino) || inode.links.len() != 1 {
                return Err(cannot(name, "has other names, or lost this one"));
            }
            if ns.slot(to, to_name)?.is_some_and(|s| s.ino() != 0) {
                self.unlink_in(ns, to, to_name, Cause::Replaced)?;
            }
            // First the new name, so that the inode never has none.
            self.take_name(ns, to, to_name, ino, true)?;
            inode.links.push((to, to_name.to_owned()));
            ns.put_inode(ino, &inode)?;
            self.unlink_in(ns, dir, name, Cause::Deleted)?;
            let mut inode = ns.inode(ino)?;
            (inode.local_only, inode.content, inode.shows) = (true, None, VClock::default());
            inode.ctime = ns.ctx.now;
            ns.put_inode(ino, &inode)?;
            ns.touch_dir(to, 0)?;
            if let Some((node, st)) = &mut file {
                st.dirty.clear();
                (st.local_only, st.content, st.token, st.chunks, st.accept) = (true, None, None, None, None);
                self.persist_in(ns, node, st)?;
            }
            Ok(())
        });
        if let (Err(_), Some((_, st)), Some(was)) = (&done, file, was) {
            (st.content, st.token, st.dirty, st.accept) = was;
            st.local_only = false;
        }
        done
    }
}

fn cannot(name: &str, why: &str) -> Error {
    Error::new(Kind::CrossDevice, format!("{name:?} becomes local-only and {why}: copied, then removed"))
}
