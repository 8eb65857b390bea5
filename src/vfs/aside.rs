//! Removing a file that somebody on the other side of a protocol has open: a client of a server that knows no open files
//! gives it a name of its own first, removes that at the last close, and never asks for the removal itself.
//!
//! Must: to the fleet the file is removed then and there; its bytes stay readable here under the client's name, which never
//! leaves this machine.
//! Not here: which names those are (`rules`).

use super::Vfs;
use super::names::spelled;
use super::remove::Cause;
use super::{Touches, not_found};
use crate::error::{Error, Kind, Result};
use crate::state::rows::{FileType, Inode};
use crate::state::{Change, Tree};

/// How the names begin that NFS clients give to files that were removed while they were open.
const ASIDE: &[u8] = b".nfs";

impl Vfs {
    /// Whether a rename to this name means: remove it, I have it open.
    pub fn is_aside(name: &[u8]) -> bool {
        name.starts_with(ASIDE)
    }

    /// Removes the file `name` in `dir`, and keeps it on this machine as `aside` in the same directory.
    ///
    /// Errors: `Exists` if there is a file `aside`; as for [`Vfs::unlink`].
    pub fn set_aside(&self, dir: u64, name: &[u8], aside: &[u8]) -> Result<()> {
        let own = [(dir, spelled(name)), (dir, spelled(aside))];
        let (name, aside) = (self.unalias(dir, &self.old_name(dir, name)?)?, self.new_name(dir, aside)?);
        let ino = self.ino_at(dir, &name)?;
        let kind = self.replica.read(|r| Ok(r.get::<Inode>(Tree::Inode, ino)?.map(|i| i.kind)))?.ok_or_else(|| not_found(&name))?;
        let node = if kind == FileType::File { Some(self.hold(ino)?) } else { None };
        let mut st = node.as_ref().map(|n| n.st.lock());
        let before = st.as_ref().map(|st| st.naming());
        let done = self.change_settled(&own, Touches::Only(&[dir]), |ns| {
            self.dir_inode(ns.t, dir)?;
            if ns.slot(dir, &name)?.map_or(0, |s| s.ino()) != ino {
                return Err(Error::new(Kind::Busy, format!("another file took the name {name:?}")));
            }
            if ns.slot(dir, &aside)?.is_some_and(|s| s.ino() != 0) {
                return Err(Error::new(Kind::Exists, format!("{aside:?} exists")));
            }
            let linked = ns.inode(ino)?.links.len() > 1;
            self.unlink_in(ns, dir, &name, Cause::Deleted)?;
            if linked {
                // Its other names keep it.
                return Ok(());
            }
            ns.changes.retain(|c| *c != Change::Orphan(ino));
            self.take_name(ns, dir, &aside, ino, true)?;
            ns.add_link(ino, dir, &aside)?;
            let mut inode = ns.inode(ino)?;
            inode.local_only = true;
            ns.put_inode(ino, &inode)?;
            ns.t.del(Tree::Unsealed, ino)?;
            ns.touch_dir(dir, 0)?;
            if let (Some(n), Some(st)) = (&node, &mut st) {
                (st.local_only, st.accept) = (true, None);
                self.persist_in(ns, n, st)?;
            }
            Ok(())
        });
        if let (Err(_), Some(st), Some(before)) = (&done, &mut st, before) {
            st.name_as(before);
        }
        drop(st);
        if let Some(n) = node {
            self.unhold(&n);
        }
        self.sealed.notify_one();
        done
    }
}
