//! The fleet layer with several devices in one process over one store: order of writes, coalescing, crashes between any
//! two steps, clones, gaps, hostile logs.

#![allow(clippy::unwrap_used)]

#[path = "fleet_core/device.rs"]
mod device;
#[path = "fleet_core/snapshots.rs"]
mod snapshots;

use bytes::Bytes;
use device::{Device, Witness, keys};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tcfs::ErrorKind;
use tcfs::clock::Clock;
use tcfs::content::codec;
use tcfs::fleet::{Options, Outcome, Round};
use tcfs::model::record;
use tcfs::model::{Kind, Target, Version};
use tcfs::state::rows::Inode;
use tcfs::state::{Change, Tree};
use tcfs::store::count::Op;
use tcfs::store::fault::{FaultStore, Mode, Rule};
use tcfs::store::memory::MemoryStore;
use tcfs::store::{PutMode, Store};

fn tree(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter().map(|(p, c)| ((*p).to_owned(), (*c).to_owned())).collect()
}

fn store() -> Arc<Witness> {
    Witness::new(MemoryStore::new())
}

/// Everybody publishes and pulls until nothing moves; then all show the same.
async fn settle(devices: &[&Device]) -> BTreeMap<String, String> {
    for _ in 0..6 {
        for d in devices {
            assert_eq!(d.publish().await.unwrap(), Round::Idle, "{:#?}", d.outbox());
        }
        for d in devices {
            d.pull().await;
        }
    }
    let first = devices[0].ls().await;
    for d in devices {
        assert_eq!(d.ls().await, first, "{} differs", d.id());
        assert!(d.outbox().is_empty());
    }
    first
}

#[tokio::test]
async fn regression_a_file_made_moved_and_removed_again_and_again_does_not_stop_the_outbox() {
    // More rows than a round looks at, wherever the end of what it looks at falls.
    for first in 0..4 {
        let a = Device::new("ann", store());
        for i in 0..first {
            a.mkdir(&format!("d{i}"));
        }
        for _ in 0..900 {
            a.write("f", "gone before it could be read");
            a.mv("f", "g");
            a.rm("g");
        }
        a.write("after", "after");
        let ino = a.disk.inos.lock()["after"];
        a.disk.files.lock().retain(|i, _| *i == ino);
        let done = tokio::time::timeout(Duration::from_secs(120), a.publish()).await;
        assert_eq!(done.expect("it goes on").unwrap(), Round::Idle, "{} rows are left", a.outbox().len());
        assert!(a.outbox().is_empty());
        assert_eq!(a.ls().await.get("after").map(String::as_str), Some("after"));
    }
}

#[tokio::test]
async fn a_directory_shows_elsewhere_when_its_listing_changed_or_the_time_set_after_that() {
    let s = store();
    let (a, b) = (Device::new("ann", s.clone()), Device::new("bob", s.clone()));
    let later = |seconds: i64| {
        for d in [&a, &b] {
            d.clock.advance(seconds * 1_000_000_000);
        }
        tcfs::state::rows::Time::from_ms(a.clock.now_ms()).pair()
    };
    let shown = |p: &str| {
        let ino = b.ino(p);
        b.replica.read(|r| r.get::<Inode>(Tree::Inode, ino)).unwrap().unwrap().mtime.pair()
    };
    later(1000);
    a.mkdir("d");
    let made = later(10);
    a.mkdir("d/x");
    later(10);
    settle(&[&a, &b]).await;
    assert_eq!(shown("d"), made, "not when it was made, nor when that arrived");
    // As copying does it: what is in the directory first, then its time.
    later(10);
    a.mkdir("d/y");
    later(10);
    a.touch("d", (1000, 7));
    later(10);
    settle(&[&a, &b]).await;
    assert_eq!(shown("d"), (1000, 7));
    // A file that was last written before that, and whose close was heard of later.
    later(10);
    b.disk.changes.lock().clear();
    a.write("d/f", "f");
    settle(&[&a, &b]).await;
    assert_eq!(shown("d"), (1000, 7));
    let listing = Change::Listing(b.ino("d"));
    assert!(b.disk.changes.lock().contains(&listing), "a cache above may hold the old listing");
    let removed = later(10);
    a.rm("d/x");
    later(10);
    settle(&[&a, &b]).await;
    assert_eq!(shown("d"), removed);
}

#[tokio::test]
async fn what_one_device_writes_the_other_shows() {
    let s = store();
    let (a, b) = (Device::new("ann", s.clone()), Device::new("bob", s.clone()));
    a.mkdir("empty");
    a.write("notes/plan.md", "plan");
    a.write("nothing", "");
    let big: String = "0123456789abcdef".repeat(200_000);
    a.write("big", big.clone());
    let seen = settle(&[&a, &b]).await;
    assert_eq!(seen, tree(&[("empty/", ""), ("notes/", ""), ("notes/plan.md", "plan"), ("nothing", ""), ("big", &big)]));
    b.write("notes/plan.md", "plan 2");
    b.rm("nothing");
    let seen = settle(&[&a, &b]).await;
    assert_eq!(seen.get("notes/plan.md").map(String::as_str), Some("plan 2"));
    assert!(!seen.contains_key("nothing"));
    assert_eq!(*s.broken.lock(), Vec::<String>::new());
    // Bytes are synced here before they go out, and the layer above hears of every cut.
    assert_eq!(a.disk.synced.lock().len(), 3);
    assert_eq!(a.disk.resolved.lock().len(), 3);
    assert!(!b.disk.changes.lock().is_empty());
    // Applying everything a second time changes nothing.
    b.disk.changes.lock().clear();
    assert_eq!(b.fleet.catch_up().await.unwrap().batches, 0);
    assert!(b.disk.changes.lock().is_empty());
}

