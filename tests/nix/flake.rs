//! The flake, with a stand-in for nixpkgs: it evaluates as a whole, on each system; and how its files are written.

use super::common::cli::run;
use super::common::copy::copy;
use super::common::nix::top;
use super::common::tools;
use std::fs;
use std::process::Command;
use std::time::Duration;

#[test]
fn the_flake_evaluates_on_every_system() {
    // A copy of what it reads: Nix copies the directory of a flake into its store, and this one has gigabytes in `target`.
    let tmp = tempfile::tempdir().unwrap();
    for name in ["flake.nix", "nix", "Cargo.toml", "Cargo.lock", "README.md", "src/main.rs", "tests/nix"] {
        copy(&top().join(name), &tmp.path().join(name));
    }
    let nix = |args: &[&str]| {
        let mut command = Command::new(tools::find("nix"));
        command.args(args).args(["--no-write-lock-file", "--override-input", "nixpkgs", "path:tests/nix"]).current_dir(tmp.path());
        let settings =
            "experimental-features = nix-command flakes\nsubstituters =\nbuild-users-group =\nsandbox = false\nwarn-dirty = false";
        // A store of its own: nothing of this stays on the machine.
        command.env("NIX_CONFIG", settings).env("HOME", tmp.path()).env("NIX_REMOTE", tmp.path().join("nix"));
        run(&mut command, Duration::from_secs(120)).ok().stdout
    };
    nix(&["flake", "check", "path:.", "--no-build"]);
    let shown: serde_json::Value = serde_json::from_str(&nix(&["flake", "show", "path:.", "--json"])).unwrap();
    for system in ["x86_64-linux", "aarch64-linux", "x86_64-darwin", "aarch64-darwin"] {
        for (kind, names) in [
            ("packages", vec!["default", "tcfs-cli", "tcfsd"]),
            ("devShells", vec!["default"]),
            ("checks", vec!["build", "tests", "modules"]),
        ] {
            for name in names {
                assert_eq!(shown[kind][system][name]["type"], "derivation", "{kind}.{system}.{name}");
            }
        }
        assert_eq!(shown["apps"][system]["default"]["type"], "app");
        assert_eq!(shown["checks"][system]["fleet"]["type"] == "derivation", system.ends_with("linux"));
    }
    for (kind, name) in [("nixosModules", "default"), ("nixosModules", "nats-leaf"), ("overlays", "default")] {
        assert!(shown[kind][name].is_object(), "{kind}.{name}: {shown}");
    }
    // The source is what the build reads, and the script of the VM test is one of Python.
    let source = nix(&["eval", "--raw", "path:.#packages.x86_64-linux.default.src"]);
    let mut seen: Vec<String> = fs::read_dir(tmp.path().join("nix").join(source.trim_start_matches('/')))
        .unwrap_or_else(|e| panic!("{source}: {e}"))
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    seen.sort();
    assert_eq!(seen, ["Cargo.lock", "Cargo.toml", "README.md", "src"]);
    let script = nix(&["eval", "--raw", "path:.#checks.x86_64-linux.fleet.testScript"]);
    let check = "import ast,sys; ast.parse(sys.argv[1])";
    run(Command::new(tools::find("python3")).args(["-c", check, &script]), Duration::from_secs(60)).ok();
}

#[test]
fn the_files_are_formatted_and_have_nothing_unused() {
    let files = ["flake.nix", "nix", "tests/nix", "tests/lab"];
    run(Command::new(tools::find("nixpkgs-fmt")).arg("--check").args(files).current_dir(top()), Duration::from_secs(60)).ok();
    run(Command::new(tools::find("deadnix")).arg("--fail").args(files).current_dir(top()), Duration::from_secs(60)).ok();
}
