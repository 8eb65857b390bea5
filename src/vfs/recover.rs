//! Start and stop: what a crash or a power cut left, and leaving nothing open.
//!
//! Must: after a kill, what was left unsealed is sealed as it lies, marked as recovered.
//! Must: after a power cut, bytes that were never synced are not published over good ones: their version is taken
//! back, the path shows what it showed before, and what was found lies in `recovered/`.

use super::Vfs;
use super::node::Node;
use crate::error::{IoContext, Result};
use crate::model::entry::Entry;
use crate::model::ranges::RangeSet;
use crate::model::{RelPath, Version};
use crate::state::db::prefix_end;
use crate::state::rows::*;
use crate::state::{Ns, Scan, Tree};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Meta key: set while the last stop was graceful and everything was synced.
const CLEAN: &str = "clean_stop";

impl Vfs {
    pub(crate) fn recover(&self) -> Result<()> {
        let clean = self.replica.read(|r| r.get::<u64>(Tree::Meta, CLEAN))?.is_some();
        if clean {
            self.replica.db().write(|t| t.del(Tree::Meta, CLEAN))?;
            // From here on the mark must not come back after a power cut.
            self.sync()?;
        }
        let orphans: Vec<(u64, ())> = self.replica.read(|r| r.scan_int(Tree::Orphan, 0, u64::MAX, usize::MAX))?;
        for (ino, ()) in orphans {
            self.remove_inode(ino)?;
        }
        let mut from = 0;
        loop {
            let rows: Vec<(u64, Local)> = self.replica.read(|r| r.scan_int(Tree::Local, from, u64::MAX, 1000))?;
            let Some(last) = rows.last().map(|(i, _)| *i) else { break };
            for (ino, local) in rows {
                if local.unsynced_boot != 0 && local.unsynced_boot != self.boot && !clean {
                    self.distrust(ino, local)?;
                } else if !local.overlay {
                    self.cache.lock().add(ino, local.have.total());
                }
            }
            from = last + 1;
        }
        // Nothing is sealed or taken back below a directory whose move is not written out.
        self.drain_moves()?;
        let open: Vec<(u64, ())> = self.replica.read(|r| r.scan_int(Tree::Unsealed, 0, u64::MAX, usize::MAX))?;
        let mut held = Vec::new();
        for (ino, ()) in open {
            if self.replica.read(|r| r.get::<Inode>(Tree::Inode, ino))?.is_none_or(|i| i.links.is_empty()) {
                self.replica.db().write(|t| t.del(Tree::Unsealed, ino))?;
                continue;
            }
            // All of them keep their names while the first is sealed.
            let node = self.hold(ino)?;
            node.unsealed.store(true, Ordering::Release);
            held.push(node);
        }
        self.take_back_unstable(clean)?;
        for node in &held {
            self.seal_found(node)?;
        }
        // Those of the others that were open for writing and had no changes.
        self.change(&[], |ns| ns.reconcile_waiting())?;
        held.iter().for_each(|n| self.unhold(n));
        Ok(())
    }

    /// Bytes of another boot that were not synced: what is only a copy is dropped.
    fn distrust(&self, ino: u64, local: Local) -> Result<()> {
        let published = self.replica.read(|r| r.get::<Inode>(Tree::Inode, ino))?.is_some_and(|i| i.content.is_some());
        let unsealed = self.replica.read(|r| r.get::<()>(Tree::Unsealed, ino))?.is_some();
        if published && local.dirty.is_empty() && local.token.is_none() && !unsealed {
            self.replica.db().write(|t| t.del(Tree::Local, ino))?;
            let _ = std::fs::remove_file(self.local_path(ino, local.overlay));
        }
        Ok(())
    }

    /// Versions in the outbox whose bytes did not survive a power cut.
    fn take_back_unstable(&self, clean: bool) -> Result<()> {
        let rows: Vec<(u64, Sealed)> = self.replica.read(|r| r.scan_int(Tree::Outbox, 0, u64::MAX, usize::MAX))?;
        let mut back: Vec<(u64, u64, Version)> = Vec::new();
        for (seq, row) in &rows {
            if clean || row.boot == self.boot {
                continue;
            }
            for (token, ino, wgen) in &row.files {
                let local: Option<Local> = self.replica.read(|r| r.get(Tree::Local, *ino))?;
                let durable = local.is_some_and(|l| l.unsynced_boot == 0 || l.wgen != *wgen && l.unsynced_boot == self.boot);
                if durable {
                    continue;
                }
                let empty = row.versions.iter().any(|v| v.file().is_some_and(|c| c.root == *token && c.size == 0));
                if !empty {
                    back.extend(
                        row.versions.iter().filter(|v| v.file().is_some_and(|c| c.root == *token)).map(|v| (*seq, *ino, v.clone())),
                    );
                }
            }
        }
        if back.is_empty() {
            return Ok(());
        }
        for (_, ino, v) in &back {
            self.keep_found(*ino, &v.path)?;
        }
        self.change(&[], |ns| {
            for (seq, ino, v) in &back {
                tracing::warn!(path = %v.path, "saved shortly before the power went and never synced: what was found is in recovered/");
                self.take_back(ns, *seq, *ino, v)?;
            }
            Ok(())
        })
    }

