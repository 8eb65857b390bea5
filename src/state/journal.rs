//! The append journal: every change of local state as a redo record, before the database has committed it.
//!
//! A record is `len u32 LE | check u64 LE | lsn u64 LE | payload`, where `check` is the first eight bytes of
//! BLAKE3 over lsn and payload. Segments are files named by the first lsn they may hold. The database stores the
//! lsn it has applied in the same transaction as the rows, so after a crash exactly the records beyond it are
//! replayed.
//!
//! Must: a record is appended whole or not at all (a failed append is cut off again), and none that a replay would take
//! for damage.
//! Must: a segment is synced before the next one begins, so only the last can have a torn end.
//! Must: a segment is removed only when the database is durable beyond its last record.

use crate::error::{Error, IoContext, Kind, Result};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const HEADER: usize = 4 + 8 + 8;
/// A record larger than this can only be damage.
const RECORD_MAX: usize = 256 << 20;
/// A segment past this length is closed and the next begun.
const SEGMENT_BYTES: u64 = 8 << 20;

/// The open journal.
pub struct Journal {
    dir: PathBuf,
    file: Arc<File>,
    first: u64,
    len: u64,
    /// Closed segments, oldest first: (first lsn, path, last lsn).
    closed: Vec<(u64, PathBuf, u64)>,
    last: u64,
    scratch: Vec<u8>,
    /// A failed append could not be cut off: that comes first.
    torn: bool,
}

fn check_of(lsn: u64, payload: &[&[u8]]) -> u64 {
    let mut h = blake3::Hasher::new();
    h.update(&lsn.to_le_bytes());
    for part in payload {
        h.update(part);
    }
    let mut b = [0u8; 8];
    b.copy_from_slice(&h.finalize().as_bytes()[..8]);
    u64::from_le_bytes(b)
}

/// The segment whose first record is `first`.
fn segment_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}"))
}

fn open_segment(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(path).doing(|| format!("opening the journal segment {}", path.display()))
}

fn segments(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut out = Vec::new();
    for e in std::fs::read_dir(dir).doing(|| format!("listing the journal in {}", dir.display()))? {
        let e = e.doing(|| format!("listing the journal in {}", dir.display()))?;
        if let Some(n) = e.file_name().to_str().and_then(|n| n.parse::<u64>().ok()) {
            out.push((n, e.path()));
        }
    }
    out.sort();
    Ok(out)
}

/// Reads the whole records of one segment; true if it ended in a torn or damaged one.
fn read_segment(path: &Path, mut each: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<(u64, bool)> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|mut f| f.read_to_end(&mut bytes)).doing(|| format!("reading the journal segment {}", path.display()))?;
    let mut at = 0usize;
    while bytes.len() - at >= HEADER {
        let word = |i: usize| -> [u8; 8] { bytes[at + i..at + i + 8].try_into().unwrap_or([0; 8]) };
        let len = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or([0; 4])) as usize;
        let check = u64::from_le_bytes(word(4));
        let lsn = u64::from_le_bytes(word(12));
        if len > RECORD_MAX || len > bytes.len() - at - HEADER {
            return Ok((at as u64, true));
        }
        let payload = &bytes[at + HEADER..at + HEADER + len];
        if check_of(lsn, &[payload]) != check {
            return Ok((at as u64, true));
        }
        each(lsn, payload)?;
        at += HEADER + len;
    }
    Ok((at as u64, at != bytes.len()))
}

