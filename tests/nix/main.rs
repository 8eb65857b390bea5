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
use common::tools;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The repository.
fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What the expression gives, in which `t` is what `eval.nix` offers and `json` the value `given`.
fn evaluate(expression: &str, given: &Value) -> Value {
    let eval = top().join("tests/nix/eval.nix");
    let text = serde_json::to_string(&given.to_string()).unwrap().replace("${", "\\${");
    let whole = format!("let t = import {} {{ }}; json = builtins.fromJSON {text}; in {expression}", eval.display());
    let mut command = Command::new(tools::find("nix-instantiate"));
    command.args(["--eval", "--strict", "--json", "--store", "dummy://", "-E", &whole]);
    serde_json::from_str(&run(&mut command, Duration::from_secs(120)).ok().stdout).unwrap()
}

/// The configuration file as the program understands it: key, value as it shows it, and whether it comes from that file.
fn shown(file: &Path, home: &str) -> Vec<(String, String, bool)> {
    let done = show(file, home).ok();
    let text = |v: &Value, k: &str| v[k].as_str().unwrap().to_owned();
    let from = |v: &Value| text(v, "source").starts_with(file.to_str().unwrap());
    done.json().iter().map(|v| (text(v, "key"), text(v, "value"), from(v))).collect()
}

fn show(file: &Path, home: &str) -> Done {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcfs"));
    command.args(["--json", "--config", file.to_str().unwrap(), "config", "show"]).env_clear().env("HOME", home);
    run(&mut command, Duration::from_secs(60))
}
