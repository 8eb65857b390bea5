//! Repositories in the drive: found, watched, packed when they are at rest, and what others packed taken in.
//!
//! git works on a directory, so all of it happens on a mount of this process; without one repositories wait.
//!
//! Must: nothing of it while a mount is being taken away. Must: one repository at a time, and each as it lies: one that is
//! in use is looked at again.
//! Not here: what is in a bundle and how it is joined (`fleet::git`), where bundles are among versions (`vfs`).

mod outside;

use super::{Core, blocking, mount};
use crate::clock::Clock;
use crate::daemon::config::{Config, GitSyncMode};
use crate::daemon::protocol::{GitRepo, GitStatus, GitSum, Item, RepoState, Response};
use crate::daemon::service::Progress;
use crate::error::{Error, IoContext, Kind, Result};
use crate::fleet::git::{From, Looked, Packed, Packing, Told, has_taken, look, pack, published, settle, take};
use crate::model::{Kind as What, Version};
use crate::vfs::{GIT_DIR, RepoAt, Vfs};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often it is asked whether git did anything, or something is left to do.
const LOOK: Duration = Duration::from_secs(1);
/// Also where nothing says that git did anything.
const ANYWAY: Duration = Duration::from_secs(10);
/// When one is tried again that could not be carried.
const FAILED: Duration = Duration::from_secs(60);
/// One that did not change for so long is at rest.
const QUIET: Duration = Duration::from_secs(2);
/// Files that did not arrive for so long after their bundle are read by git when it wants them.
const SETTLES: Duration = Duration::from_hours(4);
/// Directory of the state for what git makes on the way.
const ROOMS: &str = "git";
/// Key of what is told with a bundle.
const TOLD: &str = "told";
/// Key in a bundle that was made of a repository outside the drive.
const OUTSIDE: &str = "outside";

pub(super) use outside::Sent;

/// Who looks after the repositories of this machine.
pub(super) struct Keeper {
    vfs: Arc<Vfs>,
    clock: Arc<dyn Clock>,
    /// Repositories are carried as bundles.
    carries: bool,
    mounts: Arc<Mutex<Vec<mount::Mounted>>>,
    seen: Mutex<HashMap<u64, Seen>>,
    /// What git had done when all were last looked at, and when that was.
    looked_at: Mutex<(u64, Option<Instant>)>,
    /// Held while git works on a mount; a mount is taken away with it.
    pub(super) working: tokio::sync::Mutex<()>,
}

/// A repository as it was last looked at.
#[derive(Clone, Default)]
struct Seen {
    look: u64,
    since: Option<Instant>,
    /// What it looked like when it was last packed, or had nothing new.
    done: Option<u64>,
    /// None before it was looked at.
    state: Option<RepoState>,
    why: String,
    notes: Vec<String>,
    /// Bundles that were taken in, of those that count: by device and version.
    taken: HashSet<String>,
    /// After an error it is left alone until then.
    not_before: Option<Instant>,
    /// Files of a bundle that was taken in have not arrived: when it is looked for them again, and how long after that.
    settle: Option<(Instant, Duration)>,
}

impl Keeper {
    pub(super) fn new(vfs: Arc<Vfs>, clock: Arc<dyn Clock>, config: &Config, mounts: Arc<Mutex<Vec<mount::Mounted>>>) -> Arc<Keeper> {
        let carries = config.sync_git_dirs && config.git_sync_mode == GitSyncMode::Bundle;
        clear_rooms(&vfs);
        Arc::new(Keeper { vfs, clock, carries, mounts, seen: Mutex::default(), looked_at: Mutex::default(), working: Default::default() })
    }

