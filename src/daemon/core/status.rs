//! `status` and `wait`.

use super::{Core, blocking};
use crate::daemon::protocol::{Cache, DeviceRef, KeptFrom, Nats, Outbox, Response, Status, StoreState, Wait, Waited};
use crate::daemon::service::Service;
use crate::error::{Kind, Result};
use crate::model::RelPath;
use crate::state::Tree;
use crate::state::rows::Sealed;
use crate::store::count::Op;
use std::time::{Duration, Instant};

/// Without a time-out, `wait` waits this long at a time and looks again.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

impl Core {
    pub(super) async fn status(&self) -> Result<Response> {
        let this = self.shared()?;
        blocking(move || this.status_now().map(Response::Status)).await
    }

    /// Blocking on the local state only.
    pub(super) fn status_now(&self) -> Result<Status> {
        let (vfs, replica) = (&self.vfs, &self.replica);
        let oldest = replica.read(|r| r.scan_int::<Sealed>(Tree::Outbox, 0, u64::MAX, 1))?.first().map(|(_, s)| s.at);
        let publish = self.fleet.publish_status()?;
        let follow = self.fleet.follow_status();
        let unsealed = vfs.unsealed_files();
        let me = self.fleet.me();
        let config = &self.config;
        Ok(Status {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            store: config.store.to_string(),
            mounts: self.mounts(),
            conflict_mode: config.conflict_mode.as_str().to_owned(),
            state_dir: config.dirs.state.clone(),
            log: config.dirs.log(),
            socket: config.socket(),
            config_file: config.file.clone(),
            device: Some(DeviceRef { id: me.id.clone(), name: me.name.clone() }),
            store_state: StoreState {
                id: replica.read(crate::fleet::facts::store_id)?,
                reachable: self.fleet.is_online(),
                last_ok_at: follow.caught_up_at,
                last_error: follow.last_error.or(publish.last_error.clone()),
                requests: Op::ALL.into_iter().map(|op| (op.name().to_owned(), self.counts.of(op))).collect(),
            },
            pending: publish.pending + unsealed.closed,
            outbox: Outbox {
                bytes: publish.bytes,
                active: publish.active.max(u64::from(publish.current.is_some())),
                current: publish.current,
                oldest_at: oldest,
                last_error: publish.last_error,
                retry_at: None,
                open_for_writing: unsealed.open,
            },
            cache: self.cache_now(publish.bytes),
            entries: replica.read(crate::state::tree::names)?,
            conflicts: vfs.conflict_count()?,
            held_back: vfs.under_brake_count()?,
            // This machine counts before the registry was ever read.
            devices: super::device::count(replica)?.max(1),
            nats: self.bus_state(),
            warnings: config.warnings(),
            // The process around the core knows.
            stays: false,
        })
    }

    /// `unpublished`: bytes that wait in the outbox.
    pub(super) fn cache_now(&self, unpublished: u64) -> Cache {
        let (cache, kept) = (self.vfs.cache_use(), self.vfs.refusals());
        Cache {
            bytes: cache.bytes,
            max_bytes: cache.max_bytes,
            pinned_bytes: self.pinner.bytes(),
            unpublished_bytes: unpublished,
            hydrated_files: cache.files,
            dir: self.config.cache.dir.clone(),
            kept_from: KeptFrom { denied: kept.denied, cached_only: kept.cached_only, range_only: kept.range_only },
        }
    }

    fn bus_state(&self) -> Nats {
        match self.fleet.bus_status() {
            None => Nats { state: "off".to_owned(), ..Nats::default() },
            Some(b) => {
                let state = if b.connected { "connected" } else { "connecting" };
                let heard = self.fleet.heard_batches();
                Nats { state: state.to_owned(), url: Some(b.url), last_error: b.last_error, hub_error: b.hub_error, heard }
            }
        }
    }

    /// Waits until everything that was closed before is in this device's log; with a path, what was at that file or
    /// below that directory. A removed file counts: its removal is waited for.
    pub(super) async fn wait(&self, request: Wait) -> Result<Response> {
        // Twice: what was done in a repository while its bundle was on its way is in the next.
        for _ in 0..2 {
            if !self.git.look(true).await {
                break;
            }
            self.wait_published(request.clone()).await?;
        }
        self.wait_published(request).await
    }

    async fn wait_published(&self, request: Wait) -> Result<Response> {
        let typed = request.path.as_deref().map(|p| self.path(p)).transpose()?.filter(|p| !p.is_root());
        let (vfs, replica) = (self.vfs.clone(), self.replica.clone());
        let (upto, only) = blocking(move || {
            vfs.seal_closed()?;
            vfs.drain_moves()?;
            let only = typed.map(|p| vfs.entry_of(&p)).transpose()?;
            if let Some(path) = &only {
                let (entry, old) = vfs.versions(path)?;
                if entry.heads.is_empty() && old.is_empty() {
                    vfs.must_exist(path)?;
                }
            }
            Ok((replica.next_id(), only))
        })
        .await?;
        let before = self.pending_upto(upto, only.as_ref()).await?;
        let until = Instant::now() + request.timeout_ms.map_or(FOR_EVER, Duration::from_millis).min(FOR_EVER);
        if before > 0 {
            // Nothing is ever published to another store than our own: that is no reason to wait.
            self.is_offline(until.saturating_duration_since(Instant::now())).await?;
        }
        self.fleet.wake();
        let patience = until.saturating_duration_since(Instant::now());
        match self.fleet.wait_published_at(upto, only.as_ref(), patience).await {
            Ok(()) => Ok(Response::Waited(Waited { published: before, pending: 0, why: None })),
            Err(e) if e.kind() == Kind::Timeout => {
                let left = self.pending_upto(upto, only.as_ref()).await?;
                let why = e.hint_text().map(str::to_owned).or_else(|| Some(e.to_string()));
                Ok(Response::Waited(Waited { published: before.saturating_sub(left), pending: left, why }))
            }
            Err(e) => Err(e),
        }
    }

    async fn pending_upto(&self, upto: u64, only: Option<&RelPath>) -> Result<u64> {
        let (replica, only) = (self.replica.clone(), only.cloned());
        blocking(move || {
            let rows: Vec<(u64, Sealed)> = replica.read(|r| r.scan_int(Tree::Outbox, 0, upto.saturating_add(1), 50_000))?;
            let rows = rows.iter().filter(|(_, s)| only.as_ref().is_none_or(|p| s.concerns(p)));
            Ok(rows.map(|(_, s)| s.versions.len() as u64).sum())
        })
        .await
    }
}
