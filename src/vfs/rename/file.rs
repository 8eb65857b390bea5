//! Renames of files of the namespace: a version at the new path and a tombstone at the old one, in one batch.
//!
//! Must: a rename over a file is a new version of that file; a real file takes a sibling's name only by replacing it.
//! Must: bytes that are not published go along with their inode.

use super::super::heads::At;
use super::super::remove::Cause;
use super::super::{Vfs, not_found};
use crate::error::Result;
use crate::model::ops::{self, Accepted, Target};
use crate::model::{self, FileContent, Hash, RelPath, Version};
use crate::state::rows::*;
use crate::state::{Change, Ns, Tree, holds};
use std::sync::atomic::Ordering;

impl Vfs {
    /// What a rename over `to_name` replaces, and that register with whatever was shown taken off it.
    pub(super) fn clear_target(&self, ns: &mut Ns<'_, '_>, to: u64, to_name: &str) -> Result<(At, Accepted)> {
        // A real file takes a sibling's name only by replacing that sibling, which is then gone.
        let at = self.at(ns.t, to, to_name)?;
        if let Some(at) = at {
            if at.target != Target::Path {
                self.unlink_in(ns, to, to_name, Cause::Replaced)?;
                return self.clear_target(ns, to, to_name);
            }
            let accepted = self.accepted(ns.t, &at)?;
            return Ok((at, accepted));
        }
        if ns.slot(to, to_name)?.is_some() {
            self.unlink_in(ns, to, to_name, Cause::Replaced)?;
        }
        let reg = ns.register(to, to_name)?;
        let path = ns.path_of_dir(to)?.join(to_name);
        let accepted = Accepted::of_entry(&reg.entry);
        Ok((At { dir: to, name: to_name.to_owned(), path, reg, target: Target::Path }, accepted))
    }

