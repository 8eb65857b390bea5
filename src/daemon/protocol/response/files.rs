//! Files: listed, copied in and out, brought here and let go.

use super::{EntryKind, Skipped};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where an entry's bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Residence {
    /// None here; they come when it is read.
    #[default]
    Stub,
    /// Some.
    Partial,
    /// All.
    Hydrated,
    /// All, and not published yet.
    Pending,
    /// Never leaves this machine.
    LocalOnly,
}

/// A line of `tcfs ls`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// Namespace path.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes (files and links), else 0.
    pub size: u64,
    /// `st_mode`.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Nanoseconds of `mtime`.
    #[serde(default)]
    pub mtime_ns: u32,
    /// Where the bytes are; directories: hydrated.
    pub residence: Residence,
    /// Kept here for good.
    #[serde(default)]
    pub pinned: bool,
    /// Has siblings, or is one.
    #[serde(default)]
    pub conflict: bool,
    /// Name of the device that wrote it.
    #[serde(default)]
    pub device: String,
    /// Target of a symbolic link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// Sum of `tcfs ls`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Listed {
    /// Path listed.
    pub path: String,
    /// Entries sent.
    pub entries: u64,
    /// Bytes of the files among them.
    pub bytes: u64,
    /// The store did not answer: this is what is known here.
    #[serde(default)]
    pub offline: bool,
}

/// `tcfs push`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pushed {
    /// What the source became.
    pub path: String,
    /// Regular files written.
    pub files: u64,
    /// Directories and symbolic links written.
    pub others: u64,
    /// Bytes of the files written.
    pub bytes: u64,
    /// Git repositories that had something new.
    #[serde(default)]
    pub repositories: u64,
    /// Of these, paths that did not exist before.
    pub new: u64,
    /// Paths whose content was the same already; nothing was written.
    pub same: u64,
    /// Paths that had other content.
    pub different: u64,
    /// Paths that are in conflict now.
    pub conflicts: Vec<String>,
    /// Left out.
    pub skipped: Vec<Skipped>,
    /// The store did not answer: everything is kept here and goes out later.
    pub queued: bool,
    /// Nothing was written; the numbers say what would be.
    pub dry_run: bool,
}

/// `tcfs pull`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pulled {
    /// Namespace path.
    pub path: String,
    /// What it became.
    pub destination: PathBuf,
    /// Regular files written.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Git repositories taken out.
    #[serde(default)]
    pub repositories: u64,
    /// Files that were there with the same content.
    pub same: u64,
    /// Left out.
    pub skipped: Vec<Skipped>,
    /// The store did not answer: what was known here was copied.
    pub offline: bool,
    /// Nothing was written.
    pub dry_run: bool,
}

/// `tcfs hydrate`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hydrated {
    /// Path.
    pub path: String,
    /// Files that are here whole now.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes that had to be fetched.
    pub fetched: u64,
    /// Left out (cache full, bytes missing in the store).
    pub skipped: Vec<Skipped>,
}

/// `tcfs unsync`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unsynced {
    /// Path.
    pub path: String,
    /// Files that are stubs now and were not before.
    pub files: u64,
    /// Bytes freed on the disk.
    pub bytes: u64,
    /// Kept, and why (open, pinned, not published, not verified in the store).
    pub kept: Vec<Skipped>,
}

/// `tcfs pin`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pinned {
    /// Path.
    pub path: String,
    /// Files below it now.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Of these still to be fetched; that goes on in the background while a daemon runs.
    pub missing: u64,
}

/// `tcfs unpin`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unpinned {
    /// Path.
    pub path: String,
    /// It was pinned.
    pub was_pinned: bool,
}

/// `tcfs wait`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Waited {
    /// Versions that were pending and are in the store's log now.
    pub published: u64,
    /// Versions still pending (more than 0 only after the time-out).
    pub pending: u64,
    /// Why they are, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}
