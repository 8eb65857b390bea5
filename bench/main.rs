//! What the README's table of speeds is made from: one command measures the drive, the local disk, bindfs and rclone.
//!
//! Must: the systems take turns within each round, so that a noisy neighbour hits all of them; figures are medians; ratios
//! come first, for absolute figures differ between machines and hours.
//! Must: nothing is left behind, also when it is interrupted by an error.
#![allow(clippy::unwrap_used)] // a measurement that cannot be made ends the run

#[path = "../tests/common/mod.rs"]
mod common;
mod entries;
mod git;
mod nfs;
mod peers;
#[path = "../tests/nfs/served.rs"]
#[allow(dead_code)] // the tests ask more of it
mod served;
mod table;
mod work;

use common::{World, cli, sys};
use peers::Peer;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use table::{Goal, Row, Unit};
use work::{HOUR, Plan};

/// A row that has its own way of measuring.
type Alone = fn(&Plan, &str) -> Row;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let mut only = None;
    let (mut quick, mut json, mut by_nfs, mut by_git, mut many) = (false, false, false, false, false);
    let mut rest = args.iter();
    while let Some(a) = rest.next() {
        match a.as_str() {
            "--quick" => quick = true,
            "--json" => json = true,
            "--nfs" => by_nfs = true,
            "--git" => by_git = true,
            "--entries" => many = true,
            "--only" => only = rest.next().cloned(),
            other => {
                eprintln!("bench: {other} is not an option; there are --quick, --json, --nfs, --git, --entries and --only NAME");
                std::process::exit(2);
            }
        }
    }
    let plan = Plan::new(quick);
    if by_nfs {
        return nfs::run(&plan);
    }
    if by_git {
        return git::run(&plan);
    }
    if many {
        return entries::run(&plan);
    }
    let wanted = |name: &str| only.as_ref().is_none_or(|o| name.contains(o.as_str()));
    let mut rows = beside_peers(&plan, &wanted);
    let alone: [(&str, Alone); 4] = [
        ("cold hydration", hydration),
        ("publishing, incompressible", publishing),
        ("publishing, text", publishing),
        ("close to readable elsewhere", latency),
    ];
    for (name, measure) in alone {
        // These need the drive's own commands.
        if wanted(name) && !common::native() {
            eprintln!("measuring: {name}");
            let row = measure(&plan, name);
            eprintln!("{}", row.line());
            rows.push(row);
        }
    }
    if json { table::print_json(&rows) } else { table::print_markdown(&rows, &plan) }
}

/// One measurement: its row, what to do before each turn, and the loop itself.
struct Measure {
    name: &'static str,
    unit: Unit,
    goals: &'static [Goal],
    /// Kernel caches are dropped before each turn.
    cold: bool,
    /// The large file is written anew before each turn: where it comes to lie on the disk makes up to three times the speed.
    anew: bool,
    /// It leaves files that a peer may go on with afterwards.
    writes: bool,
    /// Of the drive, the mount without passthrough is measured.
    daemon: bool,
    run: fn(&Path, &Plan) -> f64,
}

/// 40 % of what a FUSE file system reaches that serves small files from its memory: 44,000 opens a second on a machine
/// on which the disk below makes 280,000.
const PROTOTYPE: f64 = 0.4 * 44.0 / 280.0;

const MEASURES: &[Measure] = &[
    Measure {
        name: "stat sweep, warm",
        unit: Unit::PerSecond,
        goals: &[Goal::Native(0.55), Goal::Bindfs(1.0)],
        cold: false,
        anew: false,
        writes: false,
        daemon: false,
        run: work::stat_sweep,
    },
    Measure {
        name: "git status, warm",
        unit: Unit::Milliseconds,
        goals: &[Goal::Native(1.5)],
        cold: false,
        anew: false,
        writes: false,
        daemon: false,
        run: work::git_status,
    },
    Measure {
        name: "git status, caches dropped",
        unit: Unit::Milliseconds,
        goals: &[Goal::Native(7.0)],
        cold: true,
        anew: false,
        writes: false,
        daemon: false,
        run: work::git_status,
    },
    Measure {
        name: "open + read + close, small, warm",
        unit: Unit::PerSecond,
        goals: &[Goal::Native(PROTOTYPE), Goal::Rclone(5.0)],
        cold: false,
        anew: false,
        writes: false,
        daemon: false,
        run: work::open_read_close,
    },
    Measure {
        name: "sequential read, caches dropped",
        unit: Unit::MegabytesPerSecond,
        goals: &[Goal::Native(0.8)],
        cold: true,
        anew: true,
        writes: true,
        daemon: false,
        run: work::read_sequential,
    },
    Measure {
        name: "the same without passthrough",
        unit: Unit::MegabytesPerSecond,
        goals: &[Goal::Rclone(2.0)],
        cold: true,
        anew: true,
        writes: true,
        daemon: true,
        run: work::read_sequential,
    },
    Measure {
        name: "random 4 KiB read, caches dropped",
        unit: Unit::PerSecond,
        goals: &[Goal::Native(0.7)],
        cold: true,
        anew: false,
        writes: false,
        daemon: false,
        run: work::read_random,
    },
    Measure {
        name: "create + write + close, small",
        unit: Unit::PerSecond,
        goals: &[Goal::Rclone(3.0), Goal::Bindfs(0.7)],
        cold: false,
        anew: false,
        writes: true,
        daemon: false,
        run: work::create_small,
    },
    Measure {
        name: "sequential write, new file",
        unit: Unit::MegabytesPerSecond,
        goals: &[Goal::Native(0.8)],
        cold: false,
        anew: false,
        writes: true,
        daemon: false,
        run: work::write_sequential,
    },
];

