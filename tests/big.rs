//! Large files and many entries: what an edit of a huge stub costs, and what a million entries cost.
//!
//! A quick run uses a smaller file and fewer entries; the limits per edit, of time and of memory are the same.
#![allow(clippy::unwrap_used)] // a failed call is a failed test

mod common;

use common::objects::{Author, Watch};
use common::{Mounted, World, count, native, slow, sys, until};
use serde_json::json;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// Long enough for 4 GiB on a slow and busy disk.
const BULK: Duration = Duration::from_secs(1200);

#[test]
fn one_byte_changed_in_a_large_stub_moves_few_chunks_and_little_memory() {
    drive_only!();
    let size = if slow() { 4096 * MIB } else { 256 * MIB };
    let edits = count(20, 100);
    let mut rng = common::rng();
    let w = World::new();
    let a = w.mount("ann");
    let mut f = File::create(a.path("huge")).unwrap();
    let mut part = vec![0u8; 4 << 20];
    let mut samples = vec![];
    for at in (0..size).step_by(part.len()) {
        rng.fill(&mut part);
        f.write_all(&part).unwrap();
        samples.push((at, part[0]));
    }
    drop(f);
    a.wait();
    let (_, peak) = sys::memory(a.pid());
    assert!(peak < 200 * MIB, "publishing took {} MiB of memory", peak / MIB);

    let b = w.mount("bob");
    assert_eq!(fs::metadata(b.path("huge")).unwrap().len(), size);
    let mut watch = Watch::chunks(&w.store());
    let (mut moved, mut changes) = (vec![], vec![]);
    for i in 0..edits {
        let at = rng.u64(..size);
        let f = OpenOptions::new().write(true).open(b.path("huge")).unwrap();
        let byte = rng.u8(..);
        f.write_all_at(&[byte], at).unwrap();
        drop(f);
        b.wait();
        let (fetched, put) = watch.take();
        if i == 0 {
            assert!(!fetched.is_empty() && !put.is_empty(), "the first edit of a stub moved nothing: this test does not see the chunks");
        }
        moved.push(fetched.len() + put.len());
        changes.push((at, byte));
    }
    let mut sorted = moved.clone();
    sorted.sort_unstable();
    let (median, most) = (sorted[edits / 2], sorted[edits - 1]);
    let (_, peak) = sys::memory(b.pid());
    println!("{edits} edits in {} MiB: chunks fetched and put, median {median}, most {most}; peak memory {} MiB", size / MIB, peak / MIB);
    assert!(median <= 2 && most <= 6, "chunks moved per edit: {moved:?}");
    assert!(peak < 200 * MIB, "peak memory {} MiB", peak / MIB);

    // The edits arrived, and nothing else changed. Later edits of one place count.
    let byte = |m: &Mounted, at: u64| {
        let mut one = [0u8];
        File::open(m.path("huge")).and_then(|f| f.read_exact_at(&mut one, at)).map(|()| one[0]).ok()
    };
    let expected = |at: u64, first: u8| changes.iter().rev().find(|(c, _)| *c == at).map_or(first, |(_, b)| *b);
    until("the last edit arrives", Duration::from_secs(60), || (byte(&a, changes[edits - 1].0)? == changes[edits - 1].1).then_some(()));
    for (at, first) in samples.iter().chain(&changes) {
        let want = expected(*at, *first);
        assert_eq!((byte(&a, *at), byte(&b, *at)), (Some(want), Some(want)), "at {at}");
    }
}

/// Publishes `n` small files as another machine: `many/d<thousand>/f<number>`.
fn publish_many(w: &World, n: usize) {
    let mut zoe = Author::new(&w.store(), "zoe");
    let kind = zoe.file("many/d0000/f0000000", b"one small content for all\n");
    let template = zoe.record("PATH", kind).to_string();
    let dirs = (0..n.div_ceil(1000)).map(|d| zoe.record(&format!("many/d{d:04}"), json!("dir")).to_string());
    let mut lines: Vec<String> = std::iter::once(zoe.record("many", json!("dir")).to_string()).chain(dirs).collect();
    for i in 0..n {
        lines.push(template.replace("PATH", &format!("many/d{:04}/f{i:07}", i / 1000)));
        if lines.len() >= 10_000 {
            zoe.batch(lines.drain(..));
        }
    }
    zoe.batch(lines);
}

