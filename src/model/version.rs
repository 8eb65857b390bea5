//! A version: one write of one path, as it stands in a device's log and in the local replica.

use super::hash::Hash;
use super::path::RelPath;
use super::vclock::VClock;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// A chunk in a file's ordered list: hash of the plaintext, length in bytes. In JSON `["<hash>", length]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChunkRef(
    /// BLAKE3 of the plaintext; the key under `chunks/`.
    pub Hash,
    /// Length of the plaintext.
    pub u32,
);

/// Most chunks a record carries itself; such a file hydrates without fetching its manifest.
pub const INLINE_CHUNKS: usize = 8;

/// What a regular file holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileContent {
    /// Key of the manifest object. [`Hash::ZERO`] while this device has not cut the bytes yet; such a version
    /// never leaves the machine.
    pub manifest: Hash,
    /// Bytes.
    pub size: u64,
    /// Hash over the chunk list (`manifest::root_of`). While `manifest` is zero: a token unique to this seal.
    pub root: Hash,
    /// The chunk list itself when it has at most [`INLINE_CHUNKS`].
    pub chunks: Option<Vec<ChunkRef>>,
    /// Hash of the whole file where its author held all bytes.
    pub hash: Option<Hash>,
}

/// What a version makes of its path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A regular file.
    File(FileContent),
    /// A directory.
    Dir,
    /// A symbolic link; the target is kept as written and never followed here.
    Symlink {
        /// Target text.
        target: String,
    },
    /// A git repository carried as one unit (`fleet/git.rs`).
    Bundle {
        /// Key of the manifest of the bundle file.
        content: FileContent,
        /// What the bundle contains and needs, as the git layer wrote it.
        #[serde(default)]
        meta: BTreeMap<String, String>,
    },
    /// The path was removed.
    Tombstone,
    /// One of many deletes, under the brake: what its author made of the path is to be seen on the author's machine
    /// only, until a later version approves it ([`super::brake`]).
    HeldBack {
        /// What the others go on seeing: what was removed or emptied.
        was: Box<Kind>,
        /// What the author sees: a tombstone, or a file without bytes.
        now: Box<Kind>,
    },
}

/// Whose name a head goes by: the author's, or that of the head it replaced beside visible siblings.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Device name as written in the version that first had the place.
    pub name: String,
    /// Its device id.
    pub id: String,
}

/// Format number of a record; a higher one is parked raw until an upgrade.
pub const RECORD_FORMAT: u32 = 1;

/// One write of one path.
///
/// No field is skipped in writing: the same derive also serves the local database's binary rows (postcard), where
/// fields have no names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// [`RECORD_FORMAT`].
    pub v: u32,
    /// The path written.
    pub path: RelPath,
    /// Whose counter was raised: the device id or `<device id>.<n>`.
    pub actor: String,
    /// What its author had accepted, plus itself.
    pub vclock: VClock,
    /// Clock of the version that wrote these bytes; chmod and touch inherit it. In a tombstone: the clock of the
    /// version removed.
    pub wrote: VClock,
    /// None: the author's own.
    #[serde(default)]
    pub place: Option<Place>,
    /// Author's name at the time.
    pub device_name: String,
    /// Author.
    pub device_id: String,
    /// Milliseconds since 1970 by the author's clock; for people, decides nothing.
    pub written_at: i64,
    /// What it makes of the path.
    pub kind: Kind,
    /// Permission bits with the file type bits (`st_mode`).
    pub mode: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// `user.*` attributes, values base64.
    #[serde(default)]
    pub xattrs: BTreeMap<String, String>,
    /// Root of the version replaced; none for a create.
    pub base: Option<Hash>,
    /// In a tombstone: where the content went.
    #[serde(default)]
    pub moved_to: Option<RelPath>,
    /// Paths from which this version was re-issued by healing a move.
    #[serde(default)]
    pub healed_from: Vec<RelPath>,
}

impl Version {
    /// Its id for people: 16 hex digits, the same on every device and before and after its bytes are cut.
    pub fn id(&self) -> String {
        let clock = serde_json::to_string(&self.vclock).unwrap_or_default();
        let text = format!("{}\0{clock}\0{}\0{}", self.path, self.device_id, self.written_at);
        Hash::of(text.as_bytes()).to_string().chars().take(16).collect()
    }

    /// Whether it carries a repository.
    pub fn is_bundle(&self) -> bool {
        matches!(self.kind, Kind::Bundle { .. })
    }

    /// Whether it is a delete.
    pub fn is_tombstone(&self) -> bool {
        matches!(self.kind, Kind::Tombstone)
    }

