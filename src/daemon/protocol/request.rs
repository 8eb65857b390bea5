//! What can be asked of the drive, whether over the socket or of a service in the same process.
//!
//! PATH fields are namespace paths, joined by `/`. One that begins with `/` is exact. One that does not is what a
//! person typed from the root of the namespace: there a leading `tcfs/default/` (the store's bucket and prefix) is
//! stripped by the service unless an entry of that name exists ([`crate::daemon::pathargs::strip_store_words`]).
//! The empty path and `/` are the root. A trailing `/` matters only where a field says so.

use super::{Adopt, CacheList, ConflictDiff, DiffQuery, Find, GitStatus, Ignore, LogQuery, ToldFile, Trash};
use crate::daemon::paths::Platform;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A request; `op` names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// What is mounted, pending, cached. Answer: [`super::Status`].
    Status,
    /// Mount the namespace. Answer: [`super::Mounted`], once the mount answers.
    Mount(Mount),
    /// Unmount. Answer: [`super::Unmounted`].
    Unmount(Unmount),
    /// Copy a local file or directory into the namespace. Answer: [`super::Pushed`].
    Push(Push),
    /// Copy out of the namespace. Answer: [`super::Pulled`].
    Pull(Pull),
    /// List. Items: [`super::Entry`]; answer: [`super::Listed`].
    Ls(Ls),
    /// Bring bytes here. Answer: [`super::Hydrated`].
    Hydrate(OnPath),
    /// Free the space of hydrated files. Answer: [`super::Unsynced`].
    Unsync(OnPath),
    /// Keep here for good, whatever is added below too. Answer: [`super::Pinned`].
    Pin(OnPath),
    /// Undo a pin. Answer: [`super::Unpinned`].
    Unpin(OnPath),
    /// Repositories. Items: [`super::GitRepo`]; answer: [`super::GitSum`].
    GitStatus(GitStatus),
    /// Which paths stay on their machine. Items when asked about paths: [`super::IgnoredPath`]; answer: [`super::Ignoring`].
    Ignore(Ignore),
    /// Wait until all that was closed before is in the store's log. Answer: [`super::Waited`].
    Wait(Wait),
    /// Versions of a path. Items: [`super::HistoryVersion`], newest first; answer: [`super::History`].
    History(HistoryOf),
    /// Make an old version the present one. Answer: [`super::Restored`].
    Restore(Restore),
    /// Paths with more than one visible head. Items: [`super::Conflict`]; answer: [`super::Conflicts`].
    Conflicts(ListConflicts),
    /// How two versions of a path in conflict differ. Answer: [`super::Diff`].
    ConflictDiff(ConflictDiff),
    /// End a conflict. Answer: [`super::Resolved`].
    ResolveConflict(ResolveConflict),
    /// Deletes under the brake: list them, or let them count, here and everywhere, or take them back. Items when listing:
    /// [`super::HeldBack`]; answer: [`super::Approved`].
    Approve(Approve),
    /// The fleet, after asking the store where it answers. Items: [`super::Device`]; answer: [`super::Devices`].
    DeviceList,
    /// Give this machine an identity. Answer: [`super::Enrolled`].
    DeviceEnroll(DeviceEnroll),
    /// Rename this machine. Answer: [`super::Enrolled`].
    DeviceRename(DeviceRename),
    /// Shut a device out. Answer: [`super::Revoked`].
    DeviceRevoke(DeviceRevoke),
    /// The checks that only the owner of the state can do: store, clock, cache, state. Items: [`super::Check`];
    /// answer: [`super::Checked`].
    Doctor,
    /// Where the store is and which one. Answer: [`super::StoreInfo`].
    StoreShow,
    /// Copy everything to another store and switch to it. Answer: [`super::StoreMoved`].
    StoreMove(StoreMove),
    /// Copy everything to another place, and stay. Answer: [`super::StoreMoved`].
    StoreCopy(StoreMove),
    /// Take over a bucket in the older layout. Items: [`super::AdoptedPath`]; answer: [`super::AdoptSum`].
    Adopt(Adopt),
    /// What is not in the store yet. Items: [`super::Pending`], oldest first; answer: [`super::PendingSum`].
    Pending,
    /// A file of the control directory. Answer: [`super::ToldText`].
    Told(ToldFile),
    /// Why a path is as it is. Answer: [`super::Why`].
    Why(OnPath),
    /// Entries by name and more. Items: [`super::Entry`]; answer: [`super::FoundSum`].
    Find(Find),
    /// What changed where, newest first. Items: [`super::LogLine`]; answer: [`super::LogSum`].
    Log(LogQuery),
    /// What was removed. Items when listing: [`super::Removed`]; answer: [`super::TrashSum`].
    Trash(Trash),
    /// What the cache holds. Items: [`super::Cached`], largest first; answer: [`super::CacheSum`].
    CacheList(CacheList),
    /// How a path differs from what it was, or from another one. Answer: [`super::Diff`].
    Diff(DiffQuery),
    /// What happens, as it happens, until the client goes away. Items: [`super::Activity`]; answer: [`super::Followed`].
    Follow,
    /// Collect garbage. Answer: [`super::Collected`].
    Gc(Gc),
    /// Go on when nothing is mounted. Answer: [`super::Status`].
    Stay,
    /// Seal and keep everything, unmount, end the daemon. Answer: [`super::Stopped`].
    Stop,
}

