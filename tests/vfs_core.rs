//! The drive by inode, in the process: what every front end relies on. No kernel, no mount.

#![allow(clippy::unwrap_used)]

#[path = "common/vfs.rs"]
mod common;

use common::{Rig, all_slots, check_rows};
use std::collections::BTreeSet;
use tcfs::ErrorKind;
use tcfs::error::Result;
use tcfs::model::Version;
use tcfs::state::Tree;
use tcfs::state::rows::{DirMove, FileType, ROOT, Slot, Time};
use tcfs::vfs::SetAttr;

fn kind<T: std::fmt::Debug>(r: Result<T>) -> ErrorKind {
    r.unwrap_err().kind()
}

macro_rules! drive_tests {
    ($($(#[doc = $doc:literal])* $name:ident($rig:ident) $body:block)*) => {
        $($(#[doc = $doc])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            #[allow(unused_mut)]
            let mut $rig = Rig::new();
            $body
            check_rows(&$rig, None);
        })*
    };
}

/// All versions in the outbox of one path.
fn sealed(rig: &Rig, p: &str) -> Vec<Version> {
    rig.outbox().into_iter().flat_map(|r| r.versions).filter(|v| v.path.as_str() == p).collect()
}

/// Some writes and truncations of `p`, and the same of `bytes`.
fn scribble(rig: &Rig, fh: u64, p: &str, bytes: &mut Vec<u8>, rng: &mut fastrand::Rng) {
    for _ in 0..rng.usize(1..4) {
        if rng.u8(..4) == 0 {
            let size = rng.usize(..600_000);
            rig.truncate(rig.ino(p), size as u64).unwrap();
            bytes.resize(size, 0);
            continue;
        }
        let (at, text) = (rng.usize(..600_000), vec![rng.u8(1..); rng.usize(1..50_000)]);
        rig.write(fh, at as u64, &text, false).unwrap();
        bytes.resize(bytes.len().max(at + text.len()), 0);
        bytes[at..at + text.len()].copy_from_slice(&text);
    }
}

drive_tests! {
    /// What was written is read back, through the same handle, another one, and after the last close.
    written_bytes_are_read_back(rig) {
        let (attr, fh) = rig.create_open("f").unwrap();
        assert_eq!((attr.size, attr.nlink, attr.mode, attr.kind), (0, 1, 0o644, FileType::File));
        rig.write(fh, 0, b"hello", false).unwrap();
        rig.write(fh, 3, b"LOAD", false).unwrap();
        assert_eq!(rig.read_fh(fh, 0, 100).await.unwrap(), b"helLOAD");
        assert_eq!(rig.getattr(attr.ino).unwrap().size, 7);
        assert_eq!(rig.text("f").await, "helLOAD");
        rig.flush(fh).unwrap();
        rig.release(fh).unwrap();
        assert_eq!(rig.text("f").await, "helLOAD");
        assert_eq!(rig.ino("f"), attr.ino);
        let v = sealed(&rig, "f");
        assert_eq!((v.len(), v[0].file().unwrap().size, v[0].is_uncut()), (1, 7, true));
    }

    /// A file whose name another machine's version has taken can be read on, and is not opened for writing any more.
    /// What is written there would be in no version, so whoever came by the old name is told to look again. One that was removed here can be written on, as anywhere.
    file_that_lost_its_name_to_another_version_is_not_opened_for_writing(rig) {
        let ino = rig.put("f", b"old");
        let reader = rig.open_file(ino, false, false).unwrap().fh;
        rig.remote("bob", "f", b"theirs").await;
        assert_ne!(rig.ino("f"), ino);
        assert_eq!(kind(rig.open_file(ino, true, false).map(|o| o.fh)), ErrorKind::Stale);
        assert_eq!(rig.read_fh(reader, 0, 10).await.unwrap(), b"old");
        rig.release(reader).unwrap();
        let removed = rig.put("g", b"mine");
        let reader = rig.open_file(removed, false, false).unwrap().fh;
        rig.rm("g").unwrap();
        let writer = rig.open_file(removed, true, false).unwrap().fh;
        rig.write(writer, 0, b"M", false).unwrap();
        assert_eq!(rig.read_fh(reader, 0, 10).await.unwrap(), b"Mine");
        rig.release(writer).unwrap();
        rig.release(reader).unwrap();
    }

    /// A client without `open` that goes on writing a file whose name another machine's version, or delete, has taken gets it listed again, beside that: what it writes is in a version.
    file_that_lost_its_name_and_is_written_on_is_listed_beside_what_took_it(rig) {
        let ino = rig.put("f.md", b"old");
        let reader = rig.open_file(ino, false, false).unwrap().fh;
        assert_eq!(kind(rig.open_lost(ino).map(|o| o.fh)), ErrorKind::Stale, "it has its name");
        rig.remote("bob", "f.md", b"theirs").await;
        let theirs = rig.ino("f.md");
        assert_ne!(theirs, ino);
        let fh = rig.open_lost(ino).unwrap().fh;
        rig.write(fh, 0, b"O", false).unwrap();
        // What arrives meanwhile leaves it alone.
        rig.remote("bob", "f.md", b"theirs again").await;
        rig.release(fh).unwrap();
        // Of two that changed it the first by name has the path.
        assert_eq!(rig.ls(""), ["f.conflict-bob.md", "f.md"]);
        assert_eq!((rig.ino("f.md"), rig.cat("f.md").await), (ino, b"Old".to_vec()));
        assert_eq!(rig.cat("f.conflict-bob.md").await, b"theirs again");
        // A conflict like any other from here on.
        rig.rm("f.conflict-bob.md").unwrap();
        assert_eq!(rig.ls(""), ["f.md"]);
        rig.rm("f.md").unwrap();
        rig.put("f.md", b"another");
        rig.release(reader).unwrap();
        assert_eq!(kind(rig.open_lost(ino).map(|o| o.fh)), ErrorKind::Stale, "removed here");

        // One that is written no further goes again.
        let ino = rig.put("g", b"mine");
        let reader = rig.open_file(ino, false, false).unwrap().fh;
        rig.remote("bob", "g", b"theirs").await;
        let fh = rig.open_lost(ino).unwrap().fh;
        assert_eq!(rig.ls(""), ["f.md", "g", "g.conflict-ann"]);
        rig.release(fh).unwrap();
        assert_eq!(rig.ls(""), ["f.md", "g"]);
        assert_eq!(rig.read_fh(reader, 0, 10).await.unwrap(), b"mine");
        rig.release(reader).unwrap();

        // Beside a delete it keeps its name.
        let ino = rig.put("h", b"mine");
        let reader = rig.open_file(ino, false, false).unwrap().fh;
        let gone = rig.tombstone_of("bob", "h", &rig.entry("h"));
        rig.arrive(&gone);
        assert_eq!(rig.ls(""), ["f.md", "g"]);
        let fh = rig.open_lost(ino).unwrap().fh;
        rig.write(fh, 4, b"!", false).unwrap();
        rig.release(fh).unwrap();
        rig.release(reader).unwrap();
        assert_eq!((rig.ino("h"), rig.cat("h").await), (ino, b"mine!".to_vec()));
    }

    /// Whoever looks while the last close seals a file sees what was written: no row from before comes up again.
    looking_while_a_file_is_closed_never_shows_it_shorter(rig) {
        let (attr, fh) = rig.create_open("f").unwrap();
        rig.release(fh).unwrap();
        for n in 1..=400u64 {
            let fh = rig.open_rw("f");
            rig.write(fh, n - 1, b"x", false).unwrap();
            std::thread::scope(|s| {
                let closing = s.spawn(|| rig.release(fh).unwrap());
                loop {
                    let done = closing.is_finished();
                    assert_eq!(rig.getattr(attr.ino).unwrap().size, n);
                    let listed = rig.readdir(ROOT, 0, 128, true).unwrap();
                    assert_eq!(listed[0].attr.as_ref().unwrap().size, n);
                    if done {
                        break;
                    }
                }
            });
        }
    }

    /// A gap between the old end and a write reads as zeros; so does what a truncation adds.
    gaps_and_extensions_read_as_zeros(rig) {
        let (attr, fh) = rig.create_open("f").unwrap();
        rig.write(fh, 4, b"x", false).unwrap();
        assert_eq!(rig.read_fh(fh, 0, 9).await.unwrap(), b"\0\0\0\0x");
        rig.truncate(attr.ino, 2).unwrap();
        rig.truncate(attr.ino, 6).unwrap();
        assert_eq!(rig.read_fh(fh, 0, 9).await.unwrap(), [0; 6]);
        rig.release(fh).unwrap();
        assert_eq!(rig.cat("f").await, [0; 6]);
    }

    /// Appending writes go to the end as it is at that moment, whatever offset came with them.
    appending_writes_go_to_the_end(rig) {
        rig.put("f", b"one");
        let (a, b) = (rig.open_rw("f"), rig.open_rw("f"));
        rig.write(a, 0, b"two", true).unwrap();
        rig.write(b, 0, b"three", true).unwrap();
        rig.release(a).unwrap();
        rig.release(b).unwrap();
        assert_eq!(rig.text("f").await, "onetwothree");
    }

    /// Opening with truncation empties the file and seals the new content on close, once for all its writers.
    the_last_writer_seals_once(rig) {
        rig.put("f", b"old");
        let ino = rig.ino("f");
        let a = rig.open_file(ino, true, true).unwrap().fh;
        let b = rig.open_file(ino, true, false).unwrap().fh;
        rig.write(a, 0, b"new", false).unwrap();
        rig.release(a).unwrap();
        assert_eq!(sealed(&rig, "f").len(), 1);
        rig.release(b).unwrap();
        assert_eq!(sealed(&rig, "f").len(), 2);
        assert_eq!(rig.entry("f").heads.len(), 1);
        let c = rig.open_rw("f");
        rig.release(c).unwrap();
        assert_eq!(sealed(&rig, "f").len(), 2, "an open without a change is no version");
    }

    /// A removed file that is open keeps its bytes until the last close, then they are freed.
    unlink_open_file_keeps_data_until_release(rig) {
        let ino = rig.put("f", b"bytes");
        let fh = rig.open_rw("f");
        rig.rm("f").unwrap();
        assert!(!rig.has("f"));
        assert_eq!(rig.getattr(ino).unwrap().nlink, 0);
        rig.write(fh, 5, b" more", false).unwrap();
        assert_eq!(rig.read_fh(fh, 0, 20).await.unwrap(), b"bytes more");
        rig.put("f", b"another");
        assert_eq!(rig.read_fh(fh, 0, 20).await.unwrap(), b"bytes more");
        rig.release(fh).unwrap();
        assert_eq!(kind(rig.getattr(ino)), ErrorKind::Stale);
        assert_eq!(rig.text("f").await, "another");
        assert!(sealed(&rig, "f").iter().all(|v| v.file().is_none_or(|c| c.size != 10)));
    }

    /// A client without `open` gives a file that it removes a name of its own first: that removes it for everybody else.
    a_file_that_is_set_aside_is_removed_for_the_fleet_and_readable_here(rig) {
        let ino = rig.put("f", b"bytes");
        let fh = rig.open_rw("f");
        rig.write(fh, 5, b" more", false).unwrap();
        rig.set_aside(ROOT, b"f", b".nfs01").unwrap();
        assert!(!rig.has("f") && rig.has(".nfs01"));
        assert!(sealed(&rig, "f").last().unwrap().is_tombstone());
        assert_eq!(rig.read_fh(fh, 0, 20).await.unwrap(), b"bytes more");
        rig.write(fh, 10, b"!", false).unwrap();
        rig.release(fh).unwrap();
        assert_eq!(rig.getattr(ino).unwrap().nlink, 1, "the same file");
        assert_eq!(rig.text(".nfs01").await, "bytes more!");
        assert!(sealed(&rig, ".nfs01").is_empty(), "it never leaves this machine");
        rig.put("f", b"another");
        assert_eq!(kind(rig.set_aside(ROOT, b"f", b".nfs01")), ErrorKind::Exists);
        assert_eq!(rig.text("f").await, "another");
        rig.rm(".nfs01").unwrap();
        assert_eq!(kind(rig.getattr(ino)), ErrorKind::Stale);
        assert_eq!(kind(rig.set_aside(ROOT, b"none", b".nfs02")), ErrorKind::NotFound);
        // A file with another name is kept by that one.
        let ino = rig.put("a", b"linked");
        rig.link(ino, ROOT, b"b").unwrap();
        rig.set_aside(ROOT, b"a", b".nfs03").unwrap();
        assert!(!rig.has("a") && rig.text("b").await == "linked");
    }

    /// A removed name is a version of its own; a path that was never sealed leaves nothing behind.
    unlink_writes_a_tombstone_only_over_what_was_sealed(rig) {
        rig.put("f", b"x");
        rig.rm("f").unwrap();
        let v = sealed(&rig, "f");
        assert!(v.len() == 2 && v[1].is_tombstone() && v[1].vclock.covers(&v[0].vclock));
        let (_, fh) = rig.create_open("g").unwrap();
        rig.rm("g").unwrap();
        rig.release(fh).unwrap();
        assert!(sealed(&rig, "g").is_empty());
        assert!(all_slots(&rig).iter().all(|(_, n, _)| n != "g"));
        assert_eq!(kind(rig.rm("g")), ErrorKind::NotFound);
    }

    /// Names are refused with the errno of a local disk.
    names_are_refused_as_a_disk_would(rig) {
        rig.put("f", b"");
        rig.mkdirp("d");
        assert_eq!(kind(rig.create(ROOT, b"f", 0o644, 0, 0).map(|_| ())), ErrorKind::Exists);
        assert_eq!(kind(rig.mkdir(ROOT, b"f", 0o755, 0, 0)), ErrorKind::Exists);
        assert_eq!(kind(rig.create(rig.ino("f"), b"x", 0o644, 0, 0).map(|_| ())), ErrorKind::NotDir);
        assert_eq!(kind(rig.create(ROOT, &[b'x'; 256], 0o644, 0, 0).map(|_| ())), ErrorKind::NameTooLong);
        assert_eq!(kind(rig.create(ROOT, b"\xff", 0o644, 0, 0).map(|_| ())), ErrorKind::NotUtf8);
        assert_eq!(kind(rig.create(ROOT, b"..", 0o644, 0, 0).map(|_| ())), ErrorKind::BadName);
        assert_eq!(kind(rig.rm("d")), ErrorKind::IsDir);
        assert_eq!(kind(rig.rmd("f")), ErrorKind::NotDir);
        assert_eq!(kind(rig.rmd("x")), ErrorKind::NotFound);
        assert_eq!(kind(rig.lookup(ROOT, b"x")), ErrorKind::NotFound);
        assert_eq!(kind(rig.mv("x", "y")), ErrorKind::NotFound);
        assert_eq!(kind(rig.mv("x", "x")), ErrorKind::NotFound);
        assert_eq!(kind(rig.ln("d", "e")), ErrorKind::NotPermitted);
        assert_eq!(kind(rig.ln_s("", "e")), ErrorKind::NotFound);
        assert_eq!(kind(rig.ln_s(&"x".repeat(4096), "e")), ErrorKind::NameTooLong);
    }

    /// A path that no record could carry is refused at once.
    paths_over_the_limit_are_refused(rig) {
        let part = "x".repeat(250);
        let mut dir = ROOT;
        for _ in 0..16 {
            dir = rig.mkdir(dir, part.as_bytes(), 0o755, 0, 0).unwrap().ino;
        }
        // 16 × 250 + 15 slashes = 4015 bytes so far.
        assert!(rig.create(dir, "y".repeat(80).as_bytes(), 0o644, 0, 0).is_ok());
        let long = "y".repeat(81);
        assert_eq!(kind(rig.create(dir, long.as_bytes(), 0o644, 0, 0).map(|_| ())), ErrorKind::NameTooLong);
        assert_eq!(kind(rig.mkdir(dir, long.as_bytes(), 0o755, 0, 0)), ErrorKind::NameTooLong);
        assert_eq!(kind(rig.symlink(dir, long.as_bytes(), b"t", 0, 0)), ErrorKind::NameTooLong);
        let f = rig.put("f", b"1");
        assert_eq!(kind(rig.link(f, dir, long.as_bytes())), ErrorKind::NameTooLong);
        assert_eq!(kind(rig.rename(ROOT, b"f", dir, long.as_bytes(), false)), ErrorKind::NameTooLong);
        for (_, o) in rig.create(dir, "z".as_bytes(), 0o644, 0, 0).into_iter() {
            rig.release(o.fh).unwrap();
        }
    }

    /// Composed and decomposed spellings are one name.
    composed_and_decomposed_names_are_one(rig) {
        rig.put("caf\u{e9}", b"1");
        assert_eq!(rig.text("cafe\u{301}").await, "1");
        assert_eq!(kind(rig.create(ROOT, "cafe\u{301}".as_bytes(), 0o644, 0, 0).map(|_| ())), ErrorKind::Exists);
    }

    /// `st_nlink` of a directory is two and one for each directory in it; of a file the number of its names.
    link_counts_are_those_of_a_disk(rig) {
        let n = |p: &str| rig.resolve(p).unwrap().nlink;
        assert_eq!(n(""), 2);
        rig.mkdirp("d");
        rig.mkdirp("d/e");
        rig.put("d/f", b"");
        assert_eq!((n(""), n("d"), n("d/e"), n("d/f")), (3, 3, 2, 1));
        rig.ln("d/f", "g").unwrap();
        assert_eq!((n("g"), n("d/f")), (2, 2));
        rig.mv("d/e", "e").unwrap();
        assert_eq!((n(""), n("d"), n("e")), (4, 2, 2));
        let fd = rig.ino("e");
        rig.rmd("e").unwrap();
        assert_eq!((n(""), rig.getattr(fd).unwrap().nlink), (3, 0));
        rig.rm("g").unwrap();
        assert_eq!(n("d/f"), 1);
    }

    /// Times: a change of content moves mtime and ctime, of attributes ctime, of a listing those of the directory.
    times_move_as_on_a_disk(rig) {
        let f = rig.put("f", b"1");
        let t0 = rig.getattr(f).unwrap();
        let d0 = rig.resolve("").unwrap();
        rig.tick();
        rig.chmod("f", 0o600);
        let t1 = rig.getattr(f).unwrap();
        assert!(t1.mtime == t0.mtime && t1.ctime > t0.ctime && t1.mode == 0o600);
        assert_eq!(rig.resolve("").unwrap().mtime, d0.mtime);
        rig.tick();
        rig.put("f", b"2");
        let t2 = rig.getattr(f).unwrap();
        assert!(t2.mtime > t1.mtime && t2.ctime >= t2.mtime && t2.btime == t0.btime);
        rig.tick();
        rig.ln("f", "g").unwrap();
        assert!(rig.getattr(f).unwrap().ctime > t2.ctime);
        let d1 = rig.resolve("").unwrap();
        assert!(d1.mtime > d0.mtime && d1.ctime > d0.ctime);
        rig.tick();
        let set = SetAttr { mtime: Some(Time { sec: 5, nsec: 6 }), atime: Some(Time { sec: 7, nsec: 8 }), ..SetAttr::default() };
        rig.setattr(f, &set).unwrap();
        let t3 = rig.getattr(f).unwrap();
        assert_eq!((t3.mtime, t3.atime), (Time { sec: 5, nsec: 6 }, Time { sec: 7, nsec: 8 }));
        rig.restart();
        assert_eq!(rig.getattr(f).unwrap().mtime, Time { sec: 5, nsec: 6 });
    }

    /// A time set while the file is open for writing stays when it is closed.
    a_time_set_on_an_open_file_stays(rig) {
        let (a, fh) = rig.create_open("f").unwrap();
        rig.write(fh, 0, b"x", false).unwrap();
        rig.tick();
        rig.setattr(a.ino, &SetAttr { mtime: Some(Time { sec: 5, nsec: 6 }), mode: Some(0o755), ..SetAttr::default() }).unwrap();
        rig.release(fh).unwrap();
        assert_eq!(rig.getattr(a.ino).unwrap().mtime, Time { sec: 5, nsec: 6 });
        let v = sealed(&rig, "f");
        assert_eq!((v.len(), v[0].mtime, v[0].mode), (1, (5, 6), 0o100755));
    }

    /// `chmod` between opening for writing and closing makes no second head.
    regression_chmod_while_open_is_accepted_by_the_seal(rig) {
        rig.put("f", b"1");
        let fh = rig.open_rw("f");
        rig.chmod("f", 0o600);
        rig.setxattr(rig.ino("f"), "user.a", Some(b"b"), false, false).unwrap();
        rig.write(fh, 0, b"2", false).unwrap();
        rig.release(fh).unwrap();
        assert_eq!(rig.entry("f").heads.len(), 1);
        assert_eq!(rig.resolve("f").unwrap().mode, 0o600);
        assert_eq!(rig.text("f").await, "2");
    }

    /// Extended attributes `user.*` are kept and part of the version; others are refused.
    extended_attributes_are_kept(rig) {
        let f = rig.put("f", b"1");
        rig.setxattr(f, "user.a", Some(b"\0\xff"), false, false).unwrap();
        assert_eq!(rig.getxattr(f, "user.a").unwrap(), b"\0\xff");
        assert_eq!(kind(rig.setxattr(f, "user.a", Some(b""), true, false)), ErrorKind::Exists);
        assert_eq!(kind(rig.setxattr(f, "user.b", Some(b""), false, true)), ErrorKind::NoAttr);
        assert_eq!(kind(rig.setxattr(f, "user.b", None, false, false)), ErrorKind::NoAttr);
        assert_eq!(kind(rig.setxattr(f, "trusted.b", Some(b""), false, false)), ErrorKind::Unsupported);
        assert_eq!(kind(rig.setxattr(f, "user.tcfs.state", Some(b""), false, false)), ErrorKind::NotPermitted);
        assert_eq!(kind(rig.setxattr(f, "user.big", Some(&[0; 70_000]), false, false)), ErrorKind::NoSpace);
        assert_eq!(rig.listxattr(f).unwrap(), ["user.a"]);
        assert_eq!(sealed(&rig, "f").last().unwrap().xattrs.len(), 1);
        rig.restart();
        assert_eq!(rig.getxattr(f, "user.a").unwrap(), b"\0\xff");
        rig.put("f", b"2");
        assert_eq!(rig.getxattr(f, "user.a").unwrap(), b"\0\xff");
        rig.setxattr(f, "user.a", None, false, false).unwrap();
        assert_eq!(kind(rig.getxattr(f, "user.a")), ErrorKind::NoAttr);
    }

    /// Symbolic links keep their target as written.
    symlinks_keep_their_target(rig) {
        let l = rig.ln_s("../no/where", "l").unwrap();
        assert_eq!((rig.readlink(l.ino).unwrap().as_str(), l.size, l.kind), ("../no/where", 11, FileType::Symlink));
        rig.mv("l", "m").unwrap();
        assert_eq!(rig.readlink(rig.ino("m")).unwrap(), "../no/where");
        assert_eq!(rig.ino("m"), l.ino);
        rig.ln("m", "n").unwrap();
        assert_eq!(rig.resolve("n").unwrap().nlink, 2);
        rig.rm("m").unwrap();
        rig.crash();
        assert_eq!(rig.readlink(rig.ino("n")).unwrap(), "../no/where");
        assert_eq!(kind(rig.truncate(rig.ino("n"), 1)), ErrorKind::Invalid);
    }

    /// Fifos, sockets and device nodes exist on this machine only.
    special_files_stay_here(rig) {
        for (name, bits, k) in [("p", 0o010000, FileType::Fifo), ("s", 0o140000, FileType::Socket), ("c", 0o020000, FileType::Char)] {
            let a = rig.mknod(ROOT, name.as_bytes(), bits | 0o640, 0x103, 0, 0).unwrap();
            assert_eq!((a.kind, a.mode, a.rdev), (k, 0o640, 0x103));
        }
        rig.mknod(ROOT, b"f", 0o100600, 0, 0, 0).unwrap();
        rig.mv("p", "q").unwrap();
        rig.ln("q", "q2").unwrap();
        rig.crash();
        assert_eq!(rig.ls(""), ["c", "f", "q", "q2", "s"]);
        rig.put("t", b"x");
        rig.mv("q", "t").unwrap();
        assert_eq!(rig.resolve("t").unwrap().kind, FileType::Fifo);
        rig.rm("t").unwrap();
        rig.put("t", b"y");
        assert_eq!(rig.text("t").await, "y");
        let paths: BTreeSet<String> = rig.outbox().iter().flat_map(|r| &r.versions).map(|v| v.path.to_string()).collect();
        assert_eq!(paths.into_iter().collect::<Vec<_>>(), ["f", "t"]);
    }

    /// Renaming over a file is a new version of the target; the old path gets a tombstone that says where it went.
    rename_over_a_file_replaces_it(rig) {
        let t = rig.put("t", b"new");
        let f = rig.put("f", b"old");
        let open = rig.open_ro("f");
        rig.mv("t", "f").unwrap();
        assert_eq!((rig.ino("f"), rig.ls("")), (t, vec!["f".to_owned()]));
        assert_eq!(rig.read_fh(open, 0, 9).await.unwrap(), b"old");
        assert_eq!(rig.getattr(f).unwrap().nlink, 0);
        rig.release(open).unwrap();
        assert_eq!(kind(rig.getattr(f)), ErrorKind::Stale);
        let (vf, vt) = (sealed(&rig, "f"), sealed(&rig, "t"));
        assert!(vf[1].vclock.covers(&vf[0].vclock) && vf[1].base == Some(vf[0].content_id()));
        assert_eq!(vt[1].moved_to.as_ref().unwrap().as_str(), "f");
        assert_eq!(rig.text("f").await, "new");
    }

    /// `RENAME_NOREPLACE` fails when the target exists and works when it does not.
    rename_noreplace_never_replaces(rig) {
        rig.put("a", b"a");
        rig.put("b", b"b");
        assert_eq!(kind(rig.mv_no_replace("a", "b")), ErrorKind::Exists);
        assert_eq!(kind(rig.mv_no_replace("a", "a")), ErrorKind::Exists);
        rig.mv_no_replace("a", "c").unwrap();
        assert_eq!(rig.ls(""), ["b", "c"]);
    }

    /// Directories are renamed only over empty directories and never into themselves; files never over directories.
    rename_of_directories_follows_posix(rig) {
        rig.mkdirp("d");
        rig.mkdirp("e");
        rig.mkdirp("d/s");
        rig.put("d/f", b"1");
        rig.put("f", b"2");
        assert_eq!(kind(rig.mv("e", "d")), ErrorKind::NotEmpty);
        assert_eq!(kind(rig.mv("f", "d")), ErrorKind::IsDir);
        assert_eq!(kind(rig.mv("d", "f")), ErrorKind::NotDir);
        assert_eq!(kind(rig.mv("d", "d/s")), ErrorKind::Invalid);
        assert_eq!(kind(rig.mv("d", "d/s/x")), ErrorKind::Invalid);
        let (d, s, f) = (rig.ino("d"), rig.ino("d/s"), rig.ino("d/f"));
        rig.mv("d", "e").unwrap();
        assert_eq!((rig.ino("e"), rig.ino("e/s"), rig.ino("e/f")), (d, s, f));
        assert_eq!(rig.ls(""), ["e", "f"]);
        assert_eq!(rig.resolve("").unwrap().nlink, 3);
        rig.crash();
        assert_eq!((rig.ino("e"), rig.text("e/f").await.as_str()), (d, "1"));
    }

    /// A file renamed before its first close is sealed under its new name only.
    rename_before_the_first_close_seals_under_the_new_name(rig) {
        let (_, fh) = rig.create_open("tmp").unwrap();
        rig.write(fh, 0, b"x", false).unwrap();
        rig.put("f", b"old");
        rig.mv("tmp", "f").unwrap();
        rig.write(fh, 1, b"y", false).unwrap();
        rig.release(fh).unwrap();
        assert!(sealed(&rig, "tmp").is_empty());
        let e = rig.entry("f");
        assert!(e.heads.len() == 1 && e.heads[0].file().unwrap().size == 2 && e.heads[0].base.is_some());
        assert_eq!(rig.text("f").await, "xy");
    }

    /// A file renamed between its close and the kernel's release is sealed under its old name first.
    /// The tombstone then is of what was closed, and an edit that another machine made of what was there before stays.
    rename_after_a_close_seals_under_the_old_name_first(rig) {
        rig.put("f", b"old");
        let fh = rig.open_rw("f");
        rig.write(fh, 0, b"new!", false).unwrap();
        rig.flush(fh).unwrap();
        rig.mv("f", "g").unwrap();
        rig.release(fh).unwrap();
        let of_f = sealed(&rig, "f");
        let (tombstone, written) = (of_f.last().unwrap(), &of_f[of_f.len() - 2]);
        assert!(tombstone.is_tombstone() && tombstone.wrote == written.vclock && written.file().unwrap().size == 4);
        assert_eq!((rig.text("g").await, sealed(&rig, "g").len()), ("new!".into(), 1));
    }

    /// A file that replaced another before its first close takes that one along when it is removed.
    regression_removing_an_unsealed_file_removes_what_it_replaced(rig) {
        for op in ["rm", "mv"] {
            rig.put("f", b"old");
            let (_, fh) = rig.create_open("t").unwrap();
            rig.write(fh, 0, b"new", false).unwrap();
            rig.mv("t", "f").unwrap();
            if op == "rm" { rig.rm("f").unwrap() } else { rig.mv("f", "g").unwrap() }
            assert!(!rig.has("f"), "{op}");
            rig.release(fh).unwrap();
            assert!(!rig.has("f") && !rig.entry("f").is_live(), "{op}");
        }
        assert_eq!(rig.text("g").await, "new");
    }

    /// Exchanging two names swaps what they show, whatever that is, and leaves no third name.
    exchange_swaps_two_names(rig) {
        let a = rig.put("a", b"a");
        rig.mkdirp("d");
        rig.put("d/x", b"x");
        rig.mkdirp("e");
        let b = rig.put("e/b", b"b");
        rig.swap("a", "e/b").unwrap();
        assert_eq!((rig.ino("a"), rig.ino("e/b")), (b, a));
        rig.swap("d", "a").unwrap();
        assert_eq!((rig.text("a/x").await.as_str(), rig.text("d").await.as_str()), ("x", "b"));
        assert_eq!(kind(rig.swap("a", "nothing")), ErrorKind::NotFound);
        assert_eq!(kind(rig.swap("e", "e/b")), ErrorKind::Invalid);
        assert_eq!(rig.ls(""), ["a", "d", "e"]);
        assert_eq!(rig.ls("e"), ["b"]);
    }

    /// A file that is open for writing while its name is exchanged is sealed under the name it has then.
    exchange_of_open_files_seals_under_the_new_names(rig) {
        let a = rig.open_rw({ rig.put("a", b"a"); "a" });
        let (_, b) = rig.create_open("b").unwrap();
        rig.write(a, 0, b"A", false).unwrap();
        rig.write(b, 0, b"B", false).unwrap();
        rig.swap("a", "b").unwrap();
        rig.write(a, 1, b"A", false).unwrap();
        rig.release(a).unwrap();
        rig.release(b).unwrap();
        assert_eq!((rig.text("a").await.as_str(), rig.text("b").await.as_str()), ("B", "AA"));
        assert_eq!((rig.entry("a").live().count(), rig.entry("b").live().count()), (1, 1));
    }

    /// Hard links are one file here and files of equal content elsewhere.
    hard_links_are_one_file_here(rig) {
        let f = rig.put("f", b"1");
        rig.mkdirp("d");
        rig.ln("f", "d/g").unwrap();
        assert_eq!(rig.ino("d/g"), f);
        rig.put("d/g", b"2");
        assert_eq!(rig.text("f").await, "2");
        let root = |rig: &Rig, p: &str| rig.entry(p).heads[0].file().unwrap().root;
        assert_eq!(root(&rig, "f"), root(&rig, "d/g"));
        rig.chmod("f", 0o600);
        rig.chmod("f", 0o640);
        rig.mv("d/g", "d/h").unwrap();
        rig.mv("f", "e").unwrap();
        // An open without a write makes the names be looked at again.
        let fh = rig.open_rw("e");
        rig.release(fh).unwrap();
        assert_eq!((rig.ino("e"), rig.ino("d/h")), (f, f));
        rig.crash();
        assert_eq!((rig.ino("e"), rig.ino("d/h"), rig.resolve("e").unwrap().nlink), (f, f, 2));
        rig.mv("e", "d/h").unwrap();
        assert!(rig.has("e"), "two names of one file: both stay");
        rig.ln("e", "third").unwrap();
        assert_eq!(root(&rig, "third"), root(&rig, "e"));
        rig.rm("e").unwrap();
        rig.rm("third").unwrap();
        assert_eq!(rig.text("d/h").await, "2");
    }

    /// While a hard link is open for writing, its names are what they were when their bytes come to be published: each can be moved and removed.
    names_of_an_open_hard_link_go_although_its_bytes_were_just_published(rig) {
        for written in [false, true] {
            let f = rig.put("f", b"1");
            for name in ["g", "h", "i"] {
                rig.ln("f", name).unwrap();
            }
            let sealed = rig.cut_last("f", b"1").await;
            let fh = rig.open_rw("f");
            if written {
                rig.write(fh, 1, b"2", false).unwrap();
            }
            rig.tell(&sealed);
            rig.mv("g", "moved").unwrap();
            rig.rm("h").unwrap();
            rig.ln("f", "later").unwrap();
            rig.mv("later", "late").unwrap();
            assert_eq!(rig.ls(""), ["f", "i", "late", "moved"]);
            rig.release(fh).unwrap();
            assert_eq!(rig.ls(""), ["f", "i", "late", "moved"]);
            for name in ["f", "i", "late", "moved"] {
                assert_eq!((rig.ino(name), rig.text(name).await.as_str()), (f, if written { "12" } else { "1" }), "{name}");
                assert_eq!(rig.entry(name).live().count(), 1, "{name}");
                rig.rm(name).unwrap();
            }
        }
    }

    /// What is written to a file while the bytes of its last seal are being published builds on those: whatever was written when, what is published next, read, or found after a kill is what programs wrote.
    what_is_written_while_bytes_are_published_builds_on_them(rig) {
        let rounds = if std::env::var_os("TCFS_SLOW").is_some() { 500 } else { 30 };
        for round in 0..rounds {
            let seed = fastrand::u64(..);
            println!("seed {seed}");
            let mut rng = fastrand::Rng::with_seed(seed);
            let p = format!("f{round}");
            let mut bytes = vec![0; rng.usize(1..400_000)];
            rng.fill(&mut bytes);
            // Of another machine, and not here, or of this one.
            if rng.bool() {
                rig.remote("bob", &p, &bytes).await;
            } else {
                rig.put(&p, &bytes);
            }
            let ino = rig.ino(&p);
            let fh = rig.open_rw(&p);
            scribble(&rig, fh, &p, &mut bytes, &mut rng);
            rig.release(fh).unwrap();
            let sealed = rig.cut_last(&p, &bytes).await;
            let fh = rig.open_rw(&p);
            scribble(&rig, fh, &p, &mut bytes, &mut rng);
            rig.tell(&sealed);
            assert_eq!(rig.cat(&p).await, bytes);
            if rng.bool() {
                scribble(&rig, fh, &p, &mut bytes, &mut rng);
            }
            match rng.u8(..3) {
                0 => rig.crash(),
                1 => {
                    rig.release(fh).unwrap();
                    // Told twice, as after a crash; also when there is a later seal.
                    rig.tell(&sealed);
                }
                _ => rig.release(fh).unwrap(),
            }
            assert_eq!(rig.cat(&p).await, bytes);
            rig.tell(&rig.cut_last(&p, &bytes).await);
            rig.tell(&sealed);
            assert_eq!((rig.cat(&p).await == bytes, rig.ino(&p), rig.entry(&p).heads.len()), (true, ino, 1));
        }
    }

    /// A listing continued at a cookie shows every name that stayed exactly once, whatever came or went meanwhile.
    listing_cookies_are_stable_under_change(rig) {
        for i in 0..1200 {
            rig.mknod(ROOT, format!("f{i}").as_bytes(), 0o100600, 0, 0, 0).unwrap();
        }
        let (mut seen, mut cookie, mut n) = (Vec::new(), 0, 0);
        loop {
            let page = rig.readdir(ROOT, cookie, 7, n % 2 == 0).unwrap();
            let Some(last) = page.last() else { break };
            cookie = last.cookie;
            seen.extend(page.iter().map(|e| e.name.clone()));
            n += 1;
            // Remove one that was shown, and make another.
            rig.rm(&page[0].name).unwrap();
            rig.put(&format!("new{n}"), b"");
        }
        let old: Vec<&String> = seen.iter().filter(|s| s.starts_with('f')).collect();
        assert_eq!(old.len(), 1200);
        assert_eq!(old.iter().collect::<BTreeSet<_>>().len(), 1200);
        let page = rig.readdir(ROOT, 0, 3, true).unwrap();
        assert_eq!(page[0].attr.as_ref().unwrap().ino, page[0].ino);
    }

    /// Space is allocated, holes are punched, and both are told by `lseek`.
    fallocate_and_seek_know_holes(rig) {
        let (a, fh) = rig.create_open("f").unwrap();
        rig.fallocate(fh, 0, 1 << 20, 0).unwrap();
        assert_eq!(rig.getattr(a.ino).unwrap().size, 1 << 20);
        rig.write(fh, 0, &[1; 300_000], false).unwrap();
        rig.fallocate(fh, 4096, 8192, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE).unwrap();
        let got = rig.read_fh(fh, 0, 20_000).await.unwrap();
        assert!(got[..4096].iter().all(|b| *b == 1) && got[4096..12288].iter().all(|b| *b == 0) && got[12288] == 1);
        assert_eq!(rig.seek(fh, 0, libc::SEEK_HOLE).unwrap(), 4096);
        assert_eq!(rig.seek(fh, 4096, libc::SEEK_DATA).unwrap(), 12288);
        rig.fallocate(fh, 2 << 20, 100, libc::FALLOC_FL_KEEP_SIZE).unwrap();
        assert_eq!(rig.getattr(a.ino).unwrap().size, 1 << 20);
        assert_eq!(kind(rig.fallocate(fh, 0, 0, 0)), ErrorKind::TooBig);
        assert_eq!(kind(rig.fallocate(fh, 0, 1, libc::FALLOC_FL_COLLAPSE_RANGE)), ErrorKind::Unsupported);
        assert!(rig.seek(fh, 1 << 20, libc::SEEK_DATA).is_err());
        rig.release(fh).unwrap();
        assert_eq!(sealed(&rig, "f").len(), 1);
    }

    /// Ranges are copied within the drive, also within one file, but never onto themselves.
    copy_range_copies_within_the_drive(rig) {
        rig.put("a", b"0123456789");
        rig.put("b", b"xx");
        let (a, b) = (rig.open_rw("a"), rig.open_rw("b"));
        assert_eq!(rig.copy_range(a, 2, b, 4, 100).await.unwrap(), 8);
        assert_eq!(rig.copy_range(a, 0, a, 6, 4).await.unwrap(), 4);
        assert_eq!(kind(rig.copy_range(a, 0, a, 2, 4).await), ErrorKind::Invalid);
        assert_eq!(rig.copy_range(a, 50, b, 0, 4).await.unwrap(), 0);
        rig.release(a).unwrap();
        rig.release(b).unwrap();
        assert_eq!(rig.cat("b").await, b"xx\0\x0023456789");
        assert_eq!(rig.text("a").await, "0123450123");
    }

    /// Local-only names live here and are never published; crossing the boundary is a delete or a save.
    local_only_names_stay_here(rig) {
        rig.put(".f.swp", b"junk");
        rig.put("x.swp", b"user");
        rig.mkdirp(".git");
        rig.put(".git/HEAD", b"ref");
        rig.mkdirp(".git/objects");
        rig.put(".g.swp", b"more junk");
        rig.swap(".f.swp", ".g.swp").unwrap();
        rig.swap(".g.swp", ".git/objects").unwrap();
        assert_eq!((rig.text(".f.swp").await.as_str(), rig.text(".git/objects").await.as_str()), ("more junk", "junk"));
        rig.swap(".git/objects", ".g.swp").unwrap();
        rig.rm(".g.swp").unwrap();
        assert!(rig.outbox().is_empty());
        assert_eq!(kind(rig.swap(".f.swp", "nothing")), ErrorKind::NotFound);
        assert_eq!(rig.ls(""), [".f.swp", ".git", "x.swp"]);
        rig.crash();
        assert_eq!((rig.text(".git/HEAD").await.as_str(), rig.text("x.swp").await.as_str()), ("ref", "user"));
        assert_eq!(rig.resolve("").unwrap().nlink, 3);
        rig.mv(".git/HEAD", ".git/HEAD2").unwrap();
        assert_eq!(kind(rig.mv(".git", "git")), ErrorKind::CrossDevice);
        rig.put("f", b"shared");
        // Out of the drive: here it is the same file, for the others it is gone.
        let ino = rig.ino("f");
        rig.mv("f", ".git/f").unwrap();
        assert_eq!((rig.ino(".git/f"), rig.text(".git/f").await.as_str()), (ino, "shared"));
        assert!(kind(rig.resolve("f")) == ErrorKind::NotFound && sealed(&rig, "f").last().unwrap().is_tombstone());
        // One file is not both: who links it across is told, and copies or renames.
        assert_eq!(kind(rig.ln(".git/f", "linked")), ErrorKind::CrossDevice);
        rig.ln(".git/f", ".git/linked").unwrap();
        rig.rm(".git/linked").unwrap();
        rig.mv(".git/f", "f").unwrap();
        assert_eq!(kind(rig.ln("f", "linked.swp")), ErrorKind::CrossDevice);
        assert_eq!((rig.ino("f"), rig.text("f").await.as_str()), (ino, "shared"));
        // Over another one that stays here, with bytes that are not sealed yet, and a link.
        let fh = rig.open_rw("f");
        assert_eq!(kind(rig.mv("f", "f.swp")), ErrorKind::CrossDevice, "it is being written");
        rig.release(fh).unwrap();
        rig.put("f.swp", b"old junk");
        rig.put("f", b"newer");
        rig.mv("f", "f.swp").unwrap();
        assert_eq!(rig.text("f.swp").await, "newer");
        rig.ln_s("target", "link").unwrap();
        rig.mv("link", "link.swp").unwrap();
        assert_eq!((rig.readlink(rig.ino("link.swp")).unwrap().as_str(), kind(rig.resolve("link"))), ("target", ErrorKind::NotFound));
        // A stub: its bytes are elsewhere.
        rig.remote("bob", "stub", b"of bob").await;
        assert_eq!(kind(rig.mv("stub", "stub.swp")), ErrorKind::CrossDevice);
        assert_eq!(rig.text("stub").await, "of bob");
        rig.mv("stub", "stub.swp").unwrap();
        assert_eq!(rig.text("stub.swp").await, "of bob");
        rig.rm("stub.swp").unwrap();
        rig.rm("link.swp").unwrap();
        rig.crash();
        assert_eq!(rig.text("f.swp").await, "newer");
        rig.rm("f.swp").unwrap();
        rig.put("f", b"shared");
        // A save from a local-only temporary is a version of the target.
        let ino = rig.ino("x.swp");
        rig.mv("x.swp", "f").unwrap();
        assert_eq!((rig.ino("f"), rig.text("f").await.as_str()), (ino, "user"));
        assert_eq!(rig.entry("f").heads.len(), 1);
        rig.put("y.swp", b"new");
        rig.mv("y.swp", "g").unwrap();
        assert_eq!((sealed(&rig, "g").len(), rig.text("g").await.as_str()), (1, "new"));
        rig.rm(".git/HEAD2").unwrap();
        rig.rmd(".git/objects").unwrap();
        rig.rmd(".git").unwrap();
        rig.rm(".f.swp").unwrap();
        assert_eq!(rig.resolve("").unwrap().nlink, 2);
        let paths: BTreeSet<String> = rig.outbox().iter().flat_map(|r| &r.versions).map(|v| v.path.to_string()).collect();
        assert_eq!(paths.into_iter().collect::<Vec<_>>(), ["f", "g", "link", "stub"]);
    }

    /// A `.tcfsignore` counts for what is made below it from then on: anchored lines, directories, deeper files first, lines that take back.
    ignore_files_keep_what_is_made_below_them(rig) {
        rig.mkdirp("src");
        rig.mkdirp("src/deep");
        let local = |rig: &Rig, p: &str| {
            let f = rig.find(&common::path(p)).unwrap();
            rig.look(&f).unwrap().held == tcfs::vfs::Held::LocalOnly
        };
        rig.put("before.log", b"x");
        rig.put(".tcfsignore", b"# a comment\ntarget/\n*.log\n!keep.log\n/top\n\\#odd\n");
        for p in ["a.log", "src/deep/b.log", "top", "#odd"] {
            rig.put(p, b"x");
            assert!(local(&rig, p), "{p}");
        }
        for p in ["keep.log", "src/keep.log", "src/top", "target", "a.logs"] {
            rig.put(p, b"x");
            assert!(!local(&rig, p), "{p}");
        }
        // A directory by its line, with everything in it, also what another line takes back.
        rig.mkdirp("src/target");
        rig.put("src/target/keep.log", b"x");
        assert!(local(&rig, "src/target") && local(&rig, "src/target/keep.log"));
        assert!(!local(&rig, "before.log"));
        // A deeper file goes before one above it, for what is below it.
        rig.put("src/deep/.tcfsignore", b"!*.log\nnotes*\n");
        rig.put("src/deep/c.log", b"x");
        rig.put("src/deep/notes.md", b"x");
        rig.put("src/notes.md", b"x");
        assert!(!local(&rig, "src/deep/c.log") && local(&rig, "src/deep/notes.md") && !local(&rig, "src/notes.md"));
        // The directory moves, and its rules with it.
        rig.mv("src/deep", "elsewhere").unwrap();
        rig.put("elsewhere/d.log", b"x");
        rig.put("elsewhere/notes2", b"x");
        assert!(!local(&rig, "elsewhere/d.log") && local(&rig, "elsewhere/notes2"));
        // A file crosses the line by a rename: it is saved, or it is copied.
        rig.mv("a.log", "a.txt").unwrap();
        assert!(!local(&rig, "a.txt") && rig.cat("a.txt").await == b"x");
        rig.mv("a.txt", "a.log").unwrap();
        assert!(local(&rig, "a.log") && rig.cat("a.log").await == b"x");
        // As cargo makes its directory: under another name first, with something in it.
        rig.mkdirp("targetAbC");
        rig.put("targetAbC/CACHEDIR.TAG", b"tag");
        rig.mkdirp("targetAbC/deep");
        rig.put("targetAbC/deep/f", b"f");
        let old = rig.ino("targetAbC");
        rig.mv("targetAbC", "src/deeper").unwrap();
        rig.rm("target").unwrap();
        rig.mv("src/deeper", "target").unwrap();
        assert!(local(&rig, "target") && local(&rig, "target/deep/f") && rig.cat("target/CACHEDIR.TAG").await == b"tag");
        assert!(kind(rig.resolve("src/deeper")) == ErrorKind::NotFound);
        assert_eq!((rig.lookup(old, b"deep").unwrap().ino, kind(rig.lookup(old, b"x"))), (rig.ino("target/deep"), ErrorKind::NotFound));
        rig.mkdirp("open");
        let fh = rig.create_open("open/f").unwrap().1;
        rig.rm("target/CACHEDIR.TAG").unwrap();
        assert_eq!(kind(rig.mv("open", "elsewhere/target")), ErrorKind::CrossDevice, "what is being written is copied");
        rig.release(fh).unwrap();
        // Rules that go count no more.
        rig.rm(".tcfsignore").unwrap();
        rig.put("e.log", b"x");
        assert!(!local(&rig, "e.log"));
        let why = |p: &str| rig.why_local(&common::path(p), false).unwrap();
        assert_eq!(why("e.log"), None);
        let rule = tcfs::vfs::Rule::Ignored { file: common::path("elsewhere/.tcfsignore"), line: 2, pattern: "notes*".into() };
        assert_eq!(why("elsewhere/notes7"), Some(rule));
        assert!(matches!(why("x/._y"), Some(tcfs::vfs::Rule::BuiltIn { .. })) && matches!(why("x.swp"), Some(tcfs::vfs::Rule::Configured { .. })));
        // None of what stayed here is on its way.
        let sent = rig.outbox().iter().flat_map(|s| s.versions.iter().map(|v| v.path.to_string()).collect::<Vec<_>>()).collect::<Vec<_>>();
        assert!(!sent.iter().any(|p| p.contains("target/") || p == "top" || p.ends_with("b.log")), "{sent:?}");
    }

    /// What the fleet had before a rule stays in it, also when it is saved over by a rename.
    what_the_fleet_has_stays_in_it_when_a_rule_comes(rig) {
        rig.mkdirp("logs");
        rig.put("logs/a.log", b"one");
        rig.put(".tcfsignore", b"*.log\n");
        rig.put("logs/a.log", b"two");
        rig.put("logs/a.tmp", b"three");
        let before = rig.outbox().len();
        rig.mv("logs/a.tmp", "logs/a.log").unwrap();
        assert_eq!(rig.cat("logs/a.log").await, b"three");
        let f = rig.find(&common::path("logs/a.log")).unwrap();
        assert!(rig.look(&f).unwrap().held != tcfs::vfs::Held::LocalOnly);
        assert!(rig.outbox().len() > before, "the save is on its way");
        assert!(rig.why_local(&common::path("logs/a.log"), false).unwrap().is_some(), "and what is asked says that a rule came later");
    }

    /// A `.tcfsignore` of another machine counts once its bytes are here, and nothing waits for them.
    ignore_files_of_others_count_when_they_are_here(rig) {
        rig.remote("bob", ".tcfsignore", b"*.log\n").await;
        rig.put("a.log", b"x");
        let local = |rig: &Rig, p: &str| rig.look(&rig.find(&common::path(p)).unwrap()).unwrap().held == tcfs::vfs::Held::LocalOnly;
        assert!(!local(&rig, "a.log"));
        let wanted = rig.wanted_rules();
        assert_eq!(wanted, [rig.ino(".tcfsignore")]);
        rig.hydrate(wanted[0], &|_, _| {}).await.unwrap();
        rig.rules_changed();
        rig.put("b.log", b"x");
        assert!(local(&rig, "b.log"));
        // A new version of it is another file.
        rig.remote("bob", ".tcfsignore", b"*.txt\n").await;
        for ino in [rig.ino(".tcfsignore")] {
            rig.hydrate(ino, &|_, _| {}).await.unwrap();
            rig.rules_changed();
        }
        rig.put("c.log", b"x");
        rig.put("c.txt", b"x");
        assert!(!local(&rig, "c.log") && local(&rig, "c.txt"));
    }

    /// A directory that another machine removed goes here too if only what Finder leaves everywhere keeps it; other local-only files keep it.
    a_removed_directory_is_not_kept_by_what_finder_leaves(rig) {
        for d in ["app", "work"] {
            rig.mkdirp(d);
            rig.mkdirp(&format!("{d}/in"));
            rig.put(&format!("{d}/in/f"), b"x");
            rig.put(&format!("{d}/in/._f"), b"fork");
            rig.put(&format!("{d}/.DS_Store"), b"view");
        }
        rig.put("work/in/x.swp", b"an editor's");
        let all = ["app/in/f", "app/in", "app", "work/in/f", "work/in", "work"];
        for p in all {
            let gone = rig.tombstone_of("bob", p, &rig.entry(p));
            rig.arrive(&gone);
        }
        assert_eq!(rig.ls(""), ["app", "work"]);
        // One level after the other, as what is below goes.
        for _ in 0..3 {
            rig.clear_leavings().unwrap();
        }
        assert_eq!(rig.ls(""), ["work"]);
        assert_eq!((rig.ls("work"), rig.ls("work/in")), (vec![".DS_Store".to_owned(), "in".to_owned()], vec!["._f".to_owned(), "x.swp".to_owned()]));
        // What is made there again is a directory like any other, with what lay in it.
        rig.put("work/new", b"n");
        rig.rm("work/in/x.swp").unwrap();
        for _ in 0..3 {
            rig.clear_leavings().unwrap();
        }
        assert!(rig.has("work/new") && rig.has("work/.DS_Store"));
    }

    /// A name that became local-only where the fleet once had something works like any other.
    a_local_only_directory_over_an_old_path_can_be_moved_and_removed(rig) {
        rig.mkdirp("build");
        rig.put("build/x", b"1");
        rig.mkdirp("p");
        rig.put("p/old.swx", b"1");
        rig.rm("build/x").unwrap();
        rig.rm("p/old.swx").unwrap();
        rig.rmd("build").unwrap();
        rig.crash_with(|o| o.exclude_patterns = vec!["/build*".into(), "*.swx".into()]);
        let before = rig.outbox().len();
        rig.mkdirp("build");
        rig.mkdirp("build/x");
        rig.put("p/old.swx", b"2");
        rig.mv("p/old.swx", "p/o2.swx").unwrap();
        rig.mv("p/o2.swx", "p/old.swx").unwrap();
        rig.mv("build", "build2").unwrap();
        rig.mv("build2", "build").unwrap();
        check_rows(&rig, None);
        rig.rmd("build/x").unwrap();
        rig.rmd("build").unwrap();
        rig.rm("p/old.swx").unwrap();
        assert_eq!((rig.ls(""), rig.ls("p")), (vec!["p".to_owned()], vec![]));
        assert_eq!(rig.outbox().len(), before);
    }

    /// After a kill every file that was closed is there whole, and what was open is sealed as it lay.
    after_a_kill_closed_files_are_whole_and_open_ones_sealed(rig) {
        let closed = rig.put("closed", b"closed");
        let (open, fh) = rig.create_open("open").unwrap();
        rig.write(fh, 0, b"half", false).unwrap();
        let (empty, _) = rig.create_open("empty").unwrap();
        let edited = rig.put("edited", b"0123456789");
        let e = rig.open_rw("edited");
        rig.write(e, 2, b"XX", false).unwrap();
        rig.truncate(edited, 6).unwrap();
        let unlinked = rig.put("unlinked", b"u");
        let _u = rig.open_rw("unlinked");
        rig.rm("unlinked").unwrap();
        rig.mkdirp("d");
        rig.mv("closed", "d/closed").unwrap();
        let before: Vec<u64> = ["d/closed", "open", "empty", "edited", "d"].iter().map(|p| rig.ino(p)).collect();
        rig.crash();
        let after: Vec<u64> = ["d/closed", "open", "empty", "edited", "d"].iter().map(|p| rig.ino(p)).collect();
        assert_eq!(before, after);
        assert_eq!((closed, open.ino, empty.ino, edited), (after[0], after[1], after[2], after[3]));
        assert_eq!((rig.text("d/closed").await, rig.text("open").await), ("closed".into(), "half".into()));
        assert_eq!((rig.text("edited").await, rig.text("empty").await), ("01XX45".into(), "".into()));
        assert_eq!(kind(rig.getattr(unlinked)), ErrorKind::Stale);
        let found: Vec<String> = rig.outbox().iter().filter(|r| r.recovered).flat_map(|r| &r.versions).map(|v| v.path.to_string()).collect();
        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), 3, "{found:?}");
        // A number is never given again.
        let next = rig.put("next", b"");
        assert!(next > *after.iter().max().unwrap());
        let n = rig.outbox().len();
        rig.crash();
        assert_eq!(rig.outbox().len(), n, "a second start finds nothing to seal");
    }

    /// A graceful stop seals everything and marks nothing as recovered.
    a_graceful_stop_seals_everything(rig) {
        let (_, fh) = rig.create_open("f").unwrap();
        rig.write(fh, 0, b"x", false).unwrap();
        rig.restart();
        assert_eq!(rig.text("f").await, "x");
        assert!(rig.outbox().iter().all(|r| !r.recovered));
        assert_eq!(rig.outbox().len(), 1);
    }

    /// The bytes of a removed file are gone from this disk.
    removed_files_free_their_bytes(rig) {
        let count = |r: &Rig| walk(&r.options.state_dir.join("overlay")) + walk(&r.options.cache_dir.join("data"));
        rig.put("f", b"x");
        rig.put("g", b"x");
        assert_eq!(count(&rig), 2);
        rig.rm("f").unwrap();
        rig.put("t", b"y");
        rig.mv("t", "g").unwrap();
        assert_eq!(count(&rig), 1);
    }

    /// `fsync` of a file and of a directory answers when bytes and rows are on the disk, also for a file without a name.
    fsync_works_on_every_kind_of_handle(rig) {
        let (_, fh) = rig.create_open("f").unwrap();
        rig.write(fh, 0, b"x", false).unwrap();
        rig.fsync(fh).unwrap();
        rig.rm("f").unwrap();
        rig.write(fh, 0, b"y", false).unwrap();
        rig.fsync(fh).unwrap();
        rig.release(fh).unwrap();
        rig.sync().unwrap();
        assert_eq!(kind(rig.fsync(fh)), ErrorKind::Stale);
    }

    /// Offsets beyond the largest are refused before anything changes.
    offsets_beyond_the_largest_are_refused(rig) {
        let (a, fh) = rig.create_open("f").unwrap();
        assert_eq!(kind(rig.write(fh, u64::MAX - 1, b"xx", false)), ErrorKind::TooBig);
        assert_eq!(kind(rig.write(fh, i64::MAX as u64, b"x", false)), ErrorKind::TooBig);
        assert_eq!(kind(rig.truncate(a.ino, u64::MAX)), ErrorKind::TooBig);
        assert_eq!(rig.getattr(a.ino).unwrap().size, 0);
        rig.release(fh).unwrap();
    }
}

