//! What the event bus may do to a fleet: tell it sooner, and nothing else. Several devices in one process over one store
//! that tells nobody of changes, and a bus that loses, doubles, holds back and lies.

#![allow(clippy::unwrap_used)] // a failed call is a failed test
#![allow(dead_code)] // of the devices, which another suite uses more of

#[path = "fleet_core/device.rs"]
mod device;

use async_trait::async_trait;
use bytes::Bytes;
use device::{Device, keys};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tcfs::fleet::bus::{Bus, BusStatus, Heard, Saying};
use tcfs::fleet::{Options, Round};
use tcfs::model::event::Event;
use tcfs::store::count::{CountedStore, Op};
use tcfs::store::memory::MemoryStore;
use tcfs::store::{ObjectMeta, Page, PutMode, PutOutcome, Store, StoreRef};
use tcfs::{Error, ErrorKind, Result};
use tokio::sync::{mpsc, watch};

/// Long enough for a busy machine, and much shorter than anything here is polled.
const SOON: Duration = Duration::from_secs(60);

/// A store without notifications.
struct Mute(StoreRef);

#[async_trait]
impl Store for Mute {
    async fn get(&self, key: &str) -> Result<Bytes> {
        self.0.get(key).await
    }
    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<PutOutcome> {
        self.0.put(key, body, mode).await
    }
    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page> {
        self.0.list(prefix, after).await
    }
    async fn delete(&self, key: &str) -> Result<()> {
        self.0.delete(key).await
    }
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        self.0.head(key).await
    }
    fn describe(&self) -> String {
        self.0.describe()
    }
}

fn store() -> StoreRef {
    Arc::new(Mute(MemoryStore::new()))
}

/// Nobody looks by itself.
fn never() -> Options {
    Options { poll_interval: Some(Duration::from_secs(1_000_000)), ..Options::default() }
}

/// What happens to a message: what is delivered in its place.
type Weather = Box<dyn FnMut(Event) -> Vec<Event> + Send>;

/// What all hear.
struct Air {
    ears: Mutex<Vec<mpsc::Sender<Heard>>>,
    weather: Mutex<Weather>,
    said: Mutex<Vec<Event>>,
    up: AtomicBool,
    hangs: AtomicBool,
    calls: AtomicU64,
}

impl Air {
    fn new() -> Arc<Air> {
        Arc::new(Air {
            ears: Mutex::default(),
            weather: Mutex::new(Box::new(|e| vec![e])),
            said: Mutex::default(),
            up: AtomicBool::new(true),
            hangs: AtomicBool::new(false),
            calls: AtomicU64::new(0),
        })
    }
    fn weather(&self, w: impl FnMut(Event) -> Vec<Event> + Send + 'static) {
        *self.weather.lock() = Box::new(w);
    }
    /// Everybody hears it.
    async fn utter(&self, e: &Event) {
        let ears = self.ears.lock().clone();
        for ear in ears {
            let _ = ear.send(Heard::Event(Box::new(e.clone()))).await;
        }
    }
    /// The events with records that were said.
    fn records(&self) -> Vec<Event> {
        self.said.lock().iter().filter(|e| e.part().is_some()).cloned().collect()
    }
}

#[async_trait]
impl Bus for Air {
    async fn say(&self, what: Vec<Saying>) -> Result<()> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if !self.up.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "no bus"));
        }
        for s in what {
            // As over a real bus: as bytes.
            let event = Event::decode(&s.event.encode()).unwrap();
            self.said.lock().push(event.clone());
            let delivered = (self.weather.lock())(event);
            for e in delivered {
                self.utter(&e).await;
            }
        }
        Ok(())
    }
    async fn listen(self: Arc<Self>, out: mpsc::Sender<Heard>) {
        let _ = out.send(Heard::Connected).await;
        self.ears.lock().push(out.clone());
        out.closed().await;
    }
    fn status(&self) -> BusStatus {
        BusStatus { connected: self.up.load(Ordering::SeqCst), url: "air".into(), ..BusStatus::default() }
    }
}

