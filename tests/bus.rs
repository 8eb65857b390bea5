//! The event bus between real parts: drives mounted on one SeaweedFS, a real nats-server, and a poll interval so long that
//! whatever arrives in time came over the bus.
#![allow(clippy::unwrap_used)] // a failed call is a failed test

mod common;
#[path = "common/nats.rs"]
mod nats;
#[path = "common/weed.rs"]
#[allow(dead_code)]
mod weed;

use common::{Mounted, World, until};
use nats::NatsServer;
use std::fs;
use std::sync::Arc;
use std::time::Duration;
use weed::Weed;

const SOON: Duration = Duration::from_secs(60);

/// A machine on the S3 store that looks into it once an hour.
fn setup(world: &Arc<World>, name: &str, weed: &Weed, url: &str) -> common::mounted::Setup {
    world
        .device(name)
        .env("TCFS_STORE", "s3://tcfs/default")
        .env("TCFS_S3_ENDPOINT", weed.endpoint())
        .env("TCFS_S3_ALLOW_HTTP", "true")
        .env("TCFS_S3_ACCESS_KEY_ID", weed::ACCESS_KEY)
        .env("TCFS_S3_SECRET_ACCESS_KEY", weed::SECRET_KEY)
        .env("TCFS_POLL_INTERVAL", "1h")
        .env("TCFS_NATS_URL", url)
}

fn connected(m: &Mounted) {
    until("the bus is connected", SOON, || (m.status()["nats"]["state"] == "connected").then_some(()));
}

/// `name` shows `text` on that machine.
fn shows(m: &Mounted, name: &str, text: &str) {
    until("the other machine shows it", SOON, || (fs::read_to_string(m.path(name)).ok().as_deref() == Some(text)).then_some(()));
}

/// What is saved, moved and removed on one machine is so on the other, long before it would look by itself; also after
/// the server was killed and had lost everything.
#[test]
fn changes_arrive_over_the_bus_and_survive_its_loss() {
    drive_only!();
    let weed = Weed::start();
    let mut server = NatsServer::start();
    let w = World::new();
    let a = setup(&w, "ann", &weed, &server.url()).mount();
    let b = setup(&w, "bob", &weed, &server.url()).mount();
    connected(&a);
    connected(&b);
    fs::write(a.path("f"), "one").unwrap();
    shows(&b, "f", "one");
    fs::rename(a.path("f"), a.path("g")).unwrap();
    until("the move arrives", SOON, || (!b.path("f").exists() && b.path("g").exists()).then_some(()));
    fs::write(b.path("g"), "two").unwrap();
    shows(&a, "g", "two");
    fs::remove_file(a.path("g")).unwrap();
    until("the removal arrives", SOON, || (!b.path("g").exists()).then_some(()));
    for i in 0..300 {
        fs::write(a.path(format!("many{i}")), format!("{i}")).unwrap();
    }
    shows(&b, "many299", "299");

    // Without the bus nothing is lost and nothing waits; once it is back, what was missed is caught up with.
    server.kill();
    server.wipe();
    fs::write(a.path("while-away"), "written").unwrap();
    a.wait();
    server.restart();
    shows(&b, "while-away", "written");
    connected(&a);
    connected(&b);
    fs::write(a.path("after"), "again").unwrap();
    shows(&b, "after", "again");
}

/// A password, a token: with the right one it connects, with a wrong one it says so, and the drive works all the same.
#[test]
fn who_may_not_speak_is_told_so_and_the_drive_goes_on() {
    drive_only!();
    let server = NatsServer::with("authorization { user: tcfs, password: right }");
    let w = World::new();
    let a = w.device("ann").env("TCFS_NATS_URL", format!("nats://tcfs:wrong@127.0.0.1:{}", server.port)).mount();
    let s = until("it says why", SOON, || Some(a.status()).filter(|s| s["nats"]["last_error"].is_string()));
    assert_eq!(s["nats"]["state"], "connecting");
    assert!(!s["nats"].to_string().contains("wrong"), "{}", s["nats"]);
    fs::write(a.path("f"), "kept").unwrap();
    a.wait();
    let b = w.device("bob").env("TCFS_NATS_URL", server.url()).env("TCFS_NATS_USER", "tcfs").env("TCFS_NATS_PASSWORD", "right").mount();
    connected(&b);
    shows(&b, "f", "kept");
}
