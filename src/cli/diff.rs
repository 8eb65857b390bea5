//! `tcfs diff`.

use super::conflicts::show_diff;
use super::context::{Ctx, unexpected};
use super::format;
use crate::daemon::protocol::{DiffQuery, Request, Response};
use crate::error::Result;
use clap::Args;
use std::time::{SystemTime, UNIX_EPOCH};

/// Show how a file differs from an older version of it, or from another file
///
/// Without options: from the newest version that is not the present one. Texts line by line, the older one as the old side;
/// other files by their sizes, hashes and the first byte that differs.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs diff notes/plan.md
  tcfs diff notes/plan.md --against yesterday
  tcfs diff notes/plan.md --against 4f2a91c0      a version of `tcfs history`
  tcfs diff notes/plan.md --against /notes/old.md")]
pub struct Diff {
    /// PATH in the drive
    #[arg(add = super::completions::path())]
    path: String,
    /// A time, the id of a version, or another PATH
    #[arg(long, value_name = "WHAT", add = super::completions::path())]
    against: Option<String>,
}

impl Diff {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        let drive = ctx.own_drive().await?;
        let path = ctx.path(&drive, &self.path)?;
        let mut query = DiffQuery { path, ..DiffQuery::default() };
        if let Some(what) = &self.against {
            match format::parse_time(what, now, ctx.out.offset()) {
                Ok(at) => query.at = Some(at),
                // At least four hex digits: an id, unless a file has that name.
                Err(_) if is_id(what) => query.version = Some(what.clone()),
                Err(_) => query.other = Some(ctx.path(&drive, what)?),
            }
        }
        let response = ctx.ask(drive, Request::Diff(query), |_| {}).await?;
        ctx.out.object(&response);
        let Response::Diff(d) = &response else { return Err(unexpected(&response)) };
        show_diff(ctx, d);
        Ok(response.exit_code())
    }
}

fn is_id(text: &str) -> bool {
    (4..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}
