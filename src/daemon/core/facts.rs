//! What the files of the control directory say (`vfs::control`).
//!
//! Must: each is what `tcfs … --json` prints of the same thing, made by the same functions. Must: nothing here asks the
//! network.

use super::Core;
use super::activity::events_file;
use super::conflicts::conflict;
use super::paths::{kind_of_version, size_of_version};
use crate::daemon::protocol::{Item, Pending, PendingSum, Response, Status, ToldFile, ToldText};
use crate::daemon::service::Progress;
use crate::error::{Error, IoContext, Kind, Result};
use crate::state::Tree;
use crate::state::rows::Sealed;
use crate::vfs::{Fact, Facts, Told};
use serde::Serialize;
use std::fmt::Write;
use std::sync::Weak;

/// Versions of the outbox that `pending.json` lists.
const PENDING: usize = 10_000;

/// Bytes of a log that are told at a time.
const END: u64 = 64 << 10;

/// The core as the drive asks it.
pub(super) struct OfCore(pub Weak<Core>);

impl Facts for OfCore {
    fn tell(&self, of: Fact) -> Result<Option<Told>> {
        self.0.upgrade().map(|core| core.tell_now(of)).transpose()
    }
}

/// Whole lines at the end of a file; nothing if there is none.
fn end_of(path: &std::path::Path) -> Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let doing = || format!("reading {}", path.display());
    let file = match std::fs::File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.doing(doing)?,
    };
    let size = file.metadata().doing(doing)?.len();
    let from = size.saturating_sub(END);
    let mut buf = vec![0; (size - from) as usize];
    file.read_exact_at(&mut buf, from).doing(doing)?;
    if from > 0 {
        let line = buf.iter().position(|b| *b == b'\n').map_or(0, |i| i + 1);
        buf.drain(..line);
    }
    Ok(buf)
}

/// For people too: one field a line.
fn json<T: Serialize>(what: &T) -> Result<Vec<u8>> {
    let mut out = serde_json::to_vec_pretty(what).map_err(|e| Error::new(Kind::Internal, "writing JSON").source(e))?;
    out.push(b'\n');
    Ok(out)
}

impl Core {
    fn tell_now(&self, of: Fact) -> Result<Told> {
        Ok(match of {
            Fact::Status => Told::Text(json(&self.status_now()?)?),
            Fact::Devices => Told::Text(json(&self.devices_now()?)?),
            Fact::Conflicts => {
                let (me, shown) = (&self.fleet.me().id, self.vfs.siblings_shown());
                let all: Vec<_> = self.vfs.conflicts()?.iter().map(|c| conflict(c, me, shown)).collect();
                Told::Text(json(&all)?)
            }
            Fact::Pending => Told::Text(json(&self.pending_now()?)?),
            Fact::Metrics => Told::Text(metrics(&self.status_now()?).into_bytes()),
            Fact::Events => Told::File(events_file(&self.config.dirs.state)),
            Fact::Log => Told::File(self.config.dirs.log()),
        })
    }

    /// What a file of the control directory says; of a log the end.
    pub(super) async fn told(&self, request: ToldFile) -> Result<Response> {
        let this = self.shared()?;
        super::blocking(move || {
            let known = Fact::ALL.iter().find(|(_, name)| *name == request.name);
            let missing = || Error::new(Kind::NotFound, format!("the control directory has no file {:?}", request.name));
            let bytes = match this.tell_now(known.ok_or_else(missing)?.0)? {
                Told::Text(t) => t,
                Told::File(path) => end_of(&path)?,
            };
            Ok(Response::Told(ToldText { text: String::from_utf8_lossy(&bytes).into_owned() }))
        })
        .await
    }

    pub(super) async fn pending(&self, progress: &Progress) -> Result<Response> {
        let this = self.shared()?;
        let all = super::blocking(move || this.pending_now()).await?;
        let pending = all.len() as u64;
        for p in all {
            progress.item(Item::Pending(p)).await?;
        }
        Ok(Response::Pending(PendingSum { pending }))
    }

    /// What is not in the store's log yet, oldest first.
    pub(super) fn pending_now(&self) -> Result<Vec<Pending>> {
        let rows: Vec<(u64, Sealed)> = self.replica.read(|r| r.scan_int(Tree::Outbox, 0, u64::MAX, PENDING))?;
        let sealed = rows.iter().flat_map(|(_, s)| s.versions.iter().map(move |v| (s, v)));
        let sealed = sealed.map(|(s, v)| Pending {
            path: v.path.as_str().to_owned(),
            kind: kind_of_version(v),
            size: size_of_version(v),
            since: s.at,
            open: false,
            recovered: s.recovered,
        });
        let open = self.vfs.unsealed_paths()?.into_iter().map(|(path, size, open)| Pending {
            path: path.as_str().to_owned(),
            size,
            since: self.clock.now_ms(),
            open,
            ..Pending::default()
        });
        Ok(sealed.chain(open).take(PENDING).collect())
    }
}

