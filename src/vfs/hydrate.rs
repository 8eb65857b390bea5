//! Hydration: brings byte ranges of a file into its local file.
//!
//! Must: bytes enter the local file only after their chunk's hash was checked, and never over newer ones.
//! Must: a chunk that any local file has is copied from there, not fetched.
//! Cancel-safe: dropping a future leaves whole chunks or nothing of them.
//! Not here: requests to the store (`content::fetch`).

use super::Vfs;
use super::node::{Chunks, Node, St};
use crate::content::Priority;
use crate::error::{Error, IoContext, Kind, Result};
use crate::model::manifest::Manifest;
use crate::model::{ChunkRef, FileContent, Hash};
use crate::state::rows::*;
use crate::state::{Scan, Tree, Txn, prefix_end};
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tokio::time::Instant;

/// Chunks of one call that are under way at a time.
const PARALLEL: usize = 16;

impl Vfs {
    /// Brings `range` of a node here. Waits for the store up to the read deadline.
    ///
    /// Errors: `Timeout`/`Unavailable` at the deadline, `Corrupt` if the store has wrong bytes, local disk errors.
    pub(crate) async fn hydrate_range(self: &Arc<Self>, node: &Arc<Node>, range: Range<u64>, priority: Priority) -> Result<()> {
        let deadline = Instant::now() + self.options.read_deadline;
        loop {
            let (content, chunks, gaps) = {
                let st = node.st.lock();
                let range = range.start..range.end.min(st.size);
                if range.start >= range.end || st.is_here(range.clone()) {
                    return Ok(());
                }
                let Some(content) = st.content.clone() else { return Ok(()) };
                let gaps: Vec<Range<u64>> = st.have.gaps(range).collect();
                (content, st.chunks.clone(), gaps)
            };
            let chunks = match chunks {
                Some(c) => c,
                None => {
                    let c = self.chunk_list(node.ino, &content, priority, deadline).await?;
                    let mut st = node.st.lock();
                    // It may have been published anew while the list was fetched.
                    if st.content.as_ref().is_some_and(|now| now.root == content.root) {
                        st.chunks = Some(c.clone());
                    }
                    c
                }
            };
            let mut wanted: Vec<(u64, ChunkRef)> = Vec::new();
            for g in gaps {
                for (off, c) in chunks.overlapping(g) {
                    if wanted.last().is_none_or(|(o, _)| *o < off) {
                        wanted.push((off, c));
                    }
                }
            }
            if wanted.is_empty() {
                return Err(Error::new(Kind::Corrupt, format!("inode {}: its chunk list does not reach its size", node.ino)));
            }
            let mut under_way = FuturesUnordered::new();
            let mut left = wanted.into_iter();
            loop {
                while under_way.len() < PARALLEL
                    && let Some((off, c)) = left.next()
                {
                    let this = self.clone();
                    under_way.push(async move { Ok::<_, Error>((off, c, this.chunk(c, priority, deadline).await?)) });
                }
                match under_way.next().await {
                    Some(done) => {
                        let (off, c, bytes) = done?;
                        self.fill(node, &content, off, c, &bytes)?;
                    }
                    None => break,
                }
            }
            if node.st.lock().content.as_ref().is_none_or(|c| c.root == content.root) {
                continue;
            }
            // It was published anew meanwhile: look again with the list it has now.
        }
    }

    /// The bytes of a range in memory, at their offsets: for a disk that is too full to take them. Waits for the store up
    /// to the read deadline. Also how many there are: fewer at the end of the file.
    pub(super) async fn read_aside(self: &Arc<Self>, node: &Arc<Node>, range: Range<u64>) -> Result<(File, usize)> {
        let deadline = Instant::now() + self.options.read_deadline;
        loop {
            let (content, known, wgen, range) = {
                let st = node.st.lock();
                let range = range.start..range.end.min(st.size).max(range.start);
                (st.content.clone(), st.chunks.clone(), st.wgen, range)
            };
            let memory = crate::sys::scratch_file().doing(|| "making room in memory for a read")?;
            let list = match (&content, known) {
                (None, _) => None,
                (Some(_), Some(known)) => Some(known),
                (Some(c), None) => Some(self.chunk_list(node.ino, c, Priority::Foreground, deadline).await?),
            };
            let doing = || format!("reading inode {} past a full disk", node.ino);
            for (at, c) in list.iter().flat_map(|l| l.overlapping(range.clone())) {
                let end = at + u64::from(c.1);
                if node.st.lock().is_here(at.max(range.start)..end.min(range.end)) {
                    continue;
                }
                let bytes = self.chunk(c, Priority::Foreground, deadline).await?;
                let part = at.max(range.start)..end.min(range.end);
                memory.write_all_at(&bytes[(part.start - at) as usize..(part.end - at) as usize], part.start).doing(doing)?;
            }
            let mut st = node.st.lock();
            if st.wgen != wgen || st.content.as_ref().map(|c| c.root) != content.as_ref().map(|c| c.root) {
                continue;
            }
            // What is here may be newer than what was published.
            let here: Vec<Range<u64>> = st.have.within(range.clone()).collect();
            if !here.is_empty() {
                let file = self.local_file(node, &mut st)?;
                for r in here {
                    let mut buf = vec![0; (r.end - r.start) as usize];
                    FileExt::read_exact_at(&*file, &mut buf, r.start).doing(doing)?;
                    memory.write_all_at(&buf, r.start).doing(doing)?;
                }
            }
            return Ok((memory, (range.end - range.start) as usize));
        }
    }

