//! `.tcfsignore`: files in the drive by which a person keeps paths from the fleet, in gitignore's syntax.
//!
//! One in a directory counts for everything below it, the deeper one first, the last line that matches first; a path inside
//! an ignored directory is ignored and cannot be taken back. They travel like any other file, so that every machine has the
//! same rules; they are asked when a name is made. What the fleet has already stays in it, as with git.
//!
//! Must: no call waits for the network: one whose bytes are not here counts as missing until they are ([`Vfs::wanted_rules`]).
//! Must: not to be asked while a node's lock or the database's is held: it reads local files.
//! Memory: rules by directory, at most [`KNOWN`] directories; those without any share one row.
//! Not here: rules that are not in the drive (`rules`).

use super::Vfs;
use super::rules::Rule;
use crate::error::{IoContext, Result};
use crate::model::RelPath;
use crate::state::Tree;
use crate::state::rows::{FileType, Inode, ROOT, Slot, slot_key};
use crate::state::tree::path_of_dir;
use dashmap::DashMap;
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Name of the files.
pub const IGNORE_FILE: &str = ".tcfsignore";
/// Directories whose rules are kept at hand; beyond, all are looked up anew.
const KNOWN: usize = 100_000;
/// Longest of them that is read, bytes.
const LONGEST: u64 = 1 << 20;

/// One of them.
struct Lines {
    /// Directory that it lies in.
    dir: RelPath,
    text: String,
    rules: Gitignore,
}

impl Lines {
    fn new(dir: RelPath, text: String) -> Lines {
        let mut b = GitignoreBuilder::new("/");
        for (n, line) in text.lines().enumerate() {
            if let Err(e) = b.add_line(None, line) {
                tracing::warn!("{}: line {} is no pattern and is passed over: {e}", dir.join(IGNORE_FILE), n + 1);
            }
        }
        let rules = b.build().unwrap_or_else(|e| {
            tracing::warn!("{}: it is passed over: {e}", dir.join(IGNORE_FILE));
            Gitignore::empty()
        });
        Lines { dir, text, rules }
    }

    /// What it says of a path below its directory, if it says anything: a rule that ignores it, or none that takes it back.
    fn says(&self, path: &RelPath, is_dir: bool) -> Option<Option<Rule>> {
        let below = path.as_str().strip_prefix(self.dir.as_str())?.trim_start_matches('/');
        match self.rules.matched(below, is_dir) {
            Match::None => None,
            Match::Whitelist(_) => Some(None),
            Match::Ignore(g) => {
                let line = self.text.lines().enumerate().filter(|(_, l)| l.trim_end() == g.original().trim_end()).last();
                let line = line.map_or(0, |(n, _)| n + 1);
                Some(Some(Rule::Ignored { file: self.dir.join(IGNORE_FILE), line, pattern: g.original().to_owned() }))
            }
        }
    }
}

/// What counts in a directory.
#[derive(Default)]
struct Here {
    /// From the root downwards.
    files: Vec<Arc<Lines>>,
    /// Why everything in it is ignored.
    all: Option<Rule>,
}

impl Here {
    fn of(&self, path: &RelPath, is_dir: bool) -> Option<Rule> {
        if self.all.is_some() {
            return self.all.clone();
        }
        self.files.iter().rev().find_map(|f| f.says(path, is_dir)).flatten()
    }
}

/// What is known of them.
#[derive(Default)]
pub(super) struct Ignores {
    dirs: DashMap<u64, Arc<Here>>,
    nothing: Arc<Here>,
    /// Counts how often it was forgotten: what was looked up before is not to be kept.
    forgotten: AtomicU64,
    wanted: Mutex<HashSet<u64>>,
    /// Inodes of those that were read.
    read: DashMap<u64, ()>,
}

impl Ignores {
    /// A file was written: it may be one of them.
    pub(super) fn written(&self, ino: u64) {
        if self.read.contains_key(&ino) {
            self.forget();
        }
    }

    /// One of them, or a directory above, changed.
    pub(super) fn forget(&self) {
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        self.dirs.clear();
        self.read.clear();
    }
}

impl Vfs {
    /// The rule by which a new entry `name` of `dir` stays on this machine.
    pub(crate) fn ignored(&self, dir: u64, name: &str, is_dir: bool) -> Result<Option<Rule>> {
        let here = self.ignores_in(dir)?;
        if here.files.is_empty() && here.all.is_none() {
            return Ok(None);
        }
        let path = self.replica.read(|r| path_of_dir(r, dir))?.join(name);
        Ok(here.of(&path, is_dir))
    }

