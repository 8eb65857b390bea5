//! A transaction on the namespace: its slots, registers, inodes and links, and merging versions into registers.
//!
//! Must: a head that another one covers goes to the history in the same transaction.
//! Must: whoever makes a name lead elsewhere says so in `changes`.
//! Not here: bringing names to what their registers say (`reconcile`).

use super::replica::{Change, Ctx, Replica};
use super::rows::*;
use super::schema::Tree;
use super::tree::{NAMES, has_children, inode_at, locate, names, path_of_dir};
use super::txn::Txn;
use crate::error::{Error, Kind, Result};
use crate::model::brake::in_effect;
use crate::model::entry::Entry;
use crate::model::sibling::{sibling_name, sibling_names};
use crate::model::view::view;
use crate::model::{RelPath, VClock, Version};
use std::collections::BTreeMap;

/// One transaction on the namespace.
pub struct Ns<'a, 't> {
    /// Rows.
    pub t: &'a mut Txn<'t>,
    pub(super) replica: &'a Replica,
    /// The world.
    pub ctx: &'a Ctx<'a>,
    /// What changed so far.
    pub changes: Vec<Change>,
    /// When what is being brought in from elsewhere was done there: the times of listings go by it. None: now.
    pub made_at: Option<Time>,
    /// Paths that got or lost a head under the brake.
    pub(super) braked: Vec<RelPath>,
}

impl Ns<'_, '_> {
    /// A number never used before.
    pub fn next_id(&self) -> u64 {
        self.replica.next_id()
    }

    /// An inode; `Stale` if it is gone.
    pub fn inode(&self, ino: u64) -> Result<Inode> {
        inode_at(self.t, ino)
    }

    /// Writes an inode.
    pub fn put_inode(&mut self, ino: u64, i: &Inode) -> Result<()> {
        self.t.put(Tree::Inode, ino, i)
    }

    /// A slot.
    pub fn slot(&self, dir: u64, name: &str) -> Result<Option<Slot>> {
        self.t.get(Tree::Entry, slot_key(dir, name))
    }

    /// The first name of a sibling of `name` that nothing in the directory has.
    pub fn free_sibling(&self, dir: u64, name: &str, label: &str) -> Result<String> {
        let mut n = 1;
        loop {
            let free = sibling_name(name, label, n);
            if self.slot(dir, &free)?.is_none() {
                return Ok(free);
            }
            n += 1;
        }
    }

    /// Writes a slot.
    pub fn put_slot(&mut self, dir: u64, name: &str, s: &Slot) -> Result<()> {
        self.t.put(Tree::Entry, slot_key(dir, name), s)
    }

    /// Removes a slot.
    pub fn del_slot(&mut self, dir: u64, name: &str) -> Result<()> {
        self.t.del(Tree::Entry, slot_key(dir, name))
    }

    /// Adds to the number of names what this transaction changed in it. Must: whoever makes a name lead elsewhere says
    /// so in `changes`, with what it led to before.
    pub(super) fn count_names(&mut self) -> Result<()> {
        let mut first: BTreeMap<(u64, &str), bool> = BTreeMap::new();
        for c in &self.changes {
            if let Change::Name { dir, name, was } = c {
                first.entry((*dir, name)).or_insert(*was != 0);
            }
        }
        let mut delta = 0i64;
        for ((dir, name), was) in first {
            let is = self.slot(dir, name)?.is_some_and(|s| s.ino() != 0);
            delta += i64::from(is) - i64::from(was);
        }
        if delta != 0 {
            let n = names(self.t)?.saturating_add_signed(delta);
            self.t.put(Tree::Meta, NAMES, &n)?;
        }
        Ok(())
    }

    /// Notes whether a register has more than one visible head.
    pub(super) fn note_conflict(&mut self, dir: u64, name: &str, is: bool) -> Result<()> {
        self.note(Tree::Conflict, slot_key(dir, name), is)
    }

    /// Puts a key into an index, or takes it out; writes only what changes.
    fn note(&mut self, index: Tree, key: Vec<u8>, is: bool) -> Result<()> {
        let was = self.t.get::<()>(index, key.clone())?.is_some();
        match (was, is) {
            (false, true) => self.t.put(index, key, &()),
            (true, false) => self.t.del(index, key),
            _ => Ok(()),
        }
    }

