//! The daemon is killed (SIGKILL) at random moments while a program writes.
//!
//! After each kill: the next mount works by itself; every file whose close, and every byte whose fsync had returned is
//! there, whole; another machine shows only contents that a path had at some close or at a crash.
#![allow(clippy::unwrap_used)] // a failed call is a failed test

mod common;

use common::{World, count, native, until, writer::Writer};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[test]
fn nothing_acknowledged_is_lost_when_the_daemon_is_killed_at_random_moments() {
    let rounds = count(10, 50);
    let mut rng = common::rng();
    let w = World::new();
    let a = w.mount("ann");
    let b = w.mount("bob");
    let mut writer = Writer::new(&a.path("w"), rng.fork()).unwrap();
    let (mut caught, mut cut_short) = (0, 0);
    for round in 0..rounds {
        let killed = AtomicBool::new(false);
        let error = std::thread::scope(|s| {
            let writing = s.spawn(|| {
                while !(native() && killed.load(Ordering::SeqCst)) {
                    if let Err(e) = writer.step() {
                        assert!(killed.load(Ordering::SeqCst), "an operation failed with {e} before the daemon was killed");
                        return Some(e);
                    }
                }
                None
            });
            std::thread::sleep(Duration::from_millis(rng.u64(5..1500)));
            // Half of the time whatever is the case; else the moment with work to publish is waited for.
            let mut pending = a.pending();
            if rng.bool() && !native() {
                pending = until("something is to be published", Duration::from_secs(30), || Some(a.pending()).filter(|n| *n > 0));
            }
            caught += usize::from(pending > 0);
            killed.store(true, Ordering::SeqCst);
            a.kill();
            until("the writer notices", Duration::from_secs(60), || writing.is_finished().then_some(()));
            writing.join().unwrap()
        });
        cut_short += usize::from(error.is_some());
        a.mount();
        writer.check_after_crash(&format!("round {round}, after {} operations, error {error:?}", writer.done));
        if b.path("w").exists() {
            writer.check_elsewhere(&b.path("w"));
        }
    }
    println!("{rounds} kills, {caught} with work pending, {cut_short} in the middle of an operation, {} operations", writer.done);
    assert!(native() || caught > 0, "the daemon was never caught with work to publish");
    writer.rest();
    a.wait();
    let here = common::writer::read_tree(&a.path("w"));
    until("the other machine shows the same", Duration::from_secs(60), || (common::writer::read_tree(&b.path("w")) == here).then_some(()));
    writer.check_elsewhere(&b.path("w"));
    let names = common::tree::scan(b.root());
    assert!(!names.keys().any(|p| p.to_string_lossy().contains(".conflict-")), "conflicts with nobody: {:?}", names.keys());
    // A third machine that was never there before sees it too.
    let c = w.mount("cyd");
    assert!(common::writer::read_tree(&c.path("w")) == here);
}

#[test]
fn daemon_killed_while_idle_leaves_nothing_to_repair() {
    let w = World::new();
    let a = w.mount("ann");
    std::fs::write(a.path("f"), "x").unwrap();
    a.wait();
    let objects = common::mounted::walk_files(&w.store()).len();
    for _ in 0..3 {
        a.kill();
        if !native() {
            // The dead mount answers with an error, and does not hang.
            let p = a.path("f");
            let e = common::within("stat on a dead mount", Duration::from_secs(10), move || std::fs::metadata(p)).unwrap_err();
            assert_eq!(e.raw_os_error(), Some(libc::ENOTCONN));
        }
        a.mount();
        assert_eq!(std::fs::read(a.path("f")).unwrap(), b"x");
        assert_eq!(a.pending(), 0);
    }
    a.wait();
    let after = common::mounted::walk_files(&w.store()).len();
    assert!(after <= objects + 3, "{objects} objects before, {after} after three restarts without a change");
}

/// What would be a loss must be seen as one: the checker is tried on a directory damaged by hand.
#[test]
fn checker_of_this_test_sees_every_kind_of_damage() {
    use std::fs;
    type Damage = fn(&std::path::Path);
    let kinds: [(&str, Damage); 6] = [
        ("a byte changed", |p| {
            let mut b = fs::read(p).unwrap();
            b[0] ^= 2;
            fs::write(p, b).unwrap();
        }),
        ("cut short", |p| fs::write(p, &fs::read(p).unwrap()[1..]).unwrap()),
        ("emptied", |p| fs::write(p, "").unwrap()),
        ("removed", |p| fs::remove_file(p).unwrap()),
        ("a removed file back again", |p| fs::copy(p, p.with_file_name("999")).map(drop).unwrap()),
        ("renamed", |p| fs::rename(p, p.with_file_name("998")).unwrap()),
    ];
    for (what, damage) in kinds {
        for file in ["big", "small", "log"] {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = Writer::new(dir.path(), fastrand::Rng::with_seed(1)).unwrap();
            for _ in 0..80 {
                writer.step().unwrap();
            }
            writer.check_after_crash("undamaged");
            let victim = match file {
                "small" => {
                    common::mounted::walk_files(&dir.path().join("small")).into_iter().find(|p| fs::metadata(p).unwrap().len() > 0).unwrap()
                }
                other => dir.path().join(other),
            };
            damage(&victim);
            let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| writer.check_after_crash(what)));
            assert!(seen.is_err(), "{file}: {what}, and the checker saw nothing");
        }
    }
}
