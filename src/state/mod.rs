//! Local state: one process owns it.

pub mod lock;
