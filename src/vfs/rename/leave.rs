//! A file that leaves the namespace by a rename: for the fleet it is deleted, here it goes on under a local-only name.
//!
//! Must: all its bytes are here, and nowhere that they could be evicted from, before the fleet hears that it is gone.
//! Not here: the way in (`local`), what is local-only (`rules`, `ignores`).

use super::super::node::{Node, St};
use super::super::remove::Cause;
use super::super::{Touches, Vfs};
use crate::error::{Error, Kind, Result};
use crate::model::VClock;
use crate::state::Tree;
use crate::state::rows::*;
use std::sync::Arc;

impl Vfs {
    /// Moves a file or a symbolic link to a name that is local-only.
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
            _ => Err(cannot(from.1, "is no file of the drive")),
        }
    }

    fn leave_with(&self, node: &Arc<Node>, own: &[(u64, &str); 2], from: (u64, &str), to: (u64, &str)) -> Result<()> {
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
