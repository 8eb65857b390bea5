//! A file in use: its bytes on this disk, which of them are here, which are newer than what was published.
//!
//! Must: `have` never names a range whose bytes are not in the local file; the row in the database is never ahead
//! of the file either (bytes first, then the row).
//! Not here: where the local file lies (`local_file`).

use super::Vfs;
use crate::error::Result;
use crate::model::ops::Accepted;
use crate::model::ranges::RangeSet;
use crate::model::{ChunkRef, FileContent, Hash, RelPath};
use crate::state::rows::{FileType, Inode, Local, Promise, Time};
use crate::state::tree::{inode_at, stale};
use crate::state::{Ns, Tree};
use parking_lot::Mutex;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

/// What a write to a published file marks in the database before it happens: coarse, so that a sequential writer
/// marks seldom; after a crash the bytes in a marked block are taken as they lie.
const MARK: u64 = 1 << 20;

/// Inodes are loaded under one of so many locks.
pub(crate) const LOADING: usize = 64;

/// A file in use.
pub struct Node {
    /// Its number.
    pub ino: u64,
    pub(crate) st: Mutex<St>,
    pub(crate) opens: AtomicU32,
    pub(crate) writers: AtomicU32,
    pub(crate) unsealed: AtomicBool,
    /// Has no name any more.
    pub(crate) gone: AtomicBool,
    /// A version that arrived took its last name: it may still be read, and not be opened for writing.
    pub(crate) replaced: AtomicBool,
    /// Which name that was.
    pub(crate) lost: Mutex<Option<(u64, String)>>,
}

pub(crate) struct St {
    pub ino: u64,
    pub size: u64,
    pub mtime: Time,
    /// Time of the local file itself when it was last looked at.
    pub seen_mtime: Time,
    pub content: Option<FileContent>,
    pub local_only: bool,
    pub have: RangeSet,
    pub dirty: RangeSet,
    /// Marked in the database as possibly changed (coarse).
    pub marked: RangeSet,
    pub wgen: u64,
    pub accept: Option<(RelPath, Accepted)>,
    /// Token and `wgen` of the last seal.
    pub token: Option<(Hash, u64)>,
    pub overlay: bool,
    pub unsynced_boot: u64,
    pub file: Option<Arc<File>>,
    /// The row of its bytes in the database is behind.
    pub stale_row: bool,
    /// Size or time in the row of its inode are behind.
    pub stale_attr: bool,
    /// Fetched or known chunk list of `content` with start offsets.
    pub chunks: Option<Arc<Chunks>>,
    pub last_write: Instant,
    pub dirty_since: Option<Instant>,
    /// How many batches of others had been applied when the change began.
    pub applied_before: u64,
    /// Opens that the kernel serves from the local file itself.
    pub passthrough: u32,
    pub passthrough_writers: u32,
    /// Opens that the kernel serves from its page cache over us.
    pub cached: u32,
    /// The kernel had the local file itself open at some time: it may only be unlinked, never changed in place.
    pub lent: bool,
    /// The kernel had it open for writing since the last seal, and may still have it mapped.
    pub lent_writing: bool,
    /// See `Local::promise`.
    pub promise: Promise,
    /// Write handles of which a `close` was answered and whose release is on the way.
    pub closing: u32,
    /// The count of changes at which all of it was sealed, of a file that may change without a word (`lent`) or goes
    /// on being written: while it stands there, there is nothing to seal.
    pub sealed_wgen: Option<u64>,
    /// While a copy is made to seal from: what changed since it was begun.
    pub copying: Option<RangeSet>,
}

/// A chunk list with the offset at which each chunk starts.
pub struct Chunks {
    /// The list.
    pub list: Vec<ChunkRef>,
    starts: Vec<u64>,
}

impl Chunks {
    /// Adds up the offsets.
    pub fn new(list: Vec<ChunkRef>) -> Chunks {
        let mut at = 0;
        let starts = list
            .iter()
            .map(|c| {
                let s = at;
                at += u64::from(c.1);
                s
            })
            .collect();
        Chunks { list, starts }
    }

