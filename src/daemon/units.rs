//! The drive as a service of the login session: a launchd agent on macOS, a systemd user unit on Linux.
//!
//! Must: absolute paths only, and no secret in it. Must: nothing that gives the service a mount namespace of its own or keeps
//! setuid helpers from working: the mount would be seen by nobody, or not be made. That leaves little of systemd's
//! hardening: most of it does one of the two in a user's manager.
//! Texts are pure; who runs the system's programs is an argument, so that both platforms are tested on either.
//! Not here: what the service runs (`run`), the Nix modules.

mod manager;

pub use manager::{Manager, Runner, State, System};

use super::paths::{Env, Platform, base, home};
use std::ffi::OsString;
use std::path::PathBuf;

/// The name that launchd knows it by.
pub const LABEL: &str = "io.tcfs.drive";
/// The name that systemd knows it by.
pub const UNIT: &str = "tcfs.service";

/// What the service runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The program, absolute.
    pub exe: PathBuf,
    /// Its global flags.
    pub flags: Vec<OsString>,
    /// Where the drive is mounted, absolute; none: where the configuration of whoever it runs for says.
    pub mountpoint: Option<PathBuf>,
    /// Where what it prints goes on macOS, absolute.
    pub log: PathBuf,
    /// Whose it is; on Linux only.
    pub of: Of,
}

/// Whose a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The login session's of a user.
    Session,
    /// The system's, for a user who need not log in: a template, `tcfs@USER.service`.
    System,
}

impl Unit {
    fn words(&self) -> Vec<String> {
        let flags = self.flags.iter().map(|f| f.to_string_lossy().into_owned());
        let program = self.exe.to_string_lossy().into_owned();
        let mount = ["mount".to_owned(), "--foreground".to_owned()];
        let at = self.mountpoint.iter().map(|m| m.to_string_lossy().into_owned());
        std::iter::once(program).chain(flags).chain(mount).chain(at).collect()
    }

    /// The file that the system reads.
    pub fn text(&self, platform: Platform) -> String {
        match platform {
            Platform::Linux => self.systemd(),
            Platform::MacOs => self.launchd(),
        }
    }

    fn systemd(&self) -> String {
        let command = self.words().iter().map(|w| systemd_word(w)).collect::<Vec<_>>().join(" ");
        let (whose, user, target) = match self.of {
            Of::Session => ("", "", "default.target"),
            Of::System => (" of %i\nAfter=network.target", "User=%i\n", "multi-user.target"),
        };
        // A package has the manual, too.
        let (origin, manual) = match self.mountpoint {
            Some(_) => ("# Written by `tcfs service install`; `tcfs service uninstall` takes it away.\n", ""),
            None => ("", "Documentation=man:tcfs(1)\n"),
        };
        format!(
            "\
{origin}[Unit]
Description=tcfs drive{whose}
{manual}
[Service]
Type=notify
{user}ExecStart={command}
Restart=on-failure
RestartSec=5
# What the configuration has wrong, another try does not mend.
RestartPreventExitStatus=2
# Seals what is open and unmounts, which a busy disk may hold up.
TimeoutStopSec=90
UMask=0077
LimitNOFILE=524288

[Install]
WantedBy={target}
"
        )
    }

    fn launchd(&self) -> String {
        let words: String = self.words().iter().map(|w| format!("    <string>{}</string>\n", xml(w))).collect();
        let log = xml(&self.log.to_string_lossy());
        // KeepAlive without NetworkState: it works without the network, and goes on after sleep by itself.
        format!(
            r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<!-- Written by `tcfs service install`; `tcfs service uninstall` takes it away. -->
<plist version="1.0">
<dict>
  <key>Label</key>
  <string>{LABEL}</string>
  <key>ProgramArguments</key>
  <array>
{words}  </array>
  <key>RunAtLoad</key>
  <true/>
  <key>KeepAlive</key>
  <dict>
    <key>SuccessfulExit</key>
    <false/>
  </dict>
  <key>ThrottleInterval</key>
  <integer>10</integer>
  <key>ExitTimeOut</key>
  <integer>90</integer>
  <key>ProcessType</key>
  <string>Adaptive</string>
  <key>Umask</key>
  <integer>63</integer>
  <key>SoftResourceLimits</key>
  <dict>
    <key>NumberOfFiles</key>
    <integer>10240</integer>
  </dict>
  <key>StandardOutPath</key>
  <string>{log}</string>
  <key>StandardErrorPath</key>
  <string>{log}</string>
</dict>
</plist>
"#
        )
    }
}

/// Where the system looks for it; none where there is no home.
pub fn file(platform: Platform, env: &Env) -> Option<PathBuf> {
    Some(match platform {
        Platform::Linux => base(env, "XDG_CONFIG_HOME", ".config")?.join("systemd/user").join(UNIT),
        Platform::MacOs => home(env)?.join("Library/LaunchAgents").join(format!("{LABEL}.plist")),
    })
}

/// A word of a command line as systemd reads it: `%` and `$` mean something to it.
fn systemd_word(word: &str) -> String {
    let mut out = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '%' | '$' => out.extend([c, c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests;
