//! The process in which something is done in a repository: this program once more.
//!
//! Must: no thread of the daemon waits for a mount that the daemon serves (see [`Job`]).

use crate::daemon::protocol::WireError;
use crate::error::{Error, IoContext, Kind, Result};
use crate::fleet::git::{Did, Job, work};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::SystemTime;

/// Arguments by which this program is asked to be one.
pub const HELPER: [&str; 2] = ["git", "helper"];

/// When this process began to look after repositories, which is before it mounts anything.
static SINCE: OnceLock<SystemTime> = OnceLock::new();

/// To be called before anything is mounted.
pub(in crate::daemon) fn begin() {
    SINCE.get_or_init(SystemTime::now);
}

/// Runs a job to its end. Blocking.
pub(in crate::daemon) fn run(job: Job) -> Result<Did> {
    let doing = || "working in a repository";
    // The file that is running, also after another version took its place.
    let exe = if cfg!(target_os = "linux") { "/proc/self/exe".into() } else { std::env::current_exe().doing(doing)? };
    let mut child = Command::new(exe)
        .args(HELPER)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .doing(doing)?;
    let since = SINCE.get_or_init(SystemTime::now);
    let text = serde_json::to_vec(&(since, job)).map_err(|e| Error::new(Kind::Internal, doing()).source(e))?;
    if let Some(mut to) = child.stdin.take() {
        // It reads everything before it writes anything; if it was killed, that is said below.
        let _ = to.write_all(&text);
    }
    let out = child.wait_with_output().doing(doing)?;
    let answer: std::result::Result<Did, WireError> = serde_json::from_slice(&out.stdout)
        .map_err(|e| Error::new(Kind::Interrupted, format!("{} ended without a word: {}", doing(), out.status)).source(e))?;
    answer.map_err(Error::from)
}

/// In that process: does the job that comes on `input`, and says on `output` what came of it.
pub fn serve(mut input: impl Read, mut output: impl Write) -> Result<()> {
    let mut text = Vec::new();
    input.read_to_end(&mut text).doing(|| "reading what is to be done")?;
    let (since, job): (SystemTime, Job) =
        serde_json::from_slice(&text).map_err(|e| Error::new(Kind::Usage, "this is asked by the daemon only").source(e))?;
    let answer: std::result::Result<Did, WireError> = work(job, since).map_err(|e| WireError::from(&e));
    let text = serde_json::to_vec(&answer).map_err(|e| Error::new(Kind::Internal, "saying what came of it").source(e))?;
    output.write_all(&text).doing(|| "saying what came of it")
}

/// An answer to another question.
pub(in crate::daemon) fn unexpected(did: &Did) -> Error {
    Error::new(Kind::Internal, format!("working in a repository gave another answer than was asked for: {did:?}"))
}
