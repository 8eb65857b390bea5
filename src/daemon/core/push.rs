//! `push`: a local file, symbolic link or directory into the namespace.
//!
//! Must: it returns when what it wrote is in this device's log, or says that it is queued.
//! Not here: what a version from outside replaces (`vfs::place`).

use super::git::{Keeper, Sent};
use super::total::Total;
use super::{Core, blocking};
use crate::daemon::protocol::{Push, Pushed, Response, Skipped};
use crate::daemon::service::Progress;
use crate::error::{Error, IoContext, Kind, Result};
use crate::model::RelPath;
use crate::model::ops::Attrs;
use crate::model::path::name as check_name;
use crate::state::rows::{FileType, ROOT};
use crate::vfs::{Compared, GIT_DIR, New, SetAttr, Vfs};
use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a store that does not answer is waited for before the rest is left to the background.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the wait looks at how things stand.
const LOOK: Duration = Duration::from_millis(500);
/// Mode of directories that are made on the way to the target.
const DIR_MODE: u32 = 0o755;

/// Stops the copying when the request is dropped.
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Core {
    pub(super) async fn push(&self, request: Push, progress: &Progress) -> Result<Response> {
        let top = self.push_target(&request).await?;
        // Before anything is counted or written: what others have pushed meanwhile is told as the same or as different, and
        // another store's files would be waiting here for ever.
        let offline = self.catch_up().await?;
        let gone = Gone(Arc::default());
        let work = Work {
            vfs: self.vfs.clone(),
            git: self.git.clone(),
            repositories: Vec::new(),
            progress: progress.clone(),
            force: request.force,
            dry: request.dry_run,
            gone: gone.0.clone(),
            done: Pushed { path: top.as_str().to_owned(), dry_run: request.dry_run, ..Pushed::default() },
            read: 0,
            total: Total::of_disk(request.source.clone()),
            wrote: false,
        };
        let source = request.source.clone();
        let (mut pushed, wrote) = blocking(move || work.run(&source, &top)).await?;
        drop(gone);
        // Content that was there already may be there only as something that is not published yet.
        if wrote || (pushed.same > 0 && !request.dry_run) {
            pushed.queued = !self.published(progress, if offline { LOOK } else { PATIENCE }).await?;
        }
        Ok(Response::Pushed(pushed))
    }

    /// What the source is to become.
    async fn push_target(&self, request: &Push) -> Result<RelPath> {
        let name = request.source.file_name();
        let named = || {
            let name = name.ok_or_else(|| Error::new(Kind::Usage, format!("{} has no name", request.source.display())))?;
            check_name(name.as_bytes()).map_err(|e| Error::new(Kind::BadName, format!("{}: {e}", request.source.display())))
        };
        let Some(to) = &request.to else { return Ok(RelPath::root().join(&named()?)) };
        let path = self.path(to)?;
        let (vfs, at) = (self.vfs.clone(), path.clone());
        let is_dir = blocking(move || Ok(vfs.find(&at).is_ok_and(|f| f.attr.kind == FileType::Dir))).await?;
        if to.ends_with('/') || path.is_root() || is_dir {
            return Ok(path.join(&named()?));
        }
        Ok(path)
    }

    /// After a change that nobody waits for: where no mount keeps this process alive, it goes out before the answer, if
    /// the store answers.
    pub(super) async fn send_off(&self, progress: &Progress) -> Result<()> {
        self.fleet.wake();
        let alone = self.mounts.lock().is_empty();
        if alone {
            self.published(progress, PATIENCE).await?;
        }
        Ok(())
    }

    /// [`Core::published`] with the usual patience.
    pub(super) async fn all_out(&self, progress: &Progress) -> Result<bool> {
        self.published(progress, PATIENCE).await
    }

    /// Waits until everything sealed so far is in this device's log; false if the store does not answer for `patience`.
    async fn published(&self, progress: &Progress, patience: Duration) -> Result<bool> {
        let (vfs, replica) = (self.vfs.clone(), self.replica.clone());
        let upto = blocking(move || {
            vfs.drain_moves()?;
            Ok(replica.next_id())
        })
        .await?;
        self.fleet.wake();
        let mut trouble: Option<Instant> = None;
        loop {
            match self.fleet.wait_published(upto, LOOK).await {
                Ok(()) => return Ok(true),
                Err(e) if e.kind() == Kind::Timeout => {}
                Err(e) => return Err(e),
            }
            let fleet = self.fleet.clone();
            let status = blocking(move || fleet.publish_status()).await?;
            progress.files("uploading", 0, Some(status.pending), status.current.as_deref());
            if self.fleet.is_online() && status.last_error.is_none() {
                trouble = None;
            } else if trouble.get_or_insert_with(Instant::now).elapsed() >= patience {
                return Ok(false);
            }
        }
    }
}

struct Work {
    vfs: Arc<Vfs>,
    git: Arc<Keeper>,
    /// Those that were seen: where they are, and the directory that they become.
    repositories: Vec<(PathBuf, u64, RelPath)>,
    progress: Progress,
    force: bool,
    dry: bool,
    gone: Arc<AtomicBool>,
    done: Pushed,
    read: u64,
    /// Bytes of all.
    total: Total,
    wrote: bool,
}

