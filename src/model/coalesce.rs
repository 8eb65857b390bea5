//! Coalescing: what of a long outbox has to be published.
//!
//! Must: batches are joined, never taken apart: everything sealed between the first and the last version of a path
//! goes out in one log object, which peers apply in one transaction, so a peer sees only states this device was in,
//! in order. Left out are only versions that a later one of the same object covers, and tombstones of paths made
//! within the object and never heard of in any log. (The tombstone of a moved directory that never had a version of
//! its own stays: by it, peers learn that what they made inside must follow.)
//! Not here: which batches are ready (uploads, the bulk lane), fixing a body before its first PUT (`fleet`).

use super::path::RelPath;
use super::version::Version;
use std::collections::{BTreeMap, HashMap, HashSet};

/// What is to be published, and what follows from it for the replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coalesced {
    /// One log object each, in order; one without versions is not published, its sealed batches just go.
    pub batches: Vec<Batch>,
    /// Paths made and removed before anybody heard of them: their entries go.
    pub forget: Vec<RelPath>,
    /// Tombstones whose `moved_to` named a forgotten path, and what stands in their place now, in the replica too.
    pub repointed: Vec<(Version, Version)>,
}

/// One log object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Which sealed batches it joins: indexes into the input, contiguous.
    pub joins: std::ops::Range<usize>,
    /// Its records; may be empty when all it would say is undone within it.
    pub versions: Vec<Version>,
}

/// Coalesces sealed batches, oldest first. The caller puts all of the result in force in one transaction (outbox rows
/// replaced, entries forgotten, tombstones re-pointed): a forgotten path's counters begin anew, so none of its old
/// versions may stay queued.
/// `published` says whether any log, or a batch already fixed for one, has a
/// record of the path.
pub fn coalesce(sealed: &[Vec<Version>], published: &dyn Fn(&RelPath) -> bool) -> Coalesced {
    let mut out = Coalesced::default();
    for joins in spans(sealed) {
        let versions = match &sealed[joins.clone()] {
            [one] if !has_repeats(one) => one.clone(),
            several => join(several, published, &mut out),
        };
        out.batches.push(Batch { joins, versions });
    }
    out
}

fn has_repeats(batch: &[Version]) -> bool {
    let mut seen = HashSet::new();
    !batch.iter().all(|v| seen.insert(&v.path))
}

/// Ranges of batches that have to stay together: from the first to the last version of each path, overlaps united.
fn spans(sealed: &[Vec<Version>]) -> Vec<std::ops::Range<usize>> {
    let mut last: HashMap<&RelPath, usize> = HashMap::new();
    for (i, batch) in sealed.iter().enumerate() {
        last.extend(batch.iter().map(|v| (&v.path, i)));
    }
    let mut spans = Vec::new();
    let (mut start, mut end) = (0, 0);
    for (i, batch) in sealed.iter().enumerate() {
        end = batch.iter().filter_map(|v| last.get(&v.path)).fold(end.max(i), |end, l| end.max(*l));
        if end == i {
            spans.push(start..i + 1);
            start = i + 1;
        }
    }
    spans
}

fn join(batches: &[Vec<Version>], published: &dyn Fn(&RelPath) -> bool, out: &mut Coalesced) -> Vec<Version> {
    let mut of_path: HashMap<&RelPath, Vec<&Version>> = HashMap::new();
    for v in batches.iter().flatten() {
        of_path.entry(&v.path).or_default().push(v);
    }
    let covered = |v: &Version| of_path[&v.path].iter().any(|w| w.vclock.covers(&v.vclock));
    let kept: Vec<&Version> = batches.iter().flatten().filter(|v| !covered(v)).collect();
    let live: HashSet<&RelPath> = kept.iter().filter(|v| !v.is_tombstone()).map(|v| &v.path).collect();
    let made_here = |v: &Version| of_path[&v.path].iter().any(|w| !w.is_tombstone());
    let unheard = kept.iter().filter(|v| v.is_tombstone() && made_here(v) && !published(&v.path));
    let gone: BTreeMap<&RelPath, Option<&RelPath>> = unheard.map(|v| (&v.path, v.moved_to.as_ref())).collect();
    let mut forgotten = HashSet::new();
    let mut versions = Vec::with_capacity(kept.len());
    for v in kept {
        if v.is_tombstone() && gone.contains_key(&v.path) && !live.contains(&v.path) {
            if forgotten.insert(&v.path) {
                out.forget.push(v.path.clone());
            }
            continue;
        }
        let target = v.moved_to.as_ref().filter(|t| v.is_tombstone() && gone.contains_key(t));
        let Some(target) = target else {
            versions.push(v.clone());
            continue;
        };
        let end = follow(target, &gone).filter(|t| *t != &v.path);
        let new = Version { moved_to: end.cloned(), ..v.clone() };
        out.repointed.push((v.clone(), new.clone()));
        versions.push(new);
    }
    versions
}

/// Where what was moved to `path` went in the end; none if it was removed.
fn follow<'a>(path: &'a RelPath, gone: &BTreeMap<&'a RelPath, Option<&'a RelPath>>) -> Option<&'a RelPath> {
    let mut seen = HashSet::new();
    let mut at = Some(path);
    while let Some(p) = at
        && let Some(next) = gone.get(p)
        && seen.insert(p)
    {
        at = *next;
    }
    at
}
