//! The tools, one method each.

use super::answers::{self as a, Resolution};
use super::resources::{list, read};
use super::{Drive, result, unexpected};
use crate::daemon::protocol as p;
use crate::daemon::protocol::{Item, Request, Response};
use crate::error::{Error, Kind, Result};
use crate::human;
use rmcp::handler::server::tool::schema_for_type;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{
    CallToolResult, Implementation, ListResourcesResult, PaginatedRequestParams, ReadResourceRequestParams, ReadResourceResponse,
    ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler, tool, tool_handler, tool_router};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Entries that `list` returns unless it is asked for another number.
const ENTRIES: usize = 1000;
/// Pending entries that `sync_status` returns.
const PENDING: usize = 100;

/// The server.
#[derive(Clone, Debug)]
pub(super) struct Tools {
    drive: Drive,
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// An absolute path on this machine.
fn local(what: &str, path: &str) -> Result<PathBuf> {
    let path = PathBuf::from(path);
    if path.is_absolute() {
        return Ok(path);
    }
    Err(Error::new(Kind::Usage, format!("{what}: {} is not absolute", path.display())).hint("give the whole path, from /"))
}

#[tool_router]
impl Tools {
    pub(super) fn new(socket: PathBuf) -> Tools {
        Tools { drive: Drive { socket } }
    }

    /// State of the drive on this machine: mounts, store, event bus, what is pending, cache, conflicts.
    #[tool(annotations(title = "State of the drive", read_only_hint = true, open_world_hint = false), output_schema = schema_for_type::<p::Status>())]
    async fn daemon_status(&self, Parameters(_): Parameters<a::Nothing>) -> CallToolResult {
        result(match self.drive.ask(Request::Status).await {
            Ok((_, Response::Status(s))) => Ok(s),
            Ok((_, other)) => Err(unexpected(&other)),
            Err(e) => Err(e),
        })
    }

    /// The machines of the fleet: names, ids, keys, when each was last heard of, which are revoked.
    #[tool(annotations(title = "Machines of the fleet", read_only_hint = true, open_world_hint = false), output_schema = schema_for_type::<a::Devices>())]
    async fn device_status(&self, Parameters(_): Parameters<a::Nothing>) -> CallToolResult {
        result(self.devices().await)
    }

    /// Whether everything that was saved here is in the store, and what is not yet.
    #[tool(annotations(title = "What is pending", read_only_hint = true, open_world_hint = false), output_schema = schema_for_type::<a::Sync>())]
    async fn sync_status(&self, Parameters(on): Parameters<a::MaybePath>) -> CallToolResult {
        result(self.sync(on.path).await)
    }

    /// Files that were changed on several machines at once, each with its versions.
    #[tool(annotations(title = "Conflicts", read_only_hint = true, open_world_hint = false), output_schema = schema_for_type::<a::Conflicts>())]
    async fn list_conflicts(&self, Parameters(on): Parameters<a::MaybePath>) -> CallToolResult {
        result(self.conflicts(on.path).await)
    }

    /// End a conflict. The versions that are not kept stay in history and can be restored.
    #[tool(annotations(title = "Resolve a conflict", read_only_hint = false, destructive_hint = true, idempotent_hint = false, open_world_hint = false), output_schema = schema_for_type::<a::Resolved>())]
    async fn resolve_conflict(&self, Parameters(r): Parameters<a::Resolve>) -> CallToolResult {
        result(Ok(self.resolve(r).await))
    }

    /// Bring the bytes of a file, or of everything below a directory, to this machine.
    #[tool(annotations(title = "Bring files here", read_only_hint = false, destructive_hint = false, idempotent_hint = true, open_world_hint = false), output_schema = schema_for_type::<p::Hydrated>())]
    async fn hydrate(&self, Parameters(on): Parameters<a::OnPath>) -> CallToolResult {
        result(match self.drive.ask(Request::Hydrate(p::OnPath { path: on.path })).await {
            Ok((_, Response::Hydrated(h))) => Ok(h),
            Ok((_, other)) => Err(unexpected(&other)),
            Err(e) => Err(e),
        })
    }

    /// Free the space of files on this machine. What is not safely in the store, open or pinned is kept, and said. The bytes
    /// come again when a file is read.
    #[tool(annotations(title = "Free space", read_only_hint = false, destructive_hint = false, idempotent_hint = true, open_world_hint = false), output_schema = schema_for_type::<p::Unsynced>())]
    async fn unsync(&self, Parameters(on): Parameters<a::OnPath>) -> CallToolResult {
        result(match self.drive.ask(Request::Unsync(p::OnPath { path: on.path })).await {
            Ok((_, Response::Unsynced(u))) => Ok(u),
            Ok((_, other)) => Err(unexpected(&other)),
            Err(e) => Err(e),
        })
    }

