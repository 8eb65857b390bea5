//! `rename` and `exchange`: what may be renamed over what, and what that means for files that are open.
//!
//! Must: what a program closed is sealed under the old name first; then the file is locked, so that it is not in between.
//! Must: where a file replaces one that a program synced, the new bytes are synced before the old ones may go.
//! Not here: what is written in the register of either name (`file`, `dir`, `local`, `leave`).

mod dir;
mod file;
mod leave;
mod local;

use super::names::{path_for, spelled};
use super::node::{Node, St};
use super::remove::Cause;
use super::{Touches, Vfs, not_found};
use crate::error::{Error, Kind, Result};
use crate::model::RelPath;
use crate::model::ops::Accepted;
use crate::state::rows::*;
use crate::state::tree::has_children;
use crate::state::{Ns, Tree};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a rename means for the file's next seal.
struct Moved {
    /// Whether it is local-only at its new place.
    local_only: bool,
    /// What its next seal replaces there.
    accept: Option<(RelPath, Accepted)>,
    /// It was local-only and is a file of the namespace from now on.
    enters: bool,
}

impl Vfs {
    /// Renames `name` in `dir` to `to_name` in `to`. `no_replace`: fail if that exists. Both files keep their inodes.
    pub fn rename(&self, dir: u64, name: &[u8], to: u64, to_name: &[u8], no_replace: bool) -> Result<()> {
        let (dir, to) = (self.live(dir), self.live(to));
        let own = [(dir, spelled(name)), (to, spelled(to_name))];
        let name = self.unalias(dir, &self.old_name(dir, name)?)?;
        let to_name = self.new_name(to, to_name)?;
        let (from, onto) = ((dir, name.as_str()), (to, to_name.as_str()));
        loop {
            match self.rename_once(&own, from, onto, no_replace) {
                Ok(true) => break,
                Ok(false) => {}
                Err(e) if e.kind() == Kind::CrossDevice => {
                    self.leave(&own, from, onto)?;
                    break;
                }
                Err(e) => return Err(e),
            }
        }
        self.tell_spelling(own[1], &to_name);
        self.sealed.notify_one();
        Ok(())
    }

    /// False if a version from elsewhere took the old name in between: then another file is to be moved.
    fn rename_once(&self, own: &[(u64, &str); 2], (dir, name): (u64, &str), (to, to_name): (u64, &str), no_replace: bool) -> Result<bool> {
        let ino = self.ino_at(dir, name)?;
        let is_dir = self.replica.read(|r| Ok(r.get::<Inode>(Tree::Inode, ino)?.is_some_and(|i| i.kind == FileType::Dir)))?;
        let ignored = self.ignored(to, to_name, is_dir)?.is_some();
        self.pass_promise_on(ino, self.ino_at(to, to_name)?)?;
        // The file that moves is locked, so that it is not sealed under its old name in between.
        let held = self.hold_local_only(ino)?;
        let node = held.clone().or_else(|| self.loaded(ino));
        if let Some(n) = &node {
            self.seal_if_closed(n)?;
        }
        let mut st = node.as_ref().map(|n| n.st.lock());
        let before = st.as_ref().map(|st| st.naming());
        let names = [(dir, name), (to, to_name)];
        let moved = self.change_settled(own, Touches::Moving(&names), |ns| {
            if ns.slot(dir, name)?.map_or(0, |s| s.ino()) != ino {
                return Ok(false);
            }
            let moved = self.rename_in(ns, (dir, name), (to, to_name), no_replace, ignored, self.options.move_at_once)?;
            self.note_move(ns, node.as_ref(), st.as_deref_mut(), moved.as_ref())?;
            Ok(true)
        });
        if let (Err(_), Some(st), Some(before)) = (&moved, &mut st, before) {
            st.name_as(before);
        }
        drop(st);
        if is_dir {
            // What is below it lies below others now.
            self.ignores.forget();
        }
        let done = match &moved {
            Ok(true) => self.after_move(node),
            _ => Ok(()),
        };
        if let Some(n) = held {
            self.unhold(&n);
        }
        done.and(moved)
    }

    /// A local-only file, held: a rename may make it a file of the namespace.
    fn hold_local_only(&self, ino: u64) -> Result<Option<Arc<Node>>> {
        let inode: Option<Inode> = self.replica.read(|r| r.get(Tree::Inode, ino))?;
        inode.filter(|i| i.local_only && i.kind == FileType::File).map(|_| self.hold(ino)).transpose()
    }

    /// A kernel takes what it knows of the old name along to the new one as that was spelled; nothing is told of another
    /// spelling than the stored one, so it must not keep it.
    fn tell_spelling(&self, (dir, given): (u64, &str), stored: &str) {
        if given != stored {
            // It leads where it led.
            let same = self.lookup(dir, given.as_bytes()).map_or(0, |a| a.ino);
            self.watchers.read().iter().for_each(|w| w.name(dir, given, same));
        }
    }

