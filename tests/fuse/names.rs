//! Names: long ones, odd ones, forms of Unicode, bytes that are no text.

use crate::common::{Mounted, native, sys, tree, until};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

#[test]
fn odd_names_work_as_files_and_directories() {
    let m = Mounted::new();
    tree::odd(m.root());
    let want = tree::scan(m.root());
    m.wait();
    m.remount();
    tree::assert_same("after a remount", &want, &tree::scan(m.root()));
}

#[test]
fn component_of_256_bytes_is_enametoolong() {
    let m = Mounted::new();
    fs::write(m.path("a".repeat(255)), "x").unwrap();
    assert_eq!(sys::errno(fs::write(m.path("a".repeat(256)), "x")), libc::ENAMETOOLONG);
    assert_eq!(sys::errno(fs::create_dir(m.path("ü".repeat(128)))), libc::ENAMETOOLONG);
    assert_eq!(sys::errno(fs::rename(m.path("a".repeat(255)), m.path("b".repeat(256)))), libc::ENAMETOOLONG);
    assert_eq!(fs::read_dir(m.root()).unwrap().count(), 1);
}

#[test]
fn deep_directories_work() {
    let m = Mounted::new();
    let deep = "dir-with-a-name/".repeat(100);
    fs::create_dir_all(m.path(&deep)).unwrap();
    fs::write(m.path(&deep).join("f"), "deep").unwrap();
    m.wait();
    m.remount();
    assert_eq!(fs::read(m.path(&deep).join("f")).unwrap(), b"deep");
}

#[test]
fn composed_and_decomposed_forms_are_one_file() {
    if native() {
        return; // a disk keeps them apart: this is where the drive is kinder
    }
    let m = Mounted::new();
    let (nfc, nfd) = ("caf\u{e9}", "cafe\u{301}");
    fs::write(m.path(nfd), "one").unwrap();
    assert_eq!(fs::read(m.path(nfc)).unwrap(), b"one");
    fs::write(m.path(nfc), "two").unwrap();
    assert_eq!(fs::read(m.path(nfd)).unwrap(), b"two");
    let names: Vec<_> = fs::read_dir(m.root()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names, [nfc]);
    fs::rename(m.path(nfd), m.path("plain")).unwrap();
    for n in [nfc, nfd] {
        // The kernel is told a moment later of what was done under another spelling.
        until("the name is gone", std::time::Duration::from_secs(10), || fs::metadata(m.path(n)).is_err().then_some(()));
    }
}

#[test]
fn every_spelling_of_a_name_is_told_of_what_the_others_did() {
    if native() {
        return;
    }
    let m = Mounted::new();
    let spelled = ["caf\u{e9}", "cafe\u{301}"];
    // The kernel is told a moment later what was done under another spelling.
    let soon = std::time::Duration::from_secs(10);
    let gone = |n: &str| until("the name is gone", soon, || fs::metadata(m.path(n)).is_err().then_some(()));
    let shows = |n: &str, text: &str| until("the text is there", soon, || (fs::read(m.path(n)).ok()? == text.as_bytes()).then_some(()));
    for (i, one) in spelled.iter().enumerate() {
        let other = spelled[1 - i];
        for n in spelled {
            gone(n);
        }
        fs::write(m.path(one), "made").unwrap();
        shows(other, "made");
        fs::remove_file(m.path(other)).unwrap();
        gone(one);
        fs::create_dir(m.path(one)).unwrap();
        until("the directory is there", soon, || fs::metadata(m.path(other)).is_ok_and(|d| d.is_dir()).then_some(()));
        fs::remove_dir(m.path(other)).unwrap();
        gone(one);
        fs::write(m.path("plain"), "moved").unwrap();
        fs::rename(m.path("plain"), m.path(one)).unwrap();
        shows(other, "moved");
        fs::rename(m.path(other), m.path("plain")).unwrap();
        gone(one);
        fs::hard_link(m.path("plain"), m.path(other)).unwrap();
        shows(one, "moved");
        fs::remove_file(m.path(one)).unwrap();
        fs::remove_file(m.path("plain")).unwrap();
    }
}

#[test]
fn bytes_that_are_no_utf8_are_eilseq() {
    if native() {
        return; // a disk takes any bytes; these could never reach a Mac
    }
    let m = Mounted::new();
    let bad = m.path(OsStr::from_bytes(b"latin1-\xe9"));
    assert_eq!(sys::errno(fs::write(&bad, "x")), libc::EILSEQ);
    assert_eq!(sys::errno(fs::create_dir(&bad)), libc::EILSEQ);
    assert_eq!(sys::errno(std::os::unix::fs::symlink("x", &bad)), libc::EILSEQ);
    fs::write(m.path("ok"), "x").unwrap();
    assert_eq!(sys::errno(fs::rename(m.path("ok"), &bad)), libc::EILSEQ);
    assert_eq!(fs::read_dir(m.root()).unwrap().count(), 1);
}

#[test]
fn case_matters() {
    let m = Mounted::new();
    for n in ["f", "F", "straße", "STRASSE"] {
        fs::write(m.path(n), n).unwrap();
    }
    for n in ["f", "F", "straße", "STRASSE"] {
        assert_eq!(fs::read_to_string(m.path(n)).unwrap(), n);
    }
}

#[test]
fn conflict_like_names_are_ordinary_when_a_person_makes_them() {
    let m = Mounted::new();
    fs::write(m.path("plan.md"), "plan").unwrap();
    fs::write(m.path("plan.conflict-bob.md"), "mine").unwrap();
    m.wait();
    m.remount();
    assert_eq!(fs::read(m.path("plan.conflict-bob.md")).unwrap(), b"mine");
    fs::remove_file(m.path("plan.conflict-bob.md")).unwrap();
    assert_eq!(fs::read(m.path("plan.md")).unwrap(), b"plan");
    assert_eq!(fs::read_dir(m.root()).unwrap().count(), 1);
}
