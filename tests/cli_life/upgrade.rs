//! State and store as an earlier version left them, opened by this one (`tests/golden/upgrade`).

use super::{answer, s};
use crate::common::{Mounted, World, cli, sys, until};
use crate::drive_only;
use serde_json::json;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/upgrade")
}

/// A scratch directory with what was kept of that version: the store, and the state of ann.
fn as_left_by(version: &str) -> Arc<World> {
    let w = World::new();
    cli::sh(w.dir(), r#"tar -xJf "$1""#, &[kept().join(version).as_os_str()]).ok();
    w
}

/// What is in a mounted drive, as it was noted then.
fn seen(at: &Path) -> String {
    cli::sh(Path::new("/"), r#""$1" "$2""#, &[kept().join("seen.sh").as_os_str(), at.as_os_str()]).ok().stdout
}

#[test]
fn state_and_store_of_the_first_version_open_with_everything_that_was_in_them() {
    drive_only!();
    let w = as_left_by("first.tar.xz");
    let then = fs::read_to_string(w.dir().join("seen")).unwrap();
    let identity = fs::read_to_string(w.dir().join("ann/state/identity.json")).unwrap();
    // Without the store there is what was on this machine: changes that were not published, and the names of all.
    let ann = w.device("ann").off();
    ann.fault(Some(json!({ "mode": "down" })));
    ann.mount();
    let there = ["notes/new.md", "notes/plan.md", "src/made/file"].map(|p| fs::read_to_string(ann.path(p)).unwrap());
    assert_eq!(there, ["never published\n", "third plan\n", "in it\n"]);
    assert!(ann.path("src/new-name").exists() && !ann.path("src/old-name").exists() && !ann.path("with space/日本.txt").exists());
    assert_eq!(ann.pending(), 7);
    ann.fault(None);
    ann.wait();
    assert_eq!(seen(ann.root()), then);
    assert_eq!(fs::read_to_string(ann.state().join("identity.json")).unwrap(), identity, "it is the same machine");
    // Attributes, links, directories.
    assert_eq!(sys::get_xattr(&ann.path("notes/plan.md"), "user.note").unwrap(), b"kept");
    assert_eq!(fs::metadata(ann.path("src/run.sh")).unwrap().mtime(), 1_580_702_706);
    assert_eq!(fs::metadata(ann.path("src/one")).unwrap().ino(), fs::metadata(ann.path("src/two")).unwrap().ino());
    assert!(ann.path("src/empty").is_dir() && ann.path("with space").is_dir());
    let pinned = ann.cli(&["--json", "ls", s(&ann.path("notes/plan.md"))]).ok().json();
    assert_eq!(pinned[0]["pinned"], true, "{pinned:?}");

    // A machine that is new: from the store alone, with all that ann has published by now.
    let cat = w.mount("cat");
    until("it is all there", SOON, || (seen(cat.root()) == then).then_some(()));
    assert_eq!(sys::get_xattr(&cat.path("notes/plan.md"), "user.note").unwrap(), b"kept");

    // What was before: older versions, the removed file, the conflict.
    let versions = |path: &str| ann.cli(&["--json", "history", s(&ann.path(path))]).ok().json();
    let mut plan: Vec<u64> = versions("notes/plan.md").iter().filter_map(|v| v["size"].as_u64()).collect();
    // The first one got its attribute afterwards.
    plan.dedup();
    assert_eq!(plan, ["third plan\n", "second plan\n", "first plan\n"].map(|t| t.len() as u64));
    ann.cli(&["restore", s(&ann.path("gone.txt"))]).ok();
    assert_eq!(fs::read_to_string(ann.path("gone.txt")).unwrap(), "to be removed\n");
    assert_eq!(answer(&ann.cli(&["--json", "conflicts"]).ok())["conflicts"], 1);
    fs::remove_file(ann.path("both.conflict-bob.md")).unwrap();
    // And it goes on from there, both ways.
    fs::write(cat.path("src/big.txt"), "small now").unwrap();
    for m in [&ann, &cat] {
        m.wait();
    }
    until("both have it", SOON, || {
        let text = |m: &Mounted, p: &str| fs::read_to_string(m.path(p)).ok();
        let same = text(&ann, "src/big.txt")? == "small now" && text(&cat, "gone.txt")? == "to be removed\n";
        (same && !cat.path("both.conflict-bob.md").exists()).then_some(())
    });
    for m in [&ann, &cat] {
        assert_eq!(answer(&m.cli(&["--json", "conflicts"]).ok())["conflicts"], 0);
        m.cli(&["doctor"]).ok();
    }
}
