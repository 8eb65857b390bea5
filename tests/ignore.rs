//! What stays on its machine: `.tcfsignore` files and `tcfs ignore`, on mounts.
//!
//! Not here: how lines match (`vfs_core`).
#![allow(clippy::unwrap_used)] // a failed call is a failed test

mod common;

use common::{Mounted, World, cli, count, until};
use serde_json::Value;
use std::fs;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// What was put into the store since the daemon started.
fn puts(m: &Mounted) -> Value {
    m.status()["store_state"]["requests"]["put"].clone()
}

fn residence(m: &Mounted, path: &str) -> String {
    let all = m.cli(&["--json", "ls", "-a", path]).ok().json();
    all[0]["residence"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn build_output_stays_here_and_costs_the_store_nothing() {
    let w = World::new();
    let (m, bob) = (w.mount("ann"), w.mount("bob"));
    fs::create_dir_all(m.path("project/src")).unwrap();
    fs::write(m.path("project/src/main.rs"), "fn main() {}").unwrap();
    let done = m.cli(&["ignore", "--build-dirs"]).ok();
    assert!(done.stdout.contains("lines added"), "{}", done.text());
    m.wait();
    until("the rules arrive", SOON, || fs::read_to_string(bob.path(".tcfsignore")).ok().filter(|t| t.contains("node_modules/")));
    let (files, before) = (count(2_000, 10_000), puts(&m));
    for i in 0..files {
        let dir = m.path(format!("project/{}/d{}", ["target", "node_modules"][i % 2], i % 100));
        if i < 200 {
            fs::create_dir_all(&dir).unwrap();
        }
        fs::write(dir.join(format!("f{i}")), "output").unwrap();
    }
    fs::rename(m.path("project/target/d0"), m.path("project/target/moved")).unwrap();
    fs::remove_dir_all(m.path("project/node_modules")).unwrap();
    m.wait();
    assert_eq!(puts(&m), before, "the store heard of it");
    // As cargo makes its directory, and goes on in it at once.
    for i in 0..20 {
        let (dir, temp) = (m.path(format!("project/src/m{i}")), m.path(format!("project/src/m{i}/targetAb")));
        fs::create_dir_all(&temp).unwrap();
        fs::write(temp.join("CACHEDIR.TAG"), "tag").unwrap();
        fs::rename(&temp, dir.join("target")).unwrap();
        fs::create_dir(dir.join("target/debug")).unwrap();
        fs::write(dir.join("target/debug/out"), "x").unwrap();
        assert!(fs::read_to_string(dir.join("target/CACHEDIR.TAG")).unwrap() == "tag" && !temp.exists());
        fs::remove_dir_all(&dir).unwrap();
    }
    m.wait();
    let before = puts(&m);
    assert_eq!(puts(&m), before, "the store heard of it");
    let rest = fs::read_dir(bob.path("project")).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(rest, ["src"]);
    // The other machine builds for itself.
    fs::create_dir(bob.path("project/target")).unwrap();
    fs::write(bob.path("project/target/own"), "bob's").unwrap();
    fs::write(bob.path("project/src/lib.rs"), "").unwrap();
    bob.wait();
    until("what is no output arrives", SOON, || fs::metadata(m.path("project/src/lib.rs")).ok());
    assert!(!m.path("project/target/own").exists() && m.path("project/target/moved/f0").exists());
    // Real tools work in it.
    let git = "git init -q x && cd x && git config user.email a@b && git config user.name n && mkdir target && \
        for i in $(seq 50); do echo $i > target/f$i; done && echo target/ > .gitignore && git add . && git commit -qm one && git clean -fdxq && \
        [ ! -e target ]";
    cli::run(Command::new("sh").args(["-ec", git]).current_dir(m.path("project")), SOON).ok();
    m.remount();
    assert_eq!(residence(&m, "project/target/moved/f0"), "local_only");
    fs::write(m.path("project/target/again"), "x").unwrap();
    assert_eq!(residence(&m, "project/target/again"), "local_only");
}

#[test]
fn it_is_told_by_which_rule_a_path_stays() {
    let w = World::new();
    let m = w.device("ann").env("TCFS_EXCLUDE_PATTERNS", "*.iso").mount();
    fs::create_dir_all(m.path("p/logs")).unwrap();
    fs::write(m.path("p/logs/old.log"), "old").unwrap();
    fs::write(m.path("keep.txt"), "x").unwrap();
    assert!(m.cli(&["ignore"]).ok().stdout.contains("there is no"));
    let done = m.cli(&["ignore", "--in", "p", "*.log", "/scratch/", "!keep.log"]).ok();
    assert!(done.stdout.contains("3 lines added"), "{}", done.text());
    assert!(done.text().contains("p/logs/old.log") && done.text().contains("goes on carrying them"), "{}", done.text());
    assert_eq!(fs::read_to_string(m.path("p/.tcfsignore")).unwrap(), "*.log\n/scratch/\n!keep.log\n");
    let again = m.cli(&["ignore", "--in", "p", "*.log", "*.bak"]).ok();
    assert!(again.stdout.contains("1 line added"), "{}", again.text());
    assert!(m.cli(&["ignore", "--in", "p", "*.log"]).ok().stdout.contains("has all of that already"));
    assert_eq!(m.cli(&["ignore", "--in", "p"]).ok().stdout, "*.log\n/scratch/\n!keep.log\n*.bak\n");

    let told = |path: &str| m.cli(&["ignore", "--check", path]);
    for (path, want) in [
        ("p/new.log", "p/new.log stays here: `*.log` in line 1 of p/.tcfsignore"),
        ("p/scratch/deep/x", "p/scratch/deep/x stays here: `/scratch/` in line 2 of p/.tcfsignore"),
        ("a/.DS_Store", "a/.DS_Store stays here: `.DS_Store` is in the built-in list"),
        ("x.iso", "x.iso stays here: `*.iso` is in `exclude_patterns` of the configuration"),
        ("r/.git/HEAD", "r/.git/HEAD stays here: repositories are not carried (`sync_git_dirs` in the configuration)"),
        ("p/logs/old.log", "p/logs/old.log is carried: the fleet had it before the rule: `*.log` in line 1 of p/.tcfsignore"),
    ] {
        assert_eq!(told(path).ok().stdout.trim_end(), want);
    }
    let not = told("p/keep.log");
    assert_eq!((not.code, not.stdout.trim_end()), (3, "p/keep.log is carried"));
    let file = told(&m.path("p/new.log").display().to_string());
    assert!(file.ok().stdout.contains("stays here"), "a path of the mount is one of the drive");
    let lines = m.cli(&["--json", "ignore", "--check", "p/new.log", "keep.txt"]).exit(3).json();
    assert_eq!((&lines[0]["by"], &lines[0]["line"], &lines[0]["file"]), (&"ignore_file".into(), &1.into(), &"p/.tcfsignore".into()));
    assert_eq!((&lines[1]["by"], lines.len(), &lines[2]["type"]), (&"nobody".into(), 3, &"ignoring".into()));

    // What makes no sense.
    assert_eq!(m.cli(&["ignore", "--in", "keep.txt", "x"]).code, 1);
    assert_eq!(m.cli(&["ignore", "--in", "none", "x"]).code, 1);
    assert_eq!(m.cli(&["ignore", " "]).code, 2);
    assert_eq!(m.cli(&["ignore", "a\nb"]).code, 2);
    assert_eq!(m.cli(&["ignore", "--check", "x", "--build-dirs"]).code, 2);
    fs::write(m.path("p/.tcfsignore"), "[z-a]\n*.tmp\n").unwrap();
    fs::write(m.path("p/x.tmp"), "x").unwrap();
    assert_eq!(residence(&m, "p/x.tmp"), "local_only", "a line that is no pattern does not spoil the others");
    until("it is said", SOON, || m.log().contains("line 1 is no pattern").then_some(()));
    fs::remove_file(m.path("p/.tcfsignore")).unwrap();
    fs::create_dir(m.path("p/.tcfsignore")).unwrap();
    assert_eq!(m.cli(&["ignore", "--in", "p", "x"]).code, 1, "a directory of that name");
    fs::write(m.path("p/y.tmp"), "x").unwrap();
    assert_ne!(residence(&m, "p/y.tmp"), "local_only");
}
