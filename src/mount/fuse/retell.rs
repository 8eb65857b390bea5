//! Programs that watch files with inotify hear of what other machines changed.
//!
//! The kernel makes events of what is done through the mount, and of nothing else: no notification of FUSE makes one.
//! So a thread of ours does once more, through the mount, what another machine did: makes the name, removes it, opens
//! the file for writing and closes it. The handlers know that thread and answer as if it were done, which it is.
//!
//! Must: only where somebody watches ([`Watches`]). Must: nothing that this thread does changes anything: a handler
//! that serves it touches neither the tree nor the bytes, and no call of it lets the kernel think of another size.
//! Not here: the notifications that drop what the kernel has cached (`invalidate`), which go out first.

use super::convert::{attr_of, negative};
use super::invalidate::Told;
use super::watches::Watches;
use crate::vfs::{FileType, Vfs};
use fuser::{FileAttr, Generation, INodeNo, Notifier, Request};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

/// Handle of what is opened only to be told of.
pub(super) const RETOLD: u64 = u64::MAX;

/// News that are told after one look at who watches.
const PAGE: usize = 1000;

/// What is being told at this moment.
enum Telling {
    /// A name came: it is not there until it was made.
    Made(u64, String),
    /// A name went: it is still there until it was removed.
    Gone(u64, String, Box<Past>),
    /// A file changed.
    Changed,
}

/// The thread that retells, as the handlers know it.
#[derive(Default)]
pub(super) struct Retell {
    thread: AtomicU32,
    telling: Mutex<Option<Telling>>,
}

/// What a lookup by that thread finds.
pub(super) enum Lookup {
    /// What is there.
    Truth,
    /// Nothing.
    Nothing,
    /// What was there.
    Past(Box<Past>),
}

/// What a name led to.
#[derive(Clone)]
pub(super) struct Past {
    pub(super) attr: FileAttr,
    pub(super) generation: Generation,
}

impl Retell {
    /// Whether a request is a repetition.
    pub(super) fn is_by(&self, req: &Request) -> bool {
        let thread = self.thread.load(Ordering::Acquire);
        thread != 0 && req.pid() == thread
    }

    pub(super) fn lookup(&self, req: &Request, parent: u64, name: &OsStr) -> Lookup {
        if !self.is_by(req) {
            return Lookup::Truth;
        }
        match &*self.telling.lock() {
            Some(Telling::Made(d, n)) if *d == parent && n.as_bytes() == name.as_bytes() => Lookup::Nothing,
            Some(Telling::Gone(d, n, a)) if *d == parent && n.as_bytes() == name.as_bytes() => Lookup::Past(a.clone()),
            _ => Lookup::Truth,
        }
    }

    /// Whether that thread is making this name.
    pub(super) fn makes(&self, req: &Request, parent: u64, name: &OsStr) -> bool {
        matches!(self.lookup(req, parent, name), Lookup::Nothing)
    }
}

/// The thread's own side.
pub(super) struct Reteller {
    retell: Arc<Retell>,
    vfs: Arc<Vfs>,
    notifier: Notifier,
    mountpoint: PathBuf,
    /// The next number that stands for an inode.
    stand_in: AtomicU64,
}

impl Reteller {
    pub(super) fn new(retell: Arc<Retell>, vfs: Arc<Vfs>, notifier: Notifier, mountpoint: &Path) -> Reteller {
        // Far above any that is ever given away.
        Reteller { retell, vfs, notifier, mountpoint: mountpoint.to_owned(), stand_in: AtomicU64::new(RETOLD - 1) }
    }

    /// Tells what comes until it is told to stop.
    pub(super) fn run(self, news: &mpsc::Receiver<Told>) {
        use std::os::unix::fs::MetadataExt;
        self.retell.thread.store(id_of_this_thread(), Ordering::Release);
        let mut watches = None;
        while let Ok(first) = news.recv() {
            if watches.is_none() {
                watches = std::fs::metadata(&self.mountpoint).ok().map(|m| Watches::of(m.dev()));
            }
            let Some(watches) = &mut watches else { continue };
            // One look for all that has come: who watches now has watched before it is told.
            watches.look();
            for what in std::iter::once(first).chain(news.try_iter().take(PAGE)) {
                match what {
                    Told::Stop => return,
                    _ if watches.is_empty() => {}
                    Told::Name { dir, name, was } => self.name(watches, dir, &name, was),
                    Told::Attr(ino) => self.attr(watches, ino),
                    Told::Data(_) | Told::Mark(_) => {}
                }
            }
        }
    }

