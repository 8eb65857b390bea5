//! A repository looked at: whether it can be carried, whether it is at rest, and what is in it.

use super::process::Git;
use crate::error::{IoContext, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Refs of ours: they say what came from where, and are nobody's state.
pub(super) const OURS: &str = "refs/tcfs/";

/// A repository with a worktree.
#[derive(Clone, Debug)]
pub struct Repo {
    /// Its worktree.
    pub work: PathBuf,
    pub(super) git: Git,
}

/// Why a repository is not carried; for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub String);

/// Why it is not looked at now; for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Busy(pub String);

/// What is in a repository, besides objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What HEAD says: `refs/heads/x`, or the id of a commit.
    pub head: String,
    /// Refs and what they name, but for ours and the stash.
    pub refs: BTreeMap<String, String>,
    /// Stashes, the newest first: commit and message.
    pub stash: Vec<(String, String)>,
    /// Tree of the index; none if there is no index.
    pub index: Option<String>,
    /// Settings that belong to the repository and not to the machine: remotes, and what branches follow.
    pub config: Vec<(String, String)>,
}

/// What a machine had in a repository before, the newest last: who has one of these has nothing that it does not know of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// Of each ref.
    #[serde(default)]
    pub refs: BTreeMap<String, Vec<String>>,
    /// Of HEAD.
    #[serde(default)]
    pub head: Vec<String>,
    /// Of the index.
    #[serde(default)]
    pub index: Vec<String>,
    /// Of the stashes: their commits, one list after the other.
    #[serde(default)]
    pub stash: Vec<Vec<String>>,
}

/// So many values of each are remembered.
const VALUES: usize = 8;

fn push<T: PartialEq>(list: &mut Vec<T>, value: T) {
    if list.last() != Some(&value) {
        list.retain(|v| *v != value);
        list.push(value);
        if list.len() > VALUES {
            list.remove(0);
        }
    }
}

impl Past {
    /// Adds what is there now.
    pub(super) fn note(&mut self, now: &State) {
        for (name, id) in &now.refs {
            push(self.refs.entry(name.clone()).or_default(), id.clone());
        }
        push(&mut self.head, now.head.clone());
        if let Some(tree) = &now.index {
            push(&mut self.index, tree.clone());
        }
        push(&mut self.stash, now.stash.iter().map(|(id, _)| id.clone()).collect());
    }
}

/// What a bundle tells of the repository that it was made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// What was in it.
    pub state: State,
    /// What had been in it.
    #[serde(default)]
    pub past: Past,
    /// Files that differed from its index, and the content that they had; empty for one that was missing.
    #[serde(default)]
    pub changed: BTreeMap<String, String>,
}

/// What a look found.
#[derive(Clone, Debug)]
pub enum Looked {
    /// It cannot be carried.
    Refused(Refused),
    /// Not now.
    Busy(Busy),
    /// It can.
    Ready(Box<Repo>),
}

/// Things under way in a repository, by the file that says so.
const UNDER_WAY: [(&str, &str); 8] = [
    ("rebase-merge", "a rebase is under way"),
    ("rebase-apply", "a rebase or am is under way"),
    ("MERGE_HEAD", "a merge is under way"),
    ("CHERRY_PICK_HEAD", "a cherry-pick is under way"),
    ("REVERT_HEAD", "a revert is under way"),
    ("BISECT_LOG", "a bisect is under way"),
    ("sequencer", "a sequence of picks is under way"),
    ("gc.pid", "a collection is under way"),
];

/// Looks whether the repository at `work` can be carried, and whether it is at rest.
pub fn look(work: &Path) -> Result<Looked> {
    let dir = work.join(".git");
    let refused = |why: &str| Ok(Looked::Refused(Refused(why.to_owned())));
    match dir.symlink_metadata() {
        Ok(m) if m.is_dir() => {}
        Ok(m) if m.is_symlink() => return refused("its .git is a link: it belongs to another place"),
        Ok(_) => return refused("its .git is a file: a linked worktree or a submodule belongs to another repository"),
        Err(_) => return refused("there is no .git"),
    }
    let has = |name: &str| dir.join(name).symlink_metadata().is_ok();
    if has("worktrees") && std::fs::read_dir(dir.join("worktrees")).is_ok_and(|mut d| d.next().is_some()) {
        return refused("it has linked worktrees");
    }
    if has("modules") || work.join(".gitmodules").exists() {
        return refused("it has submodules");
    }
    if has("shallow") {
        return refused("it is a shallow clone (git fetch --unshallow makes it whole)");
    }
    if has("objects/info/alternates") {
        return refused("it borrows objects of another repository (git repack -a -d, and remove objects/info/alternates)");
    }
    if has("lfs") {
        return refused("it uses LFS, whose objects are not in it");
    }
    if has("reftable") {
        return refused("its refs are kept as reftable");
    }
    let git = Git::of(&dir, Some(work));
    let config = git.text(&["config", "--local", "--list", "-z"], None).unwrap_or_default();
    for entry in config.split('\0') {
        let (key, value) = entry.split_once('\n').unwrap_or((entry, "true"));
        let why = match key {
            "extensions.partialclone" => "it is a partial clone",
            "extensions.objectformat" if value != "sha1" => "its objects are named by another hash than SHA-1",
            "extensions.refstorage" if value != "files" => "its refs are not kept as files",
            "core.worktree" => "its worktree is elsewhere",
            "core.bare" if value == "true" => "it is bare",
            k if k.starts_with("remote.") && k.ends_with(".promisor") && value == "true" => "it is a partial clone",
            _ => continue,
        };
        return refused(why);
    }
    if git.line(&["config", "--type=bool", "core.sparseCheckout"])?.as_deref() == Some("true") {
        return refused("its checkout is sparse");
    }
    for (name, why) in UNDER_WAY {
        if has(name) {
            return Ok(Looked::Busy(Busy(why.to_owned())));
        }
    }
    if let Some(lock) = lock_in(&dir)? {
        return Ok(Looked::Busy(Busy(format!("{lock} is there: git works in it, or was killed in it"))));
    }
    Ok(Looked::Ready(Box::new(Repo { work: work.to_owned(), git })))
}

