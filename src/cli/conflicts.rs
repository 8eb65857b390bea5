//! `tcfs conflicts`.

use super::context::{Ctx, unexpected};
use super::format;
use crate::daemon::protocol::{
    Conflict, ConflictDiff, Diff, DiffForm, DiffSide, EntryKind, Item, ListConflicts, Parted, Request, Response,
};
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
  tcfs conflicts diff notes/plan.md
  tcfs conflicts diff notes/plan.md --with yoga
  tcfs conflicts show      with conflict_mode = \"defer\": show the siblings in the mount (hide: not)"
)]
pub struct Conflicts {
    /// Only this PATH and what is below
    #[arg(add = super::completions::path())]
    path: Option<String>,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// Show how two versions of a file differ
    ///
    /// Texts line by line, the version that has the name as the old side; other files by their sizes, hashes and the
    /// first byte that differs.
    Diff {
        /// PATH of the file, or of the sibling that is compared with it
        #[arg(add = super::completions::path())]
        path: String,
        /// Compare with the version of this device
        #[arg(long, value_name = "DEVICE", add = super::completions::device())]
        with: Option<String>,
    },
    /// Show siblings in the mount (conflict_mode = "defer")
    Show,
    /// Hide them again
    Hide,
}

impl Conflicts {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        let show_siblings = match self.what {
            Some(What::Diff { path, with }) => return diff(ctx, &path, with).await,
            Some(What::Show) => Some(true),
            Some(What::Hide) => Some(false),
            None => None,
        };
        let drive = ctx.own_drive().await?;
        let path = self.path.as_ref().map(|p| ctx.path(&drive, p)).transpose()?;
        let response = ctx
            .ask(drive, Request::Conflicts(ListConflicts { path, show_siblings }), |i| match i {
                Item::Conflict(c) => show(ctx, &c),
                Item::Parted(p) => parted(ctx, &p),
                _ => {}
            })
            .await?;
        ctx.out.object(&response);
        let Response::Conflicts(c) = &response else { return Err(unexpected(&response)) };
        if show_siblings.is_some() {
            ctx.out.line(if c.siblings_shown { "siblings are shown in the mount" } else { "siblings are hidden in the mount" });
        }
        match c.conflicts {
            0 => ctx.out.line("no conflicts"),
            n => {
                let rm = if c.siblings_shown { "rm what is not wanted, or: " } else { "" };
                ctx.out.line(format!(
                    "{}; {rm}tcfs resolve-conflict PATH --keep-local | --keep-remote | --keep-both | --keep DEVICE",
                    format::count(n, "conflict", "conflicts")
                ));
                ctx.out.line("tcfs conflicts diff PATH shows how two versions differ");
            }
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

/// A pair of names that one file came to have.
fn parted(ctx: &Ctx, p: &Parted) {
    let (path, to) = (ctx.out.name(&p.path), ctx.out.name(&p.moved_to));
    ctx.out.line(ctx.out.bold(&path));
    ctx.out.line(format!("  was changed here while {} moved it to {to} ({}); both stand", p.device.name, ctx.out.time(p.written_at)));
}

async fn diff(ctx: &Ctx, path: &str, with: Option<String>) -> Result<u8> {
    let drive = ctx.own_drive().await?;
    let path = ctx.path(&drive, path)?;
    let response = ctx.ask(drive, Request::ConflictDiff(ConflictDiff { path, with }), |_| {}).await?;
    ctx.out.object(&response);
    let Response::Diff(d) = &response else { return Err(unexpected(&response)) };
    show_diff(ctx, d);
    Ok(response.exit_code())
}

/// How two versions differ.
pub fn show_diff(ctx: &Ctx, d: &Diff) {
    match (d.form, &d.text) {
        (DiffForm::Text, Some(text)) => lines(ctx, text),
        _ => sides(ctx, d),
    }
}

/// The difference line by line: as it is for `patch`, and so that control characters do nothing to a terminal.
fn lines(ctx: &Ctx, text: &str) {
    if ctx.out.is_json() {
        return;
    }
    if !ctx.out.is_terminal() {
        return ctx.out.raw(text);
    }
    for line in text.trim_end_matches('\n').split('\n') {
        let line = ctx.out.name(&line.replace('\t', "        "));
        ctx.out.line(match line.as_bytes().first() {
            _ if line.starts_with("--- ") || line.starts_with("+++ ") => ctx.out.bold(&line),
            Some(b'+') => ctx.out.green(&line),
            Some(b'-') => ctx.out.red(&line),
            _ => line,
        });
    }
}

/// What is told of files that are no text.
fn sides(ctx: &Ctx, d: &Diff) {
    for side in [&d.shown, &d.other] {
        ctx.out.line(format!("{}  by {}, {}", ctx.out.bold(&ctx.out.name(&side.head.path)), side.head.device.name, what(ctx, side)));
    }
    if let Some(at) = d.first {
        ctx.out.line(format!("the first byte that differs is number {at} (from 0)"));
    }
}

fn what(ctx: &Ctx, side: &DiffSide) -> String {
    let h = &side.head;
    match (h.kind, &side.target, &side.hash) {
        (_, Some(target), _) => format!("link to {}", ctx.out.name(target)),
        (EntryKind::Dir, ..) => "directory".to_owned(),
        (_, _, Some(hash)) => format!("{} ({} bytes), BLAKE3 {hash}", format::size(h.size), h.size),
        _ => format!("{} ({} bytes)", format::size(h.size), h.size),
    }
}