    /// A chunk: from a local file that has it, else from the store.
    pub(super) async fn chunk(self: &Arc<Self>, c: ChunkRef, priority: Priority, deadline: Instant) -> Result<Bytes> {
        if let Some(b) = self.local_chunk(c)? {
            return Ok(b);
        }
        self.fetcher.chunk(c, priority, deadline).await
    }

    /// A chunk out of whichever local file has it; the index is a hint, the hash decides.
    fn local_chunk(&self, c: ChunkRef) -> Result<Option<Bytes>> {
        let mut found: Vec<(u64, u64)> = Vec::new();
        self.replica.read(|r| {
            r.scan(Tree::Chunk, Scan::From(&c.0.0, &prefix_end(&c.0.0)), 4, |k, _: ()| {
                if let (Some(i), Some(o)) = (k.get(32..40), k.get(40..48)) {
                    let word = |b: &[u8]| b.try_into().map(u64::from_be_bytes).unwrap_or(0);
                    found.push((word(i), word(o)));
                }
                Ok(())
            })
        })?;
        for (ino, off) in found {
            let mut buf = vec![0u8; c.1 as usize];
            let read = [false, true]
                .iter()
                .any(|overlay| std::fs::File::open(self.local_path(ino, *overlay)).and_then(|f| f.read_exact_at(&mut buf, off)).is_ok());
            if read && Hash::of(&buf) == c.0 {
                return Ok(Some(buf.into()));
            }
            self.replica.db().write(|t| t.del(Tree::Chunk, chunk_key(&c.0, ino, off)))?;
        }
        Ok(None)
    }

    /// The chunk list of a content: in the version itself, known here, or from its manifest.
    pub(crate) async fn chunk_list(
        self: &Arc<Self>,
        ino: u64,
        content: &FileContent,
        priority: Priority,
        deadline: Instant,
    ) -> Result<Arc<Chunks>> {
        if let Some(c) = &content.chunks {
            return checked(content, c.clone());
        }
        let known: Option<(Hash, Vec<ChunkRef>)> = self.replica.read(|r| r.get(Tree::ChunkList, ino))?;
        if let Some((root, list)) = known
            && root == content.root
        {
            return checked(content, list);
        }
        let list = self.listed_in_manifest(content.manifest, priority, deadline).await?;
        let chunks = checked(content, list)?;
        self.replica.db().write(|t| t.put(Tree::ChunkList, ino, &(content.root, &chunks.list)))?;
        Ok(chunks)
    }

    /// The chunk list of a content that no inode shows.
    pub(super) async fn chunks_of(&self, content: &FileContent, priority: Priority, deadline: Instant) -> Result<Arc<Chunks>> {
        let list = match &content.chunks {
            Some(list) => list.clone(),
            None => self.listed_in_manifest(content.manifest, priority, deadline).await?,
        };
        checked(content, list)
    }

    /// The chunk list that a manifest in the store tells.
    pub(super) async fn listed_in_manifest(&self, manifest: Hash, priority: Priority, deadline: Instant) -> Result<Vec<ChunkRef>> {
        let body = self.fetcher.manifest(manifest, priority, deadline).await?;
        let parsed = Manifest::parse(&body).map_err(|e| e.context(format!("manifest {manifest}")))?;
        parsed.chunk_refs().ok_or_else(|| {
            Error::new(Kind::Corrupt, format!("manifest {manifest} tells no chunk sizes"))
                .hint("it is of the older layout: `tcfs adopt` reads it")
        })
    }

