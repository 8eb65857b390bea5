//! Repositories on mounts: they roam with their worktrees.
//!
//! Not here: how repositories are joined (`git`).
#![allow(clippy::unwrap_used)] // a failed call is a failed test

mod common;

use common::{Mounted, World, cli, count, until};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn machine(w: &Arc<World>, name: &str) -> Mounted {
    w.device(name).env("TCFS_SYNC_GIT_DIRS", "true").mount()
}

fn git_may(at: &Path, args: &[&str]) -> (bool, String) {
    let mut c = Command::new("git");
    c.current_dir(at).args(["-c", "user.name=n", "-c", "user.email=a@b", "-c", "gc.auto=0"]).args(args);
    c.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null").env("GIT_EDITOR", "true");
    let out = c.output().unwrap();
    (out.status.success(), format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)))
}

#[track_caller]
fn git(at: &Path, args: &[&str]) -> String {
    let (ok, text) = git_may(at, args);
    assert!(ok, "git {args:?}\n{text}");
    text
}

/// A new repository.
fn init(at: PathBuf) -> PathBuf {
    fs::create_dir_all(&at).unwrap();
    git(&at, &["init", "-q", "-b", "main"]);
    at
}

/// Of commits of one second any may be the first.
fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// What a person sees of a repository; none while it is not one.
fn seen(at: &Path) -> Option<Vec<String>> {
    let ask = |args: &[&str]| Some(git_may(at, args)).filter(|r| r.0).map(|r| r.1);
    Some(vec![
        sorted(&ask(&["log", "--all", "--format=%H %s"])?),
        ask(&["stash", "list"])?,
        ask(&["status", "--porcelain", "--branch"])?,
        ask(&["for-each-ref", "--format=%(refname) %(objectname)"])?.lines().filter(|l| !l.contains("refs/tcfs/")).collect(),
    ])
}

#[track_caller]
fn same(a: &Mounted, b: &Mounted, repo: &str) {
    let mut last = None;
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        until("the repository is the same there", SOON, || {
            let both = (seen(&a.path(repo)), seen(&b.path(repo)));
            let equal = both.0.is_some() && both.0 == both.1;
            last = Some(both);
            equal.then_some(())
        });
    }));
    assert!(done.is_ok(), "{last:#?}\n{}\n{}", a.cli(&["git", "status"]).text(), b.cli(&["git", "status"]).text());
    for m in [a, b] {
        let (ok, text) = git_may(&m.path(repo), &["fsck", "--full"]);
        assert!(ok && !text.contains("error"), "{text}");
    }
}