    /// Keep a path and all below it on this machine for good, or no longer.
    #[tool(annotations(title = "Pin", read_only_hint = false, destructive_hint = false, idempotent_hint = true, open_world_hint = false), output_schema = schema_for_type::<a::Pinned>())]
    async fn pin(&self, Parameters(pin): Parameters<a::Pin>) -> CallToolResult {
        let on = p::OnPath { path: pin.path };
        let request = if pin.unpin { Request::Unpin(on) } else { Request::Pin(on) };
        result(match self.drive.ask(request).await {
            Ok((_, Response::Pinned(d))) => {
                Ok(a::Pinned { path: d.path, pinned: true, files: d.files, bytes: d.bytes, missing: d.missing })
            }
            Ok((_, Response::Unpinned(d))) => Ok(a::Pinned { path: d.path, pinned: false, files: 0, bytes: 0, missing: 0 }),
            Ok((_, other)) => Err(unexpected(&other)),
            Err(e) => Err(e),
        })
    }

    /// Copy a file or directory of this machine into the drive, for all machines.
    #[tool(annotations(title = "Copy into the drive", read_only_hint = false, destructive_hint = true, idempotent_hint = true, open_world_hint = false), output_schema = schema_for_type::<p::Pushed>())]
    async fn push(&self, Parameters(push): Parameters<a::Push>) -> CallToolResult {
        let done = async {
            let source = local("source", &push.source)?;
            let request = p::Push { source, to: push.to, force: push.force, dry_run: push.dry_run };
            match self.drive.ask(Request::Push(request)).await? {
                (_, Response::Pushed(d)) => Ok(d),
                (_, other) => Err(unexpected(&other)),
            }
        };
        result(done.await)
    }

    /// Copy a file or directory of the drive to a place on this machine.
    #[tool(annotations(title = "Copy out of the drive", read_only_hint = false, destructive_hint = true, idempotent_hint = true, open_world_hint = false), output_schema = schema_for_type::<p::Pulled>())]
    async fn pull(&self, Parameters(pull): Parameters<a::Pull>) -> CallToolResult {
        let done = async {
            let destination = local("destination", &pull.destination)?;
            let request = p::Pull { path: pull.path, destination, into: false, force: pull.force, dry_run: pull.dry_run, here: false };
            match self.drive.ask(Request::Pull(request)).await? {
                (_, Response::Pulled(d)) => Ok(d),
                (_, other) => Err(unexpected(&other)),
            }
        };
        result(done.await)
    }

    /// The versions of a path, newest first, removed ones included.
    #[tool(annotations(title = "Versions of a path", read_only_hint = true, open_world_hint = false), output_schema = schema_for_type::<a::Versions>())]
    async fn history(&self, Parameters(on): Parameters<a::OnPath>) -> CallToolResult {
        result(match self.drive.ask(Request::History(p::HistoryOf { path: on.path, follow: false })).await {
            Ok((items, Response::History(h))) => {
                let versions = items.into_iter().filter_map(|i| if let Item::Version(v) = i { Some(v) } else { None }).collect();
                Ok(a::Versions { path: h.path, versions })
            }
            Ok((_, other)) => Err(unexpected(&other)),
            Err(e) => Err(e),
        })
    }

    /// Make an old version of a path the present one, or bring a removed one back. The present one stays in history.
    #[tool(annotations(title = "Restore", read_only_hint = false, destructive_hint = true, idempotent_hint = true, open_world_hint = false), output_schema = schema_for_type::<p::Restored>())]
    async fn restore(&self, Parameters(r): Parameters<a::Restore>) -> CallToolResult {
        let done = async {
            let (now, zone) = (now(), human::zone_at(now()));
            let at = r.at.as_deref().map(|t| human::parse(t, now, zone)).transpose();
            let at = at.map_err(|why| Error::new(Kind::Usage, format!("at: {why}")))?;
            match self.drive.ask(Request::Restore(p::Restore { path: r.path, version: r.version, at, to: r.to })).await? {
                (_, Response::Restored(d)) => Ok(d),
                (_, other) => Err(unexpected(&other)),
            }
        };
        result(done.await)
    }

    /// Why a path is as it is: who wrote it, where its bytes are, what is pending, what conflicts, which rule keeps it here.
    #[tool(annotations(title = "Why a path is as it is", read_only_hint = true, open_world_hint = false), output_schema = schema_for_type::<p::Why>())]
    async fn why(&self, Parameters(on): Parameters<a::OnPath>) -> CallToolResult {
        result(match self.drive.ask(Request::Why(p::OnPath { path: on.path })).await {
            Ok((_, Response::Why(w))) => Ok(w),
            Ok((_, other)) => Err(unexpected(&other)),
            Err(e) => Err(e),
        })
    }

