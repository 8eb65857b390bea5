//! What is done in a repository, as one message and its answer: it is done in a process of its own.
//!
//! A repository of the drive lies on a mount that the daemon itself serves. A thread of the daemon that waits for its own
//! mount keeps a killed daemon alive for ever: the mount ends with the last thread, and the thread with the mount.

use super::fingerprint::fingerprint;
use super::kept::guard;
use super::{From, Looked, Packed, Packing, Told, has_taken, look, pack, published, recover, settle, take};
use crate::error::{IoContext, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Something to do. Paths are absolute.
#[derive(Debug, Serialize, Deserialize)]
pub enum Job {
    /// [`fingerprint`] of each.
    Look {
        /// Worktrees.
        works: Vec<PathBuf>,
    },
    /// [`pack`] into an empty directory.
    Pack {
        /// Worktree.
        work: PathBuf,
        /// Directory.
        room: PathBuf,
        /// It is published from here on: its commits are kept, before anybody else has them.
        keep: bool,
    },
    /// [`published`].
    Published {
        /// Worktree.
        work: PathBuf,
        /// What was packed.
        packed: Packed,
    },
    /// [`take`], unless it was taken before.
    Take {
        /// Worktree.
        work: PathBuf,
        /// The bundle, once it was fetched; none: only whether it was taken is asked.
        bundle: Option<PathBuf>,
        /// What is told with it.
        told: Box<Told>,
        /// Who made it: id, name, and whether others have it.
        from: (String, String, bool),
        /// An empty directory.
        room: PathBuf,
    },
    /// [`settle`].
    Settle {
        /// Worktree.
        work: PathBuf,
    },
    /// Moves the `.git` of a directory to another one that has none, and removes the directory if nothing is left in it.
    Move {
        /// From this.
        from: PathBuf,
        /// To this.
        to: PathBuf,
    },
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub enum Did {
    /// What each looks like; none for one that could not be looked at.
    Looked(Vec<Option<u64>>),
    /// Packed.
    Packed(Packing),
    /// It cannot be carried, and why.
    Refused(String),
    /// What could not be joined.
    Taken(Vec<String>),
    /// It was taken in before, or, for a move, it was done.
    Already(bool),
    /// So many files have not arrived; none if nothing is waited for.
    Settled(Option<usize>),
    /// Noted.
    Noted,
}

/// Does it. `since`: when the daemon started that asks for it.
pub fn work(job: Job, since: SystemTime) -> Result<Did> {
    if let Job::Pack { work, .. } | Job::Take { work, .. } | Job::Settle { work } = &job {
        recover(work, since)?;
    }
    Ok(match job {
        Job::Look { works } => Did::Looked(works.iter().map(|w| fingerprint(w).ok()).collect()),
        Job::Pack { work, room, keep } => match look(&work)? {
            Looked::Ready(repo) => {
                let packed = pack(&repo, &room)?;
                if let (true, Packing::Done(p)) = (keep, &packed) {
                    guard(&repo, &p.told.state)?;
                }
                Did::Packed(packed)
            }
            Looked::Refused(r) => Did::Refused(r.0),
            Looked::Busy(b) => Did::Packed(Packing::Busy(b)),
        },
        Job::Published { work, packed } => {
            // One in which git is at work by now is packed once more, which is all.
            if let Looked::Ready(repo) = look(&work)? {
                published(&repo, &packed)?;
            }
            Did::Noted
        }
        Job::Take { work, bundle: None, told, from, .. } => Did::Already(has_taken(&work, &from.0, &told)?),
        Job::Take { work, bundle: Some(bundle), told, from, room } => {
            let from = From { id: &from.0, name: &from.1, published: from.2 };
            Did::Taken(take(&work, &bundle, &told, from, &room)?)
        }
        Job::Settle { work } => Did::Settled(settle(&work)?),
        Job::Move { from, to } => Did::Already(move_git_dir(&from, &to)?),
    })
}

fn move_git_dir(from: &Path, to: &Path) -> Result<bool> {
    let at = |dir: &Path| dir.join(".git");
    if !to.is_dir() || at(to).symlink_metadata().is_ok() {
        return Ok(false);
    }
    std::fs::rename(at(from), at(to)).doing(|| format!("moving the .git of {} to {}", from.display(), to.display()))?;
    let _ = std::fs::remove_dir(from);
    Ok(true)
}
