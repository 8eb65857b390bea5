//! Opening, reading, writing, truncating.

use crate::common::{Mounted, sys};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

#[test]
fn created_file_reads_back_through_the_same_and_another_handle() {
    let m = Mounted::new();
    let p = m.path("a.txt");
    let mut f = OpenOptions::new().read(true).write(true).create_new(true).open(&p).unwrap();
    f.write_all(b"hello").unwrap();
    f.seek(SeekFrom::Start(0)).unwrap();
    let mut back = String::new();
    f.read_to_string(&mut back).unwrap();
    assert_eq!(back, "hello");
    // Before the first handle is closed.
    assert_eq!(fs::read(&p).unwrap(), b"hello");
    assert_eq!(fs::metadata(&p).unwrap().len(), 5);
    drop(f);
    assert_eq!(fs::read(&p).unwrap(), b"hello");
}

#[test]
fn exclusive_create_of_an_existing_file_is_eexist_and_changes_nothing() {
    let m = Mounted::new();
    let p = m.path("a");
    fs::write(&p, "one").unwrap();
    assert_eq!(sys::errno(File::create_new(&p)), libc::EEXIST);
    assert_eq!(fs::read(&p).unwrap(), b"one");
    assert_eq!(sys::errno(File::open(m.path("missing"))), libc::ENOENT);
    assert_eq!(sys::errno(sys::open(&p, libc::O_RDONLY | libc::O_DIRECTORY, 0)), libc::ENOTDIR);
    assert_eq!(sys::errno(OpenOptions::new().write(true).open(m.root())), libc::EISDIR);
}

#[test]
fn truncate_on_open_empties_and_a_reader_sees_it() {
    let m = Mounted::new();
    let p = m.path("a");
    fs::write(&p, vec![7u8; 300_000]).unwrap();
    let reader = File::open(&p).unwrap();
    let mut w = OpenOptions::new().write(true).truncate(true).open(&p).unwrap();
    assert_eq!(reader.metadata().unwrap().len(), 0);
    w.write_all(b"new").unwrap();
    let mut buf = [0u8; 16];
    assert_eq!(reader.read_at(&mut buf, 0).unwrap(), 3);
    assert_eq!(&buf[..3], b"new");
}

#[test]
fn appends_of_two_handles_do_not_overwrite_each_other() {
    let m = Mounted::new();
    let p = m.path("log");
    let open = || OpenOptions::new().append(true).create(true).open(&p).unwrap();
    let (mut a, mut b) = (open(), open());
    let mut want = String::new();
    for i in 0..200 {
        let line = format!("line {i}\n");
        if i % 2 == 0 { &mut a } else { &mut b }.write_all(line.as_bytes()).unwrap();
        want += &line;
    }
    drop((a, b));
    assert_eq!(fs::read_to_string(&p).unwrap(), want);
}

#[test]
fn appends_of_many_threads_are_all_there_and_whole() {
    let m = Mounted::new();
    let p = m.path("log");
    std::thread::scope(|s| {
        for t in 0..8 {
            let p = &p;
            s.spawn(move || {
                let mut f = OpenOptions::new().append(true).create(true).open(p).unwrap();
                for i in 0..100 {
                    f.write_all(format!("{t:02} {i:04} {}\n", "x".repeat(90)).as_bytes()).unwrap();
                }
            });
        }
    });
    let text = fs::read_to_string(&p).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines.len(), 800);
    for (n, l) in lines.iter().enumerate() {
        assert_eq!(*l, format!("{:02} {:04} {}", n / 100, n % 100, "x".repeat(90)));
    }
}

#[test]
fn write_beyond_the_end_leaves_zeros_between() {
    let m = Mounted::new();
    let p = m.path("a");
    fs::write(&p, "head").unwrap();
    let f = OpenOptions::new().write(true).open(&p).unwrap();
    f.write_all_at(b"tail", 5_000_000).unwrap();
    drop(f);
    let have = fs::read(&p).unwrap();
    assert_eq!(have.len(), 5_000_004);
    assert_eq!((&have[..4], &have[5_000_000..]), (&b"head"[..], &b"tail"[..]));
    assert!(have[4..5_000_000].iter().all(|b| *b == 0));
}

