//! The rows of the local database and their keys.

use crate::model::entry::Entry;
use crate::model::ops::Accepted;
use crate::model::ranges::RangeSet;
use crate::model::{FileContent, Hash, RelPath, VClock, Version};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Inode number of the root directory.
pub const ROOT: u64 = 1;

/// Seconds since 1970 and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time {
    /// Seconds.
    pub sec: i64,
    /// 0..1_000_000_000.
    pub nsec: u32,
}

impl Time {
    /// From nanoseconds since 1970.
    pub fn from_ns(ns: i64) -> Time {
        Time { sec: ns.div_euclid(1_000_000_000), nsec: ns.rem_euclid(1_000_000_000) as u32 }
    }
    /// From milliseconds since 1970.
    pub fn from_ms(ms: i64) -> Time {
        Time { sec: ms.div_euclid(1000), nsec: ms.rem_euclid(1000) as u32 * 1_000_000 }
    }
    /// In milliseconds since 1970.
    pub fn ms(self) -> i64 {
        self.sec.saturating_mul(1000).saturating_add(i64::from(self.nsec / 1_000_000))
    }
    /// As a version carries it.
    pub fn pair(self) -> (i64, u32) {
        (self.sec, self.nsec)
    }
}

impl From<(i64, u32)> for Time {
    fn from((sec, nsec): (i64, u32)) -> Time {
        Time { sec, nsec }
    }
}

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileType {
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Named pipe; local-only.
    Fifo,
    /// Socket; local-only.
    Socket,
    /// Character device; local-only.
    Char,
    /// Block device; local-only.
    Block,
}

impl FileType {
    /// Fifos, sockets and device nodes, which never leave this machine.
    pub fn is_special(self) -> bool {
        matches!(self, FileType::Fifo | FileType::Socket | FileType::Char | FileType::Block)
    }

    /// The type bits of `st_mode`.
    pub fn bits(self) -> u32 {
        match self {
            FileType::File => 0o100000,
            FileType::Dir => 0o040000,
            FileType::Symlink => 0o120000,
            FileType::Fifo => 0o010000,
            FileType::Socket => 0o140000,
            FileType::Char => 0o020000,
            FileType::Block => 0o060000,
        }
    }
}

/// One inode: what `stat` tells, where it hangs, and which version it shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inode {
    /// What it is.
    pub kind: FileType,
    /// Permission bits (07777).
    pub mode: u32,
    /// Owner, a local column.
    pub uid: u32,
    /// Group, a local column.
    pub gid: u32,
    /// Device number, for device nodes.
    pub rdev: u32,
    /// Bytes; for a symlink the length of its target.
    pub size: u64,
    /// Units of 512 bytes that its bytes take on this disk, where that is known (a file with holes takes fewer than its
    /// size). None: as many as its size needs.
    pub blocks: Option<u64>,
    /// Last access, a local column.
    pub atime: Time,
    /// Last change of content.
    pub mtime: Time,
    /// Last change of anything.
    pub ctime: Time,
    /// Birth.
    pub btime: Time,
    /// Raised when a directory's number is used again for the same path.
    pub generation: u32,
    /// Symlink target.
    pub target: String,
    /// `user.*` and other attributes kept here, values raw.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Names: (directory, name). Several for hard links; none once unlinked. A directory keeps its one (the root has
    /// none), also when it is gone.
    pub links: Vec<(u64, String)>,
    /// Directories: how many sub-directories are visible.
    pub subdirs: u32,
    /// Files: content of the version it shows, once that is cut.
    pub content: Option<FileContent>,
    /// Clock of the head it shows; empty while nothing is sealed.
    pub shows: VClock,
    /// Never published.
    pub local_only: bool,
    /// A directory that is gone; its number still holds the tombstones of its children.
    pub dead: bool,
}

/// What a name in a directory is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Slot {
    /// A path of the namespace.
    Register(Box<Register>),
    /// A head shown beside the one that has the name.
    Sibling {
        /// Its inode.
        ino: u64,
        /// Name of the register in the same directory.
        of: String,
    },
    /// A path that never leaves this machine.
    LocalOnly {
        /// Its inode.
        ino: u64,
    },
}

impl Slot {
    /// The inode a listing shows under this name; 0 for none.
    pub fn ino(&self) -> u64 {
        match self {
            Slot::Register(r) => r.ino,
            Slot::Sibling { ino, .. } | Slot::LocalOnly { ino } => *ino,
        }
    }
}

/// One path's register as it lies here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Register {
    /// Inode shown under the name; 0 for none.
    pub ino: u64,
    /// Directory number under which its children's slots lie, also after the directory is gone (their tombstones
    /// stay); 0 if it never was one. While the directory is shown, `ino == dir`.
    pub dir: u64,
    /// Id of the last directory move whose expansion this entry has been through.
    pub epoch: u64,
    /// The heads.
    pub entry: Entry,
    /// Visible siblings.
    pub sibs: Vec<Sib>,
}

impl Register {
    /// The sibling that shows the head of this clock.
    pub fn sib_of(&self, head: &VClock) -> Option<&Sib> {
        self.sibs.iter().find(|s| s.clock == *head)
    }
}

/// A visible sibling of a register.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sib {
    /// Its name in the same directory.
    pub name: String,
    /// Its inode.
    pub ino: u64,
    /// Clock of the head it shows.
    pub clock: VClock,
}

