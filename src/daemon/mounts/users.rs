//! Who uses a mount.
//!
//! Must: looks at `/proc` only, or asks a program with a deadline, never at the mount, which may hang.

use super::super::paths::Platform;
use super::{HELPER, output};
use crate::error::{Error, Kind};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A process that uses a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Process.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// How: `works in it`, `has plan.md open`, …
    pub how: String,
}

/// Processes that use files below `mountpoint`, as far as this user may see; this process is left out.
pub fn users(mountpoint: &Path) -> Vec<User> {
    match Platform::here() {
        Platform::Linux => users_in(mountpoint, Path::new("/proc")),
        Platform::MacOs => {
            let mut lsof = Command::new("lsof");
            lsof.args(["-w", "-F", "pcfn", "--"]).arg(mountpoint);
            output(&mut lsof, HELPER).map(|t| parse_lsof(&t, mountpoint)).unwrap_or_default()
        }
    }
}

/// Reads what `lsof -F pcfn` prints: a line for each field, its letter first.
pub(super) fn parse_lsof(text: &str, mountpoint: &Path) -> Vec<User> {
    let (mut out, mut pid, mut name, mut fd): (Vec<User>, u32, &str, &str) = (Vec::new(), 0, "", "");
    for line in text.lines().filter(|l| l.is_char_boundary(1) && !l.is_empty()) {
        let (letter, value) = line.split_at(1);
        match letter {
            "p" => (pid, name) = (value.parse().unwrap_or(0), ""),
            "c" => name = value,
            "f" => fd = value,
            "n" if pid != 0 && pid != std::process::id() && out.last().is_none_or(|u| u.pid != pid) => {
                let Ok(below) = Path::new(value).strip_prefix(mountpoint) else { continue };
                let rel = below.display();
                let how = match fd {
                    "cwd" => "works in it".to_owned(),
                    "rtd" => "has its root in it".to_owned(),
                    "txt" => format!("runs {rel}"),
                    _ if below.as_os_str().is_empty() => "has it open".to_owned(),
                    _ => format!("has {rel} open"),
                };
                out.push(User { pid, name: name.to_owned(), how });
            }
            _ => {}
        }
    }
    out.sort_by_key(|u| u.pid);
    out
}

/// The same by what lies in `proc`; never looks at the mount itself.
pub(super) fn users_in(mountpoint: &Path, proc: &Path) -> Vec<User> {
    let me = std::process::id();
    let mut out: Vec<User> = std::fs::read_dir(proc)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| Some((e.file_name().to_str()?.parse::<u32>().ok()?, e.path())))
        .filter(|(pid, _)| *pid != me)
        .filter_map(|(pid, dir)| {
            let how = usage(mountpoint, &dir)?;
            let name = std::fs::read_to_string(dir.join("comm")).unwrap_or_default().trim().to_owned();
            Some(User { pid, name, how })
        })
        .collect();
    out.sort_by_key(|u| u.pid);
    out
}

fn usage(mountpoint: &Path, dir: &Path) -> Option<String> {
    let link = |name: &str| std::fs::read_link(dir.join(name)).ok();
    let below = |p: &Path| p.strip_prefix(mountpoint).ok().map(|r| r.display().to_string());
    if link("cwd").is_some_and(|p| p.starts_with(mountpoint)) {
        return Some("works in it".to_owned());
    }
    if link("root").is_some_and(|p| p.starts_with(mountpoint)) {
        return Some("has its root in it".to_owned());
    }
    if let Some(rel) = link("exe").as_deref().and_then(below) {
        return Some(format!("runs {rel}"));
    }
    let fds = std::fs::read_dir(dir.join("fd")).into_iter().flatten().flatten();
    if let Some(rel) = fds.filter_map(|f| std::fs::read_link(f.path()).ok()).find_map(|p| below(&p)) {
        return Some(format!("has {} open", if rel.is_empty() { "it" } else { &rel }));
    }
    let maps = std::fs::read(dir.join("maps")).unwrap_or_default();
    maps.split(|b| *b == b'\n')
        .filter_map(|l| l.iter().position(|b| *b == b'/').map(|at| PathBuf::from(OsString::from_vec(l[at..].to_vec()))))
        .find_map(|p| below(&p))
        .map(|rel| format!("has {rel} mapped"))
}

/// The sentence for a mount that cannot be unmounted because of `users`.
pub fn busy(mountpoint: &Path, users: &[User]) -> Error {
    let at = mountpoint.display();
    let mut who: Vec<String> = users.iter().take(5).map(|u| format!("{} (process {}) {}", u.name, u.pid, u.how)).collect();
    if users.len() > 5 {
        who.push(format!("and {} more", users.len() - 5));
    }
    let who = if who.is_empty() { "a program of another user, most likely".to_owned() } else { who.join(", ") };
    Error::new(Kind::Busy, format!("{at} is in use: {who}"))
        .hint(format!("end these programs or leave the directory; or tcfs unmount --force {at}, which gives them errors"))
}
