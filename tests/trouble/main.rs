//! A store that is away, slow or lies; a disk that is full; objects made by somebody who means harm (`hostile`).
//!
//! Throughout: writes go on, what is here can be read, what is not gives an error in finite time, nothing waits that need
//! not, and everything is published when the store is back.
#![allow(clippy::unwrap_used)] // a failed call is a failed test

#[path = "../common/mod.rs"]
mod common;
mod hostile;

use common::{
    Mounted, World,
    image::{Image, Memory},
    native, slow, sys, tools, until, within,
};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What a read of a stub may take before it must fail.
const DEADLINE: Duration = Duration::from_secs(90);
/// What a call may take that has nothing to do with the network.
const LOCAL: Duration = Duration::from_secs(5);

fn read(p: PathBuf, limit: Duration) -> std::io::Result<Vec<u8>> {
    within("a read", limit, move || fs::read(p))
}

/// ann has written `cached` (also read by bob) and `stub`; bob is mounted and has not read `stub`.
fn pair() -> (Mounted, Mounted) {
    let w = World::new();
    let a = w.mount("ann");
    for f in ["cached", "stub", "stub2"] {
        let mut bytes = vec![0u8; 3 << 20];
        fastrand::Rng::with_seed(f.len() as u64).fill(&mut bytes);
        bytes[..6].copy_from_slice(&f.as_bytes().repeat(6)[..6]);
        fs::write(a.path(f), &bytes).unwrap();
    }
    a.wait();
    let b = w.device("bob").env("TCFS_TEST_READ_DEADLINE_MS", "5000").mount();
    assert!(fs::read(b.path("cached")).unwrap() == fs::read(a.path("cached")).unwrap());
    (a, b)
}

/// With the store in trouble: everything local goes on at local speed.
#[track_caller]
fn works_locally(m: &Mounted, round: &str) {
    let root = m.root().to_owned();
    let round = round.to_owned();
    within("local work", LOCAL, move || {
        let dir = root.join(format!("local-{round}"));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("new"), "new").unwrap();
        fs::rename(dir.join("new"), dir.join("renamed")).unwrap();
        let mut f = fs::OpenOptions::new().append(true).open(dir.join("renamed")).unwrap();
        f.write_all(b" and more").unwrap();
        f.sync_all().unwrap();
        drop(f);
        assert_eq!(fs::read(dir.join("renamed")).unwrap(), b"new and more");
        assert_eq!(fs::read(root.join("cached")).unwrap().len(), 3 << 20);
        assert_eq!(fs::metadata(root.join("stub")).unwrap().len(), 3 << 20);
        assert!(fs::read_dir(&root).unwrap().count() >= 3);
    });
}

#[test]
fn store_that_fails_in_any_way_stops_only_what_needs_it() {
    drive_only!();
    for (name, mode, fatal) in [
        ("down", json!({ "mode": "down" }), true),
        ("status500", json!({ "mode": "status500" }), true),
        ("timeout", json!({ "mode": "timeout" }), true),
        ("hang", json!({ "mode": "hang" }), true),
        ("unauthorized", json!({ "mode": "unauthorized" }), true),
        ("missing", json!({ "mode": "missing", "only": "get", "prefix": "default/chunks/" }), true),
        ("truncate", json!({ "mode": "truncate", "only": "get" }), true),
        // Not `store.json`: one that tells another id, and the same each time, is another store.
        ("garble", json!({ "mode": "garble", "only": "get", "prefix": "default/chunks/" }), true),
        // A record of another, or the own log read back: neither passes for anything else.
        ("garble-log", json!({ "mode": "garble", "only": "get", "prefix": "default/log/" }), false),
        ("slow", json!({ "mode": { "slow_ms": 300 } }), false),
    ] {
        // One of each sort in a quick run: each waits for a deadline.
        if !slow() && !["status500", "hang", "garble", "garble-log", "slow"].contains(&name) {
            continue;
        }
        let (a, b) = pair();
        b.fault(Some(mode.clone()));
        works_locally(&b, name);
        if fatal {
            let start = Instant::now();
            let e = sys::errno(read(b.path("stub"), DEADLINE));
            assert_eq!(e, libc::EIO, "{name}");
            // The kernel asks twice; it must not wait twice.
            println!("{name}: EIO after {:?}", start.elapsed());
            until("a line in the log about it", LOCAL, || b.log().contains("stub").then_some(()));
            works_locally(&b, &format!("{name}-again"));
        } else {
            assert_eq!(read(b.path("stub"), DEADLINE).unwrap().len(), 3 << 20, "{name}");
        }
        let files = fs::read_dir(b.path(format!("local-{name}"))).unwrap().count();
        assert_eq!(files, 1);
        // A restart meanwhile changes nothing.
        b.remount();
        works_locally(&b, &format!("{name}-restarted"));
        b.fault(None);
        assert!(
            within("a stub when the store is back", DEADLINE, {
                let p = b.path("stub2");
                move || until("the stub reads", DEADLINE, || fs::read(&p).ok())
            })
            .len()
                == 3 << 20
        );
        assert!(fs::read(b.path("stub")).unwrap() == fs::read(a.path("stub")).unwrap(), "{name}: wrong bytes were kept");
        b.wait();
        assert_eq!(b.pending(), 0, "{name}");
        until("all of it arrives", Duration::from_secs(30), || {
            (fs::read(a.path(format!("local-{name}-restarted/renamed"))).ok()? == b"new and more").then_some(())
        });
        assert_eq!(fs::read(a.path(format!("local-{name}/renamed"))).unwrap(), b"new and more");
    }
}

