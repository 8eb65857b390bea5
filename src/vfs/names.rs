//! Looking names up and listing them.
//!
//! Not here: what a name stands for (`heads`), making and removing names (`create`, `remove`).

use super::attr::Attr;
use super::{CONTROL, Vfs, is_control, not_found};
use crate::error::{Error, Kind, Result};
use crate::model::RelPath;
use crate::model::path::{NameError, PATH_MAX, name as check_name};
use crate::state::rows::*;
use crate::state::tree::{inode_at, path_of_dir, stale};
use crate::state::{Read, Scan, Tree};
use std::time::{Duration, Instant};

/// One line of a listing.
#[derive(Clone, Debug)]
pub struct DirEntry {
    /// Name.
    pub name: String,
    /// Inode.
    pub ino: u64,
    /// What it is.
    pub kind: FileType,
    /// Pass to continue after this line; stable while others come and go.
    pub cookie: u64,
    /// Attributes, if they were asked for.
    pub attr: Option<Attr>,
}

/// A sibling's old name after it took over its path's name.
pub(crate) struct Alias {
    pub(super) dir: u64,
    pub(super) name: String,
    pub(super) ino: u64,
    pub(super) until: Instant,
}

/// How long the name of a sibling that took its path's name still works.
pub(super) const ALIAS: Duration = Duration::from_secs(60);
/// Rows read per page of a listing.
const PAGE: usize = 512;

/// A name as bytes from a program.
pub(crate) fn parse_name(bytes: &[u8]) -> Result<String> {
    check_name(bytes).map_err(|e| {
        let kind = match e {
            NameError::NotUtf8 => Kind::NotUtf8,
            NameError::TooLong => Kind::NameTooLong,
            NameError::Invalid => Kind::BadName,
        };
        Error::new(kind, format!("{:?}: {e}", String::from_utf8_lossy(bytes)))
    })
}

/// A name as the caller spelled it. That, and no other spelling of the name, is what its kernel knows that it changed.
pub(crate) fn spelled(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or("")
}

/// The path of `name` in `dir`; `NameTooLong` if no record could carry it.
pub(crate) fn path_for(r: &Read<'_>, dir: u64, name: &str) -> Result<RelPath> {
    let path = path_of_dir(r, dir)?.join(name);
    if path.as_str().len() > PATH_MAX {
        return Err(Error::new(Kind::NameTooLong, format!("{name:?}: its path is longer than {PATH_MAX} bytes")));
    }
    Ok(path)
}

impl Vfs {
    pub(crate) fn dir_inode(&self, r: &Read<'_>, dir: u64) -> Result<Inode> {
        let d = inode_at(r, dir)?;
        if d.kind != FileType::Dir {
            return Err(Error::new(Kind::NotDir, format!("inode {dir} is not a directory")));
        }
        if d.dead {
            return Err(Error::new(Kind::NotFound, format!("directory {dir} was removed")));
        }
        Ok(d)
    }

    /// The directory that a front end means: for one whose files went on in another under the same name, that one. A kernel
    /// has taken the old one along to the new name, and programs may stand in it.
    pub(super) fn live(&self, dir: u64) -> u64 {
        let Some(now) = self.left.lock().get(&dir).copied() else { return dir };
        let dead = self.replica.read(|r| Ok(r.get::<Inode>(Tree::Inode, dir)?.is_none_or(|i| i.dead)));
        if dead.unwrap_or(true) {
            return now;
        }
        // Its number is in use again, for the same path.
        self.left.lock().remove(&dir);
        dir
    }

    /// Finds a name in a directory.
    pub fn lookup(&self, dir: u64, name: &[u8]) -> Result<Attr> {
        let dir = self.live(dir);
        let name = parse_name(name)?;
        if is_control(dir) {
            return self.control_lookup(dir, &name);
        }
        if dir == ROOT && name == CONTROL {
            return Ok(self.control_dir());
        }
        let ino = self.replica.read(|r| {
            let slot: Option<Slot> = r.get(Tree::Entry, slot_key(dir, &name))?;
            if slot.is_none() && inode_at(r, dir)?.kind != FileType::Dir {
                return Err(Error::new(Kind::NotDir, format!("inode {dir} is not a directory")));
            }
            Ok(slot.map_or(0, |s| s.ino()))
        })?;
        let ino = if ino == 0 { self.alias(dir, &name).ok_or_else(|| not_found(&name))? } else { ino };
        self.getattr(ino)
    }

    fn alias(&self, dir: u64, name: &str) -> Option<u64> {
        let mut all = self.aliases.lock();
        all.retain(|a| a.until > Instant::now());
        all.iter().find(|a| a.dir == dir && a.name == name).map(|a| a.ino)
    }