impl Request {
    /// The stable name, as on the wire and in log fields.
    pub fn op(&self) -> &'static str {
        match self {
            Request::Status => "status",
            Request::Mount(_) => "mount",
            Request::Unmount(_) => "unmount",
            Request::Push(_) => "push",
            Request::Pull(_) => "pull",
            Request::Ls(_) => "ls",
            Request::Hydrate(_) => "hydrate",
            Request::Unsync(_) => "unsync",
            Request::Pin(_) => "pin",
            Request::Unpin(_) => "unpin",
            Request::GitStatus(_) => "git_status",
            Request::Ignore(_) => "ignore",
            Request::Wait(_) => "wait",
            Request::History(_) => "history",
            Request::Restore(_) => "restore",
            Request::Conflicts(_) => "conflicts",
            Request::ConflictDiff(_) => "conflict_diff",
            Request::ResolveConflict(_) => "resolve_conflict",
            Request::Approve(_) => "approve",
            Request::DeviceList => "device_list",
            Request::DeviceEnroll(_) => "device_enroll",
            Request::DeviceRename(_) => "device_rename",
            Request::DeviceRevoke(_) => "device_revoke",
            Request::Doctor => "doctor",
            Request::StoreShow => "store_show",
            Request::StoreMove(_) => "store_move",
            Request::StoreCopy(_) => "store_copy",
            Request::Adopt(_) => "adopt",
            Request::Pending => "pending",
            Request::Told(_) => "told",
            Request::Why(_) => "why",
            Request::Find(_) => "find",
            Request::Log(_) => "log",
            Request::Trash(_) => "trash",
            Request::CacheList(_) => "cache_list",
            Request::Diff(_) => "diff",
            Request::Follow => "follow",
            Request::Gc(_) => "gc",
            Request::Stay => "stay",
            Request::Stop => "stop",
        }
    }
}

/// How the kernel is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// FUSE on Linux, NFS on macOS.
    #[default]
    Auto,
    /// FUSE.
    Fuse,
    /// An NFSv3 server on the loopback and the system's own client.
    Nfs,
}

impl Backend {
    /// Whether it is NFS on this system.
    pub fn is_nfs(self) -> bool {
        self == Backend::Nfs || self == Backend::Auto && Platform::here() == Platform::MacOs
    }
}

/// Arguments of [`Request::Mount`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Mount {
    /// Absolute; made if it does not exist.
    pub mountpoint: PathBuf,
    /// Other users may look, as far as modes let them.
    #[serde(default)]
    pub allow_other: bool,
    /// Refuse all writes through this mount.
    #[serde(default)]
    pub read_only: bool,
    /// Never let the kernel read and write local files itself.
    #[serde(default)]
    pub no_passthrough: bool,
    /// How.
    #[serde(default)]
    pub backend: Backend,
    /// With NFS: serve only; somebody else mounts it.
    #[serde(default)]
    pub no_mount: bool,
}

/// Arguments of [`Request::Unmount`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unmount {
    /// Absolute; none: every mount of this daemon.
    #[serde(default)]
    pub mountpoint: Option<PathBuf>,
    /// Also while programs use it: they get errors. Never waits for them.
    #[serde(default)]
    pub force: bool,
}

