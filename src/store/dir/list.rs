//! Listing: a walk in the order of path components, resumable after any file.
//!
//! A page mark is the path of the last file of the page, below the root. Symbolic links, our own corner and names that
//! are not UTF-8 are no objects.

use super::durable::unix_seconds;
use super::root::CORNER;
use super::{fail, layout};
use crate::error::Result;
use crate::store::{ObjectMeta, Page};
use std::fs;
use std::io;
use std::path::Path;

/// Objects of a page. Each page reads again the directories on the way to its mark: few large pages are cheaper.
pub(super) const PAGE: usize = 8192;

struct Walk<'a> {
    root: &'a Path,
    prefix: &'a str,
    after: Vec<&'a str>,
    limit: usize,
    out: Vec<ObjectMeta>,
    last: String,
    more: bool,
}

/// One page below an existing root.
pub(super) fn list(root: &Path, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page> {
    let after = after.map(|a| a.split('/').collect()).unwrap_or_default();
    let mut w = Walk { root, prefix, after, limit, out: Vec::new(), last: String::new(), more: false };
    w.dir(&mut Vec::new(), true)?;
    Ok(Page { objects: w.out, next: w.more.then_some(w.last) })
}

impl Walk<'_> {
    /// Walks one directory. `on_mark`: its components so far are those of the mark, so entries up to it are skipped.
    fn dir(&mut self, at: &mut Vec<String>, on_mark: bool) -> Result<()> {
        let path = at.iter().fold(self.root.to_owned(), |p, c| p.join(c));
        let skip_to = if on_mark { self.after.get(at.len()).copied() } else { None };
        let mut entries = Vec::new();
        let reading = match fs::read_dir(&path) {
            Ok(r) => r,
            // Removed since its parent was read. The root itself is looked at by the caller.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(fail("listing", &path, e)),
        };
        for entry in reading {
            let entry = entry.map_err(|e| fail("listing", &path, e))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if at.is_empty() && name == CORNER || skip_to.is_some_and(|s| name.as_str() < s) {
                continue;
            }
            let kind = entry.file_type().map_err(|e| fail("listing", &path, e))?;
            if kind.is_dir() || kind.is_file() {
                entries.push((name, kind.is_dir()));
            }
        }
        entries.sort_unstable();
        for (name, is_dir) in entries {
            let here = skip_to == Some(name.as_str());
            at.push(name);
            let went = if is_dir {
                if layout::may_hold(at, self.prefix) { self.dir(at, here) } else { Ok(()) }
            } else if here && self.after.len() == at.len() {
                Ok(()) // the mark itself
            } else {
                self.file(at)
            };
            at.pop();
            went?;
            if self.more {
                return Ok(());
            }
        }
        Ok(())
    }

    fn file(&mut self, at: &[String]) -> Result<()> {
        let key = layout::key_of(at);
        if !key.starts_with(self.prefix) {
            return Ok(());
        }
        if self.out.len() == self.limit {
            self.more = true;
            return Ok(());
        }
        let rel = at.join("/");
        match fs::symlink_metadata(self.root.join(&rel)) {
            Ok(m) => {
                self.out.push(ObjectMeta { key, size: m.len(), modified: unix_seconds(m.modified()) });
                self.last = rel;
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(fail("looking at", &self.root.join(&rel), e)),
        }
    }
}
