//! The publisher's view of the files: bytes to cut, and what became of them.
//!
//! Must: bytes that are cut are those of the seal: every read is checked against the count of changes afterwards.

use super::Vfs;
use super::copies::Copied;
use super::node::{Chunks, Node};
use crate::content::{Priority, ReadAt};
use crate::error::{Error, IoContext, Kind, Result};
use crate::fleet::{CutSource, Files, Outcome, Resolved, Settings};
use crate::model::ranges::RangeSet;
use crate::model::reissue::Reissue;
use crate::model::{ChunkRef, FileContent, Hash};
use crate::state::rows::*;
use crate::state::{Change, Ns, Tree};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// A file that others wait for is sealed although it is open, once it has been dirty for so long.
const HELD: Duration = Duration::from_secs(30);
/// From this many inodes on, one sync of the whole disk is cheaper than one of each file.
const SYNC_ALL_FROM: usize = 6;

/// Reads a sealed file, hydrating what an edit needs around it.
struct Sealed {
    vfs: Arc<Vfs>,
    node: Arc<Node>,
    wgen: u64,
}

impl Drop for Sealed {
    fn drop(&mut self) {
        self.vfs.unhold(&self.node);
    }
}

impl Sealed {
    fn changed(&self) -> Error {
        Error::new(Kind::Busy, format!("inode {} is being written again", self.node.ino))
    }
}

impl ReadAt for Sealed {
    fn read_exact_at(&self, off: u64, buf: &mut [u8]) -> Result<()> {
        let end = off + buf.len() as u64;
        let here = {
            let mut st = self.node.st.lock();
            if st.wgen == self.wgen && !st.have.is_empty() {
                self.vfs.local_file(&self.node, &mut st)?;
            }
            st.is_here(off..end)
        };
        if !here {
            self.vfs.rt.block_on(self.vfs.hydrate_range(&self.node, off..end, Priority::Background))?;
        }
        let file = {
            let mut st = self.node.st.lock();
            if st.wgen != self.wgen || end > st.size {
                return Err(self.changed());
            }
            self.vfs.local_file(&self.node, &mut st)?
        };
        FileExt::read_exact_at(&*file, buf, off).doing(|| format!("reading the local bytes of inode {}", self.node.ino))?;
        // A writer holds the node's lock while it writes: if the count stands still now, nothing was mixed in.
        if self.node.st.lock().wgen != self.wgen {
            return Err(self.changed());
        }
        Ok(())
    }

    fn zeros_until(&self, off: u64) -> u64 {
        let mut st = self.node.st.lock();
        if !st.is_whole() || st.wgen != self.wgen {
            return off;
        }
        match self.vfs.local_file(&self.node, &mut st) {
            Ok(f) => ReadAt::zeros_until(&*f, off),
            Err(_) => off,
        }
    }
}

/// [`Files`] over an `Arc<Vfs>`.
pub struct VfsFiles(pub Arc<Vfs>);

impl Files for VfsFiles {
    fn settings(&self) -> Settings {
        let v = &self.0;
        Settings {
            mode: v.options.conflict_mode,
            show_siblings: v.show_siblings.load(Ordering::Relaxed),
            uid: v.options.uid,
            gid: v.options.gid,
            boot: v.boot,
        }
    }

