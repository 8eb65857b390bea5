//! Programs on one machine that watch files with inotify hear of what another machine does.
#![allow(clippy::unwrap_used)] // a failed call is a failed test

mod common;

use common::{Mounted, World, until};
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// An inotify descriptor with everything that came from it.
struct Watcher {
    file: fs::File,
    heard: BTreeSet<(u32, String)>,
}

impl Watcher {
    fn new(paths: &[&Path]) -> Watcher {
        // SAFETY: a call without pointers; the descriptor is new and belongs to the file.
        let file = unsafe { fs::File::from_raw_fd(libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC)) };
        for p in paths {
            let c = std::ffi::CString::new(p.as_os_str().as_bytes()).unwrap();
            // SAFETY: the path is a string that ends in NUL and lives through the call.
            let wd = unsafe { libc::inotify_add_watch(file.as_raw_fd(), c.as_ptr(), libc::IN_ALL_EVENTS) };
            assert!(wd > 0, "{}: {}", p.display(), std::io::Error::last_os_error());
        }
        Watcher { file, heard: BTreeSet::new() }
    }

    fn read(&mut self) {
        let mut buf = [0u8; 64 << 10];
        while let Ok(n @ 1..) = self.file.read(&mut buf) {
            let mut at = 0;
            while at < n {
                let word = |i: usize| u32::from_ne_bytes(buf[at + i..at + i + 4].try_into().unwrap());
                let (mask, len) = (word(4), word(12) as usize);
                let name = String::from_utf8_lossy(&buf[at + 16..at + 16 + len]).trim_end_matches('\0').to_owned();
                for bit in 0..32 {
                    if mask & (1 << bit) != 0 {
                        self.heard.insert((1 << bit, name.clone()));
                    }
                }
                at += 16 + len;
            }
        }
    }

    /// Waits until these events of this name have come.
    fn hears(&mut self, name: &str, events: &[(&str, u32)]) {
        for (what, event) in events {
            until(&format!("{what} of {name:?}"), PATIENCE, || {
                self.read();
                self.heard.contains(&(*event, name.to_owned())).then_some(())
            });
        }
        self.heard.clear();
    }
}

const CREATE: (&str, u32) = ("IN_CREATE", libc::IN_CREATE);
const MODIFY: (&str, u32) = ("IN_MODIFY", libc::IN_MODIFY);
const CLOSE_WRITE: (&str, u32) = ("IN_CLOSE_WRITE", libc::IN_CLOSE_WRITE);
const ATTRIB: (&str, u32) = ("IN_ATTRIB", libc::IN_ATTRIB);
const DELETE: (&str, u32) = ("IN_DELETE", libc::IN_DELETE);
const DELETE_SELF: (&str, u32) = ("IN_DELETE_SELF", libc::IN_DELETE_SELF);
const IS_DIR: (&str, u32) = ("IN_ISDIR", libc::IN_ISDIR);

fn two() -> (Mounted, Mounted) {
    let w = World::new();
    (w.mount("ann"), w.mount("bob"))
}

fn text(p: impl AsRef<Path>) -> String {
    fs::read_to_string(p).unwrap_or_default()
}

