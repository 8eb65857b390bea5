//! `tcfs ls`.

use super::context::{Ctx, unexpected};
use super::format;
use crate::daemon::protocol::{self, Entry, EntryKind, Item, Request, Residence, Response};
use crate::error::Result;
use clap::Args;

/// List files of the drive, with or without a mount
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs ls
  tcfs ls -l notes
  tcfs ls -R --json | jq -r 'select(.residence == \"stub\").path'

Residence (-l): stub (the bytes come when it is read), partial, hydrated (all here), pending (all
here, not in the store yet), local_only (never leaves this machine).")]
pub struct Ls {
    /// PATH in the drive
    #[arg(default_value = "/", add = super::completions::path())]
    path: String,
    /// Modes, sizes, times, where the bytes are, and who wrote it
    #[arg(short, long)]
    long: bool,
    /// Everything below, with paths from the root of the drive
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Also names that begin with a dot
    #[arg(short, long)]
    all: bool,
}

impl Ls {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        let drive = ctx.own_drive().await?;
        let path = ctx.path(&drive, &self.path)?;
        let request = Request::Ls(protocol::Ls { path, recursive: self.recursive, all: self.all });
        let response = ctx
            .ask(drive, request, |i| {
                if let Item::Entry(e) = i {
                    ctx.out.line(self.show(ctx, &e));
                }
            })
            .await?;
        ctx.out.object(&response);
        let Response::Listed(l) = &response else { return Err(unexpected(&response)) };
        if l.offline {
            ctx.out.note("the store does not answer; this is what is known here");
        }
        Ok(response.exit_code())
    }

    fn show(&self, ctx: &Ctx, e: &Entry) -> String {
        let name = if self.recursive { e.path.as_str() } else { e.path.rsplit('/').next().unwrap_or(&e.path) };
        line(ctx, e, name, self.long)
    }
}

/// An entry under a name.
pub fn line(ctx: &Ctx, e: &Entry, name: &str, long: bool) -> String {
    let mut name = ctx.out.name(name);
    if e.kind == EntryKind::Dir {
        name.push('/');
    }
    if !long {
        return name;
    }
    let arrow = e.target.as_ref().map_or(String::new(), |t| format!(" -> {}", ctx.out.name(t)));
    let marks = [(e.pinned, " [pinned]"), (e.conflict, " [conflict]")];
    let marks: String = marks.iter().filter(|m| m.0).map(|m| m.1).collect();
    format!(
        "{} {:>9} {} {:<10} {:<12} {name}{arrow}{}",
        format::mode(e.mode),
        format::size(e.size),
        ctx.out.time(e.mtime.saturating_mul(1000)),
        if e.kind == EntryKind::File { residence(e.residence) } else { "" },
        e.device,
        ctx.out.yellow(&marks),
    )
}

fn residence(r: Residence) -> &'static str {
    match r {
        Residence::Stub => "stub",
        Residence::Partial => "partial",
        Residence::Hydrated => "hydrated",
        Residence::Pending => "pending",
        Residence::LocalOnly => "local_only",
    }
}