    fn name(&self, watches: &Watches, dir: u64, name: &str, was: u64) {
        if !watches.has(dir) && !watches.has(was) {
            return;
        }
        let Ok(at) = self.vfs.path_of(dir) else { return };
        let at = self.mountpoint.join(at.as_str()).join(name);
        match (was, self.vfs.lookup(dir, name.as_bytes()).ok()) {
            (0, None) => {}
            (0, Some(a)) => self.made(dir, name, &at, a.kind),
            (_, None) => self.gone(watches, dir, name, &at, was),
            (_, Some(a)) if a.ino == was => {}
            // Whoever watches the old file itself hears that its name is gone.
            (_, Some(a)) if watches.has(was) => {
                self.gone(watches, dir, name, &at, was);
                self.made(dir, name, &at, a.kind);
            }
            (_, Some(a)) => self.changed(&at, a.kind),
        }
    }

    fn attr(&self, watches: &Watches, ino: u64) {
        let Some((dir, name, a)) = self.vfs.place_of(ino) else { return };
        if a.kind == FileType::Symlink || !(watches.has(ino) || watches.has(dir)) {
            return;
        }
        let Ok(at) = self.vfs.path_of(dir) else { return };
        let at = self.mountpoint.join(at.as_str()).join(name);
        let _ = self.tell(Telling::Changed, || rustix::fs::chmod(&at, Mode::from_raw_mode(a.mode & 0o7777)));
    }

    fn made(&self, dir: u64, name: &str, at: &Path, kind: FileType) {
        let make = || {
            self.tell(Telling::Made(dir, name.to_owned()), || match kind {
                FileType::Dir => rustix::fs::mkdir(at, Mode::RWXU),
                FileType::Symlink => rustix::fs::symlink("told", at),
                _ => {
                    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let file = rustix::fs::open(at, flags, Mode::RUSR | Mode::WUSR)?;
                    touch(&file)
                }
            })
        };
        if make() == Err(rustix::io::Errno::EXIST) {
            // Somebody looked it up meanwhile: once more, as if not.
            let _ = self.notifier.inval_entry(INodeNo(dir), OsStr::new(name));
            if make() == Err(rustix::io::Errno::EXIST) {
                self.changed(at, kind);
            }
        }
    }

    /// A name went. Whoever watches the inode that had it hears of that one, if it is gone for good; otherwise a number
    /// that nothing has stands for it: the kernel takes what is removed for dead, and it may only have moved.
    fn gone(&self, watches: &Watches, dir: u64, name: &str, at: &Path, was: u64) {
        let attr = self.vfs.getattr(was).ok();
        let is_dir = attr.as_ref().is_some_and(|a| a.kind == FileType::Dir);
        let real = self.vfs.place_of(was).is_none() && watches.has(was);
        let ino = if real { was } else { self.stand_in.fetch_sub(1, Ordering::Relaxed) };
        let past = Past {
            attr: FileAttr {
                ino: INodeNo(ino),
                nlink: 1 + u32::from(is_dir),
                kind: if is_dir { fuser::FileType::Directory } else { fuser::FileType::RegularFile },
                ..attr.as_ref().map_or_else(negative, attr_of)
            },
            generation: Generation(attr.filter(|_| real).map_or(0, |a| u64::from(a.generation))),
        };
        let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        let _ = self.tell(Telling::Gone(dir, name.to_owned(), Box::new(past)), || rustix::fs::unlinkat(CWD, at, flags));
    }

    fn changed(&self, at: &Path, kind: FileType) {
        if kind != FileType::File {
            return;
        }
        let _ = self.tell(Telling::Changed, || {
            let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            touch(&rustix::fs::open(at, flags, Mode::empty())?)
        });
    }

    fn tell(&self, what: Telling, act: impl FnOnce() -> rustix::io::Result<()>) -> rustix::io::Result<()> {
        *self.retell.telling.lock() = Some(what);
        let done = act();
        *self.retell.telling.lock() = None;
        if let Err(e) = done {
            tracing::debug!(error = %e, "a program that watches a file may not hear of a change");
        }
        done
    }
}

/// An event of a change of content. Keeps the size: unlike a truncation, it cannot cut what somebody writes meanwhile.
fn touch(file: &rustix::fd::OwnedFd) -> rustix::io::Result<()> {
    rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, 1)
}

/// As a request of this thread names it.
fn id_of_this_thread() -> u32 {
    // SAFETY: a call without arguments that cannot fail.
    unsafe { libc::gettid() }.unsigned_abs()
}