    /// Whether it is under the brake.
    pub fn is_held_back(&self) -> bool {
        matches!(self.kind, Kind::HeldBack { .. })
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self.kind.content(), Kind::Dir)
    }

    /// The file content, for regular files.
    pub fn file(&self) -> Option<&FileContent> {
        match self.kind.content() {
            Kind::File(c) => Some(c),
            _ => None,
        }
    }

    /// Whether its bytes are still only on this machine and not cut yet.
    pub fn is_uncut(&self) -> bool {
        match &self.kind {
            Kind::File(c) | Kind::Bundle { content: c, .. } => c.manifest.is_zero(),
            _ => false,
        }
    }

    /// Fills in what cutting found out about the bytes sealed under the token `token`: in the version that holds them
    /// and in every one whose `base` names them. Says whether anything changed.
    pub fn recut(&mut self, token: &Hash, content: &FileContent) -> bool {
        let mut changed = false;
        if let Kind::File(c) | Kind::Bundle { content: c, .. } = &mut self.kind
            && c.manifest.is_zero()
            && c.root == *token
        {
            *c = content.clone();
            changed = true;
        }
        if self.base == Some(*token) {
            self.base = Some(content.root);
            changed = true;
        }
        changed
    }

    /// The place: its own, or the author's.
    pub fn place(&self) -> (&str, &str) {
        match &self.place {
            Some(p) => (&p.name, &p.id),
            None => (&self.device_name, &self.device_id),
        }
    }

    /// One hash for what the version holds: the root of a file or bundle, a hash of a link's target, a constant for a
    /// directory. `base` fields carry it. For a tombstone: [`Hash::ZERO`].
    pub fn content_id(&self) -> Hash {
        match self.kind.content() {
            Kind::File(c) | Kind::Bundle { content: c, .. } => c.root,
            Kind::Dir => Hash::of(b"tcfs-dir-v1"),
            Kind::Symlink { target } => Hash::of(&[b"tcfs-symlink-v1\0", target.as_bytes()].concat()),
            Kind::Tombstone | Kind::HeldBack { .. } => Hash::ZERO,
        }
    }

    /// Whether both hold the same: kind and target; for files the root, or the hash of the whole file where both
    /// have one. All directories hold the same, and so do all empty files.
    pub fn same_content(&self, other: &Version) -> bool {
        match (self.kind.content(), other.kind.content()) {
            (Kind::File(a), Kind::File(b)) | (Kind::Bundle { content: a, .. }, Kind::Bundle { content: b, .. }) => a.same_bytes(b),
            (Kind::Symlink { target: a }, Kind::Symlink { target: b }) => a == b,
            (Kind::Dir, Kind::Dir) | (Kind::Tombstone, Kind::Tombstone) => true,
            _ => false,
        }
    }

    /// Whether only metadata was written (mode, times, attributes): the bytes are an earlier version's.
    pub fn is_metadata_only(&self) -> bool {
        self.wrote != self.vclock
    }

    /// The order in which heads get the name, the same on every device: place, author's name as written, author's id,
    /// higher own counter, content; what remains only makes the order total.
    pub fn precedence(&self, other: &Version) -> Ordering {
        let counter = |v: &Version| v.vclock.get(&v.device_id);
        self.place()
            .cmp(&other.place())
            .then_with(|| (&self.device_name, &self.device_id).cmp(&(&other.device_name, &other.device_id)))
            .then_with(|| counter(other).cmp(&counter(self)))
            .then_with(|| self.content_order().cmp(&other.content_order()))
            .then_with(|| self.vclock.cmp(&other.vclock))
            .then_with(|| self.cmp(other))
    }

    fn content_order(&self) -> (u8, Hash, &str) {
        match self.kind.content() {
            Kind::Dir => (0, Hash::ZERO, ""),
            Kind::File(c) => (1, c.root, ""),
            Kind::Symlink { target } => (2, Hash::ZERO, target),
            Kind::Bundle { content, .. } => (3, content.root, ""),
            Kind::Tombstone | Kind::HeldBack { .. } => (4, Hash::ZERO, ""),
        }
    }
}

impl FileContent {
    /// Whether both are the same bytes, as far as their hashes tell.
    pub fn same_bytes(&self, other: &FileContent) -> bool {
        let both_empty = self.size == 0 && other.size == 0;
        let same_hash = matches!((&self.hash, &other.hash), (Some(a), Some(b)) if a == b);
        both_empty || self.root == other.root || same_hash
    }
}

impl Kind {
    /// The bytes it keeps in the drive: under the brake, those that were there before.
    pub fn content(&self) -> &Kind {
        match self {
            Kind::HeldBack { was, .. } => was,
            kind => kind,
        }
    }

    /// Every content that it names: under the brake, what was there and what is.
    pub fn contents(&self) -> impl Iterator<Item = &FileContent> {
        fn of(kind: &Kind) -> Option<&FileContent> {
            match kind {
                Kind::File(c) | Kind::Bundle { content: c, .. } => Some(c),
                Kind::Dir | Kind::Symlink { .. } | Kind::Tombstone | Kind::HeldBack { .. } => None,
            }
        }
        let both = match self {
            Kind::HeldBack { was, now } => [of(was), of(now)],
            kind => [of(kind), None],
        };
        both.into_iter().flatten()
    }

    /// The file type bits of `st_mode`.
    pub fn type_bits(&self) -> u32 {
        match self.content() {
            Kind::File(_) | Kind::Bundle { .. } => 0o100_000,
            Kind::Dir => 0o040_000,
            Kind::Symlink { .. } => 0o120_000,
            Kind::Tombstone | Kind::HeldBack { .. } => 0,
        }
    }
}