#[test]
fn a_repository_roams_with_its_files() {
    let w = World::new();
    let (a, b) = (machine(&w, "ann"), machine(&w, "bob"));
    let at = init(a.path("work/repo"));
    for i in 0..count(20, 300) {
        fs::write(at.join(format!("f{}", i % 7)), format!("text {i}\n")).unwrap();
        git(&at, &["add", "-A"]);
        git(&at, &["commit", "-q", "-m", &format!("commit {i}")]);
    }
    git(&at, &["branch", "side", "HEAD~3"]);
    git(&at, &["tag", "-a", "-m", "t", "v1"]);
    fs::write(at.join("f0"), "stashed").unwrap();
    git(&at, &["stash", "push", "-q"]);
    fs::write(at.join("f1"), "staged").unwrap();
    git(&at, &["add", "f1"]);
    fs::write(at.join("f2"), "unstaged").unwrap();
    fs::write(at.join("new"), "untracked").unwrap();
    a.wait();
    same(&a, &b, "work/repo");
    let status = a.cli(&["git", "status"]).ok();
    assert_eq!(status.stdout.trim_end(), "work/repo  carried");

    // On from there on the other machine, and back.
    let there = b.path("work/repo");
    git(&there, &["commit", "-q", "-a", "-m", "on bob"]);
    git(&there, &["switch", "-q", "-c", "next"]);
    fs::write(there.join("f3"), "next").unwrap();
    git(&there, &["commit", "-q", "-a", "-m", "next"]);
    b.wait();
    same(&b, &a, "work/repo");
    assert_eq!(git(&at, &["branch", "--show-current"]).trim(), "next");
    // What is staged where the repository is there already.
    fs::write(at.join("f6"), "staged later").unwrap();
    git(&at, &["add", "f6"]);
    a.wait();
    same(&a, &b, "work/repo");
    git(&there, &["commit", "-q", "-m", "as staged on ann"]);
    b.wait();
    same(&b, &a, "work/repo");

    // A commit on both while apart: both are on both.
    b.fault(Some(serde_json::json!({ "mode": "down" })));
    fs::write(at.join("f4"), "ann's").unwrap();
    git(&at, &["commit", "-q", "-a", "-m", "apart, ann"]);
    fs::write(there.join("f5"), "bob's").unwrap();
    git(&there, &["commit", "-q", "-a", "-m", "apart, bob"]);
    let (on_a, on_b) = (git(&at, &["rev-parse", "HEAD"]), git(&there, &["rev-parse", "HEAD"]));
    a.wait();
    b.fault(None);
    b.wait();
    let has = |at: &Path, id: &str| git_may(at, &["log", "--all", "--format=%H"]).1.contains(id.trim());
    let both = || until("both have both", SOON, || [&at, &there].iter().all(|r| has(r, &on_a) && has(r, &on_b)).then_some(()));
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(both));
    assert!(done.is_ok(), "{}\n{}", a.cli(&["git", "status"]).text(), b.cli(&["git", "status"]).text());
    assert_eq!((git(&at, &["rev-parse", "HEAD"]), git(&there, &["rev-parse", "HEAD"])), (on_a.clone(), on_b));
    until("it is told", SOON, || b.cli(&["git", "status"]).ok().stdout.contains("refs/tcfs/ann/heads/next").then_some(()));
    // The drive has brought ann's file under bob's HEAD; git wants to bring it itself.
    git(&there, &["checkout", "-q", "--", "f4"]);
    git(&there, &["merge", "-q", "--no-edit", "refs/tcfs/ann/heads/next"]);
    b.wait();
    until("ann goes forward", SOON, || (git(&at, &["rev-parse", "HEAD"]) == git(&there, &["rev-parse", "HEAD"])).then_some(()));
    same(&a, &b, "work/repo");

    // A third machine, and one that was restarted.
    let c = machine(&w, "cid");
    same(&a, &c, "work/repo");
    b.remount();
    fs::write(there.join("f6"), "again").unwrap();
    git(&there, &["commit", "-q", "-a", "-m", "after a restart"]);
    b.wait();
    same(&b, &a, "work/repo");
    same(&b, &c, "work/repo");
    // None of it is a conflict, or shows in the tree of others.
    for m in [&a, &b, &c] {
        assert_eq!(m.cli(&["--json", "conflicts"]).ok().json().len(), 1);
    }
}

#[test]
fn without_it_repositories_stay_and_what_cannot_be_carried_is_told() {
    let w = World::new();
    let (a, b) = (machine(&w, "ann"), w.mount("bob"));
    let at = init(a.path("repo"));
    fs::write(at.join("f"), "x").unwrap();
    git(&at, &["add", "-A"]);
    git(&at, &["commit", "-q", "-m", "one"]);
    a.wait();
    until("the file arrives", SOON, || fs::metadata(b.path("repo/f")).ok());
    // Bob does not carry repositories: he keeps the entry, and shows nothing of it.
    assert!(!b.path("repo/.git").exists());
    git(&b.path("repo"), &["init", "-q", "-b", "own"]);
    git(&b.path("repo"), &["add", "-A"]);
    git(&b.path("repo"), &["commit", "-q", "-m", "bob's own"]);
    let told = b.cli(&["git", "status"]).ok();
    assert!(told.stdout.contains("repo  stays here") && told.text().contains("sync_git_dirs = true"), "{}", told.text());
    fs::remove_dir_all(b.path("repo/.git")).unwrap();
    b.wait();
    fs::write(b.path("repo/f"), "y").unwrap();
    b.wait();
    until("bob's edit arrives", SOON, || (fs::read(at.join("f")).ok()? == b"y").then_some(()));
    assert!(a.cli(&["git", "status"]).ok().stdout.contains("repo  carried"), "what bob removed is his own");

    // Refused ones are named, and left as they are.
    fs::create_dir(at.join(".git/lfs")).unwrap();
    until("it is refused", SOON, || a.cli(&["git", "status"]).ok().stdout.contains("not carried: it uses LFS").then_some(()));
    fs::remove_dir(at.join(".git/lfs")).unwrap();
    // One in which something is under way waits, and goes when that is over.
    fs::write(at.join(".git/index.lock"), "").unwrap();
    until("it waits", SOON, || a.cli(&["git", "status"]).ok().stdout.contains("waiting: index.lock").then_some(()));
    fs::remove_file(at.join(".git/index.lock")).unwrap();
    git(&at, &["commit", "-q", "-a", "-m", "two"]);
    a.wait();
    assert!(a.cli(&["git", "status"]).ok().stdout.contains("repo  carried"));
    // A machine that begins to carry them has it then.
    let c = machine(&w, "cid");
    same(&a, &c, "repo");
    // A repository that is removed with its files does not come back by its bundle.
    fs::remove_dir_all(&at).unwrap();
    a.wait();
    std::thread::sleep(Duration::from_secs(3));
    assert!(!at.exists());
    let _ = cli::run(&mut a.tcfs(&["git", "status", "none"]), SOON);
}

