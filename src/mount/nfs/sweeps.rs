//! Who reads a directory file by file: an indexer, a program that makes thumbnails, or somebody who copies it.
//!
//! The protocol does not say which program reads. One that opens a file wants it, mostly, and a file that is not large is
//! fetched whole at its first read. Where many files of one directory are read one after another, what is wanted may be
//! the head of each: then nothing is fetched but what is read.
//!
//! Must: whoever does read a file to its end gets it, sweep or not.
//! Pure: the time is given. Memory: at most [`DIRS`] directories.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// So many files of a directory, none of them here…
const MANY: u32 = 16;
/// …each opened no longer than this after the one before, are a sweep, until nothing was opened for as long.
const PAUSE: Duration = Duration::from_secs(5);
/// Directories that are counted at a time.
const DIRS: usize = 1024;

/// What the log says when one begins.
pub(super) const SAYS: &str = "many files that are not here are being read one after another, as indexers do: until that ends \
    only what is read is fetched, no whole files (`tcfs hydrate` brings a directory here)";

struct Row {
    opened: u32,
    last: Instant,
}

/// What was opened lately, by directory.
#[derive(Default)]
pub(super) struct Sweeps(HashMap<u64, Row>);

impl Sweeps {
    /// Counts the opening of a file in `dir` whose bytes are not here: whether it belongs to a sweep, and whether that
    /// begins with it.
    pub(super) fn opened(&mut self, dir: u64, now: Instant) -> (bool, bool) {
        if self.0.len() >= DIRS && !self.0.contains_key(&dir) {
            self.0.retain(|_, r| now.duration_since(r.last) <= PAUSE);
            if self.0.len() >= DIRS {
                // Whoever reads in so many directories at once sweeps.
                return (true, false);
            }
        }
        let row = self.0.entry(dir).or_insert(Row { opened: 0, last: now });
        if now.duration_since(row.last) > PAUSE {
            row.opened = 0;
        }
        row.last = now;
        row.opened = row.opened.saturating_add(1);
        (row.opened > MANY, row.opened == MANY + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_opens_in_a_row_are_a_sweep_until_a_pause() {
        let (mut s, t) = (Sweeps::default(), Instant::now());
        let at = |s: u64| t + Duration::from_secs(s);
        for i in 0..u64::from(MANY) {
            assert_eq!(s.opened(1, at(i)), (false, false));
        }
        let end = u64::from(MANY);
        assert_eq!(s.opened(2, at(end)), (false, false), "another directory is another");
        assert_eq!(s.opened(1, at(end)), (true, true));
        assert_eq!(s.opened(1, at(end + 5)), (true, false), "it goes on, and is told of once");
        assert_eq!(s.opened(1, at(end + 11)), (false, false), "a pause ends it");
    }

    #[test]
    fn a_reader_of_every_directory_takes_no_more_memory_than_one_of_many() {
        let (mut s, t) = (Sweeps::default(), Instant::now());
        for dir in 0..10 * DIRS as u64 {
            let sweep = s.opened(dir, t).0;
            assert_eq!(sweep, dir >= DIRS as u64);
        }
        assert_eq!(s.0.len(), DIRS);
        assert_eq!(s.opened(7777, t + Duration::from_secs(6)), (false, false));
        assert_eq!(s.0.len(), 1);
    }
}
