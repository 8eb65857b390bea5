//! `tcfs history`.

use super::context::{Ctx, unexpected};
use super::format;
use crate::daemon::protocol::{EntryKind, HistoryOf, HistoryVersion, Item, Request, Response};
use crate::error::Result;
use clap::Args;

/// List the versions of a path, newest first
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs history notes/plan.md
  tcfs history --follow notes/plan.md
  tcfs restore notes/plan.md --version 4f2a91c0")]
pub struct History {
    /// PATH in the drive, present or removed
    #[arg(add = super::completions::path())]
    path: String,
    /// Also what it was before it was moved here, under the names that it had (looks through everything that is known)
    #[arg(long)]
    follow: bool,
}

impl History {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        let drive = ctx.own_drive().await?;
        let path = ctx.path(&drive, &self.path)?;
        let named = std::cell::OnceCell::new();
        let response = ctx
            .ask(drive, Request::History(HistoryOf { path, follow: self.follow }), |i| {
                if let Item::Version(v) = i {
                    // Under another name: say which.
                    let name = if v.path == *named.get_or_init(|| v.path.clone()) {
                        String::new()
                    } else {
                        format!("  {}", ctx.out.name(&v.path))
                    };
                    ctx.out.line(format!("{}{name}", show(ctx, &v)));
                }
            })
            .await?;
        ctx.out.object(&response);
        let Response::History(_) = &response else { return Err(unexpected(&response)) };
        Ok(response.exit_code())
    }
}

fn show(ctx: &Ctx, v: &HistoryVersion) -> String {
    let what = match (v.kind, &v.moved_to) {
        (EntryKind::Removed, Some(to)) => format!("moved to {}", ctx.out.name(to)),
        (EntryKind::Removed, None) => "removed".to_owned(),
        (EntryKind::Dir, _) => "directory".to_owned(),
        (EntryKind::Symlink, _) => "symbolic link".to_owned(),
        (EntryKind::Bundle, _) => "git repository".to_owned(),
        (EntryKind::File | EntryKind::Special, _) => format::size(v.size),
    };
    let marks = [
        (v.current, "current"),
        (v.head && !v.current, "other head"),
        (!v.published, "not published"),
        (v.recovered, "recovered after a crash"),
        (v.held_back, "held back"),
    ];
    let marks: Vec<&str> = marks.iter().filter(|m| m.0).map(|m| m.1).collect();
    let short: String = v.version.chars().take(8).collect();
    format!("{} {short:<8} {:<12} {what:<14} {}", ctx.out.time(v.written_at), v.device.name, marks.join(", ")).trim_end().to_owned()
}
