//! `tcfs find`.

use super::context::{Ctx, unexpected};
use super::format;
use crate::daemon::config::Size;
use crate::daemon::protocol::{self, EntryKind, Item, Request, Residence, Response};
use crate::error::{Error, Kind, Result};
use clap::{Args, ValueEnum};
use std::time::{SystemTime, UNIX_EPOCH};

/// Options of find(1) that are written with one dash there.
pub const AS_IN_FIND: [&str; 10] = ["-name", "-iname", "-type", "-size", "-newer", "-older", "-device", "-state", "-conflict", "-pinned"];

/// Find entries of the whole drive by name, size, time, device and state, at once
///
/// Nothing is fetched: files whose bytes are not here are found as well. All that is given must hold. Options can be written
/// with one dash, as for find(1).
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs find -name '*.md'
  tcfs find notes -iname '*plan*' -newer 2d
  tcfs find -size +100M -state hydrated      what takes space here
  tcfs find -device yoga -newer yesterday
  tcfs find -conflict

The first search by a pattern reads all names; those after it, within five minutes, are answered
from memory.")]
pub struct Find {
    /// Only below PATH
    #[arg(add = super::completions::path())]
    path: Option<String>,
    /// Pattern of the name: * ? [a-z] {a,b}
    #[arg(long, value_name = "GLOB", conflicts_with = "iname")]
    name: Option<String>,
    /// The same, upper and lower case alike
    #[arg(long, value_name = "GLOB")]
    iname: Option<String>,
    /// What it is
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<Type>,
    /// +SIZE at least, -SIZE at most, SIZE exactly: 10M, 1GiB, 512
    #[arg(long, value_name = "[+-]SIZE", allow_hyphen_values = true)]
    size: Option<String>,
    /// Changed since: 2h, yesterday, 2026-02-13
    #[arg(long, value_name = "TIME")]
    newer: Option<String>,
    /// Not changed since
    #[arg(long, value_name = "TIME")]
    older: Option<String>,
    /// Written by this device
    #[arg(long, value_name = "NAME", add = super::completions::device())]
    device: Option<String>,
    /// Where its bytes are
    #[arg(long, value_name = "STATE")]
    state: Option<State>,
    /// In conflict
    #[arg(long)]
    conflict: bool,
    /// Pinned
    #[arg(long)]
    pinned: bool,
    /// Stop after so many
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Sizes, times, where the bytes are, and who wrote it
    #[arg(short, long)]
    long: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Type {
    /// Regular file
    #[value(alias = "f")]
    File,
    /// Directory
    #[value(alias = "d")]
    Dir,
    /// Symbolic link
    #[value(alias = "l")]
    Symlink,
}

#[derive(Clone, Copy, ValueEnum)]
enum State {
    /// None of its bytes are here
    Stub,
    /// Some
    Partial,
    /// All
    Hydrated,
    /// All, and not in the store yet
    Pending,
    /// It never leaves this machine
    LocalOnly,
}

/// What somebody wrote with one dash as find(1) has it, with two.
pub fn dashes(args: Vec<std::ffi::OsString>) -> Vec<std::ffi::OsString> {
    let Some(at) = args.iter().position(|a| a == "find") else { return args };
    let with_two = |(i, a): (usize, std::ffi::OsString)| match a.to_str() {
        Some(s) if i > at && AS_IN_FIND.contains(&s) => format!("-{s}").into(),
        _ => a,
    };
    args.into_iter().enumerate().map(with_two).collect()
}

/// Bounds that `+1M`, `-1M` or `1M` means.
fn bounds(text: &str) -> std::result::Result<(Option<u64>, Option<u64>), String> {
    let n = |t: &str| t.parse::<Size>().map(|s| s.0);
    match text.strip_prefix('+') {
        Some(t) => Ok((Some(n(t)?), None)),
        None => match text.strip_prefix('-') {
            Some(t) => Ok((None, Some(n(t)?))),
            None => n(text).map(|s| (Some(s), Some(s))),
        },
    }
}

impl Find {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        let usage = |flag: &str, why: String| Error::new(Kind::Usage, format!("{flag}: {why}"));
        let time = |flag: &str, t: &Option<String>| {
            t.as_ref().map(|t| format::parse_time(t, now, ctx.out.offset())).transpose().map_err(|why| usage(flag, why))
        };
        let (min_size, max_size) = self.size.as_deref().map_or(Ok((None, None)), bounds).map_err(|why| usage("--size", why))?;
        let (newer, older) = (time("--newer", &self.newer)?, time("--older", &self.older)?);
        let drive = ctx.own_drive().await?;
        let path = self.path.as_ref().map(|p| ctx.path(&drive, p)).transpose()?;
        let request = protocol::Find {
            path,
            children: false,
            ignore_case: self.iname.is_some(),
            name: self.name.or(self.iname),
            kind: self.kind.map(|k| match k {
                Type::File => EntryKind::File,
                Type::Dir => EntryKind::Dir,
                Type::Symlink => EntryKind::Symlink,
            }),
            min_size,
            max_size,
            newer,
            older,
            device: self.device,
            residence: self.state.map(|s| match s {
                State::Stub => Residence::Stub,
                State::Partial => Residence::Partial,
                State::Hydrated => Residence::Hydrated,
                State::Pending => Residence::Pending,
                State::LocalOnly => Residence::LocalOnly,
            }),
            conflict: self.conflict,
            pinned: self.pinned,
            limit: self.limit,
        };
        let long = self.long;
        let response = ctx
            .ask(drive, Request::Find(request), |i| {
                if let Item::Entry(e) = i {
                    ctx.out.line(super::ls::line(ctx, &e, &e.path, long));
                }
            })
            .await?;
        ctx.out.object(&response);
        let Response::Found(f) = &response else { return Err(unexpected(&response)) };
        if f.limited {
            ctx.out.note(format!("there may be more: only {} are shown", format::count(f.entries, "entry", "entries")));
        }
        Ok(response.exit_code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bounds() {
        assert_eq!(bounds("+1K"), Ok((Some(1024), None)));
        assert_eq!(bounds("-1K"), Ok((None, Some(1024))));
        assert_eq!(bounds("5"), Ok((Some(5), Some(5))));
        assert!(bounds("+x").is_err());
    }

    #[test]
    fn one_dash_is_enough_behind_find() {
        let os = |v: &[&str]| v.iter().map(std::ffi::OsString::from).collect::<Vec<_>>();
        assert_eq!(dashes(os(&["tcfs", "find", "-name", "x", "-l"])), os(&["tcfs", "find", "--name", "x", "-l"]));
        assert_eq!(dashes(os(&["tcfs", "ls", "-name"])), os(&["tcfs", "ls", "-name"]));
    }
}
