//! What is done with what the bus says: a batch of which every record came, signed by its author, is applied at once;
//! everything else makes this device look into the logs.
//!
//! Must: a batch is applied only if it is the next one of that device, all its records are there and readable, the
//! signature over them is that device's (its key is in the registry) for this store, the device is not revoked, and this
//! device knows its own log to be its own; in one transaction with the cursor, by the same function as one from the
//! store. So whatever is said by whomever, what is applied is what the log says. Must: bounded memory, and a bounded
//! rate of looks, whatever is said. Must: a bus that hangs holds up publishing for a moment, not every time.
//! Not here: putting a batch together (`pieces`), reading logs (`apply`), when that is done without the bus (`follow`).

mod pieces;

use self::pieces::{Next, Pieces};
use super::bus::{Heard, Saying};
use super::core::Fleet;
use super::facts;
use super::identity::PublicKey;
use crate::error::{Error, Kind, Result};
use crate::model::Version;
use crate::model::activity::What;
use crate::model::event::{self, Event};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

/// Messages between the bus and here.
const QUEUE: usize = 1024;
/// Longest time that publishing waits until the bus has a batch, and what each of its records adds to that.
const SAYING: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(5));
/// So long nothing is said after the bus did not take something.
const SILENCE: Duration = Duration::from_secs(10);
/// Longest time for the goodbye.
const GOODBYE: Duration = Duration::from_millis(500);
/// How often a device says that it is there.
const BEAT: Duration = Duration::from_secs(60);
/// Who has not been heard for so long is not there, milliseconds.
const GONE_MS: i64 = 150_000;
/// Before those who come are answered: one answer for all.
const ANSWER: Duration = Duration::from_millis(200);
/// Before a presence that could not be said is said again.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a device that the registry does not know makes nobody look again: first, longest. It may be another fleet's.
const STRANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Such devices remembered.
const STRANGERS: usize = 1000;
/// Least time between two looks that doubtful events ask for.
const LOOKS: Duration = Duration::from_millis(200);

/// What was heard of another device's coming and going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    /// It said that it listens, a short while ago, and has not said goodbye.
    pub online: bool,
    /// When it said so, milliseconds since 1970 by its clock, at most now.
    pub heard_at: i64,
}

#[derive(Default)]
pub(super) struct HearState {
    presence: Mutex<HashMap<String, Presence>>,
    keys: Mutex<HashMap<String, PublicKey>>,
    /// There are more of them.
    learned: Notify,
    /// Until then nothing is said.
    silent_until: Mutex<Option<Instant>>,
    /// Something was not said: when speaking is worth a try again, a beat tells how far the log goes.
    unsaid: Notify,
    /// Batches applied without a look at the store.
    applied: AtomicU64,
}

/// What is to be done at a later time.
struct Later {
    /// Say again that this device is there.
    beat: Instant,
    /// Nobody has heard yet that it came.
    hello: bool,
    /// Look into the logs.
    look: Option<Instant>,
    looked: Option<Instant>,
    strangers: HashMap<String, Stranger>,
}

/// A device whose key is not known: one that came just now, one of another fleet, or none.
struct Stranger {
    /// Not before then is the registry asked again, and how long that was.
    until: Instant,
    wait: Duration,
    /// What it said last of its coming and going; heard once its key is known.
    said: Option<Event>,
}

impl Later {
    fn new() -> Later {
        Later { beat: Instant::now() + BEAT, hello: true, look: None, looked: None, strangers: HashMap::new() }
    }

    /// Somebody whose key is not known said something.
    fn stranger(&mut self, device: String, event: Event) {
        let now = Instant::now();
        if self.strangers.len() >= STRANGERS && !self.strangers.contains_key(&device) {
            self.strangers.clear();
        }
        let s = self.strangers.entry(device).or_insert(Stranger { until: now, wait: STRANGE.0 / 2, said: None });
        if event.part().is_none() {
            s.said = Some(event);
        }
        if s.until <= now {
            s.wait = (s.wait * 2).min(STRANGE.1);
            s.until = now + s.wait;
            self.doubt();
        }
    }

    /// Something has to be read from the logs: at once, unless that was done just now.
    fn doubt(&mut self) {
        let now = Instant::now();
        let at = self.looked.map_or(now, |l| (l + LOOKS).max(now));
        self.look = Some(self.look.map_or(at, |l| l.min(at)));
    }
}

