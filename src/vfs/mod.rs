//! The drive by inode: names, attributes and bytes, as any front end serves them.
//!
//! Must: what was answered as written is in a local file; what was answered as closed is sealed or will be found
//! and sealed at the next start.
//! Must: no call here waits for the network but those that say so (`async`), and those have a deadline.
//! Not here: FUSE and NFS (`mount`), versions and merging (`model`), publishing and applying (`fleet`).
//!
//! Lock order, outer to inner: `loading` → `Node::st` → the database (`Replica::write`/`read`) → shards of the tables `nodes`
//! and `handles`. Two nodes are locked in the order of their numbers. `Node::st` is held while bytes are put into
//! that node's local file: a chunk that is being filled in and a write to the same range must not pass each other.
//! No lock is held across `.await`.
#![doc = include_str!("SEMANTICS.md")]

mod adopt;
mod aside;
mod attr;
mod brake;
mod bundles;
mod cache;
mod cache_mark;
mod companions;
mod control;
mod copies;
mod create;
mod cut;
mod find;
mod fsync;
mod heads;
mod hydrate;
mod ignores;
mod leavings;
mod lent;
mod local_file;
mod look;
mod names;
mod node;
mod open;
mod orphans;
mod peek;
mod place;
mod read;
mod readers;
mod recover;
mod regain;
mod remove;
mod rename;
mod resolve;
mod rules;
mod seal;
mod state_attrs;
mod survey;
mod telling;
mod write;

pub use crate::state::rows::{FileType, ROOT, Time};
pub use adopt::{Adopt, Adopted};
pub use attr::{Attr, SetAttr, StatFs};
pub use brake::BrakeOptions;
pub use bundles::{GIT_DIR, RepoAt};
pub use cache::{CacheUse, Dropped};
pub use companions::Together;
pub use control::{CONTROL, Fact, Facts, Told, is_control};
pub use create::LINKS_MAX;
pub use cut::VfsFiles;
pub use ignores::IGNORE_FILE;
pub use look::{Found, Held, Look};
pub use names::DirEntry;
pub use node::Node;
pub use open::{Handle, OpenFile, Opened};
pub use peek::Peek;
pub use place::{Bytes, Compared, New, Placed};
pub use read::ReadNow;
pub use readers::{Brings, Reader, ReaderRules, Refusals, Trace};
pub use resolve::InConflict;
pub use rules::{Rule, Rules};
pub use seal::Unsealed;
pub use telling::{Heard, Invalidate};

use crate::clock::Clock;
use crate::content::fetch::Fetcher;
use crate::error::{Error, Kind, Result};
use crate::fleet::Me;
use crate::model::ops::Author;
use crate::model::view::ConflictMode;
use crate::state::rows::{DirMove, Inode, Sealed, Slot, slot_key};
use crate::state::{Ctx, Ns, Read, Replica, Tree};
use dashmap::DashMap;
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// [`Options::move_at_once`] of a drive for people: what one transaction does without holding others up.
pub const MOVE_AT_ONCE: usize = 2000;

/// How the drive behaves on this machine.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where unpublished bytes lie (`overlay/`) and, after a crash, what could not be kept (`recovered/`).
    pub state_dir: PathBuf,
    /// Where published bytes lie.
    pub cache_dir: PathBuf,
    /// How conflicts are shown.
    pub conflict_mode: ConflictMode,
    /// Cap on published bytes kept here.
    pub cache_max: u64,
    /// Files up to this size are fetched whole once they are opened.
    pub hydrate_whole_below: u64,
    /// How long a read of bytes that are not here waits for the store.
    pub read_deadline: Duration,
    /// Owner of what comes from other machines.
    pub uid: u32,
    /// Group of what comes from other machines.
    pub gid: u32,
    /// Patterns of paths that never leave this machine, gitignore syntax.
    pub exclude_patterns: Vec<String>,
    /// Whether git repositories are carried; otherwise `.git` stays here.
    pub sync_git_dirs: bool,
    /// Directories with at most so many entries below them are moved and written out in one transaction.
    pub move_at_once: usize,
    /// Which programs do not bring files here.
    pub readers: ReaderRules,
    /// Free bytes on the disk of the cache below which cached files go before the cap is reached.
    pub min_free: u64,
    /// When deletes are many.
    pub brake: BrakeOptions,
    /// This boot of the machine ([`boot_id`]): bytes of another one that were not synced are not trusted.
    pub boot: u64,
}

