//! The real program where no drive is needed: configuration, usage errors, exit codes, completions.
//!
//! Each test has a home, a state directory and an environment of its own.

#![allow(clippy::unwrap_used)] // a test ends where something is not as it must be

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

struct Home {
    dir: tempfile::TempDir,
}

struct Run {
    code: i32,
    out: String,
    err: String,
}

impl Home {
    fn new() -> Home {
        Home { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self, exe: &str) -> Command {
        let mut c = Command::new(exe);
        c.env_clear().env("HOME", self.path()).env("PATH", "/usr/bin:/bin").current_dir(self.path());
        c
    }

    fn tcfs(&self, args: &[&str]) -> Run {
        run(self.command(env!("CARGO_BIN_EXE_tcfs")).args(args))
    }
}

fn run(command: &mut Command) -> Run {
    let Output { status, stdout, stderr } = command.output().unwrap();
    Run { code: status.code().unwrap(), out: String::from_utf8(stdout).unwrap(), err: String::from_utf8(stderr).unwrap() }
}

impl Run {
    fn json(&self) -> Vec<Value> {
        self.out.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
    }
}

#[test]
fn config_show_names_the_source_of_each_value_and_no_secret() {
    let home = Home::new();
    std::fs::create_dir_all(home.path().join(".config/tcfs")).unwrap();
    let file = home.path().join(".config/tcfs/config.toml");
    std::fs::write(&file, "device_name = \"yoga\"\n[s3]\nsecret_access_key = \"hush-hush\"\n").unwrap();
    let r = run(home.command(env!("CARGO_BIN_EXE_tcfs")).env("TCFS_POLL_INTERVAL", "7s").args([
        "--store",
        "s3://fleet/a",
        "--json",
        "config",
        "show",
    ]));
    assert_eq!(r.code, 0, "{}", r.err);
    let rows = r.json();
    let row = |key: &str| rows.iter().find(|v| v["key"] == key).unwrap_or_else(|| panic!("{key} in {rows:?}")).clone();
    assert_eq!((row("store")["value"].as_str(), row("store")["source"].as_str()), (Some("\"s3://fleet/a\""), Some("flag --store")));
    assert_eq!(row("device_name")["source"].as_str(), Some(format!("{}:1", file.display()).as_str()));
    assert_eq!(row("poll_interval")["source"], "environment TCFS_POLL_INTERVAL");
    assert_eq!(row("conflict_mode")["source"], "default");
    assert!(!r.out.contains("hush-hush"));
    let human = home.tcfs(&["config", "show", "device_name"]);
    let lines: Vec<&str> = human.out.lines().collect();
    assert!(lines.len() == 2 && lines[0].contains("TCFS_DEVICE_NAME") && lines[1].starts_with("device_name = \"yoga\""), "{lines:?}");
}

#[test]
fn what_config_show_prints_is_a_config_file() {
    let home = Home::new();
    let shown = home.tcfs(&["config", "show"]);
    // Values in parentheses are notes on keys that are not set.
    let set: Vec<&str> = shown.out.lines().filter(|l| !l.contains("= (")).collect();
    let (top, tables): (Vec<&str>, Vec<&str>) = set.iter().partition(|l| !l.split(" =").next().unwrap().contains('.'));
    let text = [top, tables].concat().join("\n");
    std::fs::write(home.path().join("again.toml"), &text).unwrap();
    let again = home.tcfs(&["--config", "again.toml", "config", "show"]);
    assert_eq!(again.code, 0, "{}\n{text}", again.err);
    let values = |r: &Run| -> Vec<String> { r.out.lines().map(|l| l.split("  # ").next().unwrap().trim_end().to_owned()).collect() };
    assert_eq!(values(&again), values(&shown));
}

#[test]
fn an_unknown_key_is_an_error_with_line_and_suggestion() {
    let home = Home::new();
    std::fs::write(home.path().join("c.toml"), "\nconflict_mod = \"auto\"\n").unwrap();
    let r = home.tcfs(&["--config", "c.toml", "status"]);
    assert_eq!(r.code, 2);
    assert!(r.err.contains("c.toml, line 2: unknown key `conflict_mod`") && r.err.contains("did you mean `conflict_mode`?"), "{}", r.err);
    let r = home.tcfs(&["--config", "c.toml", "config", "check", "--json"]);
    let error = &r.json()[0]["error"];
    assert_eq!((r.code, error["kind"].as_str(), error["hint"].as_str()), (2, Some("usage"), Some("did you mean `conflict_mode`?")));
    // Where the file is can be asked all the same.
    let r = home.tcfs(&["--config", "c.toml", "config", "path"]);
    assert_eq!((r.code, r.out.trim_end()), (0, home.path().join("c.toml").to_str().unwrap()));
}

#[test]
fn config_check_reads_what_secrets_stand_in() {
    let home = Home::new();
    assert_eq!(home.tcfs(&["config", "check"]).code, 0);
    let r = home.tcfs(&["--store", "s3://fleet/a", "config", "check"]);
    assert!(r.code == 2 && r.err.contains("no credentials") && r.err.contains("TCFS_S3_ACCESS_KEY_ID"), "{}", r.err);
    std::fs::write(home.path().join("key"), "k\n").unwrap();
    let check = |secret: &str| {
        let mut c = home.command(env!("CARGO_BIN_EXE_tcfs"));
        run(c.env("TCFS_S3_ACCESS_KEY_ID_FILE", "key").env("TCFS_S3_SECRET_ACCESS_KEY_FILE", secret).args([
            "--store",
            "s3://tcfs/p",
            "config",
            "check",
        ]))
    };
    assert_eq!(check("key").code, 0);
    let r = check("missing");
    assert!(r.code == 2 && r.err.contains("missing"), "{}", r.err);
}

#[test]
fn bad_usage_is_exit_code_two_in_both_forms() {
    let home = Home::new();
    for args in [&["--frobnicate"][..], &["mount", "--backend", "smb"], &["push"], &["wait", "--timeout", "soon"], &["nonsense"], &[]] {
        assert_eq!(home.tcfs(args).code, 2, "{args:?}");
    }
    let r = home.tcfs(&["--json", "push"]);
    assert_eq!((r.code, r.json()[0]["error"]["kind"].as_str(), r.err.as_str()), (2, Some("usage"), ""));
    let r = home.tcfs(&["restore", "x", "--at", "tomorrow"]);
    assert!(r.code == 2 && r.err.contains("--at: expected a time"), "{}", r.err);
    let r = home.tcfs(&["push", "a", "b", "--to", "c"]);
    assert!(r.code == 2 && r.err.contains("--to DIR/"), "{}", r.err);
}

#[test]
fn without_a_daemon_status_and_unmount_are_exit_code_ten() {
    let home = Home::new();
    for args in [&["status"][..], &["unmount"], &["daemon", "stop"]] {
        let r = home.tcfs(args);
        assert!(r.code == 10 && r.err.contains("no daemon is running") && r.err.contains("tcfs mount"), "{args:?}: {} {}", r.code, r.err);
    }
    let r = home.tcfs(&["--json", "status"]);
    assert_eq!((r.code, r.json()[0]["error"]["kind"].as_str()), (10, Some("no_daemon")));
    // Nothing was made by looking.
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn without_home_a_sentence_says_what_to_do() {
    let home = Home::new();
    let r = run(home.command(env!("CARGO_BIN_EXE_tcfs")).env_remove("HOME").arg("status"));
    assert!(r.code == 2 && r.err.contains("HOME is not set") && r.err.contains("--state-dir"), "{}", r.err);
    let r = run(home.command(env!("CARGO_BIN_EXE_tcfs")).env_remove("HOME").args(["--state-dir", "s", "status"]));
    assert_eq!(r.code, 10, "{}", r.err);
}

#[test]
fn a_state_dir_too_long_for_a_socket_works() {
    let home = Home::new();
    let long = home.path().join("x".repeat(150));
    let r = home.tcfs(&["--state-dir", long.to_str().unwrap(), "status"]);
    assert_eq!(r.code, 10, "{}", r.err);
}

#[test]
fn completions_and_version_and_help_are_printed() {
    let home = Home::new();
    for (shell, word) in [("bash", "complete -o"), ("zsh", "#compdef tcfs"), ("fish", "complete --keep-order")] {
        let r = home.tcfs(&["completions", shell]);
        assert!(r.code == 0 && r.out.contains(word) && r.out.contains("TCFS_COMPLETE"), "{shell}");
    }
    let r = home.tcfs(&["--version"]);
    assert_eq!((r.code, r.out.trim_end()), (0, concat!("tcfs ", env!("CARGO_PKG_VERSION"))));
    assert!(home.tcfs(&["--help"]).out.contains("Exit codes:"));
}

#[test]
fn tcfsd_is_the_daemon_by_name_and_the_same_program() {
    let home = Home::new();
    let tcfsd = |args: &[&str]| run(home.command(env!("CARGO_BIN_EXE_tcfsd")).args(args));
    assert_eq!(tcfsd(&["config", "path"]).out, home.tcfs(&["config", "path"]).out);
    // It tries to run, and cannot: its state would have to be a directory.
    std::fs::write(home.path().join("file"), "").unwrap();
    let r = tcfsd(&["--state-dir", "file"]);
    assert!(r.code == 1 && r.err.contains("making the state directory"), "{} {}", r.code, r.err);
}

#[test]
fn a_daemon_that_cannot_start_tells_why_through_the_command_that_started_it() {
    let home = Home::new();
    // The one thing that only the daemon opens first: its log.
    std::fs::create_dir_all(home.path().join("s/log/tcfs.log")).unwrap();
    for args in [&["daemon", "start"][..], &["mount", "m"]] {
        let r = home.tcfs(&[&["--state-dir", "s"], args].concat());
        assert!(r.code == 1 && r.err.contains("opening the log") && r.err.contains("s/log/tcfs.log"), "{args:?} {} {}", r.code, r.err);
        let r = home.tcfs(&[&["--json", "--state-dir", "s"], args].concat());
        assert_eq!((r.code, r.json()[0]["error"]["kind"].as_str(), r.err.as_str()), (1, Some("is_dir"), ""));
    }
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let home = Home::new();
    let exe = env!("CARGO_BIN_EXE_tcfs");
    let r = run(home.command("/bin/sh").args(["-c", &format!("'{exe}' completions bash | head -n 1; '{exe}' config show | true")]));
    assert_eq!((r.code, r.err.as_str()), (0, ""));
}
