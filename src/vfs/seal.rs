//! Sealing: when what was written becomes a version.
//!
//! Must: each `close` that was answered is in a version sooner or later, also of a file that stays open, or mapped.
//! Not here: what that version is, and how it gets into the outbox (`versions`).

mod versions;

pub(super) use versions::{Part, Sealing};

use super::Vfs;
use super::node::{Node, St};
use crate::error::{IoContext, Result};
use crate::state::rows::*;
use crate::state::{Ns, Tree, holds};
use crate::sys::{KeptOpen, kept_open};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A file held open is sealed at this much quiet…
const QUIET: Duration = Duration::from_secs(10);
/// …once it has been dirty for this long.
const HELD_LONG: Duration = Duration::from_secs(300);

/// How long the kernel is waited for after a last close: it lets its own descriptor go a moment after it said so.
const LET_GO: [Duration; 4] = [Duration::from_micros(200), Duration::from_millis(1), Duration::from_millis(2), Duration::ZERO];

/// How long a release is waited for that follows a `close`, before the file is sealed from a copy.
const RELEASED: Duration = Duration::from_millis(500);

/// Files with unsealed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsealed {
    /// Closed by programs, about to be sealed.
    pub closed: u64,
    /// Open for writing.
    pub open: u64,
}

/// Whether each writer's `close` was answered, be it that its release is on the way.
fn is_closed(node: &Node) -> bool {
    let st = node.st.lock();
    node.writers.load(Ordering::Acquire) == st.closing
}

impl Vfs {
    pub(crate) fn after_last_writer(&self, node: &Arc<Node>) -> Result<()> {
        if node.unsealed.load(Ordering::Acquire) {
            for wait in LET_GO {
                self.seal_if_needed(node)?;
                if !node.unsealed.load(Ordering::Acquire) || node.writers.load(Ordering::Acquire) > 0 {
                    break;
                }
                std::thread::sleep(wait);
            }
            // Still mapped, it is looked at again by the housekeeping.
            return Ok(());
        }
        let names = {
            let mut st = node.st.lock();
            if st.local_only {
                self.persist(node, &mut st)?;
                return Ok(());
            }
            st.accept = None;
            self.inode_of(node).map(|i| i.links).unwrap_or_default()
        };
        // Remote changes waited for this writer.
        self.change(&[], |ns| {
            for (dir, name) in &names {
                self.reconcile_name(ns, *dir, name)?;
            }
            Ok(())
        })
    }

    pub(crate) fn reconcile_name(&self, ns: &mut Ns<'_, '_>, dir: u64, name: &str) -> Result<()> {
        let of = match ns.slot(dir, name)? {
            Some(Slot::Sibling { of, .. }) => of,
            _ => name.to_owned(),
        };
        ns.reconcile(dir, &of)
    }

    /// Seals a node that has unsealed changes; nothing otherwise, nor for local-only files and what is sealed with others.
    pub(crate) fn seal_if_needed(&self, node: &Arc<Node>) -> Result<()> {
        if !node.unsealed.load(Ordering::Acquire) || self.waits_for_others(node.ino)? {
            return Ok(());
        }
        self.seal_alone(node)
    }

    /// The same, also for what is sealed with others.
    pub(super) fn seal_alone(&self, node: &Arc<Node>) -> Result<()> {
        if !node.unsealed.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut st = node.st.lock();
        self.absorb(&mut st)?;
        if node.gone.load(Ordering::Acquire) {
            node.unsealed.store(false, Ordering::Release);
            return Ok(());
        }
        if st.local_only {
            self.persist(node, &mut st)?;
            self.replica.db().write(|t| t.del(Tree::Unsealed, node.ino))?;
            node.unsealed.store(false, Ordering::Release);
            return Ok(());
        }
        if self.may_still_change(&mut st)? {
            return Ok(());
        }
        if self.nothing_to_seal(&st)? {
            return self.settle(node, &mut st);
        }
        self.seal_locked(node, &mut st, false)
    }

