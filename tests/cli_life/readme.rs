//! The README's commands, line by line as they stand there; only `/tmp` and the home are this test's own.

use super::s;
use crate::common::{World, cli, sys};
use crate::drive_only;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The indented lines of a section.
fn lines(section: &str) -> Vec<String> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let text = readme.split_once(&format!("\n## {section}\n")).unwrap_or_else(|| panic!("no section {section}")).1;
    let text = text.split("\n## ").next().unwrap();
    text.lines().filter_map(|l| l.strip_prefix("    ")).map(str::to_owned).collect()
}

#[test]
fn the_commands_of_the_readme_work_as_they_stand_there() {
    drive_only!();
    let w = World::new();
    let home = w.dir().join("home");
    fs::create_dir_all(home.join("some/project/sub")).unwrap();
    fs::write(home.join("some/project/sub/file"), "text").unwrap();
    let exe = Path::new(env!("CARGO_BIN_EXE_tcfs")).parent().unwrap();
    let path = format!("{}:{}", exe.display(), std::env::var("PATH").unwrap());
    let shell = |line: &str| {
        let mut c = Command::new("sh");
        for (k, _) in std::env::vars_os().filter(|(k, _)| ["TCFS_", "XDG_", "AWS_"].iter().any(|p| k.to_string_lossy().starts_with(p))) {
            c.env_remove(k);
        }
        c.args(["-ec", line]).env("HOME", &home).env("PATH", &path).current_dir("/");
        cli::run(&mut c, Duration::from_secs(120))
    };
    let mine = |line: &str| line.replace("/tmp/", &format!("{}/", s(w.dir())));

    let first = lines("Two commands").remove(0);
    let first = first.strip_prefix("cargo run --release -- ").expect("the first command builds and runs").to_owned();
    let mut ran = vec![shell(&format!("tcfs {first}")).ok()];
    assert!(sys::is_mounted(&home.join("tcfs")));
    let daily = lines("Daily use");
    assert!(daily.len() >= 4 && daily.last().unwrap().starts_with("tcfs unmount"), "{daily:?}");
    for line in &daily[..daily.len() - 1] {
        ran.push(shell(line).ok());
    }
    assert_eq!(fs::read_to_string(home.join("tcfs/project/sub/file")).unwrap(), "text");
    ran.push(shell(daily.last().unwrap()).ok());
    assert!(!sys::is_mounted(&home.join("tcfs")));

    let fleet = lines("The fleet");
    let (commands, config): (Vec<&String>, Vec<&String>) = fleet.iter().partition(|l| l.starts_with("tcfs") || l.starts_with("echo"));
    assert!(commands.len() >= 6, "{commands:?}");
    for line in commands {
        ran.push(shell(&mine(line)).ok());
    }
    assert!(ran.iter().any(|d| d.stdout == "hello\n"), "the file did not reach the other device");
    for drive in ["ann-drive", "bob-drive"] {
        assert!(!sys::is_mounted(&w.dir().join(drive)), "{drive} is still mounted");
    }
    // What it shows of the config file is one.
    fs::write(home.join("c.toml"), config.iter().map(|l| format!("{l}\n")).collect::<String>()).unwrap();
    let shown = shell("tcfs --config ~/c.toml config show store").ok();
    assert!(shown.stdout.contains("\"s3://tcfs/default\""), "{}", shown.stdout);
    // Every command of its table exists.
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    for name in readme.split("`tcfs ").skip(1).filter_map(|t| t.split([' ', '`', '[']).next()).filter(|n| !n.starts_with('-')) {
        shell(&format!("tcfs {name} --help")).ok();
    }
}
