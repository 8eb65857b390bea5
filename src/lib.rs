//! tcfs: one drive for a fleet of machines.

pub mod cli;
pub mod clock;
pub mod daemon;
pub mod error;
pub mod model;
pub mod state;
pub mod store;

pub use error::{Error, Kind as ErrorKind, Result};