/// Arguments of [`Request::Push`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Push {
    /// Absolute local path of a file, symbolic link or directory.
    pub source: PathBuf,
    /// PATH to become. None: the source's name in the root. With a trailing `/`, or where a directory is: below it,
    /// under the source's name.
    #[serde(default)]
    pub to: Option<String>,
    /// Replace what is there even if this device never saw it.
    #[serde(default)]
    pub force: bool,
    /// Count new, same and different, write nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// Arguments of [`Request::Pull`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pull {
    /// PATH to copy.
    pub path: String,
    /// Absolute local path.
    pub destination: PathBuf,
    /// `destination` is a directory to put it into under its own name (and is made if need be); otherwise
    /// `destination` is what it becomes.
    #[serde(default)]
    pub into: bool,
    /// Overwrite local files that differ; otherwise they are left and named.
    #[serde(default)]
    pub force: bool,
    /// Count, write nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Only what is on this machine: the store is asked for nothing, and files whose bytes it would take are named.
    #[serde(default)]
    pub here: bool,
}

/// Arguments of [`Request::Ls`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ls {
    /// PATH; a file lists itself.
    #[serde(default)]
    pub path: String,
    /// Everything below, parents before children.
    #[serde(default)]
    pub recursive: bool,
    /// Also names that begin with a dot.
    #[serde(default)]
    pub all: bool,
}

/// A request on one path and what is below it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OnPath {
    /// PATH.
    pub path: String,
}

/// Arguments of [`Request::History`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryOf {
    /// PATH, present or removed.
    pub path: String,
    /// Also the versions that it had under the names it was moved from.
    #[serde(default)]
    pub follow: bool,
}

/// Arguments of [`Request::Wait`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Wait {
    /// Only this PATH and below; none: everything.
    #[serde(default)]
    pub path: Option<String>,
    /// Give up after so many milliseconds; none: never.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// Arguments of [`Request::Restore`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Restore {
    /// PATH, present or removed.
    pub path: String,
    /// Id of a version as `history` shows it (a unique beginning is enough). Excludes `at`.
    #[serde(default)]
    pub version: Option<String>,
    /// As it was then, milliseconds since 1970. With neither: the newest version that is not the present one.
    #[serde(default)]
    pub at: Option<i64>,
    /// PATH to restore to; none: in place.
    #[serde(default)]
    pub to: Option<String>,
}

/// Arguments of [`Request::Conflicts`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListConflicts {
    /// Only this PATH and below.
    #[serde(default)]
    pub path: Option<String>,
    /// In `defer` mode: from now on show (true) or hide (false) siblings in the mount.
    #[serde(default)]
    pub show_siblings: Option<bool>,
}

/// Which head stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// This device's own head, else the shown one.
    Local,
    /// The first other visible head.
    Remote,
    /// All: each sibling becomes an ordinary file of its name.
    Both,
    /// The head that goes by this device's name or id.
    Device(String),
}

/// Arguments of [`Request::ResolveConflict`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResolveConflict {
    /// PATH of the entry or of one of its siblings.
    pub path: String,
    /// What stays; the others are covered and remain in history.
    pub keep: Keep,
}

/// What becomes of deletes under the brake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BrakeAct {
    /// Nothing: they are listed.
    #[default]
    List,
    /// They count, on every machine.
    Approve,
    /// What was deleted is there again, on the machine that deleted it too.
    TakeBack,
}

/// Arguments of [`Request::Approve`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Approve {
    /// Only this PATH and below.
    #[serde(default)]
    pub path: Option<String>,
    /// Only the deletes of this device: name or id.
    #[serde(default)]
    pub device: Option<String>,
    /// What is to be done.
    #[serde(default)]
    pub act: BrakeAct,
}

/// Arguments of [`Request::DeviceEnroll`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceEnroll {
    /// Wanted name; none: from the configuration, else the host name.
    #[serde(default)]
    pub name: Option<String>,
    /// Revoke the device that has the name and take it.
    #[serde(default)]
    pub replace: bool,
}

/// Arguments of [`Request::DeviceRename`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceRename {
    /// New name of this machine.
    pub name: String,
}

/// Arguments of [`Request::DeviceRevoke`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceRevoke {
    /// Name or id.
    pub device: String,
}

/// Arguments of [`Request::Gc`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gc {
    /// Look only.
    #[serde(default)]
    pub dry_run: bool,
}

/// Arguments of [`Request::StoreMove`] and [`Request::StoreCopy`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoreMove {
    /// URL of the new store: `file:///…` or `s3://bucket/prefix`.
    pub url: String,
}
