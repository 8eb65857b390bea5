//! The drive served by NFS: over the wire with a client of this process, and with a real kernel's client.
//!
//! The kernel here has no NFS client, so one that has is started in user mode (`kernel`), on the files of this machine.
#![allow(clippy::unwrap_used)] // a failed call is a failed test

#[path = "../common/mod.rs"]
mod common;
mod crawl;
mod fronts;
mod kernel;
mod load;
mod mac;
mod served;
mod suites;
mod users;
mod wire;

use common::{World, until};
use nfs3_types::nfs3::*;
use serde_json::json;
use served::{Client, Served};
use std::fs;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);

/// What a person gets: a command on one line, as the system's own client wants it.
#[test]
fn the_command_that_mounts_it_is_printed_on_a_line() {
    let w = World::new();
    let s = Served::new(&w, "ann");
    let line = s.command.clone();
    assert!(!line.contains(['\'', '"', '\n']), "{line}");
    for part in [format!("port={}", s.port), format!("mountport={}", s.port), format!(" 127.0.0.1:{} ", s.export)] {
        assert!(line.contains(&part), "{part} in {line}");
    }
    assert!(line.ends_with(served::AT), "{line}");
    assert!(s.m.cli(&["status"]).ok().stdout.contains("/mnt/tcfs (nfs, served only)"));
    assert!(s.m.cli(&["doctor"]).stdout.contains("served by NFS, mounted by somebody else") && !std::path::Path::new(served::AT).exists());
    let text = s.m.cli(&["mount", "--backend", "nfs", "--no-mount", "/elsewhere"]);
    assert_eq!(text.code, 1, "one server at a time: {}", text.text());
    assert_eq!(s.m.cli(&["mount", "--no-mount", "/elsewhere"]).code, 2);
    s.m.cli(&["unmount", served::AT]).ok();

    // A port that is chosen is the port, and one that is taken is said to be.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let bob = w.device("bob").env("TCFS_NFS_PORT", port.to_string()).off();
    let e = bob.cli(&["mount", "--backend", "nfs", "--no-mount", served::AT]);
    assert!(e.code == 1 && e.stderr.contains(&port.to_string()) && e.stderr.contains("nfs.port"), "{}", e.text());
    drop(taken);
    assert_eq!(Served::of(bob).port, port);
}

#[test]
fn a_save_arrives_elsewhere_and_what_others_do_is_seen() {
    let w = World::new();
    let (s, bob) = (Served::new(&w, "ann"), w.mount("bob"));
    let mut c = s.client();
    let root = c.root();
    let dir = c.mkdir(&root, "notes", 0o750).unwrap();
    assert_eq!(c.attr(&dir).unwrap().mode, 0o750);
    let file = c.create(&dir, "plan.md", 0o640).unwrap();
    c.write(&file, 0, b"from the client\n", stable_how::UNSTABLE).unwrap();
    c.commit(&file).unwrap();
    let at = bob.path("notes/plan.md");
    until("the save arrives", SOON, || (fs::read(&at).ok()? == b"from the client\n").then_some(()));

    let was = c.attr(&dir).unwrap();
    fs::write(bob.path("notes/new.md"), "from bob\n").unwrap();
    let found = until("bob's file is seen", SOON, || c.lookup(&dir, "new.md").ok());
    assert_eq!(c.read(&found, 0, 100).unwrap(), (b"from bob\n".to_vec(), true));
    let is = c.attr(&dir).unwrap();
    assert!(is.mtime != was.mtime && is.ctime != was.ctime, "a client goes by these: {was:?} {is:?}");

    fs::write(&at, "changed by bob\n").unwrap();
    until("bob's change is seen", SOON, || {
        let f = c.lookup(&dir, "plan.md").ok()?;
        (c.read(&f, 0, 100).ok()?.0 == b"changed by bob\n").then_some(())
    });
    // Who has the old one open reads it to its end, and what is written there is found beside the new one.
    assert_eq!(c.read(&file, 0, 100).unwrap().0, b"from the client\n");
    c.write(&file, 0, b"late", stable_how::FILE_SYNC).unwrap();
    // (Of two that changed it the first by name has the path.)
    let sibling = bob.path("notes/plan.conflict-bob.md");
    until("the late write arrives, and is a conflict", SOON, || {
        (fs::read(&at).ok()? == b"late the client\n" && fs::read(&sibling).ok()? == b"changed by bob\n").then_some(())
    });
    assert_eq!(c.lookup(&dir, "plan.md").unwrap(), file);
    c.remove(&dir, "plan.conflict-bob.md").unwrap();
    until("the conflict ends", SOON, || (!sibling.exists()).then_some(()));
    assert_eq!(fs::read(&at).unwrap(), b"late the client\n");
    // The same beside a delete: the file stays.
    let other = c.create(&dir, "gone.md", 0o644).unwrap();
    c.write(&other, 0, b"mine", stable_how::FILE_SYNC).unwrap();
    s.m.wait();
    until("it arrives", SOON, || fs::read(bob.path("notes/gone.md")).ok());
    std::thread::sleep(Duration::from_secs(3));
    fs::remove_file(bob.path("notes/gone.md")).unwrap();
    until("the delete arrives", SOON, || (c.lookup(&dir, "gone.md").err()? == nfsstat3::NFS3ERR_NOENT).then_some(()));
    c.write(&other, 4, b" still", stable_how::FILE_SYNC).unwrap();
    until("the edit beats the delete", SOON, || (fs::read(bob.path("notes/gone.md")).ok()? == b"mine still").then_some(()));
    assert_eq!(c.lookup(&dir, "gone.md").unwrap(), other);
}