    /// Before a file replaces one whose bytes a program synced and that are nowhere but here: after a power cut there must
    /// be one of the two, so the new bytes are synced before the old ones may go. Programs that sync what they save, or
    /// never do, do not wait for it.
    fn pass_promise_on(&self, moved: u64, over: u64) -> Result<()> {
        if over == 0 || over == moved || !self.is_promised(over)? {
            return Ok(());
        }
        if self.replica.read(|r| r.get::<Inode>(Tree::Inode, moved))?.is_none_or(|i| i.kind != FileType::File) {
            return Ok(());
        }
        let node = self.hold(moved)?;
        let synced = self.fsync_node(&node);
        self.unhold(&node);
        synced
    }

    /// Whether a program synced bytes of a file that are nowhere but here.
    pub(super) fn is_promised(&self, ino: u64) -> Result<bool> {
        match self.loaded(ino) {
            Some(n) => Ok(n.st.lock().promise != Promise::None),
            None => Ok(self.replica.read(|r| r.get::<Local>(Tree::Local, ino))?.is_some_and(|l| l.promise != Promise::None)),
        }
    }

    pub(super) fn ino_at(&self, dir: u64, name: &str) -> Result<u64> {
        self.replica.read(|r| Ok(r.get::<Slot>(Tree::Entry, slot_key(dir, name))?.map_or(0, |s| s.ino())))
    }

    /// Within the transaction: what the next seal of a moved file replaces.
    fn note_move(&self, ns: &mut Ns<'_, '_>, node: Option<&Arc<Node>>, st: Option<&mut St>, moved: Option<&Moved>) -> Result<()> {
        if let (Some(n), Some(st), Some(m)) = (node, st, moved)
            && (n.is_busy() || m.enters)
        {
            if m.enters {
                // From here on, so that a version which arrives before its seal leaves it the name.
                let was = n.unsealed.swap(true, Ordering::AcqRel);
                let n = n.clone();
                ns.t.on_failure(move || n.unsealed.store(was, Ordering::Release));
            }
            st.accept = m.accept.clone();
            st.local_only = m.local_only;
            self.persist_in(ns, n, st)?;
        }
        Ok(())
    }

    /// After it: seals what has no writer any more.
    fn after_move(&self, node: Option<Arc<Node>>) -> Result<()> {
        match node {
            Some(n) if n.writers.load(Ordering::Acquire) == 0 => self.seal_if_needed(&n),
            _ => Ok(()),
        }
    }

    /// `ignored`: what [`Vfs::ignored`] said of the new name. `small`: directories with at most so many slots below them are
    /// written out at once.
    fn rename_in(
        &self,
        ns: &mut Ns<'_, '_>,
        (dir, name): (u64, &str),
        (to, to_name): (u64, &str),
        no_replace: bool,
        ignored: bool,
        small: usize,
    ) -> Result<Option<Moved>> {
        self.dir_inode(ns.t, dir)?;
        let parent = self.dir_inode(ns.t, to)?;
        let slot = ns.slot(dir, name)?.filter(|s| s.ino() != 0).ok_or_else(|| not_found(name))?;
        let ino = slot.ino();
        let inode = ns.inode(ino)?;
        let is_dir = inode.kind == FileType::Dir;
        let there = ns.slot(to, to_name)?.filter(|s| s.ino() != 0);
        if let Some(t) = &there {
            if no_replace {
                return Err(Error::new(Kind::Exists, format!("{to_name:?} exists")));
            }
            if t.ino() == ino {
                // One name, or two names of one file: POSIX leaves both.
                return Ok(None);
            }
            let over = ns.inode(t.ino())?;
            match (is_dir, over.kind == FileType::Dir) {
                (true, false) => return Err(Error::new(Kind::NotDir, format!("{to_name:?} is not a directory"))),
                (false, true) => return Err(Error::new(Kind::IsDir, format!("{to_name:?} is a directory"))),
                (true, true) if has_children(ns.t, t.ino())? => {
                    return Err(Error::new(Kind::NotEmpty, format!("{to_name:?} is not empty")));
                }
                _ => {}
            }
        }
        if is_dir {
            let mut up = to;
            while up != ROOT {
                if up == ino {
                    return Err(Error::new(Kind::Invalid, format!("{name:?} cannot be moved into itself")));
                }
                up = ns.inode(up)?.links.first().map_or(ROOT, |l| l.0);
            }
        }
        // What the fleet has stays in it: a save by rename is a save.
        let carried = there.as_ref().map(|t| ns.inode(t.ino())).transpose()?.is_some_and(|i| !i.local_only);
        let ignored = ignored && !carried;
        let local_there = {
            let t = &*ns.t;
            let rule = || crate::state::tree::path_of_dir(t, to);
            ignored || parent.local_only || inode.kind.is_special() || self.rules.is_local(rule, to_name, is_dir)?
        };
        if is_dir {
            if local_there != inode.local_only {
                return Err(Error::new(Kind::CrossDevice, format!("{name:?} cannot be moved across a local-only boundary in one step")));
            }
            if there.is_some() {
                self.rmdir_in(ns, to, to_name, Cause::Replaced)?;
                if ns.slot(to, to_name)?.is_some_and(|s| s.ino() != 0) {
                    let what = format!("{to_name:?} has a file beside the directory that would take its name");
                    return Err(Error::new(Kind::NotEmpty, what).hint("resolve the conflict first: tcfs resolve-conflict"));
                }
                // The directory itself may have gone with its last child.
                self.dir_inode(ns.t, to)?;
            }
            if inode.local_only {
                return self.move_local_dir(ns, (dir, name), slot, inode, (to, to_name)).map(|()| None);
            }
            return self.move_dir(ns, (dir, name), slot, inode, (to, to_name), small).map(|()| None);
        }
        if !local_there {
            path_for(ns.t, to, to_name)?;
        }
        if inode.local_only || local_there {
            return self.rename_local(ns, (dir, name), slot, inode, (to, to_name), there, local_there);
        }
        let Some(from) = self.at(ns.t, dir, name)? else { return Err(not_found(name)) };
        self.rename_file(ns, from, name, ino, (to, to_name)).map(|a| Some(Moved { local_only: false, accept: Some(a), enters: false }))
    }