    fn cut_source(&self, ino: u64, wgen: u64) -> Result<Option<CutSource>> {
        let vfs = &self.0;
        if let Some(copy) = vfs.sealed_copy(ino, wgen)? {
            let size = copy.metadata().doing(|| "looking at a copy")?.len();
            return Ok(Some(CutSource { reader: Box::new(Copied(copy)), size, base: None, dirty: RangeSet::of(0..size) }));
        }
        let node = match vfs.hold(ino) {
            Ok(n) => n,
            Err(e) if e.kind() == Kind::Stale => return Ok(None),
            Err(e) => return Err(e),
        };
        let sealed = Sealed { vfs: vfs.clone(), node: node.clone(), wgen };
        let (content, dirty, size, whole) = {
            let mut st = node.st.lock();
            vfs.absorb(&mut st)?;
            if st.wgen != wgen {
                return Ok(None);
            }
            (st.content.clone(), st.dirty.clone(), st.size, st.is_whole())
        };
        let base = match &content {
            // Nothing of the base is left, or everything has to be looked at anyway.
            Some(_) if whole && dirty.covers(0..size) => None,
            Some(c) => {
                let deadline = Instant::now() + vfs.options.read_deadline;
                let known = node.st.lock().chunks.clone();
                let list = match known {
                    Some(l) => l,
                    None => vfs.rt.block_on(vfs.chunk_list(ino, c, Priority::Background, deadline))?,
                };
                Some(list.list.clone())
            }
            None => None,
        };
        Ok(Some(CutSource { reader: Box::new(sealed), size, base, dirty }))
    }

    fn unchanged(&self, ino: u64, wgen: u64) -> bool {
        if self.0.copy_path(ino, wgen).exists() {
            return true;
        }
        if let Some(n) = self.0.loaded(ino) {
            let mut st = n.st.lock();
            return self.0.absorb(&mut st).is_ok() && st.wgen == wgen;
        }
        let row = self.0.replica.read(|r| r.get::<Local>(Tree::Local, ino));
        row.is_ok_and(|l| l.is_some_and(|l| l.wgen == wgen))
    }

    fn resolved(&self, what: &[Resolved]) -> Result<()> {
        for r in what {
            match &r.outcome {
                Outcome::Cut { content, chunks } => self.0.published(r, content, chunks)?,
                Outcome::Dropped { base } => self.0.rebase_accepted(r.ino, r.token, *base)?,
            }
            self.0.forget_copy(r.ino, r.wgen);
        }
        Ok(())
    }

    fn busy(&self, ino: u64) -> bool {
        self.0.is_busy(ino)
    }

    fn changed(&self, changes: Vec<Change>) {
        self.0.tell(&changes, &[]);
    }

    fn sync_data(&self, inos: &[u64]) -> Result<()> {
        self.0.sync_data(inos)
    }

    fn wanted(&self, ino: u64) {
        // Open for writing (a log that was rotated, say): after a while it is sealed as it lies, so that what was sealed
        // behind it does not wait for ever.
        let Some(n) = self.0.loaded(ino) else { return };
        let long = n.st.lock().dirty_since.is_some_and(|d| d.elapsed() > HELD);
        if n.writers.load(Ordering::Acquire) > 0 && !long {
            return;
        }
        let vfs = self.0.clone();
        vfs.rt.clone().spawn_blocking(move || {
            if let Err(e) = vfs.seal_open(&n) {
                tracing::warn!(ino, error = %e, "sealing a file that others wait for");
            }
        });
    }

    fn expand_moves(&self, ns: &mut Ns<'_, '_>) -> Result<()> {
        // What is sealed later looks for moves that came in between.
        self.0.applied.fetch_add(1, Ordering::AcqRel);
        let author = self.0.author();
        crate::fleet::moves::write_out_in(ns, &author, self.0.boot)
    }

    fn new_id(&self, change: &Reissue<'_>) {
        for n in self.0.nodes.iter().map(|n| n.clone()).collect::<Vec<_>>() {
            let mut st = n.st.lock();
            if let Some((path, a)) = &st.accept {
                st.accept = Some((path.clone(), change.accepted(path, a)));
            }
        }
    }
}

impl Vfs {
    /// Seals a file that others wait for, if need be from a copy: whoever has it open would write over the sealed bytes
    /// again before they are cut.
    pub fn seal_open(&self, node: &Arc<Node>) -> Result<()> {
        if self.waits_for_others(node.ino)? {
            return Ok(());
        }
        if node.writers.load(Ordering::Acquire) == 0 {
            self.seal_alone(node)?;
        }
        let (whole, sealed) = {
            let st = node.st.lock();
            (st.is_whole(), self.nothing_to_seal(&st)?)
        };
        match node.unsealed.load(Ordering::Acquire) {
            true if whole && !sealed => self.seal_copy(node).map(drop),
            true if !whole => self.seal_alone(node),
            _ => Ok(()),
        }
    }

