//! Opening, reading and writing.
//!
//! Must: `open` never waits for the network (a caller stuck in it could not even be killed).
//! Must: a write is in the local file when it returns.

use super::Vfs;
use super::lent;
use super::node::{Node, St};
use crate::content::Priority;
use crate::content::readahead::ReadAhead;
use crate::error::{Error, IoContext, Kind, Result};
use crate::model::ranges::RangeSet;
use crate::state::Tree;
use crate::state::rows::{Inode, Local, Time};
use parking_lot::Mutex;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// An open file.
pub struct Handle {
    /// The file.
    pub node: Arc<Node>,
    /// Opened for writing.
    pub write: bool,
    /// The kernel reads and writes the local file itself.
    pub passthrough: bool,
    /// Counted as a writer that the kernel serves directly: from the moment the file was lent, before the open is
    /// answered.
    lent: AtomicBool,
    /// A `close` was answered and nothing was written through it since: its release is on the way.
    closing: AtomicBool,
    /// When a read of it last found no store, by the clock, milliseconds; 0 for never.
    gave_up: AtomicI64,
    pub(crate) ahead: Mutex<ReadAhead>,
}

/// What `open` gave.
pub struct Opened {
    /// Handle number.
    pub fh: u64,
    /// The whole file is in its local file.
    pub whole: bool,
    /// Bytes.
    pub size: u64,
}

/// A range that can be read at once: the local file, and how many bytes of it.
pub struct ReadNow {
    /// The local file.
    pub file: Arc<File>,
    /// Bytes to read at the offset asked for; less than asked at the end of the file.
    pub len: usize,
}

/// Time of change of a local file, as it says itself.
pub(super) fn mtime_of(file: &File) -> Result<Time> {
    use std::os::unix::fs::MetadataExt;
    let m = file.metadata().doing(|| "looking at a local file")?;
    Ok(Time { sec: m.mtime(), nsec: m.mtime_nsec() as u32 })
}

/// Writes as much as can be written: how many bytes, and what stopped it.
fn write_some(file: &File, data: &[u8], off: u64) -> (usize, Option<std::io::Error>) {
    let mut done = 0;
    while done < data.len() {
        match file.write_at(&data[done..], off + done as u64) {
            Ok(0) => return (done, Some(std::io::ErrorKind::WriteZero.into())),
            Ok(n) => done += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return (done, Some(e)),
        }
    }
    (done, None)
}

/// Whether a file has bytes that are not published.
fn only_here(node: &Node, st: &St) -> bool {
    node.unsealed.load(Ordering::Acquire) || st.token.is_some()
}

/// For so long after a read that found no store further reads through the same handle do not wait for it, milliseconds.
const GAVE_UP: i64 = 1000;

/// Largest file: what a signed offset holds.
const SIZE_MAX: u64 = i64::MAX as u64;

impl Handle {
    fn new(node: Arc<Node>, write: bool, passthrough: bool, lent: bool) -> Handle {
        let (lent, closing) = (AtomicBool::new(lent), AtomicBool::new(false));
        Handle { node, write, passthrough, lent, closing, gave_up: AtomicI64::new(0), ahead: Mutex::new(ReadAhead::default()) }
    }

    /// It is used again after a `close` of one of its descriptors: another one is open.
    fn goes_on(&self) {
        if self.closing.load(Ordering::Acquire) {
            let mut st = self.node.st.lock();
            if self.closing.swap(false, Ordering::AcqRel) {
                st.closing -= 1;
            }
        }
    }
}

impl Vfs {
    /// Opens a regular file. `truncate` empties it. Not for the network to answer: a stub opens at once.
    pub fn open_file(self: &Arc<Self>, ino: u64, write: bool, truncate: bool) -> Result<Opened> {
        let node = self.hold(ino)?;
        let opened = self.open_node(&node, write, truncate);
        if opened.is_err() {
            self.unhold(&node);
        }
        let (whole, size) = opened?;
        if !whole && size <= self.options.hydrate_whole_below {
            self.hydrate_in_background(&node);
        }
        let fh = self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.handles.insert(fh, Arc::new(Handle::new(node, write, false, false)));
        Ok(Opened { fh, whole, size })
    }

