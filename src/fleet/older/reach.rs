//! What the older layout keeps alive: every manifest that its index names, and every chunk that those name.
//!
//! Must: what is being prepared counts, what is encrypted counts, and of an object that cannot be understood everything
//! counts that it may name: garbage collection removes nothing of this. Must: an error of the store is an error, never a
//! short answer.

use super::OldBucket;
use crate::error::{Kind, Result};
use crate::model::Hash;
use crate::model::old_index::{chunks_of, named_by};
use crate::store::StoreRef;
use crate::store::keys::Keys;
use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};
use std::collections::HashSet;

/// Requests under way.
const PARALLEL: usize = 32;

/// What is alive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Last parts of keys below `manifests/`.
    pub manifests: HashSet<String>,
    /// Hashes below `chunks/`.
    pub chunks: HashSet<Hash>,
    /// Index objects that were read.
    pub entries: u64,
}

/// What `P/index/` of a store reaches; nothing where there is no older layout.
///
/// Errors: of the store. Cancel-safe: it only reads.
pub async fn reach(store: &StoreRef, keys: &Keys) -> Result<Reached> {
    let bucket = OldBucket::new(store.clone(), keys.prefix(), true);
    let mut out = Reached::default();
    let mut mark = None;
    loop {
        let (objects, next) = bucket.page(mark.as_deref()).await?;
        out.entries += objects.len() as u64;
        let mut manifests: Vec<String> = Vec::new();
        let mut entries = stream::iter(objects).map(|o| get(store, o.key).boxed()).buffer_unordered(PARALLEL);
        while let Some(body) = entries.next().await {
            let Some(body) = body? else { continue };
            let (ids, staged) = named_by(&body);
            manifests
                .extend(ids.into_iter().filter(|id| out.manifests.insert(id.clone())).map(|id| bucket.key(&format!("manifests/{id}"))));
            manifests.extend(staged);
        }
        drop(entries);
        let mut bodies = stream::iter(manifests).map(|key| get(store, key).boxed()).buffer_unordered(PARALLEL);
        while let Some(body) = bodies.next().await {
            out.chunks.extend(body?.iter().flat_map(|b| chunks_of(b)));
        }
        match next {
            Some(n) => mark = Some(n),
            None => return Ok(out),
        }
    }
}

/// An object; none if it is not there, or no key that could be.
async fn get(store: &StoreRef, key: String) -> Result<Option<bytes::Bytes>> {
    match store.get(&key).await {
        Ok(b) => Ok(Some(b)),
        Err(e) if matches!(e.kind(), Kind::NotFound | Kind::BadName) => Ok(None),
        Err(e) => Err(e.context("looking at what the older layout keeps alive")),
    }
}
