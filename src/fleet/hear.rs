//! What is done with what the bus says: a batch of which every record came is applied at once, everything else makes
//! this device look into the logs.
//!
//! Must: a batch is applied only if it is the next one of that device, all its records are there and are readable, the
//! device is not revoked, and this device knows its own log to be its own; in one transaction with the cursor, by the
//! same function as one from the store. Must: bounded memory, whatever is said.
//! Not here: reading logs (`apply`), when that is done without the bus (`follow`).

use super::bus::{Heard, Saying};
use super::core::Fleet;
use crate::model::Version;
use crate::model::event::Event;
use crate::model::record::Line;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Records kept of batches that are not complete; beyond it they are read from the log.
const KEPT: usize = 50_000;
/// Messages between the bus and here.
const QUEUE: usize = 4096;
/// Longest time that publishing waits until the bus has a batch.
const SAYING: Duration = Duration::from_secs(2);
/// Longest time for the goodbye.
const GOODBYE: Duration = Duration::from_millis(500);

/// What was heard of another device's coming and going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    /// It said that it listens, and has not said goodbye.
    pub online: bool,
    /// When it last said anything, milliseconds since 1970 by the clock here.
    pub heard_at: i64,
}

#[derive(Default)]
pub(super) struct HearState {
    presence: Mutex<HashMap<String, Presence>>,
    /// Batches applied without a look at the store.
    applied: std::sync::atomic::AtomicU64,
}

/// Batches of which records came.
#[derive(Default)]
struct Pieces {
    batches: HashMap<String, BTreeMap<u64, Pieced>>,
    records: usize,
}

struct Pieced {
    of: u64,
    versions: BTreeMap<u64, Version>,
}

/// What a record that came makes of its batch.
enum Next {
    /// More is to come, or it is an old one.
    Nothing,
    /// All of it is here.
    Whole(u64, Vec<Version>),
    /// It has to be read from the log.
    Doubt,
}

impl Pieces {
    /// Takes record `i` of `of` in batch `seq`; `cursor` is the last batch applied of that device.
    fn take(&mut self, device: &str, cursor: u64, (seq, i, of): (u64, u64, u64), line: Option<Line>) -> Next {
        self.forget(device, cursor);
        if seq <= cursor {
            return Next::Nothing;
        }
        let Some(Line::Version(v)) = line.filter(|_| i < of && of as usize <= KEPT && seq == cursor + 1) else {
            return Next::Doubt;
        };
        if self.records >= KEPT || v.device_id != device || v.path.is_root() {
            *self = Pieces::default();
            return Next::Doubt;
        }
        let batch = self.batches.entry(device.to_owned()).or_default();
        let piece = batch.entry(seq).or_insert_with(|| Pieced { of, versions: BTreeMap::new() });
        if piece.of != of {
            return Next::Doubt;
        }
        self.records += usize::from(piece.versions.insert(i, *v).is_none());
        if (piece.versions.len() as u64) < of {
            return Next::Nothing;
        }
        let whole = batch.remove(&seq).map(|p| p.versions).unwrap_or_default();
        self.records -= whole.len();
        Next::Whole(seq, whole.into_values().collect())
    }

    /// Drops what was applied meanwhile.
    fn forget(&mut self, device: &str, cursor: u64) {
        if let Some(batches) = self.batches.get_mut(device) {
            let rest = batches.split_off(&(cursor + 1));
            self.records -= batches.values().map(|p| p.versions.len()).sum::<usize>();
            *batches = rest;
            if batches.is_empty() {
                self.batches.remove(device);
            }
        }
    }
}

impl Fleet {
    /// What was heard of other devices' coming and going since the start.
    pub fn presence(&self) -> HashMap<String, Presence> {
        self.hearing.presence.lock().clone()
    }

    /// How the bus is; none without one.
    pub fn bus_status(&self) -> Option<super::bus::BusStatus> {
        self.bus.as_ref().map(|b| b.status())
    }

