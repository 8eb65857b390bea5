//! fallocate, holes, copy_file_range.

use crate::common::{Mounted, sys};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;

fn open(p: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(p).unwrap()
}

#[test]
fn allocation_grows_the_file_unless_told_to_keep_the_size() {
    let m = Mounted::new();
    let f = open(&m.path("f"));
    f.write_all_at(b"data", 0).unwrap();
    sys::fallocate(&f, 0, 0, 1_000_000).unwrap();
    assert_eq!(f.metadata().unwrap().len(), 1_000_000);
    sys::fallocate(&f, libc::FALLOC_FL_KEEP_SIZE, 0, 3_000_000).unwrap();
    assert_eq!(f.metadata().unwrap().len(), 1_000_000);
    let have = fs::read(m.path("f")).unwrap();
    assert!(&have[..4] == b"data" && have[4..].iter().all(|b| *b == 0));
    assert_eq!(sys::errno(sys::fallocate(&f, 0, 0, 0)), libc::EINVAL);
    assert_eq!(sys::errno(sys::fallocate(&File::open(m.path("f")).unwrap(), 0, 0, 10)), libc::EBADF);
}

#[test]
fn punched_holes_and_zeroed_ranges_read_as_zeros_and_the_rest_stays() {
    let m = Mounted::new();
    let p = m.path("f");
    let mut want = vec![0xffu8; 8 << 20];
    fs::write(&p, &want).unwrap();
    m.wait();
    let f = open(&p);
    for (mode, at, len) in [
        (PUNCH, 1 << 20, 2 << 20),
        (PUNCH, 100, 5000),
        (libc::FALLOC_FL_ZERO_RANGE, 5 << 20, 70_001),
        (libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE, (8 << 20) - 10, 100),
    ] {
        sys::fallocate(&f, mode, at as i64, len as i64).unwrap();
        let end = (at + len).min(want.len());
        want[at..end].fill(0);
        assert!(fs::read(&p).unwrap() == want, "differs after mode {mode} at {at}");
    }
    sys::fallocate(&f, libc::FALLOC_FL_ZERO_RANGE, (8 << 20) - 5, 105).unwrap();
    want.resize((8 << 20) + 100, 0);
    let n = want.len();
    want[n - 105..].fill(0);
    drop(f);
    assert!(fs::read(&p).unwrap() == want);
    m.wait();
    m.remount();
    assert!(fs::read(&p).unwrap() == want, "differs after a remount");
}

#[test]
fn punching_gives_space_back() {
    let m = Mounted::new();
    let f = open(&m.path("f"));
    f.write_all_at(&vec![1u8; 4 << 20], 0).unwrap();
    f.sync_all().unwrap();
    let before = f.metadata().unwrap().blocks();
    sys::fallocate(&f, PUNCH, 0, 3 << 20).unwrap();
    f.sync_all().unwrap();
    let after = f.metadata().unwrap().blocks();
    assert!(after + 4096 <= before, "{before} blocks before, {after} after punching 3 of 4 MiB");
}

#[test]
fn holes_and_data_are_found() {
    let m = Mounted::new();
    let f = open(&m.path("f"));
    f.set_len(16 << 20).unwrap();
    f.write_all_at(&[1u8; 65536], 4 << 20).unwrap();
    f.sync_all().unwrap();
    let data = sys::seek(&f, 0, libc::SEEK_DATA).unwrap();
    assert!(data <= 4 << 20, "data at {data}, but it begins at 4 MiB");
    let hole = sys::seek(&f, 4 << 20, libc::SEEK_HOLE).unwrap();
    assert!(((4 << 20) + 65536..=16 << 20).contains(&hole), "hole at {hole}");
    assert_eq!(sys::errno(sys::seek(&f, 16 << 20, libc::SEEK_DATA)), libc::ENXIO);
    assert_eq!(sys::errno(sys::seek(&f, 17 << 20, libc::SEEK_HOLE)), libc::ENXIO);
    // A drive that knows its holes says so; one that does not would make every copy of a sparse file a full one.
    assert!(data > 0 && hole < 16 << 20, "no hole was found (data at {data}, hole at {hole})");
}

#[test]
fn sparse_file_stays_sparse_through_cp_and_publishing() {
    let m = Mounted::new();
    let f = open(&m.path("f"));
    f.write_all_at(b"end", 1 << 30).unwrap();
    drop(f);
    m.wait();
    assert_eq!(fs::metadata(m.path("f")).unwrap().len(), (1 << 30) + 3);
    crate::common::cli::sh(m.root(), "cp --sparse=always f g; cmp f g", &[]).ok();
    assert!(
        fs::metadata(m.path("g")).unwrap().blocks() * 512 < 64 << 20,
        "the copy takes {} bytes",
        fs::metadata(m.path("g")).unwrap().blocks() * 512
    );
}

#[test]
fn copy_file_range_copies_within_and_between_files() {
    let m = Mounted::new();
    let (p, q) = (m.path("p"), m.path("q"));
    let mut bytes = vec![0u8; 6 << 20];
    fastrand::Rng::with_seed(3).fill(&mut bytes);
    fs::write(&p, &bytes).unwrap();
    for published in [false, true] {
        if published {
            m.wait();
        }
        let (from, to) = (open(&p), open(&q));
        to.set_len(0).unwrap();
        let mut want = vec![0u8; 100];
        let mut done = 0usize;
        while done < bytes.len() - 7 {
            let n = sys::copy_range(&from, (7 + done) as i64, &to, (100 + done) as i64, bytes.len() - 7 - done).unwrap();
            assert!(n > 0, "copied nothing before the end");
            done += n;
        }
        want.extend(&bytes[7..]);
        assert!(fs::read(&q).unwrap() == want, "published: {published}");
        // Past the end there is nothing to copy.
        assert_eq!(sys::copy_range(&from, bytes.len() as i64, &to, 0, 10).unwrap(), 0);
        // Within one file, apart from each other.
        let n = sys::copy_range(&to, 0, &to, 4 << 20, 50_000).unwrap();
        assert_eq!(n, 50_000);
        let head = want[..50_000].to_vec();
        want[4 << 20..(4 << 20) + 50_000].copy_from_slice(&head);
        assert!(fs::read(&q).unwrap() == want);
        assert_eq!(sys::errno(sys::copy_range(&to, 0, &to, 10, 100)), libc::EINVAL);
    }
    // The source was only read.
    assert!(fs::read(&p).unwrap() == bytes);
    m.wait();
    m.remount();
    assert!(fs::read(&p).unwrap() == bytes);
}