    /// Notes whether a register is shown although somebody moved away what it held: one wrote, another moved, and both
    /// stand. Not a conflict of one name; lists of conflicts tell of the pair.
    pub(super) fn note_parted(&mut self, dir: u64, name: &str, entry: &Entry) -> Result<()> {
        let fresh = |v: &Version| v.vclock.iter().map(|(_, n)| n).sum::<u64>() <= 1;
        // Nearly every new file: nobody can have moved it before.
        if entry.heads.iter().all(fresh) {
            return Ok(());
        }
        let is = entry.is_live() && entry.tombstones().any(|t| t.moved_to.is_some());
        self.note(Tree::Meta, index_key(PARTED, dir, name), is)
    }

    /// Notes of the paths that got or lost a head under the brake in this transaction whether they have one now.
    pub(super) fn note_brakes(&mut self) -> Result<()> {
        for path in std::mem::take(&mut self.braked) {
            if let Some((dir, r)) = locate(self.t, &path)? {
                self.note_braked(dir, path.file_name(), &r.entry)?;
            }
        }
        Ok(())
    }

    /// Notes whether a head of a register is under the brake.
    pub fn note_braked(&mut self, dir: u64, name: &str, entry: &Entry) -> Result<()> {
        self.note(Tree::Meta, index_key(BRAKED, dir, name), entry.heads.iter().any(Version::is_held_back))
    }

    /// A register goes to another place as a whole: nothing under this name is in conflict any more.
    pub fn leave_conflict(&mut self, dir: u64, name: &str) -> Result<()> {
        self.note_conflict(dir, name, false)?;
        self.note(Tree::Meta, index_key(PARTED, dir, name), false)
    }

    /// The register under a name, to be written by the caller; an empty one if there is none. A sibling takes another
    /// name; a local-only file stays shown until the register has something to show.
    pub fn register(&mut self, dir: u64, name: &str) -> Result<Register> {
        match self.slot(dir, name)? {
            Some(Slot::Register(r)) => Ok(*r),
            None => Ok(Register::default()),
            Some(Slot::Sibling { of, ino }) => {
                self.rename_sibling(dir, name, ino, &of)?;
                Ok(Register::default())
            }
            Some(Slot::LocalOnly { ino }) => Ok(Register { ino, ..Register::default() }),
        }
    }

    /// Gives a sibling another name, because a path of the namespace has the one it had. Its inode stays: it may be
    /// open.
    fn rename_sibling(&mut self, dir: u64, name: &str, ino: u64, of: &str) -> Result<()> {
        let Some(Slot::Register(mut owner)) = self.slot(dir, of)? else { return Ok(()) };
        self.put_slot(dir, name, &Slot::Register(Box::default()))?;
        let implied = owner.dir != 0 && has_children(self.t, owner.dir)?;
        let clock = owner.sibs.iter().find(|s| s.ino == ino).map(|s| s.clock.clone()).unwrap_or_default();
        let entry = in_effect(&owner.entry, self.ctx.me);
        let named = view(&entry, implied, self.ctx.mode, self.ctx.me).and_then(|v| {
            let at = v.siblings.iter().position(|s| s.head.vclock == clock)?;
            let own: Vec<&str> = owner.sibs.iter().filter(|s| s.ino != ino).map(|s| s.name.as_str()).collect();
            let t = &*self.t;
            let taken = |n: &str| !own.contains(&n) && t.get::<Slot>(Tree::Entry, slot_key(dir, n)).is_ok_and(|s| s.is_some());
            sibling_names(of, &v, &taken).get(at).filter(|n| !own.contains(&n.as_str())).cloned()
        });
        let new = match named {
            Some(n) => n,
            None => self.free_name(dir, name)?,
        };
        for s in owner.sibs.iter_mut().filter(|s| s.ino == ino) {
            s.name = new.clone();
        }
        self.put_slot(dir, of, &Slot::Register(owner))?;
        self.put_slot(dir, &new, &Slot::Sibling { ino, of: of.to_owned() })?;
        let mut i = self.inode(ino)?;
        i.rename_link((dir, name), (dir, &new));
        self.put_inode(ino, &i)?;
        self.changes.push(Change::Name { dir, name: name.to_owned(), was: ino });
        self.changes.push(Change::Name { dir, name: new, was: 0 });
        Ok(())
    }

