//! The Nix modules, evaluated by a real Nix: every option with its values, what they make of the configuration file read back by
//! the program, units and agents checked by what reads them, and the flake as a whole. `lib` is a stand-in (`minilib.nix`);
//! what the modules make of units is run in `tests/lab`.
#![allow(clippy::unwrap_used)] // a failed call is a failed test

#[path = "../common/mod.rs"]
mod common;

mod flake;
mod modules;
mod values;

use common::cli::{Done, run};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The configuration file as the program understands it: key, value as it shows it, and whether it comes from that file.
fn shown(file: &Path, home: &str) -> Vec<(String, String, bool)> {
    let done = show(file, home).ok();
    let text = |v: &Value, k: &str| v[k].as_str().unwrap().to_owned();
    let from = |v: &Value| text(v, "source").starts_with(file.to_str().unwrap());
    done.json().iter().map(|v| (text(v, "key"), text(v, "value"), from(v))).collect()
}

fn show(file: &Path, home: &str) -> Done {
    let mut command = Command::new(common::program());
    command.args(["--json", "--config", file.to_str().unwrap(), "config", "show"]).env_clear().env("HOME", home);
    run(&mut command, Duration::from_secs(60))
}