#[test]
fn who_watches_a_directory_hears_what_another_machine_does_in_it() {
    drive_only!();
    let (ann, bob) = two();
    fs::create_dir(ann.path("d")).unwrap();
    fs::write(ann.path("d/old"), "old").unwrap();
    until("the directory is there", PATIENCE, || (text(bob.path("d/old")) == "old").then_some(()));
    let mut w = Watcher::new(&[&bob.path("d")]);
    // Looked up before, and known not to be there.
    assert!(!bob.path("d/new").exists());

    fs::write(ann.path("d/new"), "one").unwrap();
    w.hears("new", &[CREATE, MODIFY, CLOSE_WRITE]);
    assert_eq!(text(bob.path("d/new")), "one");
    fs::write(ann.path("d/new"), "two, longer").unwrap();
    w.hears("new", &[MODIFY, CLOSE_WRITE]);
    until("the new content", PATIENCE, || (text(bob.path("d/new")) == "two, longer").then_some(()));
    fs::create_dir(ann.path("d/sub")).unwrap();
    w.hears("sub", &[CREATE, IS_DIR]);
    std::os::unix::fs::symlink("old", ann.path("d/link")).unwrap();
    w.hears("link", &[CREATE]);
    assert_eq!(text(bob.path("d/link")), "old");
    fs::rename(ann.path("d/old"), ann.path("d/moved")).unwrap();
    w.hears("old", &[DELETE]);
    until("under its new name", PATIENCE, || (text(bob.path("d/moved")) == "old").then_some(()));
    // A directory that moves is alive at its new place.
    fs::write(ann.path("d/sub/in"), "in").unwrap();
    until("inside", PATIENCE, || (text(bob.path("d/sub/in")) == "in").then_some(()));
    w.read();
    w.heard.clear();
    fs::rename(ann.path("d/sub"), ann.path("d/sub2")).unwrap();
    w.hears("sub", &[DELETE, IS_DIR]);
    until("it moved", PATIENCE, || (text(bob.path("d/sub2/in")) == "in").then_some(()));
    fs::write(bob.path("d/sub2/from-bob"), "x").unwrap();
    assert!(!bob.path("d/sub").exists());
    fs::remove_file(ann.path("d/new")).unwrap();
    w.hears("new", &[DELETE]);
    assert!(!bob.path("d/new").exists());

    // Nothing of it was done here: no version, no pending change, and the drive is as before.
    bob.wait();
    until("ann has what bob wrote", PATIENCE, || (text(ann.path("d/sub2/from-bob")) == "x").then_some(()));
    let by_bob = |p: &str| bob.cli(&["--json", "history", p]).ok().json().iter().filter(|v| v["device"]["name"] == "bob").count();
    for p in ["d/new", "d/old", "d/moved", "d/link", "d/sub2/in"] {
        assert_eq!(by_bob(p), 0, "{p}");
    }
    let names = |m: &Mounted| {
        let mut all: Vec<_> = fs::read_dir(m.path("d")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    };
    assert_eq!((names(&ann), names(&bob)), (vec!["link".into(), "moved".into(), "sub2".into()], names(&ann)));
}

#[test]
fn who_watches_a_file_hears_that_it_changed_and_that_it_went() {
    drive_only!();
    let (ann, bob) = two();
    fs::write(ann.path("f"), "one").unwrap();
    fs::write(ann.path("g"), "one").unwrap();
    until("the files are there", PATIENCE, || (text(bob.path("f")) == "one" && text(bob.path("g")) == "one").then_some(()));
    let mut w = Watcher::new(&[&bob.path("f")]);
    fs::set_permissions(ann.path("f"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    w.hears("", &[ATTRIB]);
    // Another content is another file under the name, as a save by rename makes it.
    fs::write(ann.path("f"), "two").unwrap();
    w.hears("", &[ATTRIB, DELETE_SELF]);
    until("the new content", PATIENCE, || (text(bob.path("f")) == "two").then_some(()));
    let mut w = Watcher::new(&[&bob.path("g")]);
    fs::remove_file(ann.path("g")).unwrap();
    w.hears("", &[DELETE_SELF]);
    assert!(!bob.path("g").exists());
}

#[test]
fn the_own_work_of_a_machine_is_not_told_twice() {
    drive_only!();
    let (ann, _bob) = two();
    let mut w = Watcher::new(&[ann.root()]);
    for i in 0..20 {
        fs::write(ann.path(format!("f{i}")), "text").unwrap();
    }
    ann.wait();
    std::thread::sleep(Duration::from_millis(300));
    w.read();
    let created = w.heard.iter().filter(|(e, _)| *e == libc::IN_CREATE).count();
    assert_eq!((created, w.heard.iter().filter(|(e, _)| *e == libc::IN_DELETE).count()), (20, 0));
}
