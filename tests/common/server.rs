//! A server of other people's, ended by its pid when dropped.
#![allow(dead_code)] // each test program uses another part of this

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The server `name` in `TCFS_TOOLS`, or in `tools` of the target directory. A test that needs it and does not find it fails
/// and says how to install it.
pub fn program(name: &str) -> PathBuf {
    let tools = match std::env::var_os("TCFS_TOOLS") {
        Some(dir) => dir.into(),
        // CARGO_TARGET_TMPDIR is <target>/tmp whatever the target directory is.
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tools"),
    };
    let path = tools.join("bin").join(name);
    assert!(path.exists(), "{} is missing; install it with: tests/tools.sh servers", path.display());
    path
}

/// The process, with its output in a file.
pub struct Process {
    child: Option<Child>,
    log: PathBuf,
}

impl Process {
    /// None yet.
    pub fn new(log: PathBuf) -> Process {
        Process { child: None, log }
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Whether it was started and has not ended.
    pub fn is_alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|c| c.try_wait().is_ok_and(|s| s.is_none()))
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Starts it and waits until it answers; false if it ends instead, or does not in a minute.
    pub fn start(&mut self, command: &mut Command, answers: impl Fn(&Process) -> bool) -> bool {
        let log = File::create(&self.log).expect("a log file");
        let command = command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log file")).stderr(log);
        self.child = Some(command.spawn().unwrap_or_else(|e| panic!("starting {}: {e}", command.get_program().display())));
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(60) {
            if let Some(child) = &mut self.child
                && child.try_wait().ok().flatten().is_some()
            {
                self.child = None;
                return false;
            }
            if answers(self) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill();
        false
    }

    /// Kills it as a power cut would; what it stored stays.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
