//! `tcfs adopt`: buckets in the layout of older versions, taken over by the real program on a directory store and on a
//! real S3 server, without a daemon and with the drive mounted.
//!
//! Not here: the rules of what replaces what (`model::adopt`), parsing (`formats`, `formats_hostile`).
#![allow(clippy::unwrap_used)] // a failed call is a failed test

mod common;
#[path = "common/server.rs"]
mod server;
#[path = "common/weed.rs"]
mod weed;

use common::cli::Done;
use common::older::{Older, hash};
use common::{Mounted, World, until};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tcfs::store::dir::DirStore;
use tcfs::store::keys::Keys;
use tcfs::store::{PutMode, StoreRef, list_all, s3::S3Store};

/// Bytes that do not compress and differ by seed.
fn noise(seed: u64, n: usize) -> Vec<u8> {
    let mut r = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| r.u8(..)).take(n).collect()
}

/// What every kind of entry holds, by path; links as `-> target`, directories as `/`.
fn every_kind(o: &mut Older) -> BTreeMap<String, Vec<u8>> {
    let (a, b, big) = (noise(1, 300_000), noise(2, 70_000), noise(3, 3_000_000));
    o.v1("notes/first.txt", &[b"hello ", b"world\n"]);
    o.v1("notes/empty.txt", &[]);
    o.v1("one.bin", &[&a]);
    o.v2("bin/run.sh", &[b"#!/bin/sh\n"], 0o755, (1_699_999_990, 123_456_789));
    o.v2("data/two parts.bin", &[&a, &b], 0o600, (1_600_000_000, 1));
    o.v2("data/grün/ö.txt", &["ü".as_bytes()], 0o644, (-5, 0));
    // A writer that gave an empty file one empty chunk, and one with an odd chunk of the full size of others' limits.
    o.v2("data/nothing", &[b""], 0o644, (7, 7));
    o.v2("data/big.bin", &[&big], 0o640, (1_650_000_000, 0));
    o.v2("project/.git-tcfs-bundle", &[b"# v2 git bundle\n"], 0o644, (1, 0));
    // A name that looks like one of ours, in a directory that looks like our fan-out.
    let odd = format!("cache/{}/{}", &hash(b"x")[..2], hash(b"x"));
    o.v1(&odd, &[b"by its hash"]);
    o.link("bin/x", "../lib/x");
    o.link("dangling", "nowhere/at all");
    o.dir("empty/inner");
    // A commit that was under way: what was there before counts.
    let manifest = o.v2_manifest("busy.txt", &[b"before"], 0o644, (9, 9));
    let id = o.manifest(&manifest);
    let current = json!({ "manifest_hash": id, "size": 6, "chunks": 1 });
    let pending = json!({ "manifest_hash": "ff".repeat(32), "size": 7, "chunks": 1, "staged_manifest_key": "x/staging/y" });
    o.index_json("busy.txt", &json!({ "version": 2, "state": "preparing", "current": current, "pending": pending }));
    let mut want: BTreeMap<String, Vec<u8>> = [
        ("notes/first.txt", b"hello world\n".to_vec()),
        ("notes/empty.txt", vec![]),
        ("one.bin", a.clone()),
        ("bin/run.sh", b"#!/bin/sh\n".to_vec()),
        ("data/two parts.bin", [a, b].concat()),
        ("data/grün/ö.txt", "ü".into()),
        ("data/nothing", vec![]),
        ("data/big.bin", big),
        ("project/.git-tcfs-bundle", b"# v2 git bundle\n".to_vec()),
        ("bin/x", b"-> ../lib/x".to_vec()),
        ("dangling", b"-> nowhere/at all".to_vec()),
        ("empty/inner", b"/".to_vec()),
        ("busy.txt", b"before".to_vec()),
    ]
    .into_iter()
    .map(|(p, b)| (p.to_owned(), b))
    .collect();
    want.insert(odd, b"by its hash".to_vec());
    want
}

