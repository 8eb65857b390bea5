//! A bucket in the older layout, read only: its listing, what its objects say, and their bytes.
//!
//! Must: nothing is ever written below its prefix by this module, and no chunk is handed out whose bytes were not
//! checked. Must: what belongs to one entry is that entry's error; an error of the store is one of the whole.
//! Not here: what becomes of an entry (`model::adopt`, `vfs::adopt`), its content as a version's (`take`), what garbage
//! collection has to leave alone (`reach`).

mod reach;
mod take;

pub use reach::{Reached, reach};
pub use take::{OldFile, Taken};

use super::core::blocking;
use crate::content::codec;
use crate::error::{Error, Kind, Result};
use crate::model::RelPath;
use crate::model::hash::Hash;
use crate::model::old_index::{OldEntry, OldManifest};
use crate::model::path::NameError;
use crate::store::{ObjectMeta, StoreRef, list_all};
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

/// An index object that is larger is none.
const ENTRY_MAX: u64 = 1 << 20;
/// The marker of an empty directory.
const DIR_MARK: &str = ".tcfs_dir";
/// Memory for chunks that are under way, in KiB.
const MEMORY: u32 = 192 << 10;
/// What lies below the prefix and is no content, and where the registry was.
const IGNORED: &[&str] = &["staging/", ".tcfs-namespace/", ".tcfs-trash", ".tcfs-capability-probes/"];

/// What an object below `index/` is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OldPath {
    /// A file, link or deleted path.
    Entry(RelPath),
    /// A directory that is kept though it is empty.
    Dir(RelPath),
    /// The path begins with the prefix once more: an accident, or a directory of that name.
    Doubled {
        /// With the words of the prefix.
        whole: String,
        /// Without them.
        inner: String,
    },
    /// No path that a file could have; why.
    Bad(String),
}

/// A device of the older registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct OldDevice {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// It was revoked.
    pub revoked: bool,
}

/// The bucket.
pub struct OldBucket {
    store: StoreRef,
    prefix: String,
    /// Chunks lie where this fleet's own lie: what is there is used as it is.
    in_place: bool,
    memory: Semaphore,
}

impl OldBucket {
    /// The older layout below `prefix` (without slashes at its ends; may be empty). `in_place`: store and prefix are the
    /// fleet's own.
    pub fn new(store: StoreRef, prefix: &str, in_place: bool) -> OldBucket {
        OldBucket { store, prefix: prefix.trim_matches('/').to_owned(), in_place, memory: Semaphore::new(MEMORY as usize) }
    }

    fn key(&self, rest: &str) -> String {
        if self.prefix.is_empty() { rest.to_owned() } else { format!("{}/{rest}", self.prefix) }
    }

    /// What every key of the index begins with.
    pub fn index(&self) -> String {
        self.key("index/")
    }

