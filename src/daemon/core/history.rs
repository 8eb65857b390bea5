//! `history` and `restore`: the versions of a path that this machine knows, and making one of them the present one.
//!
//! Must: restoring writes a new version with the old content; nothing is fetched, nothing in history changes.
//! Must: a version whose bytes are in no store is not replaced before they are, or they would be in no history either.
//! Must: one whose bytes garbage collection has removed is not brought back.

use super::paths::{kind_of_version, size_of_version};
use super::{Core, blocking};
use crate::daemon::protocol::{DeviceRef, History, HistoryOf, HistoryVersion, Item, Response, Restore, Restored};
use crate::daemon::service::Progress;
use crate::error::{Error, Kind, Result};
use crate::model::{RelPath, Version, brake};
use crate::state::Tree;
use crate::state::rows::{FileType, Sealed};
use crate::vfs::Vfs;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// How long a version that would be replaced is waited for until it is in the store.
const PUBLISH_FIRST: Duration = Duration::from_secs(10);
/// Rows of the outbox that are looked through for what is not published.
const OUTBOX: usize = 50_000;
/// Removals in one directory that follow each other so closely are one.
const ONE_REMOVAL: Duration = Duration::from_secs(2);
/// Moves that are followed back.
const MOVES: usize = 64;
/// Shortest beginning of an id that is accepted.
const SHORTEST: usize = 4;

/// A version in the order of history.
struct Known {
    version: Version,
    id: String,
    head: bool,
}

/// The versions of a path, newest first: heads, then what they replaced.
fn known(vfs: &Vfs, path: &RelPath) -> Result<Vec<Known>> {
    let (entry, old) = vfs.versions(path)?;
    let mut heads = entry.heads;
    heads.sort_by_key(|v| std::cmp::Reverse(v.written_at));
    let mut seen = HashSet::new();
    let all = heads.into_iter().map(|v| (v, true)).chain(old.into_iter().rev().map(|v| (v, false)));
    let known = all.map(|(version, head)| Known { id: version.id(), version, head });
    Ok(known.filter(|k| seen.insert(k.id.clone())).collect())
}

/// The versions of a path under the names that it was moved from, newest first. `oldest`: when its first version under its
/// present name was written.
fn before_moves(vfs: &Vfs, path: &RelPath, oldest: Option<i64>) -> Result<Vec<Known>> {
    // Who came to each name that somebody came to: one look for however many moves.
    let mut came: HashMap<RelPath, Vec<(i64, RelPath)>> = HashMap::new();
    vfs.each_version(&RelPath::root(), &mut |v, _| {
        if let Some(to) = &v.moved_to {
            came.entry(to.clone()).or_default().push((v.written_at, v.path.clone()));
        }
    })?;
    let (mut at, mut until) = (path.clone(), oldest.unwrap_or(i64::MAX));
    let mut out: Vec<Known> = Vec::new();
    for _ in 0..MOVES {
        let from = came.get(&at).and_then(|all| all.iter().filter(|(t, _)| *t <= until).max());
        let Some((moved, from)) = from.cloned() else { break };
        let older: Vec<Known> = known(vfs, &from)?.into_iter().filter(|k| k.version.written_at <= moved).collect();
        until = older.iter().filter(|k| !k.version.is_tombstone()).map(|k| k.version.written_at).min().unwrap_or(moved).min(moved - 1);
        // What is no head of the path that was asked for is none of its heads.
        out.extend(older.into_iter().map(|k| Known { head: false, ..k }));
        at = from;
    }
    Ok(out)
}

impl Core {
    pub(super) async fn history(&self, request: HistoryOf, progress: &Progress) -> Result<Response> {
        let path = self.path(&request.path)?;
        if path.is_root() {
            return Err(Error::new(Kind::Usage, "the root of the drive has no versions").hint("name a file or a directory in it"));
        }
        let (vfs, replica, progress) = (self.vfs.clone(), self.replica.clone(), progress.clone());
        blocking(move || {
            let path = vfs.entry_of(&path)?;
            let mut all = known(&vfs, &path)?;
            if all.is_empty() {
                vfs.must_exist(&path)?;
            }
            if request.follow {
                all.extend(before_moves(&vfs, &path, all.last().map(|k| k.version.written_at))?);
            }
            let shown = vfs.shown(&path)?;
            let rows: Vec<(u64, Sealed)> = replica.read(|r| r.scan_int(Tree::Outbox, 0, u64::MAX, OUTBOX))?;
            let pending = |v: &Version| {
                let is = |w: &Version| w.path == v.path && w.vclock == v.vclock && w.device_id == v.device_id;
                rows.iter().find(|(_, s)| s.versions.iter().any(is)).map(|(_, s)| s.recovered)
            };
            let versions = all.len() as u64;
            // Of a removed path the newest delete is what counts now.
            let current = shown.map(|v| v.id()).or_else(|| all.iter().find(|k| k.head).map(|k| k.id.clone()));
            let me = vfs.device().0;
            for k in all {
                let v = &k.version;
                let seen = brake::seen_by(v, &me);
                let waits = pending(v);
                progress.blocking_item(Item::Version(HistoryVersion {
                    path: v.path.as_str().to_owned(),
                    kind: kind_of_version(&seen),
                    size: size_of_version(&seen),
                    mode: v.mode,
                    written_at: v.written_at,
                    device: DeviceRef { id: v.device_id.clone(), name: v.device_name.clone() },
                    current: current.as_ref() == Some(&k.id),
                    head: k.head,
                    published: waits.is_none() && !v.is_uncut(),
                    moved_to: v.moved_to.as_ref().map(|p| p.as_str().to_owned()),
                    root: seen.file().filter(|c| !c.manifest.is_zero()).map(|c| c.root.to_string()),
                    recovered: waits == Some(true),
                    held_back: v.is_held_back(),
                    version: k.id,
                }))?;
            }
            Ok(Response::History(History { path: path.as_str().to_owned(), versions }))
        })
        .await
    }