#[test]
fn store_that_fails_puts_in_any_way_gets_everything_later() {
    drive_only!();
    for mode in ["no_space", "lost_ack", "down", "status500", "timeout"].into_iter().take(if slow() { 5 } else { 2 }) {
        let (a, b) = pair();
        b.fault(Some(json!({ "mode": mode, "only": "put" })));
        for i in 0..50 {
            fs::write(b.path(format!("f{i}")), format!("{i}").repeat(10_000)).unwrap();
        }
        // Where only the answer is lost, the objects are there, and reading them back may have shown it.
        assert!(b.pending() > 0 || mode == "lost_ack", "{mode}: published into a store that takes nothing");
        // Reading goes on.
        assert_eq!(fs::read(b.path("stub")).unwrap().len(), 3 << 20);
        b.kill();
        b.mount();
        assert!(b.pending() > 0 || mode == "lost_ack", "{mode}: forgotten by a restart");
        b.fault(None);
        b.wait();
        for i in 0..50 {
            let want = format!("{i}").repeat(10_000);
            until("it arrives", Duration::from_secs(30), || (fs::read_to_string(a.path(format!("f{i}"))).ok()? == want).then_some(()));
        }
    }
}

#[test]
fn mount_of_a_new_machine_while_the_store_is_away_works_and_catches_up() {
    drive_only!();
    let (a, _b) = pair();
    let c = a.world().device("cyd").off();
    c.fault(Some(json!({ "mode": "down" })));
    let start = Instant::now();
    c.mount();
    assert!(start.elapsed() < Duration::from_secs(30), "mounting took {:?}", start.elapsed());
    fs::write(c.path("of-cyd"), "written before it ever saw the store").unwrap();
    assert!(c.pending() > 0);
    c.fault(None);
    until("cyd sees the others' files", Duration::from_secs(60), || c.path("stub").exists().then_some(()));
    c.wait();
    until("the others see cyd's file", Duration::from_secs(60), || a.path("of-cyd").exists().then_some(()));
}

#[test]
fn store_directory_that_vanishes_and_returns_is_only_an_outage() {
    drive_only!();
    let (a, b) = pair();
    let (here, away) = (a.world().store(), a.world().dir().join("away"));
    fs::rename(&here, &away).unwrap();
    works_locally(&b, "vanished");
    assert_eq!(sys::errno(read(b.path("stub"), DEADLINE)), libc::EIO);
    // Nobody may have begun a new, empty store in its place.
    if here.exists() {
        let made = common::mounted::walk_files(&here);
        assert!(made.is_empty(), "objects were written into an empty directory: {made:?}");
        fs::remove_dir_all(&here).unwrap();
    }
    fs::rename(&away, &here).unwrap();
    b.wait();
    until("all of it arrives", Duration::from_secs(60), || a.path("local-vanished/renamed").exists().then_some(()));
    assert_eq!(fs::read(b.path("stub")).unwrap().len(), 3 << 20);
}

/// What is only in the store needs room here to be read, and there is none: it is read all the same.
#[test]
fn what_is_in_the_store_can_be_read_on_a_full_disk() {
    drive_only!();
    tools::need_root("a small disk");
    let (a, _) = pair();
    let disk = Image::create("ext4", &a.world().dir().join("small.img"), 200 << 20, &a.world().dir().join("small"));
    let state = disk.root().join("state");
    fs::create_dir(&state).unwrap();
    let c = a.world().device("cyd").state(&state).mount();
    until("cyd sees the others' files", Duration::from_secs(60), || c.path("stub2").exists().then_some(()));
    let mut ballast = fs::File::create(disk.root().join("ballast")).unwrap();
    let block = vec![1u8; 1 << 20];
    while ballast.write_all(&block).is_ok() {}
    while ballast.write_all(&block[..4096]).is_ok() {}
    // Something that is written tells the drive how full the disk is.
    let full = until("the disk is full for the drive, too", Duration::from_secs(30), || fs::write(c.path("new"), &block).err());
    assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
    for f in ["cached", "stub", "stub2"] {
        assert!(read(c.path(f), DEADLINE).unwrap() == fs::read(a.path(f)).unwrap(), "{f} differs");
    }
    drop(ballast);
    fs::remove_file(disk.root().join("ballast")).unwrap();
    until("writing works again", Duration::from_secs(30), || fs::write(c.path("new"), &block).ok());
    c.wait();
    drop(c);
}