    /// A key of the index without that.
    pub fn rest<'k>(&self, key: &'k str) -> &'k str {
        key.strip_prefix(&self.index()).unwrap_or(key)
    }

    /// One page of index objects, and the mark of the next.
    pub async fn page(&self, after: Option<&str>) -> Result<(Vec<ObjectMeta>, Option<String>)> {
        let page = self.store.list(&self.index(), after).await?;
        Ok((page.objects, page.next))
    }

    /// What a key of [`OldBucket::page`] is about.
    pub fn path_of(&self, key: &str) -> OldPath {
        let rest = self.rest(key);
        if !self.prefix.is_empty()
            && let Some(inner) = rest.strip_prefix(&format!("{}/", self.prefix))
        {
            return OldPath::Doubled { whole: rest.to_owned(), inner: inner.to_owned() };
        }
        named(rest)
    }

    /// What an index object says.
    ///
    /// Errors: of the store; of the entry ([`is_of_entry`]).
    pub async fn entry(&self, object: &ObjectMeta) -> Result<OldEntry> {
        if object.size > ENTRY_MAX {
            return Err(Error::new(Kind::Corrupt, format!("the index entry has {} bytes; none is that large", object.size)));
        }
        let body = self.store.get(&object.key).await.map_err(|e| missing(e, "the index entry is gone"))?;
        OldEntry::parse(&body)
    }

    /// A manifest.
    ///
    /// Errors: as for [`OldBucket::entry`].
    pub async fn manifest(&self, id: &str) -> Result<OldManifest> {
        let body = self.store.get(&self.key(&format!("manifests/{id}"))).await;
        OldManifest::parse(&body.map_err(|e| missing(e, &format!("its manifest {id} is missing")))?)
    }

    /// The right to hold the chunks of a file of so many bytes in memory.
    async fn room(&self, size: u64) -> Result<SemaphorePermit<'_>> {
        let kib = u32::try_from(size.div_ceil(1024)).unwrap_or(MEMORY).clamp(1, MEMORY);
        self.memory.acquire_many(kib).await.map_err(|e| Error::new(Kind::Internal, "reading an older store").source(e))
    }

    /// A chunk, checked.
    async fn chunk(&self, hash: &Hash) -> Result<Bytes> {
        let body = self.store.get(&self.key(&format!("chunks/{hash}"))).await;
        let body = body.map_err(|e| missing(e, &format!("its chunk {hash} is missing")))?;
        let hash = *hash;
        let check = move || {
            // As the older tcfs wrote it, whatever its size; or as this one did meanwhile.
            if Hash::of(&body) == hash { Ok(body) } else { codec::decode(&hash, None, body) }
        };
        blocking(check).await
    }

    /// How many objects lie where no content is, by the beginning of their keys.
    pub async fn ignored(&self) -> Result<Vec<(String, u64)>> {
        let mut out = Vec::new();
        for part in IGNORED {
            let prefix = self.key(part);
            let found = list_all(&*self.store, &prefix).await?.len() as u64;
            if found > 0 {
                out.push((prefix, found));
            }
        }
        Ok(out)
    }

    /// The devices of the older registry, at both places where it was; what cannot be read as sentences.
    pub async fn devices(&self) -> Result<(Vec<OldDevice>, Vec<String>)> {
        let (mut devices, mut damaged) = (Vec::new(), Vec::new());
        let mut keys = vec!["tcfs-meta/devices.json".to_owned(), self.key("tcfs-meta/devices.json")];
        keys.dedup();
        for key in keys {
            let body = match self.store.get(&key).await {
                Ok(b) => b,
                Err(e) if e.kind() == Kind::NotFound => continue,
                Err(e) => return Err(e),
            };
            let Ok(registry) = serde_json::from_slice::<Value>(&body) else {
                damaged.push(format!("{key}: it is no JSON"));
                continue;
            };
            // Devices of this fleet have an `id`.
            let old = registry["devices"].as_array().into_iter().flatten().filter(|d| d["device_id"].is_string());
            let text = |v: &Value| v.as_str().unwrap_or_default().chars().take(100).collect::<String>();
            devices.extend(old.map(|d| OldDevice {
                name: text(&d["name"]),
                id: text(&d["device_id"]),
                revoked: d["revoked"].as_bool().unwrap_or(false),
            }));
        }
        devices.sort();
        devices.dedup();
        Ok((devices, damaged))
    }
}

/// What an index key without its prefix is about.
pub fn named(rest: &str) -> OldPath {
    let why = |e: NameError| OldPath::Bad(e.to_string());
    match rest.rsplit_once('/').unwrap_or(("", rest)) {
        (dir, DIR_MARK) => RelPath::parse(dir).map_or_else(why, OldPath::Dir),
        _ if rest.is_empty() => OldPath::Bad("it has no path".into()),
        _ => RelPath::parse(rest).map_or_else(why, OldPath::Entry),
    }
}

/// Whether an error is about one entry and no reason to stop.
pub fn is_of_entry(e: &Error) -> bool {
    matches!(
        e.kind(),
        Kind::Corrupt
            | Kind::Unsupported
            | Kind::NotFound
            | Kind::BadName
            | Kind::NameTooLong
            | Kind::NotUtf8
            | Kind::Invalid
            | Kind::TooBig
    )
}

fn missing(e: Error, what: &str) -> Error {
    if e.kind() == Kind::NotFound { Error::new(Kind::NotFound, what) } else { e }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    #[test]
    fn keys_are_paths_directories_accidents_or_nothing() {
        let b = OldBucket::new(MemoryStore::new(), "team/data", true);
        let path = |s: &str| RelPath::parse(s).unwrap();
        assert_eq!(b.path_of("team/data/index/a b/ü.txt"), OldPath::Entry(path("a b/ü.txt")));
        assert_eq!(b.path_of("team/data/index/empty/.tcfs_dir"), OldPath::Dir(path("empty")));
        assert_eq!(b.path_of("team/data/index/.tcfs_dir"), OldPath::Dir(path("")));
        let doubled = OldPath::Doubled { whole: "team/data/x".into(), inner: "x".into() };
        assert_eq!(b.path_of("team/data/index/team/data/x"), doubled);
        for bad in ["team/data/index/a//b", "team/data/index/../x", "team/data/index/"] {
            assert!(matches!(b.path_of(bad), OldPath::Bad(_)), "{bad}");
        }
        let root = OldBucket::new(MemoryStore::new(), "", false);
        assert_eq!(root.path_of("index/index/x"), OldPath::Entry(path("index/x")));
    }
}
