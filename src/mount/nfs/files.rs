//! Open files for a protocol that has no open and no close.
//!
//! A file that is read or written stays open for a while after the last call. A written one is closed, and so sealed, after
//! quiet: soon once everything was committed, later where the client may still have something.
//!
//! Must: a commit makes durable and closes nothing, so that a program which syncs each line does not make a version of
//! each. Must: whoever waits for what was written (`tcfs wait`) need not wait for the quiet. Must: no call waits for the
//! store longer than a moment: it is answered "later", and what it waits for goes on.
//! Memory: answers that nobody has fetched yet, at most [`WAITING`] of them.

use super::buffers::Buffers;
use super::convert::status;
use super::sweeps::{self, Sweeps};
use super::wire::{DATA_MAX, READ_HEAD};
use crate::error::{Kind, Result};
use crate::vfs::{OpenFile, ReadNow, Vfs, is_control};
use nfs3_types::nfs3::nfsstat3;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Quiet after which a file is closed whose writes were all committed.
const COMMITTED: Duration = Duration::from_secs(2);
/// The same where the client may still have something to commit.
const UNCOMMITTED: Duration = Duration::from_secs(10);
/// How long a file that was read stays open.
const READ: Duration = Duration::from_secs(10);
/// How long one that was written keeps its bytes although another version took its name: the client may have it open.
const WRITTEN: Duration = Duration::from_secs(600);
/// So many of those that were written are kept.
const WRITTEN_MANY: usize = 1024;
/// How long a read waits for bytes that are not here.
const PATIENCE: Duration = Duration::from_secs(1);
/// Reads that wait at a time; what comes beyond is answered "later" at once.
const WAITING: usize = 128;
/// How long an answer is kept for a client that asked and was told "later".
const KEPT: Duration = Duration::from_secs(60);

struct Writer {
    open: Arc<OpenFile>,
    last: Instant,
    committed: bool,
}

struct Reader {
    open: Arc<OpenFile>,
    until: Instant,
    written: bool,
}

#[derive(Default)]
struct Table {
    writers: HashMap<u64, Writer>,
    readers: HashMap<u64, Reader>,
}

/// What a read gave: bytes, behind as much room as its reply needs before them, or why there are none.
pub(super) type Bytes = std::result::Result<Vec<u8>, nfsstat3>;

/// A read that is on its way, or was answered while nobody listened.
struct Pending {
    answer: watch::Receiver<Option<Bytes>>,
    since: Instant,
}

/// A read: inode, offset, length.
type Key = (u64, u64, u32);

/// The files that are open for clients.
pub(super) struct Files {
    vfs: Arc<Vfs>,
    table: Mutex<Table>,
    pending: Mutex<HashMap<Key, Pending>>,
    waiting: Arc<Semaphore>,
    sweeps: Mutex<Sweeps>,
    buffers: Arc<Buffers>,
}

impl Files {
    pub(super) fn new(vfs: Arc<Vfs>, buffers: Arc<Buffers>) -> Files {
        Files {
            vfs,
            buffers,
            table: Mutex::default(),
            pending: Mutex::default(),
            waiting: Arc::new(Semaphore::new(WAITING)),
            sweeps: Mutex::default(),
        }
    }

    fn open(&self, ino: u64, write: bool) -> Result<Arc<OpenFile>> {
        let opened = match self.vfs.open_sparing(ino, write, false) {
            // Another machine's version took its name since it was written last: for the client it is open all the same.
            Err(e) if write && e.kind() == Kind::Stale => self.vfs.open_lost(ino)?,
            opened => opened?,
        };
        let open = Arc::new(OpenFile::of(&self.vfs, opened.fh));
        if !opened.whole && (write || !self.in_sweep(ino)) {
            self.vfs.hydrate_opened(opened.fh)?;
        }
        Ok(open)
    }

    /// Counts an open of a file that is not here; whether it is one of many of its directory.
    fn in_sweep(&self, ino: u64) -> bool {
        let Some((dir, ..)) = self.vfs.place_of(ino) else { return false };
        let now = Instant::now();
        let (sweep, begins) = self.sweeps.lock().opened(dir, now);
        if begins {
            let at = self.vfs.path_of(dir).map_or_else(|_| format!("directory {dir}"), |p| format!("{:?}", p.as_str()));
            tracing::info!("{at}: {}", sweeps::SAYS);
        }
        sweep
    }

