//! Conflicts as a person works them off, on real mounts: listed, compared, ended by `rm`, `mv` and `tcfs
//! resolve-conflict`, in each mode, with and without a daemon.
//!
//! Not here: the table of conflicts (`conflicts`, `two`).
#![allow(clippy::unwrap_used)] // a failed call is a failed test

mod common;

use common::cli::Done;
use common::{Mounted, World, until};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

fn answer(d: &Done) -> Value {
    d.json().pop().unwrap_or_else(|| panic!("{} printed nothing\n{}", d.line, d.text()))
}

fn of_type(d: &Done, kind: &str) -> Vec<Value> {
    let mut all = d.json();
    all.retain(|v| v["type"] == kind);
    all
}

fn list(m: &Mounted) -> Vec<String> {
    let mut all: Vec<String> = std::fs::read_dir(m.root()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    all.sort();
    all
}

fn text(m: &Mounted, name: &str) -> String {
    std::fs::read_to_string(m.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The names in the root with what they hold.
fn seen(m: &Mounted) -> Vec<(String, String)> {
    list(m).into_iter().map(|n| (n.clone(), text(m, &n))).collect()
}

#[track_caller]
fn shows(m: &Mounted, want: &[(&str, &str)]) {
    let want: Vec<(String, String)> = want.iter().map(|(n, t)| (n.to_string(), t.to_string())).collect();
    let mut last = vec![];
    for _ in 0..600 {
        last = list(m).into_iter().map(|n| (n.clone(), std::fs::read_to_string(m.path(&n)).unwrap_or_default())).collect();
        if last == want {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("it shows {last:?} instead of {want:?}");
}

/// Machines of these names and modes, mounted on one store.
fn machines(w: &Arc<World>, all: &[(&str, &str)]) -> Vec<Mounted> {
    all.iter().map(|(n, mode)| w.device(n).env("TCFS_CONFLICT_MODE", *mode).env("TCFS_POLL_INTERVAL", "1s").mount()).collect()
}

/// Each writes its text to a path while the store is down for it, then all hear of each other.
fn all_write(ms: &[&Mounted], path: &str, texts: &[&str]) {
    for m in ms {
        m.fault(Some(json!({ "mode": "down" })));
    }
    for (m, t) in ms.iter().zip(texts) {
        std::fs::write(m.path(path), t).unwrap();
    }
    for m in ms {
        m.fault(None);
        m.wait();
    }
    for m in ms {
        until("all heads are here", Duration::from_secs(60), || {
            let c = of_type(&m.cli(&["--json", "conflicts"]).ok(), "conflict");
            (c.iter().any(|c| c["path"] == path && c["heads"].as_array().unwrap().len() == ms.len())).then_some(())
        });
    }
}

fn conflicts(m: &Mounted) -> u64 {
    answer(&m.cli(&["--json", "conflicts"]).ok())["conflicts"].as_u64().unwrap()
}

#[test]
fn a_list_tells_versions_devices_times_sizes_and_how_to_resolve() {
    drive_only!();
    let w = World::new();
    let ms = machines(&w, &[("ann", "auto"), ("bob", "auto")]);
    all_write(&[&ms[0], &ms[1]], "it's here.txt", &["of ann", "of bob!!"]);
    let listed = ms[1].cli(&["--json", "conflicts"]).ok();
    let c = &of_type(&listed, "conflict")[0];
    let heads: Vec<(&str, &str, u64, bool, bool)> = c["heads"]
        .as_array()
        .unwrap()
        .iter()
        .map(|h| {
            assert!(h["written_at"].as_i64().unwrap() > 1_600_000_000_000 && h["version"].as_str().unwrap().len() == 16, "{h}");
            let name = h["device"]["name"].as_str().unwrap();
            (h["path"].as_str().unwrap(), name, h["size"].as_u64().unwrap(), h["shown"] == true, h["own"] == true)
        })
        .collect();
    assert_eq!(heads, [("it's here.txt", "ann", 6, true, false), ("it's here.conflict-bob.txt", "bob", 8, false, true)]);
    let ways: Vec<&str> = c["resolve"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
    assert_eq!(ways.len(), 7, "{ways:?}");
    assert!(ways.contains(&r"rm 'it'\''s here.conflict-bob.txt'"), "{ways:?}");
    let human = ms[1].cli(&["conflicts"]).ok().stdout;
    for part in
        ["it's here.txt", "it's here.conflict-bob.txt", "by ann", "by bob", "6 B", "8 B", "has the name", "1 conflict; rm", "--keep DEVICE"]
    {
        assert!(human.contains(part), "no {part:?} in\n{human}");
    }
    // Each way that is named ends it: as a shell would run it, in the mount, with this program as `tcfs`.
    let bin = ms[1].tcfs(&[]).get_program().to_owned();
    for (i, way) in ways.iter().enumerate() {
        if i > 0 {
            all_write(&[&ms[0], &ms[1]], "it's here.txt", &[&format!("of ann {i}"), &format!("of bob {i}")]);
        }
        let mut c = ms[1].tcfs(&[]);
        let env: Vec<_> = c.get_envs().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))).collect();
        c = std::process::Command::new("sh");
        c.args(["-ec", &format!("cd \"$1\"; bin=$2; tcfs() {{ \"$bin\" \"$@\"; }}; {way}"), "sh"]);
        c.arg(ms[1].root()).arg(&bin).envs(env);
        common::cli::run(&mut c, Duration::from_secs(60)).ok();
        ms[1].wait();
        for m in &ms {
            until("it is ended", Duration::from_secs(60), || (conflicts(m) == 0).then_some(()));
        }
        for m in &ms {
            for n in list(m).iter().filter(|n| n.contains("conflict-")) {
                assert!(way.contains("both"), "{way} left {n}");
                std::fs::remove_file(m.path(n)).unwrap_or_default();
            }
        }
        until("ann is there as well", Duration::from_secs(60), || (seen(&ms[0]) == seen(&ms[1])).then_some(()));
    }
}

#[test]
fn every_option_ends_a_conflict_of_three_on_all_machines_in_every_mode() {
    drive_only!();
    let w = World::new();
    let ms = machines(&w, &[("ann", "auto"), ("bob", "interactive"), ("cora", "defer")]);
    let all: Vec<&Mounted> = ms.iter().collect();
    let three = |n: &str| [format!("ann {n}"), format!("bob {n}"), format!("cora {n}")];
    // By whom, how, and what all show then.
    for (n, (by, args, want)) in [
        (0, &["--keep-local"][..], "ann"),
        (1, &["--keep-local"], "bob"),
        (2, &["--keep-local"], "cora"),
        (0, &["--keep-remote"], "bob"),
        (1, &["--keep-remote"], "ann"),
        (2, &["--keep-remote"], "ann"),
        (0, &["--keep", "cora"], "cora"),
        (2, &["--keep", "bob"], "bob"),
    ]
    .into_iter()
    .enumerate()
    {
        let t = three(&n.to_string());
        all_write(&all, "f", &[&t[0], &t[1], &t[2]]);
        // Each shows what its mode says.
        shows(&ms[0], &[("f", &t[0]), ("f.conflict-bob", &t[1]), ("f.conflict-cora", &t[2])]);
        shows(&ms[1], &[("f", &t[1]), ("f.conflict-ann", &t[0]), ("f.conflict-cora", &t[2])]);
        shows(&ms[2], &[("f", &t[2])]);
        ms[by].cli(&[&["resolve-conflict", "f"][..], args].concat()).ok();
        ms[by].wait();
        for m in &ms {
            shows(m, &[("f", &format!("{want} {n}"))]);
            assert_eq!(conflicts(m), 0, "{by} {args:?}");
        }
        // Every version is in history.
        let h = of_type(&ms[0].cli(&["--json", "history", "f"]).ok(), "version");
        let ids: Vec<&str> =
            h.iter().filter(|v| v["size"].as_u64() == Some(t[0].len() as u64)).map(|v| v["version"].as_str().unwrap()).collect();
        assert!(ids.len() >= 2, "{h:?}");
    }
    let t = three("x");
    all_write(&all, "f", &[&t[0], &t[1], &t[2]]);
    let e = ms[0].cli(&["resolve-conflict", "f", "--keep", "dora"]).exit(1);
    assert!(e.stderr.contains("dora") && e.stderr.contains("ann, bob, cora"), "{}", e.stderr);
    assert_eq!(ms[0].cli(&["resolve-conflict", "f"]).code, 2);
    assert_eq!(ms[0].cli(&["resolve-conflict", "f", "--keep-local", "--keep-both"]).code, 2);
    // All of them stay, from where siblings are not even shown.
    ms[2].cli(&["resolve-conflict", "f", "--keep-both"]).ok();
    ms[2].wait();
    let both = [("f", t[2].as_str()), ("f.conflict-ann", &t[0]), ("f.conflict-bob", &t[1])];
    for m in &ms {
        shows(m, &both);
        assert_eq!(conflicts(m), 0);
    }
    let e = ms[0].cli(&["resolve-conflict", "f", "--keep-local"]).exit(1);
    assert!(e.stderr.contains("not in conflict"), "{}", e.stderr);
}

#[test]
fn rm_and_mv_of_siblings_end_a_conflict_in_every_mode() {
    drive_only!();
    let w = World::new();
    let ms = machines(&w, &[("ann", "auto"), ("bob", "interactive"), ("cora", "defer")]);
    let two = [&ms[0], &ms[1]];
    // `rm` of the sibling, there where another head has the name.
    all_write(&two, "f", &["ann 1", "bob 1"]);
    std::fs::remove_file(ms[1].path("f.conflict-ann")).unwrap();
    ms.iter().for_each(|m| shows(m, &[("f", "bob 1")]));
    // `rm` of the path gives the name to the next.
    all_write(&two, "f", &["ann 2", "bob 2"]);
    shows(&ms[2], &[("f", "ann 2")]);
    std::fs::remove_file(ms[0].path("f")).unwrap();
    ms.iter().for_each(|m| shows(m, &[("f", "bob 2")]));
    // `mv` of the sibling over the path, and of the path elsewhere.
    all_write(&two, "f", &["ann 3", "bob 3"]);
    std::fs::rename(ms[0].path("f.conflict-bob"), ms[0].path("f")).unwrap();
    ms.iter().for_each(|m| shows(m, &[("f", "bob 3")]));
    all_write(&two, "f", &["ann 4", "bob 4"]);
    std::fs::rename(ms[0].path("f.conflict-bob"), ms[0].path("g")).unwrap();
    ms.iter().for_each(|m| shows(m, &[("f", "ann 4"), ("g", "bob 4")]));
    std::fs::remove_file(ms[1].path("g")).unwrap();
    shows(&ms[0], &[("f", "ann 4")]);
    all_write(&two, "f", &["ann 5", "bob 5"]);
    std::fs::rename(ms[1].path("f"), ms[1].path("g")).unwrap();
    ms.iter().for_each(|m| shows(m, &[("f", "ann 5"), ("g", "bob 5")]));
    std::fs::remove_file(ms[0].path("g")).unwrap();
    shows(&ms[1], &[("f", "ann 5")]);
    // Where siblings are not shown, `rm` removes all; shown, one after the other.
    all_write(&two, "f", &["ann 6", "bob 6"]);
    shows(&ms[2], &[("f", "ann 6")]);
    ms[2].cli(&["conflicts", "show"]).ok();
    shows(&ms[2], &[("f", "ann 6"), ("f.conflict-bob", "bob 6")]);
    ms[2].cli(&["conflicts", "hide"]).ok();
    shows(&ms[2], &[("f", "ann 6")]);
    std::fs::remove_file(ms[2].path("f")).unwrap();
    ms.iter().for_each(|m| shows(m, &[]));
    ms.iter().for_each(|m| assert_eq!(conflicts(m), 0));
}

#[test]
fn versions_are_compared_as_texts_bytes_or_kinds_with_and_without_a_daemon() {
    drive_only!();
    let w = World::new();
    let ms = machines(&w, &[("ann", "auto"), ("bob", "auto"), ("cora", "defer")]);
    let all: Vec<&Mounted> = ms.iter().collect();
    let same = "line\n".repeat(20);
    let texts = [format!("{same}of ann\n{same}"), format!("{same}of bob\n{same}"), format!("{same}{same}cora\n")];
    all_write(&all, "plan.md", &[&texts[0], &texts[1], &texts[2]]);
    let diff = |m: &Mounted, args: &[&str]| m.cli(&[&["conflicts", "diff"][..], args].concat());
    let check = |m: &Mounted| {
        // Of three, one has to be chosen: by its name or by its device.
        let e = diff(m, &["plan.md"]).exit(2);
        assert!(e.stderr.contains("3 versions") && e.stderr.contains("--with bob | --with cora"), "{}", e.stderr);
        for args in [&["plan.conflict-bob.md"][..], &["plan.md", "--with", "bob"]] {
            let d = diff(m, args).ok().stdout;
            assert!(d.starts_with("--- plan.md\t(ann)\n+++ plan.conflict-bob.md\t(bob)\n@@ -18,7 +18,7 @@\n"), "{d}");
            assert!(d.contains("\n-of ann\n+of bob\n"), "{d}");
        }
        let e = diff(m, &["plan.md", "--with", "ann"]).exit(2);
        assert!(e.stderr.contains("the version that is shown"), "{}", e.stderr);
        let e = diff(m, &["plan.md", "--with", "dora"]).exit(1);
        assert!(e.stderr.contains("dora") && e.stderr.contains("--with bob"), "{}", e.stderr);
        assert!(diff(m, &["nothing"]).exit(1).stderr.contains("not in conflict"));
        let j = answer(&m.cli(&["--json", "conflicts", "diff", "plan.md", "--with", "cora"]).ok());
        assert_eq!((j["type"].as_str(), j["form"].as_str()), (Some("diff"), Some("text")), "{j}");
        assert_eq!((j["added"].as_u64(), j["removed"].as_u64(), j["first"].as_u64()), (Some(1), Some(1), Some(100)), "{j}");
    };
    check(&ms[0]);
    // What `patch` makes of the one is the other.
    let dir = w.dir().join("patch");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("plan.md"), &texts[0]).unwrap();
    std::fs::write(dir.join("d"), diff(&ms[0], &["plan.conflict-cora.md"]).ok().stdout).unwrap();
    common::cli::sh(&dir, "patch -s plan.md d", &[]).ok();
    assert_eq!(std::fs::read_to_string(dir.join("plan.md")).unwrap(), texts[2]);
    // In `defer` mode this machine's own is shown, and siblings that no mount shows can be compared all the same.
    let d = diff(&ms[2], &["plan.md", "--with", "ann"]).ok().stdout;
    assert!(d.contains("--- plan.md\t(cora)") && d.contains("+of ann"), "{d}");
    // Without a daemon, and without the store for what was looked at before.
    ms[0].unmount();
    check(&ms[0]);
    ms[0].mount();

    // Bytes: small and large; what is only here; links and directories.
    let big = |last: u8| [vec![7u8; 9 << 20], vec![last]].concat();
    let two = [&ms[0], &ms[1]];
    let down = |on: bool| two.iter().for_each(|m| m.fault(on.then(|| json!({ "mode": "down" }))));
    down(true);
    for (m, n) in two.iter().zip([1u8, 2]) {
        std::fs::write(m.path("big"), big(n)).unwrap();
        std::fs::write(m.path("small"), [0, 5, n]).unwrap();
        std::fs::write(m.path("longer"), vec![0; n as usize]).unwrap();
        std::os::unix::fs::symlink(format!("to {n}"), m.path("link")).unwrap();
    }
    std::fs::create_dir(ms[0].path("d")).unwrap();
    std::fs::write(ms[1].path("d"), "a file").unwrap();
    down(false);
    two.iter().for_each(|m| m.wait());
    until("all are here", Duration::from_secs(60), || (conflicts(&ms[0]) == 6).then_some(()));
    let form = |path: &str| {
        let j = answer(&ms[0].cli(&["--json", "conflicts", "diff", path]).ok());
        (j["form"].as_str().unwrap().to_owned(), j["first"].as_u64())
    };
    assert_eq!(form("big"), ("bytes".into(), Some(9 << 20)));
    assert_eq!(form("small"), ("bytes".into(), Some(2)));
    assert_eq!(form("longer"), ("bytes".into(), Some(1)));
    assert_eq!((form("link"), form("d")), (("kind".into(), None), ("kind".into(), None)));
    let human = diff(&ms[0], &["small"]).ok().stdout;
    for part in ["small  by ann, 3 B (3 bytes), BLAKE3 ", "small.conflict-bob  by bob", "differs is number 2"] {
        assert!(human.contains(part), "no {part:?} in\n{human}");
    }
    let human = diff(&ms[0], &["link"]).ok().stdout;
    assert!(human.contains("link to to 1") && human.contains("link to to 2"), "{human}");
    assert!(diff(&ms[0], &["d"]).ok().stdout.contains("d  by ann, directory"));
    // A version that is not published yet, with one whose bytes were read before.
    std::fs::read(ms[0].path("small.conflict-bob")).unwrap();
    ms[0].fault(Some(json!({ "mode": "down" })));
    std::fs::write(ms[0].path("small"), "text now\n").unwrap();
    let j = answer(&ms[0].cli(&["--json", "conflicts", "diff", "small"]).ok());
    assert_eq!((j["form"].as_str(), j["shown"]["head"]["size"].as_u64(), j["first"].as_u64()), (Some("bytes"), Some(9), Some(0)), "{j}");
    ms[0].fault(None);
}

#[test]
fn a_file_written_here_and_moved_away_there_is_told_as_a_pair() {
    drive_only!();
    let w = World::new();
    let ms = machines(&w, &[("ann", "auto"), ("bob", "auto")]);
    std::fs::write(ms[0].path("f"), "old").unwrap();
    ms[0].wait();
    shows(&ms[1], &[("f", "old")]);
    for m in &ms {
        m.fault(Some(json!({ "mode": "down" })));
    }
    std::fs::write(ms[0].path("f"), "of ann").unwrap();
    std::fs::write(ms[1].path("f"), "of bob").unwrap();
    std::fs::rename(ms[1].path("f"), ms[1].path("g")).unwrap();
    for m in &ms {
        m.fault(None);
        m.wait();
    }
    for m in &ms {
        shows(m, &[("f", "of ann"), ("g", "of bob")]);
        let d = m.cli(&["--json", "conflicts"]).ok();
        let p = of_type(&d, "parted");
        assert_eq!(
            (p.len(), p[0]["path"].as_str(), p[0]["moved_to"].as_str(), p[0]["device"]["name"].as_str()),
            (1, Some("f"), Some("g"), Some("bob"))
        );
        assert_eq!((answer(&d)["conflicts"].as_u64(), answer(&d)["parted"].as_u64()), (Some(0), Some(1)));
        let human = m.cli(&["conflicts"]).ok().stdout;
        assert!(human.contains("was changed here while bob moved it to g") && human.contains("no conflicts"), "{human}");
        assert!(of_type(&m.cli(&["--json", "conflicts", "elsewhere"]).ok(), "parted").is_empty());
    }
    // It goes with the next save, whoever makes it; and so it does over a restart.
    ms[1].remount();
    assert_eq!(of_type(&ms[1].cli(&["--json", "conflicts"]).ok(), "parted").len(), 1);
    std::fs::write(ms[1].path("f"), "of both").unwrap();
    ms[1].wait();
    for m in &ms {
        shows(m, &[("f", "of both"), ("g", "of bob")]);
        assert!(of_type(&m.cli(&["--json", "conflicts"]).ok(), "parted").is_empty());
    }
}

/// What each of three machines has of a tree, by path.
fn drifted(n: usize) -> [std::collections::BTreeMap<String, String>; 3] {
    let mut trees: [std::collections::BTreeMap<String, String>; 3] = Default::default();
    for i in 0..n {
        let path = format!("d{}/s{}/file{i}.txt", i % 13, i % 5);
        for (m, tree) in trees.iter_mut().enumerate() {
            // A third everywhere, the rest on two machines or on one.
            let has = match i % 9 {
                0..=2 => true,
                3..=5 => m != i % 3,
                _ => m == i % 3,
            };
            // A tenth of what several have has drifted: on one machine, or on each.
            let body = match (i % 10 == 0, i % 20 == 0) {
                (true, true) => format!("file {i} as machine {m} has it\n"),
                (true, false) if m == 1 => format!("file {i} as only that machine has it\n"),
                _ => format!("file {i}\n"),
            };
            if has {
                tree.insert(path.clone(), body);
            }
        }
    }
    trees
}

/// 5,000 files on three machines with `TCFS_SLOW=1`.
#[test]
fn three_drifted_trees_become_one_and_the_differences_are_worked_off() {
    drive_only!();
    let w = World::new();
    let trees = drifted(common::count(360, 7500));
    let ms: Vec<Mounted> = ["ann", "bob", "cora"].iter().map(|m| w.device(m).env("TCFS_POLL_INTERVAL", "1s").off()).collect();
    // What stands at a path, first pushed first, each content once.
    let mut stands: std::collections::BTreeMap<&str, Vec<&str>> = Default::default();
    for (at, (m, tree)) in ms.iter().zip(&trees).enumerate() {
        let local = w.dir().join(format!("local-{at}/project"));
        for (path, body) in tree {
            std::fs::create_dir_all(local.join(path).parent().unwrap()).unwrap();
            std::fs::write(local.join(path), body).unwrap();
        }
        let (mut new, mut same, mut different) = (0, 0, 0);
        for (path, body) in tree {
            let all = stands.entry(path).or_default();
            match all.first() {
                None => new += 1,
                Some(_) if all.contains(&body.as_str()) && (all[0] == body) => same += 1,
                Some(_) => different += 1,
            }
            if !all.contains(&body.as_str()) {
                all.push(body);
            }
        }
        let local = local.to_str().unwrap();
        // Without a daemon, and without having asked for news before: the dry run does.
        let dry = answer(&m.cli_long(&["--json", "push", "-n", local]).ok());
        let count = |v: &Value, f: &str| v[f].as_u64().unwrap();
        // Directories count as new, too.
        assert_eq!((count(&dry, "same"), count(&dry, "different"), count(&dry, "files")), (same, different, new + different), "{dry}");
        let done = answer(&m.cli_long(&["--json", "push", local]).exit(if different > 0 { 3 } else { 0 }));
        assert_eq!((count(&done, "same"), count(&done, "different"), count(&done, "files")), (same, different, new + different), "{done}");
        assert_eq!((count(&done, "new"), done["queued"].as_bool()), (count(&dry, "new"), Some(false)));
        let again = answer(&m.cli_long(&["--json", "push", "-n", local]));
        assert_eq!(count(&again, "new"), 0, "{again}");
    }
    let in_conflict: Vec<&str> = stands.iter().filter(|(_, all)| all.len() > 1).map(|(p, _)| *p).collect();
    println!("{} paths, {} in conflict", stands.len(), in_conflict.len());
    assert!(in_conflict.len() > 10 && stands.values().any(|all| all.len() == 3));

    // On every mount: equal files once, differing ones beside each other, and nothing else.
    for m in &ms {
        m.mount();
        until("everything is here", Duration::from_secs(120), || (conflicts(m) == in_conflict.len() as u64).then_some(()));
        let found = below(&m.path("project"));
        let mut texts: std::collections::BTreeMap<String, Vec<String>> = Default::default();
        for (path, body) in found {
            let of = match path.split_once(".conflict-") {
                Some((stem, _)) => format!("{stem}.txt"),
                None => path,
            };
            texts.entry(of).or_default().push(body);
        }
        assert_eq!(texts.len(), stands.len());
        for (path, mut want) in stands.clone() {
            let mut got = texts.remove(path).unwrap_or_default();
            got.sort();
            want.sort();
            assert_eq!(got, want, "{path}");
        }
    }
    // Worked off: by each way in turn, on one machine after the other.
    let list = of_type(&ms[0].cli_long(&["--json", "conflicts", "project"]).ok(), "conflict");
    assert_eq!(list.len(), in_conflict.len());
    let mut keep: std::collections::BTreeMap<String, String> = Default::default();
    for (i, c) in list.iter().enumerate() {
        let (path, heads) = (c["path"].as_str().unwrap(), c["heads"].as_array().unwrap());
        let m = &ms[i % 3];
        let head = |i: usize| heads[i]["path"].as_str().unwrap().to_owned();
        let read = |p: &str| std::fs::read_to_string(m.path(p)).unwrap();
        match i % 4 {
            0 => {
                keep.insert(path.to_owned(), read(path));
                (1..heads.len()).for_each(|h| std::fs::remove_file(m.path(head(h))).unwrap());
            }
            1 if heads.len() == 2 => {
                keep.insert(path.to_owned(), read(&head(1)));
                std::fs::rename(m.path(head(1)), m.path(path)).unwrap();
            }
            2 => {
                let d = answer(&m.cli(&["--json", "conflicts", "diff", &head(1)]).ok());
                assert!(d["text"].as_str().unwrap().contains("\n-file "), "{d}");
                let device = heads[1]["place"]["name"].as_str().unwrap();
                keep.insert(path.to_owned(), read(&head(1)));
                m.cli(&["resolve-conflict", path, "--keep", device]).ok();
            }
            _ => {
                keep.insert(path.to_owned(), read(path));
                m.cli(&["resolve-conflict", path, "--keep", heads[0]["place"]["name"].as_str().unwrap()]).ok();
            }
        }
    }
    for m in &ms {
        m.wait();
    }
    for m in &ms {
        until("nothing is in conflict", Duration::from_secs(120), || (conflicts(m) == 0).then_some(()));
        for (path, body) in &keep {
            until("what was kept is here", Duration::from_secs(60), || {
                (std::fs::read_to_string(m.path(path)).is_ok_and(|t| t == *body)).then_some(())
            });
        }
        assert_eq!(below(&m.path("project")).len(), stands.len());
    }
}

/// All files below a directory with what they hold.
fn below(dir: &std::path::Path) -> std::collections::BTreeMap<String, String> {
    let files = common::mounted::walk_files(dir);
    files.into_iter().map(|f| (f.strip_prefix(dir).unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(&f).unwrap())).collect()
}
