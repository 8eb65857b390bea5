//! `tcfs restore`.

use super::context::{Ctx, unexpected};
use super::format;
use crate::daemon::protocol::{self, Request, Response};
use crate::error::{Error, Kind, Result};
use clap::Args;
use std::time::{SystemTime, UNIX_EPOCH};

/// Make an old version the present one again; the present one stays in history
///
/// Without options: the newest version that is not the present one, so a removed file comes back; a removed directory as it
/// was before it was removed, with what was in it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs restore notes/plan.md
  tcfs restore notes --at '2026-02-13 18:00'
  tcfs restore notes/plan.md --at 2h --to notes/plan.old.md")]
pub struct Restore {
    /// PATH in the drive, present or removed
    #[arg(add = super::completions::path())]
    path: String,
    /// Version as `tcfs history` shows it
    #[arg(long, value_name = "ID", conflicts_with = "at")]
    version: Option<String>,
    /// As it was then: 2026-02-13T18:04:05Z, '2026-02-13 18:04' (local time), or 2h (ago)
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// PATH to restore to [default: in place]
    #[arg(long, value_name = "PATH", add = super::completions::path())]
    to: Option<String>,
}

impl Restore {
    /// What was there last.
    pub fn of(path: String, to: Option<String>) -> Restore {
        Restore { path, version: None, at: None, to }
    }

    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        let at = self.at.as_ref().map(|t| format::parse_time(t, now, ctx.out.offset())).transpose();
        let at = at.map_err(|why| Error::new(Kind::Usage, format!("--at: {why}")))?;
        let drive = ctx.own_drive().await?;
        let path = ctx.path(&drive, &self.path)?;
        let to = self.to.as_ref().map(|p| ctx.path(&drive, p)).transpose()?;
        let request = Request::Restore(protocol::Restore { path, version: self.version, at, to });
        let response = ctx.ask(drive, request, |_| {}).await?;
        ctx.out.object(&response);
        let Response::Restored(r) = &response else { return Err(unexpected(&response)) };
        let files = if r.files > 1 { format!(", {}", format::count(r.files, "file", "files")) } else { String::new() };
        ctx.out.line(format!("{} is as of {}{files}", r.path, ctx.out.time(r.written_at)));
        Ok(response.exit_code())
    }
}