/// What is no content, is gone, or cannot be had.
fn the_rest(o: &mut Older) {
    o.deleted("notes/gone.txt");
    let pending = json!({ "manifest_hash": "ff".repeat(32), "size": 7, "chunks": 1, "staged_manifest_key": "x/staging/z" });
    o.index_json("first.txt", &json!({ "version": 2, "state": "preparing", "current": null, "pending": pending }));
    let mut secret = o.v2_manifest("secret.txt", &[b"ciphertext"], 0o600, (1, 1));
    secret["encrypted_file_key"] = "AAECAw==".into();
    let id = o.manifest(&secret);
    o.index_v2("secret.txt", &id, 10, 1);
    let mut wrapped = o.v2_manifest("wrapped.txt", &[b"more of it"], 0o600, (1, 1));
    wrapped["version"] = 3.into();
    wrapped["wrapped_file_keys"] = json!([{ "recipient_device_id": "x", "recipient": "age1x", "algorithm": "age", "wrapped_key": "AAEC" }]);
    let id = o.manifest(&wrapped);
    o.index_v2("wrapped.txt", &id, 10, 1);
    o.v1("project/.git/config", &[b"[core]\n"]);
    for junk in ["staging/a", "staging/b", ".tcfs-namespace/x", ".tcfs-trash-2024/y", ".tcfs-capability-probes/z"] {
        o.put(junk, "junk");
    }
    o.registry();
}

fn answer(d: &Done) -> Value {
    d.json().pop().unwrap_or_else(|| panic!("{} printed nothing\n{}", d.line, d.text()))
}

/// Outcome of each path.
fn outcomes(d: &Done) -> BTreeMap<String, String> {
    let text = |v: &Value, f: &str| v[f].as_str().unwrap().to_owned();
    d.json().iter().filter(|v| v["outcome"].is_string()).map(|v| (text(v, "path"), text(v, "outcome"))).collect()
}

fn counts(v: &Value, names: &[&str]) -> Vec<u64> {
    names.iter().map(|n| v[n].as_u64().unwrap_or_else(|| panic!("no {n} in {v}"))).collect()
}

/// What lies below a directory, in the form of [`every_kind`]; directories only where they are empty.
fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        let all: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap()).collect();
        let name = |p: &Path| p.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        if all.is_empty() && dir != root {
            out.insert(name(&dir), b"/".to_vec());
        }
        for e in all {
            let (path, kind) = (e.path(), e.file_type().unwrap());
            if kind.is_dir() {
                todo.push(path);
            } else if kind.is_symlink() {
                let target = std::fs::read_link(&path).unwrap();
                out.insert(name(&path), format!("-> {}", target.display()).into());
            } else {
                out.insert(name(&path), std::fs::read(&path).unwrap());
            }
        }
    }
    out
}

#[track_caller]
fn same_tree(got: &BTreeMap<String, Vec<u8>>, want: &BTreeMap<String, Vec<u8>>) {
    let names = |t: &BTreeMap<String, Vec<u8>>| t.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(got), names(want));
    for (p, body) in want {
        assert!(got[p] == *body, "{p} has other bytes");
    }
}

/// Modes and times as the older layout had them.
fn attributes_are_kept(m: &Mounted) {
    let at = |p: &str| m.path(p).metadata().unwrap();
    let run = at("bin/run.sh");
    assert_eq!((run.mode() & 0o7777, run.mtime(), run.mtime_nsec()), (0o755, 1_699_999_990, 123_456_789));
    let two = at("data/two parts.bin");
    assert_eq!((two.mode() & 0o7777, two.mtime(), two.mtime_nsec()), (0o600, 1_600_000_000, 1));
    assert_eq!((at("data/grün/ö.txt").mtime(), at("notes/first.txt").mode() & 0o7777), (-5, 0o644));
}

fn adopt(m: &Mounted, args: &[&str], code: i32) -> Done {
    m.cli_long(&[&["--json", "adopt"][..], args].concat()).exit(code)
}

