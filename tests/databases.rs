//! Databases in use: a file and its journals are of one moment wherever they arrive.
#![allow(clippy::unwrap_used)] // a failed call is a failed test

mod common;

use common::{World, count, until};
use rusqlite::Connection;
use std::path::Path;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(100);

fn open(at: &Path, mode: &str) -> Connection {
    let c = Connection::open(at).unwrap();
    c.busy_timeout(Duration::from_secs(5)).unwrap();
    c.pragma_update(None, "journal_mode", mode).unwrap();
    c.pragma_update(None, "wal_autocheckpoint", 40).unwrap();
    c.execute_batch("create table if not exists t (n integer primary key, text text)").unwrap();
    c
}

fn write(c: &Connection, n: i64) {
    c.execute("insert into t values (?1, ?2)", (n, "x".repeat(700))).unwrap();
}

/// How many rows it has, if it is sound; on a copy, so that looking changes nothing.
fn rows(at: &Path) -> Option<i64> {
    let dir = tempfile::tempdir().unwrap();
    for end in ["", "-wal", "-journal"] {
        let from = format!("{}{end}", at.display());
        if Path::new(&from).exists() {
            std::fs::copy(from, dir.path().join(format!("db{end}"))).ok()?;
        }
    }
    let c = Connection::open(dir.path().join("db")).unwrap();
    let sound: String = c.query_row("pragma integrity_check", (), |r| r.get(0)).unwrap();
    assert_eq!(sound, "ok");
    c.query_row("select count(*) from t", (), |r| r.get(0)).ok()
}

#[test]
fn a_database_arrives_with_its_log_and_not_while_it_is_written() {
    let w = World::new();
    let (a, b) = (w.mount("ann"), w.mount("bob"));
    let (here, there) = (a.path("app.db"), b.path("app.db"));
    let c = open(&here, "wal");
    let started = Instant::now();
    let mut n = 0;
    // A program that writes all the time: others go out, it does not.
    while started.elapsed() < Duration::from_secs(14) {
        n += 1;
        write(&c, n);
        std::thread::sleep(Duration::from_millis(100));
        if n == 20 {
            std::fs::write(a.path("other"), "x").unwrap();
        }
        assert!(!there.exists(), "a database went out while it was written");
    }
    assert!(b.path("other").exists(), "the database held up another file");
    let told = a.cli(&["doctor"]).text();
    assert!(told.contains("app.db with app.db-wal, app.db-shm (waiting)"), "{told}");
    // It pauses and has it open all the same.
    until("it arrives", SOON, || there.exists().then_some(()));
    assert!(b.path("app.db-wal").exists(), "without its log");
    assert_eq!(rows(&there), Some(n));
    // Goes on, and pauses again: what is there is of one moment each time.
    for _ in 0..count(1, 3) {
        for _ in 0..60 {
            n += 1;
            write(&c, n);
        }
        until("the rest arrives", SOON, || (rows(&there)? == n).then_some(()));
    }
    drop(c);
    // The last one takes the log away.
    until("the log goes", SOON, || (!b.path("app.db-wal").exists() && rows(&there)? == n).then_some(()));
    a.wait();
    assert!(a.cli(&["doctor"]).text().contains("no file has a journal or a lock beside it"));
    assert_eq!(a.cli(&["--json", "conflicts"]).ok().json().len(), 1);
    // On from there on the other machine.
    let c = open(&there, "wal");
    write(&c, n + 1);
    drop(c);
    b.wait();
    until("and back", SOON, || (rows(&here)? == n + 1).then_some(()));
}

#[test]
fn what_a_program_left_when_it_was_killed_goes_out_together() {
    let w = World::new();
    let (a, b) = (w.mount("ann"), w.mount("bob"));
    let here = a.path("app.db");
    let c = open(&here, "wal");
    (1..=300).for_each(|n| write(&c, n));
    // As if killed: its files stay as they are, closed.
    let copy = w.dir().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for end in ["", "-wal"] {
        std::fs::copy(format!("{}{end}", here.display()), copy.join(format!("db{end}"))).unwrap();
    }
    for end in ["-wal", ""] {
        std::fs::copy(copy.join(format!("db{end}")), a.path(format!("left.db{end}"))).unwrap();
    }
    // What is called a lock and is none, as Ruby and Python have it, holds nothing up.
    std::fs::write(a.path("Gemfile.lock"), "GEM\n").unwrap();
    std::fs::write(a.path("Gemfile"), "source\n").unwrap();
    until("it arrives at once", Duration::from_secs(9), || b.path("Gemfile").exists().then_some(()));
    // Asked for, they need not be quiet for long.
    a.wait();
    until("it arrives", SOON, || b.path("left.db").exists().then_some(()));
    assert!(b.path("left.db-wal").exists());
    assert_eq!(rows(&b.path("left.db")), Some(300));
    drop(c);
    // In the other mode the journal is there only while something is written.
    let d = open(&a.path("old.db"), "delete");
    (1..=50).for_each(|n| write(&d, n));
    drop(d);
    until("it arrives", SOON, || (rows(&b.path("old.db"))? == 50).then_some(()));
    // A restart in between loses nothing of it.
    let c = open(&here, "wal");
    write(&c, 301);
    a.kill();
    drop(c);
    a.mount();
    until("what was committed arrives", SOON, || (rows(&b.path("app.db"))? == 301).then_some(()));
}