/// Who reaches the port and knows no secret gets nothing; nor does another user who knows it.
#[test]
fn nobody_else_gets_in() {
    let w = World::new();
    let s = Served::new(&w, "ann");
    let mut c = s.client();
    let root = c.root();
    fs::metadata(s.m.state().join("nfs.json")).map(|m| assert_eq!(m.permissions(), unix_mode(0o600))).unwrap();

    assert!(s.mount_as(0, "/tcfs").is_err(), "a guessed path");
    assert!(s.mount_as(0, &format!("{}/..", s.export)).is_err());
    assert!(s.mount_as(0, "/").is_err());
    assert!(s.mount_as(54321, &s.export).is_err(), "another user who knows the path");
    assert!(s.mount_as(0, &s.export).is_ok());
    // With a handle that was overheard.
    let mut other = s.client_as(54321, &root);
    assert!(other.lookup(&root, "x").is_err());
    // With a handle that was made up.
    let mut forged = root.data.to_vec();
    forged[3] ^= 1;
    assert_eq!(c.attr(&nfs_fh3 { data: forged.into() }).unwrap_err(), nfsstat3::NFS3ERR_BADHANDLE);
    for len in [0, 8, 27, 29, 64] {
        assert_eq!(c.attr(&nfs_fh3 { data: vec![7; len].into() }).unwrap_err(), nfsstat3::NFS3ERR_BADHANDLE);
    }
    // It listens on the loopback only.
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{:04X} ", s.port);
    let listening: Vec<&str> =
        table.lines().filter(|l| l.split_whitespace().nth(1).is_some_and(|a| format!("{a} ").ends_with(&port))).collect();
    assert!(
        listening.iter().any(|l| l.contains(" 0100007F:"))
            && listening.iter().all(|l| !l.contains(" 00000000:0000 0A") || l.contains("0100007F"))
    );
    assert!(s.exports().is_empty(), "the path is told to nobody");
}

fn unix_mode(mode: u32) -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o100_000 | mode)
}

