//! Resolving a conflict by choice: one function for the command line, the TUI and the tools.
//!
//! Must: the heads that are not kept are covered, so the conflict ends on every device; their bytes stay in history.

use super::entry::{Entry, merged};
use super::ops::{Accepted, At, Attrs, Author, Target, remove, write};
use super::path::RelPath;
use super::version::Version;
use super::view::View;
use crate::error::{Error, Kind as ErrorKind, Result};

/// Which head stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// This device's own head, else the shown one.
    Local,
    /// The first visible head that is not the local one.
    Remote,
    /// The shown one; each sibling becomes an ordinary file of the name it has now.
    Both,
    /// The head of the device of this name or id.
    Device(String),
}

/// Ends the conflict of `at`. `names` are the siblings' names ([`super::sibling::sibling_names`]), `lookup` gives the
/// entries of paths in the same directory. Empty if there is no conflict.
///
/// Errors: `NotFound` if the device named has no visible head here; `IsDir` if the choice would replace a directory
/// by a file.
pub fn resolve(
    at: At,
    view: &View,
    keep: &Keep,
    names: &[String],
    lookup: &dyn Fn(&RelPath) -> Option<Entry>,
    author: &Author,
) -> Result<Vec<Version>> {
    let mut out = Vec::new();
    if !view.is_conflict() {
        return Ok(out);
    }
    if *keep == Keep::Both {
        let directory = at.path.parent().unwrap_or_default();
        for (sibling, name) in view.siblings.iter().zip(names) {
            let path = directory.join(name);
            let entry = lookup(&path).unwrap_or_default();
            let kind = sibling.head.kind.clone();
            out.push(write(&path, &entry, &Accepted::of_entry(&entry), kind, Attrs::of(sibling.head), author)?);
        }
    }
    let chosen = choose(at.path, view, keep, author)?;
    if view.is_dir {
        if chosen.is_some_and(|v| !v.is_dir()) {
            let what = format!("resolving {:?}: a directory has the name, a file cannot replace it", at.path);
            return Err(Error::new(ErrorKind::IsDir, what).hint("move the directory or the sibling away first"));
        }
        let mut entry = at.entry.clone();
        for i in 0..view.siblings.len() {
            let gone = remove(at.path, &entry, view, Target::Sibling(i), author)?;
            entry.merge(gone.clone());
            out.push(gone);
        }
    } else if let Some(chosen) = chosen {
        let accepted = Accepted { clock: merged(&at.entry.heads), base: view.shown.map(Version::content_id), place: None };
        out.push(write(at.path, at.entry, &accepted, chosen.kind.clone(), Attrs::of(chosen), author)?);
    }
    Ok(out)
}

/// The head to keep; none for a directory that has no version.
fn choose<'a>(path: &RelPath, view: &View<'a>, keep: &Keep, author: &Author) -> Result<Option<&'a Version>> {
    let own = |v: &&Version| v.place().1 == author.device_id;
    let local = view.visible().find(own).or(view.shown);
    match keep {
        Keep::Both => Ok(view.shown),
        Keep::Local => Ok(local),
        Keep::Remote => {
            let other = |v: &&Version| local.is_none_or(|l| !std::ptr::eq(l, *v));
            let implied_dir = view.is_dir && view.shown.is_none() && local.is_some();
            Ok(if implied_dir { None } else { view.visible().find(other).or(view.shown) })
        }
        Keep::Device(device) => {
            let is = |v: &&Version| v.place().0 == device || v.place().1 == device;
            let author_is = |v: &&Version| v.device_name == *device || v.device_id == *device;
            let found = view.visible().find(is).or_else(|| view.visible().find(author_is));
            found.map(Some).ok_or_else(|| {
                let has: Vec<&str> = view.visible().map(|v| v.place().0).collect();
                Error::new(ErrorKind::NotFound, format!("resolving {path:?}: {device:?} has no version of it that is shown"))
                    .hint(format!("there are versions of {}", has.join(", ")))
            })
        }
    }
}