    /// Where what was found of a path is put.
    pub fn recovered_dir(&self) -> PathBuf {
        self.options.state_dir.join("recovered")
    }

    fn keep_found(&self, ino: u64, path: &RelPath) -> Result<()> {
        let from = self.local_path(ino, true);
        if !from.exists() {
            return Ok(());
        }
        let dir = self.recovered_dir();
        std::fs::create_dir_all(&dir).doing(|| format!("creating {}", dir.display()))?;
        let flat: String = path.as_str().replace('/', "%").chars().take(180).collect();
        let to = dir.join(format!("{flat}.{ino:x}"));
        std::fs::copy(&from, &to).doing(|| format!("keeping {} as {}", from.display(), to.display()))?;
        Ok(())
    }

    fn take_back(&self, ns: &mut Ns<'_, '_>, seq: u64, ino: u64, v: &Version) -> Result<()> {
        if let Some(mut row) = ns.t.get::<Sealed>(Tree::Outbox, seq)? {
            row.versions.retain(|x| x != v);
            if row.versions.is_empty() { ns.t.del(Tree::Outbox, seq)? } else { ns.t.put(Tree::Outbox, seq, &row)? }
        }
        let Some(parent) = v.path.parent() else { return Ok(()) };
        let dir = ns.ensure_dir(&parent)?;
        let name = v.path.file_name().to_owned();
        let mut reg = ns.register(dir, &name)?;
        if !reg.entry.heads.contains(v) {
            return Ok(());
        }
        let mut all: Vec<Version> = reg.entry.heads.iter().filter(|h| *h != v).cloned().collect();
        let mut prefix = v.path.as_str().as_bytes().to_vec();
        prefix.push(0);
        ns.t.scan(Tree::History, Scan::From(&prefix, &prefix_end(&prefix)), usize::MAX, |_, h: Version| {
            all.push(h);
            Ok(())
        })?;
        reg.entry = Entry::of(all);
        if let Some(mut i) = ns.t.get::<Inode>(Tree::Inode, ino)? {
            i.shows = crate::model::VClock::new();
            ns.put_inode(ino, &i)?;
        }
        ns.t.del(Tree::Unsealed, ino)?;
        ns.put_slot(dir, &name, &Slot::Register(Box::new(reg)))?;
        ns.reconcile(dir, &name)
    }

    /// Seals what a crash left open.
    fn seal_found(&self, node: &Arc<Node>) -> Result<()> {
        let ino = node.ino;
        if self.replica.read(|r| r.get::<()>(Tree::Unsealed, ino))?.is_none() {
            // Taken back.
            node.unsealed.store(false, Ordering::Release);
            return Ok(());
        }
        let inode = self.regular(node)?;
        {
            let mut st = node.st.lock();
            let found = std::fs::metadata(self.local_path(ino, st.overlay)).ok();
            if let Some(m) = found
                && st.overlay
            {
                // Bytes behind the published end are this device's, whatever the rows say.
                let base = inode.content.as_ref().map_or(0, |c| c.size);
                if m.len() > st.size {
                    let grown = st.size.max(base.min(m.len()))..m.len();
                    st.have.insert(grown.clone());
                    st.dirty.insert(grown);
                }
                st.size = m.len();
                st.have.truncate(m.len());
                st.dirty.truncate(m.len());
                if inode.content.is_none() {
                    (st.have, st.dirty) = (RangeSet::of(0..st.size), RangeSet::of(0..st.size));
                }
                use std::os::unix::fs::MetadataExt;
                st.mtime = st.mtime.max(Time { sec: m.mtime(), nsec: m.mtime_nsec() as u32 });
            }
            st.wgen += 1;
            if st.local_only {
                (st.stale_row, st.stale_attr) = (true, true);
                self.persist(node, &mut st)?;
                node.unsealed.store(false, Ordering::Release);
                self.replica.db().write(|t| t.del(Tree::Unsealed, ino))?;
            } else {
                if st.accept.is_none() {
                    st.accept = self.accept_now(ino)?;
                }
                tracing::info!(ino, "sealed as it lay after a crash");
                self.seal_locked(node, &mut st, true)?;
            }
        }
        Ok(())
    }

    /// A graceful stop: everything sealed, synced and committed.
    pub fn close(&self) -> Result<()> {
        self.seal_all()?;
        for node in self.nodes.iter().map(|n| n.clone()).collect::<Vec<_>>() {
            let mut st = node.st.lock();
            self.persist(&node, &mut st)?;
        }
        for dir in [&self.options.state_dir, &self.options.cache_dir] {
            let d = std::fs::File::open(dir).doing(|| format!("opening {}", dir.display()))?;
            rustix::fs::syncfs(&d).map_err(std::io::Error::from).doing(|| format!("syncing {}", dir.display()))?;
        }
        self.replica.db().write(|t| t.put(Tree::Meta, CLEAN, &self.boot))?;
        self.replica.db().close()
    }
}