    fn open_node(&self, node: &Arc<Node>, write: bool, truncate: bool) -> Result<(bool, u64)> {
        let mut st = node.st.lock();
        if write {
            // What is shown now is what a save through this handle replaces.
            if !st.local_only && st.accept.is_none() && !node.is_busy() {
                st.accept = self.accept_now(node.ino)?;
            }
            self.absorb(&mut st)?;
            if truncate && st.size > 0 {
                self.truncate_locked(node, &mut st, 0)?;
            }
            node.writers.fetch_add(1, Ordering::AcqRel);
        }
        Ok((st.is_whole(), st.size))
    }

    /// An open handle.
    pub fn handle(&self, fh: u64) -> Result<Arc<Handle>> {
        self.handles.get(&fh).map(|h| h.clone()).ok_or_else(|| Error::new(Kind::Stale, format!("file handle {fh} is not open")))
    }

    /// Notes that the kernel works on the local file of this handle directly. To be called before the open is
    /// answered; `file` is what to lend.
    pub fn lend(&self, fh: u64) -> Result<Option<Arc<File>>> {
        let h = self.handle(fh)?;
        let mut st = h.node.st.lock();
        if st.cached > 0 || !st.is_whole() {
            return Ok(None);
        }
        let first = h.write && !st.lent_writing;
        let sealed = !h.node.unsealed.load(Ordering::Acquire) && !st.local_only;
        let unsynced_boot = st.unsynced_boot;
        // In the row before the first byte: after a kill it says that there are no marks to go by.
        let known = std::mem::replace(&mut st.lent, true);
        st.stale_row |= !known;
        if h.write {
            // From here on the kernel writes without asking: everything may change.
            let size = st.size;
            self.before_change(&h.node, &mut st, 0..size.max(1))?;
        }
        let file = self.local_file(&h.node, &mut st)?;
        if first && sealed && lent::watch(&file)? {
            // Until the file itself says otherwise it is what was sealed or published.
            (st.sealed_wgen, st.unsynced_boot) = (Some(st.wgen), unsynced_boot);
        } else if h.write && !st.is_sealed() {
            st.dirty = RangeSet::of(0..st.size);
            st.wgen += 1;
            st.stale_row = true;
        }
        st.lent_writing |= h.write;
        if h.write && !h.lent.swap(true, Ordering::AcqRel) {
            // At once: a seal of the open before this one must not come between, it would take the file for quiet.
            st.passthrough_writers += 1;
        }
        if first {
            st.seen_mtime = mtime_of(&file)?;
        }
        // (A file that was never cut is taken as it lies in any case.)
        if h.write && !known && !sealed && st.content.is_some() {
            self.persist(&h.node, &mut st)?;
        }
        Ok(Some(file))
    }

    /// Counts an open as served by the kernel from the local file (`true`) or over us.
    pub fn count_open(&self, fh: u64, passthrough: bool) -> Result<()> {
        let h = self.handle(fh)?;
        let mut st = h.node.st.lock();
        if passthrough {
            st.passthrough += 1;
        } else {
            st.cached += 1;
            if h.lent.swap(false, Ordering::AcqRel) {
                st.passthrough_writers -= 1;
            }
        }
        drop(st);
        if passthrough {
            self.handles.alter(&fh, |_, h| Arc::new(Handle::new(h.node.clone(), h.write, true, h.lent.load(Ordering::Acquire))));
        }
        Ok(())
    }

    /// How a node is open in the kernel: (directly, over us).
    pub fn open_modes(&self, ino: u64) -> (u32, u32) {
        self.loaded(ino).map_or((0, 0), |n| {
            let st = n.st.lock();
            (st.passthrough, st.cached)
        })
    }

    /// Takes over what a kernel wrote directly: size and time from the local file.
    pub(crate) fn absorb(&self, st: &mut St) -> Result<()> {
        if st.lent_writing {
            let m = match &st.file {
                Some(f) => f.metadata(),
                None => std::fs::metadata(self.local_path(st.ino, st.overlay)),
            };
            let m = m.doing(|| "looking at a local file")?;
            use std::os::unix::fs::MetadataExt;
            let mtime = Time { sec: m.mtime(), nsec: m.mtime_nsec() as u32 };
            // Compared with what the local file itself said last: the time shown may have been set by hand since.
            if m.len() != st.size || mtime != st.seen_mtime {
                st.size = m.len();
                st.mtime = mtime;
                st.seen_mtime = mtime;
                st.wgen += 1;
                st.unsynced_boot = self.boot;
                (st.stale_row, st.stale_attr) = (true, true);
                st.last_write = std::time::Instant::now();
                st.dirty_since.get_or_insert(st.last_write);
            }
            st.have = RangeSet::of(0..st.size);
            if !st.is_sealed() {
                st.dirty = RangeSet::of(0..st.size);
            }
        }
        Ok(())
    }

