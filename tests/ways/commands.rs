//! The commands that look: why, find, log, trash, cache, diff, restore; completions, man, report, doctor --fix.

use super::common::cli::{Done, run, sh};
use super::common::{World, until};
use super::{SOON, in_conflict};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

fn has(d: &Done, words: &[&str]) {
    for w in words {
        assert!(d.stdout.contains(w), "{w:?} is not in what {} says:\n{}", d.line, d.text());
    }
}

#[test]
fn why_says_where_a_path_stands_and_how_it_came_to_that() {
    let w = World::new();
    let a = w.device("ann").env("TCFS_HYDRATION_CACHED_ONLY", "md5sum").mount();
    let b = w.mount("bob");
    fs::create_dir(b.path("d")).unwrap();
    fs::write(b.path("d/f"), "content").unwrap();
    fs::write(b.path("gone"), "x").unwrap();
    b.wait();
    fs::rename(b.path("gone"), b.path("moved")).unwrap();
    b.wait();
    until("it is there", SOON, || (a.path("d/f").exists() && a.path("moved").exists()).then_some(()));
    has(&a.cli(&["why", "d/f"]).ok(), &["bob wrote at", "none of its bytes are here"]);
    // A program that may bring nothing here reads nothing, and that is told.
    assert_ne!(run(Command::new("md5sum").arg(a.path("d/f")), SOON).code, 0);
    has(&a.cli(&["why", "d/f"]).ok(), &["md5sum was kept from bringing it here", "hydration.cached_only"]);
    assert_eq!(a.status()["cache"]["kept_from"]["cached_only"], 1);
    assert_eq!(fs::read(a.path("d/f")).unwrap(), b"content");
    run(Command::new("md5sum").arg(a.path("d/f")), SOON).ok();
    has(&a.cli(&["why", "d/f"]).ok(), &["all of it is here", "md5sum opened it last"]);
    a.cli(&["unsync", "d/f"]).ok();
    has(&a.cli(&["why", "d/f"]).ok(), &["were let go at", "tcfs unsync"]);
    a.cli(&["pin", "d"]).ok();
    has(&a.cli(&["why", "d/f"]).ok(), &["\"d\" is pinned"]);
    has(&a.cli(&["why", "gone"]).ok(), &["bob moved it to moved"]);
    fs::write(a.path("x.swp"), "").unwrap();
    has(&a.cli(&["why", "x.swp"]).ok(), &["never leaves this machine", "*.swp"]);
    a.fault(Some(serde_json::json!({"mode": "down"})));
    fs::write(a.path("late"), "x").unwrap();
    let v = a.cli(&["--json", "why", "late"]).ok().json().remove(0);
    assert!(v["type"] == "why" && v["pending"] == true && v["residence"] == "pending", "{v}");
    a.fault(None);
    let none = a.cli(&["why", "never"]).exit(1);
    assert!(none.stderr.contains("nothing of that name is, or ever was"), "{}", none.text());
}

#[test]
fn why_of_a_conflict_names_the_versions() {
    let (_w, a, _b) = in_conflict();
    has(&a.cli(&["why", "plan.md"]).ok(), &["2 versions stand side by side", ".conflict-"]);
}

