//! Rename, in all its forms.

use super::heads::At;
use super::names::{parse_name, path_for, spelled};
use super::node::{Node, St};
use super::{Touches, Vfs, not_found};
use crate::error::{Error, Kind, Result};
use crate::model::ops::{self, Accepted, Target};
use crate::model::{self, FileContent, Hash, RelPath, Version};
use crate::state::rows::*;
use crate::state::tree::has_children;
use crate::state::{Change, Ns, Tree, holds};
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
        let own = [(dir, spelled(name)), (to, spelled(to_name))];
        let name = self.unalias(dir, &parse_name(name)?)?;
        let to_name = parse_name(to_name)?;
        self.pass_promise_on(self.ino_at(dir, &name)?, self.ino_at(to, &to_name)?)?;
        // The file that moves is locked, so that it is not sealed under its old name in between.
        let ino = self.ino_at(dir, &name)?;
        let node = self.loaded(ino);
        let mut st = node.as_ref().map(|n| n.st.lock());
        let names = [(dir, name.as_str()), (to, to_name.as_str())];
        let moved = self.change_settled(&own, Touches::Moving(&names), |ns| {
            let moved = self.rename_in(ns, dir, &name, to, &to_name, no_replace, self.options.move_at_once)?;
            self.note_move(ns, node.as_deref(), st.as_deref_mut(), moved.as_ref())?;
            Ok(moved)
        })?;
        drop(st);
        self.after_move(ino, node, moved.as_ref())?;
        self.tell_spelling(own[1], &to_name);
        self.sealed.notify_one();
        Ok(())
    }

    /// A kernel takes what it knows of the old name along to the new one as that was spelled; nothing is told of another
    /// spelling than the stored one, so it must not keep it.
    fn tell_spelling(&self, (dir, given): (u64, &str), stored: &str) {
        if given != stored {
            self.watchers.read().iter().for_each(|w| w.name(dir, given));
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
            Some(n) => Ok(n.st.lock().promised),
            None => Ok(self.replica.read(|r| r.get::<Local>(Tree::Local, ino))?.is_some_and(|l| l.promised)),
        }
    }

    pub(super) fn ino_at(&self, dir: u64, name: &str) -> Result<u64> {
        self.replica.read(|r| Ok(r.get::<Slot>(Tree::Entry, slot_key(dir, name))?.map_or(0, |s| s.ino())))
    }

    /// Within the transaction: what the next seal of a moved file replaces.
    fn note_move(&self, ns: &mut Ns<'_, '_>, node: Option<&Node>, st: Option<&mut St>, moved: Option<&Moved>) -> Result<()> {
        if let (Some(n), Some(st), Some(m)) = (node, st, moved)
            && (n.is_busy() || m.enters)
        {
            st.accept = m.accept.clone();
            st.local_only = m.local_only;
            self.persist_in(ns, n, st)?;
        }
        Ok(())
    }

    /// After it: seals what has no writer any more, or is a file of the namespace only now.
    fn after_move(&self, ino: u64, node: Option<Arc<Node>>, moved: Option<&Moved>) -> Result<()> {
        if moved.is_some_and(|m| m.enters) {
            let n = self.hold(ino)?;
            n.unsealed.store(true, Ordering::Release);
            let sealed = if n.writers.load(Ordering::Acquire) == 0 { self.seal_if_needed(&n) } else { Ok(()) };
            self.unhold(&n);
            sealed
        } else if let Some(n) = node
            && n.writers.load(Ordering::Acquire) == 0
        {
            self.seal_if_needed(&n)
        } else {
            Ok(())
        }
    }

    /// `small`: directories with at most so many slots below them are written out at once.
    #[allow(clippy::too_many_arguments)]
    fn rename_in(
        &self,
        ns: &mut Ns<'_, '_>,
        dir: u64,
        name: &str,
        to: u64,
        to_name: &str,
        no_replace: bool,
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
        let local_there = {
            let t = &*ns.t;
            let rule = || crate::state::tree::path_of_dir(t, to);
            parent.local_only || inode.kind.is_special() || self.rules.is_local(rule, to_name, is_dir)?
        };
        if is_dir {
            if local_there != inode.local_only {
                return Err(Error::new(Kind::CrossDevice, format!("{name:?} cannot be moved across a local-only boundary in one step")));
            }
            if there.is_some() {
                self.rmdir_in(ns, to, to_name)?;
                if ns.slot(to, to_name)?.is_some_and(|s| s.ino() != 0) {
                    let what = format!("{to_name:?} has a file beside the directory that would take its name");
                    return Err(Error::new(Kind::NotEmpty, what).hint("resolve the conflict first: tcfs resolve-conflict"));
                }
                // The directory itself may have gone with its last child.
                self.dir_inode(ns.t, to)?;
            }
            if inode.local_only {
                return self.move_local_dir(ns, dir, name, slot, inode, to, to_name).map(|()| None);
            }
            return self.move_dir(ns, dir, name, slot, inode, to, to_name, small).map(|()| None);
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

    /// What a rename over `to_name` replaces, and that register with whatever was shown taken off it.
    fn clear_target(&self, ns: &mut Ns<'_, '_>, to: u64, to_name: &str) -> Result<(At, Accepted)> {
        // A real file takes a sibling's name only by replacing that sibling, which is then gone.
        let at = self.at(ns.t, to, to_name)?;
        if let Some(at) = at {
            if at.target != Target::Path {
                self.unlink_in(ns, to, to_name)?;
                return self.clear_target(ns, to, to_name);
            }
            let accepted = self.accepted(ns.t, &at)?;
            return Ok((at, accepted));
        }
        if ns.slot(to, to_name)?.is_some() {
            self.unlink_in(ns, to, to_name)?;
        }
        let reg = ns.register(to, to_name)?;
        let path = ns.path_of_dir(to)?.join(to_name);
        let accepted = Accepted::of_entry(&reg.entry);
        Ok((At { dir: to, name: to_name.to_owned(), path, reg, target: Target::Path }, accepted))
    }

    fn rename_file(&self, ns: &mut Ns<'_, '_>, from: At, name: &str, ino: u64, (to, to_name): (u64, &str)) -> Result<(RelPath, Accepted)> {
        let author = self.author();
        // `mv sibling path`: both are accepted.
        if let Target::Sibling(n) = from.target
            && from.dir == to
            && from.name == to_name
        {
            return self.sibling_onto_path(ns, from, name, n, ino);
        }
        let (mut over, accepted) = self.clear_target(ns, to, to_name)?;
        // Clearing the target may have changed what is moved: its register, or which sibling it is.
        let Some(from) = self.at(ns.t, from.dir, name)? else { return Err(not_found(name)) };
        let mut reg = from.reg;
        let made: Option<Vec<Version>> = {
            let here = ops::At { path: &from.path, entry: &reg.entry };
            let there = ops::At { path: &over.path, entry: &over.reg.entry };
            let done = match from.target {
                Target::Path => {
                    let was = self.with_seen(ns.t, &reg, |v, _| v.and_then(|v| v.shown.cloned()))?;
                    let mine = match &was {
                        Some(h) if self.waits(&reg) => {
                            let i = ns.inode(ino)?;
                            i.links.len() == 1 && i.shows == h.vclock || holds(ns.t, ino, &i, h)?
                        }
                        _ => true,
                    };
                    self.with_seen(ns.t, &reg, |v, _| {
                        let v = v.filter(|v| v.shown.is_some())?;
                        // An unsealed file that was put over another one: that one is gone, this one is sealed over there.
                        Some(if mine {
                            ops::rename(here, v, there, &accepted, &author)
                        } else {
                            ops::remove(here.path, here.entry, v, Target::Path, &author).map(|t| vec![t])
                        })
                    })?
                }
                Target::Sibling(n) => self.with_view(ns.t, &reg, |v, _| ops::rename_sibling_away(here, v, n, there, &accepted, &author))?,
            };
            done.transpose()?
        };
        let mut out = made.unwrap_or_default();
        let unsealed = self.loaded(ino).is_some_and(|n| n.unsealed.load(Ordering::Acquire));
        if !unsealed && out.iter().all(Version::is_tombstone) {
            // A newer version waits for a writer here: what is shown goes, that one stays.
            let i = ns.inode(ino)?;
            let attrs = ops::Attrs { mode: i.mode, mtime: i.mtime.pair(), xattrs: super::attr::encode_xattrs(&i.xattrs) };
            let kind = match (i.kind, ns.t.get::<Local>(Tree::Local, ino)?.and_then(|l| l.token), i.content) {
                (FileType::Symlink, ..) => Some(model::Kind::Symlink { target: i.target }),
                (_, Some((root, _)), _) => {
                    Some(model::Kind::File(FileContent { manifest: Hash::ZERO, size: i.size, root, chunks: None, hash: None }))
                }
                (_, None, content) => content.map(model::Kind::File),
            };
            if let Some(kind) = kind {
                out.insert(0, ops::write(&over.path, &over.reg.entry, &accepted, kind, attrs, &author)?);
            }
        }
        let moved = out.iter().find(|v| v.path == over.path && !v.is_tombstone()).cloned();
        let dropped = over.reg.ino;
        over.reg.ino = ino;
        let mut inode = ns.inode(ino)?;
        for v in &out {
            if v.path == over.path {
                ns.merge_into(&mut over.reg, v)?;
                inode.shows = v.vclock.clone();
            } else {
                ns.merge_into(&mut reg, v)?;
            }
        }
        if moved.is_none() {
            inode.shows = crate::model::VClock::new();
        }
        for l in inode.links.iter_mut().filter(|l| l.0 == from.dir && l.1 == name) {
            *l = (to, to_name.to_owned());
        }
        inode.ctime = ns.ctx.now;
        ns.put_inode(ino, &inode)?;
        if name == from.name {
            reg.ino = 0;
        } else {
            reg.sibs.retain(|s| s.ino != ino);
            ns.del_slot(from.dir, name)?;
        }
        let empty = reg.entry.is_empty() && reg.dir == 0 && reg.sibs.is_empty() && reg.ino == 0;
        if empty {
            ns.del_slot(from.dir, &from.name)?
        } else {
            ns.put_slot(from.dir, &from.name, &Slot::Register(Box::new(reg)))?
        }
        let next = match &moved {
            Some(v) => (over.path.clone(), accepted.after(v)),
            None => (over.path.clone(), accepted),
        };
        ns.put_slot(to, to_name, &Slot::Register(Box::new(over.reg)))?;
        if dropped != 0 && dropped != ino {
            ns.drop_link(dropped, to, to_name)?;
        }
        ns.changes.push(Change::Name { dir: from.dir, name: name.to_owned(), was: ino });
        ns.changes.push(Change::Name { dir: to, name: to_name.to_owned(), was: dropped });
        ns.touch_dir(from.dir, 0)?;
        if to != from.dir {
            ns.touch_dir(to, 0)?;
        }
        let files = self.files_of(ns, &out, ino)?;
        ns.reconcile_one(from.dir, &from.name)?;
        ns.reconcile(to, to_name)?;
        self.keep_parent(ns, from.dir, &mut out)?;
        ns.reconcile_up(from.dir)?;
        if !out.is_empty() {
            self.enqueue(ns, Sealed { versions: out, files, ..self.sealed_row() })?;
        }
        Ok(next)
    }

    fn sibling_onto_path(&self, ns: &mut Ns<'_, '_>, from: At, name: &str, n: usize, ino: u64) -> Result<(RelPath, Accepted)> {
        let author = self.author();
        let mut reg = from.reg;
        let made = self.with_view(ns.t, &reg, |v, e| ops::rename_sibling_onto_path(&from.path, e, v, n, &author))?;
        let v = made.ok_or_else(|| not_found(name))??;
        ns.merge_into(&mut reg, &v)?;
        let old = reg.ino;
        reg.ino = ino;
        reg.sibs.retain(|s| s.ino != ino);
        let mut inode = ns.inode(ino)?;
        inode.shows = v.vclock.clone();
        for l in inode.links.iter_mut().filter(|l| l.0 == from.dir && l.1 == name) {
            l.1 = from.name.clone();
        }
        inode.ctime = ns.ctx.now;
        ns.put_inode(ino, &inode)?;
        ns.del_slot(from.dir, name)?;
        ns.put_slot(from.dir, &from.name, &Slot::Register(Box::new(reg)))?;
        if old != 0 {
            ns.drop_link(old, from.dir, &from.name)?;
        }
        ns.changes.push(Change::Name { dir: from.dir, name: name.to_owned(), was: ino });
        ns.changes.push(Change::Name { dir: from.dir, name: from.name.clone(), was: old });
        ns.touch_dir(from.dir, 0)?;
        ns.reconcile(from.dir, &from.name)?;
        let files = self.files_of(ns, std::slice::from_ref(&v), ino)?;
        let accept = (from.path, Accepted::nothing().after(&v));
        self.enqueue(ns, Sealed { versions: vec![v], files, ..self.sealed_row() })?;
        Ok(accept)
    }

    /// A file that is local-only before or after.
    #[allow(clippy::too_many_arguments)]
    fn rename_local(
        &self,
        ns: &mut Ns<'_, '_>,
        (dir, name): (u64, &str),
        slot: Slot,
        mut inode: Inode,
        (to, to_name): (u64, &str),
        there: Option<Slot>,
        local_there: bool,
    ) -> Result<Option<Moved>> {
        let ino = slot.ino();
        let file = inode.kind == FileType::File;
        if !inode.local_only && file {
            // The bytes have to be here, and only here, from now on: programs copy instead.
            let local: Option<Local> = ns.t.get(Tree::Local, ino)?;
            let whole = inode.size == 0 || inode.content.is_none() || local.is_some_and(|l| l.have.covers(0..inode.size));
            if !whole || self.loaded(ino).is_some_and(|n| n.is_busy()) {
                return Err(Error::new(Kind::CrossDevice, format!("{name:?} becomes local-only and is not all here")));
            }
            return Err(Error::new(Kind::CrossDevice, format!("{name:?} becomes local-only: copied, then removed")));
        }
        if inode.kind == FileType::Symlink && inode.local_only != local_there {
            return Err(Error::new(Kind::CrossDevice, format!("{name:?} crosses a local-only boundary: copied, then removed")));
        }
        let mut accept = None;
        if there.is_some() && !local_there {
            // A save by rename from a local-only temporary name: a new version of the target.
            let (over, accepted) = self.clear_target(ns, to, to_name)?;
            let mut reg = over.reg;
            let dropped = reg.ino;
            reg.ino = ino;
            ns.put_slot(to, to_name, &Slot::Register(Box::new(reg)))?;
            if dropped != 0 {
                ns.drop_link(dropped, to, to_name)?;
            }
            ns.changes.push(Change::Name { dir: to, name: to_name.to_owned(), was: dropped });
            accept = Some((over.path, accepted));
        } else {
            if there.is_some() {
                self.unlink_in(ns, to, to_name)?;
            }
            self.take_name(ns, to, to_name, ino, local_there)?;
            if !local_there && let Some(at) = self.at(ns.t, to, to_name)? {
                accept = Some((at.path, Accepted::of_entry(&at.reg.entry)));
            }
        }
        self.clear_local(ns, dir, name, slot)?;
        for l in inode.links.iter_mut().filter(|l| l.0 == dir && l.1 == name) {
            *l = (to, to_name.to_owned());
        }
        inode.ctime = ns.ctx.now;
        let enters = inode.local_only && !local_there;
        inode.local_only = local_there;
        ns.put_inode(ino, &inode)?;
        ns.changes.push(Change::Name { dir, name: name.to_owned(), was: ino });
        ns.touch_dir(dir, 0)?;
        ns.touch_dir(to, 0)?;
        // A directory that only this file kept was removed elsewhere.
        ns.reconcile_up(dir)?;
        if enters && file {
            // From here on it is a new file of the namespace with all its bytes unsealed.
            ns.t.put(Tree::Unsealed, ino, &())?;
            let local: Option<Local> = ns.t.get(Tree::Local, ino)?;
            let mut local = local.unwrap_or(Local { overlay: true, ..Local::default() });
            local.accept = accept.clone();
            ns.t.put(Tree::Local, ino, &local)?;
        }
        Ok(Some(Moved { local_only: local_there, accept, enters: enters && file }))
    }

    #[allow(clippy::too_many_arguments)]
    fn move_local_dir(
        &self,
        ns: &mut Ns<'_, '_>,
        dir: u64,
        name: &str,
        slot: Slot,
        mut inode: Inode,
        to: u64,
        to_name: &str,
    ) -> Result<()> {
        let ino = slot.ino();
        self.take_name(ns, to, to_name, ino, true)?;
        self.clear_local(ns, dir, name, slot)?;
        inode.links = vec![(to, to_name.to_owned())];
        inode.ctime = ns.ctx.now;
        ns.put_inode(ino, &inode)?;
        ns.changes.push(Change::Name { dir, name: name.to_owned(), was: ino });
        ns.touch_dir(dir, -1)?;
        ns.touch_dir(to, 1)?;
        ns.reconcile_up(dir)
    }

    #[allow(clippy::too_many_arguments)]
    fn move_dir(
        &self,
        ns: &mut Ns<'_, '_>,
        dir: u64,
        name: &str,
        slot: Slot,
        mut inode: Inode,
        to: u64,
        to_name: &str,
        small: usize,
    ) -> Result<()> {
        let ino = slot.ino();
        let Slot::Register(from_reg) = slot else { return Err(not_found(name)) };
        path_for(ns.t, to, to_name)?;
        self.still_a_dir(ns, &from_reg, name)?;
        let (from, path) = (ns.path_of_dir(dir)?.join(name), ns.path_of_dir(to)?.join(to_name));
        let mut over = ns.register(to, to_name)?;
        let under = over.dir;
        // The number goes along; the old path gets a new, gone one for its tombstones.
        let old = ns.next_id();
        let mut gone = Inode::new(FileType::Dir, inode.mode, inode.uid, inode.gid, ns.ctx.now);
        gone.links.push((dir, name.to_owned()));
        gone.dead = true;
        ns.put_inode(old, &gone)?;
        if under != 0 {
            // What lay at the new path (tombstones only) is merged in when the move is written out.
            let mut u = ns.inode(under)?;
            u.dead = true;
            ns.put_inode(under, &u)?;
        }
        inode.links = vec![(to, to_name.to_owned())];
        inode.ctime = ns.ctx.now;

        let author = self.author();
        let mut versions = self
            .with_view(ns.t, &from_reg, |v, e| {
                let here = ops::At { path: &from, entry: e };
                ops::move_entry(here, v, ops::At { path: &path, entry: &over.entry }, &author)
            })?
            .transpose()?
            .unwrap_or_default();
        crate::fleet::moves::keep_time(&mut versions, &path, &inode);
        ns.leave_conflict(dir, name)?;
        let mut left = Register { ino: 0, dir: old, epoch: 0, entry: from_reg.entry.clone(), sibs: Vec::new() };
        over.dir = ino;
        over.ino = ino;
        // Files shown beside the directory go with it, as heads of its new name, in their order.
        let mut beside = Vec::new();
        for v in &versions {
            if v.path == path {
                ns.merge_into(&mut over, v)?;
                if v.is_dir() {
                    inode.shows = v.vclock.clone();
                } else {
                    beside.push(v.vclock.clone());
                }
            } else {
                ns.merge_into(&mut left, v)?;
            }
        }
        let mut files = Vec::new();
        let heads = self.with_view(ns.t, &from_reg, |v, _| v.siblings.iter().map(|s| s.head.vclock.clone()).collect::<Vec<_>>())?;
        for s in &from_reg.sibs {
            let now = heads.iter().flatten().position(|h| *h == s.clock).and_then(|at| beside.get(at).cloned());
            let clock = now.unwrap_or_else(|| s.clock.clone());
            files.extend(self.files_of(ns, &versions, s.ino)?);
            let free = crate::model::path::name(format!("{to_name}.{:x}", s.ino).as_bytes()).unwrap_or_else(|_| format!("{:x}", s.ino));
            let mut i = ns.inode(s.ino)?;
            for l in i.links.iter_mut().filter(|l| l.0 == dir && l.1 == s.name) {
                *l = (to, free.clone());
            }
            i.shows = clock.clone();
            ns.put_inode(s.ino, &i)?;
            ns.del_slot(dir, &s.name)?;
            ns.put_slot(to, &free, &Slot::Sibling { ino: s.ino, of: to_name.to_owned() })?;
            over.sibs.push(Sib { name: free, ino: s.ino, clock });
            ns.changes.push(Change::Name { dir, name: s.name.clone(), was: s.ino });
        }
        ns.put_inode(ino, &inode)?;
        ns.put_slot(to, to_name, &Slot::Register(Box::new(over)))?;
        ns.put_slot(dir, name, &Slot::Register(Box::new(left)))?;
        let id = ns.next_id();
        let row = DirMove { from, to: path, dir: ino, old, under };
        ns.t.put(Tree::Move, id, &row)?;
        let mut out = versions;
        ns.changes.push(Change::Name { dir, name: name.to_owned(), was: ino });
        ns.changes.push(Change::Name { dir: to, name: to_name.to_owned(), was: 0 });
        ns.touch_dir(dir, -1)?;
        ns.touch_dir(to, 1)?;
        self.keep_parent(ns, dir, &mut out)?;
        self.enqueue(ns, Sealed { versions: out, files, ..self.sealed_row() })?;
        if !crate::fleet::moves::write_out_small(ns, id, &row, small, &author, self.boot)? {
            self.moves_pending.store(true, Ordering::Release);
        }
        ns.reconcile_one(to, to_name)?;
        ns.reconcile_up(to)?;
        ns.reconcile_up(dir)
    }

    /// Swaps two names.
    pub fn exchange(&self, a: u64, a_name: &[u8], b: u64, b_name: &[u8]) -> Result<()> {
        let own = [(a, spelled(a_name)), (b, spelled(b_name))];
        let (an, bn) = (parse_name(a_name)?, parse_name(b_name)?);
        let (ia, ib) = (self.ino_at(a, &an)?, self.ino_at(b, &bn)?);
        for (ino, name) in [(ia, &an), (ib, &bn)] {
            if ino == 0 {
                return Err(not_found(name));
            }
        }
        if ia == ib {
            return Ok(());
        }
        let (na, nb) = (self.loaded(ia), self.loaded(ib));
        let (mut sa, mut sb) = (None, None);
        for first in [ia < ib, ia > ib] {
            if first {
                sa = na.as_ref().map(|n| n.st.lock());
            } else {
                sb = nb.as_ref().map(|n| n.st.lock());
            }
        }
        // Through a third name within one transaction; coalescing leaves nothing of it to publish. Each step is written
        // out at once: the next one moves the same entries again.
        let third = format!(".tcfs-exchange-{:x}", self.clock.random());
        let (ma, mb) = self.change_settled(&own, Touches::Anything, |ns| {
            self.rename_in(ns, a, &an, a, &third, true, usize::MAX)?;
            let mb = self.rename_in(ns, b, &bn, a, &an, true, usize::MAX)?;
            let ma = self.rename_in(ns, a, &third, b, &bn, true, usize::MAX)?;
            self.note_move(ns, na.as_deref(), sa.as_deref_mut(), ma.as_ref())?;
            self.note_move(ns, nb.as_deref(), sb.as_deref_mut(), mb.as_ref())?;
            Ok((ma, mb))
        })?;
        drop((sa, sb));
        self.after_move(ia, na, ma.as_ref())?;
        self.after_move(ib, nb, mb.as_ref())?;
        self.tell_spelling(own[0], &an);
        self.tell_spelling(own[1], &bn);
        self.sealed.notify_one();
        Ok(())
    }
}

impl FileType {
    /// Fifos, sockets and device nodes, which never leave this machine.
    pub(crate) fn is_special(self) -> bool {
        matches!(self, FileType::Fifo | FileType::Socket | FileType::Char | FileType::Block)
    }
}
