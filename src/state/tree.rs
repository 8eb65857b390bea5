//! The replica: the map from path to register, and the tree of names and inodes that programs see of it.
//!
//! Every change of either runs in one [`Ns`], a namespace transaction: registers are merged, then the names
//! concerned are *reconciled*, that is, brought to what the view of the register says.
//!
//! Must: an inode that is open for writing or has unsealed bytes keeps its name; reconciling waits for its seal.
//! Must: an inode number is never used for another file, and a head that stays visible keeps its inode.
//! Must: a head that another one covers goes to the history in the same transaction.
//! Not here: which versions an operation writes (`model::ops`), what happens to the bytes of an inode that lost
//! its last name (`vfs`).

use super::db::Db;
use super::read::{Read, Scan};
use super::rows::*;
use super::schema::Tree;
use super::txn::Txn;
use crate::error::{Error, Kind, Result};
use crate::model::entry::Entry;
use crate::model::sibling::sibling_names;
use crate::model::view::{ConflictMode, view};
use crate::model::{self, FileContent, Hash, RelPath, VClock, Version};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers are reserved in the database in blocks; one transaction never uses more than half of one.
const ID_BLOCK: u64 = 1 << 20;

/// The open replica.
pub struct Replica {
    db: Db,
    next: AtomicU64,
    limit: AtomicU64,
}

/// Meta key: how many names a listing of the whole drive would show.
const NAMES: &str = "names";

/// How many names a listing of the whole drive would show: files, links and directories, siblings and local-only ones
/// included. Kept with every change, so asking costs nothing.
pub fn names(r: &Read<'_>) -> Result<u64> {
    Ok(r.get::<u64>(Tree::Meta, NAMES)?.unwrap_or(0))
}

/// What a transaction needs to know of the world around it.
pub struct Ctx<'a> {
    /// How conflicts are shown here.
    pub mode: ConflictMode,
    /// Whether siblings are shown although the mode is `defer`.
    pub show_siblings: bool,
    /// This device's id.
    pub me: &'a str,
    /// Now.
    pub now: Time,
    /// Owner of what comes from elsewhere.
    pub uid: u32,
    /// Group of what comes from elsewhere.
    pub gid: u32,
    /// Whether an inode is open for writing or has unsealed bytes.
    pub busy: &'a dyn Fn(u64) -> bool,
}

/// What changed in the visible tree, for caches above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A name now leads elsewhere (or nowhere).
    Name {
        /// Directory.
        dir: u64,
        /// Name.
        name: String,
        /// What it led to before, 0 for nothing.
        was: u64,
    },
    /// Attributes of an inode changed.
    Attr(u64),
    /// What a listing of this directory shows changed, and so its attributes. Its time need not have: a cache that goes by
    /// that keeps an old listing.
    Listing(u64),
    /// An inode lost its last name; its data can go when nobody has it open.
    Orphan(u64),
}

impl Replica {
    /// Opens or creates it; the root exists afterwards.
    pub fn open(dir: &Path) -> Result<Replica> {
        let db = Db::open(dir)?;
        let limit = db.write(|t| {
            let limit = t.get::<u64>(Tree::Meta, "inodes")?.unwrap_or(ROOT + 1);
            if t.get::<Inode>(Tree::Inode, ROOT)?.is_none() {
                let mut root = Inode::new(FileType::Dir, 0o755, 0, 0, Time::default());
                root.dead = false;
                t.put(Tree::Inode, ROOT, &root)?;
            }
            t.put(Tree::Meta, "inodes", &(limit + ID_BLOCK))?;
            Ok(limit)
        })?;
        Ok(Replica { db, next: AtomicU64::new(limit), limit: AtomicU64::new(limit + ID_BLOCK) })
    }