#[test]
fn shrinking_and_growing_again_shows_zeros_not_old_bytes() {
    let m = Mounted::new();
    let p = m.path("a");
    fs::write(&p, vec![0xaau8; 2_000_000]).unwrap();
    let f = OpenOptions::new().read(true).write(true).open(&p).unwrap();
    f.set_len(10_001).unwrap();
    f.set_len(2_000_000).unwrap();
    let have = fs::read(&p).unwrap();
    assert!(have[..10_001].iter().all(|b| *b == 0xaa) && have[10_001..].iter().all(|b| *b == 0));
    assert_eq!(have.len(), 2_000_000);
    // And by path, without a handle of our own.
    drop(f);
    fs::File::options().write(true).open(&p).unwrap().set_len(3).unwrap();
    assert_eq!(fs::read(&p).unwrap(), [0xaa; 3]);
}

#[test]
fn small_edits_in_a_large_published_file_change_only_those_bytes() {
    let m = Mounted::new();
    let p = m.path("big");
    let mut want = vec![0u8; 12 << 20];
    let mut rng = fastrand::Rng::with_seed(5);
    rng.fill(&mut want);
    fs::write(&p, &want).unwrap();
    m.wait();
    for round in 0..3 {
        for _ in 0..20 {
            let at = rng.usize(..want.len() - 5000);
            let len = 1 + rng.usize(..5000);
            let mut bytes = vec![0u8; len];
            rng.fill(&mut bytes);
            want[at..at + len].copy_from_slice(&bytes);
            let f = OpenOptions::new().write(true).open(&p).unwrap();
            f.write_all_at(&bytes, at as u64).unwrap();
        }
        assert!(fs::read(&p).unwrap() == want, "round {round}: content differs");
        m.wait();
        assert!(fs::read(&p).unwrap() == want, "round {round}: content differs after publishing");
    }
    m.remount();
    assert!(fs::read(&p).unwrap() == want, "content differs after a remount");
}

#[test]
fn many_random_operations_on_one_file_match_memory() {
    let m = Mounted::new();
    let p = m.path("a");
    let mut want: Vec<u8> = vec![];
    let mut rng = crate::common::rng();
    let mut f = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&p).unwrap();
    for step in 0..2000 {
        match rng.u32(..10) {
            0..=4 => {
                let at = rng.usize(..1 << 20);
                let mut bytes = vec![0u8; rng.usize(1..70_000)];
                rng.fill(&mut bytes);
                f.write_all_at(&bytes, at as u64).unwrap();
                want.resize(want.len().max(at + bytes.len()), 0);
                want[at..at + bytes.len()].copy_from_slice(&bytes);
            }
            5..=7 => {
                let at = rng.usize(..1 << 20);
                let mut buf = vec![0u8; rng.usize(1..70_000)];
                let n = f.read_at(&mut buf, at as u64).unwrap();
                let have = want.get(at..).unwrap_or(&[]);
                // A short read is allowed only at the end of the file.
                assert!(n == buf.len().min(have.len()) && buf[..n] == have[..n], "step {step}: read of {} at {at} differs", buf.len());
            }
            8 => {
                let len = rng.usize(..1 << 20);
                f.set_len(len as u64).unwrap();
                want.resize(len, 0);
            }
            _ => f = OpenOptions::new().read(true).write(true).open(&p).unwrap(),
        }
    }
    drop(f);
    assert!(fs::read(&p).unwrap() == want);
}