    /// What of a read can be served at once; none if bytes must be fetched ([`Vfs::hydrate_range`]).
    pub fn read_now(self: &Arc<Self>, fh: u64, off: u64, len: usize) -> Result<Option<ReadNow>> {
        let h = self.handle(fh)?;
        let (now, whole, size) = {
            let mut st = h.node.st.lock();
            let end = off.saturating_add(len as u64).min(st.size);
            let len = end.saturating_sub(off) as usize;
            // First the file, which tells whether it is still there.
            let file = self.local_file(&h.node, &mut st)?;
            if len > 0 && !st.is_here(off..end) { (None, false, st.size) } else { (Some(ReadNow { file, len }), st.is_whole(), st.size) }
        };
        if !whole {
            let range = h.ahead.lock().on_read(off, len as u64, size);
            self.prefetch(&h.node, range);
        }
        Ok(now)
    }

    /// Brings the bytes of a read here, waiting for the store up to the read deadline. Cancel-safe.
    pub async fn hydrate_read(self: &Arc<Self>, fh: u64, off: u64, len: usize) -> Result<ReadNow> {
        let h = self.handle(fh)?;
        let range = off..off.saturating_add(len as u64);
        // A kernel asks again at once, for less, when a read failed: that must not take the deadline twice.
        let since = self.clock.now_ms() - h.gave_up.load(Ordering::Acquire);
        if (0..GAVE_UP).contains(&since) {
            return Err(Error::new(Kind::Timeout, format!("reading inode {}: the store did not answer just now", h.node.ino)));
        }
        let mut done = self.hydrate_range(&h.node, range.clone(), Priority::Foreground).await;
        if done.as_ref().is_err_and(|e| e.kind() == Kind::NoSpace) {
            match self.read_aside(&h.node, range).await {
                Ok((file, len)) => return Ok(ReadNow { file: Arc::new(file), len }),
                Err(e) => done = Err(e),
            }
        }
        if let Err(e) = done {
            if e.kind().is_transient() {
                h.gave_up.store(self.clock.now_ms(), Ordering::Release);
            }
            let path = self.path_of(h.node.ino).map_or_else(|_| format!("inode {}", h.node.ino), |p| p.to_string());
            let e = e.context(format!("reading {path:?} at {off}"));
            // The file is there; it is its bytes that are not to be had.
            return Err(if e.kind() == Kind::NotFound {
                Error::new(Kind::Corrupt, "the store has lost a part of a file").source(e)
            } else {
                e
            });
        }
        let mut st = h.node.st.lock();
        let end = off.saturating_add(len as u64).min(st.size);
        Ok(ReadNow { file: self.local_file(&h.node, &mut st)?, len: end.saturating_sub(off) as usize })
    }

    /// Writes `data` at `off`, or at the end if `append`. Returns the bytes written.
    pub fn write(&self, fh: u64, off: u64, data: &[u8], append: bool) -> Result<usize> {
        let h = self.handle(fh)?;
        h.goes_on();
        self.write_node(&h.node, off, data, append)
    }

    /// The same for pages of a mapping that the kernel writes back: that can be long after the `close` of the handle.
    pub fn write_back(&self, fh: u64, off: u64, data: &[u8]) -> Result<usize> {
        self.write_node(&self.handle(fh)?.node, off, data, false)
    }

    pub(crate) fn write_node(&self, node: &Node, off: u64, data: &[u8], append: bool) -> Result<usize> {
        self.room()?;
        let mut st = node.st.lock();
        let off = if append { st.size } else { off };
        let end = off.checked_add(data.len() as u64).filter(|e| *e <= SIZE_MAX);
        let end = end.ok_or_else(|| Error::new(Kind::TooBig, format!("writing inode {} beyond the largest offset", node.ino)))?;
        self.before_change(node, &mut st, off..end)?;
        let file = self.local_file(node, &mut st)?;
        let was = st.size;
        let (written, failed) = write_some(&file, data, off);
        if written > 0 || failed.is_none() {
            // A gap before it reads as zeros, which the published version may not have there.
            self.after_change(node, &mut st, off.min(was)..off + written as u64)?;
        }
        match failed {
            // What was written counts, as on any disk; the next write meets the error.
            Some(e) if written == 0 => Err(e).doing(|| format!("writing the local bytes of inode {}", node.ino)),
            _ => Ok(written),
        }
    }

