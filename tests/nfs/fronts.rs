//! Two front ends on one device: what is done through one is seen on the other.

use super::SOON;
use super::common::{World, until};
use super::served::{AT, Served};
use nfs3_types::nfs3::{nfsstat3, stable_how};
use std::fs;
use std::io::{Read, Seek};
use std::os::unix::fs::MetadataExt;

#[test]
fn a_change_by_nfs_is_seen_through_fuse_and_the_other_way_round() {
    let w = World::new();
    let m = w.mount("ann");
    // The same daemon serves both.
    let s = Served::of(m);
    let (m, mut c) = (&s.m, s.client());
    assert_eq!(m.status()["mounts"].as_array().map(Vec::len), Some(2), "{}", m.status());
    let root = c.root();

    // Made by NFS: the kernel had looked, and knew that there was nothing.
    assert!(fs::metadata(m.path("d")).is_err() && fs::read_dir(m.root()).unwrap().count() == 0);
    let dir = c.mkdir(&root, "d", 0o755).unwrap();
    until("the directory is seen", SOON, || fs::metadata(m.path("d")).ok());
    assert!(fs::metadata(m.path("d/a")).is_err());
    let file = c.create(&dir, "a", 0o644).unwrap();
    c.write(&file, 0, b"by nfs", stable_how::UNSTABLE).unwrap();
    until("the file is seen", SOON, || (fs::read(m.path("d/a")).ok()? == b"by nfs").then_some(()));
    assert_eq!(fs::metadata(m.path("d/a")).unwrap().ino(), c.attr(&file).unwrap().fileid, "one file");

    // Written by NFS while a program has it open here, with its bytes in the kernel's cache.
    let mut open = fs::File::open(m.path("d/a")).unwrap();
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    c.write(&file, 0, b"BY NFS, longer", stable_how::UNSTABLE).unwrap();
    until("the bytes are seen through the open file", SOON, || {
        open.rewind().ok()?;
        let mut text = String::new();
        open.read_to_string(&mut text).ok()?;
        (text == "BY NFS, longer").then_some(())
    });
    c.chmod(&file, 0o600, None).unwrap();
    until("the mode is seen", SOON, || (fs::metadata(m.path("d/a")).ok()?.mode() & 0o777 == 0o600).then_some(()));

    // Written here, read there.
    fs::write(m.path("d/a"), "by fuse").unwrap();
    assert_eq!(c.read(&file, 0, 100).unwrap().0, b"by fuse");
    fs::write(m.path("d/b"), "b").unwrap();
    let b = c.lookup(&dir, "b").unwrap();
    assert_eq!(c.read(&b, 0, 100).unwrap(), (b"b".to_vec(), true));

    // Names that go and come.
    c.rename(&dir, "a", &root, "moved").unwrap();
    until("the move is seen", SOON, || {
        (fs::metadata(m.path("d/a")).is_err() && fs::read(m.path("moved")).ok()? == b"by fuse").then_some(())
    });
    c.remove(&dir, "b").unwrap();
    until("the removal is seen", SOON, || (fs::metadata(m.path("d/b")).is_err()).then_some(()));
    c.rmdir(&root, "d").unwrap();
    until("the removal is seen", SOON, || (fs::metadata(m.path("d")).is_err()).then_some(()));
    fs::remove_file(m.path("moved")).unwrap();
    assert_eq!(c.lookup(&root, "moved").unwrap_err(), nfsstat3::NFS3ERR_NOENT);

    // And another machine has what was done through both.
    let both = c.create(&root, "both", 0o644).unwrap();
    c.write(&both, 0, b"one ", stable_how::FILE_SYNC).unwrap();
    let at = until("the file is seen", SOON, || fs::File::options().append(true).open(m.path("both")).ok());
    until("its size is seen", SOON, || (at.metadata().ok()?.len() == 4).then_some(()));
    std::io::Write::write_all(&mut &at, b"two").unwrap();
    drop(at);
    m.wait();
    let bob = w.mount("bob");
    assert_eq!(fs::read(bob.path("both")).unwrap(), b"one two");
    // One goes, the other stays.
    m.cli(&["unmount", AT]).ok();
    assert_eq!(fs::read(m.path("both")).unwrap(), b"one two");
}
