//! The daemon itself: how it is, what it has mounted, that it ends.

use super::DeviceRef;
pub use crate::store::count::OpCounts;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// `tcfs status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Process that owns the state.
    pub pid: u32,
    /// Program version.
    pub version: String,
    /// When it started.
    pub started_at: i64,
    /// It goes on when nothing is mounted.
    pub stays: bool,
    /// This machine; none before enrolment.
    pub device: Option<DeviceRef>,
    /// URL of the store, without secrets.
    pub store: String,
    /// Whether it answers.
    pub store_state: StoreState,
    /// What is mounted.
    pub mounts: Vec<MountInfo>,
    /// Local versions that are not in the store's log yet (0: everything is published).
    pub pending: u64,
    /// More about them.
    pub outbox: Outbox,
    /// The chunk cache.
    pub cache: Cache,
    /// Names that a listing of the whole drive shows: files, links, directories, siblings and local-only ones.
    pub entries: u64,
    /// Entries with more than one visible head.
    pub conflicts: u64,
    /// Paths that were deleted or emptied under the brake and wait for `tcfs approve`.
    #[serde(default)]
    pub held_back: u64,
    /// How conflicts are shown here: `auto`, `interactive` or `defer`.
    pub conflict_mode: String,
    /// Devices enrolled and not revoked.
    pub devices: u64,
    /// The event bus.
    pub nats: Nats,
    /// What is odd in the configuration, for people.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Where the state lies.
    pub state_dir: PathBuf,
    /// The log file.
    pub log: PathBuf,
    /// The socket.
    pub socket: PathBuf,
    /// The configuration file, if there is one.
    pub config_file: Option<PathBuf>,
}

/// Whether the store answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoreState {
    /// Id from its `store.json`, once it was read.
    pub id: Option<String>,
    /// The last call to it succeeded, or none was needed yet.
    pub reachable: bool,
    /// Last success.
    pub last_ok_at: Option<i64>,
    /// Last failure since then, for people.
    pub last_error: Option<String>,
    /// What it was asked since the daemon started, by call: `get`, `put`, `list`, `delete`, `head`.
    pub requests: BTreeMap<String, OpCounts>,
}

/// A mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MountInfo {
    /// Where.
    pub mountpoint: PathBuf,
    /// `fuse` or `nfs`.
    pub backend: String,
    /// Writes are refused.
    pub read_only: bool,
    /// Other users may look.
    pub allow_other: bool,
    /// Large files are read and written by the kernel directly.
    pub passthrough: bool,
    /// When it was mounted.
    pub since: i64,
    /// Served, and mounted by somebody else: with this command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// The outbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Outbox {
    /// Bytes of file content still to be uploaded (at most: known chunks are not sent again).
    pub bytes: u64,
    /// Versions being worked on right now.
    pub active: u64,
    /// A path that is on its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// When the oldest was written.
    pub oldest_at: Option<i64>,
    /// Why the last try failed, if it did.
    pub last_error: Option<String>,
    /// When the next try is due.
    pub retry_at: Option<i64>,
    /// Files open for writing with bytes that are not sealed yet.
    pub open_for_writing: u64,
}

/// The chunk cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cache {
    /// Bytes in use.
    pub bytes: u64,
    /// The cap.
    pub max_bytes: u64,
    /// Bytes that may not be evicted because they are pinned.
    pub pinned_bytes: u64,
    /// Bytes that may not be evicted because they are not published.
    pub unpublished_bytes: u64,
    /// Files all of whose bytes are here.
    pub hydrated_files: u64,
    /// Where.
    pub dir: PathBuf,
    /// Opens by programs that may not bring files here: refused, or given only what is here, or what they read.
    #[serde(default)]
    pub kept_from: KeptFrom,
}

/// How often `[hydration]` kept bytes from coming, since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeptFrom {
    /// Opens refused.
    pub denied: u64,
    /// Opens that read only what is here.
    pub cached_only: u64,
    /// Opens that bring only what they read.
    pub range_only: u64,
}

/// The event bus.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Nats {
    /// `off` (not configured), `connecting`, `connected`.
    pub state: String,
    /// Server, without secrets.
    pub url: Option<String>,
    /// Why it is not connected, for people.
    pub last_error: Option<String>,
    /// Why what is said here does not reach the hub now, where there is one.
    #[serde(default)]
    pub hub_error: Option<String>,
    /// Batches of other devices that came over it since the start, and that the store was not asked for.
    #[serde(default)]
    pub heard: u64,
}

/// `tcfs mount`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Mounted {
    /// The mount.
    #[serde(flatten)]
    pub mount: MountInfo,
    /// This machine; enrolled by this very call where `enrolled_now`.
    pub device: Option<DeviceRef>,
    /// The machine was not enrolled before.
    #[serde(default)]
    pub enrolled_now: bool,
    /// It was mounted there already; nothing was done.
    #[serde(default)]
    pub already: bool,
    /// Entries in the namespace.
    pub entries: u64,
    /// Sentences for people (a stale mount was cleaned up, only root sees this mount, …).
    #[serde(default)]
    pub notes: Vec<String>,
}

/// `tcfs unmount`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unmounted {
    /// What was unmounted.
    pub mountpoints: Vec<PathBuf>,
    /// Versions still to be published; they are kept and go out with the next mount.
    pub pending: u64,
    /// The daemon ends because nothing is mounted any more.
    pub daemon_stops: bool,
}

/// `tcfs daemon stop`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stopped {
    /// Versions still to be published; they are kept.
    pub pending: u64,
}