/// Prometheus' text format, version 0.0.4: <https://prometheus.io/docs/instrumenting/exposition_formats/>.
fn metrics(s: &Status) -> String {
    let mut out = String::new();
    let mut put = |name: &str, kind: &str, help: &str, values: &[(&str, f64)]| {
        let _ = writeln!(out, "# HELP tcfs_{name} {help}\n# TYPE tcfs_{name} {kind}");
        for (labels, v) in values {
            let _ = writeln!(out, "tcfs_{name}{labels} {v}");
        }
    };
    let is = |b: bool| if b { 1.0 } else { 0.0 };
    let info = format!("{{version={:?},device={:?}}}", s.version, s.device.as_ref().map_or("", |d| &d.name));
    put("info", "gauge", "Which program and machine this is.", &[(&info, 1.0)]);
    put("start_time_seconds", "gauge", "When the daemon started, seconds since 1970.", &[("", s.started_at as f64 / 1000.0)]);
    put("entries", "gauge", "Names that a listing of the whole drive shows.", &[("", s.entries as f64)]);
    put("pending_versions", "gauge", "Local versions that are not in the store's log yet.", &[("", s.pending as f64)]);
    put("pending_bytes", "gauge", "Bytes of file content still to be uploaded.", &[("", s.outbox.bytes as f64)]);
    let oldest = s.outbox.oldest_at.map_or(0.0, |t| t as f64 / 1000.0);
    put("pending_oldest_time_seconds", "gauge", "When the oldest of them was written; 0: none waits.", &[("", oldest)]);
    put("open_for_writing", "gauge", "Files open for writing with bytes that are not sealed.", &[("", s.outbox.open_for_writing as f64)]);
    put("conflicts", "gauge", "Paths with more than one visible version.", &[("", s.conflicts as f64)]);
    put("held_back", "gauge", "Deletes that wait for approval.", &[("", s.held_back as f64)]);
    put("devices", "gauge", "Devices enrolled and not revoked.", &[("", s.devices as f64)]);
    put("store_reachable", "gauge", "Whether the store answers.", &[("", is(s.store_state.reachable))]);
    put("bus_connected", "gauge", "Whether the event bus is connected.", &[("", is(s.nats.state == "connected"))]);
    put("bus_batches_total", "counter", "Batches that came over the event bus.", &[("", s.nats.heard as f64)]);
    put("cache_bytes", "gauge", "Bytes of published content here.", &[("", s.cache.bytes as f64)]);
    put("cache_max_bytes", "gauge", "Cap on them.", &[("", s.cache.max_bytes as f64)]);
    put("cache_pinned_bytes", "gauge", "Bytes of them that are pinned.", &[("", s.cache.pinned_bytes as f64)]);
    put("cache_files", "gauge", "Files with bytes here.", &[("", s.cache.hydrated_files as f64)]);
    put("mounts", "gauge", "Mounts of the drive.", &[("", s.mounts.len() as f64)]);
    let label = |what: &str| format!("{{op={what:?}}}");
    let ops: Vec<(String, &crate::store::count::OpCounts)> = s.store_state.requests.iter().map(|(k, v)| (label(k), v)).collect();
    let asked: Vec<(&str, f64)> = ops.iter().map(|(l, c)| (l.as_str(), c.requests as f64)).collect();
    put("store_requests_total", "counter", "Requests to the store.", &asked);
    let bytes: Vec<(&str, f64)> = ops.iter().map(|(l, c)| (l.as_str(), c.bytes as f64)).collect();
    put("store_bytes_total", "counter", "Bytes of their bodies.", &bytes);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_one_that_a_scraper_reads() {
        let text = metrics(&Status { pending: 3, ..Status::default() });
        assert!(text.contains("\ntcfs_pending_versions 3\n"), "{text}");
        for block in text.split("# HELP ").skip(1) {
            let name = block.split(' ').next().unwrap();
            let mut lines = block.lines().skip(1);
            let kind = lines.next().unwrap();
            assert!(kind == format!("# TYPE {name} gauge") || kind == format!("# TYPE {name} counter"), "{kind}");
            for line in lines {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(series.starts_with(name) && value.parse::<f64>().is_ok(), "{line}");
            }
        }
    }
}
