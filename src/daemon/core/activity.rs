//! What happens, written down: `events` of the control directory; and told to clients that follow it.
//!
//! Must: writing it down never holds up what happens; lines that the disk does not take are lost, nothing else.

use super::{Core, blocking};
use crate::daemon::log::Rotated;
use crate::daemon::protocol::{Followed, Item, Response};
use crate::daemon::service::Progress;
use crate::error::Result;
use crate::model::activity::{Activity, Change, What};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Bytes after which the file is begun anew; the one before stays beside it.
const LARGE: u64 = 4 << 20;
/// Events that are written at a time.
const AT_ONCE: usize = 1024;
/// How often conflicts are looked at without an event: those that a program on this machine ended.
const LOOK: Duration = Duration::from_millis(500);

/// Where events are written down.
pub(super) fn events_file(state: &Path) -> PathBuf {
    state.join("events.jsonl")
}

/// Listens from now on, and writes down until `stop` says true.
pub(super) fn write_down(core: &Arc<Core>, mut stop: watch::Receiver<bool>) -> JoinHandle<()> {
    let mut events = core.fleet.listen();
    core.fleet.happened(What::Started { version: env!("CARGO_PKG_VERSION").to_owned() });
    let (fleet, vfs) = (core.fleet.clone(), core.vfs.clone());
    let path = events_file(&core.config.dirs.state);
    tokio::spawn(async move {
        let file = match Rotated::open(&path, LARGE, 1) {
            Ok(f) => f,
            Err(e) => return tracing::warn!(error = %e, "events are not written down"),
        };
        let mut known: Arc<BTreeSet<String>> = Arc::default();
        let mut first = true;
        while !*stop.borrow() {
            let some = tokio::select! {
                some = next(&mut events, AT_ONCE) => some,
                () = tokio::time::sleep(LOOK) => Some(Vec::new()),
                _ = stop.wait_for(|s| *s) => return,
            };
            let Some(some) = some else { return };
            let (v, was, out) = (vfs.clone(), known.clone(), file.clone());
            let done = blocking(move || {
                write(&out, &some);
                let concerned = some.iter().filter_map(|a| path_of(&a.what)).any(|p| was.contains(p));
                if first || concerned || v.conflict_count()? != was.len() as u64 {
                    let now: BTreeSet<String> = v.conflicts()?.into_iter().map(|c| c.path.as_str().to_owned()).collect();
                    return Ok(Some(now));
                }
                Ok(None)
            });
            match done.await {
                Ok(None) => {}
                Ok(Some(now)) => {
                    // Those of the start are no news.
                    for path in now.difference(&known).filter(|_| !first) {
                        fleet.happened(What::Conflict { path: path.clone() });
                    }
                    for path in known.difference(&now) {
                        fleet.happened(What::Resolved { path: path.clone() });
                    }
                    (known, first) = (Arc::new(now), false);
                }
                Err(e) => tracing::debug!(error = %e, "looking at conflicts"),
            }
        }
    })
}

fn path_of(what: &What) -> Option<&str> {
    match what {
        What::Published(Change { path, .. }) | What::Arrived(Change { path, .. }) => Some(path),
        _ => None,
    }
}

fn write(out: &Rotated, events: &[Activity]) {
    for e in events {
        let Ok(mut line) = serde_json::to_vec(e) else { continue };
        line.push(b'\n');
        let mut out: &Rotated = out;
        if let Err(e) = out.write_all(&line) {
            return tracing::debug!(error = %e, "an event is not written down");
        }
    }
}

/// The next events, at least one; none at the end.
async fn next(from: &mut Receiver<Activity>, max: usize) -> Option<Vec<Activity>> {
    let mut out = Vec::new();
    let missed = |events| Activity { at: 0, what: What::Missed { events } };
    match from.recv().await {
        Ok(a) => out.push(a),
        Err(RecvError::Lagged(n)) => out.push(missed(n)),
        Err(RecvError::Closed) => return None,
    }
    while out.len() < max {
        match from.try_recv() {
            Ok(a) => out.push(a),
            Err(_) => break,
        }
    }
    Some(out)
}

impl Core {
    /// Sends what happens until the client goes away.
    pub(super) async fn follow(&self, progress: &Progress) -> Result<Response> {
        let mut events = self.fleet.listen();
        let mut sent = 0;
        while let Some(some) = next(&mut events, AT_ONCE).await {
            for a in some {
                progress.item(Item::Activity(a)).await?;
                sent += 1;
            }
        }
        Ok(Response::Followed(Followed { events: sent }))
    }
}
