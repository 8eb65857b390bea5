//! Versions of a path: its history, and those in conflict.

use super::super::request::Keep;
use super::{DeviceRef, EntryKind};
use serde::{Deserialize, Serialize};

/// A line of `tcfs history`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryVersion {
    /// Id to give to `restore --version`; hex.
    pub version: String,
    /// Path it was written under.
    pub path: String,
    /// What it made of the path.
    pub kind: EntryKind,
    /// Bytes.
    pub size: u64,
    /// `st_mode`.
    pub mode: u32,
    /// By its author's clock.
    pub written_at: i64,
    /// Author.
    pub device: DeviceRef,
    /// It is what the path shows now.
    pub current: bool,
    /// No other version covers it (more than one: a conflict).
    pub head: bool,
    /// It is in the store's log.
    pub published: bool,
    /// Where the content went, for a move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_to: Option<String>,
    /// Root hash of the content, for files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// Found unsealed after a crash.
    #[serde(default)]
    pub recovered: bool,
}

/// Sum of `tcfs history`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Path.
    pub path: String,
    /// Versions sent.
    pub versions: u64,
}

/// `tcfs restore`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Path written.
    pub path: String,
    /// Version whose content it has now.
    pub version: String,
    /// When that was written.
    pub written_at: i64,
    /// Files restored (more than one for a directory).
    pub files: u64,
}

/// One head of a conflict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Path in the mount: the entry's own or the sibling's.
    pub path: String,
    /// It is what the entry's path shows here.
    pub shown: bool,
    /// It is this device's own.
    pub own: bool,
    /// Whose name it goes by.
    pub place: DeviceRef,
    /// Who wrote it.
    pub device: DeviceRef,
    /// By its author's clock.
    pub written_at: i64,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes.
    pub size: u64,
    /// Id, as in `history`.
    pub version: String,
}

/// A line of `tcfs conflicts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// Path of the entry.
    pub path: String,
    /// Its visible heads, the shown one first.
    pub heads: Vec<Head>,
}

/// Sum of `tcfs conflicts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflicts {
    /// Entries in conflict.
    pub conflicts: u64,
    /// `auto`, `interactive` or `defer`.
    pub mode: String,
    /// Siblings are shown in the mount.
    pub siblings_shown: bool,
}

/// `tcfs resolve-conflict`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// Path.
    pub path: String,
    /// What was asked for.
    pub kept: Keep,
    /// Files that exist now: the entry, and with `both` the former siblings.
    pub paths: Vec<String>,
    /// Conflicts left in the namespace at or below the path.
    pub conflicts_left: u64,
}
