//! Cutting a file into chunks where its content says so (FastCDC, Xia et al. 2020): an insertion moves the boundaries
//! with the bytes, so what did not change keeps its chunks.
//!
//! Must: the parameters are frozen. Another size or mask cuts every file anew and shares nothing with what is stored;
//! the golden cuts in the tests hold them (and the crate) to it.
//! Not here: cutting again after an edit (`recut`), hashing and storing (`upload`).

use super::source::{ReadAt, Window};
use crate::error::Result;
use crate::model::Hash;
use fastcdc::v2020;
use std::ops::Range;
use std::sync::OnceLock;

/// Smallest chunk, bytes; only the last one of a file is smaller.
pub const MIN: usize = 256 << 10;
/// Average the cutter aims at, bytes. Big chunks keep the number of objects low; a small edit re-sends about this much.
pub const AVG: usize = 1 << 20;
/// Largest chunk, bytes.
pub const MAX: usize = 4 << 20;

/// Masks of normalisation level 1 at the average above (21 and 19 of the crate's table): stricter below the average,
/// looser above it.
const MASK_S: u64 = 0x0000_d917_6753_7000;
const MASK_L: u64 = 0x0000_d917_0753_7000;

/// Length of the first chunk of `window`.
///
/// The decision uses only bytes from the chunk's start up to and including the byte *after* its end. A result below
/// `window.len()` is therefore final whatever follows; a result of `window.len()` is final if that is [`MAX`] or the
/// end of the file, else more has to be shown.
pub fn cut(window: &[u8]) -> usize {
    v2020::cut(window, MIN, AVG, MAX, MASK_S, MASK_L, MASK_S << 1, MASK_L << 1).1
}

/// Bytes back that a cut decision looks: the rolling hash shifts one bit a byte out of 64.
pub(super) const LOOKBACK: u64 = 64;

/// A stretch of a file, in order, without gaps.
#[derive(Debug)]
pub enum Piece<'a> {
    /// Chunks of the base list, by index, unchanged.
    Keep(Range<usize>),
    /// A chunk that was cut.
    Data {
        /// Where it starts in the file.
        offset: u64,
        /// The whole chunk.
        bytes: &'a [u8],
    },
    /// A chunk of zeros (a hole, or zeros that were written), at most [`MAX`] long.
    Zeros {
        /// Where it starts in the file.
        offset: u64,
        /// Its length.
        len: u32,
    },
}

/// Receives the pieces; an error stops the cutting and is handed to its caller.
pub type Sink<'s> = dyn FnMut(Piece<'_>) -> Result<()> + 's;

/// Cuts the whole of a source of `size` bytes. Memory: one window of 8 MiB. Returns the bytes read (holes that the
/// source knows are not). Blocks.
pub fn cut_all(src: &dyn ReadAt, size: u64, sink: &mut Sink<'_>) -> Result<u64> {
    let mut window = Window::new(src, size);
    let mut p = 0;
    while p < size {
        let limit = size.min(p.saturating_add(MAX as u64));
        if src.zeros_until(p) >= limit {
            sink(Piece::Zeros { offset: p, len: (limit - p) as u32 })?;
            p = limit;
            continue;
        }
        let bytes = window.get(p, limit, size)?;
        p += emit(p, bytes, cut_or_zeros(bytes), sink)?;
    }
    Ok(window.read)
}

/// Length of the first chunk of a window that ends at [`MAX`] or at the end of the file, and whether it is all zeros
/// (which are not worth scanning: no cut is ever found in them).
pub(super) fn cut_or_zeros(window: &[u8]) -> (usize, bool) {
    if is_zero(window) { (window.len(), true) } else { (cut(window), false) }
}

/// Hands one cut chunk to the sink; returns its length.
pub(super) fn emit(offset: u64, window: &[u8], (len, zeros): (usize, bool), sink: &mut Sink<'_>) -> Result<u64> {
    if zeros {
        sink(Piece::Zeros { offset, len: len as u32 })?;
    } else {
        sink(Piece::Data { offset, bytes: &window[..len] })?;
    }
    Ok(len as u64)
}

/// Whether all bytes are zero; stops at the first that is not.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(4096).all(|c| c.iter().fold(0, |a, b| a | b) == 0)
}

/// [`MAX`] zeros, to hash and to send.
pub(super) fn zeros() -> &'static [u8] {
    static ZEROS: [u8; MAX] = [0; MAX];
    &ZEROS
}