/// A kill takes nothing that was answered as stable, and clients go on with the handles they have.
#[test]
fn what_was_stable_and_every_handle_survive_a_kill() {
    let w = World::new();
    let mut s = Served::new(&w, "ann");
    let mut c = s.client();
    let root = c.root();
    let dir = c.mkdir(&root, "d", 0o755).unwrap();
    let (stable, committed) = (c.create(&dir, "stable", 0o644).unwrap(), c.create(&dir, "committed", 0o644).unwrap());
    c.write(&stable, 0, b"on the disk", stable_how::FILE_SYNC).unwrap();
    let (_, first) = c.write(&committed, 0, b"soon on the disk", stable_how::UNSTABLE).unwrap();
    assert_eq!(c.commit(&committed).unwrap(), first, "a commit has the verifier of the writes it is for");
    let before = (s.port, s.export.clone());
    s.kill();
    s.serve();
    assert_eq!((s.port, s.export.clone()), before, "clients find it where it was");
    let mut c = s.client();
    assert_eq!(c.root(), root);
    assert_eq!(c.read(&stable, 0, 100).unwrap().0, b"on the disk");
    assert_eq!(c.read(&committed, 0, 100).unwrap().0, b"soon on the disk");
    // A handle is of the file, not of its name.
    c.rename(&dir, "stable", &root, "moved").unwrap();
    assert_eq!(c.read(&stable, 0, 100).unwrap().0, b"on the disk");
    let (_, second) = c.write(&stable, 11, b" still", stable_how::UNSTABLE).unwrap();
    assert_ne!(first, second, "a client has to send again what it had not committed");
    // Gone is gone.
    c.remove(&root, "moved").unwrap();
    s.m.wait();
    until("the handle is stale", Duration::from_secs(60), || (c.attr(&stable).err()? == nfsstat3::NFS3ERR_STALE).then_some(()));
}

