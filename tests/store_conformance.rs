//! One suite for every store: memory, directory, behind the fault decorator, and S3 on a real SeaweedFS.
//!
//! A new store is run by one line at the end of this file.

#![allow(clippy::unwrap_used)]

#[path = "common/server.rs"]
mod server;
#[path = "common/weed.rs"]
mod weed;

use bytes::Bytes;
use futures_util::StreamExt;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tcfs::ErrorKind as Kind;
use tcfs::clock::{Clock, ManualClock, SystemClock};
use tcfs::store::count::{CountedStore, Op};
use tcfs::store::dir::DirStore;
use tcfs::store::fault::{FaultStore, Mode, Rule};
use tcfs::store::keys::Keys;
use tcfs::store::memory::MemoryStore;
use tcfs::store::s3::{S3Options, S3Store};
use tcfs::store::{PutMode, PutOutcome, Store, StoreRef, identity, list_all, open};

const OVER: PutMode = PutMode::Overwrite;
const NEW: PutMode = PutMode::IfAbsent;

fn body(s: &str) -> Bytes {
    Bytes::copy_from_slice(s.as_bytes())
}

fn hash_key(n: u64) -> String {
    format!("default/chunks/{}", blake3::hash(&n.to_le_bytes()))
}

async fn keys_under(s: &dyn Store, prefix: &str) -> Vec<String> {
    let mut keys: Vec<String> = list_all(s, prefix).await.unwrap().into_iter().map(|m| m.key).collect();
    keys.sort();
    keys
}

/// What is put can be got, whatever its size; a put replaces the whole object.
async fn objects_come_back_whole(s: &dyn Store) {
    let mut bytes = vec![0u8; 16 << 20];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    let all = Bytes::from(bytes);
    for size in [0usize, 1, 4095, 65536, (1 << 20) + 1, 16 << 20] {
        let key = hash_key(size as u64);
        assert_eq!(s.put(&key, all.slice(..size), OVER).await.unwrap(), PutOutcome::Written);
        assert!(s.get(&key).await.unwrap() == all[..size], "{size} bytes");
        let meta = s.head(&key).await.unwrap().unwrap();
        assert_eq!((meta.key, meta.size), (key, size as u64));
    }
    s.put("default/leases/a-1", body("a longer first version"), OVER).await.unwrap();
    s.put("default/leases/a-1", body("short"), OVER).await.unwrap();
    assert_eq!(s.get("default/leases/a-1").await.unwrap(), "short");
}

/// What is not there: get says so, head gives none, delete succeeds, also below a missing parent.
async fn absence_is_an_answer(s: &dyn Store) {
    for key in ["default/nothing", "no/such/parent/x", "default/leases/a-1/below-a-file"] {
        assert_eq!(s.get(key).await.unwrap_err().kind(), Kind::NotFound, "{key}");
        assert_eq!(s.head(key).await.unwrap(), None, "{key}");
        s.delete(key).await.unwrap();
    }
    assert!(s.list("no/such/parent/", None).await.unwrap().objects.is_empty());
    s.put("default/canary/1", body("x"), OVER).await.unwrap();
    s.delete("default/canary/1").await.unwrap();
    s.delete("default/canary/1").await.unwrap();
    assert_eq!(s.head("default/canary/1").await.unwrap(), None);
    assert!(keys_under(s, "default/canary/").await.is_empty());
}

/// Only-if-absent leaves what is there, and of many at once exactly one writes.
async fn the_first_writer_wins(s: &dyn Store) {
    assert_eq!(s.put("default/store.json", body("first"), NEW).await.unwrap(), PutOutcome::Written);
    assert_eq!(s.put("default/store.json", body("second"), NEW).await.unwrap(), PutOutcome::Existed);
    assert_eq!(s.get("default/store.json").await.unwrap(), "first");
    for round in 0..5 {
        let key = format!("default/manifests/race-{round}");
        let puts = (0..8).map(|n| s.put(&key, body(&format!("writer {n}")), NEW));
        let outcomes: Vec<_> = futures_util::future::join_all(puts).await.into_iter().map(Result::unwrap).collect();
        let winners: Vec<_> = (0..8).filter(|n| outcomes[*n] == PutOutcome::Written).collect();
        assert_eq!(winners.len(), 1, "{outcomes:?}");
        assert_eq!(s.get(&key).await.unwrap(), format!("writer {}", winners[0]));
    }
}

