//! The chunk cache as a whole: how much of it there is, and what goes first when it is full.
//!
//! Must: only what is published, clean, not open and not pinned is ever dropped, and by itself only what the store was
//! just asked for.
//! Must: a file is dropped by unlinking its local file, never by changing it: a kernel may still have it open.

use super::Vfs;
use crate::content::Priority;
use crate::error::{Error, Kind, Result};
use crate::model::Hash;
use crate::state::rows::*;
use crate::state::tree::{inode_at, path_of_dir};
use crate::state::{Read, Tree};
use lru::LruCache;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::Instant;

/// Ends the one eviction that goes on in the background, also if it panics.
struct Evicting<'a>(&'a Vfs);

impl Drop for Evicting<'_> {
    fn drop(&mut self) {
        self.0.evicting.store(false, Ordering::Release);
    }
}

/// Cached files, least recently used first, with their bytes.
pub(crate) struct Lru {
    order: LruCache<u64, u64>,
    total: u64,
    max: u64,
}

impl Lru {
    pub fn new(max: u64) -> Lru {
        Lru { order: LruCache::unbounded(), total: 0, max }
    }

    /// Notes `bytes` more of a file, now used.
    pub fn add(&mut self, ino: u64, bytes: u64) {
        let had = self.order.pop(&ino).unwrap_or(0);
        self.order.put(ino, had + bytes);
        self.total += bytes;
    }

    /// Notes that so many bytes of a file are here at least, now used.
    pub fn at_least(&mut self, ino: u64, total: u64) {
        let had = self.order.peek(&ino).copied().unwrap_or(0);
        self.add(ino, total.saturating_sub(had));
    }

    pub fn remove(&mut self, ino: u64) {
        if let Some(b) = self.order.pop(&ino) {
            self.total -= b;
        }
    }

    fn bytes_of(&self, ino: u64) -> u64 {
        self.order.peek(&ino).copied().unwrap_or(0)
    }

    fn oldest(&self) -> Option<u64> {
        self.order.peek_lru().map(|(i, _)| *i)
    }
}

/// What `status` tells of the cache.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct CacheUse {
    /// Bytes of published content here.
    pub bytes: u64,
    /// Cap.
    pub max_bytes: u64,
    /// Files.
    pub files: u64,
}

/// What `unsync` did with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Bytes freed.
    Freed(u64),
    /// Nothing of it was here.
    WasStub,
    /// Kept, and why.
    Kept(&'static str),
}

impl Vfs {
    /// Counts.
    pub fn cache_use(&self) -> CacheUse {
        let c = self.cache.lock();
        CacheUse { bytes: c.total, max_bytes: c.max, files: c.order.len() as u64 }
    }

    /// The files with the most bytes here, the largest first.
    pub fn largest_cached(&self, top: usize) -> Vec<(u64, u64)> {
        let mut all: Vec<(u64, u64)> = self.cache.lock().order.iter().map(|(ino, bytes)| (*ino, *bytes)).collect();
        all.sort_by_key(|(ino, bytes)| (std::cmp::Reverse(*bytes), *ino));
        all.truncate(top);
        all
    }

    /// When the bytes of a file were last used, milliseconds since 1970, coarse; 0 if that is not known.
    pub fn used_at(&self, ino: u64) -> Result<i64> {
        let row = self.replica.read(|r| r.get::<Local>(Tree::Local, ino))?.map_or(0, |l| l.used.saturating_mul(1000));
        Ok(self.trace(ino).read.map_or(row, |(at, _)| at.max(row)))
    }

    /// Notes that a cached file was used.
    pub(crate) fn used(&self, ino: u64) {
        self.cache.lock().order.promote(&ino);
    }

    /// Sees to it that the cache comes under its cap again, if it is above it: in the background, since the store is
    /// asked for what is to go.
    pub(crate) fn evict_if_full(self: &Arc<Self>) {
        self.evict_in_background(Vfs::is_cache_full);
    }

    /// The same, also while the disk of the cache is nearly full.
    pub fn evict_if_disk_full(self: &Arc<Self>) {
        self.evict_in_background(|v| v.is_cache_full() || v.is_disk_full());
    }