fn walk(dir: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap());
    entries.map(|e| if e.file_type().unwrap().is_dir() { walk(&e.path()) } else { 1 }).sum()
}

// -- moves of directories

/// A directory of `n` files and a subdirectory, all sealed.
fn big(rig: &Rig, dir: &str, n: usize) {
    rig.mkdirp(dir);
    rig.mkdirp(&format!("{dir}/sub"));
    let (d, s) = (rig.ino(dir), rig.ino(&format!("{dir}/sub")));
    for i in 0..n {
        let at = if i % 2 == 0 { d } else { s };
        rig.mknod(at, format!("f{i}").as_bytes(), 0o100644, 0, 0, 0).unwrap();
    }
}

fn pending(rig: &Rig) -> usize {
    let rows: Vec<(u64, DirMove)> = rig.replica().read(|r| r.scan_int(Tree::Move, 0, u64::MAX, 99)).unwrap();
    rows.len()
}

/// Whether everything of the tree `from` is now at `to`: live at one, moved tombstones at the other.
fn moved(rig: &Rig, from: &str, to: &str, names: &[String]) {
    for n in names {
        let (a, b) = (rig.entry(&format!("{from}{n}")), rig.entry(&format!("{to}{n}")));
        assert!(a.live().count() == 0 && a.heads.len() == 1, "{from}{n}: {a:?}");
        assert_eq!(a.heads[0].moved_to.as_ref().map(|p| p.to_string()), Some(format!("{to}{n}")));
        assert_eq!(b.live().count(), 1, "{to}{n}: {b:?}");
        assert_eq!(b.heads.len(), 1);
    }
}

