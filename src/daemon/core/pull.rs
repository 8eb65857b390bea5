//! `pull`: a file or directory of the namespace to any local place.
//!
//! Must: a local file appears whole or not at all, and one that differs is never overwritten unasked. Must: nothing in
//! the namespace (a symbolic link, a name) leads out of the destination: every step goes through the directory's own
//! descriptor and follows no link.
//! Not here: fetching (`vfs`).

use super::total::Total;
use super::{Core, blocking};
use crate::daemon::protocol::{Pull, Pulled, Response, Skipped};
use crate::daemon::service::Progress;
use crate::error::{Error, IoContext, Kind, Result};
use crate::model::{RelPath, path::name as check_name};
use crate::state::rows::{FileType, Time};
use crate::vfs::{Compared, Found, GIT_DIR, Held, OpenFile, Vfs};
use futures_util::stream::{self, StreamExt};
use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Files fetched and written at a time.
const PARALLEL: usize = 8;
/// Bytes fetched and copied at a time.
const STEP: u64 = 8 << 20;

/// An open local directory.
struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

/// What became of one file.
enum Wrote {
    New(u64),
    Same,
    Skipped(String),
}

impl Core {
    pub(super) async fn pull(&self, request: Pull, progress: &Progress) -> Result<Response> {
        let offline = if request.here { false } else { self.catch_up().await? };
        let top = self.found(&request.path).await?;
        let (dir, name, destination) = target(&request, &top.path)?;
        let mut sum = Pulled { path: top.path.as_str().to_owned(), destination, offline, dry_run: request.dry_run, ..Pulled::default() };
        let work = Work {
            vfs: self.vfs.clone(),
            force: request.force,
            dry: request.dry_run,
            here: request.here,
            temp: AtomicU64::new(self.clock.random()),
            bytes: AtomicU64::new(0),
            total: Total::of_drive(self.vfs.clone(), top.clone()),
            progress: progress.clone(),
        };
        let mut todo: Vec<(Found, Option<Arc<Dir>>)> = Vec::new();
        let mut files: Vec<(Found, String, Option<Arc<Dir>>)> = Vec::new();
        if top.attr.kind == FileType::Dir {
            let into = if top.path.is_root() && name.is_none() { Ok(dir) } else { work.enter(dir.as_deref(), name.as_deref(), &top) };
            todo.push((top, into?));
        } else {
            files.push((top, name.unwrap_or_default(), dir));
        }
        // Modes and times of directories are set when everything in them is done.
        let mut finish: Vec<(Found, Arc<Dir>)> = Vec::new();
        let mut bundled_dirs: Vec<(Found, Arc<Dir>)> = Vec::new();
        loop {
            let work = &work;
            let mut done = stream::iter(std::mem::take(&mut files))
                .map(|(f, name, dir)| async move {
                    let wrote = work.one(&f, &name, dir.as_deref()).await;
                    (f, wrote)
                })
                .buffer_unordered(PARALLEL);
            let mut seen = Vec::new();
            while let Some((f, wrote)) = done.next().await {
                let path = f.path.as_str().to_owned();
                match wrote {
                    Ok(Wrote::New(n)) => {
                        sum.files += u64::from(f.attr.kind == FileType::File);
                        sum.bytes += n;
                        seen.push((f.path, None));
                    }
                    Ok(Wrote::Same) => {
                        sum.same += u64::from(f.attr.kind == FileType::File);
                        seen.push((f.path, None));
                    }
                    Ok(Wrote::Skipped(why)) => sum.skipped.push(Skipped { path, why }),
                    Err(e) if matches!(e.kind(), Kind::NoSpace | Kind::Interrupted | Kind::Internal) => return Err(e),
                    Err(e) => sum.skipped.push(Skipped { path, why: e.to_string() }),
                }
            }
            drop(done);
            if !seen.is_empty() && !work.dry {
                let vfs = work.vfs.clone();
                blocking(move || vfs.note_seen(&seen)).await?;
            }
            let Some((f, dir)) = todo.pop() else { break };
            let (vfs, at) = (work.vfs.clone(), f.clone());
            let (list, bundled) = blocking(move || {
                let bundled = vfs.repository(at.attr.ino)?.is_some_and(|r| !r.heads.is_empty());
                Ok((vfs.list(&at)?, bundled))
            })
            .await?;
            for below in list {
                // What the drive has of a repository is its bundles; what this machine has in its own is this machine's.
                if bundled && below.name == GIT_DIR {
                    continue;
                }
                if check_name(below.name.as_bytes()).is_err() {
                    sum.skipped.push(Skipped { path: below.path.as_str().to_owned(), why: "this name is none for a file".to_owned() });
                } else if below.attr.kind == FileType::Dir {
                    match work.enter(dir.as_deref(), Some(&below.name), &below) {
                        Ok(d) => todo.push((below, d)),
                        Err(e) => sum.skipped.push(Skipped { path: below.path.as_str().to_owned(), why: e.to_string() }),
                    }
                } else {
                    let name = below.name.clone();
                    files.push((below, name, dir.clone()));
                }
            }
            if let Some(d) = dir {
                bundled_dirs.extend(bundled.then(|| (f.clone(), d.clone())));
                finish.push((f, d));
            }
        }
        // With their files in place: they are taken for what the bundle says of them.
        for (f, dir) in bundled_dirs.iter().filter(|_| !request.dry_run) {
            let skip = |why: String| Skipped { path: f.path.join(GIT_DIR).as_str().to_owned(), why };
            match self.git.pull(f.attr.ino, &dir.path).await {
                Ok(None) => {}
                Ok(Some(notes)) => {
                    sum.repositories += 1;
                    sum.skipped.extend(notes.into_iter().map(skip));
                }
                Err(e) => sum.skipped.push(skip(e.to_string())),
            }
        }
        for (f, dir) in finish.iter().rev().filter(|_| !request.dry_run) {
            // Best effort: a foreign directory may belong to somebody else.
            let _ = rustix::fs::fchmod(&dir.fd, permissions(f.attr.mode));
            let _ = rustix::fs::futimens(&dir.fd, &stamps(f.attr.mtime));
        }
        if sum.files + sum.same == 0 && sum.skipped.len() == 1 && sum.skipped[0].path == sum.path && offline {
            let why = sum.skipped.pop().map(|s| s.why).unwrap_or_default();
            return Err(Error::new(Kind::Unavailable, format!("{}: {why}", sum.path)).hint("the store does not answer; see `tcfs doctor`"));
        }
        Ok(Response::Pulled(sum))
    }
}