/// A logger that syncs each line does not make a version of each.
#[test]
fn a_commit_makes_no_version_and_quiet_does() {
    let w = World::new();
    let s = Served::new(&w, "ann");
    let mut c = s.client();
    let root = c.root();
    let log = c.create(&root, "log", 0o644).unwrap();
    let began = Instant::now();
    let mut at = 0;
    while began.elapsed() < Duration::from_secs(5) {
        c.write(&log, at, b"a line\n", stable_how::UNSTABLE).unwrap();
        c.commit(&log).unwrap();
        at += 7;
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(s.log_versions("log"), 0, "sealed while it was being written");
    until("it is sealed after quiet", SOON, || (s.log_versions("log") == 1).then_some(()));
    // Who waits need not wait for the quiet.
    c.write(&log, at, b"last\n", stable_how::UNSTABLE).unwrap();
    s.m.wait();
    assert_eq!(s.log_versions("log"), 2);
}

#[test]
fn an_exclusive_create_that_is_sent_again_is_the_same_file() {
    let w = World::new();
    let mut s = Served::new(&w, "ann");
    let mut c = s.client();
    let root = c.root();
    let mine = c.exclusive(&root, "once", *b"12345678").unwrap();
    assert_eq!(c.exclusive(&root, "once", *b"12345678").unwrap(), mine, "the answer was lost");
    assert_eq!(c.exclusive(&root, "once", *b"87654321").unwrap_err(), nfsstat3::NFS3ERR_EXIST);
    s.kill();
    s.serve();
    let mut c = s.client();
    assert_eq!(c.exclusive(&root, "once", *b"12345678").unwrap(), mine, "the answer was lost in a restart");
    assert_eq!(c.exclusive(&root, "once", *b"87654321").unwrap_err(), nfsstat3::NFS3ERR_EXIST);
}

/// A listing shows what is there throughout exactly once, whatever comes and goes between its pages.
#[test]
fn a_listing_is_right_while_entries_come_and_go() {
    let w = World::new();
    let s = Served::new(&w, "ann");
    let mut c = s.client();
    let root = c.root();
    let dir = c.mkdir(&root, "many", 0o755).unwrap();
    let stays: Vec<String> = (0..300).map(|i| format!("stays-{i}")).collect();
    for n in &stays {
        c.symlink(&dir, n, "x").unwrap();
    }
    for plus in [false, true] {
        let (mut seen, mut cookie, mut round) = (Vec::new(), 0, 0);
        loop {
            let (lines, eof) = c.page(&dir, cookie, 2000, plus).unwrap();
            assert!(!lines.is_empty() || eof);
            cookie = lines.last().map_or(cookie, |l| l.1);
            seen.extend(lines.into_iter().map(|l| l.0));
            if eof {
                break;
            }
            c.symlink(&dir, &format!("comes-{plus}-{round}"), "x").unwrap();
            if round > 0 {
                c.remove(&dir, &format!("comes-{plus}-{}", round - 1)).unwrap();
            }
            round += 1;
        }
        assert!(round > 3, "one page shows nothing");
        let count = |n: &str| seen.iter().filter(|s| *s == n).count();
        assert!(stays.iter().all(|n| count(n) == 1));
        assert!(count(".") == 1 && count("..") == 1);
    }
    assert_eq!(c.page(&dir, 0, 100, true).unwrap_err(), nfsstat3::NFS3ERR_TOOSMALL);
}

/// The store is slow: the server is not, and the client's next try has the bytes.
#[test]
fn a_read_of_bytes_that_are_far_away_is_answered_later() {
    let w = World::new();
    let bob = w.mount("bob");
    fs::write(bob.path("far"), vec![7u8; 300_000]).unwrap();
    bob.wait();
    let s = Served::new(&w, "ann");
    let mut c = s.client();
    let root = c.root();
    let far = until("it is listed", SOON, || c.lookup(&root, "far").ok());
    s.m.fault(Some(json!({ "mode": { "slow_ms": 3000 }, "only": "get" })));
    let began = Instant::now();
    assert_eq!(c.read(&far, 0, 300_000).unwrap_err(), nfsstat3::NFS3ERR_JUKEBOX);
    assert!(began.elapsed() < Duration::from_secs(20));
    // Others are not held up by it.
    assert_eq!(c.attr(&far).unwrap().size, 300_000);
    let (bytes, eof) = until("the bytes are here", SOON, || c.read(&far, 0, 300_000).ok());
    assert!(eof && bytes == vec![7u8; 300_000]);
    // An answer that nobody came for does not cover what is written after it.
    fs::write(bob.path("both"), vec![9u8; 300_000]).unwrap();
    bob.wait();
    let both = until("it is listed", SOON, || c.lookup(&root, "both").ok());
    assert_eq!(c.read(&both, 0, 300_000).unwrap_err(), nfsstat3::NFS3ERR_JUKEBOX);
    std::thread::sleep(Duration::from_secs(5));
    c.write(&both, 0, b"new", stable_how::UNSTABLE).unwrap();
    let (bytes, _) = until("the bytes are here", SOON, || c.read(&both, 0, 300_000).ok());
    assert!(bytes[..3] == *b"new" && bytes[3..] == vec![9u8; 299_997]);
    // A store that is away is an error in the end, and not a client that hangs for ever.
    fs::write(bob.path("gone"), vec![8u8; 300_000]).unwrap();
    bob.wait();
    s.m.fault(Some(json!({ "mode": "down", "only": "get", "prefix": "default/chunks/" })));
    let gone = until("it is listed", SOON, || c.lookup(&root, "gone").ok());
    until("the read fails", Duration::from_secs(120), || (c.read(&gone, 0, 300_000).err()? == nfsstat3::NFS3ERR_IO).then_some(()));
}

#[test]
fn what_the_protocol_says_of_types_and_modes() {
    let w = World::new();
    let s = Served::new(&w, "ann");
    let mut c = s.client();
    let root = c.root();
    let dir = c.mkdir(&root, "d", 0o700).unwrap();
    let file = c.create(&root, "f", 0o600).unwrap();
    c.link(&file, &dir, "second").unwrap();
    assert_eq!((c.lookup(&dir, "second").unwrap(), c.attr(&file).unwrap().nlink), (file.clone(), 2));
    assert_eq!(c.link(&dir, &root, "third").unwrap_err(), nfsstat3::NFS3ERR_PERM, "of a directory");
    // A client that is told otherwise does not even ask for a second name.
    let told = (c.fsinfo(&root).unwrap().properties & FSF3_LINK, c.pathconf(&file).unwrap().linkmax);
    assert_eq!(told, (FSF3_LINK, 65_000));
    c.remove(&dir, "second").unwrap();
    assert_eq!(c.attr(&file).unwrap().nlink, 1);
    c.mknod(&dir, "pipe", mknoddata3::NF3FIFO(sattr3::default())).unwrap();
    let pipe = c.lookup(&dir, "pipe").unwrap();
    assert_eq!(c.attr(&pipe).unwrap().type_, ftype3::NF3FIFO);
    assert_eq!(c.read(&pipe, 0, 1).unwrap_err(), nfsstat3::NFS3ERR_INVAL);
    c.remove(&dir, "pipe").unwrap();
    let spec = specdata3 { specdata1: 259, specdata2: 70_000 };
    c.mknod(&dir, "disk", mknoddata3::NF3BLK(devicedata3 { dev_attributes: sattr3::default(), spec })).unwrap();
    let disk = c.lookup(&dir, "disk").unwrap();
    let a = c.attr(&disk).unwrap();
    assert_eq!((a.type_, a.rdev.specdata1, a.rdev.specdata2), (ftype3::NF3BLK, 259, 70_000));
    c.remove(&dir, "disk").unwrap();
    assert_eq!(c.rmdir(&root, "f").unwrap_err(), nfsstat3::NFS3ERR_NOTDIR);
    assert_eq!(c.remove(&root, "d").unwrap_err(), nfsstat3::NFS3ERR_ISDIR);
    c.create(&dir, "in", 0o600).unwrap();
    assert_eq!(c.rmdir(&root, "d").unwrap_err(), nfsstat3::NFS3ERR_NOTEMPTY);
    assert_eq!(c.create(&file, "x", 0o600).unwrap_err(), nfsstat3::NFS3ERR_NOTDIR);
    assert_eq!(c.create(&root, &"n".repeat(256), 0o600).unwrap_err(), nfsstat3::NFS3ERR_NAMETOOLONG);
    assert_eq!(c.lookup(&root, "none").unwrap_err(), nfsstat3::NFS3ERR_NOENT);
    assert_eq!(c.read(&dir, 0, 1).unwrap_err(), nfsstat3::NFS3ERR_ISDIR);
    assert_eq!(c.lookup(&dir, "..").unwrap(), root);

    // A guard is a time that the file must have.
    let was = c.attr(&file).unwrap();
    let other = nfstime3 { seconds: was.ctime.seconds.wrapping_sub(1), nseconds: was.ctime.nseconds };
    assert_eq!(c.chmod(&file, 0o644, Some(other)).unwrap_err(), nfsstat3::NFS3ERR_NOT_SYNC);
    c.chmod(&file, 0o644, Some(was.ctime)).unwrap();
    assert_eq!(c.attr(&file).unwrap().mode, 0o644);

    // A file that was made longer is zeros there, one that was cut is cut: what `open` with O_TRUNC asks for.
    c.write(&file, 0, b"12345", stable_how::UNSTABLE).unwrap();
    c.resize(&file, 8).unwrap();
    assert_eq!(c.read(&file, 0, 100).unwrap(), (b"12345\0\0\0".to_vec(), true));
    c.resize(&file, 2).unwrap();
    assert_eq!(c.read(&file, 0, 100).unwrap(), (b"12".to_vec(), true));
    assert_eq!(c.read(&file, 0, 1).unwrap(), (b"1".to_vec(), false));

    // By mode and user. The server is asked by its owner here, who is root in most runs, so modes count for others only.
    let all = ACCESS3_READ | ACCESS3_MODIFY | ACCESS3_EXTEND | ACCESS3_EXECUTE;
    assert_eq!(c.access(&file, all).unwrap(), ACCESS3_READ | ACCESS3_MODIFY | ACCESS3_EXTEND);
    assert_eq!(c.access(&dir, 0x3f).unwrap() & ACCESS3_DELETE, ACCESS3_DELETE);

    let (stat, native) = (c.fsstat(&root).unwrap(), rustix_statvfs(s.m.state()));
    assert_eq!(stat.tbytes, native, "the real disk");
    assert!(stat.fbytes > 0 && stat.fbytes <= stat.tbytes);
    c.set_aside_by_rename(&root, "f", ".nfs0001").unwrap();
    assert_eq!(c.read(&file, 0, 2).unwrap().0, b"12", "removed, and still open over there");
    s.m.wait();
    let bob = w.mount("bob");
    let names =
        |at: &str| fs::read_dir(bob.path(at)).map_or(vec![], |d| d.map(|e| e.unwrap().file_name().into_string().unwrap()).collect());
    assert_eq!((names("."), names("d")), (vec!["d".to_owned()], vec!["in".to_owned()]));
    c.remove(&root, ".nfs0001").unwrap();
}

fn rustix_statvfs(at: &std::path::Path) -> u64 {
    let s = rustix::fs::statvfs(at).unwrap();
    s.f_blocks * s.f_frsize
}

/// A client takes "no bytes, and not the end" for an error: what is appended while it reads the end must not make one.
#[test]
fn a_read_at_the_end_of_a_growing_file_says_that_it_is_the_end() {
    let w = World::new();
    let s = Served::new(&w, "ann");
    let (mut c, mut other) = (s.client(), s.client());
    let file = c.create(&s.client().root(), "log", 0o644).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (file, stop) = (&file, &stop);
        scope.spawn(move || {
            let mut at = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                at += u64::from(other.write(file, at, &[7; 4096], stable_how::UNSTABLE).unwrap().0);
            }
        });
        let (mut reads, began) = (0, Instant::now());
        while reads < 2000 && began.elapsed() < SOON {
            let end = c.attr(file).unwrap().size;
            for at in [end, end + 4096] {
                let (bytes, eof) = c.read(file, at, 100_000).unwrap();
                assert!(eof || bytes.len() == 100_000, "{} bytes at {at}, and not the end", bytes.len());
                reads += 1;
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// A save through a temporary name, as editors do it, is a version of the file.
#[test]
fn a_file_that_is_renamed_over_another_takes_its_place() {
    let w = World::new();
    let (s, bob) = (Served::new(&w, "ann"), w.mount("bob"));
    let mut c = s.client();
    let root = c.root();
    for round in 0..3 {
        let name = format!("plan.md.tmp{round}");
        let new = c.create(&root, &name, 0o644).unwrap();
        let text = format!("round {round}\n");
        c.write(&new, 0, text.as_bytes(), stable_how::FILE_SYNC).unwrap();
        c.rename(&root, &name, &root, "plan.md").unwrap();
        until("it arrives", SOON, || (fs::read_to_string(bob.path("plan.md")).ok()? == text).then_some(()));
    }
    let left: Vec<_> = fs::read_dir(bob.root()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["plan.md"]);
}

/// Clients of all sorts reach a port of the loopback.
#[test]
fn garbage_is_answered_or_dropped_and_the_server_goes_on() {
    let w = World::new();
    let s = Served::new(&w, "ann");
    let mut rng = common::rng();
    let mut c: Client = s.client();
    let root = c.root();
    for i in 0..200 {
        let mut bytes = vec![0u8; rng.usize(..300)];
        rng.fill(&mut bytes);
        if i % 2 == 0 && bytes.len() > 60 {
            // A call that begins well.
            let len = bytes.len() as u32 - 4;
            bytes[..4].copy_from_slice(&(len | 0x8000_0000).to_be_bytes());
            bytes[8..12].fill(0);
            bytes[12..16].copy_from_slice(&2u32.to_be_bytes());
            bytes[16..20].copy_from_slice(&100_003u32.to_be_bytes());
            bytes[20..24].copy_from_slice(&3u32.to_be_bytes());
            bytes[24..28].copy_from_slice(&rng.u32(..30).to_be_bytes());
            bytes[28..36].fill(0);
            bytes[28..32].copy_from_slice(&1u32.to_be_bytes());
        }
        s.raw(&bytes);
    }
    // One that claims to be longer than any call, and one whose handle claims to be.
    s.raw(&0xffff_ffffu32.to_be_bytes());
    s.raw(&wire::call_with_long_handle());
    assert_eq!(c.attr(&root).unwrap().type_, ftype3::NF3DIR);
    let log = s.m.log();
    assert!(!log.contains("panicked"), "{log}");
}