    /// Batches of others that came over the bus and were applied without reading the store.
    pub fn heard_batches(&self) -> u64 {
        self.hearing.applied.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Tells the others what this device's batch `seq` says. An error is no harm: they find it in the log.
    pub(super) async fn say_batch(&self, seq: u64, versions: &[Version]) {
        let Some(bus) = self.bus.as_ref().filter(|b| b.status().connected) else { return };
        let of = versions.len() as u64;
        let me = &self.me().id;
        let mut what = Vec::with_capacity(versions.len());
        for (i, v) in versions.iter().enumerate() {
            match Event::of(v, seq, (i as u64, of), |h| self.keys.manifest(h)) {
                Ok(event) => what.push(Saying { id: format!("{me}-{seq}-{i}"), event }),
                Err(e) => return tracing::error!("an event of batch {seq}: {e}"),
            }
        }
        match tokio::time::timeout(SAYING, bus.say(what)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::debug!(seq, "the bus did not take a batch: {e}"),
            Err(_) => tracing::debug!(seq, "the bus takes long"),
        }
    }

    /// Listens until `stop` says true.
    pub(super) async fn hear_loop(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let Some(bus) = self.bus.clone() else { return };
        let (out, mut heard) = mpsc::channel(QUEUE);
        let listening = bus.clone().listen(out);
        let stopped = async move { drop(stop.wait_for(|s| *s).await) };
        tokio::pin!(listening, stopped);
        let mut pieces = Pieces::default();
        loop {
            tokio::select! {
                h = heard.recv() => match h {
                    Some(Heard::Connected) => {
                        self.say_presence(true).await;
                        self.look();
                    }
                    Some(Heard::Event(e)) => self.hear(&mut pieces, *e).await,
                    None => break,
                },
                () = &mut listening => break,
                () = &mut stopped => break,
            }
        }
        if bus.status().connected {
            let _ = tokio::time::timeout(GOODBYE, self.say_presence(false)).await;
        }
    }

    async fn say_presence(&self, online: bool) {
        let Some(bus) = &self.bus else { return };
        let me = self.me().id.clone();
        let last_seq = match self.replica.read(|r| super::facts::published(r, &me)) {
            Ok(n) => n,
            Err(e) => return tracing::warn!("saying that this device is there: {e}"),
        };
        let timestamp = self.clock.now_ms().div_euclid(1000);
        let id = format!("{me}-{}-{}", if online { "online" } else { "offline" }, self.clock.now_ns());
        let event = match online {
            true => Event::DeviceOnline { device_id: me, last_seq, timestamp },
            false => Event::DeviceOffline { device_id: me, last_seq, timestamp },
        };
        if let Err(e) = bus.say(vec![Saying { id, event }]).await {
            tracing::debug!("the bus did not take that this device comes or goes: {e}");
        }
    }

    async fn hear(self: &Arc<Self>, pieces: &mut Pieces, event: Event) {
        let device = event.device_id().to_owned();
        if device == self.me().id || !super::apply::is_id(&device) {
            return;
        }
        let online = !matches!(event, Event::DeviceOffline { .. });
        let heard_at = self.clock.now_ms();
        {
            let mut all = self.hearing.presence.lock();
            if all.len() < KEPT || all.contains_key(&device) {
                all.insert(device.clone(), Presence { online, heard_at });
            }
        }
        let cursor = match self.cursor_of(&device) {
            Ok(c) => c,
            Err(e) => return tracing::warn!("hearing of {device}: {e}"),
        };
        match &event {
            Event::DeviceOnline { last_seq, .. } | Event::DeviceOffline { last_seq, .. } => {
                if *last_seq > cursor {
                    self.look();
                }
                return;
            }
            _ => {}
        }
        // Without a record it is of an older program, whose versions lie in no log.
        let Some(part) = event.part() else { return };
        if self.is_revoked(&device, part.seq) {
            return;
        }
        match pieces.take(&device, cursor, (part.seq, part.i, part.of), part.line()) {
            Next::Nothing => {}
            Next::Doubt => self.look(),
            Next::Whole(seq, versions) => {
                // Before anything is applied the own log is read; whoever settles things with the store looks then.
                if !self.is_online() {
                    return self.look();
                }
                match self.apply_versions(&device, seq, versions).await {
                    Ok(_) => drop(self.hearing.applied.fetch_add(1, std::sync::atomic::Ordering::Relaxed)),
                    Err(e) => {
                        tracing::warn!("applying batch {seq} of {device} from the bus: {e}");
                        self.look();
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Accepted, Author, Entry, Kind, RelPath, ops};

    fn line(device: &str, name: &str) -> Option<Line> {
        let path = RelPath::parse(name).unwrap();
        let by = Author { device_id: device.into(), device_name: "ann".into(), now_ms: 0 };
        let v = ops::write(&path, &Entry::new(), &Accepted::nothing(), Kind::Dir, Default::default(), &by).unwrap();
        Some(Line::Version(Box::new(v)))
    }

    #[test]
    fn a_batch_is_whole_when_every_record_came_in_any_order_and_twice() {
        let mut p = Pieces::default();
        for (i, name) in [(2, "c"), (0, "a"), (0, "a")] {
            assert!(matches!(p.take("ann-1", 4, (5, i, 3), line("ann-1", name)), Next::Nothing));
        }
        let Next::Whole(5, all) = p.take("ann-1", 4, (5, 1, 3), line("ann-1", "b")) else { panic!() };
        assert_eq!(all.iter().map(|v| v.path.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(p.records, 0);
        assert!(matches!(p.take("ann-1", 5, (5, 1, 3), line("ann-1", "b")), Next::Nothing), "an old one");
    }

    #[test]
    fn a_gap_a_missing_record_and_a_lie_are_doubts() {
        let mut p = Pieces::default();
        let doubt = |n: Next| matches!(n, Next::Doubt);
        assert!(doubt(p.take("ann-1", 4, (6, 0, 1), line("ann-1", "a"))), "a gap");
        assert!(doubt(p.take("ann-1", 4, (5, 0, 1), None)), "no record");
        assert!(doubt(p.take("ann-1", 4, (5, 3, 3), line("ann-1", "a"))), "beyond the end");
        assert!(doubt(p.take("ann-1", 4, (5, 0, 2), line("bob-1", "a"))), "of somebody else");
        assert!(matches!(p.take("ann-1", 4, (5, 0, 2), line("ann-1", "a")), Next::Nothing));
        assert!(doubt(p.take("ann-1", 4, (5, 1, 3), line("ann-1", "b"))), "of how many?");
        // Once it was read from the log, nothing is kept of it.
        assert!(matches!(p.take("ann-1", 5, (5, 1, 2), line("ann-1", "b")), Next::Nothing));
        assert_eq!(p.records, 0);
    }
}
