//! The content of an old file as a version's: its chunks checked and known by size, and a manifest of the present form.
//!
//! Must: every byte is read once and hashes to what the older store says, or the file is not taken. Must: chunks first,
//! then the manifest, as for every file; a chunk that lies where ours lie is used as it is.
//! Old chunks may be longer than ours may be, empty, or lie elsewhere: then their bytes are cut and sent anew.

use super::OldBucket;
use crate::content::codec::MAX_CHUNK;
use crate::error::{Error, Kind, Result};
use crate::fleet::Fleet;
use crate::model::manifest::{About, Manifest, SyncManifest, root_of};
use crate::model::{ChunkRef, FileContent, Hash, RelPath, VClock};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};

/// Bytes sent anew together: more than a chunk has, so that small files are cut as they would be from a disk.
const SEND: usize = 8 << 20;
/// Chunks of one file that are fetched ahead, in bytes and in number.
const AHEAD: (u64, u64) = (32 << 20, 8);
/// Mode of a file of which none is known.
const MODE: u32 = 0o100_644;

/// A file as index and manifest tell of it.
pub struct OldFile {
    /// Bytes, by the index.
    pub size: u64,
    /// Number of chunks, by the index.
    pub chunks: u64,
    /// Its manifest.
    pub manifest: Manifest,
    /// When the index was written, seconds since 1970: stands in where nothing else tells a time.
    pub modified: i64,
}

/// What it is in the namespace.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Content; in a dry run its manifest is not in the store.
    pub content: FileContent,
    /// `st_mode`.
    pub mode: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
}

impl Fleet {
    /// Reads an old file as a whole and, unless `dry`, brings into the store what is missing there.
    ///
    /// Errors: of the store; of the entry ([`super::is_of_entry`]). Cancel-safe: it leaves chunks that are found again.
    pub async fn take_old(&self, from: &OldBucket, file: &OldFile, path: &RelPath, dry: bool) -> Result<Taken> {
        let corrupt = |what: String| Err(Error::new(Kind::Corrupt, what));
        let list = file.manifest.chunks();
        let told = match &file.manifest {
            Manifest::V2(m) => Some(m),
            Manifest::V1(_) => None,
        };
        if list.len() as u64 != file.chunks {
            return corrupt(format!("its manifest has {} chunks, its index entry says {}", list.len(), file.chunks));
        }
        if told.is_some_and(|m| m.file_size != file.size) {
            let manifest = told.map_or(0, |m| m.file_size);
            return corrupt(format!("its manifest says {manifest} bytes, its index entry {}", file.size));
        }
        let _room = from.room(file.size).await?;
        let average = file.size / (list.len() as u64).max(1);
        let ahead = (AHEAD.0 / average.max(1)).clamp(1, AHEAD.1) as usize;
        let mut bodies =
            stream::iter(list.to_vec()).map(|h| async move { Ok::<_, Error>((h, from.chunk(&h).await?)) }.boxed()).buffered(ahead);
        let mut sum = Sum { fleet: self, dry, chunks: Vec::new(), hasher: blake3::Hasher::new(), size: 0, anew: BytesMut::new() };
        while let Some(next) = bodies.next().await {
            let (hash, body) = next?;
            sum.add(hash, body, from.in_place).await?;
            if sum.size > file.size {
                break;
            }
        }
        drop(bodies);
        sum.send().await?;
        if sum.size != file.size {
            let more = if sum.size > file.size { "more than" } else { "only" };
            return corrupt(format!("its chunks have {more} {} bytes, its index entry says {}", sum.size.min(file.size), file.size));
        }
        let hash = Hash(*sum.hasher.finalize().as_bytes());
        if told.and_then(|m| m.file_hash).is_some_and(|h| h != hash) {
            return corrupt("its bytes have another hash than its manifest says".to_owned());
        }
        let at = told.map(|m| m.written_at).filter(|t| *t > 0).unwrap_or(file.modified);
        let about = About {
            // As it stood there: who wrote it when, for people.
            vclock: told.map_or(VClock::new(), |m| m.vclock.clone()),
            written_by: told.map_or(String::new(), |m| m.written_by.clone()),
            written_at: at,
            mode: told.and_then(|m| m.mode).map_or(MODE, |m| 0o100_000 | m & 0o7777),
            mtime: told.and_then(|m| m.mtime).unwrap_or((at, 0)),
            base: None,
        };
        let (mode, mtime) = (about.mode, about.mtime);
        let manifest = SyncManifest::new(path, &sum.chunks, Some(hash), about);
        if dry {
            let content =
                FileContent { manifest: Hash::of(b""), size: sum.size, root: root_of(&sum.chunks), chunks: None, hash: Some(hash) };
            return Ok(Taken { content, mode, mtime });
        }
        let (id, body) = manifest.encode()?;
        self.uploader.put_manifest(&id, body.into()).await?;
        let content = manifest.content(id).ok_or_else(|| Error::new(Kind::Internal, "a manifest without sizes"))?;
        Ok(Taken { content, mode, mtime })
    }
}

/// A file so far.
struct Sum<'a> {
    fleet: &'a Fleet,
    dry: bool,
    chunks: Vec<ChunkRef>,
    hasher: blake3::Hasher,
    size: u64,
    /// To be sent.
    anew: BytesMut,
}

impl Sum<'_> {
    async fn add(&mut self, hash: Hash, body: Bytes, in_place: bool) -> Result<()> {
        if body.is_empty() {
            return Ok(());
        }
        self.hasher.update(&body);
        self.size += body.len() as u64;
        if in_place && body.len() <= MAX_CHUNK as usize {
            self.send().await?;
            // Read just now: as good as asked for.
            self.fleet.uploader.known().add(hash);
            self.chunks.push(ChunkRef(hash, body.len() as u32));
            return Ok(());
        }
        if self.dry {
            return Ok(());
        }
        self.anew.extend_from_slice(&body);
        if self.anew.len() >= SEND { self.send().await } else { Ok(()) }
    }

    /// Cuts and sends what has no chunk of ours.
    async fn send(&mut self) -> Result<()> {
        if !self.anew.is_empty() {
            let cut = self.fleet.uploader.publish_small(self.anew.split().freeze()).await?;
            self.chunks.extend(cut.chunks);
        }
        Ok(())
    }
}
