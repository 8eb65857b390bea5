//! Git repositories as one unit, between plain directories: what is packed on one side is there on the other.
//!
//! The worktree is copied as the drive carries it; here it is the repository that is looked at.
#![allow(clippy::unwrap_used)] // a failed call is a failed test

mod common;

use common::count;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};
use tcfs::fleet::git::{From, Looked, Packing, State, Told, look, pack, published, recover, take};

/// A machine with one repository.
struct Side {
    name: &'static str,
    work: PathBuf,
    scratch: PathBuf,
    n: u32,
}

/// What travels.
struct Parcel {
    bundle: Vec<u8>,
    told: Told,
    from: &'static str,
}

impl Side {
    fn new(dir: &Path, name: &'static str) -> Side {
        let (work, scratch) = (dir.join(name).join("repo"), dir.join(name).join("scratch"));
        fs::create_dir_all(&work).unwrap();
        fs::create_dir_all(&scratch).unwrap();
        Side { name, work, scratch, n: 0 }
    }

    fn git_may(&self, args: &[&str]) -> (bool, String) {
        let mut c = Command::new("git");
        c.current_dir(&self.work)
            .args(["-c", "user.name=n", "-c", "user.email=a@b", "-c", "gc.auto=0", "-c", "commit.gpgsign=false"])
            .args(args);
        c.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null").env("GIT_EDITOR", "true");
        let out = c.output().unwrap();
        (out.status.success(), format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)))
    }

    #[track_caller]
    fn git(&self, args: &[&str]) -> String {
        let (ok, text) = self.git_may(args);
        assert!(ok, "{}: git {args:?}\n{text}", self.name);
        text
    }

    fn write(&self, path: &str, text: &str) {
        let at = self.work.join(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, text).unwrap();
    }

    fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }

    fn room(&mut self) -> PathBuf {
        self.n += 1;
        let dir = self.scratch.join(self.n.to_string());
        fs::create_dir(&dir).unwrap();
        dir
    }

    /// Packs, and takes it for published.
    fn parcel(&mut self) -> Option<Parcel> {
        recover(&self.work, SystemTime::now()).unwrap();
        let room = self.room();
        let Looked::Ready(repo) = look(&self.work).unwrap() else { return None };
        let Packing::Done(p) = pack(&repo, &room).unwrap() else { return None };
        published(&repo, &p).unwrap();
        let parcel = Parcel { bundle: fs::read(&p.bundle).unwrap(), told: p.told.clone(), from: self.name };
        fs::remove_dir_all(room).unwrap();
        Some(parcel)
    }

    /// A process takes it and is killed on the way.
    fn take_and_die(&mut self, p: &Parcel, after: Duration) {
        let room = self.room();
        fs::write(room.join("parcel"), &p.bundle).unwrap();
        fs::write(room.join("told"), serde_json::to_vec(&p.told).unwrap()).unwrap();
        fs::create_dir(room.join("scratch")).unwrap();
        let mut c = Command::new(std::env::current_exe().unwrap());
        c.args(["--ignored", "--exact", "a_process_that_takes"]).env("TAKE_WORK", &self.work).env("TAKE_ROOM", &room);
        let mut child = c.env("TAKE_FROM", p.from).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().unwrap();
        std::thread::sleep(after);
        // And the git that it runs with it.
        let group = rustix::process::Pid::from_child(&child);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        child.wait().unwrap();
        fs::remove_dir_all(room).unwrap();
    }

    fn take(&mut self, p: &Parcel) -> tcfs::Result<Vec<String>> {
        recover(&self.work, SystemTime::now()).unwrap();
        let room = self.room();
        let bundle = room.join("bundle");
        fs::write(&bundle, &p.bundle).unwrap();
        let done = take(&self.work, &bundle, &p.told, From { id: p.from, name: p.from, published: true }, &room);
        fs::remove_dir_all(room).unwrap();
        done
    }

    /// The files, as the drive brings them.
    fn files_from(&self, other: &Side) {
        let script = "cd \"$1\" && find . -mindepth 1 -maxdepth 1 ! -name .git -exec rm -rf {} + && cd \"$2\" && \
            find . -mindepth 1 -maxdepth 1 ! -name .git -exec cp -a -t \"$1\" {} +";
        let done = Command::new("sh").args(["-ec", script, "sh"]).arg(&self.work).arg(&other.work).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn fsck(&self) {
        let (ok, text) = self.git_may(&["fsck", "--full", "--strict"]);
        assert!(ok && !text.contains("error") && !text.contains("missing"), "{}: {text}", self.name);
    }

    /// What a person sees of it.
    fn seen(&self) -> Vec<String> {
        let index = self.git(&["ls-files", "-s"]);
        let refs = self.git(&["for-each-ref", "--format=%(refname) %(objectname)"]);
        let refs = refs.lines().filter(|l| !l.starts_with("refs/tcfs/")).collect::<Vec<_>>().join("\n");
        let head = self.git_may(&["symbolic-ref", "HEAD"]).1;
        // Of commits of one second any may be the first.
        let log = self.git(&["log", "--all", "--format=%H %an %s"]);
        let mut log: Vec<&str> = log.lines().collect();
        log.sort_unstable();
        vec![log.join("\n"), self.git(&["stash", "list"]), self.git(&["status", "--porcelain"]), index, refs, head]
    }

    fn has(&self, commit: &str) -> bool {
        let named = self.git(&["for-each-ref", "--format=%(objectname)"]);
        let tips: Vec<&str> = named.lines().collect();
        let stashes = self.git(&["log", "-g", "--format=%H", "--all"]);
        tips.iter().chain(&["HEAD"]).any(|t| self.git_may(&["merge-base", "--is-ancestor", commit, t]).0) || stashes.contains(commit)
    }
}

