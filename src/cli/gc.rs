//! `tcfs gc`.

use super::context::{Ctx, unexpected};
use super::format;
use crate::daemon::protocol::{self, Amount, Collected, Request, Response};
use crate::error::Result;
use clap::Args;

/// Remove from the store what nothing needs any more
///
/// One machine of the fleet does this by itself once a day. What was deleted or replaced can be brought back for 30 days;
/// after that its chunks are condemned: listed in the store for a day at least, and until every machine knows. Then they
/// go. A machine that is away holds back what was condemned since, because it may still build on it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs gc --dry-run      what is needed, what is not, what may go and who holds it back
  tcfs gc
  tcfs device revoke old-laptop   a machine that will not come back holds nothing back any more")]
pub struct Gc {
    /// Remove and condemn nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

impl Gc {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        let request = Request::Gc(protocol::Gc { dry_run: self.dry_run });
        let response = ctx.ask(ctx.drive().await?, request, |_| {}).await?;
        ctx.out.object(&response);
        let Response::Collected(c) = &response else { return Err(unexpected(&response)) };
        show(ctx, c);
        Ok(response.exit_code())
    }
}

fn show(ctx: &Ctx, c: &Collected) {
    let amount = |a: &Amount| format!("{} ({})", format::count(a.objects, "object", "objects"), format::size(a.bytes));
    let verb = if c.dry_run { "would be removed" } else { "removed" };
    ctx.out.line(format!("{} {verb}; {} needed", amount(&c.removed), amount(&c.needed)));
    let wait = c.next_at.map_or(String::new(), |at| format!(", the next may go {}", ctx.out.time(at)));
    for (a, what) in [
        (&c.condemned, format!("not needed, condemned{wait}")),
        (&c.held, "not needed, held back by a device".to_owned()),
        (&c.young, "not needed yet, less than a day old".to_owned()),
    ] {
        if a.objects > 0 {
            ctx.out.line(format!("  {} {what}", amount(a)));
        }
    }
    let since = c.history_from.map_or("the beginning".to_owned(), |at| ctx.out.time(at).to_string());
    ctx.out.line(format!("what was deleted or replaced since {since} can be brought back"));
    for h in &c.holders {
        let when = h.lease_at.map_or("was never here".to_owned(), |at| format!("was last here {}", ctx.out.time(at)));
        let hint = format!(
            "{} holds back what was condemned since: it {when}; if it will not come back: tcfs device revoke {}",
            h.device.name, h.device.name
        );
        ctx.out.note(&hint);
    }
}