#[test]
fn every_kind_of_entry_is_adopted_once_and_the_old_keys_stay_as_they_are() {
    drive_only!();
    let w = World::new();
    let mut o = Older::new("default");
    let want = every_kind(&mut o);
    the_rest(&mut o);
    o.write_to(&w.store());
    let a = w.device("ann").off();
    let files = |w: &World| common::mounted::walk_files(&w.store().join("default")).len();

    // A dry run says all of it and writes nothing.
    a.cli(&["device", "enroll"]).ok();
    let before = files(&w);
    let dry = adopt(&a, &["--dry-run"], 3);
    assert_eq!((files(&w), a.cli(&["ls"]).ok().stdout.as_str()), (before, ""));
    let d = answer(&dry);
    let names = ["entries", "adopted", "conflicts", "same", "deleted", "unfinished", "encrypted", "unreadable", "local_only", "doubled"];
    let n = want.len() as u64;
    assert_eq!(counts(&d, &names), [n + 5, n, 0, 0, 1, 1, 2, 0, 1, 0], "{d}");

    let done = adopt(&a, &[], 3);
    let r = answer(&done);
    assert_eq!(counts(&r, &names), [n + 5, n, 0, 0, 1, 1, 2, 0, 1, 0], "{r}");
    assert_eq!((r["queued"].as_bool(), r["bytes"].as_u64()), (Some(false), d["bytes"].as_u64()));
    assert_eq!(outcomes(&done), outcomes(&dry));
    assert_eq!(outcomes(&done)["secret.txt"], "encrypted");
    let ignored: Vec<(&str, u64)> =
        r["ignored"].as_array().unwrap().iter().map(|i| (i["prefix"].as_str().unwrap(), i["objects"].as_u64().unwrap())).collect();
    assert_eq!(
        ignored,
        [("default/staging/", 2), ("default/.tcfs-namespace/", 1), ("default/.tcfs-trash", 1), ("default/.tcfs-capability-probes/", 1)]
    );
    let devices: Vec<(&str, bool)> =
        r["devices"].as_array().unwrap().iter().map(|d| (d["name"].as_str().unwrap(), d["revoked"].as_bool().unwrap())).collect();
    assert_eq!(devices, [("honey", false), ("neo", true)]);
    o.assert_untouched_in(&w.store());
    // Chunks are used where they are: beside them lie only those of log and manifests.
    let chunk = hash(&noise(3, 3_000_000));
    assert!(!w.store().join(format!("default/chunks/{}/{chunk}", &chunk[..2])).exists(), "a chunk was copied");

    // Another machine reads it all through its mount, and has nothing left to adopt.
    let b = w.mount("bob");
    until("all is here", Duration::from_secs(60), || (tree(b.root()).len() == want.len()).then_some(()));
    same_tree(&tree(b.root()), &want);
    attributes_are_kept(&b);
    for m in [&a, &b] {
        let again = answer(&adopt(m, &[], 3));
        assert_eq!(counts(&again, &["adopted", "same", "conflicts", "gone_on", "encrypted"]), [0, n, 0, 0, 2], "{again}");
    }
    // What was changed, moved or removed here stays so.
    std::fs::write(b.path("notes/first.txt"), "edited").unwrap();
    std::fs::rename(b.path("one.bin"), b.path("moved.bin")).unwrap();
    std::fs::remove_file(b.path("bin/x")).unwrap();
    std::fs::remove_dir(b.path("empty/inner")).unwrap();
    b.wait();
    for m in [&a, &b] {
        let again = adopt(m, &[], 3);
        assert_eq!(counts(&answer(&again), &["adopted", "gone_on", "conflicts"]), [0, 4, 0], "{:?}", outcomes(&again));
    }
    assert_eq!(std::fs::read(b.path("notes/first.txt")).unwrap(), b"edited");
    assert!(!b.path("one.bin").exists() && b.path("bin/x").symlink_metadata().is_err());
    assert_eq!(std::fs::read(b.path("moved.bin")).unwrap(), want["one.bin"]);
    o.assert_untouched_in(&w.store());
    // The registry has both: the old devices and the new ones.
    let view = std::fs::read_to_string(w.store().join("tcfs-meta/devices.json")).unwrap();
    assert!(view.contains("\"honey\"") && view.contains("c2ln") && view.contains("\"bob\""), "{view}");
}

