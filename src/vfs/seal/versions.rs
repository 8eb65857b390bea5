//! The versions of sealed files, in the outbox.
//!
//! Must: a version and its row in the outbox appear in one transaction, and the node counts as sealed only then.
//! Must: a seal replaces what was accepted when the change began, not what arrived meanwhile.
//! Not here: when a file is sealed (`seal`, `companions`).

use super::super::attr::encode_xattrs;
use super::super::heads::At;
use super::super::node::{Node, St};
use super::super::{IGNORE_FILE, Touches, Vfs};
use crate::error::Result;
use crate::model::entry::merged;
use crate::model::ops::{self, Accepted, Attrs, Target};
use crate::model::{FileContent, Hash, Kind, RelPath, Version};
use crate::state::Tree;
use crate::state::rows::*;
use crate::state::{Ns, holds, uncut_token};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What is sealed, and how.
pub(in crate::vfs) struct Sealing {
    /// Found after a crash.
    pub(in crate::vfs) recovered: bool,
    /// Bytes.
    pub(in crate::vfs) size: u64,
    /// Count of changes by which the publisher finds them.
    pub(in crate::vfs) wgen: u64,
    /// They lie in a copy: the file itself stays open and unsealed.
    pub(in crate::vfs) goes_on: bool,
}

/// One of the files that are sealed together; locked.
pub(in crate::vfs) struct Part<'a> {
    pub(in crate::vfs) node: &'a Arc<Node>,
    pub(in crate::vfs) st: &'a mut St,
    pub(in crate::vfs) what: Sealing,
}

impl Vfs {
    pub(crate) fn seal_locked(&self, node: &Arc<Node>, st: &mut St, recovered: bool) -> Result<()> {
        let what = Sealing { recovered, size: st.size, wgen: st.wgen, goes_on: false };
        self.seal_parts(&mut [Part { node, st, what }])
    }

