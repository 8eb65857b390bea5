//! Files that are one thing only together: a database, and the journals and locks that lie beside it.
//!
//! A database whose log is of another moment is a damaged one. So where such a companion lies beside a file, none of them is
//! sealed at its close: when none was written for a while, all are, in one row of the outbox, and arrive together.
//!
//! Must: what is sealed together was quiet from the first copy to the seal.
//! Not here: files without companions (`seal`), how one is copied that is open (`copies`).

use super::Vfs;
use super::node::{Node, St};
use super::seal::{Part, Sealing};
use crate::error::{Error, Kind, Result};
use crate::model::RelPath;
use crate::state::Tree;
use crate::state::rows::*;
use crate::state::tree::path_of_dir;
use parking_lot::MutexGuard;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What the names of companions end with, after the name of their file: SQLite's journals, and locks.
const ENDS: [&str; 6] = ["-wal", "-shm", "-journal", "-lock", ".lck", LOCK];
/// One that counts only where the file is empty.
const LOCK: &str = ".lock";
/// So long nothing of it was written when it is sealed.
const QUIET: Duration = Duration::from_secs(10);

/// A file with companions.
#[derive(Clone, Debug)]
pub struct Together {
    /// Of the file.
    pub path: RelPath,
    /// Names of the others.
    pub companions: Vec<String>,
    /// Some of it was written and is not sealed.
    pub waits: bool,
    members: Vec<u64>,
    /// One that counts if it is empty: its name, number and size.
    lock: Option<(String, u64, u64)>,
}

/// The file that a name is a companion of, by the name alone.
fn base_of(name: &str) -> Option<&str> {
    ENDS.iter().find_map(|e| name.strip_suffix(e)).filter(|b| !b.is_empty())
}

impl Vfs {
    /// A name came, went or is about to be written.
    pub(super) fn note_companion(&self, dir: u64, name: &str) {
        if let Some(base) = base_of(name) {
            self.together.lock().insert((dir, base.to_owned()));
        }
    }

    /// What belongs together under a name and those beside it.
    fn together_at(&self, dir: u64, base: &str) -> Result<Option<Together>> {
        let Some(mut t) = self.beside(dir, base)? else { return Ok(None) };
        // `Gemfile.lock` is no lock, and has something in it; one that is being written may have more in it than its row says.
        if let Some((name, ino, size)) = t.lock.take() {
            let size = match self.loaded(ino) {
                Some(n) => {
                    let mut st = n.st.lock();
                    self.absorb(&mut st)?;
                    st.size
                }
                None => size,
            };
            if size == 0 {
                t.companions.push(name);
                t.members.push(ino);
            }
        }
        t.members.sort_unstable();
        t.members.dedup();
        Ok(if t.companions.is_empty() { None } else { Some(t) })
    }

    /// The file, and what lies beside it by the names alone.
    fn beside(&self, dir: u64, base: &str) -> Result<Option<Together>> {
        self.replica.read(|r| {
            let file = |name: &str| {
                let ino = r.get::<Slot>(Tree::Entry, slot_key(dir, name))?.map_or(0, |s| s.ino());
                let inode: Option<Inode> = r.get(Tree::Inode, ino)?;
                Ok::<_, Error>(inode.filter(|i| i.kind == FileType::File && !i.dead).map(|i| (ino, i.size)))
            };
            let Some((first, _)) = file(base)? else { return Ok(None) };
            let (mut members, mut companions, mut lock) = (vec![first], Vec::new(), None);
            for end in ENDS {
                let name = format!("{base}{end}");
                match file(&name)? {
                    Some((ino, size)) if end == LOCK => lock = Some((name, ino, size)),
                    Some((ino, _)) => {
                        members.push(ino);
                        companions.push(name);
                    }
                    None => {}
                }
            }
            if companions.is_empty() && lock.is_none() {
                return Ok(None);
            }
            Ok(Some(Together { path: path_of_dir(r, dir)?.join(base), companions, waits: false, members, lock }))
        })
    }

