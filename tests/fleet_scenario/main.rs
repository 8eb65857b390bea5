//! The fleet as its people use it: three machines with real mounts, a real SeaweedFS, a real nats-server.
//!
//! `TCFS_SLOW=1` has the full numbers. Figures are printed and belong into the README; what is asserted is the order of
//! things, that they come to their end, and ten times the figure.
#![allow(clippy::unwrap_used)] // a failed call is a failed test

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/nats.rs"]
mod nats;
#[path = "../common/server.rs"]
mod server;
#[path = "../common/weed.rs"]
mod weed;

mod cluster;
mod daily;
mod live;
mod offline;
mod proxy;
mod scale;

use common::cli::Done;
use common::mounted::Setup;
use common::{Mounted, World, until};
use nats::NatsServer;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use weed::Weed;

/// For a busy machine; what takes so long has failed.
const SOON: Duration = Duration::from_secs(120);

/// The machines of the lab, the one that wins a conflict first.
const NAMES: [&str; 3] = ["petting-zoo-mini", "xoxd-bates", "yoga"];

/// What all machines talk to.
struct Lab {
    world: Arc<World>,
    weed: Weed,
    nats: NatsServer,
}

impl Lab {
    fn new() -> Lab {
        Lab { world: World::new(), weed: Weed::start(), nats: NatsServer::start() }
    }

    /// A machine on the store, reached at `endpoint`, that hears of changes over the bus alone.
    fn at(&self, name: &str, endpoint: &str) -> Setup {
        self.world
            .device(name)
            .s3("s3://tcfs/default", endpoint, (weed::ACCESS_KEY, weed::SECRET_KEY))
            .env("TCFS_POLL_INTERVAL", "1d")
            .env("TCFS_NATS_URL", self.nats.url())
    }

    fn machine(&self, name: &str) -> Setup {
        self.at(name, &self.weed.endpoint())
    }

    /// All three, mounted and connected.
    fn three(&self) -> [Mounted; 3] {
        let all = NAMES.map(|n| self.machine(n).mount());
        all.iter().for_each(is_connected);
        all
    }
}

#[track_caller]
fn is_connected(m: &Mounted) {
    until("the bus is connected", SOON, || (m.status()["nats"]["state"] == "connected").then_some(()));
}

fn answer(d: &Done) -> Value {
    d.json().pop().unwrap_or_else(|| panic!("{} printed nothing\n{}", d.line, d.text()))
}

/// Every file below a directory with what it holds, every empty directory with a slash.
fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        let mut empty = true;
        for e in entries.flatten() {
            empty = false;
            let path = e.path();
            if e.file_type().is_ok_and(|t| t.is_dir()) {
                todo.push(path);
            } else {
                let body = std::fs::read(&path).unwrap_or_else(|e| format!("unreadable: {e}").into_bytes());
                out.insert(path.strip_prefix(root).unwrap().to_string_lossy().into_owned(), body);
            }
        }
        if empty && dir != root {
            out.insert(format!("{}/", dir.strip_prefix(root).unwrap().display()), vec![]);
        }
    }
    out
}

/// Waits until all show the same tree with nothing on its way; returns it. Panics with what differs.
#[track_caller]
fn converged(all: &[&Mounted], limit: Duration) -> BTreeMap<String, Vec<u8>> {
    let start = std::time::Instant::now();
    loop {
        let trees: Vec<_> = all.iter().map(|m| tree(m.root())).collect();
        let resting = all.iter().all(|m| m.pending() == 0);
        if resting && trees.iter().all(|t| *t == trees[0]) {
            return trees.into_iter().next().unwrap();
        }
        if start.elapsed() > limit {
            for (m, t) in all.iter().zip(&trees).skip(1) {
                let only = |a: &BTreeMap<String, Vec<u8>>, b: &BTreeMap<String, Vec<u8>>| {
                    a.iter().filter(|(p, body)| b.get(*p) != Some(body)).map(|(p, _)| p.clone()).take(20).collect::<Vec<_>>()
                };
                println!(
                    "{}: only or otherwise there {:?}, only or otherwise at the first {:?}",
                    m.root().display(),
                    only(t, &trees[0]),
                    only(&trees[0], t)
                );
            }
            panic!("not the same within {limit:?}; at rest: {resting}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The value below which a share of them lies.
fn quantile(of: &mut [Duration], share: f64) -> Duration {
    of.sort();
    of[((of.len() - 1) as f64 * share) as usize]
}

/// Bytes that nothing compresses, the same for the same number.
fn noise(seed: u64, n: usize) -> Vec<u8> {
    let mut out = vec![0; n];
    fastrand::Rng::with_seed(seed).fill(&mut out);
    out
}
