//! `tcfs git`.

use super::context::{Ctx, unexpected};
use super::format;
use crate::daemon::protocol::{GitRepo, GitStatus, Item, RepoState, Request, Response};
use crate::error::Result;
use clap::{Args, Subcommand};

/// Git repositories in the drive
#[derive(Args)]
pub struct Git {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Subcommand)]
enum Cmd {
    Status(Status),
    /// What the daemon does in a repository, in a process of its own
    #[command(hide = true)]
    Helper,
}

/// The repositories in the drive, and which of them are carried
///
/// With `sync_git_dirs = true` a repository travels as one unit: refs, HEAD, tags, notes, stashes and the index, when nothing
/// is under way in it. What two machines both changed is on both; the other's is under refs/tcfs/<device>/.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs git status
  tcfs git status work --json | jq -r 'select(.state == \"refused\") | .path, .why'")]
struct Status {
    /// PATH in the drive
    #[arg(default_value = "/", add = super::completions::path())]
    path: String,
}

impl Git {
    /// Whether this is no command of a person, but the daemon's.
    pub fn is_helper(&self) -> bool {
        matches!(self.command, Cmd::Helper)
    }

    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        let Cmd::Status(s) = self.command else { return Ok(0) };
        let drive = ctx.own_drive().await?;
        let path = ctx.path(&drive, &s.path)?;
        let response = ctx
            .ask(drive, Request::GitStatus(GitStatus { path }), |i| {
                if let Item::Repository(r) = i {
                    show(ctx, &r);
                }
            })
            .await?;
        ctx.out.object(&response);
        let Response::Git(sum) = &response else { return Err(unexpected(&response)) };
        if sum.repositories == 0 {
            ctx.out.line("there are no repositories");
        } else if !sum.carried {
            let all = format::count(sum.repositories, "repository stays", "repositories stay");
            ctx.out.note(format!("{all} on this machine: sync_git_dirs = true in the configuration carries them"));
        }
        Ok(0)
    }
}

fn show(ctx: &Ctx, r: &GitRepo) {
    let state = match r.state {
        RepoState::Local => "stays here",
        RepoState::Carried => "carried",
        RepoState::Pending => "on its way to the store",
        RepoState::Waiting => "waiting",
        RepoState::Refused => "not carried",
    };
    let why = if r.why.is_empty() { String::new() } else { format!(": {}", r.why) };
    let elsewhere = if r.here { "" } else { " (not here yet)" };
    ctx.out.line(format!("{}  {state}{why}{elsewhere}", ctx.out.name(&r.path)));
    for n in &r.notes {
        ctx.out.line(format!("    {n}"));
    }
}
