//! Renames of what is local-only, before or after.
//!
//! Must: a file that enters the namespace is a new file there, with all its bytes unsealed.
//! Not here: files that leave it (`leave`).

use super::super::Vfs;
use super::super::remove::Cause;
use super::Moved;
use crate::error::{Error, Kind, Result};
use crate::model::ops::Accepted;
use crate::state::rows::*;
use crate::state::{Change, Ns, Tree};

impl Vfs {
    /// A file that is local-only before or after.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn rename_local(
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
            return Err(Error::new(Kind::CrossDevice, format!("{name:?} becomes local-only")));
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
                self.unlink_in(ns, to, to_name, Cause::Replaced)?;
            }
            self.take_name(ns, to, to_name, ino, local_there)?;
            if !local_there && let Some(at) = self.at(ns.t, to, to_name)? {
                accept = Some((at.path, Accepted::of_entry(&at.reg.entry)));
            }
        }
        self.clear_local(ns, dir, name, slot)?;
        inode.rename_link((dir, name), (to, to_name));
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

    pub(super) fn move_local_dir(
        &self,
        ns: &mut Ns<'_, '_>,
        (dir, name): (u64, &str),
        slot: Slot,
        mut inode: Inode,
        (to, to_name): (u64, &str),
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
}
