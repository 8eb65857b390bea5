//! What comes back: these structs are the wire format and, field for field, the output of `--json`.
//!
//! Units: sizes in bytes, times in milliseconds since 1970 (`*_at`) unless a field says otherwise, hashes as hex.
//! Long lists come as [`Item`]s, one line each, while they are found; the [`Response`] then only sums them up.

use super::request::Keep;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The end of a request that was done; `type` names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// To `wait`.
    Waited(Waited),
    /// To `history`.
    History(History),
    /// To `restore`.
    Restored(Restored),
    /// To `conflicts`.
    Conflicts(Conflicts),
    /// To `resolve_conflict`.
    Resolved(Resolved),
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
            Response::Waited(r) => part(r.pending > 0),
            Response::Checked(r) => u8::from(r.failed > 0),
            Response::Resolved(r) => part(r.conflicts_left > 0),
            Response::Status(_) | Response::Mounted(_) | Response::Unmounted(_) | Response::Listed(_) => 0,
            Response::Pinned(_) | Response::Unpinned(_) | Response::History(_) | Response::Restored(_) => 0,
            Response::Conflicts(_) | Response::Devices(_) | Response::Enrolled(_) | Response::Revoked(_) => 0,
            Response::Store(_) | Response::StoreMoved(_) | Response::Stopped(_) => 0,
        }
    }
}

/// One element of a long list; `type` names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Item {
    /// Of `ls`.
    Entry(Entry),
    /// Of `history`.
    Version(HistoryVersion),
    /// Of `conflicts`.
    Conflict(Conflict),
    /// Of `device_list`.
    Device(Device),
    /// Of `doctor`.
    Check(Check),
}

/// How far a long request is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Files, or entries of any kind.
    Files,
}

/// Something that was left out, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Namespace path, or local path where it never got there.
    pub path: String,
    /// Sentence for people.
    pub why: String,
}

/// `tcfs status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// How conflicts are shown here: `auto`, `interactive` or `defer`.
    pub conflict_mode: String,
    /// Devices enrolled and not revoked.
    pub devices: u64,
    /// The event bus.
    pub nats: Nats,
    /// Where the state lies.
    pub state_dir: PathBuf,
    /// The log file.
    pub log: PathBuf,
    /// The socket.
    pub socket: PathBuf,
    /// The configuration file, if there is one.
    pub config_file: Option<PathBuf>,
}

/// A device by id and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRef {
    /// `<name at enrolment>-<8 hex>`.
    pub id: String,
    /// Present name.
    pub name: String,
}

/// Whether the store answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreState {
    /// Id from its `store.json`, once it was read.
    pub id: Option<String>,
    /// The last call to it succeeded, or none was needed yet.
    pub reachable: bool,
    /// Last success.
    pub last_ok_at: Option<i64>,
    /// Last failure since then, for people.
    pub last_error: Option<String>,
}

/// A mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// The outbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outbox {
    /// Bytes of file content still to be uploaded (at most: known chunks are not sent again).
    pub bytes: u64,
    /// Versions being worked on right now.
    pub active: u64,
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// The event bus.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmounted {
    /// What was unmounted.
    pub mountpoints: Vec<PathBuf>,
    /// Versions still to be published; they are kept and go out with the next mount.
    pub pending: u64,
    /// The daemon ends because nothing is mounted any more.
    pub daemon_stops: bool,
}

/// `tcfs push`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    /// What the source became.
    pub path: String,
    /// Regular files written.
    pub files: u64,
    /// Directories and symbolic links written.
    pub others: u64,
    /// Bytes of the files written.
    pub bytes: u64,
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulled {
    /// Namespace path.
    pub path: String,
    /// What it became.
    pub destination: PathBuf,
    /// Regular files written.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Files that were there with the same content.
    pub same: u64,
    /// Left out.
    pub skipped: Vec<Skipped>,
    /// The store did not answer: what was known here was copied.
    pub offline: bool,
    /// Nothing was written.
    pub dry_run: bool,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// Where an entry's bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// `tcfs hydrate`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpinned {
    /// Path.
    pub path: String,
    /// It was pinned.
    pub was_pinned: bool,
}

