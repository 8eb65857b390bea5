//! Garbage collection with several devices in one process over one store, whose clock is turned by hand: what goes, what
//! stays, and who publishes while somebody collects.

#![allow(clippy::unwrap_used)]
#![allow(dead_code)] // of the shared device, what other suites use

#[path = "fleet_core/device.rs"]
mod device;

use bytes::Bytes;
use device::{Device, Witness, keys};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tcfs::ErrorKind;
use tcfs::clock::{Clock, ManualClock};
use tcfs::content::UploadOptions;
use tcfs::content::codec;
use tcfs::content::condemned::Condemned;
use tcfs::fleet::{Collected, GcOptions, Options, Round};
use tcfs::model::gc::List;
use tcfs::model::{Hash, Kind};
use tcfs::state::Tree;
use tcfs::store::count::Op;
use tcfs::store::fault::{FaultStore, Mode, Rule};
use tcfs::store::memory::MemoryStore;
use tcfs::store::{PutMode, Store};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// Long enough here for a collector that was held up between its last look and the removal.
const SETTLE: Duration = Duration::from_millis(400);

fn options(gc: GcOptions) -> Options {
    let upload = UploadOptions { condemned: Condemned::new(SETTLE), ..UploadOptions::default() };
    Options { upload, gc, ..Options::default() }
}

struct World {
    clock: Arc<ManualClock>,
    memory: Arc<MemoryStore>,
    store: Arc<Witness>,
    devices: Vec<Device>,
}

impl World {
    fn new(names: &[&str]) -> World {
        let clock = ManualClock::new(1_700_000_000_000_000_000, 9);
        let memory = MemoryStore::with(clock.clone(), 100);
        let store = Witness::new(memory.clone());
        let devices = names.iter().enumerate().map(|(i, n)| Device::with(n, store.clone(), 100 + i as u64, options(GcOptions::default())));
        let devices = devices.collect();
        World { clock, memory, store, devices }
    }

    fn later(&self, seconds: i64) {
        self.clock.advance(seconds * 1_000_000_000);
        self.devices.iter().for_each(|d| d.clock.advance(seconds * 1_000_000_000));
    }

    /// What the loops of these devices do in a day.
    async fn day_of(&self, devices: &[&Device]) -> Option<Collected> {
        self.later(DAY);
        for d in devices {
            d.pull().await;
            assert_eq!(d.publish().await.unwrap(), Round::Idle);
        }
        for d in devices {
            d.pull().await;
            free_orphans(d);
            d.fleet.renew_lease().await.unwrap();
        }
        let mut done = None;
        for d in devices {
            if let Some(c) = d.fleet.collect_if_due().await.unwrap() {
                assert!(done.is_none(), "two collected on one day");
                done = Some(c);
            }
        }
        done
    }

    async fn day(&self) -> Option<Collected> {
        self.day_of(&self.devices.iter().collect::<Vec<_>>()).await
    }

    /// All chunks and manifests.
    fn objects(&self) -> BTreeSet<String> {
        let mine = |k: &String| k.starts_with(&keys().chunks()) || k.starts_with(&keys().manifests());
        self.memory.keys().into_iter().filter(mine).collect()
    }

    fn has(&self, content: &[u8]) -> bool {
        self.objects().contains(&keys().chunk(&Hash::of(content)))
    }

    /// Everybody shows the same, every byte can be read, and nothing was ever published before what it needs.
    async fn is_whole(&self) -> BTreeMap<String, String> {
        let first = self.devices[0].ls().await;
        for d in &self.devices {
            assert_eq!(d.ls().await, first, "{} differs", d.id());
        }
        assert_eq!(*self.store.broken.lock(), Vec::<String>::new());
        first
    }
}

