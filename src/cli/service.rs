//! `tcfs service`.

use super::context::Ctx;
use super::printed::Printed;
use crate::daemon::config::Sources;
use crate::daemon::paths::{Env, Platform};
use crate::daemon::units::{self, Manager, Of, System, Unit};
use crate::error::{Error, Kind, Result};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Mount the drive with every login
///
/// A launchd agent on macOS, a systemd user unit on Linux: it mounts the drive when you log in, again after a failure,
/// and takes it away when you log out.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs service install                      the drive on ~/tcfs, from now on
  tcfs service status
  tcfs service print --platform macos       the file, for a look or for a manager of your own
  tcfs service uninstall                    the drive and what is in it stay as they are")]
pub struct Service {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Write the file and start the service
    Install(Where),
    /// Stop the service and remove its file
    Uninstall,
    /// Whether it is installed and runs
    Status,
    /// Print the file, and change nothing
    Print(Print),
}

#[derive(Args)]
struct Where {
    /// Directory to mount on [default: `mountpoint` of the configuration, else ~/tcfs]
    mountpoint: Option<PathBuf>,
}

#[derive(Args)]
struct Print {
    #[command(flatten)]
    at: Where,
    /// For which system [default: this one]
    #[arg(long, value_enum)]
    platform: Option<For>,
    /// As a package for Linux has it: with the program at EXE, and mounting where each user's configuration says
    #[arg(long, value_name = "EXE", conflicts_with_all = ["mountpoint", "platform"])]
    packaged: Option<PathBuf>,
    /// With --packaged: the template `tcfs@USER.service` of the system, for a user who need not log in
    #[arg(long, requires = "packaged")]
    template: bool,
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "lower")]
enum For {
    /// A launchd agent
    Macos,
    /// A systemd user unit
    Linux,
}

impl Service {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        let Sources { env, platform, .. } = Sources::of_process();
        let manager = || -> Result<Manager<'static>> {
            let none = || Error::new(Kind::Usage, "HOME is not set, so there is no place for the service's file");
            let file = units::file(platform, &env).ok_or_else(none)?;
            Ok(Manager { platform, file, uid: rustix::process::getuid().as_raw(), runner: &System })
        };
        match self.what {
            What::Install(at) => {
                let (m, mountpoint) = (manager()?, ctx.mountpoint(at.mountpoint.as_deref())?);
                m.install(&unit(ctx, mountpoint.clone()))?;
                ctx.out.line(format!("the drive is mounted on {} from now on, with every login", mountpoint.display()));
                ctx.out.object(&Printed::Installed { file: m.file.clone(), mountpoint });
                ctx.out.line(format!("the service is in {}", m.file.display()));
                for name in left_behind(&env) {
                    ctx.out.note(format!("warning: {name} is set here and not for the service: put it into the config file"));
                }
            }
            What::Uninstall => {
                let m = manager()?;
                let was = m.uninstall()?;
                ctx.out.object(&Printed::Uninstalled { file: m.file.clone(), was_installed: was });
                ctx.out.line(if was { "the service is gone; the drive and its state stay" } else { "there is no service" });
            }
            What::Status => {
                let m = manager()?;
                let s = m.state()?;
                ctx.out.object(&Printed::Service { file: m.file.clone(), installed: s.installed, running: s.running });
                let text = match (s.installed, s.running) {
                    (true, true) => "the service is installed and runs",
                    (true, false) => "the service is installed and does not run",
                    (false, true) => "the service runs, but its file is gone",
                    (false, false) => "there is no service; `tcfs service install` makes one",
                };
                ctx.out.line(text);
                return Ok(if s.running { 0 } else { 1 });
            }
            What::Print(p) => {
                let text = match p.packaged {
                    Some(exe) => packaged(exe, p.template).text(Platform::Linux),
                    None => unit(ctx, ctx.mountpoint(p.at.mountpoint.as_deref())?).text(match p.platform {
                        Some(For::Macos) => Platform::MacOs,
                        Some(For::Linux) => Platform::Linux,
                        None => platform,
                    }),
                };
                ctx.out.object(&Printed::File { text: text.clone() });
                ctx.out.line(text.trim_end());
            }
        }
        Ok(0)
    }
}

/// The service that mounts there, run as this program was called.
fn unit(ctx: &Ctx, mountpoint: PathBuf) -> Unit {
    let log = ctx.config.dirs.state.join("log").join("service.log");
    Unit { exe: ctx.launch.exe.clone(), flags: ctx.launch.flags.clone(), mountpoint: Some(mountpoint), log, of: Of::Session }
}

/// The service of a package that has the program at `exe`.
fn packaged(exe: PathBuf, template: bool) -> Unit {
    let of = if template { Of::System } else { Of::Session };
    Unit { exe, flags: Vec::new(), mountpoint: None, log: PathBuf::new(), of }
}

/// Settings of the environment, which a service does not see.
fn left_behind(env: &Env) -> Vec<&str> {
    env.keys().map(String::as_str).filter(|k| k.starts_with("TCFS_") || k.starts_with("AWS_")).collect()
}
