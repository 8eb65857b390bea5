//! Two machines, each with a real mount, on one directory store.
//!
//! Here are the rows of the merge table that a person meets in daily work, on real mounts; all rows run on the fleet inside
//! one process elsewhere. Machines that "cannot hear each other" have a store that does not answer.
#![allow(clippy::unwrap_used)] // a failed call is a failed test

mod common;

use common::{Mounted, World, cli, native, sys, until, within};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest until a change is seen elsewhere when nothing but polling tells of it, with room for a busy machine.
const SEEN: Duration = Duration::from_secs(20);

/// Every file with its text, every empty directory with a slash.
fn listing(root: &Path) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(d) = todo.pop() {
        let Ok(entries) = fs::read_dir(&d) else { continue };
        let mut any = false;
        for e in entries.flatten() {
            any = true;
            let p = e.path();
            let rel = p.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            match fs::symlink_metadata(&p) {
                Ok(m) if m.is_dir() => todo.push(p),
                Ok(m) if m.is_symlink() => drop(out.insert(rel, format!("-> {}", fs::read_link(&p).unwrap_or_default().display()))),
                Ok(_) => drop(out.insert(rel, fs::read_to_string(&p).unwrap_or_else(|e| format!("unreadable: {e}")))),
                Err(_) => {}
            }
        }
        if !any && d != root {
            out.insert(format!("{}/", d.strip_prefix(root).unwrap().display()), String::new());
        }
    }
    out
}

fn expect(want: &[(&str, &str)]) -> BTreeMap<String, String> {
    want.iter().map(|(p, t)| (p.to_string(), t.to_string())).collect()
}

/// Waits until each machine shows exactly this.
#[track_caller]
fn all_show(what: &str, machines: &[&Mounted], want: &[(&str, &str)]) {
    let want = expect(want);
    for m in machines {
        let start = Instant::now();
        let mut have = listing(m.root());
        while have != want && start.elapsed() < SEEN {
            std::thread::sleep(Duration::from_millis(50));
            have = listing(m.root());
        }
        assert_eq!(have, want, "{what}: {} shows something else after {SEEN:?}", m.root().display());
    }
}

fn down(machines: &[&Mounted]) {
    for m in machines {
        m.fault(Some(json!({ "mode": "down" })));
    }
}

/// Lets them hear each other again, the first one first, so that it is the first to publish.
fn up(first: &Mounted, second: &Mounted) {
    for m in [first, second] {
        m.fault(None);
        m.wait();
    }
}

type Act = fn(&Mounted);

/// One row: both start from `start`, act without hearing each other, and then both show `want`.
struct Row {
    number: u32,
    start: &'static [(&'static str, &'static str)],
    ann: Act,
    bob: Act,
    want: &'static [(&'static str, &'static str)],
}

fn put(m: &Mounted, rel: &str, text: &str) {
    if let Some(d) = m.path(rel).parent() {
        fs::create_dir_all(d).unwrap();
    }
    fs::write(m.path(rel), text).unwrap();
}

const ROWS: &[Row] = &[
    Row {
        number: 1,
        start: &[("d/b", "b")],
        ann: |m| put(m, "d/c", "c"),
        bob: |m| put(m, "d/e", "e"),
        want: &[("d/b", "b"), ("d/c", "c"), ("d/e", "e")],
    },
    Row {
        number: 3,
        start: &[("f", "start")],
        ann: |m| put(m, "f", "of ann"),
        bob: |m| put(m, "f", "of bob"),
        want: &[("f", "of ann"), ("f.conflict-bob", "of bob")],
    },
    Row {
        number: 4,
        start: &[],
        ann: |m| put(m, "f", "of ann"),
        bob: |m| put(m, "f", "of bob"),
        want: &[("f", "of ann"), ("f.conflict-bob", "of bob")],
    },
    Row {
        number: 8,
        start: &[("f", "start")],
        ann: |m| fs::remove_file(m.path("f")).unwrap(),
        bob: |m| put(m, "f", "of bob"),
        want: &[("f", "of bob")],
    },
    Row {
        number: 13,
        start: &[("f", "start")],
        ann: |m| fs::rename(m.path("f"), m.path("g")).unwrap(),
        bob: |m| put(m, "f", "of bob"),
        want: &[("g", "of bob")],
    },
    Row {
        number: 14,
        start: &[("d/a", "a"), ("d/b/c", "c")],
        ann: |m| fs::rename(m.path("d"), m.path("e")).unwrap(),
        bob: |m| put(m, "d/n", "n"),
        want: &[("e/a", "a"), ("e/b/c", "c"), ("e/n", "n")],
    },
    Row {
        number: 21,
        start: &[("f", "start")],
        ann: |m| put(m, "f", "of ann"),
        bob: |m| {
            put(m, "t", "of bob");
            fs::rename(m.path("t"), m.path("f")).unwrap();
        },
        want: &[("f", "of ann"), ("f.conflict-bob", "of bob")],
    },
];

