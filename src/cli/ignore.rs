//! `tcfs ignore`.

use super::context::{Ctx, unexpected};
use super::format;
use crate::daemon::protocol::{self, BUILD_DIRS, IgnoredPath, Item, Request, Response, RuleOf};
use crate::error::{Error, Kind, Result};
use clap::Args;

/// Keep paths on their machine: build output, caches, scratch files
///
/// Adds lines to the `.tcfsignore` of a directory of the drive, in the syntax of .gitignore; without any it shows what is
/// there. Such files count for everything below them and travel with the drive. What a rule covers is made on this machine's
/// disk and never published; what the fleet has already goes on being carried, and is named.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs ignore --build-dirs              target, node_modules, .venv, … anywhere in the drive
  tcfs ignore --in project '*.log' '!keep.log' /scratch/
  tcfs ignore --check project/target    by which rule it stays here
  tcfs ignore                           what the .tcfsignore at the top says

Exit status of --check: 0 if every PATH stays here, 3 if not.")]
pub struct Ignore {
    /// Lines to add
    #[arg(value_name = "PATTERN")]
    patterns: Vec<String>,
    /// Directory of the drive whose .tcfsignore is meant
    #[arg(long = "in", value_name = "DIR", default_value = "/")]
    dir: String,
    /// Add a list of directories that tools build or fetch again
    #[arg(long)]
    build_dirs: bool,
    /// Say by which rule each PATH stays here; it need not exist, and one that ends in / is a directory
    #[arg(long, value_name = "PATH", num_args = 1.., conflicts_with_all = ["patterns", "build_dirs", "dir"])]
    check: Vec<String>,
}

impl Ignore {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        if self.patterns.iter().any(|p| p.trim().is_empty()) {
            return Err(Error::new(Kind::Usage, "a pattern is empty"));
        }
        let drive = ctx.own_drive().await?;
        let mut add = self.patterns;
        if self.build_dirs {
            add.extend(BUILD_DIRS.iter().map(|d| (*d).to_owned()));
        }
        let mut check = Vec::new();
        for typed in &self.check {
            let slash = if typed.ends_with('/') { "/" } else { "" };
            check.push(format!("{}{slash}", ctx.path(&drive, typed)?.trim_end_matches('/')));
        }
        let asked = !check.is_empty();
        let dir = ctx.path(&drive, &self.dir)?;
        let request = Request::Ignore(protocol::Ignore { dir, add: add.clone(), check });
        let response = ctx
            .ask(drive, request, |i| {
                if let Item::Ignored(p) = i {
                    ctx.out.line(sentence(ctx, &p));
                }
            })
            .await?;
        ctx.out.object(&response);
        let Response::Ignoring(r) = &response else { return Err(unexpected(&response)) };
        if asked {
            return Ok(response.exit_code());
        }
        if add.is_empty() {
            if r.lines.is_empty() {
                ctx.out.line(format!("there is no {} yet; `tcfs ignore --build-dirs` makes one", ctx.out.name(&r.file)));
            }
            r.lines.iter().for_each(|l| ctx.out.line(l));
            return Ok(0);
        }
        match r.added.len() {
            0 => ctx.out.line(format!("{} has all of that already", ctx.out.name(&r.file))),
            n => ctx.out.line(format!("{}: {}", ctx.out.name(&r.file), format::count(n as u64, "line added", "lines added"))),
        }
        if r.carried_count > 0 {
            let more = r.carried_count - r.carried.len() as u64;
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            let names = r.carried.iter().map(|p| ctx.out.name(p)).collect::<Vec<_>>().join(", ");
            ctx.out.note(format!(
                "the fleet has these already, and goes on carrying them: {names}{more}. Whoever removes them removes them \
                 everywhere; what is made there from now on stays on its machine"
            ));
        }
        Ok(0)
    }
}

/// Why a path stays here, for people.
fn sentence(ctx: &Ctx, p: &IgnoredPath) -> String {
    let (name, pattern) = (ctx.out.name(&p.path), p.pattern.as_deref().unwrap_or_default());
    let file = p.file.as_deref().unwrap_or_default();
    let why = match p.by {
        RuleOf::Nobody => return format!("{name} is carried"),
        RuleOf::BuiltIn => format!("`{pattern}` is in the built-in list"),
        RuleOf::Git => "repositories are not carried (`sync_git_dirs` in the configuration)".to_owned(),
        RuleOf::Configuration => format!("`{pattern}` is in `exclude_patterns` of the configuration"),
        RuleOf::IgnoreFile => match p.line {
            Some(n) => format!("`{pattern}` in line {n} of {file}"),
            None => format!("`{pattern}` in {file}"),
        },
        RuleOf::Directory => format!("the directory {file} stays here"),
        RuleOf::Kind => "it is no file, directory or link, or was made where it stays".to_owned(),
    };
    if p.carried {
        return format!("{name} is carried: the fleet had it before the rule: {why}");
    }
    format!("{name} stays here: {why}")
}