/// The directory to write to, the name in it (none: the directory itself is meant), and the whole path.
fn target(request: &Pull, path: &RelPath) -> Result<(Option<Arc<Dir>>, Option<String>, PathBuf)> {
    let at = &request.destination;
    if request.into {
        if !request.dry_run {
            std::fs::create_dir_all(at).doing(|| format!("making {}", at.display()))?;
        }
        let name = (!path.is_root()).then(|| path.file_name().to_owned());
        let whole = name.as_ref().map_or(at.clone(), |n| at.join(n));
        return Ok((open(at, request.dry_run)?, name, whole));
    }
    let parent = at.parent().unwrap_or(Path::new("/"));
    let name = at.file_name().and_then(|n| n.to_str());
    let name = name.ok_or_else(|| Error::new(Kind::Usage, format!("{} is no name for a file", at.display())))?;
    Ok((open(parent, request.dry_run)?, Some(name.to_owned()), at.clone()))
}

fn open(path: &Path, may_miss: bool) -> Result<Option<Arc<Dir>>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => Ok(Some(Arc::new(Dir { fd, path: path.to_owned() }))),
        Err(rustix::io::Errno::NOENT) if may_miss => Ok(None),
        Err(e) => Err(Error::io(format!("opening the directory {}", path.display()), e.into())),
    }
}

fn stamps(t: Time) -> Timestamps {
    let t = Timespec { tv_sec: t.sec, tv_nsec: t.nsec.into() };
    Timestamps { last_access: t, last_modification: t }
}

struct Work {
    vfs: Arc<Vfs>,
    force: bool,
    dry: bool,
    /// Only what takes nothing from the store.
    here: bool,
    temp: AtomicU64,
    bytes: AtomicU64,
    /// Of so many.
    total: Total,
    progress: Progress,
}

