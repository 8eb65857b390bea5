//! A set of byte offsets, kept as disjoint half-open ranges: which bytes are dirty, which are present.
//!
//! Must: ranges never overlap, touch or are empty, so two equal sets have one form.
//! Every call costs O(log n) plus the ranges it removes; a million small writes stay affordable.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// Disjoint, non-touching, half-open ranges of `u64` offsets in ascending order.
///
/// Serialised as pairs (gap since the end of the previous range, length): a few bytes a range where integers are
/// written with a variable length. Reading checks the pairs; overlapping or overflowing input is an error.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// Start → end.
    map: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// The empty set.
    pub fn new() -> Self {
        RangeSet::default()
    }

    /// The set of one range; empty if the range is.
    pub fn of(range: Range<u64>) -> Self {
        let mut s = RangeSet::new();
        s.insert(range);
        s
    }

    /// Adds all offsets of `range`.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        // A range that starts before and reaches (or touches) the new one grows; it is the common case of appending.
        if let Some((&s, e)) = self.map.range_mut(..=start).next_back()
            && *e >= start
        {
            if *e >= end {
                return;
            }
            start = s;
        }
        while let Some((&s, &e)) = self.map.range(start..=end).next() {
            self.map.remove(&s);
            end = end.max(e);
        }
        self.map.insert(start, end);
    }

    /// Takes all offsets of `range` away.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        if let Some((&s, e)) = self.map.range_mut(..range.start).next_back()
            && *e > range.start
        {
            let old_end = *e;
            *e = range.start;
            debug_assert!(s < range.start);
            if old_end > range.end {
                self.map.insert(range.end, old_end);
                return;
            }
        }
        while let Some((&s, &e)) = self.map.range(range.start..range.end).next() {
            self.map.remove(&s);
            if e > range.end {
                self.map.insert(range.end, e);
            }
        }
    }

    /// Takes away everything from `len` on.
    pub fn truncate(&mut self, len: u64) {
        self.remove(len..u64::MAX);
    }

    /// Whether `offset` is in the set.
    pub fn contains(&self, offset: u64) -> bool {
        self.end_of(offset).is_some()
    }

    /// End of the range that holds `offset`, if one does.
    pub fn end_of(&self, offset: u64) -> Option<u64> {
        self.map.range(..=offset).next_back().map(|(_, &e)| e).filter(|&e| e > offset)
    }

    /// Whether every offset of `range` is in the set; true for an empty range.
    pub fn covers(&self, range: Range<u64>) -> bool {
        range.is_empty() || self.end_of(range.start).is_some_and(|e| e >= range.end)
    }

    /// Whether any offset of `range` is in the set; false for an empty range.
    pub fn intersects(&self, range: Range<u64>) -> bool {
        !range.is_empty() && self.map.range(..range.end).next_back().is_some_and(|(_, &e)| e > range.start)
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Range<u64>> + '_ {
        self.map.iter().map(|(&s, &e)| s..e)
    }

    /// The parts of `range` that are in the set, ascending.
    pub fn within(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        // The one range that may begin before, then those that begin inside.
        let first = self.map.range(..range.start).next_back().map(|(&s, &e)| (s, e));
        let rest = self.map.range(range.start..range.end.max(range.start)).map(|(&s, &e)| (s, e));
        first.into_iter().chain(rest).map(move |(s, e)| s.max(range.start)..e.min(range.end)).filter(|r| !r.is_empty())
    }

    /// The parts of `range` that are not in the set, ascending.
    pub fn gaps(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let end = range.end;
        let mut at = range.start;
        let mut inner = self.within(range);
        let mut done = false;
        std::iter::from_fn(move || {
            while !done {
                let gap = match inner.next() {
                    Some(r) => {
                        let gap = at..r.start;
                        at = r.end;
                        gap
                    }
                    None => {
                        done = true;
                        at..end
                    }
                };
                if !gap.is_empty() {
                    return Some(gap);
                }
            }
            None
        })
    }

    /// Number of offsets in the set.
    pub fn total(&self) -> u64 {
        self.map.iter().map(|(s, e)| e - s).sum()
    }

    /// Number of ranges.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether no offset is in the set.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Empties the set.
    pub fn clear(&mut self) {
        self.map.clear();
    }

    /// Adds every range of `other`.
    pub fn extend(&mut self, other: &RangeSet) {
        for r in other.iter() {
            self.insert(r);
        }
    }

    /// One past the highest offset; 0 for the empty set.
    pub fn end(&self) -> u64 {
        self.map.last_key_value().map_or(0, |(_, &e)| e)
    }
}

