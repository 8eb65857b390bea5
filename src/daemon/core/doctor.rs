//! `doctor`: the checks that only the owner of the state can do.
//!
//! Not here: what each finding means in general (`daemon::doctor`), kernel, helper and socket (the command line).

use super::{Core, blocking};
use crate::daemon::doctor;
use crate::daemon::protocol::{Check, Checked, Holder, Item, Response};
use crate::daemon::service::Progress;
use crate::error::Result;
use crate::fleet::facts;
use crate::state::rows::{Slot, slot_name};
use crate::state::{Replica, Scan, Tree, prefix_end};
use crate::vfs::{Together, Vfs};
use std::collections::HashMap;
use std::time::Duration;

/// A device that has not said for so long what it needs is told of.
const AWAY: Duration = Duration::from_secs(7 * 24 * 3600);
/// Names that differ in case only: so many are told.
const PAIRS: usize = 10;
/// Rows read at a time.
const PAGE: usize = 4096;

impl Core {
    pub(super) async fn doctor(&self, progress: &Progress) -> Result<Response> {
        let mut sum = Checked::default();
        let (id, last) = self.replica.read(|r| Ok((facts::store_id(r)?, facts::store_place(r)?)))?;
        let known = id.as_deref().map(|id| (id, last.as_deref()));
        let mut checks = doctor::store(&*self.store, &self.keys, known, &*self.clock).await;
        let cache = self.vfs.cache_use();
        let dir = self.config.cache.dir.clone();
        let (free, total) = rustix::fs::statvfs(&dir).map_or((0, 0), |s| (s.f_bavail * s.f_frsize, s.f_blocks * s.f_frsize));
        checks.push(doctor::cache(&dir, cache.bytes, cache.max_bytes, free, total));
        let (replica, vfs, state_dir) = (self.replica.clone(), self.vfs.clone(), self.config.dirs.state.clone());
        checks.extend(
            blocking(move || {
                let mut out = vec![state(&replica, &state_dir)?, disk(&state_dir)];
                out.extend([records(&replica)?, names(&replica, &vfs)?, databases(&vfs)?, brake(&vfs)?]);
                Ok(out)
            })
            .await?,
        );
        checks.push(self.outbox().await?);
        checks.push(self.logs());
        checks.push(self.bus().await);
        checks.extend(self.garbage().await);
        for c in checks {
            sum.add(c.verdict);
            progress.item(Item::Check(c)).await?;
        }
        Ok(Response::Checked(sum))
    }

    async fn outbox(&self) -> Result<Check> {
        let fleet = self.fleet.clone();
        let status = blocking(move || fleet.publish_status()).await?;
        Ok(match (&status.last_error, status.pending) {
            (None, 0) => Check::ok("outbox", "everything is published"),
            (None, n) => Check::ok("outbox", format!("{n} changes are on their way")),
            (Some(e), n) => Check::warn("outbox", format!("{n} changes wait: {e}"), "nothing is lost; it is tried again for ever"),
        })
    }

    /// The event bus takes what is said; who is there.
    async fn bus(&self) -> Check {
        let without = "nothing is lost: changes of other devices are found in the store, after `poll_interval` at the latest";
        let Some(status) = self.fleet.bus_status() else {
            return Check::ok("bus", format!("there is none (nats_url is not set); {without}"));
        };
        match (self.fleet.try_bus().await, status.hub_error) {
            (Err(e), _) => {
                let hint =
                    format!("{without}; it is tried again for ever. Is the server running, with JetStream, and may this machine use it?");
                Check::warn("bus", format!("{}: {e}", status.url), hint)
            }
            (Ok(_), Some(e)) => Check::warn("bus", format!("{}: {e}", status.url), format!("devices elsewhere hear later; {without}")),
            (Ok(took), None) => {
                let others = self.fleet.presence().values().filter(|p| p.online).count();
                Check::ok("bus", format!("{} took an event in {} ms; other devices there: {others}", status.url, took.as_millis()))
            }
        }
    }

    /// Devices that hold garbage collection back; nothing where the store does not answer, which another check tells.
    async fn garbage(&self) -> Option<Check> {
        let holders = self.fleet.gc_holders(AWAY).await.ok()?;
        let holders = self.holders(holders).await.ok()?;
        if holders.is_empty() {
            return Some(Check::ok("gc", "no device holds garbage collection back"));
        }
        let days = |h: &Holder| match h.lease_at {
            Some(at) => format!("{} ({} days)", h.device.name, (self.clock.now_ms() - at) / (24 * 3600 * 1000)),
            None => format!("{} (never here)", h.device.name),
        };
        let names: Vec<String> = holders.iter().map(days).collect();
        Some(Check::warn(
            "gc",
            format!("garbage is not collected while these were away: {}", names.join(", ")),
            "start tcfs there; a device that will not come back: tcfs device revoke NAME",
        ))
    }

    /// Logs of other devices that cannot be read on.
    fn logs(&self) -> Check {
        let status = self.fleet.follow_status();
        match (status.problems.first(), status.last_error) {
            (Some(first), _) => Check::warn(
                "logs",
                format!("{} of other devices: {first}", status.problems.len()),
                "what that device wrote afterwards is not seen here; is the store complete?",
            ),
            (None, Some(e)) => Check::warn("logs", format!("the changes of other devices are not seen at the moment: {e}"), "see `store`"),
            (None, None) => Check::ok("logs", "the logs of all devices are read to their ends"),
        }
    }
}