fn names(n: usize) -> Vec<String> {
    (0..n).map(|i| if i % 2 == 0 { format!("/f{i}") } else { format!("/sub/f{i}") }).chain(["".into(), "/sub".into()]).collect()
}

drive_tests! {
    /// A directory of many entries moves at once; its versions are written out afterwards, one for each path.
    a_large_directory_moves_at_once_and_is_written_out_later(rig) {
        big(&rig, "d", 2500);
        let ino = rig.ino("d/sub/f1");
        rig.mv("d", "e").unwrap();
        assert_eq!(pending(&rig), 1);
        assert_eq!((rig.ino("e/sub/f1"), rig.has("d")), (ino, false));
        rig.drain_moves().unwrap();
        assert_eq!(pending(&rig), 0);
        moved(&rig, "d", "e", &names(2500));
        check_rows(&rig, Some(&[]));
    }

    /// A kill in the middle of writing a move out loses nothing and repeats nothing.
    a_kill_while_a_move_is_written_out_goes_on_where_it_was(rig) {
        big(&rig, "d", 2500);
        rig.mkdirp("e");
        rig.mkdirp("e/sub");
        rig.put("e/sub/gone", b"");
        rig.rm("e/sub/gone").unwrap();
        rig.rmd("e/sub").unwrap();
        rig.mv("d", "e").unwrap();
        rig.write_out_moves(3).unwrap();
        assert_eq!(pending(&rig), 1);
        rig.crash();
        assert_eq!(pending(&rig), 0);
        assert!(rig.entry("e/sub/gone").heads[0].is_tombstone());
        moved(&rig, "d", "e", &names(2500));
        check_rows(&rig, Some(&[]));
        assert_eq!(rig.ls("e").len(), 1251);
    }

    /// What is done in a directory while its move is not written out yet comes after it.
    operations_below_a_pending_move_come_after_it(rig) {
        big(&rig, "d", 2500);
        let (_, fh) = rig.create_open("d/open").unwrap();
        rig.write(fh, 0, b"x", false).unwrap();
        let e = rig.open_rw("d/f0");
        rig.write(e, 0, b"edit", false).unwrap();
        rig.mv("d", "e").unwrap();
        assert_eq!(pending(&rig), 1);
        rig.write(fh, 1, b"y", false).unwrap();
        rig.release(fh).unwrap();
        rig.release(e).unwrap();
        assert_eq!(pending(&rig), 0);
        assert_eq!((rig.text("e/open").await, rig.text("e/f0").await), ("xy".into(), "edit".into()));
        assert!(sealed(&rig, "d/open").is_empty());
        assert_eq!(rig.entry("e/f0").heads.len(), 1);
        check_rows(&rig, Some(&[]));
    }

    /// Files open at a kill below a pending move are sealed at their new paths, after the move.
    regression_recovery_writes_moves_out_before_it_seals(rig) {
        big(&rig, "d", 2500);
        let e = rig.open_rw("d/f0");
        rig.write(e, 0, b"edit", false).unwrap();
        rig.mv("d", "e").unwrap();
        rig.crash();
        assert_eq!(rig.text("e/f0").await, "edit");
        moved(&rig, "d", "e", &names(2500));
        check_rows(&rig, Some(&[]));
    }

    /// Moving on, back, and onto a place with old tombstones keeps one live version and no conflict anywhere.
    moves_on_back_and_over_old_places(rig) {
        for n in [20, 2400] {
            let (d, e, f) = (format!("d{n}"), format!("e{n}"), format!("f{n}"));
            big(&rig, &d, n);
            rig.mv(&d, &e).unwrap();
            rig.mv(&e, &f).unwrap();
            rig.mv(&f, &d).unwrap();
            check_rows(&rig, Some(&[]));
            for name in names(n) {
                let there = rig.entry(&format!("{d}{name}"));
                assert!(there.heads.len() == 1 && there.live().count() == 1, "{there:?}");
                assert!(!rig.entry(&format!("{e}{name}")).is_live());
            }
            rig.mv(&d, &e).unwrap();
            rig.drain_moves().unwrap();
            moved(&rig, &d, &e, &names(n));
        }
        check_rows(&rig, Some(&[]));
    }

    /// Entries that lay beneath the target of a move and were removed count there: what is moved covers them.
    what_lay_beneath_the_target_is_covered(rig) {
        rig.mkdirp("e");
        rig.put("e/f0", b"old");
        rig.put("e/other", b"old");
        rig.mkdirp("e/f2");
        rig.put("e/f2/below", b"old");
        rig.mkdirp("e/sub");
        rig.put("e/sub/f1", b"old");
        rig.put("e/sub/gone", b"old");
        for p in ["e/f0", "e/other", "e/f2/below", "e/sub/f1", "e/sub/gone"] {
            rig.rm(p).unwrap();
        }
        for p in ["e/f2", "e/sub", "e"] {
            rig.rmd(p).unwrap();
        }
        big(&rig, "d", 10);
        let old = rig.entry("e/f0");
        rig.mv("d", "e").unwrap();
        rig.drain_moves().unwrap();
        moved(&rig, "d", "e", &names(10));
        assert!(rig.entry("e/f0").heads[0].vclock.covers(&old.heads[0].vclock));
        for p in ["e/other", "e/f2/below", "e/sub/gone"] {
            let e = rig.entry(p);
            assert!(e.heads.len() == 1 && e.heads[0].is_tombstone(), "{p}: {e:?}");
        }
        check_rows(&rig, Some(&[]));
        assert_eq!(rig.ls("e").len(), 6);
    }

    /// Moves of a directory and of its parent, each at once, come out in order.
    nested_moves_come_out_in_order(rig) {
        rig.mkdirp("p");
        rig.mkdirp("q");
        big(&rig, "p/d", 2100);
        rig.mv("p", "q/p").unwrap();
        rig.mv("q/p/d/sub", "s").unwrap();
        rig.mv("q/p/d", "p").unwrap();
        check_rows(&rig, Some(&[]));
        assert_eq!((rig.ls("p").len(), rig.ls("s").len(), rig.ls("q/p").len()), (1050, 1050, 0));
        rig.crash();
        check_rows(&rig, Some(&[]));
    }

    /// Exchanging two large directories is written out right.
    regression_exchange_of_large_directories(rig) {
        big(&rig, "d", 2100);
        rig.mkdirp("e");
        rig.put("e/x", b"x");
        rig.swap("d", "e").unwrap();
        check_rows(&rig, Some(&[]));
        assert_eq!((rig.ls("d"), rig.ls("e").len()), (vec!["x".to_owned()], 1051));
        for n in &names(2100) {
            assert_eq!((rig.entry(&format!("d{n}")).live().count(), rig.entry(&format!("e{n}")).live().count()), (usize::from(n.is_empty()), 1));
        }
    }

    /// Hard links into and within a directory that moves stay one file.
    hard_links_survive_moves_of_their_directory(rig) {
        rig.mkdirp("d");
        let f = rig.put("d/f", b"1");
        rig.ln("d/f", "d/g").unwrap();
        rig.ln("d/f", "out").unwrap();
        rig.chmod("out", 0o600);
        rig.mv("d", "e").unwrap();
        for p in ["e/f", "e/g", "out"] {
            let fh = rig.open_rw(p);
            rig.release(fh).unwrap();
            assert_eq!(rig.ino(p), f);
        }
        rig.put("e/g", b"2");
        assert_eq!((rig.text("out").await.as_str(), rig.resolve("out").unwrap().nlink), ("2", 3));
        check_rows(&rig, Some(&[]));
    }
}