/// Nobody has open what has no name any more.
fn free_orphans(d: &Device) {
    let orphans: Vec<(u64, ())> = d.replica.read(|r| r.scan_int(Tree::Orphan, 0, u64::MAX, usize::MAX >> 1)).unwrap();
    let free = |t: &mut tcfs::state::Txn<'_>| {
        orphans.iter().try_for_each(|(ino, ())| {
            t.del(Tree::Orphan, *ino)?;
            t.del(Tree::Inode, *ino)
        })
    };
    d.replica.db().write(free).unwrap();
}

/// Bytes that do not compress, of so many chunks about.
fn noise(seed: u64, mib: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| rng.u8(..)).take(mib << 20).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_goes_after_thirty_days_and_what_is_needed_stays() {
    let w = World::new(&["ann", "bob"]);
    let (a, b) = (&w.devices[0], &w.devices[1]);
    let large = noise(1, 20);
    let (kept, gone) = (large[..16 << 20].to_vec(), large[4 << 20..].to_vec());
    a.write("kept.bin", kept.clone());
    a.write("gone.bin", gone.clone());
    a.write("replaced.txt", "the first");
    a.write("deleted.txt", "deleted");
    b.write("same.txt", "deleted");
    w.day().await;
    let before = w.objects();
    b.rm("deleted.txt");
    b.rm("same.txt");
    a.write("replaced.txt", "the second");
    a.rm("gone.bin");
    w.day().await;
    for day in 0..29 {
        assert_eq!(w.day().await.unwrap().removed.objects, 0, "day {day}");
        assert!(before.iter().all(|k| w.objects().contains(k)), "day {day}: history is not kept");
    }
    // A snapshot of after the deletes is as old as that within a week, and then comes the grace.
    let mut removed = 0;
    for _ in 0..12 {
        removed += w.day().await.unwrap().removed.objects;
    }
    assert!(removed > 0 && !w.has(b"deleted") && !w.has(b"the first") && w.has(b"the second"));
    let tree = w.is_whole().await;
    assert_eq!(tree.keys().map(String::as_str).collect::<Vec<_>>(), ["kept.bin", "replaced.txt"]);
    // What both had of the large files is needed by one, the rest is gone.
    let bytes: u64 = w.day().await.unwrap().needed.bytes;
    assert!((16 << 20..17 << 20).contains(&bytes), "{bytes} bytes are needed");
    let after = w.day().await.unwrap();
    assert_eq!((after.condemned.objects, after.held.objects, after.young.objects), (0, 0, 0), "{after:?}");
    // A machine that comes now, from a snapshot.
    let c = Device::with("cat", w.store.clone(), 300, options(GcOptions::default()));
    c.pull().await;
    assert_eq!(c.ls().await, tree);
}

#[tokio::test]
async fn what_was_uploaded_and_never_published_goes_after_the_grace() {
    let w = World::new(&["ann", "bob"]);
    w.devices[0].write("a", "a");
    w.day().await;
    let orphan = Hash::of(b"orphan");
    w.memory.put(&keys().chunk(&orphan), Bytes::from_static(b"orphan"), PutMode::Overwrite).await.unwrap();
    // Names that are none of ours are nobody's business.
    w.memory.put("default/chunks/readme.txt", Bytes::from_static(b"x"), PutMode::Overwrite).await.unwrap();
    w.memory.put("other/chunks/0", Bytes::from_static(b"x"), PutMode::Overwrite).await.unwrap();
    w.later(HOUR);
    assert_eq!(w.devices[0].fleet.collect(false, &|_, _, _| {}).await.unwrap().young.objects, 1);
    let c = w.day().await.unwrap();
    assert_eq!((c.condemned.objects, c.removed.objects), (1, 0), "{c:?}");
    assert!(w.has(b"orphan"));
    let dry = w.devices[0].fleet.collect(true, &|_, _, _| {}).await.unwrap();
    assert_eq!((dry.removed.objects, dry.condemned.objects), (0, 1), "{dry:?}");
    assert_eq!(w.day().await.unwrap().removed.objects, 1);
    assert!(!w.has(b"orphan") && w.has(b"a"));
    assert!(w.memory.keys().iter().any(|k| k == "default/chunks/readme.txt") && w.memory.keys().iter().any(|k| k == "other/chunks/0"));
}

