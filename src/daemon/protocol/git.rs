//! `git_status`: the repositories in the drive.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Arguments of [`super::Request::GitStatus`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GitStatus {
    /// PATH: repositories at and below it.
    #[serde(default)]
    pub path: String,
}

/// How it is with a repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RepoState {
    /// Repositories are not carried: it is on this machine only.
    #[default]
    Local,
    /// It is carried, and nothing of it is left to do.
    Carried,
    /// A bundle of it is on its way to the store.
    Pending,
    /// It is looked at again: something is under way in it.
    Waiting,
    /// It cannot be carried.
    Refused,
}

/// A repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GitRepo {
    /// Namespace path of its worktree.
    pub path: String,
    /// How it is with it.
    pub state: RepoState,
    /// Why, for people; empty if there is nothing to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// There is a `.git` on this machine.
    pub here: bool,
    /// Names of the devices whose bundles count.
    pub devices: Vec<String>,
    /// What could not be joined and is kept beside, since the daemon started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// To `git_status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GitSum {
    /// Repositories are carried as bundles.
    pub carried: bool,
    /// How many there are.
    pub repositories: u64,
    /// How many of them cannot be carried.
    pub refused: u64,
}
