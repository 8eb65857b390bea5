//! Power cuts: state, cache and store lie on an ext4 image; a reflinked copy of the image, taken while a program writes, is
//! what a disk would hold after the plug was pulled.
//!
//! Each such copy is opened: every fsynced byte is whole, no zeros stand where bytes were, no device takes itself for a clone.
//! Root only: loop mounts.
#![allow(clippy::unwrap_used)] // a failed call is a failed test

mod common;

use common::{World, cli, count, image::Image, native, tools, until};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What is promised and what is possible at one moment.
#[derive(Clone, Default)]
struct Truth {
    /// Log file → bytes synced. Logs only grow.
    logs: BTreeMap<String, usize>,
    /// Document → lowest generation that a directory fsync made durable.
    docs: BTreeMap<String, u32>,
    /// Generation synced of each range of the edited file.
    ranges: BTreeMap<usize, u32>,
}

const RANGE: usize = 64 << 10;
const RANGES: usize = 48;

/// Bytes of generation `g` of something: never zero, and of a length that the generation gives.
fn content(seed: &str, g: u32, len: usize) -> Vec<u8> {
    let mut reader = blake3::Hasher::new().update(seed.as_bytes()).update(&g.to_le_bytes()).finalize_xof();
    let mut b = vec![0u8; len];
    reader.fill(&mut b);
    b.iter_mut().for_each(|b| *b |= 1);
    b
}

fn doc(name: &str, g: u32) -> Vec<u8> {
    content(name, g, 1000 + (g as usize * 7919) % 60_000)
}

/// All that a log of this name will ever hold; a log is a prefix of it.
fn log_text(name: &str) -> Vec<u8> {
    content(name, 0, 32 << 20)
}

fn sync_dir(dir: &Path) {
    File::open(dir).unwrap().sync_all().unwrap();
}

/// Writes until told to stop, raising the truth after each sync that returned.
fn write(root: &Path, truth: &Mutex<Truth>, ops: &AtomicU64, stop: &AtomicBool, mut rng: fastrand::Rng) {
    let texts: Vec<Vec<u8>> = (0..3).map(|k| log_text(&format!("log{k}"))).collect();
    let mut lens = [0usize; 3];
    let mut generations: BTreeMap<String, u32> = BTreeMap::new();
    let mut logs: Vec<File> =
        (0..3).map(|k| OpenOptions::new().append(true).create(true).open(root.join(format!("log{k}"))).unwrap()).collect();
    let edited = OpenOptions::new().read(true).write(true).open(root.join("edited")).unwrap();
    sync_dir(root);
    while !stop.load(Ordering::SeqCst) {
        match rng.u32(..10) {
            0..4 => {
                let k = rng.usize(..3);
                for _ in 0..rng.u32(1..4) {
                    let n = rng.usize(1..20_000);
                    logs[k].write_all(&texts[k][lens[k]..lens[k] + n]).unwrap();
                    lens[k] += n;
                }
                logs[k].sync_data().unwrap();
                truth.lock().unwrap().logs.insert(format!("log{k}"), lens[k]);
            }
            4..7 => {
                let name = format!("doc{}", rng.u32(..12));
                let g = generations.entry(name.clone()).or_default();
                *g += 1;
                let temp = root.join(format!("{name}.tmp-save"));
                let mut f = File::create(&temp).unwrap();
                f.write_all(&doc(&name, *g)).unwrap();
                f.sync_all().unwrap();
                drop(f);
                fs::rename(&temp, root.join(&name)).unwrap();
                sync_dir(root);
                truth.lock().unwrap().docs.insert(name, *g);
            }
            7..9 => {
                // One range of a published file, in place.
                let r = rng.usize(..RANGES);
                let g = truth.lock().unwrap().ranges[&r] + 1;
                edited.write_all_at(&content(&format!("range{r}"), g, RANGE), (r * RANGE) as u64).unwrap();
                edited.sync_data().unwrap();
                truth.lock().unwrap().ranges.insert(r, g);
            }
            _ => {
                // Closed and not synced: may be lost, but whole or not at all.
                let name = format!("loose{}", rng.u32(..8));
                let g = generations.entry(name.clone()).or_default();
                *g += 1;
                fs::write(root.join(&name), doc(&name, *g)).unwrap();
            }
        }
        ops.fetch_add(1, Ordering::SeqCst);
    }
}

