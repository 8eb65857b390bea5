//! `tcfs daemon`, and `tcfsd`.

use super::context::Ctx;
use super::format;
use super::printed::Printed;
use crate::daemon::client::Client;
use crate::daemon::lifecycle;
use crate::daemon::protocol::{Backend, Mount, MountInfo, Request, Response};
use crate::daemon::run::{self, RunOptions};
use crate::daemon::service::{Progress, Service};
use crate::error::{Error, Kind, Result};
use clap::{Args, Subcommand};

/// Run, start, stop or restart the daemon
///
/// The daemon owns the state and serves the mounts, the uploads and the socket. `tcfs mount` starts it by itself;
/// one that was started here goes on when nothing is mounted. Without a command it runs in the foreground.
#[derive(Args, Default)]
#[command(after_help = "\
Examples:
  tcfs daemon start     in the background, until `tcfs daemon stop`
  tcfs daemon restart   takes a changed configuration over; mounts come back
  tcfs daemon           in the foreground")]
pub struct Daemon {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// Run in the foreground until stopped by a signal or `tcfs daemon stop`
    Run(Run),
    /// Start in the background
    Start,
    /// Seal and keep everything, unmount, end
    Stop,
    /// Stop and start again with the same mounts
    Restart,
}

#[derive(Args, Default)]
struct Run {
    /// Leave the session and the working directory
    #[arg(long, hide = true)]
    detached: bool,
    /// End with the last mount
    #[arg(long, hide = true)]
    until_unmounted: bool,
}

impl Daemon {
    /// What must happen while the process has one thread: leaving the terminal's session, and keeping capabilities from git
    /// and other programs that it starts.
    pub fn before_threads(&self) -> Result<()> {
        if matches!(self.what, None | Some(What::Run(_))) {
            run::before_threads()?;
        }
        match &self.what {
            Some(What::Run(r)) if r.detached => {
                // Fails only where it leads a group already, and then it has no terminal either.
                let _ = rustix::process::setsid();
                std::env::set_current_dir("/").map_err(|e| Error::io("changing to /", e))
            }
            _ => Ok(()),
        }
    }

    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        match self.what {
            None => serve(ctx, Run::default()).await,
            Some(What::Run(r)) => serve(ctx, r).await,
            Some(What::Start) => start(ctx).await,
            Some(What::Stop) => stop(ctx).await,
            Some(What::Restart) => restart(ctx).await,
        }
    }
}

async fn serve(ctx: &Ctx, r: Run) -> Result<u8> {
    let options = RunOptions { stays: !r.until_unmounted, foreground: !r.detached, mounts: Vec::new() };
    run::run(ctx.config.clone(), options, |_| {}).await?;
    Ok(0)
}

async fn start(ctx: &Ctx) -> Result<u8> {
    let (client, started) = lifecycle::ensure(&ctx.config, &ctx.launch, true).await?;
    let pid = client.hello().pid;
    if !started {
        client.call(Request::Stay, &Progress::none()).await?;
    }
    ctx.out.object(&Printed::Started { pid, already: !started });
    ctx.out.line(if started {
        format!("the daemon runs (process {pid})")
    } else {
        format!("the daemon was running already (process {pid})")
    });
    Ok(0)
}

async fn stop(ctx: &Ctx) -> Result<u8> {
    let stopped = lifecycle::stop(&ctx.config).await?;
    let pending = stopped.pending;
    ctx.out.object(&Response::Stopped(stopped));
    ctx.out.line("the daemon has ended");
    if pending > 0 {
        ctx.out.line(format!("{} not in the store yet; kept here", format::count(pending, "change is", "changes are")));
    }
    Ok(0)
}

async fn restart(ctx: &Ctx) -> Result<u8> {
    let mut mounts: Vec<MountInfo> = Vec::new();
    let mut stays = true;
    match Client::connect(&ctx.config.socket()).await {
        Ok(client) => {
            if let Response::Status(s) = client.call(Request::Status, &Progress::none()).await? {
                (mounts, stays) = (s.mounts, s.stays);
            }
        }
        // One of another version: it is stopped all the same, its mounts are named by nobody.
        Err(e) if e.kind() == Kind::Unsupported => ctx.out.note(format!("{e}; mounts have to be mounted again")),
        Err(_) => {}
    }
    match lifecycle::stop(&ctx.config).await {
        Err(e) if e.kind() != Kind::NoDaemon => return Err(e),
        _ => {}
    }
    let (client, _) = lifecycle::ensure(&ctx.config, &ctx.launch, stays).await?;
    for m in &mounts {
        let backend = if m.backend == "nfs" { Backend::Nfs } else { Backend::Fuse };
        let again = Mount {
            mountpoint: m.mountpoint.clone(),
            allow_other: m.allow_other,
            read_only: m.read_only,
            no_passthrough: !m.passthrough,
            backend,
            no_mount: m.command.is_some(),
        };
        client.call(Request::Mount(again), &Progress::none()).await.map_err(|e| e.context("mounting again"))?;
    }
    let pid = client.hello().pid;
    ctx.out.object(&Printed::Started { pid, already: false });
    ctx.out.line(format!("the daemon runs (process {pid}), {} as before", format::count(mounts.len() as u64, "mount", "mounts")));
    Ok(0)
}
