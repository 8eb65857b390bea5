//! The table of mounts, as the kernel tells it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Name of our mounts in `/proc/self/mountinfo`: the source of a mount made by root (type `fuse`), and the subtype of one
/// made through the helper (type `fuse.tcfs`).
pub const FS_NAME: &str = "tcfs";

/// A line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// Where.
    pub mountpoint: PathBuf,
    /// Type, such as `ext4`, `fuse` or `fuse.tcfs`.
    pub fstype: String,
    /// What is mounted, such as `/dev/sda1`; of ours [`FS_NAME`].
    pub source: String,
    /// Minor device number; of a FUSE mount the number of its connection.
    pub minor: u32,
}

impl MountEntry {
    /// Whether it is a FUSE mount of a tcfs daemon.
    pub fn is_ours(&self) -> bool {
        self.fstype.strip_prefix("fuse.") == Some(FS_NAME) || self.fstype == "fuse" && self.source == FS_NAME
    }
}

/// Reads `/proc/self/mountinfo`; lines that are not understood are passed over.
pub fn parse_mountinfo(text: &[u8]) -> Vec<MountEntry> {
    text.split(|b| *b == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|b| *b == b' ');
            let device = std::str::from_utf8(fields.nth(2)?).ok()?;
            let mountpoint = unescape(fields.nth(1)?);
            let mut end = fields.skip_while(|f| *f != b"-").skip(1);
            let (fstype, source) = (end.next()?, end.next().unwrap_or_default());
            Some(MountEntry {
                mountpoint,
                fstype: String::from_utf8_lossy(fstype).into_owned(),
                source: unescape(source).to_string_lossy().into_owned(),
                minor: device.split_once(':')?.1.parse().ok()?,
            })
        })
        .collect()
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
pub(super) fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut i = 0;
    while i < field.len() {
        let octal = field.get(i + 1..i + 4).filter(|d| field[i] == b'\\' && d.iter().all(|c| (b'0'..=b'7').contains(c)));
        match octal {
            Some(d) => {
                out.push(d.iter().fold(0u32, |n, c| n << 3 | u32::from(c - b'0')) as u8);
                i += 4;
            }
            None => {
                out.push(field[i]);
                i += 1;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

/// What is mounted on this system; nothing where the kernel does not tell.
pub fn mounted() -> Vec<MountEntry> {
    std::fs::read("/proc/self/mountinfo").map(|t| parse_mountinfo(&t)).unwrap_or_default()
}

/// Our mount at `mountpoint`, the topmost one.
pub fn ours_at(mountpoint: &Path) -> Option<MountEntry> {
    mounted().into_iter().rfind(|m| m.mountpoint == mountpoint && m.is_ours())
}
