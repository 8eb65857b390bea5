//! Publishing bytes: read → cut → hash → encode → put, as a pipeline.
//!
//! Must: when `publish` returns, every chunk of the list is in the store: put or headed within the time that garbage
//! collection allows. Must: memory is bounded by the options over all files together; each chunk is held once.
//! Cancel-safe: a dropped call leaves chunks in the store that are found again the next time, nothing else; the thread
//! that reads stops at its next chunk.
//! A small file never waits for a big one: files beyond 16 MiB share three quarters of every bound.
//! Retries are the caller's: an error of the store is handed on, and what was uploaded is remembered.
//! Not here: manifests and records (`fleet`), where bytes lie (`vfs`).

use super::buffers::Buffers;
use super::chunker::{self, MIN};
use super::codec;
use super::condemned::Condemned;
use super::known::Known;
use super::lanes::{Bound, Hold, Lane};
use super::ranges::RangeSet;
use super::recut::Edit;
use super::source::ReadAt;
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::model::{ChunkRef, Hash};
use crate::store::keys::Keys;
use crate::store::{PutMode, PutOutcome, StoreRef};
use bytes::Bytes;
use futures_util::stream::{self, FuturesUnordered, StreamExt, TryStreamExt};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

mod reader;
use reader::Reader;

/// Bounds of the pipeline, over all files together.
#[derive(Clone, Debug)]
pub struct UploadOptions {
    /// Puts under way.
    pub puts: usize,
    /// Heads under way.
    pub heads: usize,
    /// Bytes of chunks in memory, besides one window of 8 MiB for each file being cut.
    pub memory: usize,
    /// Files being read and cut at a time, each on a blocking thread.
    pub files: usize,
    /// Chunks being compressed at a time.
    pub encoders: usize,
    /// Hashes remembered as being in the store.
    pub known: usize,
    /// For how long; a quarter of the grace of garbage collection.
    pub fresh: Duration,
    /// Chunks from this length on are headed before they are sent: asking is cheaper than sending twice.
    pub head_from: u32,
    /// What garbage collection is going to remove.
    pub condemned: Condemned,
}

impl Default for UploadOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, |n| n.get());
        UploadOptions {
            puts: 16,
            heads: 64,
            memory: 64 << 20,
            files: cores + 1,
            encoders: cores + 1,
            known: 128 << 10,
            fresh: Duration::from_secs(6 * 3600),
            head_from: 64 << 10,
            condemned: Condemned::default(),
        }
    }
}

/// What a publish did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CutStats {
    /// Chunks of the base that were kept.
    pub kept: u64,
    /// Chunks that were cut.
    pub cut: u64,
    /// Bytes read from the source.
    pub read: u64,
    /// Chunks sent.
    pub sent: u64,
    /// Bytes sent, as stored.
    pub sent_bytes: u64,
    /// Requests that asked whether a chunk is there.
    pub headed: u64,
}

/// A published chunk list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The chunks, in order.
    pub chunks: Vec<ChunkRef>,
    /// Hash over the list.
    pub root: Hash,
    /// Hash of the whole file, where every byte passed by (or the list has at most one chunk).
    pub file_hash: Option<Hash>,
    /// What it took.
    pub stats: CutStats,
}

/// Sends files to the store as chunks. Cheap to clone.
#[derive(Clone)]
pub struct Uploader {
    inner: Arc<Inner>,
}

struct Inner {
    store: StoreRef,
    keys: Keys,
    options: UploadOptions,
    known: Known,
    puts: Bound,
    heads: Bound,
    encoders: Bound,
    files: Bound,
    /// In KiB.
    memory: Bound,
}

/// A chunk on its way from the cutter to the store, with the right to be in memory.
struct Job {
    chunk: ChunkRef,
    bytes: Bytes,
    memory: Hold,
    lane: Lane,
}

/// Whether an object that should hold a chunk can be that.
enum Found {
    Yes,
    No,
    /// Something is there that no body of this chunk can be: it is written over.
    Damaged,
}

/// Files beyond this go in the bulk lane: they leave room for smaller ones at every step.
const BULK_FROM: u64 = 16 << 20;
/// Chunks shorter than this are compressed where the caller runs; longer ones on a blocking thread.
const ENCODE_INLINE: usize = 32 << 10;

