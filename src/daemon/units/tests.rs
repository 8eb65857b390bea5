//! The texts, and what is run to install them.

use super::*;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::path::Path;

fn unit() -> Unit {
    Unit {
        exe: "/opt/it's 100% <here> & \"there\"/tcfs".into(),
        flags: ["--state-dir".into(), "/home/u/a $HOME".into()].into(),
        mountpoint: Some("/home/u/my drive".into()),
        log: "/home/u/log/service.log".into(),
        of: Of::Session,
    }
}

#[test]
fn words_reach_systemd_as_they_are() {
    let text = unit().text(Platform::Linux);
    let command = text.lines().find_map(|l| l.strip_prefix("ExecStart=")).unwrap();
    assert_eq!(
        command,
        r#""/opt/it's 100%% <here> & \"there\"/tcfs" "--state-dir" "/home/u/a $$HOME" "mount" "--foreground" "/home/u/my drive""#
    );
    for needed in ["Type=notify", "Restart=on-failure", "WantedBy=default.target"] {
        assert!(text.lines().any(|l| l == needed), "{needed}");
    }
    // Each of these gives the service mounts of its own, or keeps fusermount3 from being root.
    for harmful in ["Private", "Protect", "NoNewPrivileges", "RestrictSUIDSGID", "SystemCallFilter", "LockPersonality", "ReadOnlyPaths"] {
        assert!(!text.contains(harmful), "{harmful}");
    }
}

#[test]
fn a_package_has_units_that_mount_where_each_user_says() {
    let of = |of| Unit { exe: "/usr/bin/tcfs".into(), flags: Vec::new(), mountpoint: None, log: "".into(), of }.text(Platform::Linux);
    let (session, system) = (of(Of::Session), of(Of::System));
    for (text, lines) in [(&session, ["[Unit]", "WantedBy=default.target"]), (&system, ["User=%i", "WantedBy=multi-user.target"])] {
        for line in lines.into_iter().chain(["ExecStart=\"/usr/bin/tcfs\" \"mount\" \"--foreground\""]) {
            assert!(text.lines().any(|l| l == line), "{line}:\n{text}");
        }
    }
    assert!(!session.contains("User=") && !system.contains("install"));
}

#[test]
fn words_reach_launchd_as_they_are() {
    let text = unit().text(Platform::MacOs);
    assert!(text.contains("<string>/opt/it's 100% &lt;here&gt; &amp; \"there\"/tcfs</string>"));
    assert!(text.contains("<string>/home/u/a $HOME</string>") && text.contains("<string>--foreground</string>"));
}

fn pair((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn the_file_lies_where_the_system_looks() {
    let at = |platform, config: &str| file(platform, &[("HOME", "/home/u"), ("XDG_CONFIG_HOME", config)].map(pair).into());
    assert_eq!(at(Platform::Linux, ""), Some("/home/u/.config/systemd/user/tcfs.service".into()));
    assert_eq!(at(Platform::Linux, "/c"), Some("/c/systemd/user/tcfs.service".into()));
    assert_eq!(at(Platform::MacOs, ""), Some("/home/u/Library/LaunchAgents/io.tcfs.drive.plist".into()));
    assert_eq!(file(Platform::Linux, &Env::new()), None);
}

/// A system that does as it is told, but for the commands that fail.
#[derive(Default)]
struct Fake {
    ran: Mutex<Vec<String>>,
    fail: BTreeSet<&'static str>,
    running: bool,
}

impl Runner for Fake {
    fn run(&self, command: &[String]) -> std::io::Result<(bool, String)> {
        let line = command.join(" ");
        let fails = self.fail.iter().any(|f| line.contains(f));
        self.ran.lock().push(line.clone());
        if line.contains("is-active") || line.contains("print") {
            return Ok((self.running, if self.running { "state = running".into() } else { "inactive".into() }));
        }
        Ok((!fails, if fails { "Failed to connect to bus".into() } else { String::new() }))
    }
}

fn manager<'a>(platform: Platform, home: &Path, runner: &'a Fake) -> Manager<'a> {
    Manager { platform, file: file(platform, &[("HOME", home.to_str().unwrap())].map(pair).into()).unwrap(), uid: 501, runner }
}

#[test]
fn it_is_installed_started_and_removed_by_the_systems_own_programs() {
    let home = tempfile::tempdir().unwrap();
    let unit = Unit { log: home.path().join("log/service.log"), ..unit() };
    for (platform, expected) in [
        (
            Platform::Linux,
            vec!["systemctl --user daemon-reload", "systemctl --user enable tcfs.service", "systemctl --user restart tcfs.service"],
        ),
        (Platform::MacOs, vec!["launchctl bootout gui/501/io.tcfs.drive", "launchctl bootstrap gui/501 "]),
    ] {
        let system = Fake { running: true, ..Fake::default() };
        let m = manager(platform, home.path(), &system);
        for _ in 0..2 {
            m.install(&unit).unwrap();
            let ran = std::mem::take(&mut *system.ran.lock());
            assert!(ran.len() == expected.len() && ran.iter().zip(&expected).all(|(r, e)| r.starts_with(e)), "{ran:?}");
            assert_eq!(std::fs::read_to_string(&m.file).unwrap(), unit.text(platform));
        }
        assert_eq!(m.state().unwrap(), State { installed: true, running: true });
        assert!(m.uninstall().unwrap() && !m.file.exists());
        assert!(!m.uninstall().unwrap());
        let ran = system.ran.lock().join("\n");
        assert!(ran.contains(if platform == Platform::Linux { "disable --now" } else { "bootout" }), "{ran}");
    }
    assert!(home.path().join("log").is_dir(), "launchd makes no directories");
}

#[test]
fn what_the_system_refuses_is_told_with_what_helps() {
    let home = tempfile::tempdir().unwrap();
    let system = Fake { fail: ["daemon-reload"].into(), ..Fake::default() };
    let e = manager(Platform::Linux, home.path(), &system).install(&unit()).unwrap_err();
    assert!(e.to_string().contains("systemctl --user daemon-reload") && e.to_string().contains("bus"), "{e}");
    assert!(e.hint_text().unwrap().contains("enable-linger"), "{e:?}");
}