#[tokio::test]
async fn heads_here_are_what_the_log_says() {
    let s = store();
    let a = Device::new("ann", s.clone());
    a.write("f", "1");
    a.publish().await.unwrap();
    a.write("f", "2");
    a.write("g", "3");
    a.mv("g", "h");
    a.publish().await.unwrap();
    for v in a.log().await.concat() {
        let entry = a.register(v.path.as_str());
        if entry.heads.iter().any(|h| h.vclock == v.vclock) {
            assert!(entry.heads.contains(&v), "{v:?}\n{entry:?}");
        } else {
            assert!(entry.clock().covers(&v.vclock));
        }
    }
    // `f` was replaced: its second version names the root of the first, not a token.
    let log = a.log().await.concat();
    let (first, second) = (&log[0], log.iter().filter(|v| v.path.as_str() == "f").nth(1).unwrap());
    assert_eq!(second.base, Some(first.content_id()));
    // `g` never left this machine.
    assert!(log.iter().all(|v| v.path.as_str() != "g"));
    assert!(a.register("g").is_empty());
}

/// CONFLICTS row 36.
#[tokio::test]
async fn a_temporary_made_and_removed_offline_uploads_nothing() {
    let s = store();
    let a = Device::new("ann", s.clone());
    a.publish().await.unwrap();
    let before = s.puts();
    for i in 0..20 {
        a.write("t/tmp", format!("{i}"));
    }
    a.rm("t/tmp");
    a.rm("t");
    assert_eq!(a.publish().await.unwrap(), Round::Idle);
    assert_eq!(s.puts(), before, "something was uploaded");
    assert_eq!(a.log().await.len(), 0);
    assert!(a.register("t/tmp").is_empty());
    assert!(a.ls().await.is_empty());
    // The path can be used again, as if it never was.
    a.write("t/tmp", "again");
    a.publish().await.unwrap();
    assert_eq!(a.log().await.concat()[0].vclock.get(&a.id()), 1);
}

/// CONFLICTS row 37.
#[tokio::test]
async fn twenty_writes_offline_publish_the_last() {
    let s = store();
    let (a, b) = (Device::new("ann", s.clone()), Device::new("bob", s.clone()));
    a.write("f", "first");
    settle(&[&a, &b]).await;
    let root = a.log().await.concat()[0].content_id();
    let opened = a.disk.opened.load(Ordering::SeqCst);
    for i in 0..20 {
        a.write("f", format!("text {i}"));
    }
    assert_eq!(settle(&[&a, &b]).await, tree(&[("f", "text 19")]));
    let log = a.log().await;
    assert_eq!(log.len(), 2);
    assert_eq!(log[1].len(), 1);
    assert_eq!(log[1][0].base, Some(root), "the base of what was left out is inherited");
    assert_eq!(a.disk.opened.load(Ordering::SeqCst), opened + 1, "only the last was read");
    let dropped = a.disk.resolved.lock().iter().filter(|r| matches!(r.outcome, Outcome::Dropped { base } if base == Some(root))).count();
    assert_eq!(dropped, 19);
}

/// CONFLICTS row 51, with the store dying at every put, before and after it takes effect, and the process killed then.
#[tokio::test]
async fn a_crash_at_any_put_shows_others_only_states_this_device_was_in() {
    let whole = tree(&[("d/", ""), ("d/x", "x"), ("f", "f2"), ("g", "g")]);
    // States at the end of each operation; others may see these and nothing else.
    let states = [tree(&[]), tree(&[("f", "f1")]), tree(&[("f", "f1"), ("g", "g")]), tree(&[("f", "f2"), ("g", "g")]), whole.clone()];
    let mut died = 0;
    for n in 0..60 {
        for done in [false, true] {
            let s = store();
            let (mut a, b) = (Device::new("ann", s.clone()), Device::new("bob", s.clone()));
            b.publish().await.unwrap();
            s.die_at(n, done);
            a.write("f", "f1");
            a.write("g", "g");
            a.write("f", "f2");
            let _ = a.publish().await;
            a.write("d/x", "x");
            let _ = a.publish().await;
            let was_dead = s.revive();
            died += u32::from(was_dead);
            b.pull().await;
            let seen = b.ls().await;
            assert!(states.contains(&seen), "put {n} ({done}): {seen:?}");
            a = a.crash().await;
            assert_eq!(a.publish().await.unwrap(), Round::Idle, "put {n} ({done})");
            assert!(a.disk.new_ids.lock().is_empty(), "put {n} ({done}): it took itself for a clone");
            assert_eq!(settle(&[&a, &b]).await, whole, "put {n} ({done})");
            let versions = a.log().await.concat().len();
            assert_eq!(versions, 3, "put {n} ({done}): something was published twice");
            assert_eq!(*s.broken.lock(), Vec::<String>::new(), "put {n} ({done})");
            if !was_dead {
                assert!(n > 5 && died >= 12, "only {died} deaths up to put {n}");
                return;
            }
        }
    }
    panic!("publishing does not end");
}

