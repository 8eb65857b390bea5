//! An entry: the register of one path, a set of versions none of which covers another.
//!
//! Must: merging is commutative, associative and idempotent, so that devices which have applied the same records
//! are in the same state whatever order they came in. Must: nothing leaves an entry but what a later version covers.
//! Not here: which heads are shown (`view`), what an operation writes (`ops`).

use super::vclock::VClock;
use super::version::Version;
use serde::{Deserialize, Serialize};

/// The heads of one path in [`Version::precedence`] order. Tombstones are heads like others and stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// In canonical order; change them only through [`Entry::merge`] and [`Entry::replace`].
    pub heads: Vec<Version>,
}

impl Entry {
    /// An entry without heads: a path nobody has ever written.
    pub fn new() -> Self {
        Self::default()
    }

    /// The entry of these versions, whatever their order and whichever cover others.
    pub fn of(versions: impl IntoIterator<Item = Version>) -> Self {
        let mut e = Entry::new();
        for v in versions {
            e.merge(v);
        }
        e
    }

    /// Union with `v`, minus every version that another one covers. Says whether anything changed.
    ///
    /// Equal clocks with differing content (a machine that was rolled back) stay two heads.
    pub fn merge(&mut self, v: Version) -> bool {
        if self.heads.iter().any(|h| *h == v || h.vclock.covers(&v.vclock)) {
            return false;
        }
        self.heads.retain(|h| !v.vclock.covers(&h.vclock));
        let at = self.heads.partition_point(|h| h.precedence(&v).is_lt());
        self.heads.insert(at, v);
        true
    }

    /// Merges every head of `other`. Says whether anything changed.
    pub fn merge_entry(&mut self, other: &Entry) -> bool {
        other.heads.iter().fold(false, |changed, v| self.merge(v.clone()) | changed)
    }

    /// Puts `new` in the place of the head `old`: for this device's own versions that nobody else has seen (cut at
    /// last, re-pointed, re-issued under another id). Says whether `old` was a head.
    pub fn replace(&mut self, old: &Version, new: Version) -> bool {
        let Some(i) = self.heads.iter().position(|h| h == old) else { return false };
        self.heads.remove(i);
        self.merge(new);
        true
    }

    /// The same for each head of which `change` has another form. Says whether there was one.
    pub fn change(&mut self, change: impl Fn(&Version) -> Option<Version>) -> bool {
        let pairs: Vec<(Version, Version)> = self.heads.iter().filter_map(|h| Some((h.clone(), change(h)?))).collect();
        let any = !pairs.is_empty();
        for (old, new) in pairs {
            self.replace(&old, new);
        }
        any
    }

    /// Heads that are not tombstones, in order.
    pub fn live(&self) -> impl Iterator<Item = &Version> {
        self.heads.iter().filter(|v| !v.is_tombstone())
    }

    /// Tombstone heads, in order.
    pub fn tombstones(&self) -> impl Iterator<Item = &Version> {
        self.heads.iter().filter(|v| v.is_tombstone())
    }

    /// Whether any head is live.
    pub fn is_live(&self) -> bool {
        self.live().next().is_some()
    }

    /// Whether there is no head at all.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Merge of the clocks of all heads: everything that was ever written here and is known.
    pub fn clock(&self) -> VClock {
        merged(&self.heads)
    }
}

/// Merge of the clocks of some versions.
pub fn merged<'a>(versions: impl IntoIterator<Item = &'a Version>) -> VClock {
    let mut clock = VClock::new();
    for v in versions {
        clock.merge(&v.vclock);
    }
    clock
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, RelPath};

    fn version(id: &str, clock: &[(&str, u64)], at: i64) -> Version {
        let vclock: VClock = clock.iter().map(|(a, n)| (*a, *n)).collect();
        Version {
            v: 1,
            path: RelPath::parse("f").unwrap(),
            actor: id.into(),
            wrote: vclock.clone(),
            vclock,
            place: None,
            device_name: id.into(),
            device_id: id.into(),
            written_at: at,
            kind: Kind::Symlink { target: format!("{id}{at}") },
            mode: 0o120_777,
            mtime: (0, 0),
            xattrs: Default::default(),
            base: None,
            moved_to: None,
            healed_from: vec![],
        }
    }

    #[test]
    fn a_later_version_replaces_and_an_older_one_changes_nothing() {
        let (old, new) = (version("a", &[("a", 1)], 0), version("b", &[("a", 1), ("b", 1)], 0));
        let mut e = Entry::of([old.clone()]);
        assert!(e.merge(new.clone()));
        assert_eq!(e.heads, vec![new]);
        assert!(!e.merge(old));
    }

    #[test]
    fn equal_clocks_with_other_content_stay_two_heads() {
        let (a, b) = (version("a", &[("a", 1)], 0), version("a", &[("a", 1)], 1));
        let e = Entry::of([b.clone(), a.clone()]);
        assert_eq!(e.heads.len(), 2);
        assert_eq!(e, Entry::of([a, b]));
    }
}
