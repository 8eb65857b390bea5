//! The systems that are measured side by side, each with a copy of the same files.

use crate::common::{Mounted, World, cli, native, sys, tools, until};
use crate::work::HOUR;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// One system.
pub enum Peer {
    /// A directory of the disk on which everything lies.
    Native(PathBuf),
    /// Another program's mount of such a directory.
    Other(OtherMount),
    /// The drive.
    Tcfs(Box<Mounted>),
    /// The drive on a second machine, which serves large files through its daemon; it has the large file only.
    Daemon(Box<Mounted>),
}

/// A FUSE mount by a program that stays in the foreground; unmounted and ended on drop.
pub struct OtherMount {
    name: &'static str,
    mnt: PathBuf,
    child: Child,
}

impl OtherMount {
    /// rclone's mount of `rclone.src` in a directory.
    pub fn rclone(dir: &Path) -> OtherMount {
        let at = |name: &str| dir.join(name);
        let mut rclone = Command::new(tools::find("rclone"));
        rclone.arg("mount").arg(at("rclone.src")).arg(at("rclone")).args([
            "--vfs-cache-mode",
            "full",
            "--config",
            "/dev/null",
            "--dir-cache-time",
            "24h",
        ]);
        OtherMount::start("rclone", rclone.arg("--cache-dir").arg(at("rclone.cache")), &at("rclone"))
    }

    fn start(name: &'static str, cmd: &mut Command, mnt: &Path) -> OtherMount {
        std::fs::create_dir_all(mnt).unwrap();
        let child = cmd
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        let m = OtherMount { name, mnt: mnt.to_owned(), child };
        until(&format!("{name} mounts"), Duration::from_secs(30), || sys::is_mounted(mnt).then_some(()));
        m
    }
}

impl Drop for OtherMount {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(&self.mnt).stderr(Stdio::null()).status();
        if !done.is_ok_and(|s| s.success()) {
            sys::detach(&self.mnt);
        }
        // It ends by itself once nothing is mounted; it is our own child, so its id is certain.
        for _ in 0..100 {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peer {
    /// All systems, each with what `source` holds.
    pub fn all(w: &Arc<World>, source: &Path) -> Vec<Peer> {
        let copy = |to: &Path| {
            std::fs::create_dir_all(to).unwrap();
            cli::run(Command::new("cp").args(["-a", "--reflink=never"]).arg(source.join(".")).arg(to), HOUR).ok();
            refresh_git(to);
        };
        let at = |name: &str| w.dir().join(name);
        copy(&at("native"));
        copy(&at("bindfs.src"));
        copy(&at("rclone.src"));
        let bindfs = OtherMount::start(
            "bindfs",
            Command::new(tools::find("bindfs")).arg("-f").arg(at("bindfs.src")).arg(at("bindfs")),
            &at("bindfs"),
        );
        let rclone = OtherMount::rclone(w.dir());
        let drive = w.mount("ann");
        if !native() {
            copy(drive.root());
        }
        drive.wait();
        let daemon = w.device("bob").mount_args(&["--no-passthrough"]).mount();
        if !native() {
            daemon.cli_long(&["hydrate", &daemon.path("big").display().to_string()]).ok();
        }
        let mut all = vec![Peer::Native(at("native")), Peer::Tcfs(Box::new(drive)), Peer::Other(bindfs), Peer::Other(rclone)];
        if native() {
            copy(all[1].root());
        }
        for p in &all {
            refresh_git(p.root());
            p.settle();
        }
        all.push(Peer::Daemon(Box::new(daemon)));
        all
    }

    /// Name in the table.
    pub fn name(&self) -> &'static str {
        match self {
            Peer::Native(_) => "native",
            Peer::Other(m) => m.name,
            Peer::Tcfs(_) => "tcfs",
            Peer::Daemon(_) => "tcfs without passthrough",
        }
    }

    /// Where its copy of the files is.
    pub fn root(&self) -> &Path {
        match self {
            Peer::Native(p) => p,
            Peer::Other(m) => &m.mnt,
            Peer::Tcfs(m) | Peer::Daemon(m) => m.root(),
        }
    }

    /// Lets work in the background end, so that it is not counted in the next turn.
    pub fn settle(&self) {
        if let Peer::Tcfs(m) | Peer::Daemon(m) = self {
            m.wait();
        }
        // SAFETY: no arguments.
        unsafe { libc::sync() };
    }

    /// After a turn that wrote files: waits for what only begins then, so that it does not take from the next one's turn.
    pub fn rest(&self) {
        if let Peer::Other(m) = self
            && m.name == "rclone"
        {
            std::thread::sleep(WRITE_BACK);
            let mut before = None;
            until("rclone has copied what was written", HOUR, || {
                std::thread::sleep(Duration::from_millis(500));
                let now = sys::processor_time(m.child.id() as i32);
                before.replace(now).filter(|b| now - *b < Duration::from_millis(20)).map(drop)
            });
        }
    }
}

/// How long rclone lets a closed file lie before it copies it to its source.
const WRITE_BACK: Duration = Duration::from_secs(5);

/// A copied repository has other inode numbers and times than its index says; after this git need not read the files again.
fn refresh_git(root: &Path) {
    cli::run(Command::new("git").args(["status", "--porcelain"]).current_dir(root.join("tree")), HOUR).ok();
}
