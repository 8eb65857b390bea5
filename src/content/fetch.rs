//! Fetching: chunks and manifests out of the store, checked.
//!
//! Must: nothing is returned whose bytes do not hash to what was asked for.
//! Must: one request per object at a time, its waiters share the result; requests and their memory are bounded over
//! all callers; what a program waits for goes before read-ahead.
//! Must: every call ends by its deadline. Cancel-safe: a dropped call takes nothing from others that wait.
//! Not here: keeping what was fetched (`vfs`), deciding what to fetch (`readahead`, `vfs`).

use super::chunker;
use super::codec;
use super::flight::{Flight, Flights};
use super::slots::{Priority, Slots};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::model::{ChunkRef, Hash};
use crate::store::StoreRef;
use crate::store::keys::Keys;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::Instant;

/// Bounds and patience.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// Requests under way.
    pub requests: usize,
    /// Of these in the background, at most.
    pub background: usize,
    /// Bytes of chunks under way; results that callers hold are theirs to bound.
    pub memory: u64,
    /// How often a wrong body is asked for before it is [`Kind::Corrupt`].
    pub wrong_bodies: u32,
    /// First wait before a retry; doubles up to `longest_wait`, with jitter.
    pub first_wait: Duration,
    /// Longest wait before a retry.
    pub longest_wait: Duration,
    /// How long one request may take, besides the time its bytes need at `slowest`.
    pub request: Duration,
    /// A link slower than this many bytes a second counts as dead.
    pub slowest: u64,
}

impl Default for FetchOptions {
    fn default() -> Self {
        FetchOptions {
            requests: 24,
            background: 16,
            memory: 128 << 20,
            wrong_bodies: 3,
            first_wait: Duration::from_millis(100),
            longest_wait: Duration::from_secs(5),
            request: Duration::from_secs(30),
            slowest: 16 << 10,
        }
    }
}

/// What was done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchStats {
    /// Requests to the store.
    pub requests: u64,
    /// Bytes received, as stored.
    pub bytes: u64,
    /// Calls that shared a request of another.
    pub hits: u64,
    /// Requests that failed and were tried again.
    pub retries: u64,
    /// Bodies that were not what their key says.
    pub corrupt: u64,
}

#[derive(Default)]
struct Counters {
    requests: AtomicU64,
    bytes: AtomicU64,
    hits: AtomicU64,
    retries: AtomicU64,
    corrupt: AtomicU64,
}

/// What is wanted. The length is part of it: a manifest that lies about it spoils only its own reader's request.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Target {
    Chunk(Hash, Option<u32>),
    Manifest(Hash),
}

/// Fetches from one store. Cheap to clone.
#[derive(Clone)]
pub struct Fetcher {
    inner: Arc<Inner>,
}

struct Inner {
    store: StoreRef,
    keys: Keys,
    clock: Arc<dyn Clock>,
    options: FetchOptions,
    slots: Arc<Slots>,
    flights: Arc<Flights<Target>>,
    count: Counters,
}

/// Questions whether an object is there that are under way for one file.
const HEADS: usize = 32;
/// Bodies shorter than this are checked where the task runs; longer ones on a blocking thread.
const CHECK_INLINE: usize = 64 << 10;

impl Fetcher {
    /// A fetcher from `store`.
    pub fn new(store: StoreRef, keys: Keys, clock: Arc<dyn Clock>, options: FetchOptions) -> Self {
        let slots = Slots::new(options.requests, options.background, options.memory);
        let inner = Inner { store, keys, clock, slots, options, flights: Flights::new(), count: Counters::default() };
        Fetcher { inner: Arc::new(inner) }
    }