    pub(super) fn rename_file(
        &self,
        ns: &mut Ns<'_, '_>,
        from: At,
        name: &str,
        ino: u64,
        (to, to_name): (u64, &str),
    ) -> Result<(RelPath, Accepted)> {
        let author = self.author();
        // `mv sibling path`: both are accepted.
        if let Target::Sibling(n) = from.target
            && from.dir == to
            && from.name == to_name
        {
            return self.sibling_onto_path(ns, from, name, n, ino);
        }
        let (mut over, accepted) = self.clear_target(ns, to, to_name)?;
        // Clearing the target may have changed what is moved: its register, or which sibling it is.
        let Some(from) = self.at(ns.t, from.dir, name)? else { return Err(not_found(name)) };
        let mut reg = from.reg;
        let made: Option<Vec<Version>> = {
            let here = ops::At { path: &from.path, entry: &reg.entry };
            let there = ops::At { path: &over.path, entry: &over.reg.entry };
            let done = match from.target {
                Target::Path => {
                    let was = self.with_seen(ns.t, &reg, |v, _| v.and_then(|v| v.shown.cloned()))?;
                    let mine = match &was {
                        Some(h) if self.waits(&reg) => {
                            let i = ns.inode(ino)?;
                            i.links.len() == 1 && i.shows == h.vclock || holds(ns.t, ino, &i, h)?
                        }
                        _ => true,
                    };
                    self.with_seen(ns.t, &reg, |v, _| {
                        let v = v.filter(|v| v.shown.is_some())?;
                        // An unsealed file that was put over another one: that one is gone, this one is sealed over there.
                        Some(if mine {
                            ops::rename(here, v, there, &accepted, &author)
                        } else {
                            ops::remove(here.path, here.entry, v, Target::Path, &author).map(|t| vec![t])
                        })
                    })?
                }
                Target::Sibling(n) => self.with_view(ns.t, &reg, |v, _| ops::rename_sibling_away(here, v, n, there, &accepted, &author))?,
            };
            done.transpose()?
        };
        let mut out = made.unwrap_or_default();
        let unsealed = self.loaded(ino).is_some_and(|n| n.unsealed.load(Ordering::Acquire));
        if !unsealed && out.iter().all(Version::is_tombstone) {
            // A newer version waits for a writer here: what is shown goes, that one stays.
            let i = ns.inode(ino)?;
            let attrs = ops::Attrs { mode: i.mode, mtime: i.mtime.pair(), xattrs: super::super::attr::encode_xattrs(&i.xattrs) };
            let kind = match (i.kind, ns.t.get::<Local>(Tree::Local, ino)?.and_then(|l| l.token), i.content) {
                (FileType::Symlink, ..) => Some(model::Kind::Symlink { target: i.target }),
                (_, Some((root, _)), _) => {
                    Some(model::Kind::File(FileContent { manifest: Hash::ZERO, size: i.size, root, chunks: None, hash: None }))
                }
                (_, None, content) => content.map(model::Kind::File),
            };
            if let Some(kind) = kind {
                out.insert(0, ops::write(&over.path, &over.reg.entry, &accepted, kind, attrs, &author)?);
            }
        }
        let moved = out.iter().find(|v| v.path == over.path && !v.is_tombstone()).cloned();
        let dropped = over.reg.ino;
        over.reg.ino = ino;
        let mut inode = ns.inode(ino)?;
        for v in &out {
            if v.path == over.path {
                ns.merge_into(&mut over.reg, v)?;
                inode.shows = v.vclock.clone();
            } else {
                ns.merge_into(&mut reg, v)?;
            }
        }
        if moved.is_none() {
            inode.shows = crate::model::VClock::new();
        }
        inode.rename_link((from.dir, name), (to, to_name));
        inode.ctime = ns.ctx.now;
        ns.put_inode(ino, &inode)?;
        if name == from.name {
            reg.ino = 0;
        } else {
            reg.sibs.retain(|s| s.ino != ino);
            ns.del_slot(from.dir, name)?;
        }
        let empty = reg.entry.is_empty() && reg.dir == 0 && reg.sibs.is_empty() && reg.ino == 0;
        if empty {
            ns.del_slot(from.dir, &from.name)?
        } else {
            ns.put_slot(from.dir, &from.name, &Slot::Register(Box::new(reg)))?
        }
        let next = match &moved {
            Some(v) => (over.path.clone(), accepted.after(v)),
            None => (over.path.clone(), accepted),
        };
        ns.put_slot(to, to_name, &Slot::Register(Box::new(over.reg)))?;
        if dropped != 0 && dropped != ino {
            ns.drop_link(dropped, to, to_name)?;
        }
        ns.changes.push(Change::Name { dir: from.dir, name: name.to_owned(), was: ino });
        ns.changes.push(Change::Name { dir: to, name: to_name.to_owned(), was: dropped });
        ns.touch_dir(from.dir, 0)?;
        if to != from.dir {
            ns.touch_dir(to, 0)?;
        }
        let files = self.files_of(ns, &out, ino)?;
        ns.reconcile_one(from.dir, &from.name)?;
        ns.reconcile(to, to_name)?;
        self.keep_parent(ns, from.dir, &mut out)?;
        ns.reconcile_up(from.dir)?;
        if !out.is_empty() {
            self.enqueue(ns, Sealed { versions: out, files, ..self.sealed_row() })?;
        }
        Ok(next)
    }

    pub(super) fn sibling_onto_path(&self, ns: &mut Ns<'_, '_>, from: At, name: &str, n: usize, ino: u64) -> Result<(RelPath, Accepted)> {
        let author = self.author();
        let mut reg = from.reg;
        let made = self.with_view(ns.t, &reg, |v, e| ops::rename_sibling_onto_path(&from.path, e, v, n, &author))?;
        let v = made.ok_or_else(|| not_found(name))??;
        ns.merge_into(&mut reg, &v)?;
        let old = reg.ino;
        reg.ino = ino;
        reg.sibs.retain(|s| s.ino != ino);
        let mut inode = ns.inode(ino)?;
        inode.shows = v.vclock.clone();
        inode.rename_link((from.dir, name), (from.dir, &from.name));
        inode.ctime = ns.ctx.now;
        ns.put_inode(ino, &inode)?;
        ns.del_slot(from.dir, name)?;
        ns.put_slot(from.dir, &from.name, &Slot::Register(Box::new(reg)))?;
        if old != 0 {
            ns.drop_link(old, from.dir, &from.name)?;
        }
        ns.changes.push(Change::Name { dir: from.dir, name: name.to_owned(), was: ino });
        ns.changes.push(Change::Name { dir: from.dir, name: from.name.clone(), was: old });
        ns.touch_dir(from.dir, 0)?;
        ns.reconcile(from.dir, &from.name)?;
        let files = self.files_of(ns, std::slice::from_ref(&v), ino)?;
        let accept = (from.path, Accepted::nothing().after(&v));
        self.enqueue(ns, Sealed { versions: vec![v], files, ..self.sealed_row() })?;
        Ok(accept)
    }
}
