//! Memory mappings, shared and private, read and written.

use crate::common::{Mounted, sys::Map};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;

#[test]
fn shared_mapping_and_write_see_each_other() {
    let m = Mounted::new();
    let p = m.path("f");
    fs::write(&p, vec![1u8; 64 << 10]).unwrap();
    let f = OpenOptions::new().read(true).write(true).open(&p).unwrap();
    let mut map = Map::new(&f, 64 << 10, true, true).unwrap();
    assert!(map.bytes().iter().all(|b| *b == 1));
    f.write_all_at(b"written", 5000).unwrap();
    assert_eq!(&map.bytes()[5000..5007], b"written");
    map.bytes()[9000..9006].copy_from_slice(b"mapped");
    let mut back = [0u8; 6];
    f.read_exact_at(&mut back, 9000).unwrap();
    assert_eq!(&back, b"mapped");
    map.sync().unwrap();
    assert_eq!(&fs::read(&p).unwrap()[9000..9006], b"mapped");
}

#[test]
fn store_into_a_shared_mapping_after_close_is_kept() {
    let m = Mounted::new();
    let p = m.path("f");
    for published in [false, true] {
        fs::write(&p, vec![1u8; 256 << 10]).unwrap();
        if published {
            m.wait();
        }
        let f = OpenOptions::new().read(true).write(true).open(&p).unwrap();
        let mut map = Map::new(&f, 256 << 10, true, true).unwrap();
        map.bytes()[0] = 2;
        drop(f);
        // The descriptor is gone; the mapping is not, and what goes through it now must arrive too.
        map.bytes()[100_000..100_004].copy_from_slice(b"late");
        drop(map);
        m.wait();
        let have = fs::read(&p).unwrap();
        assert_eq!((have[0], &have[100_000..100_004]), (2, &b"late"[..]), "published before: {published}");
        m.remount();
        let have = fs::read(&p).unwrap();
        assert_eq!((have[0], &have[100_000..100_004]), (2, &b"late"[..]), "after a remount; published before: {published}");
    }
}

#[test]
fn private_mapping_changes_nothing_in_the_file() {
    let m = Mounted::new();
    let p = m.path("f");
    fs::write(&p, vec![1u8; 8192]).unwrap();
    let f = File::open(&p).unwrap();
    let mut map = Map::new(&f, 8192, false, true).unwrap();
    map.bytes().fill(9);
    assert_eq!(map.bytes()[8191], 9);
    drop(map);
    assert!(fs::read(&p).unwrap().iter().all(|b| *b == 1));
}

#[test]
fn a_program_on_the_drive_runs() {
    // Executables are mapped, not read.
    let m = Mounted::new();
    fs::copy("/bin/echo", m.path("echo")).unwrap();
    let out = crate::common::cli::sh(m.root(), "chmod +x echo; ./echo ran", &[]).ok();
    assert_eq!(out.stdout, "ran\n");
    m.wait();
    m.remount();
    assert_eq!(crate::common::cli::sh(m.root(), "./echo again", &[]).ok().stdout, "again\n");
}

#[test]
fn mapping_of_a_hydrated_published_file_reads_right() {
    let m = Mounted::new();
    let mut bytes = vec![0u8; 5 << 20];
    fastrand::Rng::with_seed(8).fill(&mut bytes);
    fs::write(m.path("f"), &bytes).unwrap();
    m.wait();
    m.remount();
    let f = File::open(m.path("f")).unwrap();
    let mut map = Map::new(&f, bytes.len(), true, false).unwrap();
    assert!(map.bytes() == bytes);
}