/// The root belongs to the user who mounts, and keeps what was made of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_root_belongs_to_the_user_who_mounts() {
    let mut rig = Rig::new();
    let root = rig.getattr(ROOT).unwrap();
    assert_eq!((root.uid, root.gid, root.mode), (1000, 1000, 0o755));
    assert!(root.mtime != Time::default() && root.btime != Time::default());
    rig.setattr(ROOT, &SetAttr { uid: Some(7), ..SetAttr::default() }).unwrap();
    rig.crash();
    assert_eq!((rig.getattr(ROOT).unwrap().uid, rig.getattr(ROOT).unwrap().btime), (7, root.btime));
}

/// A version arrives in a transaction that lasts until `ready` says of the file (whether it is busy) that the other side
/// is where it is wanted, or for a while.
fn arrive_while(rig: &Rig, v: Version, ready: impl Fn(bool) -> bool + Send + 'static) -> std::thread::JoinHandle<()> {
    let (vfs, ino) = (std::sync::Arc::clone(rig), rig.ino(v.path.as_str()));
    let (begun, wait) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let arrived = vfs.change(&[], |ns| {
            begun.send(()).unwrap();
            let end = std::time::Instant::now() + std::time::Duration::from_millis(300);
            while !ready((ns.ctx.busy)(ino)) && std::time::Instant::now() < end {
                std::thread::yield_now();
            }
            let (dir, _) = ns.merge(&v)?;
            ns.reconcile(dir, v.path.file_name())
        });
        arrived.unwrap();
    });
    wait.recv().unwrap();
    thread
}

