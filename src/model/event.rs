//! Events: what the bus says of a record, so that others need not wait until they look.
//!
//! A batch of a device's log goes over the bus as one event for each of its records, numbered `i` of `of`. Whoever has
//! all of them has the batch. The fields before `seq` are those that older programs read.
//!
//! Must: an event only ever tells sooner what the log says; whatever is missing or doubtful is read there. So a batch
//! carries its author's signature over all of its records, made for one store: who may speak on the bus can keep others
//! from hearing sooner, and nothing else.
//! Not here: the bus (`fleet::bus`), what hearing one does (`fleet::hear`), keys (`fleet::identity`).

use super::record::{self, Line};
use super::{Hash, Kind, VClock, Version};
use crate::error::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Largest record that an event carries, bytes; a server takes messages of 1 MiB. A larger one is read from the log.
pub const RECORD_MAX: usize = 512 << 10;

/// One message on the bus: compact JSON, tagged `type`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// A path has a new version.
    FileSynced {
        /// Author.
        device_id: String,
        /// Path.
        rel_path: String,
        /// Hash of the whole file where its author knew it; else empty.
        blake3: String,
        /// Bytes of a file.
        size: u64,
        /// Clock of the version.
        vclock: VClock,
        /// Key of its manifest in the store; empty for what has none.
        manifest_path: String,
        /// Seconds since 1970.
        timestamp: i64,
        /// Which record it is.
        #[serde(flatten)]
        part: Part,
    },
    /// A path is gone.
    FileDeleted {
        /// Author.
        device_id: String,
        /// Path.
        rel_path: String,
        /// Clock of the tombstone.
        vclock: VClock,
        /// Seconds since 1970.
        timestamp: i64,
        /// Which record it is.
        #[serde(flatten)]
        part: Part,
    },
    /// A path is gone because it was moved.
    FileRenamed {
        /// Author.
        device_id: String,
        /// Where it was.
        old_path: String,
        /// Where it went.
        new_path: String,
        /// Clock of the tombstone.
        vclock: VClock,
        /// Seconds since 1970.
        timestamp: i64,
        /// Which record it is.
        #[serde(flatten)]
        part: Part,
    },
    /// A device listens from now on.
    DeviceOnline {
        /// Which.
        device_id: String,
        /// Last batch of its log.
        last_seq: u64,
        /// Seconds since 1970.
        timestamp: i64,
        /// It has just come, and wants to hear who else is there.
        #[serde(default)]
        hello: bool,
        /// Its signature, base64.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seal: Option<String>,
    },
    /// A device says goodbye.
    DeviceOffline {
        /// Which.
        device_id: String,
        /// Last batch of its log.
        last_seq: u64,
        /// Seconds since 1970.
        timestamp: i64,
        /// Its signature, base64.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seal: Option<String>,
    },
    /// A conflict was ended; of older programs. Here the versions that end it say so themselves.
    ConflictResolved {
        /// Who did it.
        device_id: String,
        /// Path.
        rel_path: String,
        /// How.
        resolution: String,
        /// Clock of what is left.
        merged_vclock: VClock,
        /// Seconds since 1970.
        timestamp: i64,
    },
}

/// Which record of which batch an event speaks of. Events of older programs have none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Batch in the author's log; 0 in an event of an older program.
    #[serde(default)]
    pub seq: u64,
    /// Which record of the batch, from 0.
    #[serde(default)]
    pub i: u64,
    /// Of how many.
    #[serde(default)]
    pub of: u64,
    /// The record; none if it is too large for a message.
    #[serde(default)]
    pub record: Option<Value>,
    /// With the first record: the author's signature over the whole batch, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<String>,
}

/// What the author of a batch signs: its records in their order, and where they belong.
///
/// Errors: `Invalid` for a version that no log could hold.
pub fn batch_seal<'a>(store: &str, device: &str, seq: u64, batch: impl IntoIterator<Item = &'a Version>) -> Result<Vec<u8>> {
    let lines = record::encode(batch)?;
    Ok(format!("tcfs-batch-v1\n{store}\n{device}\n{seq}\n{}", Hash::of(&lines)).into_bytes())
}

