//! tcfs: one drive for a fleet of machines. This page is the map of the code.
//!
//! | layer | what it is | may use |
//! |---|---|---|
//! | [`cli`] | the command line, one file a command | `daemon` but not `daemon::core`, `model` |
//! | [`daemon`] | the process: configuration, socket, life, and (`daemon::core`) everything put together | all below |
//! | [`mount`] | front ends of the drive (FUSE): they convert and decide nothing | `vfs`, `model` |
//! | [`vfs`] | the drive by inode: names, attributes, bytes, sealing, hydration | `fleet`, `content`, `state`, `model` |
//! | [`fleet`] | the outbox into this device's log, everybody else's logs into the tree; the event bus; who the devices are | `content`, `state`, `store`, `model` |
//! | [`content`] | files as chunks: cutting, encoding, upload, fetching | `store`, `model` |
//! | [`state`] | the local database behind an append journal, and the replica of the namespace in it | `model` |
//! | [`store`] | five calls over keys and bytes: a directory, S3, and what tests need | `model` |
//! | [`model`] | the rules, pure: clocks, versions, merging, views, formats | nothing |
//!
//! An arrow may only point down. `error` and `clock` are used everywhere. Where to begin: how versions merge and what
//! lies in the store is told in [`model`], what a program on the mount can rely on in [`vfs`], the order of writes in
//! [`fleet`].

pub mod cli;
pub mod clock;
pub mod content;
pub mod daemon;
pub mod error;
pub mod fleet;
pub mod model;
pub mod mount;
pub mod state;
pub mod store;
pub mod vfs;

pub use error::{Error, Kind as ErrorKind, Result};
