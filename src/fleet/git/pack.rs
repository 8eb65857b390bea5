//! Making a bundle of everything in a repository.
//!
//! In a bare repository of our own that borrows the user's objects: there the index becomes a tree and a commit, stashes
//! become refs, and nothing is written to the user's. The bundle is whole each time; its chunks are cut by content, so that
//! the store gets what is new in it.

use super::files::Files;
use super::index::Index;
use super::memory::Memory;
use super::process::Git;
use super::repo::{Busy, OURS, Repo, Told};
use crate::error::{Error, IoContext, Kind, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Where HEAD's commit is in a bundle, if it names one itself.
pub(super) const HEAD: &str = "refs/tcfs-head";
/// Where the index is.
pub(super) const INDEX: &str = "refs/tcfs-index";
/// Where stashes are, by number.
pub(super) const STASH: &str = "refs/tcfs-stash/";
/// Where commits are that were published, or came from others, and that none of its refs names.
pub(super) const KEPT_THERE: &str = "refs/tcfs-kept/";
/// Where it is told what files look like: a commit of one file of this name.
pub(super) const FILES: &str = "refs/tcfs-files";
/// That name.
pub(super) const FILES_NAME: &str = "files";

/// Changed files that are told of.
const CHANGED: usize = 1000;

/// A bundle.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Packed {
    /// The file.
    pub bundle: PathBuf,
    /// What is told with it.
    pub told: Told,
}

/// What packing came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Packing {
    /// A bundle.
    Done(Box<Packed>),
    /// There is nothing in the repository yet.
    Empty,
    /// What is in it is what this machine last published or took.
    Known,
    /// Not now.
    Busy(Busy),
}

/// Makes a bundle in `scratch`, an empty directory, unless the machine's `memory` says that nothing is new.
pub fn pack(repo: &Repo, scratch: &Path) -> Result<Packing> {
    let own = borrowing(repo, scratch)?;
    let index = match index_tree(repo, &own, scratch)? {
        Ok(i) => i,
        Err(busy) => return Ok(Packing::Busy(busy)),
    };
    let state = repo.state(index.clone())?;
    let mut memory = Memory::load(repo)?;
    if memory.base.as_ref() == Some(&state) {
        return Ok(Packing::Known);
    }
    let mut lines = String::new();
    let mut line = |name: &str, id: &str| lines += &format!("create {name} {id}\n");
    state.refs.iter().for_each(|(name, id)| line(name, id));
    if !state.head.starts_with("refs/") && !state.head.is_empty() {
        line(HEAD, &state.head);
    }
    for (n, (id, _)) in state.stash.iter().enumerate() {
        line(&format!("{STASH}{n}"), id);
    }
    if let Some(tree) = &index {
        line(INDEX, own.text(&["commit-tree", tree, "-m", "index"], None)?.trim());
    }
    if lines.is_empty() {
        return Ok(Packing::Empty);
    }
    // This bundle takes the place of those that it knows of: what they brought and is not joined has to be in it.
    let ours = repo.refs(OURS)?;
    let kept: BTreeSet<&String> = ours.iter().filter(|(n, _)| !n.contains("/arriving/")).map(|(_, id)| id).collect();
    for id in kept {
        lines += &format!("create {KEPT_THERE}{} {id}\n", &id[..12]);
    }
    let changed = changed(repo, &own, scratch)?;
    // After that git has looked at all of them.
    let files = Files::of(Index::read(&scratch.join("index"))?.as_ref()).but(&changed).to_text();
    let blob = own.text(&["hash-object", "-w", "--stdin"], Some(&files))?;
    let tree = own.text(&["mktree"], Some(&format!("100644 blob {}\t{FILES_NAME}\n", blob.trim())))?;
    lines += &format!("create {FILES} {}\n", own.text(&["commit-tree", tree.trim(), "-m", "files"], None)?.trim());
    own.text(&["update-ref", "--stdin"], Some(&lines))?;
    let bundle = scratch.join("bundle");
    let to = bundle.to_str().ok_or_else(|| Error::new(Kind::NotUtf8, format!("{} is not UTF-8", scratch.display())))?;
    own.run(&["bundle", "create", "-q", to, "--all"])?;
    // What git did meanwhile is in the next one, whole.
    if repo.state(index)? != state {
        return Ok(Packing::Busy(Busy("it changed while it was read".to_owned())));
    }
    memory.past.note(&state);
    Ok(Packing::Done(Box::new(Packed { bundle, told: Told { state, past: memory.past, changed } })))
}

