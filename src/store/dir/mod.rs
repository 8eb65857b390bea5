//! The directory store: objects as files below one directory, on a disk of this machine or in a shared folder.
//!
//! Must: crash-safe (`durable`), shared by any number of processes, and never a fresh store in the place of one that
//! went away (`root`). How keys become files: `layout`.
//! Blocking calls run on the runtime's blocking threads, with a bound of their own for reads, so that a file being
//! opened never waits behind a hundred fsyncs.
//! A delete is not synced: what comes back after a power cut is garbage once more, and removed again.

mod durable;
mod layout;
mod list;
mod root;

use super::{MAX_OBJECT, ObjectMeta, Page, PutMode, PutOutcome, Store, keys, watch};
use crate::error::{Error, Kind, Result};
use async_trait::async_trait;
use bytes::Bytes;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Semaphore;

/// Puts at a time. They share journal commits: 1.6 disk writes a file with 16 in flight, 1.2 with 64, 1.16 with 128.
const WRITERS: usize = 64;
/// Gets, heads and listings at a time.
const READERS: usize = 16;

/// A store in a directory. Nothing is touched before the first call.
pub struct DirStore {
    inner: Arc<Inner>,
    writers: Arc<Semaphore>,
    readers: Arc<Semaphore>,
}

struct Inner {
    root: root::Root,
    durable: durable::Durable,
    nonce: u64,
    cleaned: AtomicBool,
    page: usize,
}

impl DirStore {
    /// A store below `path` (absolute), which is made by the first put. `nonce`: random, one per process.
    pub fn new(path: &Path, nonce: u64) -> Self {
        Self::with_page(path, nonce, list::PAGE)
    }

    /// Writes by temporary names and renames even where the file system has a quicker way: to test what other systems do.
    pub fn portable(path: &Path, nonce: u64) -> Self {
        let store = Self::new(path, nonce);
        store.inner.durable.only_named();
        store
    }

    /// With small pages, to test paging.
    pub fn with_page(path: &Path, nonce: u64, page: usize) -> Self {
        let root = root::Root::new(path);
        let durable = durable::Durable::new(path, root.temp_path(), nonce);
        let inner = Inner { root, durable, nonce, cleaned: AtomicBool::new(false), page: page.max(1) };
        DirStore { inner: Arc::new(inner), writers: Arc::new(Semaphore::new(WRITERS)), readers: Arc::new(Semaphore::new(READERS)) }
    }

    /// Runs on a blocking thread. If the caller goes away the work is finished all the same.
    async fn run<T: Send + 'static>(&self, slots: &Arc<Semaphore>, f: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let stopped = |e: &dyn std::fmt::Display| Error::new(Kind::Interrupted, format!("the store stopped: {e}"));
        let slot = slots.clone().acquire_owned().await.map_err(|e| stopped(&e))?;
        let inner = self.inner.clone();
        let work = tokio::task::spawn_blocking(move || {
            let result = f(&inner);
            drop(slot);
            result
        });
        work.await.map_err(|e| stopped(&e))?
    }
}

impl Inner {
    /// Both places of a key, relative to the root: ours, and flat where another program put it.
    fn places(&self, key: &str) -> Result<impl Iterator<Item = PathBuf> + use<>> {
        let root = self.root.path.clone();
        Ok([Some(layout::path_of(key)?), layout::flat_path_of(key)].into_iter().flatten().map(move |p| root.join(p)))
    }

    fn get(&self, key: &str) -> Result<Bytes> {
        for path in self.places(key)? {
            match read_whole(&path) {
                Ok(b) => return Ok(b),
                Err(e) if durable::is_missing(&e) => {}
                Err(e) => return Err(e),
            }
        }
        self.root.check()?;
        Err(Error::new(Kind::NotFound, format!("no object {key} in {}", self.root.path.display())))
    }

    fn put(&self, key: &str, body: &[u8], mode: PutMode) -> Result<PutOutcome> {
        keys::check_put(key)?;
        let dst = self.root.path.join(layout::path_of(key)?);
        self.root.ready(&self.durable, self.nonce)?;
        if !self.cleaned.swap(true, Ordering::Relaxed)
            && let Err(e) = self.durable.clean_temps()
        {
            tracing::debug!("cleaning temporary files: {e}");
        }
        match self.durable.put(&dst, body, mode) {
            Err(e) if durable::is_missing(&e) => {
                // A directory went away: with the whole disk (an error), or somebody tidied up (made again).
                self.root.create(&self.durable, self.nonce)?;
                self.durable.put(&dst, body, mode)
            }
            r => r,
        }
    }