/// Asserts that the tree is at least `least` and at most what was written until `most`.
#[track_caller]
fn check(what: &str, root: &Path, least: &Truth, most: &Truth) {
    for (name, synced) in &least.logs {
        let have = fs::read(root.join(name)).unwrap_or_else(|e| panic!("{what}: {name}: {e}"));
        assert!(have.len() >= *synced, "{what}: {name} has {} bytes, {synced} were synced", have.len());
        let good = have.iter().zip(&log_text(name)).position(|(a, b)| a != b);
        assert!(good.is_none(), "{what}: {name} differs at {good:?} of {}, synced were {synced}", have.len());
    }
    for (name, g) in &least.docs {
        let have = fs::read(root.join(name)).unwrap_or_else(|e| panic!("{what}: {name}: {e}"));
        let newest = most.docs[name] + 1;
        let known = (*g..=newest).find(|g| doc(name, *g) == have);
        assert!(known.is_some(), "{what}: {name} ({} bytes) is no generation from {g} to {newest}", have.len());
    }
    let edited = fs::read(root.join("edited")).unwrap();
    assert_eq!(edited.len(), RANGE * RANGES, "{what}");
    assert!(!edited.contains(&0), "{what}: zeros in the edited file");
    for (r, g) in &least.ranges {
        let part = &edited[r * RANGE..(r + 1) * RANGE];
        let (seed, newest) = (format!("range{r}"), most.ranges[r] + 1);
        // What was being written at the cut may be there in part: each 4 KiB is of one possible generation.
        let whole: Vec<Vec<u8>> = (*g..=newest).map(|g| content(&seed, g, RANGE)).collect();
        for at in (0..RANGE).step_by(4096) {
            assert!(
                whole.iter().any(|w| w[at..at + 4096] == part[at..at + 4096]),
                "{what}: range {r} at {at} is no generation from {g} to {newest}"
            );
        }
    }
    for p in common::mounted::walk_files(root) {
        let name = p.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("loose") && !native() {
            let have = fs::read(&p).unwrap();
            let known = (1..2_000).find(|g| doc(&name, *g) == have);
            assert!(
                known.is_some(),
                "{what}: {name} ({} bytes, {} zeros) was never like that",
                have.len(),
                have.iter().filter(|b| **b == 0).count()
            );
        }
    }
}

#[test]
fn every_synced_byte_survives_a_power_cut() {
    tools::need_root("a power cut");
    let cuts = count(5, 30);
    let mut rng = common::rng();
    let w = World::new();
    // btrfs only for its reflinks: a copy of the image in one instant.
    let disk = Image::create("btrfs", &w.dir().join("btrfs.img"), 12 << 30, &w.dir().join("btrfs"));
    let image = Image::create("ext4", &disk.root().join("disk.img"), 3 << 30, &w.dir().join("disk"));
    let place = |root: &Path| ["state", "store", "plain"].map(|d| root.join(d));
    let [state, store, plain] = place(image.root());
    fs::create_dir_all(&store).unwrap();
    let a = w.device("ann").state(&state).store(&store).plain(&plain).mount();
    let root = a.path("w");
    fs::create_dir(&root).unwrap();
    let mut truth = Truth::default();
    let mut start = vec![];
    for r in 0..RANGES {
        start.extend(content(&format!("range{r}"), 1, RANGE));
        truth.ranges.insert(r, 1);
    }
    fs::write(root.join("edited"), start).unwrap();
    File::open(root.join("edited")).unwrap().sync_all().unwrap();
    sync_dir(&root);
    a.wait();
    let id = if native() { String::new() } else { a.device_id() };

    let (truth, stop, ops) = (Mutex::new(truth), AtomicBool::new(false), AtomicU64::new(0));
    let mut crashes = vec![];
    std::thread::scope(|s| {
        let fork = rng.fork();
        let writer = s.spawn(|| write(&root, &truth, &ops, &stop, fork));
        for i in 0..cuts {
            let gap = rng.u64(20..400);
            let from = ops.load(Ordering::SeqCst);
            until("the writer goes on", Duration::from_secs(120), || {
                (ops.load(Ordering::SeqCst) >= from + 5 || writer.is_finished()).then_some(())
            });
            std::thread::sleep(Duration::from_millis(gap));
            let copy = disk.root().join(format!("cut{i}.img"));
            let least = truth.lock().unwrap().clone();
            cli::run(Command::new("cp").arg("--reflink=always").arg(image.file()).arg(&copy), Duration::from_secs(120)).ok();
            let most = truth.lock().unwrap().clone();
            crashes.push((copy, least, most));
        }
        stop.store(true, Ordering::SeqCst);
        writer.join().unwrap();
    });
    println!("{cuts} cuts during {} operations", ops.load(Ordering::SeqCst));
    a.unmount();
    drop((a, image));

    for (i, (copy, least, most)) in crashes.iter().enumerate() {
        let what = format!("cut {i}");
        let image = Image::open(copy, &w.dir().join("disk"));
        let [state, store, plain] = place(image.root());
        // Another boot, as after any power cut: this process's machine was not really restarted.
        let a = w.device("ann").state(&state).store(&store).plain(&plain).env("TCFS_TEST_BOOT_ID", format!("boot-after-{i}")).mount();
        check(&what, &a.path("w"), least, most);
        if !native() {
            assert_eq!(a.device_id(), id, "{what}: the device took itself for a clone");
            a.wait();
            check(&format!("{what}, published"), &a.path("w"), least, most);
            let b = w.device(&format!("bob{i}")).store(&store).mount();
            common::tree::assert_same(
                &format!("{what}: another machine"),
                &common::tree::scan(&a.path("w")),
                &common::tree::scan(&b.path("w")),
            );
            let ids: Vec<String> = devices(&b).into_iter().filter(|n| n.starts_with("ann")).collect();
            assert_eq!(ids, std::slice::from_ref(&id), "{what}: incarnations of one machine");
        }
    }
}

/// Ids of all devices, as `device list` gives them.
fn devices(m: &common::Mounted) -> Vec<String> {
    let listed = m.cli(&["device", "list", "--json"]).ok().json();
    let ids: Vec<String> =
        listed.iter().filter(|v| v["public_key"].is_string()).filter_map(|v| Some(v["id"].as_str()?.to_owned())).collect();
    assert!(!ids.is_empty(), "no devices in {listed:?}");
    ids
}
