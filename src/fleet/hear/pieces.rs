//! Batches put together from the records that the bus brings one by one, in any order.
//!
//! Must: bounded memory, whatever is said: what is too much is read from the log.

use crate::model::Version;
use crate::model::event;
use crate::model::record::Line;
use std::collections::{BTreeMap, HashMap};

/// Records and bytes of records kept of batches that are not complete; beyond it they are read from the log.
const KEPT: (usize, usize) = (50_000, 64 << 20);
/// Batches of which records came.
#[derive(Default)]
pub(super) struct Pieces {
    batches: HashMap<String, Pieced>,
    records: usize,
    bytes: usize,
}

/// Records of one batch of a device, by their place, with their sizes.
struct Pieced {
    seq: u64,
    of: u64,
    seal: Option<String>,
    versions: BTreeMap<u64, (Version, usize)>,
}

/// What a record that came makes of its batch.
#[derive(Debug)]
pub(super) enum Next {
    /// More is to come, or it is an old one.
    Nothing,
    /// All of it is here: the versions, and the signature that came with them.
    Whole(Vec<Version>, Option<String>),
    /// It has to be read from the log.
    Doubt,
}

impl Pieces {
    /// Takes a record; `cursor` is the last batch applied of that device.
    pub(super) fn take(&mut self, device: &str, cursor: u64, part: &event::Part) -> Next {
        if self.batches.get(device).is_some_and(|b| b.seq <= cursor) {
            self.forget(device);
        }
        let (seq, i, of) = (part.seq, part.i, part.of);
        if seq <= cursor {
            return Next::Nothing;
        }
        if seq != cursor + 1 || i >= of || of > KEPT.0 as u64 {
            return Next::Doubt;
        }
        let Some((Line::Version(v), size)) = part.line() else { return Next::Doubt };
        if v.path.is_root() {
            return Next::Doubt;
        }
        if self.records >= KEPT.0 || self.bytes + size > KEPT.1 {
            *self = Pieces::default();
            return Next::Doubt;
        }
        let batch = self.batches.entry(device.to_owned()).or_insert_with(|| Pieced { seq, of, seal: None, versions: BTreeMap::new() });
        if (batch.seq, batch.of) != (seq, of) {
            self.forget(device);
            return Next::Doubt;
        }
        if part.seal.is_some() {
            batch.seal.clone_from(&part.seal);
        }
        if let Some((_, old)) = batch.versions.insert(i, (*v, size)) {
            (self.records, self.bytes) = (self.records - 1, self.bytes - old);
        }
        (self.records, self.bytes) = (self.records + 1, self.bytes + size);
        if (batch.versions.len() as u64) < of {
            return Next::Nothing;
        }
        self.forget(device).map_or(Next::Doubt, |b| Next::Whole(b.versions.into_values().map(|(v, _)| v).collect(), b.seal))
    }

    fn forget(&mut self, device: &str) -> Option<Pieced> {
        let b = self.batches.remove(device)?;
        self.records -= b.versions.len();
        self.bytes -= b.versions.values().map(|(_, size)| size).sum::<usize>();
        Some(b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::Event;
    use crate::model::{Accepted, Author, Entry, RelPath, ops};

    fn part(seq: u64, i: u64, of: u64, name: &str) -> event::Part {
        let path = RelPath::parse(name).unwrap();
        let by = Author { device_id: "ann-1".into(), device_name: "ann".into(), now_ms: 0 };
        let v = ops::write(&path, &Entry::new(), &Accepted::nothing(), crate::model::Kind::Dir, Default::default(), &by).unwrap();
        Event::of(&v, seq, (i, of), Some("signed".into()), |_| String::new()).unwrap().part().unwrap().clone()
    }

    #[test]
    fn a_batch_is_whole_when_every_record_came_in_any_order_and_twice() {
        let mut p = Pieces::default();
        for (i, name) in [(2, "c"), (0, "a"), (0, "a")] {
            assert!(matches!(p.take("ann-1", 4, &part(5, i, 3, name)), Next::Nothing));
        }
        let Next::Whole(all, seal) = p.take("ann-1", 4, &part(5, 1, 3, "b")) else { panic!() };
        assert_eq!(all.iter().map(|v| v.path.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!((seal.as_deref(), p.records, p.bytes), (Some("signed"), 0, 0));
        assert!(matches!(p.take("ann-1", 5, &part(5, 1, 3, "b")), Next::Nothing), "an old one");
    }

    #[test]
    fn a_gap_a_missing_record_and_a_lie_are_doubts() {
        let mut p = Pieces::default();
        let doubt = |n: Next| matches!(n, Next::Doubt);
        assert!(doubt(p.take("ann-1", 4, &part(6, 0, 1, "a"))), "a gap");
        assert!(doubt(p.take("ann-1", 4, &event::Part { record: None, ..part(5, 0, 1, "a") })), "no record");
        assert!(doubt(p.take("ann-1", 4, &part(5, 3, 3, "a"))), "beyond the end");
        assert!(doubt(p.take("ann-1", 4, &part(5, 0, u64::MAX, "a"))), "too many");
        assert!(matches!(p.take("ann-1", 4, &part(5, 0, 2, "a")), Next::Nothing));
        assert!(doubt(p.take("ann-1", 4, &part(5, 1, 3, "b"))), "of how many?");
        assert!(matches!(p.take("ann-1", 4, &part(5, 0, 2, "a")), Next::Nothing));
        // Once it was read from the log, nothing is kept of it.
        assert!(matches!(p.take("ann-1", 5, &part(5, 1, 2, "b")), Next::Nothing));
        assert_eq!((p.records, p.bytes), (0, 0));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut p = Pieces::default();
        // Nobody ends these batches.
        for n in 0..KEPT.0 {
            assert!(matches!(p.take(&format!("d-{n}"), 0, &part(1, 0, 2, "a")), Next::Nothing));
        }
        assert!(matches!(p.take("one-more", 0, &part(1, 0, 2, "a")), Next::Doubt));
        assert_eq!((p.records, p.bytes, p.batches.len()), (0, 0, 0));
    }
}