/// The process dies between the put of the batch and the end of its rows.
#[tokio::test]
async fn a_crash_after_the_batch_is_out_puts_the_same_bytes_again() {
    let s = store();
    let (mut a, b) = (Device::new("ann", s.clone()), Device::new("bob", s.clone()));
    a.write("f", "f1");
    a.disk.fail_resolved.store(true, Ordering::SeqCst);
    assert_eq!(a.publish().await.unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(a.log().await.len(), 1);
    a.write("f", "f2");
    a.disk.fail_resolved.store(false, Ordering::SeqCst);
    a = a.crash().await;
    assert_eq!(settle(&[&a, &b]).await, tree(&[("f", "f2")]));
    let log = a.log().await;
    assert_eq!(log.len(), 2);
    assert_eq!(log[1][0].base, Some(log[0][0].content_id()), "the token was replaced in the later row");
    assert!(a.disk.new_ids.lock().is_empty());
    let cut = |r: &&tcfs::fleet::Resolved| matches!(&r.outcome, Outcome::Cut { chunks, .. } if chunks.len() == 1);
    assert_eq!(a.disk.resolved.lock().iter().filter(cut).count(), 2, "the chunk list was found again after the crash");
}

/// CONFLICTS row 3 (both ways round) and 8, 13.
#[tokio::test]
async fn conflicts_show_the_same_on_both() {
    for a_first in [true, false] {
        let s = store();
        let (a, b) = (Device::new("ann", s.clone()), Device::new("bob", s.clone()));
        for f in ["f", "rm", "mv"] {
            a.write(f, "base");
        }
        settle(&[&a, &b]).await;
        a.write("f", "A");
        a.rm("rm");
        a.mv("mv", "moved");
        for f in ["f", "rm", "mv"] {
            b.write(f, "B");
        }
        let order = if a_first { [&a, &b] } else { [&b, &a] };
        let seen = settle(&order).await;
        assert_eq!(seen, tree(&[("f", "A"), ("f.conflict-bob", "B"), ("rm", "B"), ("moved", "B")]), "a first: {a_first}");
        a.rm_target("f", Target::Sibling(0));
        assert_eq!(settle(&order).await, tree(&[("f", "A"), ("rm", "B"), ("moved", "B")]));
        assert_eq!(*s.broken.lock(), Vec::<String>::new());
    }
}

/// CONFLICTS row 6: that both wrote the same is only known once the bytes are cut.
#[tokio::test]
async fn the_same_text_on_both_is_no_conflict() {
    let s = store();
    let (a, b) = (Device::new("ann", s.clone()), Device::new("bob", s.clone()));
    a.write("f", "same");
    b.write("f", "same");
    a.publish().await.unwrap();
    b.pull().await;
    assert_eq!(settle(&[&b, &a]).await, tree(&[("f", "same")]));
}

/// The moved file's own edit here is not published when the move arrives: its bytes go out under the new name.
#[tokio::test]
async fn an_unpublished_edit_follows_a_move_with_its_bytes() {
    let s = store();
    let (a, b) = (Device::new("ann", s.clone()), Device::new("bob", s.clone()));
    a.write("f", "base");
    settle(&[&a, &b]).await;
    a.mv("f", "g");
    a.publish().await.unwrap();
    b.write("f", "edit");
    let (ino, orphans) = (b.ino("f"), b.orphans());
    b.pull().await;
    assert_eq!(b.ls().await, tree(&[("g", "edit")]));
    // The inode went along: its bytes lie nowhere else yet.
    assert_eq!((b.ino("g"), b.ino("f")), (ino, 0));
    // What A had moved to `g` was shown by nothing here before.
    assert_eq!(b.orphans(), orphans);
    assert_eq!(settle(&[&a, &b]).await, tree(&[("g", "edit")]));
}

/// A file that is being written when the move arrives follows it when it is sealed, with what it holds then.
#[tokio::test]
async fn a_late_close_follows_a_move() {
    for (from, to) in [("f", "g"), ("d/f", "e/f")] {
        let s = store();
        let (a, b) = (Device::new("ann", s.clone()), Device::new("bob", s.clone()));
        a.write(from, "base");
        settle(&[&a, &b]).await;
        a.mv(from, to);
        a.publish().await.unwrap();
        b.write(from, "edit");
        let ino = b.ino(from);
        b.disk.writing.lock().push(ino);
        b.pull().await;
        assert_eq!(b.ls().await[from], "edit", "whoever writes keeps the name");
        let moved = b.ls().await.get(to).cloned();
        assert_eq!(moved.as_deref(), Some("base"));
        b.write_on(from, "edit, finished");
        b.disk.writing.lock().clear();
        assert!(b.after_seal(from));
        assert!(!b.after_seal(from), "once");
        assert_eq!(b.ls().await.get(from), None);
        assert_eq!(b.ls().await[to], "edit, finished");
        assert_eq!(settle(&[&a, &b]).await[to], "edit, finished");
    }
}

/// An empty file that hides beside a full one is published all the same: there are no bytes that could be missing.
#[tokio::test]
async fn an_empty_create_hides_and_holds_nothing_up() {
    let s = store();
    let (a, b) = (Device::new("ann", s.clone()), Device::new("bob", s.clone()));
    a.write("f", "full");
    b.write("f", "");
    a.publish().await.unwrap();
    b.pull().await;
    b.disk.files.lock().clear();
    assert_eq!(b.publish().await.unwrap(), Round::Idle);
    assert_eq!(settle(&[&a, &b]).await, tree(&[("f", "full")]));
}

/// A copy of a machine goes on under its own id; nothing of either is lost.
#[tokio::test]
async fn a_clone_takes_a_new_id_and_loses_nothing() {
    let s = store();
    let (a, b) = (Device::new("ann", s.clone()), Device::new("bob", s.clone()));
    a.write("f", "base");
    settle(&[&a, &b]).await;
    let mut twin = a.clone_machine(77);
    assert_eq!(twin.id(), a.id());
    a.write("f", "original");
    a.write("only-a", "a");
    a.publish().await.unwrap();
    // The clone has written meanwhile, more often than the original.
    twin.write("f", "twin 1");
    twin.write("f", "twin 2");
    twin.mkdir("only-twin");
    let (old, before) = (twin.id(), twin.register("f").heads[0].vclock.get(&a.id()));
    assert_eq!(before, 3);
    twin.publish().await.unwrap();
    assert_ne!(twin.id(), old);
    assert_eq!(*twin.disk.new_ids.lock(), vec![(old.clone(), twin.id())]);
    assert_eq!(twin.log().await.concat().iter().find(|v| v.path.as_str() == "f").unwrap().vclock.get(&old), 1);
    let seen = settle(&[&a, &b, &twin]).await;
    // Both are called `ann`: the smaller id has the name.
    let (f, other) = if a.id() < twin.id() { ("original", "twin 2") } else { ("twin 2", "original") };
    assert_eq!(seen, tree(&[("f", f), ("f.conflict-ann", other), ("only-a", "a"), ("only-twin/", "")]));
    // It stays who it is now.
    let id = twin.id();
    twin = twin.crash().await;
    assert_eq!(twin.id(), id);
    twin.write("later", "x");
    settle(&[&a, &b, &twin]).await;
    let listed = a.fleet.registry().list().await.unwrap();
    let names: Vec<&str> = listed.devices.iter().map(|d| d.shown_name.as_str()).collect();
    assert_eq!(names, ["ann", "ann-2", "bob"]);
}

/// CONFLICTS row 40: an old disk image is started again.
#[tokio::test]
async fn a_rolled_back_machine_reads_its_own_old_log() {
    let s = store();
    let (a, b) = (Device::new("ann", s.clone()), Device::new("bob", s.clone()));
    a.write("f", "base");
    settle(&[&a, &b]).await;
    let image = a.clone_machine(99);
    a.write("f", "lost on the disk");
    a.write("g", "g");
    settle(&[&a, &b]).await;
    drop(a);
    image.write("f", "after the restore");
    b.write("f", "meanwhile");
    let seen = settle(&[&image, &b]).await;
    assert_eq!(seen, tree(&[("f", "after the restore"), ("f.conflict-bob", "meanwhile"), ("g", "g")]));
    assert_eq!(image.disk.new_ids.lock().len(), 1);
}

/// Without conditional puts a clone can write over a batch; reading back notices.
#[tokio::test]
async fn regression_what_is_written_to_a_forgotten_path_while_an_id_is_taken_goes_out() {
    let faults = FaultStore::new(MemoryStore::new(), 1);
    let (a, b) = (Device::new("ann", faults.clone()), Device::new("bob", faults.clone()));
    a.write("f", "base");
    settle(&[&a, &b]).await;
    let twin = a.clone_machine(77);
    twin.fleet.connect().await.unwrap();
    // Made and moved away before anybody heard of it: when a batch is fixed, `e` is forgotten.
    twin.write("e", "one");
    twin.mv("e", "m");
    a.write("a", "a");
    a.publish().await.unwrap();
    faults.set(vec![Rule::new(Mode::Down).only(Op::Get).prefix("default/store.json")]);
    assert_eq!(twin.publish().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_ne!(twin.id(), a.id(), "the batch was not the twin's to put");
    twin.write("e", "two");
    let twin = twin.crash().await;
    faults.set(vec![]);
    let seen = settle(&[&a, &b, &twin]).await;
    assert_eq!(seen, tree(&[("a", "a"), ("e", "two"), ("f", "base"), ("m", "one")]));
}

#[tokio::test]
async fn regression_a_published_head_under_a_second_actor_stays_what_it_is_when_an_id_is_taken() {
    for target in [Target::Path, Target::Sibling(0)] {
        let s = store();
        let (a, b) = (Device::new("ann", s.clone()), Device::new("bob", s.clone()));
        a.write("f", "ann's");
        b.write("f", "bob's");
        settle(&[&a, &b]).await;
        // Bob edits Ann's, which has the name; his own stands beside it, so this needs another actor of his.
        b.write("f", "edited");
        settle(&[&a, &b]).await;
        assert!(b.register("f").heads.iter().any(|h| h.actor == format!("{}.2", b.id())));
        let twin = b.clone_machine(77);
        b.write("more", "more");
        b.publish().await.unwrap();
        // Of one head there is something to be said anew, of the other there is not.
        twin.rm_target("f", target);
        settle(&[&a, &b, &twin]).await;
        assert_ne!(twin.id(), b.id());
        assert_eq!((a.entries(), b.entries()), (twin.entries(), twin.entries()), "{target:?}");
    }
}

#[tokio::test]
async fn a_clone_that_writes_at_the_same_moment_is_noticed_without_conditional_puts() {
    let faults = FaultStore::new(MemoryStore::new(), 1);
    faults.set(vec![Rule::new(Mode::IgnoreIfAbsent).only(Op::Put)]);
    let a = Device::new("ann", faults.clone());
    let b = Device::new("bob", faults.clone());
    a.write("f", "base");
    settle(&[&a, &b]).await;
    let twin = a.clone_machine(77);
    // Both have looked at their next key and seen nothing.
    twin.fleet.connect().await.unwrap();
    a.write("a", "a");
    twin.write("t", "t");
    let hold = faults.hold(Some(Op::Get), &keys().batch(&a.id(), 2));
    let (fa, ft) = (a.fleet.clone(), twin.fleet.clone());
    let ra = tokio::spawn(async move { fa.round().await });
    hold.reached(1).await;
    let rt = tokio::spawn(async move { ft.round().await });
    hold.reached(2).await;
    hold.release();
    let (ra, rt) = (ra.await.unwrap(), rt.await.unwrap());
    // The second put won; the first one noticed and goes on under a new id.
    assert_eq!(ra.unwrap_err().kind(), ErrorKind::Interrupted);
    assert!(matches!(rt.unwrap(), Round::Published { .. }));
    let seen = settle(&[&a, &b, &twin]).await;
    assert_eq!(seen, tree(&[("f", "base"), ("a", "a"), ("t", "t")]));
    assert_ne!(a.id(), twin.id());
}

#[tokio::test]
async fn a_missing_batch_stops_that_device_until_it_appears() {
    let s = store();
    let (a, b, c) = (Device::new("ann", s.clone()), Device::new("bob", s.clone()), Device::new("cyd", s.clone()));
    for (i, text) in ["one", "two", "three"].iter().enumerate() {
        a.write(&format!("f{i}"), *text);
        a.publish().await.unwrap();
    }
    c.write("c", "c");
    c.publish().await.unwrap();
    let key = keys().batch(&a.id(), 2);
    let body = s.get(&key).await.unwrap();
    s.delete(&key).await.unwrap();
    b.pull().await;
    assert_eq!(b.ls().await, tree(&[("f0", "one"), ("c", "c")]));
    assert_eq!(b.fleet.cursors().unwrap()[&a.id()], 1);
    s.put(&key, body, PutMode::IfAbsent).await.unwrap();
    b.pull().await;
    assert_eq!(b.ls().await, tree(&[("f0", "one"), ("f1", "two"), ("f2", "three"), ("c", "c")]));
}

#[tokio::test]
async fn hostile_batches_are_reported_and_stop_nobody_else() {
    let s = store();
    let (a, b) = (Device::new("ann", s.clone()), Device::new("bob", s.clone()));
    a.write("good", "good");
    a.write("later", "x");
    a.publish().await.unwrap();
    let good = a.log().await.concat().remove(0);
    let line = |v: &Version| String::from_utf8(record::encode([v]).unwrap()).unwrap();
    let with = |f: &dyn Fn(&mut Version)| {
        let mut v = good.clone();
        f(&mut v);
        serde_json::to_string(&v).unwrap() + "\n"
    };
    let mut clock_end = serde_json::to_value(&good).unwrap();
    clock_end["vclock"]["clocks"][a.id()] = serde_json::Value::from(u64::MAX);
    let lines = [
        "not json\n".to_owned(),
        line(&good).replace("\"good\"", "\"../../etc/passwd\""),
        line(&good).replace("\"good\"", "\"/abs\""),
        clock_end.to_string() + "\n",
        with(&|v| v.mtime.1 = u32::MAX),
        with(&|v| v.device_id = "../x".into()),
        "{\"v\":99,\"kind\":\"hologram\",\"path\":\"h\"}\n".to_owned(),
        // A record by another device in this one's log is fine.
        with(&|v| {
            v.path = tcfs::model::RelPath::parse("by-zoe").unwrap();
            v.device_id = "zoe-00000001".into();
            v.device_name = "zoe".into();
            v.actor = "zoe-00000001".into();
            v.vclock = [("zoe-00000001", 1)].into_iter().collect();
            v.wrote = v.vclock.clone();
        }),
    ]
    .concat();
    let put = async |device: &str, seq: u64, body: Bytes| {
        s.inner.put(&keys().batch(device, seq), body, PutMode::Overwrite).await.unwrap();
        s.inner.put(&format!("tcfs-meta/devices/{device}.json"), Bytes::from_static(b"{broken"), PutMode::Overwrite).await.unwrap();
    };
    put("eve-00000001", 1, codec::encode_lines(lines.as_bytes()).unwrap()).await;
    put("eve-00000002", 1, Bytes::from_static(b"no zstd at all")).await;
    put("eve-00000003", 1, zstd_bomb()).await;
    let done = b.fleet.catch_up().await.unwrap();
    assert_eq!(b.ls().await, tree(&[("by-zoe", "good"), ("good", "good"), ("later", "x")]));
    let said = done.problems.join("\n");
    for what in ["passwd", "/abs", "eve-00000002 stands still", "eve-00000003 stands still", "counter"] {
        assert!(said.contains(what), "{what} is not in:\n{said}");
    }
    assert_eq!(b.fleet.cursors().unwrap().get("eve-00000001"), Some(&1), "bad lines do not stop a log");
    assert_eq!(b.fleet.cursors().unwrap().get("eve-00000002"), None, "a damaged batch does");
    let parked = b.replica.read(|r| r.count(tcfs::state::Tree::Parked)).unwrap();
    assert_eq!(parked, 1);
    // The damaged batch is repaired: it is applied then.
    let mut fixed = good.clone();
    fixed.path = tcfs::model::RelPath::parse("repaired").unwrap();
    put("eve-00000002", 1, codec::encode_lines(line(&fixed).as_bytes()).unwrap()).await;
    b.fleet.catch_up().await.unwrap();
    assert!(b.ls().await.contains_key("repaired"));
}

/// 300 MiB of lines in a few KiB.
fn zstd_bomb() -> Bytes {
    codec::encode_lines(&vec![b'\n'; 300 << 20]).unwrap()
}

/// A file that is being written again is passed over, and takes its place when it is sealed; what depends on it waits.
#[tokio::test]
async fn a_file_written_again_lets_others_pass_and_comes_later() {
    let s = store();
    let (a, b) = (Device::new("ann", s.clone()), Device::new("bob", s.clone()));
    a.write("log", "line 1");
    a.scribble("log", b"line 1, line 2");
    a.write("other", "other");
    assert_eq!(a.publish().await.unwrap(), Round::Waiting);
    b.pull().await;
    assert_eq!(b.ls().await, tree(&[("other", "other")]));
    a.write("log", "line 1, line 2, line 3");
    assert_eq!(settle(&[&a, &b]).await, tree(&[("log", "line 1, line 2, line 3"), ("other", "other")]));
    // With a rename on top of it nothing may pass.
    a.write("log", "more");
    a.scribble("log", b"more and more");
    a.mv("log", "log.1");
    a.write("third", "3");
    assert_eq!(a.publish().await.unwrap(), Round::Waiting);
    assert_eq!(a.disk.wanted.lock().len(), 1, "the layer above is asked for a seal");
    b.pull().await;
    assert!(!b.ls().await.contains_key("third"));
    a.write("log.1", "sealed at last");
    assert_eq!(settle(&[&a, &b]).await, tree(&[("log.1", "sealed at last"), ("other", "other"), ("third", "3")]));
}

/// One file that cannot be read here, renamed, kept everything sealed after it from ever going out.
#[tokio::test]
async fn regression_bytes_that_cannot_be_read_hold_up_only_what_names_their_paths() {
    let s = store();
    let (a, b) = (Device::new("ann", s.clone()), Device::new("bob", s.clone()));
    a.write("f", "broken");
    let ino = a.disk.inos.lock()["f"];
    a.disk.broken.lock().push(ino);
    a.mv("f", "g");
    a.chmod("g", 0o600);
    a.write("other", "other");
    a.mv("other", "another");
    assert_eq!(a.publish().await.unwrap_err().kind(), ErrorKind::Corrupt);
    b.pull().await;
    assert_eq!(b.ls().await, tree(&[("another", "other")]));
    assert!(a.outbox().iter().flat_map(|(_, r)| &r.versions).any(|v| v.path.as_str() == "g"), "it is not forgotten");
    a.write("g", "whole");
    a.disk.broken.lock().clear();
    assert_eq!(settle(&[&a, &b]).await, tree(&[("another", "other"), ("g", "whole")]));
}

/// Backlog beyond one window: the later seal is looked for, and all between goes out in one object.
#[tokio::test]
async fn a_later_seal_beyond_the_window_is_found() {
    let s = store();
    let (a, b) = (Device::new("ann", s.clone()), Device::new("bob", s.clone()));
    a.write("f", "1");
    a.mv("f", "g");
    a.scribble("g", b"2");
    for i in 0..1500 {
        a.mkdir(&format!("d{i}"));
    }
    a.write("g", "3");
    a.mkdir("last");
    a.publish().await.unwrap();
    let log = a.log().await;
    // All up to the seal in one object; what lies beyond it is not needed.
    assert_eq!(log.iter().map(Vec::len).collect::<Vec<_>>(), [1501, 1]);
    assert_eq!(settle(&[&a, &b]).await.len(), 1502);
}

#[tokio::test]
async fn a_slow_upload_lets_small_saves_pass() {
    let faults = FaultStore::new(MemoryStore::new(), 1);
    let options = Options { bulk_from: 1 << 20, bulk_after: Duration::from_millis(50), ..Options::default() };
    let a = Device::with("ann", faults.clone(), 1, options);
    let b = Device::new("bob", faults.clone());
    a.publish().await.unwrap();
    let noise: Vec<u8> = (0..3_000_000u32).flat_map(|i| blake3::hash(&i.to_le_bytes()).as_bytes()[..1].to_vec()).collect();
    let hold = faults.hold(Some(Op::Put), "default/chunks/");
    a.write("big", noise.clone());
    a.mkdir("small");
    assert_eq!(a.publish().await.unwrap(), Round::Waiting);
    b.pull().await;
    assert_eq!(b.ls().await, tree(&[("small/", "")]));
    // Slow, not large: it steps aside after a while.
    a.write("slow", "slow");
    a.mkdir("small2");
    assert_eq!(a.publish().await.unwrap(), Round::Waiting);
    b.pull().await;
    assert_eq!(b.ls().await, tree(&[("small/", ""), ("small2/", "")]));
    let status = a.fleet.publish_status().unwrap();
    assert_eq!((status.pending, status.bytes), (2, noise.len() as u64 + 4));
    hold.release();
    while a.publish().await.unwrap() == Round::Waiting {
        tokio::task::yield_now().await;
    }
    assert_eq!(settle(&[&a, &b]).await.len(), 4);
}

#[tokio::test]
async fn the_state_of_one_store_is_refused_by_another() {
    let s = store();
    let a = Device::new("ann", s.clone());
    a.publish().await.unwrap();
    s.inner.delete("default/store.json").await.unwrap();
    tcfs::store::identity::ensure(&*s.inner, &keys(), &tcfs::clock::SystemClock).await.unwrap();
    let a = a.crash().await;
    a.write("f", "x");
    let e = a.publish().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Usage);
    assert!(e.to_string().contains("another store"), "{e}");
    assert_eq!(a.log().await.len(), 0);
}

#[tokio::test]
async fn metadata_on_top_of_unpublished_bytes_keeps_both() {
    let s = store();
    let (a, b) = (Device::new("ann", s.clone()), Device::new("bob", s.clone()));
    a.write("f", "x");
    a.chmod("f", 0o755);
    a.publish().await.unwrap();
    let log = a.log().await;
    assert_eq!(log.len(), 1);
    let v = &log[0][0];
    assert_eq!((v.mode & 0o777, v.base, log[0].len()), (0o755, None, 1));
    assert!(matches!(&v.kind, Kind::File(c) if !c.manifest.is_zero()));
    assert_eq!(settle(&[&a, &b]).await, tree(&[("f", "x")]));
}

/// The loops: no timer stands between a close here and the tree there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_devices_hear_of_each_other_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let s: tcfs::store::StoreRef = tcfs::store::open(&format!("file://{}", dir.path().display()), &Default::default()).unwrap().0;
    let (a, b) = (Device::new("ann", s.clone()), Device::new("bob", s.clone()));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let ra = tokio::spawn(a.fleet.clone().run(stopped.clone()));
    let rb = tokio::spawn(b.fleet.clone().run(stopped));
    a.fleet.wait_published(a.write("first", "1"), Duration::from_secs(20)).await.unwrap();
    let mut took = Vec::new();
    for i in 0..15 {
        let name = format!("f{i}");
        let start = std::time::Instant::now();
        let seq = a.write(&name, format!("text {i}"));
        while b.register(&name).is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert!(start.elapsed() < Duration::from_secs(20), "{name} never arrived");
        }
        took.push(start.elapsed());
        a.fleet.wait_published(seq, Duration::from_secs(20)).await.unwrap();
    }
    took.sort();
    println!("close here → tree there: median {:?}, longest {:?}", took[took.len() / 2], took[took.len() - 1]);
    assert!(took[took.len() / 2] < Duration::from_millis(1000), "{took:?}");
    stop.send_replace(true);
    ra.await.unwrap();
    rb.await.unwrap();
}