    /// Chunks that overlap `range`, with their offsets.
    pub fn overlapping(&self, range: std::ops::Range<u64>) -> impl Iterator<Item = (u64, ChunkRef)> + '_ {
        let first = self.starts.partition_point(|s| *s <= range.start).saturating_sub(1);
        let (start, end) = (range.start, range.end);
        self.starts[first.min(self.starts.len())..]
            .iter()
            .zip(&self.list[first.min(self.list.len())..])
            .map(|(s, c)| (*s, *c))
            .take_while(move |(s, _)| *s < end)
            .filter(move |(s, c)| s + u64::from(c.1) > start)
    }
}

impl Node {
    /// Within the transaction that seals an unsealed file: it counts as sealed from here on, unless it `goes_on` or the
    /// transaction fails. Under the database's lock, so that no version from elsewhere is applied in between.
    pub(super) fn seals(self: &Arc<Self>, ns: &mut Ns<'_, '_>, goes_on: bool) {
        self.unsealed.store(goes_on, Ordering::Release);
        let node = self.clone();
        ns.t.on_failure(move || node.unsealed.store(true, Ordering::Release));
    }

    /// Whether remote changes must leave its name alone.
    pub(crate) fn is_busy(&self) -> bool {
        self.writers.load(Ordering::Acquire) > 0 || self.unsealed.load(Ordering::Acquire)
    }
}

/// Up to which forgotten node the rows that are read from then on are complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(u64);

impl St {
    /// Whether every byte of `range` can be read from the local file.
    pub fn is_here(&self, range: std::ops::Range<u64>) -> bool {
        self.content.is_none() || self.have.covers(range)
    }

    /// Whether a file that may change without a word is still what was sealed.
    pub fn is_sealed(&self) -> bool {
        self.sealed_wgen == Some(self.wgen)
    }

    /// Whether the whole file is here.
    pub fn is_whole(&self) -> bool {
        self.size == 0 || self.is_here(0..self.size)
    }

    /// What a rename may change.
    pub(super) fn naming(&self) -> (bool, Option<(RelPath, Accepted)>) {
        (self.local_only, self.accept.clone())
    }

    /// Takes a rename back.
    pub(super) fn name_as(&mut self, was: (bool, Option<(RelPath, Accepted)>)) {
        (self.local_only, self.accept) = was;
    }

    /// The part of `range` that lies within the published content.
    fn published_part(&self, range: std::ops::Range<u64>) -> std::ops::Range<u64> {
        let end = range.end.min(self.content.as_ref().map_or(0, |c| c.size));
        range.start.min(end)..end
    }

    pub(crate) fn row(&self, used: i64) -> Local {
        Local {
            overlay: self.overlay,
            have: self.have.clone(),
            dirty: self.dirty.clone(),
            wgen: self.wgen,
            accept: self.accept.clone(),
            token: self.token,
            unsynced_boot: self.unsynced_boot,
            used,
            lent: self.lent,
            promise: self.promise,
        }
    }
}

impl Vfs {
    /// The row of a file in use.
    pub(crate) fn inode_of(&self, node: &Node) -> Result<Inode> {
        self.replica.read(|r| inode_at(r, node.ino))
    }

    /// The node of a regular file, loading it if it is not in use yet. Does not count as an open.
    pub(crate) fn node(&self, ino: u64) -> Result<Arc<Node>> {
        if let Some(n) = self.nodes.get(&ino) {
            return Ok(n.clone());
        }
        // From the look at the table to the entry in it nobody else may load this inode, change it and let it go
        // again: the rows read here would be older than that.
        let _loading = self.loading[ino as usize % LOADING].lock();
        if let Some(n) = self.nodes.get(&ino) {
            return Ok(n.clone());
        }
        let node = Arc::new(self.load_node(ino)?);
        self.nodes.insert(ino, node.clone());
        Ok(node)
    }

    /// The node if it is in use.
    pub(crate) fn loaded(&self, ino: u64) -> Option<Arc<Node>> {
        self.nodes.get(&ino).map(|n| n.clone())
    }

