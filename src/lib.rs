//! tcfs: one drive for a fleet of machines.

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
