//! What looking costs in a drive of many entries: finding a name, the state, the conflicts, a listing, a completion.
//!
//! The entries are symbolic links, which cost the store nothing but their records.

use crate::common::{World, cli, native};
use crate::table::median;
use crate::work::{HOUR, Plan};
use std::process::Command;

/// Entries in a directory.
const WIDE: usize = 1000;

/// Measures, and prints a table.
pub fn run(plan: &Plan) {
    assert!(!native(), "the drive is measured, not a directory");
    let dirs = plan.files / 20;
    let n = dirs * (WIDE + 1);
    let w = World::new();
    let source = w.dir().join("many");
    for d in 0..dirs {
        let dir = source.join(format!("d{d:04}"));
        std::fs::create_dir_all(&dir).unwrap();
        for i in 0..WIDE {
            std::os::unix::fs::symlink("x", dir.join(format!("entry-{d}-{i}"))).unwrap();
        }
    }
    let m = w.mount("ann");
    eprintln!("pushing {n} entries");
    cli::run(m.tcfs(&["push", source.to_str().unwrap()]).env("RUST_BACKTRACE", "0"), HOUR).ok();
    m.wait();
    assert!(m.status()["entries"].as_u64().unwrap() >= n as u64);
    let times = |what: &dyn Fn() -> Command, rounds: usize| {
        let all: Vec<f64> = (0..rounds).map(|_| cli::run(&mut what(), HOUR).ok().took.as_secs_f64() * 1000.0).collect();
        median(&all)
    };
    let m = &m;
    let tcfs = |args: &'static [&'static str]| move || m.tcfs(args);
    let wanted = format!("entry-{}-{}", dirs / 2, WIDE / 2);
    let find = || m.tcfs(&["find", "-name", &wanted]);
    let end = || m.tcfs(&["find", "-name", &format!("*-{}", WIDE + 1)]);
    let complete = || {
        let mut c = m.tcfs(&["--", "tcfs", "why", "many/d0001/entry-1-9"]);
        c.env("TCFS_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", "2");
        c.env("_CLAP_COMPLETE_COMP_TYPE", "9").env("_CLAP_COMPLETE_SPACE", "true").env("_CLAP_IFS", "\n");
        c
    };
    let listing = || {
        let mut c = Command::new("ls");
        c.arg(m.path("many/d0002"));
        c
    };
    println!("| {n} entries | milliseconds |\n|---|---|");
    let row = |name: &str, ms: f64| println!("| {name} | {ms:.1} |");
    row("`tcfs find -name NAME`", times(&find, 9));
    row("`tcfs find -name '*END'`, the first (reads all names)", times(&end, 1));
    row("`tcfs find -name '*END'`", times(&end, 9));
    row("`tcfs status`", times(&tcfs(&["status"]), 9));
    row("`tcfs conflicts`", times(&tcfs(&["conflicts"]), 9));
    row("`tcfs why PATH`", times(&|| m.tcfs(&["why", "many/d0003/entry-3-3"]), 9));
    row("`ls` of a directory of 1,000", times(&listing, 1));
    row("`tcfs ls` of a directory of 1,000", times(&tcfs(&["ls", "many/d0004"]), 9));
    row("completion of a path", times(&complete, 9));
    row("`tcfs log`", times(&tcfs(&["log"]), 3));
    row("`tcfs trash`", times(&tcfs(&["trash"]), 3));
}