    /// The node, counted as open, so that it stays.
    pub(crate) fn hold(&self, ino: u64) -> Result<Arc<Node>> {
        loop {
            let node = self.node(ino)?;
            let held = self.nodes.get(&ino).is_some_and(|n| {
                let same = Arc::ptr_eq(&n, &node);
                if same {
                    n.opens.fetch_add(1, Ordering::AcqRel);
                }
                same
            });
            if held {
                return Ok(node);
            }
        }
    }

    /// Ends a `hold`; the node is forgotten when nobody needs it.
    /// Its bytes are freed when it has no name either.
    pub(crate) fn unhold(&self, node: &Node) {
        if node.opens.load(Ordering::Acquire) == 1 && !node.is_busy() && !node.gone.load(Ordering::Acquire) {
            // What was hydrated and not yet put down.
            let mut st = node.st.lock();
            if let Err(e) = self.persist(node, &mut st) {
                tracing::warn!(ino = node.ino, error = %e, "what was hydrated is fetched again after the next start");
            }
        }
        let last = node.opens.fetch_sub(1, Ordering::AcqRel) == 1;
        self.let_go(node.ino);
        if last && node.gone.load(Ordering::Acquire) {
            self.orphaned(node.ino);
        }
    }

    /// Forgets a node that nobody needs: its row says the same.
    pub(super) fn let_go(&self, ino: u64) {
        // Counted first: whoever finds no node has seen the count, or read the row after it was written.
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.nodes.remove_if(&ino, |_, n| n.opens.load(Ordering::Acquire) == 0 && !n.is_busy());
    }

    /// To be taken before rows are read that `attr_of` gets.
    pub(crate) fn moment(&self) -> Moment {
        Moment(self.forgotten.load(Ordering::SeqCst))
    }

    fn load_node(&self, ino: u64) -> Result<Node> {
        let (inode, local, unsealed): (Option<Inode>, Option<Local>, Option<()>) =
            self.replica.read(|r| Ok((r.get(Tree::Inode, ino)?, r.get(Tree::Local, ino)?, r.get(Tree::Unsealed, ino)?)))?;
        self.node_of(ino, inode.ok_or_else(|| stale(ino))?, local, unsealed.is_some())
    }

    /// A node with these rows.
    pub(super) fn node_of(&self, ino: u64, inode: Inode, local: Option<Local>, unsealed: bool) -> Result<Node> {
        if inode.kind != FileType::File {
            return Err(crate::error::Error::new(crate::error::Kind::Invalid, format!("inode {ino} is not a regular file")));
        }
        let fresh = local.is_none() && inode.content.is_none();
        let mut local = local.unwrap_or(Local { overlay: fresh || inode.local_only, ..Local::default() });
        if !local.overlay && !local.have.is_empty() && !self.local_path(ino, false).exists() {
            // Killed between the move to the overlay and its row, or somebody emptied the cache.
            local.overlay = self.local_path(ino, true).exists();
            if !local.overlay {
                local.have.clear();
            }
        }
        let mut size = inode.size;
        // A file that was never cut is exactly its local file, also when a crash kept its size from the row.
        if inode.content.is_none()
            && let Ok(m) = std::fs::metadata(self.local_path(ino, true))
        {
            size = m.len();
        }
        Ok(Node {
            ino,
            gone: AtomicBool::new(inode.links.is_empty()),
            // Nobody has it open, so it is not one that a program here removed and goes on using.
            replaced: AtomicBool::new(inode.links.is_empty()),
            lost: Mutex::default(),
            opens: AtomicU32::new(0),
            writers: AtomicU32::new(0),
            unsealed: AtomicBool::new(false),
            st: Mutex::new(St {
                ino,
                size,
                mtime: inode.mtime,
                seen_mtime: Time::default(),
                content: inode.content,
                local_only: inode.local_only,
                marked: local.dirty.clone(),
                have: local.have,
                dirty: local.dirty,
                wgen: local.wgen,
                // That of a handle which made no change means nothing after its close.
                accept: local.accept.filter(|_| unsealed),
                token: local.token,
                overlay: local.overlay,
                unsynced_boot: local.unsynced_boot,
                file: None,
                stale_row: false,
                stale_attr: false,
                chunks: None,
                last_write: Instant::now(),
                dirty_since: None,
                applied_before: 0,
                passthrough: 0,
                passthrough_writers: 0,
                cached: 0,
                lent: local.lent,
                lent_writing: false,
                promise: local.promise,
                closing: 0,
                sealed_wgen: None,
                copying: None,
            }),
        })
    }

