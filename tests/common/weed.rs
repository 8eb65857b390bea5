//! A real SeaweedFS on free loopback ports, stopped by its pid when dropped.
//!
//! `weed` comes from `tests/tools.sh`.
#![allow(dead_code)] // each test program uses another part of this

use crate::server::{Process, program};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tcfs::store::s3::S3Options;

pub const ACCESS_KEY: &str = "tcfs-test";
pub const SECRET_KEY: &str = "tcfs-test-secret";

/// A running server.
pub struct Weed {
    process: Process,
    dir: PathBuf,
    base: u16,
    _scratch: tempfile::TempDir,
}

impl Weed {
    /// Starts a fresh server and waits until its S3 gateway answers.
    pub fn start() -> Weed {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let dir = scratch.path().to_owned();
        let identities = format!(
            r#"{{"identities":[{{"name":"tcfs","credentials":[{{"accessKey":"{ACCESS_KEY}","secretKey":"{SECRET_KEY}"}}],"actions":["Admin","Read","List","Tagging","Write"]}}]}}"#
        );
        fs::write(dir.join("s3.json"), identities).expect("writing s3.json");
        fs::create_dir(dir.join("data")).expect("a data directory");
        let mut weed = Weed { process: Process::new(dir.join("log")), dir, base: 0, _scratch: scratch };
        // Ports are looked for, not reserved: another process may be quicker.
        for _ in 0..5 {
            weed.base = free_ports();
            if weed.spawn() {
                return weed;
            }
        }
        panic!("weed does not start; its log:\n{}", weed.process.log());
    }

    /// Kills it as a power cut would; its data stays.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same ports and data.
    pub fn restart(&mut self) {
        self.kill();
        assert!(self.spawn(), "weed does not come back; its log:\n{}", self.process.log());
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    /// Where the S3 gateway listens.
    pub fn port(&self) -> u16 {
        self.base + 3
    }

    /// Where the files behind the buckets can be reached by plain HTTP.
    pub fn filer_port(&self) -> u16 {
        self.base + 2
    }

    /// Options with the right credentials and short time-outs.
    pub fn options(&self) -> S3Options {
        S3Options {
            endpoint: Some(self.endpoint()),
            access_key_id: Some(ACCESS_KEY.into()),
            secret_access_key: Some(SECRET_KEY.into()),
            ..Default::default()
        }
    }

    fn spawn(&mut self) -> bool {
        let p = self.base;
        let arg = |name: &str, value: &dyn std::fmt::Display| format!("-{name}={value}");
        let mut command = Command::new(program("weed"));
        command
            .args(["-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"])
            .arg(arg("dir", &self.dir.join("data").display()))
            .args(["-master.telemetry=false", "-master.electionTimeout=1s", "-master.heartbeatInterval=100ms"])
            .args(["-master.volumeSizeLimitMB=64", "-volume.max=0", "-volume.preStopSeconds=1", "-filer", "-s3"])
            .args([arg("master.port", &p), arg("volume.port", &(p + 1)), arg("filer.port", &(p + 2)), arg("s3.port", &(p + 3))])
            .arg(arg("s3.config", &self.dir.join("s3.json").display()))
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0"]);
        self.process.start(&mut command, |_| answers(p))
    }
}

/// Whether the gateway answers HTTP and the master has a volume server to write to.
fn answers(base: u16) -> bool {
    let status = http_get(base, "/dir/assign");
    status.contains("\"fid\"") && !http_get(base + 3, "/").is_empty()
}

fn http_get(port: u16, path: &str) -> String {
    use std::io::{Read, Write};
    let mut answer = String::new();
    if let Ok(mut c) = TcpStream::connect(("127.0.0.1", port)) {
        let _ = c.set_read_timeout(Some(Duration::from_secs(2)));
        let _ = write!(c, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n");
        let _ = c.read_to_string(&mut answer);
    }
    answer
}

/// Four ports in a row that are free, as are those 10,000 above them (gRPC). Below the range from which the kernel
/// takes ports for outgoing connections.
fn free_ports() -> u16 {
    for _ in 0..200 {
        let base = 11_000 + fastrand::u16(..2_000) * 4;
        let free = |p: u16| TcpListener::bind(("127.0.0.1", p)).is_ok();
        if (base..base + 4).all(|p| free(p) && free(p + 10_000)) {
            return base;
        }
    }
    panic!("no free ports on the loopback interface");
}