fn run_rows(ann_first: bool) {
    for row in ROWS {
        let w = World::new();
        let (a, b) = (w.mount("ann"), w.mount("bob"));
        for (p, t) in row.start {
            put(&a, p, t);
        }
        a.wait();
        let what = format!("row {}, {} publishes first", row.number, if ann_first { "ann" } else { "bob" });
        all_show(&format!("{what}, before"), &[&a, &b], row.start);
        down(&[&a, &b]);
        (row.ann)(&a);
        (row.bob)(&b);
        if ann_first {
            up(&a, &b)
        } else {
            up(&b, &a)
        }
        all_show(&what, &[&a, &b], row.want);
        a.remount();
        b.remount();
        all_show(&format!("{what}, after remounts"), &[&a, &b], row.want);
    }
}

#[test]
fn rows_of_the_merge_table_when_ann_publishes_first() {
    drive_only!();
    run_rows(true);
}

#[test]
fn rows_of_the_merge_table_when_bob_publishes_first() {
    drive_only!();
    run_rows(false);
}

/// A world in which `f` is ann's and `f.conflict-bob` is bob's, in `dir`.
fn conflict(dir: &str) -> (Mounted, Mounted) {
    let w = World::new();
    let (a, b) = (w.mount("ann"), w.mount("bob"));
    let f = format!("{dir}f");
    put(&a, &f, "start");
    a.wait();
    all_show("before", &[&a, &b], &[(&f, "start")]);
    down(&[&a, &b]);
    put(&a, &f, "of ann");
    put(&b, &f, "of bob");
    up(&a, &b);
    all_show("the conflict", &[&a, &b], &[(&f, "of ann"), (&format!("{dir}f.conflict-bob"), "of bob")]);
    for m in [&a, &b] {
        assert_eq!(conflicts(m), 1, "conflicts in the status of {}", m.root().display());
    }
    (a, b)
}

fn conflicts(m: &Mounted) -> u64 {
    let s = m.status();
    s["conflicts"].as_u64().unwrap_or_else(|| panic!("no conflicts in {s}"))
}

#[track_caller]
fn resolved(what: &str, a: &Mounted, b: &Mounted, want: &[(&str, &str)]) {
    all_show(what, &[a, b], want);
    for m in [a, b] {
        until("no conflict is listed", SEEN, || (conflicts(m) == 0).then_some(()));
    }
    a.remount();
    b.remount();
    all_show(&format!("{what}, after remounts"), &[a, b], want);
}

#[test]
fn row_29_removing_the_sibling_ends_the_conflict_everywhere() {
    drive_only!();
    let (a, b) = conflict("");
    fs::remove_file(a.path("f.conflict-bob")).unwrap();
    resolved("row 29", &a, &b, &[("f", "of ann")]);
}

#[test]
fn row_30_moving_the_sibling_over_the_file_takes_its_content() {
    drive_only!();
    let (a, b) = conflict("");
    fs::rename(b.path("f.conflict-bob"), b.path("f")).unwrap();
    resolved("row 30", &a, &b, &[("f", "of bob")]);
}

