//! A store in memory, for tests and simulations: ordered, instantaneous, gone with its last handle.
//!
//! It keeps the contract and nothing more; trouble is added by `fault`.

use super::{ObjectMeta, Page, PutMode, PutOutcome, Store, keys};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Kind, Result};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Objects of a page unless told otherwise.
const PAGE: usize = 1000;

/// A store in memory.
pub struct MemoryStore {
    objects: Mutex<BTreeMap<String, (Bytes, i64)>>,
    watchers: Mutex<Vec<(String, mpsc::Sender<()>)>>,
    clock: Arc<dyn Clock>,
    page: usize,
}

impl MemoryStore {
    /// An empty store with the machine's clock.
    pub fn new() -> Arc<Self> {
        Self::with(Arc::new(SystemClock), PAGE)
    }

    /// An empty store whose modification times come from `clock` and whose listings have `page` objects a page.
    pub fn with(clock: Arc<dyn Clock>, page: usize) -> Arc<Self> {
        Arc::new(MemoryStore { objects: Mutex::default(), watchers: Mutex::default(), clock, page: page.max(1) })
    }

    /// All keys, in order.
    pub fn keys(&self) -> Vec<String> {
        self.objects.lock().keys().cloned().collect()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Bytes> {
        keys::check(key)?;
        let found = self.objects.lock().get(key).map(|(b, _)| b.clone());
        found.ok_or_else(|| Error::new(Kind::NotFound, format!("no object {key} in memory")))
    }

    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<PutOutcome> {
        keys::check_put(key)?;
        let now = self.clock.now_ms() / 1000;
        {
            let mut objects = self.objects.lock();
            if mode == PutMode::IfAbsent && objects.contains_key(key) {
                return Ok(PutOutcome::Existed);
            }
            objects.insert(key.to_owned(), (body, now));
        }
        self.watchers.lock().retain(|(prefix, tx)| {
            if key.starts_with(prefix.as_str()) {
                let _ = tx.try_send(());
            }
            !tx.is_closed()
        });
        Ok(PutOutcome::Written)
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page> {
        let start = match after {
            Some(a) if a >= prefix => Bound::Excluded(a),
            _ => Bound::Included(prefix),
        };
        let objects = self.objects.lock();
        let mut found = objects.range::<str, _>((start, Bound::Unbounded)).take_while(|(k, _)| k.starts_with(prefix));
        let meta = |(key, (body, modified)): (&String, &(Bytes, i64))| ObjectMeta {
            key: key.clone(),
            size: body.len() as u64,
            modified: *modified,
        };
        let page: Vec<ObjectMeta> = found.by_ref().take(self.page).map(meta).collect();
        let next = found.next().and(page.last().map(|m| m.key.clone()));
        Ok(Page { objects: page, next })
    }

    async fn delete(&self, key: &str) -> Result<()> {
        keys::check(key)?;
        self.objects.lock().remove(key);
        Ok(())
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        keys::check(key)?;
        let objects = self.objects.lock();
        Ok(objects.get(key).map(|(b, modified)| ObjectMeta { key: key.to_owned(), size: b.len() as u64, modified: *modified }))
    }

    fn describe(&self) -> String {
        "memory:".to_owned()
    }

    fn watch(&self, prefix: &str) -> Option<mpsc::Receiver<()>> {
        let (tx, rx) = mpsc::channel(1);
        self.watchers.lock().push((prefix.to_owned(), tx));
        Some(rx)
    }
}
