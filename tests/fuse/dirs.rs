//! Directories: link counts, large ones while they change, what a remount keeps.

use crate::common::{Mounted, World, count, native, sys, tree};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[test]
fn link_count_of_a_directory_counts_its_subdirectories() {
    let m = Mounted::new();
    fs::create_dir(m.path("d")).unwrap();
    let nlink = || fs::metadata(m.path("d")).unwrap().nlink();
    assert_eq!(nlink(), 2);
    for n in ["a", "b", "c"] {
        fs::create_dir(m.path("d").join(n)).unwrap();
    }
    fs::write(m.path("d/file"), "").unwrap();
    assert_eq!(nlink(), 5);
    fs::rename(m.path("d/a"), m.path("a")).unwrap();
    assert_eq!(nlink(), 4);
    fs::remove_dir(m.path("d/b")).unwrap();
    assert_eq!(nlink(), 3);
    fs::create_dir(m.path("x")).unwrap();
    fs::rename(m.path("x"), m.path("d/c")).unwrap();
    assert_eq!(nlink(), 3);
}

#[test]
fn dot_entries_name_the_right_inodes() {
    let m = Mounted::new();
    fs::create_dir_all(m.path("d/e")).unwrap();
    let out = crate::common::cli::sh(m.root(), "ls -ai d/e | awk '{print $1}'; stat -c %i d/e d", &[]).ok();
    let n: Vec<&str> = out.stdout.lines().collect();
    assert_eq!((n[0], n[1]), (n[2], n[3]), "{n:?}");
}

#[test]
fn removed_working_directory_gives_errors_not_trouble() {
    let m = Mounted::new();
    fs::create_dir(m.path("d")).unwrap();
    let d = fs::File::open(m.path("d")).unwrap();
    fs::remove_dir(m.path("d")).unwrap();
    assert_eq!(d.metadata().unwrap().nlink(), 0);
    let inside = PathBuf::from(format!("/proc/self/fd/{}/f", std::os::fd::AsRawFd::as_raw_fd(&d)));
    assert_eq!(sys::errno(fs::write(inside, "x")), libc::ENOENT);
    fs::create_dir(m.path("d")).unwrap();
    assert_eq!(fs::read_dir(m.path("d")).unwrap().count(), 0);
}

#[test]
fn large_directory_lists_every_stable_entry_once_while_others_come_and_go() {
    let m = Mounted::new();
    let dir = m.path("many");
    fs::create_dir(&dir).unwrap();
    let n = count(5_000, 100_000);
    for i in 0..n {
        fs::File::create(dir.join(format!("stable-{i:06}"))).unwrap();
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        let changes = s.spawn(|| {
            let mut done = 0usize;
            while !stop.load(Ordering::Relaxed) {
                let p = dir.join(format!("coming-{}", done % 500));
                fs::write(&p, "x").unwrap();
                if done.is_multiple_of(3) {
                    fs::rename(&p, dir.join(format!("going-{}", done % 500))).unwrap();
                } else {
                    fs::remove_file(&p).unwrap();
                }
                done += 1;
            }
            done
        });
        for round in 0..3 {
            let mut seen: BTreeMap<String, u32> = BTreeMap::new();
            for e in fs::read_dir(&dir).unwrap() {
                *seen.entry(e.unwrap().file_name().into_string().unwrap()).or_default() += 1;
            }
            let stable = seen.iter().filter(|(k, _)| k.starts_with("stable-"));
            let twice: Vec<_> = stable.clone().filter(|(_, c)| **c != 1).take(5).collect();
            assert!(twice.is_empty(), "round {round}: listed more than once: {twice:?}");
            assert_eq!(stable.count(), n, "round {round}: entries were left out");
        }
        stop.store(true, Ordering::Relaxed);
        assert!(changes.join().unwrap() > 0, "nothing came or went meanwhile");
    });
    // rm -rf reads and removes in turns.
    crate::common::cli::run(std::process::Command::new("rm").arg("-rf").arg(&dir), Duration::from_secs(300)).ok();
    assert_eq!(sys::errno(fs::metadata(&dir)), libc::ENOENT);
}