    pub(super) async fn restore(&self, request: Restore, progress: &Progress) -> Result<Response> {
        let typed = self.path(&request.path)?;
        if request.version.is_some() && request.at.is_some() {
            return Err(Error::new(Kind::Usage, "a version and a time exclude each other"));
        }
        let vfs = self.vfs.clone();
        let path = blocking(move || vfs.entry_of(&typed)).await?;
        let to = match &request.to {
            None => path.clone(),
            Some(to) => {
                let at = self.path(to)?;
                let (vfs, p) = (self.vfs.clone(), at.clone());
                let dir = blocking(move || Ok(vfs.find(&p).is_ok_and(|f| f.attr.kind == FileType::Dir))).await?;
                if to.ends_with('/') || at.is_root() || dir { at.join(path.file_name()) } else { at }
            }
        };
        let (vfs, at) = (self.vfs.clone(), path.clone());
        let plan = blocking(move || plan(&vfs, &at, &request)).await?;
        let targets: Vec<(RelPath, Version)> = plan.versions.into_iter().filter_map(|v| Some((v.path.rebase(&path, &to)?, v))).collect();
        let sealing = self.fleet.hold_lease().await;
        for (target, v) in &targets {
            self.keep_in_history(target).await?;
            self.fleet.secure(v).await?;
        }
        let vfs = self.vfs.clone();
        let files = blocking(move || {
            let mut files = 0;
            for (target, v) in targets {
                let done = vfs.restore(&target, &v)?;
                files += u64::from(done && !v.is_dir());
            }
            Ok(files)
        })
        .await?;
        drop(sealing);
        self.send_off(progress).await?;
        Ok(Response::Restored(Restored { path: to.as_str().to_owned(), version: plan.id, written_at: plan.at, files }))
    }

    /// Before a version is replaced by choice: what is not in the store would be in no history.
    pub(super) async fn keep_in_history(&self, path: &RelPath) -> Result<()> {
        let unpublished = |vfs: Arc<Vfs>, path: RelPath| blocking(move || vfs.unpublished(&path));
        if !unpublished(self.vfs.clone(), path.clone()).await? {
            return Ok(());
        }
        self.fleet.wake();
        let upto = self.replica.next_id();
        match self.fleet.wait_published(upto, PUBLISH_FIRST).await {
            Err(e) if e.kind() != Kind::Timeout => return Err(e),
            _ => {}
        }
        if unpublished(self.vfs.clone(), path.clone()).await? {
            let what = format!("a version of {path} is not in the store yet: replaced now, it would be in no history");
            return Err(Error::new(Kind::Unavailable, what).hint("try again when the store answers; `tcfs wait` waits for it"));
        }
        Ok(())
    }
}

/// What is to be restored: versions at their own paths, parents before children.
struct Plan {
    versions: Vec<Version>,
    id: String,
    at: i64,
}

/// The one version of a path that a request means, which is no directory.
pub(super) fn one_version(vfs: &Vfs, path: &RelPath, request: &Restore) -> Result<Version> {
    let mut plan = plan(vfs, path, request)?;
    match (plan.versions.pop(), plan.versions.is_empty()) {
        (Some(v), true) if !v.is_dir() => Ok(v),
        _ => Err(Error::new(Kind::IsDir, format!("{path} was a directory then")).hint("compare its files")),
    }
}