    /// Bytes of a seal are published: the file is clean, unless it was changed again.
    fn published(self: &Arc<Self>, r: &Resolved, content: &FileContent, chunks: &[ChunkRef]) -> Result<()> {
        let node = match self.hold(r.ino) {
            Ok(n) => n,
            Err(e) if e.kind() == Kind::Stale => return Ok(()),
            Err(e) => return Err(e),
        };
        let done = self.published_node(&node, r, content, chunks);
        self.unhold(&node);
        self.let_bundle_go(r.ino)?;
        if node.gone.load(Ordering::Acquire) {
            self.orphaned(node.ino);
        }
        done
    }

    fn published_node(self: &Arc<Self>, node: &Arc<Node>, r: &Resolved, content: &FileContent, chunks: &[ChunkRef]) -> Result<()> {
        let mut st = node.st.lock();
        if let Some((_, a)) = &mut st.accept
            && a.base == Some(r.token)
        {
            a.base = Some(content.root);
            st.stale_row = true;
        }
        // Of a later seal, if there was one.
        let token = st.token.filter(|t| t.0 != r.token);
        let unchanged = st.wgen == r.wgen;
        if !unchanged && token == st.token {
            return self.persist(node, &mut st);
        }
        if st.content.is_none() {
            st.have = RangeSet::of(0..st.size);
            st.dirty = st.have.clone();
        }
        // Of a file that was written again, `dirty` has what differs from the content before, and with it all that differs from
        // this one.
        st.content = Some(content.clone());
        st.chunks = (content.chunks.is_none()).then(|| Arc::new(Chunks::new(chunks.to_vec())));
        if unchanged {
            st.dirty.clear();
            st.promise = Promise::None;
            let quiet = !node.unsealed.load(Ordering::Acquire) && st.passthrough_writers == 0;
            if quiet && st.overlay && st.size > 0 {
                self.to_cache(node, &mut st)?;
            }
        }
        let row = Local { token, ..st.row(self.clock.now_ms() / 1000) };
        let here = st.have.total();
        self.change(&[], |ns| {
            let Some(mut i) = ns.t.get::<Inode>(Tree::Inode, node.ino)? else { return Ok(()) };
            i.content = Some(content.clone());
            ns.t.put(Tree::Inode, node.ino, &i)?;
            ns.t.put(Tree::Local, node.ino, &row)?;
            self.recut_heads(ns, &i, &r.token, content)?;
            if content.chunks.is_none() {
                ns.t.put(Tree::ChunkList, node.ino, &(content.root, chunks))?;
            }
            let mut off = 0u64;
            for c in chunks {
                let range = off..off + u64::from(c.1);
                if st.have.covers(range.clone()) && !st.dirty.intersects(range) {
                    ns.t.put(Tree::Chunk, chunk_key(&c.0, node.ino, off), &())?;
                }
                off += u64::from(c.1);
            }
            Ok(())
        })?;
        // Not before: what failed is told again.
        (st.token, st.stale_row) = (token, false);
        st.marked = st.dirty.clone();
        if !unchanged {
            return self.persist(node, &mut st);
        }
        drop(st);
        self.cache.lock().remove(node.ino);
        self.cache.lock().add(node.ino, here);
        self.evict_if_full();
        Ok(())
    }