#[test]
fn listing_resumes_at_a_remembered_place() {
    let m = Mounted::new();
    for i in 0..3000 {
        fs::write(m.path(format!("f{i}")), "").unwrap();
    }
    // SAFETY: the stream is opened, used and closed in this block only.
    unsafe {
        let d = libc::opendir(sys::c(m.root()).as_ptr());
        assert!(!d.is_null());
        let name = |e: *mut libc::dirent64| std::ffi::CStr::from_ptr((*e).d_name.as_ptr()).to_owned();
        let mut first = vec![];
        let mut at = 0;
        for i in 0..2000 {
            let e = libc::readdir64(d);
            assert!(!e.is_null(), "ended after {i}");
            if i == 999 {
                at = libc::telldir(d);
            }
            first.push(name(e));
        }
        libc::seekdir(d, at);
        let again = name(libc::readdir64(d));
        assert_eq!(again, first[1000]);
        libc::rewinddir(d);
        assert_eq!(name(libc::readdir64(d)), first[0]);
        libc::closedir(d);
    }
}

#[test]
fn remount_keeps_everything_inode_numbers_too() {
    let m = Mounted::new();
    tree::odd(m.root());
    fs::hard_link(m.path("odd/mode-644"), m.path("linked")).unwrap();
    let inodes = |root: &std::path::Path| -> BTreeMap<PathBuf, u64> {
        tree::scan(root).into_keys().map(|p| (p.clone(), fs::symlink_metadata(root.join(p)).unwrap().ino())).collect()
    };
    let (want, numbers) = (tree::scan(m.root()), inodes(m.root()));
    m.unmount();
    if !native() {
        assert_eq!(fs::read_dir(m.root()).unwrap().count(), 0, "files under the mount point after unmounting");
    }
    m.mount();
    tree::assert_same("after a remount", &want, &tree::scan(m.root()));
    assert_eq!(numbers, inodes(m.root()));
    fs::rename(m.path("odd"), m.path("even")).unwrap();
    m.wait();
    m.remount();
    for (p, ino) in numbers.iter().filter(|(p, _)| p.starts_with("odd")) {
        let now = PathBuf::from("even").join(p.strip_prefix("odd").unwrap());
        assert_eq!(fs::symlink_metadata(m.path(&now)).unwrap().ino(), *ino, "{}", now.display());
    }
    let distinct: BTreeSet<u64> = numbers.values().copied().collect();
    assert_eq!(distinct.len(), numbers.len() - 1, "two names share an inode, no others do");
}

#[test]
fn second_machine_on_the_same_store_lists_the_same() {
    // A second machine on the same store is another mount with its own numbers; both list the same. The time of a listing
    // is set by the kernel of whoever changes it and travels with the names: on the second machine it is when the last
    // name was written there, to the millisecond and up to its close. So those times are compared by when the first
    // machine was at work; what was set with utimensat is the same to the nanosecond.
    let w = World::new();
    let a = w.mount("ann");
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i128;
    let start = now();
    tree::odd(a.root());
    a.wait();
    let end = now();
    // Whatever the second machine does happens later.
    until_after(end);
    let b = w.mount("bob");
    let listed = |root: &std::path::Path| {
        let mut all = tree::scan(root);
        for n in all.values_mut().filter(|n| n.mode & libc::S_IFMT == libc::S_IFDIR) {
            let ms = i128::from(n.mtime.0) * 1000 + i128::from(n.mtime.1 / 1_000_000);
            if (start..=end).contains(&ms) {
                n.mtime = (0, 0);
            }
        }
        all
    };
    tree::assert_same("on the second machine", &listed(a.root()), &listed(b.root()));
}

/// Until the clock shows more than `ms`.
fn until_after(ms: i128) {
    while std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i128 <= ms {
        std::thread::sleep(Duration::from_millis(1));
    }
}