    /// A local-only file gives its name to a file of the fleet and takes another one.
    pub(super) fn move_aside(&mut self, dir: u64, name: &str, ino: u64) -> Result<()> {
        let aside = self.free_name(dir, &format!("{name}.local-only"))?;
        tracing::warn!(name, aside, "a local-only file made room for a file of the fleet");
        let mut i = self.inode(ino)?;
        i.rename_link((dir, name), (dir, &aside));
        self.put_inode(ino, &i)?;
        self.put_slot(dir, &aside, &Slot::LocalOnly { ino })?;
        self.changes.push(Change::Name { dir, name: name.to_owned(), was: ino });
        self.changes.push(Change::Name { dir, name: aside, was: 0 });
        Ok(())
    }

    fn free_name(&self, dir: u64, want: &str) -> Result<String> {
        let mut n = 1;
        loop {
            let name = if n == 1 { want.to_owned() } else { format!("{want}-{n}") };
            if self.slot(dir, &name)?.is_none() {
                return Ok(name);
            }
            n += 1;
        }
    }

    /// Path of a directory.
    pub fn path_of_dir(&self, dir: u64) -> Result<RelPath> {
        path_of_dir(self.t, dir)
    }

    /// Number of the directory at `path`; one that never was is made as gone, so that its children's registers have
    /// a place.
    pub fn ensure_dir(&mut self, path: &RelPath) -> Result<u64> {
        let mut dir = ROOT;
        for c in path.components() {
            dir = self.ensure_child_dir(dir, c)?;
        }
        Ok(dir)
    }

    /// A new directory number for `name` in `dir`, gone for the present: a place for the registers of children.
    pub fn gone_dir(&mut self, dir: u64, name: &str) -> Result<u64> {
        let number = self.next_id();
        let mut i = Inode::new(FileType::Dir, 0o755, self.ctx.uid, self.ctx.gid, self.ctx.now);
        i.links.push((dir, name.to_owned()));
        i.dead = true;
        self.put_inode(number, &i)?;
        Ok(number)
    }

    fn ensure_child_dir(&mut self, dir: u64, name: &str) -> Result<u64> {
        let mut r = self.register(dir, name)?;
        if r.dir == 0 {
            r.dir = self.gone_dir(dir, name)?;
            let number = r.dir;
            self.put_slot(dir, name, &Slot::Register(Box::new(r)))?;
            return Ok(number);
        }
        Ok(r.dir)
    }

    /// Merges a version into its register, without touching the visible tree. True if the register changed; then
    /// the name wants [`Ns::reconcile`]. Covered heads go to the history.
    pub fn merge(&mut self, v: &Version) -> Result<(u64, bool)> {
        let parent = v.path.parent().ok_or_else(|| Error::new(Kind::Invalid, "a version of the root"))?;
        let dir = self.ensure_dir(&parent)?;
        let name = v.path.file_name().to_owned();
        let mut r = self.register(dir, &name)?;
        let changed = self.merge_into(&mut r, v)?;
        self.put_slot(dir, &name, &Slot::Register(Box::new(r)))?;
        Ok((dir, changed))
    }

    /// The same on a register that the caller holds and writes.
    pub fn merge_into(&mut self, r: &mut Register, v: &Version) -> Result<bool> {
        let before: Vec<Version> = r.entry.heads.clone();
        let changed = r.entry.merge(v.clone());
        if changed {
            if v.is_held_back() || before.iter().any(Version::is_held_back) {
                self.braked.push(v.path.clone());
            }
            for old in before.iter().filter(|o| !r.entry.heads.contains(o)) {
                self.remember(old)?;
            }
        }
        Ok(changed)
    }

    /// Puts a version into the history.
    pub fn remember(&mut self, v: &Version) -> Result<()> {
        if v.is_uncut() {
            return Ok(());
        }
        let n = self.next_id();
        self.t.put(Tree::History, history_key(&v.path, n), v)
    }

