//! Repositories that are pushed into the drive from another directory, and pulled out of it into one.
//!
//! Must: what others did in a repository still counts after a push that does not know of it.

use super::{Keeper, OUTSIDE, told_of};
use crate::daemon::core::blocking;
use crate::daemon::helper::{run, unexpected};
use crate::error::{Error, Kind, Result};
use crate::fleet::git::{Did, Job, Packing};
use crate::model::RelPath;
use crate::vfs::RepoAt;
use std::path::Path;

/// Whose refs are kept apart that a push could not join with those of the drive.
const PUSHED: &str = "pushed";

/// What came of pushing one.
pub(in crate::daemon::core) enum Sent {
    /// It is on its way, or joined with the one that is in the drive here; what could not be joined.
    New(Vec<String>),
    /// It was there as it is.
    Same,
    /// It stays where it is; for people.
    Not(String),
}

impl Keeper {
    /// Whether repositories travel at all.
    pub(in crate::daemon::core) fn carries(&self) -> bool {
        self.carries
    }

    /// Puts the repository at `work`, outside the drive, into the directory `dir` of the drive, which is at `path`. Blocking.
    pub(in crate::daemon::core) fn push(&self, work: &Path, dir: u64, path: &RelPath) -> Result<Sent> {
        let room = self.room_for_git()?;
        let packed = match run(Job::Pack { work: work.to_owned(), room: room.path().to_owned(), keep: false })? {
            Did::Packed(Packing::Done(p)) => *p,
            // It has in it what it last exchanged with others, and so have they.
            Did::Packed(Packing::Known | Packing::Empty) => return Ok(Sent::Same),
            Did::Packed(Packing::Busy(b)) => return Ok(Sent::Not(b.0)),
            Did::Refused(why) => return Ok(Sent::Not(why)),
            other => return Err(unexpected(&other)),
        };
        let at = self.vfs.repository(dir)?;
        if at.as_ref().is_some_and(|a| a.here) {
            let Some(mount) = self.mount_for_git() else {
                return Ok(Sent::Not("the drive has a repository there on this machine; mount it, and the two are joined".to_owned()));
            };
            let join = self.room_for_git()?;
            let work = mount.join(path.as_str());
            let from = (PUSHED.to_owned(), PUSHED.to_owned(), false);
            let told = Box::new(packed.told);
            return match run(Job::Take { work, bundle: Some(packed.bundle), told, from, room: join.path().to_owned() })? {
                Did::Taken(notes) => Ok(Sent::New(notes)),
                other => Err(unexpected(&other)),
            };
        }
        let heads = at.map(|a| a.heads).unwrap_or_default();
        let me = self.vfs.device().0;
        // Those of others are not in this one: they stay beside it.
        let own: Vec<_> = heads.into_iter().filter(|v| v.device_id == me).collect();
        if own.iter().any(|v| told_of(v).is_ok_and(|t| t == packed.told)) {
            return Ok(Sent::Same);
        }
        let at = RepoAt { dir, path: path.clone(), shown: true, here: false, heads: own, moved_to: None };
        self.put(&at, &packed, &[(OUTSIDE, String::new())])?;
        Ok(Sent::New(Vec::new()))
    }

    /// Takes what the drive has of the repository in its directory `dir` into `work`, outside the drive, whose files are there.
    /// None if there is none; otherwise what could not be joined.
    pub(in crate::daemon::core) async fn pull(&self, dir: u64, work: &Path) -> Result<Option<Vec<String>>> {
        let vfs = self.vfs.clone();
        let Some(at) = blocking(move || vfs.repository(dir)).await? else { return Ok(None) };
        let mut notes = Vec::new();
        if let Some(v) = at.heads.iter().find(|v| v.is_uncut()) {
            return Err(Error::new(Kind::Busy, format!("{} is on its way to the store", v.path)).hint("tcfs wait, and pull again"));
        }
        for v in &at.heads {
            notes.extend(self.take_in(v, work).await?);
        }
        Ok((!at.heads.is_empty()).then_some(notes))
    }
}
