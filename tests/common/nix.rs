//! Nix expressions over `tests/nix/eval.nix`, evaluated by a real Nix without a store.
#![allow(dead_code)] // each test program uses another part of this

use super::cli::run;
use super::tools;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The repository.
pub fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What the expression gives, in which `t` is what `eval.nix` offers, `top` the repository and `json` the value `given`.
pub fn evaluate(expression: &str, given: &Value) -> Value {
    let text = serde_json::to_string(&given.to_string()).unwrap().replace("${", "\\${");
    let top = top().display();
    let whole =
        format!("let top = {top}; t = import (top + \"/tests/nix/eval.nix\") {{ }}; json = builtins.fromJSON {text}; in {expression}");
    let mut command = Command::new(tools::find("nix-instantiate"));
    command.args(["--eval", "--strict", "--json", "--store", "dummy://", "-E", &whole]);
    serde_json::from_str(&run(&mut command, Duration::from_secs(120)).ok().stdout).unwrap()
}
