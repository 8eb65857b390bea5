//! `tcfs wait`.

use super::context::{Ctx, unexpected};
use super::format;
use crate::daemon::config::Span;
use crate::daemon::protocol::{self, Request, Response};
use crate::error::Result;
use clap::Args;

/// Wait until everything that was closed before is in the store
///
/// Files that are still open for writing are not waited for. A removed file counts: its removal is waited for.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs wait && sudo poweroff
  tcfs wait notes/plan.md          only this file, whatever else is on its way
  tcfs wait notes --timeout 30s    exit code 3 if something is still pending then")]
pub struct Wait {
    /// Only this PATH and what is below
    #[arg(add = super::completions::path())]
    path: Option<String>,
    /// Give up after this time (500ms, 30s, 2m)
    #[arg(long, value_name = "TIME", value_parser = |s: &str| s.parse::<Span>())]
    timeout: Option<Span>,
}

impl Wait {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        let drive = ctx.own_drive().await?;
        let path = self.path.as_ref().map(|p| ctx.path(&drive, p)).transpose()?;
        let what = path.as_ref().map_or("everything", |p| p.trim_matches('/')).to_owned();
        let timeout_ms = self.timeout.map(|t| t.0.as_millis() as u64);
        let response = ctx.ask(drive, Request::Wait(protocol::Wait { path, timeout_ms }), |_| {}).await?;
        ctx.out.object(&response);
        let Response::Waited(w) = &response else { return Err(unexpected(&response)) };
        match w.pending {
            0 => ctx.out.line(format!("{} is in the store", if what.is_empty() { "everything" } else { &what })),
            n => {
                let why = w.why.as_ref().map_or(String::new(), |w| format!(": {w}"));
                ctx.out.line(format!("{} still pending{why}", format::count(n, "change is", "changes are")));
            }
        }
        Ok(response.exit_code())
    }
}
