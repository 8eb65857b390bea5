//! The command line: one file per command, arguments with doc comments (they are the help), printing through one
//! [`output::Output`].
//!
//! Must: exit codes 0 ok, 1 failed, 2 usage, 3 done in part or with conflicts, 10 no daemon, 11 locked, 12 not
//! enrolled. Not here: what commands do (`daemon::service`).

pub mod context;
pub mod format;
pub mod output;

mod adopt;
mod approve;
mod cache;
mod completions;
mod config;
mod conflicts;
mod daemon;
mod device;
mod diff;
mod doctor;
mod find;
mod gc;
mod git;
mod history;
mod hydrate;
mod ignore;
mod log;
mod ls;
mod man;
mod mcp;
mod mount;
mod pin;
mod printed;
mod pull;
mod push;
mod report;
mod resolve_conflict;
mod restore;
mod schema;
mod service;
mod status;
mod store;
mod trash;
mod tui;
mod unmount;
mod unsync;
mod wait;
mod why;

use crate::error::{Error, Kind, Result};
use clap::{Args, CommandFactory, Parser, Subcommand};
use context::Ctx;
use output::Output;
use std::env::ArgsOs;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// One drive for a fleet of machines: every file listed everywhere, bytes on demand, conflicts side by side.
#[derive(Parser)]
#[command(name = "tcfs", version, max_term_width = 100, after_help = AFTER_HELP, subcommand_required = false, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Option<Cmd>,
}

const AFTER_HELP: &str = "\
Examples:
  tcfs mount ~/tcfs              mount the drive; the first time this enrols the machine
  cp -a ~/project ~/tcfs/        it is a file system
  tcfs status                    what is mounted, pending, cached; where everything lies
  tcfs wait                      until everything is in the store
  tcfs unmount ~/tcfs

PATH arguments: an absolute path, or a relative one with the working directory inside a mount, means
that file. Anything else counts from the root of the drive; tcfs/default/ (bucket and prefix of the
store) in front of it is understood.

Exit codes: 0 ok, 1 failed, 2 usage, 3 done in part or with conflicts, 10 no daemon is running,
11 the state is in use, 12 this machine is not enrolled.";

/// Flags of every command.
#[derive(Args, Clone, Default)]
pub struct Global {
    /// Config file [default: config.toml in the state directory if one is given, else ~/.config/tcfs/config.toml]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    config: Option<PathBuf>,
    /// Keep state, cache and embedded store of this device under DIR (several devices on one machine)
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    state_dir: Option<PathBuf>,
    /// The fleet's store: file:///DIR or s3://BUCKET/PREFIX [default: a directory under the state]
    #[arg(long, global = true, value_name = "URL", help_heading = "Global options")]
    store: Option<String>,
    /// Print JSON, one object per line; lists one per element and their sum last, errors as {"error":{"kind","message","hint"}}; `tcfs schema` describes each
    #[arg(long, global = true, help_heading = "Global options")]
    json: bool,
}

#[derive(Subcommand)]
enum Cmd {
    Mount(mount::Mount),
    Unmount(unmount::Unmount),
    Status(status::Status),
    Ls(ls::Ls),
    Find(find::Find),
    Why(why::Why),
    Push(push::Push),
    Pull(pull::Pull),
    Hydrate(hydrate::Hydrate),
    Unsync(unsync::Unsync),
    Pin(pin::Pin),
    Unpin(pin::Unpin),
    Cache(cache::Cache),
    Ignore(ignore::Ignore),
    Git(git::Git),
    Wait(wait::Wait),
    History(history::History),
    Restore(restore::Restore),
    Diff(diff::Diff),
    Log(log::Log),
    Trash(trash::Trash),
    Conflicts(conflicts::Conflicts),
    ResolveConflict(resolve_conflict::ResolveConflict),
    Approve(approve::Approve),
    Adopt(adopt::Adopt),
    Gc(gc::Gc),
    Device(device::Device),
    Store(store::Store),
    Tui(tui::Tui),
    Mcp(mcp::Mcp),
    Doctor(doctor::Doctor),
    Report(report::Report),
    Daemon(daemon::Daemon),
    Service(service::Service),
    Config(config::Config),
    Schema(schema::SchemaOf),
    Completions(completions::Completions),
    Man(man::Man),
}