    /// Looks after repositories until `stop` says true.
    pub(super) async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        if !self.carries {
            return;
        }
        let vfs = self.vfs.clone();
        match blocking(move || vfs.find_repositories()).await {
            Ok(all) => all.into_iter().for_each(|dir| self.note(dir)),
            Err(e) => tracing::error!(error = %e, "looking for repositories"),
        }
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = stop.wait_for(|s| *s) => return,
            }
            self.look(false).await;
        }
    }

    /// Looks at each once. `now`: those that have something new need not have been at rest for a while. Whether a bundle is on
    /// its way.
    pub(super) async fn look(self: &Arc<Self>, now: bool) -> bool {
        let mut sent = false;
        if !self.carries {
            return sent;
        }
        let told = self.vfs.repositories_told();
        if told.is_empty() && !now && !self.is_due() {
            return sent;
        }
        told.into_iter().for_each(|dir| self.note(dir));
        let rested = |s: &Seen| now || s.not_before.is_none_or(|t| t <= Instant::now());
        let all: Vec<u64> = self.seen.lock().iter().filter(|(_, s)| rested(s)).map(|(dir, _)| *dir).collect();
        for dir in &all {
            if let Err(e) = self.follow(*dir).await {
                tracing::warn!(dir, error = %e, "a repository that was moved elsewhere stays where it is; it is tried again");
            }
        }
        for dir in all {
            let _working = self.working.lock().await;
            let Some(mount) = self.mount_for_git() else { return sent };
            let this = self.clone();
            let done = match self.vfs.repository(dir) {
                Ok(None) => {
                    self.seen.lock().remove(&dir);
                    continue;
                }
                Ok(Some(at)) => this.one(&at, &mount, now).await,
                Err(e) => Err(e),
            };
            sent |= *done.as_ref().unwrap_or(&false);
            if let Err(e) = done {
                let rest = match e.kind() {
                    Kind::Busy => Duration::ZERO,
                    k if k.is_transient() => ANYWAY,
                    _ => {
                        tracing::warn!(dir, error = %e, "a repository could not be carried; it is tried again");
                        FAILED
                    }
                };
                let state = if e.kind() == Kind::Unsupported { RepoState::Refused } else { RepoState::Waiting };
                self.change(dir, |s| (s.state, s.why, s.not_before) = (Some(state), e.to_string(), Some(Instant::now() + rest)));
            }
        }
        sent
    }

    /// Where a repository was moved with its files on another machine, what this one has in its own goes after it, unless there
    /// is one already. Before anything is taken in at the new place.
    async fn follow(&self, dir: u64) -> Result<()> {
        let Some(RepoAt { path, moved_to: Some(to), here: true, .. }) = self.vfs.repository(dir)? else { return Ok(()) };
        let _working = self.working.lock().await;
        let Some(mount) = self.mount_for_git() else { return Ok(()) };
        let (from, onto) = (mount.join(path.as_str()), mount.join(to.as_str()));
        let moved = blocking(move || {
            if !onto.is_dir() || onto.join(GIT_DIR).symlink_metadata().is_ok() {
                return Ok(false);
            }
            std::fs::rename(from.join(GIT_DIR), onto.join(GIT_DIR)).doing(|| format!("moving {} to {}", from.display(), onto.display()))?;
            // Only this kept the directory, which was removed there.
            let _ = std::fs::remove_dir(&from);
            Ok(true)
        });
        if moved.await? {
            tracing::info!("{path}: its repository was moved to {to}, and is there now");
        }
        Ok(())
    }

    /// A mount of this process in which git can work.
    fn mount_for_git(&self) -> Option<PathBuf> {
        let mounts = self.mounts.lock();
        mounts.iter().find(|m| !m.info.read_only && m.info.command.is_none()).map(|m| m.info.mountpoint.clone())
    }

    /// Takes in what others have of a repository, and sends what is new in it. Whether a bundle is on its way.
    async fn one(self: Arc<Self>, at: &RepoAt, mount: &Path, now: bool) -> Result<bool> {
        let work = mount.join(at.path.as_str());
        let me = self.vfs.device().0;
        if !at.shown {
            // Removed, with all that was in it; a bundle of it alone does not bring it back.
            return Ok(false);
        }
        // What others did first, so that what goes out has it.
        let key = |v: &Version| format!("{} {:?}", v.device_id, v.vclock);
        let counting: HashSet<String> = at.heads.iter().map(key).collect();
        self.change(at.dir, |s| s.taken.retain(|k| counting.contains(k)));
        // One that this machine pushed from elsewhere is no more in the drive here than those of others.
        let others = |v: &&Version| v.device_id != me || !at.here && is_outside(v);
        for v in at.heads.iter().filter(others).filter(|v| !v.is_uncut()) {
            let key = key(v);
            if self.seen.lock().get(&at.dir).is_some_and(|s| s.taken.contains(&key)) {
                continue;
            }
            let notes = self.take_in(v, &work).await?;
            for n in &notes {
                tracing::warn!("{}: {n}", at.path);
            }
            self.change(at.dir, |s| {
                s.taken.insert(key);
                s.notes.extend(notes);
                (s.done, s.settle) = (None, None);
            });
        }
        if !self.vfs.repository(at.dir)?.is_some_and(|r| r.here) {
            return Ok(false);
        }
        self.settle_in(at.dir, &work).await?;
        let pending = at.is_pending(&me);
        let w = work.clone();
        let look = blocking(move || fingerprint(&w)).await?;
        let seen = self.looked(at.dir, look);
        if seen.done == Some(look) || !now && seen.since.is_none_or(|s| s.elapsed() < QUIET) {
            return Ok(pending);
        }
        // One on its way at a time: the next has what comes meanwhile.
        if pending {
            return Ok(true);
        }
        let this = self.clone();
        let known = at.clone();
        let (state, why) = blocking(move || this.send(&known, &work)).await?;
        let done = (state != RepoState::Waiting).then_some(look);
        let sent = state == RepoState::Pending;
        let state = if sent { RepoState::Carried } else { state };
        self.change(at.dir, |s| (s.done, s.state, s.why) = (done, Some(state), why));
        Ok(sent)
    }

    /// Tells git of files that arrived after the bundle that names them. Those that do not come are looked for ever more
    /// seldom.
    async fn settle_in(&self, dir: u64, work: &Path) -> Result<()> {
        let (at, gap) = self.seen.lock().get(&dir).and_then(|s| s.settle).unwrap_or((Instant::now(), LOOK));
        if gap > SETTLES || at > Instant::now() {
            return Ok(());
        }
        let work = work.to_owned();
        let left = blocking(move || settle(&work)).await?;
        let gap = if left.is_some_and(|n| n > 0) { gap * 2 } else { Duration::MAX };
        self.change(dir, |s| s.settle = Some((Instant::now() + gap.min(SETTLES), gap)));
        Ok(())
    }

    /// Packs a repository and puts the bundle on its way, if anything is new. Blocking.
    fn send(&self, at: &RepoAt, work: &Path) -> Result<(RepoState, String)> {
        let repo = match look(work)? {
            Looked::Ready(r) => *r,
            Looked::Refused(r) => return Ok((RepoState::Refused, r.0)),
            Looked::Busy(b) => return Ok((RepoState::Waiting, b.0)),
        };
        let room = self.room_for_git()?;
        match pack(&repo, room.path())? {
            Packing::Known => Ok((RepoState::Carried, String::new())),
            Packing::Empty => Ok((RepoState::Carried, "there is nothing in it yet".to_owned())),
            Packing::Busy(b) => Ok((RepoState::Waiting, b.0)),
            Packing::Done(p) => {
                self.put(at, &p, &[])?;
                // After it is on its way: if this fails it is packed once more, which is all.
                published(&repo, &p)?;
                Ok((RepoState::Pending, String::new()))
            }
        }
    }

    /// Puts a bundle on its way. Blocking.
    fn put(&self, at: &RepoAt, packed: &Packed, more: &[(&str, String)]) -> Result<()> {
        let file = File::open(&packed.bundle).doing(|| "opening a bundle")?;
        let bytes = self.vfs.copy_in(&file)?.ok_or_else(|| Error::new(Kind::Busy, "a bundle changed while it was read"))?;
        let text = serde_json::to_string(&packed.told).map_err(|e| Error::new(Kind::Internal, "telling a repository's state").source(e))?;
        let mut meta = BTreeMap::from([(TOLD.to_owned(), text)]);
        meta.extend(more.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
        self.vfs.put_bundle(at, bytes, meta)
    }

    /// Takes another machine's bundle in; what could not be joined.
    async fn take_in(&self, v: &Version, work: &Path) -> Result<Vec<String>> {
        let told = told_of(v)?;
        let (w, id, known) = (work.to_owned(), v.device_id.clone(), told.clone());
        if blocking(move || has_taken(&w, &id, &known)).await? {
            return Ok(Vec::new());
        }
        let room = self.room_for_git()?;
        let bundle = room.path().join("bundle");
        let file = File::create(&bundle).doing(|| "making a file for a bundle")?;
        self.vfs.fetch_bundle(v, &file).await?;
        let (work, from) = (work.to_owned(), (v.device_id.clone(), v.device_name.clone()));
        blocking(move || {
            let name: String = from.1.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
            let taken = take(&work, &bundle, &told, From { id: &from.0, name: &name, published: true }, room.path())?;
            if taken.made {
                tracing::info!("{}: its repository was made here", work.display());
            }
            Ok(taken.notes)
        })
        .await
    }

    /// A directory of this process for what git makes on the way; removed when dropped.
    fn room_for_git(&self) -> Result<Room> {
        Room::new(&self.vfs.options().state_dir.join(ROOMS), self.clock.random())
    }

    /// Whether git did anything since this was last asked, or something is left to do, or it is long ago.
    fn is_due(&self) -> bool {
        let activity = self.vfs.git_activity();
        let mut last = self.looked_at.lock();
        let lately = last.0 == activity && last.1.is_some_and(|t| t.elapsed() < ANYWAY);
        if lately && self.seen.lock().values().all(|s| s.done == Some(s.look)) {
            return false;
        }
        *last = (activity, Some(Instant::now()));
        true
    }

    fn note(&self, dir: u64) {
        self.seen.lock().entry(dir).or_default();
    }

    fn change(&self, dir: u64, change: impl FnOnce(&mut Seen)) {
        if let Some(s) = self.seen.lock().get_mut(&dir) {
            change(s);
        }
    }

    /// Notes what one looks like now.
    fn looked(&self, dir: u64, look: u64) -> Seen {
        let mut all = self.seen.lock();
        let s = all.entry(dir).or_default();
        if s.look != look || s.since.is_none() {
            (s.look, s.since) = (look, Some(Instant::now()));
        }
        s.clone()
    }
}

