//! What the local database is made of: its trees, and their keys and rows as bytes.
//!
//! Must: a number of a tree is for ever, and a row is only ever read as what its tree says; journals and databases of
//! earlier versions have both.
//! Not here: the fields of the rows (`rows`), SQL (`sqlite`).

use crate::error::{Error, Kind, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Layout number of the database; an older one is migrated, a newer one refused.
pub(super) const SCHEMA: u32 = 1;

/// The trees. Integer keys are stored as SQLite row ids, the others as order-preserving bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Tree {
    /// Text key → small facts (counters, identities).
    Meta = 0,
    /// Inode number → `rows::Inode`.
    Inode = 1,
    /// (directory, name hash, name) → `rows::Entry`.
    Entry = 2,
    /// Inode number → `rows::Local`: bytes on this disk.
    Local = 3,
    /// (chunk hash, inode, offset) → length: which local file has a chunk.
    Chunk = 4,
    /// Inode number → chunk list of the version it shows, where that is too long for the version itself.
    ChunkList = 5,
    /// Sequence → `rows::Sealed`: versions not yet published.
    Outbox = 6,
    /// Sequence → `rows::Batch`: log batches whose bytes are fixed.
    Batch = 7,
    /// Device id → `rows::Cursor`.
    Cursor = 8,
    /// (path, 0, counter) → a version that others have covered.
    History = 9,
    /// Path → pinned.
    Pin = 10,
    /// (device id, sequence, line) → a record of a format this program does not know.
    Parked = 11,
    /// Move id → `rows::DirMove` still to be expanded.
    Move = 12,
    /// Device id → what is known of it.
    Device = 13,
    /// Inode number: lost its last name, bytes still to be removed.
    Orphan = 14,
    /// Inode number: changed since its last seal; what is here after a crash is sealed as it lies.
    Unsealed = 15,
    /// (directory, name hash, name), as in `Entry` → a register with more than one visible head.
    Conflict = 16,
    /// Path → clock of what `push` or `pull` last had of it.
    Seen = 17,
}

pub(super) const TREES: [Tree; 18] = [
    Tree::Meta,
    Tree::Inode,
    Tree::Entry,
    Tree::Local,
    Tree::Chunk,
    Tree::ChunkList,
    Tree::Outbox,
    Tree::Batch,
    Tree::Cursor,
    Tree::History,
    Tree::Pin,
    Tree::Parked,
    Tree::Move,
    Tree::Device,
    Tree::Orphan,
    Tree::Unsealed,
    Tree::Conflict,
    Tree::Seen,
];

impl Tree {
    pub(super) fn name(self) -> &'static str {
        match self {
            Tree::Meta => "meta",
            Tree::Inode => "inode",
            Tree::Entry => "entry",
            Tree::Local => "local",
            Tree::Chunk => "chunk",
            Tree::ChunkList => "chunk_list",
            Tree::Outbox => "outbox",
            Tree::Batch => "batch",
            Tree::Cursor => "cursor",
            Tree::History => "history",
            Tree::Pin => "pin",
            Tree::Parked => "parked",
            Tree::Move => "move",
            Tree::Device => "device",
            Tree::Orphan => "orphan",
            Tree::Unsealed => "unsealed",
            Tree::Conflict => "conflict",
            Tree::Seen => "seen",
        }
    }
    pub(super) fn by_int(self) -> bool {
        use Tree::*;
        matches!(self, Inode | Local | ChunkList | Outbox | Batch | Move | Orphan | Unsealed)
    }
    pub(super) fn of(n: u8) -> Option<Tree> {
        TREES.get(n as usize).copied()
    }
}

/// A row key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Key {
    /// For trees keyed by integer.
    Int(u64),
    /// For the others.
    Bytes(Vec<u8>),
}

impl From<u64> for Key {
    fn from(n: u64) -> Key {
        Key::Int(n)
    }
}
impl From<Vec<u8>> for Key {
    fn from(b: Vec<u8>) -> Key {
        Key::Bytes(b)
    }
}
impl From<&str> for Key {
    fn from(s: &str) -> Key {
        Key::Bytes(s.as_bytes().to_vec())
    }
}

/// Encodes a row.
pub(crate) fn encode<T: Serialize>(row: &T) -> Result<Vec<u8>> {
    postcard::to_stdvec(row).map_err(|e| Error::new(Kind::Internal, "encoding a row of the local database").source(e))
}

/// Decodes a row.
pub(crate) fn decode<T: DeserializeOwned>(tree: Tree, bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(bytes).map_err(|e| {
        Error::new(Kind::Corrupt, format!("a row of the local database ({}) cannot be read", tree.name()))
            .hint("`tcfs doctor` checks the state; the store has everything that was published")
            .source(e)
    })
}

/// The smallest byte string above every one that starts with `prefix`; for the upper end of a prefix scan.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < 0xff {
            *last += 1;
            return end;
        }
        end.pop();
    }
    vec![0xff; prefix.len() + 1]
}
