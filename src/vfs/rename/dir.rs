//! Moves of directories: one row, and the tree has moved; what lies below is written out later.
//!
//! Must: the directory's number goes along; the old path gets another, for the tombstones.
//! Not here: writing the move out (`fleet::moves`).

use super::super::names::path_for;
use super::super::{Vfs, not_found};
use crate::error::Result;
use crate::model::ops;
use crate::state::rows::*;
use crate::state::{Change, Ns, Tree};
use std::sync::atomic::Ordering;

impl Vfs {
    pub(super) fn move_dir(
        &self,
        ns: &mut Ns<'_, '_>,
        (dir, name): (u64, &str),
        slot: Slot,
        mut inode: Inode,
        (to, to_name): (u64, &str),
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
            i.rename_link((dir, &s.name), (to, &free));
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
}
