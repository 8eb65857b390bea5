//! `tcfs unsync`.

use super::context::{Ctx, unexpected};
use super::format;
use super::hydrate::on_each;
use super::push::skipped;
use crate::daemon::protocol::{Request, Response};
use crate::error::Result;
use clap::Args;

/// Free the disk space of files; they stay listed and come back when they are read
///
/// Never drops what is not safely in the store, open or pinned: that is kept and named (exit code 3).
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs unsync project/target")]
pub struct Unsync {
    /// PATH in the drive; directories with everything below
    #[arg(required = true, value_name = "PATH", add = super::completions::path())]
    paths: Vec<String>,
}

impl Unsync {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        on_each(ctx, &self.paths, Request::Unsync, |r| {
            let Response::Unsynced(u) = r else { return Err(unexpected(r)) };
            let files = format::count(u.files, "file", "files");
            ctx.out.line(format!("{}: the bytes of {files} dropped, {} freed", u.path, format::size(u.bytes)));
            skipped(ctx, &u.kept);
            Ok(())
        })
        .await
    }
}
