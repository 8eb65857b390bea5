//! Where the bytes of a file lie on this disk: under `overlay/` while they are not published, else in the cache.
//!
//! Must: a file with unpublished bytes lies in the state directory, never in the cache, which people may delete.
//! Must: no new file stands in for one that is gone: it would read as zeros.
//! Not here: which of the bytes are there (`node`).

use super::Vfs;
use super::node::{Node, St};
use crate::error::{Error, IoContext, Kind, Result};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

impl Vfs {
    /// Path of an inode's bytes.
    pub(crate) fn local_path(&self, ino: u64, overlay: bool) -> PathBuf {
        let base = if overlay { self.options.state_dir.join("overlay") } else { self.options.cache_dir.join("data") };
        base.join(format!("{:02x}", ino & 0xff)).join(format!("{ino:x}"))
    }

    /// Blocks of 512 bytes that the local file takes, if all of the file is here.
    pub(crate) fn blocks_of(&self, st: &St) -> Option<u64> {
        use std::os::unix::fs::MetadataExt;
        if !st.is_whole() {
            return None;
        }
        let m = match &st.file {
            Some(f) => f.metadata(),
            None => std::fs::metadata(self.local_path(st.ino, st.overlay)),
        };
        m.ok().map(|m| m.blocks())
    }

    /// The local file, opened (and made, with the file's size) if need be.
    pub(crate) fn local_file(&self, node: &Node, st: &mut St) -> Result<Arc<File>> {
        if let Some(f) = &st.file {
            return Ok(f.clone());
        }
        let path = self.local_path(node.ino, st.overlay);
        let doing = || format!("opening the local bytes {}", path.display());
        let f = match File::options().read(true).write(true).open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                self.bytes_are_gone(st).map_err(|e| e.context(doing()))?;
                File::options().read(true).write(true).create(true).truncate(false).open(&path)
            }
            other => other,
        };
        let f = f.doing(doing)?;
        let len = f.metadata().doing(|| format!("looking at {}", path.display()))?.len();
        if st.content.is_some() && len != st.size {
            // What the file is short of is not there, whatever the row says.
            if st.dirty.is_empty() {
                st.have.truncate(len);
            }
            f.set_len(st.size).doing(|| format!("sizing {}", path.display()))?;
        }
        let f = Arc::new(f);
        st.file = Some(f.clone());
        Ok(f)
    }

    /// There is no local file. If the row says that bytes are in it, somebody emptied the cache: they are fetched
    /// again. A new file must not stand in for them, it would read as zeros.
    fn bytes_are_gone(&self, st: &mut St) -> Result<()> {
        if st.have.is_empty() && (st.content.is_some() || st.size == 0) {
            return Ok(());
        }
        let published = st.content.as_ref().is_some_and(|c| !c.manifest.is_zero());
        if published && st.dirty.is_empty() && st.token.is_none() {
            tracing::warn!(ino = st.ino, "the local bytes of a file are gone from the cache; they are fetched again");
            st.have.clear();
            st.stale_row = true;
            self.cache.lock().remove(st.ino);
            return Ok(());
        }
        Err(Error::new(Kind::Corrupt, "unpublished bytes are gone from the state directory"))
    }

    /// Moves the local file to where unpublished bytes lie.
    pub(crate) fn to_overlay(&self, node: &Node, st: &mut St) -> Result<()> {
        if st.overlay {
            return Ok(());
        }
        let (from, to) = (self.local_path(node.ino, false), self.local_path(node.ino, true));
        match std::fs::rename(&from, &to) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                // Nothing was here, or somebody emptied the cache: what is not here is fetched again.
                st.have.clear();
                st.file = None;
            }
            Err(e) if e.raw_os_error() == Some(libc::EXDEV) => {
                std::fs::copy(&from, &to).doing(|| format!("copying {} to {}", from.display(), to.display()))?;
                let _ = std::fs::remove_file(&from);
                st.file = None;
            }
            Err(e) => return Err(Error::io(format!("moving {} to {}", from.display(), to.display()), e)),
        }
        st.overlay = true;
        st.stale_row = true;
        self.cache.lock().remove(node.ino);
        Ok(())
    }

    /// Moves the local file of published bytes into the cache, which may be emptied. A descriptor that somebody has open
    /// goes along.
    pub(super) fn to_cache(&self, node: &Node, st: &mut St) -> Result<()> {
        let (from, to) = (self.local_path(node.ino, true), self.local_path(node.ino, false));
        match std::fs::rename(&from, &to) {
            Ok(()) => st.overlay = false,
            // The cache lies on another disk: the bytes stay where they are and count as cached.
            Err(e) if e.raw_os_error() == Some(libc::EXDEV) => {}
            Err(e) => return Err(Error::io(format!("moving {} to {}", from.display(), to.display()), e)),
        }
        Ok(())
    }
}