    fn delete(&self, key: &str) -> Result<()> {
        let mut found = false;
        for path in self.places(key)? {
            match fs::remove_file(&path) {
                Ok(()) => found = true,
                Err(e) if is_nothing(&e) => {}
                Err(e) => return Err(fail("removing", &path, e)),
            }
        }
        if !found {
            self.root.check()?;
        }
        Ok(())
    }

    fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        for path in self.places(key)? {
            match fs::metadata(&path) {
                Ok(m) if m.is_file() => {
                    let modified = durable::unix_seconds(m.modified());
                    return Ok(Some(ObjectMeta { key: key.to_owned(), size: m.len(), modified }));
                }
                Ok(_) => {}
                Err(e) if is_nothing(&e) => {}
                Err(e) => return Err(fail("looking at", &path, e)),
            }
        }
        self.root.check()?;
        Ok(None)
    }

    fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page> {
        if !self.root.check()? {
            return Ok(Page::default());
        }
        let page = list::list(&self.root.path, prefix, after, self.page)?;
        // A disk that went away in the middle must not look like the end of the list.
        self.root.check()?;
        Ok(page)
    }
}

#[async_trait]
impl Store for DirStore {
    async fn get(&self, key: &str) -> Result<Bytes> {
        let key = key.to_owned();
        self.run(&self.readers, move |s| s.get(&key)).await
    }

    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<PutOutcome> {
        let key = key.to_owned();
        self.run(&self.writers, move |s| s.put(&key, &body, mode)).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.run(&self.readers, move |s| s.list(&prefix, after.as_deref())).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let key = key.to_owned();
        self.run(&self.writers, move |s| s.delete(&key)).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        let key = key.to_owned();
        self.run(&self.readers, move |s| s.head(&key)).await
    }

    async fn is_away(&self) -> bool {
        // Another directory in its place, or one that cannot be looked at, is no store either.
        !self.run(&self.readers, |s| s.root.is_ready()).await.unwrap_or(false)
    }

    fn describe(&self) -> String {
        format!("file://{}", self.inner.root.path.display())
    }

    fn watch(&self, prefix: &str) -> Option<tokio::sync::mpsc::Receiver<()>> {
        let dir = prefix.trim_end_matches('/');
        keys::check_put(dir).ok()?;
        let inner = &self.inner;
        let dir = inner.root.path.join(dir);
        // Looking must not make a store: the directory may be the mount point of a disk that is not there yet.
        let ready = match inner.root.is_ready() {
            Ok(true) => inner.durable.make_dir(&dir),
            Ok(false) => Err(Error::new(Kind::NotFound, "the store has not been used yet")),
            Err(e) => Err(e),
        };
        match ready.and_then(|()| watch::watch(&dir)) {
            Ok(rx) => Some(rx),
            Err(e) => {
                tracing::debug!("no change notification for {}: {e}; polling instead", dir.display());
                None
            }
        }
    }
}

/// Whether an error means that there is no object: missing, or a file where a directory should be.
fn is_nothing(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::EISDIR))
}

fn read_whole(path: &Path) -> Result<Bytes> {
    let nothing = || Error::new(Kind::NotFound, format!("no file {}", path.display()));
    let mut file = match File::open(path) {
        Ok(f) => f,
        Err(e) if is_nothing(&e) => return Err(nothing()),
        Err(e) => return Err(fail("opening", path, e)),
    };
    let m = file.metadata().map_err(|e| fail("looking at", path, e))?;
    if m.is_dir() {
        return Err(nothing());
    }
    if m.len() > MAX_OBJECT {
        return Err(Error::new(Kind::Corrupt, format!("{} has {} bytes; no object is that large", path.display(), m.len())));
    }
    let mut out = Vec::with_capacity(m.len() as usize);
    file.read_to_end(&mut out).map_err(|e| fail("reading", path, e))?;
    Ok(out.into())
}

/// An I/O error with what was done to which path. What a broken share or disk answers is `Unavailable`.
fn fail(doing: &str, path: &Path, e: io::Error) -> Error {
    let what = format!("{doing} {}", path.display());
    match e.raw_os_error() {
        Some(libc::EIO | libc::ESTALE | libc::ENOTCONN | libc::ENODEV | libc::ENXIO | libc::EHOSTDOWN | libc::EHOSTUNREACH) => {
            Error::new(Kind::Unavailable, what).source(e)
        }
        Some(libc::ETIMEDOUT) => Error::new(Kind::Timeout, what).source(e),
        _ => Error::io(what, e),
    }
}

#[cfg(test)]
mod tests;
