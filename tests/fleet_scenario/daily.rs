//! Enrolling, pushing and pulling, a conflict and its end.

use super::common::mounted::walk_files;
use super::*;
use std::collections::BTreeMap;
use std::fs;
use tcfs::store::Store;
use tcfs::store::s3::S3Store;

/// An object of the store.
#[tokio::main(flavor = "current_thread")]
async fn object(lab: &Lab, key: &str) -> Vec<u8> {
    S3Store::new("tcfs", &lab.weed.options()).unwrap().get(key).await.unwrap().to_vec()
}

/// The keys below a prefix.
#[tokio::main(flavor = "current_thread")]
async fn keys(lab: &Lab, prefix: &str) -> Vec<String> {
    let store = S3Store::new("tcfs", &lab.weed.options()).unwrap();
    store.list(prefix, None).await.unwrap().objects.into_iter().map(|o| o.key).collect()
}

#[test]
fn enrol_smoke_and_conflict() {
    drive_only!();
    let lab = Lab::new();
    let machines = NAMES.map(|n| lab.machine(n).off());
    for (m, name) in machines.iter().zip(NAMES) {
        let r = answer(&m.cli(&["--json", "device", "enroll", "--name", name]).ok());
        assert_eq!(r["device"]["name"], name, "{r}");
    }
    for m in &machines {
        m.mount();
        is_connected(m);
        let mut names: Vec<String> =
            m.cli(&["--json", "device", "list"]).ok().json().iter().filter_map(|d| d["name"].as_str().map(str::to_owned)).collect();
        names.sort();
        assert_eq!(names, NAMES);
    }
    let view: Value = serde_json::from_slice(&object(&lab, "tcfs-meta/devices.json")).unwrap();
    assert_eq!(view["devices"].as_array().unwrap().len(), 3, "{view}");
    let [zoo, bates, yoga] = &machines;

    // Smoke.
    let file = lab.world.dir().join("fleet-test.txt");
    fs::write(&file, "fleet sync test\n").unwrap();
    yoga.cli(&["push", file.to_str().unwrap()]).ok();
    for (n, m) in [zoo, bates].into_iter().enumerate() {
        let out = lab.world.dir().join(format!("out-{n}"));
        m.cli(&["pull", "tcfs/default/fleet-test.txt", out.to_str().unwrap()]).ok();
        assert_eq!(fs::read(&out).unwrap(), b"fleet sync test\n");
        assert_eq!(fs::read(m.path("fleet-test.txt")).unwrap(), b"fleet sync test\n");
    }
    let [key] = &keys(&lab, "default/manifests/")[..] else { panic!("one file has one manifest") };
    let manifest: Value = serde_json::from_slice(&object(&lab, key)).unwrap();
    assert_eq!((manifest["version"].as_u64(), manifest["rel_path"].as_str()), (Some(2), Some("fleet-test.txt")), "{manifest}");
    assert_eq!(manifest["file_size"], 16);

    // Two push different files to one place, neither having had the other's.
    let conflict = |round: &str| {
        for (m, name) in [(yoga, "yoga"), (bates, "xoxd-bates")] {
            let local = lab.world.dir().join(format!("{round}-{name}"));
            fs::create_dir_all(&local).unwrap();
            fs::write(local.join("conflict.txt"), format!("{round}: {name}")).unwrap();
            let done = m.cli(&["push", local.join("conflict.txt").to_str().unwrap()]);
            assert!([0, 3].contains(&done.code), "{}", done.text());
        }
        let want: BTreeMap<String, Vec<u8>> = [
            ("conflict.conflict-yoga.txt", format!("{round}: yoga")),
            ("conflict.txt", format!("{round}: xoxd-bates")),
            ("fleet-test.txt", "fleet sync test\n".to_owned()),
        ]
        .into_iter()
        .map(|(n, t)| (n.to_owned(), t.into_bytes()))
        .collect();
        for m in &machines {
            until("both versions stand side by side", SOON, || (tree(m.root()) == want).then_some(()));
            let list = m.cli(&["--json", "conflicts"]).ok().json();
            assert!(list.iter().any(|c| c["path"] == "conflict.txt"), "{list:?}");
        }
    };
    let ended = |text: &str| {
        for m in &machines {
            until("it is over everywhere", SOON, || {
                let t = tree(m.root());
                (t.len() == 2 && t.get("conflict.txt").is_some_and(|b| b == text.as_bytes())).then_some(())
            });
            assert_eq!(m.status()["conflicts"], 0);
        }
    };
    conflict("first");
    yoga.cli(&["resolve-conflict", "conflict.txt", "--keep-local"]).ok();
    ended("first: yoga");
    fs::remove_file(zoo.path("conflict.txt")).unwrap();
    for m in &machines {
        until("it is gone", SOON, || (tree(m.root()).len() == 1).then_some(()));
    }
    conflict("second");
    fs::remove_file(zoo.path("conflict.conflict-yoga.txt")).unwrap();
    ended("second: xoxd-bates");
    // Nothing is left of the pushes but what they say.
    assert!(walk_files(yoga.root()).len() == 2);
}

