//! Whole machines: the units, configurations and packages as they are shipped, run by a real systemd as the first process of
//! machines made of namespaces (`boot`), driven by scripts as those of a NixOS test are (`driver.py`). It needs root.
#![allow(clippy::unwrap_used)] // a failed call is a failed test

#[path = "../common/mod.rs"]
mod common;

use common::cli::run;
use common::nix::{evaluate, top};
use common::{program, tools};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The units and files of machines, by Nix: `expression` is one of `tests/nix/eval.nix`.
fn nodes(expression: &str) -> Value {
    let nodes = evaluate(expression, &json!(null));
    for (name, node) in nodes.as_object().unwrap() {
        assert_eq!((&node["failed"], &node["warnings"]), (&json!([]), &json!([])), "{name}");
    }
    nodes
}

/// Runs a script on these machines, with files of this one put into each.
fn play(script: &str, nodes: &Value, files: &[(&str, &Path)]) {
    tools::need_root("a machine of its own");
    // Not below /tmp, which is another one inside; and no layer above a layer.
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("lab-{}", std::process::id()));
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch).unwrap();
    let file = scratch.join("nodes.json");
    fs::write(&file, nodes.to_string()).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--net", "python3"]).arg(top().join("tests/lab/driver.py")).arg(top().join(script)).arg(&file).arg(&scratch);
    let all = [
        ("/opt/tcfs/bin/tcfs", program()),
        ("/opt/weed/bin/weed", tools::find("weed")),
        ("/opt/nats/bin/nats-server", tools::find("nats-server")),
    ];
    let given = files.iter().map(|(place, file)| (*place, file.to_path_buf()));
    command.args(all.into_iter().chain(given).map(|(place, file)| format!("{place}={}", file.display())));
    let done = run(&mut command, Duration::from_secs(600));
    if std::env::var_os("TCFS_TEST_KEEP").is_none() {
        fs::remove_dir_all(&scratch).unwrap();
    }
    println!("{}", done.stdout);
    done.ok();
}

/// The script of the NixOS VM test, word for word, on what its nodes evaluate to.
#[test]
fn the_script_of_the_vm_test_holds() {
    play("nix/tests/fleet.py", &nodes("t.fleet"), &[]);
}

/// Hub and leaf from the shipped configuration: the hub is killed, the leaf goes on; the hub is back, all converge.
#[test]
fn a_leaf_goes_on_without_its_hub() {
    play("tests/lab/leaf.py", &nodes("t.nodes (import (top + \"/tests/lab/leaf.nix\"))"), &[]);
}

/// The chapter "Operations" of the README, command by command, on three machines.
#[test]
fn the_operations_of_the_readme_are_as_it_says() {
    let package = deb("deb-rollout");
    let nodes = nodes("t.nodes (import (top + \"/tests/lab/rollout.nix\"))");
    play("tests/lab/rollout.py", &nodes, &[("/root/tcfs.deb", &package)]);
    let _ = fs::remove_dir_all(package.parent().unwrap());
}

/// The unit of NixOS in both forms: by fusermount3, and with CAP_SYS_ADMIN under a filter of system calls.
#[test]
fn the_service_may_no_more_than_it_needs_and_mounts() {
    play("tests/lab/passthrough.py", &nodes("t.nodes (import (top + \"/tests/lab/passthrough.nix\"))"), &[]);
}

/// The package of Debian, made of the program under test, in a directory of this name.
fn deb(name: &str) -> PathBuf {
    let mut make = Command::new(top().join(".ci/deb"));
    // It is unpacked once: how small it is does not count.
    make.arg(program()).env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)).env("TCFS_DEB_LEVEL", "0");
    run(&mut make, Duration::from_secs(120)).ok().stdout.trim().into()
}

#[test]
fn the_debian_package_installs_runs_and_leaves_no_gap() {
    let package = deb("deb");
    let out = package.parent().unwrap().to_owned();
    // Into an empty root first: what it brings, and that nothing is left when it goes.
    let root = out.join("chroot");
    let _ = fs::remove_dir_all(&root);
    for dir in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "bin"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
    let dpkg = |args: &[&str]| {
        let mut c = Command::new("dpkg");
        // Scripts of packages need a shell inside; those of this one do nothing where systemd is not running.
        c.arg(format!("--root={}", root.display())).args(["--force-depends", "--force-script-chrootless", "--force-not-root"]).args(args);
        run(&mut c, Duration::from_secs(60)).ok()
    };
    dpkg(&["-i", package.to_str().unwrap()]);
    for file in [
        "usr/bin/tcfs",
        "usr/bin/tcfsd",
        "usr/lib/systemd/user/tcfs.service",
        "usr/lib/systemd/system/tcfs@.service",
        "usr/share/man/man1/tcfs.1.gz",
    ] {
        assert!(root.join(file).exists(), "{file}");
    }
    fs::create_dir_all(root.join("home/ann/.local/state/tcfs")).unwrap();
    fs::write(root.join("home/ann/.local/state/tcfs/keys"), "mine").unwrap();
    dpkg(&["-P", "tcfs"]);
    assert!(!root.join("usr/bin").exists() && root.join("home/ann/.local/state/tcfs/keys").exists());

    let alone = nodes("t.nodes { box = { }; }");
    play("tests/lab/deb.py", &alone, &[("/root/tcfs.deb", &package)]);
    let _ = fs::remove_dir_all(&out);
}
