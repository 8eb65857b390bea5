//! What a machine last had in common with the others, of one repository: kept in the repository's own directory, so that it
//! goes where that goes.

use super::repo::{Past, Repo, State};
use crate::error::{Error, IoContext, Kind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name of the file in `.git`.
const FILE: &str = "tcfs.json";

/// What is remembered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Memory {
    /// What was in the repository when it was last published, or something was taken in: what differs now was done here.
    pub(super) base: Option<State>,
    /// The repository was made here, and the first that is taken in is not all in yet.
    #[serde(default)]
    pub(super) making: bool,
    /// What this machine had in it.
    #[serde(default)]
    pub(super) past: Past,
    /// What each device had when something of it was last taken in, by id.
    pub(super) of: BTreeMap<String, State>,
}

impl Memory {
    fn path(dir: &Path) -> PathBuf {
        dir.join(FILE)
    }

    /// What is known of a repository; nothing of one that is new. A damaged file counts as none: then nothing is taken for
    /// unchanged, and everything is kept beside it.
    pub(super) fn load(repo: &Repo) -> Result<Memory> {
        match std::fs::read(Memory::path(&repo.git.dir)) {
            Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_default()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Memory::default()),
            Err(e) => Err(Error::io("reading what is known of a repository", e)),
        }
    }

    /// Keeps it in a `.git`.
    pub(super) fn save(&self, dir: &Path) -> Result<()> {
        let (to, new) = (Memory::path(dir), dir.join(".tcfs.json.new"));
        let text = serde_json::to_vec(self).map_err(|e| Error::new(Kind::Internal, "writing what is known of a repository").source(e))?;
        let doing = || format!("writing {}", to.display());
        std::fs::write(&new, text).doing(doing)?;
        std::fs::rename(&new, &to).doing(doing)
    }
}