/// Two who make a store at the same moment agree on its identity.
async fn makers_of_a_store_agree(s: &dyn Store) {
    let keys = Keys::new("team/fresh");
    assert_eq!(identity::read(s, &keys).await.unwrap(), None);
    let clocks: Vec<_> = (0..4).map(|seed| ManualClock::new(1, seed)).collect();
    let made = futures_util::future::join_all(clocks.iter().map(|c| identity::ensure(s, &keys, &**c))).await;
    let ids: BTreeSet<String> = made.into_iter().map(|r| r.unwrap().id).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let id = ids.first().unwrap();
    assert_eq!(&identity::expect(s, &keys, id).await.unwrap().id, id);
    assert_eq!(identity::expect(s, &Keys::new("team/frehs"), id).await.unwrap_err().kind(), Kind::Usage);
}

/// A listing gives every key under a prefix once, over as many pages as it takes, whatever the prefix ends with.
async fn listings_are_complete(s: &dyn Store) {
    let mut expected = BTreeSet::new();
    for n in 0..1100u64 {
        expected.insert(format!("list/log/dev-{}/{n:020}", n % 3));
    }
    for n in 0..60 {
        expected.insert(hash_key(n).replace("default", "list"));
    }
    expected.insert("list/store.json".into());
    expected.insert("list/log/dev-0.json".into());
    put_all(s, &expected).await;
    let expected: Vec<String> = expected.into_iter().collect();
    let under = |prefix: &str| expected.iter().filter(|k| k.starts_with(prefix)).cloned().collect::<Vec<_>>();
    let fan = &expected.iter().find(|k| k.contains("/chunks/")).unwrap()["list/chunks/".len()..];
    let (two, ten) = (format!("list/chunks/{}", &fan[..2]), format!("list/chunks/{}", &fan[..10]));
    for prefix in ["list/", "list/log/", "list/log/dev-1/", "list/log/dev-", "list/chunks/", "list/s", "list/none/", &two, &ten] {
        assert_eq!(keys_under(s, prefix).await, under(prefix), "{prefix}");
    }
    for meta in list_all(s, "list/log/dev-1/").await.unwrap() {
        assert_eq!(meta.size, meta.key.len() as u64);
    }
    // A key as the mark: what comes after it, for keys in one directory.
    let page = s.list("list/log/dev-1/", Some(&format!("list/log/dev-1/{:020}", 1090))).await.unwrap();
    let got: Vec<_> = page.objects.iter().map(|m| m.key.clone()).collect();
    assert_eq!(got, (1091..1100).filter(|n| n % 3 == 1).map(|n| format!("list/log/dev-1/{n:020}")).collect::<Vec<_>>());
}

async fn put_all(s: &dyn Store, keys: &BTreeSet<String>) {
    futures_util::stream::iter(keys).for_each_concurrent(32, async |k| assert!(s.put(k, body(k), OVER).await.is_ok())).await;
}

/// Keys that could mean something else to a disk or a server are refused by every call, before anything is done.
async fn hostile_keys_are_refused(s: &dyn Store) {
    let long = "x".repeat(256);
    for key in ["", "/etc/passwd", "../x", "default/log/../../x", "a//b", "a/", "a/./b", "a\0b", "a\\b", "a\nb", &long] {
        assert_eq!(s.put(key, body("x"), OVER).await.unwrap_err().kind(), Kind::BadName, "put {key:?}");
        assert_eq!(s.get(key).await.unwrap_err().kind(), Kind::BadName, "get {key:?}");
        assert_eq!(s.head(key).await.unwrap_err().kind(), Kind::BadName, "head {key:?}");
        assert_eq!(s.delete(key).await.unwrap_err().kind(), Kind::BadName, "delete {key:?}");
    }
    for key in ["default/ü", "default/a b", "default/.hidden"] {
        assert_eq!(s.put(key, body("x"), OVER).await.unwrap_err().kind(), Kind::BadName, "put {key:?}");
    }
}