impl FromIterator<Range<u64>> for RangeSet {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut s = RangeSet::new();
        ranges.into_iter().for_each(|r| s.insert(r));
        s
    }
}

impl fmt::Debug for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Serialize for RangeSet {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut at = 0;
        s.collect_seq(self.iter().map(|r| {
            let pair = (r.start - at, r.end - r.start);
            at = r.end;
            pair
        }))
    }
}

impl<'de> Deserialize<'de> for RangeSet {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let pairs = Vec::<(u64, u64)>::deserialize(d)?;
        let mut set = RangeSet::new();
        let mut at = 0u64;
        for (i, (gap, len)) in pairs.into_iter().enumerate() {
            let start = at.checked_add(gap);
            let end = start.and_then(|s| s.checked_add(len));
            match (start, end) {
                (Some(s), Some(e)) if len > 0 && (gap > 0 || i == 0) => {
                    set.map.insert(s, e);
                    at = e;
                }
                _ => return Err(serde::de::Error::custom(format!("range {i} of a set is empty, touches its neighbour or overflows"))),
            }
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const N: u64 = 64;

    fn bits(s: &RangeSet) -> Vec<bool> {
        (0..N).map(|o| s.contains(o)).collect()
    }

    fn normal(s: &RangeSet) -> bool {
        let v: Vec<_> = s.iter().collect();
        v.iter().all(|r| r.start < r.end) && v.windows(2).all(|w| w[0].end < w[1].start)
    }

    proptest! {
        #[test]
        fn behaves_like_a_bitmap(ops in proptest::collection::vec((0u8..3, 0..N, 0..N), 1..40), q in (0..N, 0..N)) {
            let mut set = RangeSet::new();
            let mut map = vec![false; N as usize];
            for (op, a, b) in ops {
                let r = a.min(b)..a.max(b);
                match op {
                    0 => { set.insert(r.clone()); map[r.start as usize..r.end as usize].fill(true); }
                    1 => { set.remove(r.clone()); map[r.start as usize..r.end as usize].fill(false); }
                    _ => { set.truncate(b); map[b as usize..].fill(false); }
                }
                prop_assert!(normal(&set), "{:?}", set);
                prop_assert_eq!(&bits(&set), &map);
            }
            prop_assert_eq!(set.total(), map.iter().filter(|b| **b).count() as u64);
            prop_assert_eq!(set.is_empty(), !map.contains(&true));
            prop_assert_eq!(set.end(), map.iter().rposition(|b| *b).map_or(0, |i| i as u64 + 1));
            let r = q.0.min(q.1)..q.0.max(q.1);
            let slice = &map[r.start as usize..r.end as usize];
            prop_assert_eq!(set.covers(r.clone()), slice.iter().all(|b| *b));
            prop_assert_eq!(set.intersects(r.clone()), slice.iter().any(|b| *b));
            let inside: RangeSet = set.within(r.clone()).collect();
            let outside: RangeSet = set.gaps(r.clone()).collect();
            for o in 0..N {
                prop_assert_eq!(inside.contains(o), r.contains(&o) && map[o as usize]);
                prop_assert_eq!(outside.contains(o), r.contains(&o) && !map[o as usize]);
            }
            prop_assert_eq!(set.gaps(r.clone()).count(), outside.len());
            let packed = postcard::to_stdvec(&set).unwrap();
            prop_assert_eq!(&postcard::from_bytes::<RangeSet>(&packed).unwrap(), &set);
            let text = serde_json::to_string(&set).unwrap();
            prop_assert_eq!(&serde_json::from_str::<RangeSet>(&text).unwrap(), &set);
        }

        #[test]
        fn any_bytes_read_as_a_set_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(s) = postcard::from_bytes::<RangeSet>(&bytes) {
                prop_assert!(normal(&s));
            }
        }
    }

    #[test]
    fn ends_of_the_number_line_are_ordinary() {
        let mut s = RangeSet::of(u64::MAX - 2..u64::MAX);
        s.insert(0..1);
        assert_eq!(s.total(), 3);
        s.truncate(u64::MAX - 1);
        assert_eq!(s.iter().collect::<Vec<_>>(), vec![0..1, u64::MAX - 2..u64::MAX - 1]);
        assert!(s.covers(5..5) && !s.intersects(5..5) && !s.intersects(0..0));
    }

    #[test]
    fn overlapping_or_overflowing_pairs_are_refused() {
        for text in ["[[0,0]]", "[[5,3],[0,2]]", "[[18446744073709551615,1]]", "[[1,18446744073709551615]]"] {
            assert!(serde_json::from_str::<RangeSet>(text).is_err(), "{text}");
        }
    }
}