    /// Whether an unsealed file needs no version: it could have been written, and was not, and each of its names has the
    /// version that it shows, or one that replaced it.
    pub(super) fn nothing_to_seal(&self, st: &St) -> Result<bool> {
        if !st.is_sealed() {
            return Ok(false);
        }
        self.replica.read(|r| {
            let Some(i) = r.get::<Inode>(Tree::Inode, st.ino)? else { return Ok(true) };
            for (dir, name) in &i.links {
                let Some(at) = self.at(r, *dir, name)? else { return Ok(false) };
                let mut known = i.links.len() == 1 && !i.shows.is_empty() && at.reg.entry.clock().ge(&i.shows);
                for h in self.entry(&at.reg).live() {
                    known = known || holds(r, st.ino, &i, h)?;
                }
                if !known {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// A file that could have been written and was not is again what it was: sealed, or published.
    pub(super) fn settle(&self, node: &Arc<Node>, st: &mut St) -> Result<()> {
        let rested = !st.local_only && st.token.is_none() && st.dirty.is_empty() && st.overlay && st.size > 0;
        if rested && st.content.as_ref().is_some_and(|c| !c.manifest.is_zero()) {
            self.to_cache(node, st)?;
        }
        let row = st.row(self.clock.now_ms() / 1000);
        let names = self.inode_of(node)?.links;
        // Remote changes waited for this writer; while another one has it open they go on waiting.
        let done = self.change(&[], |ns| {
            node.seals(ns, false);
            ns.t.put(Tree::Local, node.ino, &Local { accept: None, ..row })?;
            ns.t.del(Tree::Unsealed, node.ino)?;
            for (dir, name) in &names {
                self.reconcile_name(ns, *dir, name)?;
            }
            Ok(())
        });
        done?;
        (st.lent_writing, st.sealed_wgen, st.accept, st.dirty_since) = (false, None, None, None);
        st.stale_row = false;
        st.marked = st.dirty.clone();
        if !st.overlay {
            self.cache.lock().at_least(node.ino, st.have.total());
        }
        Ok(())
    }

    /// Whether the kernel may still write the local file by itself: it was lent for writing, and a descriptor or a
    /// shared mapping that can write lives (a mapping outlives the close of its descriptor). The kernel itself says so:
    /// it grants a read lease only on a file that nobody can write.
    pub(crate) fn may_still_change(&self, st: &mut St) -> Result<bool> {
        if !st.lent_writing {
            return Ok(false);
        }
        if st.passthrough_writers > 0 {
            return Ok(true);
        }
        // Our own descriptor can write, too.
        st.file = None;
        let path = self.local_path(st.ino, st.overlay);
        let file = match std::fs::File::open(&path) {
            Ok(f) => f,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(crate::error::Error::io(format!("opening {}", path.display()), e)),
        };
        // On a disk without leases only the opens that we know of can be counted.
        Ok(kept_open(&file).doing(|| format!("asking who has {} open", path.display()))? == KeptOpen::ByAWriter)
    }

    fn unsealed_nodes(&self) -> Vec<Arc<Node>> {
        self.nodes.iter().map(|n| n.clone()).filter(|n| n.unsealed.load(Ordering::Acquire)).collect()
    }

    /// Does something with each unsealed file. One that cannot be sealed keeps no other from it. The first error.
    fn each_unsealed(&self, mut seal: impl FnMut(&Arc<Node>) -> Result<()>) -> Result<()> {
        let mut first = Ok(());
        for node in self.unsealed_nodes() {
            if let Err(e) = seal(&node) {
                tracing::warn!(ino = node.ino, error = %e, "a file could not be sealed; it is tried again");
                first = first.and(Err(e));
            }
        }
        first
    }

    /// Seals a file whose `close` was answered and whose release is on the way. What a program closed before it moved the
    /// file is a version of the old name: without it a change made elsewhere to that name would follow the move. Does not
    /// wait for a descriptor of the kernel that stays; then the move takes what was written along.
    pub(super) fn seal_if_closed(&self, node: &Arc<Node>) -> Result<()> {
        for wait in LET_GO {
            if !node.unsealed.load(Ordering::Acquire) || !is_closed(node) {
                break;
            }
            self.seal_alone(node)?;
            if node.unsealed.load(Ordering::Acquire) {
                std::thread::sleep(wait);
            }
        }
        Ok(())
    }

    /// The same, and waits for a release that is on the way for as long as one may take.
    pub(super) fn seal_closing(&self, node: &Arc<Node>) -> Result<()> {
        let started = Instant::now();
        self.seal_if_closed(node)?;
        while node.is_busy() && is_closed(node) && started.elapsed() < RELEASED {
            std::thread::sleep(LET_GO[1]);
            self.seal_if_closed(node)?;
        }
        Ok(())
    }

    /// Seals everything that has no open writer, and what was held open, or mapped, and quiet for long. Called now and
    /// then.
    pub fn seal_quiet(&self) -> Result<()> {
        self.seal_together(false)?;
        self.each_unsealed(|node| {
            if self.waits_for_others(node.ino)? {
                return Ok(());
            }
            let (held, quiet, since) = {
                let mut st = node.st.lock();
                self.absorb(&mut st)?;
                (node.writers.load(Ordering::Acquire) > 0, st.last_write.elapsed() > QUIET, st.dirty_since)
            };
            let long = since.is_some_and(|d| d.elapsed() > HELD_LONG);
            if !held || quiet && long {
                self.seal_alone(node)?;
                // Still mapped, or lent to a writer that keeps it open.
                if node.unsealed.load(Ordering::Acquire) && since.is_some() && (quiet || long) {
                    self.seal_copy(node)?;
                }
                self.let_go(node.ino);
            }
            Ok(())
        })
    }

    /// Seals every file whose `close` was answered, be it that its release is on the way or that it is still mapped.
    /// Blocking.
    pub fn seal_closed(&self) -> Result<()> {
        self.seal_together(true)?;
        self.each_unsealed(|node| {
            if self.waits_for_others(node.ino)? {
                return Ok(());
            }
            let started = Instant::now();
            while is_closed(node) && node.unsealed.load(Ordering::Acquire) {
                self.seal_alone(node)?;
                let (lent, sealed) = {
                    let st = node.st.lock();
                    (st.passthrough_writers > 0, self.nothing_to_seal(&st)?)
                };
                if sealed || !node.unsealed.load(Ordering::Acquire) {
                    break;
                }
                // False while another copy is being made, which may be of before the close.
                if started.elapsed() > if lent { RELEASED } else { LET_GO[2] } && self.seal_copy(node)? {
                    break;
                }
                std::thread::sleep(LET_GO[1]);
            }
            Ok(())
        })
    }

    /// Files with unsealed bytes, for `status`.
    pub fn unsealed_files(&self) -> Unsealed {
        let mut n = Unsealed { closed: 0, open: 0 };
        for node in self.nodes.iter().filter(|n| n.unsealed.load(Ordering::Acquire)) {
            if node.writers.load(Ordering::Acquire) > 0 { n.open += 1 } else { n.closed += 1 }
        }
        n
    }

    /// The same by path, with size and whether a program has it open for writing.
    pub fn unsealed_paths(&self) -> Result<Vec<(crate::model::RelPath, u64, bool)>> {
        let nodes: Vec<_> = self.nodes.iter().filter(|n| n.unsealed.load(Ordering::Acquire)).map(|n| n.clone()).collect();
        let mut out = Vec::with_capacity(nodes.len());
        for node in nodes {
            let (size, local) = {
                let st = node.st.lock();
                (st.size, st.local_only)
            };
            // One without a name is nobody's any more.
            if let Ok(path) = self.path_of(node.ino)
                && !local
            {
                out.push((path, size, node.writers.load(Ordering::Acquire) > 0));
            }
        }
        Ok(out)
    }

    /// For a graceful stop: seals everything as it is.
    pub fn seal_all(&self) -> Result<()> {
        self.seal_together(true)?;
        // What is still open goes as it is.
        self.together.lock().clear();
        self.each_unsealed(|node| {
            self.seal_if_needed(node)?;
            if node.unsealed.load(Ordering::Acquire) && !self.nothing_to_seal(&node.st.lock())? {
                // Mapped by a program that will outlive this process.
                self.seal_copy(node)?;
            }
            Ok(())
        })
    }
}
