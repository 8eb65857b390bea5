//! The rules, pure: paths, clocks, versions, entries and their merge, the view of an entry, what each operation
//! writes, manifests, log records.
//!
//! Must: no I/O, no async, no clock, no logging. Everything here is a function of its arguments, the same on every device.

pub mod activity;
pub mod adopt;
pub mod brake;
pub mod coalesce;
pub mod entry;
pub mod event;
pub mod gc;
pub mod hash;
pub mod heal;
pub mod lease;
pub mod manifest;
pub mod old_index;
pub mod ops;
pub mod path;
pub mod ranges;
pub mod record;
pub mod reissue;
pub mod resolve;
pub mod sibling;
pub mod snapshot;
pub mod vclock;
pub mod version;
pub mod view;

#[doc = include_str!("MERGE.md")]
pub mod merge_rules {}
#[doc = include_str!("FORMATS.md")]
pub mod formats {}

pub use entry::Entry;
pub use hash::Hash;
pub use ops::{Accepted, Author, Target};
pub use path::RelPath;
pub use vclock::VClock;
pub use version::{ChunkRef, FileContent, Kind, Place, Version};
pub use view::{ConflictMode, View, view};
