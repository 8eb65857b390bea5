//! Modes, owners, times, extended attributes, statfs.

use crate::common::{Mounted, native, sys};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

fn ctime(p: &Path) -> (i64, i64) {
    let m = fs::symlink_metadata(p).unwrap();
    (m.ctime(), m.ctime_nsec())
}

fn mtime(p: &Path) -> (i64, i64) {
    let m = fs::symlink_metadata(p).unwrap();
    (m.mtime(), m.mtime_nsec())
}

/// Runs `change` and asserts that the change time of `p` moved. The clock of a disk may tick only every 10 ms.
#[track_caller]
fn moves_ctime(what: &str, p: &Path, change: impl FnOnce()) {
    let before = ctime(p);
    std::thread::sleep(std::time::Duration::from_millis(12));
    change();
    assert!(ctime(p) > before, "{what} did not move ctime");
}

#[test]
fn mode_bits_are_kept_as_given() {
    let m = Mounted::new();
    let p = m.path("f");
    fs::write(&p, "x").unwrap();
    for mode in [0o644, 0o755, 0o600, 0o444, 0o000, 0o4755, 0o2755, 0o1777, 0o7777] {
        fs::set_permissions(&p, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(fs::metadata(&p).unwrap().mode(), 0o100000 | mode);
    }
    fs::create_dir(m.path("d")).unwrap();
    fs::set_permissions(m.path("d"), fs::Permissions::from_mode(0o1770)).unwrap();
    fs::set_permissions(&p, fs::Permissions::from_mode(0o4711)).unwrap();
    m.wait();
    m.remount();
    assert_eq!(fs::metadata(&p).unwrap().mode(), 0o104711);
    assert_eq!(fs::metadata(m.path("d")).unwrap().mode(), 0o041770);
}

#[test]
fn umask_applies_to_new_files_once() {
    let m = Mounted::new();
    let script = "umask 027; mkdir d; : >f; umask 0; : >g; mkdir e; stat -c %a d f g e";
    let out = crate::common::cli::sh(m.root(), script, &[]).ok();
    assert_eq!(out.stdout, "750\n640\n666\n777\n");
}

#[test]
fn times_are_set_to_the_nanosecond_and_survive_a_remount() {
    let m = Mounted::new();
    let p = m.path("f");
    fs::write(&p, "x").unwrap();
    for t in [(1_234_567_890, 123_456_789), (0, 0), (1, 999_999_999), (4_000_000_000, 1), (-1, 5), (-86_401, 999_999_995), (-9_000, 0)] {
        sys::set_times(&p, (1_000_000_000, 7), t).unwrap();
        assert_eq!(mtime(&p), t);
    }
    let a = fs::metadata(&p).unwrap();
    assert_eq!((a.atime(), a.atime_nsec()), (1_000_000_000, 7));
    sys::set_times(&p, sys::OMIT, (5, 5)).unwrap();
    let a = fs::metadata(&p).unwrap();
    assert_eq!((a.atime(), a.mtime(), a.mtime_nsec()), (1_000_000_000, 5, 5));
    std::os::unix::fs::symlink("f", m.path("l")).unwrap();
    sys::set_times(&m.path("l"), sys::OMIT, (77, 7)).unwrap();
    assert_eq!((mtime(&m.path("l")), mtime(&p)), ((77, 7), (5, 5)));
    m.wait();
    m.remount();
    assert_eq!((mtime(&m.path("l")), mtime(&p)), ((77, 7), (5, 5)));
}

#[test]
fn changes_move_the_times_they_should() {
    let m = Mounted::new();
    let (p, d) = (m.path("f"), m.root().to_owned());
    fs::write(&p, "x").unwrap();
    moves_ctime("chmod", &p, || fs::set_permissions(&p, fs::Permissions::from_mode(0o600)).unwrap());
    moves_ctime("utimes", &p, || sys::set_times(&p, sys::OMIT, (9, 9)).unwrap());
    moves_ctime("link", &p, || fs::hard_link(&p, m.path("l")).unwrap());
    moves_ctime("unlink of another name", &p, || fs::remove_file(m.path("l")).unwrap());
    moves_ctime("setxattr", &p, || sys::set_xattr(&p, "user.a", b"1", 0).unwrap());
    moves_ctime("removexattr", &p, || sys::remove_xattr(&p, "user.a").unwrap());
    assert_eq!(mtime(&p), (9, 9));
    moves_ctime("write", &p, || OpenOptions::new().write(true).open(&p).unwrap().write_all_at(b"y", 0).unwrap());
    assert!(mtime(&p).0 > 9, "write did not move mtime");
    sys::set_times(&p, sys::OMIT, (9, 9)).unwrap();
    moves_ctime("truncate", &p, || OpenOptions::new().write(true).open(&p).unwrap().set_len(0).unwrap());
    assert!(mtime(&p).0 > 9, "truncate did not move mtime");

    let step = |what: &str, act: &dyn Fn()| {
        sys::set_times(&d, sys::OMIT, (9, 9)).unwrap();
        moves_ctime(what, &d, act);
        assert!(mtime(&d).0 > 9, "{what} did not move the directory's mtime");
    };
    step("create", &|| fs::write(m.path("n"), "").unwrap());
    step("mkdir", &|| fs::create_dir(m.path("nd")).unwrap());
    step("rename", &|| fs::rename(m.path("n"), m.path("n2")).unwrap());
    step("unlink", &|| fs::remove_file(m.path("n2")).unwrap());
    step("rmdir", &|| fs::remove_dir(m.path("nd")).unwrap());
    step("symlink", &|| std::os::unix::fs::symlink("x", m.path("s")).unwrap());
}

#[test]
fn a_copy_that_sets_times_before_closing_keeps_them() {
    // cp -a and tar set the times on the open handle: sealing at close must not touch them.
    let m = Mounted::new();
    let p = m.path("f");
    let f = fs::File::create(&p).unwrap();
    f.write_all_at(b"data", 0).unwrap();
    f.set_times(fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(1000, 17))).unwrap();
    drop(f);
    assert_eq!(mtime(&p), (1000, 17));
    m.wait();
    assert_eq!(mtime(&p), (1000, 17));
    m.remount();
    assert_eq!(mtime(&p), (1000, 17));
}