/// Hash of `len` zeros, at most [`MAX`]. That of [`MAX`] is computed once.
pub(super) fn zero_hash(len: u32) -> Hash {
    static FULL: OnceLock<Hash> = OnceLock::new();
    if len as usize == MAX { *FULL.get_or_init(|| Hash::of(zeros())) } else { Hash::of(&zeros()[..len as usize]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::testing::{lengths, noise};
    use bytes::Bytes;
    use std::os::unix::fs::FileExt;

    #[test]
    fn masks_are_those_of_the_published_table() {
        assert_eq!((MASK_S, MASK_L), v2020::select_masks(AVG, v2020::Normalization::Level1));
    }

    #[test]
    fn golden_cuts_of_generated_bytes_never_change() {
        let data = noise(1, 24 << 20);
        assert_eq!(Hash::of(&data).to_hex(), "4ad0e37768376aedb9c31ea850b788b263f9c4ea134c59b78e280605c68dda87");
        let golden = [
            278755, 827435, 1633517, 1252205, 593103, 2103531, 805973, 1202200, 1619404, 1993092, 1534877, 1163367, 1263286, 2046928,
            1814353, 649753, 1522458, 341290, 1244196, 1158748, 117353,
        ];
        assert_eq!(lengths(&data), golden);
    }

    #[test]
    fn streaming_cuts_equal_those_of_the_slice_iterator() {
        let data = noise(7, 21 << 20);
        let want: Vec<u32> = v2020::FastCDC::new(&data, MIN, AVG, MAX).map(|c| c.length as u32).collect();
        assert_eq!(lengths(&data), want);
    }

    #[test]
    fn zeros_of_any_length_hold_no_cut() {
        for len in [1, MIN - 1, MIN, MIN + 1, AVG + 1, MAX - 1, MAX, MAX + 1] {
            assert_eq!(cut(&vec![0; len]), len.min(MAX));
        }
        assert!(is_zero(&[]) && is_zero(&[0; 5000]) && !is_zero(&[&[0u8; 4999][..], &[1]].concat()));
    }

    /// What [`cut`] promises: the decision needs the chunk and one byte more, and 64 bytes of history at most.
    #[test]
    fn a_cut_depends_on_the_chunk_and_the_byte_after_it_only() {
        for seed in 0..12 {
            let mut data = noise(100 + seed, MAX);
            let n = cut(&data);
            if n == MAX {
                continue;
            }
            assert_eq!(cut(&data[..n]), n);
            // An odd window leaves its last byte untested, hence two.
            assert_eq!(cut(&data[..n + 2]), n);
            data[n + 1..].fill(0xA5);
            assert_eq!(cut(&data), n);
            // Bytes below the smallest size decide nothing, and older ones than the look-back neither at the cut itself.
            data[..MIN].fill(3);
            let far = n.saturating_sub(LOOKBACK as usize);
            if far > MIN {
                data[MIN..far].fill(0);
                assert!(cut(&data) == n || cut(&data) < far + LOOKBACK as usize, "seed {seed}");
            }
        }
    }

    #[test]
    fn a_hole_is_many_equal_chunks_and_is_not_read() {
        let f = tempfile::tempfile().unwrap();
        let size = 4u64 << 30;
        f.set_len(size).unwrap();
        f.write_all_at(b"x", size - 1).unwrap();
        let (mut n, mut total) = (0, 0);
        let read = cut_all(&f, size, &mut |p| {
            match p {
                Piece::Zeros { len, .. } => {
                    n += 1;
                    total += u64::from(len);
                }
                Piece::Data { bytes, .. } => total += bytes.len() as u64,
                Piece::Keep(_) => unreachable!(),
            }
            Ok(())
        })
        .unwrap();
        assert_eq!((n, total), (1023, size));
        assert!(read <= 2 * MAX as u64, "{read}");
    }

    #[test]
    fn an_error_of_the_sink_stops_the_cutting() {
        let data = Bytes::from(noise(1, 9 << 20));
        let mut calls = 0;
        let r = cut_all(&data, data.len() as u64, &mut |_| {
            calls += 1;
            Err(crate::Error::new(crate::ErrorKind::Interrupted, "stop"))
        });
        assert!(r.is_err() && calls == 1);
    }
}