    /// Puts a checked chunk into the local file where nothing newer is.
    fn fill(self: &Arc<Self>, node: &Node, content: &FileContent, off: u64, c: ChunkRef, bytes: &[u8]) -> Result<()> {
        let mut st = node.st.lock();
        if st.content.as_ref().is_none_or(|now| now.root != content.root) {
            return Ok(());
        }
        let end = (off + u64::from(c.1)).min(st.size);
        if off >= end {
            return Ok(());
        }
        self.room()?;
        let file = self.local_file(node, &mut st)?;
        let gaps: Vec<Range<u64>> = st.have.gaps(off..end).collect();
        for g in &gaps {
            let part = &bytes[(g.start - off) as usize..(g.end - off) as usize];
            file.write_all_at(part, g.start).doing(|| format!("writing hydrated bytes of inode {}", node.ino))?;
        }
        if gaps.is_empty() {
            return Ok(());
        }
        st.have.insert(off..end);
        st.unsynced_boot = self.boot;
        st.stale_row = true;
        let untouched = !st.dirty.intersects(off..end);
        let total = st.have.total();
        let (overlay, whole) = (st.overlay, st.is_whole());
        if untouched {
            self.replica.db().write(|t| t.put(Tree::Chunk, chunk_key(&c.0, node.ino, off), &()))?;
        }
        if whole {
            self.persist(node, &mut st)?;
        }
        drop(st);
        if !overlay {
            self.cache.lock().at_least(node.ino, total);
            self.evict_if_full();
        }
        Ok(())
    }

    /// Fetches a range ahead of a reader; nobody waits.
    pub(crate) fn prefetch(self: &Arc<Self>, node: &Arc<Node>, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (this, ino) = (self.clone(), node.ino);
        self.rt.spawn(async move {
            let Ok(node) = this.hold(ino) else { return };
            if let Err(e) = this.hydrate_range(&node, range, Priority::Background).await {
                tracing::debug!(ino, error = %e, "read-ahead");
            }
            this.unhold(&node);
        });
    }

    /// Fetches the whole file; nobody waits.
    pub(crate) fn hydrate_in_background(self: &Arc<Self>, node: &Arc<Node>) {
        self.prefetch(node, 0..u64::MAX);
    }

    /// Brings a whole file here, telling how far it is. Waits; each step has the read deadline.
    pub async fn hydrate(self: &Arc<Self>, ino: u64, progress: &(dyn Fn(u64, u64) + Send + Sync)) -> Result<u64> {
        let node = self.hold(ino)?;
        let done = self.hydrate_steps(&node, progress).await;
        self.unhold(&node);
        done
    }

    async fn hydrate_steps(self: &Arc<Self>, node: &Arc<Node>, progress: &(dyn Fn(u64, u64) + Send + Sync)) -> Result<u64> {
        const STEP: u64 = 64 << 20;
        let size = node.st.lock().size;
        let mut at = 0;
        progress(0, size);
        while at < size {
            let end = (at + STEP).min(size);
            self.hydrate_range(node, at..end, Priority::Foreground).await?;
            at = end;
            progress(at, size);
        }
        Ok(size)
    }
}

/// A list that adds up to the size it is for.
fn checked(content: &FileContent, list: Vec<ChunkRef>) -> Result<Arc<Chunks>> {
    let sum = list.iter().try_fold(0u64, |a, c| a.checked_add(u64::from(c.1)));
    if sum != Some(content.size) {
        return Err(Error::new(
            Kind::Corrupt,
            format!("manifest {}: its chunks add up to {sum:?} bytes, its file has {}", content.manifest, content.size),
        ));
    }
    Ok(Arc::new(Chunks::new(list)))
}

/// Takes an inode's chunks out of the index.
pub(crate) fn forget_chunks(t: &mut Txn<'_>, ino: u64, content: &FileContent, _local: &Local) -> Result<()> {
    let list = match &content.chunks {
        Some(c) => c.clone(),
        None => match t.get::<(Hash, Vec<ChunkRef>)>(Tree::ChunkList, ino)? {
            Some((_, l)) => l,
            None => return Ok(()),
        },
    };
    let mut off = 0;
    for c in list {
        t.del(Tree::Chunk, chunk_key(&c.0, ino, off))?;
        off += u64::from(c.1);
    }
    Ok(())
}

impl St {
    /// Bytes of published content that are here.
    pub(crate) fn cached_bytes(&self) -> u64 {
        self.have.total()
    }
}