    /// Sets the size of a file.
    pub fn truncate(&self, ino: u64, size: u64) -> Result<()> {
        let node = self.hold(ino)?;
        let done = {
            let mut st = node.st.lock();
            self.truncate_locked(&node, &mut st, size)
        };
        let idle = node.writers.load(Ordering::Acquire) == 0;
        if done.is_ok() && idle {
            self.seal_if_needed(&node)?;
        }
        self.unhold(&node);
        done
    }

    pub(crate) fn truncate_locked(&self, node: &Node, st: &mut St, size: u64) -> Result<()> {
        if size > SIZE_MAX {
            return Err(Error::new(Kind::TooBig, format!("truncating inode {} beyond the largest offset", node.ino)));
        }
        self.absorb(st)?;
        let was = st.size;
        if size > was {
            self.room()?;
        }
        self.before_change(node, st, size.min(was)..size.min(was))?;
        let file = self.local_file(node, st)?;
        file.set_len(size).doing(|| format!("sizing the local bytes of inode {}", node.ino))?;
        st.have.truncate(size);
        st.dirty.truncate(size);
        st.marked.truncate(size);
        st.size = size.min(was);
        self.after_change(node, st, size.min(was)..size)?;
        st.size = size;
        if size == 0 {
            st.promised = false;
        }
        // A length is not found again from the local file alone once the rest was published.
        self.persist(node, st)
    }

    /// `fallocate`. `mode` as in Linux; what the local disk cannot do is refused.
    pub fn fallocate(&self, fh: u64, off: u64, len: u64, mode: i32) -> Result<()> {
        let h = self.handle(fh)?;
        h.goes_on();
        let end = off.checked_add(len).filter(|e| *e <= SIZE_MAX && len > 0);
        let end = end.ok_or_else(|| Error::new(Kind::TooBig, "allocating beyond the largest offset"))?;
        let keep = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        let zeroing = mode & (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE) != 0;
        let known = libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE;
        if mode & !known != 0 {
            return Err(Error::new(Kind::Unsupported, "this way of allocating is not supported"));
        }
        let mut st = h.node.st.lock();
        let was = st.size;
        let top = if keep { end.min(was) } else { end };
        if !zeroing {
            self.room()?;
        }
        if zeroing {
            self.before_change(&h.node, &mut st, off.min(top)..top)?;
            let file = self.local_file(&h.node, &mut st)?;
            rustix::fs::fallocate(&*file, rustix::fs::FallocateFlags::from_bits_retain(mode as u32), off, len)
                .map_err(|e| Error::io("allocating local space", e.into()))?;
            let from = if off > was { was } else { off };
            if from < top {
                self.after_change(&h.node, &mut st, from..top)?;
            }
        } else {
            // Space is promised where the bytes will lie. A stub stays one: blocks under ranges that are not here
            // read as zeros in the local file only.
            self.before_change(&h.node, &mut st, was.min(top)..top)?;
            let file = self.local_file(&h.node, &mut st)?;
            rustix::fs::fallocate(&*file, rustix::fs::FallocateFlags::from_bits_retain(mode as u32), off, len)
                .map_err(|e| Error::io("allocating local space", e.into()))?;
            if top > was {
                self.after_change(&h.node, &mut st, was..top)?;
            }
        }
        self.persist(&h.node, &mut st)
    }

    /// `SEEK_DATA` / `SEEK_HOLE`: by the local file where all is here, else everything counts as data.
    pub fn seek(&self, fh: u64, off: i64, whence: i32) -> Result<i64> {
        let h = self.handle(fh)?;
        let mut st = h.node.st.lock();
        self.absorb(&mut st)?;
        let nothing = || Error::new(Kind::Invalid, "seeking beyond the end");
        if off < 0 || off as u64 >= st.size {
            return Err(Error::new(Kind::BeyondEnd, "seeking beyond the end"));
        }
        let whole = st.is_whole();
        match whence {
            libc::SEEK_DATA | libc::SEEK_HOLE if whole => {
                let file = self.local_file(&h.node, &mut st)?;
                let from = match whence {
                    libc::SEEK_DATA => rustix::fs::SeekFrom::Data(off as u64),
                    _ => rustix::fs::SeekFrom::Hole(off as u64),
                };
                // The offset of the shared descriptor is used by nobody: all I/O names its own.
                rustix::fs::seek(&*file, from).map(|n| n as i64).map_err(|e| Error::io("seeking", e.into()))
            }
            libc::SEEK_DATA => Ok(off),
            libc::SEEK_HOLE => Ok(st.size as i64),
            _ => Err(nothing()),
        }
    }