/// A version of a file of the root arrives as soon as there is a file of that name.
fn arrive_once_there(rig: &Rig, v: Version) -> std::thread::JoinHandle<()> {
    let vfs = std::sync::Arc::clone(rig);
    let (begun, wait) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        begun.send(()).unwrap();
        let arrives = || {
            vfs.change(&[], |ns| {
                let there = ns.slot(ROOT, v.path.as_str())?.is_some_and(|s| s.ino() != 0);
                if there {
                    ns.merge(&v)?;
                    ns.reconcile(ROOT, v.path.as_str())?;
                }
                Ok(there)
            })
        };
        while !arrives().unwrap() {}
    });
    wait.recv().unwrap();
    thread
}

/// What every file of the root holds.
async fn contents(rig: &Rig) -> Vec<String> {
    let mut all = Vec::new();
    for name in rig.ls("") {
        all.push(rig.text(&name).await);
    }
    all.sort();
    all
}

drive_tests! {
    regression_file_closed_while_a_version_of_it_arrives_is_kept(rig) {
        rig.remote("bob", "f", b"old").await;
        assert_eq!(rig.text("f").await, "old");
        let fh = rig.open_rw("f");
        rig.write(fh, 0, b"mine", false).unwrap();
        let theirs = rig.version_of("bob", "f", &rig.entry("f"), b"theirs").await;
        rig.flush(fh).unwrap();
        let arrival = arrive_while(&rig, theirs, |busy| !busy);
        rig.release(fh).unwrap();
        arrival.join().unwrap();
        assert_eq!(contents(&rig).await, ["mine", "theirs"]);
    }

    regression_file_opened_while_a_version_of_it_arrives_is_kept(rig) {
        rig.remote("bob", "f", b"old").await;
        assert_eq!(rig.text("f").await, "old");
        let reader = rig.open_ro("f");
        let ino = rig.ino("f");
        let theirs = rig.version_of("bob", "f", &rig.entry("f"), b"theirs").await;
        let arrival = arrive_while(&rig, theirs, |busy| busy);
        // Either the open was first, then the version that arrives stands beside; or what leads here is out of date, and a
        // kernel looks again.
        let opened = rig.open_file(ino, true, false);
        arrival.join().unwrap();
        let (fh, kept) = match opened {
            Ok(o) => (o.fh, vec!["mine", "theirs"]),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Stale);
                (rig.open_rw("f"), vec!["miners"])
            }
        };
        rig.write(fh, 0, b"mine", false).unwrap();
        rig.flush(fh).unwrap();
        rig.release(fh).unwrap();
        rig.release(reader).unwrap();
        assert_eq!(contents(&rig).await, kept);
    }

    regression_file_made_just_before_a_version_of_it_arrives_is_kept(rig) {
        for n in 0..200 {
            let name = format!("f{n}");
            let arrival = arrive_once_there(&rig, rig.version_of("bob", &name, &Default::default(), b"theirs").await);
            let (_, fh) = rig.create_open(&name).unwrap();
            rig.write(fh, 0, b"mine", false).unwrap();
            rig.flush(fh).unwrap();
            rig.release(fh).unwrap();
            arrival.join().unwrap();
            assert_eq!(contents(&rig).await, ["mine", "theirs"], "round {n}");
            rig.ls("").iter().for_each(|name| rig.rm(name).unwrap());
        }
    }

    regression_save_by_rename_just_before_a_version_of_it_arrives_is_kept(rig) {
        for n in 0..200 {
            let name = format!("f{n}");
            rig.put("new.swp", b"mine");
            let arrival = arrive_once_there(&rig, rig.version_of("bob", &name, &Default::default(), b"theirs").await);
            rig.mv("new.swp", &name).unwrap();
            arrival.join().unwrap();
            assert_eq!(contents(&rig).await, ["mine", "theirs"], "round {n}");
            rig.ls("").iter().for_each(|name| rig.rm(name).unwrap());
        }
    }
}

