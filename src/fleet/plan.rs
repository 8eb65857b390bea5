//! What of the outbox goes out next, and together: a pure function of its rows.
//!
//! Must: rows that belong together (one coalesced path) are in one group; groups keep their order. Must: a base never
//! names a token that has no root: a version left out hands its own base on.
//! Not here: cutting (`cuts`), what is ready (`publish`), the rules of coalescing (`model::coalesce`).

use super::tokens::Stands;
use crate::model::coalesce::coalesce;
use crate::model::version::Kind;
use crate::model::{FileContent, Hash, RelPath, VClock, Version};
use crate::state::rows::Sealed;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// A row of the outbox.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) seq: u64,
    pub(super) sealed: Sealed,
}

/// Rows that go out in one object.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    /// Indexes of the rows.
    pub(super) rows: Range<usize>,
    /// What is left of them.
    pub(super) versions: Vec<Version>,
    /// One file, and nothing depends on it: others may go out before it.
    pub(super) passable: bool,
    /// Paths nobody ever heard of, now gone.
    pub(super) forget: Vec<RelPath>,
    /// Tombstones whose target was forgotten: as it was, as it is.
    pub(super) repointed: Vec<(Version, Version)>,
}

/// The plan for a window of rows.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) rows: Vec<Row>,
    pub(super) groups: Vec<Group>,
    /// No row of the outbox lies beyond.
    pub(super) whole: bool,
    /// Token → inode and count of changes.
    pub(super) sources: HashMap<Hash, (u64, u64)>,
    /// Tokens of versions left out, with what those were based on.
    dropped: HashMap<(RelPath, Hash), Option<Hash>>,
}

/// What the rows of the window say about who has heard of a path.
#[derive(Default)]
struct Pending {
    clock: VClock,
    /// Lowest counter pending, by actor.
    first: HashMap<String, u64>,
}

/// The content of a file or bundle.
pub(super) fn content(v: &Version) -> Option<&FileContent> {
    match &v.kind {
        Kind::File(c) | Kind::Bundle { content: c, .. } => Some(c),
        _ => None,
    }
}

/// The same, to be changed.
pub(super) fn content_mut(v: &mut Version) -> Option<&mut FileContent> {
    match &mut v.kind {
        Kind::File(c) | Kind::Bundle { content: c, .. } => Some(c),
        _ => None,
    }
}

/// The token of a version whose bytes are not cut.
pub(super) fn token(v: &Version) -> Option<Hash> {
    content(v).filter(|c| c.manifest.is_zero()).map(|c| c.root)
}

impl Plan {
    /// Plans rows, which begin at the oldest of the outbox. `heads` gives the merged clock of a path's entry here,
    /// `stands` what a token stands for whose row has gone.
    pub(super) fn new(mut rows: Vec<Row>, heads: &dyn Fn(&RelPath) -> VClock, stands: &dyn Fn(&Hash) -> Option<Stands>) -> Plan {
        let mut sources = HashMap::new();
        for row in &mut rows {
            sources.extend(row.sealed.files.iter().map(|(t, ino, wgen)| (*t, (*ino, *wgen))));
            for v in &mut row.sealed.versions {
                if let Some(t) = token(v)
                    && let Some(Stands::Content(known)) = stands(&t)
                    && let Some(c) = content_mut(v)
                {
                    *c = known;
                }
            }
        }
        let mut pending: HashMap<&RelPath, Pending> = HashMap::new();
        for v in rows.iter().flat_map(|r| &r.sealed.versions) {
            let p = pending.entry(&v.path).or_default();
            p.clock.merge(&v.vclock);
            let n = v.vclock.get(&v.actor);
            p.first.entry(v.actor.clone()).and_modify(|m| *m = (*m).min(n)).or_insert(n);
        }
        // Counters are contiguous: what lies before the first pending one has left this device.
        let heard_of = |path: &RelPath| {
            let mut all = heads(path);
            let first = pending.get(path).map(|p| {
                all.merge(&p.clock);
                &p.first
            });
            all.iter().any(|(actor, _)| first.and_then(|f| f.get(actor)).is_none_or(|n| *n > 1))
        };
        let sealed: Vec<Vec<Version>> = rows.iter().map(|r| r.sealed.versions.clone()).collect();
        let done = coalesce(&sealed, &heard_of);

        let mut groups: Vec<Group> =
            done.batches.into_iter().map(|b| Group { rows: b.joins, versions: b.versions, ..Group::default() }).collect();
        let mut group_of: HashMap<&RelPath, usize> = HashMap::new();
        for (g, group) in groups.iter().enumerate() {
            for v in sealed[group.rows.clone()].iter().flatten() {
                group_of.insert(&v.path, g);
            }
        }
        for path in done.forget {
            if let Some(g) = group_of.get(&path) {
                groups[*g].forget.push(path);
            }
        }
        for pair in done.repointed {
            if let Some(g) = group_of.get(&pair.0.path) {
                groups[*g].repointed.push(pair);
            }
        }
        let kept: HashSet<(&RelPath, &VClock)> = groups.iter().flat_map(|g| &g.versions).map(|v| (&v.path, &v.vclock)).collect();
        let mut dropped = HashMap::new();
        for v in sealed.iter().flatten().filter(|v| !kept.contains(&(&v.path, &v.vclock))) {
            if let Some(t) = token(v) {
                // The first one with a token is the one that wrote the bytes.
                dropped.entry((v.path.clone(), t)).or_insert(v.base);
            }
        }
        let passable = passable(&groups);
        for (g, p) in groups.iter_mut().zip(passable) {
            g.passable = p;
        }
        let mut plan = Plan { rows: Vec::new(), groups, whole: true, sources, dropped };
        plan.settle_bases(stands);
        plan.rows = rows;
        plan
    }