#[test]
fn row_31_removing_the_file_gives_its_name_to_the_other() {
    drive_only!();
    let (a, b) = conflict("");
    fs::remove_file(a.path("f")).unwrap();
    // The old name of the sibling is gone from the list and still resolves, for whoever is about to use it.
    assert_eq!(listing(a.root()), expect(&[("f", "of bob")]));
    assert_eq!(fs::read(a.path("f.conflict-bob")).unwrap(), b"of bob");
    if common::slow() {
        // Nor does the kernel keep it in mind for longer than the minute.
        until("the old name is gone", Duration::from_secs(90), || fs::metadata(a.path("f.conflict-bob")).is_err().then_some(()));
    }
    resolved("row 31", &a, &b, &[("f", "of bob")]);
}

#[test]
fn row_44_one_machine_can_have_two_heads_of_one_path() {
    drive_only!();
    let (a, b) = conflict("");
    put(&b, "f", "new of bob");
    b.wait();
    all_show("row 44", &[&a, &b], &[("f", "new of bob"), ("f.conflict-bob", "of bob")]);
}

#[test]
fn row_50_removing_the_directory_removes_both_everywhere() {
    drive_only!();
    let (a, b) = conflict("d/");
    cli::sh(a.root(), "rm -r d", &[]).ok();
    resolved("row 50", &a, &b, &[]);
    // Both are still to be had.
    let history = a.cli(&["history", "d/f", "--json"]).ok().json();
    let writers: BTreeSet<&str> = history.iter().filter(|v| v["size"] == 6).filter_map(|v| v["device"]["name"].as_str()).collect();
    assert_eq!(writers, BTreeSet::from(["ann", "bob"]), "whose texts of six bytes are in {history:?}");
}

#[test]
fn changes_reach_the_other_machine_within_the_polling_time() {
    drive_only!();
    let w = World::new();
    let (a, b) = (w.mount("ann"), w.mount("bob"));
    let mut times = vec![];
    for i in 0..10 {
        let (from, to) = if i % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let text = format!("text {i}");
        put(from, "f", &text);
        let start = Instant::now();
        until("the text arrives", Duration::from_secs(6), || (fs::read_to_string(to.path("f")).ok()? == text).then_some(()));
        times.push(start.elapsed());
    }
    times.sort();
    println!("close to visible elsewhere: median {:?}, all {times:?}", times[times.len() / 2]);
    // Deletes, renames, modes, attributes and links travel too.
    cli::sh(
        a.root(),
        "mkdir -p d/e && echo x >d/e/f && chmod 750 d/e/f && ln -s e/f d/l && setfattr -n user.k -v val d/e/f && mv f g",
        &[],
    )
    .ok();
    until("all of it arrives", SEEN, || {
        let m = fs::symlink_metadata(b.path("d/e/f")).ok()?;
        let right = m.mode() & 0o777 == 0o750
            && fs::read_link(b.path("d/l")).ok()?.to_str()? == "e/f"
            && sys::get_xattr(&b.path("d/e/f"), "user.k").ok()? == b"val"
            && b.path("g").exists()
            && !b.path("f").exists();
        right.then_some(())
    });
    fs::remove_dir_all(b.path("d")).unwrap();
    until("the removal arrives", SEEN, || (!a.path("d").exists()).then_some(()));
}

#[test]
fn stub_reads_its_bytes_only_when_it_is_read() {
    drive_only!();
    let w = World::new();
    let a = w.mount("ann");
    let mut bytes = vec![0u8; 20 << 20];
    fastrand::Rng::with_seed(4).fill(&mut bytes);
    fs::write(a.path("big"), &bytes).unwrap();
    a.wait();
    let b = w.mount("bob");
    let mut watch = common::objects::Watch::chunks(&w.store());
    assert_eq!(fs::metadata(b.path("big")).unwrap().len(), bytes.len() as u64);
    cli::sh(b.root(), "ls -lR . && find . -size +1 && du -s .", &[]).ok();
    assert_eq!(watch.take().0.len(), 0, "listing fetched chunks");
    let f = File::open(b.path("big")).unwrap();
    let mut some = [0u8; 4096];
    f.read_exact_at(&mut some, 11 << 20).unwrap();
    assert!(some == bytes[11 << 20..(11 << 20) + 4096]);
    assert!(!watch.take().0.is_empty(), "nothing was fetched: this test does not see what it should");
    assert!(fs::read(b.path("big")).unwrap() == bytes);
    drop(f);
    watch.take();
    assert!(fs::read(b.path("big")).unwrap() == bytes);
    assert_eq!(watch.take().0.len(), 0, "a hydrated file was fetched again");
    // Given back and fetched again.
    b.cli(&["unsync", b.path("big").to_str().unwrap()]).ok();
    sys::drop_caches();
    assert!(fs::read(b.path("big")).unwrap() == bytes);
    assert!(!watch.take().0.is_empty(), "unsync gave nothing back");
}

