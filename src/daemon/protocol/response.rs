//! What comes back: these structs are the wire format and, field for field, the output of `--json`.
//!
//! Units: sizes in bytes, times in milliseconds since 1970 (`*_at`) unless a field says otherwise, hashes as hex.
//! Long lists come as [`Item`]s, one line each, while they are found; the [`Response`] then only sums them up.

mod checks;
mod files;
mod fleet;
mod status;
mod versions;

pub use checks::*;
pub use files::*;
pub use fleet::*;
pub use status::*;
pub use versions::*;

use super::{
    Activity, AdoptSum, AdoptedPath, CacheSum, Cached, Diff, Followed, FoundSum, GitRepo, GitSum, IgnoredPath, Ignoring, LogLine, LogSum,
    Pending, PendingSum, Removed, ToldText, TrashSum, Why,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The end of a request that was done; `type` names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)] // one at a time, at the end of a request; never kept in numbers
pub enum Response {
    /// To `status`.
    Status(Status),
    /// To `mount`.
    Mounted(Mounted),
    /// To `unmount`.
    Unmounted(Unmounted),
    /// To `push`.
    Pushed(Pushed),
    /// To `pull`.
    Pulled(Pulled),
    /// To `ls`.
    Listed(Listed),
    /// To `hydrate`.
    Hydrated(Hydrated),
    /// To `unsync`.
    Unsynced(Unsynced),
    /// To `pin`.
    Pinned(Pinned),
    /// To `unpin`.
    Unpinned(Unpinned),
    /// To `git_status`.
    Git(GitSum),
    /// To `ignore`.
    Ignoring(Ignoring),
    /// To `wait`.
    Waited(Waited),
    /// To `history`.
    History(History),
    /// To `restore`.
    Restored(Restored),
    /// To `conflicts`.
    Conflicts(Conflicts),
    /// To `conflict_diff` and `diff`.
    Diff(Diff),
    /// To `resolve_conflict`.
    Resolved(Resolved),
    /// To `approve`.
    Approved(Approved),
    /// To `device_list`.
    Devices(Devices),
    /// To `device_enroll` and `device_rename`.
    Enrolled(Enrolled),
    /// To `device_revoke`.
    Revoked(Revoked),
    /// To `doctor`.
    Checked(Checked),
    /// To `store_show`.
    Store(StoreInfo),
    /// To `store_move`.
    StoreMoved(StoreMoved),
    /// To `store_copy`.
    StoreCopied(StoreMoved),
    /// To `adopt`.
    Adopted(AdoptSum),
    /// To `pending`.
    Pending(PendingSum),
    /// To `told`.
    Told(ToldText),
    /// To `why`.
    Why(Why),
    /// To `find`.
    Found(FoundSum),
    /// To `log`.
    Logged(LogSum),
    /// To `trash`.
    Trash(TrashSum),
    /// To `cache_list`.
    Cache(CacheSum),
    /// To `follow`.
    Followed(Followed),
    /// To `gc`.
    Collected(Collected),
    /// To `stop`.
    Stopped(Stopped),
}

impl Response {
    /// The exit code it means: 0, or 3 where something is left over (conflicts, skipped, queued), or 1 for failed checks.
    pub fn exit_code(&self) -> u8 {
        let part = |yes: bool| if yes { 3 } else { 0 };
        match self {
            Response::Pushed(r) => part(r.queued || !r.conflicts.is_empty() || !r.skipped.is_empty()),
            Response::Pulled(r) => part(!r.skipped.is_empty()),
            Response::Hydrated(r) => part(!r.skipped.is_empty()),
            Response::Unsynced(r) => part(!r.kept.is_empty()),
            Response::Ignoring(r) => part(r.not_ignored > 0),
            Response::Waited(r) => part(r.pending > 0),
            Response::Checked(r) => u8::from(r.failed > 0),
            Response::Adopted(r) => part(r.is_part()),
            Response::Collected(r) => part(r.held.objects > 0),
            Response::Resolved(r) => part(r.conflicts_left > 0),
            Response::Status(_) | Response::Mounted(_) | Response::Unmounted(_) | Response::Listed(_) => 0,
            Response::Git(_) | Response::Pinned(_) | Response::Unpinned(_) | Response::History(_) | Response::Restored(_) => 0,
            Response::Conflicts(_) | Response::Devices(_) | Response::Enrolled(_) | Response::Revoked(_) => 0,
            Response::Why(_)
            | Response::Pending(_)
            | Response::Told(_)
            | Response::Found(_)
            | Response::Logged(_)
            | Response::Trash(_)
            | Response::Cache(_)
            | Response::Followed(_) => 0,
            Response::Approved(_)
            | Response::Diff(_)
            | Response::Store(_)
            | Response::StoreMoved(_)
            | Response::StoreCopied(_)
            | Response::Stopped(_) => 0,
        }
    }
}

