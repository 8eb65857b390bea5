//! Reading the tree of names: from a path to its directory and register, and back.
//!
//! Not here: changing it (`namespace`).

use super::read::{Read, Scan};
use super::rows::*;
use super::schema::{Tree, prefix_end};
use crate::error::{Error, Kind, Result};
use crate::model::{RelPath, Version};

/// Meta key: how many names a listing of the whole drive would show.
pub(super) const NAMES: &str = "names";

/// How many names a listing of the whole drive would show: files, links and directories, siblings and local-only ones
/// included. Kept with every change, so asking costs nothing.
pub fn names(r: &Read<'_>) -> Result<u64> {
    Ok(r.get::<u64>(Tree::Meta, NAMES)?.unwrap_or(0))
}

/// Finds a directory's number by walking from the root; live or gone.
pub fn dir_of(r: &Read<'_>, path: &RelPath) -> Result<Option<u64>> {
    let mut dir = ROOT;
    for c in path.components() {
        match r.get::<Slot>(Tree::Entry, slot_key(dir, c))? {
            Some(Slot::Register(reg)) if reg.dir != 0 => dir = reg.dir,
            _ => return Ok(None),
        }
    }
    Ok(Some(dir))
}

/// The register of a path with the directory it lies in, if there ever was one.
pub fn locate(r: &Read<'_>, path: &RelPath) -> Result<Option<(u64, Box<Register>)>> {
    let Some(parent) = path.parent() else { return Ok(None) };
    let Some(dir) = dir_of(r, &parent)? else { return Ok(None) };
    match r.get::<Slot>(Tree::Entry, slot_key(dir, path.file_name()))? {
        Some(Slot::Register(reg)) => Ok(Some((dir, reg))),
        _ => Ok(None),
    }
}

/// The register of a path, if there ever was one.
pub fn register_at(r: &Read<'_>, path: &RelPath) -> Result<Option<Register>> {
    Ok(locate(r, path)?.map(|(_, reg)| *reg))
}

/// What is known of versions of a path that others have covered, oldest first.
pub fn past_of(r: &Read<'_>, path: &RelPath) -> Result<Vec<Version>> {
    let prefix = history_prefix(path);
    let mut out = Vec::new();
    r.scan(Tree::History, Scan::From(&prefix, &prefix_end(&prefix)), usize::MAX >> 1, |_, v: Version| {
        out.push(v);
        Ok(())
    })?;
    Ok(out)
}

/// The row of an inode.
///
/// Errors: `Stale` if there is none.
pub fn inode_at(r: &Read<'_>, ino: u64) -> Result<Inode> {
    r.get(Tree::Inode, ino)?.ok_or_else(|| stale(ino))
}

/// Path of a directory by its number.
pub fn path_of_dir(r: &Read<'_>, dir: u64) -> Result<RelPath> {
    let mut names = Vec::new();
    let mut at = dir;
    while at != ROOT {
        let i = inode_at(r, at)?;
        let Some((up, name)) = i.links.first() else { return Err(stale(at)) };
        names.push(name.clone());
        at = *up;
        if names.len() > 4096 {
            return Err(Error::new(Kind::Corrupt, format!("directory {dir} is its own ancestor in the local state")));
        }
    }
    let mut path = RelPath::root();
    for n in names.iter().rev() {
        path = path.join(n);
    }
    Ok(path)
}

/// Whether a listing of `dir` would show anything.
pub fn has_children(r: &Read<'_>, dir: u64) -> Result<bool> {
    let end = slot_end(dir);
    let mut from = slot_after(dir, 0);
    // Mostly the first one answers; only where many are gone is it worth reading more at a time.
    let mut page = 2;
    loop {
        let (mut found, mut n, mut last) = (false, 0usize, Vec::new());
        r.scan(Tree::Entry, Scan::From(&from, &end), page, |k, s: Slot| {
            found |= s.ino() != 0;
            n += 1;
            last = k.to_vec();
            Ok(())
        })?;
        if found || n < page {
            return Ok(found);
        }
        last.push(0);
        from = last;
        page = (page * 4).min(256);
    }
}

/// The error for an inode that is not there.
pub fn stale(ino: u64) -> Error {
    Error::new(Kind::Stale, format!("inode {ino} is gone"))
}
