//! Every other way in, on real mounts: the control directory by plain programs, the commands that look, the full-screen
//! view, the server for assistants.
#![allow(clippy::unwrap_used)] // a failed call is a failed test

#[path = "../common/mod.rs"]
mod common;

mod commands;
mod mcp;
mod person;
mod schemas;
mod screen;

use common::{Mounted, World, until};
use std::sync::Arc;
use std::time::Duration;

/// What happens soon may take so long here.
const SOON: Duration = Duration::from_secs(60);

/// Two machines that have `plan.md` in conflict: ann shows her own, `from ann`, and bob's as a sibling.
fn in_conflict() -> (Arc<World>, Mounted, Mounted) {
    let w = World::new();
    let (a, b) = (w.mount("ann"), w.mount("bob"));
    conflict(&a, &b, "plan.md");
    (w, a, b)
}

/// Makes one more.
fn conflict(a: &Mounted, b: &Mounted, name: &str) {
    std::fs::write(a.path(name), "base\n").unwrap();
    a.wait();
    until("the file is there", SOON, || std::fs::read(b.path(name)).ok().filter(|t| t == b"base\n"));
    // Both write before either hears of the other.
    b.fault(Some(serde_json::json!({"mode": "down"})));
    std::fs::write(b.path(name), "from bob\n").unwrap();
    std::fs::write(a.path(name), "from ann\n").unwrap();
    a.wait();
    b.fault(None);
    b.wait();
    let sibling = sibling(name);
    until("the conflict is seen on both", SOON, || (a.path(&sibling).exists() || a.path(other(name)).exists()).then_some(()));
    until("the conflict is seen on both", SOON, || (b.path(&sibling).exists() || b.path(other(name)).exists()).then_some(()));
}

/// Bob's version beside ann's.
fn sibling(name: &str) -> String {
    name.replace(".md", ".conflict-bob.md")
}

/// Ann's version beside bob's.
fn other(name: &str) -> String {
    name.replace(".md", ".conflict-ann.md")
}