    /// The same for a path of which not all need be there.
    pub(crate) fn ignored_path(&self, path: &RelPath, is_dir: bool) -> Result<Option<Rule>> {
        let mut here = self.ignores_in(ROOT)?;
        let mut dir = Some(ROOT);
        let parents: Vec<RelPath> = path.ancestors().collect();
        for p in parents.iter().rev() {
            if let Some(rule) = here.of(p, true) {
                return Ok(Some(rule));
            }
            dir = match dir {
                Some(up) => self.replica.read(|r| {
                    let ino = r.get::<Slot>(Tree::Entry, slot_key(up, p.file_name()))?.map_or(0, |s| s.ino());
                    Ok(r.get::<Inode>(Tree::Inode, ino)?.filter(|i| i.kind == FileType::Dir).map(|_| ino))
                })?,
                None => None,
            };
            if let Some(d) = dir {
                here = self.ignores_in(d)?;
            }
        }
        Ok(here.of(path, is_dir))
    }

    /// The rule by which a path never leaves this machine, or would not if it were made now. Of a path in the fleet too: what
    /// the fleet had before the rule stays in it.
    pub fn why_local(&self, path: &RelPath, is_dir: bool) -> Result<Option<Rule>> {
        let mut all: Vec<(RelPath, bool)> = path.ancestors().map(|p| (p, true)).collect();
        all.reverse();
        all.push((path.clone(), is_dir));
        for (p, d) in &all {
            if let Some(rule) = self.rules.why(|| Ok(p.parent().unwrap_or_default()), p.file_name(), *d)? {
                return Ok(Some(rule));
            }
        }
        if let Some(rule) = self.ignored_path(path, is_dir)? {
            return Ok(Some(rule));
        }
        // A directory that stays here by a rule that is no more, or because of where it came from.
        for (p, _) in &all[..all.len() - 1] {
            if let Ok(a) = self.find(p)
                && self.look(&a)?.held == super::Held::LocalOnly
            {
                return Ok(Some(Rule::Inside { dir: p.clone() }));
            }
        }
        Ok(None)
    }

    /// Inodes of those whose bytes are not here and were asked for: to be hydrated, after which [`Vfs::rules_changed`] is told.
    pub fn wanted_rules(&self) -> Vec<u64> {
        self.ignores.wanted.lock().drain().collect()
    }

    /// A `.tcfsignore` has come.
    pub fn rules_changed(&self) {
        self.ignores.forget();
    }

    fn ignores_in(&self, dir: u64) -> Result<Arc<Here>> {
        if let Some(h) = self.ignores.dirs.get(&dir) {
            return Ok(h.clone());
        }
        let before = self.ignores.forgotten.load(Ordering::Acquire);
        let (up, own) = self.replica.read(|r| {
            let up = r.get::<Inode>(Tree::Inode, dir)?.and_then(|i| i.links.first().map(|l| l.0));
            let own = r.get::<Slot>(Tree::Entry, slot_key(dir, IGNORE_FILE))?.map_or(0, |s| s.ino());
            let file = r.get::<Inode>(Tree::Inode, own)?.is_some_and(|i| i.kind == FileType::File);
            Ok((up, if file { own } else { 0 }))
        })?;
        let above = match up {
            Some(up) if dir != ROOT => self.ignores_in(up)?,
            _ => self.ignores.nothing.clone(),
        };
        let mut here = above.clone();
        if above.all.is_none() && (own != 0 || !above.files.is_empty()) {
            let path = self.replica.read(|r| path_of_dir(r, dir))?;
            if let Some(rule) = Some(&above).filter(|_| dir != ROOT).and_then(|a| a.of(&path, true)) {
                here = Arc::new(Here { files: Vec::new(), all: Some(rule) });
            } else if own != 0
                && let Some(text) = self.rules_text(own)?
            {
                let mut files = above.files.clone();
                files.push(Arc::new(Lines::new(path, text)));
                here = Arc::new(Here { files, all: None });
            }
        }
        if self.ignores.dirs.len() >= KNOWN {
            self.ignores.dirs.clear();
        }
        self.ignores.dirs.insert(dir, here.clone());
        if self.ignores.forgotten.load(Ordering::Acquire) != before {
            self.ignores.dirs.remove(&dir);
        }
        Ok(here)
    }

    /// The text of one, if it is here. Blocking on the local disk.
    fn rules_text(&self, ino: u64) -> Result<Option<String>> {
        // First noted, then read: what is written meanwhile is not missed.
        self.ignores.read.insert(ino, ());
        let node = self.hold(ino)?;
        let read = (|| {
            let mut st = node.st.lock();
            if st.size > LONGEST {
                tracing::warn!(ino, "a {IGNORE_FILE} of more than {LONGEST} bytes is passed over");
                return Ok(None);
            }
            if !st.is_whole() {
                self.ignores.wanted.lock().insert(ino);
                return Ok(None);
            }
            let mut bytes = vec![0; st.size as usize];
            if !bytes.is_empty() {
                let file = self.local_file(&node, &mut st)?;
                file.read_exact_at(&mut bytes, 0).doing(|| format!("reading a {IGNORE_FILE}"))?;
            }
            Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
        })();
        self.unhold(&node);
        read
    }
}
