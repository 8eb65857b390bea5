//! Which paths never leave this machine: junk that systems and editors make, and the user's patterns.
//!
//! Not here: what such a path is in the tree (`state::rows::Slot::LocalOnly`).

use crate::error::{Error, Kind, Result};
use crate::model::RelPath;
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// Names that are local whatever the configuration says, each with who makes it.
const JUNK: &[&str] = &[
    ".DS_Store",             // Finder
    "._*",                   // macOS resource forks
    ".Spotlight-V100",       // macOS indexing
    ".Trashes",              // macOS
    ".fseventsd",            // macOS
    ".metadata_never_index", // keeps Spotlight out
    ".TemporaryItems",       // macOS
    ".fuse_hidden*",         // FUSE libraries
    ".nfs*",                 // NFS clients: removed but open
    ".#*",                   // Emacs locks
    "#*#",                   // Emacs autosave
    ".~lock.*#",             // LibreOffice
    "~$*",                   // Microsoft Office
    ".*.sw?",                // vim
    ".tcfs-canary-*",        // doctor
];

/// What git has only while it works, where a `.git` is carried file by file.
fn is_gits_lock(name: &str) -> bool {
    name.ends_with(".lock") || name == "gc.pid"
}

/// Why a path never leaves this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Systems and editors make it.
    BuiltIn {
        /// Pattern.
        pattern: String,
    },
    /// `.git`, while repositories are not carried.
    Git,
    /// `exclude_patterns` of the configuration.
    Configured {
        /// Pattern.
        pattern: String,
    },
    /// A line of a `.tcfsignore`.
    Ignored {
        /// Which.
        file: RelPath,
        /// Its number, from 1; 0 if it was not found again.
        line: usize,
        /// The line.
        pattern: String,
    },
    /// The directory that it is in never leaves this machine.
    Inside {
        /// Which.
        dir: RelPath,
    },
}

/// The compiled rules.
pub struct Rules {
    junk: Gitignore,
    user: Gitignore,
    git: bool,
    any_user: bool,
}

fn compile(patterns: &[&str]) -> Result<Gitignore> {
    let mut b = GitignoreBuilder::new("/");
    for p in patterns {
        // `#` at the start is a comment in gitignore syntax.
        let text = if p.starts_with('#') { format!("\\{p}") } else { (*p).to_owned() };
        b.add_line(None, &text)
            .map_err(|e| Error::new(Kind::Usage, format!("exclude pattern {p:?}")).source(e).hint("patterns are as in .gitignore"))?;
    }
    b.build().map_err(|e| Error::new(Kind::Usage, "exclude patterns").source(e))
}

impl Rules {
    /// Compiles the user's patterns (gitignore syntax); `sync_git`: whether `.git` may leave this machine.
    pub fn new(patterns: &[String], sync_git: bool) -> Result<Rules> {
        let user: Vec<&str> = patterns.iter().map(String::as_str).collect();
        Ok(Rules { junk: compile(JUNK)?, user: compile(&user)?, git: !sync_git, any_user: !user.is_empty() })
    }

    /// Whether the new entry `name` in `dir` is local. `dir` is asked only when a pattern needs it.
    pub fn is_local(&self, dir: impl FnOnce() -> Result<RelPath>, name: &str, is_dir: bool) -> Result<bool> {
        Ok(self.why(dir, name, is_dir)?.is_some())
    }

    /// The same with the reason.
    pub fn why(&self, dir: impl FnOnce() -> Result<RelPath>, name: &str, is_dir: bool) -> Result<Option<Rule>> {
        if self.git && name == ".git" {
            return Ok(Some(Rule::Git));
        }
        if let Match::Ignore(g) = self.junk.matched(name, is_dir) {
            return Ok(Some(Rule::BuiltIn { pattern: g.original().to_owned() }));
        }
        let lock = !self.git && is_gits_lock(name);
        if !self.any_user && !lock {
            return Ok(None);
        }
        let dir = dir()?;
        if lock && dir.components().any(|c| c == ".git") {
            return Ok(Some(Rule::BuiltIn { pattern: ".git/**/*.lock".to_owned() }));
        }
        let path = dir.join(name);
        Ok(match self.user.matched(path.as_str(), is_dir) {
            Match::Ignore(g) => Some(Rule::Configured { pattern: g.original().to_owned() }),
            _ => None,
        })
    }

    /// The same for a whole path, which is not the root.
    pub fn is_local_path(&self, path: &RelPath, is_dir: bool) -> Result<bool> {
        self.is_local(|| Ok(path.parent().unwrap_or_default()), path.file_name(), is_dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junk_editors_and_patterns_stay_here() {
        let r = Rules::new(&["*.swp".into(), "/build/".into(), "!keep.swp".into()], false).unwrap();
        let is = |dir: &str, name: &str, d: bool| r.is_local(|| Ok(RelPath::parse(dir).unwrap()), name, d).unwrap();
        for n in [".DS_Store", "._x", ".nfs0001", ".#a", "#a#", ".a.swp", ".git", "x.swp"] {
            assert!(is("d", n, false), "{n}");
        }
        for n in ["a", "plan.md", "gitx", "keep.swp", "a#", "x.swpx"] {
            assert!(!is("d", n, false), "{n}");
        }
        let raw = Rules::new(&["*.lock".into()], true).unwrap();
        let is_raw = |dir: &str, name: &str| raw.why(|| Ok(RelPath::parse(dir).unwrap()), name, false).unwrap();
        for (dir, name) in [("a/.git", "index.lock"), (".git/refs/heads", "main.lock"), (".git", "gc.pid")] {
            assert!(matches!(is_raw(dir, name), Some(Rule::BuiltIn { .. })), "{dir}/{name}");
        }
        assert!(is_raw("", ".git").is_none() && is_raw(".git", "index").is_none() && is_raw("a", "gc.pid").is_none());
        assert!(matches!(is_raw("a", "Cargo.lock"), Some(Rule::Configured { .. })));
        assert!(matches!(is_raw("a", "._x.lock"), Some(Rule::BuiltIn { pattern }) if pattern == "._*"));
        assert!(is("", "build", true) && !is("d", "build", true) && !is("", "build", false));
    }
}
