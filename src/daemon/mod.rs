//! The composition root: configuration, the socket and its protocol, the life of the daemon process.
//!
//! Not here: the rules (`model`), the drive itself (`vfs`, `fleet`, `content`), the command line (`cli`).

pub mod client;
pub mod config;
pub mod core;
pub mod doctor;
pub mod lifecycle;
pub mod log;
pub mod mounts;
pub mod notify;
pub mod pathargs;
pub mod paths;
pub mod protocol;
pub mod run;
pub mod service;
pub mod shell;
pub mod socket;

use crate::error::{Error, Kind, Result};
use crate::state::lock::StateLock;
use std::sync::Arc;
use std::time::Duration;

/// How long the owner of the state is given to let go of it: a daemon that is just ending, or a short command.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens the drive of this machine in this process: takes the state's lock and everything behind it. Used by the
/// daemon, and by commands that find no daemon. `Locked` if another process owns the state.
pub async fn open_service(config: &config::Config) -> Result<Arc<dyn service::Service>> {
    run::make_state_dir(&config.dirs.state)?;
    let file = config.dirs.lock();
    let lock = tokio::task::spawn_blocking(move || StateLock::acquire_within(&file, PATIENCE))
        .await
        .map_err(|e| Error::new(Kind::Internal, "locking the state").source(e))??;
    Ok(core::Core::open(config, lock).await?)
}
