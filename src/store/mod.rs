//! The store: five idempotent calls over keys and bytes. Two implementations are for users: a directory and S3.
//!
//! Must: `put` returns only when the object is durable. Must: a reader sees a whole object or none.
//! Correctness above needs no conditional put, no ordered or fresh listing.
//! Not here: what the objects mean (`model`, `content`, `fleet`).

pub mod count;
pub mod deadline;
pub mod dir;
pub mod fault;
pub mod identity;
pub mod keys;
pub mod memory;
pub mod open;
pub mod s3;
pub mod switch;
mod watch;

use crate::error::{Kind, Result};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;

pub use open::open;

/// Largest object that is read, in bytes. Ours stay far below (a chunk has at most 4 MiB, a snapshot of a million
/// entries some 100 MiB); the cap keeps a hostile store from filling the memory.
pub const MAX_OBJECT: u64 = 1 << 30;

/// What `list` and `head` tell of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Whole key.
    pub key: String,
    /// Bytes as stored.
    pub size: u64,
    /// Store's time of last modification, seconds since 1970; 0 where it does not tell.
    pub modified: i64,
}

/// One page of a listing.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Objects, in the store's own order.
    pub objects: Vec<ObjectMeta>,
    /// Pass as `after` for the next page; none at the end.
    pub next: Option<String>,
}

/// What a `put` does when the key exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutMode {
    /// Write over it.
    Overwrite,
    /// Leave it and say so, where the store can; a store that cannot writes. Never relied on for correctness.
    IfAbsent,
}

/// What a `put` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// The object is there with these bytes.
    Written,
    /// `IfAbsent` found an object under the key.
    Existed,
}

/// Objects under keys. Keys are tame: `[a-zA-Z0-9._-]` components joined by `/` (see [`keys`]).
///
/// All calls are idempotent and cancel-safe: a dropped future may or may not have taken effect, never half.
/// Errors: `NotFound` (get), `Unavailable`/`Timeout` (try again), `Unauthorized`, `NoSpace`, `Corrupt`.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The whole object.
    async fn get(&self, key: &str) -> Result<Bytes>;
    /// Writes a whole object; durable when it returns.
    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<PutOutcome>;
    /// Objects whose key starts with `prefix` (any string, usually ending in `/`), after a page mark.
    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page>;
    /// Removes an object; removing what is not there succeeds.
    async fn delete(&self, key: &str) -> Result<()>;
    /// Size and time, none if it does not exist.
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>>;
    /// Whether nothing here was ever used by a store, as at the mount point of a disk that is not mounted: what is not
    /// found may then be elsewhere. A server that answers is never away.
    async fn is_away(&self) -> bool {
        false
    }
    /// For people: the URL without secrets.
    fn describe(&self) -> String;
    /// A channel that gets a message when something under `prefix` may have changed, where the store can tell
    /// (a directory can). None: poll.
    fn watch(&self, _prefix: &str) -> Option<tokio::sync::mpsc::Receiver<()>> {
        None
    }
}

/// A store as everybody holds it.
pub type StoreRef = Arc<dyn Store>;

/// An object, none if it does not exist.
pub async fn get_if_there(store: &dyn Store, key: &str) -> Result<Option<Bytes>> {
    match store.get(key).await {
        Ok(body) => Ok(Some(body)),
        Err(e) if e.kind() == Kind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// All objects under a prefix, page by page.
pub async fn list_all(store: &dyn Store, prefix: &str) -> Result<Vec<ObjectMeta>> {
    let mut out = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = store.list(prefix, after.as_deref()).await?;
        out.extend(page.objects);
        match page.next {
            Some(n) => after = Some(n),
            None => return Ok(out),
        }
    }
}