    /// Seals files in one row of the outbox. Of several each is locked, in the order of their numbers.
    pub(in crate::vfs) fn seal_parts(&self, parts: &mut [Part<'_>]) -> Result<()> {
        let inos: Vec<u64> = parts.iter().map(|p| p.node.ino).collect();
        let mut was = Vec::new();
        let mut tokens = Vec::new();
        for Part { st, what, .. } in parts.iter_mut() {
            let random = [self.clock.random(), self.clock.random(), self.clock.random(), self.clock.random()];
            let token = uncut_token(random);
            tokens.push(token);
            // What the next seal replaces is another thing.
            was.push((st.token, st.accept.take(), st.lent_writing, st.sealed_wgen));
            st.token = Some((token, what.wgen));
            if st.lent_writing {
                // What the kernel wrote since the last sync was not counted.
                st.unsynced_boot = self.boot;
            }
            st.lent_writing &= what.goes_on;
            if what.goes_on {
                st.sealed_wgen = Some(what.wgen);
            }
        }
        let mut rules = false;
        let sealed = self.change_settled(&[], Touches::Only(&inos), |ns| {
            let recovered = parts.iter().any(|p| p.what.recovered);
            let mut row = Sealed { recovered, ..self.sealed_row() };
            let mut busy_elsewhere = Vec::new();
            for ((part, token), (_, accept, ..)) in parts.iter_mut().zip(&tokens).zip(&was) {
                rules |= self.seal_part(ns, part, *token, accept.as_ref(), &mut row, &mut busy_elsewhere)?;
            }
            let paths: Vec<RelPath> = row.versions.iter().map(|v| v.path.clone()).collect();
            if !row.versions.is_empty() {
                self.enqueue(ns, row)?;
            }
            for (dir, name) in busy_elsewhere {
                ns.reconcile(dir, &name)?;
            }
            // Others' batches were applied while it was being written: a move among them is followed now.
            let applied = self.applied.load(Ordering::Acquire);
            if parts.iter().any(|p| !p.what.goes_on && (p.what.recovered || applied != p.st.applied_before)) {
                let author = self.author();
                // It may lead anywhere.
                crate::fleet::moves::write_out_in(ns, &author, self.boot)?;
                for path in &paths {
                    crate::fleet::healing::after_seal(ns, path, &author, self.boot)?;
                }
            }
            Ok(())
        });
        if let Err(e) = sealed {
            for (Part { node, st, what }, was) in parts.iter_mut().zip(was) {
                (st.token, st.accept, st.lent_writing, st.sealed_wgen) = was;
                if what.goes_on {
                    self.forget_copy(node.ino, what.wgen);
                }
            }
            return Err(e);
        }
        for Part { st, what, .. } in parts {
            (st.stale_row, st.stale_attr) = (false, false);
            st.marked = st.dirty.clone();
            st.dirty_since = None;
            if !what.goes_on {
                st.sealed_wgen = None;
            }
        }
        if rules {
            self.ignores.forget();
        }
        self.sealed.notify_one();
        Ok(())
    }

    /// Within the transaction: the versions of one file under all its names, into the row. `accept`: what they replace. Names
    /// to reconcile afterwards go to `others`. Whether it has rules of what is ignored.
    fn seal_part(
        &self,
        ns: &mut Ns<'_, '_>,
        Part { node, st, what }: &mut Part<'_>,
        token: Hash,
        accept: Option<&(RelPath, Accepted)>,
        row: &mut Sealed,
        others: &mut Vec<(u64, String)>,
    ) -> Result<bool> {
        // For the reconciling below the node is no longer changing, unless somebody still writes. Not before: a version
        // that arrived while this waited for the database would take the name, and with it the bytes.
        node.seals(ns, what.goes_on);
        let content = FileContent { manifest: Hash::ZERO, size: what.size, root: token, chunks: None, hash: None };
        let mut i = ns.inode(node.ino)?;
        (i.size, i.mtime, i.blocks) = (st.size, st.mtime, self.blocks_of(st));
        i.ctime = i.ctime.max(st.mtime);
        row.files.push((token, node.ino, what.wgen));
        let attrs = Attrs { mode: i.mode, mtime: st.mtime.pair(), xattrs: encode_xattrs(&i.xattrs) };
        for (n, (dir, name)) in i.links.clone().iter().enumerate() {
            let Some(mut at) = self.at_for_seal(ns, *dir, name)? else { continue };
            let accepted = self.accepted_at(ns, &at, node.ino, &i, accept)?;
            let v = ops::write(&at.path, &at.reg.entry, &accepted, Kind::File(content.clone()), attrs.clone(), &self.author())?;
            if what.size == 0
                && let Some(was) = self.emptied(&at, &accepted)
            {
                self.brake.note(ns.t, &was, &v)?;
            }
            ns.merge_into(&mut at.reg, &v)?;
            if n == 0 {
                i.shows = v.vclock.clone();
                if what.goes_on {
                    st.accept = Some((at.path.clone(), accepted.after(&v)));
                }
            }
            for s in at.reg.sibs.iter_mut().filter(|s| s.ino == node.ino) {
                s.clock = v.vclock.clone();
            }
            let alone = at.reg.entry.heads.len() == 1 && at.reg.sibs.is_empty() && at.reg.ino == node.ino && at.reg.dir == 0;
            let name = at.name.clone();
            ns.put_slot(at.dir, &name, &Slot::Register(Box::new(at.reg)))?;
            if !alone {
                others.push((at.dir, name));
            }
            row.versions.push(v);
        }
        ns.put_inode(node.ino, &i)?;
        self.persist_in(ns, node, st)?;
        if !what.goes_on {
            ns.t.del(Tree::Unsealed, node.ino)?;
        }
        Ok(i.links.iter().any(|(_, name)| name == IGNORE_FILE))
    }

    /// The path that a name of a written file belongs to. Also for a sibling whose head was resolved away meanwhile: what
    /// was written is a head of that path all the same.
    fn at_for_seal(&self, ns: &Ns<'_, '_>, dir: u64, name: &str) -> Result<Option<At>> {
        if let Some(at) = self.at(ns.t, dir, name)? {
            return Ok(Some(at));
        }
        let Some((of, reg)) = self.owner(ns.t, dir, name)? else { return Ok(None) };
        let path = ns.path_of_dir(dir)?.join(&of);
        Ok(Some(At { dir, name: of, path, reg, target: Target::Sibling(usize::MAX) }))
    }

    /// What the seal of one name replaces: what was accepted when the change began, if that was at this path; else
    /// what the file itself was there.
    fn accepted_at(&self, ns: &Ns<'_, '_>, at: &At, ino: u64, i: &Inode, accept: Option<&(RelPath, Accepted)>) -> Result<Accepted> {
        if let Some((path, a)) = accept
            && *path == at.path
        {
            return Ok(a.clone());
        }
        let mut mine = None;
        let entry = self.entry(&at.reg);
        for h in entry.live() {
            if i.links.len() == 1 && h.vclock == i.shows || holds(ns.t, ino, i, h)? {
                mine = Some(h);
                break;
            }
        }
        let mut clock = merged(entry.tombstones());
        if let Some(h) = mine {
            clock.merge(&h.vclock);
        }
        let base = mine.map(Version::content_id);
        Ok(Accepted { clock, base, place: mine.and_then(|h| h.place.clone()) })
    }

    /// What lost its bytes, if the seal of an empty file replaces something that had some.
    fn emptied(&self, at: &At, accepted: &Accepted) -> Option<Version> {
        let base = accepted.base?;
        let had = |h: &&Version| h.content_id() == base && h.file().is_some_and(|c| c.size > 0) && accepted.clock.ge(&h.vclock);
        self.entry(&at.reg).live().find(had).cloned()
    }
}
