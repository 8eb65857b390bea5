//! Durable small files: write without a name, fsync, give it its name, fsync of the directory.
//!
//! Must: a name appears only when the bytes behind it are on the disk; a put is answered only when the name is, too.
//! Must: a directory counts as durable only after this process has fsynced its parent, whoever made it.
//!
//! How was measured by what a disk must do for each file (ext4, 4 KiB files, 16 at a time): a file without a name
//! (`O_TMPFILE`) that is linked into place costs 1.9 writes and 0.8 flushes; a temporary name and a rename 2.5 and 1.4;
//! one `syncfs` for all that wait, twice, 4.1 and 0.9. So: no name where the file system can, else a temporary file and
//! rename; data synced file by file (`syncfs` also waits for everybody else's dirty pages, and promises nothing on
//! network file systems). Directory fsyncs are shared: a put joins the first that starts after its name was given.

use super::fail;
use crate::error::{Error, Kind, Result};
use crate::store::{PutMode, PutOutcome};
use crate::sys::{give_name, unnamed_file};
use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// A temporary file this old belongs to a process that died: no put takes an hour.
const STALE_TEMP: Duration = Duration::from_secs(3600);

/// One directory's fsyncs, joined. Rounds are numbered from 1.
#[derive(Default)]
struct Gate {
    state: Mutex<Rounds>,
    turn: Condvar,
}

#[derive(Default)]
struct Rounds {
    started: u64,
    done: u64,
    running: bool,
    /// The last round that failed, with its errno.
    failed: Option<(u64, i32)>,
}

/// Where files become durable below one root.
pub(super) struct Durable {
    root: PathBuf,
    temp: PathBuf,
    /// Distinguishes this process's temporary files from others', pids of other machines and containers included.
    nonce: u64,
    next: AtomicU64,
    /// Directories whose own entry in their parent is on the disk.
    known: Mutex<HashSet<PathBuf>>,
    gates: Mutex<HashMap<PathBuf, Arc<Gate>>>,
    /// Whether files can be written without a name here; found out by trying.
    unnamed: AtomicBool,
}

/// A temporary file that goes away unless it was moved into place.
struct Temp {
    path: PathBuf,
    placed: bool,
}

