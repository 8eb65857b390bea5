//! A real nats-server on a free loopback port, ended by its pid when dropped.
//!
//! `nats-server` comes from `tests/tools.sh`.
#![allow(dead_code)] // each test program uses another part of this

use crate::server::{Process, program};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// A running server with JetStream.
pub struct NatsServer {
    process: Process,
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
        let mut server = NatsServer { process: Process::new(dir.path().join("log")), dir, port: 0 };
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
        panic!("nats-server does not start; its log:\n{}", server.process.log());
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Kills it as a power cut would; what it stored stays.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Removes everything it stored. It must not be running.
    pub fn wipe(&self) {
        assert!(!self.process.is_running(), "it is running");
        let _ = fs::remove_dir_all(self.dir.path().join("data"));
    }

    /// Starts it again on the same port.
    pub fn restart(&mut self) {
        self.kill();
        let begun = Instant::now();
        while !self.spawn() {
            assert!(begun.elapsed() < Duration::from_secs(30), "nats-server does not come back; its log:\n{}", self.process.log());
        }
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("nats.conf")
    }

    fn spawn(&mut self) -> bool {
        let (config, port) = (self.config(), self.port);
        let answers = |p: &Process| p.log().contains("Server is ready") && TcpStream::connect(("127.0.0.1", port)).is_ok();
        self.process.start(Command::new(program("nats-server")).arg("-c").arg(config), answers)
    }
}

/// Below the range from which the kernel takes ports for outgoing connections.
pub fn free_port() -> u16 {
    let free = |p: &u16| TcpListener::bind(("127.0.0.1", *p)).is_ok();
    (0..200).map(|_| 20_000 + fastrand::u16(..10_000)).find(free).expect("a free port on the loopback interface")
}