#[tokio::test]
async fn a_dry_run_tells_what_would_go_and_changes_nothing() {
    let w = World::new(&["ann"]);
    w.devices[0].write("a", "a");
    w.memory.put(&keys().chunk(&Hash::of(b"x")), Bytes::from_static(b"x"), PutMode::Overwrite).await.unwrap();
    w.day().await;
    w.later(DAY);
    let all = |w: &World| w.memory.keys().into_iter().filter(|k| !k.contains("/leases/")).collect::<Vec<_>>();
    let before = all(&w);
    for _ in 0..2 {
        let dry = w.devices[0].fleet.collect(true, &|_, _, _| {}).await.unwrap();
        assert_eq!(dry.removed.objects, 1, "{dry:?}");
    }
    assert_eq!(all(&w), before);
}

#[tokio::test]
async fn a_device_that_is_away_holds_back_what_was_condemned_since_until_it_is_revoked() {
    let w = World::new(&["ann", "bob"]);
    let (a, b) = (&w.devices[0], &w.devices[1]);
    a.write("f", "one");
    w.day().await;
    // Bob goes away, with an edit of what he saw under way.
    b.pull().await;
    a.write("f", "two");
    for _ in 0..60 {
        w.day_of(&[a]).await;
    }
    assert!(w.has(b"one"), "bob may still build on it");
    let dry = a.fleet.collect(true, &|_, _, _| {}).await.unwrap();
    let away = a.fleet.gc_holders(Duration::from_secs(7 * DAY as u64)).await.unwrap();
    assert_eq!(away.iter().map(|h| h.device.clone()).collect::<Vec<_>>(), [b.id()]);
    // History ends where bob was last: only what was never published is condemned beyond that, and held.
    assert_eq!(dry.removed.objects, 0, "{dry:?}");
    w.memory.put(&keys().chunk(&Hash::of(b"x")), Bytes::from_static(b"x"), PutMode::Overwrite).await.unwrap();
    let mut held = None;
    for _ in 0..4 {
        held = w.day_of(&[a]).await;
    }
    let held = held.unwrap();
    assert_eq!((held.held.objects, held.holders.len()), (1, 1), "{held:?}");
    assert_eq!(held.holders[0].device, b.id());
    assert!(w.has(b"x"));
    a.fleet.registry().revoke(&b.id(), u64::MAX, &a.id(), &*a.clock).await.unwrap();
    for _ in 0..3 {
        w.day_of(&[a]).await;
    }
    assert!(!w.has(b"x") && !w.has(b"one") && w.has(b"two"));
}

#[tokio::test]
async fn a_device_that_comes_back_after_months_finds_what_it_builds_on() {
    let w = World::new(&["ann", "bob"]);
    let (a, b) = (&w.devices[0], &w.devices[1]);
    a.write("f", "one");
    a.write("g", "gee");
    w.day().await;
    // Moved and changed there while nobody could see it: versions with content that was published before.
    b.mv("f", "h");
    b.chmod("g", 0o600);
    a.rm("f");
    a.rm("g");
    for _ in 0..80 {
        w.day_of(&[a]).await;
    }
    for _ in 0..3 {
        w.day().await;
    }
    let tree = w.is_whole().await;
    assert!(tree.values().any(|c| c == "one") && tree.values().any(|c| c == "gee"), "{tree:?}");
}

