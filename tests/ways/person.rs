//! A person who has only the mount: everything with `ls`, `cat`, `cp`, `mv`, `rm` and `diff`.

use super::common::cli::{run, sh};
use super::common::{World, tools, until};
use super::{SOON, in_conflict};
use std::fs;
use std::process::Command;
use std::time::Duration;

/// In the mount, with a file `plan.md` in conflict and a file `gone.txt` that was removed. Through FUSE and NFS alike.
pub const SCRIPT: &str = r#"
set -x
no() { if "$@"; then echo "it worked: $*" >&2; exit 1; fi; }
# Which machines there are.
n=0; while ! cat .tcfs/devices.json | grep -q '"name": "bob"'; do n=$((n+1)); [ $n -lt 300 ]; sleep 0.2; done
# What is pending: nothing. The state of the drive.
[ "$(cat .tcfs/pending.json)" = "[]" ]
cat .tcfs/status.json | grep -q '"pending": 0'
grep -q '^tcfs_conflicts 1$' .tcfs/metrics
ls .tcfs/at | grep -q yesterday; [ "$(ls -a | grep -c tcfs)" = 0 ]
# What is in conflict, and how that ends.
grep -q plan.md .tcfs/conflicts.json
s=$(ls | grep conflict); rm "$s"
while grep -q plan.md .tcfs/conflicts.json; do sleep 0.2; done
# A deleted file comes back.
[ ! -e gone.txt ]; ls .tcfs/history | grep -q gone.txt
cp .tcfs/history/gone.txt/* back.txt; [ "$(cat back.txt)" = precious ]
# What a file was.
n=$(ls .tcfs/history/plan.md | wc -l); [ "$n" -ge 2 ]
first=$(ls .tcfs/history/plan.md | head -1); [ "$(cat .tcfs/history/plan.md/$first)" = base ]
diff ".tcfs/history/plan.md/$first" plan.md | grep -q '^< base'
# Nothing in there can be changed.
no touch .tcfs/x; no rm -f .tcfs/status.json; no mkdir .tcfs/at/x; no mv plan.md .tcfs/; no ln -s x .tcfs/l; no chmod 777 .tcfs/metrics
tail -n 1 .tcfs/events | grep -q '"event"'
grep -q tcfs .tcfs/log
"#;

#[test]
fn with_ls_cat_cp_and_rm_alone_by_fuse() {
    let (_w, a, _b) = in_conflict();
    fs::write(a.path("gone.txt"), "precious").unwrap();
    a.wait();
    fs::remove_file(a.path("gone.txt")).unwrap();
    a.wait();
    sh(a.root(), SCRIPT, &[]).ok();
}

/// What is pending shows while the store does not answer, and a local write is among it.
#[test]
fn what_is_pending_is_listed_until_it_is_in_the_store() {
    let w = World::new();
    let a = w.mount("ann");
    a.fault(Some(serde_json::json!({"mode": "down"})));
    fs::write(a.path("later.txt"), "x").unwrap();
    sh(a.root(), "grep -q later.txt .tcfs/pending.json; [ $(grep -c '\"pending\": 0' .tcfs/status.json) = 0 ]", &[]).ok();
    a.fault(None);
    a.wait();
    until("nothing is pending", SOON, || (fs::read_to_string(a.path(".tcfs/pending.json")).unwrap().trim() == "[]").then_some(()));
}

/// `diff -r` of the past with a copy made at that moment, while the fleet goes on writing; from both machines.
#[test]
fn the_past_equals_a_copy_that_was_made_then_while_the_fleet_goes_on() {
    let w = World::new();
    let (a, b) = (w.mount("ann"), w.mount("bob"));
    let copies = w.dir().join("copies");
    fs::create_dir(&copies).unwrap();
    let work = r#"
mkdir -p d/e; seq 1000 > d/e/numbers; head -c 300000 /dev/urandom > big; ln -s d/e link; echo 1 > changes; mkdir empty
"#;
    sh(a.root(), work, &[]).ok();
    a.wait();
    let mut moments = Vec::new();
    let steps = [
        "echo 2 > changes; cp -r d d2",
        "mv d moved; rm -r d2; echo 3 > changes",
        "rm big; mv moved/e/numbers big; rmdir empty; chmod 600 big",
        "rm -r moved link; mkdir moved; echo again > moved/e; echo 4 > changes",
    ];
    for (i, step) in steps.iter().enumerate() {
        // Everybody has the same, and nothing is on its way.
        a.wait();
        b.wait();
        until("both have the same", SOON, || {
            let same = run(Command::new("diff").args(["-r", "--no-dereference"]).arg(a.root()).arg(b.root()), SOON);
            (same.code == 0).then_some(())
        });
        let copy = copies.join(i.to_string());
        run(Command::new("cp").arg("-a").arg(a.root()).arg(&copy), SOON).ok();
        let now = run(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S.%3NZ"]), SOON).ok().stdout;
        moments.push((now.trim().to_owned(), copy));
        std::thread::sleep(Duration::from_millis(20));
        // The one, then the other machine goes on.
        sh(if i % 2 == 0 { a.root() } else { b.root() }, step, &[]).ok();
    }
    a.wait();
    b.wait();
    for m in [&a, &b] {
        for (at, copy) in &moments {
            let past = m.path(".tcfs/at").join(at);
            run(Command::new("diff").args(["-r", "--no-dereference"]).arg(copy).arg(&past), SOON).ok();
        }
    }
    // Read-only, and modes as they were.
    let (first, _) = &moments[3];
    let stat = format!("[ \"$(stat -c %a .tcfs/at/{first}/big)\" = 600 ]; if echo x > .tcfs/at/{first}/new; then exit 1; fi");
    sh(a.root(), &stat, &[]).ok();
}

/// Events can be followed with `tail -f`, from both machines.
#[test]
fn tail_follows_what_happens() {
    let w = World::new();
    let (a, b) = (w.mount("ann"), w.mount("bob"));
    let out = w.dir().join("tail.out");
    let mut tail = Command::new("tail")
        .args(["-n", "0", "-f", ".tcfs/events"])
        .current_dir(a.root())
        .stdout(fs::File::create(&out).unwrap())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    fs::write(a.path("mine"), "1").unwrap();
    fs::write(b.path("his"), "2").unwrap();
    let seen = |event: &str, path: &str| {
        let text = fs::read_to_string(&out).unwrap();
        text.lines().any(|l| {
            let v: serde_json::Value = serde_json::from_str(l).unwrap_or_default();
            v["event"] == event && v["path"] == path
        })
    };
    let waited = std::panic::catch_unwind(|| {
        until("both are told", SOON, || (seen("published", "mine") && seen("arrived", "his")).then_some(()));
    });
    tail.kill().unwrap();
    tail.wait().unwrap();
    waited.unwrap();
}

/// Attributes by the tools that people have; setting one pins.
#[test]
fn attributes_by_getfattr_and_setfattr() {
    tools::find("getfattr");
    let w = World::new();
    let (a, b) = (w.mount("ann"), w.mount("bob"));
    fs::create_dir(a.path("d")).unwrap();
    fs::write(a.path("d/f"), "content").unwrap();
    a.wait();
    until("it is there", SOON, || b.path("d/f").exists().then_some(()));
    let script = r#"
get() { getfattr --only-values -n user.tcfs.$1 "$2"; }
[ "$(get state d/f)" = stub ]; [ "$(get device d/f)" = ann ]; [ "$(get pinned d)" = no ]; [ "$(get pending d/f)" = no ]
setfattr -n user.tcfs.pinned -v yes d
n=0; while [ "$(get state d/f)" != hydrated ]; do n=$((n+1)); [ $n -lt 300 ]; sleep 0.2; done
[ "$(get pinned d/f)" = yes ]
setfattr -n user.tcfs.pinned -v no d; [ "$(get pinned d/f)" = no ]
if setfattr -n user.tcfs.state -v stub d/f; then exit 1; fi
[ -z "$(getfattr -d d/f)" ]; cp -a d/f copy; cmp d/f copy
"#;
    sh(b.root(), script, &[]).ok();
}
