//! Manifests: the ordered chunk list of one file version, as it stands in the store.
//!
//! Must: encoding is deterministic, the id is the hash of the body. Must: a body that starts with `{` and is no known
//! version is an error, never read as v1. Must: sizes add up before any byte is fetched.
//! Not here: fetching chunks and checking their hashes (`content`).

use super::hash::Hash;
use super::path::RelPath;
use super::vclock::VClock;
use super::version::{ChunkRef, FileContent, INLINE_CHUNKS};
use crate::error::{Error, Kind as ErrorKind, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Largest chunk in bytes: what a reader must be ready to hold in memory.
pub const CHUNK_MAX: u32 = 16 << 20;
/// Most chunks of one file (1 TiB at an average of 256 KiB); bounds what a hostile manifest makes a reader allocate.
pub const CHUNKS_MAX: usize = 1 << 22;

/// Hash over a chunk list: BLAKE3 of `tcfs-root-v1`, then (length as u64 LE, raw hash) of each chunk.
pub fn root_of(chunks: &[ChunkRef]) -> Hash {
    let mut h = blake3::Hasher::new();
    h.update(b"tcfs-root-v1");
    for ChunkRef(hash, len) in chunks {
        h.update(&u64::from(*len).to_le_bytes());
        h.update(&hash.0);
    }
    Hash(*h.finalize().as_bytes())
}

/// SyncManifest v2. The order of fields is the order in the body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncManifest {
    /// 2.
    pub version: u32,
    /// Hash of the whole file; `""` in JSON if its author never held all bytes.
    #[serde(serialize_with = "hash_or_empty", deserialize_with = "empty_or_hash")]
    pub file_hash: Option<Hash>,
    /// Bytes.
    pub file_size: u64,
    /// Hashes of the chunks in order.
    pub chunks: Vec<Hash>,
    /// Clock of the version it was written for.
    pub vclock: VClock,
    /// Device id of its author.
    pub written_by: String,
    /// Seconds since 1970 by the author's clock.
    pub written_at: i64,
    /// Where the file was then; for people, decides nothing.
    pub rel_path: Option<String>,
    /// `st_mode` then.
    #[serde(default)]
    pub mode: Option<u32>,
    /// Seconds and nanoseconds then.
    #[serde(default)]
    pub mtime: Option<(i64, u32)>,
    /// Length of each chunk. Empty although there are chunks: written by the older tcfs, sizes unknown until read.
    #[serde(default)]
    pub chunk_sizes: Vec<u32>,
    /// [`root_of`] the list; none where written by the older tcfs.
    #[serde(default)]
    pub root: Option<Hash>,
    /// Root of the version replaced.
    #[serde(default)]
    pub base: Option<Hash>,
}

fn hash_or_empty<S: Serializer>(h: &Option<Hash>, s: S) -> Result<S::Ok, S::Error> {
    match h {
        Some(h) => s.collect_str(h),
        None => s.serialize_str(""),
    }
}

fn empty_or_hash<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Hash>, D::Error> {
    let text = String::deserialize(d)?;
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(serde::de::Error::custom) }
}

/// A manifest object as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manifest {
    /// The older text form: hashes only; sizes, hash, clock and path are not known from it.
    V1(Vec<Hash>),
    /// The present form.
    V2(Box<SyncManifest>),
}

fn corrupt(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, format!("reading a manifest: {what}"))
}

impl Manifest {
    /// Parses and checks a body.
    ///
    /// Errors: `Corrupt`; `Unsupported` for a version above 2.
    pub fn parse(body: &[u8]) -> Result<Manifest> {
        let text = std::str::from_utf8(body).map_err(|e| corrupt("it is not text").source(e))?;
        if text.trim_start().starts_with('{') {
            SyncManifest::parse(text).map(|m| Manifest::V2(Box::new(m)))
        } else {
            parse_v1(text).map(Manifest::V1)
        }
    }

