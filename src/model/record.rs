//! Records: versions as JSON lines, the body of a log batch before compression.
//!
//! Must: a line is either a checked version, or parked raw because a later tcfs wrote it, or an error of that line
//! only. Must: nothing that would be refused in reading is ever written.
//! Not here: compression (`content`), keys and sequence numbers (`store`, `fleet`).

use super::manifest::{check_sizes, root_of};
use super::path::{NAME_MAX, PATH_MAX};
use super::vclock::VClock;
use super::version::{FileContent, Kind, Place, RECORD_FORMAT, Version};
use crate::error::{Error, Kind as ErrorKind, Result};
use serde::Deserialize;

/// Longest line in bytes: path, clocks and inline chunks take a few KiB, attributes up to [`XATTRS_MAX`].
pub const LINE_MAX: usize = 4 << 20;
/// Most bytes of extended attributes (names and base64 values) of one version.
pub const XATTRS_MAX: usize = 1 << 20;
/// Longest device name or id.
pub const DEVICE_MAX: usize = 64;

/// One line of a batch.
#[derive(Debug)]
pub enum Line {
    /// A checked version.
    Version(Box<Version>),
    /// A record of a later format or unknown kind, as it stands; applied after an upgrade.
    Parked(String),
    /// A line that is damaged or says something impossible.
    Damaged(Error),
}

/// The lines of a batch, each ended by a newline.
///
/// Errors: `Invalid` for a version no reader would accept, one whose bytes are not cut yet among them.
pub fn encode<'a>(batch: impl IntoIterator<Item = &'a Version>) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for v in batch {
        let doing = |why: String| Error::new(ErrorKind::Invalid, format!("writing a record of {:?}: {why}", v.path));
        check(v).map_err(doing)?;
        serde_json::to_writer(&mut out, v).map_err(|e| doing(e.to_string()))?;
        out.push(b'\n');
    }
    Ok(out)
}

/// Reads the lines of a batch; blank ones are skipped.
pub fn decode(body: &[u8]) -> Vec<Line> {
    body.split(|b| *b == b'\n').enumerate().filter(|(_, l)| !l.trim_ascii().is_empty()).map(|(i, l)| line(i + 1, l)).collect()
}

#[derive(Deserialize)]
struct Header {
    v: u64,
    #[serde(default)]
    kind: serde_json::Value,
}

/// Reads one line, without its newline.
pub(super) fn line(number: usize, bytes: &[u8]) -> Line {
    let damaged = |why: String| Line::Damaged(Error::new(ErrorKind::Corrupt, format!("reading record {number} of a batch: {why}")));
    if bytes.len() > LINE_MAX {
        return damaged(format!("{} bytes are more than {LINE_MAX}", bytes.len()));
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(t) => t,
        Err(e) => return damaged(e.to_string()),
    };
    match serde_json::from_str::<Version>(text) {
        Ok(v) if v.v == RECORD_FORMAT => match check(&v) {
            Ok(()) => Line::Version(Box::new(v)),
            Err(why) => damaged(format!("{:?}: {why}", v.path)),
        },
        other => match serde_json::from_str::<Header>(text) {
            Ok(h) if h.v > u64::from(RECORD_FORMAT) || h.v == u64::from(RECORD_FORMAT) && is_unknown_kind(&h.kind) => {
                Line::Parked(text.to_owned())
            }
            Ok(h) => damaged(other.err().map_or_else(|| format!("format {} does not exist", h.v), |e| e.to_string())),
            Err(e) => damaged(e.to_string()),
        },
    }
}

fn is_unknown_kind(kind: &serde_json::Value) -> bool {
    let tag = match kind {
        serde_json::Value::String(s) => Some(s.as_str()),
        serde_json::Value::Object(o) if o.len() == 1 => o.keys().next().map(String::as_str),
        _ => None,
    };
    // What is under the brake may be of a kind to come.
    if let Some(held) = kind.get("held_back") {
        return [held.get("was"), held.get("now")].into_iter().flatten().any(is_unknown_kind);
    }
    tag.is_some_and(|t| !["file", "dir", "symlink", "bundle", "tombstone"].contains(&t))
}

