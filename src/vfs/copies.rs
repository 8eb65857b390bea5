//! Sealing from a copy: for a file that goes on changing while what it holds now has to go out.
//!
//! A file may change after its `close` was answered (a shared mapping outlives it), or for hours while others wait for
//! it (a log). Its bytes as they lie are copied aside, sealed, and published from there; the file itself goes on.
//! Must: a copy is on the disk, whole, before the version that speaks of it is in the database.
//! Must: a copy stays until its version is in the log, or was left out of it for a later one.
//! Not here: which files (`seal`), publishing (`cut`).

use super::Vfs;
use super::lent::{self, Mark};
use super::node::{Node, St};
use super::place::copy_data;
use super::seal::{Part, Sealing};
use crate::content::ReadAt;
use crate::error::{Error, IoContext, Result};
use crate::model::ranges::RangeSet;
use crate::state::Tree;
use crate::state::rows::Sealed;
use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Vfs {
    fn copies_dir(&self) -> PathBuf {
        self.options.state_dir.join("copies")
    }

    /// Where the copy of an inode's bytes at a count of changes lies.
    pub(super) fn copy_path(&self, ino: u64, wgen: u64) -> PathBuf {
        self.copies_dir().join(format!("{ino:x}.{wgen:x}"))
    }

    /// The copy that was sealed with that count, if one was made.
    pub(super) fn sealed_copy(&self, ino: u64, wgen: u64) -> Result<Option<File>> {
        match File::open(self.copy_path(ino, wgen)) {
            Ok(f) => Ok(Some(f)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(format!("opening the copy of inode {ino}"), e)),
        }
    }

    /// Its version is in the log, or was left out.
    pub(super) fn forget_copy(&self, ino: u64, wgen: u64) {
        match std::fs::remove_file(self.copy_path(ino, wgen)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => tracing::warn!(ino, error = %e, "removing the copy of a published file"),
            _ => {}
        }
    }

    /// At a start: removes copies that no row of the outbox speaks of.
    pub(super) fn find_copies(&self) -> Result<()> {
        let dir = self.copies_dir();
        let doing = || format!("listing {}", dir.display());
        let found = match std::fs::read_dir(&dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.doing(doing)?,
        };
        let rows: Vec<(u64, Sealed)> = self.replica.read(|r| r.scan_int(Tree::Outbox, 0, u64::MAX, usize::MAX >> 1))?;
        let known: HashSet<PathBuf> = rows.iter().flat_map(|(_, s)| &s.files).map(|(_, ino, wgen)| self.copy_path(*ino, *wgen)).collect();
        for e in found {
            let path = e.doing(doing)?.path();
            if !known.contains(&path) {
                std::fs::remove_file(&path).doing(|| format!("removing {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Seals a file as it lies, from a copy; the file itself stays unsealed if it changes any more. False if it is not
    /// all here: then only its own bytes can be published. Blocking; as long as the copying takes.
    ///
    /// Errors: `NoSpace` if there is no room for the copy; the file stays unsealed.
    pub(super) fn seal_copy(&self, node: &Arc<Node>) -> Result<bool> {
        let Some(begun) = self.begin_copy(node)? else { return Ok(false) };
        let mut st = node.st.lock();
        let Some(what) = self.end_copy(node, &mut st, begun, true)? else { return Ok(false) };
        self.seal_parts(&mut [Part { node, st: &mut st, what }])?;
        Ok(true)
    }

    /// Copies a file aside, with no lock held. None if it cannot be sealed from a copy.
    pub(super) fn begin_copy(&self, node: &Arc<Node>) -> Result<Option<Begun>> {
        self.room()?;
        let (path, watched) = {
            let mut st = node.st.lock();
            self.absorb(&mut st)?;
            if node.gone.load(Ordering::Acquire) || st.local_only || st.copying.is_some() || !st.is_whole() {
                return Ok(None);
            }
            // Before the first byte is read: what is stored from here on takes the mark off again.
            let watched = st.lent_writing && {
                // The mark says nothing of what was written before: that is in the row.
                self.persist(node, &mut st)?;
                let file = self.local_file(node, &mut st)?;
                let watched = lent::watch(&file, Mark::Copied)?;
                st.seen_mtime = lent::mtime_of(&file)?;
                watched
            };
            st.copying = Some(RangeSet::new());
            (self.local_path(node.ino, st.overlay), watched)
        };
        let temp = self.copies_dir().join(format!("{:x}.part", node.ino));
        match self.copy_aside(&path, &temp) {
            Ok(copy) => Ok(Some(Begun { copy, temp, watched })),
            Err(e) => {
                node.st.lock().copying = None;
                let _ = std::fs::remove_file(&temp);
                Err(e)
            }
        }
    }

    /// Makes a copy that was begun what the file is now, and says how it is sealed. None if it is `wanted` no more, or there
    /// is nothing to seal.
    pub(super) fn end_copy(&self, node: &Arc<Node>, st: &mut St, begun: Begun, wanted: bool) -> Result<Option<Sealing>> {
        let since = st.copying.take().unwrap_or_default();
        let done = if wanted { self.copied(node, st, &begun, &since) } else { Ok(None) };
        if !matches!(done, Ok(Some(_))) {
            let _ = std::fs::remove_file(&begun.temp);
        }
        done
    }

    fn copy_aside(&self, from: &std::path::Path, to: &std::path::Path) -> Result<File> {
        let dir = self.copies_dir();
        std::fs::create_dir_all(&dir).doing(|| format!("creating {}", dir.display()))?;
        let source = File::open(from).doing(|| format!("opening {}", from.display()))?;
        // Pages that are mapped become clean by it, so that the next store into one is noticed.
        source.sync_data().doing(|| format!("syncing {}", from.display()))?;
        let copy =
            File::options().read(true).write(true).create(true).truncate(true).open(to).doing(|| format!("making {}", to.display()))?;
        let size = source.metadata().doing(|| format!("looking at {}", from.display()))?.len();
        if crate::sys::clone_file(&source, &copy).is_err() {
            copy_data(&source, &copy, size).doing(|| format!("copying to {}", to.display()))?;
        }
        Ok(copy)
    }

    fn copied(&self, node: &Arc<Node>, st: &mut St, begun: &Begun, since: &RangeSet) -> Result<Option<Sealing>> {
        let Begun { copy, temp, watched } = begun;
        let was = st.wgen;
        self.absorb(st)?;
        if !node.unsealed.load(Ordering::Acquire) || node.gone.load(Ordering::Acquire) || st.local_only {
            return Ok(None);
        }
        let doing = || format!("copying inode {} aside", node.ino);
        if !st.lent_writing {
            // What was written meanwhile came through us: with it the copy is what the file is now.
            let file = self.local_file(node, st)?;
            copy.set_len(st.size).doing(doing)?;
            for range in since.iter().filter(|r| r.start < st.size) {
                let mut at = range.start;
                let mut buf = vec![0; 1 << 20];
                while at < range.end.min(st.size) {
                    let n = (range.end.min(st.size) - at).min(buf.len() as u64) as usize;
                    FileExt::read_exact_at(&*file, &mut buf[..n], at).doing(doing)?;
                    copy.write_all_at(&buf[..n], at).doing(doing)?;
                    at += n as u64;
                }
            }
        }
        copy.sync_all().doing(doing)?;
        let size = copy.metadata().doing(doing)?.len();
        // A count of its own, if the file is not known to be what the copy is.
        let same = !st.lent_writing || *watched && st.wgen == was;
        let wgen = if same { st.wgen } else { st.wgen + 1 };
        let to = self.copy_path(node.ino, wgen);
        std::fs::rename(temp, &to).doing(|| format!("moving {} to {}", temp.display(), to.display()))?;
        crate::state::journal::sync_dir(&self.copies_dir())?;
        if !same {
            st.wgen += 2;
        }
        Ok(Some(Sealing { recovered: false, size, wgen, goes_on: true }))
    }
}

/// A copy that was begun.
pub(super) struct Begun {
    copy: File,
    temp: PathBuf,
    /// The kernel says whether the file was changed since.
    watched: bool,
}

/// A copy, as the publisher reads it.
pub(super) struct Copied(pub(super) File);

impl ReadAt for Copied {
    fn read_exact_at(&self, off: u64, buf: &mut [u8]) -> Result<()> {
        FileExt::read_exact_at(&self.0, buf, off).doing(|| "reading the copy of a file that is being written")
    }

    fn zeros_until(&self, off: u64) -> u64 {
        ReadAt::zeros_until(&self.0, off)
    }
}
