//! The fleet on a SeaweedFS of many processes: three masters, three volume servers, two filers, two gateways, of which
//! some are killed and return while everybody works.

use super::server::{Process, program};
use super::*;
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

/// What a process of the cluster is.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Master,
    Volume,
    Filer,
    Gateway,
}

struct Cluster {
    parts: Vec<(Part, u16, Process)>,
    dir: tempfile::TempDir,
}

/// Ports that are free, as are those 10,000 above them (gRPC); below the range of outgoing connections.
fn free_ports(n: usize) -> Vec<u16> {
    let free = |p: &u16| TcpListener::bind(("127.0.0.1", *p)).is_ok() && TcpListener::bind(("127.0.0.1", p + 10_000)).is_ok();
    let mut all: Vec<u16> = (0..400).map(|_| 11_000 + fastrand::u16(..9_000)).filter(free).collect();
    all.sort_unstable();
    all.dedup();
    assert!(all.len() >= n, "no free ports on the loopback interface");
    all.truncate(n);
    all
}

impl Cluster {
    fn start() -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let identities = format!(
            r#"{{"identities":[{{"name":"tcfs","credentials":[{{"accessKey":"{}","secretKey":"{}"}}],"actions":["Admin","Read","List","Tagging","Write"]}}]}}"#,
            weed::ACCESS_KEY,
            weed::SECRET_KEY
        );
        fs::write(dir.path().join("s3.json"), identities).unwrap();
        let kinds = [(Part::Master, 3), (Part::Volume, 3), (Part::Filer, 2), (Part::Gateway, 2)];
        let ports = free_ports(10);
        let kinds = kinds.iter().flat_map(|(k, n)| std::iter::repeat_n(*k, *n));
        let parts = kinds.zip(ports).map(|(k, p)| (k, p, Process::new(dir.path().join(format!("log-{p}"))))).collect();
        let mut cluster = Cluster { parts, dir };
        // A master answers when there is a majority of them: all are started, then all are waited for.
        for at in 0..10 {
            cluster.spawn(at);
        }
        cluster.answers();
        cluster
    }

    fn of(&self, part: Part) -> Vec<u16> {
        self.parts.iter().filter(|p| p.0 == part).map(|p| p.1).collect()
    }

    fn list(&self, part: Part) -> String {
        self.of(part).iter().map(|p| format!("127.0.0.1:{p}")).collect::<Vec<_>>().join(",")
    }

    fn home(&self, port: u16) -> PathBuf {
        let home = self.dir.path().join(port.to_string());
        fs::create_dir_all(&home).unwrap();
        home
    }

    fn spawn(&mut self, at: usize) {
        let (part, port, _) = self.parts[at];
        let home = self.home(port);
        let mut c = Command::new(program("weed"));
        c.current_dir(&home).arg("-logtostderr=true");
        let local = |c: &mut Command| {
            c.args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1"]).arg(format!("-port={port}"));
        };
        match part {
            Part::Master => {
                local(c.arg("master"));
                c.arg(format!("-mdir={}", home.display())).arg(format!("-peers={}", self.list(Part::Master)));
                c.args(["-defaultReplication=001", "-volumeSizeLimitMB=64", "-telemetry=false"]);
                c.args(["-electionTimeout=1s", "-heartbeatInterval=100ms"]);
            }
            Part::Volume => {
                local(c.arg("volume"));
                c.arg(format!("-dir={}", home.display())).arg(format!("-mserver={}", self.list(Part::Master)));
                c.args(["-max=0", "-preStopSeconds=1"]);
            }
            Part::Filer => {
                local(c.arg("filer"));
                c.arg(format!("-master={}", self.list(Part::Master))).arg("-defaultReplicaPlacement=001");
                c.arg(format!("-defaultStoreDir={}", home.display()));
            }
            Part::Gateway => {
                c.arg("s3").args(["-ip.bind=127.0.0.1", "-port.iceberg=0", "-port.lance=0"]).arg(format!("-port={port}"));
                c.arg(format!("-filer={}", self.list(Part::Filer)));
                c.arg(format!("-config={}", self.dir.path().join("s3.json").display()));
            }
        }
        // It may end by itself while what it needs is not there yet; `answers` starts it again.
        let connects = |_: &Process| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        self.parts[at].2.start(&mut c, connects);
    }

    /// Waits until objects can be written through both gateways.
    fn answers(&mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let gateways = self.of(Part::Gateway);
        let begun = std::time::Instant::now();
        for port in gateways {
            let options = tcfs::store::s3::S3Options {
                endpoint: Some(format!("http://127.0.0.1:{port}")),
                access_key_id: Some(weed::ACCESS_KEY.into()),
                secret_access_key: Some(weed::SECRET_KEY.into()),
                ..Default::default()
            };
            loop {
                let wrote = runtime.block_on(async {
                    let s = tcfs::store::s3::S3Store::new("probe", &options)?;
                    tcfs::store::Store::put(&s, &format!("probe/{port}"), "x".into(), tcfs::store::PutMode::Overwrite).await
                });
                match wrote {
                    Ok(_) => break,
                    Err(e) => assert!(begun.elapsed() < SOON, "the cluster does not come up: {e:?}\n{}", self.parts[9].2.log()),
                }
                for at in 0..self.parts.len() {
                    if !self.parts[at].2.is_alive() {
                        self.spawn(at);
                    }
                }
            }
        }
    }

    fn kill(&mut self, part: Part, nth: usize) -> usize {
        let at = (0..self.parts.len()).filter(|at| self.parts[*at].0 == part).nth(nth).unwrap();
        self.parts[at].2.kill();
        at
    }
}

