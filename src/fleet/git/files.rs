//! Which content each file of a worktree has, known by its size and time of writing, without reading it.
//!
//! A repository that was made here knows nothing of the files, and git would read them all: on a drive, fetch them all. The
//! machine that made the bundle tells what each file looked like with the content that its index names; sizes and times
//! travel with the files, so one that looks the same here has that content, by the rule that git itself goes by.

use super::index::{Entry, Index, Seen, edit};
use crate::error::{Error, IoContext, Result};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::fs::Metadata;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Where it is kept in `.git` until all files have arrived.
const FILE: &str = "tcfs.files";
/// What git reads in a worktree besides what changed.
const RULES: [&str; 3] = [".gitignore", ".gitattributes", ".mailmap"];
/// Of a file that it reads so much is fetched ahead.
const AHEAD: u64 = 1 << 20;

/// Of a file of which nothing is known but its content.
const UNKNOWN: Seen = Seen { seconds: 0, nanos: 0, size: 0 };

/// Contents by path, and what the file looked like; without a time if it has another content by now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Files(BTreeMap<String, (String, Seen)>);

impl Files {
    /// What an index knows.
    pub(super) fn of(index: Option<&Index>) -> Files {
        let Some(index) = index else { return Files::default() };
        let looks = |e: &Entry| {
            let s = e.seen();
            // One that was written when the index was may have been written again since, and looks the same. Of one that git
            // is not sure of it says that it is empty.
            let sure = (i64::from(s.seconds), i64::from(s.nanos)) < index.written && (s.size != 0 || e.id == EMPTY);
            if sure { s } else { UNKNOWN }
        };
        Files(index.entries.iter().map(|e| (e.path.clone(), (e.id.clone(), looks(e)))).collect())
    }

    /// The same, where `changed` files have another content by now: of theirs the size remains, by which git tells most.
    pub(super) fn but<T>(mut self, changed: &BTreeMap<String, T>) -> Files {
        self.0.iter_mut().filter(|(path, _)| changed.contains_key(*path)).for_each(|(_, (_, s))| (s.seconds, s.nanos) = (0, 0));
        self
    }

    /// As it travels.
    pub(super) fn to_text(&self) -> String {
        let mut out = String::new();
        for (path, (id, s)) in &self.0 {
            let _ = write!(out, "{id} {} {} {}\t{path}\0", s.seconds, s.nanos, s.size);
        }
        out
    }

    /// What arrived; nothing of what makes no sense.
    pub(super) fn parse(text: &str) -> Files {
        let entry = |e: &str| {
            let (what, path) = e.split_once('\t')?;
            let mut words = what.split(' ');
            let id = words.next()?.to_owned();
            let mut number = || words.next()?.parse().ok();
            Some((path.to_owned(), (id, Seen { seconds: number()?, nanos: number()?, size: number()? })))
        };
        Files(text.split('\0').filter_map(entry).collect())
    }

    /// The content of a file that looks like this, if that is known.
    pub(super) fn content(&self, path: &str, now: &Metadata) -> Option<&String> {
        self.0.get(path).filter(|(_, s)| s.seconds != 0 && *s == Seen::now(now)).map(|(id, _)| id)
    }

    /// Keeps it in a repository, for `settle`.
    pub(super) fn keep(&self, dir: &Path) -> Result<()> {
        let to = dir.join(FILE);
        std::fs::write(&to, self.to_text()).doing(|| format!("writing {}", to.display()))
    }
}

/// Name of the empty content.
const EMPTY: &str = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391";

/// Tells the index of a repository of the files that are here as another machine had them, so that git does not read them;
/// what it reads in any case (`.gitignore` and the like) is fetched. How many files have not arrived; none if there is
/// nothing to tell.
///
/// Errors: `Busy` while git works in it.
pub fn settle(work: &Path) -> Result<Option<usize>> {
    let (dir, mut text) = (work.join(".git"), String::new());
    let told = dir.join(FILE);
    match std::fs::File::open(&told).and_then(|mut f| f.read_to_string(&mut text)) {
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(format!("reading {}", told.display()), e)),
    }
    let files = Files::parse(&text);
    let path = dir.join("index");
    // Looked at first without the lock: it takes a while, and git is not to find it locked.
    let Some(index) = Index::read(&path)? else { return forget(&told) };
    let (mut left, mut ahead) = (0, Vec::<PathBuf>::new());
    let mut says: HashMap<String, Says> = HashMap::new();
    for e in &index.entries {
        let at = work.join(&e.path);
        let meta = at.symlink_metadata();
        if RULES.contains(&e.path.rsplit('/').next().unwrap_or_default()) {
            ahead.push(at);
        }
        let Some((_, s)) = files.0.get(&e.path).filter(|(id, _)| *id == e.id) else { continue };
        match meta {
            Ok(m) if e.holds(&m) => {}
            Ok(m) if files.content(&e.path, &m).is_some() => drop(says.insert(e.path.clone(), Says::Holds(e.id.clone(), m))),
            m => {
                if s.seconds != 0 {
                    left += 1;
                } else if m.is_ok_and(|m| *s == UNKNOWN || Seen::now(&m).size == s.size) {
                    // Changed, and as long as before for all that is known: git reads it.
                    ahead.push(work.join(&e.path));
                }
                if e.seen().size == 0 && s.size != 0 {
                    says.insert(e.path.clone(), Says::Had(e.id.clone(), *s));
                }
            }
        }
    }
    if !says.is_empty() {
        edit(&path, |index| {
            for n in 0..index.entries.len() {
                let e = &index.entries[n];
                match says.get(&e.path) {
                    Some(Says::Holds(id, m)) if *id == e.id => index.set(n, m),
                    Some(Says::Had(id, s)) if *id == e.id => index.set_seen(n, *s),
                    _ => {}
                }
            }
        })?;
    }
    for at in ahead {
        // What is not fetched ahead git fetches itself.
        let read = std::fs::File::open(&at).and_then(|f| f.take(AHEAD).read_to_end(&mut Vec::new()));
        if let Err(e) = read {
            tracing::debug!(path = %at.display(), error = %e, "not fetched ahead");
        }
    }
    if left == 0 { forget(&told) } else { Ok(Some(left)) }
}

/// What the index is told of a file whose content it names so.
enum Says {
    /// It has that.
    Holds(String, Metadata),
    /// It has not; this is what it looked like when it had.
    Had(String, Seen),
}

fn forget(told: &Path) -> Result<Option<usize>> {
    std::fs::remove_file(told).doing(|| format!("removing {}", told.display()))?;
    Ok(Some(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_arrives_and_what_makes_no_sense_does_not() {
        let seen = Seen { seconds: 7, nanos: 8, size: 9 };
        let files = Files(["a b\tc", "ü\n"].map(|p| (p.to_owned(), (EMPTY.to_owned(), seen))).into_iter().collect());
        assert_eq!(Files::parse(&files.to_text()), files);
        assert_eq!(Files::parse("x\0 1 2\ta\0id 1 2 -3\tb\0id\0\tc\0"), Files::default());
        let one = BTreeMap::from([("ü\n".to_owned(), ())]);
        let told: Vec<(String, u32)> = files.but(&one).0.into_iter().map(|(p, (_, s))| (p, s.seconds)).collect();
        assert_eq!(told, [("a b\tc".to_owned(), 7), ("ü\n".to_owned(), 0)]);
    }
}