/// The program. `args` with its name first; a name of `tcfsd` makes the daemon the default command. Not generic: it would
/// be compiled, with all that it calls, once more for each program.
pub fn main(args: ArgsOs) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    if completions::answer(&args) {
        return ExitCode::SUCCESS;
    }
    let args = find::dashes(args);
    let is_tcfsd = args.first().and_then(|a| Path::new(a).file_name()).is_some_and(|n| n == "tcfsd");
    let cli = match Cli::try_parse_from(&args) {
        Ok(c) => c,
        Err(e) => return usage(&e, args.iter().any(|a| a == "--json")),
    };
    let out = Output::new(cli.global.json);
    let command = match (cli.command, is_tcfsd) {
        (Some(c), _) => c,
        (None, true) => Cmd::Daemon(daemon::Daemon::default()),
        (None, false) => {
            let _ = Cli::command().print_help();
            return ExitCode::from(Kind::Usage.exit_code());
        }
    };
    // These work without a configuration, or look at a broken one.
    match &command {
        Cmd::Completions(c) => return end(&out, c.run(&out)),
        Cmd::Man(c) => return end(&out, c.run(&out)),
        Cmd::Schema(c) => return end(&out, c.run(&out)),
        Cmd::Git(g) if g.is_helper() => {
            let done = crate::daemon::helper::serve(std::io::stdin().lock(), std::io::stdout().lock());
            return end(&out, done.map(|()| 0));
        }
        Cmd::Config(c) => return end(&out, c.run(&cli.global, &out)),
        _ => {}
    }
    let ctx = match Ctx::load(&cli.global) {
        Ok((config, launch)) => Ctx { config: Arc::new(config), out, launch },
        Err(e) => return end(&out, Err(e)),
    };
    let serves = match &command {
        Cmd::Daemon(d) => d.before_threads(),
        Cmd::Mount(m) => m.before_threads(),
        _ => Ok(()),
    };
    if let Err(e) = serves {
        return end(&ctx.out, Err(e));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(r) => r,
        Err(e) => return end(&ctx.out, Err(Error::new(Kind::Io, "starting the runtime").source(e))),
    };
    let result = runtime.block_on(dispatch(command, &ctx));
    // Blocking threads that hang on a dead mount must not keep the program.
    runtime.shutdown_background();
    end(&ctx.out, result)
}

async fn dispatch(command: Cmd, ctx: &Ctx) -> Result<u8> {
    match command {
        Cmd::Mount(c) => c.run(ctx).await,
        Cmd::Unmount(c) => c.run(ctx).await,
        Cmd::Status(c) => c.run(ctx).await,
        Cmd::Ls(c) => c.run(ctx).await,
        Cmd::Find(c) => c.run(ctx).await,
        Cmd::Why(c) => c.run(ctx).await,
        Cmd::Diff(c) => c.run(ctx).await,
        Cmd::Log(c) => c.run(ctx).await,
        Cmd::Trash(c) => c.run(ctx).await,
        Cmd::Cache(c) => c.run(ctx).await,
        Cmd::Push(c) => c.run(ctx).await,
        Cmd::Pull(c) => c.run(ctx).await,
        Cmd::Hydrate(c) => c.run(ctx).await,
        Cmd::Unsync(c) => c.run(ctx).await,
        Cmd::Ignore(c) => c.run(ctx).await,
        Cmd::Git(c) => c.run(ctx).await,
        Cmd::Pin(c) => c.run(ctx).await,
        Cmd::Unpin(c) => c.run(ctx).await,
        Cmd::Wait(c) => c.run(ctx).await,
        Cmd::History(c) => c.run(ctx).await,
        Cmd::Restore(c) => c.run(ctx).await,
        Cmd::Conflicts(c) => c.run(ctx).await,
        Cmd::ResolveConflict(c) => c.run(ctx).await,
        Cmd::Approve(c) => c.run(ctx).await,
        Cmd::Adopt(c) => c.run(ctx).await,
        Cmd::Gc(c) => c.run(ctx).await,
        Cmd::Device(c) => c.run(ctx).await,
        Cmd::Store(c) => c.run(ctx).await,
        Cmd::Tui(c) => c.run(ctx).await,
        Cmd::Mcp(c) => c.run(ctx).await,
        Cmd::Report(c) => c.run(ctx).await,
        Cmd::Doctor(c) => c.run(ctx).await,
        Cmd::Daemon(c) => c.run(ctx).await,
        Cmd::Service(c) => c.run(ctx).await,
        Cmd::Config(_) | Cmd::Completions(_) | Cmd::Man(_) | Cmd::Schema(_) => Ok(0),
    }
}

fn end(out: &Output, result: Result<u8>) -> ExitCode {
    out.done();
    match result {
        Ok(code) => {
            out.flush();
            ExitCode::from(code)
        }
        Err(e) => {
            out.error(&e);
            ExitCode::from(e.kind().exit_code())
        }
    }
}

/// A command line that is not understood, or a call for help.
fn usage(e: &clap::Error, json: bool) -> ExitCode {
    if !e.use_stderr() {
        let _ = e.print();
        return ExitCode::SUCCESS;
    }
    if json {
        let text = e.to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Output::new(true).error(&Error::new(Kind::Usage, first).hint("tcfs --help"));
    } else {
        let _ = e.print();
    }
    ExitCode::from(Kind::Usage.exit_code())
}

/// The help of all commands, one after the other; for the test that keeps it reviewed.
pub fn full_help() -> String {
    fn add(command: &mut clap::Command, name: &str, out: &mut String) {
        out.push_str(&format!("$ {name} --help\n{}\n", command.render_long_help()));
        let names: Vec<String> = command.get_subcommands().filter(|c| !c.is_hide_set()).map(|c| c.get_name().to_owned()).collect();
        for sub in names {
            if let Some(c) = command.find_subcommand_mut(&sub) {
                add(c, &format!("{name} {sub}"), out);
            }
        }
    }
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut out = String::new();
    add(&mut command, "tcfs", &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_before_or_after_the_command() {
        for args in [["tcfs", "--json", "--state-dir", "/s", "status"], ["tcfs", "status", "--state-dir", "/s", "--json"]] {
            let c = Cli::try_parse_from(args).unwrap();
            assert!(c.global.json && c.global.state_dir == Some("/s".into()) && matches!(c.command, Some(Cmd::Status(_))));
        }
    }
}