/// Requests that brought content here.
fn fetched(m: &Mounted) -> serde_json::Value {
    m.status()["store_state"]["requests"]["get"].clone()
}

#[test]
fn git_status_among_stubs_fetches_nothing() {
    let w = World::new();
    let a = machine(&w, "ann");
    let at = a.path("repo");
    let files = count(200, 5_000);
    for n in 0..files {
        let dir = at.join(format!("d{}", n % 20));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("f{n}")), format!("content {n}")).unwrap();
    }
    fs::write(at.join(".gitignore"), "*.o\n").unwrap();
    fs::write(at.join("d3/.gitignore"), "*.x\n").unwrap();
    git(&at, &["init", "-q", "-b", "main"]);
    git(&at, &["add", "-A"]);
    git(&at, &["commit", "-q", "-m", "all"]);
    fs::write(at.join("d0/f0"), "changed").unwrap();
    fs::write(at.join("d1/f1"), "CONTENT 1").unwrap();
    fs::write(at.join("d0/new.o"), "ignored").unwrap();
    fs::write(at.join("d1/new"), "untracked").unwrap();
    a.wait();
    let b = machine(&w, "bob");
    let there = b.path("repo");
    let told = || b.cli(&["git", "status"]).ok().stdout.contains("repo  carried");
    until("all of it arrives", SOON, || (told() && !there.join(".git/tcfs.files").exists() && there.join("d1/new").exists()).then_some(()));
    let before = fetched(&b);
    // Without a store as well.
    b.fault(Some(serde_json::json!({ "mode": "down" })));
    assert_eq!(git(&there, &["status", "--porcelain"]), " M d0/f0\n M d1/f1\n?? d1/new\n");
    assert_eq!(git(&there, &["diff", "--stat", "--cached"]), "");
    b.fault(None);
    assert_eq!(fetched(&b), before, "git fetched files to say that they did not change");
    // Nor does it read again what it read, whatever came and went here.
    assert_eq!(fs::read(there.join("d2/f2")).unwrap(), b"content 2");
    b.cli_long(&["unsync", "/repo/d2"]).ok();
    b.remount();
    b.fault(Some(serde_json::json!({ "mode": "down" })));
    let looked = git(&there, &["-c", "core.fsmonitor=false", "diff-files", "--name-only"]);
    assert_eq!(looked, "d0/f0\nd1/f1\n");
    b.fault(None);
    same(&a, &b, "repo");
}

#[track_caller]
fn sees(m: &Mounted, repo: &Path, like: &Path) {
    let mut last = None;
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        until("the repository is the same there", SOON, || {
            last = Some((seen(like), seen(repo)));
            last.as_ref().is_some_and(|(a, b)| a.is_some() && a == b).then_some(())
        });
    }));
    assert!(done.is_ok(), "{last:#?}\n{}", m.cli(&["git", "status"]).text());
}

