//! A store that can be exchanged for another one while it is in use: `tcfs store move`.
//!
//! Must: while the last objects are copied nothing is written, and after the exchange every call goes to the new store.
//! Keys are those of the store that was opened; where the new one has another prefix, they are translated.
//! Not here: copying.

use super::keys::Keys;
use super::{ObjectMeta, Page, PutMode, PutOutcome, Store, StoreRef};
use crate::error::Result;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;
use std::sync::Arc;

/// Where calls go.
#[derive(Clone)]
struct Target {
    store: StoreRef,
    /// Prefix as callers write it, and as this store has it, both with a slash at the end; none if they are the same.
    translate: Option<(String, String)>,
}

impl Target {
    fn key(&self, key: &str) -> String {
        match &self.translate {
            Some((from, to)) => key.strip_prefix(from.as_str()).map_or_else(|| key.to_owned(), |rest| format!("{to}{rest}")),
            None => key.to_owned(),
        }
    }

    fn back(&self, mut meta: ObjectMeta) -> ObjectMeta {
        if let Some((from, to)) = &self.translate
            && let Some(rest) = meta.key.strip_prefix(to.as_str())
        {
            meta.key = format!("{from}{rest}");
        }
        meta
    }
}

/// See the head of this file.
pub struct SwitchStore {
    target: RwLock<Target>,
    /// Held for reading by every write under way, for writing while the last objects are copied.
    writes: Arc<tokio::sync::RwLock<()>>,
}

impl SwitchStore {
    /// Calls go to `store`.
    pub fn new(store: StoreRef) -> Arc<SwitchStore> {
        Arc::new(SwitchStore { target: RwLock::new(Target { store, translate: None }), writes: Arc::default() })
    }

    /// The store that calls go to now.
    pub fn now(&self) -> StoreRef {
        self.target.read().store.clone()
    }

    /// Waits for the writes under way and lets no other begin until the guard is dropped.
    pub async fn pause(&self) -> tokio::sync::OwnedRwLockWriteGuard<()> {
        self.writes.clone().write_owned().await
    }

    /// From now on calls with keys of `opened` go to `store`, under the prefix of `keys`.
    pub fn switch(&self, store: StoreRef, opened: &Keys, keys: &Keys) {
        let differ = opened.prefix() != keys.prefix();
        let translate = differ.then(|| (format!("{}/", opened.prefix()), format!("{}/", keys.prefix())));
        *self.target.write() = Target { store, translate };
    }

    fn at(&self) -> Target {
        self.target.read().clone()
    }
}

#[async_trait]
impl Store for SwitchStore {
    async fn get(&self, key: &str) -> Result<Bytes> {
        let t = self.at();
        t.store.get(&t.key(key)).await
    }

    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<PutOutcome> {
        let _writing = self.writes.read().await;
        let t = self.at();
        t.store.put(&t.key(key), body, mode).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page> {
        let t = self.at();
        let page = t.store.list(&t.key(prefix), after).await?;
        Ok(Page { objects: page.objects.into_iter().map(|o| t.back(o)).collect(), next: page.next })
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let _writing = self.writes.read().await;
        let t = self.at();
        t.store.delete(&t.key(key)).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        let t = self.at();
        Ok(t.store.head(&t.key(key)).await?.map(|m| t.back(m)))
    }

    async fn is_away(&self) -> bool {
        self.at().store.is_away().await
    }

    fn describe(&self) -> String {
        self.at().store.describe()
    }

    fn watch(&self, prefix: &str) -> Option<tokio::sync::mpsc::Receiver<()>> {
        let t = self.at();
        t.store.watch(&t.key(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    #[tokio::test]
    async fn after_the_exchange_calls_go_to_the_new_store_under_its_prefix() {
        let (a, b) = (MemoryStore::new(), MemoryStore::new());
        let s = SwitchStore::new(a.clone());
        s.put("old/log/x-1/1", Bytes::from_static(b"1"), PutMode::Overwrite).await.unwrap();
        s.switch(b.clone(), &Keys::new("old"), &Keys::new("team/new"));
        s.put("old/log/x-1/2", Bytes::from_static(b"2"), PutMode::Overwrite).await.unwrap();
        s.put("tcfs-meta/devices.json", Bytes::from_static(b"{}"), PutMode::Overwrite).await.unwrap();
        assert_eq!(&b.get("team/new/log/x-1/2").await.unwrap()[..], b"2");
        assert!(b.head("tcfs-meta/devices.json").await.unwrap().is_some());
        assert!(a.head("old/log/x-1/2").await.unwrap().is_none());
        let page = s.list("old/log/", None).await.unwrap();
        assert_eq!(page.objects.iter().map(|o| o.key.as_str()).collect::<Vec<_>>(), ["old/log/x-1/2"]);
        assert_eq!(s.head("old/log/x-1/2").await.unwrap().unwrap().key, "old/log/x-1/2");
    }

    #[tokio::test]
    async fn a_pause_waits_for_no_reader_and_holds_writers() {
        let s = SwitchStore::new(MemoryStore::new());
        let pause = s.pause().await;
        assert!(s.head("k").await.unwrap().is_none());
        let put = s.put("k", Bytes::new(), PutMode::Overwrite);
        tokio::pin!(put);
        assert!(futures_util::poll!(&mut put).is_pending());
        drop(pause);
        put.await.unwrap();
    }
}
