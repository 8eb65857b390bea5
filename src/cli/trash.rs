//! `tcfs trash`.

use super::context::{Ctx, unexpected};
use super::format;
use crate::daemon::protocol::{self, Item, Request, Response, TrashAct};
use crate::error::Result;
use clap::{Args, Subcommand};

/// List what was removed, bring it back, or clear the list
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  tcfs trash
  tcfs trash list notes
  tcfs trash restore notes/plan.md
  tcfs trash empty

What is removed stays in the store for 30 days and can be brought back as long, also by
`tcfs restore PATH --at TIME` or from .tcfs/history and .tcfs/at in the mount. Emptying the trash
takes paths off this machine's list and destroys nothing."
)]
pub struct Trash {
    /// List only at and below PATH
    #[arg(add = super::completions::path())]
    path: Option<String>,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// List removed paths, the latest first
    List {
        /// Only at and below PATH
        #[arg(add = super::completions::path())]
        path: Option<String>,
    },
    /// Bring a removed path back as it was last
    Restore {
        /// PATH as it is listed
        #[arg(add = super::completions::path())]
        path: String,
        /// PATH to restore to [default: in place]
        #[arg(long, value_name = "PATH", add = super::completions::path())]
        to: Option<String>,
    },
    /// Take removed paths off the list
    Empty {
        /// Only at and below PATH
        #[arg(add = super::completions::path())]
        path: Option<String>,
    },
}

impl Trash {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        let (path, act) = match self.what {
            Some(What::Restore { path, to }) => return super::restore::Restore::of(path, to).run(ctx).await,
            Some(What::List { path }) => (path, TrashAct::List),
            Some(What::Empty { path }) => (path, TrashAct::Empty),
            None => (self.path, TrashAct::List),
        };
        let drive = ctx.own_drive().await?;
        let path = path.as_ref().map(|p| ctx.path(&drive, p)).transpose()?;
        let response = ctx
            .ask(drive, Request::Trash(protocol::Trash { path, act }), |i| {
                if let Item::Removed(r) = i {
                    let (at, by, size) = (ctx.out.time(r.removed_at), &r.device.name, format::size(r.size));
                    ctx.out.line(format!("{at} {by:<12} {size:>9} {}", ctx.out.name(&r.path)));
                }
            })
            .await?;
        ctx.out.object(&response);
        let Response::Trash(t) = &response else { return Err(unexpected(&response)) };
        let paths = format::count(t.paths, "path", "paths");
        match (act, t.paths) {
            (TrashAct::List, 0) => ctx.out.line("nothing was removed that can be brought back"),
            (TrashAct::List, _) => ctx.out.line(format!("{paths}, {}; tcfs trash restore PATH brings one back", format::size(t.bytes))),
            (TrashAct::Empty, _) => ctx.out.line(format!("{paths} taken off the list; tcfs history still has them")),
        }
        Ok(response.exit_code())
    }
}