#[tokio::test]
async fn what_a_device_that_is_here_has_not_published_yet_stays() {
    let w = World::new(&["ann", "bob"]);
    let (a, b) = (&w.devices[0], &w.devices[1]);
    a.write("f", "one");
    w.day().await;
    // Something holds bob's publishing up, and nothing else of what he does.
    b.mv("f", "h");
    a.rm("f");
    for _ in 0..60 {
        w.later(DAY);
        a.pull().await;
        assert_eq!(a.publish().await.unwrap(), Round::Idle);
        b.pull().await;
        free_orphans(a);
        b.fleet.renew_lease().await.unwrap();
        a.fleet.renew_lease().await.unwrap();
        a.fleet.collect_if_due().await.unwrap();
    }
    let end = a.fleet.collect(true, &|_, _, _| {}).await.unwrap();
    assert!(end.history_from.is_some(), "the history of f has ended: {end:?}");
    assert!(w.has(b"one"));
    w.day().await;
    assert_eq!(w.is_whole().await["h"], "one");
}

#[tokio::test]
async fn one_collects_and_another_goes_on_when_it_is_away() {
    let w = World::new(&["ann", "bob"]);
    let (a, b) = (&w.devices[0], &w.devices[1]);
    a.write("f", "one");
    w.day().await;
    w.day().await;
    let lists = |w: &World| w.memory.keys().into_iter().filter(|k| k.starts_with("default/gc/")).collect::<Vec<_>>();
    assert_eq!(lists(&w), [keys().condemned_by(&a.id())]);
    for _ in 0..5 {
        w.day_of(&[b]).await;
    }
    assert_eq!(lists(&w).len(), 2, "bob took over");
    assert!(w.day().await.is_some(), "and ann is back");
}

