//! Counting decorator: requests, errors and bytes of each operation, for `status`, metrics and tests.

use super::{ObjectMeta, Page, PutMode, PutOutcome, Store, StoreRef};
use crate::error::{Kind, Result};
use async_trait::async_trait;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// One of the five calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// `get`
    Get,
    /// `put`
    Put,
    /// `list`
    List,
    /// `delete`
    Delete,
    /// `head`
    Head,
}

impl Op {
    /// All five, in the order in which [`Counts`] keeps them.
    pub const ALL: [Op; 5] = [Op::Get, Op::Put, Op::List, Op::Delete, Op::Head];

    /// Name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Op::Get => "get",
            Op::Put => "put",
            Op::List => "list",
            Op::Delete => "delete",
            Op::Head => "head",
        }
    }
}

#[derive(Default)]
struct Cell {
    requests: AtomicU64,
    errors: AtomicU64,
    bytes: AtomicU64,
    micros: AtomicU64,
    in_flight: AtomicU64,
}

/// Counters since the start of the process.
#[derive(Default)]
pub struct Counts {
    cells: [Cell; 5],
}

/// One operation's counters at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OpCounts {
    /// Calls answered or given up by the caller.
    pub requests: u64,
    /// Calls that failed; `NotFound` is an answer, not a failure.
    pub errors: u64,
    /// Bytes of bodies: received by get, sent by put.
    pub bytes: u64,
    /// Microseconds spent waiting, summed over calls.
    pub micros: u64,
    /// Calls under way.
    pub in_flight: u64,
}

impl Counts {
    /// One operation's counters.
    pub fn of(&self, op: Op) -> OpCounts {
        let c = &self.cells[op as usize];
        let get = |a: &AtomicU64| a.load(Ordering::Relaxed);
        OpCounts {
            requests: get(&c.requests),
            errors: get(&c.errors),
            bytes: get(&c.bytes),
            micros: get(&c.micros),
            in_flight: get(&c.in_flight),
        }
    }
}

/// Counts a call also when its future is dropped.
struct Call<'a> {
    cell: &'a Cell,
    start: Instant,
}

impl<'a> Call<'a> {
    fn start(counts: &'a Counts, op: Op) -> Self {
        let cell = &counts.cells[op as usize];
        cell.in_flight.fetch_add(1, Ordering::Relaxed);
        Call { cell, start: Instant::now() }
    }

    fn end<T>(self, result: Result<T>, bytes: impl FnOnce(&T) -> u64) -> Result<T> {
        match &result {
            Ok(t) => self.cell.bytes.fetch_add(bytes(t), Ordering::Relaxed),
            Err(e) if e.kind() == Kind::NotFound => 0,
            Err(_) => self.cell.errors.fetch_add(1, Ordering::Relaxed),
        };
        result
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.cell.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.cell.requests.fetch_add(1, Ordering::Relaxed);
        self.cell.micros.fetch_add(self.start.elapsed().as_micros() as u64, Ordering::Relaxed);
    }
}

/// A store that counts.
pub struct CountedStore {
    inner: StoreRef,
    counts: Arc<Counts>,
}

impl CountedStore {
    /// Wraps `inner`; the counters outlive the store.
    pub fn new(inner: StoreRef) -> (Arc<Self>, Arc<Counts>) {
        let counts = Arc::new(Counts::default());
        (Arc::new(CountedStore { inner, counts: counts.clone() }), counts)
    }
}

#[async_trait]
impl Store for CountedStore {
    async fn get(&self, key: &str) -> Result<Bytes> {
        let call = Call::start(&self.counts, Op::Get);
        call.end(self.inner.get(key).await, |b| b.len() as u64)
    }

    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<PutOutcome> {
        let call = Call::start(&self.counts, Op::Put);
        let size = body.len() as u64;
        call.end(self.inner.put(key, body, mode).await, |_| size)
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page> {
        let call = Call::start(&self.counts, Op::List);
        call.end(self.inner.list(prefix, after).await, |_| 0)
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let call = Call::start(&self.counts, Op::Delete);
        call.end(self.inner.delete(key).await, |_| 0)
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        let call = Call::start(&self.counts, Op::Head);
        call.end(self.inner.head(key).await, |_| 0)
    }

    async fn is_away(&self) -> bool {
        self.inner.is_away().await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn watch(&self, prefix: &str) -> Option<tokio::sync::mpsc::Receiver<()>> {
        self.inner.watch(prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    #[tokio::test]
    async fn requests_bytes_and_errors_are_counted_per_operation() {
        let (store, counts) = CountedStore::new(MemoryStore::new());
        store.put("a/x", Bytes::from_static(b"12345"), PutMode::Overwrite).await.unwrap();
        store.get("a/x").await.unwrap();
        assert!(store.get("a/none").await.is_err());
        assert!(store.put("../x", Bytes::new(), PutMode::Overwrite).await.is_err());
        let (put, get) = (counts.of(Op::Put), counts.of(Op::Get));
        assert_eq!((put.requests, put.errors, put.bytes), (2, 1, 5));
        assert_eq!((get.requests, get.errors, get.bytes), (2, 0, 5), "what is not there is an answer");
        assert_eq!((get.in_flight, counts.of(Op::Head)), (0, OpCounts::default()));
    }
}