    /// A file to be read.
    fn reader(&self, ino: u64) -> Result<Arc<OpenFile>> {
        if let Some(w) = self.table.lock().writers.get(&ino) {
            return Ok(w.open.clone());
        }
        if let Some(r) = self.table.lock().readers.get_mut(&ino) {
            r.until = r.until.max(Instant::now() + READ);
            return Ok(r.open.clone());
        }
        let open = self.open(ino, false)?;
        if is_control(ino) {
            // What it says may be other next time.
            return Ok(open);
        }
        let reader = Reader { open: open.clone(), until: Instant::now() + READ, written: false };
        // Let go of after the lock: closing takes its time.
        let old = self.table.lock().readers.insert(ino, reader);
        drop(old);
        Ok(open)
    }

    /// A file to be written, from now on in use.
    fn writer(&self, ino: u64) -> Result<Arc<OpenFile>> {
        let known = |t: &mut Table| {
            t.writers.get_mut(&ino).map(|w| {
                w.last = Instant::now();
                w.open.clone()
            })
        };
        if let Some(open) = known(&mut self.table.lock()) {
            return Ok(open);
        }
        let open = self.open(ino, true)?;
        let mut table = self.table.lock();
        if let Some(first) = known(&mut table) {
            drop(table);
            return Ok(first);
        }
        table.writers.insert(ino, Writer { open: open.clone(), last: Instant::now(), committed: true });
        Ok(open)
    }

    /// A file that was just made and is open as `fh`: the client goes on to write it.
    pub(super) fn made(&self, ino: u64, fh: u64) -> Result<()> {
        // As after a close: who waits for what was answered before seals it.
        self.vfs.flush(fh)?;
        let open = Arc::new(OpenFile::of(&self.vfs, fh));
        let old = self.table.lock().writers.insert(ino, Writer { open, last: Instant::now(), committed: true });
        drop(old);
        Ok(())
    }

    /// Counts a file as being written, for a change that is not a write: what follows belongs to the same save.
    pub(super) fn touch(&self, ino: u64) -> Result<()> {
        self.vfs.flush(self.writer(ino)?.fh)
    }

    /// The bytes of a file changed: what was read before, and nobody has fetched yet, is not to be had any more.
    pub(super) fn outdate(&self, ino: u64) {
        self.pending.lock().retain(|key, _| key.0 != ino);
    }

    /// Writes; durable when it returns, if `stable`. Blocking.
    pub(super) fn write(&self, ino: u64, offset: u64, data: &[u8], stable: bool) -> Result<usize> {
        let open = self.writer(ino)?;
        let n = self.vfs.write(open.fh, offset, data, false)?;
        self.outdate(ino);
        if stable {
            self.vfs.fsync(open.fh)?;
        }
        self.vfs.flush(open.fh)?;
        if let Some(w) = self.table.lock().writers.get_mut(&ino) {
            w.last = Instant::now();
            w.committed &= stable;
        }
        Ok(n)
    }

    /// Makes everything durable that was written of a file, and every name so far. Blocking.
    pub(super) fn commit(&self, ino: u64) -> Result<()> {
        let written = self.table.lock().writers.get(&ino).map(|w| (w.open.clone(), w.last));
        let Some((open, last)) = written else {
            let open = self.reader(ino)?;
            return self.vfs.fsync(open.fh);
        };
        self.vfs.fsync(open.fh)?;
        if let Some(w) = self.table.lock().writers.get_mut(&ino) {
            w.committed |= w.last == last;
        }
        Ok(())
    }

    /// Reads at most `len` bytes; fewer at the end of the file.
    ///
    /// Cancel-safe. Answers `JUKEBOX` where the bytes are not here in a moment: asked again, it goes on where it was.
    pub(super) async fn read(self: &Arc<Self>, ino: u64, offset: u64, len: u32) -> Bytes {
        let len = len.min(DATA_MAX);
        let key = (ino, offset, len);
        let known = self.pending.lock().get(&key).map(|p| p.answer.clone());
        let answer = match known {
            Some(a) => a,
            None => {
                let this = self.clone();
                let now = tokio::task::spawn_blocking(move || this.read_now(ino, offset, len)).await;
                match now.map_err(|_| nfsstat3::NFS3ERR_SERVERFAULT)? {
                    Ok((_, Some(bytes))) => return Ok(bytes),
                    Ok((open, None)) => self.fetch(key, open)?,
                    Err(e) => return Err(status(&e)),
                }
            }
        };
        self.answer_of(key, answer).await
    }

    /// Blocking on the local disk.
    fn read_now(&self, ino: u64, offset: u64, len: u32) -> Result<(Arc<OpenFile>, Option<Vec<u8>>)> {
        let open = self.reader(ino)?;
        let now = self.vfs.read_now(open.fh, offset, len as usize)?;
        let bytes = now.map(|n| self.bytes_of(&n, offset)).transpose()?;
        Ok((open, bytes))
    }

