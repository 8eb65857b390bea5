//! Taking a bundle of another machine in.
//!
//! For each ref, for HEAD, the index and the stashes there is what this machine has, what the other has, and what the other
//! had before. Who has what the other had before did nothing of his own since, and follows; a branch goes forward where it
//! can; the rest is kept beside it.

use super::files::{Files, settle};
use super::index::Index;
use super::kept::{KEPT, guard, keep};
use super::memory::Memory;
use super::pack::{FILES, FILES_NAME, HEAD, INDEX, KEPT_THERE, Packed, STASH, borrowing, content_of, index_tree};
use super::process::Git;
use super::repo::{Looked, OURS, Repo, State, Told, look};
use super::working::Working;
use crate::error::{Error, IoContext, Kind, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Who made a bundle.
#[derive(Clone, Copy, Debug)]
pub struct From<'a> {
    /// Device id.
    pub id: &'a str,
    /// Its name, as refs have it.
    pub name: &'a str,
    /// Others have it, too: it need not be published once more.
    pub published: bool,
}

impl From<'_> {
    /// How the names of refs begin that a bundle of it brought and that are not joined yet.
    fn arriving(&self) -> String {
        format!("{OURS}{}/arriving/", self.name)
    }
}

/// Notes that what was packed is published: the base of what comes next. What a publication named stays reachable.
pub fn published(repo: &Repo, packed: &Packed) -> Result<()> {
    let mut memory = Memory::load(repo)?;
    guard(repo, &packed.told.state)?;
    memory.past.note(&packed.told.state);
    memory.base = Some(packed.told.state.clone());
    memory.save(&repo.git.dir)
}

/// Whether what a device tells was taken in before.
pub fn has_taken(work: &Path, id: &str, told: &Told) -> Result<bool> {
    match look(work)? {
        Looked::Ready(repo) => Ok(Memory::load(&repo)?.of.get(id) == Some(&told.state)),
        _ => Ok(false),
    }
}