/// Bytes of a file that are on this disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Local {
    /// The file lies among the unpublished ones (`overlay/`), not in the cache.
    pub overlay: bool,
    /// Ranges of the file that are here.
    pub have: RangeSet,
    /// Ranges that differ from `Inode::content` (all of a file that was never cut).
    pub dirty: RangeSet,
    /// Counts changes of content; a cut counts only if this did not move meanwhile.
    pub wgen: u64,
    /// What the next seal replaces, and at which path that was seen; set by the first change after a seal.
    pub accept: Option<(RelPath, Accepted)>,
    /// Token and `wgen` of the last seal.
    pub token: Option<(Hash, u64)>,
    /// Boot in which the bytes were written and since which they are not known to be on the disk; 0 = they are.
    pub unsynced_boot: u64,
    /// Last read or write, seconds since 1970, coarse.
    pub used: i64,
    /// The kernel had this file itself open at some time: it may be unlinked, never changed in place for eviction.
    pub lent: bool,
    /// Whether a program synced bytes of it that are not published.
    pub promise: Promise,
}

/// What programs were told of the bytes of a file that are nowhere but here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Promise {
    /// Nobody synced them.
    #[default]
    None,
    /// They were synced: whatever comes, they are not given up for older ones.
    Kept,
    /// The disk did not take what was to be synced. The kernel tells that once and takes the pages for written from then
    /// on, so a second try that succeeds says nothing: none is made before the bytes are published or written anew.
    Broken,
}

/// A change that is sealed and not yet in this device's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sealed {
    /// Versions that go out together.
    pub versions: Vec<Version>,
    /// For versions whose bytes are not cut: token (`FileContent::root`), inode, `Local::wgen` at the seal.
    pub files: Vec<(Hash, u64, u64)>,
    /// When, milliseconds since 1970.
    pub at: i64,
    /// Boot of the seal: after a power cut, rows of an earlier boot with unsynced bytes are not published.
    pub boot: u64,
    /// Sealed as found after a crash.
    pub recovered: bool,
}

impl Sealed {
    /// Whether it has a version of `path`, or of something below it.
    pub fn concerns(&self, path: &RelPath) -> bool {
        self.versions.iter().any(|v| v.path == *path || v.path.is_below(path))
    }
}

/// A log batch whose bytes are fixed: only these are ever put under its number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// The object.
    pub body: Vec<u8>,
    /// Outbox rows that go when it is in the store.
    pub rows: Vec<u64>,
    /// Its versions, as published.
    pub versions: Vec<Version>,
}

/// How far a device's log was applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Last batch applied.
    pub seq: u64,
    /// When, milliseconds since 1970.
    pub at: i64,
}

/// A directory move that is done in the tree here and still has to be written out entry by entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DirMove {
    /// Path it had.
    pub from: RelPath,
    /// Path it has.
    pub to: RelPath,
    /// Its number.
    pub dir: u64,
    /// Number of the gone directory at the old path, which receives the tombstones.
    pub old: u64,
    /// Number of the gone directory that lay at the new path with its tombstones; 0 for none.
    pub under: u64,
}

/// Key of a slot: directory, a hash of the name (the order of listings and their cookie), name.
pub fn slot_key(dir: u64, name: &str) -> Vec<u8> {
    let mut k = Vec::with_capacity(16 + name.len());
    k.extend_from_slice(&dir.to_be_bytes());
    k.extend_from_slice(&cookie_of(name).to_be_bytes());
    k.extend_from_slice(name.as_bytes());
    k
}

/// First possible key after the cookie `after` in `dir`.
pub fn slot_after(dir: u64, after: u64) -> Vec<u8> {
    let mut k = Vec::with_capacity(16);
    k.extend_from_slice(&dir.to_be_bytes());
    k.extend_from_slice(&after.saturating_add(1).to_be_bytes());
    k
}

/// Upper end of a directory's slots.
pub fn slot_end(dir: u64) -> Vec<u8> {
    (dir + 1).to_be_bytes().to_vec()
}

/// Name within a slot key.
pub fn slot_name(key: &[u8]) -> &str {
    key.get(16..).and_then(|n| std::str::from_utf8(n).ok()).unwrap_or("")
}

/// Position of a name in listings: stable while others come and go, and over restarts. Between 16 and 2^62; two
/// names of one directory share one with a chance of about one in 10^18.
pub fn cookie_of(name: &str) -> u64 {
    let h = blake3::hash(name.as_bytes());
    let mut b = [0u8; 8];
    b.copy_from_slice(&h.as_bytes()[..8]);
    (u64::from_le_bytes(b) >> 2) | 16
}

/// Key of a chunk that a local file has: hash, inode, offset.
pub fn chunk_key(hash: &Hash, ino: u64, off: u64) -> Vec<u8> {
    let mut k = Vec::with_capacity(48);
    k.extend_from_slice(&hash.0);
    k.extend_from_slice(&ino.to_be_bytes());
    k.extend_from_slice(&off.to_be_bytes());
    k
}

/// What the keys of a path's history begin with: path, 0.
pub fn history_prefix(path: &RelPath) -> Vec<u8> {
    [path.as_str().as_bytes(), &[0]].concat()
}

/// Key of a version in the history of a path: its prefix, counter.
pub fn history_key(path: &RelPath, n: u64) -> Vec<u8> {
    let mut k = history_prefix(path);
    k.extend_from_slice(&n.to_be_bytes());
    k
}