/// Readers see the old object or the new one, never a mixture or nothing, while it is replaced.
async fn replacing_is_atomic(s: &dyn Store) {
    let key = "default/leases/busy-1";
    let versions: Vec<Bytes> = (0..2u8).map(|n| Bytes::from(vec![n; 300_000])).collect();
    s.put(key, versions[0].clone(), OVER).await.unwrap();
    let writes = async {
        for n in 1..30 {
            s.put(key, versions[n % 2].clone(), OVER).await.unwrap();
        }
    };
    let reads = async {
        for _ in 0..60 {
            let got = s.get(key).await.unwrap();
            assert!(versions.contains(&got), "{} bytes", got.len());
        }
    };
    tokio::join!(writes, reads);
}

/// A dropped call leaves no half object.
async fn dropped_puts_are_whole_or_nothing(s: &dyn Store) {
    let data = Bytes::from(vec![7u8; 2 << 20]);
    for n in 0..20u64 {
        let key = format!("default/snapshots/dropped-{n}");
        let _ = tokio::time::timeout(Duration::from_micros(300 * n), s.put(&key, data.clone(), OVER)).await;
        match s.get(&key).await {
            Ok(b) => assert!(b == data),
            Err(e) => assert_eq!(e.kind(), Kind::NotFound),
        }
    }
}