#[test]
fn data_of_an_unlinked_open_file_stays_until_the_last_close() {
    let m = Mounted::new();
    let p = m.path("a");
    let f = OpenOptions::new().read(true).write(true).create_new(true).open(&p).unwrap();
    f.write_all_at(&[1u8; 200_000], 0).unwrap();
    fs::remove_file(&p).unwrap();
    assert_eq!(sys::errno(fs::metadata(&p)), libc::ENOENT);
    assert_eq!(f.metadata().unwrap().nlink(), 0);
    f.write_all_at(&[2u8; 10], 199_995).unwrap();
    let mut back = vec![0u8; 300_000];
    assert_eq!(f.read_at(&mut back, 0).unwrap(), 200_005);
    assert!(back[..199_995].iter().all(|b| *b == 1) && back[199_995..200_005].iter().all(|b| *b == 2));
    // A new file of that name is another one.
    fs::write(&p, "new").unwrap();
    assert_eq!(f.metadata().unwrap().len(), 200_005);
    assert_ne!(fs::metadata(&p).unwrap().ino(), f.metadata().unwrap().ino());
    drop(f);
    assert_eq!(fs::read(&p).unwrap(), b"new");
    // Nothing with an odd name is left for the other file either.
    assert_eq!(fs::read_dir(m.root()).unwrap().count(), 1);
}

#[test]
fn read_only_open_of_an_unlinked_published_file_still_reads() {
    let m = Mounted::new();
    let p = m.path("a");
    fs::write(&p, vec![3u8; 3_000_000]).unwrap();
    m.wait();
    let f = File::open(&p).unwrap();
    fs::remove_file(&p).unwrap();
    m.wait();
    let mut back = vec![0u8; 3_000_000];
    f.read_exact_at(&mut back, 0).unwrap();
    assert!(back.iter().all(|b| *b == 3));
}

#[test]
fn direct_io_sees_and_writes_the_same_bytes() {
    let m = Mounted::new();
    let p = m.path("a");
    fs::write(&p, vec![1u8; 65536]).unwrap();
    let d = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&p).unwrap();
    // Aligned as disks want it.
    let mut space = vec![0u8; 3 * 4096];
    let skip = space.as_ptr().align_offset(4096);
    let block = &mut space[skip..skip + 4096];
    d.read_exact_at(block, 4096).unwrap();
    assert!(block.iter().all(|b| *b == 1));
    block.fill(9);
    d.write_all_at(block, 8192).unwrap();
    drop(d);
    let have = fs::read(&p).unwrap();
    assert!(have[..8192].iter().all(|b| *b == 1) && have[8192..12288].iter().all(|b| *b == 9) && have[12288..].iter().all(|b| *b == 1));
}

#[test]
fn unnamed_temporary_file_works_or_is_refused_as_unsupported() {
    let m = Mounted::new();
    match sys::open(m.root(), libc::O_TMPFILE | libc::O_RDWR, 0o600) {
        Ok(mut f) => {
            f.write_all(b"x").unwrap();
            assert_eq!(fs::read_dir(m.root()).unwrap().count(), 0);
        }
        // What programs take as "fall back to a named one".
        Err(e) => assert!([libc::EOPNOTSUPP, libc::EISDIR, libc::ENOENT].contains(&e.raw_os_error().unwrap()), "{e}"),
    }
    let mut named = tempfile::NamedTempFile::new_in(m.root()).unwrap();
    named.write_all(b"x").unwrap();
    named.persist(m.path("kept")).unwrap();
    assert_eq!(fs::read(m.path("kept")).unwrap(), b"x");
}

#[test]
fn fsync_and_fdatasync_of_files_and_directories_succeed() {
    let m = Mounted::new();
    let mut f = File::create(m.path("a")).unwrap();
    f.write_all(b"x").unwrap();
    f.sync_data().unwrap();
    f.sync_all().unwrap();
    File::open(m.root()).unwrap().sync_all().unwrap();
    // SAFETY: an open descriptor.
    sys::check(unsafe { libc::syncfs(std::os::fd::AsRawFd::as_raw_fd(&f)) }).unwrap();
}