    /// Files of the drive with sizes, times, who wrote them and where their bytes are.
    #[tool(annotations(title = "List files", read_only_hint = true, open_world_hint = false), output_schema = schema_for_type::<a::Listing>())]
    async fn list(&self, Parameters(l): Parameters<a::List>) -> CallToolResult {
        let request = p::Ls { path: l.path.unwrap_or_else(|| "/".to_owned()), recursive: l.recursive, all: l.all };
        result(match self.drive.ask(Request::Ls(request)).await {
            Ok((items, Response::Listed(sum))) => {
                let entries = items.into_iter().filter_map(|i| if let Item::Entry(e) = i { Some(e) } else { None });
                Ok(a::Listing { path: sum.path, total: sum.entries, entries: entries.take(l.limit.unwrap_or(ENTRIES)).collect() })
            }
            Ok((_, other)) => Err(unexpected(&other)),
            Err(e) => Err(e),
        })
    }
}

impl Tools {
    async fn devices(&self) -> Result<a::Devices> {
        let (items, answer) = self.drive.ask(Request::DeviceList).await?;
        let Response::Devices(sum) = answer else { return Err(unexpected(&answer)) };
        let now = now();
        let devices: Vec<a::Device> = items
            .into_iter()
            .filter_map(|i| if let Item::Device(d) = i { Some(d) } else { None })
            .map(|d| {
                let seen = d.last_seen_at.map_or("never heard of".to_owned(), |t| format!("heard of {} ago", human::span(now - t)));
                let what = match (d.this, d.revoked, d.online) {
                    (_, true, _) => "revoked".to_owned(),
                    (true, ..) => "this machine".to_owned(),
                    (_, _, Some(true)) => "online".to_owned(),
                    _ => seen,
                };
                a::Device {
                    description: format!("{}: {what}", d.name),
                    name: d.name,
                    device_id: d.id,
                    public_key: d.public_key,
                    enrolled_at: d.enrolled_at,
                    revoked: d.revoked,
                    last_nats_seq: d.applied,
                    this: d.this,
                    online: d.online,
                    last_seen_at: d.last_seen_at,
                }
            })
            .collect();
        let active = devices.iter().filter(|d| !d.revoked).count() as u64;
        Ok(a::Devices { total: devices.len() as u64, active, devices, offline: sum.offline })
    }

    async fn sync(&self, path: Option<String>) -> Result<a::Sync> {
        let (_, answer) = self.drive.ask(Request::Status).await?;
        let Response::Status(s) = answer else { return Err(unexpected(&answer)) };
        let below = path.as_deref().unwrap_or("").trim_matches('/').to_owned();
        let inside = |p: &str| below.is_empty() || p.strip_prefix(&below).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let (items, _) = self.drive.ask(Request::Pending).await?;
        let all = items.into_iter().filter_map(|i| if let Item::Pending(p) = i { Some(p) } else { None });
        let mut pending: Vec<p::Pending> = all.filter(|p| inside(&p.path)).collect();
        let pending_total = pending.len() as u64;
        pending.truncate(PENDING);
        let conflicts = if below.is_empty() { s.conflicts } else { self.conflicts(path).await?.total };
        Ok(a::Sync {
            in_sync: pending_total == 0 && conflicts == 0,
            store_reachable: s.store_state.reachable,
            last_error: s.outbox.last_error,
            pending,
            pending_total,
            conflicts,
            held_back: s.held_back,
        })
    }

    async fn conflicts(&self, path: Option<String>) -> Result<a::Conflicts> {
        let (items, answer) = self.drive.ask(Request::Conflicts(p::ListConflicts { path, show_siblings: None })).await?;
        let Response::Conflicts(sum) = answer else { return Err(unexpected(&answer)) };
        let conflicts: Vec<p::Conflict> =
            items.into_iter().filter_map(|i| if let Item::Conflict(c) = i { Some(c) } else { None }).collect();
        Ok(a::Conflicts { total: sum.conflicts, mode: sum.mode, conflicts })
    }

    async fn resolve(&self, r: a::Resolve) -> a::Resolved {
        let keep = match r.resolution {
            Resolution::KeepLocal => p::Keep::Local,
            Resolution::KeepRemote => p::Keep::Remote,
            Resolution::KeepBoth => p::Keep::Both,
            Resolution::Defer => return a::Resolved { success: true, resolved_path: Some(r.path), error: None },
        };
        let failed = |e: &Error| {
            let hint = e.hint_text().map_or(String::new(), |h| format!(" ({h})"));
            a::Resolved { success: false, resolved_path: None, error: Some(format!("{e}{hint}")) }
        };
        match self.drive.ask(Request::ResolveConflict(p::ResolveConflict { path: r.path, keep })).await {
            Ok((_, Response::Resolved(d))) => a::Resolved { success: true, resolved_path: Some(d.path), error: None },
            Ok((_, other)) => failed(&unexpected(&other)),
            Err(e) => failed(&e),
        }
    }
}

#[tool_handler]
impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        let can = ServerCapabilities::builder().enable_tools().enable_resources().build();
        ServerConfig::new(can).with_server_info(Implementation::new("tcfs", env!("CARGO_PKG_VERSION"))).with_instructions(
            "tcfs is a drive that several machines share: every file is listed everywhere, bytes come when they are read. \
             Paths count from the root of the drive. If two machines changed one file, both versions stand side by side until \
             resolve_conflict or a delete decides. Nothing that was replaced or removed is lost: history and restore have it.",
        )
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(list())
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        read(&self.drive, &request.uri).await
    }
}
