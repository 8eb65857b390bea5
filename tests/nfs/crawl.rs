//! Programs that read every file of a directory do not fetch the drive.

use super::SOON;
use super::common::{World, until};
use super::served::Served;
use std::fs;

/// Bytes of each file: several chunks.
const SIZE: usize = 6 << 20;
/// Files of the directory.
const FILES: usize = 40;
/// As many as a sweep needs to be one.
const FIRST: usize = 16;

/// The heads of many files are read, as a program does that makes thumbnails: the first are fetched whole, then no more.
#[test]
fn a_sweep_over_a_directory_fetches_what_it_reads_and_no_more() {
    let w = World::new();
    let bob = w.mount("bob");
    fs::create_dir(bob.path("photos")).unwrap();
    let mut rng = super::common::rng();
    for i in 0..FILES {
        let mut bytes = vec![0; SIZE];
        rng.fill(&mut bytes);
        fs::write(bob.path(format!("photos/{i:02}.jpg")), bytes).unwrap();
    }
    fs::write(bob.path("other"), vec![5u8; SIZE]).unwrap();
    bob.wait();

    let s = Served::new(&w, "ann");
    let mut c = s.client();
    let root = c.root();
    let dir = until("it is listed", SOON, || c.lookup(&root, "photos").ok());
    let files: Vec<_> = (0..FILES).map(|i| until("it is listed", SOON, || c.lookup(&dir, &format!("{i:02}.jpg")).ok())).collect();
    for f in &files {
        let (head, _) = until("the head is here", SOON, || c.read(f, 0, 4096).ok());
        assert_eq!(head.len(), 4096);
    }
    let here = |how: &str| {
        let all = s.m.cli(&["--json", "ls", "photos"]).ok().json();
        all.iter().filter(|l| l["path"].as_str().is_some_and(|p| p.ends_with(".jpg")) && l["residence"] == how).count()
    };
    until("the first are fetched whole", SOON, || (here("hydrated") >= FIRST).then_some(()));
    // What is fetched behind a read is fetched in order: one that comes after shows that nothing else is on the way.
    let other = c.lookup(&root, "other").unwrap();
    until("another directory is no part of it", SOON, || c.read(&other, SIZE as u64 - 9, 9).ok());
    assert_eq!((here("hydrated"), here("partial")), (FIRST, FILES - FIRST));
    let log = s.m.log();
    let said: Vec<&str> = log.lines().filter(|l| l.contains("\"photos\"") && l.contains("indexers")).collect();
    assert_eq!(said.len(), 1, "once: {said:?}\n{log}");

    // Whoever wants one whole gets it, sweep or not.
    let (mut at, mut got) = (0, Vec::new());
    while at < SIZE as u64 {
        let (bytes, eof) = until("the next bytes are here", SOON, || c.read(&files[FILES - 1], at, 1 << 20).ok());
        assert!(!bytes.is_empty() || eof);
        at += bytes.len() as u64;
        got.extend(bytes);
    }
    assert!(got == fs::read(bob.path(format!("photos/{:02}.jpg", FILES - 1))).unwrap());
}
