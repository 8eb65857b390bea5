//! Snapshots: who joins by one has what who joins by the logs has; one that is damaged, incomplete or wrong is passed over;
//! a kill at any moment of loading, and writers that go on meanwhile, change nothing of that.

use super::*;
use bytes::Bytes;
use tcfs::content::codec::LinesWriter;
use tcfs::model::snapshot::{Header, Line, Tally};
use tcfs::model::{Entry, RelPath};

const DIR: &str = "default/snapshots/";

async fn snapshots(s: &Witness) -> Vec<String> {
    s.inner.list(DIR, None).await.unwrap().objects.into_iter().map(|o| o.key).collect()
}

async fn write(d: &Device) -> String {
    d.fleet.write_snapshot().await.unwrap().expect("the outbox is empty")
}

/// A device that joins, and whether it did so by a snapshot; what it was told.
async fn join(name: &str, s: &Arc<Witness>) -> (Device, u64, Vec<String>) {
    let d = Device::new(name, s.clone());
    let done = d.fleet.catch_up().await.unwrap();
    (d, done.batches, done.problems)
}

/// The same without any snapshot.
async fn join_by_logs(name: &str, s: &Arc<Witness>) -> Device {
    let mut hidden = Vec::new();
    for key in snapshots(s).await {
        hidden.push((key.clone(), s.inner.get(&key).await.unwrap()));
        s.inner.delete(&key).await.unwrap();
    }
    let (d, batches, problems) = join(name, s).await;
    assert!(batches > 0 && problems.is_empty());
    for (key, body) in hidden {
        s.inner.put(&key, body, PutMode::Overwrite).await.unwrap();
    }
    d
}

fn cursors(d: &Device) -> BTreeMap<String, u64> {
    let mut all = d.fleet.cursors().unwrap();
    all.retain(|_, seq| *seq > 0);
    all
}

async fn assert_same(a: &Device, b: &Device) {
    assert_eq!(a.entries(), b.entries());
    assert_eq!(a.ls().await, b.ls().await);
    assert_eq!(cursors(a), cursors(b));
    assert_eq!(a.parked(), b.parked());
}

/// Two devices that have done a bit of everything, and are at rest.
async fn fleet() -> (Arc<Witness>, Device, Device) {
    let s = store();
    let (a, b) = (Device::new("ann", s.clone()), Device::new("bob", s.clone()));
    a.mkdir("empty");
    a.mkdir("gone");
    a.write("gone/f", "f");
    a.write("both", "1");
    a.write("d/e/deep", "deep");
    a.write("d/moved", "moved");
    settle(&[&a, &b]).await;
    a.write("both", "ann");
    b.write("both", "bob");
    a.rm("gone/f");
    a.rm("gone");
    b.mv("d/moved", "there");
    b.chmod("d/e/deep", 0o600);
    a.write("beside", "edit");
    settle(&[&a, &b]).await;
    b.rm("beside");
    a.write("beside", "stays");
    settle(&[&a, &b]).await;
    a.write("d/e/deep", "deeper");
    settle(&[&a, &b]).await;
    (s, a, b)
}

#[tokio::test]
async fn who_joins_by_a_snapshot_has_what_who_joins_by_the_logs_has() {
    let (s, a, b) = fleet().await;
    let key = write(&a).await;
    let logs = join_by_logs("lou", &s).await;
    let (snap, batches, problems) = join("sue", &s).await;
    assert_eq!((batches, problems), (0, vec![]), "the logs were read");
    assert_same(&snap, &logs).await;
    assert!(snap.entries()["beside"].tombstones().next().is_some(), "hidden heads came along");
    assert!(snap.entries()["gone/f"].tombstones().next().is_some(), "tombstones came along");
    assert_eq!(snap.entries()["both"].live().count(), 2);
    // What was replaced lately can be brought back there too.
    let past = snap.history();
    for v in logs.history() {
        assert!(past.contains(&v), "{v:?} is not in the history");
    }
    // Life goes on from there, in both directions.
    snap.write("both", "sue");
    snap.rm("there");
    b.write("new", "new");
    a.write("gone/again", "again");
    settle(&[&a, &b, &logs, &snap]).await;
    assert_eq!(snap.entries(), logs.entries());
    assert_eq!(snapshots(&s).await, [key]);
}