/// The drive.
pub struct Vfs {
    replica: Arc<Replica>,
    fetcher: Fetcher,
    clock: Arc<dyn Clock>,
    options: Options,
    rules: Rules,
    ignores: ignores::Ignores,
    me: Arc<Me>,
    nodes: DashMap<u64, Arc<Node>>,
    /// Counts the nodes taken out of `nodes`.
    forgotten: AtomicU64,
    /// Rows of the outbox below this are on the disk with their bytes.
    synced_rows: AtomicU64,
    /// Inodes without a name whose bytes go once the database is durable beyond the loss of the name.
    orphans: Mutex<Vec<u64>>,
    /// Taken while an inode is loaded; outermost of all locks.
    loading: Vec<Mutex<()>>,
    handles: DashMap<u64, Arc<Handle>>,
    next_handle: AtomicU64,
    /// Identifies this boot; bytes written in another one and not synced are not trusted.
    boot: u64,
    watchers: RwLock<Vec<Arc<dyn Invalidate>>>,
    /// Rung when the outbox got a row.
    pub sealed: Arc<Notify>,
    moves_pending: AtomicBool,
    cache: Mutex<cache::Lru>,
    /// The cache is being brought under its cap.
    evicting: AtomicBool,
    /// Counts names of lock files that came and went.
    locked: AtomicU64,
    /// Directories whose `.git` changed, to be looked at.
    git_dirs: Mutex<HashSet<u64>>,
    /// Directories and names beside which a file lies, or lay, that belongs to what has the name.
    together: Mutex<HashSet<(u64, String)>>,
    /// Removed directories whose files went on under a local-only name, and the directory that these are in.
    left: Mutex<HashMap<u64, u64>>,
    /// Removed directories that are kept by what is in them, to be looked at.
    kept: Mutex<HashSet<u64>>,
    /// Names of siblings that are no longer listed but still resolve for a minute.
    aliases: Mutex<Vec<names::Alias>>,
    show_siblings: AtomicBool,
    /// Batches of others that were applied since the start.
    applied: AtomicU64,
    brake: brake::Brake,
    rt: tokio::runtime::Handle,
    control: control::Control,
    names: find::Index,
    readers: readers::Readers,
}

/// A number for this boot of the machine; 0 is never returned. For tests of power cuts, which cannot restart the
/// machine, `TCFS_TEST_BOOT_ID` in the environment stands for the kernel's.
pub fn boot_id() -> u64 {
    let given = std::env::var("TCFS_TEST_BOOT_ID").ok();
    let text = given.unwrap_or_else(crate::sys::boot_text);
    let mut b = [0u8; 8];
    b.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..8]);
    u64::from_le_bytes(b) | 1
}

impl Vfs {
    /// Opens the drive over an open replica and seals what a crash left open. To be called within a runtime, which
    /// then carries what goes on in the background.
    pub fn open(replica: Arc<Replica>, fetcher: Fetcher, clock: Arc<dyn Clock>, me: Arc<Me>, options: Options) -> Result<Arc<Vfs>> {
        for dir in [options.state_dir.join("overlay"), options.cache_dir.join("data")] {
            for i in 0..=255u8 {
                let d = dir.join(format!("{i:02x}"));
                std::fs::create_dir_all(&d).map_err(|e| Error::io(format!("creating {}", d.display()), e))?;
            }
        }
        let rules = Rules::new(&options.exclude_patterns, options.sync_git_dirs)?;
        let vfs = Arc::new(Vfs {
            replica,
            fetcher,
            rules,
            ignores: Default::default(),
            me,
            nodes: DashMap::new(),
            forgotten: AtomicU64::new(0),
            orphans: Mutex::default(),
            synced_rows: AtomicU64::new(0),
            loading: (0..node::LOADING).map(|_| Mutex::new(())).collect(),
            handles: DashMap::new(),
            next_handle: AtomicU64::new(1),
            boot: options.boot,
            watchers: RwLock::new(Vec::new()),
            sealed: Arc::new(Notify::new()),
            moves_pending: AtomicBool::new(true),
            cache: Mutex::new(cache::Lru::new(options.cache_max)),
            evicting: AtomicBool::new(false),
            aliases: Mutex::new(Vec::new()),
            kept: Mutex::default(),
            git_dirs: Mutex::default(),
            locked: AtomicU64::new(0),
            together: Mutex::default(),
            left: Mutex::default(),
            show_siblings: AtomicBool::new(false),
            applied: AtomicU64::new(0),
            brake: brake::Brake::new(options.brake),
            rt: tokio::runtime::Handle::current(),
            names: Default::default(),
            readers: readers::Readers::new(&options.readers)?,
            control: control::Control::new(Time::from_ns(clock.now_ns())),
            clock,
            options,
        });
        vfs.own_root()?;
        vfs.recover()?;
        vfs.drain_moves()?;
        Ok(vfs)
    }

