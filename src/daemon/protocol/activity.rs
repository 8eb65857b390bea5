//! What happens, what waits.

use super::EntryKind;
pub use crate::model::activity::{Activity, Change, What};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something of this machine that is not in the store's log yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// Sum of what waits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PendingSum {
    /// Entries sent.
    pub pending: u64,
}

/// Arguments of [`super::Request::Told`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToldFile {
    /// Name in the control directory: `status.json`, `metrics`, `log`, …
    pub name: String,
}

/// A file of the control directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToldText {
    /// What it says; of a long log the end.
    pub text: String,
}

/// The end of following what happens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Followed {
    /// Events sent.
    pub events: u64,
}
