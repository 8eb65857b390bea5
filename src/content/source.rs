//! Where the bytes to be cut come from, and the window through which the cutters look at them.
//!
//! Must: a reader sees the bytes as they are at that moment; a file that became shorter is an error, never zeros.
//! Not here: hydration (the `vfs` wraps a file that is only partly here in a [`ReadAt`] of its own).

use super::chunker::MAX;
use crate::error::{Error, Kind, Result};
use bytes::Bytes;

/// Bytes at offsets. Calls block (the disk, or a hydration): only for blocking threads.
pub trait ReadAt: Send {
    /// Fills `buf` from `off` on. Errors: `Busy` if the source ends before that; whatever hydration or the disk says.
    fn read_exact_at(&self, off: u64, buf: &mut [u8]) -> Result<()>;

    /// A promise that everything from `off` up to the returned offset reads as zeros; `off` itself where nothing is
    /// known. May be beyond the end. Lets a hole of a terabyte pass without being read.
    fn zeros_until(&self, off: u64) -> u64 {
        off
    }
}

impl ReadAt for std::fs::File {
    fn read_exact_at(&self, off: u64, buf: &mut [u8]) -> Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buf, off).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => shorter(off, buf.len()),
            _ => Error::io(format!("reading {} bytes at {off}", buf.len()), e),
        })
    }

    /// Asks the disk for the next data. Moves the descriptor's own position, which nobody here uses.
    fn zeros_until(&self, off: u64) -> u64 {
        match rustix::fs::seek(self, rustix::fs::SeekFrom::Data(off)) {
            Ok(data) => data.max(off),
            // No data from here to the end (or beyond it).
            Err(rustix::io::Errno::NXIO) => u64::MAX,
            Err(_) => off,
        }
    }
}

impl ReadAt for Bytes {
    fn read_exact_at(&self, off: u64, buf: &mut [u8]) -> Result<()> {
        let range = usize::try_from(off).ok().and_then(|o| Some(o..o.checked_add(buf.len())?));
        match range.and_then(|r| self.get(r)) {
            Some(part) => {
                buf.copy_from_slice(part);
                Ok(())
            }
            None => Err(shorter(off, buf.len())),
        }
    }
}

fn shorter(off: u64, len: usize) -> Error {
    Error::new(Kind::Busy, format!("reading {len} bytes at {off}: the file became shorter meanwhile"))
        .hint("it is being written; it is cut again when it is quiet")
}

/// Bytes the window holds at most: a chunk of the largest size and as much again, so that what is left over when it
/// moves on is copied about once.
const WINDOW: usize = 2 * MAX;

/// A part of a source in memory, moving forward.
pub(super) struct Window<'a> {
    src: &'a dyn ReadAt,
    buf: Vec<u8>,
    /// Offset of `buf[lo]` in the source.
    at: u64,
    lo: usize,
    hi: usize,
    /// Bytes read from the source so far.
    pub(super) read: u64,
}

impl<'a> Window<'a> {
    /// A window over a source of which about `expected` bytes will be read (only decides the first allocation).
    pub(super) fn new(src: &'a dyn ReadAt, expected: u64) -> Self {
        let len = usize::try_from(expected).unwrap_or(WINDOW).min(WINDOW);
        Window { src, buf: vec![0; len], at: 0, lo: 0, hi: 0, read: 0 }
    }

    /// The bytes from `p` to `need`, read if they are not here; more, up to `ahead`, is read along where it fits.
    /// `need - p` is at most [`MAX`].
    pub(super) fn get(&mut self, p: u64, need: u64, ahead: u64) -> Result<&[u8]> {
        debug_assert!(p <= need && need - p <= MAX as u64);
        let have = self.at + (self.hi - self.lo) as u64;
        if p < self.at || p >= have {
            (self.lo, self.hi, self.at) = (0, 0, p);
        } else {
            self.lo += (p - self.at) as usize;
            self.at = p;
        }
        let have = self.at + (self.hi - self.lo) as u64;
        if have < need {
            let want = (ahead.max(need).min(p + WINDOW as u64) - p) as usize;
            self.make_room(want);
            let fill = self.lo + want;
            self.src.read_exact_at(have, &mut self.buf[self.hi..fill])?;
            self.read += (fill - self.hi) as u64;
            self.hi = fill;
        }
        Ok(&self.buf[self.lo..self.lo + (need - p) as usize])
    }

    /// Makes `buf[lo..lo + want]` exist, keeping what is there.
    fn make_room(&mut self, want: usize) {
        if self.lo + want <= self.buf.len() {
            return;
        }
        if want <= self.buf.len() {
            self.buf.copy_within(self.lo..self.hi, 0);
        } else {
            // Fresh zeroed memory costs nothing until it is touched.
            let mut bigger = vec![0; want.next_multiple_of(1 << 20).min(WINDOW).max(want)];
            bigger[..self.hi - self.lo].copy_from_slice(&self.buf[self.lo..self.hi]);
            self.buf = bigger;
        }
        (self.lo, self.hi) = (0, self.hi - self.lo);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_file_that_became_shorter_is_busy() {
        let f = tempfile::tempfile().unwrap();
        f.write_all_at(b"abc", 0).unwrap();
        let mut buf = [0; 4];
        assert_eq!(ReadAt::read_exact_at(&f, 0, &mut buf).unwrap_err().kind(), Kind::Busy);
        assert_eq!(Bytes::from_static(b"abc").read_exact_at(u64::MAX, &mut buf).unwrap_err().kind(), Kind::Busy);
        ReadAt::read_exact_at(&f, 1, &mut buf[..2]).unwrap();
        assert_eq!(&buf[..2], b"bc");
    }

    #[test]
    fn a_hole_is_known_without_reading() {
        let f = tempfile::tempfile().unwrap();
        f.write_all_at(b"end", 1 << 20).unwrap();
        // A disk without holes may say "unknown"; it may never promise too much.
        let z = ReadAt::zeros_until(&f, 0);
        assert!(z == 1 << 20 || z == 0, "{z}");
        assert_eq!(ReadAt::zeros_until(&f, 1 << 20), 1 << 20);
    }

    #[test]
    fn a_window_shows_the_same_bytes_whatever_is_read_ahead() {
        let data: Bytes = (0..3 * MAX as u32 + 77).map(|i| (i ^ (i >> 8)) as u8).collect::<Vec<_>>().into();
        for ahead in [0, 1000, u64::MAX / 2] {
            let mut w = Window::new(&data, 10);
            for (p, need) in [(0, 5), (3, 3), (4, 4 + MAX), (MAX, MAX + 9), (2 * MAX, 3 * MAX), (3 * MAX, 3 * MAX + 77), (7, 9)] {
                let got = w.get(p as u64, need as u64, ahead.min(data.len() as u64)).unwrap();
                assert!(got == &data[p..need], "{p}..{need} with {ahead}");
            }
            assert!(w.buf.len() <= WINDOW);
        }
    }
}
