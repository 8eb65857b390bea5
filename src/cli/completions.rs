//! `tcfs completions`, and what a shell is given to complete with: commands and options, paths in the drive, devices.
//!
//! The shell calls this program with what was typed so far; paths and names come from the running daemon, at once or not at
//! all.

use super::context::{Ctx, Drive};
use super::output::Output;
use super::{Cli, Global};
use crate::daemon::protocol::{EntryKind, Find, Item, Request, Response, ToldFile};
use crate::error::{Error, Kind, Result};
use clap::{Args, CommandFactory, Parser, ValueEnum};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{Bash, CompleteEnv, EnvCompleter, Fish, Zsh};
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

/// The variable by which a shell says that it wants completions.
const VAR: &str = "TCFS_COMPLETE";
/// A daemon that takes longer is not waited for: a person is typing.
const PATIENCE: Duration = Duration::from_millis(300);
/// Candidates at most.
const MANY: u64 = 2000;

/// Print completions for a shell
///
/// They complete commands, options, paths of the drive and names of devices, and ask the running daemon for the last two.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs completions bash > ~/.local/share/bash-completion/completions/tcfs
  tcfs completions zsh > ~/.zfunc/_tcfs
  tcfs completions fish > ~/.config/fish/completions/tcfs.fish")]
pub struct Completions {
    /// Shell
    shell: Shell,
}

#[derive(Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Completions {
    pub fn run(&self, out: &Output) -> Result<u8> {
        let shell: &dyn EnvCompleter = match self.shell {
            Shell::Bash => &Bash,
            Shell::Zsh => &Zsh,
            Shell::Fish => &Fish,
        };
        let mut text = Vec::new();
        // By its name: the one that is found first when it is typed.
        let done = shell.write_registration(VAR, "tcfs", "tcfs", "tcfs", &mut text);
        done.map_err(|e| Error::new(Kind::Internal, "writing completions").source(e))?;
        out.raw(&String::from_utf8_lossy(&text));
        Ok(0)
    }
}

/// Answers a shell, if it is one that calls. True: it did.
pub fn answer(args: &[std::ffi::OsString]) -> bool {
    if std::env::var_os(VAR).is_none_or(|v| v.is_empty()) {
        return false;
    }
    let env = CompleteEnv::with_factory(Cli::command).var(VAR).bin("tcfs");
    // What cannot be completed is not: a shell has no use for messages.
    env.try_complete(args.iter().cloned(), std::env::current_dir().ok().as_deref()).unwrap_or(true)
}

/// A PATH in the drive.
pub fn path() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| typed.to_str().and_then(paths).unwrap_or_default())
}

/// A device, by its name.
pub fn device() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| typed.to_str().and_then(devices).unwrap_or_default())
}

/// Asks the daemon that the line being typed is about; none if there is none, or not in time.
fn ask<T: Send>(of: impl AsyncFnOnce(&Ctx, Drive) -> Result<T>) -> Option<T> {
    let (config, launch) = Ctx::load(&global()).ok()?;
    let ctx = Ctx { config: Arc::new(config), out: Output::new(false), launch };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let done = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, async {
            let drive = ctx.daemon().await?;
            of(&ctx, drive).await
        })
        .await
    });
    done.ok()?.ok()
}

/// The global options of the line being typed.
fn global() -> Global {
    let words: Vec<std::ffi::OsString> = std::env::args_os().skip_while(|a| a != "--").skip(1).collect();
    // Only these: the rest of the line is not finished.
    let mut args: Vec<std::ffi::OsString> = vec!["tcfs".into()];
    for (i, w) in words.iter().enumerate() {
        let text = w.to_string_lossy();
        let name = text.split('=').next().unwrap_or_default();
        if ["--config", "--state-dir", "--store"].contains(&name) {
            args.push(w.clone());
            args.extend(words.get(i + 1).filter(|_| !text.contains('=')).cloned());
        }
    }
    args.push("status".into());
    Cli::try_parse_from(args).map(|c| c.global).unwrap_or_default()
}

fn paths(typed: &str) -> Option<Vec<CompletionCandidate>> {
    let (dir, begin) = typed.rfind('/').map_or(("", typed), |at| typed.split_at(at + 1));
    let escaped: String = begin.chars().flat_map(|c| if "*?[]{}\\".contains(c) { vec!['\\', c] } else { vec![c] }).collect();
    ask(async |ctx, drive| {
        let here = std::env::current_dir().unwrap_or_default();
        let inside = drive.mounts().iter().any(|m| here.starts_with(&m.mountpoint));
        let top = if dir.is_empty() && !inside { "/".to_owned() } else { ctx.path(&drive, if dir.is_empty() { "." } else { dir })? };
        let request = Find { path: Some(top), name: Some(format!("{escaped}*")), children: true, limit: Some(MANY), ..Find::default() };
        let (items, _) = ctx.ask_quietly(drive, Request::Find(request)).await?;
        let shown = items.into_iter().filter_map(|i| {
            let Item::Entry(e) = i else { return None };
            let name = e.path.rsplit('/').next().unwrap_or(&e.path);
            let slash = if e.kind == EntryKind::Dir { "/" } else { "" };
            let wanted = begin.starts_with('.') || !name.starts_with('.');
            wanted.then(|| CompletionCandidate::new(format!("{dir}{name}{slash}")))
        });
        Ok(shown.collect())
    })
}

fn devices(typed: &str) -> Option<Vec<CompletionCandidate>> {
    ask(async |ctx, drive| {
        let (_, told) = ctx.ask_quietly(drive, Request::Told(ToldFile { name: "devices.json".to_owned() })).await?;
        let Response::Told(t) = &told else { return Err(super::context::unexpected(&told)) };
        let all: Vec<crate::daemon::protocol::Device> = serde_json::from_str(&t.text).unwrap_or_default();
        let names = all.into_iter().map(|d| d.name).filter(|n| n.starts_with(typed));
        Ok(names.map(CompletionCandidate::new).collect())
    })
}