#[test]
fn a_repository_outside_the_drive_is_pushed_with_its_history_and_pulled_as_a_clone() {
    let w = World::new();
    let out = init(w.dir().join("git/test-repo"));
    for n in 0..10 {
        fs::write(out.join(format!("f{}", n % 3)), format!("{n}\n")).unwrap();
        git(&out, &["add", "-A"]);
        git(&out, &["commit", "-q", "-m", &format!("commit {n}")]);
    }
    git(&out, &["branch", "side", "HEAD~2"]);
    git(&out, &["tag", "v1"]);
    fs::write(out.join("f1"), "staged\n").unwrap();
    git(&out, &["add", "f1"]);
    fs::write(out.join("f2"), "unstaged\n").unwrap();
    let text = |p: &Path| p.to_str().unwrap().to_owned();

    // From a machine without a mount.
    let a = w.device("ann").env("TCFS_SYNC_GIT_DIRS", "true").off();
    let pushed = a.cli(&["push", &text(&out)]).ok();
    assert!(pushed.stdout.contains("with the history of 1 repository"), "{}", pushed.text());
    assert!(!out.join(".git/tcfs.json").exists(), "something was written to a repository that is only read");
    let again = a.cli(&["--json", "push", &text(&out)]).ok().json().pop().unwrap();
    assert_eq!((again["repositories"].as_u64(), again["files"].as_u64()), (Some(0), Some(0)));
    let b = machine(&w, "bob");
    sees(&b, &b.path("test-repo"), &out);
    let to = w.dir().join("clone");
    let pulled = b.cli(&["pull", "test-repo", &text(&to)]).ok();
    assert!(pulled.stdout.contains("with the history of 1 repository"), "{}", pulled.text());
    assert_eq!(seen(&to), seen(&out));
    git(&to, &["fsck", "--full"]);

    // Where it was pushed from it is in the drive as well.
    a.mount();
    sees(&a, &a.path("test-repo"), &out);
    // A push that does not know of what others did there is joined with it.
    let commit = git(&b.path("test-repo"), &["commit-tree", "side^{tree}", "-p", "side", "-m", "on side"]);
    git(&b.path("test-repo"), &["update-ref", "refs/heads/side", commit.trim()]);
    git(&out, &["commit", "-q", "-m", "what was staged"]);
    b.wait();
    sees(&a, &a.path("test-repo"), &b.path("test-repo"));
    a.cli(&["push", &text(&out)]).ok();
    a.wait();
    let log = |at: &Path| git_may(at, &["log", "--all", "--format=%s"]).1;
    let both = |at: &Path| ["on side", "what was staged"].iter().all(|s| log(at).contains(s));
    until("both have both", SOON, || (both(&a.path("test-repo")) && both(&b.path("test-repo"))).then_some(()));
    assert_eq!(git(&a.path("test-repo"), &["rev-parse", "main"]), git(&out, &["rev-parse", "main"]));
    // And what was pulled goes on, too.
    fs::rename(&to, w.dir().join("test-repo")).unwrap();
    let to = w.dir().join("test-repo");
    b.cli(&["pull", "--force", "test-repo", &text(w.dir())]).ok();
    assert!(both(&to), "{}", log(&to));

    // Those that cannot travel are named, and their files go.
    git(&out, &["worktree", "add", "-q", "../linked"]);
    let refused = a.cli(&["push", "--to", "other", &text(&out)]).exit(3);
    assert!(refused.text().contains("other/.git: it has linked worktrees"), "{}", refused.text());
    assert!(a.path("other/f0").exists() && !a.path("other/.git").exists());
    // Without the setting they stay.
    let c = w.device("cid").off();
    let stays = c.cli(&["push", "--to", "third", &text(&to)]).exit(3);
    assert!(stays.text().contains("sync_git_dirs = true"), "{}", stays.text());
}