fn find(m: &Mounted) -> usize {
    let done = common::cli::run(Command::new("find").arg(m.path("many")).args(["-name", "f*", "-printf", "."]), BULK).ok();
    println!("find took {:?}", done.took);
    done.stdout.len()
}

#[test]
fn very_many_entries_mount_at_once_and_take_little_memory() {
    drive_only!();
    let n = count(100_000, 1_000_000);
    let w = World::new();
    let a = w.mount("ann");
    publish_many(&w, n);
    let start = Instant::now();
    let last = a.path(format!("many/d{:04}/f{:07}", (n - 1) / 1000, n - 1));
    until("all records are applied", BULK, || last.exists().then_some(()));
    println!("{n} entries applied in {:?}", start.elapsed());
    let mut times = vec![];
    for _ in 0..10 {
        a.unmount();
        times.push(a.mount());
        assert!(last.exists());
    }
    times.sort();
    println!("mounting: {times:?}");
    assert!(times[9] < Duration::from_secs(2), "mounting took up to {:?}", times[9]);
    assert_eq!(find(&a), n);
    let (now, _) = sys::memory(a.pid());
    println!("resident after find: {} MiB", now / MIB);
    assert!(now < 300 * MIB, "resident memory after find is {} MiB", now / MIB);
    assert_eq!(fs::read(&last).unwrap(), b"one small content for all\n");
}

#[test]
fn a_new_device_with_very_many_entries_starts_from_a_snapshot() {
    drive_only!();
    let n = count(100_000, 1_000_000);
    let w = World::new();
    let a = w.mount("ann");
    publish_many(&w, n);
    let snapshots = w.store().join("default/snapshots");
    let all = || native_find(&snapshots);
    let last = format!("many/d{:04}/f{:07}", (n - 1) / 1000, n - 1);
    until("all records are applied", BULK, || a.path(&last).exists().then_some(()));
    // Some are written on the way, the last of them when most is there.
    let newest = until("a snapshot is written", BULK, || all().into_iter().max());
    println!("snapshots while {n} entries came in: {} bytes", newest.0);
    let (_, peak) = sys::memory(a.pid());
    println!("peak memory of who wrote it: {} MiB", peak / MIB);
    assert!(peak < 1024 * MIB, "peak memory {} MiB", peak / MIB);
    for (by, name) in [("a snapshot", "bob"), ("the logs", "cat")] {
        if by == "the logs" {
            a.unmount();
            fs::remove_dir_all(&snapshots).unwrap();
        }
        let start = Instant::now();
        let m = w.mount(name);
        println!("by {by}: mounted after {:?}", start.elapsed());
        until("all entries are there", BULK, || m.path(&last).exists().then_some(()));
        println!("by {by}: the last one is there after {:?}", start.elapsed());
        until("all entries are there", BULK, || (count_entries(&m) == n).then_some(()));
        println!("by {by}: a complete find after {:?}", start.elapsed());
        let (_, peak) = sys::memory(m.pid());
        println!("by {by}: peak memory {} MiB", peak / MIB);
        assert!(peak < 1024 * MIB, "peak memory {} MiB", peak / MIB);
        assert_eq!(m.log().contains("the snapshot is loaded"), by == "a snapshot");
        assert_eq!(fs::read(m.path(&last)).unwrap(), b"one small content for all\n");
    }
}

/// Files below a directory of the store, with their sizes.
fn native_find(dir: &std::path::Path) -> Vec<(u64, std::path::PathBuf)> {
    let Ok(entries) = fs::read_dir(dir) else { return vec![] };
    let found = entries.map(|e| e.unwrap().path()).flat_map(|p| match p.is_dir() {
        true => native_find(&p),
        false => vec![(p.metadata().map_or(0, |m| m.len()), p)],
    });
    found.filter(|(_, p)| p.file_name().is_some_and(|n| n.len() == 64)).collect()
}

