//! Content: a file's bytes as chunks. Cutting, encoding, upload, fetching, and the sets of byte ranges that go with it.
//!
//! Must: a chunk is used only after its bytes were checked against its hash.
//! Must: memory is bounded by the options, never by the size of a file or by what a store answers.
//! Not here: which version a file has (`model`), where its bytes lie on this machine (`vfs`), when it is published (`fleet`).

mod buffers;
pub mod chunker;
pub mod codec;
pub mod condemned;
pub mod fetch;
mod flight;
pub mod known;
mod lanes;
pub use crate::model::ranges;
pub mod readahead;
pub mod recut;
pub mod slots;
pub mod source;
pub mod upload;

pub use fetch::{FetchOptions, FetchStats, Fetcher};
pub use ranges::RangeSet;
pub use readahead::ReadAhead;
pub use slots::Priority;
pub use source::ReadAt;
pub use upload::{Cut, CutStats, UploadOptions, Uploader};

#[cfg(test)]
mod testing;