/// A repository with everything in it.
fn rich(a: &Side) {
    a.git(&["init", "-q", "-b", "main"]);
    a.git(&["remote", "add", "origin", "https://user:secret@example.org/x.git"]);
    for i in 0..count(30, 1000) {
        a.write(&format!("src/f{}", i % 40), &format!("text {i}\n"));
        a.commit(&format!("commit {i}"));
    }
    a.write("run.sh", "#!/bin/sh\n");
    fs::set_permissions(a.work.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("src/f1", a.work.join("link")).unwrap();
    a.write(".gitignore", "ignored\n");
    a.commit("more");
    for b in ["one", "two/deep", "three", "four"] {
        a.git(&["branch", b, "HEAD~3"]);
    }
    a.git(&["tag", "light"]);
    a.git(&["tag", "-a", "-m", "told", "heavy", "HEAD~2"]);
    a.git(&["notes", "add", "-m", "a note", "HEAD~1"]);
    a.git(&["config", "branch.main.remote", "origin"]);
    a.git(&["config", "branch.main.merge", "refs/heads/main"]);
    a.git(&["update-ref", "refs/remotes/origin/main", "HEAD~1"]);
    for n in 1..3 {
        a.write("src/f1", &format!("stashed {n}\n"));
        a.git(&["stash", "push", "-q", "-m", &format!("stash {n}")]);
    }
    a.write("src/f2", "staged\n");
    a.git(&["add", "src/f2"]);
    a.write("src/f2", "staged, and changed again\n");
    a.write("src/f3", "unstaged\n");
    a.git(&["rm", "-q", "--cached", "src/f4"]);
    fs::remove_file(a.work.join("src/f5")).unwrap();
    a.write("untracked", "u");
    a.write("ignored", "i");
}

#[test]
fn a_repository_roams_and_comes_back_as_it_was() {
    let t = tempfile::tempdir().unwrap();
    let (mut a, mut b, mut c) = (Side::new(t.path(), "ann"), Side::new(t.path(), "bob"), Side::new(t.path(), "cid"));
    rich(&a);
    let first = a.parcel().unwrap();
    assert!(a.parcel().is_none(), "nothing is new");
    for side in [&mut b, &mut c] {
        side.files_from(&a);
        assert_eq!(side.take(&first).unwrap(), Vec::<String>::new());
        assert_eq!(side.seen(), a.seen());
        side.fsck();
        assert!(side.parcel().is_none(), "what was taken is known to be there");
        assert_eq!(side.git(&["config", "remote.origin.url"]).trim(), "https://example.org/x.git");
        assert!(!side.work.join(".git/hooks").exists());
    }
    // On from there on another machine, and back.
    b.git(&["stash", "drop", "-q", "stash@{1}"]);
    b.git(&["commit", "-q", "-m", "on bob"]);
    b.git(&["switch", "-q", "-c", "new"]);
    b.write("src/new", "new\n");
    b.git(&["add", "src/new"]);
    b.git(&["branch", "-D", "four"]);
    b.git(&["tag", "later"]);
    let second = b.parcel().unwrap();
    for side in [&mut a, &mut c] {
        side.files_from(&b);
        assert_eq!(side.take(&second).unwrap(), Vec::<String>::new());
        assert_eq!(side.seen(), b.seen());
        side.fsck();
    }
    // A detached HEAD.
    c.git(&["stash", "push", "-q", "-u"]);
    c.git(&["checkout", "-q", "HEAD~4"]);
    let third = c.parcel().unwrap();
    a.files_from(&c);
    a.take(&third).unwrap();
    assert_eq!(a.seen(), c.seen());
    a.fsck();
}

/// Two machines that have a repository of one commit in common.
fn pair(dir: &Path) -> (Side, Side) {
    let (mut a, mut b) = (Side::new(dir, "ann"), Side::new(dir, "bob"));
    a.git(&["init", "-q", "-b", "main"]);
    a.write("f", "one\n");
    a.commit("one");
    let p = a.parcel().unwrap();
    b.files_from(&a);
    b.take(&p).unwrap();
    (a, b)
}

#[test]
fn what_both_sides_did_is_on_both_sides() {
    let t = tempfile::tempdir().unwrap();
    let (mut a, mut b) = pair(t.path());
    // A commit on each, apart.
    a.write("a", "a");
    let on_a = a.commit("on ann");
    b.write("b", "b");
    let on_b = b.commit("on bob");
    let (pa, pb) = (a.parcel().unwrap(), b.parcel().unwrap());
    let notes = b.take(&pa).unwrap();
    assert!(notes.len() == 1 && notes[0].contains("refs/tcfs/ann/heads/main") && notes[0].contains("both sides went on"), "{notes:?}");
    a.take(&pb).unwrap();
    for s in [&a, &b] {
        assert!(s.has(&on_a) && s.has(&on_b));
        s.fsck();
    }
    assert_eq!((a.git(&["rev-parse", "main"]).trim(), b.git(&["rev-parse", "main"]).trim()), (on_a.as_str(), on_b.as_str()));
    // One of them joins the two; the other goes forward, and nothing is left beside.
    b.git(&["merge", "-q", "--no-edit", "refs/tcfs/ann/heads/main"]);
    let p = b.parcel().unwrap();
    a.files_from(&b);
    assert_eq!(a.take(&p).unwrap(), Vec::<String>::new());
    assert_eq!(a.git(&["rev-parse", "main"]), b.git(&["rev-parse", "main"]));
    assert_eq!(a.git(&["status", "--porcelain"]), "");
    a.fsck();
    // A commit that was published and then rewritten stays reachable on both.
    a.git(&["commit", "-q", "--amend", "-m", "rewritten"]);
    let old = b.git(&["rev-parse", "main"]).trim().to_owned();
    let p = a.parcel().unwrap();
    assert_eq!(b.take(&p).unwrap(), Vec::<String>::new());
    assert_eq!(a.git(&["rev-parse", "main"]), b.git(&["rev-parse", "main"]), "nobody here had gone on from the old one");
    assert!(a.has(&old) && b.has(&old));
    // What is staged or stashed here is not touched.
    b.write("f", "staged here\n");
    b.git(&["add", "f"]);
    a.write("g", "g");
    a.commit("g");
    b.write("h", "h");
    b.git(&["stash", "push", "-q", "-u", "--", "h"]);
    a.write("f", "stashed there\n");
    a.git(&["stash", "push", "-q"]);
    let p = a.parcel().unwrap();
    fs::copy(a.work.join("g"), b.work.join("g")).unwrap();
    let notes = b.take(&p).unwrap();
    assert!(notes.iter().any(|n| n.contains("stash 0 of ann")), "{notes:?}");
    assert_eq!(b.git(&["status", "--porcelain"]), "M  f\n");
    assert_eq!(b.git(&["rev-parse", "main"]), a.git(&["rev-parse", "main"]));
    assert!(b.git(&["stash", "list"]).lines().count() == 1 && b.git(&["show", "--stat", "refs/tcfs/ann/stash/0"]).contains("f"));
    // A branch does not go forward under files that are changed here.
    a.write("g", "changed in a commit");
    let on_a = a.commit("g again");
    b.write("g", "changed here");
    let p = a.parcel().unwrap();
    let notes = b.take(&p).unwrap();
    assert!(notes.iter().any(|n| n.contains("files of it are changed here")), "{notes:?}");
    assert!(b.has(&on_a) && fs::read_to_string(b.work.join("g")).unwrap() == "changed here");
    b.fsck();
}

#[test]
fn what_cannot_be_carried_is_named_and_left_alone() {
    let t = tempfile::tempdir().unwrap();
    let a = Side::new(t.path(), "ann");
    a.git(&["init", "-q", "-b", "main"]);
    a.write("f", "x");
    a.commit("one");
    let of = |name: &'static str, make: &dyn Fn(&Side)| {
        let s = Side::new(t.path(), name);
        make(&s);
        let before = tree(&s.work);
        let why = match look(&s.work).unwrap() {
            Looked::Refused(r) => r.0,
            Looked::Busy(b) => format!("busy: {}", b.0),
            Looked::Ready(_) => "ready".to_owned(),
        };
        assert_eq!(tree(&s.work), before, "{name} was touched");
        why
    };
    let source = a.work.display().to_string();
    let clone = |s: &Side, args: &[&str]| {
        fs::remove_dir(&s.work).unwrap();
        let at = s.work.display().to_string();
        let mut all = vec!["-c", "protocol.file.allow=always", "clone", "-q"];
        all.extend(args);
        all.push(&at);
        let done = Command::new("git").args(&all).current_dir(s.work.parent().unwrap()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let url = format!("file://{source}");
    for (name, word, make) in [
        (
            "shallow",
            "shallow",
            Box::new(|s: &Side| {
                a.write("f", "y");
                a.commit("two");
                clone(s, &["--depth=1", &url]);
            }) as Box<dyn Fn(&Side)>,
        ),
        ("shared", "borrows", Box::new(|s: &Side| clone(s, &["--shared", &source]))),
        ("partial", "partial", Box::new(|s: &Side| clone(s, &["--filter=blob:none", "-c", "remote.origin.promisor=true", &url]))),
        (
            "submodule",
            "submodules",
            Box::new(|s: &Side| {
                clone(s, &[&source]);
                s.git(&["-c", "protocol.file.allow=always", "submodule", "add", "-q", &url, "sub"]);
            }),
        ),
        (
            "worktree",
            "linked worktrees",
            Box::new(|s: &Side| {
                clone(s, &[&source]);
                s.git(&["worktree", "add", "-q", "../linked", "HEAD"]);
            }),
        ),
        ("linked", "is a file", Box::new(|s: &Side| s.write(".git", "gitdir: /nowhere\n"))),
        (
            "sparse",
            "sparse",
            Box::new(|s: &Side| {
                clone(s, &[&source]);
                s.git(&["sparse-checkout", "set", "--no-cone", "f"]);
            }),
        ),
        ("sha256", "another hash", Box::new(|s: &Side| drop(s.git(&["init", "-q", "--object-format=sha256"])))),
        (
            "lfs",
            "LFS",
            Box::new(|s: &Side| {
                clone(s, &[&source]);
                fs::create_dir(s.work.join(".git/lfs")).unwrap();
            }),
        ),
        (
            "lock",
            "busy: index.lock",
            Box::new(|s: &Side| {
                clone(s, &[&source]);
                s.write(".git/index.lock", "");
            }),
        ),
        (
            "reflock",
            "busy: main.lock",
            Box::new(|s: &Side| {
                clone(s, &[&source]);
                s.write(".git/refs/heads/main.lock", "");
            }),
        ),
        (
            "merge",
            "busy: a merge",
            Box::new(|s: &Side| {
                clone(s, &[&source]);
                s.git(&["checkout", "-q", "-b", "x", "HEAD~1"]);
                s.write("f", "z");
                s.commit("other");
                assert!(!s.git_may(&["merge", "main"]).0);
            }),
        ),
        (
            "rebase",
            "busy: a rebase",
            Box::new(|s: &Side| {
                clone(s, &[&source]);
                s.git(&["checkout", "-q", "-b", "x", "HEAD~1"]);
                s.write("f", "z");
                s.commit("other");
                assert!(!s.git_may(&["rebase", "main"]).0);
            }),
        ),
        (
            "bisect",
            "busy: a bisect",
            Box::new(|s: &Side| {
                clone(s, &[&source]);
                s.git(&["bisect", "start"]);
            }),
        ),
    ] {
        let why = of(name, &*make);
        assert!(why.contains(word), "{name}: {why}");
    }
}

/// Every path below with its bytes.
fn tree(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut out, mut todo) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(d) = todo.pop() {
        for e in fs::read_dir(d).unwrap().map(|e| e.unwrap().path()) {
            if e.is_dir() { todo.push(e) } else { out.push((e.clone(), fs::read(&e).unwrap_or_default())) }
        }
    }
    out.sort();
    out
}

/// Bytes from the store and what is told with them may be anything.
#[test]
fn a_hostile_bundle_is_refused_and_changes_nothing() {
    let t = tempfile::tempdir().unwrap();
    let (mut a, mut b) = (Side::new(t.path(), "ann"), Side::new(t.path(), "bob"));
    a.git(&["init", "-q", "-b", "main"]);
    a.write("f", "x");
    a.commit("one");
    let good = a.parcel().unwrap();
    b.files_from(&a);
    b.take(&good).unwrap();
    let before = b.seen();
    a.write("f", "y");
    a.commit("two");
    let next = a.parcel().unwrap();
    let mut cut = Parcel { bundle: next.bundle[..next.bundle.len() - 30].to_vec(), told: next.told.clone(), from: "ann" };
    assert!(b.take(&cut).is_err());
    cut.bundle = b"# v2 git bundle\nnonsense".to_vec();
    assert!(b.take(&cut).is_err());
    let bad = |change: &dyn Fn(&mut State)| {
        let mut told = next.told.clone();
        change(&mut told.state);
        Parcel { bundle: next.bundle.clone(), told, from: "ann" }
    };
    let id = next.told.state.refs["refs/heads/main"].clone();
    for (what, p) in [
        ("a ref outside", bad(&|s| drop(s.refs.insert("refs/../../config".into(), id.clone())))),
        ("a ref of ours", bad(&|s| drop(s.refs.insert("refs/tcfs/bob/x".into(), id.clone())))),
        ("an option", bad(&|s| drop(s.refs.insert("--exec=x".into(), id.clone())))),
        ("an id", bad(&|s| drop(s.refs.insert("refs/heads/x".into(), "--help".into())))),
        ("a head", bad(&|s| s.head = "-x".into())),
        ("a command for a URL", bad(&|s| s.config.push(("remote.x.url".into(), "ext::sh -c evil".into())))),
        ("another setting", bad(&|s| s.config.push(("core.hooksPath".into(), "/tmp".into())))),
        ("a remote's command", bad(&|s| s.config.push(("remote.x.uploadpack".into(), "evil".into())))),
        ("a line in a message", bad(&|s| s.stash.push((id.clone(), "a\nb".into())))),
    ] {
        let e = b.take(&p).err().unwrap_or_else(|| panic!("{what} was taken"));
        assert_eq!(e.kind(), tcfs::error::Kind::Corrupt, "{what}");
    }
    // A ref whose commit is not in the bundle.
    assert!(b.take(&bad(&|s| drop(s.refs.insert("refs/heads/none".into(), "1".repeat(40))))).is_err());
    let refs = |seen: Vec<String>| seen[4].clone();
    assert_eq!(refs(b.seen()), refs(before));
    b.fsck();
    b.take(&next).unwrap();
    b.fsck();
}

/// Whatever is done on two sides, and whenever it travels: both are sound, and no commit that was published is lost.
#[test]
fn any_commands_on_two_sides_lose_no_published_commit() {
    for round in 0..count(3, 60) {
        let t = tempfile::tempdir().unwrap();
        let mut sides = [Side::new(t.path(), "ann"), Side::new(t.path(), "bob")];
        let mut rng = common::rng();
        sides[0].git(&["init", "-q", "-b", "main"]);
        sides[0].write("f0", "first\n");
        sides[0].commit("first");
        let mut sent: [Option<Parcel>; 2] = [sides[0].parcel(), None];
        let mut ever: Vec<(usize, String)> = Vec::new();
        let note = |from: usize, p: &Parcel, ever: &mut Vec<(usize, String)>| {
            ever.extend(p.told.state.refs.iter().filter(|(n, _)| n.starts_with("refs/heads/")).map(|(_, id)| (from, id.clone())));
        };
        note(0, sent[0].as_ref().unwrap(), &mut ever);
        let first = sent[0].take().unwrap();
        sides[1].take(&first).unwrap();
        sides[1].git(&["reset", "-q", "--hard"]);
        let mut taken: Vec<(usize, String)> = vec![];
        let mut late: [Option<Parcel>; 2] = [None, None];
        for step in 0..count(40, 60) {
            let who = rng.usize(..2);
            let s = &mut sides[who];
            let branch = ["main", "x", "y"][rng.usize(..3)];
            match rng.u32(..16) {
                0..=3 => {
                    s.write(&format!("f{}", rng.u32(..4)), &format!("{round} {step}\n"));
                    s.git_may(&["add", "-A"]);
                    s.git_may(&["commit", "-q", "-m", &format!("{step}")]);
                }
                4 => drop(s.git_may(&["commit", "-q", "--amend", "--allow-empty", "-m", &format!("amended {step}")])),
                5 => drop(s.git_may(&["reset", "-q", "--hard", "HEAD~1"])),
                6 => drop(s.git_may(&["checkout", "-q", "-B", branch])),
                7 => drop(s.git_may(&["checkout", "-q", branch])),
                8 => drop(s.git_may(&["branch", "-D", branch])),
                9 => {
                    if !s.git_may(&["merge", "-q", "--no-edit", branch]).0 {
                        s.git_may(&["merge", "--abort"]);
                    }
                }
                10 => {
                    if !s.git_may(&["rebase", "-q", branch]).0 {
                        s.git_may(&["rebase", "--abort"]);
                    }
                }
                11 => {
                    s.write("f0", &format!("stashed {step}\n"));
                    s.git_may(&["stash", "push", "-q"]);
                }
                12 => drop(s.git_may([["stash", "pop", "-q"], ["stash", "drop", "-q"]][rng.usize(..2)].as_slice())),
                13 => drop(s.git_may(&["-c", "gc.reflogExpire=now", "gc", "-q", "--prune=now"])),
                _ => {
                    if let Some(p) = s.parcel() {
                        note(who, &p, &mut ever);
                        late[who] = None;
                        let other = &mut sides[1 - who];
                        if rng.u32(..3) == 0 {
                            other.take_and_die(&p, Duration::from_millis(rng.u64(..120)));
                        }
                        match other.take(&p) {
                            Ok(_) => taken.extend(p.told.state.refs.values().map(|id| (1 - who, id.clone()))),
                            Err(e) => {
                                assert!(e.kind() == tcfs::error::Kind::Busy, "{e}");
                                late[who] = Some(p);
                                continue;
                            }
                        }
                    }
                }
            }
        }
        // Until none has anything to tell.
        for turn in 0.. {
            assert!(turn < 10, "round {round}: they tell each other the same for ever");
            let mut told = false;
            for s in &sides {
                s.git_may(&["reset", "-q", "--hard"]);
            }
            for who in 0..2 {
                // One that came while git was at work is tried again, unless there is a newer one.
                let Some(p) = sides[who].parcel().or(late[who].take()) else { continue };
                note(who, &p, &mut ever);
                late[who] = None;
                sides[1 - who].take(&p).unwrap();
                taken.extend(p.told.state.refs.values().map(|id| (1 - who, id.clone())));
                told = true;
            }
            if !told {
                break;
            }
        }
        for s in &sides {
            s.fsck();
        }
        let heads = |s: &Side| s.git(&["for-each-ref", "--format=%(objectname)", "refs/heads"]);
        for (of, on) in [(0, 1), (1, 0)] {
            for id in heads(&sides[of]).lines() {
                assert!(sides[on].has(id), "round {round}: {id} of {} never came to {}", sides[of].name, sides[on].name);
            }
        }
        for (who, id) in
            ever.iter().chain(taken.iter().filter(|(w, id)| sides[*w].git_may(&["cat-file", "-e", &format!("{id}^{{commit}}")]).0))
        {
            assert!(sides[*who].has(id), "round {round}: {} lost {id}\n{}", sides[*who].name, sides[*who].git(&["for-each-ref"]));
        }
    }
}

#[test]
#[ignore = "a part of `any_commands_on_two_sides_lose_no_published_commit`, which runs it"]
fn a_process_that_takes() {
    let var = |n: &str| std::env::var(n).unwrap();
    let (work, room, from) = (PathBuf::from(var("TAKE_WORK")), PathBuf::from(var("TAKE_ROOM")), var("TAKE_FROM"));
    let told = serde_json::from_slice(&fs::read(room.join("told")).unwrap()).unwrap();
    let from = From { id: &from, name: &from, published: true };
    let _ = take(&work, &room.join("parcel"), &told, from, &room.join("scratch"));
}

/// The index follows whatever the drive has brought of the files before: git by itself takes files that are newer than the
/// index for changes of the user's.
#[test]
fn the_index_follows_although_the_files_came_first() {
    let t = tempfile::tempdir().unwrap();
    let (mut a, mut b) = pair(t.path());
    a.write("f", "staged\n");
    a.git(&["add", "f"]);
    let p = a.parcel().unwrap();
    b.files_from(&a);
    assert_eq!(b.take(&p).unwrap(), Vec::<String>::new());
    assert_eq!((b.git(&["status", "--porcelain"]).as_str(), b.seen()), ("M  f\n", a.seen()));
    // A process that takes stopped after the branch went forward, before the index did.
    a.write("f", "committed\n");
    a.write("g", "new\n");
    let on_a = a.commit("more");
    let p = a.parcel().unwrap();
    b.files_from(&a);
    let bundle = b.room().join("bundle");
    fs::write(&bundle, &p.bundle).unwrap();
    b.git(&["fetch", "-q", bundle.to_str().unwrap(), "refs/heads/main"]);
    b.git(&["update-ref", "refs/heads/main", &on_a]);
    assert_eq!(b.git(&["status", "--porcelain"]), "MM f\nD  g\n?? g\n");
    assert_eq!(b.take(&p).unwrap(), Vec::<String>::new());
    assert_eq!((b.git(&["status", "--porcelain"]).as_str(), b.seen()), ("", a.seen()));
    b.fsck();
}

#[test]
fn what_was_done_before_a_bundle_came_is_published_all_the_same() {
    let t = tempfile::tempdir().unwrap();
    let (mut a, mut b) = pair(t.path());
    assert!(b.parcel().is_none(), "all of it came from ann");
    a.write("a", "a");
    a.commit("on ann");
    let p = a.parcel().unwrap();
    b.write("b", "b");
    let on_b = b.commit("on bob");
    b.take(&p).unwrap();
    let p = b.parcel().expect("bob's commit is not published");
    a.take(&p).unwrap();
    assert!(a.has(&on_b));
    assert!(a.parcel().is_none(), "and it goes back and forth no more");
}

#[test]
fn who_takes_only_the_last_bundle_has_what_those_before_it_had() {
    let t = tempfile::tempdir().unwrap();
    let ((mut a, mut b), mut c) = (pair(t.path()), Side::new(t.path(), "cid"));
    a.write("a", "a");
    let on_a = a.commit("on ann");
    let first = a.parcel().unwrap();
    a.git(&["commit", "-q", "--amend", "-m", "rewritten"]);
    a.git(&["-c", "gc.reflogExpire=now", "gc", "-q", "--prune=now"]);
    assert!(a.has(&on_a), "it was published");
    let second = a.parcel().unwrap();
    let rewritten = a.git(&["rev-parse", "HEAD"]).trim().to_owned();
    // Bob was away and never saw the first.
    b.write("b", "b");
    let on_b = b.commit("on bob");
    b.take(&second).unwrap();
    assert!(b.has(&on_a) && b.has(&rewritten));
    // A third machine joins when only bob's is left, which took the place of ann's.
    let p = b.parcel().unwrap();
    c.files_from(&b);
    c.take(&p).unwrap();
    for (commit, what) in [(&on_a, "on ann"), (&rewritten, "rewritten"), (&on_b, "on bob")] {
        assert!(c.has(commit), "{what}");
    }
    c.fsck();
    assert!(first.told.state != second.told.state && c.parcel().is_none());
}