    /// `copy_file_range` within the drive. Bytes are copied between the local files (by reflink where the disk can).
    pub async fn copy_range(self: &Arc<Self>, from: u64, off_in: u64, to: u64, off_out: u64, len: u64) -> Result<u64> {
        let (src, dst) = (self.handle(from)?, self.handle(to)?);
        let len = {
            let mut st = src.node.st.lock();
            self.absorb(&mut st)?;
            len.min(st.size.saturating_sub(off_in))
        };
        if len == 0 {
            return Ok(0);
        }
        self.hydrate_range(&src.node, off_in..off_in + len, Priority::Foreground).await?;
        let source = {
            let mut st = src.node.st.lock();
            self.local_file(&src.node, &mut st)?
        };
        if Arc::ptr_eq(&src.node, &dst.node) {
            // Through memory: the kernel refuses overlapping ranges of one file.
            if off_in < off_out + len && off_out < off_in + len {
                return Err(Error::new(Kind::Invalid, "copying a range onto itself"));
            }
        }
        self.room()?;
        dst.goes_on();
        let mut st = dst.node.st.lock();
        let end = off_out.checked_add(len).filter(|e| *e <= SIZE_MAX);
        let end = end.ok_or_else(|| Error::new(Kind::TooBig, "copying beyond the largest offset"))?;
        self.before_change(&dst.node, &mut st, off_out..end)?;
        let file = self.local_file(&dst.node, &mut st)?;
        let was = st.size;
        let (mut a, mut b) = (off_in, off_out);
        while b < end {
            let want = (end - b).min(1 << 30) as usize;
            match rustix::fs::copy_file_range(&*source, Some(&mut a), &*file, Some(&mut b), want) {
                Ok(0) => break,
                Ok(_) => {}
                // What was copied counts; the next call meets the error.
                Err(_) if b > off_out => break,
                Err(e) => return Err(Error::io("copying local bytes", e.into())),
            }
        }
        if b > off_out {
            self.after_change(&dst.node, &mut st, off_out.min(was)..b)?;
        }
        Ok(b - off_out)
    }

    /// Each `close` of a descriptor: puts extents and size into the database. Never waits for the network, never
    /// reports a conflict.
    pub fn flush(&self, fh: u64) -> Result<()> {
        let h = self.handle(fh)?;
        if !h.write {
            return Ok(());
        }
        let mut st = h.node.st.lock();
        self.absorb(&mut st)?;
        if !h.closing.swap(true, Ordering::AcqRel) {
            st.closing += 1;
        }
        // A file that was never cut is its local file: nothing to put down that a crash could lose.
        if st.content.is_some() { self.persist(&h.node, &mut st) } else { Ok(()) }
    }

    /// Makes bytes, size and everything named so far durable here. Blocking on the local disk.
    pub fn fsync(&self, fh: u64) -> Result<()> {
        let h = self.handle(fh)?;
        self.fsync_node(&h.node)
    }

    pub(crate) fn fsync_node(&self, node: &Node) -> Result<()> {
        let (file, wgen) = {
            let mut st = node.st.lock();
            self.absorb(&mut st)?;
            if st.unsynced_boot == 0 && !st.stale_row && !st.stale_attr && !st.lent_writing {
                // On the disk already, but not because a program was told so: from now on it is.
                if only_here(node, &st) && !std::mem::replace(&mut st.promised, true) {
                    st.stale_row = true;
                    self.persist(node, &mut st)?;
                }
                drop(st);
                return self.sync();
            }
            (Some(self.local_file(node, &mut st)?), st.wgen)
        };
        if let Some(f) = file {
            f.sync_all().doing(|| format!("syncing the local bytes of inode {}", node.ino))?;
            // The name of a new local file.
            if let Some(dir) = self.local_path(node.ino, true).parent() {
                crate::state::journal::sync_dir(dir)?;
            }
        }
        {
            let mut st = node.st.lock();
            if st.wgen == wgen {
                st.unsynced_boot = 0;
            }
            st.promised |= only_here(node, &st);
            st.stale_row = true;
            self.persist(node, &mut st)?;
        }
        self.sync()
    }

