//! The replica: the map from path to register, and the tree of names and inodes that programs see of it.
//!
//! Every change of either runs in one [`Ns`], a namespace transaction: registers are merged, then the names
//! concerned are *reconciled*, that is, brought to what the view of the register says.
//!
//! Must: an inode number is never used for another file.
//! Not here: what can be done in a transaction (`namespace`, `reconcile`), reading (`tree`), which versions an operation
//! writes (`model::ops`), what happens to the bytes of an inode that lost its last name (`vfs`).

use super::db::Db;
use super::namespace::Ns;
use super::read::Read;
use super::rows::*;
use super::schema::Tree;
use crate::error::Result;
use crate::model::view::ConflictMode;
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
    /// This directory was removed, and is there because of what is in it.
    Kept(u64),
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
            // Another thread may have come further since `limit` was read.
            self.db.write(|t| {
                let most = t.get::<u64>(Tree::Meta, "inodes")?.unwrap_or(0).max(limit + ID_BLOCK);
                t.put(Tree::Meta, "inodes", &most)
            })?;
            self.limit.fetch_max(limit + ID_BLOCK, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Runs `body` as one transaction on the namespace; returns also what changed in the tree.
    pub fn write<T>(&self, ctx: &Ctx<'_>, body: impl FnOnce(&mut Ns<'_, '_>) -> Result<T>) -> Result<(T, Vec<Change>)> {
        self.reserve()?;
        self.db.write(|t| {
            let mut ns = Ns { t, replica: self, ctx, changes: Vec::new(), made_at: None, braked: Vec::new() };
            let out = body(&mut ns)?;
            ns.count_names()?;
            ns.note_brakes()?;
            Ok((out, ns.changes))
        })
    }

    /// Runs `body` on the rows as they are.
    pub fn read<T>(&self, body: impl FnOnce(&Read<'_>) -> Result<T>) -> Result<T> {
        self.db.read(body)
    }
}
