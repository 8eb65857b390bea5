//! git's index file: what its entries say of files, read and set.
//!
//! The index holds, beside each content, the size and times that the file had when git last saw it with that content; where
//! they still hold git does not read the file. No command of git sets them without reading, and the library that reads the
//! format maps the file, which on a mount of this process can wait for itself. So the fields are set in place here, and all
//! else in the file stays as it is.
//!
//! Format: gitformat-index(5), versions 2 to 4, objects named by SHA-1. A split index is left alone.

use crate::error::{Error, IoContext, Kind, Result};
use sha1::{Digest, Sha1};
use std::fs::{File, Metadata};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Bytes of an entry that say what its file looked like.
const STAT: usize = 40;
/// Bytes of the name of an object, and of the sum at the end.
const ID: usize = 20;
/// Bytes before the first entry.
const HEADER: usize = 12;
/// Fields of the first: seconds and nanoseconds of the last change and of the last write, device, inode, mode, owner, group,
/// size.
type Fields = [u32; 10];
const MTIME: usize = 2;
const DEVICE: usize = 4;
const MODE: usize = 6;
const SIZE: usize = 9;

/// Size and time of writing of a file, as an index holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) seconds: u32,
    pub(super) nanos: u32,
    pub(super) size: u32,
}

impl Seen {
    /// What a file looks like now. The index keeps the lower half of each number.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(super) fn now(m: &Metadata) -> Seen {
        Seen { seconds: m.mtime() as u32, nanos: m.mtime_nsec() as u32, size: m.size() as u32 }
    }
}

/// One entry.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) path: String,
    /// Name of the content, in hexadecimal.
    pub(super) id: String,
    fields: Fields,
    at: usize,
}

impl Entry {
    /// What the file looked like.
    pub(super) fn seen(&self) -> Seen {
        Seen { seconds: self.fields[MTIME], nanos: self.fields[MTIME + 1], size: self.fields[SIZE] }
    }

    /// Whether git would take the file for unchanged without reading it.
    pub(super) fn holds(&self, m: &Metadata) -> bool {
        let mut now = fields(m, self.fields[MODE]);
        // git does not look at the device either: it is another one after each mount.
        now[DEVICE] = self.fields[DEVICE];
        now == self.fields
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // as the format has it
fn fields(m: &Metadata, mode: u32) -> Fields {
    let time = |s: i64, n: i64| [s as u32, n as u32];
    let ([cs, cn], [ms, mn]) = (time(m.ctime(), m.ctime_nsec()), time(m.mtime(), m.mtime_nsec()));
    [cs, cn, ms, mn, m.dev() as u32, m.ino() as u32, mode, m.uid(), m.gid(), m.size() as u32]
}

/// An index.
#[derive(Debug)]
pub(super) struct Index {
    bytes: Vec<u8>,
    /// Of the stage that is neither side of a merge.
    pub(super) entries: Vec<Entry>,
    /// Time of its writing: a file written since may have changed unseen.
    pub(super) written: (i64, i64),
}

impl Index {
    /// Reads one. None if there is none, or it is of a form that is left alone.
    pub(super) fn read(path: &Path) -> Result<Option<Index>> {
        let doing = || format!("reading {}", path.display());
        let meta = match path.metadata() {
            Ok(m) => m,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(doing(), e)),
        };
        let bytes = std::fs::read(path).doing(doing)?;
        Ok(parse(&bytes).map(|entries| Index { bytes, entries, written: (meta.mtime(), meta.mtime_nsec()) }))
    }

    /// Sets what is said of the file of an entry to what it looks like now.
    pub(super) fn set(&mut self, entry: usize, m: &Metadata) {
        let fields = fields(m, self.entries[entry].fields[MODE]);
        self.put(entry, fields);
    }

    /// Sets it to what the file looked like with the content of the entry, which it has no more.
    pub(super) fn set_seen(&mut self, entry: usize, s: Seen) {
        let mut fields: Fields = [0; 10];
        (fields[MTIME], fields[MTIME + 1], fields[SIZE]) = (s.seconds, s.nanos, s.size);
        fields[MODE] = self.entries[entry].fields[MODE];
        self.put(entry, fields);
    }

    fn put(&mut self, entry: usize, fields: Fields) {
        let e = &mut self.entries[entry];
        e.fields = fields;
        let text: Vec<u8> = fields.iter().flat_map(|f| f.to_be_bytes()).collect();
        self.bytes[e.at..e.at + STAT].copy_from_slice(&text);
    }

    /// Writes it out.
    fn write(mut self, to: &mut File) -> std::io::Result<()> {
        let end = self.bytes.len() - ID;
        // All zeros: made without a sum (`index.skipHash`).
        if self.bytes[end..].iter().any(|b| *b != 0) {
            let sum = Sha1::digest(&self.bytes[..end]);
            self.bytes[end..].copy_from_slice(&sum);
        }
        to.write_all(&self.bytes)
    }
}

/// Changes an index under git's lock. False if there is none to change.
///
/// Errors: `Busy` if git works in it.
pub(super) fn edit(path: &Path, change: impl FnOnce(&mut Index)) -> Result<bool> {
    let lock = path.with_extension("lock");
    let mut file = match File::options().write(true).create_new(true).open(&lock) {
        Ok(f) => f,
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Error::new(Kind::Busy, format!("{} is there: git works in it, or was killed in it", lock.display())));
        }
        Err(e) => return Err(Error::io(format!("making {}", lock.display()), e)),
    };
    let locked = Lock(&lock);
    let Some(mut index) = Index::read(path)? else { return Ok(false) };
    change(&mut index);
    let doing = || format!("writing {}", lock.display());
    index.write(&mut file).doing(doing)?;
    std::fs::rename(&lock, path).doing(doing)?;
    std::mem::forget(locked);
    Ok(true)
}

