//! `tcfs tui`.

use super::context::Ctx;
use crate::error::Result;
use clap::Args;

/// Show the drive full-screen, live: state, transfers, devices, what happens, conflicts
///
/// Keys: 1 to 5, Tab and arrows for the parts; in Conflicts d shows how two versions differ, l, r and b keep the local one,
/// the remote one or both, after a question; ? lists all keys, q ends. It goes on over restarts of the daemon.
#[derive(Args)]
pub struct Tui {}

impl Tui {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        crate::tui::run(ctx.config.socket()).await?;
        Ok(0)
    }
}
