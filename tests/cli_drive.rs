//! What the command line does to a drive, on the real program with a directory store: without a daemon (the drive is
//! opened for one command), and with one that has the drive mounted.
//!
//! Not here: usage errors and configuration (`cli`), the mount as a file system (`fuse`).
#![allow(clippy::unwrap_used)] // a failed call is a failed test

mod common;

use common::cli::Done;
use common::{Mounted, World, until};
use serde_json::{Value, json};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Two machines on one store, without daemons or mounted.
fn two(mounted: bool) -> (Arc<World>, Mounted, Mounted) {
    let w = World::new();
    let start = |name: &str| if mounted { w.device(name).mount() } else { w.device(name).off() };
    let (a, b) = (start("ann"), start("bob"));
    (w, a, b)
}

/// A local file outside the drives.
fn local(w: &World, name: &str, text: &str) -> PathBuf {
    let at = w.dir().join("local").join(name);
    std::fs::create_dir_all(at.parent().unwrap()).unwrap();
    std::fs::write(&at, text).unwrap();
    at
}

fn text(p: impl AsRef<Path>) -> String {
    let p = p.as_ref();
    std::fs::read_to_string(p).unwrap_or_else(|e| panic!("{}: {e}", p.display()))
}

fn s(p: &Path) -> &str {
    p.to_str().unwrap()
}

/// The last object printed: the answer; what comes before are the items of a list.
fn answer(d: &Done) -> Value {
    d.json().pop().unwrap_or_else(|| panic!("{} printed nothing\n{}", d.line, d.text()))
}

fn items(d: &Done) -> Vec<Value> {
    let mut all = d.json();
    all.retain(|v| ["entry", "version", "conflict", "device", "check"].contains(&v["type"].as_str().unwrap_or("")));
    all
}

#[track_caller]
fn push(m: &Mounted, from: &Path, to: &str, code: i32) -> Value {
    answer(&m.cli(&["--json", "push", s(from), "--to", to]).exit(code))
}

/// What a machine sees at a path, after catching up with the store.
#[track_caller]
fn pulled(w: &World, m: &Mounted, path: &str) -> String {
    let at = w.dir().join(format!("pulled-{}", fastrand::u64(..)));
    m.cli(&["pull", path, s(&at)]).ok();
    text(&at)
}

#[track_caller]
fn names(m: &Mounted, path: &str) -> Vec<String> {
    items(&m.cli(&["--json", "ls", path]).ok()).iter().map(|e| e["path"].as_str().unwrap().to_owned()).collect()
}

fn in_both_ways(test: fn(bool)) {
    test(false);
    if !common::native() {
        test(true);
    }
}

#[test]
fn a_pushed_file_can_be_pulled_elsewhere_by_both_forms_of_its_path() {
    fn test(mounted: bool) {
        let (w, a, b) = two(mounted);
        let f = local(&w, "a.txt", "hello\n");
        std::fs::set_permissions(&f, std::fs::Permissions::from_mode(0o750)).unwrap();
        let r = answer(&a.cli(&["--json", "push", s(&f)]).ok());
        assert_eq!(
            (r["path"].as_str(), r["files"].as_u64(), r["new"].as_u64(), r["queued"].as_bool()),
            (Some("a.txt"), Some(1), Some(1), Some(false))
        );
        for path in ["a.txt", "tcfs/default/a.txt"] {
            let to = w.dir().join("to.txt");
            let r = answer(&b.cli(&["--json", "pull", path, s(&to)]).ok());
            assert_eq!((text(&to).as_str(), r["offline"].as_bool()), ("hello\n", Some(false)));
            let (was, is) = (f.metadata().unwrap(), to.metadata().unwrap());
            assert_eq!((is.mode() & 0o777, is.mtime(), is.mtime_nsec()), (0o750, was.mtime(), was.mtime_nsec()));
            std::fs::remove_file(&to).unwrap();
        }
        // Again: nothing to do, whoever does it.
        for m in [&a, &b] {
            let r = push(m, &f, "a.txt", 0);
            assert_eq!((r["same"].as_u64(), r["files"].as_u64()), (Some(1), Some(0)), "{r}");
        }
        a.cli(&["push", s(&f), "--to", "deep/er/"]).ok();
        assert_eq!(names(&a, "deep/er"), ["deep/er/a.txt"]);
        let into = w.dir().join("into");
        b.cli(&["pull", "deep", &format!("{}/", s(&into))]).ok();
        assert_eq!(text(into.join("deep/er/a.txt")), "hello\n");
        // An entry of that very name is meant before the words of the store.
        a.cli(&["push", s(&local(&w, "x", "inner")), "--to", "/tcfs/default/a.txt"]).ok();
        assert_eq!(pulled(&w, &a, "tcfs/default/a.txt"), "inner");
        assert_eq!(a.cli(&["pull", "none.txt", "/tmp/"]).exit(1).stderr.lines().next().map(|l| l.contains("none.txt")), Some(true));
    }
    in_both_ways(test);
}