/// What was heard and not used yet, for who brings a device its events one by one.
pub struct Ear {
    pieces: Pieces,
    later: Later,
}

impl Default for Ear {
    fn default() -> Self {
        Ear { pieces: Pieces::default(), later: Later::new() }
    }
}

impl Fleet {
    /// Hears one event as a device that runs does. Whether it makes it look into the logs.
    pub async fn hear_one(self: &Arc<Self>, ear: &mut Ear, event: Event) -> bool {
        self.hear(&mut ear.pieces, &mut ear.later, event).await;
        ear.later.look.take().is_some()
    }

    /// What was heard of other devices' coming and going; nothing while the bus does not answer.
    pub fn presence(&self) -> HashMap<String, Presence> {
        if !self.bus_status().is_some_and(|b| b.connected) {
            return HashMap::new();
        }
        let now = self.clock.now_ms();
        let all = self.hearing.presence.lock();
        all.iter().map(|(id, p)| (id.clone(), Presence { online: p.online && now - p.heard_at <= GONE_MS, ..*p })).collect()
    }

    /// How the bus is; none without one.
    pub fn bus_status(&self) -> Option<super::bus::BusStatus> {
        self.bus.as_ref().map(|b| b.status())
    }

    /// Batches of others that came over the bus and were applied without reading the store.
    pub fn heard_batches(&self) -> u64 {
        self.hearing.applied.load(Ordering::Relaxed)
    }

    /// Says on the bus that this device is there, to see whether it takes it; how long that took.
    ///
    /// Errors: why it did not.
    pub async fn try_bus(&self) -> Result<Duration> {
        let began = Instant::now();
        *self.hearing.silent_until.lock() = None;
        if self.say_presence(true, false).await {
            return Ok(began.elapsed());
        }
        let why = self.bus_status().and_then(|b| b.last_error).unwrap_or_else(|| "the event bus does not take what is said".to_owned());
        Err(Error::new(Kind::Unavailable, why))
    }

    /// Learns the keys of devices of the registry that are not known yet; nothing without a bus. A key that cannot be had
    /// now stops nobody: that device's batches are read from its log.
    pub(super) async fn learn_keys(&self, devices: &BTreeSet<String>) {
        if self.bus.is_none() {
            return;
        }
        let new: Vec<&String> = {
            let keys = self.hearing.keys.lock();
            devices.iter().filter(|d| !keys.contains_key(*d)).collect()
        };
        for id in new {
            match self.registry().public_key(id).await {
                Ok(Some(key)) => {
                    self.hearing.keys.lock().insert(id.clone(), key);
                    self.hearing.learned.notify_one();
                }
                Ok(None) => {}
                Err(e) => tracing::debug!("the key of {id}: {e}"),
            }
        }
    }

    /// Tells the others what this device's batch `seq` says. An error is no harm: they find it in the log.
    pub(super) async fn say_batch(&self, seq: u64, versions: &[Version]) {
        let events = match self.bus_to_speak().then(|| self.events(seq, versions)) {
            Some(Ok(events)) => events,
            Some(Err(e)) => return tracing::error!("the events of batch {seq}: {e}"),
            None => return,
        };
        let id = |i: usize| format!("{}-{seq}-{i}", self.me().id);
        let what = events.into_iter().enumerate().map(|(i, event)| Saying { id: id(i), event }).collect();
        self.say(what).await;
    }

    fn events(&self, seq: u64, versions: &[Version]) -> Result<Vec<Event>> {
        let me = self.me();
        let store = self.replica.read(facts::store_id)?;
        let seal = store.map(|s| event::batch_seal(&s, &me.id, seq, versions)).transpose()?.map(|text| me.sign(&text));
        let of = versions.len() as u64;
        let event = |(i, v)| Event::of(v, seq, (i, of), seal.clone(), |h| self.keys.manifest(h));
        (0..).zip(versions).map(event).collect()
    }

    /// Whether there is a bus that answers, as far as is known.
    fn bus_to_speak(&self) -> bool {
        let silent = self.hearing.silent_until.lock().is_some_and(|until| Instant::now() < until);
        !silent && self.bus_status().is_some_and(|b| b.connected)
    }