/// What a program has written has its time from then on, also while the file is being sealed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_never_goes_back_while_a_file_is_sealed() {
    let rig = std::sync::Arc::new(Rig::new());
    for n in 0..1000 {
        let (attr, fh) = rig.create_open(&format!("f{n}")).unwrap();
        rig.tick();
        rig.write(fh, 0, b"text", false).unwrap();
        let written = rig.getattr(attr.ino).unwrap().mtime;
        assert!(written > attr.mtime);
        let looks: Vec<_> = (0..3)
            .map(|_| {
                let rig = rig.clone();
                std::thread::spawn(move || (0..20).map(|_| rig.getattr(attr.ino).unwrap().mtime).collect::<Vec<_>>())
            })
            .collect();
        rig.flush(fh).unwrap();
        rig.release(fh).unwrap();
        for l in looks {
            assert!(l.join().unwrap().iter().all(|t| *t == written), "round {n}");
        }
    }
}

/// A drive on which more than three deletes at once are many.
fn braking() -> Rig {
    let rig = Rig::with(|o| o.brake = tcfs::vfs::BrakeOptions { enabled: true, files: 3, percent: 0 });
    // It is not alone in its fleet.
    let known = |t: &mut tcfs::state::Txn<'_>| ["ann-00000001", "bob-00000002"].iter().try_for_each(|id| t.put(Tree::Device, *id, id));
    rig.replica().db().write(known).unwrap();
    rig
}