/// The name of a lock file of git.
fn lock_in(dir: &Path) -> Result<Option<String>> {
    let found = find_lock(dir, 0, &|_| true)?;
    Ok(found.and_then(|p| p.file_name().map(|n| n.to_string_lossy().into_owned())))
}

/// A lock file of git somewhere below that is `wanted`; objects are not looked through.
pub(super) fn find_lock(dir: &Path, depth: usize, wanted: &dyn Fn(&Path) -> bool) -> Result<Option<PathBuf>> {
    for e in std::fs::read_dir(dir).doing(|| format!("listing {}", dir.display()))? {
        let e = e.doing(|| format!("listing {}", dir.display()))?;
        let name = e.file_name().to_string_lossy().into_owned();
        if name.ends_with(".lock") && wanted(&e.path()) {
            return Ok(Some(e.path()));
        }
        let below = depth > 0 || name == "refs" || name == "logs";
        if below
            && e.file_type().is_ok_and(|t| t.is_dir())
            && let Some(found) = find_lock(&e.path(), depth + 1, wanted)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

impl Repo {
    /// What is in it now. `index`: a copy of its index file, of which the tree was written, is made by `pack`.
    pub(super) fn state(&self, index: Option<String>) -> Result<State> {
        Ok(State { head: self.head()?, refs: self.refs("")?, stash: self.stash()?, index, config: self.config()? })
    }

    pub(super) fn head(&self) -> Result<String> {
        if let Some(name) = self.git.line(&["symbolic-ref", "-q", "HEAD"])? {
            return Ok(name);
        }
        Ok(self.git.line(&["rev-parse", "-q", "--verify", "HEAD"])?.unwrap_or_default())
    }

    /// Refs below a prefix, which is left out of their names; without one all but ours and the stash.
    pub(super) fn refs(&self, prefix: &str) -> Result<BTreeMap<String, String>> {
        let text = self.git.text(&["for-each-ref", "--format=%(objectname) %(symref)%00%(refname)"], None)?;
        let mut out = BTreeMap::new();
        for line in text.lines() {
            let Some((value, name)) = line.split_once('\0') else { continue };
            let (id, symbolic) = value.split_once(' ').unwrap_or((value, ""));
            let wanted = if prefix.is_empty() { !name.starts_with(OURS) && name != "refs/stash" } else { name.starts_with(prefix) };
            // `refs/remotes/origin/HEAD` and the like follow another ref.
            if wanted && symbolic.is_empty() {
                out.insert(name[prefix.len()..].to_owned(), id.to_owned());
            }
        }
        Ok(out)
    }

    pub(super) fn stash(&self) -> Result<Vec<(String, String)>> {
        if !self.git.ask(&["show-ref", "-q", "--verify", "refs/stash"])? {
            return Ok(Vec::new());
        }
        let text = self.git.text(&["log", "-g", "--format=%H %gs", "refs/stash", "--"], None)?;
        Ok(text.lines().filter_map(|l| l.split_once(' ')).map(|(id, m)| (id.to_owned(), m.to_owned())).collect())
    }

    fn config(&self) -> Result<Vec<(String, String)>> {
        let text = self.git.text(&["config", "--local", "--list", "-z"], None)?;
        let entries = text.split('\0').filter_map(|e| e.split_once('\n'));
        let wanted = |key: &str| {
            let remote = key.starts_with("remote.") && (key.ends_with(".url") || key.ends_with(".fetch"));
            remote || key.starts_with("branch.") && (key.ends_with(".remote") || key.ends_with(".merge"))
        };
        Ok(entries.filter(|(k, _)| wanted(k)).map(|(k, v)| (k.to_owned(), without_secret(v))).collect())
    }
}

/// A URL without the name and password in it.
fn without_secret(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match host.rsplit_once('@') {
        // The user of ssh is part of the address.
        Some((user, host)) if scheme.starts_with("http") || user.contains(':') => format!("{scheme}://{host}{path}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_travels() {
        for (url, want) in [
            ("https://u:token@host/x.git", "https://host/x.git"),
            ("https://token@host:8080/x", "https://host:8080/x"),
            ("ssh://git@host/x", "ssh://git@host/x"),
            ("ssh://git:pw@host/x", "ssh://host/x"),
            ("git@host:x/y.git", "git@host:x/y.git"),
            ("/srv/a@b", "/srv/a@b"),
            ("https://host/a@b", "https://host/a@b"),
        ] {
            assert_eq!(without_secret(url), want);
        }
    }
}
