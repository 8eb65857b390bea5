//! `find`: entries by name, size, time, device and state, stubs included; nothing is fetched.

use super::ls::entry;
use super::paths::{pins, walk};
use super::{Core, blocking};
use crate::daemon::protocol::{Entry, EntryKind, Find, FoundSum, Item, Response};
use crate::daemon::service::Progress;
use crate::error::{Error, Kind, Result};
use crate::model::RelPath;
use crate::vfs::Found;
use globset::{GlobBuilder, GlobMatcher};

impl Core {
    pub(super) async fn find(&self, request: Find, progress: &Progress) -> Result<Response> {
        let below = request.path.as_deref().map_or(Ok(RelPath::root()), |p| self.path(p))?;
        let name = request.name.as_deref().map(|p| Pattern::new(p, request.ignore_case)).transpose()?;
        let (vfs, progress) = (self.vfs.clone(), progress.clone());
        blocking(move || {
            let pins = pins(&vfs)?;
            let mut sum = FoundSum::default();
            let mut looked = 0u64;
            let mut each = |f: &Found| -> Result<bool> {
                looked += 1;
                if looked.is_multiple_of(4096) {
                    progress.files("looking", looked, None, None);
                }
                let below = below.is_root() || f.path == below || f.path.is_below(&below);
                if !below || !by_attributes(&request, f) {
                    return Ok(true);
                }
                let e = match entry(&vfs, &pins, f) {
                    Ok(e) => e,
                    Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Stale) => return Ok(true),
                    Err(e) => return Err(e),
                };
                if !by_state(&request, &e) {
                    return Ok(true);
                }
                if request.limit.is_some_and(|n| sum.entries >= n) {
                    sum.limited = true;
                    return Ok(false);
                }
                sum.entries += 1;
                progress.blocking_item(Item::Entry(e))?;
                Ok(true)
            };
            if request.children {
                let top = vfs.find(&below)?;
                for f in vfs.list(&top)? {
                    if name.as_ref().is_none_or(|p| p.matches(&f.name)) && !each(&f)? {
                        break;
                    }
                }
                return Ok(Response::Found(sum));
            }
            match &name {
                // Of the whole drive by name: from the index of names.
                Some(p) => {
                    if !below.is_root() {
                        vfs.find(&below)?;
                    }
                    match p {
                        Pattern::Is(name) => vfs.find_name(name, &mut |f| each(&f))?,
                        _ => vfs.find_names(&|n| p.matches(n), &mut |f| each(&f))?,
                    }
                }
                None => {
                    let top = vfs.find(&below)?;
                    let mut on = true;
                    walk(&vfs, top, &mut |f| {
                        on = on && (f.path.is_root() || each(f)?);
                        Ok(on)
                    })?;
                }
            }
            Ok(Response::Found(sum))
        })
        .await
    }
}

fn by_attributes(r: &Find, f: &Found) -> bool {
    let (size, at) = (f.attr.size, f.attr.mtime.ms());
    r.kind.is_none_or(|k| k == super::paths::kind_of(f.attr.kind))
        && (r.min_size.is_none() && r.max_size.is_none() || f.attr.kind == crate::vfs::FileType::File)
        && r.min_size.is_none_or(|n| size >= n)
        && r.max_size.is_none_or(|n| size <= n)
        && r.newer.is_none_or(|t| at >= t)
        && r.older.is_none_or(|t| at < t)
}

fn by_state(r: &Find, e: &Entry) -> bool {
    r.device.as_ref().is_none_or(|d| *d == e.device)
        && r.residence.is_none_or(|s| e.kind == EntryKind::File && e.residence == s)
        && (!r.conflict || e.conflict)
        && (!r.pinned || e.pinned)
}

/// A pattern of names; the usual ones are compared as texts.
enum Pattern {
    Is(String),
    Ends(String),
    Begins(String),
    Has(String),
    Glob(GlobMatcher),
}

impl Pattern {
    fn new(text: &str, ignore_case: bool) -> Result<Pattern> {
        let plain = |s: &str| !s.contains(['*', '?', '[', ']', '{', '}', '\\']);
        if !ignore_case {
            let (head, tail) = (text.strip_prefix('*'), text.strip_suffix('*'));
            match (head, tail) {
                _ if plain(text) => return Ok(Pattern::Is(text.to_owned())),
                (Some(_), Some(_)) if text.len() > 1 && plain(&text[1..text.len() - 1]) => {
                    return Ok(Pattern::Has(text[1..text.len() - 1].to_owned()));
                }
                (Some(end), _) if plain(end) => return Ok(Pattern::Ends(end.to_owned())),
                (_, Some(begin)) if plain(begin) => return Ok(Pattern::Begins(begin.to_owned())),
                _ => {}
            }
        }
        let glob = GlobBuilder::new(text).case_insensitive(ignore_case).build();
        let glob = glob.map_err(|e| Error::new(Kind::Usage, format!("the pattern {text:?}")).source(e).hint("* ? [a-z] {a,b}"))?;
        Ok(Pattern::Glob(glob.compile_matcher()))
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Pattern::Is(t) => name == t,
            Pattern::Ends(t) => name.ends_with(t.as_str()),
            Pattern::Begins(t) => name.starts_with(t.as_str()),
            Pattern::Has(t) => name.contains(t.as_str()),
            Pattern::Glob(g) => g.is_match(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_a_shell_does() {
        let is = |p: &str, n: &str| Pattern::new(p, false).unwrap().matches(n);
        for (p, n) in [
            ("a.md", "a.md"),
            ("*.md", "a.md"),
            ("pl*", "plan"),
            ("*la*", "plan"),
            ("*", "x"),
            ("p?an", "plan"),
            ("[a-q]*", "plan"),
            ("*.{md,rs}", "a.rs"),
        ] {
            assert!(is(p, n), "{p} {n}");
        }
        for (p, n) in [("a.md", "b.md"), ("*.md", "a.mdx"), ("pl*", "xpl"), ("p?an", "pan"), ("[r-z]*", "plan"), ("PLAN", "plan")] {
            assert!(!is(p, n), "{p} {n}");
        }
        assert!(Pattern::new("PL*", true).unwrap().matches("plan"));
        assert_eq!(Pattern::new("[", false).err().unwrap().kind(), Kind::Usage);
    }
}
