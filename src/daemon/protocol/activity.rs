//! What happens, what waits.

use super::EntryKind;
pub use crate::model::activity::{Activity, Change, What};
use serde::{Deserialize, Serialize};

/// Something of this machine that is not in the store's log yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Path.
    pub path: String,
    /// What was made of it.
    pub kind: EntryKind,
    /// Bytes.
    pub size: u64,
    /// When it was saved; of what is still being written: now.
    pub since: i64,
    /// A program has it open for writing.
    pub open: bool,
    /// Found unsealed after a crash.
    pub recovered: bool,
}

/// The end of following what happens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Followed {
    /// Events sent.
    pub events: u64,
}
