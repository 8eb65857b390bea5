//! The system's own NFS client: mounting with it, and unmounting.
//!
//! On macOS a user may mount what is his; on Linux only root. Must: nothing here waits longer than its deadline: a client
//! whose server is gone answers nothing.

use super::super::paths::Platform;
use super::table::MountEntry;
use super::{HELPER, mounted, run};
use crate::error::{Error, Kind, Result};
use std::path::Path;
use std::process::Command;

/// Has the system mount what `command` says on `at`.
pub fn mount_nfs(command: &[String], at: &Path) -> Result<()> {
    let doing = || format!("mounting on {} with the system's NFS client", at.display());
    let (program, args) = command.split_first().ok_or_else(|| Error::new(Kind::Internal, doing()))?;
    let by_hand = "--no-mount serves it and prints the command, for whoever may mount";
    let explain = |text: &str| if Platform::here() == Platform::Linux { explain(text) } else { None };
    match run(Command::new(program).args(args), HELPER) {
        Ok((true, _)) => Ok(()),
        Ok((false, text)) => Err(Error::new(Kind::Io, format!("{}: {text}", doing())).hint(explain(&text).unwrap_or(by_hand))),
        Err(e) => Err(Error::io(doing(), e).hint(format!("{program} is missing; {by_hand}"))),
    }
}

/// A hint for what is common on Linux.
fn explain(text: &str) -> Option<&'static str> {
    if text.contains("bad option") || text.contains("helper program") {
        return Some("the client's helper is missing: apt install nfs-common (Debian, Ubuntu), dnf install nfs-utils (Fedora)");
    }
    if text.contains("unknown filesystem type") || text.contains("No such device") {
        return Some("this kernel has no NFS client; on Linux the drive is mounted with FUSE: leave --backend out");
    }
    if text.contains("only root") || text.contains("must be superuser") || text.contains("permitted") {
        return Some("on Linux only root mounts NFS; FUSE needs no root: leave --backend out");
    }
    None
}

/// Whether the export is mounted at `at`; none where the system does not tell.
pub fn nfs_at(at: &Path, export: &str) -> Option<bool> {
    let is = |m: &MountEntry| m.mountpoint == at && m.is_of(export);
    Some(mounted()?.iter().any(is))
}

/// The command that mounts an export, word by word: with the system's own client, for its user on macOS, for root on Linux.
///
/// `hard`: a client waits for a daemon that starts again, it does not give programs errors. `locallocks`, `local_lock=all`:
/// locks count among the programs of this machine. `actimeo=1`: what others change is seen after a second.
pub fn mount_command(platform: Platform, port: u16, export: &str, at: &Path) -> Vec<String> {
    let (start, options): (&[&str], String) = match platform {
        Platform::MacOs => (
            &["mount_nfs", "-o"],
            format!("vers=3,tcp,port={port},mountport={port},locallocks,noresvport,rsize=1048576,wsize=1048576,actimeo=1,hard,intr"),
        ),
        Platform::Linux => (
            &["mount", "-t", "nfs", "-o"],
            format!(
                "vers=3,proto=tcp,mountproto=tcp,port={port},mountport={port},local_lock=all,nolock,noacl,noresvport,\
                 rsize=1048576,wsize=1048576,actimeo=1,hard"
            ),
        ),
    };
    let rest = [options, format!("127.0.0.1:{export}"), at.display().to_string()];
    start.iter().map(|w| (*w).to_owned()).chain(rest).collect()
}

/// Unmounts; `Busy` while programs use it, unless `force`.
pub fn unmount_nfs(at: &Path, force: bool) -> Result<()> {
    let doing = || format!("unmounting {}", at.display());
    let words: &[&str] = match (Platform::here(), force) {
        (Platform::MacOs, true) => &["diskutil", "unmount", "force"],
        (Platform::Linux, true) => &["umount", "-f", "-l"],
        (_, false) => &["umount"],
    };
    match run(Command::new(words[0]).args(&words[1..]).arg(at), HELPER).map_err(|e| Error::io(doing(), e))? {
        (true, _) => Ok(()),
        (false, text) if text.contains("not mounted") || text.contains("not currently mounted") => Ok(()),
        (false, text) if text.to_lowercase().contains("busy") => Err(Error::new(Kind::Busy, doing())),
        (false, text) => Err(Error::new(Kind::Io, format!("{}: {text}", doing()))),
    }
}