#[test]
fn a_tree_goes_through_with_links_modes_and_empty_directories_and_what_cannot_is_told() {
    let (w, a, b) = two(false);
    let top = w.dir().join("local/tree");
    std::fs::create_dir_all(top.join("sub/empty")).unwrap();
    std::fs::write(top.join("sub/run"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(top.join("sub/run"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(top.join("zero"), "").unwrap();
    let big: Vec<u8> = (0..9_000_000u32).flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 7).to_le_bytes()).take(9_000_000).collect();
    std::fs::write(top.join("big"), &big).unwrap();
    std::os::unix::fs::symlink("sub/run", top.join("link")).unwrap();
    std::fs::write(top.join(".DS_Store"), "junk").unwrap();
    common::sys::mknod(&top.join("pipe"), libc::S_IFIFO | 0o600, 0).unwrap();
    let dry = answer(&a.cli(&["--json", "push", "-n", s(&top)]).exit(3));
    assert_eq!((dry["new"].as_u64(), dry["dry_run"].as_bool()), (Some(7), Some(true)), "{dry}");
    assert_eq!(names(&a, "/"), Vec::<String>::new());
    let r = answer(&a.cli_long(&["--json", "push", s(&top)]).exit(3));
    assert_eq!((r["files"].as_u64(), r["others"].as_u64(), r["queued"].as_bool()), (Some(3), Some(4), Some(false)), "{r}");
    let skipped: Vec<&str> = r["skipped"].as_array().unwrap().iter().map(|s| s["path"].as_str().unwrap()).collect();
    assert_eq!(skipped, ["tree/.DS_Store", "tree/pipe"]);
    let into = w.dir().join("out/");
    let out = into.join("tree");
    let r = answer(&b.cli_long(&["--json", "pull", "tree", s(&into)]).ok());
    assert_eq!(r["files"].as_u64(), Some(3), "{r}");
    assert!(std::fs::read(out.join("big")).unwrap() == big);
    assert!(out.join("sub/empty").is_dir() && out.join("zero").metadata().unwrap().len() == 0);
    assert_eq!(out.join("sub/run").metadata().unwrap().mode() & 0o777, 0o755);
    assert_eq!(std::fs::read_link(out.join("link")).unwrap(), Path::new("sub/run"));
    // A second time: what is the same is left, what differs is named and left, --force overwrites it.
    std::fs::write(out.join("sub/run"), "mine").unwrap();
    let r = answer(&b.cli(&["--json", "pull", "tree", s(&into)]).exit(3));
    assert_eq!(
        (r["files"].as_u64(), r["same"].as_u64(), r["skipped"][0]["path"].as_str()),
        (Some(0), Some(2), Some("tree/sub/run")),
        "{r}"
    );
    assert_eq!(text(out.join("sub/run")), "mine");
    b.cli(&["pull", "--force", "tree", s(&into)]).ok();
    assert_eq!(text(out.join("sub/run")), "#!/bin/sh\n");
}

#[test]
fn a_push_replaces_only_what_this_machine_has_had_outside() {
    fn test(mounted: bool) {
        let (w, a, b) = two(mounted);
        let f = local(&w, "f", "one");
        push(&a, &f, "f", 0);
        // What this machine pushed there itself is replaced.
        push(&a, &local(&w, "f", "two, longer"), "f", 0);
        // What it pulled from there, too.
        assert_eq!(pulled(&w, &b, "f"), "two, longer");
        let r = push(&b, &local(&w, "f", "three"), "f", 0);
        assert_eq!((r["different"].as_u64(), r["conflicts"].as_array().unwrap().len()), (Some(1), 0), "{r}");
        // The first machine has not had that: both stay.
        assert_eq!(size_after_look(&a, "f"), 5);
        let r = push(&a, &local(&w, "f", "four"), "f", 3);
        assert_eq!(r["conflicts"][0].as_str(), Some("f"), "{r}");
        assert_eq!(names(&a, "/"), ["f", "f.conflict-bob"]);
        let contents = [pulled(&w, &a, "f"), pulled(&w, &a, "f.conflict-bob")];
        assert_eq!(contents, ["four", "three"]);
        // With --force it replaces all.
        push(&b, &local(&w, "f", "four"), "f", 0);
        let r = answer(&b.cli(&["--json", "push", "--force", s(&local(&w, "f", "five")), "--to", "f"]).ok());
        assert_eq!(r["conflicts"].as_array().unwrap().len(), 0);
        assert_eq!(names(&b, "/"), ["f"]);
        assert_eq!(pulled(&w, &a, "f"), "five");
    }
    in_both_ways(test);
}

/// Bytes of what a path shows, after a look at the store; unlike a pull it leaves nothing outside.
#[track_caller]
fn size_after_look(m: &Mounted, path: &str) -> u64 {
    m.cli(&["device", "list"]).ok();
    items(&m.cli(&["--json", "ls", path]).ok())[0]["size"].as_u64().unwrap()
}

#[test]
fn a_push_without_the_store_is_queued_and_goes_out_later() {
    let (w, a, b) = two(false);
    push(&a, &local(&w, "f", "one"), "f", 0);
    a.fault(Some(json!({ "mode": "down" })));
    let r = push(&a, &local(&w, "g", "offline"), "g", 3);
    assert_eq!(r["queued"].as_bool(), Some(true), "{r}");
    let p = answer(&a.cli(&["--json", "pull", "g", s(&w.dir().join("g"))]).ok());
    assert_eq!((p["offline"].as_bool(), text(w.dir().join("g")).as_str()), (Some(true), "offline"));
    let d = a.cli(&["device", "list"]).ok();
    assert!(d.stderr.contains("does not answer") && d.stdout.contains("this machine"), "{}", d.text());
    assert_eq!(a.cli(&["doctor"]).code, 1);
    a.fault(None);
    a.cli(&["wait"]).ok();
    assert_eq!(pulled(&w, &b, "g"), "offline");
}

#[test]
fn no_name_and_no_link_of_the_drive_leads_out_of_where_it_is_pulled_to() {
    let (w, a, b) = two(false);
    let outside = w.dir().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let tree = w.dir().join("local/t");
    std::fs::create_dir_all(&tree).unwrap();
    std::os::unix::fs::symlink(&outside, tree.join("d")).unwrap();
    a.cli(&["push", s(&tree)]).ok();
    let into = w.dir().join("out/");
    let out = into.join("t");
    b.cli(&["pull", "t", s(&into)]).ok();
    assert!(out.join("d").is_symlink());
    // The link becomes a directory with a file: the local link is in the way and not followed.
    a.mount();
    std::fs::remove_file(a.path("t/d")).unwrap();
    std::fs::create_dir(a.path("t/d")).unwrap();
    std::fs::write(a.path("t/d/evil"), "x").unwrap();
    a.cli(&["wait"]).ok();
    let r = answer(&b.cli(&["--json", "pull", "t", s(&into)]).exit(3));
    assert_eq!(r["skipped"][0]["path"].as_str(), Some("t/d"), "{r}");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    b.cli(&["pull", "--force", "t", s(&into)]).ok();
    assert_eq!((text(out.join("d/evil")).as_str(), std::fs::read_dir(&outside).unwrap().count()), ("x", 0));
}

#[test]
fn ls_tells_where_bytes_are_and_hydrate_unsync_and_pin_move_them() {
    fn test(mounted: bool) {
        let (w, a, b) = two(mounted);
        let tree = w.dir().join("local/d");
        std::fs::create_dir_all(&tree).unwrap();
        for n in 0..3 {
            std::fs::write(tree.join(format!("f{n}")), format!("content {n}").repeat(1000)).unwrap();
        }
        std::fs::write(tree.join(".hidden"), "h").unwrap();
        a.cli(&["push", s(&tree)]).ok();
        b.cli(&["device", "list"]).ok();
        let residence = |m: &Mounted| -> Vec<String> {
            items(&m.cli(&["--json", "ls", "d"]).ok()).iter().map(|e| e["residence"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(residence(&b), ["stub", "stub", "stub"]);
        let one = items(&b.cli(&["--json", "ls", "d/f0"]).ok()).remove(0);
        assert_eq!((one["device"].as_str(), one["size"].as_u64(), one["kind"].as_str()), (Some("ann"), Some(9000), Some("file")));
        assert_eq!(items(&b.cli(&["--json", "ls", "-R", "-a"]).ok()).len(), 5);
        let r = answer(&b.cli(&["--json", "hydrate", "d"]).ok());
        assert_eq!((r["files"].as_u64(), r["fetched"].as_u64()), (Some(4), Some(27001)), "{r}");
        assert_eq!(residence(&b), ["hydrated", "hydrated", "hydrated"]);
        let r = answer(&b.cli(&["--json", "unsync", "d"]).ok());
        assert_eq!((r["files"].as_u64(), r["bytes"].as_u64()), (Some(4), Some(27001)), "{r}");
        assert_eq!(residence(&b), ["stub", "stub", "stub"]);
        // What is pinned stays; what the store has lost stays too.
        let p = answer(&b.cli(&["--json", "pin", "d"]).ok());
        assert_eq!((p["files"].as_u64(), p["bytes"].as_u64()), (Some(4), Some(27001)), "{p}");
        assert!(items(&b.cli(&["--json", "ls", "d"]).ok()).iter().all(|e| e["pinned"] == true));
        b.cli(&["hydrate", "d"]).ok();
        let r = answer(&b.cli(&["--json", "unsync", "d/f0"]).exit(3));
        assert_eq!(r["kept"][0]["why"].as_str(), Some("pinned"), "{r}");
        if mounted {
            // Also what others add below it later.
            a.cli(&["push", s(&local(&w, "late", "late")), "--to", "d/late"]).ok();
            until("the late file is here", Duration::from_secs(30), || (residence(&b) == ["hydrated"; 4]).then_some(()));
            assert!(b.status()["cache"]["pinned_bytes"].as_u64().unwrap() > 0);
        }
        assert_eq!(answer(&b.cli(&["--json", "unpin", "d"]).ok())["was_pinned"], true);
        assert_eq!(answer(&b.cli(&["--json", "unpin", "d"]).ok())["was_pinned"], false);
        let chunks = a.store().join("default/chunks");
        let hide = w.dir().join("chunks");
        std::fs::rename(&chunks, &hide).unwrap();
        let r = answer(&b.cli(&["--json", "unsync", "d/f0"]).exit(3));
        assert!(r["kept"][0]["why"].as_str().unwrap().contains("missing in the store"), "{r}");
        std::fs::rename(&hide, &chunks).unwrap();
        b.cli(&["unsync", "d"]).ok();
        assert_eq!(pulled(&w, &b, "d/f1"), "content 1".repeat(1000));
    }
    in_both_ways(test);
}

#[test]
fn history_lists_versions_newest_first_and_restore_brings_any_of_them_back() {
    fn test(mounted: bool) {
        let (w, a, b) = two(mounted);
        for v in ["one", "two!", "three"] {
            push(&a, &local(&w, "f", v), "notes/f", 0);
        }
        let versions = items(&a.cli(&["--json", "history", "notes/f"]).ok());
        let sizes: Vec<u64> = versions.iter().map(|v| v["size"].as_u64().unwrap()).collect();
        assert_eq!(sizes, [5, 4, 3]);
        assert!(versions[0]["current"] == true && versions[1]["current"] == false && versions[2]["published"] == true, "{versions:?}");
        let id = versions[2]["version"].as_str().unwrap();
        assert_eq!(id.len(), 16);
        let r = answer(&a.cli(&["--json", "restore", "notes/f", "--version", &id[..8]]).ok());
        assert_eq!((r["version"].as_str(), r["files"].as_u64()), (Some(id), Some(1)));
        a.cli(&["wait"]).ok();
        assert_eq!(pulled(&w, &b, "notes/f"), "one");
        // The newest that is not the present one.
        a.cli(&["restore", "notes/f"]).ok();
        assert_eq!(pulled(&w, &a, "notes/f"), "three");
        a.cli(&["restore", "notes/f", "--version", id, "--to", "notes/old"]).ok();
        assert_eq!(pulled(&w, &a, "notes/old"), "one");
        a.cli(&["wait"]).ok();
        // The same ids on the other machine.
        b.cli(&["device", "list"]).ok();
        let theirs = items(&b.cli(&["--json", "history", "notes/f"]).ok());
        assert_eq!(theirs[0]["version"], items(&a.cli(&["--json", "history", "notes/f"]).ok())[0]["version"]);
        assert_eq!(a.cli(&["history", "nothing"]).code, 1);
        assert!(a.cli(&["restore", "notes/f", "--version", "ffffffffffff"]).exit(1).stderr.contains("no version"));
    }
    in_both_ways(test);
}

#[test]
fn a_removed_tree_comes_back_as_it_was_at_a_time() {
    drive_only!();
    let m = Mounted::new();
    std::fs::create_dir_all(m.path("d/sub")).unwrap();
    std::fs::write(m.path("d/a"), "a").unwrap();
    std::fs::write(m.path("d/sub/b"), "b").unwrap();
    std::fs::write(m.path("d/early"), "gone before").unwrap();
    m.wait();
    std::fs::remove_file(m.path("d/early")).unwrap();
    m.wait();
    let ms = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    std::thread::sleep(Duration::from_millis(1100));
    let then = time::OffsetDateTime::from_unix_timestamp(ms() / 1000).unwrap();
    let then = then.format(&time::format_description::well_known::Rfc3339).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    std::fs::remove_dir_all(m.path("d")).unwrap();
    m.wait();
    // Without a time: as it was before somebody began to remove it.
    let r = answer(&m.cli(&["--json", "restore", "d"]).ok());
    assert_eq!(r["files"].as_u64(), Some(2), "{r}");
    assert_eq!((text(m.path("d/sub/b")).as_str(), m.path("d/early").exists()), ("b", false));
    assert!(m.cli(&["restore", "d"]).exit(2).stderr.contains("--at"), "one that is there needs a time");
    std::fs::remove_dir_all(m.path("d")).unwrap();
    m.wait();
    let r = answer(&m.cli(&["--json", "restore", "d", "--at", &then]).ok());
    assert_eq!(r["files"].as_u64(), Some(2), "{r}");
    assert_eq!((text(m.path("d/a")).as_str(), text(m.path("d/sub/b")).as_str()), ("a", "b"));
    assert!(!m.path("d/early").exists());
    // A single removed file needs no time.
    std::fs::remove_file(m.path("d/a")).unwrap();
    m.cli(&["restore", s(&m.path("d/a"))]).ok();
    assert_eq!(text(m.path("d/a")), "a");
}

/// Both machines have pushed to the same path without having seen each other's.
fn conflict(mounted: bool) -> (Arc<World>, Mounted, Mounted) {
    let (w, a, b) = two(mounted);
    push(&a, &local(&w, "f", "of ann"), "d/f.txt", 0);
    b.cli(&["device", "list"]).ok();
    push(&b, &local(&w, "f", "of bob!"), "d/f.txt", 3);
    a.cli(&["device", "list"]).ok();
    (w, a, b)
}

#[test]
fn a_conflict_is_listed_and_ends_everywhere_by_a_choice() {
    fn test(mounted: bool) {
        for (keep, want, code) in [
            (&["--keep-local"][..], vec![("d/f.txt", "of bob!")], 0),
            (&["--keep-remote"], vec![("d/f.txt", "of ann")], 0),
            (&["--keep", "ann"], vec![("d/f.txt", "of ann")], 0),
            (&["--keep-both"], vec![("d/f.conflict-bob.txt", "of bob!"), ("d/f.txt", "of ann")], 0),
        ] {
            let (w, a, b) = conflict(mounted);
            let c = items(&b.cli(&["--json", "conflicts"]).ok());
            assert_eq!((c.len(), c[0]["path"].as_str(), c[0]["heads"].as_array().unwrap().len()), (1, Some("d/f.txt"), 2), "{c:?}");
            let heads: Vec<(&str, bool)> =
                c[0]["heads"].as_array().unwrap().iter().map(|h| (h["path"].as_str().unwrap(), h["own"] == true)).collect();
            assert_eq!(heads, [("d/f.txt", false), ("d/f.conflict-bob.txt", true)]);
            assert_eq!(items(&b.cli(&["--json", "conflicts", "elsewhere"]).ok()).len(), 0);
            assert!(items(&b.cli(&["--json", "ls", "d"]).ok()).iter().all(|e| e["conflict"] == true));
            if mounted {
                assert_eq!(b.status()["conflicts"].as_u64(), Some(1));
                assert_eq!(text(b.path("d/f.conflict-bob.txt")), "of bob!");
            }
            // By its own name or by that of a sibling.
            let path = if keep[0] == "--keep" { "d/f.conflict-bob.txt" } else { "d/f.txt" };
            let args = [&["--json", "resolve-conflict", path][..], keep].concat();
            let r = answer(&b.cli(&args).exit(code));
            assert_eq!((r["path"].as_str(), r["conflicts_left"].as_u64()), (Some("d/f.txt"), Some(0)), "{r}");
            b.cli(&["wait"]).ok();
            a.cli(&["device", "list"]).ok();
            for m in [&a, &b] {
                let found: Vec<(String, String)> = names(m, "d").into_iter().map(|n| (n.clone(), pulled(&w, m, &n))).collect();
                let found: Vec<(&str, &str)> = found.iter().map(|(n, t)| (n.as_str(), t.as_str())).collect();
                assert_eq!(found, want, "{keep:?}");
                assert!(items(&m.cli(&["--json", "conflicts"]).ok()).is_empty());
                if mounted {
                    assert_eq!(m.status()["conflicts"].as_u64(), Some(0));
                    for (n, t) in &want {
                        assert_eq!(text(m.path(n)), *t, "{keep:?}");
                    }
                }
            }
            // What was not kept is in history.
            assert!(items(&a.cli(&["--json", "history", "d/f.txt"]).ok()).len() >= 2);
            assert_eq!(b.cli(&["resolve-conflict", "d/f.txt", "--keep-local"]).code, 1);
        }
    }
    in_both_ways(test);
}

#[test]
fn in_defer_mode_siblings_are_listed_and_shown_only_on_request_also_after_a_restart() {
    drive_only!();
    let w = World::new();
    let a = w.device("ann").off();
    let b = w.device("bob").env("TCFS_CONFLICT_MODE", "defer").mount();
    push(&a, &local(&w, "f", "of ann"), "f", 0);
    b.cli(&["device", "list"]).ok();
    push(&b, &local(&w, "f", "of bob!"), "f", 3);
    let list = || -> Vec<String> {
        let mut all: Vec<String> = std::fs::read_dir(b.root()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    };
    assert_eq!((list(), text(b.path("f")).as_str()), (vec!["f".to_owned()], "of bob!"));
    assert_eq!(items(&b.cli(&["--json", "conflicts"]).ok()).len(), 1);
    assert!(b.cli(&["conflicts", "show"]).ok().stdout.contains("siblings are shown"));
    assert_eq!(list(), ["f", "f.conflict-ann"]);
    assert_eq!(text(b.path("f.conflict-ann")), "of ann");
    b.remount();
    assert_eq!(list(), ["f", "f.conflict-ann"]);
    b.cli(&["conflicts", "hide"]).ok();
    assert_eq!(list(), ["f"]);
    b.cli(&["resolve-conflict", "f", "--keep-both"]).ok();
    assert_eq!(list(), ["f", "f.conflict-ann"]);
    assert_eq!(text(b.path("f.conflict-ann")), "of ann");
}

#[test]
fn unpublished_text_is_not_given_up_by_a_choice() {
    let (w, a, b) = conflict(false);
    push(&a, &local(&w, "f", "of ann, again"), "d/f.txt", 3);
    b.cli(&["device", "list"]).ok();
    b.fault(Some(json!({ "mode": "down" })));
    push(&b, &local(&w, "f", "of bob, offline"), "d/f.txt", 3);
    let e = b.cli(&["resolve-conflict", "d/f.txt", "--keep", "ann"]).exit(1);
    assert!(e.stderr.contains("not in the store yet"), "{}", e.stderr);
    b.cli(&["resolve-conflict", "d/f.txt", "--keep-both"]).ok();
    assert_eq!(pulled(&w, &b, "d/f.conflict-bob.txt"), "of bob, offline");
    b.fault(None);
    b.cli(&["wait"]).ok();
    assert_eq!(pulled(&w, &a, "d/f.conflict-bob.txt"), "of bob, offline");
}

#[test]
fn devices_are_enrolled_listed_renamed_and_revoked() {
    let (w, a, b) = two(false);
    let r = answer(&a.cli(&["--json", "device", "enroll", "--name", "yoga"]).ok());
    let id = r["device"]["id"].as_str().unwrap().to_owned();
    assert!(r["device"]["name"] == "yoga" && id.starts_with("yoga-") && r["already"] == false, "{r}");
    // The registry has that one and no trace of another.
    let view: Value = serde_json::from_str(&text(a.store().join("tcfs-meta/devices.json"))).unwrap();
    let ids: Vec<&str> = view["devices"].as_array().unwrap().iter().map(|d| d["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [id.as_str()]);
    assert_eq!(std::fs::read_dir(a.store().join("tcfs-meta/devices")).unwrap().count(), 1);
    let again = answer(&a.cli(&["--json", "device", "enroll", "--name", "yoga"]).ok());
    assert!(again["already"] == true && again["device"]["id"] == id.as_str(), "{again}");
    assert!(a.cli(&["device", "enroll", "--name", "other"]).exit(1).stderr.contains("device rename other"));
    // A name that is taken gets a number; with --replace it is taken over.
    let r = answer(&b.cli(&["--json", "device", "enroll", "--name", "yoga"]).ok());
    assert_eq!(r["device"]["name"].as_str(), Some("yoga-2"), "{r}");
    push(&b, &local(&w, "f", "kept"), "f", 0);
    let r = answer(&b.cli(&["--json", "device", "rename", "lab"]).ok());
    assert_eq!(r["device"]["name"].as_str(), Some("lab"));
    let list = |m: &Mounted| items(&m.cli(&["--json", "device", "list"]).ok());
    let all = list(&a);
    let names: Vec<(&str, bool, u64)> =
        all.iter().map(|d| (d["name"].as_str().unwrap(), d["this"] == true, d["applied"].as_u64().unwrap())).collect();
    assert_eq!(names, [("lab", false, 1), ("yoga", true, 0)]);
    let r = answer(&a.cli(&["--json", "device", "revoke", "lab"]).ok());
    assert_eq!((r["device"]["name"].as_str(), r["revoked_after"].as_u64()), (Some("lab"), Some(1)), "{r}");
    assert!(list(&a).iter().any(|d| d["name"] == "lab" && d["revoked"] == true));
    assert!(a.cli(&["device", "revoke", "yoga"]).exit(1 + 1).stderr.contains("itself"));
    assert_eq!(a.cli(&["device", "revoke", "nobody"]).code, 1);
    // A machine whose state is lost takes its name back.
    std::fs::remove_dir_all(a.state()).unwrap();
    let r = answer(&a.cli(&["--json", "device", "enroll", "--name", "yoga", "--replace"]).ok());
    assert!(r["device"]["name"] == "yoga" && r["replaced"]["id"] == id.as_str(), "{r}");
    assert_eq!(pulled(&w, &a, "f"), "kept");
    let revoked: Vec<Value> = list(&a).into_iter().filter(|d| d["revoked"] == true).collect();
    assert_eq!(revoked.len(), 2, "{revoked:?}");
}

#[test]
fn doctor_looks_at_everything_and_leaves_nothing_behind() {
    fn test(mounted: bool) {
        let (w, a, _b) = two(mounted);
        push(&a, &local(&w, "f", "x"), "names/Readme", 0);
        let d = a.cli(&["--json", "doctor"]).ok();
        let checks = items(&d);
        let verdict =
            |name: &str| checks.iter().find(|c| c["name"] == name).unwrap_or_else(|| panic!("{name}: {checks:?}"))["verdict"].clone();
        let all =
            ["kernel", "helper", "config", "socket", "store", "clock", "cache", "state", "disk", "outbox", "records", "names", "logs"];
        for name in all.into_iter().chain(mounted.then_some("mount")) {
            assert_eq!(verdict(name), "ok", "{name}: {}", d.stdout);
        }
        let sum = answer(&d);
        assert_eq!(
            (sum["type"].as_str(), sum["failed"].as_u64(), sum["ok"].as_u64()),
            (Some("checked"), Some(0), Some(checks.len() as u64))
        );
        assert!(!a.store().join("default/canary").exists() || std::fs::read_dir(a.store().join("default/canary")).unwrap().count() == 0);
        push(&a, &local(&w, "f", "x"), "names/README", 0);
        let d = a.cli(&["--json", "doctor"]).ok();
        let pair = items(&d).into_iter().find(|c| c["name"] == "names").unwrap();
        assert_eq!(pair["verdict"], "warn");
        assert!(pair["detail"].as_str().unwrap().contains("names/README") && pair["detail"].as_str().unwrap().contains("names/Readme"));
    }
    in_both_ways(test);
}

/// With the store away: what is here comes at once, what is elsewhere is named.
#[test]
fn what_is_on_this_machine_can_be_taken_out_without_the_store() {
    fn test(mounted: bool) {
        let (w, a, b) = two(mounted);
        let tree = w.dir().join("tree");
        std::fs::create_dir_all(tree.join("sub")).unwrap();
        for name in ["one", "two", "sub/three"] {
            std::fs::write(tree.join(name), name).unwrap();
        }
        a.cli(&["push", s(&tree)]).ok();
        let to = |name: &str| w.dir().join(name);
        b.cli(&["pull", "tree/one", s(&to("warm"))]).ok();
        std::fs::rename(w.store(), to("away")).unwrap();
        let r = answer(&b.cli(&["--json", "pull", "--here", "/", s(&to("rescued"))]).exit(3));
        assert_eq!((text(to("rescued/tree/one").as_path()), to("rescued/tree/sub").is_dir()), ("one".into(), true), "{r}");
        let left: Vec<&str> = r["skipped"].as_array().unwrap().iter().map(|s| s["path"].as_str().unwrap()).collect();
        assert!(left.len() == 2 && left.contains(&"tree/two") && left.contains(&"tree/sub/three"), "{left:?}");
        assert!(!to("rescued/tree/two").exists());
        let r = answer(&a.cli(&["--json", "pull", "--here", "tree", s(&to("all"))]).ok());
        assert_eq!((r["files"].as_u64(), text(to("all/sub/three").as_path())), (Some(3), "sub/three".into()));
        std::fs::rename(to("away"), w.store()).unwrap();
    }
    in_both_ways(test);
}

#[test]
fn the_store_moves_with_everything_and_the_old_place_is_refused() {
    fn test(mounted: bool) {
        let (w, a, _b) = two(mounted);
        push(&a, &local(&w, "f", "before"), "f", 0);
        let new = w.dir().join("new-store");
        let url = format!("file://{}", new.display());
        let before = answer(&a.cli(&["--json", "store", "show"]).ok());
        assert_eq!(before["reachable"], true);
        // A copy first: this machine stays, and a second one takes only what is new.
        let backup = w.dir().join("backup");
        let copy = || answer(&a.cli(&["--json", "store", "copy", &format!("file://{}", backup.display())]).ok());
        let first = copy();
        assert!(first["objects"].as_u64().unwrap() >= 5 && first["present"] == 0, "{first}");
        let many = w.dir().join("local/many");
        for i in 0..10 {
            local(&w, &format!("many/{i}"), &i.to_string());
        }
        a.cli(&["push", s(&many)]).ok();
        push(&a, &local(&w, "e", "later"), "e", 0);
        let (second, third) = (copy(), copy());
        // Each file is a chunk and a manifest at least.
        assert!(second["objects"].as_u64().unwrap() > 20 && third["objects"].as_u64().unwrap() < 8, "{second} {third}");
        assert!(third["present"].as_u64().unwrap() > 20, "{third}");
        assert_eq!(answer(&a.cli(&["--json", "store", "show"]).ok())["url"], before["url"]);
        let from_backup = w.device("erin").store(&backup).off();
        assert_eq!((pulled(&w, &from_backup, "f"), pulled(&w, &from_backup, "e")), ("before".into(), "later".into()));
        let r = answer(&a.cli(&["--json", "store", "move", &url]).ok());
        assert!(r["objects"].as_u64().unwrap() >= 5 && r["to"] == url.as_str(), "{r}");
        if mounted {
            // The daemon goes on, on the new store.
            std::fs::write(a.path("g"), "after").unwrap();
            a.wait();
            a.unmount();
        }
        let e = a.cli(&["ls"]).exit(2);
        assert!(e.stderr.contains("was moved") && e.stderr.contains(&url), "{}", e.stderr);
        let there = |args: &[&str]| a.cli(&[&["--store", url.as_str()][..], args].concat());
        assert_eq!(answer(&there(&["--json", "store", "show"]).ok())["id"], before["id"]);
        let c = w.device("cora").store(&new).off();
        assert_eq!(pulled(&w, &c, "f"), "before");
        if mounted {
            assert_eq!(pulled(&w, &c, "g"), "after");
        }
        push(&c, &local(&w, "h", "more"), "h", 0);
        there(&["pull", "h", s(&w.dir().join("h"))]).ok();
        // A place where another store is, is no place to move to.
        let other = w.device("dora").store(w.dir().join("other")).off();
        other.cli(&["push", s(&local(&w, "f", "x"))]).ok();
        let taken = format!("file://{}", w.dir().join("other").display());
        assert!(there(&["store", "move", &taken]).exit(1).stderr.contains("another store"));
    }
    in_both_ways(test);
}

#[test]
fn status_counts_entries_conflicts_and_devices() {
    drive_only!();
    let (w, a, b) = conflict(true);
    let entries = || a.status()["entries"].as_u64().unwrap();
    // d, d/f.txt and its sibling.
    assert_eq!((entries(), a.status()["conflicts"].as_u64()), (3, Some(1)));
    until("both devices are known", Duration::from_secs(30), || (a.status()["devices"] == 2).then_some(()));
    std::fs::create_dir_all(a.path("x/y")).unwrap();
    std::fs::write(a.path("x/y/1"), "1").unwrap();
    std::fs::hard_link(a.path("x/y/1"), a.path("x/y/2")).unwrap();
    std::os::unix::fs::symlink("1", a.path("x/y/l")).unwrap();
    assert_eq!(entries(), 8);
    std::fs::rename(a.path("x/y/1"), a.path("x/y/2b")).unwrap();
    std::fs::rename(a.path("x/y/2b"), a.path("x/y/l")).unwrap();
    assert_eq!(entries(), 7);
    std::fs::rename(a.path("x/y"), a.path("z")).unwrap();
    assert_eq!(entries(), 7);
    std::fs::remove_file(a.path("d/f.conflict-bob.txt")).unwrap();
    assert_eq!((entries(), a.status()["conflicts"].as_u64()), (6, Some(0)));
    std::fs::remove_dir_all(a.path("z")).unwrap();
    assert_eq!(entries(), 3);
    a.wait();
    until("the other machine counts the same", Duration::from_secs(30), || (b.status()["entries"] == 3).then_some(()));
    a.remount();
    assert_eq!(entries(), 3);
    drop(w);
}

#[test]
fn wait_with_a_path_waits_for_that_file_or_tree_and_for_nothing_else() {
    drive_only!();
    let m = Mounted::new();
    std::fs::create_dir_all(m.path("d/e")).unwrap();
    std::fs::write(m.path("gone"), "x").unwrap();
    m.wait();
    // A large file is stuck on its way: all chunks are put slowly but those that begin as the small file's only one.
    let begin = blake3::hash(b"small").to_hex()[..1].to_owned();
    let others = "0123456789abcdef".chars().map(|c| c.to_string()).filter(|c| *c != begin);
    let slow = |c: String| json!({ "mode": { "slow_ms": 60_000 }, "only": "put", "prefix": format!("default/chunks/{c}") });
    m.fault(Some(others.map(slow).collect()));
    let big: Vec<u8> = (0..20u32 << 18).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::fs::write(m.path("big"), &big).unwrap();
    until("it is worked on", Duration::from_secs(60), || (m.status()["outbox"]["active"] == 1).then_some(()));
    std::fs::write(m.path("d/e/f"), "small").unwrap();
    std::fs::remove_file(m.path("gone")).unwrap();
    for path in ["d/e/f", "d", "tcfs/default/d/e", s(&m.path("d/e/f")), "gone"] {
        let w = answer(&m.cli(&["--json", "wait", path]).ok());
        assert_eq!((w["type"].as_str(), w["pending"].as_u64()), (Some("waited"), Some(0)), "{path}: {w}");
    }
    let log = m.store().join("default/log").join(m.device_id());
    assert!(common::mounted::walk_files(&log).len() > 1, "nothing went out");
    for path in [&["big"][..], &["/"], &[]] {
        let w = answer(&m.cli(&[&["--json", "wait", "--timeout", "1ms"], path].concat()).exit(3));
        assert_eq!(w["pending"].as_u64(), Some(1), "{path:?}: {w}");
    }
    assert!(m.cli(&["wait", "d"]).ok().stdout.contains("d is in the store"));
    m.cli(&["wait", "nothing"]).exit(1);
    m.fault(None);
    // Without a daemon as well.
    m.cli_long(&["daemon", "stop"]).ok();
    m.cli(&["wait", "d"]).ok();
}

#[test]
fn in_defer_mode_a_second_own_head_can_be_read_before_it_is_published() {
    drive_only!();
    let w = World::new();
    let b = w.device("bob").env("TCFS_CONFLICT_MODE", "defer").mount();
    push(&b, &local(&w, "f", "first"), "f", 0);
    b.fault(Some(json!({ "mode": "down" })));
    // Written through the mount, and pushed from a file that this machine had never put there: two heads of one device.
    std::fs::write(b.path("f"), "written here").unwrap();
    push(&b, &local(&w, "g", "pushed, never seen there"), "f", 3);
    let list = || -> Vec<String> {
        let mut all: Vec<String> = std::fs::read_dir(b.root()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    };
    let texts = || -> Vec<String> {
        let mut all: Vec<String> = list().into_iter().map(|n| text(b.path(n))).collect();
        all.sort();
        all
    };
    let both = ["pushed, never seen there", "written here"];
    let c = items(&b.cli(&["--json", "conflicts"]).ok());
    assert_eq!(c[0]["heads"].as_array().map(Vec::len), Some(2), "{c:?}");
    b.cli(&["conflicts", "show"]).ok();
    assert_eq!(texts(), both);
    let shown = list();
    b.cli(&["conflicts", "hide"]).ok();
    b.cli(&["conflicts", "show"]).ok();
    assert_eq!((list(), texts()), (shown, both.map(str::to_owned).to_vec()));
    // Also after a kill, and once it is published.
    b.kill();
    b.mount();
    assert_eq!(texts(), both);
    b.fault(None);
    b.wait();
    assert_eq!(texts(), both);
    b.cli(&["conflicts", "hide"]).ok();
    assert_eq!(list(), ["f"]);
    b.cli(&["conflicts", "show"]).ok();
    assert_eq!(texts(), both);
}

/// Makes everything in the store older, the way time does.
fn age(dir: &Path, days: u64) {
    for e in std::fs::read_dir(dir).unwrap() {
        let at = e.unwrap().path();
        if at.is_dir() {
            age(&at, days);
        } else {
            let file = std::fs::File::options().append(true).open(&at).unwrap();
            let then = file.metadata().unwrap().modified().unwrap() - Duration::from_secs(days * 24 * 3600);
            file.set_modified(then).unwrap();
        }
    }
}

#[test]
fn gc_condemns_then_removes_and_says_who_holds_back() {
    let (w, a, b) = two(true);
    std::fs::write(a.path("kept"), "kept").unwrap();
    std::fs::write(a.path("old"), "old").unwrap();
    // Else its upload may be given up halfway, which is garbage, too.
    a.wait();
    std::fs::remove_file(a.path("old")).unwrap();
    a.wait();
    let gc = |m: &Mounted, args: &[&str], code: i32| answer(&m.cli(&[&["--json", "gc"], args].concat()).exit(code));
    let first = gc(&a, &[], 0);
    assert_eq!((&first["removed"]["objects"], &first["condemned"]["objects"]), (&json!(0), &json!(0)), "{first}");
    // A chunk of an upload that was given up.
    let chunks = common::mounted::walk_files(&w.store().join("default/chunks"));
    let kept = chunks.first().expect("a chunk");
    let name = kept.file_name().unwrap().to_str().unwrap();
    let other = format!("{}{}{}", &name[..8], if &name[8..9] == "0" { '1' } else { '0' }, &name[9..]);
    let orphan = kept.with_file_name(other);
    std::fs::copy(kept, &orphan).unwrap();
    assert_eq!(gc(&a, &["--dry-run"], 0)["young"]["objects"], 1);
    age(&w.store(), 2);
    assert_eq!(gc(&a, &[], 0)["condemned"]["objects"], 1);
    // Bob was not there since.
    age(&w.store(), 2);
    let held = gc(&a, &[], 3);
    assert_eq!((&held["held"]["objects"], &held["holders"][0]["device"]["name"]), (&json!(1), &json!("bob")), "{held}");
    assert!(orphan.exists());
    let said = a.cli(&["gc", "--dry-run"]).exit(3).text();
    assert!(said.contains("held back by a device") && said.contains("tcfs device revoke bob"), "{said}");
    b.remount();
    assert_eq!(gc(&a, &["--dry-run"], 0)["removed"]["objects"], 1);
    assert!(orphan.exists(), "a dry run");
    assert_eq!(gc(&a, &[], 0)["removed"]["objects"], 1);
    assert!(!orphan.exists() && kept.exists());
    a.cli(&["unsync", "kept"]).exit(0);
    assert_eq!(text(a.path("kept")), "kept");
    let checks = items(&a.cli(&["--json", "doctor"]).exit(0));
    let check = checks.iter().find(|c| c["name"] == "gc").expect("doctor looks at it");
    assert_eq!(check["verdict"], "ok", "{check}");
    age(&w.store(), 10);
    let checks = items(&a.cli(&["--json", "doctor"]).exit(0));
    let check = checks.iter().find(|c| c["name"] == "gc").unwrap();
    assert!(check["verdict"] == "warn" && check["detail"].as_str().unwrap().contains("bob"), "{check}");
}
