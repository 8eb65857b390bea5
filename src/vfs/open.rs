//! Open files: handles, from `open` to the last `close`.
//!
//! Must: `open` never waits for the network (a caller stuck in it could not even be killed).
//! Must: what a save through a handle replaces is what was shown when the file was opened for writing.
//! Not here: what is sealed when the last writer goes (`seal`), files that the kernel writes by itself (`lent`).

use super::node::{Node, St};
use super::readers::Allowance;
use super::{Vfs, control, is_control};
use crate::content::readahead::ReadAhead;
use crate::error::{Error, Kind, Result};
use crate::state::Tree;
use crate::state::rows::Inode;
use crate::state::tree::stale;
use parking_lot::Mutex;
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
    pub(super) lent: AtomicBool,
    /// A `close` was answered and nothing was written through it since: its release is on the way.
    closing: AtomicBool,
    /// When a read of it last found no store, by the clock, milliseconds; 0 for never.
    pub(super) gave_up: AtomicI64,
    pub(crate) ahead: Mutex<ReadAhead>,
    /// What reading it may bring here.
    pub(super) allowance: Allowance,
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

/// An open file that is closed with its last user, also when that is dropped on the way.
pub struct OpenFile {
    vfs: Arc<Vfs>,
    /// Handle number.
    pub fh: u64,
}

impl OpenFile {
    /// Takes over a handle.
    pub fn of(vfs: &Arc<Vfs>, fh: u64) -> OpenFile {
        OpenFile { vfs: vfs.clone(), fh }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if let Err(e) = self.vfs.release(self.fh) {
            tracing::warn!(error = %e, "closing a file; it is looked at again");
        }
    }
}

impl Handle {
    pub(super) fn new(node: Arc<Node>, write: bool, passthrough: bool, lent: bool) -> Handle {
        let (lent, closing) = (AtomicBool::new(lent), AtomicBool::new(false));
        Handle {
            node,
            write,
            passthrough,
            lent,
            closing,
            gave_up: AtomicI64::new(0),
            ahead: Mutex::new(ReadAhead::default()),
            allowance: Allowance::all(),
        }
    }

    /// It is used again after a `close` of one of its descriptors: another one is open.
    pub(super) fn goes_on(&self) {
        if self.closing.load(Ordering::Acquire) {
            let mut st = self.node.st.lock();
            if self.closing.swap(false, Ordering::AcqRel) {
                st.closing -= 1;
            }
        }
    }
}

impl Vfs {
    /// Opens a regular file. `truncate` empties it. Not for the network to answer: a stub opens at once; if it is not large
    /// it is fetched in the background.
    pub fn open_file(self: &Arc<Self>, ino: u64, write: bool, truncate: bool) -> Result<Opened> {
        if is_control(ino) {
            return self.open_control(ino, write || truncate, true);
        }
        let opened = self.open_sparing(ino, write, truncate)?;
        if !opened.whole {
            self.hydrate_opened(opened.fh)?;
        }
        Ok(opened)
    }

    /// The same, and nothing is fetched but what is read.
    pub fn open_sparing(self: &Arc<Self>, ino: u64, write: bool, truncate: bool) -> Result<Opened> {
        if is_control(ino) {
            return self.open_control(ino, write || truncate, false);
        }
        let node = self.hold(ino)?;
        let opened = self.open_node(&node, write, truncate);
        if opened.is_err() {
            self.unhold(&node);
        }
        let (whole, size) = opened?;
        Ok(self.handle_on(node, write, whole, size))
    }

    /// Fetches the rest of an open file in the background, unless it is large. Nobody waits.
    pub fn hydrate_opened(self: &Arc<Self>, fh: u64) -> Result<()> {
        let h = self.handle(fh)?;
        if h.node.st.lock().size <= self.options.hydrate_whole_below {
            self.hydrate_in_background(&h.node);
        }
        Ok(())
    }

    /// A handle on a file that is held, and if it is for writing counted as written.
    pub(super) fn handle_on(&self, node: Arc<Node>, write: bool, whole: bool, size: u64) -> Opened {
        let fh = self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.handles.insert(fh, Arc::new(Handle::new(node, write, false, false)));
        Opened { fh, whole, size }
    }

    fn open_node(&self, node: &Arc<Node>, write: bool, truncate: bool) -> Result<(bool, u64)> {
        let mut st = node.st.lock();
        if write {
            self.count_writer(node, &mut st)?;
            if let Err(e) = self.begin_writing(node, &mut st, truncate) {
                drop(st);
                if node.writers.fetch_sub(1, Ordering::AcqRel) == 1
                    && let Err(e) = self.after_last_writer(node)
                {
                    tracing::warn!(ino = node.ino, error = %e, "what waited for a writer goes on waiting");
                }
                return Err(e);
            }
        }
        Ok((st.is_whole(), st.size))
    }

    /// Counts a writer, and settles what its save replaces: what is shown now. Both under the database's lock, so that a
    /// version that arrives either is seen before, or leaves the name to this file.
    ///
    /// Errors: `Stale` if a version that arrived has taken the name: what leads here is out of date, and bytes that are
    /// written here would be in no version.
    fn count_writer(&self, node: &Node, st: &mut St) -> Result<()> {
        self.replica.read(|r| {
            let inode: Option<Inode> = r.get(Tree::Inode, node.ino)?;
            let nameless = inode.as_ref().is_none_or(|i| i.links.is_empty());
            if node.replaced.load(Ordering::Acquire) || !node.gone.load(Ordering::Acquire) && nameless {
                return Err(stale(node.ino));
            }
            for (dir, name) in inode.iter().flat_map(|i| &i.links) {
                self.note_companion(*dir, name);
            }
            if !st.local_only && st.accept.is_none() && !node.is_busy() {
                st.accept = self.accept_now(r, &inode.ok_or_else(|| stale(node.ino))?)?;
            }
            node.writers.fetch_add(1, Ordering::AcqRel);
            Ok(())
        })
    }

    fn begin_writing(&self, node: &Arc<Node>, st: &mut St, truncate: bool) -> Result<()> {
        self.absorb(st)?;
        if truncate && st.size > 0 {
            self.truncate_locked(node, st, 0)?;
        }
        Ok(())
    }

    /// An open handle.
    pub fn handle(&self, fh: u64) -> Result<Arc<Handle>> {
        self.handles.get(&fh).map(|h| h.clone()).ok_or_else(|| Error::new(Kind::Stale, format!("file handle {fh} is not open")))
    }

    /// Each `close` of a descriptor: puts extents and size into the database. Never waits for the network, never
    /// reports a conflict.
    pub fn flush(&self, fh: u64) -> Result<()> {
        if control::is_handle(fh) {
            return Ok(());
        }
        let h = self.handle(fh)?;
        if !h.write {
            return Ok(());
        }
        self.ignores.written(h.node.ino);
        let mut st = h.node.st.lock();
        self.absorb(&mut st)?;
        if !h.closing.swap(true, Ordering::AcqRel) {
            st.closing += 1;
        }
        // A file that was never cut is its local file: nothing to put down that a crash could lose.
        if st.content.is_some() { self.persist(&h.node, &mut st) } else { Ok(()) }
    }

    /// The last descriptor of an open is gone: seals when it was the last writer.
    pub fn release(&self, fh: u64) -> Result<()> {
        if control::is_handle(fh) {
            return self.release_control(fh);
        }
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
}