/// Rows in which every system does the same, in turns.
fn beside_peers(plan: &Plan, wanted: &dyn Fn(&str) -> bool) -> Vec<Row> {
    if !MEASURES.iter().any(|m| wanted(m.name)) {
        return vec![];
    }
    let w = World::new();
    eprintln!("preparing {} files and {} MB in {}", plan.files, plan.big / 1_000_000, w.dir().display());
    let source = w.dir().join("source");
    work::prepare(&source, plan);
    let peers = Peer::all(&w, &source);
    let mut rows = vec![];
    for m in MEASURES.iter().filter(|m| wanted(m.name)) {
        let mut figures = vec![vec![]; peers.len()];
        // Round 0 warms up and is not counted.
        for round in 0..=plan.rounds {
            eprintln!("measuring: {}, round {round} of {}", m.name, plan.rounds);
            for (peer, list) in peers.iter().zip(&mut figures) {
                if matches!((peer, m.daemon), (Peer::Tcfs(_), true) | (Peer::Daemon(_), false)) {
                    continue;
                }
                if m.anew {
                    work::write_anew(&source, peer.root());
                }
                peer.settle();
                if m.cold {
                    sys::drop_caches();
                }
                let figure = (m.run)(peer.root(), plan);
                if round > 0 {
                    list.push(figure);
                }
                if m.writes {
                    peer.rest();
                }
            }
        }
        let figure = |name: &str| {
            let i = peers.iter().position(|p| p.name() == name)?;
            (!figures[i].is_empty()).then(|| table::median(&figures[i]))
        };
        for (peer, list) in peers.iter().zip(&figures) {
            eprintln!("  {}: {}", peer.name(), list.iter().map(|f| format!("{f:.1}")).collect::<Vec<_>>().join(" "));
        }
        let row = Row {
            name: m.name.into(),
            unit: m.unit,
            goals: m.goals.to_vec(),
            tcfs: figure(if m.daemon { "tcfs without passthrough" } else { "tcfs" }).expect("the drive is always measured"),
            native: figure("native"),
            bindfs: figure("bindfs"),
            rclone: figure("rclone"),
        };
        eprintln!("{}", row.line());
        rows.push(row);
    }
    rows
}

/// Bytes of a file of which another machine has nothing, fetched with one command, beside a copy by `cp`.
fn hydration(plan: &Plan, name: &str) -> Row {
    let w = World::new();
    let a = w.mount("ann");
    let source = w.dir().join("big");
    work::random_file(&source, plan.big);
    cli::run(Command::new("cp").arg(&source).arg(a.path("big")), HOUR).ok();
    a.wait();
    let b = w.mount("bob");
    let big = b.path("big").display().to_string();
    let (mut ours, mut copies) = (vec![], vec![]);
    for _ in 0..plan.rounds {
        sys::drop_caches();
        let took = b.cli_long(&["hydrate", &big]).ok().took;
        ours.push(plan.big as f64 / 1e6 / took.as_secs_f64());
        b.cli_long(&["unsync", &big]).ok();
        sys::drop_caches();
        let copy = w.dir().join("copy");
        let took = cli::run(Command::new("cp").arg("--reflink=never").arg(&source).arg(&copy), HOUR).ok().took;
        copies.push(plan.big as f64 / 1e6 / took.as_secs_f64());
        fs::remove_file(copy).unwrap();
    }
    let mut row = Row::alone(name, Unit::MegabytesPerSecond, Goal::Native(0.5), table::median(&ours));
    row.native = Some(table::median(&copies));
    row
}

/// From the close of one large file until its version is in the log, per second of the daemon's processor time: reading,
/// cutting, hashing, compressing, storing, logging, on one core. In memory where that can be had: it is the core that is
/// measured, not the disk, nor who else wants that core.
fn publishing(plan: &Plan, name: &str) -> Row {
    let text = name.ends_with("text");
    let memory = Path::new("/dev/shm");
    let w = if memory.is_dir() { World::below(memory) } else { World::new() };
    let a = w.device("ann").one_core().mount();
    let mut rates = vec![];
    for round in 0..plan.rounds {
        // New content in every round: what the store has already is not stored again.
        let path = a.path(format!("file{round}"));
        let file = if text { work::text_file(&path, plan.big / 4, round as u64) } else { work::random_file(&path, plan.big / 2) };
        let size = file.metadata().unwrap().len();
        let before = common::sys::processor_time(a.pid());
        drop(file);
        a.wait();
        rates.push(size as f64 / 1e6 / (common::sys::processor_time(a.pid()) - before).as_secs_f64());
        fs::remove_file(&path).unwrap();
        a.wait();
    }
    Row::alone(name, Unit::MegabytesPerSecond, Goal::AtLeast(if text { 180.0 } else { 500.0 }), table::median(&rates))
}

/// From the return of a close on one mount until another mount gives the new content.
fn latency(plan: &Plan, name: &str) -> Row {
    let w = World::new();
    let (a, b) = (w.mount("ann"), w.mount("bob"));
    let mut times = vec![];
    for i in 0..plan.rounds * 10 {
        let text = format!("text number {i}");
        fs::write(a.path("f"), &text).unwrap();
        let closed = Instant::now();
        while fs::read_to_string(b.path("f")).ok().as_deref() != Some(&text) {
            assert!(closed.elapsed() < Duration::from_secs(30), "the other machine never showed it");
            std::thread::sleep(Duration::from_micros(500));
        }
        times.push(closed.elapsed().as_secs_f64() * 1e3);
    }
    Row::alone(name, Unit::Milliseconds, Goal::AtMost(150.0), table::median(&times))
}