#[tokio::test]
async fn what_cannot_be_known_to_be_garbage_stays() {
    let w = World::new(&["ann"]);
    let a = &w.devices[0];
    a.write("f", "one");
    w.day().await;
    let put = async |key: String, body: &[u8]| {
        w.memory.put(&key, Bytes::copy_from_slice(body), PutMode::Overwrite).await.unwrap();
    };
    // Named by a record that this tcfs does not know, of a device it has never heard of; directly, and by its manifest.
    let (direct, named) = (Hash::of(b"direct"), Hash::of(b"named"));
    let manifest = format!("{named}\n");
    put(keys().chunk(&direct), b"direct").await;
    put(keys().chunk(&named), b"named").await;
    put(keys().manifest(&Hash::of(manifest.as_bytes())), manifest.as_bytes()).await;
    let record = format!("{{\"v\":7,\"a\":\"{direct}\",\"b\":[\"{}\"]}}\nnoise\n", Hash::of(manifest.as_bytes()));
    put(keys().batch("zoe-00000001", 1), &codec::encode_lines(record.as_bytes()).unwrap()).await;
    put(keys().chunk(&Hash::of(b"x")), b"x").await;
    for _ in 0..4 {
        w.day().await;
    }
    assert!(w.has(b"direct") && w.has(b"named") && !w.has(b"x"));
    // A log with a hole, or damage: what it says is needed is not known.
    put(keys().chunk(&Hash::of(b"y")), b"y").await;
    put(keys().batch("zoe-00000001", 3), &codec::encode_lines(b"\n").unwrap()).await;
    for _ in 0..3 {
        w.later(DAY);
        let e = a.fleet.collect(false, &|_, _, _| {}).await.unwrap_err();
        assert!(e.kind() == ErrorKind::Corrupt && e.to_string().contains("batch 2 of the log of zoe-00000001"), "{e}");
    }
    put(keys().batch("zoe-00000001", 2), b"damaged").await;
    w.later(DAY);
    assert_eq!(a.fleet.collect(false, &|_, _, _| {}).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(w.has(b"y"));
    // A manifest whose bytes are others.
    put(keys().batch("zoe-00000001", 2), &codec::encode_lines(b"\n").unwrap()).await;
    put(keys().manifest(&Hash::of(manifest.as_bytes())), b"others").await;
    assert_eq!(a.fleet.collect(false, &|_, _, _| {}).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn the_older_layout_keeps_what_its_index_names_and_all_that_is_older_than_the_store() {
    let w = World::new(&["ann"]);
    let put = async |key: &str, body: &[u8]| {
        w.memory.put(key, Bytes::copy_from_slice(body), PutMode::Overwrite).await.unwrap();
    };
    put(&keys().chunk(&Hash::of(b"before")), b"before").await;
    w.later(DAY);
    w.devices[0].write("f", "one");
    w.day().await;
    let chunk = Hash::of(b"raw");
    let manifest = format!("{chunk}\n");
    let id = Hash::of(manifest.as_bytes());
    put(&keys().chunk(&chunk), b"raw").await;
    put(&keys().manifest(&id), manifest.as_bytes()).await;
    put("default/index/old.txt", format!("manifest_hash={id}\nsize=3\nchunks=1\n").as_bytes()).await;
    put(&keys().chunk(&Hash::of(b"after")), b"after").await;
    for _ in 0..4 {
        w.day().await;
    }
    assert!(w.has(b"raw") && w.has(b"before") && !w.has(b"after"));
}

#[tokio::test]
async fn a_list_that_is_damaged_is_begun_anew_and_loses_nothing() {
    let w = World::new(&["ann", "bob"]);
    let (a, b) = (&w.devices[0], &w.devices[1]);
    a.write("f", "one");
    w.memory.put(&keys().chunk(&Hash::of(b"x")), Bytes::from_static(b"x"), PutMode::Overwrite).await.unwrap();
    w.day().await;
    let key = keys().condemned_by(&a.id());
    let read = async || List::parse(&a.id(), &codec::decode_lines("list", &w.memory.get(&key).await.unwrap(), 1 << 20).unwrap()).unwrap();
    let first = read().await;
    assert_eq!(first.objects.len(), 1);
    let body = w.memory.get(&key).await.unwrap();
    w.memory.put(&key, body.slice(..body.len() - 3), PutMode::Overwrite).await.unwrap();
    // Whoever cannot read it relies on nothing that is there.
    b.fleet.renew_lease().await.unwrap();
    b.write("again", "x");
    assert_eq!(b.publish().await.unwrap(), Round::Idle);
    w.later(3 * DAY);
    assert_eq!(a.fleet.collect(false, &|_, _, _| {}).await.unwrap().removed.objects, 0);
    assert_ne!(read().await.header.edition.series, first.header.edition.series);
    for _ in 0..3 {
        w.day().await;
    }
    assert_eq!(w.is_whole().await["again"], "x");
}

#[tokio::test]
async fn content_that_was_condemned_and_comes_again_is_put_again_and_stays() {
    let w = World::new(&["ann", "bob"]);
    let (a, b) = (&w.devices[0], &w.devices[1]);
    a.write("f", "one");
    a.write("big", noise(7, 1));
    w.day().await;
    a.rm("f");
    a.rm("big");
    // Until it is condemned and not gone.
    let mut last = Collected::default();
    for _ in 0..60 {
        last = w.day().await.unwrap();
        if last.condemned.objects >= 4 {
            break;
        }
    }
    assert!(last.condemned.objects >= 4 && w.has(b"one"), "{last:?}");
    b.fleet.renew_lease().await.unwrap();
    a.fleet.renew_lease().await.unwrap();
    // The one as new files, the other by moving what a device still shows: both go by the list.
    b.write("again", "one");
    b.write("big again", noise(7, 1));
    assert_eq!(b.publish().await.unwrap(), Round::Idle);
    for _ in 0..4 {
        w.day().await;
    }
    let tree = w.is_whole().await;
    assert_eq!(tree["again"], "one");
    assert_eq!(tree.len(), 2);
}

/// Ann collects and stops at a request; what bob publishes meanwhile was condemned, and there. How much she removes.
async fn meanwhile(request: Op, goes_on_first: bool) -> u64 {
    let w = World::new(&["bob"]);
    let b = &w.devices[0];
    let held = FaultStore::new(w.store.clone(), 1);
    let a = Device::with("ann", held.clone(), 200, options(GcOptions::default()));
    b.write("keep", "keep");
    w.memory.put(&keys().chunk(&Hash::of(b"late")), Bytes::from_static(b"late"), PutMode::Overwrite).await.unwrap();
    a.clock.advance(DAY * 1_000_000_000);
    w.day_of(&[b, &a]).await;
    w.later(2 * DAY);
    a.clock.advance(2 * DAY * 1_000_000_000);
    b.fleet.renew_lease().await.unwrap();
    let hold = held.hold(Some(request), &keys().chunks());
    let fleet = a.fleet.clone();
    let collecting = tokio::spawn(async move { fleet.collect(false, &|_, _, _| {}).await });
    tokio::time::timeout(Duration::from_secs(60), hold.reached(1)).await.expect("something is removed");
    b.write("again", "late");
    let publishing = async {
        for tries in 0.. {
            assert!(tries < 100, "it never goes out");
            match b.publish().await {
                Ok(Round::Idle) => return,
                Ok(other) => panic!("{other:?}"),
                Err(e) => assert!(e.kind().is_transient(), "{e}"),
            }
        }
    };
    let going_on = async |wait: Duration| {
        tokio::time::sleep(wait).await;
        hold.release();
    };
    if goes_on_first {
        // While bob waits and sees.
        tokio::join!(publishing, going_on(SETTLE / 4));
    } else {
        publishing.await;
        going_on(Duration::ZERO).await;
    }
    let removed = collecting.await.unwrap().unwrap().removed.objects;
    assert!(w.has(b"late"));
    assert_eq!(w.is_whole().await["again"], "late");
    removed
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_comes_again_between_the_last_look_and_the_removal_is_put_again() {
    assert_eq!(meanwhile(Op::Delete, true).await, 1, "it is removed under bob's hands");
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_comes_again_while_somebody_collects_is_not_removed() {
    assert_eq!(meanwhile(Op::List, false).await, 0);
    assert_eq!(meanwhile(Op::Head, false).await, 0);
    assert_eq!(meanwhile(Op::Head, true).await, 0);
}

/// Three publish from a few contents, which so come and go all the time, and two of them collect, all at once; history and
/// grace are short, and time passes quickly.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn publishers_and_collectors_at_the_same_time_lose_nothing() {
    let gc = GcOptions { grace: Duration::from_secs(40), history: Duration::from_secs(100), ..GcOptions::default() };
    let clock = ManualClock::new(1_700_000_000_000_000_000, 9);
    let memory = MemoryStore::with(clock.clone(), 50);
    let witness = Witness::new(memory.clone());
    let seed = 20_261_128;
    // Each request takes its time, another one each time.
    let slow = |n: u64| {
        let store = FaultStore::new(witness.clone(), seed + n);
        store.set([1, 2, 5].map(|ms| Rule::new(Mode::SlowMs(ms)).chance(0.15)).into());
        store
    };
    let names = ["ann", "bob", "cat"];
    let devices: Vec<Arc<Device>> =
        names.iter().enumerate().map(|(i, n)| Arc::new(Device::with(n, slow(i as u64), 500 + i as u64, options(gc.clone())))).collect();
    let over = Arc::new(AtomicBool::new(false));
    let removed = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    // Time.
    {
        let (over, clock) = (over.clone(), clock.clone());
        let clocks: Vec<Arc<ManualClock>> = devices.iter().map(|d| d.clock.clone()).collect();
        tasks.push(tokio::spawn(async move {
            while !over.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(20)).await;
                clock.advance(1_000_000_000);
                clocks.iter().for_each(|c| c.advance(1_000_000_000));
            }
        }));
    }
    for (i, d) in devices.iter().enumerate() {
        let (d, over) = (d.clone(), over.clone());
        tasks.push(tokio::spawn(async move {
            let mut rng = fastrand::Rng::with_seed(seed ^ i as u64);
            while !over.load(Ordering::SeqCst) {
                // Each has paths of its own: what is at a path is what was last written there.
                let path = format!("{}{}", names[i], rng.u8(..6));
                match rng.u8(..10) {
                    0..3 if d.shows(&path) => drop(d.rm(&path)),
                    3 if d.shows(&path) => drop(d.chmod(&path, 0o600 + u32::from(rng.u8(..8)))),
                    // From half a dozen contents: what is written anew is mostly in the store, or was lately.
                    _ => drop(d.write(&path, format!("content {}", rng.u8(..6)))),
                }
                match d.publish().await {
                    Ok(_) => {}
                    Err(e) => assert!(e.kind().is_transient(), "{e}"),
                }
                free_orphans(&d);
                match rng.u8(..6) {
                    0 => d.pull().await,
                    1 => d.fleet.renew_lease().await.unwrap(),
                    2 if rng.u8(..4) == 0 => drop(d.fleet.write_snapshot().await),
                    _ => {}
                }
                tokio::time::sleep(Duration::from_millis(rng.u64(..40))).await;
            }
        }));
    }
    for d in &devices[..2] {
        let (d, over, removed) = (d.clone(), over.clone(), removed.clone());
        tasks.push(tokio::spawn(async move {
            while !over.load(Ordering::SeqCst) {
                match d.fleet.collect(false, &|_, _, _| {}).await {
                    Ok(c) => drop(removed.fetch_add(c.removed.objects, Ordering::SeqCst)),
                    Err(e) => panic!("{e}"),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }));
    }
    tokio::time::sleep(Duration::from_secs(if std::env::var_os("TCFS_SLOW").is_some() { 120 } else { 25 })).await;
    over.store(true, Ordering::SeqCst);
    for t in tasks {
        t.await.unwrap();
    }
    for _ in 0..3 {
        for d in &devices {
            loop {
                match d.publish().await {
                    Ok(Round::Idle) => break,
                    Ok(other) => panic!("{other:?}"),
                    Err(e) => assert!(e.kind().is_transient(), "{e}"),
                }
            }
            d.pull().await;
        }
    }
    assert_eq!(*witness.broken.lock(), Vec::<String>::new());
    let first = devices[0].ls().await;
    for d in &devices {
        assert_eq!(d.ls().await, first, "{} differs", d.id());
    }
    // It means something only if things went, and came again.
    assert!(removed.load(Ordering::SeqCst) > 50, "only {} objects were removed", removed.load(Ordering::SeqCst));
    // What is in history for less than it is long can still be read.
    let now = clock.now_ms() / 1000;
    for d in &devices {
        for v in d.history().iter().filter(|v| now - v.written_at / 1000 < 60) {
            let Kind::File(c) = &v.kind else { continue };
            if !c.manifest.is_zero() {
                assert!(memory.head(&keys().manifest(&c.manifest)).await.unwrap().is_some(), "{v:?} cannot be brought back");
            }
        }
    }
}

/// `gc.enabled = false` leaves the daily run to the others; asked for, it is done all the same.
#[tokio::test]
async fn a_device_that_is_told_not_to_collects_nothing_by_itself() {
    for enabled in [true, false] {
        let w = World::new(&[]);
        let tick = Duration::from_millis(20);
        let d = Device::with("ann", w.store.clone(), 1, options(GcOptions { enabled, tick, lease_every: tick, ..GcOptions::default() }));
        d.write("a", "a");
        d.publish().await.unwrap();
        let list = keys().condemned_by(&d.fleet.me().id);
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let run = tokio::spawn(d.fleet.clone().run(stopped));
        let collected = async || w.memory.head(&list).await.unwrap().is_some();
        for _ in 0..if enabled { 1000 } else { 100 } {
            if collected().await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(collected().await, enabled);
        stop.send(true).unwrap();
        run.await.unwrap();
        d.fleet.collect(false, &|_, _, _| {}).await.unwrap();
        assert!(collected().await);
    }
}
