//! The brake on real mounts: one machine deletes very much at once, the others keep it until somebody approves.
#![allow(clippy::unwrap_used)] // a failed call is a failed test

mod common;

use common::{Mounted, World, until};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const FILES: usize = 30;
const PATIENCE: Duration = Duration::from_secs(60);

/// Two machines with [`FILES`] files, on which more than ten deletes a minute are many.
fn fleet() -> (Arc<World>, Mounted, Mounted) {
    let w = World::new();
    let start = |name: &str| w.device(name).env("TCFS_BRAKE_FILES", "10").env("TCFS_BRAKE_PERCENT", "0").mount();
    let (ann, bob) = (start("ann"), start("bob"));
    ann.cli(&["device", "list"]).ok();
    std::fs::create_dir(ann.path("d")).unwrap();
    for i in 0..FILES {
        std::fs::write(ann.path(format!("d/f{i}")), format!("text {i}")).unwrap();
    }
    ann.wait();
    until("the files are there", PATIENCE, || (files(&bob) == FILES).then_some(()));
    (w, ann, bob)
}

fn files(m: &Mounted) -> usize {
    std::fs::read_dir(m.path("d")).map_or(0, |d| d.count())
}

fn held(m: &Mounted) -> u64 {
    m.status()["held_back"].as_u64().unwrap()
}

fn list(m: &Mounted) -> Vec<Value> {
    let mut all = m.cli(&["--json", "approve", "--list"]).ok().json();
    all.retain(|v| v["type"] == "held_back");
    all
}

/// All deletes are held back, there and here, the first ones too.
fn all_held(ann: &Mounted, bob: &Mounted, n: u64) {
    until("every delete is held back where it was made", PATIENCE, || (held(ann) == n).then_some(()));
    ann.wait();
    until("and known on the other machine", PATIENCE, || (held(bob) == n).then_some(()));
}

