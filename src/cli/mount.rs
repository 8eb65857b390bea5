//! `tcfs mount`.

use super::context::{Ctx, on_path};
use super::format;
use crate::daemon::client::Client;
use crate::daemon::lifecycle;
use crate::daemon::protocol::{self, Backend, Mounted, Response};
use crate::daemon::run::{self, RunOptions};
use crate::error::{Error, Kind, Result};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Mount the drive
///
/// Starts the daemon if it does not run, enrols this machine if it is new, and returns once the mount answers.
/// What an earlier daemon left mounted when it was killed is cleaned up.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs mount                       on ~/tcfs
  tcfs mount /mnt/tcfs --allow-other
  tcfs mount --foreground ~/tcfs   stay until stopped, as service units want it
  tcfs mount --backend nfs --no-mount /mnt/tcfs    serve by NFS, and say how it is mounted
  tcfs --state-dir /tmp/b --store file:///srv/tcfs mount /mnt/b    a second device on this machine")]
pub struct Mount {
    /// Directory, made if it does not exist [default: `mountpoint` of the configuration, else ~/tcfs]
    mountpoint: Option<PathBuf>,
    /// Serve in this process until it is stopped, instead of in the background
    #[arg(short, long)]
    foreground: bool,
    /// Let other users look, as far as modes allow
    #[arg(long)]
    allow_other: bool,
    /// Refuse all writes through this mount
    #[arg(long)]
    read_only: bool,
    /// Serve large files through the daemon too, also where the kernel could read and write them itself
    #[arg(long)]
    no_passthrough: bool,
    /// How the kernel is served
    #[arg(long, value_enum, default_value_t = Way::Auto)]
    backend: Way,
    /// With --backend nfs: serve only, and print the command that mounts it on MOUNTPOINT
    #[arg(long)]
    no_mount: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Way {
    /// FUSE on Linux, NFS on macOS
    Auto,
    /// FUSE
    Fuse,
    /// An NFSv3 server on the loopback, and the system's own client
    Nfs,
}

impl Mount {
    /// What must happen while the process has one thread: keeping capabilities from git and other programs that it starts.
    pub fn before_threads(&self) -> Result<()> {
        if self.foreground { run::before_threads() } else { Ok(()) }
    }

    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        let mountpoint = ctx.mountpoint(self.mountpoint.as_deref())?;
        let backend = match self.backend {
            Way::Auto => Backend::Auto,
            Way::Fuse => Backend::Fuse,
            Way::Nfs => Backend::Nfs,
        };
        let request = protocol::Mount {
            mountpoint,
            allow_other: self.allow_other,
            read_only: self.read_only,
            no_passthrough: self.no_passthrough,
            backend,
            no_mount: self.no_mount,
        };
        if self.no_mount && !backend.is_nfs() {
            return Err(Error::new(Kind::Usage, "--no-mount is for the NFS server only").hint("add --backend nfs"));
        }
        if self.foreground {
            return self.stay(ctx, request).await;
        }
        let mounted = ctx.with_progress(async |p| lifecycle::mount(&ctx.config, &ctx.launch, request, p).await).await?;
        print(ctx, &mounted, false);
        Ok(0)
    }

    async fn stay(&self, ctx: &Ctx, request: protocol::Mount) -> Result<u8> {
        if let Some(pid) = lifecycle::owner(&ctx.config)
            && Client::connect(&ctx.config.socket()).await.is_ok()
        {
            return Err(Error::new(Kind::Locked, format!("the daemon is running already (process {pid})"))
                .hint("tcfs mount without --foreground mounts with it; `tcfs daemon stop` ends it"));
        }
        let options = RunOptions { stays: false, foreground: !ctx.out.is_json(), mounts: vec![request] };
        run::run(ctx.config.clone(), options, |answers| {
            for a in answers {
                if let Response::Mounted(m) = a {
                    print(ctx, &m, true);
                }
            }
            ctx.out.flush();
        })
        .await?;
        Ok(0)
    }
}

/// What a person is told once the drive is mounted. Warnings of the configuration go before it, on stderr. The last line says how `tcfs` gets onto the PATH.
fn print(ctx: &Ctx, m: &Mounted, foreground: bool) {
    ctx.out.object(&Response::Mounted(m.clone()));
    for w in ctx.config.warnings() {
        ctx.out.note(format!("warning: {w}"));
    }
    let at = m.mount.mountpoint.to_string_lossy();
    if m.enrolled_now
        && let Some(d) = &m.device
    {
        ctx.out.line(format!("this machine is enrolled as {} ({})", d.name, d.id));
    }
    let how = if m.mount.read_only { ", read only" } else { "" };
    let already = if m.already { "already " } else { "" };
    let entries = format::count(m.entries, "entry", "entries");
    if let Some(command) = &m.mount.command {
        ctx.out.line(format!("the drive is {already}served for {}{how} ({entries}); to mount it:", ctx.out.bold(&at)));
        ctx.out.line(command);
    } else {
        ctx.out.line(format!("the drive is {already}mounted on {}{how} ({entries})", ctx.out.bold(&at)));
    }
    for n in &m.notes {
        ctx.out.line(format!("note: {n}"));
    }
    if foreground {
        ctx.out.line("Ctrl-C stops it");
    } else {
        ctx.out.line(format!("to stop it: {}", ctx.command(&format!("unmount {}", format::shell(&at)))));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !foreground && !on_path(&ctx.launch.exe, &path) {
        let dir = ctx.launch.exe.parent().map(|d| d.to_string_lossy().into_owned()).unwrap_or_default();
        ctx.out.line(format!("to call it as `tcfs`: export PATH={}:\"$PATH\"", format::shell(&dir)));
    }
}