async fn conformance(s: &dyn Store) {
    objects_come_back_whole(s).await;
    absence_is_an_answer(s).await;
    the_first_writer_wins(s).await;
    makers_of_a_store_agree(s).await;
    listings_are_complete(s).await;
    hostile_keys_are_refused(s).await;
    replacing_is_atomic(s).await;
    dropped_puts_are_whole_or_nothing(s).await;
    assert!(!s.describe().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn memory() {
    conformance(&*MemoryStore::with(Arc::new(SystemClock), 7)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn directory() {
    let dir = tempfile::tempdir().unwrap();
    conformance(&DirStore::new(&dir.path().join("made/at/first/use"), 1)).await;
}

/// As on file systems without `O_TMPFILE`.
#[tokio::test(flavor = "multi_thread")]
async fn directory_by_rename() {
    let dir = tempfile::tempdir().unwrap();
    conformance(&DirStore::portable(dir.path(), 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn directory_with_small_pages() {
    let dir = tempfile::tempdir().unwrap();
    listings_are_complete(&DirStore::with_page(dir.path(), 1, 7)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn decorated() {
    let (counted, counts) = CountedStore::new(MemoryStore::new());
    let faulted = FaultStore::new(counted, 1);
    faulted.set(vec![Rule::new(Mode::SlowMs(1)).chance(0.05)]);
    conformance(&*faulted).await;
    for op in Op::ALL {
        assert!(counts.of(op).requests > 0, "{}", op.name());
    }
}

/// What the program opens by URL: counted, and with the faults that `TCFS_FAULT` names. The variable belongs to a process,
/// so the test runs itself in one with it set.
#[tokio::test(flavor = "multi_thread")]
async fn opened_by_url_with_faults() {
    let Some(file) = std::env::var_os("TCFS_FAULT") else {
        let dir = tempfile::tempdir().unwrap();
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "opened_by_url_with_faults"])
            .env("TCFS_FAULT", dir.path().join("faults.json"))
            .output();
        let child = child.unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}/a%20store", dir.path().display());
    let (s, keys) = open(&url, &S3Options::default()).unwrap();
    let (s, counts) = CountedStore::new(s);
    assert_eq!(keys, Keys::new("default"));
    identity::ensure(&*s, &keys, &SystemClock).await.unwrap();
    assert!(dir.path().join("a store/default/store.json").is_file());
    std::fs::write(&file, r#"{"mode":"down","only":"get"}"#).unwrap();
    assert_eq!(s.get(&keys.store_json()).await.unwrap_err().kind(), Kind::Unavailable);
    assert!(s.head(&keys.store_json()).await.unwrap().is_some());
    std::fs::remove_file(&file).unwrap();
    assert!(s.get(&keys.store_json()).await.is_ok());
    assert_eq!(counts.of(Op::Get).errors, 1);
}

/// Two processes' worth of stores on one directory: what one has put, the other sees at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_shared() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shared");
    let stores: Vec<StoreRef> = (0..2).map(|n| Arc::new(DirStore::new(&path, n)) as StoreRef).collect();
    let work = stores.iter().enumerate().map(|(me, s)| async move {
        for n in 0..100u64 {
            let key = format!("default/log/dev-{me}/{n:020}");
            s.put(&key, body(&key), NEW).await.unwrap();
            s.put(&hash_key(n), body("same on both"), NEW).await.unwrap();
        }
    });
    futures_util::future::join_all(work).await;
    for s in &stores {
        assert_eq!(keys_under(&**s, "default/log/").await.len(), 200);
        assert_eq!(keys_under(&**s, "default/chunks/").await.len(), 100);
    }
}

/// A full disk is `NoSpace`, leaves no half object, and the store works again when there is room.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_no_space() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("not root: a disk of our own cannot be mounted; the errno mapping is tested in src/error.rs");
        return;
    };
    let s = DirStore::new(&disk.path.join("store"), 1);
    let chunk = Bytes::from(vec![5u8; 1 << 20]);
    let mut stored = Vec::new();
    let full = loop {
        let key = hash_key(stored.len() as u64);
        match s.put(&key, chunk.clone(), NEW).await {
            Ok(_) => stored.push(key),
            Err(e) => break e,
        }
        assert!(stored.len() < 64, "the disk has 8 MiB");
    };
    assert_eq!(full.kind(), Kind::NoSpace, "{full}");
    assert_eq!(keys_under(&s, "default/chunks/").await.len(), stored.len());
    s.delete(&stored[0]).await.unwrap();
    s.put(&stored[0], chunk.clone(), NEW).await.unwrap();
    for key in &stored {
        assert!(s.get(key).await.unwrap() == chunk);
    }
}

/// Unmounting the disk below a store is `Unavailable` at once, and nothing lands in the mount point.
#[tokio::test(flavor = "multi_thread")]
async fn an_unmounted_disk_is_unavailable() {
    let Some(mut disk) = SmallDisk::mount() else {
        eprintln!("not root: a disk of our own cannot be mounted; src/store/dir/tests.rs moves directories instead");
        return;
    };
    let s = DirStore::new(&disk.path, 1);
    s.put("default/x", body("1"), OVER).await.unwrap();
    disk.unmount();
    assert_eq!(s.get("default/x").await.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(s.put("default/y", body("2"), OVER).await.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(s.list("default/", None).await.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(std::fs::read_dir(&disk.path).unwrap().count(), 0);
}

/// A tmpfs of 8 MiB.
struct SmallDisk {
    path: std::path::PathBuf,
    mounted: bool,
    _dir: tempfile::TempDir,
}

impl SmallDisk {
    fn mount() -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::create_dir(&path).unwrap();
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(&path).status();
        assert!(mounted.unwrap().success(), "mounting a tmpfs as root");
        Some(SmallDisk { path, mounted: true, _dir: dir })
    }

    fn unmount(&mut self) {
        if std::mem::take(&mut self.mounted) {
            assert!(std::process::Command::new("umount").arg(&self.path).status().unwrap().success());
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.unmount();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_on_seaweedfs() {
    let server = weed::Weed::start();
    let s = S3Store::new("conformance", &server.options()).unwrap();
    assert_eq!(s.get("default/store.json").await.unwrap_err().kind(), Kind::NotFound, "before the bucket is made");
    assert!(s.list("", None).await.unwrap().objects.is_empty());
    conformance(&s).await;

    let wrong = S3Options { secret_access_key: Some("not the secret".into()), ..server.options() };
    let e = S3Store::new("conformance", &wrong).unwrap().get("default/store.json").await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unauthorized, "{e}");
    assert!(e.hint_text().unwrap().contains("TCFS_S3_SECRET_ACCESS_KEY"));
}

/// The server dies in the middle of work and comes back: calls end in time and say what happened, nothing
/// acknowledged is lost, and the same store object works on.
#[tokio::test(flavor = "multi_thread")]
async fn s3_survives_its_server() {
    let mut server = weed::Weed::start();
    let options = S3Options { total_timeout: Duration::from_secs(8), tries: 3, ..server.options() };
    let s = Arc::new(S3Store::new("survivor", &options).unwrap());
    s.put("default/chunks/first", body("x"), OVER).await.unwrap();
    let writer = tokio::spawn({
        let s = s.clone();
        async move {
            let mut acknowledged = Vec::new();
            for n in 0.. {
                let key = hash_key(n);
                match s.put(&key, body(&key), OVER).await {
                    Ok(_) => acknowledged.push(key),
                    Err(e) => return (acknowledged, e),
                }
            }
            unreachable!()
        }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    server.kill();
    let (acknowledged, e) = writer.await.unwrap();
    assert!(matches!(e.kind(), Kind::Unavailable | Kind::Timeout), "{e}");
    assert!(acknowledged.len() > 5, "it was killed while it worked");
    let begun = Instant::now();
    assert_eq!(s.get("default/chunks/first").await.unwrap_err().kind(), Kind::Unavailable);
    assert!(begun.elapsed() < Duration::from_secs(8), "a refused connection is known at once: {:?}", begun.elapsed());
    server.restart();
    for key in &acknowledged {
        assert_eq!(s.get(key).await.unwrap(), key.as_str());
    }
    s.put("default/chunks/second", body("y"), OVER).await.unwrap();
}

/// Publishing rates, printed for people: `cargo test --test store_conformance rates -- --nocapture` with TCFS_SLOW=1.
/// The short form only checks that puts in flight together are not slower than one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn rates() {
    let slow = std::env::var_os("TCFS_SLOW").is_some();
    let n = if slow { 4000 } else { 200 };
    // On the disk that holds the build, not on a tmpfs: this is about fsync.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let s = DirStore::new(dir.path(), SystemClock.random());
    let (one, many) = (rate(&s, n, 1, 4096, 1).await, rate(&s, n, 16, 4096, 2).await);
    eprintln!("directory, 4 KiB puts: {one:.0}/s one at a time, {many:.0}/s with 16 in flight");
    assert!(many > one * 0.8, "{many:.0}/s with 16 in flight, {one:.0}/s one at a time");
    if slow {
        eprintln!("directory, 1 MiB puts: {:.0}/s with 16 in flight", rate(&s, 400, 16, 1 << 20, 3).await);
        eprintln!("directory, gets: {:.0} MB/s with 8 in flight", read_rate(&s, 8).await);
        let server = weed::Weed::start();
        let s = S3Store::new("rates", &server.options()).unwrap();
        s.put("default/canary/0", body("x"), OVER).await.unwrap();
        for (n, flight, size) in [(500, 1, 4096), (3000, 16, 4096), (3000, 32, 4096), (200, 16, 1 << 20), (20, 4, 16 << 20)] {
            eprintln!("SeaweedFS, {size} byte puts, {flight} in flight: {:.0}/s", rate(&s, n, flight, size, flight as u64).await);
        }
        eprintln!("SeaweedFS, gets: {:.0} MB/s with 8 in flight", read_rate(&s, 8).await);
    }
}

/// Megabytes a second, of all chunks that are there.
async fn read_rate(s: &dyn Store, in_flight: usize) -> f64 {
    let chunks = list_all(s, "default/chunks/").await.unwrap();
    let bytes: u64 = chunks.iter().map(|m| m.size).sum();
    let begun = Instant::now();
    futures_util::stream::iter(&chunks)
        .for_each_concurrent(in_flight, async |m| assert_eq!(s.get(&m.key).await.unwrap().len() as u64, m.size))
        .await;
    bytes as f64 / 1e6 / begun.elapsed().as_secs_f64()
}

/// Puts a second.
async fn rate(s: &dyn Store, n: usize, in_flight: usize, size: usize, salt: u64) -> f64 {
    let bodies: Vec<Bytes> = (0..n as u64)
        .map(|i| {
            let mut b = vec![0u8; size];
            fastrand::Rng::with_seed(salt << 32 | i).fill(&mut b);
            b.into()
        })
        .collect();
    let begun = Instant::now();
    futures_util::stream::iter(bodies)
        .for_each_concurrent(in_flight, async |b| {
            let key = format!("default/chunks/{}", blake3::hash(&b));
            s.put(&key, b, NEW).await.unwrap();
        })
        .await;
    n as f64 / begun.elapsed().as_secs_f64()
}