impl Work {
    /// Opens (and makes) a directory of the destination. None in a dry run where it is not there.
    fn enter(&self, dir: Option<&Dir>, name: Option<&str>, f: &Found) -> Result<Option<Arc<Dir>>> {
        let (Some(dir), Some(name)) = (dir, name) else { return Ok(None) };
        let path = dir.path.join(name);
        let doing = |what: &str, e: rustix::io::Errno| Error::io(format!("{what} the directory {}", path.display()), e.into());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for _ in 0..3 {
            match rustix::fs::openat(&dir.fd, name, flags, Mode::empty()) {
                Ok(fd) => return Ok(Some(Arc::new(Dir { fd, path }))),
                Err(rustix::io::Errno::NOENT) if self.dry => return Ok(None),
                Err(rustix::io::Errno::NOENT) => match rustix::fs::mkdirat(&dir.fd, name, permissions(f.attr.mode | 0o700)) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                    Err(e) => return Err(doing("making", e)),
                },
                // A file or a link is in the way.
                Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) if self.force && !self.dry => {
                    rustix::fs::unlinkat(&dir.fd, name, AtFlags::empty()).map_err(|e| doing("making room for", e))?;
                }
                Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
                    return Err(Error::new(Kind::NotDir, format!("{} is there and no directory", path.display())));
                }
                Err(e) => return Err(doing("opening", e)),
            }
        }
        Err(Error::new(Kind::Busy, format!("{} changes all the time", path.display())))
    }

    async fn one(&self, f: &Found, name: &str, dir: Option<&Dir>) -> Result<Wrote> {
        match f.attr.kind {
            FileType::File => self.file(f, name, dir).await,
            FileType::Symlink => self.link(f, name, dir),
            _ => Ok(Wrote::Skipped("a socket, fifo or device node stays where it is".to_owned())),
        }
    }

    /// What is at `name`: nothing, a regular file to compare with, or something else.
    fn there(&self, dir: &Dir, name: &str) -> Result<There> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let stat = match rustix::fs::statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(s) => s,
            Err(rustix::io::Errno::NOENT) => return Ok(There::Nothing),
            Err(e) => return Err(Error::io(format!("looking at {}", dir.path.join(name).display()), e.into())),
        };
        match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
            rustix::fs::FileType::Directory => Ok(There::Dir),
            rustix::fs::FileType::RegularFile => match rustix::fs::openat(&dir.fd, name, flags, Mode::empty()) {
                Ok(fd) => Ok(There::File(File::from(fd))),
                Err(e) => Err(Error::io(format!("opening {}", dir.path.join(name).display()), e.into())),
            },
            _ => Ok(There::Other),
        }
    }

    fn link(&self, f: &Found, name: &str, dir: Option<&Dir>) -> Result<Wrote> {
        let target = self.vfs.readlink(f.attr.ino)?;
        let Some(dir) = dir else { return Ok(Wrote::New(0)) };
        let same = || rustix::fs::readlinkat(&dir.fd, name, Vec::new()).is_ok_and(|t| t.to_bytes() == target.as_bytes());
        match self.there(dir, name)? {
            There::Nothing => {}
            There::Dir => return Ok(Wrote::Skipped("a directory of that name is there".to_owned())),
            There::Other if same() => return Ok(Wrote::Same),
            _ if self.force => {}
            _ => return Ok(Wrote::Skipped("something else of that name is there; --force overwrites it".to_owned())),
        }
        if !self.dry {
            let temp = self.temp_name();
            let doing = |e: rustix::io::Errno| Error::io(format!("making the link {}", dir.path.join(name).display()), e.into());
            rustix::fs::symlinkat(target.as_str(), &dir.fd, &temp).map_err(doing)?;
            let moved = rustix::fs::renameat(&dir.fd, &temp, &dir.fd, name).map_err(doing);
            self.clean(dir, &temp, moved)?;
        }
        Ok(Wrote::New(0))
    }

    async fn file(&self, f: &Found, name: &str, dir: Option<&Dir>) -> Result<Wrote> {
        let Some(dir) = dir else { return Ok(Wrote::New(f.attr.size)) };
        match self.there(dir, name)? {
            There::Nothing => {}
            There::Dir => return Ok(Wrote::Skipped("a directory of that name is there".to_owned())),
            There::File(file) => {
                let (vfs, path, size) = (self.vfs.clone(), f.path.clone(), f.attr.size);
                let same = blocking(move || {
                    let len = file.metadata().doing(|| "looking at the local file")?.len();
                    Ok(len == size && matches!(vfs.compare_shown(&path, &file)?, Compared::Same(_)))
                });
                if same.await? {
                    return Ok(Wrote::Same);
                }
                if !self.force {
                    return Ok(Wrote::Skipped("the local file has other content; --force overwrites it".to_owned()));
                }
            }
            There::Other if self.force => {}
            There::Other => return Ok(Wrote::Skipped("something else of that name is there; --force overwrites it".to_owned())),
        }
        if self.here && matches!(self.vfs.look(f)?.held, Held::Stub | Held::Partial) {
            return Ok(Wrote::Skipped("its bytes are not on this machine, or not all of them".to_owned()));
        }
        if self.dry {
            return Ok(Wrote::New(f.attr.size));
        }
        let temp = self.temp_name();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let whole = dir.path.join(name);
        let doing = |e: rustix::io::Errno| Error::io(format!("writing {}", whole.display()), e.into());
        let fd = rustix::fs::openat(&dir.fd, &temp, flags, Mode::from_raw_mode(0o600)).map_err(doing)?;
        let removed = RemoveOnDrop { dir, name: &temp, armed: true };
        let file = Arc::new(File::from(fd));
        let size = self.copy(f, &file, &whole).await?;
        rustix::fs::fchmod(&*file, permissions(f.attr.mode)).map_err(doing)?;
        rustix::fs::futimens(&*file, &stamps(f.attr.mtime)).map_err(doing)?;
        rustix::fs::renameat(&dir.fd, &temp, &dir.fd, name).map_err(doing)?;
        removed.keep();
        Ok(Wrote::New(size))
    }

    async fn copy(&self, f: &Found, to: &Arc<File>, whole: &Path) -> Result<u64> {
        let (vfs, ino) = (self.vfs.clone(), f.attr.ino);
        let open = blocking(move || vfs.open_file(ino, false, false)).await?;
        let _closed = OpenFile::of(&self.vfs, open.fh);
        let mut at = 0u64;
        loop {
            let now = self.vfs.hydrate_read(open.fh, at, STEP as usize).await?;
            if now.len == 0 {
                break;
            }
            let (to, off, path) = (to.clone(), at, whole.to_owned());
            let copied = move || {
                let from = now.local().ok_or_else(|| Error::new(Kind::Invalid, "no file of the drive"))?;
                copy_range(from, &to, off, now.len).doing(|| format!("writing {}", path.display()))
            };
            let n = blocking(copied).await?;
            if n == 0 {
                break;
            }
            at += n;
            let sum = self.bytes.fetch_add(n, Ordering::Relaxed) + n;
            self.progress.bytes("fetching", sum, self.total.get(sum), Some(f.path.as_str()));
        }
        Ok(at)
    }

    fn temp_name(&self) -> String {
        format!(".tcfs-{:016x}.tmp", self.temp.fetch_add(1, Ordering::Relaxed))
    }

    fn clean(&self, dir: &Dir, temp: &str, done: Result<()>) -> Result<()> {
        if done.is_err() {
            let _ = rustix::fs::unlinkat(&dir.fd, temp, AtFlags::empty());
        }
        done
    }
}

