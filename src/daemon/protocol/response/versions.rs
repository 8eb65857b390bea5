//! Versions of a path: its history, and those in conflict.

use super::super::request::{BrakeAct, Keep};
use super::{DeviceRef, EntryKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A line of `tcfs history`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// A delete that only its author sees until it is approved.
    #[serde(default)]
    pub held_back: bool,
}

/// Sum of `tcfs history`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct History {
    /// Path.
    pub path: String,
    /// Versions sent.
    pub versions: u64,
}

/// `tcfs restore`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Conflict {
    /// Path of the entry.
    pub path: String,
    /// Its visible heads, the shown one first.
    pub heads: Vec<Head>,
    /// Commands that end it, the first ones with nothing but the mount.
    #[serde(default)]
    pub resolve: Vec<String>,
}

/// A line of `tcfs conflicts`: a file that was written on one machine and moved away on another. Both stand, under two
/// names; nothing has to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Parted {
    /// Where it was written.
    pub path: String,
    /// Where it was moved.
    pub moved_to: String,
    /// By whom.
    pub device: DeviceRef,
    /// When, by that machine's clock.
    pub written_at: i64,
}

/// Sum of `tcfs conflicts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Conflicts {
    /// Entries in conflict.
    pub conflicts: u64,
    /// `auto`, `interactive` or `defer`.
    pub mode: String,
    /// Siblings are shown in the mount.
    pub siblings_shown: bool,
    /// Files written on one machine and moved away on another ([`Parted`]); no conflicts.
    #[serde(default)]
    pub parted: u64,
}

/// `tcfs resolve-conflict`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// A line of `tcfs approve --list`: a path that was deleted or emptied under the brake.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HeldBack {
    /// Path.
    pub path: String,
    /// What was there, and is for everybody but the device that deleted it.
    pub kind: EntryKind,
    /// Its bytes.
    pub size: u64,
    /// It was not removed, but lost all its bytes.
    pub emptied: bool,
    /// Who deleted it.
    pub device: DeviceRef,
    /// When, by that machine's clock.
    pub written_at: i64,
    /// It was this machine.
    pub own: bool,
}

/// `tcfs approve`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Approved {
    /// What was done.
    pub act: BrakeAct,
    /// To so many paths; listed or passed.
    pub paths: u64,
    /// Paths that are under the brake now.
    pub left: u64,
}
