//! What the tools are given and what they return, where that is not what the daemon says as it is.

use crate::daemon::protocol::{Conflict, Entry, HistoryVersion, Pending};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A path in the drive.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnPath {
    /// Path in the drive, from its root, such as `notes/plan.md`.
    pub path: String,
}

/// Perhaps a path in the drive.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MaybePath {
    /// Only at and below this path in the drive. None: all of it.
    #[serde(default)]
    pub path: Option<String>,
}

/// Nothing.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// Arguments of `list`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Path in the drive; none: its root.
    #[serde(default)]
    pub path: Option<String>,
    /// Everything below, not only what is in it.
    #[serde(default)]
    pub recursive: bool,
    /// Also names that begin with a dot.
    #[serde(default)]
    pub all: bool,
    /// At most so many entries [default: 1000].
    #[serde(default)]
    pub limit: Option<usize>,
}

/// Arguments of `pin`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// Path in the drive, with all that is below it.
    pub path: String,
    /// Undo it.
    #[serde(default)]
    pub unpin: bool,
}

/// Arguments of `push`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Push {
    /// Absolute path on this machine of a file or directory to copy into the drive.
    pub source: String,
    /// Path in the drive that it becomes; with a `/` at the end, or where a directory is: below that. None: its own name in
    /// the root.
    #[serde(default)]
    pub to: Option<String>,
    /// Replace what is there even if this machine never saw it.
    #[serde(default)]
    pub force: bool,
    /// Count what would be done, write nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// Arguments of `pull`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pull {
    /// Path in the drive.
    pub path: String,
    /// Absolute path on this machine that it becomes.
    pub destination: String,
    /// Overwrite local files that differ.
    #[serde(default)]
    pub force: bool,
    /// Count what would be done, write nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// Arguments of `restore`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// Path in the drive, present or removed.
    pub path: String,
    /// Id of a version, as `history` tells it. Excludes `at`.
    #[serde(default)]
    pub version: Option<String>,
    /// As it was then: `2026-02-13T18:04:05Z`, `2h ago`, `yesterday`. With neither: the newest version that is not the present
    /// one.
    #[serde(default)]
    pub at: Option<String>,
    /// Path in the drive to restore to; none: in place.
    #[serde(default)]
    pub to: Option<String>,
}

/// What becomes of a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// This machine's version stays.
    KeepLocal,
    /// The other version stays.
    KeepRemote,
    /// Both stay, as files of their own.
    KeepBoth,
    /// Nothing is done now.
    Defer,
}

/// Arguments of `resolve_conflict`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resolve {
    /// Path in the drive of the file, or of one of its siblings.
    pub path: String,
    /// What is to be done.
    pub resolution: Resolution,
}

/// What `resolve_conflict` came to.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Resolved {
    /// It was done.
    pub success: bool,
    /// Path of the file whose conflict it was.
    pub resolved_path: Option<String>,
    /// Why it was not done.
    pub error: Option<String>,
}

/// A machine of the fleet.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Device {
    /// Name.
    pub name: String,
    /// Id.
    pub device_id: String,
    /// Its public key, base64.
    pub public_key: String,
    /// When it enrolled, milliseconds since 1970.
    pub enrolled_at: i64,
    /// Shut out.
    pub revoked: bool,
    /// Last batch of its log that is applied here; the event bus counts by the same numbers.
    pub last_nats_seq: u64,
    /// A sentence for people.
    pub description: String,
    /// It is this machine.
    pub this: bool,
    /// It listens on the event bus; none where that is not known.
    pub online: Option<bool>,
    /// When it was last heard of, milliseconds since 1970.
    pub last_seen_at: Option<i64>,
}

/// The fleet.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Devices {
    /// All that ever enrolled.
    pub devices: Vec<Device>,
    /// How many.
    pub total: u64,
    /// How many of them are not revoked.
    pub active: u64,
    /// The store did not answer: this is what is known here.
    pub offline: bool,
}

/// Where synchronisation stands.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Sync {
    /// Everything that was closed here is in the store, and nothing is in conflict.
    pub in_sync: bool,
    /// The store answers.
    pub store_reachable: bool,
    /// Why the last attempt to publish failed.
    pub last_error: Option<String>,
    /// What is not in the store yet, oldest first; of many only the first hundred.
    pub pending: Vec<Pending>,
    /// How many that are.
    pub pending_total: u64,
    /// Paths in conflict.
    pub conflicts: u64,
    /// Deletes that wait for approval.
    pub held_back: u64,
}

/// What is in conflict.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Conflicts {
    /// Each with its versions, the shown one first.
    pub conflicts: Vec<Conflict>,
    /// How many.
    pub total: u64,
    /// How conflicts are shown here: `auto`, `interactive` or `defer`.
    pub mode: String,
}

/// A listing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Listing {
    /// What was listed.
    pub path: String,
    /// Its entries.
    pub entries: Vec<Entry>,
    /// How many there are; `entries` may have fewer.
    pub total: u64,
}

/// The versions of a path.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Versions {
    /// Path.
    pub path: String,
    /// Newest first.
    pub versions: Vec<HistoryVersion>,
}

/// What `pin` came to.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Pinned {
    /// Path.
    pub path: String,
    /// It is pinned now.
    pub pinned: bool,
    /// Files below it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of these still to come.
    pub missing: u64,
}
