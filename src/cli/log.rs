//! `tcfs log`.

use super::context::{Ctx, unexpected};
use super::format;
use crate::daemon::protocol::{Item, LogLine, LogQuery, Request, Response};
use crate::error::{Error, Kind, Result};
use clap::Args;
use std::time::{SystemTime, UNIX_EPOCH};

/// List what changed where, by which machine, newest first
///
/// Every version that is known here, of the whole fleet: what was written, moved and removed. Times are those of the machine
/// that did it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs log
  tcfs log notes --since yesterday
  tcfs log --device yoga --limit 0 --json")]
pub struct Log {
    /// Only at and below PATH
    #[arg(add = super::completions::path())]
    path: Option<String>,
    /// Only since: 2h, yesterday, 2026-02-13
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only before
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only by this device: name or id
    #[arg(long, value_name = "DEVICE", add = super::completions::device())]
    device: Option<String>,
    /// The newest N; 0: all
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    limit: u64,
}

impl Log {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        let time = |flag: &str, t: &Option<String>| {
            let t = t.as_ref().map(|t| format::parse_time(t, now, ctx.out.offset())).transpose();
            t.map_err(|why| Error::new(Kind::Usage, format!("{flag}: {why}")))
        };
        let (since, until) = (time("--since", &self.since)?, time("--until", &self.until)?);
        let drive = ctx.own_drive().await?;
        let path = self.path.as_ref().map(|p| ctx.path(&drive, p)).transpose()?;
        let limit = (self.limit > 0).then_some(self.limit);
        let request = Request::Log(LogQuery { path, since, until, device: self.device, limit });
        let response = ctx
            .ask(drive, request, |i| {
                if let Item::Change(l) = i {
                    ctx.out.line(show(ctx, &l));
                }
            })
            .await?;
        ctx.out.object(&response);
        let Response::Logged(l) = &response else { return Err(unexpected(&response)) };
        if l.limited {
            ctx.out.note("there is more: --limit 0 shows all");
        }
        Ok(response.exit_code())
    }
}

fn show(ctx: &Ctx, l: &LogLine) -> String {
    let c = &l.change;
    let what = match c.kind.as_str() {
        "file" => format::size(c.size),
        "dir" => "directory".to_owned(),
        "symlink" => "link".to_owned(),
        "bundle" => "repository".to_owned(),
        "held_back" => "held back".to_owned(),
        other => other.to_owned(),
    };
    let to = c.moved_to.as_ref().map_or(String::new(), |to| format!(" -> {}", ctx.out.name(to)));
    let short: String = c.version.chars().take(8).collect();
    format!("{} {:<12} {short:<8} {what:<10} {}{to}", ctx.out.time(c.written_at), c.device, ctx.out.name(&c.path))
}
