//! No call waits for ever: a store that takes a request and never answers it costs a deadline.
//!
//! Must: every call ends, also on a store without time-outs of its own (a directory on a server that is gone, a
//! connection that nobody closed). The limits are far beyond what a slow line needs: they free loops that would stand
//! still, they do not decide how long a program waits (whoever reads for one has a shorter deadline of its own).
//! Cancel-safe as the store inside.
//! Not here: trying again.

use super::{ObjectMeta, Page, PutMode, PutOutcome, Store, StoreRef};
use crate::error::{Error, Kind, Result};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// For a call that carries little.
const SMALL: Duration = Duration::from_secs(60);
/// For fetching chunks and snapshots, whose size is not known before: 16 MiB at 32 KiB/s.
const LARGE: Duration = Duration::from_secs(512);
/// Slowest line that a body is sent over, bytes per second.
const SLOWEST: u64 = 32 << 10;

/// A store whose calls end.
pub struct DeadlineStore {
    inner: StoreRef,
    small: Duration,
    large: Duration,
}

impl DeadlineStore {
    /// Over `inner`.
    pub fn new(inner: StoreRef) -> Arc<Self> {
        Self::with(inner, SMALL, LARGE)
    }

    fn with(inner: StoreRef, small: Duration, large: Duration) -> Arc<Self> {
        Arc::new(DeadlineStore { inner, small, large })
    }

    fn to_fetch(&self, key: &str) -> Duration {
        if key.contains("/chunks/") || key.contains("/snapshots/") { self.large } else { self.small }
    }

    async fn within<T>(&self, limit: Duration, what: &str, key: &str, call: impl Future<Output = Result<T>>) -> Result<T> {
        match tokio::time::timeout(limit, call).await {
            Ok(done) => done,
            Err(_) => {
                let what = format!("{what} {key} in {}: no answer within {} seconds", self.inner.describe(), limit.as_secs());
                Err(Error::new(Kind::Timeout, what))
            }
        }
    }
}

#[async_trait]
impl Store for DeadlineStore {
    async fn get(&self, key: &str) -> Result<Bytes> {
        self.within(self.to_fetch(key), "get", key, self.inner.get(key)).await
    }

    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<PutOutcome> {
        let limit = self.small + Duration::from_secs(body.len() as u64 / SLOWEST);
        self.within(limit, "put", key, self.inner.put(key, body, mode)).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page> {
        self.within(self.small, "list", prefix, self.inner.list(prefix, after)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.within(self.small, "delete", key, self.inner.delete(key)).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        self.within(self.small, "head", key, self.inner.head(key)).await
    }

    async fn is_away(&self) -> bool {
        tokio::time::timeout(self.small, self.inner.is_away()).await.unwrap_or(true)
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
    use crate::store::fault::{FaultStore, Mode, Rule};
    use crate::store::memory::MemoryStore;

    #[tokio::test]
    async fn a_store_that_never_answers_costs_a_deadline_in_every_call() {
        let silent = FaultStore::new(MemoryStore::new(), 1);
        silent.set(vec![Rule::new(Mode::Hang)]);
        let soon = Duration::from_millis(20);
        let s = DeadlineStore::with(silent.clone(), soon, soon);

        let late = |e: Error| assert_eq!(e.kind(), Kind::Timeout, "{e}");
        late(s.get("default/chunks/aa").await.unwrap_err());
        late(s.put("a", Bytes::from_static(b"x"), PutMode::Overwrite).await.unwrap_err());
        late(s.list("a", None).await.unwrap_err());
        late(s.delete("a").await.unwrap_err());
        late(s.head("a").await.unwrap_err());
        silent.clear();
        s.put("a", Bytes::from_static(b"x"), PutMode::Overwrite).await.unwrap();
        assert_eq!(&s.get("a").await.unwrap()[..], b"x");
    }
}