fn same_entries(ann: &Mounted, bob: &Mounted, path: &str) {
    let versions = |m: &Mounted| {
        let mut all = m.cli(&["--json", "history", path]).ok().json();
        all.retain(|v| v["head"] == true);
        all.iter().map(|v| v["version"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(versions(ann), versions(bob), "{path}");
}

fn rm_rf(p: &Path) {
    std::fs::remove_dir_all(p).unwrap();
}

#[test]
fn many_deletes_wait_for_an_approval_on_the_other_machine() {
    drive_only!();
    let (_w, ann, bob) = fleet();
    rm_rf(&ann.path("d"));
    assert!(!ann.path("d").exists());
    // The directory as well.
    all_held(&ann, &bob, FILES as u64 + 1);
    assert_eq!(files(&bob), FILES);
    assert_eq!(std::fs::read_to_string(bob.path("d/f7")).unwrap(), "text 7");
    same_entries(&ann, &bob, "d/f0");
    same_entries(&ann, &bob, "d/f29");
    let newest = |m: &Mounted| m.cli(&["--json", "history", "d/f3"]).ok().json().remove(0);
    let (here, there) = (newest(&ann), newest(&bob));
    assert_eq!((here["kind"].as_str(), there["kind"].as_str()), (Some("removed"), Some("file")));
    assert!(here["held_back"] == true && there["held_back"] == true && there["current"] == true);
    let l = list(&bob);
    assert_eq!(l.len(), FILES + 1);
    let f = l.iter().find(|h| h["path"] == "d/f3").unwrap();
    assert_eq!((f["kind"].as_str(), f["size"].as_u64(), f["device"]["name"].as_str()), (Some("file"), Some(6), Some("ann")));
    assert!(bob.cli(&["status"]).ok().stdout.contains("tcfs approve --list"));
    assert!(bob.cli(&["doctor"]).stdout.contains("held back"));
    // A machine that comes later sees what is not approved as well.
    let cat = _w.device("cat").mount();
    until("a new machine has the files", PATIENCE, || (files(&cat) == FILES).then_some(()));
    // There: on a machine that did not delete them, a part first.
    let said = bob.cli(&["approve", "d/f0"]).ok();
    assert!(said.stdout.contains("1 delete approved; 30 are still held back"), "{}", said.text());
    until("one is gone", PATIENCE, || (!bob.path("d/f0").exists() && !cat.path("d/f0").exists()).then_some(()));
    bob.cli(&["approve"]).ok();
    assert!(!bob.path("d").exists());
    bob.wait();
    until("gone everywhere", PATIENCE, || (!cat.path("d").exists() && held(&ann) == 0 && held(&cat) == 0).then_some(()));
    assert!(bob.cli(&["approve", "--list"]).ok().stdout.contains("no deletes are held back"));
    // And what was deleted can be had again for a month.
    bob.cli(&["restore", "d/f5"]).ok();
    assert_eq!(std::fs::read_to_string(bob.path("d/f5")).unwrap(), "text 5");
}

#[test]
fn a_mistake_is_taken_back_where_it_was_made() {
    drive_only!();
    let (_w, ann, bob) = fleet();
    rm_rf(&ann.path("d"));
    all_held(&ann, &bob, FILES as u64 + 1);
    ann.cli(&["approve", "--undo"]).ok();
    assert_eq!(files(&ann), FILES);
    assert_eq!(std::fs::read_to_string(ann.path("d/f7")).unwrap(), "text 7");
    ann.wait();
    until("nothing is held back", PATIENCE, || (held(&bob) == 0).then_some(()));
    assert_eq!(files(&bob), FILES);
    same_entries(&ann, &bob, "d/f7");
}

#[test]
fn emptied_files_keep_their_bytes_on_the_other_machine() {
    drive_only!();
    let (_w, ann, bob) = fleet();
    for i in 0..FILES {
        std::fs::write(ann.path(format!("d/f{i}")), "").unwrap();
    }
    all_held(&ann, &bob, FILES as u64);
    let read = |m: &Mounted, i: usize| std::fs::read_to_string(m.path(format!("d/f{i}"))).unwrap();
    for i in 0..FILES {
        assert_eq!((read(&ann, i), read(&bob, i)), (String::new(), format!("text {i}")));
    }
    assert!(list(&ann).iter().all(|h| h["emptied"] == true && h["own"] == true));
    // An edit of what is still to be seen is worth more than the emptying.
    std::fs::write(bob.path("d/f1"), "edited").unwrap();
    bob.wait();
    until("the edit arrives", PATIENCE, || (read(&ann, 1) == "edited").then_some(()));
    assert_eq!(std::fs::read_dir(ann.path("d")).unwrap().count(), FILES, "no conflict");
    ann.cli(&["approve", "--device", "ann"]).ok();
    ann.wait();
    until("empty everywhere but for the edit", PATIENCE, || (held(&bob) == 0 && read(&bob, 2).is_empty()).then_some(()));
    assert_eq!((read(&ann, 1), read(&bob, 1)), ("edited".into(), "edited".into()));
    let none = ann.cli(&["approve", "--device", "nobody"]).ok();
    assert!(none.stdout.contains("no deletes are held back"), "{}", none.text());
}

#[test]
fn few_deletes_and_moves_go_out_at_once() {
    drive_only!();
    let (_w, ann, bob) = fleet();
    for i in 0..5 {
        std::fs::remove_file(ann.path(format!("d/f{i}"))).unwrap();
    }
    std::fs::rename(ann.path("d"), ann.path("e")).unwrap();
    for i in 5..FILES {
        std::fs::rename(ann.path(format!("e/f{i}")), ann.path(format!("g{i}"))).unwrap();
    }
    ann.wait();
    until("all of it arrives", PATIENCE, || {
        (!bob.path("d").exists() && bob.path("g29").exists() && std::fs::read_dir(bob.path("e")).unwrap().next().is_none()).then_some(())
    });
    assert_eq!((held(&ann), held(&bob)), (0, 0));
}

#[test]
fn without_a_brake_every_delete_goes_out() {
    drive_only!();
    let w = World::new();
    let start = |name: &str| w.device(name).env("TCFS_BRAKE_FILES", "10").env("TCFS_BRAKE_PERCENT", "0");
    let (ann, bob) = (start("ann").env("TCFS_BRAKE_ENABLED", "false").mount(), start("bob").mount());
    std::fs::create_dir(ann.path("d")).unwrap();
    (0..FILES).for_each(|i| std::fs::write(ann.path(format!("d/f{i}")), "text").unwrap());
    ann.wait();
    until("the files are there", PATIENCE, || (files(&bob) == FILES).then_some(()));
    rm_rf(&ann.path("d"));
    ann.wait();
    until("they are gone", PATIENCE, || (!bob.path("d").exists()).then_some(()));
    assert_eq!((held(&ann), held(&bob)), (0, 0));
}
