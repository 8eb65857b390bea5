//! `tcfs why`.

use super::context::{Ctx, unexpected};
use crate::daemon::protocol::{OnPath, Request, Response};
use crate::error::Result;
use clap::Args;

/// Say why a path is as it is: who wrote it, where its bytes are and why, what is pending
///
/// In plain sentences: which version is shown, from which machine and when; whether its bytes are here, were let go or are
/// pinned; what is not in the store yet; what is in conflict; which rule keeps it on this machine; who read it last.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs why notes/plan.md
  tcfs why target
  tcfs why --json notes/plan.md | jq .residence")]
pub struct Why {
    /// PATH in the drive, present or removed
    #[arg(add = super::completions::path())]
    path: String,
}

impl Why {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        let drive = ctx.own_drive().await?;
        let path = ctx.path(&drive, &self.path)?;
        let response = ctx.ask(drive, Request::Why(OnPath { path }), |_| {}).await?;
        ctx.out.object(&response);
        let Response::Why(w) = &response else { return Err(unexpected(&response)) };
        ctx.out.line(ctx.out.bold(&ctx.out.name(if w.path.is_empty() { "/" } else { &w.path })));
        for s in &w.sentences {
            ctx.out.line(format!("  {}", ctx.out.name(s)));
        }
        Ok(response.exit_code())
    }
}