#[test]
fn open_handle_keeps_the_version_it_opened() {
    drive_only!();
    let w = World::new();
    let (a, b) = (w.mount("ann"), w.mount("bob"));
    put(&a, "f", &"old ".repeat(100_000));
    a.wait();
    until("it arrives", SEEN, || b.path("f").exists().then_some(()));
    let f = File::open(b.path("f")).unwrap();
    let ino = f.metadata().unwrap().ino();
    put(&a, "f", &"new ".repeat(50_000));
    until("the new one arrives", SEEN, || (fs::metadata(b.path("f")).ok()?.len() == 200_000).then_some(()));
    assert_ne!(fs::metadata(b.path("f")).unwrap().ino(), ino);
    let mut text = vec![0u8; 400_000];
    f.read_exact_at(&mut text, 0).unwrap();
    assert!(text.chunks(4).all(|c| c == b"old "), "the handle shows something else now");
    assert!(fs::read(b.path("f")).unwrap().chunks(4).all(|c| c == b"new "));
}

#[test]
fn file_being_written_when_another_version_arrives_becomes_a_sibling() {
    drive_only!();
    let w = World::new();
    let (a, b) = (w.mount("ann"), w.mount("bob"));
    put(&a, "f", "start");
    a.wait();
    until("it arrives", SEEN, || b.path("f").exists().then_some(()));
    let mut open = OpenOptions::new().append(true).open(b.path("f")).unwrap();
    open.write_all(b" and more of bob").unwrap();
    put(&a, "f", "of ann");
    a.wait();
    put(&a, "mark", "");
    until("what follows arrives", SEEN, || b.path("mark").exists().then_some(()));
    open.write_all(b", to the end").unwrap();
    drop(open);
    b.wait();
    all_show("", &[&a, &b], &[("f", "of ann"), ("f.conflict-bob", "start and more of bob, to the end"), ("mark", "")]);
}

#[test]
fn both_write_many_different_files_at_once_and_agree() {
    let w = World::new();
    let (a, b) = (w.mount("ann"), w.mount("bob"));
    std::thread::scope(|s| {
        for (m, name) in [(&a, "ann"), (&b, "bob")] {
            s.spawn(move || {
                for i in 0..300 {
                    put(m, &format!("shared/d{}/{name}{i}", i % 7), &format!("{name} {i}"));
                }
            });
        }
    });
    a.wait();
    b.wait();
    let complete =
        |m: &Mounted| until("600 files are there", Duration::from_secs(60), || Some(listing(m.root())).filter(|l| l.len() == 600));
    assert_eq!(complete(&a), complete(&b));
}

#[test]
fn unmounting_with_a_store_that_is_down_does_not_hang_or_lose() {
    if native() {
        return; // there is no store to be down
    }
    let w = World::new();
    let (a, b) = (w.mount("ann"), w.mount("bob"));
    down(&[&a]);
    put(&a, "f", "kept");
    let start = Instant::now();
    a.unmount();
    assert!(start.elapsed() < Duration::from_secs(30), "unmounting took {:?}", start.elapsed());
    a.mount();
    let p = a.path("f");
    assert_eq!(within("reading after the mount", Duration::from_secs(10), move || fs::read(p).unwrap()), b"kept");
    a.fault(None);
    a.wait();
    all_show("after the store came back", &[&a, &b], &[("f", "kept")]);
}