#[test]
fn a_repository_that_is_moved_takes_its_git_dir_along_everywhere() {
    let w = World::new();
    let (a, b) = (machine(&w, "ann"), machine(&w, "bob"));
    let at = init(a.path("work/repo"));
    fs::write(at.join("f"), "x").unwrap();
    git(&at, &["add", "-A"]);
    git(&at, &["commit", "-q", "-m", "one"]);
    a.wait();
    same(&a, &b, "work/repo");
    // What only bob has in his goes with it.
    fs::write(b.path("work/repo/.git/hooks-of-bob"), "x").unwrap();
    fs::rename(&at, a.path("moved")).unwrap();
    a.wait();
    until("it is moved there as well", SOON, || b.path("moved/.git/hooks-of-bob").exists().then_some(()));
    until("nothing is left of it", SOON, || (!b.path("work/repo").exists()).then_some(()));
    same(&a, &b, "moved");
    git(&b.path("moved"), &["commit", "-q", "--allow-empty", "-m", "on bob"]);
    b.wait();
    same(&b, &a, "moved");
    assert!(!a.path("work/repo").exists());
}

#[test]
fn raw_mode_carries_files_and_never_a_lock() {
    let w = World::new();
    let raw = |name: &str| w.device(name).env("TCFS_SYNC_GIT_DIRS", "true").env("TCFS_GIT_SYNC_MODE", "raw").mount();
    let (a, b) = (raw("ann"), raw("bob"));
    let told = a.cli(&["status"]).ok();
    assert!(told.stdout.contains("git_sync_mode is raw"), "{}", told.stdout);
    let (at, there) = (init(a.path("repo")), b.path("repo"));
    for n in 0..count(15, 100) {
        fs::write(at.join("f"), format!("{n}\n")).unwrap();
        git(&at, &["add", "-A"]);
        git(&at, &["commit", "-q", "-m", &format!("commit {n}")]);
        // Whatever of it has arrived, a ref names nothing that has not.
        if let (true, head) = git_may(&there, &["rev-parse", "-q", "--verify", "main"]) {
            let (ok, text) = git_may(&there, &["rev-list", "--objects", head.trim()]);
            if !ok {
                let id = text.trim().rsplit(' ').next().unwrap();
                let o = there.join(".git/objects").join(&id[..2]);
                println!(
                    "{text}: {:?}",
                    fs::read_dir(&o).map(|d| d.flatten().map(|e| (e.file_name(), fs::read(e.path()).map(|b| b.len()))).collect::<Vec<_>>())
                );
                std::thread::sleep(Duration::from_secs(1));
                let again = git_may(&there, &["rev-list", "--objects", head.trim()]);
                panic!("{again:?} {}", b.log());
            }
        }
    }
    fs::write(at.join(".git/index.lock"), "").unwrap();
    git_may(&at, &["gc", "-q"]);
    a.wait();
    same(&a, &b, "repo");
    assert!(at.join(".git/index.lock").exists() && !there.join(".git/index.lock").exists());
    fs::remove_file(at.join(".git/index.lock")).unwrap();
    git(&there, &["commit", "-q", "--allow-empty", "-m", "on bob"]);
    b.wait();
    same(&b, &a, "repo");
    // A commit on both while apart: both are there, one as the file beside the other's ref.
    b.fault(Some(serde_json::json!({ "mode": "down" })));
    git(&at, &["commit", "-q", "--allow-empty", "-m", "apart, ann"]);
    git(&there, &["commit", "-q", "--allow-empty", "-m", "apart, bob"]);
    let on = [&at, &there].map(|r| git(r, &["rev-parse", "HEAD"]));
    a.wait();
    b.fault(None);
    b.wait();
    let has = |at: &Path, id: &str| git_may(at, &["log", "--all", "--format=%H"]).1.contains(id.trim());
    until("both have both", SOON, || [&at, &there].iter().all(|r| on.iter().all(|id| has(r, id))).then_some(()));
    assert!(git(&at, &["branch", "--list"]).contains("main.conflict-"), "{}", git(&at, &["branch", "--list"]));
}

/// Every commit that a branch of a repository names.
fn tips(at: &Path) -> Vec<String> {
    git_may(at, &["for-each-ref", "--format=%(objectname)", "refs/heads"]).1.lines().map(str::to_owned).collect()
}