/// A store that is away: nothing is lost, the state shows it, and publishing goes on by itself when it is back.
#[tokio::test]
async fn an_unreachable_store_is_tried_until_it_returns() {
    let faults = FaultStore::new(MemoryStore::new(), 1);
    faults.set(vec![Rule::new(Mode::Down)]);
    let options = Options { poll_interval: Some(Duration::from_millis(100)), ..Options::default() };
    let a = Device::with("ann", faults.clone(), 1, options);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let ra = tokio::spawn(a.fleet.clone().run(stopped));
    let seq = a.write("f", "x");
    let e = a.fleet.wait_published(seq, Duration::from_millis(700)).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Timeout);
    let status = a.fleet.publish_status().unwrap();
    assert!(status.pending == 1 && status.since.is_some() && status.last_error.is_some(), "{status:?}");
    assert!(e.hint_text().unwrap().contains(&status.last_error.unwrap()));
    faults.clear();
    a.fleet.wait_published(seq, Duration::from_secs(120)).await.unwrap();
    assert_eq!(a.fleet.publish_status().unwrap().last_error, None);
    stop.send_replace(true);
    ra.await.unwrap();
}

/// Many small files: in few batches, and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_small_files_go_out_in_few_batches() {
    let n: usize = std::env::var("TCFS_TEST_FILES").ok().and_then(|n| n.parse().ok()).unwrap_or(2000);
    let dir = tempfile::tempdir().unwrap();
    let s: tcfs::store::StoreRef = match std::env::var("TCFS_TEST_DIR_STORE") {
        Ok(_) => tcfs::store::open(&format!("file://{}", dir.path().display()), &Default::default()).unwrap().0,
        Err(_) => MemoryStore::new(),
    };
    let (a, b) = (Device::new("ann", s.clone()), Device::new("bob", s.clone()));
    a.publish().await.unwrap();
    let start = std::time::Instant::now();
    for i in 0..n {
        a.write(&format!("d{}/f{i}", i % 50), format!("content of file {i}"));
    }
    let wrote = start.elapsed();
    let start = std::time::Instant::now();
    a.publish().await.unwrap();
    let out = start.elapsed();
    let start = std::time::Instant::now();
    b.pull().await;
    println!("{n} files: sealed in {wrote:?}, published in {out:?}, applied in {:?}", start.elapsed());
    let log = a.log().await;
    assert!(log.len() <= n / 1000 + 1, "{} batches", log.len());
    assert!(log.concat().iter().enumerate().all(|(i, v)| v.path.as_str().ends_with(&format!("/f{i}"))));
    assert_eq!(b.ls().await.len(), n + 50);
}