#[test]
fn what_is_damaged_or_hostile_is_told_and_stops_nothing() {
    drive_only!();
    let w = World::new();
    let mut o = Older::new("default");
    o.v1("a-good.txt", &[b"good"]);
    o.v1("z-good.txt", &[b"good too"]);
    let mut bad: BTreeMap<&str, &str> = BTreeMap::new();
    // Index entries.
    for (name, body, says) in [
        ("b/text", "manifest_hash=xy\nsize=1\n", "chunks"),
        ("b/size", "manifest_hash=ab\nsize=-1\nchunks=1\n", "no number"),
        ("b/json", "{\"version\":2,\"state\":\"committed\"", "JSON"),
        ("b/version", "{\"version\":9,\"state\":\"committed\",\"current\":null}", "version 9"),
        ("b/state", "{\"version\":2,\"state\":\"lost\",\"current\":null}", "lost"),
        (
            "b/deleted with",
            "{\"version\":4,\"state\":\"deleted\",\"current\":{\"manifest_hash\":\"ab\",\"size\":1,\"chunks\":1}}",
            "deleted",
        ),
        ("b/escape", "manifest_hash=../../etc/passwd\nsize=1\nchunks=1\n", "manifest id"),
        ("b/dir", "type=directory\n", ".tcfs_dir"),
        ("b/empty", "", "manifest_hash"),
        ("b/nomanifest", "manifest_hash=abcd\nsize=1\nchunks=1\n", "abcd is missing"),
    ] {
        o.put(&format!("index/{name}"), body);
        bad.insert(name, says);
    }
    o.put("index/b/huge", "x".repeat(2 << 20));
    bad.insert("b/huge", "large");
    o.index_text("b/odd/.tcfs_dir", &hash(b"good"), 4, 1);
    bad.insert("b/odd", ".tcfs_dir");
    o.put("index/b/\u{0001}x", "x");
    // Manifests and chunks.
    let id = hash(b"{nonsense");
    o.put(&format!("manifests/{id}"), "{nonsense");
    o.index_text("m/nonsense", &id, 1, 1);
    bad.insert("m/nonsense", "JSON");
    let good = o.v2_manifest("m/x", &[b"some bytes"], 0o644, (1, 1));
    for (name, field, value, says) in [
        ("m/size", "file_size", json!(11), "11 bytes"),
        ("m/hash", "file_hash", json!(hash(b"other")), "another hash"),
        ("m/newer", "version", json!(4), "version 4"),
        ("m/chunk", "chunks", json!([hash(b"not there")]), "is missing"),
        ("m/notahash", "chunks", json!(["zz"]), "version 2"),
        ("m/count", "chunks", json!([hash(b"some bytes"), hash(b"some bytes")]), "2 chunks"),
        ("m/ns", "mtime", json!([1, 2_000_000_000]), "nanoseconds"),
    ] {
        let mut m = good.clone();
        m[field] = value;
        let id = o.manifest(&m);
        o.index_v2(name, &id, 10, 1);
        bad.insert(name, says);
    }
    o.put(&format!("chunks/{}", hash(b"was this")), "is that");
    let chunk = hash(b"was this");
    o.put("manifests/flipped", format!("{chunk}\n"));
    o.index_text("m/flipped", "flipped", 8, 1);
    bad.insert("m/flipped", "neither the chunk");
    let id = o.manifest(&good);
    for (name, size, says) in [("m/short", 9, "index entry"), ("m/long", 11, "index entry")] {
        o.index_v2(name, &id, size, 1);
        bad.insert(name, says);
    }
    let whole = hash(b"good");
    o.index_text("m/v1short", &whole, 5, 1);
    bad.insert("m/v1short", "only 4 bytes");
    o.index_text("m/v1long", &whole, 3, 1);
    bad.insert("m/v1long", "more than 3");
    // Links no system could hold.
    for (name, target) in [("l/empty", String::new()), ("l/nul", "a\0b".into()), ("l/long", "x".repeat(5000))] {
        let current = json!({ "size": 1, "chunks": 0, "kind": "symlink", "symlink_target": target });
        o.index_json(name, &json!({ "version": 3, "state": "committed", "current": current }));
        bad.insert(name, "link's target");
    }
    o.write_to(&w.store());
    let a = w.device("ann").off();
    let done = adopt(&a, &[], 3);
    let r = answer(&done);
    assert_eq!(counts(&r, &["adopted", "unreadable"]), [2, bad.len() as u64 + 1], "{r}");
    let lines = done.json();
    let why = |path: &str| {
        let line = lines.iter().find(|l| l["path"] == path).unwrap_or_else(|| panic!("{path} is not told"));
        assert_eq!(line["outcome"], "unreadable", "{line}");
        line["why"].as_str().unwrap().to_owned()
    };
    for (path, says) in &bad {
        assert!(why(path).contains(says), "{path}: {} does not say {says:?}", why(path));
    }
    assert!(why("b/\u{0001}x").contains("control character"));
    let listed = a.cli(&["ls", "-R"]).ok().stdout;
    assert_eq!(listed, "a-good.txt\nz-good.txt\n");
    o.assert_untouched_in(&w.store());
    // Mended there, it is adopted the next time.
    o.put(&format!("chunks/{chunk}"), "was this");
    o.write_to(&w.store());
    let again = adopt(&a, &[], 3);
    assert_eq!((outcomes(&again)["m/flipped"].as_str(), outcomes(&again)["a-good.txt"].as_str()), ("adopted", "same"));
}

