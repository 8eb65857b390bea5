//! `tcfs resolve-conflict`.

use super::conflicts;
use super::context::{Ctx, Drive, unexpected};
use crate::daemon::protocol::{self, Item, Keep, ListConflicts, Request, Response};
use crate::error::{Error, Kind, Result};
use clap::Args;
use std::io::{IsTerminal, Write};

/// End a conflict: choose which version stays
///
/// The others remain in history. On a terminal, without an option, the versions are shown and you are asked.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs resolve-conflict notes/plan.md
  tcfs resolve-conflict notes/plan.md --keep-local
  tcfs resolve-conflict notes/plan.md --keep yoga")]
pub struct ResolveConflict {
    /// PATH in the drive: the file or one of its siblings
    #[arg(add = super::completions::path())]
    path: String,
    /// Keep this machine's version, or the shown one where it has none
    #[arg(long, group = "keep_what")]
    keep_local: bool,
    /// Keep the first other version
    #[arg(long, group = "keep_what")]
    keep_remote: bool,
    /// Keep all: each sibling becomes an ordinary file of its name
    #[arg(long, group = "keep_what")]
    keep_both: bool,
    /// Keep the version that goes by this device's name
    #[arg(long, value_name = "DEVICE", group = "keep_what", add = super::completions::device())]
    keep: Option<String>,
}

impl ResolveConflict {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        let drive = ctx.own_drive().await?;
        let work = async {
            let path = ctx.path(&drive, &self.path)?;
            let keep = match self.choice() {
                Some(k) => k,
                None => ask(ctx, &drive, &path).await?,
            };
            ctx.call(&drive, Request::ResolveConflict(protocol::ResolveConflict { path, keep }), |_| {}).await
        };
        let result = work.await;
        drive.close().await;
        let response = result?;
        ctx.out.object(&response);
        let Response::Resolved(r) = &response else { return Err(unexpected(&response)) };
        ctx.out.line(format!("{}: resolved", r.path));
        for p in r.paths.iter().filter(|p| **p != r.path) {
            ctx.out.line(format!("  {} is an ordinary file now", ctx.out.name(p)));
        }
        Ok(response.exit_code())
    }

    fn choice(&self) -> Option<Keep> {
        match self {
            ResolveConflict { keep_local: true, .. } => Some(Keep::Local),
            ResolveConflict { keep_remote: true, .. } => Some(Keep::Remote),
            ResolveConflict { keep_both: true, .. } => Some(Keep::Both),
            ResolveConflict { keep: Some(d), .. } => Some(Keep::Device(d.clone())),
            _ => None,
        }
    }
}

async fn ask(ctx: &Ctx, drive: &Drive, path: &str) -> Result<Keep> {
    if ctx.out.is_json() || !std::io::stdin().is_terminal() {
        return Err(Error::new(Kind::Usage, "which version is to stay?").hint("--keep-local, --keep-remote, --keep-both or --keep DEVICE"));
    }
    let mut found = None;
    let list = ListConflicts { path: Some(path.to_owned()), show_siblings: None };
    ctx.call(drive, Request::Conflicts(list), |i| {
        if let Item::Conflict(c) = i {
            found.get_or_insert(c);
        }
    })
    .await?;
    let Some(conflict) = found else {
        return Err(Error::new(Kind::NotFound, format!("{path} is not in conflict")));
    };
    conflicts::show(ctx, &conflict);
    let devices: Vec<&str> = conflict.heads.iter().map(|h| h.place.name.as_str()).collect();
    eprint!("keep [l]ocal, [r]emote, [b]oth, or a device ({})? ", devices.join(", "));
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|e| Error::io("reading the answer", e))?;
    understand(answer.trim(), &devices).ok_or_else(|| Error::new(Kind::Usage, "nothing was changed"))
}

/// What an answer means.
fn understand(answer: &str, devices: &[&str]) -> Option<Keep> {
    match answer {
        d if devices.contains(&d) => Some(Keep::Device(d.to_owned())),
        "l" | "local" => Some(Keep::Local),
        "r" | "remote" => Some(Keep::Remote),
        "b" | "both" => Some(Keep::Both),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_letters_words_or_devices() {
        let d = ["yoga", "b"];
        assert_eq!(understand("l", &d), Some(Keep::Local));
        assert_eq!(understand("b", &d), Some(Keep::Device("b".into())));
        assert_eq!(understand("b", &["yoga"]), Some(Keep::Both));
        assert_eq!(understand("", &d), None);
    }
}
