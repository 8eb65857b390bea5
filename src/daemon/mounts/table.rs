//! The table of mounts, as the system tells it.

use super::super::paths::Platform;
use super::{HELPER, output};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Name of our mounts in `/proc/self/mountinfo`: the source of a mount made by root (type `fuse`), and the subtype of one
/// made through the helper (type `fuse.tcfs`).
pub const FS_NAME: &str = "tcfs";

/// How the source of an NFS mount of ours begins.
const NFS_SOURCE: &str = "127.0.0.1:/tcfs-";

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// Where.
    pub mountpoint: PathBuf,
    /// Type, such as `ext4`, `fuse` or `fuse.tcfs`.
    pub fstype: String,
    /// What is mounted, such as `/dev/sda1`; of ours [`FS_NAME`], or this machine and an export.
    pub source: String,
    /// Minor device number; of a FUSE mount the number of its connection. 0 where it is not told.
    pub minor: u32,
}

impl MountEntry {
    /// Whether it is a mount of a tcfs daemon.
    pub fn is_ours(&self) -> bool {
        self.is_nfs() || self.fstype.strip_prefix("fuse.") == Some(FS_NAME) || self.fstype == "fuse" && self.source == FS_NAME
    }

    /// Whether it is one by NFS.
    pub fn is_nfs(&self) -> bool {
        self.fstype.starts_with("nfs") && self.source.starts_with(NFS_SOURCE)
    }

    /// Whether it is this machine's export of that path.
    pub fn is_of(&self, export: &str) -> bool {
        self.source.strip_suffix(export).is_some_and(|host| host == "127.0.0.1:")
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

/// Reads what `mount` prints on macOS: `127.0.0.1:/export on /Users/u/my drive (nfs, nodev, nosuid, mounted by u)`.
pub fn parse_mount_list(text: &str) -> Vec<MountEntry> {
    text.lines()
        .filter_map(|line| {
            let (source, rest) = line.split_once(" on ")?;
            let (mountpoint, options) = rest.rsplit_once(" (")?;
            let fstype = options.split([',', ')']).next()?;
            Some(MountEntry { mountpoint: mountpoint.into(), fstype: fstype.to_owned(), source: source.to_owned(), minor: 0 })
        })
        .collect()
}

/// What is mounted on this system; none where the system does not tell.
pub fn mounted() -> Option<Vec<MountEntry>> {
    match Platform::here() {
        Platform::Linux => std::fs::read("/proc/self/mountinfo").ok().map(|t| parse_mountinfo(&t)),
        Platform::MacOs => output(&mut Command::new("mount"), HELPER).map(|t| parse_mount_list(&t)),
    }
}

/// Our mount at `mountpoint`, the topmost one.
pub fn ours_at(mountpoint: &Path) -> Option<MountEntry> {
    mounted()?.into_iter().rfind(|m| m.mountpoint == mountpoint && m.is_ours())
}