    fn evict_in_background(self: &Arc<Self>, short: fn(&Vfs) -> bool) {
        if short(self) && !self.evicting.swap(true, Ordering::AcqRel) {
            let this = self.clone();
            self.rt.spawn(async move {
                let _over = Evicting(&this);
                this.evict_while(short).await;
            });
        }
    }

    /// Drops least recently used files until the cache is under its cap, or none is left that can go.
    pub async fn evict(self: &Arc<Self>) {
        self.evict_while(Vfs::is_cache_full).await;
    }

    fn is_cache_full(&self) -> bool {
        let c = self.cache.lock();
        c.total > c.max
    }

    fn is_disk_full(&self) -> bool {
        let disk = rustix::fs::statvfs(&self.options.cache_dir).ok();
        disk.is_some_and(|d| {
            let (all, free) = (d.f_blocks.saturating_mul(d.f_frsize), d.f_bavail.saturating_mul(d.f_frsize));
            self.replica.db().is_low() || free < self.options.min_free.min(all / 10)
        })
    }

    async fn evict_while(self: &Arc<Self>, short: fn(&Vfs) -> bool) {
        // Each is looked at once: what cannot go is the youngest then.
        let mut left = self.cache.lock().order.len();
        while left > 0 && short(self) {
            let Some(ino) = self.cache.lock().oldest() else { return };
            left -= 1;
            match self.drop_verified(ino, Priority::Background).await {
                Ok(Dropped::Freed(_)) => {}
                Ok(_) => self.used(ino),
                Err(e) => match e.kind() {
                    Kind::Stale => self.cache.lock().remove(ino),
                    Kind::NotFound | Kind::Corrupt => {
                        tracing::warn!(ino, error = %e, "a cached file is kept: the store may not have it");
                        self.used(ino);
                    }
                    // Without the store nothing can go: it could not come back either.
                    _ => return tracing::debug!(error = %e, "nothing can be evicted now"),
                },
            }
        }
    }

    /// Refuses what only adds while the disk is so full that the reserve of the state is in use.
    pub(crate) fn room(&self) -> Result<()> {
        if self.replica.db().is_low() {
            return Err(Error::new(Kind::NoSpace, "the disk of the local state is full")
                .hint("remove files, or free space on the disk; what is published makes room by itself"));
        }
        Ok(())
    }

    /// Whether a path or a directory above it is pinned.
    pub(crate) fn is_pinned(&self, r: &Read<'_>, ino: u64) -> Result<bool> {
        let Some(i) = r.get::<Inode>(Tree::Inode, ino)? else { return Ok(false) };
        let mut path = match i.links.first() {
            Some((dir, name)) => path_of_dir(r, *dir)?.join(name),
            None => return Ok(false),
        };
        loop {
            if r.get::<()>(Tree::Pin, path.as_str())?.is_some() {
                return Ok(true);
            }
            match path.parent() {
                Some(p) => path = p,
                None => return Ok(false),
            }
        }
    }

    /// Pins or unpins a path (and what is below it).
    pub fn pin(&self, path: &crate::model::RelPath, on: bool) -> Result<()> {
        self.replica.db().write(|t| if on { t.put(Tree::Pin, path.as_str(), &()) } else { t.del(Tree::Pin, path.as_str()) })
    }

    /// Every pinned path.
    pub fn pins(&self) -> Result<Vec<String>> {
        let mut out = Vec::new();
        self.replica.read(|r| {
            let end = crate::state::prefix_end(&[]);
            r.scan(Tree::Pin, crate::state::Scan::From(&[], &end), usize::MAX >> 1, |k, _: ()| {
                out.push(String::from_utf8_lossy(k).into_owned());
                Ok(())
            })
        })?;
        Ok(out)
    }

    /// Whether a path itself is pinned.
    pub fn pinned(&self, path: &crate::model::RelPath) -> Result<bool> {
        Ok(self.replica.read(|r| r.get::<()>(Tree::Pin, path.as_str()))?.is_some())
    }

