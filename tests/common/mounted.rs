//! Machines with a mounted drive: each with its own state, home and mount point, several on one store directory.
//!
//! Must: on drop, also while panicking, the drive is unmounted and the daemon is gone; only a daemon whose id its own
//! status gave is ever killed.
//! Not here: faults of the network and fleets inside one process.

use super::cli::{Done, run};
use super::{native, sys, until};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

/// Longest a command may take that does no bulk work.
const SOON: Duration = Duration::from_secs(60);
/// Longest that publishing everything may take.
const PUBLISHED: Duration = Duration::from_secs(600);

/// A scratch directory with one store and any number of machines on it.
pub struct World {
    dir: PathBuf,
}

impl World {
    /// A new one, empty, outside the build tree: socket paths stay short there.
    pub fn new() -> Arc<World> {
        World::below(&std::env::var_os("TCFS_TEST_DIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from))
    }

    /// One in a directory of that disk.
    pub fn below(base: &Path) -> Arc<World> {
        let dir = tempfile::Builder::new().prefix("tcfs-t").tempdir_in(base).expect("a scratch directory").keep();
        std::fs::create_dir(dir.join("store")).unwrap();
        Arc::new(World { dir })
    }

    /// The scratch directory, for a test's own files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory that is the store.
    pub fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// A machine that is not mounted yet.
    pub fn device(self: &Arc<World>, name: &str) -> Setup {
        Setup {
            world: self.clone(),
            name: name.to_owned(),
            state: self.dir.join(name).join("state"),
            store: self.store(),
            plain: self.dir.join("plain"),
            env: vec![],
            mount_args: vec![],
            one_core: false,
        }
    }

    /// A machine with its drive mounted.
    #[track_caller]
    pub fn mount(self: &Arc<World>, name: &str) -> Mounted {
        self.device(name).mount()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let keep = std::thread::panicking() && std::env::var_os("TCFS_TEST_KEEP").is_some();
        if keep {
            println!("kept: {}", self.dir.display());
            return;
        }
        // A mount that could not be undone must not be emptied through its mount point.
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let inside = format!("{}/", self.dir.display());
        if table.lines().any(|l| l.split(' ').nth(4).is_some_and(|p| p.starts_with(&inside))) {
            println!("left behind, something is mounted in it: {}", self.dir.display());
            return;
        }
        if let Err(e) = std::fs::remove_dir_all(&self.dir) {
            println!("left behind ({e}): {}", self.dir.display());
        }
    }
}

/// A machine's settings before its first mount.
pub struct Setup {
    world: Arc<World>,
    name: String,
    state: PathBuf,
    store: PathBuf,
    plain: PathBuf,
    env: Vec<(String, String)>,
    mount_args: Vec<String>,
    one_core: bool,
}

impl Setup {
    /// Adds an environment variable for every command and the daemon.
    pub fn env(mut self, key: &str, value: impl Into<String>) -> Setup {
        self.env.push((key.to_owned(), value.into()));
        self
    }

    /// A store on the S3 server at `endpoint`, with an access key and its secret.
    pub fn s3(self, url: &str, endpoint: &str, (key, secret): (&str, &str)) -> Setup {
        self.env("TCFS_STORE", url)
            .env("TCFS_S3_ENDPOINT", endpoint)
            .env("TCFS_S3_ALLOW_HTTP", "true")
            .env("TCFS_S3_ACCESS_KEY_ID", key)
            .env("TCFS_S3_SECRET_ACCESS_KEY", secret)
    }

    /// Further arguments of `tcfs mount`.
    pub fn mount_args(mut self, args: &[&str]) -> Setup {
        self.mount_args = args.iter().map(|a| a.to_string()).collect();
        self
    }

    /// All its processes share one core, for measurements.
    pub fn one_core(mut self) -> Setup {
        self.one_core = true;
        self
    }

    /// Another state directory.
    pub fn state(mut self, dir: impl Into<PathBuf>) -> Setup {
        self.state = dir.into();
        self
    }

    /// Another store directory.
    pub fn store(mut self, dir: impl Into<PathBuf>) -> Setup {
        self.store = dir.into();
        self
    }

    /// Another plain directory for `TCFS_TEST_NATIVE`.
    pub fn plain(mut self, dir: impl Into<PathBuf>) -> Setup {
        self.plain = dir.into();
        self
    }

    /// The machine, not mounted.
    pub fn off(self) -> Mounted {
        let home = self.world.dir.join(&self.name);
        let mnt = if native() { self.plain.clone() } else { home.join("mnt") };
        for d in [&home.join("home"), &home.join("run"), &mnt] {
            std::fs::create_dir_all(d).unwrap();
        }
        let mut env = self.env;
        let mut set = |k: &str, v: String| {
            if !env.iter().any(|(have, _)| have == k) {
                env.push((k.to_owned(), v));
            }
        };
        set("TCFS_DEVICE_NAME", self.name.clone());
        set("TCFS_STATE_DIR", self.state.display().to_string());
        set("TCFS_STORE", format!("file://{}", self.store.display()));
        set("HOME", home.join("home").display().to_string());
        set("XDG_RUNTIME_DIR", home.join("run").display().to_string());
        set("RUST_BACKTRACE", "1".to_owned());
        Mounted {
            fault: home.join("fault.json"),
            mount_args: self.mount_args,
            one_core: self.one_core,
            world: self.world,
            name: self.name,
            state: self.state,
            store: self.store,
            mnt,
            env,
            pid: Mutex::new(None),
        }
    }

    /// The machine with its drive mounted.
    #[track_caller]
    pub fn mount(self) -> Mounted {
        let m = self.off();
        m.mount();
        m
    }
}

/// A machine; its drive is mounted unless the test unmounted it.
pub struct Mounted {
    world: Arc<World>,
    name: String,
    state: PathBuf,
    store: PathBuf,
    mnt: PathBuf,
    fault: PathBuf,
    mount_args: Vec<String>,
    one_core: bool,
    env: Vec<(String, String)>,
    pid: Mutex<Option<i32>>,
}

impl Mounted {
    /// One machine on a store of its own.
    #[allow(clippy::new_without_default)] // it starts a daemon; nothing to be had by default
    #[track_caller]
    pub fn new() -> Mounted {
        World::new().mount("ann")
    }

    /// The scratch directory it lives in.
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// The mount point.
    pub fn root(&self) -> &Path {
        &self.mnt
    }

    /// A path in the drive.
    pub fn path(&self, rel: impl AsRef<Path>) -> PathBuf {
        self.mnt.join(rel)
    }

    /// Further arguments of `tcfs mount`.
    pub fn mount_args(&self) -> &[String] {
        &self.mount_args
    }

    /// The state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The store directory.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// The command `tcfs args…` in this machine's environment and nobody else's.
    pub fn tcfs(&self, args: &[&str]) -> Command {
        let program = super::program();
        let mut cmd = Command::new(if self.one_core { "taskset".as_ref() } else { program.as_os_str() });
        if self.one_core {
            cmd.args(["-c", "0"]).arg(&program);
        }
        for (k, _) in std::env::vars_os() {
            let k = k.to_string_lossy().into_owned();
            if (k.starts_with("TCFS_") || k.starts_with("XDG_") || k.starts_with("AWS_")) && k != "TCFS_LOG" {
                cmd.env_remove(k);
            }
        }
        cmd.envs(self.env.iter().map(|(k, v)| (k, v))).env("TCFS_FAULT", &self.fault).args(args);
        cmd
    }

    /// Runs `tcfs args…` to its end.
    #[track_caller]
    pub fn cli(&self, args: &[&str]) -> Done {
        run(&mut self.tcfs(args), SOON)
    }

    /// As [`Mounted::cli`], for commands that move much data.
    #[track_caller]
    pub fn cli_long(&self, args: &[&str]) -> Done {
        run(&mut self.tcfs(args), PUBLISHED)
    }

    /// The one object that `tcfs status --json` prints.
    #[track_caller]
    pub fn status(&self) -> Value {
        let mut all = self.cli(&["status", "--json"]).ok().json();
        assert!(all.len() == 1, "status --json printed {} objects", all.len());
        all.remove(0)
    }

    /// This machine's device id.
    #[track_caller]
    pub fn device_id(&self) -> String {
        let s = self.status();
        s["device"]["id"].as_str().unwrap_or_else(|| panic!("no device.id in {s}")).to_owned()
    }

    /// Versions not yet in the store's log, as status counts them; 0 natively.
    #[track_caller]
    pub fn pending(&self) -> u64 {
        if native() {
            return 0;
        }
        let s = self.status();
        s["pending"].as_u64().unwrap_or_else(|| panic!("no pending in {s}"))
    }

    /// Process id of the daemon.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        if native() {
            return std::process::id() as i32;
        }
        self.pid.lock().unwrap().expect("the drive is mounted")
    }

