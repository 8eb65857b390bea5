//! Start and stop: what a crash or a power cut left, and leaving nothing open.
//!
//! Must: after a kill, what was left unsealed is sealed as it lies, marked as recovered.
//! Must: after a power cut, bytes that were never synced are not published over good ones: their version is taken
//! back, the path shows what it showed before, and what was found lies in `recovered/`.
//! Must: bytes that a program synced are never given up for older ones: such a file is sealed as it lies.
//! Must: a local file without its rows, or rows without their file, never lend bytes to anything: numbers can be used
//! again after a power cut, and a hole reads as zeros.

use super::Vfs;
use super::lent::{Mark, mark_of};
use super::node::Node;
use crate::error::{IoContext, Result};
use crate::model::entry::Entry;
use crate::model::ranges::RangeSet;
use crate::model::{FileContent, Hash, RelPath, VClock, Version};
use crate::state::rows::*;
use crate::state::tree::past_of;
use crate::state::{Ns, Tree, holds};
use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Meta key: set while the last stop was graceful and everything was synced.
const CLEAN: &str = "clean_stop";
/// Meta key: the boot in which the state was last open.
const BOOT: &str = "boot";

/// How the last process that had this state ended.
#[derive(Clone, Copy, PartialEq)]
enum Ended {
    Gracefully,
    /// It was killed: what it had written is there.
    Killed,
    /// Perhaps the machine was: what it had written and not synced may be there in part.
    WithTheMachine,
}

fn has_token(v: &Version, tokens: &[Hash]) -> bool {
    v.file().is_some_and(|c| tokens.contains(&c.root))
}

