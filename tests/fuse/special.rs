//! Nodes that are no files: fifos, sockets, devices. They live on this machine only. And what names never leave it.

use crate::common::{Mounted, World, cli, native, sys, tools};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};

#[test]
fn fifo_carries_bytes_between_processes() {
    let m = Mounted::new();
    let p = m.path("fifo");
    sys::mknod(&p, libc::S_IFIFO | 0o600, 0).unwrap();
    assert!(fs::symlink_metadata(&p).unwrap().file_type().is_fifo());
    let out = cli::sh(m.root(), "cat fifo & echo through >fifo; wait", &[]).ok();
    assert_eq!(out.stdout, "through\n");
}

#[test]
fn socket_is_bound_and_connected() {
    let m = Mounted::new();
    let l = UnixListener::bind(m.path("s")).unwrap();
    let t = std::thread::spawn(move || {
        let mut text = String::new();
        l.accept().unwrap().0.read_to_string(&mut text).unwrap();
        text
    });
    UnixStream::connect(m.path("s")).unwrap().write_all(b"hello").unwrap();
    assert_eq!(t.join().unwrap(), "hello");
    assert!(fs::symlink_metadata(m.path("s")).unwrap().file_type().is_socket());
    fs::remove_file(m.path("s")).unwrap();
}

#[test]
fn device_node_keeps_its_number() {
    tools::need_root("mknod of a device");
    let m = Mounted::new();
    let null = fs::metadata("/dev/null").unwrap().rdev();
    sys::mknod(&m.path("null"), libc::S_IFCHR | 0o666, null).unwrap();
    let a = fs::symlink_metadata(m.path("null")).unwrap();
    assert!(a.file_type().is_char_device());
    assert_eq!(a.rdev(), null);
    m.remount();
    assert_eq!(fs::symlink_metadata(m.path("null")).unwrap().rdev(), null);
}

#[test]
fn special_nodes_survive_a_remount_and_do_not_reach_another_machine() {
    if native() {
        return; // one directory plays both machines there
    }
    let w = World::new();
    let a = w.mount("ann");
    sys::mknod(&a.path("fifo"), libc::S_IFIFO | 0o640, 0).unwrap();
    for n in [".DS_Store", "._resource", "note.swp", ".note.swp"] {
        fs::write(a.path(n), "junk").unwrap();
    }
    fs::write(a.path("real"), "x").unwrap();
    a.wait();
    a.remount();
    let mode = fs::symlink_metadata(a.path("fifo")).unwrap().mode();
    assert_eq!(mode, libc::S_IFIFO | 0o640);
    assert_eq!(fs::read(a.path(".DS_Store")).unwrap(), b"junk");
    let b = w.mount("bob");
    let names: Vec<_> = fs::read_dir(b.root()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["real"]);
}

#[test]
fn mount_has_device_nodes_and_set_user_id_bits_under_control() {
    if native() {
        return; // about the mount's flags
    }
    let m = Mounted::new();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts.lines().find(|l| l.split(' ').nth(1) == Some(m.root().to_str().unwrap())).unwrap();
    let options: Vec<&str> = line.split(' ').nth(3).unwrap().split(',').collect();
    assert!(options.contains(&"rw"), "{line}");
    assert!(line.split(' ').nth(2).unwrap().starts_with("fuse"), "{line}");
}
