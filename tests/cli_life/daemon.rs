//! The daemon's life: started by `mount`, by hand, by a service manager.

use super::{answer, machine, refused, s};
use crate::common::{Mounted, cli, sys, until};
use crate::drive_only;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// A program that is ended by its id, also when the test fails.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Running {
        Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn signal(&self, signal: i32) {
        // SAFETY: the child has not been reaped, so the id is its own.
        unsafe { libc::kill(self.0.id() as i32, signal) };
    }

    /// Its exit code once it has ended.
    fn ended(&mut self) -> i32 {
        until("the program ends", SOON, || self.0.try_wait().unwrap()).code().unwrap_or(-1)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.try_wait().unwrap().is_none() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

#[test]
fn mount_says_where_and_how_to_stop_it_and_how_to_get_tcfs_onto_the_path() {
    drive_only!();
    let (_w, m) = machine();
    let first = m.try_mount().ok();
    // It answers by now.
    fs::write(m.path("f"), "text").unwrap();
    let lines: Vec<&str> = first.stdout.lines().collect();
    assert!(lines[0].starts_with("this machine is enrolled as ann (ann-"), "{}", first.stdout);
    assert!(lines[1].starts_with(&format!("the drive is mounted on {}", s(m.root()))), "{}", first.stdout);
    let root = first.stdout.contains("note: only root sees this mount; --allow-other shows it to other users");
    // SAFETY: no arguments, cannot fail.
    assert_eq!(root, unsafe { libc::getuid() } == 0, "{}", first.stdout);
    let last = lines.last().unwrap();
    assert!(last.starts_with("to call it as `tcfs`: export PATH=") && last.ends_with(r#":"$PATH""#), "{last}");
    // That line does what it says.
    let export = last.split_once(": ").unwrap().1;
    let version = cli::sh(std::path::Path::new("/"), &format!("{export}\ntcfs --version"), &[]).ok();
    assert_eq!(version.stdout.trim(), concat!("tcfs ", env!("CARGO_PKG_VERSION")));
    // And so does the line that says how to stop it.
    let stop = lines.iter().find_map(|l| l.strip_prefix("to stop it: ")).unwrap().to_owned();
    let again = m.try_mount().ok();
    assert!(again.stdout.starts_with("the drive is already mounted on"), "{}", again.stdout);
    let mut sh = Command::new("sh");
    sh.args(["-ec", &stop]).envs(m.tcfs(&[]).get_envs().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))));
    cli::run(&mut sh, SOON).ok();
    assert!(!sys::is_mounted(m.root()));
    m.cli(&["status"]).exit(10);
    // With tcfs on the PATH nothing is said about it.
    let exe = std::path::Path::new(env!("CARGO_BIN_EXE_tcfs")).parent().unwrap();
    let path = format!("{}:{}", exe.display(), std::env::var("PATH").unwrap());
    let on_path = cli::run(m.tcfs(&["mount", s(m.root())]).env("PATH", path), SOON).ok();
    assert!(!on_path.stdout.contains("PATH") && on_path.stdout.contains("to stop it: tcfs "), "{}", on_path.stdout);
    m.cli(&["unmount"]).ok();
    let json = answer(&m.cli(&["--json", "mount", s(m.root())]).ok());
    assert_eq!(
        (json["type"].as_str(), json["mountpoint"].as_str(), json["already"].as_bool()),
        (Some("mounted"), Some(s(m.root())), Some(false))
    );
    assert_eq!(answer(&m.cli(&["--json", "unmount"]).ok())["daemon_stops"], true);
}

#[test]
fn the_mount_of_a_killed_daemon_is_cleaned_up_by_the_next_one() {
    drive_only!();
    let m = Mounted::new();
    fs::write(m.path("f"), "text").unwrap();
    m.kill();
    assert!(sys::is_mounted(m.root()), "the kernel took the mount away by itself");
    m.cli(&["status"]).exit(10);
    let again = m.try_mount().ok();
    assert!(again.stdout.contains("was still mounted by a daemon that died; that was cleaned up"), "{}", again.stdout);
    assert_eq!(fs::read_to_string(m.path("f")).unwrap(), "text");
    // `unmount` alone cleans up as well.
    let pid = m.status()["pid"].as_i64().unwrap() as i32;
    // SAFETY: the id came from this machine's own daemon.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    until("the daemon is gone", SOON, || (!sys::alive(pid)).then_some(()));
    m.cli(&["unmount", s(m.root())]).ok();
    assert!(!sys::is_mounted(m.root()));
    m.mount();
}