    /// Everything written so far is in the store's log when this returns.
    #[track_caller]
    pub fn wait(&self) {
        if !native() {
            self.cli_long(&["wait"]).ok();
        }
    }

    /// Runs `tcfs mount` without judging the outcome.
    #[track_caller]
    pub fn try_mount(&self) -> Done {
        let dir = self.mnt.display().to_string();
        run(self.tcfs(&["mount", &dir]).args(&self.mount_args), SOON)
    }

    /// Mounts, and notes whose daemon it is. Returns how long `tcfs mount` took.
    #[track_caller]
    pub fn mount(&self) -> Duration {
        if native() {
            return Duration::ZERO;
        }
        let done = self.try_mount();
        assert!(done.code == 0, "tcfs mount exited with {}\n{}\n--- log\n{}", done.code, done.text(), self.log_tail());
        assert!(sys::is_mounted(&self.mnt), "tcfs mount returned, but {} is no mount point\n{}", self.mnt.display(), done.text());
        let s = self.status();
        let pid = s["pid"].as_i64().unwrap_or_else(|| panic!("no pid in {s}"));
        *self.pid.lock().unwrap() = Some(pid as i32);
        done.took
    }

    /// Unmounts and waits until the daemon is gone.
    #[track_caller]
    pub fn unmount(&self) {
        if native() {
            return;
        }
        self.cli_long(&["unmount", &self.mnt.display().to_string()]).ok();
        assert!(!sys::is_mounted(&self.mnt), "tcfs unmount returned, but the mount is still there");
        self.stop();
    }

