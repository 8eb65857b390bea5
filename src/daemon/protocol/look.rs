//! Looking: why a path is as it is, where something is, what changed when, what was removed, what the cache holds.

use super::response::{DeviceRef, EntryKind, Head, Residence};
use super::{Change, IgnoredPath};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `tcfs why`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Why {
    /// Path.
    pub path: String,
    /// What it is; removed: what is not there any more.
    pub kind: EntryKind,
    /// Bytes.
    pub size: u64,
    /// Where they are.
    pub residence: Residence,
    /// How many of them are here.
    pub here: u64,
    /// The version that is shown, or that removed it; none for what no device wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Change>,
    /// Who wrote that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceRef>,
    /// The pinned path at or above it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned_by: Option<String>,
    /// Something of it is not in the store yet.
    pub pending: bool,
    /// A program has it open for writing.
    pub open_for_writing: bool,
    /// Its visible versions, where there are several.
    #[serde(default)]
    pub conflict: Vec<Head>,
    /// The rule that keeps it on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<IgnoredPath>,
    /// Last opened to be read, since the daemon started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_read: Option<By>,
    /// Last made a stub again, since the daemon started; `by` says why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evicted: Option<By>,
    /// A program that was kept from bringing it here, since the daemon started; `rule` says by what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<By>,
    /// All of that in sentences.
    pub sentences: Vec<String>,
}

/// When, and by whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct By {
    /// Milliseconds since 1970.
    pub at: i64,
    /// Program, or reason.
    pub by: String,
    /// Rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// Arguments of [`super::Request::Find`]. All that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Find {
    /// Only below this PATH.
    #[serde(default)]
    pub path: Option<String>,
    /// Only what is in that directory itself.
    #[serde(default)]
    pub children: bool,
    /// Pattern of the name (`*`, `?`, `[…]`, `{a,b}`).
    #[serde(default)]
    pub name: Option<String>,
    /// Upper and lower case are the same in it.
    #[serde(default)]
    pub ignore_case: bool,
    /// Kind.
    #[serde(default)]
    pub kind: Option<EntryKind>,
    /// At least so many bytes.
    #[serde(default)]
    pub min_size: Option<u64>,
    /// At most so many.
    #[serde(default)]
    pub max_size: Option<u64>,
    /// Changed at or after, milliseconds since 1970.
    #[serde(default)]
    pub newer: Option<i64>,
    /// Changed before.
    #[serde(default)]
    pub older: Option<i64>,
    /// Written by this device: name.
    #[serde(default)]
    pub device: Option<String>,
    /// Where its bytes are.
    #[serde(default)]
    pub residence: Option<Residence>,
    /// In conflict.
    #[serde(default)]
    pub conflict: bool,
    /// Pinned.
    #[serde(default)]
    pub pinned: bool,
    /// At most so many; none: all.
    #[serde(default)]
    pub limit: Option<u64>,
}

/// Sum of `tcfs find`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FoundSum {
    /// Entries sent.
    pub entries: u64,
    /// There may be more.
    pub limited: bool,
}

/// Arguments of [`super::Request::Log`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogQuery {
    /// Only at and below this PATH.
    #[serde(default)]
    pub path: Option<String>,
    /// Written at or after, milliseconds since 1970.
    #[serde(default)]
    pub since: Option<i64>,
    /// Written before.
    #[serde(default)]
    pub until: Option<i64>,
    /// By this device: name or id.
    #[serde(default)]
    pub device: Option<String>,
    /// The newest so many; none: all.
    #[serde(default)]
    pub limit: Option<u64>,
}

/// A line of `tcfs log`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// What was done.
    #[serde(flatten)]
    pub change: Change,
    /// Id of the device.
    pub device_id: String,
    /// Nothing has replaced it.
    pub head: bool,
}

/// Sum of `tcfs log`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogSum {
    /// Lines sent.
    pub lines: u64,
    /// There are older ones.
    pub limited: bool,
}

/// What becomes of the trash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrashAct {
    /// It is listed.
    #[default]
    List,
    /// It is not listed any more.
    Empty,
}

/// Arguments of [`super::Request::Trash`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Trash {
    /// Only at and below this PATH.
    #[serde(default)]
    pub path: Option<String>,
    /// What is to be done.
    #[serde(default)]
    pub act: TrashAct,
}

/// A line of `tcfs trash list`: a path that was removed and can be brought back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Removed {
    /// Path.
    pub path: String,
    /// What it was.
    pub kind: EntryKind,
    /// Its bytes.
    pub size: u64,
    /// When it was removed, by the clock of who did it.
    pub removed_at: i64,
    /// Who.
    pub device: DeviceRef,
    /// The version that comes back.
    pub version: String,
}

/// Sum of `tcfs trash`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrashSum {
    /// What was done.
    pub act: TrashAct,
    /// To so many paths.
    pub paths: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Arguments of [`super::Request::CacheList`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CacheList {
    /// The largest so many files; 0: only the sum.
    #[serde(default)]
    pub top: u64,
}

/// A line of `tcfs cache --top`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cached {
    /// Path.
    pub path: String,
    /// Bytes here.
    pub here: u64,
    /// All its bytes.
    pub size: u64,
    /// When it was last used, milliseconds since 1970; 0: not known.
    pub used_at: i64,
    /// Kept here for good.
    pub pinned: bool,
}

/// Sum of `tcfs cache`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CacheSum {
    /// The cache.
    #[serde(flatten)]
    pub cache: super::response::Cache,
    /// Bytes free on its disk.
    pub disk_free: u64,
    /// Bytes on that disk.
    pub disk: u64,
    /// Free space below which it shrinks.
    pub min_free: u64,
}

/// Arguments of [`super::Request::Diff`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiffQuery {
    /// PATH, present or removed.
    pub path: String,
    /// Id of a version (a unique beginning is enough). With neither: the newest version that is not the present one.
    #[serde(default)]
    pub version: Option<String>,
    /// As it was then, milliseconds since 1970.
    #[serde(default)]
    pub at: Option<i64>,
    /// The present content of another PATH.
    #[serde(default)]
    pub other: Option<String>,
}