    /// Bases of files are final now; those of tombstones when what they removed is cut ([`Plan::base`]).
    fn settle_bases(&mut self, stands: &dyn Fn(&Hash) -> Option<Stands>) {
        let mut groups = std::mem::take(&mut self.groups);
        for v in groups.iter_mut().flat_map(|g| &mut g.versions).filter(|v| !v.is_tombstone()) {
            v.base = self.base(v, &|_| None, stands);
        }
        self.groups = groups;
    }

    /// What a version's base is once `cut` knows the roots of tokens.
    pub(super) fn base(&self, v: &Version, cut: &dyn Fn(&Hash) -> Option<Hash>, stands: &dyn Fn(&Hash) -> Option<Stands>) -> Option<Hash> {
        let mut base = v.base;
        for _ in 0..=self.dropped.len() + 1 {
            let b = base?;
            // A tombstone tells what was removed, published or not: heal looks for it. Others tell what they replace.
            if v.is_tombstone()
                && let Some(root) = cut(&b)
            {
                return Some(root);
            }
            base = match self.dropped.get(&(v.path.clone(), b)) {
                Some(before) => *before,
                None => match cut(&b).map(|r| Stands::Base(Some(r))).or_else(|| stands(&b)) {
                    Some(known @ Stands::Content(_)) => return known.as_base(),
                    Some(Stands::Base(before)) if before != base => before,
                    _ => return base,
                },
            };
        }
        base
    }

    /// The rows of a group.
    pub(super) fn rows_of(&self, g: &Group) -> &[Row] {
        &self.rows[g.rows.clone()]
    }
}

/// The `.git` that a path lies in, and whether it is one of its objects.
fn in_repository(path: &RelPath) -> Option<(&str, bool)> {
    let (at, below) = match path.as_str().split_once("/.git/") {
        Some(parts) => parts,
        None => ("", path.as_str().strip_prefix(".git/")?),
    };
    Some((at, below.starts_with("objects/")))
}

/// For each group, whether it is one file and no other group speaks of its path or its bytes. Nor is it, of a repository
/// that is carried file by file, an object that a ref may name which comes after it.
fn passable(groups: &[Group]) -> Vec<bool> {
    let mut targets: HashSet<&RelPath> = HashSet::new();
    let mut uses: HashMap<Hash, usize> = HashMap::new();
    for v in groups.iter().flat_map(|g| &g.versions) {
        targets.extend(&v.moved_to);
        for t in token(v).into_iter().chain(v.base) {
            *uses.entry(t).or_default() += 1;
        }
    }
    let alone = |v: &Version| !targets.contains(&v.path) && token(v).is_none_or(|t| uses.get(&t) == Some(&1));
    let mut named: HashSet<&str> = HashSet::new();
    let mut out: Vec<bool> = groups
        .iter()
        .rev()
        .map(|g| {
            let object = g.versions.iter().filter_map(|v| in_repository(&v.path)).any(|(at, object)| object && named.contains(at));
            named.extend(g.versions.iter().filter_map(|v| in_repository(&v.path)).filter(|(_, object)| !object).map(|(at, _)| at));
            match g.versions.as_slice() {
                [v] => matches!(v.kind, Kind::File(_)) && alone(v) && !object,
                _ => false,
            }
        })
        .collect();
    out.reverse();
    out
}