/// One element of a long list; `type` names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Item {
    /// Of `ls` and `find`.
    Entry(Entry),
    /// Of `history`.
    Version(HistoryVersion),
    /// Of `conflicts`.
    Conflict(Conflict),
    /// Of `conflicts`.
    Parted(Parted),
    /// Of `approve`.
    HeldBack(HeldBack),
    /// Of `device_list`.
    Device(Device),
    /// Of `doctor`.
    Check(Check),
    /// Of `adopt`.
    Adopted(AdoptedPath),
    /// Of `ignore`.
    Ignored(IgnoredPath),
    /// Of `pending`.
    Pending(Pending),
    /// Of `log`.
    Change(LogLine),
    /// Of `trash`.
    Removed(Removed),
    /// Of `cache_list`.
    Cached(Cached),
    /// Of `follow`.
    Activity(Activity),
    /// Of `git_status`.
    Repository(GitRepo),
}

/// How far a long request is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProgressLine {
    /// Verb of the phase, for people: `reading`, `uploading`, `fetching`, `waiting`.
    pub what: String,
    /// Done so far, in `unit`.
    pub done: u64,
    /// Of so many, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Unit of `done` and `total`.
    pub unit: Unit,
    /// What is being worked on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Unit of a [`ProgressLine`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Files, or entries of any kind.
    Files,
}

/// Something that was left out, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Skipped {
    /// Namespace path, or local path where it never got there.
    pub path: String,
    /// Sentence for people.
    pub why: String,
}

/// A device by id and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceRef {
    /// `<name at enrolment>-<8 hex>`.
    pub id: String,
    /// Present name.
    pub name: String,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A regular file.
    #[default]
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A git repository carried as one unit.
    Bundle,
    /// Removed (in `history` only).
    Removed,
    /// A fifo, socket or device node of this machine.
    Special,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_carries_the_promised_fields() {
        let json = serde_json::to_value(Response::Status(Status::default())).unwrap();
        for field in ["pid", "device", "store", "mounts", "pending", "cache", "conflicts", "nats"] {
            assert!(json.get(field).is_some(), "{field} in {json}");
        }
        assert_eq!(json["type"], "status");
    }

    #[test]
    fn what_is_left_over_is_exit_code_three() {
        assert_eq!(Response::Pushed(Pushed::default()).exit_code(), 0);
        assert_eq!(Response::Pushed(Pushed { queued: true, ..Pushed::default() }).exit_code(), 3);
        assert_eq!(Response::Pushed(Pushed { conflicts: vec!["a".into()], ..Pushed::default() }).exit_code(), 3);
        assert_eq!(Response::Waited(Waited { pending: 1, ..Waited::default() }).exit_code(), 3);
        assert_eq!(Response::Checked(Checked { failed: 1, ..Checked::default() }).exit_code(), 1);
        assert_eq!(Response::Checked(Checked { warned: 1, ..Checked::default() }).exit_code(), 0);
    }

    #[test]
    fn a_flattened_mount_comes_back() {
        let m = Mounted { mount: MountInfo { mountpoint: "/m".into(), since: 7, ..MountInfo::default() }, ..Mounted::default() };
        let json = serde_json::to_string(&Response::Mounted(m.clone())).unwrap();
        assert!(json.contains(r#""mountpoint":"/m""#), "{json}");
        assert_eq!(serde_json::from_str::<Response>(&json).unwrap(), Response::Mounted(m));
    }
}
