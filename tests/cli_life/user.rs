//! A normal user, through fusermount3. Runs as `nobody` where the test runs as root.

use super::{machine, refused, s};
use crate::common::cli::{Done, run};
use crate::common::{Mounted, World, sys};
use crate::drive_only;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// `nobody`, whom every system has: fusermount3 looks up the name.
const NOBODY: u32 = 65534;

/// Programs as the user.
struct User {
    m: Mounted,
    exe: PathBuf,
    /// Words before a command that run it as the user.
    prefix: Vec<OsString>,
    w: Arc<World>,
}

impl User {
    fn new() -> User {
        let (w, m) = machine();
        let exe = w.dir().join("tcfs");
        // Where the build lies, the user may have no access.
        std::fs::copy(m.tcfs(&[]).get_program(), &exe).unwrap();
        // SAFETY: no arguments, cannot fail.
        let root = unsafe { libc::getuid() } == 0;
        let mut prefix: Vec<OsString> = Vec::new();
        if root {
            let home = m.root().parent().unwrap();
            for own in [w.dir(), &w.store()] {
                run(Command::new("chmod").arg("0777").arg(own), Duration::from_secs(20)).ok();
            }
            // As the rules of the package fuse3 do at boot; without a device manager nobody does.
            run(Command::new("chmod").args(["0666", "/dev/fuse"]), Duration::from_secs(20)).ok();
            run(Command::new("chown").arg("-R").arg(NOBODY.to_string()).arg(home), Duration::from_secs(20)).ok();
            let (u, g) = (format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"));
            prefix = ["setpriv", &u, &g, "--clear-groups", "--"].map(OsString::from).to_vec();
        }
        User { m, exe, prefix, w }
    }

    /// A command as the user, in the machine's environment.
    fn command(&self, before: &[&str], args: &[&str]) -> Command {
        let like = self.m.tcfs(args);
        let words: Vec<OsString> =
            before.iter().map(OsString::from).chain(self.prefix.iter().cloned()).chain([self.exe.clone().into()]).collect();
        let mut c = Command::new(&words[0]);
        c.args(&words[1..]).args(args).current_dir("/");
        for (k, v) in like.get_envs() {
            match v {
                Some(v) => c.env(k, v),
                None => c.env_remove(k),
            };
        }
        c
    }

    fn tcfs(&self, args: &[&str]) -> Done {
        run(&mut self.command(&[], args), Duration::from_secs(60))
    }

    /// A shell as the user, with the mount point as its first argument.
    fn sh(&self, script: &str) -> Done {
        let words: Vec<OsString> = self.prefix.iter().cloned().chain(["sh", "-ec", script, "sh"].map(OsString::from)).collect();
        run(Command::new(&words[0]).args(&words[1..]).arg(self.m.root()).current_dir("/"), Duration::from_secs(60))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // As the user: without --allow-other root itself cannot look at the mount.
        if sys::is_mounted(self.m.root()) {
            let _ = self.command(&[], &["unmount", "--force", s(self.m.root())]).output();
        }
        let _ = self.command(&[], &["daemon", "stop"]).output();
    }
}

#[test]
fn a_user_mounts_through_the_helper_uses_the_drive_and_unmounts() {
    drive_only!();
    let u = User::new();
    let mounted = u.tcfs(&["mount", s(u.m.root())]).ok();
    assert!(mounted.stdout.contains("the drive is mounted on") && !mounted.stdout.contains("only root"), "{}", mounted.text());
    assert!(sys::is_mounted(u.m.root()));
    let script = r#"cd "$1"; mkdir d; echo text > d/f; ln -s f d/l; cat d/l; mv d/f d/g; chmod 700 d/g; stat -c %U:%a d/g; ls d; cd /"#;
    let out = u.sh(script).ok();
    assert_eq!(out.stdout.lines().next(), Some("text"));
    assert!(out.stdout.contains(":700") && out.stdout.ends_with("g\nl\n"), "{}", out.stdout);
    u.tcfs(&["wait"]).ok();
    let status = u.tcfs(&["--json", "status"]).ok().json().remove(0);
    assert_eq!((status["mounts"][0]["passthrough"].as_bool(), status["pending"].as_u64()), (Some(false), Some(0)), "{status}");
    let doctor = u.tcfs(&["doctor"]).ok();
    assert!(doctor.stdout.contains("fusermount3") && doctor.stdout.contains("canary written, read and removed"), "{}", doctor.stdout);
    // Somebody who works in it is named, also by a user.
    let words: Vec<OsString> = u.prefix.iter().cloned().chain(["sleep", "600"].map(OsString::from)).collect();
    let mut works = Command::new(&words[0]);
    let mut works = if u.prefix.is_empty() {
        works.args(&words[1..]).current_dir(u.m.root()).spawn().unwrap()
    } else {
        // setpriv as root may not enter: the shell goes there as the user.
        let words: Vec<OsString> =
            u.prefix.iter().cloned().chain(["sh", "-c", "cd \"$1\" && exec sleep 600", "sh"].map(OsString::from)).collect();
        Command::new(&words[0]).args(&words[1..]).arg(u.m.root()).spawn().unwrap()
    };
    crate::common::until("it works there", Duration::from_secs(20), || {
        (std::fs::read_link(format!("/proc/{}/cwd", works.id())).ok()? == u.m.root()).then_some(())
    });
    refused(&u.tcfs(&["unmount"]), 1, &["is in use", &format!("sleep (process {}) works in it", works.id())]);
    works.kill().unwrap();
    works.wait().unwrap();
    u.tcfs(&["unmount", s(u.m.root())]).ok();
    assert!(!sys::is_mounted(u.m.root()));
    // Again, and after a kill.
    u.tcfs(&["mount", s(u.m.root())]).ok();
    let pid = u.tcfs(&["--json", "status"]).ok().json().remove(0)["pid"].as_i64().unwrap() as i32;
    // SAFETY: the id came from this machine's own daemon.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    crate::common::until("the daemon is gone", Duration::from_secs(60), || (!sys::alive(pid)).then_some(()));
    let again = u.tcfs(&["mount", s(u.m.root())]).ok();
    assert!(again.stdout.contains("cleaned up"), "{}", again.stdout);
    assert_eq!(u.sh(r#"cat "$1/d/g""#).ok().stdout, "text\n");
    u.tcfs(&["unmount"]).ok();
    assert!(!sys::is_mounted(u.m.root()) && u.w.dir().exists());
}

#[test]
fn a_user_without_the_helper_is_told_which_package_has_it() {
    drive_only!();
    let u = User::new();
    if u.prefix.is_empty() {
        println!("only root can take the helper away for one process");
        return;
    }
    // In a mount namespace of its own, where the helper is no program.
    let hide = r#"for f in fusermount3 fusermount; do p=$(command -v $f) || continue; mount --bind /dev/null "$(readlink -f "$p")"; done; exec "$@""#;
    let before = ["unshare", "-m", "sh", "-ec", hide, "sh"];
    let d = run(&mut u.command(&before, &["mount", s(u.m.root())]), Duration::from_secs(60));
    refused(&d, 1, &["fusermount3", "not installed", "package fuse3", "apt install fuse3"]);
    let doctor = run(&mut u.command(&before, &["doctor"]), Duration::from_secs(60)).exit(1);
    assert!(doctor.stdout.contains("fail  helper") && doctor.stdout.contains("apt install fuse3"), "{}", doctor.text());
    u.tcfs(&["mount", s(u.m.root())]).ok();
    u.tcfs(&["unmount"]).ok();
}

#[test]
fn a_user_may_show_the_mount_to_others_only_where_the_system_permits_it() {
    drive_only!();
    let u = User::new();
    let permitted = std::fs::read_to_string("/etc/fuse.conf").is_ok_and(|t| t.lines().any(|l| l.trim() == "user_allow_other"));
    let d = u.tcfs(&["mount", "--allow-other", s(u.m.root())]);
    if permitted || u.prefix.is_empty() && d.code == 0 {
        d.ok();
        u.tcfs(&["unmount"]).ok();
    } else {
        refused(&d, 1, &["--allow-other is not permitted", "user_allow_other >> /etc/fuse.conf"]);
    }
}

#[test]
fn the_daemon_of_a_user_does_not_serve_another_one() {
    drive_only!();
    let u = User::new();
    if u.prefix.is_empty() {
        println!("only root can be two users");
        return;
    }
    u.m.cli(&["daemon", "start"]).ok();
    // The directories are open, the socket is not.
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(u.m.state()), Duration::from_secs(20)).ok();
    let d = u.tcfs(&["status"]);
    u.m.cli(&["daemon", "stop"]).ok();
    refused(&d, 1, &["connecting to the daemon", "ermission"]);
}
