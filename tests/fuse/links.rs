//! Hard links and symlinks.

use crate::common::{Mounted, sys};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

#[test]
fn hard_link_is_the_same_file_under_two_names() {
    let m = Mounted::new();
    fs::create_dir(m.path("d")).unwrap();
    fs::write(m.path("a"), "one").unwrap();
    fs::hard_link(m.path("a"), m.path("d/b")).unwrap();
    let (a, b) = (fs::metadata(m.path("a")).unwrap(), fs::metadata(m.path("d/b")).unwrap());
    assert_eq!((a.ino(), a.nlink(), b.nlink()), (b.ino(), 2, 2));
    OpenOptions::new().append(true).open(m.path("d/b")).unwrap().write_all(b" two").unwrap();
    assert_eq!(fs::read(m.path("a")).unwrap(), b"one two");
    fs::set_permissions(m.path("a"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(fs::metadata(m.path("d/b")).unwrap().mode() & 0o777, 0o640);
    fs::remove_file(m.path("a")).unwrap();
    assert_eq!(fs::metadata(m.path("d/b")).unwrap().nlink(), 1);
    assert_eq!(fs::read(m.path("d/b")).unwrap(), b"one two");
}

#[test]
fn hard_links_survive_publishing_and_a_remount_as_links() {
    let m = Mounted::new();
    fs::write(m.path("a"), vec![5u8; 700_000]).unwrap();
    fs::hard_link(m.path("a"), m.path("b")).unwrap();
    m.wait();
    m.remount();
    let (a, b) = (fs::metadata(m.path("a")).unwrap(), fs::metadata(m.path("b")).unwrap());
    assert_eq!((a.ino(), a.nlink()), (b.ino(), 2));
    OpenOptions::new().append(true).open(m.path("b")).unwrap().write_all(b"more").unwrap();
    assert_eq!(fs::metadata(m.path("a")).unwrap().len(), 700_004);
}

#[test]
fn replacing_one_name_leaves_the_other_with_the_old_bytes() {
    let m = Mounted::new();
    fs::write(m.path("a"), "old").unwrap();
    fs::hard_link(m.path("a"), m.path("b")).unwrap();
    fs::write(m.path("t"), "new").unwrap();
    fs::rename(m.path("t"), m.path("a")).unwrap();
    assert_eq!((fs::read(m.path("a")).unwrap(), fs::read(m.path("b")).unwrap()), (b"new".to_vec(), b"old".to_vec()));
    assert_eq!(fs::metadata(m.path("b")).unwrap().nlink(), 1);
}

#[test]
fn links_that_make_no_sense_get_the_usual_errno() {
    let m = Mounted::new();
    fs::create_dir(m.path("d")).unwrap();
    fs::write(m.path("f"), "").unwrap();
    assert_eq!(sys::errno(fs::hard_link(m.path("d"), m.path("e"))), libc::EPERM);
    assert_eq!(sys::errno(fs::hard_link(m.path("f"), m.path("d"))), libc::EEXIST);
    assert_eq!(sys::errno(fs::hard_link(m.path("none"), m.path("e"))), libc::ENOENT);
}

#[test]
fn symlinks_keep_their_text_and_are_followed() {
    let m = Mounted::new();
    fs::create_dir(m.path("d")).unwrap();
    fs::write(m.path("d/f"), "x").unwrap();
    for (link, target) in [("l", "d/f"), ("dangling", "none"), ("abs", "/etc/hostname"), ("dir", "d"), ("odd", "a b\nü")] {
        symlink(target, m.path(link)).unwrap();
        assert_eq!(fs::read_link(m.path(link)).unwrap().to_str(), Some(target));
        assert_eq!(fs::symlink_metadata(m.path(link)).unwrap().len(), target.len() as u64);
    }
    assert_eq!(fs::read(m.path("l")).unwrap(), b"x");
    assert_eq!(fs::read(m.path("dir/f")).unwrap(), b"x");
    assert_eq!(sys::errno(fs::read(m.path("dangling"))), libc::ENOENT);
    assert_eq!(sys::errno(symlink("x", m.path("l"))), libc::EEXIST);
    symlink("loop", m.path("loop")).unwrap();
    assert_eq!(sys::errno(fs::read(m.path("loop"))), libc::ELOOP);
    assert_eq!(sys::errno(sys::open(&m.path("l"), libc::O_RDONLY | libc::O_NOFOLLOW, 0)), libc::ELOOP);
    m.wait();
    m.remount();
    assert_eq!(fs::read_link(m.path("odd")).unwrap().to_str(), Some("a b\nü"));
    assert_eq!(fs::read(m.path("dir/f")).unwrap(), b"x");
}
