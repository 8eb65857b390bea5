//! Leases: what one device may still need of the store although no record says so, and how far it has come.
//!
//! A device writes its own now and then. Garbage collection removes nothing that a lease names, and nothing at all before
//! every device has said in its lease that it goes by the list on which the object stands (`gc`).
//! Not here: when it is written, what follows from it (`fleet::gc`).

use super::gc::Edition;
use super::hash::Hash;
use super::record::is_device;
use crate::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Format of leases that this program writes; a higher one is of a later tcfs.
pub const FORMAT: u32 = 1;
/// Most manifests and chunks that one names.
pub const NAMED_MAX: usize = 400_000;
/// A lease that is larger is none.
pub const BODY_MAX: usize = 64 << 20;

/// One device's lease.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// [`FORMAT`].
    pub lease: u32,
    /// Whose.
    pub device_id: String,
    /// When it was written, milliseconds since 1970 by its clock; for people.
    pub at: i64,
    /// Device → last batch of its log that this device had applied, its own log included.
    pub cursors: BTreeMap<String, u64>,
    /// Device → the edition of its list of condemned objects that this device goes by.
    #[serde(default)]
    pub lists: BTreeMap<String, Edition>,
    /// Manifests under what is not published yet, or published just now.
    #[serde(default)]
    pub manifests: BTreeSet<Hash>,
    /// Chunks of the same, where no manifest tells them.
    #[serde(default)]
    pub chunks: BTreeSet<Hash>,
    /// It needs more than [`NAMED_MAX`] objects, and names none: nothing may go.
    #[serde(default)]
    pub everything: bool,
}

impl Lease {
    /// The body of the object.
    pub fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|e| Error::new(Kind::Internal, "writing a lease").source(e))
    }

    /// Reads the lease of `device`.
    ///
    /// Errors: `Corrupt`; `Unsupported` for one of a later tcfs, which may name things in a way unknown here.
    pub fn parse(device: &str, body: &[u8]) -> Result<Lease> {
        #[derive(Deserialize)]
        struct Format {
            lease: u32,
        }
        let bad = |why: String| Error::new(Kind::Corrupt, format!("reading the lease of {device}: {why}"));
        if body.len() > BODY_MAX {
            return Err(bad(format!("{} bytes are too many", body.len())));
        }
        let format: Format = serde_json::from_slice(body).map_err(|e| bad(e.to_string()))?;
        if format.lease > FORMAT {
            let what = format!("reading the lease of {device}: it has format {}, this tcfs knows {FORMAT}", format.lease);
            return Err(Error::new(Kind::Unsupported, what).hint("upgrade tcfs on this machine"));
        }
        let lease: Lease = serde_json::from_slice(body).map_err(|e| bad(e.to_string()))?;
        if lease.lease != FORMAT || lease.device_id != device {
            return Err(bad("it is another's, or of no format".into()));
        }
        lease.cursors.keys().chain(lease.lists.keys()).try_for_each(|id| is_device(id)).map_err(bad)?;
        Ok(lease)
    }

    /// It needs a manifest, and the chunks.
    pub fn needs(&mut self, manifest: Hash, chunks: impl IntoIterator<Item = Hash>) {
        if self.everything || manifest.is_zero() {
            return;
        }
        self.manifests.insert(manifest);
        self.chunks.extend(chunks);
        if self.manifests.len() + self.chunks.len() > NAMED_MAX {
            self.everything = true;
            self.manifests.clear();
            self.chunks.clear();
        }
    }

    /// Whether its device had applied everything up to `cursors`.
    pub fn has_applied(&self, cursors: &BTreeMap<String, u64>) -> bool {
        cursors.iter().all(|(device, seq)| self.cursors.get(device).copied().unwrap_or(0) >= *seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_comes_back_and_others_are_told_apart() {
        let lease = Lease {
            lease: FORMAT,
            device_id: "yoga-1f3a9c20".into(),
            at: 5,
            cursors: [("yoga-1f3a9c20".to_owned(), 7)].into(),
            lists: [("bob-00000001".to_owned(), Edition { series: 9, number: 3 })].into(),
            manifests: [Hash::of(b"m")].into(),
            chunks: [Hash::of(b"c")].into(),
            everything: false,
        };
        let body = lease.encode().unwrap();
        assert_eq!(Lease::parse("yoga-1f3a9c20", &body).unwrap(), lease);
        let kind = |device: &str, text: &str| Lease::parse(device, text.as_bytes()).map_err(|e| e.kind()).err();
        assert_eq!(kind("a", r#"{"lease":2,"anything":1}"#), Some(Kind::Unsupported));
        let minimal = r#"{"lease":1,"device_id":"a","at":0,"cursors":{}}"#;
        assert_eq!(kind("a", minimal), None);
        assert_eq!(kind("b", minimal), Some(Kind::Corrupt));
        assert_eq!(kind("a", r#"{"lease":1,"device_id":"a","at":0,"cursors":{"../x":1}}"#), Some(Kind::Corrupt));
        assert_eq!(kind("a", r#"{"lease":1,"device_id":"a","at":0,"cursors":{},"manifests":["../x"]}"#), Some(Kind::Corrupt));
        for text in ["", "{}", "[]", "\u{0}"] {
            assert_eq!(kind("a", text), Some(Kind::Corrupt), "{text:?}");
        }
    }

    #[test]
    fn who_needs_more_than_can_be_named_needs_everything() {
        let mut lease = Lease::default();
        lease.needs(Hash::ZERO, [Hash::of(b"not cut")]);
        assert!(lease.manifests.is_empty() && lease.chunks.is_empty());
        (0..NAMED_MAX as u64 / 2).for_each(|i| lease.needs(Hash::of(&i.to_le_bytes()), [Hash::of(&(!i).to_le_bytes())]));
        assert!(!lease.everything && lease.manifests.len() + lease.chunks.len() == NAMED_MAX);
        assert!(lease.encode().unwrap().len() < BODY_MAX);
        lease.needs(Hash::of(b"one more"), []);
        assert!(lease.everything && lease.manifests.is_empty() && lease.chunks.is_empty());
    }

    #[test]
    fn what_a_device_has_applied_counts_log_by_log() {
        let of = |list: &[(&str, u64)]| list.iter().map(|(d, n)| ((*d).to_owned(), *n)).collect::<BTreeMap<_, _>>();
        let lease = Lease { cursors: of(&[("a", 3), ("b", 1)]), ..Lease::default() };
        assert!(lease.has_applied(&of(&[])) && lease.has_applied(&of(&[("a", 3)])) && lease.has_applied(&of(&[("a", 1), ("b", 1)])));
        assert!(!lease.has_applied(&of(&[("a", 4)])) && !lease.has_applied(&of(&[("c", 1)])));
    }
}
