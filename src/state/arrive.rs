//! Versions of paths of which nothing is known here, brought in and shown at once.
//!
//! Nearly all that a new device hears of, and much of what others make later, is that: the first head under a name that
//! was never used, in a directory that is there by a version of its own. The general way (merge, then reconcile) reads and
//! writes the rows of each name several times, and those of its directory once for each name in it.
//!
//! Must: what is shown afterwards is what the general way shows; whatever is not that simple is left to it.
//! Not here: which versions there are to bring in (`fleet::apply`).

use super::inode::file_type;
use super::namespace::Ns;
use super::replica::Change;
use super::rows::*;
use super::tree::locate;
use crate::error::Result;
use crate::model::entry::Entry;
use crate::model::{Kind, RelPath, Version};
use std::collections::{BTreeMap, HashMap, HashSet};

/// What arrives in one transaction.
pub struct Arrivals<'v> {
    /// Paths of which the batch says something.
    told: HashSet<&'v RelPath>,
    /// Paths of which it says more than one thing.
    told_more: HashSet<&'v RelPath>,
    /// Number of each directory that was looked at; none where the general way has to be gone.
    dirs: HashMap<RelPath, Option<u64>>,
    /// Directories that got something.
    listings: BTreeMap<u64, Came>,
}

/// What came into a directory.
struct Came {
    /// The newest change of its listing.
    at: Time,
    /// How many directories.
    subdirs: i32,
}

impl<'v> Arrivals<'v> {
    /// Those of a batch.
    pub fn of(batch: &'v [Version]) -> Arrivals<'v> {
        let mut told_more: HashSet<&RelPath> = batch.iter().filter_map(|v| v.moved_to.as_ref()).collect();
        let mut told: HashSet<&RelPath> = HashSet::with_capacity(batch.len());
        told_more.extend(batch.iter().map(|v| &v.path).filter(|p| !told.insert(p)));
        Arrivals { told, told_more, dirs: HashMap::new(), listings: BTreeMap::new() }
    }

    /// Brings in a version of the batch that changed its directory's listing at `at`, if nothing else is known of its path
    /// and its directory is there. False: nothing was done.
    pub fn bring(&mut self, ns: &mut Ns<'_, '_>, v: &Version, at: Time) -> Result<bool> {
        if !matches!(v.kind, Kind::File(_) | Kind::Symlink { .. } | Kind::Dir) || v.is_uncut() || self.told_more.contains(&v.path) {
            return Ok(false);
        }
        let Some(parent) = v.path.parent() else { return Ok(false) };
        let Some(dir) = self.directory(ns, parent)? else { return Ok(false) };
        let name = v.path.file_name();
        if ns.slot(dir, name)?.is_some() {
            return Ok(false);
        }
        let (kind, now) = (file_type(v), ns.ctx.now);
        let is_dir = kind == FileType::Dir;
        let ino = ns.next_id();
        let mut i = Inode::new(kind, 0, ns.ctx.uid, ns.ctx.gid, now);
        i.take(v, v.mode, v.mtime, now);
        if is_dir {
            // The first time that this number is there.
            i.generation = 1;
            self.dirs.insert(v.path.clone(), Some(ino));
        } else {
            (i.atime, i.btime) = (i.mtime, i.mtime);
        }
        i.links.push((dir, name.to_owned()));
        ns.put_inode(ino, &i)?;
        let r = Register { ino, dir: if is_dir { ino } else { 0 }, entry: Entry::of([v.clone()]), ..Register::default() };
        ns.put_slot(dir, name, &Slot::Register(Box::new(r)))?;
        ns.changes.push(Change::Name { dir, name: name.to_owned(), was: 0 });
        let came = self.listings.entry(dir).or_insert(Came { at, subdirs: 0 });
        came.at = came.at.max(at);
        came.subdirs += i32::from(is_dir);
        Ok(true)
    }

    /// The entry of `path` changed in another way.
    pub fn forget(&mut self, path: &RelPath) {
        self.dirs.remove(path);
    }

    /// Has the listings tell of what came. When all else of the transaction is reconciled: a directory's version gives it
    /// its time, and what came into it a newer one.
    pub fn finish(self, ns: &mut Ns<'_, '_>) -> Result<()> {
        let before = ns.made_at;
        for (dir, came) in self.listings {
            ns.made_at = Some(came.at);
            ns.touch_dir(dir, came.subdirs)?;
        }
        ns.made_at = before;
        Ok(())
    }

    /// The number of a directory that is shown by its only head: another name in it changes nothing for it.
    fn directory(&mut self, ns: &Ns<'_, '_>, path: RelPath) -> Result<Option<u64>> {
        if path.is_root() {
            return Ok(Some(ROOT));
        }
        if let Some(known) = self.dirs.get(&path) {
            return Ok(*known);
        }
        if self.told.contains(&path) {
            // It changes in this batch, and did not come with it: whether it stays is seen first.
            return Ok(None);
        }
        let found = locate(ns.t, &path)?.and_then(|(_, r)| match r.entry.heads.as_slice() {
            [only] if only.is_dir() && !only.is_held_back() && r.ino != 0 && r.ino == r.dir => Some(r.dir),
            _ => None,
        });
        self.dirs.insert(path, found);
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
