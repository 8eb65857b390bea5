//! Who hears of changes: caches above the drive, and what here goes by names.
//!
//! Must: whoever is told is told with no lock of the database held.
//! Not here: what a change is (`state`), what a kernel makes of it (`mount`).

use super::{GIT_DIR, IGNORE_FILE, Vfs, names};
use crate::state::Change;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Caches above the drive (a kernel's, an NFS client's) that must hear of changes which did not come through them.
/// Called with no lock held, from any thread; must not block.
pub trait Invalidate: Send + Sync {
    /// `name` in `dir` leads elsewhere now; `was`: the inode that it led to before, 0 for none.
    fn name(&self, dir: u64, name: &str, was: u64);
    /// Attributes of `ino` changed.
    fn attr(&self, ino: u64);
    /// Bytes of `ino`, or what a listing of it shows, changed.
    fn data(&self, ino: u64);
    /// What is pinned changed.
    fn pins(&self) {}
    /// `heard` is dropped once everything said before has come to effect; at once where nobody waits for that.
    fn mark(&self, _heard: Heard) {}
}

/// Whoever has one has not heard everything yet.
pub type Heard = tokio::sync::mpsc::Sender<()>;

impl Vfs {
    /// Adds a cache above that wants to hear of changes.
    pub fn watch(&self, w: Arc<dyn Invalidate>) {
        self.watchers.write().push(w);
    }

    /// Removes it again.
    pub fn unwatch(&self, w: &Arc<dyn Invalidate>) {
        self.watchers.write().retain(|x| !Arc::ptr_eq(x, w));
    }

    /// Waits until every change so far has come to effect in the caches above, at most `patience`: a kernel hears of a file
    /// whose bytes it waits for only when they came. Cancel-safe.
    pub async fn all_heard(&self, patience: Duration) {
        let (heard, mut all) = tokio::sync::mpsc::channel(1);
        self.watchers.read().iter().for_each(|w| w.mark(heard.clone()));
        drop(heard);
        let _ = tokio::time::timeout(patience, all.recv()).await;
    }

    /// Tells the caches above, and frees the bytes of inodes that lost their last name and are not open.
    pub(crate) fn tell(&self, changes: &[Change], own: &[(u64, &str)]) {
        for c in changes {
            if let Change::Orphan(ino) = c {
                let others = |c: &Change| match c {
                    Change::Name { dir, name, was } if was == ino && !own.contains(&(*dir, name)) => Some((*dir, name.clone())),
                    _ => None,
                };
                if let (Some(n), Some(lost)) = (self.loaded(*ino), changes.iter().find_map(others)) {
                    n.replaced.store(true, Ordering::Release);
                    *n.lost.lock() = Some(lost);
                }
                self.orphaned(*ino);
            }
        }
        for c in changes {
            if let Change::Name { dir, name, .. } = c {
                self.note_companion(*dir, name);
                self.names.note(*dir, name);
            }
            match c {
                Change::Name { name, .. } if name == IGNORE_FILE => self.ignores.forget(),
                Change::Name { dir, name, .. } if name == GIT_DIR => drop(self.git_dirs.lock().insert(*dir)),
                // Whatever git changes, it locks first.
                Change::Name { name, .. } if name.ends_with(".lock") => drop(self.locked.fetch_add(1, Ordering::AcqRel)),
                _ => {}
            }
        }
        let kept = |c: &Change| if let Change::Kept(dir) = c { Some(*dir) } else { None };
        if changes.iter().any(|c| kept(c).is_some()) {
            self.kept.lock().extend(changes.iter().filter_map(kept));
        }
        let watchers = self.watchers.read().clone();
        let mut listed = HashSet::new();
        for w in &watchers {
            listed.clear();
            for c in changes {
                match c {
                    Change::Name { dir, name, .. } if own.contains(&(*dir, name.as_str())) => {}
                    Change::Name { dir, name, was } => w.name(*dir, name, *was),
                    // The directories of the caller's own names: its kernel knows that they changed.
                    Change::Attr(ino) | Change::Listing(ino) if own.iter().any(|(d, _)| d == ino) => {}
                    Change::Attr(ino) | Change::Orphan(ino) => w.attr(*ino),
                    Change::Kept(_) => {}
                    Change::Listing(ino) => {
                        if listed.insert(*ino) {
                            w.data(*ino);
                        }
                    }
                }
            }
        }
    }

    /// Tells the caches above that a front end which has none did something with a name (`was`: the inode that it led to,
    /// 0 for none): what another one's kernel has cached it would show on.
    pub fn announce_name(&self, dir: u64, name: &[u8], was: u64) {
        for w in self.watchers.read().iter() {
            // As it was spelled, and as it is listed.
            let given = names::spelled(name);
            w.name(dir, given, was);
            if let Some(listed) = names::parse_name(name).ok().filter(|n| n != given) {
                w.name(dir, &listed, was);
            }
            w.attr(dir);
        }
    }

    /// The same for bytes and attributes of a file.
    pub fn announce_inode(&self, ino: u64) {
        for w in self.watchers.read().iter() {
            w.data(ino);
            w.attr(ino);
        }
    }
}
