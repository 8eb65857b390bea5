//! What `--json` prints that is no answer of the drive.

use crate::daemon::config::Shown;
use schemars::JsonSchema;
use serde::Serialize;
use std::path::PathBuf;

/// A line; `type` names it.
#[derive(Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Printed {
    /// Of `config show`.
    Setting(Shown),
    /// Of `config path`.
    ConfigPath {
        /// The file.
        path: PathBuf,
        /// It is there.
        exists: bool,
    },
    /// Of `config check`.
    ConfigChecked {
        /// The file, if there is one.
        file: Option<String>,
        /// What is odd in it.
        warnings: Vec<String>,
    },
    /// Of `daemon start` and `daemon restart`.
    Started {
        /// Its process.
        pid: u32,
        /// It ran before.
        already: bool,
    },
    /// Of `service install`.
    Installed {
        /// The service's file.
        file: PathBuf,
        /// What it mounts on.
        mountpoint: PathBuf,
    },
    /// Of `service uninstall`.
    Uninstalled {
        /// The service's file.
        file: PathBuf,
        /// There was one.
        was_installed: bool,
    },
    /// Of `service status`.
    Service {
        /// The service's file.
        file: PathBuf,
        /// It is there.
        installed: bool,
        /// It runs.
        running: bool,
    },
    /// Of `service print`.
    File {
        /// The text.
        text: String,
    },
    /// Of `report`.
    Reported {
        /// The file that was written.
        file: PathBuf,
        /// Its bytes.
        bytes: u64,
    },
    /// Of `man`.
    Pages {
        /// The directory.
        dir: PathBuf,
        /// Files written.
        pages: u64,
    },
}