    /// Says something, for a moment. What a bus that hangs did not take is found in the log, and a beat after the silence
    /// that follows tells that there is something. True if the bus has it.
    async fn say(&self, what: Vec<Saying>) -> bool {
        let Some(bus) = self.bus.as_ref().filter(|_| self.bus_to_speak()) else { return false };
        let patience = SAYING.0 + SAYING.1 * u32::try_from(what.len()).unwrap_or(u32::MAX).min(6000);
        let why = match tokio::time::timeout(patience, bus.say(what)).await {
            Ok(Ok(())) => return true,
            Ok(Err(e)) => e.to_string(),
            Err(_) => format!("it takes longer than {patience:?}"),
        };
        tracing::debug!("the event bus did not take something: {why}");
        *self.hearing.silent_until.lock() = Some(Instant::now() + SILENCE);
        self.hearing.unsaid.notify_one();
        false
    }

    /// Listens until `stop` says true.
    pub(super) async fn hear_loop(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let Some(bus) = self.bus.clone() else { return };
        let (out, mut heard) = mpsc::channel(QUEUE);
        // On its own, so that the bus is listened to while something is applied; ends when nobody hears any more.
        let listening = tokio::spawn(bus.listen(out));
        let stopped = async move { drop(stop.wait_for(|s| *s).await) };
        tokio::pin!(stopped);
        let mut pieces = Pieces::default();
        let mut later = Later::new();
        loop {
            tokio::select! {
                h = heard.recv() => match h {
                    Some(Heard::Connected) => {
                        *self.hearing.silent_until.lock() = None;
                        (later.beat, later.hello) = (Instant::now(), true);
                        later.doubt();
                    }
                    Some(Heard::Event(e)) => self.hear(&mut pieces, &mut later, *e).await,
                    None => break,
                },
                () = tokio::time::sleep_until(later.beat) => {
                    let said = self.say_presence(true, later.hello).await;
                    later.hello &= !said;
                    later.beat = Instant::now() + if said { BEAT } else { AGAIN };
                }
                () = tokio::time::sleep_until(later.look.unwrap_or(later.beat)), if later.look.is_some() => {
                    (later.look, later.looked) = (None, Some(Instant::now()));
                    self.look();
                }
                () = self.hearing.learned.notified() => {
                    let known = |id: &String| self.hearing.keys.lock().contains_key(id);
                    let ids: Vec<String> = later.strangers.keys().filter(|id| known(id)).cloned().collect();
                    for event in ids.iter().filter_map(|id| later.strangers.remove(id)?.said).collect::<Vec<_>>() {
                        self.hear(&mut pieces, &mut later, event).await;
                    }
                }
                () = self.hearing.unsaid.notified() => later.beat = later.beat.min(Instant::now() + SILENCE),
                () = &mut stopped => break,
            }
        }
        let _ = tokio::time::timeout(GOODBYE, self.say_presence(false, false)).await;
        listening.abort();
    }

    /// Whether it was said: not while the bus does not answer, nor before this device belongs to a store.
    async fn say_presence(&self, online: bool, hello: bool) -> bool {
        if !self.bus_to_speak() {
            return false;
        }
        let me = self.me();
        let device_id = me.id.clone();
        let facts = self.replica.read(|r| Ok((facts::published(r, &device_id)?, facts::store_id(r)?)));
        let (last_seq, store) = match facts {
            Ok((last_seq, Some(store))) => (last_seq, store),
            Ok((_, None)) => return false,
            Err(e) => {
                tracing::warn!("saying that this device is there: {e}");
                return false;
            }
        };
        let timestamp = self.clock.now_ms().div_euclid(1000);
        let seal = Some(me.sign(&event::presence_seal(&store, &device_id, online, last_seq, timestamp)));
        let id = format!("{device_id}-{}-{:x}", if online { "online" } else { "offline" }, self.clock.random());
        let event = match online {
            true => Event::DeviceOnline { device_id, last_seq, timestamp, hello, seal },
            false => Event::DeviceOffline { device_id, last_seq, timestamp, seal },
        };
        self.say(vec![Saying { id, event }]).await
    }

    /// Whether that device signed this for the store that this one belongs to.
    fn is_signed(&self, device: &str, seal: Option<&str>, text: impl FnOnce(&str) -> Result<Vec<u8>>) -> bool {
        let key = self.hearing.keys.lock().get(device).cloned();
        let (Some(seal), Some(key), Ok(Some(store))) = (seal, key, self.replica.read(facts::store_id)) else { return false };
        text(&store).is_ok_and(|text| key.signed(&text, seal))
    }

