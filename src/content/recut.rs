//! Cutting again after an edit: only around what changed, with the result that cutting the whole file would give.
//!
//! Why it is the same: where the next cut falls depends on the position of the last one, on the bytes from there up to
//! one byte past the cut, and on the end of the file (`chunker::cut`). So an old chunk may be kept wherever the new list
//! has a boundary at its start and neither those bytes nor the end moved; elsewhere bytes are shown to the cutter until
//! a cut falls on an old boundary again.
//!
//! Must: bytes that did not change are read as little as possible, since they may have to be fetched first.
//! Not here: where bytes come from ([`ReadAt`]), what becomes of the pieces (`upload`).

use super::chunker::{LOOKBACK, MAX, MIN, Piece, Sink, cut, cut_or_zeros, emit};
use super::ranges::RangeSet;
use super::source::{ReadAt, Window};
use crate::error::{Error, Kind, Result};
use crate::model::ChunkRef;
use std::ops::Range;

/// A stretch of the new chunk list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Chunks of the base list, by index.
    Keep(Range<usize>),
    /// One chunk that was cut anew.
    New {
        /// Where it starts.
        offset: u64,
        /// Its length.
        len: u32,
    },
}

/// The base list with what changed over it.
pub struct Edit<'a> {
    base: &'a [ChunkRef],
    /// Where each base chunk starts, and the end of the last.
    starts: Vec<u64>,
    dirty: &'a RangeSet,
    size: u64,
}

impl<'a> Edit<'a> {
    /// `dirty` = bytes below the base's size that may differ from it; those beyond are taken as changed. A file that
    /// was cut short and grew again must have the part between in `dirty`. `size` = the new size.
    ///
    /// Errors: `Corrupt` for a base with an empty chunk (no file has one).
    pub fn new(base: &'a [ChunkRef], dirty: &'a RangeSet, size: u64) -> Result<Self> {
        let mut starts = Vec::with_capacity(base.len() + 1);
        let mut at = 0u64;
        starts.push(0);
        for c in base {
            if c.1 == 0 {
                return Err(Error::new(Kind::Corrupt, format!("cutting over a base with an empty chunk at {at}")));
            }
            at += u64::from(c.1);
            starts.push(at);
        }
        Ok(Edit { base, starts, dirty, size })
    }

    fn old_size(&self) -> u64 {
        self.starts[self.base.len()]
    }

    /// Whether base chunk `i` is a chunk of the new file too, if a boundary of the new file is at its start. The kept
    /// chunks are among those for which this holds.
    pub fn unchanged(&self, i: usize) -> bool {
        let (s, e) = (self.starts[i], self.starts[i + 1]);
        let full = e - s == MAX as u64;
        // Below the largest size a cut was decided with the byte after it, or by the end of the file.
        let looked = if full || e == self.size { e } else { e + 1 };
        let by_eof = e == self.old_size() && self.size > e && !full;
        e <= self.size && !by_eof && !self.dirty.intersects(s..looked)
    }

    /// Index of the base chunk that holds `offset` (below the old size).
    fn holding(&self, offset: u64) -> usize {
        self.starts.partition_point(|&s| s <= offset) - 1
    }

    /// How far from `t` on every byte is changed, thus here and free to read; `t` if that one is not.
    fn local_until(&self, t: u64) -> u64 {
        let end = if t >= self.old_size() { self.size } else { self.dirty.end_of(t).unwrap_or(t) };
        if end >= self.old_size() { self.size.max(t) } else { end }
    }

    /// The next offset up to which to read, from `t` on: changed bytes while there are any, then one base chunk.
    fn next_target(&self, t: u64, limit: u64) -> u64 {
        if t >= limit {
            return limit;
        }
        let local = self.local_until(t);
        if local > t {
            return local.min(limit);
        }
        let end = self.starts[self.holding(t) + 1];
        self.local_until(end).min(limit)
    }