#[test]
fn an_older_layout_elsewhere_is_copied_whatever_its_prefix() {
    drive_only!();
    let w = World::new();
    let a = w.mount("ann");
    let old = w.dir().join("old");
    let url = format!("file://{}", old.display());
    let none = a.cli(&["adopt", "--from", &url]).exit(1);
    assert!(none.stderr.contains("no older layout") && none.stderr.contains("--prefix ''"), "{}", none.stderr);
    assert!(!old.exists(), "looking made a directory");
    let nothing = a.cli(&["adopt"]).exit(1);
    assert!(nothing.stderr.contains("no older layout"), "{}", nothing.stderr);

    // No prefix at all.
    let mut o = Older::new("");
    let want = every_kind(&mut o);
    // Longer than any chunk of ours may be.
    let long = noise(9, 17 << 20);
    o.v1("long.bin", &[&long, b"end"]);
    o.write_to(&old);
    let r = answer(&adopt(&a, &["--from", &url, "--prefix", ""], 0));
    assert_eq!(counts(&r, &["adopted", "unreadable"]), [want.len() as u64 + 1, 0], "{r}");
    let mut want = want;
    want.insert("long.bin".into(), [&long[..], b"end"].concat());
    same_tree(&tree(a.root()), &want);
    attributes_are_kept(&a);
    o.assert_untouched_in(&old);
    assert_eq!(common::mounted::walk_files(&old).len(), o.objects.len(), "something was written there");
    // All of it is in this drive's own store now: the old one may go.
    std::fs::remove_dir_all(&old).unwrap();
    let b = w.mount("bob");
    until("all is here", Duration::from_secs(60), || (tree(b.root()).len() == want.len()).then_some(()));
    same_tree(&tree(b.root()), &want);

    // A prefix that stands twice: told, and adopted only as one says.
    let mut o = Older::new("data");
    o.v1("data/twice.txt", &[b"twice"]);
    o.v1("fine.txt", &[b"fine"]);
    o.write_to(&old);
    let from = ["--from", &url, "--prefix", "data"];
    let left = adopt(&a, &from, 3);
    assert_eq!(counts(&answer(&left), &["adopted", "doubled"]), [1, 1]);
    assert_eq!(outcomes(&left)["data/twice.txt"], "doubled");
    adopt(&a, &[&from[..], &["--doubled", "keep"]].concat(), 0);
    assert_eq!(std::fs::read(a.path("data/twice.txt")).unwrap(), b"twice");
    adopt(&a, &[&from[..], &["--doubled", "strip"]].concat(), 0);
    assert_eq!(std::fs::read(a.path("twice.txt")).unwrap(), b"twice");
}

