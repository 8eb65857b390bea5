//! The drive as a service of the login session: what is written is what the systems' own checkers accept, and what it runs
//! is the drive.

use super::*;
use common::{sys, tools, until};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

/// A `systemctl` that notes what it is told; this machine may have no systemd for its user.
fn fake_systemctl(w: &Arc<World>) -> std::path::PathBuf {
    let bin = w.dir().join("bin");
    fs::create_dir_all(&bin).unwrap();
    let program = bin.join("systemctl");
    fs::write(&program, format!("#!/bin/sh\necho \"$@\" >> {0}/told\n[ \"$2\" != is-active ] || [ -e {0}/active ]\n", w.dir().display()))
        .unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    bin
}

#[test]
fn the_files_are_accepted_by_the_systems_own_checkers() {
    let (w, m) = machine();
    let at = w.dir().join("a drive & 100%");
    let plist = w.dir().join("agent.plist");
    fs::write(&plist, m.cli(&["service", "print", "--platform", "macos", s(&at)]).ok().stdout).unwrap();
    let check = "import plistlib,sys,json; print(json.dumps(plistlib.load(open(sys.argv[1],'rb'))))";
    let out = Command::new(tools::find("python3")).args(["-c", check, s(&plist)]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let agent: Value = serde_json::from_slice(&out.stdout).unwrap();
    let words: Vec<&str> = agent["ProgramArguments"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
    assert!(Path::new(words[0]).is_absolute() && Path::new(words[0]).is_file());
    assert_eq!(words[words.len() - 3..], ["mount", "--foreground", s(&at)]);
    assert_eq!((&agent["RunAtLoad"], &agent["KeepAlive"]["SuccessfulExit"]), (&true.into(), &false.into()));
    for log in ["StandardOutPath", "StandardErrorPath"] {
        assert!(Path::new(agent[log].as_str().unwrap()).is_absolute());
    }

    let unit = w.dir().join("tcfs.service");
    fs::write(&unit, m.cli(&["service", "print", "--platform", "linux", s(&at)]).ok().stdout).unwrap();
    let out = Command::new(tools::find("systemd-analyze")).args(["verify", "--user", "--man=no", s(&unit)]).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    // It only warns of what it does not know.
    let about: Vec<&str> = said.lines().filter(|l| l.contains("tcfs")).collect();
    assert!(about.is_empty(), "{said}");
}

#[test]
fn it_is_installed_and_removed_and_what_it_runs_is_the_drive() {
    drive_only!();
    let (w, m) = machine();
    let path = format!("{}:{}", fake_systemctl(&w).display(), std::env::var("PATH").unwrap());
    let tcfs = |args: &[&str]| common::cli::run(m.tcfs(args).env("PATH", &path), Duration::from_secs(60));
    assert!(tcfs(&["service", "status"]).stdout.contains("there is no service"));
    let done = tcfs(&["service", "install", s(m.root())]).ok();
    assert!(done.text().contains("TCFS_STORE is set here and not for the service"), "{}", done.text());
    let told = || fs::read_to_string(w.dir().join("told")).unwrap();
    assert!(told().contains("--user daemon-reload\n--user enable tcfs.service\n--user restart tcfs.service"), "{}", told());
    let file = answer(&tcfs(&["--json", "service", "install", s(m.root())]))["file"].as_str().unwrap().to_owned();
    assert!(file.ends_with(".config/systemd/user/tcfs.service"), "{file}");
    assert_eq!(tcfs(&["service", "status"]).code, 1, "it is installed and does not run");
    fs::write(w.dir().join("active"), "").unwrap();
    assert!(tcfs(&["service", "status"]).ok().stdout.contains("installed and runs"));

    // As systemd would run it.
    let text = fs::read_to_string(&file).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix("ExecStart=")).unwrap().to_owned();
    let at = w.dir().join("notify");
    let socket = UnixDatagram::bind(&at).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let envs = m.tcfs(&[]);
    let mut child = Command::new("sh")
        .args(["-c", &format!("exec {line}")])
        .envs(envs.get_envs().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))))
        .env("NOTIFY_SOCKET", &at)
        .spawn()
        .unwrap();
    let mut text = [0u8; 512];
    until("it says that it is ready", Duration::from_secs(60), || {
        let n = socket.recv(&mut text).expect("nothing was said");
        String::from_utf8_lossy(&text[..n]).contains("READY=1").then_some(())
    });
    assert!(sys::is_mounted(m.root()));
    fs::write(m.path("f"), "saved").unwrap();
    // SAFETY: the id is that of our own child.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    assert!(child.wait().unwrap().success());
    assert!(!sys::is_mounted(m.root()));

    assert!(tcfs(&["service", "uninstall"]).ok().stdout.contains("the service is gone"));
    assert!(!Path::new(&file).exists() && told().contains("disable --now tcfs.service"));
    assert!(tcfs(&["service", "uninstall"]).ok().stdout.contains("there is no service"));
    // Where there is no systemd, that is said, with what helps.
    let e = common::cli::run(m.tcfs(&["service", "install"]).env("PATH", "/nonexistent"), Duration::from_secs(60));
    refused(&e, 1, &["systemctl --user daemon-reload", "tcfs service print"]);
}
