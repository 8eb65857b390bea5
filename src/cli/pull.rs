//! `tcfs pull`.

use super::context::{Ctx, unexpected};
use super::format;
use super::push::skipped;
use crate::daemon::protocol::{self, Request, Response};
use crate::error::Result;
use clap::Args;
use std::path::PathBuf;

/// Copy a file or directory of the drive to any local place
///
/// Asks the store for news first. Local files with other content are left and named (exit code 3) unless --force. What
/// the drive has of a git repository becomes one there, or is joined with the one that is there.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs pull a.txt /tmp/a.txt
  tcfs pull tcfs/default/a.txt /tmp/    the same; tcfs/default is bucket and prefix of the store
  tcfs pull project                     into the working directory
  tcfs pull --here / ~/rescued          what a machine has when the store is lost")]
pub struct Pull {
    /// PATH in the drive
    #[arg(add = super::completions::path())]
    path: String,
    /// Local path to become; with a trailing slash, or where a directory is: the directory to put it into
    #[arg(value_name = "LOCAL", default_value = ".")]
    destination: PathBuf,
    /// Overwrite local files that differ
    #[arg(short, long)]
    force: bool,
    /// Count; write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Only what is on this machine: ask the store for nothing, and name what it would take
    #[arg(long)]
    here: bool,
}

impl Pull {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        let drive = ctx.drive().await?;
        let path = ctx.path(&drive, &self.path)?;
        let destination = ctx.local(&self.destination);
        let into = self.destination.to_string_lossy().ends_with('/') || destination.is_dir();
        let Pull { force, dry_run, here, .. } = self;
        let request = Request::Pull(protocol::Pull { path, destination, into, force, dry_run, here });
        let response = ctx.ask(drive, request, |_| {}).await?;
        ctx.out.object(&response);
        let Response::Pulled(p) = &response else { return Err(unexpected(&response)) };
        let verb = if p.dry_run { "would be written" } else { "written" };
        let files = format::count(p.files, "file", "files");
        ctx.out.line(format!("{}: {files} {verb} ({}), {} there already", p.destination.display(), format::size(p.bytes), p.same));
        if p.repositories > 0 {
            ctx.out.line(format!("with the history of {}", format::count(p.repositories, "repository", "repositories")));
        }
        if p.offline {
            ctx.out.note("the store does not answer; this is what is known here");
        }
        skipped(ctx, &p.skipped);
        Ok(response.exit_code())
    }
}