    /// Where the published bytes of a file lie: manifest and chunks. None if it has unpublished ones. Asks the store for
    /// the manifest of a large file whose chunk list is not known here.
    pub async fn where_stored(self: &Arc<Self>, ino: u64, priority: Priority) -> Result<Option<(Hash, Vec<Hash>)>> {
        let inode = self.replica.read(|r| inode_at(r, ino))?;
        let Some(content) = inode.content.filter(|c| !c.manifest.is_zero()) else { return Ok(None) };
        let deadline = Instant::now() + self.options.read_deadline;
        let list = self.chunk_list(ino, &content, priority, deadline).await?;
        Ok(Some((content.manifest, list.list.iter().map(|c| c.0).collect())))
    }

    /// [`Vfs::drop_bytes`] if the store has everything of it, asked now. Waits for the store.
    pub async fn drop_verified(self: &Arc<Self>, ino: u64, priority: Priority) -> Result<Dropped> {
        if let Some(n) = self.loaded(ino)
            && (n.is_busy() || n.opens.load(Ordering::Acquire) > 0)
        {
            return Ok(Dropped::Kept(if n.is_busy() { "not published yet" } else { "open" }));
        }
        let Some((manifest, chunks)) = self.where_stored(ino, priority).await? else {
            return Ok(Dropped::Kept("not published yet"));
        };
        if !self.fetcher.store_has(&manifest, &chunks).await? {
            return Ok(Dropped::Kept("part of it is missing in the store: this may be the only copy"));
        }
        let this = self.clone();
        let dropped = tokio::task::spawn_blocking(move || this.drop_bytes_of(ino, &manifest)).await;
        let dropped = dropped.map_err(|e| Error::new(Kind::Internal, "dropping cached bytes").source(e))??;
        if let Dropped::Freed(_) = dropped {
            let asked = priority == Priority::Foreground;
            self.note_dropped(ino, if asked { "somebody asked for it (tcfs unsync)" } else { "the cache, or its disk, was full" });
        }
        Ok(dropped)
    }

    /// [`Vfs::drop_bytes`] if the file still has the content of `manifest`.
    pub fn drop_bytes_of(&self, ino: u64, manifest: &Hash) -> Result<Dropped> {
        self.drop_if(ino, Some(manifest))
    }

    /// Makes a file a stub again, if that is safe.
    pub fn drop_bytes(&self, ino: u64) -> Result<Dropped> {
        self.drop_if(ino, None)
    }

    fn drop_if(&self, ino: u64, manifest: Option<&Hash>) -> Result<Dropped> {
        let node = self.hold(ino)?;
        let done = (|| {
            let mut st = node.st.lock();
            if st.local_only {
                return Ok(Dropped::Kept("local-only: it is nowhere else"));
            }
            if node.is_busy() || !st.dirty.is_empty() || st.token.is_some() {
                return Ok(Dropped::Kept("not published yet"));
            }
            let Some(content) = st.content.clone().filter(|c| !c.manifest.is_zero()) else {
                return Ok(Dropped::Kept("not published yet"));
            };
            if manifest.is_some_and(|m| *m != content.manifest) {
                return Ok(Dropped::Kept("it was just written again"));
            }
            if node.opens.load(Ordering::Acquire) > 1 {
                return Ok(Dropped::Kept("open"));
            }
            if self.replica.read(|r| self.is_pinned(r, ino))? {
                return Ok(Dropped::Kept("pinned"));
            }
            // After a power cut there may be bytes that are not trusted yet.
            let doubted = if st.have.is_empty() { self.cache.lock().bytes_of(ino) } else { 0 };
            if st.have.is_empty() && doubted == 0 {
                return Ok(Dropped::WasStub);
            }
            let freed = st.cached_bytes().max(doubted);
            let row = Local { overlay: st.overlay, ..Local::default() };
            // Rows first: bytes without a row are only waste, a row without bytes would be zeros.
            self.replica.db().write(|t| {
                super::hydrate::forget_chunks(t, ino, &content, &row)?;
                t.del(Tree::Local, ino)
            })?;
            let path = self.local_path(ino, st.overlay);
            st.have.clear();
            (st.file, st.overlay, st.lent, st.unsynced_boot, st.stale_row) = (None, false, false, 0, false);
            st.promise = Promise::None;
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io(format!("removing {}", path.display()), e));
                }
                _ => {}
            }
            self.cache.lock().remove(ino);
            Ok(Dropped::Freed(freed))
        })();
        self.unhold(&node);
        done
    }
}
