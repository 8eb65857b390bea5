//! Many files: how they arrive, how a new machine joins, and what a quiet fleet costs.

use super::*;
use std::fs;
use std::process::Command;
use std::time::Instant;

/// Requests to the store so far, all calls together.
fn requests(m: &Mounted) -> u64 {
    let s = m.status();
    let of = s["store_state"]["requests"].as_object().unwrap_or_else(|| panic!("{s}"));
    of.values().map(|c| c["requests"].as_u64().unwrap()).sum()
}

/// Bytes that the stream holds.
#[tokio::main(flavor = "current_thread")]
async fn said(url: &str) -> u64 {
    let client = async_nats::connect(url).await.unwrap();
    let mut stream = async_nats::jetstream::new(client).get_stream("STATE_UPDATES").await.unwrap();
    stream.info().await.unwrap().state.bytes
}

fn find(m: &Mounted) -> usize {
    let out = Command::new("find").arg(m.root()).args(["-type", "f"]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout.iter().filter(|b| **b == b'\n').count()
}

/// What is asked of the store in a while by a machine that has nothing to do.
fn quiet(all: &[&Mounted]) -> f64 {
    let minutes = common::count(1, 3) as f64 / 3.0;
    // What was begun has ended.
    std::thread::sleep(Duration::from_secs(5));
    let before: u64 = all.iter().map(|m| requests(m)).sum();
    std::thread::sleep(Duration::from_secs_f64(60.0 * minutes));
    let after: u64 = all.iter().map(|m| requests(m)).sum();
    (after - before) as f64 / minutes / all.len() as f64
}

#[test]
fn many_files_arrive_and_a_third_machine_joins() {
    drive_only!();
    let lab = Lab::new();
    let n = common::count(3_000, 100_000);
    let yoga = lab.machine("yoga").mount();
    let zoo = lab.machine("petting-zoo-mini").mount();
    is_connected(&yoga);
    is_connected(&zoo);
    let (of_yoga, of_zoo, on_bus) = (requests(&yoga), requests(&zoo), said(&lab.nats.url()));
    let begun = Instant::now();
    for i in 0..n {
        let path = yoga.path(format!("d{:03}/s{}/f{i}", i % 257, i % 7));
        if i < 257 * 7 {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        fs::write(path, format!("file {i}\n")).unwrap();
    }
    let written = begun.elapsed();
    until("all are published", SOON * 30, || (yoga.pending() == 0).then_some(()));
    let published = begun.elapsed();
    until("all have arrived", SOON * 30, || (find(&zoo) == n).then_some(()));
    let arrived = begun.elapsed();
    let per_file = |all: u64| all as f64 / n as f64;
    println!(
        "{n} files: written in {written:.1?}, published in {published:.1?}, all on the other machine after {arrived:.1?}: {:.0} files/s",
        n as f64 / arrived.as_secs_f64()
    );
    println!(
        "store requests per file: {:.3} by the one, {:.3} by the other; on the bus {:.0} bytes per file",
        per_file(requests(&yoga) - of_yoga),
        per_file(requests(&zoo) - of_zoo),
        per_file(said(&lab.nats.url()) - on_bus)
    );
    // Small files travel in a record or a chunk of their own, never in more than a few objects each.
    assert!(per_file(requests(&yoga) - of_yoga) < 5.0 && per_file(requests(&zoo) - of_zoo) < 0.5);

    // A few thousand records are read as quickly from the logs.
    let by_snapshot = n > 20_000;
    if by_snapshot {
        until("a snapshot is written", SOON, || [&yoga, &zoo].iter().any(|m| m.log().contains("wrote a snapshot")).then_some(()));
    }
    let begun = Instant::now();
    let bates = lab.machine("xoxd-bates").mount();
    let mounted = begun.elapsed();
    until("the third machine has all", SOON * 5, || (find(&bates) == n).then_some(()));
    println!("a third machine: mounted in {mounted:.1?}, a complete find after {:.1?}", begun.elapsed());
    assert_eq!(bates.log().contains("starting from a snapshot"), by_snapshot, "{}", bates.log());

    let with = quiet(&[&yoga, &zoo, &bates]);
    println!("a quiet fleet, with the bus and a poll a day: {with:.1} store requests per machine and minute");
    assert!(with < 5.0, "{with}");
}

#[test]
fn a_quiet_fleet_without_a_bus_looks_once_in_a_while() {
    drive_only!();
    let lab = Lab::new();
    let all = NAMES.map(|n| lab.machine(n).env("TCFS_NATS_URL", "").env("TCFS_POLL_INTERVAL", "5s").mount());
    fs::write(all[0].path("f"), "x").unwrap();
    all[0].wait();
    converged(&all.iter().collect::<Vec<_>>(), SOON);
    let without = quiet(&all.iter().collect::<Vec<_>>());
    println!("a quiet fleet without a bus, looking every 5 s: {without:.1} store requests per machine and minute");
    assert!((6.0..120.0).contains(&without), "{without}");
}