impl Uploader {
    /// An uploader to `store`.
    pub fn new(store: StoreRef, keys: Keys, clock: Arc<dyn Clock>, options: UploadOptions) -> Self {
        let inner = Inner {
            known: Known::new(clock, options.known, options.fresh),
            puts: Bound::new(options.puts),
            heads: Bound::new(options.heads),
            encoders: Bound::new(options.encoders),
            files: Bound::new(options.files),
            memory: Bound::new((options.memory >> 10).max((2 * chunker::MAX) >> 10)),
            store,
            keys,
            options,
        };
        Uploader { inner: Arc::new(inner) }
    }

    /// What is known to be in the store: to add what was seen there otherwise, to forget what was not found.
    pub fn known(&self) -> &Known {
        &self.inner.known
    }

    /// Whether an object was seen in the store a short while ago and may be relied on.
    pub fn is_known(&self, hash: &Hash) -> bool {
        self.inner.is_known(hash)
    }

    /// Puts a manifest. One that garbage collection was going to remove stays from then on.
    ///
    /// Errors: of the store.
    pub async fn put_manifest(&self, id: &Hash, body: Bytes) -> Result<()> {
        let inner = &self.inner;
        let (key, doom) = (inner.keys.manifest(id), inner.options.condemned.of(id));
        let mode = if doom.is_some() { PutMode::Overwrite } else { PutMode::IfAbsent };
        inner.store.put(&key, body, mode).await?;
        if let Some(doom) = doom {
            inner.options.condemned.outlast(&*inner.store, &key, id, doom).await?;
        }
        inner.known.add(*id);
        Ok(())
    }

    /// Publishes a file of `size` bytes. With a `base`, only the chunks around `dirty` are cut and read (see
    /// [`Edit::new`] for what `dirty` must hold); kept ones are looked up in the store, and sent again from the source
    /// if they are gone. `source` is read on a blocking thread.
    ///
    /// Errors: of the source, of the store (`is_transient`: try again), `Corrupt` if a kept chunk is gone and the
    /// source has other bytes.
    pub async fn publish(&self, source: Box<dyn ReadAt>, base: Option<&[ChunkRef]>, dirty: &RangeSet, size: u64) -> Result<Cut> {
        let base: Arc<[ChunkRef]> = base.unwrap_or_default().into();
        if size == 0 {
            return Ok(cut_of(Vec::new(), Some(Hash::of(b"")), CutStats::default()));
        }
        let lane = if size > BULK_FROM { Lane::Bulk } else { Lane::Quick };
        let (tx, rx) = mpsc::channel(1);
        let reader = Reader {
            inner: self.inner.clone(),
            lane,
            file: self.inner.files.take(1, lane).await?,
            runtime: tokio::runtime::Handle::current(),
            tx,
            source,
            base: base.clone(),
            dirty: dirty.clone(),
            size,
            buffers: Buffers::default(),
        };
        // Which chunks may be kept is known before anything is read: they are looked up meanwhile.
        let look_up = {
            let edit = Edit::new(&base, dirty, size)?;
            let mut once = HashSet::new();
            let list: Vec<ChunkRef> = (0..base.len()).filter(|&i| edit.unchanged(i)).map(|i| base[i]).collect();
            list.into_iter().filter(|c| once.insert(c.0)).collect::<Vec<_>>()
        };
        let cutting = tokio::task::spawn_blocking(move || reader.run());
        let (sent, (missing, headed)) = tokio::try_join!(self.drain(rx), self.look_up(look_up, lane))?;
        let done = cutting.await.map_err(|e| Error::new(Kind::Internal, "cutting a file").source(e))??;
        let mut stats = done.stats;
        stats.headed = headed;
        stats.add(sent);
        if !missing.is_empty() {
            stats.add(self.send_again(done.source, &done.chunks, missing, lane).await?);
        }
        Ok(cut_of(done.chunks, done.file_hash, stats))
    }