    /// Whether a file is sealed with others, and so not now.
    pub(super) fn waits_for_others(&self, ino: u64) -> Result<bool> {
        if self.together.lock().is_empty() {
            return Ok(false);
        }
        let links = self.replica.read(|r| Ok(r.get::<Inode>(Tree::Inode, ino)?.map(|i| i.links).unwrap_or_default()))?;
        for (dir, name) in links {
            for base in [Some(name.as_str()), base_of(&name)].into_iter().flatten() {
                let noted = self.together.lock().contains(&(dir, base.to_owned()));
                if noted && self.together_at(dir, base)?.is_some() {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// All that belongs together of what was written since the start.
    pub fn together(&self) -> Result<Vec<Together>> {
        let noted: Vec<(u64, String)> = self.together.lock().iter().cloned().collect();
        let mut out = Vec::new();
        for (dir, base) in noted {
            match self.together_at(dir, &base)? {
                Some(mut t) => {
                    t.waits = t.members.iter().any(|m| self.loaded(*m).is_some_and(|n| n.unsealed.load(Ordering::Acquire)));
                    out.push(t);
                }
                None => drop(self.together.lock().remove(&(dir, base))),
            }
        }
        Ok(out)
    }

    /// Seals what belongs together and was quiet for a while. `now`: also what was not, unless a program has it open.
    /// Blocking.
    pub(super) fn seal_together(&self, now: bool) -> Result<()> {
        for t in self.together()? {
            if let Err(e) = self.seal_one_of_many(&t, now) {
                tracing::warn!(path = %t.path, error = %e, "files that belong together could not be sealed; it is tried again");
            }
        }
        Ok(())
    }

    fn seal_one_of_many(&self, t: &Together, now: bool) -> Result<()> {
        let all: Vec<Arc<Node>> = t.members.iter().filter_map(|m| self.loaded(*m)).collect();
        let open = all.iter().any(|n| n.writers.load(Ordering::Acquire) > n.st.lock().closing);
        let started = Instant::now();
        let is_quiet = |st: &mut St| -> Result<bool> {
            self.absorb(st)?;
            // Programs that have it open may not be done when they pause.
            Ok(if now { st.last_write <= started } else { st.last_write.elapsed() > QUIET })
        };
        if now && open {
            return Ok(());
        }
        let mut nodes: Vec<&Arc<Node>> = Vec::new();
        for n in &all {
            let mut st = n.st.lock();
            if !is_quiet(&mut st)? {
                return Ok(());
            }
            if n.unsealed.load(Ordering::Acquire) && !st.local_only && !n.gone.load(Ordering::Acquire) {
                if !self.nothing_to_seal(&st)? {
                    nodes.push(n);
                } else if n.writers.load(Ordering::Acquire) == 0 && !self.may_still_change(&mut st)? {
                    self.settle(n, &mut st)?;
                }
            }
        }
        // From copies, closed ones as well: a program that goes on with one of them must not hold up the others.
        let mut copies = Vec::new();
        let mut done = Ok(());
        for n in &nodes {
            let copy = if done.is_ok() { self.begin_copy(n) } else { Ok(None) };
            copies.push(copy.unwrap_or_else(|e| {
                done = Err(e);
                None
            }));
        }
        let mut locked: Vec<MutexGuard<'_, St>> = nodes.iter().map(|n| n.st.lock()).collect();
        for st in &mut locked {
            done = done.and_then(|()| if is_quiet(st)? { Ok(()) } else { Err(Error::new(Kind::Busy, "it is being written")) });
        }
        let mut parts = Vec::new();
        for ((n, st), copy) in nodes.iter().zip(&mut locked).zip(copies) {
            let what = match copy {
                Some(copy) => self.end_copy(n, st, copy, done.is_ok()),
                // Not all of it is here: only its own bytes can be published.
                None => Ok(Some(Sealing { recovered: false, size: st.size, wgen: st.wgen, goes_on: false })),
            };
            match what {
                Ok(what) => parts.extend(what.map(|what| Part { node: n, st, what })),
                Err(e) => done = done.and(Err(e)),
            }
        }
        match done {
            Ok(()) if parts.is_empty() => Ok(()),
            Ok(()) => self.seal_parts(&mut parts),
            Err(e) if e.kind() == Kind::Busy => Ok(()),
            Err(e) => Err(e),
        }
    }
}
