//! Commits that stay reachable whatever becomes of the refs that named them: those that were published, or that came from others.
//!
//! They are under `refs/tcfs/kept/`; one goes when another ref leads to it.

use super::repo::{Repo, State};
use crate::error::Result;
use std::collections::BTreeSet;

/// Where commits are kept that were published and that no ref of the user need name any more.
pub(super) const KEPT: &str = "refs/tcfs/kept/";

/// What has arrived and is not joined: the next bundle of the device takes its place.
const ARRIVING: &str = "--exclude=refs/tcfs/*/arriving/*";

/// The commits that objects lead to, each with what leads to it; others are left out.
fn commits_of<'a>(repo: &Repo, ids: &BTreeSet<&'a String>) -> Result<Vec<(&'a String, String)>> {
    let asked: String = ids.iter().map(|id| format!("{id}^{{commit}}\n")).collect();
    let told = repo.git.text(&["cat-file", "--batch-check=%(objectname)"], Some(&asked))?;
    let found = ids.iter().zip(told.lines()).filter(|(_, l)| !l.ends_with("missing"));
    Ok(found.map(|(id, commit)| (*id, commit.to_owned())).collect())
}

/// Those of commits to which no ref leads that stays; of those that begin with `but_not` none counts.
fn unnamed(repo: &Repo, commits: &[(&String, String)], but_not: Option<&str>) -> Result<BTreeSet<String>> {
    let exclude = but_not.map(|p| format!("--exclude={p}*"));
    let mut args = vec!["rev-list", "--stdin", "--not", ARRIVING];
    args.extend(exclude.as_deref());
    args.push("--all");
    let asked: String = commits.iter().map(|(_, c)| format!("{c}\n")).collect();
    if asked.is_empty() {
        return Ok(BTreeSet::new());
    }
    Ok(repo.git.text(&args, Some(&asked))?.lines().map(str::to_owned).collect())
}

/// Keeps commits reachable that nothing else names.
pub(super) fn keep<'a>(repo: &Repo, ids: impl Iterator<Item = &'a String>) -> Result<()> {
    // A tag, or a commit; anything else is below one.
    let commits = commits_of(repo, &ids.collect())?;
    let alone = unnamed(repo, &commits, None)?;
    let lines: String =
        commits.iter().filter(|(_, c)| alone.contains(c)).map(|(id, _)| format!("update {KEPT}{} {id}\n", &id[..12])).collect();
    if lines.is_empty() { Ok(()) } else { repo.git.text(&["update-ref", "--stdin"], Some(&lines)).map(drop) }
}

/// Keeps the commits of what is published from now on, whatever git does with the refs that name them, a collection at once
/// included. Those of earlier publications stay where nothing else leads to them.
pub(super) fn guard(repo: &Repo, state: &State) -> Result<()> {
    let heads = state.refs.iter().filter(|(n, _)| n.starts_with("refs/heads/")).map(|(_, id)| id);
    let mut ids: BTreeSet<&String> = heads.chain(state.stash.iter().map(|(id, _)| id)).collect();
    if !state.head.starts_with("refs/") && !state.head.is_empty() {
        ids.insert(&state.head);
    }
    let mut lines: String = ids.iter().map(|id| format!("update {KEPT}{} {id}\n", &id[..12])).collect();
    let kept = repo.refs(KEPT)?;
    let commits = commits_of(repo, &kept.values().filter(|id| !ids.contains(id)).collect())?;
    let alone = unnamed(repo, &commits, Some(KEPT))?;
    let named: BTreeSet<&String> = commits.iter().filter(|(_, commit)| !alone.contains(commit)).map(|(id, _)| *id).collect();
    for (name, id) in kept.iter().filter(|(_, id)| named.contains(id)) {
        lines += &format!("delete {KEPT}{name} {id}\n");
    }
    if !lines.is_empty() {
        repo.git.text(&["update-ref", "--stdin"], Some(&lines))?;
    }
    Ok(())
}
