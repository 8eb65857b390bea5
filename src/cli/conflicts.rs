//! `tcfs conflicts`.

use super::context::{Ctx, unexpected};
use super::format;
use crate::daemon::protocol::{Conflict, Item, ListConflicts, Request, Response};
use crate::error::Result;
use clap::{Args, Subcommand};

/// List files that were changed on several machines at once
///
/// Every version is kept: one has the name, the others stand beside it as NAME.conflict-DEVICE.EXT. Deleting the
/// ones that are not wanted ends the conflict; so does `tcfs resolve-conflict`.
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  tcfs conflicts
  tcfs conflicts notes
  tcfs conflicts show      with conflict_mode = \"defer\": show the siblings in the mount (hide: not)"
)]
pub struct Conflicts {
    /// Only this PATH and what is below
    path: Option<String>,
    #[command(subcommand)]
    siblings: Option<Siblings>,
}

#[derive(Subcommand)]
enum Siblings {
    /// Show siblings in the mount (conflict_mode = "defer")
    Show,
    /// Hide them again
    Hide,
}

impl Conflicts {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        let drive = ctx.own_drive().await?;
        let path = self.path.as_ref().map(|p| ctx.path(&drive, p)).transpose()?;
        let show_siblings = self.siblings.as_ref().map(|s| matches!(s, Siblings::Show));
        let response = ctx
            .ask(drive, Request::Conflicts(ListConflicts { path, show_siblings }), |i| {
                if let Item::Conflict(c) = i {
                    show(ctx, &c);
                }
            })
            .await?;
        ctx.out.object(&response);
        let Response::Conflicts(c) = &response else { return Err(unexpected(&response)) };
        if show_siblings.is_some() {
            ctx.out.line(if c.siblings_shown { "siblings are shown in the mount" } else { "siblings are hidden in the mount" });
        }
        match c.conflicts {
            0 => ctx.out.line("no conflicts"),
            _ => ctx.out.line("rm what is not wanted, or: tcfs resolve-conflict PATH --keep-local | --keep-remote | --keep-both"),
        }
        Ok(response.exit_code())
    }
}

/// One conflict with its heads.
pub fn show(ctx: &Ctx, c: &Conflict) {
    ctx.out.line(ctx.out.bold(&ctx.out.name(&c.path)));
    for h in &c.heads {
        let marks = [(h.shown, "has the name"), (h.own, "this machine's")];
        let marks: Vec<&str> = marks.iter().filter(|m| m.0).map(|m| m.1).collect();
        let name = h.path.rsplit('/').next().unwrap_or(&h.path);
        let line = format!(
            "  {:<32} {:>9} {} by {:<12} {}",
            ctx.out.name(name),
            format::size(h.size),
            ctx.out.time(h.written_at),
            h.device.name,
            marks.join(", ")
        );
        ctx.out.line(line.trim_end());
    }
}
