//! The composition root: configuration, the socket and its protocol, the life of the daemon process.
//!
//! Not here: the rules (`model`), the drive itself (`vfs`, `fleet`, `content`), the command line (`cli`).

pub mod client;
pub mod config;
pub mod core;
pub mod doctor;
pub mod helper;
pub mod lifecycle;
pub mod log;
mod memory;
pub mod mounts;
pub mod notify;
pub mod pathargs;
pub mod paths;
pub mod protocol;
pub mod repair;
pub mod run;
pub mod service;
pub mod shell;
pub mod socket;
pub mod units;

use crate::error::{Kind, Result};
use crate::fleet::Identity;
use crate::state::db;
use crate::state::lock::StateLock;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the owner of the state is given to let go of it: a daemon that is just ending, or a short command.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is asked.
const LOOK: Duration = Duration::from_millis(20);

/// Opens the drive of this machine in this process: takes the state's lock and everything behind it. Used by the
/// daemon, and by commands that find no daemon. `Locked` if another process owns the state.
pub async fn open_service(config: &config::Config) -> Result<Arc<dyn service::Service>> {
    let lock = own_state(config).await?;
    Ok(core::Core::open(config, lock).await?)
}

/// Refuses what makes sense only on a machine that is enrolled already, before opening the drive enrols it: with a
/// mistyped state directory, a question must not make a new device.
///
/// Errors: `NotEnrolled`.
pub fn must_be_enrolled(config: &config::Config) -> Result<()> {
    match Identity::load(&config.dirs.state) {
        // The database has it, too.
        Err(e) if e.kind() == Kind::NotEnrolled && !config.dirs.state.join(db::FILE).exists() => Err(e),
        // Whatever else is wrong is told by whoever opens it.
        _ => Ok(()),
    }
}

/// Takes the lock of the state, waiting a while for an owner that will let go; not for a daemon that serves.
async fn own_state(config: &config::Config) -> Result<StateLock> {
    run::make_state_dir(&config.dirs.state)?;
    let give_up = Instant::now() + PATIENCE;
    loop {
        match StateLock::acquire(&config.dirs.lock()) {
            Err(e) if e.kind() == Kind::Locked => {
                if Instant::now() > give_up || client::Client::connect(&config.socket()).await.is_ok() {
                    return Err(e);
                }
                tokio::time::sleep(LOOK).await;
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shell::tests::{FakeCore, config_in};

    #[tokio::test]
    async fn a_state_that_is_let_go_is_taken_and_one_that_is_served_is_not_waited_for() {
        let tmp = tempfile::tempdir().unwrap();
        let config = config_in(tmp.path());
        let first = own_state(&config).await.unwrap();
        let second = tokio::spawn({
            let config = config.clone();
            async move { own_state(&config).await }
        });
        tokio::time::sleep(LOOK).await;
        drop(first);
        let _owned = second.await.unwrap().unwrap();
        let server = socket::Server::bind(&config.socket()).unwrap();
        let (_stop, stopped) = tokio::sync::watch::channel(false);
        tokio::spawn(server.serve(Arc::new(FakeCore::default()), stopped));
        let began = Instant::now();
        assert_eq!(own_state(&config).await.err().unwrap().kind(), Kind::Locked);
        assert!(began.elapsed() < PATIENCE, "it waited for a daemon that serves");
    }
}