impl Core {
    pub(super) async fn git_status(&self, request: GitStatus, progress: &Progress) -> Result<Response> {
        let mut sum = GitSum { carried: self.git.carries, ..GitSum::default() };
        let top = self.path(&request.path)?;
        let dirs = if sum.carried {
            self.vfs.repositories_told().into_iter().for_each(|dir| self.git.note(dir));
            self.git.seen.lock().keys().copied().collect()
        } else {
            let vfs = self.vfs.clone();
            blocking(move || vfs.find_repositories()).await?
        };
        let me = self.vfs.device().0;
        let mut all = Vec::new();
        for dir in dirs {
            let Some(at) = self.vfs.repository(dir)? else { continue };
            if !top.is_root() && at.path != top && !at.path.as_str().starts_with(&format!("{top}/")) {
                continue;
            }
            let seen = self.git.seen.lock().get(&dir).cloned();
            let (mut state, why, notes) =
                seen.map_or((RepoState::Local, String::new(), Vec::new()), |s| (s.state.unwrap_or(RepoState::Waiting), s.why, s.notes));
            if state == RepoState::Carried && at.is_pending(&me) {
                state = RepoState::Pending;
            }
            let devices = at.heads.iter().map(|v| v.device_name.clone()).collect();
            all.push(GitRepo { path: at.path.as_str().to_owned(), state, why, here: at.here, devices, notes });
        }
        all.sort_by(|a, b| a.path.cmp(&b.path));
        sum.repositories = all.len() as u64;
        sum.refused = all.iter().filter(|r| r.state == RepoState::Refused).count() as u64;
        for r in all {
            progress.item(Item::Repository(r)).await?;
        }
        Ok(Response::Git(sum))
    }
}

