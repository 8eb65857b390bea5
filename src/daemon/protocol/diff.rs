//! `conflict_diff`: how two versions of a path in conflict differ.

use super::response::Head;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Arguments of [`super::Request::ConflictDiff`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConflictDiff {
    /// PATH of the entry, or of the sibling that is compared with it.
    pub path: String,
    /// Name or id of the device whose version is compared with the shown one. None: the sibling that `path` names, else
    /// the only other version.
    #[serde(default)]
    pub with: Option<String>,
}

/// How the versions differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiffForm {
    /// As texts; `text` has the lines.
    #[default]
    Text,
    /// As bytes; `first` has the offset of the first that differ.
    Bytes,
    /// One is no file, or both are links.
    Kind,
}

/// One side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiffSide {
    /// The version.
    pub head: Head,
    /// BLAKE3 of the whole file, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Target of a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// `tcfs conflicts diff`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diff {
    /// Path of the entry.
    pub path: String,
    /// The shown version.
    pub shown: DiffSide,
    /// The other one.
    pub other: DiffSide,
    /// How they differ.
    pub form: DiffForm,
    /// The difference line by line, as `diff -u` writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Lines only in the other version.
    pub added: u64,
    /// Lines only in the shown version.
    pub removed: u64,
    /// Offset of the first byte that differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
}
