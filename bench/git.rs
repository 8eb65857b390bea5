//! A large repository on the drive, beside the local disk and rclone: cloned, looked at, built in, and as stubs on a second
//! machine.

use crate::common::{Mounted, World, cli, native, until};
use crate::peers::OtherMount;
use crate::table::median;
use crate::work::{HOUR, Plan, git_status, prepare};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Files of the repository.
fn files(plan: &Plan) -> usize {
    plan.files * 5 / 2
}

/// What is built: enough of it that a compiler has something to do, all of it in the registry that the tests need as well.
const MANIFEST: &str = "[package]\nname = \"built\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n\
    serde_json = \"1\"\nignore = \"0.4\"\ntime = { version = \"0.3\", features = [\"formatting\"] }\n";

fn seconds(c: &mut Command) -> f64 {
    cli::run(c, HOUR).ok().took.as_secs_f64()
}

fn git(at: &Path, args: &[&str]) -> Command {
    let mut c = Command::new("git");
    c.current_dir(at).args(["-c", "core.untrackedCache=false", "-c", "gc.auto=0"]).args(args);
    c
}

/// A project whose dependencies are compiled each time.
fn build(at: &Path) -> f64 {
    let dir = at.join("project");
    if !dir.exists() {
        std::fs::create_dir_all(dir.join("src")).unwrap();
        std::fs::write(dir.join("Cargo.toml"), MANIFEST).unwrap();
        std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock"), dir.join("Cargo.lock")).unwrap();
        std::fs::write(dir.join("src/main.rs"), "fn main() { println!(\"{}\", serde_json::json!(1)) }\n").unwrap();
    }
    let _ = std::fs::remove_dir_all(dir.join("target"));
    seconds(Command::new("cargo").args(["build", "--quiet", "--offline"]).current_dir(&dir).env_remove("CARGO_TARGET_DIR"))
}

fn gets(m: &Mounted) -> u64 {
    let all = &m.status()["store_state"]["requests"]["get"];
    all.as_object().map_or(0, |o| o.values().filter_map(serde_json::Value::as_u64).max().unwrap_or(0))
}

/// Measures, and prints a table.
pub fn run(plan: &Plan) {
    assert!(!native(), "the drive is measured, not a directory");
    let w = World::new();
    let source = w.dir().join("source");
    prepare(&source, &Plan { files: files(plan), big: 1 << 20, ..*plan });
    let machine = |name: &str| w.device(name).env("TCFS_SYNC_GIT_DIRS", "true").mount();
    let drive = machine("ann");
    drive.cli(&["ignore", "--build-dirs"]).ok();
    let at = |name: &str| {
        let dir = w.dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    };
    at("rclone.src");
    let _rclone = OtherMount::rclone(w.dir());
    let roots = [("native", at("native")), ("tcfs", drive.root().to_owned()), ("rclone", at("rclone"))];

    let mut figures = vec![vec![Vec::new(); roots.len()]; 3];
    for round in 0..plan.rounds.min(3) {
        for (n, (name, root)) in roots.iter().enumerate() {
            // rclone takes minutes for it.
            if *name == "rclone" && round > 0 {
                continue;
            }
            eprintln!("measuring: {name}, round {} of {}", round + 1, plan.rounds.min(3));
            // SAFETY: no arguments.
            unsafe { libc::sync() };
            let _ = std::fs::remove_dir_all(root.join("tree"));
            drive.wait();
            figures[0][n].push(seconds(git(root, &["clone", "-q", "--no-hardlinks"]).arg(source.join("tree")).arg("tree")));
            drive.wait();
            // What was written in the second of the index is read once.
            cli::run(&mut git(&root.join("tree"), &["status", "--porcelain"]), HOUR).ok();
            figures[1][n].push(median(&[(); 5].map(|()| git_status(root, plan))) / 1e3);
            // On rclone nothing can be run that was built there.
            if *name != "rclone" {
                figures[2][n].push(build(root));
            }
        }
    }
    println!("| {} files | native | tcfs | rclone | tcfs : native |", files(plan));
    println!("|---|---|---|---|---|");
    for (name, all) in ["`git clone` onto it", "`git status`, warm", "`cargo build`, `target` local-only"].iter().zip(&figures) {
        let m: Vec<f64> = all.iter().take(2).map(|f| median(f)).collect();
        let rclone = all.get(2).filter(|f| !f.is_empty()).map_or("–".to_owned(), |f| format!("{:.2} s", median(f)));
        println!("| {name} | {:.2} s | {:.2} s | {rclone} | {:.2} |", m[0], m[1], m[1] / m[0]);
    }
    drive.wait();
    let second = machine("bob");
    let tree = second.path("tree");
    until("the repository is on the second machine", HOUR, || {
        std::thread::sleep(Duration::from_secs(1));
        (tree.join(".git/tcfs.json").exists() && !tree.join(".git/tcfs.files").exists()).then_some(())
    });
    second.wait();
    let before = gets(&second);
    let took = git_status(second.root(), plan) / 1e3;
    println!("\n`git status` of {} stubs: {took:.2} s, {} objects fetched.", files(plan), gets(&second) - before);
}