fn leads_to(at: &Path, commit: &str) -> bool {
    let (_, names) = git_may(at, &["for-each-ref", "--format=%(refname)"]);
    names.lines().chain(["HEAD"]).any(|n| git_may(at, &["merge-base", "--is-ancestor", commit, n]).0)
}

#[test]
fn whatever_is_done_and_killed_on_two_mounts_no_commit_that_was_published_is_lost() {
    let w = World::new();
    let machines = [machine(&w, "ann"), machine(&w, "bob")];
    let repo = |who: usize| machines[who].path("repo");
    init(repo(0));
    fs::write(repo(0).join("f0"), "first\n").unwrap();
    git(&repo(0), &["add", "-A"]);
    git(&repo(0), &["commit", "-q", "-m", "first"]);
    machines[0].wait();
    same(&machines[0], &machines[1], "repo");
    let mut rng = common::rng();
    let mut published: Vec<String> = Vec::new();
    for step in 0..count(60, 1000) {
        let who = rng.usize(..2);
        let (m, at) = (&machines[who], repo(who));
        let branch = ["main", "x", "y"][rng.usize(..3)];
        match rng.u32(..20) {
            0..=4 => {
                fs::write(at.join(format!("f{}", rng.u32(..4))), format!("{step}\n")).unwrap();
                git_may(&at, &["add", "-A"]);
                git_may(&at, &["commit", "-q", "-m", &format!("{step}")]);
            }
            5 => drop(git_may(&at, &["commit", "-q", "--amend", "--allow-empty", "-m", &format!("amended {step}")])),
            6 => drop(git_may(&at, &["reset", "-q", "--hard", "HEAD~1"])),
            7 => drop(git_may(&at, &["checkout", "-q", "-B", branch])),
            8 => drop(git_may(&at, &["checkout", "-q", branch])),
            9 => drop(git_may(&at, &["branch", "-D", branch])),
            10 => {
                if !git_may(&at, &["merge", "-q", "--no-edit", branch]).0 {
                    git_may(&at, &["merge", "--abort"]);
                }
            }
            11 => {
                if !git_may(&at, &["rebase", "-q", branch]).0 {
                    git_may(&at, &["rebase", "--abort"]);
                }
            }
            12 => {
                fs::write(at.join("f0"), format!("stashed {step}\n")).unwrap();
                git_may(&at, &["stash", "push", "-q"]);
            }
            13 => drop(git_may(&at, &["stash", "pop", "-q"])),
            14 => drop(git_may(&at, &["-c", "gc.reflogExpire=now", "gc", "-q", "--prune=now"])),
            15 => drop(git_may(&at, &["repack", "-q", "-a", "-d"])),
            16 | 17 => {
                // What is there now is published when this returns, unless git is in the middle of something.
                let now = tips(&at);
                m.wait();
                if m.cli(&["git", "status"]).ok().stdout.contains("carried") {
                    published.extend(now);
                }
            }
            18 => {
                m.kill();
                m.mount();
            }
            _ => std::thread::sleep(Duration::from_millis(rng.u64(..2500))),
        }
    }
    // At rest: what git was killed in is ended by the user.
    for who in 0..2 {
        let at = repo(who);
        for lock in ["index.lock", "HEAD.lock", "packed-refs.lock", "refs/stash.lock", "gc.pid"] {
            let _ = fs::remove_file(at.join(".git").join(lock));
        }
        for what in [["rebase", "--abort"], ["merge", "--abort"], ["reset", "--hard"]] {
            git_may(&at, &what);
        }
    }
    let all: Vec<String> = (0..2).flat_map(|who| tips(&repo(who))).chain(published).collect();
    for who in 0..2 {
        machines[who].wait();
        let at = repo(who);
        let left = || all.iter().find(|c| !leads_to(&at, c));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| until("all arrive", SOON, || left().is_none().then_some(()))));
        let told = machines[who].cli(&["git", "status"]).text();
        assert!(done.is_ok(), "{} lost {:?}\n{told}\n{}", ["ann", "bob"][who], left(), git_may(&at, &["for-each-ref"]).1);
        let (ok, text) = git_may(&at, &["fsck", "--full"]);
        assert!(ok && !text.contains("error") && !text.contains("missing"), "{text}");
    }
}