/// Files of [`publish_many`] that `find` sees.
fn count_entries(m: &Mounted) -> usize {
    common::cli::run(Command::new("find").arg(m.path("many")).args(["-name", "f*", "-printf", "."]), BULK).ok().stdout.len()
}

#[test]
fn directory_with_very_many_files_is_moved_in_a_second() {
    let n = count(20_000, 100_000);
    let w = World::new();
    let a = w.mount("ann");
    if native() {
        for d in 0..n / 1000 {
            fs::create_dir_all(a.path(format!("many/d{d:04}"))).unwrap();
            for i in 0..1000 {
                File::create(a.path(format!("many/d{d:04}/f{:07}", d * 1000 + i))).unwrap();
            }
        }
    } else {
        publish_many(&w, n);
        let last = a.path(format!("many/d{:04}/f{:07}", (n - 1) / 1000, n - 1));
        until("all records are applied", BULK, || last.exists().then_some(()));
    }
    // The same once more for a directory with everything directly in it.
    fs::create_dir(a.path("flat")).unwrap();
    for i in 0..2000 {
        File::create(a.path(format!("flat/f{i}"))).unwrap();
    }
    for (from, to) in [("many", "moved"), ("flat", "flat2")] {
        let start = Instant::now();
        fs::rename(a.path(from), a.path(to)).unwrap();
        let took = start.elapsed();
        println!("mv of {from}: {took:?}");
        assert!(took < Duration::from_secs(1), "moving {from} took {took:?}");
        assert!(!a.path(from).exists());
    }
    fs::rename(a.path("moved"), a.path("many")).unwrap();
    fs::rename(a.path("many"), a.path("again")).unwrap();
    assert_eq!(fs::read_dir(a.path("flat2")).unwrap().count(), 2000);
    a.remount();
    let files = common::mounted::walk_files(&a.path("again")).len();
    assert_eq!(files, n);
    a.wait();
    let b = w.mount("bob");
    until("the move arrives whole", BULK, || {
        (common::mounted::walk_files(&b.path("again")).len() == n && !b.path("many").exists()).then_some(())
    });
}

/// The records that these tests write by hand are what the program writes itself.
#[test]
fn records_written_by_hand_have_the_format_of_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let zoe = Author::new(dir.path(), "zoe");
    let kind = zoe.file("a/b", b"hello");
    for (path, kind) in [("a", json!("dir")), ("a/b", kind), ("s", json!({ "symlink": { "target": "t" } })), ("gone", json!("tombstone"))] {
        let record = zoe.record(path, kind);
        let version: tcfs::model::version::Version = serde_json::from_value(record.clone()).unwrap_or_else(|e| panic!("{record}: {e}"));
        assert_eq!(serde_json::to_value(&version).unwrap(), record);
    }
}

/// The counter of chunks sees each read and each put once, also in directories made later.
#[test]
fn watch_counts_chunks_read_and_put() {
    let dir = tempfile::tempdir().unwrap();
    let zoe = Author::new(dir.path(), "zoe");
    zoe.file("a", b"one");
    let mut watch = Watch::chunks(dir.path());
    let path = |bytes: &[u8]| {
        let hash = blake3::hash(bytes).to_hex();
        dir.path().join(format!("default/chunks/{}/{hash}", &hash[..2]))
    };
    assert_eq!(watch.take(), Default::default());
    assert!(fs::metadata(path(b"one")).is_ok());
    assert_eq!(watch.take(), Default::default(), "asking whether a chunk exists is not fetching it");
    fs::read(path(b"one")).unwrap();
    fs::read(path(b"one")).unwrap();
    zoe.file("b", b"two");
    let (read, put) = watch.take();
    assert_eq!((read.len(), put.len()), (1, 1));
    fs::read(path(b"two")).unwrap();
    assert_eq!(watch.take().0.len(), 1);
}