    /// Gives a root that was just made to the user who mounts, as everything else that nobody here made.
    fn own_root(&self) -> Result<()> {
        let root: Option<Inode> = self.replica.read(|r| r.get(Tree::Inode, ROOT))?;
        if root.is_some_and(|i| i.btime != Time::default()) {
            return Ok(());
        }
        self.change(&[], |ns| {
            let mut i = ns.inode(ROOT)?;
            (i.uid, i.gid) = (ns.ctx.uid, ns.ctx.gid);
            for t in [&mut i.atime, &mut i.mtime, &mut i.ctime, &mut i.btime] {
                if *t == Time::default() {
                    *t = ns.ctx.now;
                }
            }
            ns.put_inode(ROOT, &i)
        })
    }

    /// The replica below.
    pub fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// The options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Where chunks come from.
    pub fn fetcher(&self) -> &Fetcher {
        &self.fetcher
    }

    /// Device id and name.
    pub fn device(&self) -> (String, String) {
        let me = self.me.get();
        (me.id.clone(), me.name.clone())
    }

    /// Shows siblings in the mount although the mode is `defer`.
    pub fn show_siblings(&self, on: bool) {
        self.show_siblings.store(on, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> Time {
        Time::from_ns(self.clock.now_ns())
    }

    pub(crate) fn author(&self) -> Author {
        let (device_id, device_name) = self.device();
        Author { device_id, device_name, now_ms: self.clock.now_ms() }
    }

    /// Whether an inode is open for writing or has unsealed bytes. Takes no node lock: it is asked under the
    /// database's.
    pub fn is_busy(&self, ino: u64) -> bool {
        self.nodes.get(&ino).is_some_and(|n| n.is_busy())
    }

    /// One transaction on the namespace; tells the caches above what changed, but for the names in `own`, which the
    /// caller's own kernel request changes.
    pub fn change<T>(&self, own: &[(u64, &str)], body: impl FnOnce(&mut Ns<'_, '_>) -> Result<T>) -> Result<T> {
        let me = self.device().0;
        let busy = |ino| self.is_busy(ino);
        let ctx = self.ctx(&me, &busy);
        let (out, changes) = self.replica.write(&ctx, body)?;
        self.tell(&changes, own);
        Ok(out)
    }

    pub(crate) fn ctx<'a>(&self, me: &'a str, busy: &'a dyn Fn(u64) -> bool) -> Ctx<'a> {
        Ctx {
            mode: self.options.conflict_mode,
            show_siblings: self.show_siblings.load(Ordering::Relaxed),
            me,
            now: self.now(),
            uid: self.options.uid,
            gid: self.options.gid,
            busy,
        }
    }

    /// [`Vfs::change`] for what writes versions: directory moves that are not written out yet, and that this concerns, are
    /// written out before. One that comes in between is seen here, under the database's lock, and written out as well.
    pub(crate) fn change_settled<T>(
        &self,
        own: &[(u64, &str)],
        touches: Touches<'_>,
        body: impl FnOnce(&mut Ns<'_, '_>) -> Result<T>,
    ) -> Result<T> {
        let mut body = Some(body);
        loop {
            let done = self.change(own, |ns| match body.take() {
                Some(b) if !self.moves_pending.load(Ordering::Acquire) || !touches.a_move(ns.t)? => b(ns).map(Some),
                waiting => {
                    body = waiting;
                    Ok(None)
                }
            })?;
            if let Some(out) = done {
                return Ok(out);
            }
            self.drain_moves()?;
        }
    }

    /// Puts versions that go out together into the outbox.
    pub(crate) fn enqueue(&self, ns: &mut Ns<'_, '_>, row: Sealed) -> Result<u64> {
        let n = ns.next_id();
        ns.t.put(Tree::Outbox, n, &row)?;
        Ok(n)
    }

    pub(crate) fn sealed_row(&self) -> Sealed {
        Sealed { versions: Vec::new(), files: Vec::new(), at: self.clock.now_ms(), boot: self.boot, recovered: false }
    }

    /// Makes every change of names and attributes so far durable. Blocking.
    pub fn sync(&self) -> Result<()> {
        self.replica.db().sync()
    }

    /// Writes directory moves out entry by entry until none is left.
    pub fn drain_moves(&self) -> Result<()> {
        self.write_out_moves(usize::MAX)
    }

    /// The same, at most some pages of it: what a kill in between leaves.
    pub fn write_out_moves(&self, pages: usize) -> Result<()> {
        if self.moves_pending.load(Ordering::Acquire) {
            let me = self.device().0;
            let busy = |ino| self.is_busy(ino);
            let ctx = self.ctx(&me, &busy);
            let changes = crate::fleet::moves::write_out_all(&self.replica, &ctx, &self.author(), self.boot, pages)?;
            // Under the database's lock, as moves set it.
            self.replica.read(|r| {
                if r.scan_int::<DirMove>(Tree::Move, 0, u64::MAX, 1)?.is_empty() {
                    self.moves_pending.store(false, Ordering::Release);
                }
                Ok(())
            })?;
            self.tell(&changes, &[]);
            self.sealed.notify_waiters();
            self.sealed.notify_one();
        }
        Ok(())
    }
}

/// What a change is about, as far as directory moves that are not written out yet matter to it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Touches<'a> {
    /// It may be about anything.
    Anything,
    /// Names in these directories, or these files under all their names.
    Only(&'a [u64]),
    /// What these names in these directories stand for, with all that is below it.
    Moving(&'a [(u64, &'a str)]),
}