#[test]
fn find_finds_by_everything_that_it_knows() {
    let w = World::new();
    let (a, b) = (w.mount("ann"), w.mount("bob"));
    sh(
        b.root(),
        "mkdir -p notes/old; echo x > notes/plan.md; echo y > notes/old/Plan.md; head -c 100000 /dev/zero > notes/big; ln -s big notes/l",
        &[],
    )
    .ok();
    b.wait();
    until("it is there", SOON, || a.path("notes/l").symlink_metadata().ok().map(drop));
    let lines = |args: &[&str]| {
        let done = a.cli(&[&["find"], args].concat()).ok();
        done.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(lines(&["-name", "plan.md"]), ["notes/plan.md"]);
    assert_eq!(lines(&["-iname", "plan*"]), ["notes/old/Plan.md", "notes/plan.md"]);
    assert_eq!(lines(&["notes/old", "-iname", "*.MD"]), ["notes/old/Plan.md"]);
    assert_eq!(lines(&["-size", "+50K"]), ["notes/big"]);
    assert_eq!(lines(&["-type", "d"]), ["notes/", "notes/old/"]);
    assert_eq!(lines(&["-type", "symlink", "-device", "bob"]), ["notes/l"]);
    assert_eq!(lines(&["-device", "ann"]), Vec::<String>::new());
    assert_eq!(lines(&["-newer", "1h", "-type", "f", "-size", "-5"]).len(), 2);
    assert_eq!(lines(&["-older", "1h"]), Vec::<String>::new());
    assert_eq!(lines(&["-state", "stub", "-type", "f"]).len(), 3);
    fs::read(a.path("notes/big")).unwrap();
    assert_eq!(lines(&["-state", "hydrated", "-size", "+1"]), ["notes/big"]);
    fs::remove_file(a.path("notes/plan.md")).unwrap();
    fs::write(a.path("plan.md"), "new").unwrap();
    assert_eq!(lines(&["-name", "plan.md"]), ["plan.md"]);
    let done = a.cli(&["find", "--limit", "1", "--name", "*"]).ok();
    assert!(done.stdout.lines().count() == 1 && done.stderr.contains("there may be more"), "{}", done.text());
    a.cli(&["find", "-name", "["]).exit(2);
    a.cli(&["find", "-size", "big"]).exit(2);
    a.cli(&["find", "nowhere", "-name", "x"]).exit(1);
}

#[test]
fn log_is_the_whole_fleet_and_trash_brings_back_files_links_and_directories() {
    let w = World::new();
    let (a, b) = (w.mount("ann"), w.mount("bob"));
    sh(a.root(), "mkdir -p d/e; echo one > d/f; echo two > d/e/g; ln -s f d/l; echo mine > mine", &[]).ok();
    a.wait();
    until("it is there", SOON, || b.path("mine").exists().then_some(()));
    sh(b.root(), "rm -r d; mv mine yours; echo his > his", &[]).ok();
    b.wait();
    until("it is gone", SOON, || (!a.path("d").exists() && a.path("his").exists()).then_some(()));
    let log = a.cli(&["log"]).ok();
    has(&log, &["removed    d/e/g", "bob          ", "moved      mine -> yours", "his", "ann          "]);
    let log = a.cli(&["log", "--device", "bob", "-n", "1"]).ok();
    assert!(log.stdout.lines().count() == 1 && log.stderr.contains("--limit 0"), "{}", log.text());
    assert_eq!(a.cli(&["log", "d/f"]).ok().stdout.lines().count(), 2);
    assert_eq!(a.cli(&["log", "--until", "1h"]).ok().stdout, "");
    // A file, a link, and a directory with all that was in it.
    let trash = a.cli(&["trash"]).ok();
    has(&trash, &["d/e/g", "d/f", "d/l", "tcfs trash restore PATH"]);
    assert!(!trash.stdout.contains("mine"), "what was moved is not removed: {}", trash.text());
    a.cli(&["trash", "restore", "d/f", "--to", "elsewhere"]).ok();
    assert_eq!(fs::read(a.path("elsewhere")).unwrap(), b"one\n");
    a.cli(&["trash", "restore", "d"]).ok();
    assert_eq!((fs::read(a.path("d/e/g")).unwrap(), fs::read_link(a.path("d/l")).unwrap()), (b"two\n".to_vec(), "f".into()));
    has(&a.cli(&["trash", "list"]).ok(), &["nothing was removed"]);
    fs::remove_file(a.path("his")).unwrap();
    has(&a.cli(&["trash", "empty"]).ok(), &["1 path taken off the list"]);
    has(&a.cli(&["trash"]).ok(), &["nothing was removed"]);
    // It is not destroyed by that.
    a.cli(&["restore", "his"]).ok();
    assert_eq!(fs::read(a.path("his")).unwrap(), b"his\n");
}

#[test]
fn diff_compares_with_versions_times_and_other_files() {
    let w = World::new();
    let a = w.mount("ann");
    fs::write(a.path("f"), "one\ntwo\n").unwrap();
    a.wait();
    let id = a.cli(&["--json", "history", "f"]).ok().json()[0]["version"].as_str().unwrap().to_owned();
    std::thread::sleep(std::time::Duration::from_millis(20));
    let now = run(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S.%3NZ"]), SOON).stdout.trim().to_owned();
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::write(a.path("f"), "one\nthree\n").unwrap();
    fs::write(a.path("g"), "one\nfour\n").unwrap();
    a.wait();
    for args in [vec!["diff", "f"], vec!["diff", "f", "--against", &id[..8]], vec!["diff", "f", "--against", &now]] {
        has(&a.cli(&args).ok(), &["-two", "+three", " one"]);
    }
    has(&a.cli(&["diff", "f", "--against", "/g"]).ok(), &["-four", "+three"]);
    fs::write(a.path("h"), [0, 1, 2]).unwrap();
    a.wait();
    has(&a.cli(&["diff", "h", "--against", "/f"]).ok(), &["BLAKE3", "the first byte that differs is number 0"]);
    fs::create_dir(a.path("d")).unwrap();
    assert!(a.cli(&["diff", "d"]).exit(1).stderr.contains("is a directory"));
    assert!(a.cli(&["diff", "f", "--against", "5d"]).exit(1).stderr.contains("at that time"));
}

#[test]
fn the_cache_tells_its_largest_files_and_keeps_under_its_cap() {
    let w = World::new();
    let (a, b) = (w.device("ann").env("TCFS_CACHE_MAX_BYTES", "600KiB").mount(), w.mount("bob"));
    for i in 0..4 {
        fs::write(b.path(format!("f{i}")), vec![i; 250 << 10]).unwrap();
    }
    b.wait();
    until("they are there", SOON, || a.path("f3").exists().then_some(()));
    a.cli(&["pin", "f0"]).ok();
    for i in 0..4 {
        fs::read(a.path(format!("f{i}"))).unwrap();
    }
    until("it is under its cap", SOON, || {
        let v = a.cli(&["--json", "cache"]).ok().json().remove(0);
        (v["bytes"].as_u64()? <= 600 << 10).then_some(())
    });
    let top = a.cli(&["cache", "--top"]).ok();
    has(&top, &["f0 [pinned]", "250 KiB", "of 600 KiB in 2 files", "shrinks below"]);
    has(&a.cli(&["why", "f1"]).ok(), &["the cache, or its disk, was full"]);
    assert_eq!(a.cli(&["cache", "--top", "1"]).ok().stdout.lines().filter(|l| l.contains("KiB 2")).count(), 1);
}

/// The generated scripts in a real bash: commands, options, paths in the drive, devices.
#[test]
fn bash_completes_paths_in_the_drive_and_devices() {
    let w = World::new();
    let (a, _b) = (w.mount("ann"), w.mount("bob"));
    has(&a.cli(&["device", "list"]).ok(), &["bob"]);
    sh(a.root(), "mkdir -p 'notes/with space' notable; echo > notes/plan.md; echo > .hidden; echo > 'notes/it*s'", &[]).ok();
    a.wait();
    let exe = a.tcfs(&[]).get_program().to_owned();
    let bin = w.dir().join("bin");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(&exe, bin.join("tcfs")).unwrap();
    let script = w.dir().join("complete.sh");
    fs::write(
        &script,
        r#"
source <(tcfs completions bash)
comp() {
    COMP_WORDS=("$@"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9; COMPREPLY=()
    _clap_complete_tcfs tcfs "${COMP_WORDS[$COMP_CWORD]}" "${COMP_WORDS[$((COMP_CWORD - 1))]}"
    printf '<%s>' "${COMPREPLY[@]}"; echo
}
cd /
comp tcfs why not
comp tcfs why notes/pl
comp tcfs why notes/it
comp tcfs ls .
comp tcfs log --device b
comp tcfs resolve-
comp tcfs why nothing/at/all
cd "$1/notes"
comp tcfs why pl
"#,
    )
    .unwrap();
    let mut bash = Command::new("bash");
    bash.arg(&script).arg(a.root());
    for (k, v) in a.tcfs(&[]).get_envs() {
        bash.env(k, v.unwrap_or_default());
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let done = run(bash.env("PATH", path), SOON).ok();
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(lines[0], "<notable/><notes/>", "{}", done.text());
    assert_eq!(lines[1..3], ["<notes/plan.md>", "<notes/it*s>"], "{}", done.text());
    assert!(lines[3].contains("<.hidden>"), "{}", done.text());
    assert_eq!(lines[4..], ["<bob>", "<resolve-conflict>", "<>", "<plan.md>"], "{}", done.text());
}

#[test]
fn manual_pages_are_written_and_a_report_names_nobody() {
    let w = World::new();
    let a = w.mount("ann");
    fs::write(a.path("very secret name.txt"), "x").unwrap();
    a.wait();
    let man = w.dir().join("man");
    a.cli(&["man", man.to_str().unwrap()]).ok();
    for page in ["tcfs.1", "tcfs-mount.1", "tcfs-device-list.1"] {
        let text = fs::read_to_string(man.join(page)).unwrap();
        assert!(text.contains(".TH") && text.contains(".SH"), "{page}");
    }
    has(&a.cli(&["man"]).ok(), &[".TH tcfs 1", "resolve\\-conflict"]);
    // Something goes wrong, and its message is in the log.
    a.fault(Some(serde_json::json!({"mode": "down"})));
    fs::write(a.path("another secret.txt"), "x").unwrap();
    until("the log tells", SOON, || a.log().contains("does not answer").then_some(()));
    a.fault(None);
    let file = w.dir().join("report.txt");
    a.cli(&["report", "--output", file.to_str().unwrap()]).ok();
    let text = fs::read_to_string(&file).unwrap();
    for part in ["== program", "== configuration", "== state", "== checks", "== counters", "== log", "tcfs_entries"] {
        assert!(text.contains(part), "{part} is missing");
    }
    let host = run(&mut Command::new("hostname"), SOON).stdout;
    let home = w.dir().display().to_string();
    for name in ["secret", "ann", home.as_str(), host.trim()] {
        assert!(name.is_empty() || !text.contains(name), "{name:?} is in the report:\n{text}");
    }
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn doctor_fix_takes_a_dead_mount_away() {
    let w = World::new();
    let a = w.mount("ann");
    a.kill();
    assert!(fs::read_dir(a.root()).is_err(), "the mount is dead");
    let done = a.cli(&["doctor", "--fix"]);
    has(&done, &["the mount of a daemon that died is taken away"]);
    assert_eq!(fs::read_dir(a.root()).unwrap().count(), 0);
    fs::set_permissions(a.state(), fs::Permissions::from_mode(0o755)).unwrap();
    has(&a.cli(&["doctor", "--fix"]), &["its mode is 700 now"]);
    has(&a.cli(&["doctor", "--fix"]), &["there was nothing to repair"]);
}

/// A file that was moved has its earlier versions under the names it had.
#[test]
fn history_follows_moves_back() {
    let w = World::new();
    let a = w.mount("ann");
    let step = |script: &str| {
        sh(a.root(), script, &[]).ok();
        a.wait();
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    step("mkdir d e; echo one > d/first");
    step("echo two > d/first");
    step("mv d/first d/second");
    step("echo three > d/second");
    step("mv d moved");
    step("echo four > moved/second");
    // Another file that has a name of the past now is not meant.
    step("mkdir d; echo other > d/first");
    let own = a.cli(&["history", "moved/second"]).ok();
    assert!(!own.stdout.contains("d/"), "{}", own.text());
    let all = a.cli(&["--json", "history", "--follow", "moved/second"]).ok().json();
    let files: Vec<(&str, u64)> = all
        .iter()
        .filter(|v| v["type"] == "version" && v["kind"] == "file")
        .map(|v| (v["path"].as_str().unwrap(), v["size"].as_u64().unwrap()))
        .collect();
    let want = [("moved/second", 5), ("moved/second", 6), ("d/second", 6), ("d/second", 4), ("d/first", 4), ("d/first", 4)];
    assert_eq!(files, want, "{all:?}");
}