    /// Writes the rows of a node if they are behind.
    pub(crate) fn persist(&self, node: &Node, st: &mut St) -> Result<()> {
        if !st.stale_row && !st.stale_attr {
            return Ok(());
        }
        let row = st.row(self.clock.now_ms() / 1000);
        let (size, mtime, attr) = (st.size, st.mtime, st.stale_attr);
        self.replica.db().write(|t| {
            if let Some(mut i) = t.get::<Inode>(Tree::Inode, node.ino)? {
                // Only what was changed here: a remote change of the time may have come in.
                if attr && (i.size != size || i.mtime != mtime) {
                    (i.size, i.mtime, i.ctime) = (size, mtime, mtime.max(i.ctime));
                    t.put(Tree::Inode, node.ino, &i)?;
                }
                t.put(Tree::Local, node.ino, &row)?;
            }
            Ok(())
        })?;
        st.marked = st.dirty.clone();
        (st.stale_row, st.stale_attr) = (false, false);
        Ok(())
    }

    /// The same inside a transaction of the caller's.
    pub(crate) fn persist_in(&self, ns: &mut Ns<'_, '_>, node: &Node, st: &mut St) -> Result<()> {
        ns.t.put(Tree::Local, node.ino, &st.row(self.clock.now_ms() / 1000))?;
        Ok(())
    }

    /// Before bytes in `range` of a node change: the node is unsealed from here on (also for a crash), its file lies
    /// in the overlay, and a part that was published is marked.
    pub(crate) fn before_change(&self, node: &Node, st: &mut St, range: std::ops::Range<u64>) -> Result<()> {
        let first = !node.unsealed.load(Ordering::Acquire);
        self.to_overlay(node, st)?;
        if first && !st.local_only && st.accept.is_none() {
            st.accept = self.replica.read(|r| self.accept_now(r, &inode_at(r, node.ino)?))?;
        }
        let touched = st.published_part(range);
        let block = touched.start / MARK * MARK..touched.end.div_ceil(MARK).saturating_mul(MARK);
        let here: Vec<_> = st.have.within(block).filter(|g| !st.marked.covers(g.clone())).collect();
        let mark = touched.start < touched.end && !here.is_empty() && !st.marked.covers(touched);
        if first || mark {
            here.into_iter().for_each(|g| st.marked.insert(g));
            st.unsynced_boot = self.boot;
            self.write_mark(node, st, first)?;
        }
        if first {
            st.dirty_since = Some(Instant::now());
            st.applied_before = self.applied.load(Ordering::Acquire);
            node.unsealed.store(true, Ordering::Release);
        }
        st.unsynced_boot = self.boot;
        Ok(())
    }

    /// Puts down that the marked ranges may have changed.
    fn write_mark(&self, node: &Node, st: &St, first: bool) -> Result<()> {
        let row = Local { dirty: st.marked.clone(), ..st.row(self.clock.now_ms() / 1000) };
        self.replica.db().write(|t| {
            if first {
                t.put(Tree::Unsealed, node.ino, &())?;
            }
            t.put(Tree::Local, node.ino, &row)
        })
    }

    /// After bytes in `range` changed.
    pub(crate) fn after_change(&self, node: &Node, st: &mut St, range: std::ops::Range<u64>) -> Result<()> {
        if range.start < range.end {
            st.have.insert(range.clone());
            st.dirty.insert(range.clone());
            if let Some(c) = &mut st.copying {
                c.insert(range.clone());
            }
        }
        st.size = st.size.max(range.end);
        st.wgen += 1;
        st.mtime = self.now();
        st.last_write = Instant::now();
        st.dirty_since.get_or_insert(st.last_write);
        (st.stale_row, st.stale_attr) = (true, true);
        // Bytes where none were before: only now may the row say that they are here.
        let touched = st.published_part(range);
        if touched.start < touched.end && !st.marked.covers(touched.clone()) {
            st.marked.insert(touched);
            self.write_mark(node, st, false)?;
        }
        Ok(())
    }
}
