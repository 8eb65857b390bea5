//! Enrolling, pushing and pulling, a conflict and its end.

use super::common::mounted::walk_files;
use super::*;
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