    /// Within the transaction in which a file gets the content that its token stands for: the heads of its names get it, too.
    /// The names of a hard link are known by what they hold, so at no time may the two say different things.
    fn recut_heads(&self, ns: &mut Ns<'_, '_>, i: &Inode, token: &Hash, content: &FileContent) -> Result<()> {
        for (dir, name) in &i.links {
            let Some((of, mut reg)) = self.owner(ns.t, *dir, name)? else { continue };
            let changed = reg.entry.change(|h| {
                let mut new = h.clone();
                (h.file().is_some_and(|c| c.root == *token) && new.recut(token, content)).then_some(new)
            });
            if changed {
                ns.put_slot(*dir, &of, &Slot::Register(Box::new(reg)))?;
            }
        }
        Ok(())
    }

    /// A version that nobody saw is left out: what builds on it builds on what it was based on.
    fn rebase_accepted(&self, ino: u64, token: Hash, base: Option<Hash>) -> Result<()> {
        let Some(node) = self.loaded(ino) else { return Ok(()) };
        let mut st = node.st.lock();
        if let Some((_, a)) = &mut st.accept
            && a.base == Some(token)
        {
            a.base = base;
            st.stale_row = true;
            self.persist(&node, &mut st)?;
        }
        Ok(())
    }

    /// Makes the bytes of what waits to be published durable, as a kernel does after a while with what nobody synced:
    /// without the store that can be hours, and a power cut takes back what is not on the disk. Blocking.
    pub fn sync_waiting(&self) -> Result<()> {
        let rows: Vec<(u64, crate::state::rows::Sealed)> =
            self.replica.read(|r| r.scan_int(Tree::Outbox, self.synced_rows.load(Ordering::Acquire), u64::MAX, 10_000))?;
        let Some(last) = rows.last().map(|(n, _)| *n) else { return Ok(()) };
        let inos: Vec<u64> = rows.iter().flat_map(|(_, s)| &s.files).map(|f| f.1).collect();
        self.sync_data(&inos)?;
        self.sync()?;
        self.synced_rows.store(last + 1, Ordering::Release);
        Ok(())
    }

    /// Makes the bytes of these files durable, and notes it.
    fn sync_data(&self, inos: &[u64]) -> Result<()> {
        let mut rows: Vec<(u64, u64)> = Vec::new();
        for ino in inos {
            let wgen = match self.loaded(*ino) {
                Some(n) => {
                    let st = n.st.lock();
                    (st.unsynced_boot != 0).then_some(st.wgen)
                }
                None => {
                    let row: Option<Local> = self.replica.read(|r| r.get(Tree::Local, *ino))?;
                    row.filter(|l| l.unsynced_boot != 0).map(|l| l.wgen)
                }
            };
            rows.extend(wgen.map(|w| (*ino, w)));
        }
        if rows.is_empty() {
            return Ok(());
        }
        let mut synced = false;
        if rows.len() >= SYNC_ALL_FROM {
            let dir = std::fs::File::open(&self.options.state_dir).doing(|| "opening the state directory")?;
            synced = crate::sys::sync_disk(&dir).doing(|| "syncing unpublished bytes")?;
        }
        if !synced {
            for (ino, _) in &rows {
                match std::fs::File::open(self.local_path(*ino, true)) {
                    Ok(f) => f.sync_all().doing(|| format!("syncing the local bytes of inode {ino}"))?,
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                    Err(e) => return Err(Error::io(format!("syncing the local bytes of inode {ino}"), e)),
                }
            }
        }
        for (ino, wgen) in &rows {
            if let Some(n) = self.loaded(*ino) {
                let mut st = n.st.lock();
                // What is being written is no state that anybody closed.
                if st.wgen == *wgen && !n.unsealed.load(Ordering::Acquire) {
                    st.unsynced_boot = 0;
                }
            }
        }
        self.replica.db().write(|t| {
            for (ino, wgen) in &rows {
                if let Some(mut l) = t.get::<Local>(Tree::Local, *ino)?
                    && l.wgen == *wgen
                    && t.get::<()>(Tree::Unsealed, *ino)?.is_none()
                {
                    l.unsynced_boot = 0;
                    t.put(Tree::Local, *ino, &l)?;
                }
            }
            Ok(())
        })
    }
}