    /// Publishes a small file that is in memory: up to 256 KiB are one chunk, hashed once, compressed here if short,
    /// without a thread of its own. More goes the way of [`Uploader::publish`].
    pub async fn publish_small(&self, bytes: Bytes) -> Result<Cut> {
        if bytes.len() > MIN {
            let size = bytes.len() as u64;
            return self.publish(Box::new(bytes), None, &RangeSet::new(), size).await;
        }
        let hash = Hash::of(&bytes);
        let mut stats = CutStats { cut: 1, read: bytes.len() as u64, ..CutStats::default() };
        if bytes.is_empty() {
            return Ok(cut_of(Vec::new(), Some(hash), CutStats::default()));
        }
        let chunk = ChunkRef(hash, bytes.len() as u32);
        if !self.inner.is_known(&hash) {
            let memory = self.inner.memory.take(kib(bytes.len()), Lane::Quick).await?;
            stats.add(self.send(Job { chunk, bytes, memory, lane: Lane::Quick }).await?);
        }
        Ok(cut_of(vec![chunk], Some(hash), stats))
    }

    /// Sends what the cutter hands over, in parallel. Memory: each job carries its permit.
    async fn drain(&self, mut rx: mpsc::Receiver<Job>) -> Result<CutStats> {
        let mut stats = CutStats::default();
        let mut sending = FuturesUnordered::new();
        let mut open = true;
        loop {
            tokio::select! {
                job = rx.recv(), if open => match job {
                    Some(job) => sending.push(self.send(job)),
                    None => open = false,
                },
                Some(done) = sending.next(), if !sending.is_empty() => stats.add(done?),
                else => return Ok(stats),
            }
        }
    }

    /// Brings one chunk into the store.
    async fn send(&self, job: Job) -> Result<CutStats> {
        let inner = &self.inner;
        let Job { chunk, bytes, memory, lane } = job;
        let mut stats = CutStats::default();
        let doom = inner.options.condemned.of(&chunk.0);
        let mut mode = if doom.is_some() { PutMode::Overwrite } else { PutMode::IfAbsent };
        if doom.is_none() && chunk.1 >= inner.options.head_from {
            stats.headed = 1;
            match self.find(&chunk, lane).await? {
                Found::Yes => return Ok(stats),
                Found::No => {}
                Found::Damaged => mode = PutMode::Overwrite,
            }
        }
        let (body, memory) = if bytes.len() < ENCODE_INLINE {
            (codec::encode(bytes), memory)
        } else {
            let cpu = inner.encoders.take(1, lane).await?;
            let encode = move || {
                let body = codec::encode(bytes);
                drop(cpu);
                // The right to memory goes along: a caller that goes away does not free it before the bytes are.
                (body, memory)
            };
            tokio::task::spawn_blocking(encode).await.map_err(|e| Error::new(Kind::Internal, "compressing a chunk").source(e))?
        };
        let slot = inner.puts.take(1, lane).await?;
        stats.sent = 1;
        stats.sent_bytes = body.len() as u64;
        let key = inner.keys.chunk(&chunk.0);
        let outcome = inner.store.put(&key, body.clone(), mode).await?;
        if outcome == PutOutcome::Existed {
            // Something was there, nothing was sent: as good as a chunk that was headed, if it can be one.
            (stats.sent, stats.sent_bytes) = (0, 0);
            stats.headed += 1;
            if !matches!(self.find(&chunk, lane).await?, Found::Yes) {
                (stats.sent, stats.sent_bytes) = (1, body.len() as u64);
                inner.store.put(&key, body.clone(), PutMode::Overwrite).await?;
            }
        }
        if let Some(doom) = doom {
            // This may take a while; others do not wait for it.
            drop((slot, body, memory));
            inner.options.condemned.outlast(&*inner.store, &key, &chunk.0, doom).await?;
        }
        inner.known.add(chunk.0);
        Ok(stats)
    }

    /// Asks the store for a chunk; remembers it if it is there. One that is about to be removed is as good as none.
    async fn find(&self, chunk: &ChunkRef, lane: Lane) -> Result<Found> {
        let inner = &self.inner;
        if inner.options.condemned.of(&chunk.0).is_some() {
            return Ok(Found::No);
        }
        let meta = {
            let _slot = inner.heads.take(1, lane).await?;
            inner.store.head(&inner.keys.chunk(&chunk.0)).await?
        };
        Ok(match meta {
            // A body is the chunk itself or something shorter.
            Some(m) if m.size > 0 && m.size <= u64::from(chunk.1) => {
                inner.known.add(chunk.0);
                Found::Yes
            }
            Some(_) => Found::Damaged,
            None => Found::No,
        })
    }

