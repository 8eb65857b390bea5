//! `tcfs approve`.

use super::context::{Ctx, unexpected};
use super::format;
use crate::daemon::protocol::{self, BrakeAct, EntryKind, HeldBack, Item, Request, Response};
use crate::error::Result;
use clap::Args;

/// Let many deletes at once count on every machine
///
/// When a machine deletes or empties very many files within a minute, the others go on showing them until somebody
/// approves, there or here. `--undo` brings them back where they were deleted, too. Which many are too many is set in
/// [brake] of the configuration.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs approve --list              what was deleted, by whom, when
  tcfs approve                     all of it counts, everywhere
  tcfs approve old/photos          only what is there and below
  tcfs approve --device yoga
  tcfs approve --undo              it was a mistake: everything is there again")]
pub struct Approve {
    /// Only this PATH and what is below
    #[arg(add = super::completions::path())]
    path: Option<String>,
    /// Only what this device deleted
    #[arg(long, value_name = "DEVICE", add = super::completions::device())]
    device: Option<String>,
    /// Take the deletes back: the files are there again, on the machine that deleted them as well
    #[arg(long, group = "act")]
    undo: bool,
    /// Change nothing, list them
    #[arg(long, group = "act")]
    list: bool,
}

impl Approve {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        let drive = ctx.own_drive().await?;
        let path = self.path.as_ref().map(|p| ctx.path(&drive, p)).transpose()?;
        let act = match (self.list, self.undo) {
            (true, _) => BrakeAct::List,
            (_, true) => BrakeAct::TakeBack,
            _ => BrakeAct::Approve,
        };
        let request = Request::Approve(protocol::Approve { path, device: self.device, act });
        let response = ctx
            .ask(drive, request, |i| {
                if let Item::HeldBack(h) = i {
                    show(ctx, &h);
                }
            })
            .await?;
        ctx.out.object(&response);
        let Response::Approved(a) = &response else { return Err(unexpected(&response)) };
        let n = format::count(a.paths, "delete", "deletes");
        ctx.out.line(match (a.act, a.paths) {
            (_, 0) => "no deletes are held back".to_owned(),
            (BrakeAct::List, _) => format!("{n} held back; `tcfs approve` lets them count, `tcfs approve --undo` takes them back"),
            (BrakeAct::Approve, _) => format!("{n} approved{}", left(a.left)),
            (BrakeAct::TakeBack, _) => format!("{n} taken back{}", left(a.left)),
        });
        Ok(response.exit_code())
    }
}

fn left(n: u64) -> String {
    if n == 0 { String::new() } else { format!("; {n} are still held back") }
}

fn show(ctx: &Ctx, h: &HeldBack) {
    let size = if h.kind == EntryKind::Dir { "dir".to_owned() } else { format::size(h.size) };
    let how = if h.emptied { "emptied" } else { "deleted" };
    let line = format!("{:>9} {how} {} by {:<12} {}", size, ctx.out.time(h.written_at), h.device.name, ctx.out.name(&h.path));
    ctx.out.line(line);
}
