//! Renames: over files and directories, with flags, under open handles.

use crate::common::{Mounted, sys};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};

#[test]
fn rename_over_an_existing_file_replaces_it_at_once() {
    let m = Mounted::new();
    fs::write(m.path("f"), "old").unwrap();
    fs::write(m.path("t"), "new").unwrap();
    let ino = fs::metadata(m.path("t")).unwrap().ino();
    fs::rename(m.path("t"), m.path("f")).unwrap();
    assert_eq!(fs::read(m.path("f")).unwrap(), b"new");
    assert_eq!(fs::metadata(m.path("f")).unwrap().ino(), ino);
    assert_eq!(sys::errno(fs::metadata(m.path("t"))), libc::ENOENT);
}

#[test]
fn noreplace_refuses_and_exchange_swaps() {
    let m = Mounted::new();
    fs::write(m.path("a"), "A").unwrap();
    fs::write(m.path("b"), "B").unwrap();
    assert_eq!(sys::errno(sys::rename(&m.path("a"), &m.path("b"), libc::RENAME_NOREPLACE)), libc::EEXIST);
    assert_eq!((fs::read(m.path("a")).unwrap(), fs::read(m.path("b")).unwrap()), (b"A".to_vec(), b"B".to_vec()));
    sys::rename(&m.path("a"), &m.path("b"), libc::RENAME_EXCHANGE).unwrap();
    assert_eq!((fs::read(m.path("a")).unwrap(), fs::read(m.path("b")).unwrap()), (b"B".to_vec(), b"A".to_vec()));
    sys::rename(&m.path("a"), &m.path("c"), libc::RENAME_NOREPLACE).unwrap();
    assert_eq!(fs::read(m.path("c")).unwrap(), b"B");
    assert_eq!(sys::errno(sys::rename(&m.path("b"), &m.path("none"), libc::RENAME_EXCHANGE)), libc::ENOENT);
}

#[test]
fn exchange_of_a_file_with_a_directory_keeps_what_is_in_it() {
    let m = Mounted::new();
    fs::create_dir(m.path("d")).unwrap();
    fs::write(m.path("d/in"), "in").unwrap();
    fs::write(m.path("f"), "f").unwrap();
    sys::rename(&m.path("d"), &m.path("f"), libc::RENAME_EXCHANGE).unwrap();
    assert_eq!(fs::read(m.path("d")).unwrap(), b"f");
    assert_eq!(fs::read(m.path("f/in")).unwrap(), b"in");
    m.wait();
    m.remount();
    assert_eq!(fs::read(m.path("d")).unwrap(), b"f");
    assert_eq!(fs::read(m.path("f/in")).unwrap(), b"in");
}

#[test]
fn handle_of_a_replaced_file_keeps_the_old_bytes() {
    let m = Mounted::new();
    fs::write(m.path("f"), "old").unwrap();
    let old = OpenOptions::new().read(true).write(true).open(m.path("f")).unwrap();
    fs::write(m.path("t"), "new").unwrap();
    fs::rename(m.path("t"), m.path("f")).unwrap();
    let mut b = [0u8; 3];
    old.read_exact_at(&mut b, 0).unwrap();
    assert_eq!(&b, b"old");
    old.write_all_at(b"OLD", 0).unwrap();
    drop(old);
    assert_eq!(fs::read(m.path("f")).unwrap(), b"new");
}

#[test]
fn handle_of_a_moved_file_writes_to_where_it_went() {
    let m = Mounted::new();
    fs::create_dir_all(m.path("d/e")).unwrap();
    let f = File::create(m.path("d/e/f")).unwrap();
    f.write_all_at(b"one", 0).unwrap();
    fs::rename(m.path("d/e/f"), m.path("g")).unwrap();
    f.write_all_at(b"two", 3).unwrap();
    fs::rename(m.path("d"), m.path("h")).unwrap();
    drop(f);
    assert_eq!(fs::read(m.path("g")).unwrap(), b"onetwo");
    assert_eq!(sys::errno(fs::metadata(m.path("h/e/f"))), libc::ENOENT);
}

#[test]
fn handle_inside_a_moved_directory_goes_on() {
    let m = Mounted::new();
    fs::create_dir_all(m.path("d/e")).unwrap();
    let f = File::create(m.path("d/e/f")).unwrap();
    f.write_all_at(b"one", 0).unwrap();
    fs::rename(m.path("d"), m.path("moved")).unwrap();
    f.write_all_at(b"two", 3).unwrap();
    drop(f);
    assert_eq!(fs::read(m.path("moved/e/f")).unwrap(), b"onetwo");
    fs::create_dir(m.path("d")).unwrap();
    assert_eq!(fs::read_dir(m.path("d")).unwrap().count(), 0);
}

#[test]
fn directories_replace_only_empty_directories() {
    let m = Mounted::new();
    for d in ["full", "empty", "src"] {
        fs::create_dir(m.path(d)).unwrap();
    }
    fs::write(m.path("full/x"), "x").unwrap();
    fs::write(m.path("src/y"), "y").unwrap();
    fs::write(m.path("file"), "f").unwrap();
    assert_eq!(sys::errno(fs::rename(m.path("src"), m.path("full"))), libc::ENOTEMPTY);
    assert_eq!(sys::errno(fs::rename(m.path("src"), m.path("file"))), libc::ENOTDIR);
    assert_eq!(sys::errno(fs::rename(m.path("file"), m.path("src"))), libc::EISDIR);
    assert_eq!(sys::errno(fs::rename(m.path("src"), m.path("src/inside"))), libc::EINVAL);
    fs::rename(m.path("src"), m.path("empty")).unwrap();
    assert_eq!(fs::read(m.path("empty/y")).unwrap(), b"y");
    assert_eq!(sys::errno(fs::remove_dir(m.path("empty"))), libc::ENOTEMPTY);
    assert_eq!(sys::errno(fs::remove_file(m.path("empty"))), libc::EISDIR);
    assert_eq!(sys::errno(fs::remove_dir(m.path("file"))), libc::ENOTDIR);
}

#[test]
fn rename_onto_itself_and_onto_another_name_of_the_same_file_does_nothing() {
    let m = Mounted::new();
    fs::write(m.path("a"), "x").unwrap();
    fs::rename(m.path("a"), m.path("a")).unwrap();
    fs::hard_link(m.path("a"), m.path("b")).unwrap();
    // POSIX: both names stay.
    fs::rename(m.path("a"), m.path("b")).unwrap();
    assert_eq!(fs::read(m.path("a")).unwrap(), b"x");
    assert_eq!(fs::read(m.path("b")).unwrap(), b"x");
}

#[test]
fn case_only_rename_is_a_rename() {
    let m = Mounted::new();
    fs::write(m.path("Readme"), "x").unwrap();
    fs::rename(m.path("Readme"), m.path("README")).unwrap();
    let names: Vec<_> = fs::read_dir(m.root()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["README"]);
}