/// A store that came back from an older backup gets this device's latest batches again.
#[tokio::test]
async fn own_batches_that_went_missing_are_put_again() {
    let s = store();
    let (mut a, b) = (Device::new("ann", s.clone()), Device::new("bob", s.clone()));
    for i in 0..4 {
        a.write("f", format!("{i}"));
        a.publish().await.unwrap();
    }
    let log = a.log().await;
    let mut bodies = Vec::new();
    for seq in 3..=4 {
        let key = keys().batch(&a.id(), seq);
        bodies.push(s.get(&key).await.unwrap());
        s.delete(&key).await.unwrap();
    }
    a = a.crash().await;
    a.write("g", "g");
    a.publish().await.unwrap();
    for (seq, body) in (3..).zip(bodies) {
        assert_eq!(s.get(&keys().batch(&a.id(), seq)).await.unwrap(), body);
    }
    assert_eq!(a.log().await[..4], log[..]);
    assert!(a.disk.new_ids.lock().is_empty());
    assert_eq!(settle(&[&a, &b]).await, tree(&[("f", "3"), ("g", "g")]));
}

#[tokio::test]
async fn enrolling_numbers_names_replaces_on_request_and_keeps_what_it_does_not_know() {
    use tcfs::fleet::Registry;
    let s = MemoryStore::new();
    let old = br#"{"registry_signature":"sig","devices":[{"device_id":"0b5e-uuid","name":"attic","last_nats_seq":7}]}"#;
    s.put("tcfs-meta/devices.json", Bytes::from_static(old), PutMode::Overwrite).await.unwrap();
    let (registry, clock) = (Registry::new(s.clone()), tcfs::clock::ManualClock::new(1_700_000_000_000_000_000, 5));
    let one = registry.enroll("yoga", false, &|_| 0, &*clock).await.unwrap().identity;
    let two = registry.enroll("yoga", false, &|_| 0, &*clock).await.unwrap().identity;
    assert_eq!((one.name.as_str(), two.name.as_str()), ("yoga", "yoga-2"));
    let third = registry.enroll("yoga", true, &|id| if id == one.id { 9 } else { 0 }, &*clock).await.unwrap();
    assert_eq!((third.identity.name.as_str(), third.replaced.as_slice()), ("yoga", &[one.id.clone()][..]));
    let listed = registry.list().await.unwrap().devices;
    let shown: Vec<_> =
        listed.iter().map(|d| (d.shown_name.as_str(), d.record.id.as_str(), d.revoked.as_ref().map(|r| r.revoked_after))).collect();
    let mut expected =
        vec![("yoga", one.id.as_str(), Some(9)), ("yoga", third.identity.id.as_str(), None), ("yoga-2", two.id.as_str(), None)];
    expected.sort();
    let mut sorted = shown.clone();
    sorted.sort();
    assert_eq!(sorted, expected);
    assert_eq!(registry.enroll("Yo Ga", false, &|_| 0, &*clock).await.unwrap_err().kind(), ErrorKind::Usage);
    assert_eq!(registry.find("yoga").await.unwrap().record.id, third.identity.id);
    assert_eq!(registry.find("nobody").await.unwrap_err().kind(), ErrorKind::NotFound);
    // A device's own unknown fields survive when it writes its object again.
    let key = format!("tcfs-meta/devices/{}.json", two.id);
    let mut object: serde_json::Value = serde_json::from_slice(&s.get(&key).await.unwrap()).unwrap();
    object["colour"] = "green".into();
    s.put(&key, object.to_string().into(), PutMode::Overwrite).await.unwrap();
    registry.put_own(&two, &*clock).await.unwrap();
    registry.rebuild_view().await.unwrap();
    let view: serde_json::Value = serde_json::from_slice(&s.get("tcfs-meta/devices.json").await.unwrap()).unwrap();
    assert_eq!(view["registry_signature"], "sig");
    let devices = view["devices"].as_array().unwrap();
    assert_eq!(devices.len(), 4);
    assert!(devices.iter().any(|d| d["device_id"] == "0b5e-uuid" && d["last_nats_seq"] == 7));
    assert!(devices.iter().any(|d| d["id"] == two.id.as_str() && d["colour"] == "green" && d["revoked"] == false));
    assert!(devices.iter().any(|d| d["id"] == one.id.as_str() && d["revoked_after"] == 9 && d["revoked"] == true));
    assert!(devices.iter().all(|d| d.get("secret_key").is_none()));
    // Two of one name made while apart: the larger id shows with a number.
    let apart = tcfs::fleet::Identity::create("yoga", &*clock).unwrap();
    registry.put_own(&apart, &*clock).await.unwrap();
    let listed = registry.list().await.unwrap().devices;
    let larger = apart.id.clone().max(third.identity.id.clone());
    assert_eq!(listed.iter().find(|d| d.record.id == larger).unwrap().shown_name, "yoga-3");
}