impl Work {
    fn run(mut self, source: &Path, top: &RelPath) -> Result<(Pushed, bool)> {
        let meta = source.symlink_metadata().doing(|| format!("looking at {}", source.display()))?;
        let parent = top.parent().unwrap_or_default();
        let dir = self.make_parents(&parent)?;
        if self.vfs.stays_here(dir, top, meta.is_dir())? {
            let e = Error::new(Kind::NotPermitted, format!("{top} would be local-only: it would never leave this machine"));
            return Err(e.hint("exclude_patterns and the built-in list of junk decide that; push it under another name"));
        }
        // Trees as deep as the disk allows, without recursion.
        let mut todo: Vec<(PathBuf, RelPath, Option<u64>)> = vec![(source.to_owned(), top.clone(), dir)];
        while let Some((from, to, dir)) = todo.pop() {
            if self.gone.load(Ordering::Relaxed) {
                return Err(Error::new(Kind::Interrupted, "pushing: the client went away"));
            }
            let one = self.one(&from, &to, dir, &mut todo);
            match one {
                Ok(()) => {}
                // The source itself is what was asked for; what is below it is named and left out.
                Err(e) if from == source || matches!(e.kind(), Kind::NoSpace | Kind::Internal | Kind::Corrupt) => return Err(e),
                Err(e) => self.skip(&to, e.to_string()),
            }
        }
        // After their files, of which a bundle tells.
        for (work, dir, to) in std::mem::take(&mut self.repositories) {
            self.progress.bytes("packing", self.read, self.total.get(self.read), Some(to.as_str()));
            match self.git.push(&work, dir, &to) {
                Ok(Sent::Same) => {}
                Ok(Sent::New(notes)) => {
                    self.wrote = true;
                    self.done.repositories += 1;
                    notes.into_iter().for_each(|n| self.skip(&to.join(GIT_DIR), n));
                }
                Ok(Sent::Not(why)) => self.skip(&to.join(GIT_DIR), why),
                Err(e) => self.skip(&to.join(GIT_DIR), e.to_string()),
            }
        }
        Ok((self.done, self.wrote))
    }

    /// What a repository is kept in: it goes as one unit, if repositories travel.
    fn repository(&mut self, from: &Path, to: &RelPath, dir: Option<u64>) {
        if !self.git.carries() {
            return self.skip(to, "repositories stay where they are; `sync_git_dirs = true` in the configuration carries them");
        }
        let (Some(work), Some(at)) = (from.parent(), to.parent()) else { return };
        if self.dry {
            self.done.repositories += 1;
        } else if let Some(dir) = dir {
            self.repositories.push((work.to_owned(), dir, at));
        }
    }

    fn skip(&mut self, path: &RelPath, why: impl Into<String>) {
        self.done.skipped.push(Skipped { path: path.as_str().to_owned(), why: why.into() });
    }

    /// Makes the directories above the target. None in a dry run, where they may not exist.
    fn make_parents(&mut self, parent: &RelPath) -> Result<Option<u64>> {
        let (mut dir, mut at) = (ROOT, RelPath::root());
        for c in parent.components() {
            at = at.join(c);
            dir = match self.vfs.find(&at) {
                Ok(f) if f.attr.kind == FileType::Dir => f.attr.ino,
                Ok(_) => return Err(Error::new(Kind::NotDir, format!("{at} is not a directory"))),
                Err(e) if e.kind() != Kind::NotFound => return Err(e),
                Err(_) if self.dry => return Ok(None),
                Err(_) => self.mkdir(dir, c, DIR_MODE)?,
            };
        }
        Ok(Some(dir))
    }

    fn mkdir(&mut self, dir: u64, name: &str, mode: u32) -> Result<u64> {
        let o = self.vfs.options();
        let made = self.vfs.mkdir(dir, name.as_bytes(), mode & 0o7777, o.uid, o.gid)?;
        self.wrote = true;
        Ok(made.ino)
    }

    fn one(&mut self, from: &Path, to: &RelPath, dir: Option<u64>, todo: &mut Vec<(PathBuf, RelPath, Option<u64>)>) -> Result<()> {
        let meta = from.symlink_metadata().doing(|| format!("looking at {}", from.display()))?;
        if to.file_name() == GIT_DIR && !self.vfs.options().sync_git_dirs {
            self.repository(from, to, dir);
            return Ok(());
        }
        if self.vfs.stays_here(dir, to, meta.is_dir())? {
            self.skip(to, "local-only: it would never leave this machine");
            return Ok(());
        }
        if meta.is_dir() {
            self.dir(from, to, dir, &meta, todo)
        } else if meta.is_symlink() {
            self.link(from, to, dir, &meta)
        } else if meta.is_file() {
            self.file(from, to, dir, &meta)
        } else {
            self.skip(to, "a socket, fifo or device node stays where it is");
            Ok(())
        }
    }

