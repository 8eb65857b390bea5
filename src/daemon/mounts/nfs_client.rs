//! The system's own NFS client: mounting with it, and unmounting.
//!
//! On macOS a user may mount what is his; on Linux only root. Must: nothing here waits longer than its deadline: a client
//! whose server is gone answers nothing.

use super::{HELPER, mounted, run};
use crate::error::{Error, Kind, Result};
use std::path::Path;
use std::process::Command;

/// Has the system mount what `command` says on `at`.
pub fn mount_nfs(command: &[String], at: &Path) -> Result<()> {
    let doing = || format!("mounting on {} with the system's NFS client", at.display());
    let (program, args) = command.split_first().ok_or_else(|| Error::new(Kind::Internal, doing()))?;
    let by_hand = "--no-mount serves it and prints the command, for whoever may mount";
    match run(Command::new(program).args(args), HELPER) {
        Ok((true, _)) => Ok(()),
        Ok((false, text)) => Err(Error::new(Kind::Io, format!("{}: {text}", doing())).hint(explain(&text).unwrap_or(by_hand))),
        Err(e) => Err(Error::io(doing(), e).hint(format!("{program} is missing; {by_hand}"))),
    }
}

/// A hint for what is common.
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

/// Whether the export is mounted at `at`, as the kernel tells it.
pub fn nfs_at(at: &Path, export: &str) -> bool {
    mounted().iter().any(|m| m.mountpoint == at && m.source.strip_suffix(export).is_some_and(|host| host == "127.0.0.1:"))
}

/// Unmounts; `Busy` while programs use it, unless `force`.
pub fn unmount_nfs(at: &Path, force: bool) -> Result<()> {
    let doing = || format!("unmounting {}", at.display());
    let words: &[&str] = match (cfg!(target_os = "macos"), force) {
        (true, true) => &["/usr/sbin/diskutil", "unmount", "force"],
        (true, false) => &["/sbin/umount"],
        (false, true) => &["umount", "-f", "-l"],
        (false, false) => &["umount"],
    };
    match run(Command::new(words[0]).args(&words[1..]).arg(at), HELPER).map_err(|e| Error::io(doing(), e))? {
        (true, _) => Ok(()),
        (false, text) if text.contains("not mounted") || text.contains("not currently mounted") => Ok(()),
        (false, text) if text.to_lowercase().contains("busy") => Err(Error::new(Kind::Busy, doing())),
        (false, text) => Err(Error::new(Kind::Io, format!("{}: {text}", doing()))),
    }
}
