//! `tcfs adopt`.

use super::context::{Ctx, unexpected};
use super::format;
use crate::daemon::config::parse_store;
use crate::daemon::config::value::Base;
use crate::daemon::protocol::{self, AdoptOutcome, AdoptSum, AdoptedPath, Doubled, Item, Request, Response};
use crate::error::{Error, Kind, Result};
use clap::{Args, ValueEnum};

/// Take over a bucket in the layout of older versions of tcfs
///
/// Every file, link and empty directory of its index becomes an ordinary file of the drive, with its mode and time.
/// Nothing there is changed. Every byte is read once and checked; chunks that lie where this drive has its own are used
/// where they are, others are copied. What is in the drive already is left. A path that has other content here becomes
/// a conflict: both stay. What was adopted before is passed over, also on other machines, even if it was changed or
/// removed here since; a run that was interrupted can simply be started again. Encrypted files are listed and left.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs adopt --dry-run                       what would become of each path of this drive's own store
  tcfs adopt
  tcfs adopt --from s3://tcfs/data           an older layout in another place
  tcfs adopt --from file:///srv/old --prefix ''
  tcfs adopt --json | grep unreadable")]
pub struct Adopt {
    /// Store with the older layout: file:///DIR or s3://BUCKET/PREFIX [default: this drive's own]
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// Its prefix, if it is not that of the URL (of a directory: default); '' for none
    #[arg(long, value_name = "P")]
    prefix: Option<String>,
    /// Paths that begin with the prefix once more: keep it as a directory, or strip it [default: list and leave them]
    #[arg(long, value_name = "HOW")]
    doubled: Option<How>,
    /// Read and compare everything; write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Name every path, not only those to be looked at
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum How {
    Keep,
    Strip,
}

impl Adopt {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        let base = Base { home: std::env::var_os("HOME").map(Into::into), dir: ctx.local(std::path::Path::new("")) };
        let url = |text: &String| parse_store(text, &base).map(|u| u.to_string()).map_err(|why| Error::new(Kind::Usage, why));
        let from = self.from.as_ref().map(url).transpose()?;
        let doubled = self.doubled.map(|how| match how {
            How::Keep => Doubled::Keep,
            How::Strip => Doubled::Strip,
        });
        let request = Request::Adopt(protocol::Adopt { from, prefix: self.prefix, doubled, dry_run: self.dry_run });
        let all = self.verbose;
        let response = ctx
            .ask(ctx.drive().await?, request, |i| {
                if let Item::Adopted(p) = i {
                    path(ctx, &p, all);
                }
            })
            .await?;
        ctx.out.object(&response);
        let Response::Adopted(sum) = &response else { return Err(unexpected(&response)) };
        show(ctx, sum);
        Ok(response.exit_code())
    }
}

/// A word for a path, and whether a person should look at it.
fn word(o: AdoptOutcome) -> (&'static str, bool) {
    match o {
        AdoptOutcome::Adopted => ("adopted", false),
        AdoptOutcome::Updated => ("updated", false),
        AdoptOutcome::Conflict => ("conflict", true),
        AdoptOutcome::Same => ("the same", false),
        AdoptOutcome::GoneOn => ("changed here since", false),
        AdoptOutcome::Deleted => ("deleted there", false),
        AdoptOutcome::Unfinished => ("never completed", false),
        AdoptOutcome::Encrypted => ("encrypted", true),
        AdoptOutcome::Unreadable => ("unreadable", true),
        AdoptOutcome::Doubled => ("doubled prefix", true),
        AdoptOutcome::LocalOnly => ("left out", true),
    }
}

fn path(ctx: &Ctx, p: &AdoptedPath, all: bool) {
    let (word, look) = word(p.outcome);
    if !all && !look {
        return;
    }
    let word = format!("{word}:");
    let word = if look { ctx.out.yellow(&word) } else { word };
    let why = p.why.as_ref().map_or(String::new(), |w| format!(": {}", ctx.out.name(w)));
    ctx.out.line(format!("{word} {}{why}", ctx.out.name(&p.path)));
}

fn show(ctx: &Ctx, s: &AdoptSum) {
    let at = if s.prefix.is_empty() { "no prefix".to_owned() } else { format!("prefix {}", s.prefix) };
    let verb = if s.dry_run { "would be adopted" } else { "adopted" };
    let entries = format::count(s.entries, "entry", "entries");
    ctx.out.line(format!("{} ({at}): {entries}; {} {verb} ({})", s.from, s.adopted, format::size(s.bytes)));
    let conflicts = if s.dry_run { "would be in conflict with what is here" } else { "in conflict with what was here: `tcfs conflicts`" };
    for (n, what) in [
        (s.updated, "of them in the place of an older version"),
        (s.conflicts, conflicts),
        (s.same, "the same here already"),
        (s.gone_on, "adopted before and changed here since"),
        (s.deleted, "deleted there (nothing is removed here)"),
        (s.unfinished, "never completed there"),
        (s.encrypted, "encrypted: only the older tcfs can read them"),
        (s.unreadable, "unreadable"),
        (s.doubled, "with the prefix once more: --doubled keep or --doubled strip adopts them"),
        (s.local_only, "left out: they would never leave this machine"),
    ] {
        if n > 0 {
            ctx.out.line(format!("  {n:>8} {what}"));
        }
    }
    for i in &s.ignored {
        ctx.out.line(format!("  {:>8} below {} are no content", format::count(i.objects, "object", "objects"), i.prefix));
    }
    if !s.devices.is_empty() {
        let name = |d: &protocol::OldDevice| format!("{} ({}{})", d.name, d.id, if d.revoked { ", revoked" } else { "" });
        let names: Vec<String> = s.devices.iter().map(name).collect();
        ctx.out.line(format!("devices of the older registry: {}", ctx.out.name(&names.join(", "))));
    }
    for n in &s.notes {
        ctx.out.note(n);
    }
    if s.queued {
        ctx.out.note("the store does not answer: everything is kept here and goes out when it does");
    }
}
