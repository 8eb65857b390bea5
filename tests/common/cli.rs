//! Running programs: output in files, a deadline, and nothing left running.

use std::ffi::OsStr;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a finished program left.
#[derive(Debug)]
pub struct Done {
    /// Exit status; -1 if a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// What was run, for messages.
    pub line: String,
    /// How long it took.
    pub took: Duration,
}

impl Done {
    /// Panics with the whole output unless the exit status is 0.
    #[track_caller]
    pub fn ok(self) -> Done {
        self.exit(0)
    }

    /// Panics with the whole output unless the exit status is `code`.
    #[track_caller]
    pub fn exit(self, code: i32) -> Done {
        assert!(self.code == code, "{} exited with {} instead of {code}\n{}", self.line, self.code, self.text());
        self
    }

    /// Both outputs, for messages.
    pub fn text(&self) -> String {
        format!("--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr)
    }

    /// The objects printed with `--json`, one per line.
    #[track_caller]
    pub fn json(&self) -> Vec<serde_json::Value> {
        let parse = |l: &str| serde_json::from_str(l).unwrap_or_else(|e| panic!("{}: not JSON ({e}): {l}", self.line));
        self.stdout.lines().filter(|l| !l.trim().is_empty()).map(parse).collect()
    }
}

/// Runs `cmd` to its end. Panics if that takes longer than `limit`; it and its children are killed then.
///
/// Output goes to files, not pipes: a daemon started by the command may keep its standard error open for ever.
#[track_caller]
pub fn run(cmd: &mut Command, limit: Duration) -> Done {
    let line = words(cmd);
    let (mut out, mut err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    cmd.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap()).process_group(0);
    let start = Instant::now();
    let mut child = cmd.spawn().unwrap_or_else(|e| panic!("cannot run {line}: {e}"));
    let mut pause = Duration::from_micros(300);
    let status = loop {
        if let Some(s) = child.try_wait().unwrap() {
            break Some(s);
        }
        if start.elapsed() > limit {
            // SAFETY: the group was made for this child, and the child has not been reaped.
            unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
            let killed = Instant::now();
            // A process stuck in the kernel cannot be waited for: report it instead of hanging with it.
            while child.try_wait().unwrap().is_none() && killed.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(20));
            }
            break None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    };
    let took = start.elapsed();
    let done = Done {
        code: status.and_then(|s| s.code()).unwrap_or(-1),
        stdout: text_of(&mut out),
        stderr: text_of(&mut err),
        line: line.clone(),
        took,
    };
    assert!(status.is_some(), "{line} did not end within {limit:?}\n{}", done.text());
    done
}

/// `sh -c script` in `dir` with the arguments as `$1`…, with two minutes to end.
#[track_caller]
pub fn sh(dir: &std::path::Path, script: &str, args: &[&OsStr]) -> Done {
    run(Command::new("sh").arg("-ec").arg(script).arg("sh").args(args).current_dir(dir), Duration::from_secs(120))
}

fn words(cmd: &Command) -> String {
    let mut all: Vec<String> = vec![cmd.get_program().to_string_lossy().into_owned()];
    all.extend(cmd.get_args().map(|a| a.to_string_lossy().into_owned()));
    all.join(" ")
}

fn text_of(f: &mut std::fs::File) -> String {
    let mut bytes = Vec::new();
    f.rewind().unwrap();
    f.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