    /// Unmounts and mounts again.
    #[track_caller]
    pub fn remount(&self) {
        self.unmount();
        self.mount();
    }

    /// Ends a daemon that outlived its mounts, gently.
    fn stop(&self) {
        let Some(pid) = self.pid.lock().unwrap().take() else { return };
        if sys::alive(pid) {
            self.cli(&["daemon", "stop"]);
        }
        until("the daemon ends", SOON, || (!sys::alive(pid)).then_some(()));
    }

    /// Ends the daemon with SIGKILL, as a crash does, and leaves the dead mount as it is.
    #[track_caller]
    pub fn kill(&self) {
        if native() {
            return;
        }
        let pid = self.pid.lock().unwrap().take().expect("the drive is mounted");
        // SAFETY: the id came from this machine's own daemon.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        until("the killed daemon is gone", SOON, || (!sys::alive(pid)).then_some(()));
    }

    /// Sets or ends a fault of the store (`store::fault` says which there are); the daemon reads the file again when it changes.
    pub fn fault(&self, what: Option<Value>) {
        let new = self.fault.with_extension("new");
        std::fs::write(&new, what.map_or_else(String::new, |w| w.to_string())).unwrap();
        std::fs::rename(&new, &self.fault).unwrap();
    }

    /// The daemon's whole log.
    pub fn log(&self) -> String {
        let mut text = String::new();
        let mut files: Vec<PathBuf> = walk_files(&self.state).into_iter().filter(|p| is_log(p)).collect();
        files.sort();
        for f in files {
            text += &String::from_utf8_lossy(&std::fs::read(f).unwrap_or_default());
        }
        text
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if native() {
            return;
        }
        if std::thread::panicking() {
            println!("--- end of the log of {}\n{}", self.name, self.log_tail());
        }
        let pid = self.pid.lock().unwrap_or_else(|e| e.into_inner()).take();
        let dir = self.mnt.display().to_string();
        // Panics here would abort the whole test program, so no `cli` with its deadlines' asserts.
        let quietly =
            |args: &[&str]| std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&mut self.tcfs(args), SOON).code)).unwrap_or(-1);
        if sys::is_mounted(&self.mnt) {
            quietly(&["unmount", &dir]);
        }
        // Also after a mount that failed half way, when no id is known.
        if pid.is_none_or(sys::alive) && self.state.exists() {
            quietly(&["daemon", "stop"]);
        }
        if let Some(pid) = pid.filter(|p| sys::alive(*p)) {
            let ended = std::panic::catch_unwind(|| until("the daemon ends", Duration::from_secs(10), || (!sys::alive(pid)).then_some(())));
            if ended.is_err() {
                println!("killing the daemon {pid} of {}, which did not stop when told to", self.name);
                // SAFETY: the id came from this machine's own daemon, which has not been seen ending.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        }
        for _ in 0..3 {
            if sys::is_mounted(&self.mnt) {
                sys::detach(&self.mnt);
            }
        }
    }
}

fn is_log(p: &Path) -> bool {
    p.file_name().is_some_and(|n| n.to_string_lossy().contains("log"))
}

/// All regular files below a directory, in no order; nothing where it does not exist.
pub fn walk_files(dir: &Path) -> Vec<PathBuf> {
    let mut out = vec![];
    let mut todo = vec![dir.to_owned()];
    while let Some(d) = todo.pop() {
        for e in std::fs::read_dir(d).into_iter().flatten().flatten() {
            match e.file_type() {
                Ok(t) if t.is_dir() => todo.push(e.path()),
                Ok(t) if t.is_file() => out.push(e.path()),
                _ => {}
            }
        }
    }
    out
}
