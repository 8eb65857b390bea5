//! The blocking half of a publish: reads the source, cuts, hashes, and hands new chunks over to be sent.
//!
//! Must: hands nothing over without the right to memory for it; stops when the publish it belongs to was dropped.
//! Not here: encoding and sending (the asynchronous half).

use super::super::buffers::Buffers;
use super::super::chunker::{Piece, cut_all, zero_hash, zeros};
use super::super::lanes::{Hold, Lane};
use super::super::ranges::RangeSet;
use super::super::recut::Edit;
use super::super::source::ReadAt;
use super::{CutStats, Inner, Job, gone, kib};
use crate::error::Result;
use crate::model::{ChunkRef, Hash};
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Holes are hashed into the file hash up to this many bytes (a second of CPU time); a file with more has none.
const HASH_ZEROS_UP_TO: u64 = 4 << 30;

/// The blocking half of a publish.
pub(super) struct Reader {
    pub(super) inner: Arc<Inner>,
    pub(super) lane: Lane,
    /// Held while the source is read.
    #[allow(dead_code, reason = "a permit is for being held")]
    pub(super) file: Hold,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) tx: mpsc::Sender<Job>,
    pub(super) source: Box<dyn ReadAt>,
    pub(super) base: Arc<[ChunkRef]>,
    pub(super) dirty: RangeSet,
    pub(super) size: u64,
    pub(super) buffers: Buffers,
}

/// What the reader brings back.
pub(super) struct Done {
    pub(super) source: Box<dyn ReadAt>,
    pub(super) chunks: Vec<ChunkRef>,
    pub(super) file_hash: Option<Hash>,
    pub(super) stats: CutStats,
}

impl Reader {
    /// Cuts the source. Blocks.
    pub(super) fn run(self) -> Result<Done> {
        let mut chunks = Vec::new();
        let mut stats = CutStats::default();
        let mut offered = HashSet::new();
        let mut whole = FileHash { hasher: None, zeros: 0, lost: false };
        let mut sink = |piece: Piece<'_>| {
            if self.tx.is_closed() {
                return Err(gone());
            }
            match piece {
                Piece::Keep(range) => {
                    stats.kept += range.len() as u64;
                    whole.lost = true;
                    chunks.extend_from_slice(&self.base[range]);
                }
                Piece::Data { bytes, .. } => {
                    let chunk = ChunkRef(Hash::of(bytes), bytes.len() as u32);
                    stats.cut += 1;
                    whole.data(bytes, self.size);
                    self.offer(chunk, bytes, &mut offered)?;
                    chunks.push(chunk);
                }
                Piece::Zeros { len, .. } => {
                    let chunk = ChunkRef(zero_hash(len), len);
                    stats.cut += 1;
                    whole.zeros(len, self.size);
                    self.offer(chunk, &zeros()[..len as usize], &mut offered)?;
                    chunks.push(chunk);
                }
            }
            Ok(())
        };
        let read = if self.base.is_empty() {
            cut_all(&*self.source, self.size, &mut sink)?
        } else {
            Edit::new(&self.base, &self.dirty, self.size)?.run(&*self.source, &mut sink)?
        };
        stats.read = read;
        let file_hash = match chunks[..] {
            [one] => Some(one.0),
            _ => whole.finish(),
        };
        Ok(Done { source: self.source, chunks, file_hash, stats })
    }

    /// Hands a chunk over to be sent, unless it is known to be in the store or on its way there. Waits for memory.
    fn offer(&self, chunk: ChunkRef, bytes: &[u8], offered: &mut HashSet<Hash>) -> Result<()> {
        if self.inner.is_known(&chunk.0) || !offered.insert(chunk.0) {
            return Ok(());
        }
        let memory = self.runtime.block_on(self.inner.memory.take(kib(bytes.len()), self.lane))?;
        self.tx.blocking_send(Job { chunk, bytes: self.buffers.copy(bytes), memory, lane: self.lane }).map_err(|_| gone())
    }
}

/// The hash of the whole file on the way.
struct FileHash {
    hasher: Option<blake3::Hasher>,
    zeros: u64,
    /// Some bytes did not pass by.
    lost: bool,
}

impl FileHash {
    fn data(&mut self, bytes: &[u8], size: u64) {
        // A file of one chunk has that chunk's hash.
        if !self.lost && (bytes.len() as u64) < size {
            self.hasher.get_or_insert_default().update(bytes);
        }
    }
    fn zeros(&mut self, len: u32, size: u64) {
        self.zeros += u64::from(len);
        self.lost |= self.zeros > HASH_ZEROS_UP_TO;
        self.data(&zeros()[..len as usize], size);
    }
    fn finish(self) -> Option<Hash> {
        self.hasher.filter(|_| !self.lost).map(|h| Hash(*h.finalize().as_bytes()))
    }
}
