//! A real nats-server on a free loopback port, ended by its pid when dropped.
//!
//! `nats-server` comes from `tests/tools.sh`. A test that needs it and does not find it fails and says how to install it.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// `nats-server` in `TCFS_TOOLS`, or in `tools` of the target directory.
fn program() -> PathBuf {
    let tools = match std::env::var_os("TCFS_TOOLS") {
        Some(dir) => dir.into(),
        // CARGO_TARGET_TMPDIR is <target>/tmp whatever the target directory is.
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tools"),
    };
    let path = tools.join("bin/nats-server");
    assert!(path.exists(), "{} is missing; install it with: tests/tools.sh servers", path.display());
    path
}

/// A running server with JetStream.
pub struct NatsServer {
    child: Option<Child>,
    dir: tempfile::TempDir,
    pub port: u16,
}

impl NatsServer {
    /// Starts a fresh one without authentication.
    pub fn start() -> NatsServer {
        NatsServer::with("")
    }

    /// Starts a fresh one with `more` in its configuration.
    pub fn with(more: &str) -> NatsServer {
        NatsServer::configured("", more)
    }

    /// Starts one of a JetStream domain.
    pub fn in_domain(domain: &str, more: &str) -> NatsServer {
        NatsServer::configured(&format!(", domain: {domain}"), &format!("server_name: {domain}\n{more}"))
    }

    fn configured(jetstream: &str, more: &str) -> NatsServer {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let mut server = NatsServer { child: None, dir, port: 0 };
        for _ in 0..5 {
            server.port = free_port();
            let config = format!(
                "listen: 127.0.0.1:{}\njetstream {{ store_dir: {:?}, sync_interval: always{jetstream} }}\n{more}\n",
                server.port,
                server.dir.path().join("data")
            );
            fs::write(server.config(), config).expect("writing the configuration");
            if server.spawn() {
                return server;
            }
        }
        panic!("nats-server does not start; its log:\n{}", server.log());
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Kills it as a power cut would; what it stored stays.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Removes everything it stored. It must not be running.
    pub fn wipe(&self) {
        assert!(self.child.is_none(), "it is running");
        let _ = fs::remove_dir_all(self.dir.path().join("data"));
    }

    /// Starts it again on the same port.
    pub fn restart(&mut self) {
        self.kill();
        let begun = Instant::now();
        while !self.spawn() {
            assert!(begun.elapsed() < Duration::from_secs(30), "nats-server does not come back; its log:\n{}", self.log());
        }
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("nats.conf")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn spawn(&mut self) -> bool {
        let log = File::create(self.dir.path().join("log")).expect("a log file");
        let child = Command::new(program())
            .arg("-c")
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .expect("starting nats-server");
        self.child = Some(child);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(60) {
            if let Some(child) = &mut self.child
                && child.try_wait().ok().flatten().is_some()
            {
                self.child = None;
                return false;
            }
            if self.log().contains("Server is ready") && TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill();
        false
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Below the range from which the kernel takes ports for outgoing connections.
pub fn free_port() -> u16 {
    let free = |p: &u16| TcpListener::bind(("127.0.0.1", *p)).is_ok();
    (0..200).map(|_| 20_000 + fastrand::u16(..10_000)).find(free).expect("a free port on the loopback interface")
}