/// What a device signs that says that it comes (`online`) or goes.
pub fn presence_seal(store: &str, device: &str, online: bool, last_seq: u64, timestamp: i64) -> Vec<u8> {
    format!("tcfs-presence-v1\n{store}\n{device}\n{online}\n{last_seq}\n{timestamp}").into_bytes()
}

impl Part {
    /// The record, checked as one from a log is, and its size in bytes; none if there is none.
    pub fn line(&self) -> Option<(Line, usize)> {
        let text = self.record.as_ref()?.to_string();
        Some((record::decode(text.as_bytes()).pop()?, text.len()))
    }
}

impl Event {
    /// The event of record `i` of `of` in batch `seq`. `manifest_key` says where a manifest lies; `seal` goes with the
    /// first record.
    ///
    /// Errors: `Invalid` for a version that no log could hold.
    pub fn of(v: &Version, seq: u64, (i, of): (u64, u64), seal: Option<String>, manifest_key: impl Fn(&Hash) -> String) -> Result<Event> {
        let line = record::encode(std::iter::once(v))?;
        let record = if line.len() <= RECORD_MAX { serde_json::from_slice(&line).ok() } else { None };
        let part = Part { seq, i, of, record, seal: seal.filter(|_| i == 0) };
        let (device_id, rel_path, vclock) = (v.device_id.clone(), v.path.as_str().to_owned(), v.vclock.clone());
        let timestamp = v.written_at.div_euclid(1000);
        Ok(match (&v.kind, &v.moved_to) {
            (Kind::Tombstone, Some(to)) => {
                let new_path = to.as_str().to_owned();
                Event::FileRenamed { device_id, old_path: rel_path, new_path, vclock, timestamp, part }
            }
            (Kind::Tombstone, None) => Event::FileDeleted { device_id, rel_path, vclock, timestamp, part },
            (kind, _) => {
                let content = match kind.content() {
                    Kind::File(c) | Kind::Bundle { content: c, .. } => Some(c),
                    _ => None,
                };
                Event::FileSynced {
                    device_id,
                    rel_path,
                    blake3: content.and_then(|c| c.hash).map_or_else(String::new, |h| h.to_string()),
                    size: content.map_or(0, |c| c.size),
                    vclock,
                    manifest_path: content.map_or_else(String::new, |c| manifest_key(&c.manifest)),
                    timestamp,
                    part,
                }
            }
        })
    }

    /// Whose event it is.
    pub fn device_id(&self) -> &str {
        match self {
            Event::FileSynced { device_id, .. }
            | Event::FileDeleted { device_id, .. }
            | Event::FileRenamed { device_id, .. }
            | Event::DeviceOnline { device_id, .. }
            | Event::DeviceOffline { device_id, .. }
            | Event::ConflictResolved { device_id, .. } => device_id,
        }
    }

    /// The last batch of that device's log that it knows of; 0 in an event of an older program.
    pub fn last_seq(&self) -> u64 {
        match self {
            Event::FileSynced { part, .. } | Event::FileDeleted { part, .. } | Event::FileRenamed { part, .. } => part.seq,
            Event::DeviceOnline { last_seq, .. } | Event::DeviceOffline { last_seq, .. } => *last_seq,
            Event::ConflictResolved { .. } => 0,
        }
    }

    /// The record it speaks of; none for those that speak of devices, and those of older programs.
    pub fn part(&self) -> Option<&Part> {
        match self {
            Event::FileSynced { part, .. } | Event::FileDeleted { part, .. } | Event::FileRenamed { part, .. } => {
                Some(part).filter(|p| p.seq > 0)
            }
            Event::DeviceOnline { .. } | Event::DeviceOffline { .. } | Event::ConflictResolved { .. } => None,
        }
    }