    /// Replaces a register's heads (content of an uncut version became known, a new device id).
    pub fn replace_heads(&mut self, path: &RelPath, change: impl Fn(&mut Version)) -> Result<()> {
        if let Some((dir, mut r)) = locate(self.t, path)? {
            let mut entry = Entry::default();
            for h in &r.entry.heads {
                let mut h = h.clone();
                change(&mut h);
                entry.merge(h);
            }
            r.entry = entry;
            self.put_slot(dir, path.file_name(), &Slot::Register(r))?;
        }
        Ok(())
    }

    /// Removes one name of an inode; one without names left becomes an orphan.
    pub fn drop_link(&mut self, ino: u64, dir: u64, name: &str) -> Result<()> {
        let Some(mut i) = self.t.get::<Inode>(Tree::Inode, ino)? else { return Ok(()) };
        i.links.retain(|l| !(l.0 == dir && l.1 == name));
        i.ctime = self.ctx.now;
        let last = i.links.is_empty();
        if i.links.len() == 1 {
            // It may have been the clock of the name that went; what is left is known by what it holds.
            i.shows = VClock::new();
        }
        self.put_inode(ino, &i)?;
        if last {
            self.t.put(Tree::Orphan, ino, &())?;
            self.changes.push(Change::Orphan(ino));
        } else {
            self.changes.push(Change::Attr(ino));
        }
        Ok(())
    }

    /// Whether an inode shows a head that is still one and whose bytes are nowhere but in this inode's local file.
    pub(super) fn holds_only_bytes(&self, entry: &Entry, ino: u64) -> Result<bool> {
        // An empty file has none, and is published without its inode.
        let uncut = |h: &&Version| h.is_uncut() && h.file().is_none_or(|c| c.size > 0);
        if !entry.live().any(|h| uncut(&h)) {
            return Ok(false);
        }
        let shows = self.inode(ino)?.shows;
        Ok(entry.live().filter(uncut).any(|h| h.vclock == shows))
    }

    /// Takes a name off an inode that nobody is to see for now. Its bytes stay until they are published, also if it
    /// has no name left.
    pub(super) fn hide(&mut self, ino: u64, dir: u64, name: &str) -> Result<()> {
        let mut i = self.inode(ino)?;
        i.links.retain(|l| !(l.0 == dir && l.1 == name));
        self.put_inode(ino, &i)
    }

    /// Gives an inode one more name.
    pub fn add_link(&mut self, ino: u64, dir: u64, name: &str) -> Result<()> {
        let mut i = self.inode(ino)?;
        if !i.links.iter().any(|l| l.0 == dir && l.1 == name) {
            if i.links.is_empty() {
                self.t.del(Tree::Orphan, ino)?;
            }
            i.links.push((dir, name.to_owned()));
            i.ctime = self.ctx.now;
            self.put_inode(ino, &i)?;
        }
        Ok(())
    }

    /// Notes a change of a directory's listing in its times, and `subdirs` in its link count.
    pub fn touch_dir(&mut self, dir: u64, subdirs: i32) -> Result<()> {
        if let Some(mut d) = self.t.get::<Inode>(Tree::Inode, dir)? {
            match self.made_at {
                None => d.mtime = self.ctx.now,
                Some(at) if at > d.mtime && !self.written_since(&d, at)? => d.mtime = at,
                Some(_) => {}
            }
            d.ctime = self.ctx.now;
            d.subdirs = d.subdirs.saturating_add_signed(subdirs);
            self.put_inode(dir, &d)?;
            self.changes.push(Change::Listing(dir));
        }
        Ok(())
    }

    /// Whether a version of a directory is not older than a change of its listing: its author knew of that change, so
    /// that the time in the version counts (a copy sets it when all is in the directory, and that may arrive first).
    fn written_since(&self, d: &Inode, at: Time) -> Result<bool> {
        let Some((up, name)) = d.links.first() else { return Ok(false) };
        let Some(Slot::Register(r)) = self.slot(*up, name)? else { return Ok(false) };
        Ok(r.entry.live().any(|h| h.is_dir() && Time::from_ms(h.written_at) >= at))
    }
}

/// Meta keys of registers that are shown although somebody moved away what they held; what follows is the slot's key.
pub const PARTED: &[u8] = b"parted\0";

/// Meta keys of registers with a head under the brake; what follows is the slot's key.
pub const BRAKED: &[u8] = b"braked\0";

fn index_key(index: &[u8], dir: u64, name: &str) -> Vec<u8> {
    [index, &slot_key(dir, name)].concat()
}
