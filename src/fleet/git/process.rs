//! Running git.
//!
//! Must: nothing of the caller's environment or of the user's configuration leads git elsewhere, runs a hook, asks a question
//! or starts a collection.

use crate::error::{Error, IoContext, Kind, Result};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A repository's directory, as git is told of it.
#[derive(Clone, Debug)]
pub(super) struct Git {
    /// The `.git`, or a bare repository.
    pub(super) dir: PathBuf,
    /// The worktree, if there is one.
    pub(super) work: Option<PathBuf>,
    env: Vec<(&'static str, PathBuf)>,
}

impl Git {
    pub(super) fn of(dir: &Path, work: Option<&Path>) -> Git {
        Git { dir: dir.to_owned(), work: work.map(Path::to_owned), env: Vec::new() }
    }

    /// The same with a variable.
    pub(super) fn with(mut self, name: &'static str, value: &Path) -> Git {
        self.env.push((name, value.to_owned()));
        self
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut c = Command::new("git");
        for (k, _) in std::env::vars_os() {
            if k.to_string_lossy().starts_with("GIT_") {
                c.env_remove(k);
            }
        }
        c.env("GIT_TERMINAL_PROMPT", "0").env("GIT_OPTIONAL_LOCKS", "0").env("LC_ALL", "C");
        c.env("GIT_AUTHOR_NAME", "tcfs").env("GIT_AUTHOR_EMAIL", "tcfs").env("GIT_AUTHOR_DATE", "@946684800 +0000");
        c.env("GIT_COMMITTER_NAME", "tcfs").env("GIT_COMMITTER_EMAIL", "tcfs").env("GIT_COMMITTER_DATE", "@946684800 +0000");
        c.envs(self.env.iter().map(|(k, v)| (*k, v)));
        c.arg("--git-dir").arg(&self.dir);
        if let Some(w) = &self.work {
            c.arg("--work-tree").arg(w).current_dir(w);
        } else {
            c.current_dir(&self.dir);
        }
        for setting in [
            "core.hooksPath=/dev/null",
            "gc.auto=0",
            "core.fsmonitor=false",
            "safe.directory=*",
            "pack.threads=1",
            "maintenance.auto=false",
        ] {
            c.args(["-c", setting]);
        }
        c.args(args);
        c
    }

    /// Runs it to its end.
    ///
    /// Errors: `Unsupported` with what to install if there is no git; of the disk.
    pub(super) fn output(&self, args: &[&str], input: Option<&str>) -> Result<Output> {
        let doing = || format!("git {} in {}", args.first().unwrap_or(&""), self.dir.display());
        let mut c = self.command(args);
        c.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() }).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = c.spawn().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound if self.dir.exists() => {
                Error::new(Kind::Unsupported, "git is not installed").hint("repositories are carried by git itself: apt install git")
            }
            _ => Error::io(doing(), e),
        })?;
        let writing = child.stdin.take().zip(input.map(str::to_owned)).map(|(mut to, text)| {
            // On a thread: git may answer before it has read everything.
            std::thread::spawn(move || {
                let _ = to.write_all(text.as_bytes());
            })
        });
        let out = child.wait_with_output().doing(doing)?;
        if let Some(w) = writing {
            let _ = w.join();
        }
        Ok(out)
    }

    /// What it prints; `Busy` if another git is at the same, `Io` with its own words if it fails for another reason.
    pub(super) fn text(&self, args: &[&str], input: Option<&str>) -> Result<String> {
        let out = self.output(args, input)?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        if out.status.success() {
            return Ok(text);
        }
        let said = String::from_utf8_lossy(&out.stderr);
        if said.contains(".lock': File exists") {
            return Err(Error::new(Kind::Busy, format!("git works in {}", self.dir.display())));
        }
        let said = said.trim().lines().last().unwrap_or("no word why").to_owned();
        Err(Error::new(Kind::Io, format!("git {} in {}: {said}", args.join(" "), self.dir.display())))
    }

    /// The same, and nothing is expected.
    pub(super) fn run(&self, args: &[&str]) -> Result<()> {
        self.text(args, None).map(drop)
    }

    /// Whether it says yes.
    pub(super) fn ask(&self, args: &[&str]) -> Result<bool> {
        Ok(self.output(args, None)?.status.success())
    }

    /// The one line that it prints, if it succeeds.
    pub(super) fn line(&self, args: &[&str]) -> Result<Option<String>> {
        let out = self.output(args, None)?;
        let text = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        Ok(Some(text).filter(|t| out.status.success() && !t.is_empty()))
    }
}