    /// The same without the record: for a bus that takes no message of that size.
    pub fn without_record(mut self) -> Event {
        match &mut self {
            Event::FileSynced { part, .. } | Event::FileDeleted { part, .. } | Event::FileRenamed { part, .. } => part.record = None,
            Event::DeviceOnline { .. } | Event::DeviceOffline { .. } | Event::ConflictResolved { .. } => {}
        }
        self
    }

    /// The last part of its subject, and its tag.
    pub fn name(&self) -> &'static str {
        match self {
            Event::FileSynced { .. } => "file_synced",
            Event::FileDeleted { .. } => "file_deleted",
            Event::FileRenamed { .. } => "file_renamed",
            Event::DeviceOnline { .. } => "device_online",
            Event::DeviceOffline { .. } => "device_offline",
            Event::ConflictResolved { .. } => "conflict_resolved",
        }
    }

    /// The message.
    pub fn encode(&self) -> Vec<u8> {
        // Strings, numbers and maps of them: nothing that JSON cannot hold.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a message. Err says what is wrong with it.
    pub fn decode(body: &[u8]) -> std::result::Result<Event, String> {
        serde_json::from_slice(body).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Accepted, Author, Entry, RelPath, ops};

    fn version() -> Version {
        let path = RelPath::parse("d/s").unwrap();
        let by = Author { device_id: "ann-1".into(), device_name: "ann".into(), now_ms: 5_000 };
        let kind = Kind::Symlink { target: "t".into() };
        ops::write(&path, &Entry::new(), &Accepted::nothing(), kind, Default::default(), &by).unwrap()
    }

    #[test]
    fn an_event_carries_its_record_and_comes_back() {
        let v = version();
        let e = Event::of(&v, 7, (0, 2), Some("signed".into()), |h| format!("manifests/{h}")).unwrap();
        let text = String::from_utf8(e.encode()).unwrap();
        assert!(text.starts_with(r#"{"type":"file_synced","device_id":"ann-1","rel_path":"d/s""#), "{text}");
        let back = Event::decode(text.as_bytes()).unwrap();
        assert_eq!(back, e);
        let part = back.part().unwrap();
        let Some((Line::Version(got), _)) = part.line() else { panic!("{back:?}") };
        // What was signed can be made again from what came.
        assert_eq!(batch_seal("s", "ann-1", 7, [&*got]).unwrap(), batch_seal("s", "ann-1", 7, [&v]).unwrap());
        assert_eq!((*got, part.seq, part.seal.as_deref()), (v.clone(), 7, Some("signed")));
        assert_eq!(Event::of(&v, 7, (1, 2), Some("signed".into()), |_| String::new()).unwrap().part().unwrap().seal, None);
        assert!(back.clone().without_record().part().unwrap().line().is_none());
    }

    #[test]
    fn a_seal_is_for_one_batch_of_one_device_in_one_store() {
        let v = version();
        let seal = |store, device, seq| batch_seal(store, device, seq, [&v]).unwrap();
        let all = [seal("s", "ann-1", 7), seal("t", "ann-1", 7), seal("s", "ann-2", 7), seal("s", "ann-1", 8)];
        let mut different = all.to_vec();
        different.dedup();
        assert_eq!(different.len(), all.len());
        assert_ne!(batch_seal("s", "ann-1", 7, [&v, &v]).unwrap(), all[0]);
    }

    #[test]
    fn events_of_older_programs_are_read_and_name_no_record() {
        let old = br#"{"type":"file_deleted","device_id":"x","rel_path":"a","vclock":{"clocks":{"x":2}},"timestamp":3}"#;
        assert_eq!(Event::decode(old).unwrap().part(), None);
        assert!(Event::decode(b"{\"type\":\"something_else\"}").is_err());
        assert!(Event::decode(b"\xff").is_err());
    }
}