/// Devices whose loops run; they end with it.
struct Running {
    stop: watch::Sender<bool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Running {
    async fn new(devices: &[&Device]) -> Running {
        let (stop, stopped) = watch::channel(false);
        let tasks = devices.iter().map(|d| tokio::spawn(d.fleet.clone().run(stopped.clone()))).collect();
        let running = Running { stop, tasks };
        for d in devices {
            until("it looked once", || d.fleet.follow_status().caught_up_at.is_some()).await;
        }
        running
    }
    /// The same, and each knows of each other that it is there, so that all keys are known.
    async fn acquainted(devices: &[&Device]) -> Running {
        let running = Running::new(devices).await;
        for d in devices {
            for other in devices.iter().filter(|o| o.id() != d.id()) {
                until("they know each other", || d.fleet.presence().get(&other.id()).is_some_and(|p| p.online)).await;
            }
        }
        running
    }
    async fn stop(self) {
        self.stop.send_replace(true);
        for t in self.tasks {
            t.await.unwrap();
        }
    }
}

async fn until(what: &str, mut yes: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !yes() {
        assert!(begun.elapsed() < SOON, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Closed and in the log.
async fn publish(d: &Device, row: u64) {
    d.fleet.wait_published(row, SOON).await.unwrap();
}

/// Everybody reads the logs to their ends; all show the same.
async fn same_tree(devices: &[&Device]) -> BTreeMap<String, String> {
    for _ in 0..4 {
        for d in devices {
            assert_eq!(d.publish().await.unwrap(), Round::Idle);
        }
        for d in devices {
            d.pull().await;
        }
    }
    let first = devices[0].ls().await;
    for d in devices {
        assert_eq!(d.ls().await, first, "{} differs", d.id());
    }
    first
}

fn record_of(e: &mut Event) -> &mut tcfs::model::event::Part {
    match e {
        Event::FileSynced { part, .. } | Event::FileDeleted { part, .. } | Event::FileRenamed { part, .. } => part,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_came_whole_is_applied_without_a_look_at_the_store() {
    let (air, s) = (Air::new(), store());
    let (counted, counts) = CountedStore::new(s.clone());
    let a = Device::on(air.clone(), "ann", s, 1, never());
    let b = Device::on(air.clone(), "bob", counted.clone(), 2, never());
    let running = Running::acquainted(&[&a, &b]).await;
    let asked = |op| counts.of(op).requests;
    // Answers to hellos are heard, and looks that they asked for are done, before the store is watched.
    let mut before = (0, 0);
    for quiet in 0.. {
        let now = (asked(Op::Get), asked(Op::List));
        if now == before && quiet > 0 {
            break;
        }
        before = now;
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    for i in 0..20 {
        publish(&a, a.write(&format!("f{i}"), format!("text {i}"))).await;
    }
    publish(&a, a.mv("f0", "g0")).await;
    publish(&a, a.rm("f1")).await;
    until("all of it is there", || b.shows("g0") && b.shows("f19") && !b.shows("f0") && !b.shows("f1")).await;
    assert!(b.fleet.heard_batches() >= 3, "{}", b.fleet.heard_batches());
    assert_eq!((asked(Op::Get), asked(Op::List)), before, "the store was asked");
    running.stop().await;
    assert_eq!(b.ls().await, a.ls().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_was_lost_is_found_with_the_next_one_or_the_next_sign_of_life() {
    let (air, s) = (Air::new(), store());
    let (a, b) = (Device::on(air.clone(), "ann", s.clone(), 1, never()), Device::on(air.clone(), "bob", s, 2, never()));
    let running = Running::acquainted(&[&a, &b]).await;
    air.weather(|e| if e.part().is_some() { vec![] } else { vec![e] });
    publish(&a, a.write("lost", "1")).await;
    assert_eq!(b.fleet.heard_batches(), 0);
    air.weather(|e| vec![e]);
    publish(&a, a.write("next", "2")).await;
    until("both are there", || b.shows("lost") && b.shows("next")).await;
    air.weather(|e| if e.part().is_some() { vec![] } else { vec![e] });
    publish(&a, a.write("lost again", "3")).await;
    a.fleet.try_bus().await.unwrap();
    until("a sign of life tells of it", || b.shows("lost again")).await;
    running.stop().await;
}

/// The last thing that was published before a pause, while the bus did not take it: nothing later tells of it, and the
/// next regular beat is a minute away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_bus_did_not_take_is_told_of_as_soon_as_it_takes_anything() {
    let (air, s) = (Air::new(), store());
    let (a, b) = (Device::on(air.clone(), "ann", s.clone(), 1, never()), Device::on(air.clone(), "bob", s, 2, never()));
    let running = Running::acquainted(&[&a, &b]).await;
    air.hangs.store(true, Ordering::SeqCst);
    publish(&a, a.write("unsaid", "1")).await;
    air.hangs.store(false, Ordering::SeqCst);
    let begun = Instant::now();
    until("it is there", || b.shows("unsaid")).await;
    assert!(begun.elapsed() < Duration::from_secs(40), "only the next regular beat told of it");
    running.stop().await;
}

/// Somebody who may speak on the bus but is not of the fleet says, before the truth does, everything that could do harm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stranger_says_changes_nothing() {
    let (air, s) = (Air::new(), store());
    // The same device, by id and key, in another store: what it signs there is good there only.
    let (other_air, other) = (Air::new(), store());
    // Made by another device: the id of a store is drawn by whoever makes it.
    Device::with("zed", other.clone(), 99, never()).pull().await;
    let twin = Device::on(other_air.clone(), "ann", other, 1, never());
    let running = Running::new(&[&twin]).await;
    for i in 0..30 {
        publish(&twin, twin.write(&format!("evil twin {i}"), "x")).await;
    }
    running.stop().await;
    let replayed: Vec<Event> = other_air.records();
    assert!(replayed.len() >= 30);

    let (a, b) = (Device::on(air.clone(), "ann", s.clone(), 1, never()), Device::on(air.clone(), "bob", s.clone(), 2, never()));
    assert_eq!(a.id(), twin.id());
    let c = Device::on(air.clone(), "cyd", s, 3, never());
    let running = Running::acquainted(&[&a, &b, &c]).await;
    let bob = b.me.get();
    let mut turn = 0;
    air.weather(move |e| {
        let Some(part) = e.part().filter(|_| e.device_id().starts_with("ann-")).cloned() else { return vec![e] };
        let evil = |change: &dyn Fn(&mut tcfs::model::event::Part)| {
            let mut lie = e.clone();
            let p = record_of(&mut lie);
            let text = p.record.as_ref().unwrap().to_string().replace("truth", "evil");
            p.record = Some(serde_json::from_str(&text).unwrap());
            change(p);
            lie
        };
        turn += 1;
        let lie = match turn % 8 {
            0 => evil(&|_| {}),
            1 => evil(&|p| p.seal = None),
            2 => evil(&|p| p.seal = Some(bob.sign(b"anything"))),
            3 => evil(&|p| p.seq += 1),
            4 => evil(&|p| p.of += 1),
            5 => evil(&|p| p.record = None),
            6 => Event::DeviceOffline { device_id: e.device_id().into(), last_seq: u64::MAX, timestamp: i64::MAX, seal: None },
            _ => {
                let mut old = replayed[turn % replayed.len()].clone();
                record_of(&mut old).seq = part.seq;
                old
            }
        };
        // What it says of this very batch in the other store, as it was signed there.
        let replay = replayed.iter().find(|r| r.part().unwrap().seq == part.seq).cloned();
        replay.into_iter().chain([lie, e.clone(), e]).collect()
    });
    for i in 0..48 {
        publish(&a, a.write(&format!("truth {i}"), format!("truth {i}"))).await;
        until(&format!("the truth {i} is there"), || b.shows(&format!("truth {i}")) && c.shows(&format!("truth {i}"))).await;
        assert!(b.fleet.presence()[&a.id()].online);
    }
    // A lie that ends what the truth began: the records of one batch, some of them exchanged.
    air.weather(|e| vec![e]);
    running.stop().await;
    let shown = b.ls().await;
    assert!(shown.len() == 48 && shown.keys().chain(shown.values()).all(|t| t.starts_with("truth")), "{shown:?}");
    assert_eq!(same_tree(&[&a, &b, &c]).await, shown);
}

/// Messages lost, doubled, held back until others overtook them: in the end all trees are those of the logs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_weather_ends_in_the_same_trees() {
    let mut over_the_bus = 0;
    for seed in 0..12 {
        let (air, s) = (Air::new(), store());
        let options = Options { poll_interval: Some(Duration::from_millis(300)), ..Options::default() };
        let fleet: Vec<Device> =
            (0..3).map(|i| Device::on(air.clone(), ["ann", "bob", "cyd"][i], s.clone(), seed * 10 + i as u64, options.clone())).collect();
        let all: Vec<&Device> = fleet.iter().collect();
        let running = Running::new(&all).await;
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut held: Vec<Event> = Vec::new();
        air.weather(move |e| {
            let mut out = Vec::new();
            match rng.u32(..8) {
                0 => {}
                1 => out.extend([e.clone(), e]),
                2 => held.push(e),
                3 => {
                    out.push(e);
                    rng.shuffle(&mut held);
                    out.append(&mut held);
                }
                _ => out.push(e),
            }
            out
        });
        let mut rng = fastrand::Rng::with_seed(seed + 100);
        let paths = ["a", "b", "d/a", "d/b"];
        for n in 0..60 {
            let d = &fleet[rng.usize(..3)];
            let (p, q) = (paths[rng.usize(..4)], paths[rng.usize(..4)]);
            match rng.u32(..8) {
                0 if d.shows(p) => drop(d.rm(p)),
                1 if d.shows(p) && p != q => drop(d.mv(p, q)),
                2 if d.shows(p) => drop(d.chmod(p, 0o600 | rng.u32(..0o200))),
                3 => tokio::time::sleep(Duration::from_millis(rng.u64(..20))).await,
                _ => drop(d.write(p, format!("{seed}:{n}"))),
            }
        }
        for d in &fleet {
            let mark = d.write(&format!("end of {}", d.id()), "x");
            publish(d, mark).await;
        }
        running.stop().await;
        over_the_bus += fleet.iter().map(|d| d.fleet.heard_batches()).sum::<u64>();
        same_tree(&all).await;
        for p in paths {
            let first = fleet[0].register(p);
            assert!(fleet.iter().all(|d| d.register(p) == first), "seed {seed}: {p}");
        }
        // Nobody took itself for a clone because of what it heard.
        assert!(fleet.iter().all(|d| d.disk.new_ids.lock().is_empty()), "seed {seed}");
    }
    assert!(over_the_bus > 0, "nothing ever came over the bus");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_hangs_holds_up_publishing_once() {
    let (air, s) = (Air::new(), store());
    let a = Device::on(air.clone(), "ann", s.clone(), 1, never());
    let running = Running::new(&[&a]).await;
    until("it said that it is there", || air.calls.load(Ordering::SeqCst) > 0).await;
    air.hangs.store(true, Ordering::SeqCst);
    let before = air.calls.load(Ordering::SeqCst);
    publish(&a, a.write("first", "x")).await;
    let begun = Instant::now();
    let mut batches = 0;
    for i in 0..5 {
        publish(&a, a.write(&format!("f{i}"), "x")).await;
        batches += 1;
    }
    // Within the time for which nothing is said after a failure, nobody waits for it again.
    let calls = air.calls.load(Ordering::SeqCst) - before;
    assert!(calls == 1 || begun.elapsed() > Duration::from_secs(8), "{batches} batches, {calls} calls");
    assert!(a.log().await.len() >= 6);
    air.hangs.store(false, Ordering::SeqCst);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_there_is_told_answered_forgotten_and_never_guessed() {
    let (air, s) = (Air::new(), store());
    let (a, b) = (Device::on(air.clone(), "ann", s.clone(), 1, never()), Device::on(air.clone(), "bob", s.clone(), 2, never()));
    let running = Running::new(&[&a]).await;
    until("ann said hello before bob came", || !air.said.lock().is_empty()).await;
    let of_bob = Running::new(&[&b]).await;
    let sees = |d: &Device, other: &Device| d.fleet.presence().get(&other.id()).map(|p| p.online);
    until("each knows of the other", || sees(&a, &b) == Some(true) && sees(&b, &a) == Some(true)).await;
    of_bob.stop().await;
    until("bob said goodbye", || sees(&a, &b) == Some(false)).await;
    // Nothing is known while the bus is away.
    air.up.store(false, Ordering::SeqCst);
    assert_eq!(sees(&a, &b), None);
    air.up.store(true, Ordering::SeqCst);
    // What was said long ago does not count, whenever it comes.
    let hello = air.said.lock().iter().find(|e| e.device_id() == b.id()).unwrap().clone();
    assert!(matches!(hello, Event::DeviceOnline { .. }));
    let cyd = Device::on(air.clone(), "cyd", s, 3, never());
    cyd.clock.advance(1_000_000_000_000);
    let of_cyd = Running::new(&[&cyd]).await;
    air.utter(&hello).await;
    until("it was heard", || sees(&cyd, &b).is_some()).await;
    assert_eq!(sees(&cyd, &b), Some(false));
    of_cyd.stop().await;
    running.stop().await;
}

/// Two fleets may use one server: neither gets the other's files, and neither keeps looking for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_fleet_on_the_same_bus_costs_a_few_looks() {
    let air = Air::new();
    let (counted, counts) = CountedStore::new(store());
    let a = Device::on(air.clone(), "ann", counted.clone(), 1, never());
    let other = Device::on(air.clone(), "zed", store(), 9, never());
    let running = Running::new(&[&a, &other]).await;
    for i in 0..100 {
        publish(&other, other.write(&format!("foreign{i}"), "x")).await;
    }
    let said = air.records().len();
    assert!(said >= 100);
    publish(&a, a.write("own", "1")).await;
    running.stop().await;
    assert_eq!(a.ls().await.into_keys().collect::<Vec<_>>(), ["own"]);
    let looks = counts.of(Op::List).requests;
    assert!(looks < 30, "{looks} lists for {said} events of strangers");
    assert!(a.fleet.presence().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_device_is_not_heard_beyond_its_end() {
    let (air, s) = (Air::new(), store());
    let (a, b) = (Device::on(air.clone(), "ann", s.clone(), 1, never()), Device::on(air.clone(), "bob", s, 2, never()));
    let running = Running::acquainted(&[&a, &b]).await;
    publish(&a, a.write("before", "1")).await;
    until("it is there", || b.shows("before")).await;
    let last = b.fleet.cursors().unwrap()[&a.id()];
    b.fleet.registry().revoke(&a.id(), last, &b.id(), &*b.clock).await.unwrap();
    b.pull().await;
    publish(&a, a.write("after", "2")).await;
    // bob hears everything that was said up to his own word.
    publish(&b, b.write("mark", "3")).await;
    until("ann heard bob", || a.shows("mark")).await;
    running.stop().await;
    b.pull().await;
    assert!(b.shows("before") && !b.shows("after"));
}

/// A copy of a machine that only listens learns from the bus that the other one goes on under its id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_that_writes_nothing_hears_that_it_is_one() {
    let (air, s) = (Air::new(), store());
    let a = Device::on(air.clone(), "ann", s, 1, never());
    let running = Running::new(&[&a]).await;
    publish(&a, a.write("f", "1")).await;
    running.stop().await;
    let twin = a.clone_machine(77);
    let running = Running::new(&[&a, &twin]).await;
    publish(&a, a.write("g", "2")).await;
    until("the copy took a new id and shows what the other wrote", || twin.id() != a.id() && twin.shows("g")).await;
    running.stop().await;
    same_tree(&[&a, &twin]).await;
    assert!(keys().batch(&a.id(), 1) != keys().batch(&twin.id(), 1));
}