/// Removed when dropped.
struct Lock<'a>(&'a Path);

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0);
    }
}

/// The entries in the bytes of an index. None where they are not as the format says, or of a form that is left alone.
fn parse(b: &[u8]) -> Option<Vec<Entry>> {
    let word = |at: usize| Some(u32::from_be_bytes(b.get(at..at + 4)?.try_into().ok()?));
    let half = |at: usize| Some(u16::from_be_bytes(b.get(at..at + 2)?.try_into().ok()?));
    let (version, count) = (word(4)?, word(8)?);
    if b.get(..4)? != b"DIRC" || !(2..=4).contains(&version) {
        return None;
    }
    let (mut at, mut path, mut out) = (HEADER, Vec::new(), Vec::new());
    for _ in 0..count {
        let mut fields: Fields = [0; 10];
        for (n, f) in fields.iter_mut().enumerate() {
            *f = word(at + 4 * n)?;
        }
        let id = b.get(at + STAT..at + STAT + ID)?.iter().map(|x| format!("{x:02x}")).collect();
        let flags = half(at + STAT + ID)?;
        let mut name = at + STAT + ID + 2;
        let extended = flags & 0x4000 != 0;
        // Of those, the one that says that the file is not in the worktree.
        let skipped = extended && half(name)? & 0x4000 != 0;
        name += if extended { 2 } else { 0 };
        if version == 4 {
            let (mut drop, mut more) = (0usize, true);
            for n in 0.. {
                let byte = *b.get(name)?;
                name += 1;
                drop = if n == 0 { 0 } else { drop.checked_add(1)?.checked_mul(128)? } + usize::from(byte & 127);
                more = byte & 128 != 0;
                if !more || n > 8 {
                    break;
                }
            }
            path.truncate(path.len().checked_sub(drop).filter(|_| !more)?);
        } else {
            path.clear();
        }
        let end = name + b.get(name..)?.iter().position(|c| *c == 0)?;
        path.extend_from_slice(&b[name..end]);
        if flags & 0x3000 == 0
            && !skipped
            && let Ok(path) = std::str::from_utf8(&path)
        {
            out.push(Entry { path: path.to_owned(), id, fields, at });
        }
        // Older versions end each with zeros, so that the next begins at a multiple of eight.
        at = if version == 4 { end + 1 } else { at + (end - at) / 8 * 8 + 8 };
    }
    let mut end = at;
    while end + ID < b.len() {
        // Entries of a split index are in another file.
        if b.get(end..end + 4)? == b"link" {
            return None;
        }
        end = end.checked_add(8)?.checked_add(word(end + 4)? as usize)?;
    }
    (end + ID == b.len()).then_some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed call is a failed test
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;
    use std::time::{Duration, SystemTime};

    fn git(at: &Path, args: &[&str]) -> String {
        let out = Command::new("git").current_dir(at).args(args).env("GIT_CONFIG_GLOBAL", "/dev/null").output().unwrap();
        assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    #[test]
    fn what_git_wrote_is_read_and_what_is_set_git_believes() {
        for version in ["2", "3", "4"] {
            let dir = tempfile::tempdir().unwrap();
            let at = dir.path();
            git(at, &["init", "-q"]);
            let names = ["a", "dir/file", "dir/file.c", "dir/filz", "eight888", "long/".repeat(60).as_str(), "z ü"].map(str::to_owned);
            let names = names.map(|n| if n.ends_with('/') { format!("{n}f") } else { n });
            let write = |n: &str, seconds| {
                std::fs::create_dir_all(at.join(n).parent().unwrap()).unwrap();
                std::fs::write(at.join(n), n).unwrap();
                let time = SystemTime::now() - Duration::from_secs(seconds);
                File::options().write(true).open(at.join(n)).unwrap().set_modified(time).unwrap();
            };
            names.iter().for_each(|n| write(n, 200));
            git(at, &["add", "-A"]);
            // An entry of the third version has more flags.
            std::fs::write(at.join("intended"), "x").unwrap();
            git(at, &["add", "-N", "intended"]);
            git(at, &["update-index", "--index-version", version]);
            let path = at.join(".git/index");
            let index = Index::read(&path).unwrap().unwrap();
            let told = git(at, &["-c", "core.quotePath=false", "ls-files", "-s"]);
            let want: Vec<(String, String)> = told
                .lines()
                .map(|l| l.split_once('\t').unwrap())
                .map(|(what, p)| (p.to_owned(), what.split(' ').nth(1).unwrap().to_owned()))
                .collect();
            assert_eq!(index.entries.iter().map(|e| (e.path.clone(), e.id.clone())).collect::<Vec<_>>(), want);
            assert!(names.iter().all(|n| index.entries.iter().any(|e| e.path == *n)));

            // Touched: git has to read it, until it is told that it is the same.
            names.iter().for_each(|n| write(n, 100));
            assert_eq!(git(at, &["diff-files", "--name-only"]).lines().count(), names.len() + 1);
            let mut seen = 0;
            let done = edit(&path, |i| {
                seen = i.entries.len();
                for n in 0..i.entries.len() {
                    let m = at.join(&i.entries[n].path).symlink_metadata().unwrap();
                    assert!(!i.entries[n].holds(&m));
                    if i.entries[n].path != "intended" {
                        i.set(n, &m);
                        assert!(i.entries[n].holds(&m));
                    }
                }
            });
            assert_eq!((done.unwrap(), seen), (true, names.len() + 1));
            assert_eq!(git(at, &["diff-files", "--name-only"]), "intended\n");
            git(at, &["fsck", "--full"]);
            std::fs::write(at.join(".git/index.lock"), "").unwrap();
            assert_eq!(edit(&path, |_| ()).unwrap_err().kind(), Kind::Busy);
            assert!(at.join(".git/index.lock").exists());
        }
    }

    #[test]
    fn a_split_index_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        git(at, &["init", "-q"]);
        std::fs::write(at.join("a"), "a").unwrap();
        git(at, &["add", "-A"]);
        git(at, &["update-index", "--split-index"]);
        assert!(Index::read(&at.join(".git/index")).unwrap().is_none());
        assert!(!edit(&at.join(".git/index"), |_| ()).unwrap());
        assert!(!at.join(".git/index.lock").exists());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_left_alone(version in 2u8..5, count in 0u8..4, body in proptest::collection::vec(0u8..255, 0..400)) {
            let mut bytes = b"DIRC\0\0\0".to_vec();
            bytes.extend([version, 0, 0, 0, count]);
            bytes.extend(body);
            let _ = parse(&bytes);
        }
    }
}