    fn dir(
        &mut self,
        from: &Path,
        to: &RelPath,
        dir: Option<u64>,
        meta: &Metadata,
        todo: &mut Vec<(PathBuf, RelPath, Option<u64>)>,
    ) -> Result<()> {
        let there = self.vfs.find(to).ok();
        let number = match (&there, dir) {
            (Some(f), _) if f.attr.kind == FileType::Dir => Some(f.attr.ino),
            (Some(_), _) => return Err(Error::new(Kind::NotDir, format!("{to} is not a directory"))),
            (None, Some(dir)) if !self.dry => Some(self.mkdir(dir, to.file_name(), meta.mode())?),
            (None, _) => None,
        };
        if there.is_none() {
            self.done.others += 1;
            self.done.new += 1;
        }
        let list = std::fs::read_dir(from).doing(|| format!("reading the directory {}", from.display()))?;
        let mut names = Vec::new();
        for e in list {
            let name = e.doing(|| format!("reading the directory {}", from.display()))?.file_name();
            match check_name(name.as_bytes()) {
                Ok(n) => names.push((name, n)),
                Err(e) => {
                    let path = from.join(&name).to_string_lossy().into_owned();
                    self.done.skipped.push(Skipped { path, why: e.to_string() });
                }
            }
        }
        names.sort();
        todo.extend(names.into_iter().rev().map(|(raw, n)| (from.join(raw), to.join(&n), number)));
        Ok(())
    }

    fn link(&mut self, from: &Path, to: &RelPath, dir: Option<u64>, meta: &Metadata) -> Result<()> {
        let target = std::fs::read_link(from).doing(|| format!("reading the link {}", from.display()))?;
        let target = target.to_str().ok_or_else(|| Error::new(Kind::NotUtf8, format!("the target of {} is not UTF-8", from.display())))?;
        let compared = self.vfs.compare_link(to, target)?;
        let attrs = Attrs { mode: 0o777, mtime: (meta.mtime(), meta.mtime_nsec() as u32), ..Attrs::default() };
        let mut new = New::Symlink(target.to_owned());
        if self.write(to, dir, compared, &attrs, &mut |_| Ok(Some(std::mem::replace(&mut new, New::Symlink(String::new())))))? {
            self.done.others += 1;
        }
        Ok(())
    }

    fn file(&mut self, from: &Path, to: &RelPath, dir: Option<u64>, _: &Metadata) -> Result<()> {
        let doing = || format!("opening {}", from.display());
        let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(from).doing(doing)?;
        let meta = file.metadata().doing(doing)?;
        if !meta.is_file() {
            self.skip(to, "it changed while it was looked at");
            return Ok(());
        }
        self.progress.bytes("reading", self.read, self.total.get(self.read), Some(to.as_str()));
        let compared = self.vfs.compare_file(to, &file)?;
        if let Compared::Same(_) = &compared
            && !self.dry
        {
            let there = self.vfs.find(to)?;
            if there.attr.mode & 0o777 != meta.mode() & 0o777 {
                self.vfs.setattr(there.attr.ino, &SetAttr { mode: Some(meta.mode() & 0o777), ..SetAttr::default() })?;
                self.wrote = true;
            }
        }
        let attrs = Attrs { mode: meta.mode(), mtime: (meta.mtime(), meta.mtime_nsec() as u32), ..Attrs::default() };
        let written = self.write(to, dir, compared, &attrs, &mut |vfs| {
            // Somebody may be writing it right now: once more, then it is left out.
            match vfs.copy_in(&file)? {
                Some(b) => Ok(Some(New::File(b))),
                None => Ok(vfs.copy_in(&file)?.map(New::File)),
            }
        })?;
        self.read += meta.len();
        if written {
            self.done.files += 1;
            self.done.bytes += meta.len();
        }
        Ok(())
    }

    /// Counts, and writes what differs. Says whether it did, or would in a dry run.
    fn write(
        &mut self,
        to: &RelPath,
        dir: Option<u64>,
        compared: Compared,
        attrs: &Attrs,
        new: &mut dyn FnMut(&Arc<Vfs>) -> Result<Option<New>>,
    ) -> Result<bool> {
        let equal = match compared {
            Compared::Same(clock) => {
                self.done.same += 1;
                if !self.dry {
                    self.vfs.note_seen(&[(to.clone(), Some(clock))])?;
                }
                return Ok(false);
            }
            Compared::Dir => return Err(Error::new(Kind::IsDir, format!("{to} is a directory in the drive"))),
            Compared::Absent => None,
            Compared::Different(equal) => Some(equal),
        };
        let count = |done: &mut Pushed| *(if equal.is_some() { &mut done.different } else { &mut done.new }) += 1;
        let Some(dir) = dir.filter(|_| !self.dry) else {
            count(&mut self.done);
            return Ok(true);
        };
        let Some(mut new) = new(&self.vfs)? else {
            self.skip(to, "it was being written while it was read");
            return Ok(false);
        };
        let placed = self.vfs.place(dir, to.file_name(), &mut new, attrs, equal.as_deref().unwrap_or(&[]), self.force)?;
        count(&mut self.done);
        self.wrote = true;
        if placed.conflict {
            self.done.conflicts.push(to.as_str().to_owned());
        }
        Ok(true)
    }
}
