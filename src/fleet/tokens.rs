//! What tokens stand for after their rows have gone.
//!
//! A file that is sealed but not cut has a random token for its root. Once it is published (or was left out), rows
//! sealed later may still name the token: as the content of a renamed file, as the base of the next save.
//! Must: a token never reaches the store.
//! Not here: tokens of rows that are still in the outbox (`plan`).

use crate::error::Result;
use crate::model::{FileContent, Hash};
use crate::state::{Read, Scan, Tree, Txn, prefix_end};
use lru::LruCache;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a token stands for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Stands {
    /// The bytes are in the store.
    Content(FileContent),
    /// They were never published; this is what they were based on.
    Base(Option<Hash>),
}

impl Stands {
    /// What a `base` that names the token becomes.
    pub(super) fn as_base(&self) -> Option<Hash> {
        match self {
            Stands::Content(c) => Some(c.root),
            Stands::Base(b) => *b,
        }
    }
}

/// Tokens kept in memory for handles that sealed on top of one just before it was resolved.
const RECENT: NonZeroUsize = NonZeroUsize::new(16 << 10).expect("not zero");
const PREFIX: &[u8] = b"token/";
/// Rows removed in one go.
const PAGE: usize = 10_000;

/// The known tokens: the latest in memory, and in the database those that rows of the outbox may name.
pub(super) struct Tokens {
    recent: Mutex<LruCache<Hash, Stands>>,
    any_stored: AtomicBool,
}

fn key(token: &Hash) -> Vec<u8> {
    [PREFIX, &token.0].concat()
}

/// The published content that a token stands for which rows of the outbox may still name.
pub(crate) fn content(r: &Read<'_>, token: &Hash) -> Result<Option<FileContent>> {
    Ok(match r.get(Tree::Meta, key(token))? {
        Some(Stands::Content(c)) => Some(c),
        Some(Stands::Base(_)) | None => None,
    })
}

impl Tokens {
    /// Looks whether the database has some.
    pub(super) fn open(r: &Read<'_>) -> Result<Tokens> {
        let mut any = false;
        r.scan(Tree::Meta, Scan::From(PREFIX, &prefix_end(PREFIX)), 1, |_, _: Stands| {
            any = true;
            Ok(())
        })?;
        Ok(Tokens { recent: Mutex::new(LruCache::new(RECENT)), any_stored: AtomicBool::new(any) })
    }

    /// What a token stands for, if it was resolved.
    pub(super) fn get(&self, r: &Read<'_>, token: &Hash) -> Result<Option<Stands>> {
        if let Some(s) = self.recent.lock().get(token) {
            return Ok(Some(s.clone()));
        }
        if !self.any_stored.load(Ordering::SeqCst) {
            return Ok(None);
        }
        r.get(Tree::Meta, key(token))
    }

    /// Remembers tokens, in the database too if rows are left that may name them.
    pub(super) fn keep(&self, t: &mut Txn<'_>, known: &[(Hash, Stands)], rows_left: bool) -> Result<()> {
        if rows_left {
            for (token, stands) in known {
                t.put(Tree::Meta, key(token), stands)?;
            }
            self.any_stored.fetch_or(!known.is_empty(), Ordering::SeqCst);
        }
        let mut recent = self.recent.lock();
        for (token, stands) in known {
            recent.put(*token, stands.clone());
        }
        Ok(())
    }

    /// The outbox is empty: nothing can name a stored token any more.
    pub(super) fn clear(&self, t: &mut Txn<'_>) -> Result<()> {
        if !self.any_stored.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut keys = Vec::new();
        t.scan(Tree::Meta, Scan::From(PREFIX, &prefix_end(PREFIX)), PAGE, |k, _: Stands| {
            keys.push(k.to_vec());
            Ok(())
        })?;
        if keys.len() < PAGE {
            self.any_stored.store(false, Ordering::SeqCst);
        }
        keys.into_iter().try_for_each(|k| t.del(Tree::Meta, k))
    }
}
