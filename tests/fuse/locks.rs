//! Advisory locks between processes of one machine.

use crate::common::{Mounted, cli, sys, tools};
use std::fs::{File, OpenOptions};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn open(p: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(p).unwrap()
}

/// Exit code of another process that tries a POSIX lock of bytes `start..start+len` and of the whole file by flock.
fn other_process(p: &Path, start: u32, len: u32) -> (String, String) {
    let script = "import fcntl,sys\nf=open(sys.argv[1],'r+b')\n\
        def t(g):\n  try:\n    g(); return 'free'\n  except OSError: return 'taken'\n\
        print(t(lambda: fcntl.lockf(f,fcntl.LOCK_EX|fcntl.LOCK_NB,int(sys.argv[3]),int(sys.argv[2]))), t(lambda: fcntl.flock(f,fcntl.LOCK_EX|fcntl.LOCK_NB)))";
    let mut cmd = Command::new(tools::find("python3"));
    cmd.args(["-c", script]).arg(p).args([start.to_string(), len.to_string()]);
    let out = cli::run(&mut cmd, Duration::from_secs(30)).ok().stdout;
    let (a, b) = out.trim().split_once(' ').unwrap();
    (a.to_owned(), b.to_owned())
}

#[test]
fn flock_excludes_other_handles_and_ends_with_the_handle() {
    let m = Mounted::new();
    let p = m.path("lock");
    let (a, b) = (open(&p), open(&p));
    sys::flock(&a, libc::LOCK_EX).unwrap();
    assert_eq!(sys::errno(sys::flock(&b, libc::LOCK_EX)), libc::EWOULDBLOCK);
    assert_eq!(other_process(&p, 0, 0).1, "taken");
    sys::flock(&a, libc::LOCK_SH).unwrap();
    sys::flock(&b, libc::LOCK_SH).unwrap();
    drop(b);
    drop(a);
    assert_eq!(other_process(&p, 0, 0).1, "free");
}

#[test]
fn byte_ranges_are_locked_apart_from_each_other() {
    let m = Mounted::new();
    let p = m.path("lock");
    let (a, b) = (open(&p), open(&p));
    sys::ofd_lock(&a, libc::F_WRLCK, 0, 100).unwrap();
    assert_eq!(sys::errno(sys::ofd_lock(&b, libc::F_WRLCK, 50, 100)), libc::EAGAIN);
    assert_eq!(sys::errno(sys::ofd_lock(&b, libc::F_RDLCK, 0, 1)), libc::EAGAIN);
    sys::ofd_lock(&b, libc::F_WRLCK, 100, 10).unwrap();
    assert_eq!(other_process(&p, 99, 1).0, "taken");
    assert_eq!(other_process(&p, 110, 10).0, "free");
    sys::ofd_lock(&a, libc::F_UNLCK, 0, 100).unwrap();
    assert_eq!(other_process(&p, 99, 1).0, "free");
}

#[test]
fn a_waiting_lock_is_granted_when_the_holder_lets_go() {
    let m = Mounted::new();
    let p = m.path("lock");
    let a = open(&p);
    sys::flock(&a, libc::LOCK_EX).unwrap();
    let mut waiter = Command::new("flock").arg(&p).args(["-c", "echo got it"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    // It must still be waiting once it is certainly in the call.
    std::thread::sleep(Duration::from_millis(300));
    assert!(waiter.try_wait().unwrap().is_none(), "the lock was given twice");
    drop(a);
    crate::common::until("the waiter gets the lock", Duration::from_secs(10), || waiter.try_wait().unwrap());
    let out = waiter.wait_with_output().unwrap();
    assert_eq!(out.stdout, b"got it\n");
}
