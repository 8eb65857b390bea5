//! Lists of condemned objects: what garbage collection on one device is going to remove, told to everybody beforehand.
//!
//! Lines of JSON: the first says whose list it is and which edition, then comes a line for each object, and last one with
//! the number of lines before it and their hash. Must: without that last line, or with another number or hash in it, it is
//! none: who takes a part for the whole would use again what is about to go.
//! Must: within a series an object stays from the edition in which it came to the one in which it is no longer of
//! interest: it is gone, or something needs it again. A list that was lost begins a new series, of which nobody has seen
//! anything.
//! Not here: compression (`content`), what is condemned and when it goes (`fleet::gc`).

use super::hash::Hash;
use super::record::is_device;
use super::snapshot::{End, Tally};
use crate::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Format of lists that this program writes; a higher one is of a later tcfs.
pub const FORMAT: u32 = 1;

/// One of the lists that a device has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edition {
    /// Drawn when the first list of the series was written.
    pub series: u64,
    /// From 1.
    pub number: u64,
}

impl Edition {
    /// Whether who goes by this one knows of an object that came into `series` with edition `since`.
    pub fn knows(&self, series: u64, since: u64) -> bool {
        self.series == series && self.number >= since
    }
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`].
    pub condemned: u32,
    /// Whose list.
    pub device_id: String,
    /// When it was written, milliseconds since 1970 by its clock; for people.
    pub at: i64,
    /// Which one.
    pub edition: Edition,
    /// Device → batch up to which the records were looked at as a snapshot has them: a device that has applied less may
    /// still build on what is superseded there.
    pub since: BTreeMap<String, u64>,
}

/// Where an object lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    /// Below `chunks/`.
    Chunk,
    /// Below `manifests/`.
    Manifest,
    /// Below `snapshots/`.
    Snapshot,
}

/// An object that nothing needs. In JSON `["chunk", "<hash>", edition, time]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condemned(
    /// Where it lies.
    pub Sort,
    /// Under which hash.
    pub Hash,
    /// Edition in which it came.
    pub u64,
    /// The store's time of that edition, seconds since 1970; 0 in that edition itself, which does not know it.
    pub i64,
);

/// A list as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// The first line.
    pub header: Header,
    /// The objects.
    pub objects: Vec<Condemned>,
}

impl List {
    /// The lines.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut tally = Tally::default();
        let mut out = Vec::new();
        let mut add = |line: Vec<u8>| {
            tally.add(&line);
            out.extend(line);
        };
        add(json(&self.header)?);
        for o in &self.objects {
            add(json(o)?);
        }
        out.extend(json(&Last { end: tally.end() })?);
        Ok(out)
    }

    /// Reads the list of `device`.
    ///
    /// Errors: `Corrupt`; `Unsupported` for one of a later tcfs.
    pub fn parse(device: &str, lines: &[u8]) -> Result<List> {
        #[derive(Deserialize)]
        struct Format {
            condemned: u32,
        }
        let bad = |why: &str| Error::new(Kind::Corrupt, format!("reading what {device} has condemned: {why}"));
        let mut tally = Tally::default();
        let mut lines = lines.split_inclusive(|b| *b == b'\n');
        let first = lines.next().ok_or_else(|| bad("it is empty"))?;
        let format: Format = serde_json::from_slice(first).map_err(|e| bad(&e.to_string()))?;
        if format.condemned > FORMAT {
            let what = format!("reading what {device} has condemned: it has format {}, this tcfs knows {FORMAT}", format.condemned);
            return Err(Error::new(Kind::Unsupported, what).hint("upgrade tcfs on this machine"));
        }
        let header: Header = serde_json::from_slice(first).map_err(|e| bad(&e.to_string()))?;
        if header.condemned != FORMAT || header.device_id != device || header.edition.number == 0 {
            return Err(bad("its first line makes no sense"));
        }
        header.since.keys().try_for_each(|id| is_device(id)).map_err(|e| bad(&e))?;
        tally.add(first);
        let mut objects = Vec::new();
        while let Some(text) = lines.next() {
            if let Ok(object) = serde_json::from_slice(text) {
                objects.push(object);
                tally.add(text);
                continue;
            }
            let Last { end } = serde_json::from_slice(text).map_err(|e| bad(&e.to_string()))?;
            return match (end == tally.end(), lines.next()) {
                (true, None) => Ok(List { header, objects }),
                (true, Some(_)) => Err(bad("it goes on after its end")),
                (false, _) => Err(bad("its lines are not those that were written")),
            };
        }
        Err(bad("its end is missing: it is not complete"))
    }
}

/// The last line.
#[derive(Serialize, Deserialize)]
struct Last {
    end: End,
}

fn json<T: Serialize>(line: &T) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec(line).map_err(|e| Error::new(Kind::Internal, "writing a list of condemned objects").source(e))?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> List {
        let header = Header {
            condemned: FORMAT,
            device_id: "yoga-1f3a9c20".into(),
            at: 5,
            edition: Edition { series: u64::MAX, number: 3 },
            since: [("bob-00000001".to_owned(), 7)].into(),
        };
        let objects = vec![Condemned(Sort::Chunk, Hash::of(b"c"), 1, 1_700_000_000), Condemned(Sort::Manifest, Hash::of(b"m"), 3, 0)];
        List { header, objects }
    }

    #[test]
    fn a_list_comes_back_whole_or_not_at_all() {
        let text = list().encode().unwrap();
        assert_eq!(List::parse("yoga-1f3a9c20", &text).unwrap(), list());
        assert_eq!(List::parse("bob-00000001", &text).unwrap_err().kind(), Kind::Corrupt);
        for cut in 0..text.len() {
            let read = List::parse("yoga-1f3a9c20", &text[..cut]);
            // Without its last newline it still is all that was written.
            assert!(cut == text.len() - 1 || read.is_err_and(|e| e.kind() == Kind::Corrupt), "{cut}");
        }
        let lines: Vec<&[u8]> = text.split_inclusive(|b| *b == b'\n').collect();
        let without = [lines[0], lines[2], lines[3]].concat();
        assert_eq!(List::parse("yoga-1f3a9c20", &without).unwrap_err().kind(), Kind::Corrupt);
        let empty = List { objects: Vec::new(), ..list() };
        assert_eq!(List::parse("yoga-1f3a9c20", &empty.encode().unwrap()).unwrap(), empty);
    }

    #[test]
    fn a_later_format_is_told_apart_from_damage() {
        let kind = |text: &str| List::parse("a", text.as_bytes()).unwrap_err().kind();
        assert_eq!(kind("{\"condemned\":2,\"x\":1}\n"), Kind::Unsupported);
        for text in ["", "\n", "{}", "{\"condemned\":1}\n", "[]\n"] {
            assert_eq!(kind(text), Kind::Corrupt, "{text:?}");
        }
    }

    #[test]
    fn who_goes_by_an_earlier_edition_or_another_series_does_not_know() {
        let e = Edition { series: 4, number: 3 };
        assert!(e.knows(4, 3) && e.knows(4, 1) && !e.knows(4, 4) && !e.knows(5, 1));
    }
}