#[test]
fn a_daemon_started_by_hand_outlives_its_mounts_until_it_is_stopped() {
    drive_only!();
    let (_w, m) = machine();
    let started = answer(&m.cli(&["--json", "daemon", "start"]).ok());
    let pid = started["pid"].as_i64().unwrap();
    assert_eq!((started["type"].as_str(), started["already"].as_bool()), (Some("started"), Some(false)));
    assert_eq!(answer(&m.cli(&["--json", "daemon", "start"]).ok())["already"], true);
    m.mount();
    assert_eq!(m.status()["pid"].as_i64(), Some(pid));
    fs::write(m.path("f"), "text").unwrap();
    assert_eq!(answer(&m.cli(&["--json", "unmount"]).ok())["daemon_stops"], false);
    assert_eq!(m.status()["pid"].as_i64(), Some(pid));
    // A restart takes the mounts along.
    m.mount();
    m.cli(&["daemon", "restart"]).ok();
    let after = m.status();
    assert!(after["pid"].as_i64() != Some(pid) && after["stays"] == true, "{after}");
    assert_eq!(after["mounts"][0]["mountpoint"].as_str(), Some(s(m.root())));
    assert_eq!(fs::read_to_string(m.path("f")).unwrap(), "text");
    let pid = after["pid"].as_i64().unwrap() as i32;
    let stopped = m.cli(&["daemon", "stop"]).ok();
    assert!(stopped.stdout.contains("the daemon has ended"), "{}", stopped.text());
    assert!(!sys::is_mounted(m.root()));
    // Its last breath: whoever adopted it has to notice.
    until("the process is gone", SOON, || (!sys::alive(pid)).then_some(()));
    refused(&m.cli(&["daemon", "stop"]), 10, &["no daemon is running"]);
    // Without one, `restart` starts one.
    m.cli(&["daemon", "restart"]).ok();
    m.cli(&["daemon", "stop"]).ok();
}

#[test]
fn in_the_foreground_a_service_manager_hears_when_it_is_mounted_and_when_it_stops() {
    drive_only!();
    let (w, m) = machine();
    let at = w.dir().join("notify");
    let socket = UnixDatagram::bind(&at).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let hear = || {
        let mut text = [0u8; 512];
        let n = socket.recv(&mut text).expect("nothing was said");
        String::from_utf8_lossy(&text[..n]).into_owned()
    };
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut serving = Running::start(m.tcfs(&["mount", "--foreground", s(m.root())]).env("NOTIFY_SOCKET", &at));
        until("it says that it is ready", SOON, || hear().contains("READY=1").then_some(()));
        // It is mounted by then, and it is this very process that serves it.
        assert!(sys::is_mounted(m.root()));
        fs::write(m.path("f"), "text").unwrap();
        assert_eq!(m.status()["pid"].as_u64(), Some(u64::from(serving.0.id())));
        serving.signal(signal);
        until("it says that it stops", SOON, || hear().contains("STOPPING=1").then_some(()));
        assert_eq!(serving.ended(), 0);
        assert!(!sys::is_mounted(m.root()));
    }
    // The daemon alone, and under its other name.
    for command in [m.tcfs(&["daemon", "run"]), {
        let mut c = m.tcfs(&[]);
        let mut other = Command::new(env!("CARGO_BIN_EXE_tcfsd"));
        other.envs(c.env("x", "").get_envs().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))));
        other
    }] {
        let mut command = command;
        let mut serving = Running::start(command.env("NOTIFY_SOCKET", &at));
        until("it says that it is ready", SOON, || hear().contains("READY=1").then_some(()));
        assert_eq!(m.status()["pid"].as_u64(), Some(u64::from(serving.0.id())));
        m.cli(&["daemon", "stop"]).ok();
        until("it says that it stops", SOON, || hear().contains("STOPPING=1").then_some(()));
        assert_eq!(serving.ended(), 0);
    }
}

#[test]
fn a_mount_in_the_foreground_that_is_unmounted_ends_by_itself() {
    drive_only!();
    let (_w, m) = machine();
    let mut serving = Running::start(&mut m.tcfs(&["mount", "--foreground", s(m.root())]));
    until("it is mounted", SOON, || (sys::is_mounted(m.root()) && m.cli(&["status"]).code == 0).then_some(()));
    m.cli(&["unmount", s(m.root())]).ok();
    assert_eq!(serving.ended(), 0);
}

#[test]
fn status_tells_everything_for_people_and_for_programs() {
    drive_only!();
    let m = Mounted::new();
    fs::write(m.path("f"), "x".repeat(5000)).unwrap();
    m.wait();
    let json = m.status();
    assert_eq!(json["type"], "status");
    for key in ["pid", "device", "store", "mounts", "pending", "cache", "conflicts", "nats"] {
        assert!(!json[key].is_null(), "{key} in {json}");
    }
    assert!(json["device"]["id"].as_str().unwrap().starts_with("ann-") && json["device"]["name"] == "ann");
    assert_eq!((json["pending"].as_u64(), json["conflicts"].as_u64(), json["entries"].as_u64()), (Some(0), Some(0), Some(1)));
    assert_eq!((json["nats"]["state"].as_str(), json["store_state"]["reachable"].as_bool()), (Some("off"), Some(true)));
    assert_eq!(json["mounts"][0]["mountpoint"].as_str(), Some(s(m.root())));
    let text = m.cli(&["status"]).ok().stdout;
    for part in
        ["daemon ", "device ", "ann", s(m.root()), "file://", "nothing, all is in the store", "1 entry", "cache", s(m.state()), "tcfs.log"]
    {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
}