/// The database and its journal.
fn state(replica: &Replica, dir: &std::path::Path) -> Result<Check> {
    replica.db().commit()?;
    let problems = replica.db().integrity()?;
    let journal: u64 =
        std::fs::read_dir(dir.join("journal")).map_or(0, |d| d.filter_map(|e| e.ok()?.metadata().ok()).map(|m| m.len()).sum());
    let names = replica.read(crate::state::tree::names)?;
    let detail = format!("{names} entries; the journal has {:.1} MiB; {}", journal as f64 / (1 << 20) as f64, dir.display());
    Ok(match problems.first() {
        None => Check::ok("state", detail),
        Some(p) => Check::fail(
            "state",
            format!("the database is damaged: {p} ({} problems); {}", problems.len(), dir.display()),
            "everything published is in the store: with another --state-dir this machine starts afresh; keep this one until that is done",
        ),
    })
}

/// Room where unpublished bytes go.
fn disk(dir: &std::path::Path) -> Check {
    const LOW: u64 = 512 << 20;
    match rustix::fs::statvfs(dir) {
        Ok(s) if s.f_bavail * s.f_frsize < LOW => Check::warn(
            "disk",
            format!("{} MiB are free for what is written to the drive, on the disk of {}", (s.f_bavail * s.f_frsize) >> 20, dir.display()),
            "make room there: what does not fit is refused when it is written",
        ),
        Ok(s) => {
            Check::ok("disk", format!("{:.1} GiB are free for what is written", (s.f_bavail * s.f_frsize) as f64 / (1u64 << 30) as f64))
        }
        Err(e) => Check::warn("disk", format!("{}: {e}", dir.display()), "is the disk there?"),
    }
}

/// Records of a later tcfs.
fn records(replica: &Replica) -> Result<Check> {
    Ok(match replica.read(|r| r.count(Tree::Parked))? {
        0 => Check::ok("records", "every record of the fleet is understood"),
        n => Check::warn("records", format!("{n} records were written by a newer tcfs and wait"), "upgrade tcfs on this machine"),
    })
}

/// Deletes that nobody has approved.
fn brake(vfs: &Vfs) -> Result<Check> {
    Ok(match vfs.under_brake_count()? {
        0 => Check::ok("brake", "no deletes are held back"),
        n => Check::warn(
            "brake",
            format!("{n} deletes are held back, because they were many at once"),
            "`tcfs approve --list` shows them; `tcfs approve` lets them count, `tcfs approve --undo` takes them back",
        ),
    })
}

/// Databases that programs work with.
fn databases(vfs: &Vfs) -> Result<Check> {
    let all = vfs.together()?;
    if all.is_empty() {
        return Ok(Check::ok("databases", "no file has a journal or a lock beside it"));
    }
    let one = |t: &Together| format!("{} with {}{}", t.path, t.companions.join(", "), if t.waits { " (waiting)" } else { "" });
    let shown: Vec<String> = all.iter().take(PAIRS).map(one).collect();
    Ok(Check::ok(
        "databases",
        format!("{} published together with what lies beside, 10 s after the last write: {}", all.len(), shown.join("; ")),
    ))
}

/// Names in one directory that a case-insensitive client cannot tell apart.
fn names(replica: &Replica, vfs: &Vfs) -> Result<Check> {
    let mut pairs: Vec<(u64, String, String)> = Vec::new();
    let (mut dir, mut seen): (u64, HashMap<String, String>) = (0, HashMap::new());
    let (mut from, end) = (Vec::new(), prefix_end(&[]));
    let mut count = 0usize;
    loop {
        let (mut rows, mut last) = (0, Vec::new());
        replica.read(|r| {
            r.scan(Tree::Entry, Scan::From(&from, &end), PAGE, |k, s: Slot| {
                rows += 1;
                last = k.to_vec();
                let of = k.get(..8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes);
                if of != dir {
                    dir = of;
                    seen.clear();
                }
                if s.ino() != 0 {
                    let name = slot_name(k);
                    if let Some(other) = seen.insert(name.to_lowercase(), name.to_owned()) {
                        count += 1;
                        if pairs.len() < PAIRS {
                            pairs.push((dir, other, name.to_owned()));
                        }
                    }
                }
                Ok(())
            })
        })?;
        if rows < PAGE {
            break;
        }
        last.push(0);
        from = last;
    }
    if count == 0 {
        return Ok(Check::ok("names", "no two names of a directory differ in case only"));
    }
    let shown: Vec<String> = pairs
        .iter()
        .map(|(dir, a, b)| match vfs.path_of(*dir) {
            Ok(p) => format!("{} and {}", p.join(a), p.join(b)),
            Err(_) => format!("{a} and {b}"),
        })
        .collect();
    Ok(Check::warn(
        "names",
        format!("{count} names differ from another in case only: {}", shown.join("; ")),
        "both are reachable here; a case-insensitive system shows only one of them: rename one",
    ))
}