impl Touches<'_> {
    /// Whether a move that waits concerns it: it lies below the moved directory, or below the gone one at the old path,
    /// whose registers are still being rewritten; or it moves a directory above one of these, whose path the move names.
    fn a_move(self, r: &Read<'_>) -> Result<bool> {
        let (mut inside, mut moving) = (Vec::new(), Vec::new());
        match self {
            Touches::Anything => return Ok(true),
            Touches::Only(these) => inside.extend_from_slice(these),
            Touches::Moving(names) => {
                for (dir, name) in names {
                    inside.push(*dir);
                    let slot = r.get::<Slot>(Tree::Entry, slot_key(*dir, name))?;
                    moving.extend(slot.as_ref().map(Slot::ino));
                    // A directory that is gone keeps its tombstones here, which what comes over it takes.
                    if let Some(Slot::Register(reg)) = slot {
                        moving.push(reg.dir);
                    }
                }
            }
        }
        let moves: Vec<(u64, DirMove)> = r.scan_int(Tree::Move, 0, u64::MAX, usize::MAX)?;
        let waiting: Vec<u64> = moves.iter().flat_map(|(_, m)| [m.dir, m.old, m.under]).filter(|n| *n != 0).collect();
        let above = |of: &[u64]| -> Result<HashSet<u64>> {
            let (mut seen, mut todo) = (HashSet::new(), of.to_vec());
            while let Some(ino) = todo.pop() {
                if ino != ROOT
                    && seen.insert(ino)
                    && let Some(i) = r.get::<Inode>(Tree::Inode, ino)?
                {
                    todo.extend(i.links.iter().map(|l| l.0));
                }
            }
            Ok(seen)
        };
        inside.extend(&moving);
        let (ours, theirs) = (above(&inside)?, above(&waiting)?);
        Ok(waiting.iter().any(|w| ours.contains(w)) || moving.iter().any(|m| theirs.contains(m)))
    }
}

pub(crate) fn not_found(what: &str) -> Error {
    Error::new(Kind::NotFound, format!("{what:?}: no such file or directory"))
}