    /// Hashes of the chunks in order.
    pub fn chunks(&self) -> &[Hash] {
        match self {
            Manifest::V1(chunks) => chunks,
            Manifest::V2(m) => &m.chunks,
        }
    }

    /// The chunks with their sizes; none where the manifest does not tell them.
    pub fn chunk_refs(&self) -> Option<Vec<ChunkRef>> {
        match self {
            Manifest::V1(_) => None,
            Manifest::V2(m) => m.chunk_refs(),
        }
    }
}

/// One hash per line, blank lines ignored.
fn parse_v1(text: &str) -> Result<Vec<Hash>> {
    let mut chunks = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        if chunks.len() == CHUNKS_MAX {
            return Err(corrupt(format_args!("more than {CHUNKS_MAX} chunks")));
        }
        chunks.push(line.trim().parse().map_err(|e| corrupt(format_args!("line {}: {e}", i + 1)))?);
    }
    Ok(chunks)
}

#[derive(Deserialize)]
struct Header {
    version: u64,
}

impl SyncManifest {
    /// A manifest for a version about to be published.
    pub fn new(path: &RelPath, chunks: &[ChunkRef], file_hash: Option<Hash>, about: About) -> SyncManifest {
        SyncManifest {
            version: 2,
            file_hash,
            file_size: chunks.iter().map(|c| u64::from(c.1)).sum(),
            chunks: chunks.iter().map(|c| c.0).collect(),
            vclock: about.vclock,
            written_by: about.written_by,
            written_at: about.written_at,
            rel_path: Some(path.as_str().to_owned()),
            mode: Some(about.mode),
            mtime: Some(about.mtime),
            chunk_sizes: chunks.iter().map(|c| c.1).collect(),
            root: Some(root_of(chunks)),
            base: about.base,
        }
    }

    fn parse(text: &str) -> Result<SyncManifest> {
        let header: Header = serde_json::from_str(text).map_err(|e| corrupt("no JSON with a version").source(e))?;
        if header.version != 2 {
            let e = Error::new(ErrorKind::Unsupported, format!("reading a manifest: it has version {}", header.version));
            return Err(e.hint("upgrade tcfs on this machine"));
        }
        let m: SyncManifest = serde_json::from_str(text).map_err(|e| corrupt("version 2").source(e))?;
        m.check()?;
        Ok(m)
    }

    /// The body of the object, and its id. Checked: what is refused here cannot be published.
    pub fn encode(&self) -> Result<(Hash, Vec<u8>)> {
        self.check()?;
        if self.root.is_none() {
            return Err(Error::new(ErrorKind::Internal, "writing a manifest: it has no root"));
        }
        let doing = |e| Error::new(ErrorKind::Internal, "writing a manifest").source(e);
        let body = serde_json::to_vec(self).map_err(doing)?;
        Ok((Hash::of(&body), body))
    }

    /// Count, bounds and sum of the sizes, and the root.
    pub fn check(&self) -> Result<()> {
        if self.chunks.len() > CHUNKS_MAX {
            return Err(corrupt(format_args!("{} chunks are more than {CHUNKS_MAX}", self.chunks.len())));
        }
        match self.chunk_refs() {
            Some(chunks) => {
                check_sizes(&chunks, self.file_size).map_err(corrupt)?;
                if self.root.is_some_and(|r| r != root_of(&chunks)) {
                    return Err(corrupt("its root is not that of its chunks"));
                }
            }
            None if self.root.is_some() || !self.chunk_sizes.is_empty() => {
                let (sizes, chunks) = (self.chunk_sizes.len(), self.chunks.len());
                return Err(corrupt(format_args!("{sizes} sizes for {chunks} chunks")));
            }
            None => {}
        }
        match self.mtime {
            Some((_, ns)) if ns >= 1_000_000_000 => Err(corrupt(format_args!("{ns} nanoseconds in its mtime"))),
            _ => Ok(()),
        }
    }