/// What a bundle tells.
fn told_of(v: &Version) -> Result<Told> {
    let corrupt = |what: &str| Error::new(Kind::Corrupt, format!("{}: {what}", v.path));
    let What::Bundle { meta, .. } = &v.kind else { return Err(corrupt("it is no bundle")) };
    let text = meta.get(TOLD).ok_or_else(|| corrupt("its bundle does not tell its state"))?;
    serde_json::from_str(text).map_err(|e| corrupt("what its bundle tells makes no sense").source(e))
}

/// Whether it was made of a repository outside the drive.
fn is_outside(v: &Version) -> bool {
    matches!(&v.kind, What::Bundle { meta, .. } if meta.contains_key(OUTSIDE))
}

/// What changes when git does anything in a repository: a number over names, sizes and times of what it writes last.
fn fingerprint(work: &Path) -> Result<u64> {
    let dir = work.join(GIT_DIR);
    let mut h = blake3::Hasher::new();
    let mut todo = vec![dir.clone()];
    while let Some(at) = todo.pop() {
        let entries = match std::fs::read_dir(&at) {
            Ok(e) => e,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => continue,
            Err(e) => return Err(Error::io(format!("listing {}", at.display()), e)),
        };
        let mut names: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        names.sort();
        for p in names {
            let Ok(m) = p.symlink_metadata() else { continue };
            let name = p.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with("tcfs.") || name.starts_with(".tcfs.") || name == "objects" {
                continue;
            }
            h.update(format!("{} {} {} {}\n", p.display(), m.len(), m.mtime(), m.mtime_nsec()).as_bytes());
            let top = at == dir;
            if m.is_dir() && (!top || name == "refs" || name == "logs") && !p.ends_with("refs/tcfs") {
                todo.push(p);
            }
        }
    }
    let mut n = [0; 8];
    n.copy_from_slice(&h.finalize().as_bytes()[..8]);
    Ok(u64::from_le_bytes(n))
}

/// A directory that goes with what it was made for.
struct Room(PathBuf);

impl Room {
    fn new(parent: &Path, random: u64) -> Result<Room> {
        let dir = parent.join(format!("{random:016x}"));
        std::fs::create_dir_all(&dir).doing(|| format!("making {}", dir.display()))?;
        Ok(Room(dir))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What an earlier process left of such directories.
fn clear_rooms(vfs: &Vfs) {
    let _ = std::fs::remove_dir_all(vfs.options().state_dir.join(ROOMS));
}
