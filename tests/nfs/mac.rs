//! What only a Mac runs, behind stand-ins for its programs; and what its Finder and indexers ask of the server.
//!
//! `TCFS_TEST_PLATFORM=macos` makes the daemon call the programs that macOS has; those on the PATH here note what they are
//! told and keep a table of mounts.

use super::SOON;
use super::common::{Mounted, World, sys, until};
use super::served::Served;
use nfs3_types::nfs3::{nfs_fh3, nfsstat3, stable_how};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Asks for the root of an export, as a mount does, and prints its handle.
const ASK: &str = r#"
import os, socket, struct, sys
port, path = int(sys.argv[1]), sys.argv[2].encode()
cred = struct.pack('>IIIII', 0, 0, os.geteuid(), os.getegid(), 0)
body = struct.pack('>IIIIIIII', 5, 0, 2, 100005, 3, 1, 1, len(cred)) + cred + struct.pack('>II', 0, 0)
body += struct.pack('>I', len(path)) + path + b'\0' * (-len(path) % 4)
s = socket.create_connection(('127.0.0.1', port), 10)
s.sendall(struct.pack('>I', len(body) | 0x80000000) + body)
n = struct.unpack('>I', s.recv(4, socket.MSG_WAITALL))[0] & 0x7fffffff
reply = s.recv(n, socket.MSG_WAITALL)
assert reply[24:28] == bytes(4), reply
print(reply[32:32 + struct.unpack('>I', reply[28:32])[0]].hex())
"#;

/// A Mac's programs.
struct Mac {
    dir: PathBuf,
}

impl Mac {
    fn new(w: &Arc<World>) -> Mac {
        let dir = w.dir().join("mac");
        fs::create_dir_all(dir.join("bin")).unwrap();
        let mac = Mac { dir };
        let d = mac.dir.display();
        fs::write(mac.dir.join("ask.py"), ASK).unwrap();
        fs::write(mac.dir.join("table"), "/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)\n").unwrap();
        mac.program(
            "mount_nfs",
            &format!(
                "echo \"mount_nfs $*\" >> {d}/told\nport=$(echo \"$2\" | sed 's/.*,port=\\([0-9]*\\).*/\\1/')\n\
                 python3 {d}/ask.py \"$port\" \"${{3#*:}}\" > {d}/handle || exit 1\n\
                 echo \"$3 on $4 (nfs, nodev, nosuid, mounted by u)\" >> {d}/table\n"
            ),
        );
        mac.program("mount", &format!("cat {d}/table\n"));
        mac.program(
            "umount",
            &format!(
                "echo \"umount $*\" >> {d}/told\n\
                 [ ! -e {d}/busy ] || {{ echo \"umount($1): Resource busy -- try 'diskutil unmount'\" >&2; exit 1; }}\n\
                 grep -vF \" on $1 (\" {d}/table > {d}/table.new; mv {d}/table.new {d}/table\n"
            ),
        );
        mac.program(
            "diskutil",
            &format!("echo \"diskutil $*\" >> {d}/told\ngrep -vF \" on $3 (\" {d}/table > {d}/table.new; mv {d}/table.new {d}/table\n"),
        );
        mac.program("lsof", &format!("cat {d}/busy 2>/dev/null\n"));
        mac
    }