impl Journal {
    /// Opens the journal in `dir`, hands every record with lsn > `applied` to `each` in order, cuts a torn end off
    /// and is ready to append.
    pub fn open(dir: &Path, applied: u64, mut each: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<Journal> {
        std::fs::create_dir_all(dir).doing(|| format!("creating {}", dir.display()))?;
        let found = segments(dir)?;
        let mut last = applied;
        let mut closed = Vec::new();
        let count = found.len();
        let mut open: Option<(u64, PathBuf, u64)> = None;
        for (i, (first, path)) in found.into_iter().enumerate() {
            let mut seen = first.saturating_sub(1);
            let (good, torn) = read_segment(&path, |lsn, payload| {
                seen = lsn;
                if lsn > last {
                    if lsn != last + 1 {
                        return Err(Error::new(
                            Kind::Corrupt,
                            format!("the journal segment {} goes on at record {lsn}, expected {}", path.display(), last + 1),
                        )
                        .hint("the local state is damaged: `tcfs doctor` says what can be saved"));
                    }
                    each(lsn, payload)?;
                    last = lsn;
                }
                Ok(())
            })?;
            if torn && i + 1 != count {
                return Err(Error::new(Kind::Corrupt, format!("the journal segment {} is damaged at byte {good}", path.display()))
                    .hint("the local state is damaged: `tcfs doctor` says what can be saved"));
            }
            if i + 1 == count {
                open = Some((first, path, good));
            } else {
                closed.push((first, path, seen));
            }
        }
        let (first, path, len) = match open {
            Some(o) => o,
            None => (last + 1, segment_path(dir, last + 1), 0),
        };
        let file = open_segment(&path)?;
        file.set_len(len).doing(|| format!("cutting the torn end off {}", path.display()))?;
        // What was replayed is acted on from here: it must not vanish in a power cut that comes later.
        file.sync_data().doing(|| format!("syncing {}", path.display()))?;
        sync_dir(dir)?;
        Ok(Journal { dir: dir.to_owned(), file: Arc::new(file), first, len, closed, last, scratch: Vec::new(), torn: false })
    }

    /// Highest lsn written.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Appends one record, given in parts; on failure nothing was appended.
    pub fn append(&mut self, payload: &[&[u8]]) -> Result<u64> {
        let len: usize = payload.iter().map(|p| p.len()).sum();
        if len > RECORD_MAX {
            return Err(
                Error::new(Kind::TooBig, format!("one change of the local state would take {} MiB", len >> 20)).hint("do it in parts")
            );
        }
        self.cut_torn_end()?;
        let lsn = self.last + 1;
        self.scratch.clear();
        self.scratch.extend_from_slice(&(len as u32).to_le_bytes());
        self.scratch.extend_from_slice(&check_of(lsn, payload).to_le_bytes());
        self.scratch.extend_from_slice(&lsn.to_le_bytes());
        for part in payload {
            self.scratch.extend_from_slice(part);
        }
        if let Err(e) = (&*self.file).write_all(&self.scratch) {
            self.torn = self.file.set_len(self.len).is_err();
            return Err(Error::io("appending to the journal of the local state", e));
        }
        self.len += self.scratch.len() as u64;
        self.last = lsn;
        Ok(lsn)
    }

    /// Behind a torn record nothing would be found again.
    fn cut_torn_end(&mut self) -> Result<()> {
        if self.torn {
            self.file.set_len(self.len).doing(|| "cutting off a failed append of the journal")?;
            self.torn = false;
        }
        Ok(())
    }

    /// The file to `sync_data` for everything appended so far; taken under the lock, synced outside it.
    pub fn handle(&self) -> Arc<File> {
        self.file.clone()
    }

    /// Where the present segment lies.
    pub fn path(&self) -> PathBuf {
        segment_path(&self.dir, self.first)
    }

    /// Begins anew behind the last record. Must: the database is durable beyond it. For when the disk may not have taken
    /// what was appended: a hole in it would count as the end. The segment takes its new name and is emptied, so that there
    /// is one to append to whatever fails.
    pub fn abandon(&mut self) -> Result<()> {
        self.prune(self.last);
        let (old, first) = (self.path(), self.last + 1);
        std::fs::rename(&old, segment_path(&self.dir, first)).doing(|| format!("renaming the journal segment {}", old.display()))?;
        self.first = first;
        self.file.set_len(0).doing(|| "emptying the journal of the local state")?;
        (self.len, self.torn) = (0, false);
        sync_dir(&self.dir)
    }

    /// Whether the present segment is long enough to be closed.
    pub fn is_full(&self) -> bool {
        self.len >= SEGMENT_BYTES
    }

    /// Syncs and closes the present segment and begins the next.
    pub fn rotate(&mut self) -> Result<()> {
        // Only the last segment may end in a torn record.
        self.cut_torn_end()?;
        self.file.sync_data().doing(|| "syncing the journal")?;
        let first = self.last + 1;
        let path = segment_path(&self.dir, first);
        let file = open_segment(&path)?;
        // One that is not gone on with must not be there: the segment before it would count as closed.
        sync_dir(&self.dir).inspect_err(|_| drop(std::fs::remove_file(&path)))?;
        self.closed.push((self.first, self.path(), self.last));
        self.file = Arc::new(file);
        self.first = first;
        self.len = 0;
        Ok(())
    }

    /// Removes closed segments whose records are all at or below `durable`.
    pub fn prune(&mut self, durable: u64) {
        self.closed.retain(|(_, path, last)| {
            // A segment that cannot be removed is only read again at the next start and skipped by its lsn.
            *last > durable || std::fs::remove_file(path).is_err()
        });
    }
}

/// Makes names in `dir` durable.
pub fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).doing(|| format!("syncing the directory {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(dir: &Path, applied: u64) -> (Journal, Vec<(u64, Vec<u8>)>) {
        let mut got = Vec::new();
        let j = Journal::open(dir, applied, |l, p| {
            got.push((l, p.to_vec()));
            Ok(())
        })
        .unwrap();
        (j, got)
    }

    #[test]
    fn records_come_back_after_reopening_and_only_beyond_applied() {
        let t = tempfile::tempdir().unwrap();
        let (mut j, got) = collect(t.path(), 0);
        assert!(got.is_empty());
        j.append(&[b"one"]).unwrap();
        j.rotate().unwrap();
        j.append(&[b"two"]).unwrap();
        j.append(&[b""]).unwrap();
        drop(j);
        assert_eq!(collect(t.path(), 0).1, vec![(1, b"one".to_vec()), (2, b"two".to_vec()), (3, vec![])]);
        assert_eq!(collect(t.path(), 2).1, vec![(3, vec![])]);
    }

    #[test]
    fn a_torn_end_is_cut_at_every_byte() {
        let t = tempfile::tempdir().unwrap();
        let (mut j, _) = collect(t.path(), 0);
        j.append(&[b"first"]).unwrap();
        let whole = j.len;
        j.append(&[b"second"]).unwrap();
        let path = t.path().join(format!("{:020}", 1));
        let bytes = std::fs::read(&path).unwrap();
        for n in whole..bytes.len() as u64 {
            std::fs::write(&path, &bytes[..n as usize]).unwrap();
            let (mut j, got) = collect(t.path(), 0);
            assert_eq!(got, vec![(1, b"first".to_vec())], "cut at {n}");
            j.append(&[b"again"]).unwrap();
            drop(j);
            assert_eq!(collect(t.path(), 0).1.len(), 2);
        }
    }

    /// A replay would cut it off with all that comes behind.
    #[test]
    fn record_that_a_replay_would_take_for_damage_is_refused() {
        let t = tempfile::tempdir().unwrap();
        let (mut j, _) = collect(t.path(), 0);
        j.append(&[b"one"]).unwrap();
        assert_eq!(j.append(&[b"x", &vec![0; RECORD_MAX]]).unwrap_err().kind(), Kind::TooBig);
        j.append(&[b"two"]).unwrap();
        drop(j);
        assert_eq!(collect(t.path(), 0).1, vec![(1, b"one".to_vec()), (2, b"two".to_vec())]);
    }

    /// An append that failed and could not be cut off at once does not damage the segment that is closed with it.
    #[test]
    fn torn_end_is_cut_before_the_next_segment_begins() {
        let t = tempfile::tempdir().unwrap();
        let (mut j, _) = collect(t.path(), 0);
        j.append(&[b"one"]).unwrap();
        (&*j.file).write_all(&[1, 2, 3]).unwrap();
        j.torn = true;
        j.rotate().unwrap();
        j.append(&[b"two"]).unwrap();
        drop(j);
        assert_eq!(collect(t.path(), 0).1, vec![(1, b"one".to_vec()), (2, b"two".to_vec())]);
    }

    #[test]
    fn journal_that_is_abandoned_goes_on_behind_its_last_record() {
        let t = tempfile::tempdir().unwrap();
        let (mut j, _) = collect(t.path(), 0);
        j.append(&[b"one"]).unwrap();
        j.rotate().unwrap();
        j.append(&[b"two"]).unwrap();
        j.abandon().unwrap();
        j.append(&[b"three"]).unwrap();
        drop(j);
        assert_eq!(collect(t.path(), 2).1, vec![(3, b"three".to_vec())]);
    }

    #[test]
    fn damage_in_a_closed_segment_is_told_not_skipped() {
        let t = tempfile::tempdir().unwrap();
        let (mut j, _) = collect(t.path(), 0);
        j.append(&[b"first"]).unwrap();
        j.rotate().unwrap();
        j.append(&[b"second"]).unwrap();
        let path = t.path().join(format!("{:020}", 1));
        let mut bytes = std::fs::read(&path).unwrap();
        let n = bytes.len() - 1;
        bytes[n] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let e = Journal::open(t.path(), 0, |_, _| Ok(())).err().unwrap();
        assert_eq!(e.kind(), Kind::Corrupt);
    }

    #[test]
    fn prune_removes_only_what_is_durable() {
        let t = tempfile::tempdir().unwrap();
        let (mut j, _) = collect(t.path(), 0);
        for i in 0..3u8 {
            j.append(&[&[i]]).unwrap();
            j.rotate().unwrap();
        }
        j.prune(2);
        drop(j);
        assert_eq!(collect(t.path(), 2).1, vec![(3, vec![2])]);
    }
}