/// Files that differ from the index, with their content as git would have it; empty for one that is missing. At most
/// [`CHANGED`]: of more nothing is told, and a branch that was committed among them does not go forward elsewhere by itself.
fn changed(repo: &Repo, own: &Git, scratch: &Path) -> Result<BTreeMap<String, String>> {
    let mut git = own.clone().with("GIT_INDEX_FILE", &scratch.join("index"));
    git.work = Some(repo.work.clone());
    if !scratch.join("index").exists() {
        return Ok(BTreeMap::new());
    }
    // Says that files differ, which is what is asked.
    git.output(&["update-index", "-q", "--refresh", "--force-write-index"], None)?;
    let text = git.text(&["diff-files", "-z", "--name-only", "--no-renames"], None)?;
    let paths: Vec<&str> = text.split('\0').filter(|p| !p.is_empty()).collect();
    if paths.len() > CHANGED {
        return Ok(BTreeMap::new());
    }
    paths.into_iter().map(|p| Ok((p.to_owned(), content_of(&git, &repo.work, p, &[])?.unwrap_or_default()))).collect()
}

/// The content of a file of the worktree as git would name it; none if there is no file. It is read, unless one of `known`
/// knows it by its looks.
pub(super) fn content_of(git: &Git, work: &Path, path: &str, known: &[&Files]) -> Result<Option<String>> {
    let at = work.join(path);
    let meta = std::fs::symlink_metadata(&at);
    if let Ok(m) = &meta
        && let Some(id) = known.iter().find_map(|k| k.content(path, m))
    {
        return Ok(Some(id.clone()));
    }
    Ok(match meta {
        Err(_) => None,
        Ok(m) if m.is_dir() => None,
        Ok(m) if m.is_symlink() => {
            let target = std::fs::read_link(&at).doing(|| format!("reading the link {}", at.display()))?;
            Some(git.text(&["hash-object", "--no-filters", "--stdin"], Some(&target.to_string_lossy()))?.trim().to_owned())
        }
        Ok(_) => Some(git.text(&["hash-object", "--", path], None)?.trim().to_owned()),
    })
}

/// A bare repository that has all objects of another one.
pub(super) fn borrowing(repo: &Repo, scratch: &Path) -> Result<Git> {
    let dir = scratch.join("repo.git");
    let doing = || format!("making {}", dir.display());
    std::fs::create_dir_all(dir.join("objects/info")).doing(doing)?;
    std::fs::create_dir_all(dir.join("refs")).doing(doing)?;
    std::fs::write(dir.join("HEAD"), "ref: refs/heads/tcfs-none\n").doing(doing)?;
    std::fs::write(dir.join("config"), "[core]\n\trepositoryformatversion = 0\n\tbare = true\n").doing(doing)?;
    let objects = repo.git.dir.join("objects");
    std::fs::write(dir.join("objects/info/alternates"), format!("{}\n", objects.display())).doing(doing)?;
    Ok(Git::of(&dir, None))
}

/// The tree that a commit of the index would have; none without an index.
pub(super) fn index_tree(repo: &Repo, own: &Git, scratch: &Path) -> Result<std::result::Result<Option<String>, Busy>> {
    let (from, copy) = (repo.git.dir.join("index"), scratch.join("index"));
    // With its time: what was written since may have changed unseen, and git looks at it.
    let copied = || {
        std::fs::copy(&from, &copy)?;
        File::options().write(true).open(&copy)?.set_modified(from.metadata()?.modified()?)
    };
    match copied() {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Ok(None)),
        Err(e) => return Err(Error::io("copying the index of a repository", e)),
    }
    let git = own.clone().with("GIT_INDEX_FILE", &copy);
    if !git.text(&["ls-files", "-u"], None)?.is_empty() {
        return Ok(Err(Busy("its index has unmerged paths".to_owned())));
    }
    Ok(Ok(Some(git.text(&["write-tree"], None)?.trim().to_owned())))
}
