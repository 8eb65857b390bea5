//! What a process of ours that was killed in a repository left in it.
//!
//! git removes its lock files when it ends; killed, or with the mount gone from under it, it does not, and from then on
//! refuses to work. So it is noted while something is taken in, and the locks of that time go when the next process finds the
//! note.

use super::repo::find_lock;
use crate::error::{Error, IoContext, Result};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The note in `.git`.
const FILE: &str = "tcfs.working";

/// Notes that this process works in a repository, until it is dropped.
pub(super) struct Working(PathBuf);

impl Working {
    pub(super) fn begin(dir: &Path) -> Result<Working> {
        let at = dir.join(FILE);
        std::fs::write(&at, "").doing(|| format!("writing {}", at.display()))?;
        Ok(Working(at))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Removes the locks that an earlier process left in a repository. `before`: when the drive was mounted again; a lock that was
/// made since is the user's.
pub fn recover(work: &Path, before: SystemTime) -> Result<()> {
    let dir = &work.join(".git");
    let at = dir.join(FILE);
    let since = match at.metadata().and_then(|m| m.modified()) {
        Ok(t) => t,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io(format!("looking at {}", at.display()), e)),
    };
    let left = |p: &Path| p.metadata().and_then(|m| m.modified()).is_ok_and(|t| t >= since && t < before);
    while let Some(lock) = find_lock(dir, 0, &left)? {
        tracing::info!("{} was left by a process that was killed, and is removed", lock.display());
        std::fs::remove_file(&lock).doing(|| format!("removing {}", lock.display()))?;
    }
    std::fs::remove_file(&at).doing(|| format!("removing {}", at.display()))
}