#[tokio::test]
async fn none_is_written_while_something_is_in_the_outbox() {
    let (s, a, _) = fleet().await;
    a.write("late", "late");
    assert_eq!(a.fleet.write_snapshot().await.unwrap(), None);
    assert_eq!(snapshots(&s).await, Vec::<String>::new());
    a.publish().await.unwrap();
    write(&a).await;
}

#[tokio::test]
async fn of_several_the_one_with_the_most_is_used_whoever_wrote_it_when() {
    let (s, a, b) = fleet().await;
    let old = write(&a).await;
    b.write("later", "later");
    b.publish().await.unwrap();
    let new = write(&b).await;
    // Again, so that it is the one that was put last.
    let body = s.inner.get(&old).await.unwrap();
    s.inner.put(&old, body, PutMode::Overwrite).await.unwrap();
    assert_eq!(snapshots(&s).await.len(), 2);
    let (c, batches, problems) = join("cat", &s).await;
    assert_eq!((batches, problems), (0, vec![]));
    assert_eq!(c.ls().await["later"], "later");
    // The other one does, too.
    s.inner.delete(&new).await.unwrap();
    let (d, batches, problems) = join("dan", &s).await;
    assert_eq!((batches, problems), (1, vec![]));
    assert_same(&c, &d).await;
}

#[tokio::test]
async fn two_writers_at_once_are_harmless() {
    let (s, a, b) = fleet().await;
    let (x, y) = tokio::join!(a.fleet.write_snapshot(), b.fleet.write_snapshot());
    assert!(x.unwrap().is_some() && y.unwrap().is_some());
    let (c, batches, problems) = join("cat", &s).await;
    assert_eq!((batches, problems), (0, vec![]));
    assert_same(&c, &join_by_logs("lou", &s).await).await;
}