/// Whether another device sees anything at a path.
fn others_see(rig: &Rig, p: &str) -> bool {
    let entry = rig.entry(p);
    let seen = tcfs::model::brake::in_effect(&entry, "bob-00000002");
    tcfs::model::view(&seen, false, tcfs::model::ConflictMode::Auto, "bob-00000002").is_some()
}

/// Many deletes at once take the files away here; the other machines go on showing them until somebody approves, those
/// deleted before it was clear that there were many among them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_deletes_at_once_are_seen_here_only() {
    let mut rig = braking();
    rig.mkdirp("d");
    let names: Vec<String> = (0..9).map(|i| format!("d/f{i}")).collect();
    for n in &names {
        rig.remote("bob", n, b"text").await;
    }
    for n in &names {
        rig.rm(n).unwrap();
    }
    rig.rmd("d").unwrap();
    let early = names.iter().filter(|n| !others_see(&rig, n)).count();
    assert_eq!(early, 4, "the brake came on with the fourth");
    rig.brake_earlier().unwrap();
    for _ in 0..2 {
        assert!(!rig.has("d"));
        assert!(names.iter().all(|n| others_see(&rig, n)));
        assert_eq!((rig.under_brake_count().unwrap(), rig.under_brake().unwrap().len()), (10, 10));
        check_rows(&rig, None);
        rig.crash();
    }
    // Made anew, a name has nothing to do with what was there.
    rig.mkdirp("d");
    rig.put("d/f0", b"new");
    assert_eq!((rig.ls("d"), rig.under_brake_count().unwrap()), (vec!["f0".to_owned()], 8));
    rig.mv("d", "e").unwrap();
    assert_eq!((rig.ls("e"), rig.text("e/f0").await), (vec!["f0".to_owned()], "new".to_owned()));
    rig.drain_moves().unwrap();
    assert!(!rig.has("d") && others_see(&rig, "d/f1") && rig.under_brake_count().unwrap() == 8);
    check_rows(&rig, None);
}

