//! Snapshots: the namespace as one device had it, as lines of JSON.
//!
//! The first line says up to where each log is in it, then comes a line for each head of each entry, tombstones and
//! hidden ones included, then what was parked and what lately went into history, and last a line with the number of
//! lines before it and their hash. Must: without that last line, or with another number or hash in it, it is none.
//! Must: every line is read before any is used; what no tcfs can have written is not used at all, for what else may it
//! have left out?
//! Not here: compression (`content`), who writes and reads one (`fleet`).

use super::hash::Hash;
use super::record::{self, is_device};
use super::version::Version;
use crate::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Format of snapshots that this program reads and writes.
pub const FORMAT: u32 = 1;
/// Longest line: a record within another object, escaped once more.
pub const LINE_MAX: usize = 2 * record::LINE_MAX + 4096;
/// More logs than any fleet has.
const CURSORS_MAX: usize = 100_000;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`], or a higher one of a later tcfs.
    pub snapshot: u32,
    /// Who wrote it; for people.
    pub device_id: String,
    /// When, milliseconds since 1970, by its clock; for people.
    pub written_at: i64,
    /// Device → last batch of its log that is in here, the writer's own log included.
    pub cursors: BTreeMap<String, u64>,
}

/// A record of a later tcfs, as it stood in a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// Whose log.
    pub device: String,
    /// Number of the batch.
    pub seq: u64,
    /// Line in it, from 0.
    pub line: u64,
    /// The record.
    pub text: String,
}

/// The last line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Lines before this one.
    pub lines: u64,
    /// BLAKE3 of all bytes before this line.
    pub hash: Hash,
}

/// A line after the first.
#[derive(Debug)]
pub enum Line {
    /// A head of an entry.
    Head(Box<Version>),
    /// A head of a format or kind that this program does not know, as it stands.
    Unknown(String),
    /// A record that nobody could apply yet.
    Parked(Parked),
    /// A version that others have covered.
    Past(Box<Version>),
    /// The last line.
    End(End),
}

const PAST: &[u8] = b"{\"past\":";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Tagged {
    Parked(Parked),
    End(End),
}

impl Header {
    /// The line, with its newline.
    pub fn encode(&self) -> Result<Vec<u8>> {
        line_of(self)
    }

    /// Reads the first line.
    ///
    /// Errors: `Corrupt` if it is none, `Unsupported` for one of a later tcfs.
    pub fn parse(line: &[u8]) -> Result<Header> {
        #[derive(Deserialize)]
        struct Format {
            snapshot: u32,
        }
        let format: Format = json(line)?;
        if format.snapshot > FORMAT {
            let what = format!("it has format {}, this tcfs knows {FORMAT}", format.snapshot);
            return Err(Error::new(Kind::Unsupported, what));
        }
        let header: Header = json(line)?;
        if header.snapshot == 0 || header.cursors.len() > CURSORS_MAX {
            return Err(bad("its first line makes no sense"));
        }
        std::iter::once(&header.device_id).chain(header.cursors.keys()).try_for_each(|id| is_device(id)).map_err(bad)?;
        Ok(header)
    }
}

impl Line {
    /// The line, with its newline.
    ///
    /// Errors: `Invalid` for a version that no reader would accept, one whose bytes are not cut yet among them.
    pub fn encode(&self) -> Result<Vec<u8>> {
        match self {
            Line::Head(v) => record::encode([&**v]),
            Line::Unknown(text) => Ok([text.as_bytes(), b"\n"].concat()),
            Line::Past(v) => {
                let mut record = record::encode([&**v])?;
                record.pop();
                Ok([PAST, &record, b"}\n"].concat())
            }
            Line::Parked(p) => line_of(&Tagged::Parked(p.clone())),
            Line::End(e) => line_of(&Tagged::End(e.clone())),
        }
    }

    /// Reads a line, which has `number`.
    ///
    /// Errors: `Corrupt` for what no tcfs can have written.
    pub fn parse(number: usize, line: &[u8]) -> Result<Line> {
        if line.starts_with(b"{\"v\":") {
            return match record::line(number, line) {
                record::Line::Version(v) if v.path.is_root() => Err(bad("it has a version of the root")),
                record::Line::Version(v) => Ok(Line::Head(v)),
                record::Line::Parked(text) => Ok(Line::Unknown(text)),
                record::Line::Damaged(e) => Err(e),
            };
        }
        if let Some(record) = line.strip_prefix(PAST).and_then(|l| l.strip_suffix(b"}")) {
            return match record::line(number, record) {
                record::Line::Version(v) => Ok(Line::Past(v)),
                record::Line::Parked(_) => Err(bad("a version in its history is of a later tcfs")),
                record::Line::Damaged(e) => Err(e),
            };
        }
        match json(line)? {
            Tagged::Parked(p) if is_device(&p.device).is_err() || p.text.len() > record::LINE_MAX || p.text.contains('\n') => {
                Err(bad("a record that was parked makes no sense"))
            }
            Tagged::Parked(p) => Ok(Line::Parked(p)),
            Tagged::End(e) => Ok(Line::End(e)),
        }
    }
}

fn line_of<T: Serialize>(line: &T) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec(line).map_err(|e| Error::new(Kind::Internal, "writing a line of a snapshot").source(e))?;
    text.push(b'\n');
    Ok(text)
}

fn json<T: serde::de::DeserializeOwned>(line: &[u8]) -> Result<T> {
    serde_json::from_slice(line).map_err(|e| bad(e.to_string()))
}

fn bad(why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Corrupt, format!("reading a snapshot: {why}"))
}

/// Counts and hashes lines as they are written or read.
#[derive(Clone, Default)]
pub struct Tally {
    hash: blake3::Hasher,
    lines: u64,
}

impl Tally {
    /// One more line, with its newline.
    pub fn add(&mut self, line: &[u8]) {
        self.hash.update(line);
        self.lines += 1;
    }

    /// The last line for what was added.
    pub fn end(&self) -> End {
        End { lines: self.lines, hash: Hash(*self.hash.finalize().as_bytes()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let cursors = [("yoga-1f3a9c20".to_owned(), 7), ("bob-00000001".to_owned(), 0)].into();
        Header { snapshot: 1, device_id: "yoga-1f3a9c20".into(), written_at: 5, cursors }
    }

    #[test]
    fn a_header_comes_back_and_others_are_told_apart() {
        let line = header().encode().unwrap();
        assert_eq!(Header::parse(line.strip_suffix(b"\n").unwrap()).unwrap(), header());
        let kind = |text: &str| Header::parse(text.as_bytes()).map_err(|e| e.kind()).err();
        assert_eq!(kind(r#"{"snapshot":2,"anything":1}"#), Some(Kind::Unsupported));
        assert_eq!(kind(r#"{"snapshot":0,"device_id":"a","written_at":1,"cursors":{}}"#), Some(Kind::Corrupt));
        assert_eq!(kind(r#"{"snapshot":1,"device_id":"a","written_at":1,"cursors":{"../x":1}}"#), Some(Kind::Corrupt));
        assert_eq!(kind(r#"{"v":1}"#), Some(Kind::Corrupt));
    }

    #[test]
    fn what_was_parked_keeps_its_text_to_the_byte() {
        let text = "{\"v\":2, \"odd\":\"\\u00e9 \\\"}\"}".to_owned();
        let parked = Parked { device: "yoga-1f3a9c20".into(), seq: 3, line: 2, text };
        let line = Line::Parked(parked.clone()).encode().unwrap();
        assert!(matches!(Line::parse(1, line.strip_suffix(b"\n").unwrap()).unwrap(), Line::Parked(p) if p == parked));
    }

    #[test]
    fn lines_of_no_known_sort_are_corrupt() {
        for text in ["", "{}", "[]", r#"{"later":{}}"#, r#"{"past":{"v":1}}"#, r#"{"past":}"#, r#"{"end":{"lines":1}}"#, r#"{"v":1}"#] {
            assert_eq!(Line::parse(1, text.as_bytes()).unwrap_err().kind(), Kind::Corrupt, "{text}");
        }
    }
}