    /// Begins to bring the bytes of a read here.
    fn fetch(self: &Arc<Self>, key: Key, open: Arc<OpenFile>) -> std::result::Result<watch::Receiver<Option<Bytes>>, nfsstat3> {
        let mut pending = self.pending.lock();
        if let Some(p) = pending.get(&key) {
            return Ok(p.answer.clone());
        }
        let permit: OwnedSemaphorePermit = self.waiting.clone().try_acquire_owned().map_err(|_| nfsstat3::NFS3ERR_JUKEBOX)?;
        let (tell, answer) = watch::channel(None);
        pending.insert(key, Pending { answer: answer.clone(), since: Instant::now() });
        drop(pending);
        let this = self.clone();
        tokio::spawn(async move {
            let read = this.vfs.hydrate_read(open.fh, key.1, key.2 as usize).await;
            let bytes = tokio::task::spawn_blocking(move || {
                let bytes = read.and_then(|n| this.bytes_of(&n, key.1)).map_err(|e| status(&e));
                drop(open);
                bytes
            });
            let _ = tell.send(Some(bytes.await.unwrap_or(Err(nfsstat3::NFS3ERR_SERVERFAULT))));
            drop(permit);
        });
        Ok(answer)
    }

    async fn answer_of(&self, key: Key, mut answer: watch::Receiver<Option<Bytes>>) -> Bytes {
        let got = tokio::time::timeout(PATIENCE, answer.wait_for(Option::is_some)).await;
        let bytes = match got {
            Err(_) => return Err(nfsstat3::NFS3ERR_JUKEBOX),
            Ok(Ok(bytes)) => bytes.clone().unwrap_or(Err(nfsstat3::NFS3ERR_SERVERFAULT)),
            Ok(Err(_)) => Err(nfsstat3::NFS3ERR_SERVERFAULT),
        };
        self.pending.lock().remove(&key);
        bytes
    }

    /// The bytes of a read that are in the local file. Blocking.
    fn bytes_of(&self, now: &ReadNow, offset: u64) -> Result<Vec<u8>> {
        let mut room = self.buffers.take(READ_HEAD + now.len);
        now.read_into(&mut room[READ_HEAD..], offset)?;
        Ok(room)
    }

    /// Closes what was quiet for long enough; everything, `at_end`. Blocking.
    pub(super) fn close_quiet(&self, at_end: bool) {
        let now = Instant::now();
        let mut closed: Vec<Arc<OpenFile>> = Vec::new();
        {
            let mut table = self.table.lock();
            let quiet = |w: &Writer| now.duration_since(w.last) >= if w.committed { COMMITTED } else { UNCOMMITTED };
            let due: Vec<u64> = table.writers.iter().filter(|(_, w)| at_end || quiet(w)).map(|(ino, _)| *ino).collect();
            closed.extend(due.iter().filter_map(|ino| table.writers.remove(ino)).map(|w| w.open));
            let old: Vec<u64> = table.readers.iter().filter(|(_, r)| at_end || r.until <= now).map(|(ino, _)| *ino).collect();
            closed.extend(old.iter().filter_map(|ino| table.readers.remove(ino)).map(|r| r.open));
            drop(table);
            if !at_end {
                due.into_iter().for_each(|ino| self.keep_written(ino, now));
            }
        }
        drop(closed);
        self.pending.lock().retain(|_, p| !at_end && now.duration_since(p.since) < KEPT);
    }

    /// Lets go of a file that its client removed. Blocking.
    pub(super) fn forget(&self, ino: u64) {
        let mut table = self.table.lock();
        let (writer, reader) = (table.writers.remove(&ino), table.readers.remove(&ino));
        drop(table);
        drop((writer, reader));
    }

    /// Keeps the bytes of a file that was written while a client may still have it open. Best effort.
    fn keep_written(&self, ino: u64, now: Instant) {
        let kept = self.table.lock().readers.values().filter(|r| r.written).count();
        if kept >= WRITTEN_MANY {
            return;
        }
        match self.open(ino, false) {
            Ok(open) => {
                let reader = Reader { open, until: now + WRITTEN, written: true };
                let old = self.table.lock().readers.insert(ino, reader);
                drop(old);
            }
            Err(e) if e.kind() == Kind::Stale => {}
            Err(e) => tracing::debug!(ino, error = %e, "a file that was written is not kept open"),
        }
    }
}