/// A delete under the brake that is approved counts everywhere; one that is taken back brings the file back, here too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_under_the_brake_is_approved_or_taken_back() {
    use tcfs::model::brake::Verdict;
    let rig = braking();
    for i in 0..9 {
        rig.remote("bob", &format!("f{i}"), format!("text {i}").as_bytes()).await;
        rig.remote("bob", &format!("g{i}"), b"other").await;
    }
    for i in 0..9 {
        rig.rm(&format!("f{i}")).unwrap();
        rig.rm(&format!("g{i}")).unwrap();
    }
    let f = |p: &tcfs::model::RelPath, _: &Version| p.as_str().starts_with('f');
    assert_eq!(rig.pass_verdict(Verdict::TakeBack, &f, &mut |_| {}).unwrap(), 9);
    assert_eq!(rig.ls("").len(), 9);
    assert_eq!(rig.text("f7").await, "text 7");
    assert_eq!(rig.pass_verdict(Verdict::Approve, &|_, _| true, &mut |_| {}).unwrap(), 9);
    for i in 0..9 {
        assert!(others_see(&rig, &format!("f{i}")) && !others_see(&rig, &format!("g{i}")));
    }
    assert_eq!(rig.under_brake_count().unwrap(), 0);
    check_rows(&rig, None);
}

/// A machine that is alone in its fleet has nobody to hold anything back from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alone_there_is_no_brake() {
    let rig = Rig::with(|o| o.brake = tcfs::vfs::BrakeOptions { enabled: true, files: 3, percent: 0 });
    for i in 0..9 {
        rig.remote("bob", &format!("f{i}"), b"text").await;
    }
    (0..9).for_each(|i| rig.rm(&format!("f{i}")).unwrap());
    rig.brake_earlier().unwrap();
    assert!(rig.under_brake_count().unwrap() == 0 && (0..9).all(|i| !others_see(&rig, &format!("f{i}"))));
}

/// Moves, saves over a name, few deletes, and deletes of what never left this machine are not held back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_are_not_held_back() {
    let rig = braking();
    for i in 0..9 {
        rig.remote("bob", &format!("f{i}"), b"text").await;
        rig.put(&format!("own{i}"), b"text");
    }
    for i in 0..9 {
        rig.mv(&format!("f{i}"), &format!("g{i}")).unwrap();
        rig.mv(&format!("own{i}"), &format!("g{i}")).unwrap();
        rig.put(&format!("new{i}"), b"text");
        rig.rm(&format!("new{i}")).unwrap();
    }
    for i in 0..3 {
        rig.rm(&format!("g{i}")).unwrap();
    }
    rig.brake_earlier().unwrap();
    assert_eq!(rig.under_brake_count().unwrap(), 0);
    assert!((0..9).all(|i| !others_see(&rig, &format!("f{i}"))) && !others_see(&rig, "g0"));
    check_rows(&rig, None);
}

#[test]
fn slots_of_the_helper_are_slots_of_the_drive() {
    // `all_slots` decodes keys by hand; this is what it rests on.
    let key = tcfs::state::rows::slot_key(7, "name");
    assert_eq!((u64::from_be_bytes(key[..8].try_into().unwrap()), tcfs::state::rows::slot_name(&key)), (7, "name"));
    assert!(matches!(Slot::LocalOnly { ino: 3 }.ino(), 3));
}

/// What `SEMANTICS.md` promises is tested: each of its sentences is the doc comment of a test.
#[test]
fn every_sentence_of_the_semantics_is_a_test() {
    let sources =
        [include_str!("vfs_core.rs"), include_str!("vfs_hydrate.rs"), include_str!("vfs_model.rs"), include_str!("vfs_control.rs")];
    let tests = sources.iter().flat_map(|s| s.lines()).filter_map(|l| l.trim().strip_prefix("///")).collect::<Vec<_>>();
    let comments = tests.iter().map(|l| l.trim()).collect::<Vec<_>>().join(" ");
    let semantics = include_str!("../src/vfs/SEMANTICS.md").split("## Where it differs").next().unwrap();
    let promises: Vec<&str> = semantics.lines().filter_map(|l| l.strip_prefix("- ")).collect();
    assert!(promises.len() > 50);
    for p in promises {
        assert!(comments.contains(p), "no test says {p:?}");
    }
}
