//! The whole help, kept in one reviewed file.
//!
//! After a wanted change: `TCFS_TEST_BLESS=1 cargo test --test cli_help`, then read the difference.

#![allow(clippy::unwrap_used)] // a test ends where something is not as it must be

use std::path::Path;

#[test]
fn the_help_is_the_reviewed_one() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/help.txt");
    // The version is no part of what is reviewed, and trailing spaces do not survive editors.
    let help: String = tcfs::cli::full_help().lines().map(|l| format!("{}\n", l.trim_end())).collect();
    if std::env::var_os("TCFS_TEST_BLESS").is_some() {
        std::fs::write(&golden, &help).unwrap();
    }
    let reviewed = std::fs::read_to_string(&golden).unwrap();
    for (n, (new, old)) in help.lines().zip(reviewed.lines()).enumerate() {
        assert_eq!(new, old, "line {} of {}", n + 1, golden.display());
    }
    assert_eq!(help.lines().count(), reviewed.lines().count(), "{} has another length", golden.display());
}

#[test]
fn every_command_of_a_person_has_an_example_or_is_plain() {
    let help = tcfs::cli::full_help();
    for command in ["mount", "unmount", "push", "pull", "ls", "restore", "wait", "device", "config", "completions", "resolve-conflict"] {
        let start = help.find(&format!("$ tcfs {command} --help")).unwrap_or_else(|| panic!("{command} has no help"));
        let section = &help[start + 2..];
        let section = &section[..section.find("\n$ ").unwrap_or(section.len())];
        assert!(section.contains(&format!("  tcfs {command}")), "{command} has no example:\n{section}");
    }
}
