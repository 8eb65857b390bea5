//! wip
pub mod moves;