    /// The database below.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// A number never handed out before (inodes, outbox rows, history rows, moves share one sequence).
    pub fn next_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn reserve(&self) -> Result<()> {
        let limit = self.limit.load(Ordering::Relaxed);
        if self.next.load(Ordering::Relaxed) + ID_BLOCK / 2 > limit {
            self.db.write(|t| t.put(Tree::Meta, "inodes", &(limit + ID_BLOCK)))?;
            self.limit.fetch_max(limit + ID_BLOCK, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Runs `body` as one transaction on the namespace; returns also what changed in the tree.
    pub fn write<T>(&self, ctx: &Ctx<'_>, body: impl FnOnce(&mut Ns<'_, '_>) -> Result<T>) -> Result<(T, Vec<Change>)> {
        self.reserve()?;
        self.db.write(|t| {
            let mut ns = Ns { t, replica: self, ctx, changes: Vec::new(), made_at: None };
            let out = body(&mut ns)?;
            ns.count_names()?;
            Ok((out, ns.changes))
        })
    }

    /// Runs `body` on the rows as they are.
    pub fn read<T>(&self, body: impl FnOnce(&Read<'_>) -> Result<T>) -> Result<T> {
        self.db.read(body)
    }
}

impl Inode {
    /// A fresh inode with all times at `now`.
    pub fn new(kind: FileType, mode: u32, uid: u32, gid: u32, now: Time) -> Inode {
        Inode {
            kind,
            mode,
            uid,
            gid,
            rdev: 0,
            size: 0,
            blocks: None,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            generation: 0,
            target: String::new(),
            xattrs: BTreeMap::new(),
            links: Vec::new(),
            subdirs: 0,
            content: None,
            shows: VClock::new(),
            local_only: false,
            dead: false,
        }
    }

    /// Group of what is made in this directory by somebody of group `gid`: a set-group-id directory gives its own.
    pub fn group_for(&self, gid: u32) -> u32 {
        if self.mode & 0o2000 != 0 { self.gid } else { gid }
    }

    /// Link count as `stat` tells it.
    pub fn nlink(&self) -> u32 {
        match self.kind {
            FileType::Dir if self.dead => 0,
            FileType::Dir => 2 + self.subdirs,
            _ => self.links.len() as u32,
        }
    }

    /// Takes size, times, mode, content and attributes from a version.
    pub(crate) fn take(&mut self, v: &Version, mode: u32, mtime: (i64, u32), now: Time) {
        self.mode = mode & 0o7777;
        self.mtime = mtime.into();
        self.ctime = now;
        self.shows = v.vclock.clone();
        self.xattrs = v.xattrs.iter().map(|(k, b)| (k.clone(), unbase64(b))).collect();
        match &v.kind {
            model::Kind::File(c) => {
                if self.content.as_ref().is_none_or(|m| m.root != c.root) {
                    self.blocks = None;
                }
                self.size = c.size;
                // Bytes that are not cut yet lie over the content there was; their token is in `Local`.
                if !v.is_uncut() {
                    self.content = Some(c.clone());
                }
            }
            model::Kind::Symlink { target } => {
                self.size = target.len() as u64;
                self.target = target.clone();
            }
            model::Kind::Dir | model::Kind::Bundle { .. } | model::Kind::Tombstone => {}
        }
    }
}

fn unbase64(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default()
}

fn file_type(v: &Version) -> FileType {
    match v.kind {
        model::Kind::Dir => FileType::Dir,
        model::Kind::Symlink { .. } => FileType::Symlink,
        model::Kind::File(_) | model::Kind::Bundle { .. } | model::Kind::Tombstone => FileType::File,
    }
}

/// Finds a directory's number by walking from the root; live or gone.
pub fn dir_of(r: &Read<'_>, path: &RelPath) -> Result<Option<u64>> {
    let mut dir = ROOT;
    for c in path.components() {
        match r.get::<Slot>(Tree::Entry, slot_key(dir, c))? {
            Some(Slot::Register(reg)) if reg.dir != 0 => dir = reg.dir,
            _ => return Ok(None),
        }
    }
    Ok(Some(dir))
}

/// The register of a path, if there ever was one.
pub fn register_at(r: &Read<'_>, path: &RelPath) -> Result<Option<Register>> {
    let Some(parent) = path.parent() else { return Ok(None) };
    let Some(dir) = dir_of(r, &parent)? else { return Ok(None) };
    match r.get::<Slot>(Tree::Entry, slot_key(dir, path.file_name()))? {
        Some(Slot::Register(reg)) => Ok(Some(*reg)),
        _ => Ok(None),
    }
}

/// Path of a directory by its number.
pub fn path_of_dir(r: &Read<'_>, dir: u64) -> Result<RelPath> {
    let mut names = Vec::new();
    let mut at = dir;
    while at != ROOT {
        let i: Inode = r.get(Tree::Inode, at)?.ok_or_else(|| stale(at))?;
        let Some((up, name)) = i.links.first() else { return Err(stale(at)) };
        names.push(name.clone());
        at = *up;
        if names.len() > 4096 {
            return Err(Error::new(Kind::Corrupt, format!("directory {dir} is its own ancestor in the local state")));
        }
    }
    let mut path = RelPath::root();
    for n in names.iter().rev() {
        path = path.join(n);
    }
    Ok(path)
}

/// Whether a listing of `dir` would show anything.
pub fn has_children(r: &Read<'_>, dir: u64) -> Result<bool> {
    let end = slot_end(dir);
    let mut from = slot_after(dir, 0);
    // Mostly the first one answers; only where many are gone is it worth reading more at a time.
    let mut page = 2;
    loop {
        let (mut found, mut n, mut last) = (false, 0usize, Vec::new());
        r.scan(Tree::Entry, Scan::From(&from, &end), page, |k, s: Slot| {
            found |= s.ino() != 0;
            n += 1;
            last = k.to_vec();
            Ok(())
        })?;
        if found || n < page {
            return Ok(found);
        }
        last.push(0);
        from = last;
        page = (page * 4).min(256);
    }
}

/// The error for an inode that is not there.
pub fn stale(ino: u64) -> Error {
    Error::new(Kind::Stale, format!("inode {ino} is gone"))
}

/// One transaction on the namespace.
pub struct Ns<'a, 't> {
    /// Rows.
    pub t: &'a mut Txn<'t>,
    replica: &'a Replica,
    /// The world.
    pub ctx: &'a Ctx<'a>,
    /// What changed so far.
    pub changes: Vec<Change>,
    /// When what is being brought in from elsewhere was done there: the times of listings go by it. None: now.
    pub made_at: Option<Time>,
}

impl Ns<'_, '_> {
    /// A number never used before.
    pub fn next_id(&self) -> u64 {
        self.replica.next_id()
    }

    /// An inode; `Stale` if it is gone.
    pub fn inode(&self, ino: u64) -> Result<Inode> {
        self.t.get(Tree::Inode, ino)?.ok_or_else(|| stale(ino))
    }

    /// Writes an inode.
    pub fn put_inode(&mut self, ino: u64, i: &Inode) -> Result<()> {
        self.t.put(Tree::Inode, ino, i)
    }

    /// A slot.
    pub fn slot(&self, dir: u64, name: &str) -> Result<Option<Slot>> {
        self.t.get(Tree::Entry, slot_key(dir, name))
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
    fn count_names(&mut self) -> Result<()> {
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
    fn note_conflict(&mut self, dir: u64, name: &str, is: bool) -> Result<()> {
        let key = slot_key(dir, name);
        let was = self.t.get::<()>(Tree::Conflict, key.clone())?.is_some();
        match (was, is) {
            (false, true) => self.t.put(Tree::Conflict, key, &()),
            (true, false) => self.t.del(Tree::Conflict, key),
            _ => Ok(()),
        }
    }

    /// A register goes to another place as a whole: nothing under this name is in conflict any more.
    pub fn leave_conflict(&mut self, dir: u64, name: &str) -> Result<()> {
        self.note_conflict(dir, name, false)
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
        let named = view(&owner.entry, implied, self.ctx.mode, self.ctx.me).and_then(|v| {
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
        for l in i.links.iter_mut().filter(|l| l.0 == dir && l.1 == name) {
            l.1 = new.clone();
        }
        self.put_inode(ino, &i)?;
        self.changes.push(Change::Name { dir, name: name.to_owned(), was: ino });
        self.changes.push(Change::Name { dir, name: new, was: 0 });
        Ok(())
    }

    /// A local-only file gives its name to a file of the fleet and takes another one.
    fn move_aside(&mut self, dir: u64, name: &str, ino: u64) -> Result<()> {
        let aside = self.free_name(dir, &format!("{name}.local-only"))?;
        tracing::warn!(name, aside, "a local-only file made room for a file of the fleet");
        let mut i = self.inode(ino)?;
        for l in i.links.iter_mut().filter(|l| l.0 == dir && l.1 == name) {
            l.1 = aside.clone();
        }
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
        let Some(parent) = path.parent() else { return Ok(()) };
        let Some(dir) = dir_of(self.t, &parent)? else { return Ok(()) };
        if let Some(Slot::Register(mut r)) = self.slot(dir, path.file_name())? {
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
    fn holds_only_bytes(&self, entry: &Entry, ino: u64) -> Result<bool> {
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
    fn hide(&mut self, ino: u64, dir: u64, name: &str) -> Result<()> {
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

    /// Brings the visible tree under one name to what the register's view says; goes on with the parents whose
    /// existence depends on it.
    pub fn reconcile(&mut self, dir: u64, name: &str) -> Result<()> {
        if self.reconcile_one(dir, name)? { self.reconcile_up(dir) } else { Ok(()) }
    }

    /// The second half of [`Ns::reconcile`]: a name in `dir` came or went, which may decide whether `dir` exists.
    pub fn reconcile_up(&mut self, dir: u64) -> Result<()> {
        let mut dir = dir;
        while dir != ROOT {
            let up = self.inode(dir)?;
            let Some((parent, own)) = up.links.first().cloned() else { return Ok(()) };
            if !self.reconcile_one(parent, &own)? {
                return Ok(());
            }
            dir = parent;
        }
        Ok(())
    }

    /// One name only. True if a name appeared or vanished, so that the directory's own existence may have changed:
    /// whoever does not write what keeps it goes on with [`Ns::reconcile_up`].
    pub fn reconcile_one(&mut self, dir: u64, name: &str) -> Result<bool> {
        let Some(Slot::Register(mut r)) = self.slot(dir, name)? else { return Ok(false) };
        let was = r.ino;
        let was_dir = was != 0 && was == r.dir;
        // Whoever writes keeps the name; the seal comes back here.
        if was != 0 && !was_dir && (self.ctx.busy)(was) || r.sibs.iter().any(|s| (self.ctx.busy)(s.ino)) {
            // Also the start after a kill does: an open file without changes leaves no other trace.
            self.t.put(Tree::Meta, waits_key(dir, name), &(dir, name))?;
            return Ok(false);
        }
        if self.t.get::<(u64, String)>(Tree::Meta, waits_key(dir, name))?.is_some() {
            self.t.del(Tree::Meta, waits_key(dir, name))?;
        }
        let implied = r.dir != 0 && has_children(self.t, r.dir)?;
        let entry = r.entry.clone();
        let seen = view(&entry, implied, self.ctx.mode, self.ctx.me);
        if was != 0 && !was_dir && self.inode(was)?.local_only {
            if seen.is_none() {
                return Ok(false);
            }
            self.move_aside(dir, name, was)?;
            r.ino = 0;
            self.put_slot(dir, name, &Slot::Register(r.clone()))?;
        }
        let was = r.ino;
        self.note_conflict(dir, name, seen.as_ref().is_some_and(|v| v.is_conflict()))?;
        let show_siblings = self.ctx.mode != ConflictMode::Defer || self.ctx.show_siblings;
        // A head whose bytes are only here is shown in any case: without a name they would be freed.
        let listed = |h: &Version| show_siblings || h.is_uncut();

        // Inodes that are shown now, to be kept by the heads that stay.
        let mut pool: Vec<(VClock, u64, String)> = Vec::new();
        if was != 0 && !was_dir {
            // The clock of a hard link may be that of another name: it is known by what it holds.
            let i = self.inode(was)?;
            let clock = if i.links.len() > 1 { VClock::new() } else { i.shows };
            pool.push((clock, was, name.to_owned()));
        }
        for s in &r.sibs {
            pool.push((s.clock.clone(), s.ino, s.name.clone()));
        }

        // Heads that will be shown: an inode that shows one of them is not to be had for another of equal content.
        let shown = seen.as_ref().filter(|v| !v.is_dir).and_then(|v| v.shown);
        let clocks: Vec<VClock> =
            shown.into_iter().chain(seen.iter().flat_map(|v| &v.siblings).map(|s| s.head)).map(|h| h.vclock.clone()).collect();

        let mut now_ino = 0;
        let mut attr_of: Option<(&Version, u32, (i64, u32))> = None;
        match &seen {
            None => {}
            Some(v) if v.is_dir => {
                if r.dir == 0 {
                    r.dir = self.gone_dir(dir, name)?;
                }
                now_ino = r.dir;
                let mut i = self.inode(r.dir)?;
                let revived = i.dead;
                if revived {
                    i.dead = false;
                    i.generation += 1;
                    i.subdirs = self.count_subdirs(r.dir)?;
                    (i.ctime, i.mtime) = (self.ctx.now, self.made_at.unwrap_or(self.ctx.now));
                }
                if let Some(h) = v.shown
                    && (revived || i.shows != h.vclock || i.mode != v.mode & 0o7777)
                {
                    i.take(h, v.mode, v.mtime, self.ctx.now);
                    self.changes.push(Change::Attr(r.dir));
                }
                self.put_inode(r.dir, &i)?;
            }
            Some(v) => {
                if let Some(h) = v.shown {
                    now_ino = self.pick(&mut pool, h, &clocks)?;
                    attr_of = Some((h, v.mode, v.mtime));
                }
            }
        }
        if was_dir && now_ino != r.dir {
            let mut i = self.inode(r.dir)?;
            i.dead = true;
            self.put_inode(r.dir, &i)?;
        }

        // Siblings, with the inodes they had.
        let taken_names: Vec<String> = match &seen {
            Some(v) if v.siblings.iter().any(|s| listed(s.head)) => {
                let t = &*self.t;
                // Also where only tombstones lie: a sibling's slot has no room for them.
                let taken = |n: &str| match t.get::<Slot>(Tree::Entry, slot_key(dir, n)) {
                    Ok(Some(Slot::Sibling { of, .. })) => of != name,
                    Ok(None) => n == name,
                    Ok(Some(_)) | Err(_) => true,
                };
                sibling_names(name, v, &taken)
            }
            _ => Vec::new(),
        };
        let mut sibs = Vec::new();
        for (s, n) in seen.iter().flat_map(|v| &v.siblings).zip(&taken_names).filter(|(s, _)| listed(s.head)) {
            let ino = self.pick(&mut pool, s.head, &clocks)?;
            sibs.push((Sib { name: n.clone(), ino, clock: s.head.vclock.clone() }, s.head));
        }

        // Names that went or now lead elsewhere.
        let mut changed = false;
        let old: Vec<(String, u64)> = std::iter::once((name.to_owned(), if was_dir { 0 } else { was }))
            .chain(r.sibs.iter().map(|s| (s.name.clone(), s.ino)))
            .filter(|(_, i)| *i != 0)
            .collect();
        let new: Vec<(String, u64)> = std::iter::once((name.to_owned(), if now_ino == r.dir { 0 } else { now_ino }))
            .chain(sibs.iter().map(|(s, _)| (s.name.clone(), s.ino)))
            .filter(|(_, i)| *i != 0)
            .collect();
        for (n, i) in new.iter().filter(|x| !old.contains(x)) {
            self.add_link(*i, dir, n)?;
            if n != name {
                self.put_slot(dir, n, &Slot::Sibling { ino: *i, of: name.to_owned() })?;
                let was = old.iter().find(|(m, _)| m == n).map_or(0, |(_, i)| *i);
                self.changes.push(Change::Name { dir, name: n.clone(), was });
                changed = true;
            }
        }
        for (n, i) in old.iter().filter(|x| !new.contains(x)) {
            if self.holds_only_bytes(&entry, *i)? {
                self.hide(*i, dir, n)?;
            } else {
                self.drop_link(*i, dir, n)?;
            }
            if n != name {
                if !new.iter().any(|(m, _)| m == n) {
                    self.del_slot(dir, n)?;
                }
                self.changes.push(Change::Name { dir, name: n.clone(), was: *i });
                changed = true;
            }
        }
        r.ino = now_ino;
        r.sibs = sibs.iter().map(|(s, _)| s.clone()).collect();
        let now_dir = now_ino != 0 && now_ino == r.dir;
        let gone = !r.entry.heads.is_empty() || r.ino != 0 || r.dir != 0;
        if gone {
            self.put_slot(dir, name, &Slot::Register(r))?;
        } else {
            self.del_slot(dir, name)?;
        }

        // Attributes.
        if let Some((h, mode, mtime)) = attr_of {
            self.show(now_ino, h, mode, mtime)?;
        }
        for (s, h) in &sibs {
            self.show(s.ino, h, h.mode, h.mtime)?;
        }
        if was != now_ino {
            self.changes.push(Change::Name { dir, name: name.to_owned(), was });
            changed = true;
        }
        if changed {
            self.touch_dir(dir, i32::from(now_dir) - i32::from(was_dir))?;
        }
        Ok(changed)
    }

    /// Reconciles every name that waited for a writer when the last process ended.
    pub fn reconcile_waiting(&mut self) -> Result<()> {
        let mut waiting: Vec<(u64, String)> = Vec::new();
        self.t.scan(Tree::Meta, Scan::From(WAITS, &super::schema::prefix_end(WAITS)), usize::MAX, |_, at| {
            waiting.push(at);
            Ok(())
        })?;
        for (dir, name) in waiting {
            self.t.del(Tree::Meta, waits_key(dir, &name))?;
            self.reconcile(dir, &name)?;
        }
        Ok(())
    }

    /// The inode that shows this head already, or one with the same content, or a new one.
    fn pick(&mut self, pool: &mut Vec<(VClock, u64, String)>, h: &Version, others: &[VClock]) -> Result<u64> {
        if let Some(at) = pool.iter().position(|(c, ..)| *c == h.vclock) {
            return Ok(pool.remove(at).1);
        }
        for at in 0..pool.len() {
            if others.contains(&pool[at].0) {
                continue;
            }
            let i = self.inode(pool[at].1)?;
            if holds(self.t, pool[at].1, &i, h)? {
                return Ok(pool.remove(at).1);
            }
        }
        let ino = self.next_id();
        let mut i = Inode::new(file_type(h), h.mode & 0o7777, self.ctx.uid, self.ctx.gid, self.ctx.now);
        i.take(h, h.mode, h.mtime, self.ctx.now);
        i.atime = i.mtime;
        i.btime = i.mtime;
        self.put_inode(ino, &i)?;
        Ok(ino)
    }

    fn show(&mut self, ino: u64, h: &Version, mode: u32, mtime: (i64, u32)) -> Result<()> {
        let mut i = self.inode(ino)?;
        if i.shows == h.vclock && i.mode == mode & 0o7777 && i.mtime == mtime.into() {
            return Ok(());
        }
        i.take(h, mode, mtime, self.ctx.now);
        self.put_inode(ino, &i)?;
        self.changes.push(Change::Attr(ino));
        Ok(())
    }

    fn count_subdirs(&self, dir: u64) -> Result<u32> {
        let (mut from, end, mut n) = (slot_after(dir, 0), slot_end(dir), 0);
        loop {
            let (mut rows, mut last) = (0, Vec::new());
            self.t.scan(Tree::Entry, Scan::From(&from, &end), 1024, |k, s: Slot| {
                if let Slot::Register(r) = &s
                    && r.ino != 0
                    && r.ino == r.dir
                {
                    n += 1;
                }
                rows += 1;
                last = k.to_vec();
                Ok(())
            })?;
            if rows < 1024 {
                return Ok(n);
            }
            last.push(0);
            from = last;
        }
    }
}

/// Meta keys of names whose reconciling waits for a writer.
const WAITS: &[u8] = b"waits\0";

fn waits_key(dir: u64, name: &str) -> Vec<u8> {
    [WAITS, &slot_key(dir, name)].concat()
}

/// Whether an inode that is not being written has the bytes (or the target) of a head.
pub fn holds(r: &Read<'_>, ino: u64, i: &Inode, h: &Version) -> Result<bool> {
    Ok(match &h.kind {
        model::Kind::File(c) if i.kind == FileType::File => match r.get::<Local>(Tree::Local, ino)?.and_then(|l| l.token) {
            Some((token, _)) => token == c.root,
            None => i.content.as_ref().is_some_and(|m| same_content(m, c)),
        },
        model::Kind::Symlink { target } => i.kind == FileType::Symlink && i.target == *target,
        _ => false,
    })
}

/// Whether two contents are the same bytes, as far as both sides tell.
pub fn same_content(a: &FileContent, b: &FileContent) -> bool {
    a.root == b.root || a.size == b.size && a.hash.is_some() && a.hash == b.hash
}

/// A token for content that is not cut yet: unique, and never the root of anything.
pub fn uncut_token(random: [u64; 4]) -> Hash {
    let mut b = [0u8; 32];
    for (i, r) in random.iter().enumerate() {
        b[8 * i..8 * i + 8].copy_from_slice(&r.to_le_bytes());
    }
    Hash(b)
}
