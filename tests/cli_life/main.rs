//! What a person meets at the shell on a real machine: what `tcfs mount` says, the daemon's life, each refusal with the
//! sentence that helps, a normal user, a service manager, settings and their effects, a real S3 server that is not as
//! it should be, what an earlier version left.
//!
//! Not here: what commands do to files (`cli_drive`), usage and configuration without a drive (`cli`).
#![allow(clippy::unwrap_used)] // a failed call is a failed test

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/server.rs"]
mod server;
#[path = "../common/weed.rs"]
mod weed;

mod daemon;
mod readme;
mod refusals;
mod s3;
mod service;
mod settings;
mod upgrade;
mod user;

use common::cli::Done;
use common::{Mounted, World};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// A machine that is not mounted.
fn machine() -> (Arc<World>, Mounted) {
    let w = World::new();
    let m = w.device("ann").off();
    (w, m)
}

fn s(p: &Path) -> &str {
    p.to_str().unwrap()
}

/// The last object printed.
#[track_caller]
fn answer(d: &Done) -> Value {
    d.json().pop().unwrap_or_else(|| panic!("{} printed nothing\n{}", d.line, d.text()))
}

/// Panics unless a command failed with `code` and its error has all of `parts`.
#[track_caller]
fn refused(d: &Done, code: i32, parts: &[&str]) {
    assert!(d.code == code, "{} exited with {} instead of {code}\n{}", d.line, d.code, d.text());
    for part in parts {
        assert!(d.stderr.contains(part), "{}: no {part:?} in\n{}", d.line, d.stderr);
    }
}