/// Gateways, a filer and a volume server are killed and return: no version that was told to be in the store is lost, and
/// in the end all show the same.
#[test]
fn a_cluster_loses_parts_and_nothing_else() {
    drive_only!();
    let mut cluster = Cluster::start();
    let nats = NatsServer::start();
    let world = World::new();
    let gateways = cluster.of(Part::Gateway);
    let machines: Vec<Mounted> = NAMES
        .iter()
        .enumerate()
        .map(|(i, name)| {
            world
                .device(name)
                .s3("s3://tcfs/default", &format!("http://127.0.0.1:{}", gateways[i % 2]), (weed::ACCESS_KEY, weed::SECRET_KEY))
                .env("TCFS_POLL_INTERVAL", "5s")
                .env("TCFS_NATS_URL", nats.url())
                .mount()
        })
        .collect();
    let all: Vec<&Mounted> = machines.iter().collect();
    let rounds = common::count(4, 16);
    let mut told: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let work = |round: usize, told: &mut BTreeMap<String, Vec<u8>>| {
        for (i, m) in all.iter().enumerate() {
            for n in 0..12 {
                let name = format!("{}-{round}-{n}", NAMES[i]);
                let body = noise((round * 1000 + i * 100 + n) as u64, 1 << (6 + n));
                fs::write(m.path(&name), &body).unwrap();
                told.insert(name, body);
                // One that others wrote before is edited by each in turn.
                let shared = format!("shared-{}", n % 3);
                if n % 4 == 3 && round % 3 == i {
                    let body = format!("{shared} by {} in round {round}, {n}", NAMES[i]).into_bytes();
                    fs::write(m.path(&shared), &body).unwrap();
                }
            }
        }
    };
    for round in 0..rounds {
        let down = match round % 4 {
            0 => cluster.kill(Part::Gateway, 0),
            1 => cluster.kill(Part::Volume, round % 3),
            2 => cluster.kill(Part::Filer, 1),
            _ => cluster.kill(Part::Gateway, 1),
        };
        work(round, &mut told);
        std::thread::sleep(Duration::from_secs(1));
        cluster.spawn(down);
        cluster.answers();
        work(round + 100, &mut told);
    }
    for m in &all {
        m.wait();
    }
    let tree = converged(&all, Duration::from_secs(300));
    for (name, body) in &told {
        assert!(tree.get(name) == Some(body), "{name} is lost or differs");
    }
    // A machine that has nothing finds all of it in the store.
    let new = world
        .device("fresh")
        .s3("s3://tcfs/default", &format!("http://127.0.0.1:{}", gateways[1]), (weed::ACCESS_KEY, weed::SECRET_KEY))
        .mount();
    assert!(converged(&[all[0], &new], Duration::from_secs(300)) == tree);
}