#[tokio::test]
async fn a_rename_keeps_the_id_and_a_revoked_log_ends_where_it_was_cut() {
    let s = store();
    let (mut a, b) = (Device::new("ann", s.clone()), Device::new("bob", s.clone()));
    b.publish().await.unwrap();
    a.write("f", "1");
    a.publish().await.unwrap();
    let id = a.id();
    assert_eq!(a.fleet.rename("bob").await.unwrap_err().kind(), ErrorKind::Exists);
    a.fleet.rename("anna").await.unwrap();
    a = a.crash().await;
    assert_eq!((a.id(), a.me.get().name.as_str()), (id.clone(), "anna"));
    assert_eq!(tcfs::fleet::Identity::load(a.dir.path()).unwrap(), *a.me.get());
    a.write("g", "2");
    a.publish().await.unwrap();
    assert_eq!(a.log().await[1][0].device_name, "anna");
    let registry = b.fleet.registry();
    registry.revoke(&id, 1, &b.id(), &*b.clock).await.unwrap();
    registry.revoke(&id, 2, &b.id(), &*b.clock).await.unwrap();
    b.pull().await;
    assert_eq!(b.ls().await, tree(&[("f", "1")]));
    assert_eq!(registry.revoke("nobody-00000000", 1, &b.id(), &*b.clock).await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// CONFLICTS row 39, the part after the state is there: what was not published goes out under the new identity.
#[tokio::test]
async fn enrolling_anew_takes_unpublished_work_along() {
    let s = store();
    let (mut a, b) = (Device::new("ann", s.clone()), Device::new("bob", s.clone()));
    a.write("f", "1");
    settle(&[&a, &b]).await;
    a.write("f", "2");
    a.write("new", "n");
    let old = a.id();
    let new = a.fleet.registry().enroll("ann", true, &|_| 1, &*a.clock).await.unwrap();
    assert_eq!(new.replaced, std::slice::from_ref(&old));
    a.fleet.enroll_as(new.identity).await.unwrap();
    assert_ne!(a.id(), old);
    a = a.crash().await;
    assert_eq!(settle(&[&a, &b]).await, tree(&[("f", "2"), ("new", "n")]));
    assert!(a.log().await.concat().iter().all(|v| v.device_id == a.id()));
}

/// Three devices, random operations, deliveries, crashes and dying stores: all end in one state, and nothing was ever
/// in a log before what it speaks of.
#[tokio::test]
async fn random_fleets_converge() {
    let rounds = std::env::var("TCFS_TEST_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(25);
    for seed in 0..rounds {
        let mut rng = fastrand::Rng::with_seed(seed);
        let s = store();
        let mut fleet: Vec<Device> = ["ann", "bob", "cyd"].iter().map(|n| Device::new(n, s.clone())).collect();
        let paths = ["a", "b", "d/a", "d/b"];
        let mut n = 0;
        for step in 0..40 {
            if step == 20 && seed % 3 == 0 {
                // A copy of a machine joins in, with what was pending on it.
                let twin = fleet[0].clone_machine(seed + 1000);
                fleet.push(twin);
            }
            let at = rng.usize(..fleet.len());
            let d = &fleet[at];
            let (p, q) = (paths[rng.usize(..paths.len())], paths[rng.usize(..paths.len())]);
            n += 1;
            match rng.u32(..12) {
                0..=3 => drop(d.write(p, format!("{seed}:{n}"))),
                4 if d.shows(p) => drop(d.rm(p)),
                5 if d.shows(p) && p != q => drop(d.mv(p, q)),
                6 if d.shows(p) => drop(d.chmod(p, 0o600 | rng.u32(..0o200))),
                7 => {
                    s.die_at(rng.u64(..4), rng.bool());
                    let _ = d.publish().await;
                    s.revive();
                }
                8 => {
                    d.disk.fail_resolved.store(true, Ordering::SeqCst);
                    let _ = d.publish().await;
                    d.disk.fail_resolved.store(false, Ordering::SeqCst);
                }
                9 => {
                    let d = fleet.remove(at).crash().await;
                    fleet.insert(at, d);
                }
                10 => assert_eq!(d.publish().await.unwrap(), Round::Idle, "seed {seed}"),
                _ => drop(d.fleet.catch_up().await.unwrap()),
            }
        }
        let all: Vec<&Device> = fleet.iter().collect();
        settle(&all).await;
        for p in paths {
            let first = fleet[0].register(p);
            for d in &fleet {
                assert_eq!(d.register(p), first, "seed {seed}: {p} on {}", d.id());
                assert!(first.heads.iter().all(|v| !v.is_uncut()), "seed {seed}: {p}");
            }
        }
        assert_eq!(*s.broken.lock(), Vec::<String>::new(), "seed {seed}");
        let took_new = fleet.iter().filter(|d| !d.disk.new_ids.lock().is_empty()).count();
        assert!(took_new <= fleet.len() - 3, "seed {seed}: somebody took itself for a clone");
        let ids: std::collections::BTreeSet<String> = fleet.iter().map(Device::id).collect();
        // As long as neither wrote anything they cannot tell.
        let quiet = fleet.len() == 4 && fleet[3].disk.new_ids.lock().is_empty() && fleet[0].disk.new_ids.lock().is_empty();
        assert!(ids.len() == fleet.len() || quiet, "seed {seed}: {ids:?}");
    }
}

/// A store that can be read but not written is not stormed.
#[tokio::test]
async fn failing_puts_are_tried_with_growing_pauses() {
    let faults = FaultStore::new(MemoryStore::new(), 1);
    let options = Options { poll_interval: Some(Duration::from_millis(50)), ..Options::default() };
    let a = Device::with("ann", faults.clone(), 1, options);
    a.publish().await.unwrap();
    faults.set(vec![Rule::new(Mode::Status500).only(Op::Put).prefix("default/")]);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let ra = tokio::spawn(a.fleet.clone().run(stopped));
    let seq = a.write("f", "x");
    assert_eq!(a.fleet.wait_published(seq, Duration::from_millis(1500)).await.unwrap_err().kind(), ErrorKind::Timeout);
    let tries = faults.calls(Op::Put, "default/chunks/");
    assert!((2..=8).contains(&tries), "{tries} attempts in 1.5 s");
    faults.clear();
    a.fleet.wait_published(seq, Duration::from_secs(60)).await.unwrap();
    stop.send_replace(true);
    ra.await.unwrap();
}