impl Temp {
    /// Moves it into place, over what is there.
    fn rename(&mut self, dst: &Path) -> Result<PutOutcome> {
        fs::rename(&self.path, dst).map_err(|e| fail("renaming into", dst, e))?;
        self.placed = true;
        Ok(PutOutcome::Written)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.placed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Durable {
    pub(super) fn new(root: &Path, temp: PathBuf, nonce: u64) -> Self {
        Durable {
            root: root.to_owned(),
            temp,
            nonce,
            next: AtomicU64::new(0),
            known: Mutex::default(),
            gates: Mutex::default(),
            unnamed: AtomicBool::new(true),
        }
    }

    /// Uses temporary names from now on.
    pub(super) fn only_named(&self) {
        self.unnamed.store(false, Ordering::Relaxed);
    }

    /// Writes `bytes` under `dst` (below the root). `NotFound` means that a directory went away meanwhile.
    pub(super) fn put(&self, dst: &Path, bytes: &[u8], mode: PutMode) -> Result<PutOutcome> {
        let parent = dst.parent().unwrap_or(&self.root);
        if mode == PutMode::IfAbsent && dst.is_file() {
            // Its writer may not have come to its directory fsync yet; "it exists" must mean "it stays".
            self.make_dir(parent)?;
            self.sync_dir(parent)?;
            return Ok(PutOutcome::Existed);
        }
        self.make_dir(parent)?;
        if self.unnamed.load(Ordering::Relaxed)
            && let Some(outcome) = self.put_unnamed(parent, dst, bytes, mode)?
        {
            self.sync_dir(parent)?;
            return Ok(outcome);
        }
        let mut temp = self.temp_name();
        let mut file = OpenOptions::new().write(true).create_new(true).open(&temp.path).map_err(|e| fail("creating", &temp.path, e))?;
        write_synced(&mut file, bytes, &temp.path)?;
        drop(file);
        let outcome = match mode {
            PutMode::Overwrite => temp.rename(dst)?,
            PutMode::IfAbsent => place_new(&mut temp, dst)?,
        };
        self.sync_dir(parent)?;
        Ok(outcome)
    }

    fn temp_name(&self) -> Temp {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        Temp { path: self.temp.join(format!("{:016x}-{n}", self.nonce)), placed: false }
    }

    /// A file without a name, linked into place. None: this file system cannot do that, now or ever.
    fn put_unnamed(&self, parent: &Path, dst: &Path, bytes: &[u8], mode: PutMode) -> Result<Option<PutOutcome>> {
        let Some(mut file) = unnamed_file(parent).map_err(|e| fail("creating a file in", parent, e))? else {
            self.unnamed.store(false, Ordering::Relaxed);
            return Ok(None);
        };
        write_synced(&mut file, bytes, dst)?;
        match give_name(&file, dst) {
            Ok(()) => return Ok(Some(PutOutcome::Written)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && mode == PutMode::IfAbsent => return Ok(Some(PutOutcome::Existed)),
            Err(e) => match e.kind() {
                io::ErrorKind::AlreadyExists => {}
                io::ErrorKind::NotFound | io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::NotADirectory => {
                    return Err(fail("linking into", dst, e));
                }
                _ => {
                    self.unnamed.store(false, Ordering::Relaxed); // no hard links here
                    return Ok(None);
                }
            },
        }
        // Only a rename replaces, and it needs a name.
        let mut temp = self.temp_name();
        give_name(&file, &temp.path).map_err(|e| fail("linking into", &temp.path, e))?;
        temp.rename(dst).map(Some)
    }

    /// Makes a directory below the root, and its parents, durable. Once per directory and process.
    pub(super) fn make_dir(&self, dir: &Path) -> Result<()> {
        if dir == self.root || self.known.lock().contains(dir) {
            return Ok(());
        }
        let parent = dir.parent().unwrap_or(&self.root);
        self.make_dir(parent)?;
        match fs::create_dir(dir) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(fail("creating the directory", dir, e)),
        }
        self.sync_dir(parent)?;
        self.known.lock().insert(dir.to_owned());
        Ok(())
    }

    /// Forgets what is known of directories: somebody removed one.
    pub(super) fn forget(&self) {
        self.known.lock().clear();
    }

    /// Fsync of a directory, shared with everybody who asks before it starts.
    pub(super) fn sync_dir(&self, dir: &Path) -> Result<()> {
        let gate = self.gates.lock().entry(dir.to_owned()).or_default().clone();
        let mut s = gate.state.lock();
        let need = s.started + 1; // a round under way began before this rename and proves nothing
        while s.done < need {
            if s.running {
                gate.turn.wait(&mut s);
                continue;
            }
            s.started += 1;
            s.running = true;
            let round = s.started;
            let synced = parking_lot::MutexGuard::unlocked(&mut s, || fsync_dir(dir));
            s.running = false;
            s.done = round;
            if let Err(e) = synced {
                s.failed = Some((round, e.raw_os_error().unwrap_or(libc::EIO)));
            }
            gate.turn.notify_all();
        }
        match s.failed {
            // A failed fsync may have dropped the change for good: a later success says nothing of it.
            Some((round, errno)) if round >= need => Err(fail("syncing the directory", dir, io::Error::from_raw_os_error(errno))),
            _ => Ok(()),
        }
    }

    /// Removes what dead processes left. The disk's own clock decides: the folder may be on another machine.
    pub(super) fn clean_temps(&self) -> Result<usize> {
        let probe = Temp { path: self.temp.join(format!("{:016x}-now", self.nonce)), placed: false };
        let now = File::create(&probe.path).and_then(|f| f.metadata()?.modified()).map_err(|e| fail("creating", &probe.path, e))?;
        let mut removed = 0;
        for entry in fs::read_dir(&self.temp).map_err(|e| fail("reading", &self.temp, e))? {
            let entry = entry.map_err(|e| fail("reading", &self.temp, e))?;
            let modified = entry.metadata().and_then(|m| m.modified()).unwrap_or(now);
            let age = now.duration_since(modified).unwrap_or_default();
            // Another process may remove it at the same moment.
            if age > STALE_TEMP && fs::remove_file(entry.path()).is_ok() {
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// Gives the temporary file its name unless that is taken, atomically where the file system can.
fn place_new(temp: &mut Temp, dst: &Path) -> Result<PutOutcome> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, &temp.path, CWD, dst, RenameFlags::NOREPLACE) {
        Ok(()) => {
            temp.placed = true;
            return Ok(PutOutcome::Written);
        }
        Err(Errno::EXIST) => return Ok(PutOutcome::Existed),
        // NFS and some FUSE file systems know no exclusive rename.
        Err(e) if [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP, Errno::NOTSUP].contains(&e) => {}
        Err(e) => return Err(fail("renaming into", dst, e.into())),
    }
    match fs::hard_link(&temp.path, dst) {
        Ok(()) => Ok(PutOutcome::Written),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(PutOutcome::Existed),
        // No hard links either (exFAT): look, then write. `IfAbsent` promises no more there.
        Err(e)
            if e.raw_os_error()
                .is_some_and(|n| [libc::EPERM, libc::EOPNOTSUPP, libc::ENOTSUP, libc::ENOSYS, libc::EMLINK].contains(&n)) =>
        {
            if dst.exists() {
                return Ok(PutOutcome::Existed);
            }
            temp.rename(dst)
        }
        Err(e) => Err(fail("linking into", dst, e)),
    }
}

/// Writes and syncs a whole new file.
fn write_synced(file: &mut File, bytes: &[u8], path: &Path) -> Result<()> {
    file.write_all(bytes).map_err(|e| fail("writing", path, e))?;
    file.sync_all().map_err(|e| fail("syncing", path, e))
}

fn fsync_dir(dir: &Path) -> io::Result<()> {
    match File::open(dir)?.sync_all() {
        // Some network file systems cannot sync a directory; their renames are the server's business.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Ok(()),
        r => r,
    }
}

/// Seconds since 1970.
pub(super) fn unix_seconds(t: io::Result<SystemTime>) -> i64 {
    match t.map(|t| t.duration_since(SystemTime::UNIX_EPOCH)) {
        Ok(Ok(d)) => d.as_secs() as i64,
        Ok(Err(e)) => -(e.duration().as_secs() as i64),
        Err(_) => 0,
    }
}

/// Whether an error says that a directory on the way is missing.
pub(super) fn is_missing(e: &Error) -> bool {
    e.kind() == Kind::NotFound
}
