//! The root directory: made at first use, and never made again behind a person's back.
//!
//! Must: once the directory was seen, its absence is `Unavailable`. A disk that was unmounted leaves an empty mount
//! point; writing a fresh store into that would look like the loss of everything.
//!
//! What is remembered is device and inode number, and the mark in `.tcfs/mark` (random, written once): a disk that
//! comes back under other numbers is known by its mark.

use super::durable::Durable;
use super::fail;
use crate::error::{Error, Kind, Result};
use crate::store::PutMode;
use parking_lot::Mutex;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Our own corner of the root; not part of any key.
pub(super) const CORNER: &str = ".tcfs";

#[derive(Clone, PartialEq, Eq)]
struct Known {
    dev: u64,
    ino: u64,
    /// None until this store has been written to: then another directory in its place is as good.
    mark: Option<String>,
}

pub(super) struct Root {
    pub(super) path: PathBuf,
    known: Mutex<Option<Known>>,
}

impl Root {
    pub(super) fn new(path: &Path) -> Self {
        Root { path: path.to_owned(), known: Mutex::new(None) }
    }

    fn mark_path(&self) -> PathBuf {
        self.path.join(CORNER).join("mark")
    }

    pub(super) fn temp_path(&self) -> PathBuf {
        self.path.join(CORNER).join("tmp")
    }

    fn read_mark(&self) -> Result<Option<String>> {
        match fs::read_to_string(self.mark_path()) {
            Ok(s) => Ok(Some(s)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(fail("reading", &self.mark_path(), e)),
        }
    }

    fn gone(&self, why: &str) -> Error {
        Error::new(Kind::Unavailable, format!("the store directory {} {why}", self.path.display()))
            .hint("is its disk or share still mounted? Everything waiting here is stored when it is back")
    }

    /// Whether the directory is there. `Unavailable` if it was and is no more, or is another one now.
    pub(super) fn check(&self) -> Result<bool> {
        // Before the look: another thread may make it right after.
        let seen = self.known.lock().is_some();
        let m = match fs::metadata(&self.path) {
            Ok(m) => m,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return if seen { Err(self.gone("has gone")) } else { Ok(false) };
            }
            Err(e) => return Err(fail("looking at the store directory", &self.path, e)),
        };
        if !m.is_dir() {
            return Err(Error::new(Kind::NotDir, format!("the store {} is not a directory", self.path.display())));
        }
        let known = self.known.lock().clone();
        let mark = match known {
            Some(k) if (k.dev, k.ino) == (m.dev(), m.ino()) && k.mark.is_some() => return Ok(true),
            Some(Known { mark: Some(mark), .. }) => {
                // Other numbers: another directory, or the same disk mounted again.
                if self.read_mark()?.as_ref() != Some(&mark) {
                    return Err(self.gone("is not the directory that it was"));
                }
                Some(mark)
            }
            // Not written to yet when it was seen last; another process may have done so since.
            _ => self.read_mark()?,
        };
        *self.known.lock() = Some(Known { dev: m.dev(), ino: m.ino(), mark });
        Ok(true)
    }

    /// Whether it is there and was made ready, now or in an earlier life.
    pub(super) fn is_ready(&self) -> Result<bool> {
        Ok(self.check()? && self.known.lock().as_ref().is_some_and(|k| k.mark.is_some()))
    }

    /// Makes it ready to be written. Cheap when it is.
    pub(super) fn ready(&self, durable: &Durable, nonce: u64) -> Result<()> {
        if self.is_ready()? { Ok(()) } else { self.create(durable, nonce) }
    }

    /// Makes root, corner and mark, or what is missing of them. Two processes may do it at once.
    pub(super) fn create(&self, durable: &Durable, nonce: u64) -> Result<()> {
        if !self.check()? {
            // What we make ourselves is for this user alone; a directory made by an administrator keeps its mode.
            let missing: Vec<&Path> = self.path.ancestors().take_while(|p| !p.exists()).collect();
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path);
            made.map_err(|e| fail("creating the store directory", &self.path, e))?;
            for parent in missing.iter().filter_map(|p| p.parent()) {
                durable.sync_dir(parent)?;
            }
            self.check()?;
        }
        durable.forget();
        durable.make_dir(&self.temp_path())?;
        let kept = self.known.lock().as_ref().and_then(|k| k.mark.clone());
        let mark = kept.unwrap_or_else(|| format!("{nonce:016x}\n"));
        durable.put(&self.mark_path(), mark.as_bytes(), PutMode::IfAbsent)?;
        let read = self.read_mark()?;
        if let Some(k) = &mut *self.known.lock() {
            k.mark = read;
        }
        Ok(())
    }
}