#[test]
fn user_attributes_of_files_and_directories() {
    let m = Mounted::new();
    let (f, d) = (m.path("f"), m.path("d"));
    fs::write(&f, "x").unwrap();
    fs::create_dir(&d).unwrap();
    for p in [&f, &d] {
        sys::set_xattr(p, "user.a", b"one", libc::XATTR_CREATE).unwrap();
        assert_eq!(sys::errno(sys::set_xattr(p, "user.a", b"x", libc::XATTR_CREATE)), libc::EEXIST);
        assert_eq!(sys::errno(sys::set_xattr(p, "user.none", b"x", libc::XATTR_REPLACE)), libc::ENODATA);
        sys::set_xattr(p, "user.a", b"\x00two\xff", libc::XATTR_REPLACE).unwrap();
        sys::set_xattr(p, "user.empty", b"", 0).unwrap();
        assert_eq!(sys::errno(sys::get_xattr(p, "user.none")), libc::ENODATA);
        assert_eq!(sys::errno(sys::remove_xattr(p, "user.none")), libc::ENODATA);
        sys::set_xattr(p, "user.gone", b"x", 0).unwrap();
        sys::remove_xattr(p, "user.gone").unwrap();
    }
    m.wait();
    m.remount();
    for p in [&f, &d] {
        assert_eq!(sys::get_xattr(p, "user.a").unwrap(), b"\x00two\xff");
        assert_eq!(sys::get_xattr(p, "user.empty").unwrap(), b"");
        let names: Vec<String> =
            sys::list_xattr(p).unwrap().into_iter().filter(|n| !n.starts_with("user.tcfs.") && n.starts_with("user.")).collect();
        assert_eq!(names, ["user.a", "user.empty"]);
    }
}

#[test]
fn attribute_buffer_too_small_is_erange_and_zero_asks_the_size() {
    let m = Mounted::new();
    let p = m.path("f");
    fs::write(&p, "x").unwrap();
    sys::set_xattr(&p, "user.a", b"12345", 0).unwrap();
    let (path, name, mut buf) = (sys::c(&p), c"user.a", [0u8; 2]);
    // SAFETY: the lengths are those of the buffers.
    unsafe {
        assert_eq!(libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0), 5);
        assert_eq!(libc::getxattr(path.as_ptr(), name.as_ptr(), buf.as_mut_ptr().cast(), 2), -1);
    }
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::ERANGE));
}

#[test]
fn statfs_gives_plausible_numbers() {
    let m = Mounted::new();
    let s = sys::statvfs(m.root()).unwrap();
    assert!(s.f_blocks > 0 && s.f_bavail > 0 && s.f_bavail <= s.f_blocks && s.f_bsize >= 512);
    assert_eq!(s.f_namemax, 255);
    assert!(s.f_files > 0 && s.f_ffree > 0);
    if !native() {
        // The disk below is what limits writing, so the two agree.
        let disk = sys::statvfs(m.state()).unwrap();
        let (here, below) = (s.f_bavail * s.f_frsize, disk.f_bavail * disk.f_frsize);
        assert!(here <= below + (1 << 30), "the drive says {here} bytes are free, the disk below {below}");
    }
}

#[test]
fn blocks_say_how_much_is_allocated() {
    let m = Mounted::new();
    fs::write(m.path("f"), vec![1u8; 1 << 20]).unwrap();
    fs::File::open(m.path("f")).unwrap().sync_all().unwrap();
    let a = fs::metadata(m.path("f")).unwrap();
    assert!(a.blocks() * 512 >= 1 << 20, "du would say {} for 1 MiB", a.blocks() * 512);
    assert!(a.blksize() >= 4096);
}

#[test]
fn root_may_give_files_away_and_it_stays_local() {
    let m = Mounted::new();
    crate::common::tools::need_root("chown");
    fs::write(m.path("f"), "x").unwrap();
    std::os::unix::fs::chown(m.path("f"), Some(1234), Some(5678)).unwrap();
    let a = fs::metadata(m.path("f")).unwrap();
    assert_eq!((a.uid(), a.gid()), (1234, 5678));
    m.remount();
    let a = fs::metadata(m.path("f")).unwrap();
    assert_eq!((a.uid(), a.gid()), (1234, 5678));
}