#[test]
fn a_chunk_longer_than_ours_may_be_is_cut_anew_also_in_place() {
    drive_only!();
    let w = World::new();
    let mut o = Older::new("default");
    let long = noise(9, (16 << 20) + 5);
    o.v1("long.bin", &[b"head", &long, b"tail"]);
    o.write_to(&w.store());
    let a = w.mount("ann");
    adopt(&a, &[], 0);
    assert!(std::fs::read(a.path("long.bin")).unwrap() == [b"head", &long[..], b"tail"].concat());
    o.assert_untouched_in(&w.store());
}

#[test]
fn other_content_at_a_path_stays_beside_what_is_adopted_and_equal_content_is_one() {
    drive_only!();
    let w = World::new();
    let mut o = Older::new("default");
    o.v1("same.txt", &[b"the ", b"same"]);
    o.v2("differs.txt", &[b"old text"], 0o644, (5, 5));
    o.v1("a/file", &[b"below a"]);
    o.v1("b", &[b"a file"]);
    o.dir("c");
    o.link("link", "old");
    o.v1("later.txt", &[b"one"]);
    o.write_to(&w.store());
    let a = w.mount("ann");
    std::fs::write(a.path("same.txt"), "the same").unwrap();
    std::fs::write(a.path("differs.txt"), "new text").unwrap();
    std::fs::write(a.path("a"), "a file here").unwrap();
    std::fs::create_dir(a.path("b")).unwrap();
    std::fs::write(a.path("b/x"), "in b").unwrap();
    std::fs::write(a.path("c"), "a file here too").unwrap();
    std::os::unix::fs::symlink("new", a.path("link")).unwrap();
    let dry = answer(&adopt(&a, &["--dry-run"], 3));
    let done = adopt(&a, &[], 3);
    let o1 = outcomes(&done);
    let got: Vec<(&str, &str)> = o1.iter().map(|(p, o)| (p.as_str(), o.as_str())).collect();
    assert_eq!(
        got,
        [
            ("a/file", "adopted"),
            ("b", "conflict"),
            ("c", "conflict"),
            ("differs.txt", "conflict"),
            ("later.txt", "adopted"),
            ("link", "conflict"),
            ("same.txt", "same")
        ]
    );
    assert_eq!(counts(&answer(&done), &["adopted", "conflicts", "same"]), counts(&dry, &["adopted", "conflicts", "same"]));
    let text = |p: &str| std::fs::read_to_string(a.path(p)).unwrap_or_else(|e| panic!("{p}: {e}"));
    // Both are there, of whatever kind; what was here keeps the name, but a directory goes before a file.
    assert_eq!((text("differs.txt"), text("differs.conflict-ann.txt")), ("new text".into(), "old text".into()));
    assert_eq!((text("a/file"), text("a.conflict-ann")), ("below a".into(), "a file here".into()));
    assert_eq!((text("b/x"), text("b.conflict-ann")), ("in b".into(), "a file".into()));
    assert!(a.path("c").is_dir() && text("c.conflict-ann") == "a file here too");
    assert_eq!(std::fs::read_link(a.path("link")).unwrap(), Path::new("new"));
    assert_eq!(std::fs::read_link(a.path("link.conflict-ann")).unwrap(), Path::new("old"));
    assert!(a.path("same.txt").exists() && !a.path("same.conflict-ann.txt").exists());

    // Again, also after the conflict is ended and the equal file edited: nothing comes back.
    std::fs::remove_file(a.path("differs.conflict-ann.txt")).unwrap();
    std::fs::write(a.path("same.txt"), "edited").unwrap();
    a.wait();
    let again = answer(&adopt(&a, &[], 0));
    assert_eq!(counts(&again, &["adopted", "conflicts", "gone_on", "same"]), [0, 0, 2, 5], "{again}");

    // The old fleet goes on: what nobody touched here is brought up to date, also by another machine; what was is not.
    o.v1("later.txt", &[b"two"]);
    o.v2("differs.txt", &[b"newer old text"], 0o644, (6, 6));
    o.write_to(&w.store());
    let b = w.device("bob").off();
    let more = adopt(&b, &[], 3);
    assert_eq!((outcomes(&more)["later.txt"].as_str(), outcomes(&more)["differs.txt"].as_str()), ("updated", "conflict"));
    until("the news are here", Duration::from_secs(60), || (text("later.txt") == "two").then_some(()));
    until("the news are here", Duration::from_secs(60), || a.path("differs.conflict-bob.txt").exists().then_some(()));
    assert_eq!((text("differs.txt"), text("differs.conflict-bob.txt")), ("new text".into(), "newer old text".into()));
}

