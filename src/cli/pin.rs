//! `tcfs pin` and `tcfs unpin`.

use super::context::{Ctx, unexpected};
use super::format;
use super::hydrate::on_each;
use crate::daemon::protocol::{Request, Response};
use crate::error::Result;
use clap::Args;

/// Keep files here for good, with everything that is added below later
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs pin project
  tcfs unpin project")]
pub struct Pin {
    /// PATH in the drive; directories with everything below
    #[arg(required = true, value_name = "PATH", add = super::completions::path())]
    paths: Vec<String>,
}

/// Undo `tcfs pin`; the bytes stay until the space is needed
#[derive(Args)]
pub struct Unpin {
    /// PATH in the drive
    #[arg(required = true, value_name = "PATH", add = super::completions::path())]
    paths: Vec<String>,
}

impl Pin {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        on_each(ctx, &self.paths, Request::Pin, |r| {
            let Response::Pinned(p) = r else { return Err(unexpected(r)) };
            let missing = match p.missing {
                0 => "all here".to_owned(),
                n => format!("{} still to come", format::size(n)),
            };
            ctx.out.line(format!(
                "{} is pinned: {}, {}, {missing}",
                p.path,
                format::count(p.files, "file", "files"),
                format::size(p.bytes)
            ));
            Ok(())
        })
        .await
    }
}

impl Unpin {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        on_each(ctx, &self.paths, Request::Unpin, |r| {
            let Response::Unpinned(u) = r else { return Err(unexpected(r)) };
            ctx.out.line(format!("{} {}", u.path, if u.was_pinned { "is no longer pinned" } else { "was not pinned" }));
            Ok(())
        })
        .await
    }
}
