//! The composition root: configuration, the socket and its protocol, the life of the daemon process.
//!
//! Not here: the rules (`model`), the drive itself (`vfs`, `fleet`, `content`), the command line (`cli`).

pub mod config;
pub mod pathargs;
pub mod paths;
pub mod protocol;
pub mod service;
