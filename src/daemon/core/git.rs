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
use crate::daemon::helper::{self, run, unexpected};
use crate::daemon::protocol::{GitRepo, GitStatus, GitSum, Item, RepoState, Response};
use crate::daemon::service::Progress;
use crate::error::{Error, IoContext, Kind, Result};
use crate::fleet::git::{Did, Job, Packed, Packing, Told};
use crate::model::{Kind as What, Version};
use crate::vfs::{RepoAt, Vfs};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
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
        helper::begin();
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
        let looks = self.look_at(&all).await;
        for dir in all {
            let _working = self.working.lock().await;
            let Some(mount) = self.mount_for_git() else { return sent };
            let this = self.clone();
            let done = match self.vfs.repository(dir) {
                Ok(None) => {
                    self.seen.lock().remove(&dir);
                    continue;
                }
                Ok(Some(at)) => this.one(&at, &mount, looks.get(&dir).copied(), now).await,
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
        if let Did::Already(true) = blocking(move || run(Job::Move { from, to: onto })).await? {
            tracing::info!("{path}: its repository was moved to {to}, and is there now");
        }
        Ok(())
    }

    /// A mount of this process in which git can work.
    fn mount_for_git(&self) -> Option<PathBuf> {
        let mounts = self.mounts.lock();
        mounts.iter().find(|m| !m.info.read_only && m.info.command.is_none()).map(|m| m.info.mountpoint.clone())
    }

    /// What those look like that are here.
    async fn look_at(&self, all: &[u64]) -> HashMap<u64, u64> {
        let _working = self.working.lock().await;
        let Some(mount) = self.mount_for_git() else { return HashMap::new() };
        let here = |dir: &u64| {
            let at = self.vfs.repository(*dir).ok().flatten().filter(|at| at.here && at.shown)?;
            Some((*dir, mount.join(at.path.as_str())))
        };
        let (dirs, works): (Vec<u64>, Vec<PathBuf>) = all.iter().filter_map(here).unzip();
        if works.is_empty() {
            return HashMap::new();
        }
        match blocking(move || run(Job::Look { works })).await {
            Ok(Did::Looked(looks)) => dirs.into_iter().zip(looks).filter_map(|(dir, look)| Some((dir, look?))).collect(),
            other => {
                tracing::warn!("looking at repositories: {other:?}");
                HashMap::new()
            }
        }
    }

    /// Takes in what others have of a repository, and sends what is new in it. `look`: what it looked like just now. Whether a
    /// bundle is on its way.
    async fn one(self: Arc<Self>, at: &RepoAt, mount: &Path, look: Option<u64>, now: bool) -> Result<bool> {
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
        let Some(look) = look else { return Ok(pending) };
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
        let left = match blocking(move || run(Job::Settle { work })).await? {
            Did::Settled(left) => left,
            other => return Err(unexpected(&other)),
        };
        let gap = if left.is_some_and(|n| n > 0) { gap * 2 } else { Duration::MAX };
        self.change(dir, |s| s.settle = Some((Instant::now() + gap.min(SETTLES), gap)));
        Ok(())
    }

    /// Packs a repository and puts the bundle on its way, if anything is new. Blocking.
    fn send(&self, at: &RepoAt, work: &Path) -> Result<(RepoState, String)> {
        let room = self.room_for_git()?;
        match run(Job::Pack { work: work.to_owned(), room: room.path().to_owned(), keep: true })? {
            Did::Refused(why) => Ok((RepoState::Refused, why)),
            Did::Packed(Packing::Known) => Ok((RepoState::Carried, String::new())),
            Did::Packed(Packing::Empty) => Ok((RepoState::Carried, "there is nothing in it yet".to_owned())),
            Did::Packed(Packing::Busy(b)) => Ok((RepoState::Waiting, b.0)),
            Did::Packed(Packing::Done(p)) => {
                self.put(at, &p, &[])?;
                // After it is on its way: if this fails it is packed once more, which is all.
                run(Job::Published { work: work.to_owned(), packed: *p })?;
                Ok((RepoState::Pending, String::new()))
            }
            other => Err(unexpected(&other)),
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
        let room = self.room_for_git()?;
        let name = v.device_name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
        let from: (String, String, bool) = (v.device_id.clone(), name, true);
        let job = |bundle: Option<PathBuf>| Job::Take {
            work: work.to_owned(),
            bundle,
            told: Box::new(told.clone()),
            from: from.clone(),
            room: room.path().join("room"),
        };
        let asked = job(None);
        if matches!(blocking(move || run(asked)).await?, Did::Already(true)) {
            return Ok(Vec::new());
        }
        let bundle = room.path().join("bundle");
        let file = File::create(&bundle).doing(|| "making a file for a bundle")?;
        self.vfs.fetch_bundle(v, &file).await?;
        std::fs::create_dir(room.path().join("room")).doing(|| "making a directory for a bundle")?;
        let job = job(Some(bundle));
        match blocking(move || run(job)).await? {
            Did::Taken(notes) => Ok(notes),
            other => Err(unexpected(&other)),
        }
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