    /// The last descriptor of an open is gone: seals when it was the last writer.
    pub fn release(&self, fh: u64) -> Result<()> {
        let Some((_, h)) = self.handles.remove(&fh) else { return Ok(()) };
        let node = h.node.clone();
        let mut last_writer = false;
        let absorbed;
        {
            let mut st = node.st.lock();
            absorbed = self.absorb(&mut st);
            if h.lent.load(Ordering::Acquire) {
                st.passthrough_writers -= 1;
            }
            if h.passthrough {
                st.passthrough -= 1;
            } else {
                st.cached = st.cached.saturating_sub(1);
            }
            if h.write {
                if h.closing.load(Ordering::Acquire) {
                    st.closing -= 1;
                }
                last_writer = node.writers.fetch_sub(1, Ordering::AcqRel) == 1;
            }
        }
        let sealed = if last_writer { self.after_last_writer(&node) } else { Ok(()) };
        self.unhold(&node);
        absorbed.and(sealed)
    }

    /// Removes the bytes and rows of an inode without names, unless it is open.
    pub(crate) fn orphaned(&self, ino: u64) {
        if let Some(n) = self.loaded(ino) {
            n.gone.store(true, Ordering::Release);
            if n.opens.load(Ordering::Acquire) > 0 {
                return;
            }
            self.nodes.remove(&ino);
        }
        match self.remove_inode(ino, false) {
            Ok(true) => {}
            Ok(false) => {
                self.orphans.lock().push(ino);
                // On a full disk whoever removes a file needs the space now.
                if self.replica.db().is_low()
                    && let Err(e) = self.free_orphans()
                {
                    tracing::warn!(ino, error = %e, "the bytes of a removed file could not be freed yet");
                }
            }
            Err(e) => tracing::warn!(ino, error = %e, "the bytes of a removed file could not be freed; the next start tries again"),
        }
    }

    /// Frees what waits until the loss of its last name is durable. Blocking on the local disk if something does.
    pub fn free_orphans(&self) -> Result<()> {
        let waiting = std::mem::take(&mut *self.orphans.lock());
        if waiting.is_empty() {
            return Ok(());
        }
        if let Err(e) = self.sync() {
            self.orphans.lock().extend(waiting);
            return Err(e);
        }
        for ino in waiting {
            if self.loaded(ino).is_none_or(|n| n.opens.load(Ordering::Acquire) == 0) {
                self.remove_inode(ino, true)?;
            }
        }
        Ok(())
    }

    /// Removes rows and bytes. False if they have to stay for now: a program synced these bytes, they are nowhere else,
    /// and a power cut could still bring the name back (unless the loss of it is `durable`).
    pub(crate) fn remove_inode(&self, ino: u64, durable: bool) -> Result<bool> {
        let mut wait = false;
        let gone = self.replica.db().write(|t| {
            let Some(i) = t.get::<Inode>(Tree::Inode, ino)? else {
                // Bytes that were being copied in when the process ended.
                t.del(Tree::Orphan, ino)?;
                return Ok(Some(()));
            };
            if !i.links.is_empty() {
                t.del(Tree::Orphan, ino)?;
                return Ok(None);
            }
            let local = t.get::<Local>(Tree::Local, ino)?;
            if !durable && local.as_ref().is_some_and(|l| l.promised) {
                wait = true;
                return Ok(None);
            }
            if let (Some(c), Some(l)) = (&i.content, &local) {
                super::hydrate::forget_chunks(t, ino, c, l)?;
            }
            t.del(Tree::Inode, ino)?;
            t.del(Tree::Local, ino)?;
            t.del(Tree::ChunkList, ino)?;
            t.del(Tree::Orphan, ino)?;
            t.del(Tree::Unsealed, ino)?;
            Ok(Some(()))
        })?;
        if gone.is_some() {
            self.cache.lock().remove(ino);
            for overlay in [true, false] {
                let path = self.local_path(ino, overlay);
                match std::fs::remove_file(&path) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::io(format!("removing {}", path.display()), e));
                    }
                    _ => {}
                }
            }
        }
        Ok(!wait)
    }
}
