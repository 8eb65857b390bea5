//! The NFS server beside others: one client, the same calls, servers in turns.
//!
//! The others are a plain server over a directory (`cargo-nfs3-server`, made of the crate `nfs3_server`) and `rclone serve
//! nfs`, each where it is installed: it is named what is not.

use crate::common::{World, cli, native, tools, until};
use crate::served::{Client, Served};
use crate::table::{Unit, median};
use crate::work::{HOUR, Plan, random_file};
use nfs3_types::nfs3::{nfs_fh3, stable_how};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Small files in the directory that is looked at.
const FILES: usize = 1000;
/// Bytes of a small file.
const SMALL: usize = 4096;

/// A server and a client of it.
struct Peer {
    name: &'static str,
    client: Client,
    child: Option<Child>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(c) = &mut self.child {
            let _ = c.kill();
            let _ = c.wait();
        }
    }
}

/// Another server over `dir`; none where its program is missing.
fn other(name: &'static str, program: &str, args: &dyn Fn(&Path, u16) -> Vec<String>, dir: &Path) -> Option<Peer> {
    let Some(program) = tools::look(program) else {
        eprintln!("{name} is not measured: {program} is not installed");
        return None;
    };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let child = Command::new(program).args(args(dir, port)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = child.unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
    until(&format!("{name} listens"), Duration::from_secs(30), || TcpStream::connect(("127.0.0.1", port)).ok());
    Some(Peer { name, client: Client::of(port, "/"), child: Some(child) })
}

fn words(all: &[&str]) -> Vec<String> {
    all.iter().map(|w| (*w).to_owned()).collect()
}

/// One measurement.
struct Measure {
    name: &'static str,
    unit: Unit,
    run: fn(&mut Client, &Plan, usize) -> f64,
}

const MEASURES: [Measure; 6] = [
    Measure { name: "stat (LOOKUP, GETATTR)", unit: Unit::PerSecond, run: stat },
    Measure { name: "open + read + close, 4 KiB (LOOKUP, ACCESS, READ)", unit: Unit::PerSecond, run: open_read_close },
    Measure { name: "create + write, 4 KiB (CREATE, WRITE)", unit: Unit::PerSecond, run: create_write },
    Measure { name: "the same with what a close sends (COMMIT)", unit: Unit::PerSecond, run: create_write_commit },
    Measure { name: "create + write of `._*`, which stays here", unit: Unit::PerSecond, run: create_write_local },
    Measure { name: "sequential READ of 1 MiB", unit: Unit::MegabytesPerSecond, run: read_sequential },
];

/// Measures, and prints a table.
pub fn run(plan: &Plan) {
    assert!(!native(), "the NFS server is measured, not a directory");
    let w = World::new();
    let source = w.dir().join("source");
    std::fs::create_dir_all(source.join("small")).unwrap();
    for i in 0..FILES {
        std::fs::write(source.join(format!("small/{i:04}")), vec![i as u8; SMALL]).unwrap();
    }
    random_file(&source.join("big"), plan.big);
    let copy = |to: &Path| drop(cli::run(Command::new("cp").args(["-a", "--reflink=never"]).arg(&source).arg(to), HOUR).ok());
    let drive = w.mount("ann");
    cli::run(Command::new("cp").arg("-a").arg(source.join(".")).arg(drive.root()), HOUR).ok();
    drive.wait();
    let served = Served::of(drive);
    let mut peers = vec![Peer { name: "tcfs", client: served.client(), child: None }];
    copy(&w.dir().join("demo"));
    copy(&w.dir().join("rclone"));
    let demo =
        |d: &Path, p: u16| words(&["--path", d.to_str().unwrap(), "--bind-ip", "127.0.0.1", "--bind-port", &p.to_string(), "--quiet"]);
    peers.extend(other("nfs3_server", "cargo-nfs3-server", &demo, &w.dir().join("demo")));
    let rclone = |d: &Path, p: u16| {
        let addr = format!("127.0.0.1:{p}");
        let cache = w.dir().join("rclone.cache");
        let args = ["serve", "nfs", d.to_str().unwrap(), "--addr", &addr, "--vfs-cache-mode", "full", "--config", "/dev/null"];
        [words(&args), words(&["--cache-dir", cache.to_str().unwrap()])].concat()
    };
    peers.extend(other("rclone serve nfs", "rclone-nfs", &rclone, &w.dir().join("rclone")));

    let head: Vec<&str> = peers.iter().map(|p| p.name).collect();
    println!("| by NFS | {} | × {} |", head.join(" | "), head[1..].join(" | × "));
    println!("|{}", "---|".repeat(2 * head.len()));
    for m in &MEASURES {
        let mut figures = vec![vec![]; peers.len()];
        for round in 0..=plan.rounds {
            eprintln!("measuring: {}, round {round} of {}", m.name, plan.rounds);
            for (peer, list) in peers.iter_mut().zip(&mut figures) {
                // What goes on in the background is not counted in anybody's turn.
                served.m.wait();
                std::thread::sleep(Duration::from_secs(1));
                // SAFETY: no arguments.
                unsafe { libc::sync() };
                let figure = (m.run)(&mut peer.client, plan, round);
                // Round 0 warms up and is not counted.
                if round > 0 {
                    list.push(figure);
                }
            }
        }
        let all: Vec<f64> = figures.iter().map(|f| median(f)).collect();
        let shown = all.iter().map(|f| format!("{f:.0} {}", m.unit.name())).collect::<Vec<_>>().join(" | ");
        let ratios = all[1..].iter().map(|f| format!("{:.2}", all[0] / f)).collect::<Vec<_>>().join(" | ");
        println!("| {} | {shown} | {ratios} |", m.name);
    }
}

fn small(c: &mut Client) -> nfs_fh3 {
    let root = c.root();
    c.lookup(&root, "small").unwrap()
}

fn per_second(n: usize, began: Instant) -> f64 {
    n as f64 / began.elapsed().as_secs_f64()
}

fn stat(c: &mut Client, _: &Plan, _: usize) -> f64 {
    let dir = small(c);
    let began = Instant::now();
    for i in 0..FILES {
        let f = c.lookup(&dir, &format!("{i:04}")).unwrap();
        assert_eq!(c.attr(&f).unwrap().size, SMALL as u64);
    }
    per_second(FILES, began)
}

fn open_read_close(c: &mut Client, _: &Plan, _: usize) -> f64 {
    let dir = small(c);
    let began = Instant::now();
    for i in 0..FILES {
        let f = c.lookup(&dir, &format!("{i:04}")).unwrap();
        c.access(&f, 0x3f).unwrap();
        assert_eq!(c.read(&f, 0, SMALL as u32).unwrap().0, vec![i as u8; SMALL]);
    }
    per_second(FILES, began)
}

fn create(c: &mut Client, round: usize, prefix: &str, commit: bool) -> f64 {
    let root = c.root();
    let dir = c.mkdir(&root, &format!("made-{commit}{prefix}-{round}"), 0o755).unwrap();
    let began = Instant::now();
    for i in 0..FILES / 2 {
        let f = c.create(&dir, &format!("{prefix}{i:04}"), 0o644).unwrap();
        c.write(&f, 0, &[7; SMALL], stable_how::UNSTABLE).unwrap();
        if commit {
            c.commit(&f).unwrap();
        }
    }
    per_second(FILES / 2, began)
}

fn create_write(c: &mut Client, _: &Plan, round: usize) -> f64 {
    create(c, round, "", false)
}

fn create_write_local(c: &mut Client, _: &Plan, round: usize) -> f64 {
    create(c, round, "._", false)
}

fn create_write_commit(c: &mut Client, _: &Plan, round: usize) -> f64 {
    create(c, round, "", true)
}

fn read_sequential(c: &mut Client, plan: &Plan, _: usize) -> f64 {
    let root = c.root();
    let f = c.lookup(&root, "big").unwrap();
    let (mut at, began) = (0, Instant::now());
    loop {
        let (bytes, eof) = c.read(&f, at, 1 << 20).unwrap();
        at += bytes.len() as u64;
        if eof {
            break;
        }
    }
    assert_eq!(at, plan.big);
    at as f64 / 1e6 / began.elapsed().as_secs_f64()
}