#[test]
fn two_machines_that_adopt_at_once_make_no_conflict() {
    drive_only!();
    let w = World::new();
    let mut o = Older::new("default");
    let n = common::count(150, 3000);
    for i in 0..n {
        let body = format!("file {i}\n");
        match i % 3 {
            0 => o.v1(&format!("d{}/f{i}", i % 7), &[body.as_bytes()]),
            1 => o.v2(&format!("d{}/f{i}", i % 7), &[body.as_bytes(), b"more\n"], 0o640, (i as i64, 5)),
            _ => o.link(&format!("d{}/f{i}", i % 7), &body),
        }
    }
    o.write_to(&w.store());
    let machines: Vec<Mounted> = ["ann", "bob", "cora"].iter().map(|m| w.device(m).off()).collect();
    std::thread::scope(|s| {
        for m in &machines {
            s.spawn(|| adopt(m, &[], 0));
        }
    });
    let mut sums = Vec::new();
    for m in &machines {
        let list = answer(&m.cli_long(&["--json", "conflicts"]).ok());
        // A command without a daemon need not have seen all: adopting again does, and changes nothing.
        let again = answer(&adopt(m, &[], 0));
        assert_eq!(counts(&again, &["adopted", "same", "conflicts"]), [0, n as u64, 0], "{again} {list}");
        let list = m.cli_long(&["--json", "conflicts"]).ok();
        assert_eq!(answer(&list)["conflicts"], 0);
        let files = m.cli_long(&["ls", "-R"]).ok().stdout;
        sums.push(files);
    }
    assert!(sums.iter().all(|s| *s == sums[0]), "the machines show different trees");
}