    async fn hear(self: &Arc<Self>, pieces: &mut Pieces, later: &mut Later, event: Event) {
        let device = event.device_id().to_owned();
        if !super::apply::is_id(&device) {
            return;
        }
        let cursor = match self.replica.read(|r| facts::published(r, &self.me().id)) {
            // What is on its way out is told before it is counted; anything else beyond the end is of a copy of this machine.
            Ok(own) if device == self.me().id => {
                if event.last_seq() > own && !self.fixed().is_ok_and(|f| f.is_some_and(|(seq, _)| seq == event.last_seq())) {
                    later.doubt();
                }
                return;
            }
            Ok(_) => self.cursor_of(&device),
            Err(e) => Err(e),
        };
        let cursor = match cursor {
            Ok(c) => c,
            Err(e) => return tracing::warn!("hearing of {device}: {e}"),
        };
        if event.last_seq() <= cursor && event.part().is_some() {
            return;
        }
        if !self.hearing.keys.lock().contains_key(&device) {
            return later.stranger(device, event);
        }
        let Some(part) = event.part() else { return self.hear_presence(later, &event, cursor) };
        if self.is_revoked(&device, part.seq) {
            return;
        }
        match pieces.take(&device, cursor, part) {
            Next::Nothing => {}
            Next::Doubt => later.doubt(),
            Next::Whole(versions, seal) => {
                // Before anything is applied the own log is read; whoever settles things with the store looks then.
                let sure =
                    self.is_online() && self.is_signed(&device, seal.as_deref(), |s| event::batch_seal(s, &device, part.seq, &versions));
                if !sure {
                    return later.doubt();
                }
                match self.apply_versions(&device, part.seq, versions).await {
                    Ok(_) => drop(self.hearing.applied.fetch_add(1, Ordering::Relaxed)),
                    Err(e) => {
                        tracing::warn!("applying batch {} of {device} from the bus: {e}", part.seq);
                        later.doubt();
                    }
                }
            }
        }
    }

    fn hear_presence(&self, later: &mut Later, event: &Event, cursor: u64) {
        let (device, last_seq, timestamp, online, hello, seal) = match event {
            Event::DeviceOnline { device_id, last_seq, timestamp, hello, seal } => (device_id, *last_seq, *timestamp, true, *hello, seal),
            Event::DeviceOffline { device_id, last_seq, timestamp, seal } => (device_id, *last_seq, *timestamp, false, false, seal),
            // Of older programs, whose versions lie in no log.
            _ => return,
        };
        if last_seq > cursor {
            later.doubt();
        }
        let signed = self.is_signed(device, seal.as_deref(), |s| Ok(event::presence_seal(s, device, online, last_seq, timestamp)));
        if !signed {
            return;
        }
        let now = self.clock.now_ms();
        let said = Presence { online, heard_at: timestamp.saturating_mul(1000).min(now) };
        let changed = {
            let mut all = self.hearing.presence.lock();
            let was = all.get(device).is_some_and(|p| p.online);
            let known = all.entry(device.clone()).or_insert(said);
            if known.heard_at <= said.heard_at {
                *known = said;
            }
            (was != known.online).then_some(known.online)
        };
        if let Some(online) = changed {
            self.happened(What::Device { device: device.clone(), online });
        }
        if hello && now - said.heard_at <= GONE_MS {
            later.beat = later.beat.min(Instant::now() + ANSWER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubts_ask_for_a_bounded_rate_of_looks() {
        let mut l = Later::new();
        l.doubt();
        assert!(l.look.unwrap() <= Instant::now(), "the first at once");
        (l.look, l.looked) = (None, Some(Instant::now()));
        let looked = l.looked.unwrap();
        l.doubt();
        l.doubt();
        assert_eq!(l.look, Some(looked + LOOKS));
    }

    #[test]
    fn a_stranger_makes_nobody_look_at_every_word() {
        let mut l = Later::new();
        let word = |l: &mut Later, who: &str| {
            l.stranger(who.into(), Event::DeviceOffline { device_id: who.into(), last_seq: 1, timestamp: 1, seal: None });
        };
        word(&mut l, "x-1");
        assert!(l.look.take().is_some());
        word(&mut l, "x-1");
        assert_eq!(l.look, None);
        word(&mut l, "x-2");
        assert!(l.look.take().is_some());
        for n in 0..3 * STRANGERS {
            word(&mut l, &format!("x-{n}"));
        }
        assert!(l.strangers.len() <= STRANGERS);
    }
}
