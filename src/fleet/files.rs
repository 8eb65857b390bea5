//! What the fleet layer needs of the layer that has the files' bytes.
//!
//! Not here: an implementation (`vfs`; tests have a simple one).

use crate::content::{RangeSet, ReadAt};
use crate::error::Result;
use crate::model::reissue::Reissue;
use crate::model::view::ConflictMode;
use crate::model::{ChunkRef, FileContent, Hash};
use crate::state::{Change, Ns};

/// Bytes to be published.
pub struct CutSource {
    /// The bytes as they were sealed.
    pub reader: Box<dyn ReadAt + Send>,
    /// How many.
    pub size: u64,
    /// The chunks of the version they were made from, if they are an edit of one.
    pub base: Option<Vec<ChunkRef>>,
    /// What differs from the base; all of it where there is none.
    pub dirty: RangeSet,
}

/// What became of a token, the stand-in for the root of bytes that were not cut.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The token.
    pub token: Hash,
    /// Inode of the seal.
    pub ino: u64,
    /// Count of changes at the seal.
    pub wgen: u64,
    /// What it stands for.
    pub outcome: Outcome,
}

/// See [`Resolved`].
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The bytes are published: content and its whole chunk list.
    Cut {
        /// As the version in the log has it.
        content: FileContent,
        /// All chunks.
        chunks: Vec<ChunkRef>,
    },
    /// The version was left out because a later one replaced it before anybody saw it; this is what it was based on.
    Dropped {
        /// Root of the version before it.
        base: Option<Hash>,
    },
}

/// How this device shows the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How conflicts are shown.
    pub mode: ConflictMode,
    /// Whether siblings are shown although the mode is `defer`.
    pub show_siblings: bool,
    /// Owner of what comes from elsewhere.
    pub uid: u32,
    /// Group of what comes from elsewhere.
    pub gid: u32,
    /// Number of this boot, for rows that the fleet layer seals.
    pub boot: u64,
}

/// The layer that has the bytes. All calls come from blocking threads; none may wait for the network.
///
/// Must: a file's count of changes (`wgen`) moves before the first byte of the change does, so that bytes which were
/// read while it stood still are those of the seal.
pub trait Files: Send + Sync + 'static {
    /// How this device shows the tree.
    fn settings(&self) -> Settings;

    /// The bytes sealed with that count; none if they are no longer there because the file was written again since.
    fn cut_source(&self, ino: u64, wgen: u64) -> Result<Option<CutSource>>;

    /// Whether the bytes are still those sealed with that count. Asked after the last read of a cut.
    fn unchanged(&self, ino: u64, wgen: u64) -> bool;

    /// What became of tokens, before their rows leave the outbox; after a crash the same may be told again. Unsealed
    /// bytes, open handles and inodes that name a token take what it stands for. Errors are retried.
    fn resolved(&self, what: &[Resolved]) -> Result<()>;

    /// Whether an inode is open for writing or has unsealed bytes. Called inside a transaction: may take no lock that is
    /// ever held while the database is used.
    fn busy(&self, ino: u64) -> bool;

    /// The visible tree changed.
    fn changed(&self, changes: Vec<Change>);

    /// Makes the bytes of these inodes durable on this disk.
    fn sync_data(&self, inos: &[u64]) -> Result<()>;

    /// Everything sealed later waits for this inode, whose sealed bytes were written over: it is to be sealed as it
    /// lies as soon as that can be done.
    fn wanted(&self, _ino: u64) {}

    /// Before batches of others are applied, and before the outbox is read: notes that the tree may change under files
    /// that are open, and writes out directory moves that are done in the tree only ([`super::moves::write_out_in`], which
    /// notes nothing). Called inside a transaction; cheap when there is nothing to do.
    fn expand_moves(&self, ns: &mut Ns<'_, '_>) -> Result<()>;

    /// This machine has a new id: what open handles had accepted changes with it. Rows of the database are changed
    /// already.
    fn new_id(&self, change: &Reissue<'_>);
}