enum There {
    Nothing,
    File(File),
    Dir,
    Other,
}

/// Takes a temporary file away unless it got its name.
struct RemoveOnDrop<'a> {
    dir: &'a Dir,
    name: &'a str,
    armed: bool,
}

impl RemoveOnDrop<'_> {
    fn keep(mut self) {
        self.armed = false;
    }
}

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        if self.armed {
            let _ = rustix::fs::unlinkat(&self.dir.fd, self.name, AtFlags::empty());
        }
    }
}

/// The permission bits of a mode.
#[allow(clippy::unnecessary_cast)] // its type has another width on macOS
fn permissions(mode: u32) -> Mode {
    Mode::from_raw_mode((mode & 0o777) as rustix::fs::RawMode)
}

fn copy_range(from: &File, to: &File, off: u64, len: usize) -> std::io::Result<u64> {
    use std::os::unix::fs::FileExt;
    let mut done = 0;
    while done < len {
        let at = off + done as u64;
        match crate::sys::copy_range(from, at, to, at, len - done) {
            Ok(0) => break,
            Ok(n) => done += n,
            // Not between these two disks.
            Err(_) => {
                let mut buf = vec![0; (len - done).min(1 << 20)];
                let n = from.read_at(&mut buf, off + done as u64)?;
                if n == 0 {
                    break;
                }
                to.write_all_at(&buf[..n], off + done as u64)?;
                done += n;
            }
        }
    }
    Ok(done as u64)
}