    fn program(&self, name: &str, script: &str) {
        let at = self.dir.join("bin").join(name);
        fs::write(&at, format!("#!/bin/sh\n{script}")).unwrap();
        fs::set_permissions(&at, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A machine that takes itself for a Mac.
    fn machine(&self, w: &Arc<World>, name: &str) -> Mounted {
        let path = format!("{}:{}", self.dir.join("bin").display(), std::env::var("PATH").unwrap());
        w.device(name).env("PATH", path).env("TCFS_TEST_PLATFORM", "macos").off()
    }

    /// What its programs were told, since the last time.
    fn told(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join("told")).unwrap_or_default();
        let _ = fs::remove_file(self.dir.join("told"));
        text.lines().map(str::to_owned).collect()
    }

    fn table(&self) -> String {
        fs::read_to_string(self.dir.join("table")).unwrap()
    }

    /// The handle that the client got when it mounted.
    fn handle(&self) -> nfs_fh3 {
        let text = fs::read_to_string(self.dir.join("handle")).unwrap();
        let bytes: Vec<u8> = (0..text.trim().len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect();
        nfs_fh3 { data: bytes.into() }
    }
}

fn s(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_mac_mounts_with_its_own_client_goes_on_over_a_kill_and_unmounts() {
    let w = World::new();
    let mac = Mac::new(&w);
    let (m, bob) = (mac.machine(&w, "ann"), w.mount("bob"));
    let at = m.root().to_owned();
    let done = m.cli(&["mount", s(&at)]).ok();
    assert!(done.stdout.contains("the drive is mounted on"), "{}", done.text());
    let told = mac.told();
    let words: Vec<&str> = told[0].split(' ').collect();
    assert_eq!((told.len(), words[0], words[1], words[4]), (1, "mount_nfs", "-o", s(&at)), "{told:?}");
    let option = |o: &str| words[2].split(',').any(|w| w == o);
    assert!(["vers=3", "tcp", "locallocks", "noresvport", "hard", "actimeo=1"].iter().all(|o| option(o)), "{}", words[2]);
    let port: u16 = words[2].split(',').find_map(|w| w.strip_prefix("port=")).unwrap().parse().unwrap();
    let export = words[3].strip_prefix("127.0.0.1:").unwrap().to_owned();
    let served = Served { m, port, export, command: String::new() };

    // The path is in the table for every user to see: it opens nothing any more.
    assert!(served.mount_as(0, &served.export).is_err(), "mounted by whoever has seen the table");
    // SAFETY: no arguments, cannot fail.
    let uid = unsafe { libc::geteuid() };
    let root = mac.handle();
    let mut c = served.client_as(uid, &root);
    let file = c.create(&root, "plan.md", 0o644).unwrap();
    c.write(&file, 0, b"from the mac", stable_how::FILE_SYNC).unwrap();
    until("it arrives", SOON, || (fs::read(bob.path("plan.md")).ok()? == b"from the mac").then_some(()));
    // Spotlight finds that it is not wanted, and nobody else gets to see how.
    c.lookup(&root, ".metadata_never_index").unwrap();

    // The daemon dies; the system still has it mounted, and waits.
    served.kill();
    let again = served.m.cli(&["mount", s(&at)]).ok();
    assert!(again.stdout.contains("its programs go on"), "{}", again.text());
    assert_eq!(mac.told(), Vec::<String>::new(), "it is mounted already");
    let mut c = served.client_as(uid, &root);
    assert_eq!(c.read(&file, 0, 100).unwrap().0, b"from the mac");
    assert!(served.m.status()["mounts"][0]["backend"] == "nfs");

    // In use: who uses it is named, and force is `diskutil`.
    fs::write(mac.dir.join("busy"), format!("p812\nczsh\nfcwd\nn{}/notes\n", at.display())).unwrap();
    let busy = served.m.cli(&["unmount", s(&at)]);
    assert!(busy.code == 1 && busy.stderr.contains("zsh (process 812) works in it"), "{}", busy.text());
    served.m.cli(&["unmount", "--force", s(&at)]).ok();
    assert_eq!(mac.told().last().unwrap(), &format!("diskutil unmount force {}", at.display()));
    assert!(!mac.table().contains("tcfs-"));
    fs::remove_file(mac.dir.join("busy")).unwrap();

    // And gently, the port and the path being those of before.
    served.m.cli(&["mount", s(&at)]).ok();
    assert!(mac.told()[0].contains(&format!("port={port},")) && mac.table().contains(&served.export));
    served.m.cli(&["unmount", s(&at)]).ok();
    assert_eq!(mac.told(), [format!("umount {}", at.display())]);
    assert!(!mac.table().contains("tcfs-"));
    assert_eq!(fs::read(bob.path("plan.md")).unwrap(), b"from the mac");
    assert!(!bob.path(".metadata_never_index").exists());
}

#[test]
fn a_drive_that_was_ejected_ends_its_daemon_and_a_client_that_cannot_mount_says_why() {
    let w = World::new();
    let mac = Mac::new(&w);
    let m = mac.machine(&w, "ann");
    let at = m.root().to_owned();
    m.cli(&["mount", s(&at)]).ok();
    let pid = m.status()["pid"].as_i64().unwrap() as i32;
    // As Finder does it.
    fs::write(mac.dir.join("table"), "").unwrap();
    until("the daemon ends", SOON, || (!sys::alive(pid)).then_some(()));

    // Without a daemon, what is left in the table is taken away by force.
    fs::write(mac.dir.join("table"), format!("127.0.0.1:/tcfs-0123 on {} (nfs, nodev)\n", at.display())).unwrap();
    mac.told();
    m.cli(&["unmount", "--force", s(&at)]).ok();
    assert_eq!(mac.told(), [format!("diskutil unmount force {}", at.display())]);

    mac.program("mount_nfs", "echo 'mount_nfs: can not mount: Operation not permitted' >&2; exit 1\n");
    let e = m.cli(&["mount", s(&at)]);
    assert!(e.code == 1 && e.stderr.contains("Operation not permitted") && e.stderr.contains("--no-mount"), "{}", e.text());
    until("no daemon is left behind", SOON, || (m.cli(&["status"]).code != 0).then_some(()));
}

/// What Finder and the system's services make beside a person's files is for this machine only, and costs the store nothing.
#[test]
fn what_a_mac_makes_beside_the_files_stays_here() {
    let w = World::new();
    let (s, bob) = (Served::new(&w, "ann"), w.mount("bob"));
    let mut c = s.client();
    let root = c.root();
    // A package, copied as Finder does it: directories, files, and a fork beside each, with locks by exclusive create.
    let app = c.mkdir(&root, "Tool.app", 0o755).unwrap();
    let contents = c.mkdir(&app, "Contents", 0o755).unwrap();
    let program = c.create(&contents, "tool", 0o755).unwrap();
    c.write(&program, 0, b"#!/bin/sh\n", stable_how::UNSTABLE).unwrap();
    c.commit(&program).unwrap();
    s.m.wait();
    until("the package arrives", SOON, || (fs::read(bob.path("Tool.app/Contents/tool")).ok()? == b"#!/bin/sh\n").then_some(()));

    let puts = |s: &Served| s.m.status()["store_state"]["requests"]["put"].clone();
    let before = puts(&s);
    for (dir, name) in [(&root, "._Tool.app"), (&app, "._Contents"), (&contents, "._tool"), (&root, ".DS_Store"), (&app, ".DS_Store")] {
        let f = c.exclusive(dir, name, *b"finder01").unwrap();
        for at in 0..20 {
            c.write(&f, at * 512, &[5; 512], stable_how::FILE_SYNC).unwrap();
        }
        assert_eq!(c.read(&f, 0, 20_000).unwrap().0, vec![5; 10_240]);
    }
    for name in [".Spotlight-V100", ".Trashes", ".fseventsd", ".TemporaryItems"] {
        let d = c.mkdir(&root, name, 0o700).unwrap();
        let inside = c.create(&d, "store.db", 0o600).unwrap();
        c.write(&inside, 0, &[1; 4096], stable_how::FILE_SYNC).unwrap();
    }
    s.m.wait();
    assert_eq!(puts(&s), before, "the store heard of it");
    let (lines, _) = c.page(&root, 0, 8000, true).unwrap();
    let here: Vec<&str> = lines.iter().map(|l| l.0.as_str()).filter(|n| n.starts_with('.') && n.len() > 2).collect();
    assert_eq!(here.len(), 6, "listed here: {here:?}");
    let names: Vec<_> = fs::read_dir(bob.root()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["Tool.app"]);
    // One that is alone in a directory does not keep it when another machine removes it.
    fs::remove_dir_all(bob.path("Tool.app")).unwrap();
    until("the package goes", SOON, || (c.lookup(&root, "Tool.app").err()? == nfsstat3::NFS3ERR_NOENT).then_some(()));
}

/// A Mac sends names decomposed; Linux has them composed. Both are one file.
#[test]
fn a_name_is_one_name_however_it_is_composed() {
    let w = World::new();
    let (s, bob) = (Served::new(&w, "ann"), w.mount("bob"));
    let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}");
    let mut c = s.client();
    let root = c.root();
    let dir = c.mkdir(&root, decomposed, 0o755).unwrap();
    let file = c.create(&dir, &format!("{decomposed}.md"), 0o644).unwrap();
    c.write(&file, 0, b"eau", stable_how::FILE_SYNC).unwrap();
    let at = bob.path(composed).join(format!("{composed}.md"));
    until("it arrives composed", SOON, || (fs::read(&at).ok()? == b"eau").then_some(()));
    assert_eq!(c.lookup(&root, composed).unwrap(), dir);
    assert_eq!(c.create(&dir, &format!("{composed}.md"), 0o644).unwrap_err(), nfsstat3::NFS3ERR_EXIST);
    fs::rename(&at, bob.path(format!("{composed}2.md"))).unwrap();
    until("the move arrives", SOON, || c.lookup(&root, &format!("{decomposed}2.md")).ok());
    c.remove(&root, &format!("{decomposed}2.md")).unwrap();
    until("the removal arrives", SOON, || (!bob.path(format!("{composed}2.md")).exists()).then_some(()));
}