impl Vfs {
    pub(crate) fn recover(&self) -> Result<()> {
        let (clean, boot) = self.replica.read(|r| Ok((r.get::<u64>(Tree::Meta, CLEAN)?, r.get::<u64>(Tree::Meta, BOOT)?)))?;
        let ended = match (clean, boot) {
            (Some(_), _) | (None, None) => Ended::Gracefully,
            (None, Some(b)) if b == self.boot => Ended::Killed,
            (None, Some(_)) => Ended::WithTheMachine,
        };
        let mark = self.claim_cache(boot.is_none())?;
        if ended != Ended::Gracefully {
            self.find_files()?;
        }
        self.find_copies()?;
        let orphans: Vec<(u64, ())> = self.replica.read(|r| r.scan_int(Tree::Orphan, 0, u64::MAX, usize::MAX))?;
        for (ino, ()) in orphans {
            self.remove_inode(ino, true)?;
        }
        let mut back = Vec::new();
        let mut from = 0;
        loop {
            let rows: Vec<(u64, Local)> = self.replica.read(|r| r.scan_int(Tree::Local, from, u64::MAX, 1000))?;
            let Some(last) = rows.last().map(|(i, _)| *i) else { break };
            for (ino, local) in rows {
                if ended == Ended::WithTheMachine && !self.can_keep(ino, &local)? && !self.take_copy(ino, &local)? {
                    back.push(ino);
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
            // A new file of which not even the first change was put down was never synced either.
            if ended == Ended::WithTheMachine && self.replica.read(|r| r.get::<Local>(Tree::Local, ino))?.is_none() {
                back.push(ino);
            }
            if !back.contains(&ino) {
                // All of them keep their names while the first is sealed or given up.
                let node = self.hold(ino)?;
                node.unsealed.store(true, Ordering::Release);
                held.push(node);
            }
        }
        for ino in back {
            self.go_back(ino)?;
        }
        for node in &held {
            // It stays unsealed, and is tried again: one such file must not keep the drive from opening.
            if let Err(e) = self.seal_found(node, ended) {
                tracing::error!(ino = node.ino, error = %e, "what a crash left open could not be sealed yet");
            }
        }
        // Those of the others that were open for writing and had no changes.
        self.change(&[], |ns| ns.reconcile_waiting())?;
        held.iter().for_each(|n| self.unhold(n));
        // From here on bytes of this boot are written: neither mark may come back after a power cut.
        self.replica.db().write(|t| {
            t.del(Tree::Meta, CLEAN)?;
            Vfs::mark_state(t, mark)?;
            t.put(Tree::Meta, BOOT, &self.boot)
        })?;
        self.sync()?;
        self.mark_cache(mark)
    }

    /// Brings local files to where their rows look for them, and removes those of which no row knows.
    fn find_files(&self) -> Result<()> {
        for overlay in [true, false] {
            let base = if overlay { self.options.state_dir.join("overlay") } else { self.options.cache_dir.join("data") };
            for i in 0..=255u8 {
                let dir = base.join(format!("{i:02x}"));
                let doing = || format!("listing {}", dir.display());
                for e in std::fs::read_dir(&dir).doing(doing)? {
                    let path = e.doing(doing)?.path();
                    let Some(ino) = path.file_name().and_then(|n| n.to_str()).and_then(|n| u64::from_str_radix(n, 16).ok()) else {
                        continue;
                    };
                    let (inode, local) =
                        self.replica.read(|r| Ok((r.get::<Inode>(Tree::Inode, ino)?, r.get::<Local>(Tree::Local, ino)?)))?;
                    let right = match (&inode, &local) {
                        (Some(_), Some(l)) => Some(l.overlay),
                        (Some(i), None) if i.content.is_none() => Some(true),
                        _ => None,
                    };
                    match right {
                        Some(at) if at == overlay => {}
                        Some(at) if !self.local_path(ino, at).exists() => {
                            let to = self.local_path(ino, at);
                            std::fs::rename(&path, &to).doing(|| format!("moving {} to {}", path.display(), to.display()))?;
                        }
                        _ => {
                            tracing::info!(file = %path.display(), "no name leads to these local bytes any more");
                            std::fs::remove_file(&path).doing(|| format!("removing {}", path.display()))?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// After a power cut: whether the bytes of a file can stay what they are. What is only a copy is doubted: each chunk
    /// is verified before it is used again, since it may have been written over and the disk forgot to say so. What
    /// holds synced bytes and is not as it was sealed is marked to be sealed as it lies. False if the file has to go
    /// back to what was published.
    fn can_keep(&self, ino: u64, local: &Local) -> Result<bool> {
        let (inode, unsealed) =
            self.replica.read(|r| Ok((r.get::<Inode>(Tree::Inode, ino)?, r.get::<()>(Tree::Unsealed, ino)?.is_some())))?;
        let Some(inode) = inode.filter(|i| !i.local_only) else { return Ok(true) };
        let path = self.local_path(ino, local.overlay);
        let here = std::fs::metadata(&path).ok().map(|m| m.len());
        let synced = local.unsynced_boot == 0 || local.unsynced_boot == self.boot;
        if inode.content.is_some() && local.dirty.is_empty() && local.token.is_none() && !unsealed {
            let doubted = Local { have: RangeSet::default(), ..local.clone() };
            self.replica.db().write(|t| t.put(Tree::Local, ino, &doubted))?;
            return Ok(true);
        }
        if unsealed {
            return Ok(synced || local.promise != Promise::None && here.is_some());
        }
        if here.unwrap_or(0) == inode.size && (synced || inode.size == 0) {
            return Ok(true);
        }
        if local.promise != Promise::None && here.is_some() {
            self.replica.db().write(|t| t.put(Tree::Unsealed, ino, &()))?;
            return Ok(true);
        }
        Ok(false)
    }

    /// After a power cut: whether what was last sealed of a file lies in a copy, which is on the disk. Then it is the
    /// file from now on.
    fn take_copy(&self, ino: u64, local: &Local) -> Result<bool> {
        let Some((_, wgen)) = local.token else { return Ok(false) };
        let Some(copy) = self.sealed_copy(ino, wgen)? else { return Ok(false) };
        let size = copy.metadata().doing(|| "looking at a copy")?.len();
        let (from, to) = (self.copy_path(ino, wgen), self.local_path(ino, true));
        std::fs::copy(&from, &to).and_then(|_| File::open(&to)?.sync_all()).doing(|| format!("copying {}", from.display()))?;
        let all = RangeSet::of(0..size);
        let row = Local { overlay: true, have: all.clone(), dirty: all, wgen, unsynced_boot: 0, accept: None, ..local.clone() };
        self.replica.db().write(|t| {
            if let Some(mut i) = t.get::<Inode>(Tree::Inode, ino)? {
                i.size = size;
                t.put(Tree::Inode, ino, &i)?;
            }
            t.del(Tree::Unsealed, ino)?;
            t.put(Tree::Local, ino, &row)
        })?;
        Ok(true)
    }

    /// Gives up what a file got since it was published (all of it, if it never was), after a power cut.
    fn go_back(&self, ino: u64) -> Result<()> {
        let inode: Option<Inode> = self.replica.read(|r| r.get(Tree::Inode, ino))?;
        let Some(inode) = inode else { return self.replica.db().write(|t| t.del(Tree::Unsealed, ino)) };
        let rows: Vec<(u64, Sealed)> = self.replica.read(|r| r.scan_int(Tree::Outbox, 0, u64::MAX, usize::MAX))?;
        let mut tokens: Vec<Hash> = rows.iter().flat_map(|(_, s)| &s.files).filter(|f| f.1 == ino).map(|f| f.0).collect();
        // What it had replaced comes back, unless its bytes went when it was: they were never synced either.
        let paths: Vec<RelPath> =
            rows.iter().flat_map(|(_, s)| &s.versions).filter(|v| has_token(v, &tokens)).map(|v| v.path.clone()).collect();
        for (_, row) in &rows {
            for (token, of, _) in row.files.iter().filter(|f| f.1 != ino) {
                let replaced = row.versions.iter().any(|v| has_token(v, &[*token]) && paths.contains(&v.path));
                if replaced && self.replica.read(|r| r.get::<Inode>(Tree::Inode, *of))?.is_none_or(|i| i.links.is_empty()) {
                    tokens.push(*token);
                }
            }
        }
        // What is in a batch has its bytes in the store, and may have been seen by others: it is published. So are bytes whose
        // rows have gone, and which one that came later names as well (a hard link).
        let mut fixed = self.fixed_contents(&rows)?;
        for token in &tokens {
            let known = self.replica.read(|r| crate::fleet::tokens::content(r, token))?;
            fixed.extend(known.map(|c| (*token, c)));
        }
        let kept: Vec<RelPath> = rows
            .iter()
            .flat_map(|(_, s)| &s.versions)
            .filter(|v| has_token(v, &tokens) && v.file().is_some_and(|c| fixed.contains_key(&c.root)))
            .map(|v| v.path.clone())
            .collect();
        tokens.retain(|t| !fixed.contains_key(t));
        let of_it = |v: &Version| has_token(v, &tokens);
        let name = inode.links.first().map(|(dir, name)| (*dir, name.clone()));
        let path = match &name {
            Some((dir, name)) => Some(self.replica.read(|r| crate::state::tree::path_of_dir(r, *dir))?.join(name)),
            None => None,
        };
        if let Some(path) = &path {
            tracing::warn!(%path, "saved shortly before the power went and never synced: what was found is in recovered/");
            self.keep_found(ino, path)?;
        }
        self.change(&[], |ns| {
            ns.t.del(Tree::Unsealed, ino)?;
            ns.t.del(Tree::Local, ino)?;
            let mut touched: Vec<(u64, String)> = inode.links.clone();
            let mut waiting: Vec<Version> = Vec::new();
            for (seq, row) in &rows {
                if !row.versions.iter().any(of_it) {
                    waiting.extend(row.versions.iter().cloned());
                    continue;
                }
                let mut left = row.clone();
                left.versions.retain(|v| !of_it(v));
                left.files.retain(|f| !tokens.contains(&f.0));
                waiting.extend(left.versions.iter().cloned());
                if left.versions.is_empty() { ns.t.del(Tree::Outbox, *seq)? } else { ns.t.put(Tree::Outbox, *seq, &left)? }
            }
            for v in rows.iter().flat_map(|(_, r)| &r.versions).filter(|v| of_it(v)) {
                touched.extend(self.take_back(ns, v, &waiting)?);
            }
            // Last: what was just taken back may have covered such a version, which comes as the outbox has it.
            for path in &kept {
                ns.replace_heads(path, |h| {
                    if let crate::model::Kind::File(c) = &mut h.kind
                        && let Some(known) = fixed.get(&c.root)
                    {
                        *c = known.clone();
                    }
                })?;
                if let Some(parent) = path.parent() {
                    touched.push((ns.ensure_dir(&parent)?, path.file_name().to_owned()));
                }
            }
            let mut i = ns.inode(ino)?;
            i.shows = VClock::new();
            if let (Some(c), Some((dir, name))) = (&i.content, &name) {
                // The published version has its name back, with the attributes it has.
                let head = ns.register(*dir, name)?.entry.heads.iter().find(|h| h.file().is_some_and(|f| f.root == c.root)).cloned();
                match head {
                    Some(h) => i.take(&h, h.mode, h.mtime, ns.ctx.now),
                    None => i.size = c.size,
                }
            }
            ns.put_inode(ino, &i)?;
            for (dir, name) in touched {
                self.reconcile_name(ns, dir, &name)?;
            }
            Ok(())
        })?;
        for overlay in [true, false] {
            let _ = std::fs::remove_file(self.local_path(ino, overlay));
        }
        Ok(())
    }

    /// Contents that tokens of outbox rows stand for whose batch is fixed and not known to be out.
    fn fixed_contents(&self, rows: &[(u64, Sealed)]) -> Result<HashMap<Hash, FileContent>> {
        let batches: Vec<(u64, Batch)> = self.replica.read(|r| r.scan_int(Tree::Batch, 0, u64::MAX, usize::MAX >> 1))?;
        let mut known = HashMap::new();
        for (_, batch) in batches.iter().filter(|(_, b)| !b.rows.is_empty()) {
            let sealed = rows.iter().filter(|(seq, _)| batch.rows.contains(seq)).flat_map(|(_, s)| &s.versions);
            for v in sealed.filter(|v| v.is_uncut()) {
                let out = batch.versions.iter().find(|p| p.path == v.path && p.vclock == v.vclock);
                if let (Some(token), Some(content)) = (v.file(), out.and_then(Version::file)) {
                    known.insert(token.root, content.clone());
                }
            }
        }
        Ok(known)
    }

    /// Where what was found of a path is put.
    pub fn recovered_dir(&self) -> PathBuf {
        self.options.state_dir.join("recovered")
    }

    fn keep_found(&self, ino: u64, path: &RelPath) -> Result<()> {
        let found = [true, false].map(|o| self.local_path(ino, o)).into_iter().find(|p| p.metadata().is_ok_and(|m| m.len() > 0));
        let Some(from) = found else { return Ok(()) };
        let dir = self.recovered_dir();
        std::fs::create_dir_all(&dir).doing(|| format!("creating {}", dir.display()))?;
        let flat: String = path.as_str().replace('/', "%").chars().take(60).collect();
        let to = dir.join(format!("{flat}.{ino:x}"));
        let kept = std::fs::rename(&from, &to).or_else(|_| std::fs::copy(&from, &to).map(drop));
        kept.doing(|| format!("keeping {} as {}", from.display(), to.display()))
    }

    /// Takes a version that never left this device out of its register; what it had covered comes back. Returns the
    /// name whose view changed.
    fn take_back(&self, ns: &mut Ns<'_, '_>, v: &Version, waiting: &[Version]) -> Result<Option<(u64, String)>> {
        let Some(parent) = v.path.parent() else { return Ok(None) };
        let dir = ns.ensure_dir(&parent)?;
        let name = v.path.file_name().to_owned();
        let mut reg = ns.register(dir, &name)?;
        if !reg.entry.heads.contains(v) {
            return Ok(None);
        }
        let mut all: Vec<Version> = reg.entry.heads.iter().filter(|h| *h != v).cloned().collect();
        all.extend(waiting.iter().filter(|w| w.path == v.path).cloned());
        all.extend(past_of(ns.t, &v.path)?);
        reg.entry = Entry::of(all);
        ns.put_slot(dir, &name, &Slot::Register(Box::new(reg)))?;
        Ok(Some((dir, name)))
    }

    /// Whether the versions of all names of an inode have its attributes: those of an open file are sealed with it.
    fn has_its_attributes(&self, i: &Inode, ino: u64) -> Result<bool> {
        let xattrs = super::attr::encode_xattrs(&i.xattrs);
        self.replica.read(|r| {
            for (dir, name) in &i.links {
                let Some(at) = self.at(r, *dir, name)? else { return Ok(false) };
                let mut same = false;
                for h in self.entry(&at.reg).live() {
                    let attrs = h.mode & 0o7777 == i.mode && h.mtime == i.mtime.pair() && h.xattrs == xattrs;
                    same |= attrs && holds(r, ino, i, h)?;
                }
                if !same {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// Seals what a crash left open.
    fn seal_found(&self, node: &Arc<Node>, ended: Ended) -> Result<()> {
        let ino = node.ino;
        let inode: Inode = self.inode_of(node)?;
        {
            let mut st = node.st.lock();
            let found = std::fs::metadata(self.local_path(ino, st.overlay)).ok();
            let unwritten = |m: &std::fs::Metadata| {
                m.len() == st.size
                    && match mark_of(m) {
                        Some(Mark::Lent) => true,
                        // If the copy was sealed, the row says so.
                        Some(Mark::Copied) => st.token.map_or(st.dirty.is_empty(), |(_, wgen)| wgen == st.wgen),
                        None => false,
                    }
            };
            if ended == Ended::Killed && st.lent && !st.local_only && found.as_ref().is_some_and(unwritten) {
                // Lent to a writer that wrote nothing.
                if st.token.is_none() && st.content.as_ref().is_some_and(|c| !c.manifest.is_zero()) {
                    st.dirty.clear();
                }
                (st.lent_writing, st.sealed_wgen) = (true, Some(st.wgen));
                if !self.may_still_change(&mut st)? && self.nothing_to_seal(&st)? && self.has_its_attributes(&inode, ino)? {
                    return self.settle(node, &mut st);
                }
                st.sealed_wgen = None;
            }
            if let Some(m) = found
                && st.overlay
            {
                // Bytes behind the row's end are this device's: a shorter file is put down when it is cut.
                if m.len() > st.size {
                    let grown = st.size..m.len();
                    st.have.insert(grown.clone());
                    st.dirty.insert(grown);
                }
                // Shorter: it was cut and the row had not followed; but a file just made for bytes to come is empty.
                if m.len() > st.size || !st.have.is_empty() || inode.content.is_none() {
                    st.size = m.len();
                    st.have.truncate(m.len());
                    st.dirty.truncate(m.len());
                }
                if inode.content.is_none() || st.lent {
                    // All of it is here, and a kernel that writes by itself leaves no marks.
                    (st.have, st.dirty) = (RangeSet::of(0..st.size), RangeSet::of(0..st.size));
                }
                use std::os::unix::fs::MetadataExt;
                st.mtime = st.mtime.max(Time { sec: m.mtime(), nsec: m.mtime_nsec() as u32 });
            }
            st.wgen += 1;
            st.lent_writing = st.lent;
            if !st.local_only && self.may_still_change(&mut st)? {
                // A program that outlived the daemon has it mapped: it is sealed when the kernel lets go of it, or from a
                // copy.
                st.dirty_since = Some(std::time::Instant::now());
                return Ok(());
            }
            st.lent_writing = false;
            if st.local_only {
                (st.stale_row, st.stale_attr) = (true, true);
                self.persist(node, &mut st)?;
                node.unsealed.store(false, Ordering::Release);
                self.replica.db().write(|t| t.del(Tree::Unsealed, ino))?;
            } else {
                if st.accept.is_none() {
                    st.accept = self.replica.read(|r| self.accept_now(r, &inode))?;
                }
                st.unsynced_boot = self.boot;
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
        let mut synced = true;
        for dir in [&self.options.state_dir, &self.options.cache_dir] {
            let d = std::fs::File::open(dir).doing(|| format!("opening {}", dir.display()))?;
            synced &= crate::sys::sync_disk(&d).doing(|| format!("syncing {}", dir.display()))?;
        }
        // Where the system cannot promise it, the next boot looks at what is here before it trusts it.
        if synced {
            self.replica.db().write(|t| t.put(Tree::Meta, CLEAN, &self.boot))?;
        }
        self.replica.db().close()
    }
}
