//! The rules, pure: paths, clocks, versions, entries and their merge, the view of an entry, what each operation
//! writes, manifests, log records.
//!
//! Must: no I/O, no async, no clock, no logging. Everything here is a function of its arguments, the same on every device.

pub mod hash;
pub mod path;
pub mod vclock;
pub mod version;

pub use hash::Hash;
pub use path::RelPath;
pub use vclock::VClock;
pub use version::{ChunkRef, FileContent, Kind, Place, Version};