    /// Whether the store has all of a file now: its manifest and its chunks. One request each, without their bytes.
    ///
    /// Errors: of the store. Cancel-safe.
    pub async fn store_has(&self, manifest: &Hash, chunks: &[Hash]) -> Result<bool> {
        let keys = &self.inner.keys;
        let wanted: Vec<String> = std::iter::once(keys.manifest(manifest)).chain(chunks.iter().map(|c| keys.chunk(c))).collect();
        let mut heads = stream::iter(wanted)
            .map(|key| {
                let store = self.inner.store.clone();
                async move { store.head(&key).await }.boxed()
            })
            .buffer_unordered(HEADS);
        while let Some(h) = heads.next().await {
            if h?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A chunk, checked against its hash and length. Retries what may pass until `deadline`.
    ///
    /// Errors: `Timeout` or `Unavailable` at the deadline; at once `NotFound`, `Unauthorized` and what else of the store
    /// will not pass; `Corrupt` after some wrong bodies. Cancel-safe.
    pub async fn chunk(&self, chunk: ChunkRef, priority: Priority, deadline: Instant) -> Result<Bytes> {
        self.fetch(Target::Chunk(chunk.0, Some(chunk.1)), priority, deadline).await
    }

    /// A chunk of which only the hash is known (old manifests tell no lengths); at most `codec::MAX_CHUNK` long.
    pub async fn chunk_of_unknown_length(&self, hash: Hash, priority: Priority, deadline: Instant) -> Result<Bytes> {
        self.fetch(Target::Chunk(hash, None), priority, deadline).await
    }

    /// The body of a manifest, checked against its id. Errors as for [`Fetcher::chunk`].
    pub async fn manifest(&self, id: Hash, priority: Priority, deadline: Instant) -> Result<Bytes> {
        self.fetch(Target::Manifest(id), priority, deadline).await
    }

    /// The counters.
    pub fn stats(&self) -> FetchStats {
        let c = &self.inner.count;
        FetchStats {
            requests: c.requests.load(Relaxed),
            bytes: c.bytes.load(Relaxed),
            hits: c.hits.load(Relaxed),
            retries: c.retries.load(Relaxed),
            corrupt: c.corrupt.load(Relaxed),
        }
    }

    async fn fetch(&self, target: Target, priority: Priority, deadline: Instant) -> Result<Bytes> {
        let inner = &self.inner;
        let urgent = priority == Priority::Foreground;
        let waiter = inner.flights.join(target.clone(), urgent, |flight| {
            let (inner, target) = (inner.clone(), target.clone());
            async move { inner.fly(target, flight).await }
        });
        if waiter.joined {
            inner.count.hits.fetch_add(1, Relaxed);
            if urgent {
                inner.slots.serve();
            }
        }
        waiter.wait(|| format!("fetching {}", target.name()), deadline).await
    }
}

impl Inner {
    /// Asks until there is an answer that stands. Ends with its last waiter, which drops it.
    async fn fly(&self, target: Target, flight: Arc<Flight>) -> Result<Bytes> {
        let mut wrong = 0;
        let mut wait = self.options.first_wait;
        loop {
            let permit = self.slots.acquire(flight.urgent.clone(), target.memory()).await;
            let error = match self.ask(&target).await {
                Ok(bytes) => return Ok(bytes),
                Err(e) => e,
            };
            drop(permit);
            if error.kind() == Kind::Corrupt {
                self.count.corrupt.fetch_add(1, Relaxed);
                wrong += 1;
                if wrong >= self.options.wrong_bodies {
                    return Err(error);
                }
            } else if !error.kind().is_transient() {
                return Err(error);
            }
            flight.retrying(&error);
            self.count.retries.fetch_add(1, Relaxed);
            // Between half and the whole of it, so that many callers do not come back in step.
            let jitter = 0.5 + (self.clock.random() >> 32) as f64 / (1u64 << 33) as f64;
            tokio::time::sleep(wait.mul_f64(jitter)).await;
            wait = (wait * 2).min(self.options.longest_wait);
        }
    }

    /// One request and its check.
    async fn ask(&self, target: &Target) -> Result<Bytes> {
        let key = match target {
            Target::Chunk(hash, _) => self.keys.chunk(hash),
            Target::Manifest(id) => self.keys.manifest(id),
        };
        let limit = self.options.request + Duration::from_secs(target.memory() / self.options.slowest.max(1));
        self.count.requests.fetch_add(1, Relaxed);
        let body = match tokio::time::timeout(limit, self.store.get(&key)).await {
            Ok(body) => body?,
            Err(_) => return Err(Error::new(Kind::Timeout, format!("get {key}: no answer in {} s", limit.as_secs()))),
        };
        self.count.bytes.fetch_add(body.len() as u64, Relaxed);
        let target = target.clone();
        if target.memory().max(body.len() as u64) < CHECK_INLINE as u64 {
            return target.check(body);
        }
        tokio::task::spawn_blocking(move || target.check(body))
            .await
            .map_err(|e| Error::new(Kind::Internal, "checking a body").source(e))?
    }
}

impl Target {
    /// Bytes to reckon with while it is under way.
    fn memory(&self) -> u64 {
        match self {
            Target::Chunk(_, Some(len)) => u64::from((*len).min(codec::MAX_CHUNK)),
            Target::Chunk(_, None) => chunker::MAX as u64,
            // Lists of small files; that of a terabyte is 70 MiB and rare.
            Target::Manifest(_) => 16 << 10,
        }
    }

    fn check(&self, body: Bytes) -> Result<Bytes> {
        match self {
            Target::Chunk(hash, len) => codec::decode(hash, *len, body),
            Target::Manifest(id) if Hash::of(&body) == *id => Ok(body),
            Target::Manifest(id) => {
                Err(Error::new(Kind::Corrupt, format!("reading manifest {id}: its {} bytes have another hash", body.len())))
            }
        }
    }

    fn name(&self) -> String {
        match self {
            Target::Chunk(hash, _) => format!("chunk {hash}"),
            Target::Manifest(id) => format!("manifest {id}"),
        }
    }
}

#[cfg(test)]
mod tests;
