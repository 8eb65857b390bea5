//! Read-ahead: from how a handle has been read, which range to fetch before it is asked for.
//!
//! Must: random access prefetches nothing (each wrong guess is a chunk over the network); a reader that goes forward is
//! never far ahead of what is fetched. Pure: the caller fetches, in the background.

use std::ops::Range;

/// First window, bytes: one average chunk.
const FIRST: u64 = 1 << 20;
/// Reads in a row, each beginning where the last ended, before anything is fetched ahead.
const IN_A_ROW: u32 = 2;
/// How far a read may lie from where the last one ended and still be the same stream: kernels send the pieces of a
/// large read in any order.
const SLACK: u64 = 1 << 20;

/// The state of one handle.
#[derive(Clone, Debug)]
pub struct ReadAhead {
    /// End of the furthest read of this stream.
    next: u64,
    streak: u32,
    window: u64,
    /// Up to where was asked for ahead.
    asked: u64,
    largest: u64,
}

impl Default for ReadAhead {
    fn default() -> Self {
        ReadAhead::new(32 << 20)
    }
}

impl ReadAhead {
    /// A handle that was not read yet; its window grows up to `largest` bytes.
    pub fn new(largest: u64) -> Self {
        ReadAhead { next: 0, streak: 0, window: 0, asked: 0, largest }
    }

    /// Notes a read of `len` bytes at `offset` in a file of `size` bytes; returns what to fetch now beyond it, empty
    /// for nothing. The ranges of one stream do not overlap.
    pub fn on_read(&mut self, offset: u64, len: u64, size: u64) -> Range<u64> {
        let end = offset.saturating_add(len).min(size);
        let forward = offset <= self.next.saturating_add(SLACK) && end.saturating_add(SLACK) >= self.next;
        if !forward || len == 0 {
            *self = ReadAhead { next: end, ..ReadAhead::new(self.largest) };
            return 0..0;
        }
        if end > self.next {
            self.streak += 1;
            self.next = end;
        }
        if self.streak < IN_A_ROW {
            return 0..0;
        }
        if self.window == 0 {
            self.window = FIRST.min(self.largest);
            self.asked = self.next;
        }
        self.asked = self.asked.max(self.next);
        // Half a window is left: time to ask for the next, twice as far.
        if self.asked - self.next > self.window / 2 || self.asked >= size {
            return 0..0;
        }
        let from = self.asked;
        self.asked = (self.next + self.window).min(size).max(from);
        self.window = (self.window * 2).min(self.largest);
        from..self.asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::RangeSet;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn run(r: &mut ReadAhead, reads: impl IntoIterator<Item = (u64, u64)>, size: u64) -> Vec<Range<u64>> {
        reads.into_iter().map(|(o, l)| r.on_read(o, l, size)).filter(|r| !r.is_empty()).collect()
    }

    #[test]
    fn a_sequential_reader_is_kept_ahead_of_with_a_growing_window() {
        let (mut r, size) = (ReadAhead::default(), 400 * MIB);
        let asked = run(&mut r, (0..size / (128 << 10)).map(|i| (i * (128 << 10), 128 << 10)), size);
        assert_eq!(asked[0], 256 << 10..(256 << 10) + MIB);
        assert!(asked.windows(2).all(|w| w[0].end == w[1].start), "no gaps, no overlaps");
        assert_eq!(asked.last().unwrap().end, size);
        let longest = asked.iter().map(|r| r.end - r.start).max().unwrap();
        assert!(longest > 8 * MIB && longest <= 32 * MIB, "{longest}");
        assert!(asked.len() < 60, "few requests: {}", asked.len());
    }

    #[test]
    fn random_reads_a_single_look_and_backward_reading_fetch_nothing() {
        let size = 1 << 30;
        let spots = (0..500u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) % size, 4096));
        assert!(run(&mut ReadAhead::default(), spots, size).is_empty());
        assert!(run(&mut ReadAhead::default(), [(0, 4096)], size).is_empty());
        assert!(run(&mut ReadAhead::default(), (0..100).rev().map(|i| (i * 4 * MIB, 64 << 10)), size).is_empty());
        // The same block again and again is no stream.
        assert!(run(&mut ReadAhead::default(), (0..100).map(|_| (0, 4096)), size).is_empty());
    }

    #[test]
    fn pieces_in_another_order_are_still_one_stream_and_a_jump_starts_anew() {
        let (mut r, size) = (ReadAhead::default(), 100 * MIB);
        let shuffled = (0..40u64).map(|i| ((i ^ 1) * (128 << 10), 128 << 10));
        assert!(!run(&mut r, shuffled, size).is_empty());
        assert!(r.on_read(80 * MIB, 4096, size).is_empty());
        assert!(r.on_read(80 * MIB + 4096, 4096, size).is_empty());
        assert_eq!(r.on_read(80 * MIB + 8192, 4096, size).start, 80 * MIB + 12288);
    }

    proptest! {
        #[test]
        fn any_reads_give_ranges_inside_the_file_that_never_repeat(
            reads in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<bool>()), 0..40), size in 0u64..200 << 20
        ) {
            let mut r = ReadAhead::default();
            let mut at = 0u64;
            let mut asked = RangeSet::new();
            for (o, l, wild) in reads {
                let (o, l) = if wild { asked.clear(); (o, l) } else { (at, l % (4 << 20)) };
                at = o.saturating_add(l);
                let got = r.on_read(o, l, size);
                prop_assert!(got.end <= size && got.end - got.start.min(got.end) <= 64 << 20);
                if !wild && !got.is_empty() {
                    prop_assert!(!asked.intersects(got.clone()));
                    asked.insert(got);
                }
            }
        }
    }
}
