//! Heal: what this device wrote to a path follows it when another device has moved the path away meanwhile.
//!
//! Must: runs when a tombstone with `moved_to` is applied, in that transaction and never later, and when a file is
//! sealed whose path has such a tombstone by then. Must: only this device's own heads are re-issued, so no two devices
//! do the same twice. Must end: a version never goes back to a path it was healed from, nor to one that its device
//! has moved it from meanwhile.
//! Not here: who calls it (`fleet`), the move itself (`ops`).

use super::entry::{Entry, merged};
use super::ops::{Accepted, Attrs, Author, Draft};
use super::path::RelPath;
use super::version::Version;
use crate::error::Result;
use std::collections::{BTreeMap, HashSet};

/// The tree as heal reads it.
pub trait Lookup {
    /// The entry of a path, if anybody ever wrote it.
    fn entry(&self, path: &RelPath) -> Option<Entry>;
    /// Paths of all entries below `dir`, in any order.
    fn below(&self, dir: &RelPath) -> Vec<RelPath>;
}

/// The versions that let this device's own work follow the move `tombstone`, in pairs: at the target, and the
/// tombstone of where it was. To be merged in order and sealed as one batch. Empty if there is nothing to do.
///
/// Errors: a counter at its end ([`super::ops::stamp`]).
pub fn heal(tombstone: &Version, lookup: &dyn Lookup, author: &Author) -> Result<Vec<Version>> {
    let Some(target) = tombstone.moved_to.as_ref().filter(|_| tombstone.is_tombstone()) else { return Ok(Vec::new()) };
    let mut tree = Overlay { lookup, changed: BTreeMap::new() };
    let here = tree.entry(&tombstone.path);
    if !here.heads.contains(tombstone) {
        return Ok(Vec::new());
    }
    let mut todo: Vec<(Version, RelPath)> = Vec::new();
    let own_on_top = |h: &&Version| h.vclock != tombstone.vclock && continues(h, tombstone, &author.device_id);
    todo.extend(here.live().filter(own_on_top).map(|h| (h.clone(), target.clone())));
    if tombstone.base.is_none() {
        todo.extend(made_inside(tombstone, target, &tree, &author.device_id));
    }
    let mut out = Vec::with_capacity(2 * todo.len());
    for (head, to) in todo {
        let Some(to) = follow(&head, to, &tree) else { continue };
        let there = tree.entry(&to);
        // This device has just moved it here from there; two who swap names would undo each other's move.
        if there.tombstones().any(|t| t.device_id == author.device_id && t.moved_to.as_ref() == Some(&head.path)) {
            continue;
        }
        let same = |x: &&Version| x.is_tombstone() || tombstone.base.is_some_and(|b| x.content_id() == b) || x.same_content(&head);
        let accepted = Accepted { clock: merged(there.heads.iter().filter(same)), base: tombstone.base, place: None };
        let mut moved = Draft::of(head.kind.clone(), Attrs::of(&head), accepted).stamped(&to, &there, author)?;
        moved.healed_from = head.healed_from.clone();
        moved.healed_from.push(head.path.clone());
        tree.merge(moved.clone());

        let here = tree.entry(&head.path);
        let gone = Draft::tombstone(here.tombstones().chain([&head]), Some(&head)).moved_to(&to);
        let gone = gone.stamped(&head.path, &here, author)?;
        tree.merge(gone.clone());
        out.extend([moved, gone]);
    }
    Ok(out)
}

/// Whether `head` is this device's and is the version that was moved plus only this device's own changes.
fn continues(head: &Version, tombstone: &Version, my_id: &str) -> bool {
    let mine = |actor: &str| actor == my_id || actor.strip_prefix(my_id).is_some_and(|rest| rest.starts_with('.'));
    head.device_id == my_id
        && !tombstone.wrote.is_empty()
        && head.vclock.ge(&tombstone.wrote)
        && head.vclock.iter().all(|(actor, n)| mine(actor) || tombstone.wrote.get(actor) == n)
}

/// Own files below a moved directory that the mover did not know: they have no tombstone. The nearest moved ancestor
/// takes them.
fn made_inside(tombstone: &Version, target: &RelPath, tree: &Overlay, my_id: &str) -> Vec<(Version, RelPath)> {
    let moved_away = |dir: &RelPath| tree.entry(dir).tombstones().any(|t| t.moved_to.is_some() && t.base.is_none());
    let mut paths = tree.lookup.below(&tombstone.path);
    paths.sort();
    let mut out = Vec::new();
    for path in paths {
        let entry = tree.entry(&path);
        if entry.tombstones().next().is_some() || !entry.live().any(|h| h.device_id == my_id) {
            continue;
        }
        if path.ancestors().find(moved_away).as_ref() != Some(&tombstone.path) {
            continue;
        }
        if let Some(to) = path.rebase(&tombstone.path, target) {
            out.extend(entry.live().filter(|h| h.device_id == my_id).map(|h| (h.clone(), to.clone())));
        }
    }
    out
}

/// Where to: onwards while the target is itself gone by a move; none if that leads back.
fn follow(head: &Version, mut to: RelPath, tree: &Overlay) -> Option<RelPath> {
    let mut seen = HashSet::from([head.path.clone()]);
    while !seen.contains(&to) {
        let there = tree.entry(&to);
        if there.is_live() {
            break;
        }
        let Some(next) = there.tombstones().find_map(|t| t.moved_to.clone()) else { break };
        seen.insert(std::mem::replace(&mut to, next));
    }
    (to != head.path && !head.healed_from.contains(&to)).then_some(to)
}

/// The tree with what this heal has written so far.
struct Overlay<'a> {
    lookup: &'a dyn Lookup,
    changed: BTreeMap<RelPath, Entry>,
}

impl Overlay<'_> {
    fn entry(&self, path: &RelPath) -> Entry {
        self.changed.get(path).cloned().or_else(|| self.lookup.entry(path)).unwrap_or_default()
    }

    fn merge(&mut self, v: Version) {
        let mut entry = self.entry(&v.path);
        let path = v.path.clone();
        entry.merge(v);
        self.changed.insert(path, entry);
    }
}