    /// Swaps two names.
    ///
    /// Errors: `CrossDevice` if one is local-only and the other is not.
    pub fn exchange(&self, a: u64, a_name: &[u8], b: u64, b_name: &[u8]) -> Result<()> {
        let (a, b) = (self.live(a), self.live(b));
        let own = [(a, spelled(a_name)), (b, spelled(b_name))];
        let (an, bn) = (self.new_name(a, a_name)?, self.new_name(b, b_name)?);
        while !self.exchange_once(&own, (a, &an), (b, &bn))? {}
        self.ignores.forget();
        self.tell_spelling(own[0], &an);
        self.tell_spelling(own[1], &bn);
        self.sealed.notify_one();
        Ok(())
    }

    /// False if a version from elsewhere took one of the names in between.
    fn exchange_once(&self, own: &[(u64, &str); 2], (a, an): (u64, &str), (b, bn): (u64, &str)) -> Result<bool> {
        let (ia, ib) = (self.ino_at(a, an)?, self.ino_at(b, bn)?);
        for (ino, name) in [(ia, an), (ib, bn)] {
            if ino == 0 {
                return Err(not_found(name));
            }
        }
        if ia == ib {
            return Ok(true);
        }
        let is_dir = |ino| self.replica.read(|r| Ok(r.get::<Inode>(Tree::Inode, ino)?.is_some_and(|i| i.kind == FileType::Dir)));
        let ignored = (self.ignored(a, an, is_dir(ib)?)?.is_some(), self.ignored(b, bn, is_dir(ia)?)?.is_some());
        let (na, nb) = (self.loaded(ia), self.loaded(ib));
        let (mut sa, mut sb) = (None, None);
        for first in [ia < ib, ia > ib] {
            if first {
                sa = na.as_ref().map(|n| n.st.lock());
            } else {
                sb = nb.as_ref().map(|n| n.st.lock());
            }
        }
        let before = (sa.as_ref().map(|s| s.naming()), sb.as_ref().map(|s| s.naming()));
        let local = self.replica.read(|r| Ok(r.get::<Inode>(Tree::Inode, ia)?.is_some_and(|i| i.local_only)))?;
        // Through a third name within one transaction, one that keeps a local-only file what it is; coalescing leaves
        // nothing of it to publish. Each step is written out at once: the next one moves the same entries again.
        let third = format!("{}{:x}", if local { ".fuse_hidden-exchange-" } else { ".tcfs-exchange-" }, self.clock.random());
        let swapped = self.change_settled(own, Touches::Anything, |ns| {
            for (dir, name, ino) in [(a, an, ia), (b, bn, ib)] {
                if ns.slot(dir, name)?.map_or(0, |s| s.ino()) != ino {
                    return Ok(false);
                }
            }
            self.rename_in(ns, (a, an), (a, &third), true, false, usize::MAX)?;
            let mb = self.rename_in(ns, (b, bn), (a, an), true, ignored.0, usize::MAX)?;
            let ma = self.rename_in(ns, (a, &third), (b, bn), true, ignored.1, usize::MAX)?;
            self.note_move(ns, na.as_ref(), sa.as_deref_mut(), ma.as_ref())?;
            self.note_move(ns, nb.as_ref(), sb.as_deref_mut(), mb.as_ref())?;
            Ok(true)
        });
        if swapped.is_err() {
            for (st, was) in [(&mut sa, before.0), (&mut sb, before.1)] {
                if let (Some(st), Some(was)) = (st, was) {
                    st.name_as(was);
                }
            }
        }
        drop((sa, sb));
        let swapped = swapped?;
        if swapped {
            self.after_move(na)?;
            self.after_move(nb)?;
        }
        Ok(swapped)
    }
}
