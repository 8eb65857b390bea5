//! `tcfs doctor`.

use super::context::Ctx;
use crate::daemon::client::Client;
use crate::daemon::doctor::{self, System};
use crate::daemon::protocol::{Check, Checked, Item, Request, Response, Verdict};
use crate::daemon::repair::repair;
use crate::error::{Kind, Result};
use clap::Args;

/// Check everything the drive needs, and say what to do about what is wrong
///
/// Kernel, helper, configuration, socket, store (a canary is written, read and deleted), clock, cache, state, and a
/// canary through each mount. Exit code 1 if a check fails.
///
/// --fix repairs before it checks, and only what is safe whatever the reason is: mounts and the socket of a daemon that died
/// are taken away, and what is this user's alone is made so again.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs doctor
  tcfs doctor --fix")]
pub struct Doctor {
    /// Repair what can be repaired safely
    #[arg(long)]
    fix: bool,
}

impl Doctor {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        let mut sum = Checked::default();
        let mut tell = |c: Check| {
            show(ctx, &c);
            sum.add(c.verdict);
        };
        let json = |c: &Check| ctx.out.object(&Item::Check(c.clone()));
        if self.fix {
            let serves = Client::connect(&ctx.config.socket()).await.map_or_else(|e| e.kind() != Kind::NoDaemon, |_| true);
            let config = ctx.config.clone();
            for c in tokio::task::spawn_blocking(move || repair(&config, serves)).await.unwrap_or_default() {
                json(&c);
                tell(c);
            }
        }
        let env = std::env::var("PATH").map(|p| [("PATH".to_owned(), p)].into()).unwrap_or_default();
        let mut checks = doctor::system(&System::here(&env));
        checks.push(config(ctx));
        checks.push(socket(ctx).await);
        for c in checks {
            json(&c);
            tell(c);
        }
        let mut mounts = Vec::new();
        let opened = match ctx.drive().await {
            Ok(drive) => {
                mounts = drive.mounts().to_vec();
                ctx.ask(drive, Request::Doctor, |i| {
                    if let Item::Check(c) = i {
                        tell(c);
                    }
                })
                .await
                .map(drop)
            }
            Err(e) => Err(e),
        };
        if let Err(e) = opened {
            let c = Check::fail("state", e.to_string(), e.hint_text().unwrap_or("the log says more"));
            json(&c);
            tell(c);
        }
        for m in mounts {
            let checked = match m.command {
                // Who mounts it, and whether on this machine at all, is not known here.
                Some(_) => Ok(Check::ok("mount", format!("{}: served by NFS, mounted by somebody else", m.mountpoint.display()))),
                None => tokio::task::spawn_blocking(move || doctor::mount(&m.mountpoint, m.read_only)).await,
            };
            if let Ok(c) = checked {
                json(&c);
                tell(c);
            }
        }
        let failed = sum.failed > 0;
        ctx.out.object(&Response::Checked(sum.clone()));
        ctx.out.line(match (sum.failed, sum.warned) {
            (0, 0) => ctx.out.green("everything is as it should be"),
            (0, n) => ctx.out.yellow(&format!("{n} to look at")),
            (f, _) => ctx.out.red(&format!("{f} failed")),
        });
        Ok(u8::from(failed))
    }
}

fn show(ctx: &Ctx, c: &Check) {
    let mark = match c.verdict {
        Verdict::Ok => ctx.out.green("ok  "),
        Verdict::Warn => ctx.out.yellow("warn"),
        Verdict::Fail => ctx.out.red("fail"),
    };
    ctx.out.line(format!("{mark}  {:<8} {}", c.name, c.detail));
    if let Some(h) = &c.hint {
        ctx.out.line(format!("               {}", h.replace('\n', "\n               ")));
    }
}

fn config(ctx: &Ctx) -> Check {
    let from = ctx.config.file.as_ref().map_or("no config file, all defaults".to_owned(), |f| f.display().to_string());
    match ctx.config.warnings() {
        w if w.is_empty() => Check::ok("config", from),
        w => Check::warn("config", w.join("; "), "`tcfs config show` says where each value comes from"),
    }
}

async fn socket(ctx: &Ctx) -> Check {
    let at = ctx.config.socket().display().to_string();
    match Client::connect(&ctx.config.socket()).await {
        Ok(c) => Check::ok("socket", format!("the daemon (process {}) answers at {at}", c.hello().pid)),
        Err(e) if e.kind() == Kind::NoDaemon => Check::ok("socket", "no daemon is running; `tcfs mount` starts it"),
        Err(e) => Check::fail("socket", format!("{at}: {e}"), e.hint_text().unwrap_or("`tcfs daemon restart`")),
    }
}