#[test]
fn a_bucket_on_a_real_server_is_adopted_in_place_and_from_another_prefix() {
    drive_only!();
    let weed = weed::Weed::start();
    let mut o = Older::new("default");
    let want = every_kind(&mut o);
    the_rest(&mut o);
    let mut other = Older::new("archive/2024");
    other.v2("old/report.txt", &[b"report"], 0o444, (11, 12));
    let rt = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let store = S3Store::new("tcfs", &weed.options()).unwrap();
    let store: StoreRef = Arc::new(store);
    // Makes the bucket.
    let registry = o.objects["tcfs-meta/devices.json"].clone();
    rt.block_on(store.put("tcfs-meta/devices.json", registry.into(), PutMode::Overwrite)).unwrap();
    for (key, body) in o.objects.iter().chain(&other.objects) {
        put_at(&weed, key, body);
    }
    let w = World::new();
    let machine = |name: &str| {
        w.device(name).s3("s3://tcfs/default", &weed.endpoint(), (weed::ACCESS_KEY, weed::SECRET_KEY)).env("TCFS_POLL_INTERVAL", "1s")
    };
    let a = machine("ann").off();
    let n = want.len() as u64;
    let r = answer(&adopt(&a, &[], 3));
    assert_eq!(counts(&r, &["adopted", "encrypted", "deleted", "unreadable", "local_only"]), [n, 2, 1, 0, 1], "{r}");
    assert_eq!(r["devices"].as_array().map(Vec::len), Some(2));
    let b = machine("bob").mount();
    until("all is here", Duration::from_secs(60), || (tree(b.root()).len() == want.len()).then_some(()));
    same_tree(&tree(b.root()), &want);
    attributes_are_kept(&b);
    let again = answer(&adopt(&b, &[], 3));
    assert_eq!(counts(&again, &["adopted", "same", "conflicts"]), [0, n, 0], "{again}");
    let r = answer(&adopt(&b, &["--from", "s3://tcfs/archive/2024"], 0));
    assert_eq!(counts(&r, &["adopted"]), [1], "{r}");
    assert_eq!(std::fs::read(b.path("old/report.txt")).unwrap(), b"report");
    let is = |k: &str| !k.ends_with("devices.json");
    rt.block_on(async {
        for (key, body) in o.objects.iter().chain(&other.objects).filter(|(k, _)| is(k)) {
            assert!(store.get(key).await.unwrap() == body[..], "{key} has changed");
        }
        let below: Vec<_> = list_all(&*store, "archive/2024/").await.unwrap();
        assert_eq!(below.len(), other.objects.len(), "something was written there");
    });
    b.unmount();
}

/// Puts an object under whatever key, past the program's own rules: through the server's files.
fn put_at(weed: &weed::Weed, key: &str, body: &[u8]) {
    use std::io::{Read, Write};
    let tame = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    let path: String = key.bytes().map(|b| if tame(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect();
    let mut c = std::net::TcpStream::connect(("127.0.0.1", weed.filer_port())).unwrap();
    let head = format!("PUT /buckets/tcfs/{path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n", body.len());
    c.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = String::new();
    c.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 20") || answer.starts_with("HTTP/1.1 20"), "{key}: {answer}");
}

#[test]
fn garbage_collection_can_ask_what_the_older_layout_keeps_alive() {
    let mut o = Older::new("default");
    every_kind(&mut o);
    the_rest(&mut o);
    // A manifest that is only staged, and one that cannot be understood.
    let staged = o.chunks(&[b"staged"])[0].clone();
    o.put("staging/m", format!("{staged}\n"));
    let pending = json!({ "manifest_hash": "ff".repeat(32), "size": 6, "chunks": 1, "staged_manifest_key": "default/staging/m" });
    o.index_json("staged.txt", &json!({ "version": 2, "state": "preparing", "current": null, "pending": pending }));
    let odd = o.chunks(&[b"of a version to come"])[0].clone();
    o.put("manifests/odd", format!("{{\"version\":7,\"parts\":[\"{odd}\"]}}"));
    o.index_text("odd.txt", "odd", 20, 1);
    let reached: HashSet<String> = o.objects.keys().filter_map(|k| k.strip_prefix("default/chunks/")).map(str::to_owned).collect();
    // And what nothing reaches.
    o.chunks(&[b"garbage"]);
    let tmp = tempfile::tempdir().unwrap();
    // Small pages: more than one.
    let store: StoreRef = Arc::new(DirStore::with_page(tmp.path(), 1, 5));
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let reach = || rt.block_on(tcfs::fleet::older::reach(&store, &Keys::new("default"))).unwrap();
    assert_eq!(reach(), Default::default());
    o.write_to(tmp.path());
    let got = reach();
    assert_eq!(got.chunks.iter().map(ToString::to_string).collect::<HashSet<_>>(), reached);
    let manifests = o.objects.keys().filter_map(|k| k.strip_prefix("default/manifests/"));
    for id in manifests {
        assert!(got.manifests.contains(id), "manifest {id} would be removed");
    }
}