/// `tcfs wait`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waited {
    /// Versions that were pending and are in the store's log now.
    pub published: u64,
    /// Versions still pending (more than 0 only after the time-out).
    pub pending: u64,
    /// Why they are, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

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

/// A line of `tcfs device list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Id.
    pub id: String,
    /// Name as shown (with a suffix where two devices chose one while apart).
    pub name: String,
    /// It is this machine.
    pub this: bool,
    /// When it enrolled, by its clock.
    pub enrolled_at: i64,
    /// When it last renewed its lease or published, as far as known.
    pub last_seen_at: Option<i64>,
    /// Whether it listens on the event bus now; none where that was not heard (or there is no bus).
    #[serde(default)]
    pub online: Option<bool>,
    /// Batches in its log that are applied here.
    pub applied: u64,
    /// Shut out.
    pub revoked: bool,
    /// Its public key, base64.
    #[serde(default)]
    pub public_key: String,
}

/// Sum of `tcfs device list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    /// Devices sent.
    pub devices: u64,
    /// The store did not answer: this is what is known here.
    #[serde(default)]
    pub offline: bool,
}

/// `tcfs device enroll` and `rename`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// This machine.
    pub device: DeviceRef,
    /// It was enrolled before.
    pub already: bool,
    /// Device that lost the name to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<DeviceRef>,
    /// Sentences for people (the wanted name was taken, the store did not answer, …).
    #[serde(default)]
    pub notes: Vec<String>,
}

/// `tcfs device revoke`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// The device.
    pub device: DeviceRef,
    /// Last batch of its log that counts.
    pub revoked_after: u64,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    #[default]
    Ok,
    /// Works, but somebody should look.
    Warn,
    /// Does not work.
    Fail,
}

/// A line of `tcfs doctor`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Stable name: `kernel`, `helper`, `config`, `socket`, `store`, `clock`, `cache`, `state`, `disk`, `records`,
    /// `names`, `outbox`, `logs`, `mount`.
    pub name: String,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found, for people.
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Check {
    /// A check that came out well.
    pub fn ok(name: &str, detail: impl Into<String>) -> Check {
        Check { name: name.to_owned(), verdict: Verdict::Ok, detail: detail.into(), hint: None }
    }
    /// A check that somebody should look at.
    pub fn warn(name: &str, detail: impl Into<String>, hint: impl Into<String>) -> Check {
        Check { name: name.to_owned(), verdict: Verdict::Warn, detail: detail.into(), hint: Some(hint.into()) }
    }
    /// A check that failed.
    pub fn fail(name: &str, detail: impl Into<String>, hint: impl Into<String>) -> Check {
        Check { name: name.to_owned(), verdict: Verdict::Fail, detail: detail.into(), hint: Some(hint.into()) }
    }
}

/// Sum of `tcfs doctor`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Checks that came out well.
    pub ok: u64,
    /// Checks that warn.
    pub warned: u64,
    /// Checks that failed.
    pub failed: u64,
}

impl Checked {
    /// Counts one more.
    pub fn add(&mut self, v: Verdict) {
        match v {
            Verdict::Ok => self.ok += 1,
            Verdict::Warn => self.warned += 1,
            Verdict::Fail => self.failed += 1,
        }
    }
}

/// `tcfs store show`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreInfo {
    /// URL without secrets.
    pub url: String,
    /// Id from its `store.json`.
    pub id: Option<String>,
    /// Format number.
    pub format: Option<u32>,
    /// When it was created.
    pub created_at: Option<i64>,
    /// Whether it answers.
    pub reachable: bool,
}

/// `tcfs store move`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreMoved {
    /// From.
    pub from: String,
    /// To.
    pub to: String,
    /// Objects copied.
    pub objects: u64,
    /// Bytes copied.
    pub bytes: u64,
    /// Objects that were there already.
    pub present: u64,
}

/// `tcfs daemon stop`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// Versions still to be published; they are kept.
    pub pending: u64,
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
