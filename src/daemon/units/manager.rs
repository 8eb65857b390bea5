//! Installing, removing and asking for the service, by the system's own programs.
//!
//! Must: what cannot be done says which command failed and what it printed; installing again is the same as once.

use super::super::paths::Platform;
use super::{LABEL, UNIT, Unit};
use crate::error::{Error, IoContext, Kind, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs programs of the system.
pub trait Runner {
    /// Runs `command` to its end: whether it succeeded, and what it printed.
    fn run(&self, command: &[String]) -> std::io::Result<(bool, String)>;
}

/// The system itself.
pub struct System;

impl Runner for System {
    fn run(&self, command: &[String]) -> std::io::Result<(bool, String)> {
        let (program, args) = command.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
        let out = Command::new(program).args(args).stdin(Stdio::null()).output()?;
        let text = [out.stdout, out.stderr].concat();
        Ok((out.status.success(), String::from_utf8_lossy(&text).trim().to_owned()))
    }
}

/// How the service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Its file is there.
    pub installed: bool,
    /// It runs now.
    pub running: bool,
}

/// The system's manager of services, for one user.
pub struct Manager<'a> {
    /// Whose customs.
    pub platform: Platform,
    /// The file of the service.
    pub file: PathBuf,
    /// The user.
    pub uid: u32,
    /// Runs its programs.
    pub runner: &'a dyn Runner,
}

impl Manager<'_> {
    fn words(&self, words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    /// Runs a program of the system; what it printed.
    fn must(&self, words: &[&str]) -> Result<String> {
        let command = self.words(words);
        let doing = || command.join(" ");
        match self.runner.run(&command) {
            Ok((true, text)) => Ok(text),
            Ok((false, text)) => Err(Error::new(Kind::Io, format!("{}: {text}", doing())).hint(self.hint(&text))),
            Err(e) => Err(Error::io(doing(), e).hint(self.hint(""))),
        }
    }

    fn hint(&self, text: &str) -> String {
        let by_hand = "`tcfs service print` prints the file, for a service manager of your own";
        match self.platform {
            Platform::Linux if text.contains("bus") || text.contains("XDG_RUNTIME_DIR") => {
                format!("there is no systemd for this user here: log in as that user (not by su), or `loginctl enable-linger`; {by_hand}")
            }
            Platform::Linux => format!("it takes systemd as the user's service manager; {by_hand}"),
            Platform::MacOs => format!("it takes a login session with a desktop; {by_hand}"),
        }
    }

    fn domain(&self) -> String {
        format!("gui/{}", self.uid)
    }

    /// The service as launchd names it.
    fn target(&self) -> String {
        format!("{}/{LABEL}", self.domain())
    }

    /// Writes the file and starts the service, now and with every login.
    pub fn install(&self, unit: &Unit) -> Result<()> {
        let doing = || format!("writing {}", self.file.display());
        let dir = self.file.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(dir).doing(doing)?;
        if self.platform == Platform::MacOs {
            // launchd makes no directories.
            std::fs::create_dir_all(unit.log.parent().unwrap_or(Path::new("/"))).doing(doing)?;
        }
        let new = self.file.with_extension("new");
        std::fs::write(&new, unit.text(self.platform)).doing(doing)?;
        std::fs::rename(&new, &self.file).doing(doing)?;
        match self.platform {
            Platform::Linux => {
                self.must(&["systemctl", "--user", "daemon-reload"])?;
                self.must(&["systemctl", "--user", "enable", UNIT])?;
                // Restarted, so that one that runs takes the new file.
                self.must(&["systemctl", "--user", "restart", UNIT]).map(drop)
            }
            Platform::MacOs => {
                // It knows one of the name already, or not.
                let _ = self.runner.run(&self.words(&["launchctl", "bootout", &self.target()]));
                self.must(&["launchctl", "bootstrap", &self.domain(), &self.file.to_string_lossy()]).map(drop)
            }
        }
    }

    /// Stops the service and takes its file away. False if there was none.
    pub fn uninstall(&self) -> Result<bool> {
        if !self.file.exists() {
            return Ok(false);
        }
        match self.platform {
            Platform::Linux => {
                self.must(&["systemctl", "--user", "disable", "--now", UNIT])?;
            }
            Platform::MacOs => {
                if self.state()?.running {
                    self.must(&["launchctl", "bootout", &self.target()])?;
                }
            }
        }
        std::fs::remove_file(&self.file).doing(|| format!("removing {}", self.file.display()))?;
        if self.platform == Platform::Linux {
            self.must(&["systemctl", "--user", "daemon-reload"])?;
        }
        Ok(true)
    }

    /// How it is.
    pub fn state(&self) -> Result<State> {
        let asked = match self.platform {
            Platform::Linux => self.words(&["systemctl", "--user", "is-active", UNIT]),
            Platform::MacOs => self.words(&["launchctl", "print", &self.target()]),
        };
        let (ok, text) = self.runner.run(&asked).map_err(|e| Error::io(asked.join(" "), e).hint(self.hint("")))?;
        let running = match self.platform {
            Platform::Linux => ok,
            Platform::MacOs => ok && text.lines().any(|l| l.trim() == "state = running"),
        };
        Ok(State { installed: self.file.exists(), running })
    }
}