    /// Where the chunk from `p` on ends unless a cut is found before: a chunk of the base begins at `p`, and all that
    /// its own end was decided by is as it was. Saves fetching the chunk after it for one byte.
    fn known_end(&self, i: usize, p: u64, limit: u64) -> Option<u64> {
        if *self.starts.get(i)? != p || i == self.base.len() {
            return None;
        }
        let e = self.starts[i + 1];
        let natural = e < self.size && e < self.old_size() && !self.dirty.intersects(e - LOOKBACK.min(e)..e + 1);
        (e <= limit && e - p >= MIN as u64 && (natural || e - p == MAX as u64)).then_some(e)
    }

    /// Cuts, handing the pieces to `sink` in order. Returns the bytes read. Blocks; memory: one window of 8 MiB.
    pub fn run(&self, src: &dyn ReadAt, sink: &mut Sink<'_>) -> Result<u64> {
        let expected = self.dirty.total() + self.size.saturating_sub(self.old_size()) + MAX as u64;
        let mut window = Window::new(src, expected.min(self.size));
        let mut keep = 0..0;
        let (mut p, mut i) = (0, 0);
        while p < self.size {
            while i < self.base.len() && self.starts[i] < p {
                i += 1;
            }
            if i < self.base.len() && self.starts[i] == p && self.unchanged(i) {
                if keep.is_empty() {
                    keep = i..i;
                }
                keep.end = i + 1;
                p = self.starts[i + 1];
                continue;
            }
            if !keep.is_empty() {
                sink(Piece::Keep(std::mem::take(&mut keep)))?;
            }
            p = self.cut_one(src, &mut window, p, i, sink)?;
        }
        if !keep.is_empty() {
            sink(Piece::Keep(keep))?;
        }
        Ok(window.read)
    }

    /// Cuts the chunk that starts at `p` (`i`: first base chunk at or after it); returns its end.
    fn cut_one(&self, src: &dyn ReadAt, window: &mut Window<'_>, p: u64, i: usize, sink: &mut Sink<'_>) -> Result<u64> {
        let limit = self.size.min(p + MAX as u64);
        if src.zeros_until(p) >= limit {
            sink(Piece::Zeros { offset: p, len: (limit - p) as u32 })?;
            return Ok(limit);
        }
        let known = self.known_end(i, p, limit);
        let mut target = known.unwrap_or_else(|| self.next_target(limit.min(p + MIN as u64 - 1), limit));
        loop {
            let bytes = window.get(p, target, self.local_until(target).min(self.size))?;
            if target == limit {
                return Ok(p + emit(p, bytes, cut_or_zeros(bytes), sink)?);
            }
            let len = cut(bytes);
            if len < bytes.len() || known == Some(target) {
                return Ok(p + emit(p, bytes, (len, false), sink)?);
            }
            target = self.next_target(target, limit);
        }
    }
}