/// Every version of a path that is in a log: its clock.
fn clocks_of(lab: &Lab, path: &str) -> Vec<BTreeMap<String, u64>> {
    let mut out = Vec::new();
    for key in keys(lab, "default/log/") {
        let lines = zstd::decode_all(&object(lab, &key)[..]).unwrap();
        for line in String::from_utf8(lines).unwrap().lines() {
            let v: Value = serde_json::from_str(line).unwrap();
            if v["path"] == path {
                out.push(serde_json::from_value(v["vclock"]["clocks"].clone()).unwrap());
            }
        }
    }
    out
}

/// One hand after the other writes a file, by push and in the mount, over restarts, pulls and the loss of a machine: the
/// clock of what is there only rises.
#[test]
fn no_component_of_a_clock_ever_falls() {
    drive_only!();
    let lab = Lab::new();
    let [zoo, yoga] = ["petting-zoo-mini", "yoga"].map(|n| lab.machine(n).mount());
    let file = lab.world.dir().join("f.txt");
    let (mut before, mut steps) = (BTreeMap::new(), 0);
    let mut step = |what: &str, text: String| {
        steps += 1;
        for m in [&zoo, &yoga] {
            until(what, SOON, || (fs::read_to_string(m.path("f.txt")).ok()? == text).then_some(()));
            m.wait();
        }
        let all = clocks_of(&lab, "f.txt");
        let covers = |a: &BTreeMap<String, u64>, b: &BTreeMap<String, u64>| b.iter().all(|(k, n)| a.get(k) >= Some(n));
        let newest =
            all.iter().find(|c| all.iter().all(|o| covers(c, o))).unwrap_or_else(|| panic!("{what}: none has seen all of {all:?}"));
        assert!(covers(newest, &before) && *newest != before, "{what}: {before:?} became {newest:?}");
        before = newest.clone();
        assert_eq!(fs::read_dir(zoo.root()).unwrap().count(), 1, "{what}: no sibling");
    };
    let push = |m: &Mounted, text: &str| {
        fs::write(&file, text).unwrap();
        m.cli(&["push", "--force", file.to_str().unwrap()]).ok();
    };
    push(&yoga, "pushed");
    step("a push", "pushed".into());
    for round in 0..2 {
        let text = |by: &str| format!("{by} {round}");
        fs::write(zoo.path("f.txt"), text("zoo")).unwrap();
        step("a save on the other machine", text("zoo"));
        yoga.cli(&["pull", "f.txt", lab.world.dir().join(format!("out-{round}")).to_str().unwrap()]).ok();
        yoga.remount();
        fs::write(yoga.path("f.txt"), text("yoga")).unwrap();
        step("a save after pull and restart", text("yoga"));
        push(&zoo, &text("zoo pushed"));
        step("a push on the other machine", text("zoo pushed"));
        // The machine is lost, and comes back with nothing under its old name.
        yoga.unmount();
        fs::remove_dir_all(yoga.state()).unwrap();
        yoga.cli(&["device", "enroll", "--name", "yoga", "--replace"]).ok();
        yoga.mount();
        has(&yoga, &text("zoo pushed"));
        fs::write(yoga.path("f.txt"), text("yoga anew")).unwrap();
        step("a save after a new enrolment", text("yoga anew"));
    }
    assert_eq!(steps, 9);
}

/// It has the file as it is.
fn has(m: &Mounted, text: &str) {
    until("it has caught up", SOON, || (fs::read_to_string(m.path("f.txt")).ok()? == text).then_some(()));
}
