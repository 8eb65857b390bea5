//! The lock of the state directory, and of the cache: one process owns it, and the file says which.
//!
//! Must: two processes never own one state, nor two states one cache, where files have the numbers of inodes. The lock is
//! the kernel's (`flock`), so it ends with the process, however that ends; the number in the file is only for people.
//! Not here: what is owned.

use crate::error::{Error, IoContext, Kind, Result};
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Ownership of a state directory, until dropped.
#[derive(Debug)]
pub struct StateLock {
    file: File,
}

impl StateLock {
    /// Takes the lock in `file` (made with mode 0600; its directory must exist) or fails with `Locked`, naming the
    /// owner.
    pub fn acquire(file: &Path) -> Result<StateLock> {
        StateLock::take(file, locked)
    }

    /// The same for a cache, whose directory must exist.
    pub fn of_cache(dir: &Path) -> Result<StateLock> {
        StateLock::take(&dir.join("lock"), |_, pid| {
            let who = pid.map_or("another process".to_owned(), |p| format!("process {p}"));
            Error::new(Kind::Locked, format!("the cache in {} is in use by {who}, for another state", dir.display()))
                .hint("each device on a machine needs a cache of its own: set cache.dir")
        })
    }

    fn take(file: &Path, locked: impl Fn(&Path, Option<u32>) -> Error) -> Result<StateLock> {
        let mut f = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(file)
            .doing(|| format!("opening the lock file {}", file.display()))?;
        match flock(&f, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(locked(file, read_pid(&mut f))),
            Err(e) => return Err(Error::io(format!("locking {}", file.display()), e.into())),
        }
        let write = |f: &mut File| {
            f.set_len(0)?;
            f.rewind()?;
            writeln!(f, "{}", std::process::id())
        };
        write(&mut f).doing(|| format!("writing {}", file.display()))?;
        Ok(StateLock { file: f })
    }
}

impl Drop for StateLock {
    fn drop(&mut self) {
        // Emptied rather than removed: whoever waits for the lock has this very file open.
        let _ = self.file.set_len(0);
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Process that owns the state, if one does. Looks only.
pub fn owner(file: &Path) -> Option<u32> {
    let mut f = File::open(file).ok()?;
    match flock(&f, FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => Some(read_pid(&mut f).unwrap_or(0)),
        _ => None,
    }
}

fn read_pid(f: &mut File) -> Option<u32> {
    let mut text = String::new();
    f.rewind().ok()?;
    f.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn locked(file: &Path, pid: Option<u32>) -> Error {
    let state = file.parent().unwrap_or(file).display();
    let who = pid.map_or("another process".to_owned(), |p| format!("process {p}"));
    Error::new(Kind::Locked, format!("the state in {state} is in use by {who}"))
        .hint("`tcfs daemon stop` ends the daemon; a second device on this machine needs a --state-dir of its own")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_refused_and_told_who_has_it() {
        let tmp = tempfile::tempdir().unwrap();
        let file = tmp.path().join("lock");
        assert_eq!(owner(&file), None);
        let first = StateLock::acquire(&file).unwrap();
        let e = StateLock::acquire(&file).unwrap_err();
        assert_eq!(e.kind(), Kind::Locked);
        assert!(e.to_string().contains(&format!("process {}", std::process::id())), "{e}");
        assert_eq!(owner(&file), Some(std::process::id()));
        drop(first);
        assert_eq!(owner(&file), None);
        StateLock::acquire(&file).unwrap();
        let cache = StateLock::of_cache(tmp.path()).unwrap();
        let e = StateLock::of_cache(tmp.path()).unwrap_err();
        assert!(e.kind() == Kind::Locked && e.hint_text().unwrap().contains("cache.dir"), "{e}");
        drop(cache);
        StateLock::of_cache(tmp.path()).unwrap();
    }
}