    /// Whether a name only works for a while after what it led to took another one: not to be kept in mind by caches.
    pub fn is_fleeting(&self, dir: u64, name: &[u8]) -> bool {
        std::str::from_utf8(name).is_ok_and(|n| self.alias(dir, n).is_some())
    }

    /// The present name of what an old sibling name led to.
    pub(crate) fn unalias(&self, dir: u64, name: &str) -> Result<String> {
        let here = self.replica.read(|r| r.get::<Slot>(Tree::Entry, slot_key(dir, name)))?;
        if here.is_some_and(|s| s.ino() != 0) {
            return Ok(name.to_owned());
        }
        let Some(ino) = self.alias(dir, name) else { return Ok(name.to_owned()) };
        let i: Option<Inode> = self.replica.read(|r| r.get(Tree::Inode, ino))?;
        Ok(i.and_then(|i| i.links.into_iter().find(|l| l.0 == dir)).map_or(name.to_owned(), |l| l.1))
    }

    /// Lines of a listing after `cookie` (0 = from the start), at most `max`; `.` and `..` are the front end's.
    pub fn readdir(&self, dir: u64, cookie: u64, max: usize, attrs: bool) -> Result<Vec<DirEntry>> {
        if is_control(dir) {
            return self.control_list(dir, cookie, max, attrs);
        }
        let dir = self.live(dir);
        let mut out: Vec<(DirEntry, Option<Inode>)> = Vec::new();
        let since = self.moment();
        self.replica.read(|r| {
            let d = inode_at(r, dir)?;
            if d.kind != FileType::Dir {
                return Err(Error::new(Kind::NotDir, format!("inode {dir} is not a directory")));
            }
            let end = slot_end(dir);
            let mut from = slot_after(dir, cookie);
            loop {
                let (mut rows, mut last) = (0, Vec::new());
                let mut found = Vec::new();
                r.scan(Tree::Entry, Scan::From(&from, &end), PAGE, |k, s: Slot| {
                    rows += 1;
                    last.clear();
                    last.extend_from_slice(k);
                    if s.ino() != 0 {
                        found.push((slot_name(k).to_owned(), s.ino()));
                    }
                    Ok(())
                })?;
                for (name, ino) in found {
                    // One damaged row must not fail the listing.
                    let Ok(Some(i)) = r.get::<Inode>(Tree::Inode, ino) else {
                        tracing::error!(dir, name, ino, "a name without its inode is left out of a listing");
                        continue;
                    };
                    let cookie = cookie_of(&name);
                    out.push((DirEntry { name, ino, kind: i.kind, cookie, attr: None }, attrs.then_some(i)));
                    if out.len() >= max {
                        return Ok(());
                    }
                }
                if rows < PAGE {
                    return Ok(());
                }
                last.push(0);
                from = last;
            }
        })?;
        Ok(out
            .into_iter()
            .map(|(mut e, i)| {
                e.attr = i.map(|i| self.attr_of(e.ino, &i, since));
                e
            })
            .collect())
    }

    /// The directory that a directory is in; the root is in itself.
    pub fn parent(&self, dir: u64) -> Result<u64> {
        if is_control(dir) {
            return self.control_parent(dir);
        }
        let i = self.replica.read(|r| inode_at(r, dir))?;
        Ok(i.links.first().map_or(ROOT, |l| l.0))
    }

    /// A place of an inode in the tree, with its attributes: a directory and a name in it. None for the root and for what
    /// has no name.
    pub fn place_of(&self, ino: u64) -> Option<(u64, String, Attr)> {
        let attr = self.getattr(ino).ok()?;
        let links = self.replica.read(|r| Ok(inode_at(r, ino)?.links)).ok()?;
        links.into_iter().next().map(|(dir, name)| (dir, name, attr))
    }

    /// Follows a path of the namespace to its inode, symlinks not followed.
    pub fn resolve(&self, path: &str) -> Result<Attr> {
        let mut ino = ROOT;
        for part in path.split('/').filter(|p| !p.is_empty() && *p != ".") {
            ino = self.lookup(ino, part.as_bytes()).map_err(|e| e.context(path.to_owned()))?.ino;
        }
        self.getattr(ino)
    }

    /// A path by which an inode can be reached.
    pub fn path_of(&self, ino: u64) -> Result<RelPath> {
        self.replica.read(|r| {
            let i = inode_at(r, ino)?;
            if ino == ROOT || i.kind == FileType::Dir && !i.local_only {
                return path_of_dir(r, ino);
            }
            let (dir, name) = i.links.first().ok_or_else(|| stale(ino))?;
            Ok(path_of_dir(r, *dir)?.join(name))
        })
    }
}
