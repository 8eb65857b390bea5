//! tcfs: one drive for a fleet of machines.

pub mod clock;
pub mod content;
pub mod error;
pub mod fleet;
pub mod model;
pub mod state;
pub mod store;

pub use error::{Error, Kind as ErrorKind, Result};