fn plan(vfs: &Vfs, path: &RelPath, request: &Restore) -> Result<Plan> {
    let nothing = |why: String| Error::new(Kind::NotFound, why).hint("`tcfs history` lists the versions of a path");
    let one = |k: &Known| Plan { versions: vec![k.version.clone()], id: k.id.clone(), at: k.version.written_at };
    let all = known(vfs, path)?;
    if let Some(wanted) = &request.version {
        let wanted = wanted.to_ascii_lowercase();
        if wanted.len() < SHORTEST {
            return Err(Error::new(Kind::Usage, format!("{wanted:?} is too short for a version: at least {SHORTEST} digits")));
        }
        let mut found = all.iter().filter(|k| k.id.starts_with(&wanted));
        let Some(k) = found.next() else { return Err(nothing(format!("{path} has no version {wanted}"))) };
        if found.next().is_some() {
            return Err(Error::new(Kind::Usage, format!("several versions of {path} begin with {wanted}")).hint("give more digits"));
        }
        if k.version.is_tombstone() {
            return Err(Error::new(Kind::Usage, format!("version {} of {path} is its removal", k.id)).hint("rm removes it"));
        }
        return Ok(one(k));
    }
    let gone = vfs.shown(path)?.is_none() && !vfs.exists(path);
    let newest = all.iter().find(|k| !k.version.is_tombstone() && !k.version.is_held_back());
    let was_dir = || match newest {
        Some(k) => Ok::<_, Error>(k.version.is_dir()),
        None => Ok(all.is_empty() && !vfs.ever_below(path)?.is_empty()),
    };
    let at = match request.at {
        None if gone && was_dir()? => Some(before_removal(vfs, path)?),
        at => at,
    };
    if let Some(at) = at {
        let then = in_effect(&all, at);
        if let Some(k) = then.filter(|k| !k.version.is_tombstone() && !k.version.is_dir()) {
            return Ok(one(k));
        }
        let mut versions: Vec<Version> = then.filter(|k| k.version.is_dir()).map(|k| k.version.clone()).into_iter().collect();
        for p in vfs.ever_below(path)? {
            let all = known(vfs, &p)?;
            versions.extend(in_effect(&all, at).filter(|k| !k.version.is_tombstone()).map(|k| k.version.clone()));
        }
        if versions.is_empty() {
            return Err(nothing(format!("there was no {path} at that time")));
        }
        return Ok(Plan { versions, id: then.map_or(String::new(), |k| k.id.clone()), at });
    }
    let shown = vfs.shown(path)?;
    let current = shown.as_ref().map(Version::id);
    let is_dir = vfs.find(path).is_ok_and(|f| f.attr.kind == FileType::Dir);
    let older = all.iter().find(|k| {
        let v = &k.version;
        !v.is_tombstone() && Some(&k.id) != current.as_ref() && shown.as_ref().is_none_or(|s| !(s.same_content(v) && s.mode == v.mode))
    });
    match older {
        _ if is_dir => {
            Err(Error::new(Kind::Usage, format!("{path} is a directory: as of when?")).hint(format!("tcfs restore {path} --at TIME")))
        }
        Some(k) if k.version.is_dir() => {
            Err(Error::new(Kind::Usage, format!("{path} was a directory: as of when?")).hint(format!("tcfs restore {path} --at TIME")))
        }
        Some(k) => Ok(one(k)),
        None if all.is_empty() && !vfs.ever_below(path)?.is_empty() => {
            Err(Error::new(Kind::Usage, format!("{path} was a directory: as of when?")).hint(format!("tcfs restore {path} --at TIME")))
        }
        None if all.is_empty() => Err(nothing(format!("{path}: nothing of that name was ever in the drive"))),
        None => Err(nothing(format!("{path} has no other version"))),
    }
}

/// The moment before a directory was removed with what was in it: before the first of the removals that followed each other.
fn before_removal(vfs: &Vfs, path: &RelPath) -> Result<i64> {
    let mut removals = Vec::new();
    vfs.each_head(path, &mut |v| removals.extend(v.is_tombstone().then_some(v.written_at)))?;
    removals.sort_unstable_by(|a, b| b.cmp(a));
    let mut first = removals.first().copied().unwrap_or(i64::MAX);
    for at in removals {
        if first - at > ONE_REMOVAL.as_millis() as i64 {
            break;
        }
        first = at;
    }
    Ok(first.saturating_sub(1))
}

/// The version that counted at a time, by what its author's clock said.
fn in_effect(all: &[Known], at: i64) -> Option<&Known> {
    // Newest first, and of equal times the first: what replaced the other.
    all.iter().filter(|k| k.version.written_at <= at).max_by(|a, b| {
        let covers = |x: &Known, y: &Known| x.version.vclock.covers(&y.version.vclock);
        match (covers(a, b), covers(b, a)) {
            (true, _) => std::cmp::Ordering::Greater,
            (_, true) => std::cmp::Ordering::Less,
            _ => (a.version.written_at, !a.version.is_tombstone()).cmp(&(b.version.written_at, !b.version.is_tombstone())),
        }
    })
}