/// The new chunk list as stretches, without the bytes. Blocks.
pub fn segments(src: &dyn ReadAt, base: &[ChunkRef], dirty: &RangeSet, size: u64) -> Result<Vec<Segment>> {
    let mut out = Vec::new();
    Edit::new(base, dirty, size)?.run(src, &mut |piece| {
        out.push(match piece {
            Piece::Keep(r) => Segment::Keep(r),
            Piece::Data { offset, bytes } => Segment::New { offset, len: bytes.len() as u32 },
            Piece::Zeros { offset, len } => Segment::New { offset, len },
        });
        Ok(())
    })?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::chunker::zero_hash;
    use crate::content::testing::{chunks_of, noise};
    use crate::model::Hash;
    use parking_lot::Mutex;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::sync::OnceLock;

    /// Content that notes which bytes were read.
    struct Watched<'a> {
        data: &'a [u8],
        read: Mutex<RangeSet>,
    }

    impl ReadAt for Watched<'_> {
        fn read_exact_at(&self, off: u64, buf: &mut [u8]) -> Result<()> {
            buf.copy_from_slice(&self.data[off as usize..off as usize + buf.len()]);
            self.read.lock().insert(off..off + buf.len() as u64);
            Ok(())
        }
    }

    struct Outcome {
        chunks: Vec<ChunkRef>,
        /// Base chunks of which bytes were read that had not changed.
        fetched: usize,
    }

    fn recut(base: &[ChunkRef], new: &[u8], dirty: &RangeSet) -> Outcome {
        let src = Watched { data: new, read: Mutex::default() };
        let edit = Edit::new(base, dirty, new.len() as u64).unwrap();
        let mut chunks = Vec::new();
        edit.run(&src, &mut |p| {
            match p {
                Piece::Keep(r) => {
                    assert!(r.clone().all(|i| edit.unchanged(i)));
                    chunks.extend_from_slice(&base[r]);
                }
                Piece::Data { bytes, .. } => chunks.push(ChunkRef(Hash::of(bytes), bytes.len() as u32)),
                Piece::Zeros { len, .. } => chunks.push(ChunkRef(zero_hash(len), len)),
            }
            Ok(())
        })
        .unwrap();
        let read = src.read.into_inner();
        let mut fetched = BTreeSet::new();
        for r in read.iter() {
            for gap in dirty.gaps(r.start..r.end.min(edit.old_size())) {
                fetched.extend(edit.holding(gap.start)..=edit.holding(gap.end - 1));
            }
        }
        Outcome { chunks, fetched: fetched.len() }
    }

    fn base_data() -> &'static (Vec<u8>, Vec<ChunkRef>) {
        static D: OnceLock<(Vec<u8>, Vec<ChunkRef>)> = OnceLock::new();
        D.get_or_init(|| {
            // Noise, a stretch of zeros that holds no cut, noise: boundaries of every kind.
            let mut d = noise(42, 6 << 20);
            d.extend(std::iter::repeat_n(0, (9 << 20) + 13));
            d.extend(noise(43, (5 << 20) + 1));
            let c = chunks_of(&d);
            (d, c)
        })
    }

    #[derive(Clone, Debug)]
    enum Change {
        Write { at: u64, len: usize, seed: u64 },
        Zero { at: u64, len: usize },
        Resize { to: u64 },
    }

    /// Offsets anywhere, and close to the boundaries of the base, where mistakes live.
    fn offset() -> impl Strategy<Value = u64> {
        let (data, chunks) = base_data();
        let mut at = 0;
        let mut ends: Vec<u64> = chunks
            .iter()
            .map(|c| {
                at += u64::from(c.1);
                at
            })
            .collect();
        ends.push(0);
        prop_oneof![
            0..data.len() as u64 + (3 << 20),
            (proptest::sample::select(ends), 0u64..140).prop_map(|(e, d)| (e + d).saturating_sub(70)),
        ]
    }

    fn change() -> impl Strategy<Value = Change> {
        let len = || prop_oneof![4 => 1usize..200, 1 => 1usize..3_000_000];
        prop_oneof![
            4 => (offset(), len(), any::<u64>()).prop_map(|(at, len, seed)| Change::Write { at, len, seed }),
            1 => (offset(), len()).prop_map(|(at, len)| Change::Zero { at, len }),
            2 => offset().prop_map(|to| Change::Resize { to }),
        ]
    }

    /// Applies a change as a file system does; `low` is the smallest size the file had.
    fn apply(new: &mut Vec<u8>, dirty: &mut RangeSet, c: &Change) {
        let (at, bytes) = match c {
            Change::Write { at, len, seed } => (*at as usize, noise(*seed, *len)),
            Change::Zero { at, len } => (*at as usize, vec![0; *len]),
            Change::Resize { to } => {
                let (old, to) = (new.len() as u64, *to);
                new.resize(to as usize, 0);
                if to < old {
                    dirty.truncate(to);
                } else {
                    dirty.insert(old..to);
                }
                return;
            }
        };
        if new.len() < at + bytes.len() {
            dirty.insert(new.len() as u64..(at + bytes.len()) as u64);
            new.resize(at + bytes.len(), 0);
        }
        new[at..at + bytes.len()].copy_from_slice(&bytes);
        dirty.insert(at as u64..(at + bytes.len()) as u64);
    }

    fn cases(n: u32) -> ProptestConfig {
        ProptestConfig {
            cases: std::env::var("PROPTEST_CASES").ok().and_then(|s| s.parse().ok()).unwrap_or(n),
            ..ProptestConfig::default()
        }
    }

    proptest! {
        #![proptest_config(cases(40))]
        #[test]
        fn equals_cutting_the_whole_file(changes in proptest::collection::vec(change(), 0..5)) {
            let (data, base) = base_data();
            let (mut new, mut dirty) = (data.clone(), RangeSet::new());
            for c in &changes {
                apply(&mut new, &mut dirty, c);
            }
            prop_assert_eq!(recut(base, &new, &dirty).chunks, chunks_of(&new));
        }
    }

    #[test]
    fn a_one_byte_edit_fetches_one_chunk_and_never_many() {
        let data = noise(5, 24 << 20);
        let base = chunks_of(&data);
        let ends: Vec<u64> = base
            .iter()
            .scan(0, |a, c| {
                *a += u64::from(c.1);
                Some(*a)
            })
            .collect();
        let spots = (0..24u64).map(|i| i * 1_000_003 + 17);
        // Right before, on, and right after boundaries: these cuts do move.
        let spots = spots.chain(ends.iter().flat_map(|&e| [e - 1, e, e.saturating_sub(60)]).filter(|&o| o < data.len() as u64));
        let mut counts = Vec::new();
        for at in spots {
            let mut new = data.clone();
            new[at as usize] ^= 0x55;
            let got = recut(&base, &new, &RangeSet::of(at..at + 1));
            counts.push(got.fetched);
            if counts.len() % 10 == 0 {
                assert_eq!(got.chunks, chunks_of(&new));
            }
        }
        counts[..24].sort_unstable();
        assert_eq!(counts[12], 1, "median of edits anywhere");
        assert!(counts[..24].iter().all(|&n| n <= 2), "{counts:?}");
        assert!(counts.iter().all(|&n| n <= 6), "{counts:?}");
    }

    #[test]
    fn nothing_changed_reads_nothing_and_keeps_all() {
        let (data, base) = base_data();
        let got = segments(&Watched { data, read: Mutex::default() }, base, &RangeSet::new(), data.len() as u64).unwrap();
        assert_eq!(got, vec![Segment::Keep(0..base.len())]);
    }

    #[test]
    fn an_append_fetches_the_last_chunk_only() {
        let (data, base) = base_data();
        let mut new = data.clone();
        new.extend(noise(9, 100));
        let got = recut(base, &new, &RangeSet::new());
        assert_eq!(got.fetched, 1);
        assert_eq!(got.chunks, chunks_of(&new));
    }

    #[test]
    fn cutting_short_at_a_boundary_fetches_nothing() {
        let (data, base) = base_data();
        let len = base[..3].iter().map(|c| u64::from(c.1)).sum::<u64>();
        let got = recut(base, &data[..len as usize], &RangeSet::new());
        assert_eq!((got.fetched, got.chunks), (0, base[..3].to_vec()));
    }

    #[test]
    fn a_base_cut_by_other_rules_still_gives_the_right_bytes() {
        let data = noise(3, 3 << 20);
        // Chunks of 5 MiB (beyond our largest) and of 1,000 bytes.
        for step in [1000, 700_001, 5 << 20] {
            let base: Vec<ChunkRef> = data.chunks(step).map(|c| ChunkRef(Hash::of(c), c.len() as u32)).collect();
            let mut new = data.clone();
            new[1_500_000] ^= 1;
            let src = Watched { data: &new, read: Mutex::default() };
            let mut back = Vec::new();
            for s in segments(&src, &base, &RangeSet::of(1_500_000..1_500_001), new.len() as u64).unwrap() {
                let len = match s {
                    Segment::Keep(r) => base[r].iter().map(|c| c.1 as usize).sum::<usize>(),
                    Segment::New { len, offset } => {
                        assert_eq!(offset as usize, back.len());
                        len as usize
                    }
                };
                back.extend_from_slice(&new[back.len()..back.len() + len]);
            }
            assert!(back == new, "step {step}");
        }
        assert_eq!(segments(&bytes::Bytes::new(), &[ChunkRef(Hash::ZERO, 0)], &RangeSet::new(), 1).unwrap_err().kind(), Kind::Corrupt);
    }
}
