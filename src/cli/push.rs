//! `tcfs push`.

use super::context::{Ctx, unexpected};
use super::format;
use crate::daemon::protocol::{self, Request, Response, Skipped};
use crate::error::{Error, IoContext, Kind, Result};
use clap::Args;
use std::path::{Path, PathBuf};

/// Copy local files or directories into the drive
///
/// Asks the store for news first, and returns when everything is in it. If the store does not answer, everything is kept
/// and goes out later (exit code 3). A file that another machine wrote and this one never saw is not overwritten: both
/// stay, as a conflict (exit code 3).
///
/// A git repository goes with its history, as one unit, if the configuration has sync_git_dirs = true.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs push /tmp/a.txt                 becomes a.txt in the root of the drive
  tcfs push /tmp/a.txt --to notes/     becomes notes/a.txt
  tcfs push ~/project                  the whole directory
  tcfs push --dry-run ~/project        counts new, same and different first")]
pub struct Push {
    /// Local files, symbolic links or directories
    #[arg(required = true, value_name = "LOCAL")]
    sources: Vec<PathBuf>,
    /// PATH to become; with a trailing slash, or where a directory is: the directory to put it into
    #[arg(long, value_name = "PATH", add = super::completions::path())]
    to: Option<String>,
    /// Replace what is there even if this machine never saw it
    #[arg(short, long)]
    force: bool,
    /// Count new, same and different; write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

impl Push {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        if self.sources.len() > 1 && self.to.as_ref().is_some_and(|t| !t.ends_with('/')) {
            return Err(Error::new(Kind::Usage, "several files need a directory to go to").hint("--to DIR/ with a slash at the end"));
        }
        let sources = self.sources.iter().map(|s| source(ctx, s)).collect::<Result<Vec<_>>>()?;
        let drive = ctx.drive().await?;
        let to = self.to.as_ref().map(|t| ctx.path(&drive, t)).transpose()?;
        let mut code = 0;
        let mut all = Ok(());
        for source in sources {
            let push = protocol::Push { source, to: to.clone(), force: self.force, dry_run: self.dry_run };
            match ctx.call(&drive, Request::Push(push), |_| {}).await {
                Ok(r) => {
                    code = code.max(r.exit_code());
                    all = show(ctx, &r);
                }
                Err(e) => all = Err(e),
            }
            if all.is_err() {
                break;
            }
        }
        drive.close().await;
        all.map(|()| code)
    }
}

/// The source, absolute and with a name: `.` and `..` are resolved.
fn source(ctx: &Ctx, typed: &Path) -> Result<PathBuf> {
    let path = ctx.local(typed);
    let missing = || format!("looking at {}", typed.display());
    if typed.file_name().is_none() {
        return path.canonicalize().doing(missing);
    }
    path.symlink_metadata().doing(missing)?;
    Ok(path)
}

fn show(ctx: &Ctx, response: &Response) -> Result<()> {
    ctx.out.object(response);
    let Response::Pushed(p) = response else { return Err(unexpected(response)) };
    let verb = if p.dry_run { "would be written" } else { "written" };
    ctx.out.line(format!(
        "{}: {} {verb} ({}): {} new, {} different, {} the same",
        if p.path.is_empty() { "/" } else { &p.path },
        format::count(p.files, "file", "files"),
        format::size(p.bytes),
        p.new,
        p.different,
        p.same,
    ));
    if p.repositories > 0 {
        ctx.out.line(format!("with the history of {}", format::count(p.repositories, "repository", "repositories")));
    }
    if p.queued {
        ctx.out.note("the store does not answer: everything is kept here and goes out when it does");
    }
    for c in &p.conflicts {
        ctx.out.note(format!("conflict: {c} was changed elsewhere too; both are kept, see `tcfs conflicts {c}`"));
    }
    skipped(ctx, &p.skipped);
    Ok(())
}

/// Names what was left out.
pub fn skipped(ctx: &Ctx, list: &[Skipped]) {
    for s in list {
        ctx.out.note(format!("left out: {}: {}", ctx.out.name(&s.path), s.why));
    }
}
