//! Mountpoints seen from outside: whether anybody serves one, and how what a dead daemon left is taken away.
//!
//! Must: nothing here waits on a mount that does not answer; what could is done on a thread with a deadline.
//! Not here: what is mounted (`table`), who uses it (`users`), where the drive may be mounted (`mountpoint`) and what
//! that takes (`fuse_needs`), the system's NFS client (`nfs_client`), serving a mount (`mount`).

mod fuse_needs;
mod mountpoint;
mod nfs_client;
mod table;
mod users;

pub use fuse_needs::{check_fuse, helper, may_open_fuse, no_access, no_helper};
pub use mountpoint::{Keep, prepare_mountpoint, resolve};
pub use nfs_client::{mount_command, mount_nfs, nfs_at, unmount_nfs};
pub use table::{FS_NAME, MountEntry, mounted, ours_at, parse_mountinfo};
pub use users::{User, busy, users};

use super::paths::Env;
use crate::error::{Error, IoContext, Kind, Result};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a mount may take to answer `stat` before it counts as hanging.
const ANSWER: Duration = Duration::from_secs(3);
/// How long a helper program may run.
const HELPER: Duration = Duration::from_secs(10);

/// How a mountpoint answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It works.
    Alive,
    /// Its daemon is dead.
    Dead,
    /// No answer within the deadline.
    Hangs,
}

/// Asks a mountpoint whether anybody serves it, with a deadline.
pub fn probe(mountpoint: &Path) -> Answer {
    let path = mountpoint.to_owned();
    within(ANSWER, move || match rustix::fs::statfs(&path) {
        Err(rustix::io::Errno::NOTCONN | rustix::io::Errno::CONNABORTED) => Answer::Dead,
        _ => Answer::Alive,
    })
    .unwrap_or(Answer::Hangs)
}

/// Runs `f` on a thread and gives up waiting after `deadline`; the thread is then left to itself.
pub fn within<T: Send + 'static>(deadline: Duration, f: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (tx, rx) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let _ = tx.send(f());
    });
    rx.recv_timeout(deadline).ok()
}

/// Takes away what dead daemons left mounted at `mountpoint`; says whether there was anything.
pub fn clean_stale(mountpoint: &Path) -> Result<bool> {
    let mut cleaned = false;
    // Mounts can lie on top of each other; each round takes the topmost one.
    for _ in 0..16 {
        if ours_at(mountpoint).is_none_or(|m| m.is_nfs()) || probe(mountpoint) != Answer::Dead {
            return Ok(cleaned);
        }
        detach(mountpoint)?;
        cleaned = true;
    }
    Ok(cleaned)
}

/// Unmounts at once, whoever uses it: programs that have files open get errors. Never waits for the daemon.
pub fn detach(mountpoint: &Path) -> Result<()> {
    if let Some(entry) = ours_at(mountpoint) {
        if entry.is_nfs() {
            return unmount_nfs(mountpoint, true);
        }
        // Ends every call that hangs in this mount. Only possible for its owner, and only an extra.
        let abort = format!("/sys/fs/fuse/connections/{}/abort", entry.minor);
        let _ = within(ANSWER, move || std::fs::write(abort, "1"));
    }
    let direct = {
        let path = mountpoint.to_owned();
        within(ANSWER, move || unmount_lazily(&path))
    };
    if let Some(Ok(())) = direct {
        return Ok(());
    }
    let doing = format!("unmounting {}", mountpoint.display());
    let mut command = match helper(&env_path()) {
        Some(h) => {
            let mut c = Command::new(h);
            c.args(["-u", "-z", "--"]);
            c
        }
        None => return Err(no_helper().context(doing)),
    };
    let (ok, output) = run(command.arg(mountpoint), HELPER).doing(|| doing.clone())?;
    if ok || ours_at(mountpoint).is_none() {
        return Ok(());
    }
    Err(Error::new(Kind::Io, format!("{doing}: {output}")).hint(format!("as root: umount -l {}", mountpoint.display())))
}

#[cfg(not(target_os = "macos"))]
fn unmount_lazily(path: &Path) -> rustix::io::Result<()> {
    use rustix::mount::{UnmountFlags, unmount};
    unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
}

#[cfg(target_os = "macos")]
fn unmount_lazily(_: &Path) -> rustix::io::Result<()> {
    Err(rustix::io::Errno::NOSYS)
}

/// Runs a program to its end or its deadline; success and what it printed on stderr.
fn run(command: &mut Command, deadline: Duration) -> std::io::Result<(bool, String)> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    match ended(child, deadline, |c| c.stderr.take())? {
        Some((ok, text)) => Ok((ok, text.trim().to_owned())),
        None => Ok((false, format!("no answer after {} s", deadline.as_secs()))),
    }
}

/// What a program prints; none if it is missing, does not end in time, or prints nothing and fails.
fn output(command: &mut Command, deadline: Duration) -> Option<String> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let (ok, text) = ended(child, deadline, |c| c.stdout.take()).ok()??;
    // `lsof` fails when a single file of many could not be looked at.
    (ok || !text.is_empty()).then_some(text)
}

/// Waits for a program, reading what comes through `pipe`; success and text, none if it was killed at the deadline.
fn ended<R: std::io::Read + Send + 'static>(
    mut child: Child,
    deadline: Duration,
    pipe: impl FnOnce(&mut Child) -> Option<R>,
) -> std::io::Result<Option<(bool, String)>> {
    // On a thread: more than a pipe holds would stop the program.
    let reading = pipe(&mut child).map(|mut p| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = p.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    });
    let end = Instant::now() + deadline;
    loop {
        if let Some(status) = child.try_wait()? {
            let text = reading.and_then(|r| r.join().ok()).unwrap_or_default();
            return Ok(Some((status.success(), text)));
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn env_path() -> Env {
    std::env::var("PATH").map(|p| Env::from([("PATH".to_owned(), p)])).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests;