#[test]
fn full_disk_gives_enospc_and_loses_nothing() {
    tools::need_root("a small disk");
    let w = World::new();
    let disk = Image::create("ext4", &w.dir().join("small.img"), 400 << 20, &w.dir().join("small"));
    let state = disk.root().join("state");
    fs::create_dir(&state).unwrap();
    let a = w.device("ann").state(&state).plain(disk.root().join("plain")).mount();
    // With nothing published, nothing can be given back.
    a.fault(Some(json!({ "mode": "down" })));
    let bytes = |i: usize| {
        let mut b = vec![0u8; 3 << 20];
        fastrand::Rng::with_seed(i as u64).fill(&mut b);
        b
    };
    let whole = |i: usize, path: PathBuf| -> std::io::Result<()> {
        let mut f = fs::File::create(path)?;
        f.write_all(&bytes(i))?;
        f.sync_all()
    };
    let mut kept = vec![];
    let error = (0..1000).find_map(|i| match whole(i, a.path(format!("f{i}"))) {
        Ok(()) => {
            kept.push(i);
            None
        }
        Err(e) => {
            fs::remove_file(a.path(format!("f{i}"))).unwrap_or_else(|e| panic!("removing on a full disk: {e}"));
            Some(e)
        }
    });
    assert_eq!(error.expect("the disk is never full").raw_os_error(), Some(libc::ENOSPC));
    assert!(kept.len() >= 40, "only {} files of 3 MiB on 400 MiB", kept.len());
    let same = |m: &Mounted, kept: &[usize]| {
        for i in kept {
            assert!(fs::read(m.path(format!("f{i}"))).unwrap() == bytes(*i), "f{i} differs");
        }
    };
    same(&a, &kept);
    // Small things still work or are refused; they do not break.
    for i in 0..200 {
        match fs::write(a.path(format!("small{i}")), "small") {
            Ok(()) => assert_eq!(fs::read(a.path(format!("small{i}"))).unwrap(), b"small"),
            Err(e) => assert_eq!(e.raw_os_error(), Some(libc::ENOSPC)),
        }
    }
    a.remount();
    same(&a, &kept);
    a.kill();
    a.mount();
    same(&a, &kept);
    // Removing gives space back, at once and without the store.
    for i in kept.drain(..20) {
        fs::remove_file(a.path(format!("f{i}"))).unwrap();
    }
    until("space comes back", Duration::from_secs(30), || whole(2000, a.path("f2000")).ok());
    kept.push(2000);
    a.fault(None);
    a.wait();
    same(&a, &kept);
    // Published, it is only a cache: now there is room for more than the disk holds.
    if !native() {
        for i in 3000..3150 {
            until("an evictable cache makes room", Duration::from_secs(60), || whole(i, a.path(format!("f{i}"))).ok());
            kept.push(i);
        }
        a.wait();
        let b = w.mount("bob");
        same(&b, &kept);
    }
    drop(a);
}

/// A kernel tells once that it could not write bytes back, and takes them for written from then on. A program that tries
/// again must not hear that they are on the disk.
#[test]
fn disk_that_fails_a_sync_is_not_believed_the_next_time() {
    drive_only!();
    let w = World::new();
    let memory = Memory::create(200 << 20, &w.dir().join("memory"));
    let state = w.dir().join("state");
    let disk = Image::create("ext2", &w.dir().join("memory/img"), 100 << 20, &state.join("overlay"));
    let bytes = vec![7u8; 8 << 20];
    let sync = |m: &Mounted| fs::OpenOptions::new().write(true).open(m.path("f")).unwrap().sync_all().map_err(|e| e.raw_os_error());
    let a = w.device("ann").state(&state).mount();
    // So that what is published brings nothing back.
    a.fault(Some(json!({ "mode": "down" })));
    rustix::fs::sync();
    memory.room(1 << 20);

    // What the disk itself says: it fails, and later it does not.
    let mut plain = fs::File::create(disk.root().join("plain")).unwrap();
    plain.write_all(&bytes).unwrap();
    plain.sync_all().unwrap_err();
    until("the disk says that all is well", Duration::from_secs(10), || plain.sync_all().ok());

    let mut f = fs::File::create(a.path("f")).unwrap();
    f.write_all(&bytes).unwrap();
    f.sync_all().unwrap_err();
    assert_eq!(f.sync_all().map_err(|e| e.raw_os_error()), Err(Some(libc::EIO)), "tried again");
    drop(f);
    assert_eq!(sync(&a), Err(Some(libc::EIO)), "from another handle");
    a.remount();
    assert_eq!(sync(&a), Err(Some(libc::EIO)), "after a restart");

    // Written anew on a disk that takes it, or published: then it is safe.
    memory.room(100 << 20);
    let mut f = fs::File::create(a.path("f")).unwrap();
    f.write_all(&bytes).unwrap();
    f.sync_all().unwrap();
    drop(f);
    memory.room(1 << 20);
    let mut f = fs::OpenOptions::new().append(true).open(a.path("f")).unwrap();
    f.write_all(&bytes).unwrap();
    f.sync_all().unwrap_err();
    drop(f);
    assert_eq!(sync(&a), Err(Some(libc::EIO)));
    a.fault(None);
    a.wait();
    sync(&a).unwrap();
    drop(a);
    drop(disk);
}