    /// Which of the chunks are not in the store, and how many requests that took.
    async fn look_up(&self, chunks: Vec<ChunkRef>, lane: Lane) -> Result<(HashSet<Hash>, u64)> {
        let unsure: Vec<ChunkRef> = chunks.into_iter().filter(|c| !self.inner.is_known(&c.0)).collect();
        let headed = unsure.len() as u64;
        let missing = stream::iter(unsure)
            .map(|c| async move { Ok::<_, Error>((c.0, self.find(&c, lane).await?)) })
            .buffer_unordered(self.inner.options.heads.max(1))
            .try_filter_map(|(hash, found)| async move { Ok((!matches!(found, Found::Yes)).then_some(hash)) })
            .try_collect()
            .await?;
        Ok((missing, headed))
    }

    /// Sends kept chunks that the store has lost, from the source.
    async fn send_again(&self, source: Box<dyn ReadAt>, chunks: &[ChunkRef], mut missing: HashSet<Hash>, lane: Lane) -> Result<CutStats> {
        let (tx, rx) = mpsc::channel(1);
        let mut at = 0;
        let mut wanted = Vec::new();
        for c in chunks {
            if missing.remove(&c.0) && !self.inner.is_known(&c.0) {
                wanted.push((at, *c));
            }
            at += u64::from(c.1);
        }
        let inner = self.inner.clone();
        let runtime = tokio::runtime::Handle::current();
        let reading = tokio::task::spawn_blocking(move || -> Result<()> {
            for (at, chunk) in wanted {
                let memory = runtime.block_on(inner.memory.take(kib(chunk.1 as usize), lane))?;
                if chunk.1 > codec::MAX_CHUNK {
                    return Err(Error::new(Kind::Corrupt, format!("publishing over a base with a chunk of {} bytes", chunk.1)));
                }
                let mut buf = vec![0; chunk.1 as usize];
                source.read_exact_at(at, &mut buf)?;
                if Hash::of(&buf) != chunk.0 {
                    let what =
                        format!("publishing over a base whose chunk {} is no longer in the store: the bytes here are others", chunk.0);
                    return Err(Error::new(Kind::Corrupt, what).hint("publish the file as a whole"));
                }
                tx.blocking_send(Job { chunk, bytes: buf.into(), memory, lane }).map_err(|_| gone())?;
            }
            Ok(())
        });
        let stats = self.drain(rx).await?;
        reading.await.map_err(|e| Error::new(Kind::Internal, "reading chunks again").source(e))??;
        Ok(stats)
    }
}

impl Inner {
    fn is_known(&self, hash: &Hash) -> bool {
        self.options.condemned.of(hash).is_none() && self.known.is_fresh(hash)
    }
}

impl CutStats {
    fn add(&mut self, other: CutStats) {
        self.kept += other.kept;
        self.cut += other.cut;
        self.read += other.read;
        self.sent += other.sent;
        self.sent_bytes += other.sent_bytes;
        self.headed += other.headed;
    }
}

fn cut_of(chunks: Vec<ChunkRef>, file_hash: Option<Hash>, stats: CutStats) -> Cut {
    Cut { root: root_of(&chunks), chunks, file_hash, stats }
}

/// Hash over a chunk list.
fn root_of(chunks: &[ChunkRef]) -> Hash {
    let mut h = blake3::Hasher::new();
    h.update(b"tcfs-root-v1");
    for c in chunks {
        h.update(&u64::from(c.1).to_le_bytes());
        h.update(&c.0.0);
    }
    Hash(*h.finalize().as_bytes())
}

fn kib(len: usize) -> u32 {
    len.div_ceil(1024) as u32
}

fn gone() -> Error {
    Error::new(Kind::Interrupted, "publishing a file: its caller went away")
}

#[cfg(test)]
mod tests;