/// Takes in what is `told`, whose objects are in `bundle`, into the repository at `work`, which is made if there is none.
/// `scratch` is an empty directory. What could not be joined and is kept beside, for people.
///
/// Errors: `Busy` if the repository is in use, `Unsupported` if it cannot be carried, `Corrupt` for a bundle that git does
/// not accept; then nothing was changed but objects.
pub fn take(work: &Path, bundle: &Path, told: &Told, from: From<'_>, scratch: &Path) -> Result<Vec<String>> {
    let theirs = &told.state;
    check(theirs)?;
    let dir = work.join(".git");
    if dir.symlink_metadata().is_err() {
        make(work, theirs)?;
    }
    let repo = match look(work)? {
        Looked::Ready(r) => *r,
        Looked::Busy(b) => return Err(Error::new(Kind::Busy, format!("the repository {}: {}", work.display(), b.0))),
        Looked::Refused(r) => return Err(Error::new(Kind::Unsupported, format!("the repository {}: {}", work.display(), r.0))),
    };
    let _working = Working::begin(&repo.git.dir)?;
    let own = borrowing(&repo, scratch)?;
    let index = index_tree(&repo, &own, scratch)?.map_err(|b| Error::new(Kind::Busy, format!("{}: {}", work.display(), b.0)))?;
    let path = bundle.to_str().ok_or_else(|| Error::new(Kind::NotUtf8, format!("{} is not UTF-8", bundle.display())))?;
    let bad = |e: Error| Error::new(Kind::Corrupt, format!("git does not accept the bundle for {}", work.display())).source(e);
    repo.git.run(&["bundle", "verify", "-q", path]).map_err(bad)?;
    let arriving = from.arriving();
    let spec = format!("+refs/*:{arriving}*");
    let fetch = ["fetch", "-q", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--refmap=", path, &spec];
    repo.git.run(&fetch).map_err(bad)?;
    let named: String = theirs.refs.values().chain(theirs.stash.iter().map(|(id, _)| id)).map(|id| format!("{id}\n")).collect();
    let found = repo.git.text(&["cat-file", "--batch-check=%(objectname) %(objecttype)"], Some(&named))?;
    if let Some(line) = found.lines().find(|l| l.ends_with("missing")) {
        let why = format!("the bundle for {} does not have all that is told of it: {line}", work.display());
        return Err(Error::new(Kind::Corrupt, why));
    }

    let files = repo.git.text(&["cat-file", "blob", &format!("{arriving}{}:{FILES_NAME}", &FILES["refs/".len()..])], None);
    let files = files.map_or_else(|_| Files::default(), |text| Files::parse(&text));
    files.keep(&repo.git.dir)?;

    let mut memory = Memory::load(&repo)?;
    let before = repo.state(index)?;
    // What was done here and is not published yet still is to be.
    let making = memory.making;
    let nothing_new = from.published && (making || memory.base.as_ref() == Some(&before));
    let mut join = Join {
        now: before,
        last: memory.of.get(from.id).cloned().unwrap_or_default(),
        known: memory.of.contains_key(from.id),
        told,
        theirs,
        repo: &repo,
        from,
        known_here: Files::of(Index::read(&repo.git.dir.join("index"))?.as_ref()),
        known_there: files,
        making,
        notes: Vec::new(),
    };
    join.refs()?;
    let head_moved = join.head()?;
    join.index(head_moved)?;
    join.stash()?;
    join.settings()?;
    let notes = join.notes;

    // What arrived and is nowhere else by now stays reachable.
    let arrived = repo.refs(&arriving)?;
    let kept = &KEPT_THERE["refs/".len()..];
    let index_commit = arrived.get(&INDEX["refs/".len()..]);
    let named: Vec<&String> = arrived
        .iter()
        .filter(|(n, id)| (n.starts_with(kept) || !n.starts_with("tcfs-")) && Some(*id) != index_commit)
        .map(|(_, id)| id)
        .collect();
    let drop_all: String = arrived.keys().map(|n| format!("delete {arriving}{n}\n")).collect();
    keep(&repo, named.into_iter())?;
    repo.git.text(&["update-ref", "--stdin"], Some(&drop_all))?;

    std::fs::remove_file(scratch.join("index"))
        .or_else(|e| if e.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
        .doing(|| "looking at the index again")?;
    let index = index_tree(&repo, &own, scratch)?.unwrap_or_default();
    let now = repo.state(index)?;
    guard(&repo, &now)?;
    memory.past.note(&now);
    if nothing_new || from.published && now == *theirs {
        memory.base = Some(now);
    }
    memory.making = false;
    memory.of.insert(from.id.to_owned(), theirs.clone());
    memory.save(&repo.git.dir)?;
    // It is tried again for those that have not arrived.
    settle(work)?;
    Ok(notes)
}

/// Whether what another machine tells can be told to git: it comes from the store, where anybody may have written it.
fn check(s: &State) -> Result<()> {
    let id = |id: &str| id.len() == 40 && id.bytes().all(|b| b.is_ascii_hexdigit());
    let name = |n: &str| {
        let odd = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
        n.starts_with("refs/")
            && !n.contains(odd)
            && !n.contains("..")
            && !n.contains("@{")
            && !n.contains("//")
            && !n.ends_with(['/', '.'])
            && n.split('/').all(|p| !p.starts_with('.') && !p.ends_with(".lock") && !p.is_empty())
    };
    let key = |k: &str| (k.starts_with("remote.") || k.starts_with("branch.")) && !k.contains(['\n', '\0', '=']);
    let setting = |(k, v): &(String, String)| {
        let end = k.rsplit('.').next().unwrap_or_default();
        // A "URL" can be a command, and an option.
        let runs = end == "url" && (v.starts_with('-') || v.contains("::") || v.starts_with("ext"));
        key(k) && ["url", "fetch", "remote", "merge"].contains(&end) && !v.contains(['\n', '\0']) && !runs
    };
    let good = s.refs.iter().all(|(n, i)| name(n) && !n.starts_with(OURS) && id(i))
        && (s.head.is_empty() || id(&s.head) || name(&s.head))
        && s.stash.iter().all(|(i, m)| id(i) && !m.contains(['\n', '\0']))
        && s.index.as_deref().is_none_or(id)
        && s.config.iter().all(setting);
    if good { Ok(()) } else { Err(Error::new(Kind::Corrupt, "what a device tells of its repository is not as git has it")) }
}

fn make(work: &Path, theirs: &State) -> Result<()> {
    std::fs::create_dir_all(work).doing(|| format!("making {}", work.display()))?;
    let git = Git::of(&work.join(".git"), Some(work));
    git.run(&["init", "-q", "--template="])?;
    if theirs.head.starts_with("refs/") {
        git.run(&["symbolic-ref", "HEAD", &theirs.head])?;
    }
    Memory { making: true, ..Memory::default() }.save(&git.dir)
}

struct Join<'a> {
    now: State,
    /// What they had when something of theirs was last taken.
    last: State,
    /// Something was.
    known: bool,
    told: &'a Told,
    theirs: &'a State,
    repo: &'a Repo,
    from: From<'a>,
    /// What this machine's index knows of its files.
    known_here: Files,
    /// What the other one's did.
    known_there: Files,
    /// The repository was made for what is told, be it by an earlier try that did not get far.
    making: bool,
    notes: Vec<String>,
}

impl Join<'_> {
    fn git(&self) -> &Git {
        &self.repo.git
    }

    fn is_ancestor(&self, a: &str, b: &str) -> Result<bool> {
        self.git().ask(&["merge-base", "--is-ancestor", a, b])
    }

    /// The commit that a ref or an id leads to, if any.
    fn commit_of(&self, name: &str) -> Result<Option<String>> {
        self.git().line(&["rev-parse", "-q", "--verify", &format!("{name}^{{commit}}")])
    }

    /// Where a ref of the bundle is until it is joined.
    fn arrived(&self, name: &str) -> String {
        format!("{}{}", self.from.arriving(), name.trim_start_matches("refs/"))
    }

    /// What a ref names no more from now on stays reachable; first, for this process may be killed in between. `guard` lets
    /// it go where something else leads to it.
    fn give_way(&self, id: &str) -> Result<()> {
        self.git().run(&["update-ref", &format!("{KEPT}{}", &id[..12]), id])
    }

    /// Keeps something of theirs under a name that says whose it is.
    fn beside(&mut self, what: &str, id: &str) -> Result<()> {
        let name = format!("{OURS}{}/{what}", self.from.name);
        if let Some(old) = self.git().line(&["rev-parse", "-q", "--verify", &name])? {
            self.give_way(&old)?;
        }
        self.git().run(&["update-ref", &name, id])?;
        Ok(())
    }

    fn set(&mut self, name: &str, to: &str, was: Option<&String>) -> Result<()> {
        let zero = "0".repeat(40);
        let reason = format!("tcfs: from {}", self.from.name);
        if let Some(was) = was {
            self.give_way(was)?;
        }
        self.git().run(&["update-ref", "-m", &reason, name, to, was.map_or(zero.as_str(), String::as_str)])?;
        self.now.refs.insert(name.to_owned(), to.to_owned());
        Ok(())
    }

    fn refs(&mut self) -> Result<()> {
        let names: BTreeSet<String> =
            self.theirs.refs.keys().chain(self.last.refs.keys()).chain(self.told.past.refs.keys()).cloned().collect();
        for name in names {
            let (theirs, last) = (self.theirs.refs.get(&name).cloned(), self.last.refs.get(&name).cloned());
            if theirs == last && self.known {
                continue;
            }
            let now = self.now.refs.get(&name).cloned();
            // They had what is here: nobody here went on from there.
            let untouched = now.as_ref().is_some_and(|n| self.told.past.refs.get(&name).is_some_and(|p| p.contains(n)));
            let checked_out = self.now.head == name;
            let short = name.trim_start_matches("refs/").to_owned();
            match (theirs, now) {
                (Some(t), Some(n)) if t == n => {}
                (Some(t), None) => self.set(&name, &t, None)?,
                (Some(t), Some(n)) => {
                    let forward = self.is_ancestor(&n, &t)?;
                    if !forward && self.is_ancestor(&t, &n)? {
                        continue;
                    }
                    if (forward || untouched) && (!checked_out || self.worktree_allows(&n, &t)?) {
                        // First: while somebody's git holds the index this fails, with nothing changed yet.
                        if checked_out {
                            self.entries_follow(&n, &t)?;
                        }
                        self.set(&name, &t, Some(&n))?;
                    } else if !name.starts_with("refs/remotes/") {
                        self.beside(&short, &t)?;
                        let why = if checked_out && forward { "files of it are changed here" } else { "both sides went on" };
                        self.notes.push(format!("{short} of {} is kept as {OURS}{}/{short}: {why}", self.from.name, self.from.name));
                    }
                }
                (None, Some(n)) if untouched && !checked_out => {
                    self.give_way(&n)?;
                    self.git().run(&["update-ref", "-d", &name, &n])?;
                    self.now.refs.remove(&name);
                }
                (None, _) => {}
            }
        }
        Ok(())
    }

    /// Whether the checked-out branch may go from one commit to another under the files: each path that differs has the old
    /// or the new content in index and worktree.
    fn worktree_allows(&self, old: &str, new: &str) -> Result<bool> {
        // One in which nobody staged anything here follows as a whole.
        let staged = if self.index_untouched() { BTreeMap::new() } else { self.staged()? };
        for c in self.differing(old, new)? {
            if staged.get(&c.path).is_some_and(|s| *s != c.old && *s != c.new) {
                return Ok(false);
            }
            let here = content_of(self.git(), &self.repo.work, &c.path, &[&self.known_here, &self.known_there])?;
            // One that is missing is about to come, or was about to go.
            // There it may have been changed as well: the drive brought that.
            let theirs = self.told.changed.get(&c.path);
            if here.is_some_and(|h| h != c.old.1 && h != c.new.1 && Some(&h) != theirs) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn index_untouched(&self) -> bool {
        self.now.index.as_ref().is_none_or(|i| self.told.past.index.contains(i))
    }

    /// Mode and content of each path in the index.
    fn staged(&self) -> Result<BTreeMap<String, (String, String)>> {
        let text = self.git().text(&["ls-files", "-s", "-z"], None)?;
        let entry = |e: &str| {
            let (what, path) = e.split_once('\t')?;
            let mut words = what.split(' ');
            Some((path.to_owned(), (words.next()?.to_owned(), words.next()?.to_owned())))
        };
        Ok(text.split('\0').filter_map(entry).collect())
    }

    fn differing(&self, old: &str, new: &str) -> Result<Vec<Changed>> {
        let text = self.git().text(&["diff-tree", "-r", "-z", "--no-renames", "--raw", "--no-abbrev", old, new], None)?;
        let mut parts = text.split('\0');
        let mut out = Vec::new();
        while let (Some(what), Some(path)) = (parts.next().filter(|w| !w.is_empty()), parts.next()) {
            let words: Vec<&str> = what.trim_start_matches(':').split(' ').collect();
            if let [om, nm, oi, ni, ..] = words[..] {
                out.push(Changed { path: path.to_owned(), old: (om.to_owned(), oi.to_owned()), new: (nm.to_owned(), ni.to_owned()) });
            }
        }
        Ok(out)
    }

    /// The index entries of what differs move along with the branch.
    fn entries_follow(&self, old: &str, new: &str) -> Result<()> {
        let mut lines = String::new();
        for c in self.differing(old, new)? {
            lines += &format!("{} {}\t{}\0", c.new.0.replace("000000", "0"), c.new.1, c.path);
        }
        if !lines.is_empty() {
            self.git().text(&["update-index", "-z", "--index-info"], Some(&lines))?;
        }
        Ok(())
    }

    /// HEAD follows where nobody here moved it. Whether it is theirs now.
    fn head(&mut self) -> Result<bool> {
        let theirs = &self.theirs.head;
        if self.now.head == *theirs || theirs.is_empty() {
            return Ok(true);
        }
        let untouched = self.making || self.told.past.head.contains(&self.now.head);
        if !untouched || self.known && self.last.head == *theirs {
            return Ok(false);
        }
        if let (Some(old), Some(new)) = (self.commit_of(&self.now.head)?, self.commit_of(theirs)?)
            && old != new
        {
            if !self.worktree_allows(&old, &new)? {
                self.notes.push(format!(
                    "{} has {theirs} checked out; here it stays {}: files of it are changed here",
                    self.from.name, self.now.head
                ));
                return Ok(false);
            }
            self.entries_follow(&old, &new)?;
        }
        if !self.now.head.starts_with("refs/") && !self.now.head.is_empty() {
            self.give_way(&self.now.head)?;
        }
        if theirs.starts_with("refs/") {
            self.git().run(&["symbolic-ref", "-m", &format!("tcfs: from {}", self.from.name), "HEAD", theirs])?;
        } else {
            self.git().run(&["update-ref", "--no-deref", "HEAD", theirs])?;
        }
        self.now.head.clone_from(theirs);
        Ok(true)
    }

    /// The index is theirs where nobody here staged anything and HEAD is theirs, too.
    fn index(&mut self, head_is_theirs: bool) -> Result<()> {
        let Some(tree) = self.theirs.index.clone() else { return Ok(()) };
        if self.now.index.as_ref() == Some(&tree) {
            return Ok(());
        }
        let their_head = self.arrived(if self.theirs.head.starts_with("refs/") { &self.theirs.head } else { HEAD });
        let same_commit = head_is_theirs && self.commit_of("HEAD")? == self.commit_of(&their_head)?;
        if self.index_untouched() && same_commit {
            if tree == EMPTY_TREE {
                // git knows it without having it, and misses it later.
                self.git().text(&["hash-object", "-t", "tree", "-w", "--stdin"], Some(""))?;
            }
            // Entries that stay keep what is known of their files; those of the others may have come before.
            return self.git().run(&["read-tree", "-m", "-i", &tree]);
        }
        let clean =
            self.commit_of(&their_head)?.map(|c| format!("{c}^{{tree}}")).and_then(|t| self.git().line(&["rev-parse", &t]).ok().flatten());
        if clean.as_ref() != Some(&tree) && self.last.index.as_ref() != Some(&tree) {
            let id = self.git().line(&["rev-parse", "-q", "--verify", &self.arrived(INDEX)])?;
            if let Some(id) = id {
                self.beside("index", &id)?;
                self.notes.push(format!("what {} has staged is kept as {OURS}{}/index", self.from.name, self.from.name));
            }
        }
        Ok(())
    }

    /// Stashes are theirs where nobody here made or dropped one.
    fn stash(&mut self) -> Result<()> {
        let theirs = &self.theirs.stash;
        if *theirs == self.now.stash || self.known && *theirs == self.last.stash {
            return Ok(());
        }
        let now: Vec<String> = self.now.stash.iter().map(|(id, _)| id.clone()).collect();
        if self.making && now.is_empty() || self.told.past.stash.contains(&now) {
            for (id, _) in &self.now.stash {
                self.give_way(id)?;
            }
            if !self.now.stash.is_empty() {
                self.git().run(&["stash", "clear"])?;
            }
            for (id, message) in theirs.iter().rev() {
                self.git().run(&["stash", "store", "-q", "-m", message, id])?;
            }
            return Ok(());
        }
        for (n, (id, _)) in theirs.iter().enumerate() {
            if !self.now.stash.iter().any(|(have, _)| have == id) {
                let from = self.arrived(&format!("{STASH}{n}"));
                if self.git().ask(&["show-ref", "-q", "--verify", &from])? {
                    let id = id.clone();
                    self.beside(&format!("stash/{n}"), &id)?;
                    self.notes.push(format!("stash {n} of {} is kept as {OURS}{}/stash/{n}", self.from.name, self.from.name));
                }
            }
        }
        Ok(())
    }

    /// Remotes and what branches follow, where there is none of that name here.
    fn settings(&self) -> Result<()> {
        let group = |k: &str| k.rsplit_once('.').map(|(g, _)| g.to_owned()).unwrap_or_default();
        let have: BTreeSet<String> = self.now.config.iter().map(|(k, _)| group(k)).collect();
        for (k, v) in self.theirs.config.iter().filter(|(k, _)| !have.contains(&group(k))) {
            self.git().run(&["config", "--local", "--add", k, v])?;
        }
        Ok(())
    }
}

/// Name of the tree of nothing.
const EMPTY_TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

/// A path that differs between two commits: mode and content before and after.
struct Changed {
    path: String,
    old: (String, String),
    new: (String, String),
}