/// The lines of a snapshot, and back.
fn lines(body: &[u8]) -> Vec<String> {
    let text = String::from_utf8(codec::decode_lines("snapshot", body, 1 << 30).unwrap()).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn frame<L: AsRef<str>>(lines: &[L]) -> Bytes {
    let mut w = LinesWriter::new().unwrap();
    lines.iter().for_each(|l| w.write(format!("{}\n", l.as_ref()).as_bytes()).unwrap());
    w.finish().unwrap()
}

/// With a last line that fits.
fn sealed(mut lines: Vec<String>) -> Bytes {
    lines.pop();
    let mut tally = Tally::default();
    lines.iter().for_each(|l| tally.add(format!("{l}\n").as_bytes()));
    lines.push(String::from_utf8(Line::End(tally.end()).encode().unwrap()).unwrap().trim_end().to_owned());
    frame(&lines)
}

fn header(lines: &[String]) -> Header {
    Header::parse(lines[0].as_bytes()).unwrap()
}

fn set_header(lines: &mut [String], h: &Header) {
    lines[0] = String::from_utf8(h.encode().unwrap()).unwrap().trim_end().to_owned();
}

#[tokio::test]
async fn damaged_incomplete_and_lying_ones_are_told_of_and_passed_over() {
    let (s, a, b) = fleet().await;
    let key = write(&a).await;
    let good = s.inner.get(&key).await.unwrap();
    s.inner.delete(&key).await.unwrap();
    let logs = join_by_logs("lou", &s).await;
    let text = lines(&good);
    let changed = |f: &dyn Fn(&mut Vec<String>)| {
        let mut l = text.clone();
        f(&mut l);
        l
    };
    let last = |path: &str| {
        let (needle, start) = (format!("\"path\":\"{path}\""), "{\"v\":");
        text.iter().position(|l| l.starts_with(start) && l.contains(&needle)).unwrap()
    };
    let with_cursor = |id: &str, seq: u64| {
        changed(&|l| {
            let mut h = header(l);
            h.cursors.insert(id.to_owned(), seq);
            set_header(l, &h);
        })
    };
    let last_of_a = a.log().await.last().unwrap()[0].path.as_str().to_owned();
    let cases: Vec<(&str, Bytes)> = vec![
        ("not one whole zstd frame", Bytes::new()),
        ("not one whole zstd frame", good.slice(..good.len() / 2)),
        ("not one whole zstd frame", Bytes::from([&good[..], b"x"].concat())),
        ("does not decompress", {
            let mut body = good.to_vec();
            let at = body.len() - 2;
            body[at] ^= 1;
            body.into()
        }),
        ("not complete", frame(&text[..text.len() - 1])),
        ("not those that were written", frame(&changed(&|l| drop(l.remove(2))))),
        ("not those that were written", frame(&changed(&|l| l.swap(1, 2)))),
        ("not those that were written", frame(&changed(&|l| l.insert(2, l[2].clone())))),
        ("goes on after its end", frame(&[&text[..], &text[1..2]].concat())),
        ("/etc/passwd", sealed(changed(&|l| l[1] = l[1].replacen("\"path\":\"", "\"path\":\"/etc/passwd", 1)))),
        ("reading a snapshot", sealed(changed(&|l| l.insert(3, "{\"unheard\":{}}".into())))),
        ("reading a snapshot", sealed(changed(&|l| l.insert(3, l[0].clone())))),
        ("root", sealed(changed(&|l| l[last("empty")] = l[last("empty")].replacen("\"path\":\"empty\"", "\"path\":\"\"", 1)))),
        ("which is not in the store", sealed(with_cursor(&a.id(), 99))),
        ("which is not in the store", sealed(with_cursor("nobody-00000000", 1))),
        ("its last version of", sealed(changed(&|l| drop(l.remove(last(&last_of_a)))))),
        ("reading a snapshot", sealed(changed(&|l| l[0] = l[0].replacen("\"cursors\":{", "\"cursors\":{\"../x\":1,", 1)))),
        ("it has format 2", sealed(changed(&|l| l[0] = l[0].replacen("\"snapshot\":1", "\"snapshot\":2", 1)))),
        ("does not decompress", Bytes::from(zstd_bomb().to_vec())),
    ];
    for (n, (what, body)) in cases.into_iter().enumerate() {
        let bad = format!("{DIR}bad");
        s.inner.put(&bad, body.clone(), PutMode::Overwrite).await.unwrap();
        let (c, batches, problems) = join("cat", &s).await;
        assert!(batches > 0, "case {n}: {what}: used");
        if what != "does not decompress" {
            assert!(problems.len() == 1 && problems[0].contains(what) && problems[0].contains("bad"), "case {n}: {what}: {problems:?}");
        } else {
            assert_eq!(problems.len(), 1, "case {n}");
        }
        assert_same(&c, &logs).await;
        // Beside a good one, that one is used.
        s.inner.put(&key, good.clone(), PutMode::Overwrite).await.unwrap();
        s.inner.put(&bad, body, PutMode::Overwrite).await.unwrap();
        let (c, batches, _) = join("cat", &s).await;
        assert_eq!(batches, 0, "case {n}: {what}: the good one is not used");
        assert_same(&c, &logs).await;
        s.inner.delete(&key).await.unwrap();
        s.inner.delete(&bad).await.unwrap();
    }
    // Where only a bad one is, another is written.
    s.inner.put(&format!("{DIR}bad"), Bytes::from_static(b"bad"), PutMode::Overwrite).await.unwrap();
    let few = Options { snapshot_from: Some(5), ..Options::default() };
    let d = Device::with("dan", s.clone(), 9, few);
    d.fleet.catch_up().await.unwrap();
    assert!(d.fleet.snapshot_if_due().await.unwrap().is_some());
    let (c, batches, _) = join("cat", &s).await;
    assert_eq!(batches, 0);
    settle(&[&a, &b, &c, &d]).await;
}

#[tokio::test]
async fn a_snapshot_that_has_what_a_revoked_device_may_not_say_is_neither_used_nor_written() {
    let (s, a, b) = fleet().await;
    let key = write(&a).await;
    assert!(a.fleet.cursors().unwrap()[&b.id()] > 1);
    a.fleet.registry().revoke(&b.id(), 1, &a.id(), &*a.clock).await.unwrap();
    assert_eq!(a.fleet.write_snapshot().await.unwrap(), None);
    let (c, batches, problems) = join("cat", &s).await;
    assert!(batches > 0 && problems.is_empty());
    assert_eq!(c.fleet.cursors().unwrap()[&b.id()], 1);
    s.inner.delete(&key).await.unwrap();
    // Who never applied more of it writes one.
    write(&c).await;
    let (d, batches, _) = join("dan", &s).await;
    assert_eq!(batches, 0);
    assert_same(&c, &d).await;
}

/// More than a page of lines, and the names that must be there.
fn many(d: &Device, n: usize) {
    for i in 0..n {
        d.mkdir(&format!("many/d{}/x{i}", i % 7));
    }
}

#[tokio::test]
async fn a_kill_at_any_page_of_loading_leaves_a_device_that_starts_anew() {
    let (s, a, b) = fleet().await;
    many(&a, 1200);
    settle(&[&a, &b]).await;
    let key = write(&a).await;
    let body = s.inner.get(&key).await.unwrap();
    let logs = join_by_logs("lou", &s).await;
    let mut stopped = 0;
    for dies_after in 1..6 {
        for then in ["the same", "none", "a newer one", "damaged"] {
            let c = Device::new("cat", s.clone());
            c.write("own/note", "made before anything was heard");
            c.disk.dies_after.store(dies_after, Ordering::SeqCst);
            let done = c.fleet.catch_up().await;
            let died = done.is_err();
            stopped += usize::from(died);
            assert!(!died || cursors(&c).is_empty(), "a cursor is set before everything is there");
            match then {
                "none" => s.inner.delete(&key).await.unwrap(),
                "damaged" => drop(s.inner.put(&key, body.slice(1..), PutMode::Overwrite).await.unwrap()),
                "a newer one" => {
                    s.inner.delete(&key).await.unwrap();
                    write(&b).await;
                }
                _ => {}
            }
            c.disk.dies_after.store(0, Ordering::SeqCst);
            let c = c.crash().await;
            c.fleet.catch_up().await.unwrap();
            let mut entries = c.entries();
            assert!(entries.remove("own/note").is_some() && c.ls().await.contains_key("own/note"));
            assert_eq!(entries, logs.entries(), "killed after {dies_after} pages, then {then}");
            assert_eq!(cursors(&c), cursors(&logs));
            assert_eq!(c.outbox().len(), 1);
            for k in snapshots(&s).await {
                s.inner.delete(&k).await.unwrap();
            }
            s.inner.put(&key, body.clone(), PutMode::Overwrite).await.unwrap();
        }
    }
    assert!(stopped >= 12, "{stopped}");
}

#[tokio::test]
async fn work_done_before_joining_stands_beside_what_comes() {
    let (s, a, b) = fleet().await;
    write(&a).await;
    let c = Device::new("cat", s.clone());
    c.write("d/e/deep", "cat's");
    c.mkdir("there");
    c.write("there/own", "own");
    c.pull().await;
    let seen = settle(&[&a, &b, &c]).await;
    assert_eq!(seen["d/e/deep"], "deeper");
    assert_eq!(seen["d/e/deep.conflict-cat"], "cat's");
    let beside = seen.iter().find(|(name, _)| name.starts_with("there.conflict-"));
    assert_eq!((seen["there/own"].as_str(), beside.unwrap().1.as_str()), ("own", "moved"));
}

#[tokio::test]
async fn records_that_nobody_knows_yet_come_along() {
    let (s, a, b) = fleet().await;
    let odd = "{\"v\":99,\"kind\":\"hologram\",\"path\":\"h\"}\n{\"v\":1,\"kind\":{\"door\":{}},\"x\":\"\\u00e9\"}\n";
    let device = "eve-00000001";
    s.inner.put(&keys().batch(device, 1), codec::encode_lines(odd.as_bytes()).unwrap(), PutMode::Overwrite).await.unwrap();
    s.inner.put(&format!("tcfs-meta/devices/{device}.json"), Bytes::from_static(b"{broken"), PutMode::Overwrite).await.unwrap();
    settle(&[&a, &b]).await;
    assert_eq!(a.parked(), odd.lines().collect::<Vec<_>>());
    let key = write(&a).await;
    let logs = join_by_logs("lou", &s).await;
    let (c, batches, _) = join("cat", &s).await;
    assert_eq!(batches, 0);
    assert_same(&c, &logs).await;
    // From hand to hand.
    s.inner.delete(&key).await.unwrap();
    let key = write(&c).await;
    let (d, batches, _) = join("dan", &s).await;
    assert_eq!(batches, 0);
    assert_same(&c, &d).await;
    // A head of a kind that only its writer knows is one, too, whoever it comes from.
    let mut text = lines(&s.inner.get(&key).await.unwrap());
    text.insert(2, "{\"v\":2,\"path\":\"later\"}".into());
    s.inner.delete(&key).await.unwrap();
    for (n, name) in ["x", "y"].iter().enumerate() {
        s.inner.put(&format!("{DIR}{name}"), sealed(text.clone()), PutMode::Overwrite).await.unwrap();
        let (e, batches, problems) = join("eva", &s).await;
        assert_eq!((batches, problems), (0, vec![]));
        assert_eq!(e.parked().iter().filter(|t| **t == text[2]).count(), 1);
        if n == 1 {
            e.fleet.apply_parked().unwrap();
            assert_eq!(e.parked().len(), 3);
        }
    }
}

/// What this program has learned since is applied, not parked again.
#[tokio::test]
async fn a_record_parked_by_an_older_tcfs_is_applied_by_who_knows_it() {
    let (s, a, _b) = fleet().await;
    let key = write(&a).await;
    let mut text = lines(&s.inner.get(&key).await.unwrap());
    let record = text.iter().find(|l| l.contains("\"path\":\"empty\"")).unwrap().replace("\"path\":\"empty\"", "\"path\":\"was-parked\"");
    let parked = tcfs::model::snapshot::Parked { device: a.id(), seq: 1, line: 9, text: record };
    let at = text.len() - 1;
    text.insert(at, String::from_utf8(Line::Parked(parked).encode().unwrap()).unwrap().trim_end().to_owned());
    s.inner.put(&key, sealed(text), PutMode::Overwrite).await.unwrap();
    let (c, batches, problems) = join("cat", &s).await;
    assert_eq!((batches, problems, c.parked()), (0, vec![], vec![]));
    assert!(c.ls().await.contains_key("was-parked/"));
}

#[tokio::test]
async fn one_is_written_when_the_logs_have_grown_and_nobody_else_has() {
    let s = store();
    let few = |from| Options { snapshot_from: Some(from), ..Options::default() };
    let (a, b) = (Device::with("ann", s.clone(), 1, few(400)), Device::with("bob", s.clone(), 2, few(400)));
    a.mkdir("first");
    settle(&[&a, &b]).await;
    assert_eq!(a.fleet.snapshot_if_due().await.unwrap(), None, "one record is not worth a snapshot");
    many(&a, 700);
    settle(&[&a, &b]).await;
    let first = a.fleet.snapshot_if_due().await.unwrap().expect("the log has grown");
    assert_eq!(a.fleet.snapshot_if_due().await.unwrap(), None, "nothing came since");
    assert_eq!(b.fleet.snapshot_if_due().await.unwrap(), None, "there is one");
    assert_eq!(snapshots(&s).await, std::slice::from_ref(&first));
    // A new device counts from the one it started from.
    let c = Device::with("cat", s.clone(), 3, few(400));
    c.pull().await;
    assert_eq!(c.fleet.snapshot_if_due().await.unwrap(), None);
    // Small saves count by their batches.
    for i in 0..40 {
        b.mkdir(&format!("small/{i}"));
        b.publish().await.unwrap();
    }
    settle(&[&a, &b, &c]).await;
    let second = c.fleet.snapshot_if_due().await.unwrap().expect("the log has grown");
    assert_ne!(first, second);
    assert_eq!((a.fleet.snapshot_if_due().await.unwrap(), b.fleet.snapshot_if_due().await.unwrap()), (None, None));
    let (d, batches, _) = join("dan", &s).await;
    assert_eq!(batches, 0);
    assert_same(&d, &join_by_logs("lou", &s).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_taken_while_everybody_works_is_of_one_moment() {
    let s = store();
    let (a, b) = (Arc::new(Device::new("ann", s.clone())), Arc::new(Device::new("bob", s.clone())));
    let works = |d: Arc<Device>, name: &'static str| {
        tokio::spawn(async move {
            for i in 0..60 {
                // A pair that is always written, and moved, together with its count.
                d.write(&format!("{name}/{}", i % 5), format!("{i}"));
                if i % 3 == 0 {
                    d.mv(&format!("{name}/{}", i % 5), &format!("{name}/m{i}"));
                }
                if i % 10 == 9 {
                    d.rm(&format!("{name}/m{}", i - i % 3));
                }
                d.publish().await.unwrap();
                d.pull().await;
            }
        })
    };
    let workers = [works(a.clone(), "ann"), works(b.clone(), "bob")];
    let mut taken = std::collections::BTreeSet::new();
    while workers.iter().any(|w| !w.is_finished()) {
        for d in [&a, &b] {
            match d.fleet.write_snapshot().await {
                Ok(key) => taken.extend(key),
                Err(e) => panic!("{e}"),
            }
        }
        tokio::task::yield_now().await;
    }
    for w in workers {
        w.await.unwrap();
    }
    assert!(!taken.is_empty());
    settle(&[&a, &b]).await;
    let logs = join_by_logs("lou", &s).await;
    let bodies: Vec<(String, Bytes)> = {
        let mut all = Vec::new();
        for key in &taken {
            all.push((key.clone(), s.inner.get(key).await.unwrap()));
            s.inner.delete(key).await.unwrap();
        }
        all
    };
    let step = bodies.len().div_ceil(12);
    for (key, body) in bodies.into_iter().step_by(step) {
        // It holds what the logs say up to its cursors, neither less nor more.
        let text = lines(&body);
        let mut heads: BTreeMap<RelPath, Entry> = BTreeMap::new();
        for l in &text[1..text.len() - 1] {
            if let Line::Head(v) = Line::parse(1, l.as_bytes()).unwrap() {
                heads.entry(v.path.clone()).or_default().merge(*v);
            }
        }
        let mut said: BTreeMap<RelPath, Entry> = BTreeMap::new();
        for (device, seq) in header(&text).cursors {
            let of = if device == a.id() { &a } else { &b };
            for v in of.log().await.into_iter().take(seq as usize).flatten() {
                said.entry(v.path.clone()).or_default().merge(v);
            }
        }
        assert_eq!(heads, said, "{key}");
        s.inner.put(&key, body, PutMode::Overwrite).await.unwrap();
        let (c, _, problems) = join("cat", &s).await;
        assert_eq!(problems, Vec::<String>::new());
        assert_same(&c, &logs).await;
        s.inner.delete(&key).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_devices_write_one_by_themselves_and_a_new_one_starts_from_it() {
    let s = store();
    let few = Options { snapshot_from: Some(100), poll_interval: Some(Duration::from_millis(50)), ..Options::default() };
    let a = Device::with("ann", s.clone(), 1, few);
    many(&a, 300);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let running = tokio::spawn(a.fleet.clone().run(stopped));
    tokio::time::timeout(Duration::from_secs(120), async {
        while snapshots(&s).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("a snapshot is written");
    let (c, batches, _) = join("cat", &s).await;
    assert_eq!(batches, 0);
    assert_eq!(c.ls().await, a.ls().await);
    stop.send(true).unwrap();
    running.await.unwrap();
}