/// Whether a version says only what a tcfs could have written: shape of ids, clocks, sizes, names. Err says what not.
pub fn check(v: &Version) -> Result<(), String> {
    if v.v != RECORD_FORMAT {
        return Err(format!("format {} is not {RECORD_FORMAT}", v.v));
    }
    check_who(v)?;
    if v.path.is_root() && !v.is_dir() {
        return Err("the root can only be a directory".into());
    }
    match &v.moved_to {
        Some(_) if !v.is_tombstone() => return Err("only a tombstone moves".into()),
        Some(to) if to.is_root() || *to == v.path => return Err(format!("it cannot have moved to {to:?}")),
        _ => {}
    }
    if v.mtime.1 >= 1_000_000_000 {
        return Err(format!("{} nanoseconds in its mtime", v.mtime.1));
    }
    if v.mode > 0o177_777 {
        return Err(format!("mode {:o}", v.mode));
    }
    let xattrs: usize = v.xattrs.iter().map(|(k, val)| k.len() + val.len()).sum();
    if xattrs > XATTRS_MAX {
        return Err(format!("{xattrs} bytes of extended attributes"));
    }
    if let Some(k) = v.xattrs.keys().find(|k| !k.starts_with("user.") || k.len() > NAME_MAX || k.contains('\0')) {
        return Err(format!("extended attribute {k:?}"));
    }
    check_kind(&v.kind)
}

fn check_kind(kind: &Kind) -> Result<(), String> {
    match kind {
        Kind::File(c) | Kind::Bundle { content: c, .. } => check_content(c),
        Kind::Symlink { target } if target.is_empty() || target.len() >= PATH_MAX || target.contains('\0') => {
            Err("a link's target has 1 to 4095 bytes and no NUL".into())
        }
        Kind::Symlink { .. } | Kind::Dir | Kind::Tombstone => Ok(()),
        Kind::HeldBack { was, now } => {
            match **now {
                Kind::Tombstone => {}
                Kind::File(ref c) if c.size == 0 => check_kind(now)?,
                _ => return Err("only a removal or an empty file is held back".into()),
            }
            match **was {
                Kind::Tombstone | Kind::HeldBack { .. } => Err("what was removed already is not held back".into()),
                _ => check_kind(was),
            }
        }
    }
}

fn check_who(v: &Version) -> Result<(), String> {
    is_device(&v.device_id)?;
    is_device(&v.device_name)?;
    if let Some(Place { name, id }) = &v.place {
        is_device(name)?;
        is_device(id)?;
    }
    let rest = v.actor.strip_prefix(v.device_id.as_str());
    if rest.is_none_or(|r| !(r.is_empty() || r.starts_with('.'))) {
        return Err(format!("actor {:?} is not of device {}", v.actor, v.device_id));
    }
    check_clock(&v.vclock)?;
    check_clock(&v.wrote)?;
    if v.vclock.get(&v.actor) == 0 {
        return Err(format!("its clock does not count its own actor {}", v.actor));
    }
    if !v.is_tombstone() && !v.vclock.ge(&v.wrote) {
        return Err("its bytes are of a version it has not seen".into());
    }
    Ok(())
}

fn check_clock(clock: &VClock) -> Result<(), String> {
    clock.check().map_err(|e| e.to_string())?;
    clock.iter().try_for_each(|(actor, _)| is_actor(actor))
}

/// `<device id>` or `<device id>.<n>`, n ≥ 2.
fn is_actor(actor: &str) -> Result<(), String> {
    let (device, n) = actor.split_once('.').map_or((actor, None), |(d, n)| (d, Some(n)));
    is_device(device)?;
    match n {
        Some(n) if n.parse::<u64>().map_or(true, |x| x < 2 || x.to_string() != n) => Err(format!("{actor:?} is no actor")),
        _ => Ok(()),
    }
}

/// Whether this can be a device's name or id. Err says why not.
pub fn is_device(s: &str) -> Result<(), String> {
    let ok = !s.is_empty() && s.len() <= DEVICE_MAX && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if ok { Ok(()) } else { Err(format!("{:?} is no device name or id", s.chars().take(80).collect::<String>())) }
}

fn check_content(c: &FileContent) -> Result<(), String> {
    if c.manifest.is_zero() {
        return Err("its bytes are not cut yet".into());
    }
    let Some(chunks) = &c.chunks else { return Ok(()) };
    check_sizes(chunks, c.size)?;
    if root_of(chunks) == c.root { Ok(()) } else { Err("its root is not that of its chunks".into()) }
}