    /// Chunks with their lengths; none where the older tcfs wrote no sizes.
    pub fn chunk_refs(&self) -> Option<Vec<ChunkRef>> {
        let known = self.chunks.len() == self.chunk_sizes.len();
        known.then(|| self.chunks.iter().zip(&self.chunk_sizes).map(|(h, n)| ChunkRef(*h, *n)).collect())
    }

    /// What a version's record says of this manifest, stored under `id`. None where sizes are not known.
    pub fn content(&self, id: Hash) -> Option<FileContent> {
        let chunks = self.chunk_refs()?;
        let root = self.root.unwrap_or_else(|| root_of(&chunks));
        let chunks = (chunks.len() <= INLINE_CHUNKS).then_some(chunks);
        Some(FileContent { manifest: id, size: self.file_size, root, chunks, hash: self.file_hash })
    }
}

/// What a manifest repeats of its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The version's clock.
    pub vclock: VClock,
    /// Its author's id.
    pub written_by: String,
    /// Seconds since 1970.
    pub written_at: i64,
    /// `st_mode`.
    pub mode: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Root of the version replaced.
    pub base: Option<Hash>,
}

/// Each chunk has 1 byte to [`CHUNK_MAX`], and together they are `size`.
pub(super) fn check_sizes(chunks: &[ChunkRef], size: u64) -> Result<(), String> {
    let mut sum = 0u64;
    for (i, ChunkRef(_, len)) in chunks.iter().enumerate() {
        if *len == 0 || *len > CHUNK_MAX {
            return Err(format!("chunk {i} has {len} bytes (1 to {CHUNK_MAX} are allowed)"));
        }
        sum += u64::from(*len);
    }
    if sum == size { Ok(()) } else { Err(format!("its chunks have {sum} bytes together, the file {size}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> SyncManifest {
        let chunks = [ChunkRef(Hash::of(b"one"), 3), ChunkRef(Hash::of(b"three"), 5)];
        let about = About {
            vclock: [("ann-00000001", 1)].into_iter().collect(),
            written_by: "ann-00000001".into(),
            written_at: 7,
            mode: 0o100_644,
            mtime: (1, 2),
            base: None,
        };
        SyncManifest::new(&RelPath::parse("a/b").unwrap(), &chunks, None, about)
    }

    #[test]
    fn what_was_written_is_read() {
        let (id, body) = manifest().encode().unwrap();
        assert_eq!(id, Hash::of(&body));
        assert_eq!(Manifest::parse(&body).unwrap(), Manifest::V2(Box::new(manifest())));
    }

    #[test]
    fn sizes_that_do_not_add_up_are_refused() {
        let with = |f: fn(&mut SyncManifest)| {
            let mut m = manifest();
            f(&mut m);
            (m.encode().is_err(), Manifest::parse(&serde_json::to_vec(&m).unwrap()).is_err())
        };
        assert_eq!(with(|m| m.file_size = 9), (true, true));
        assert_eq!(with(|m| m.chunks.clear()), (true, true));
        assert_eq!(with(|m| m.chunk_sizes[0] = 0), (true, true));
        assert_eq!(with(|m| m.chunk_sizes[0] = CHUNK_MAX + 1), (true, true));
        assert_eq!(with(|m| (m.chunks.clear(), m.chunk_sizes.clear()).1), (true, true));
        assert_eq!(with(|m| m.root = Some(Hash::of(b"x"))), (true, true));
        assert_eq!(with(|m| m.file_size = u64::MAX), (true, true));
    }

    #[test]
    fn json_that_is_no_manifest_is_never_v1() {
        for body in ["{", " \n{\"version\":2}", "{\"version\":3}", "{}", "{\"version\":\"2\"}"] {
            assert!(Manifest::parse(body.as_bytes()).is_err(), "{body}");
        }
        assert_eq!(Manifest::parse(b"{\"version\":9}").unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
