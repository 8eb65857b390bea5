//! Real trees and the programs people run over them: cp, diff, git, cargo, sqlite, rsync, tar, editors.
//!
//! The number of files is 2,000 in a quick run and at least 20,000 with `TCFS_SLOW=1`.
#![allow(clippy::unwrap_used)] // a failed call is a failed test

mod common;

use common::{Mounted, World, cli, count, tools, tree};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Duration;

const BULK: Duration = Duration::from_secs(900);

#[test]
fn source_tree_survives_copying_remounting_and_a_second_machine() {
    let w = World::new();
    let a = w.mount("ann");
    let src = w.dir().join("src");
    fs::create_dir(&src).unwrap();
    tree::sources(&src, count(2_000, 20_000));
    let want = tree::scan(&src);
    println!("{} paths, {} MB", want.len(), want.values().map(|n| n.size).sum::<u64>() / 1_000_000);

    let copy = cli::run(Command::new("cp").arg("-a").arg(&src).arg(a.root()), BULK).ok();
    println!("cp -a took {:?}", copy.took);
    cli::run(Command::new("diff").arg("-r").arg("--no-dereference").arg(&src).arg(a.path("src")), BULK).ok();
    tree::assert_same("just copied", &want, &tree::scan(&a.path("src")));
    // Not published yet in part or whole: the next mount must have it all the same.
    a.remount();
    tree::assert_same("after a remount", &want, &tree::scan(&a.path("src")));
    a.wait();
    tree::assert_same("published", &want, &tree::scan(&a.path("src")));
    a.remount();
    cli::run(Command::new("diff").arg("-r").arg("--no-dereference").arg(&src).arg(a.path("src")), BULK).ok();

    let b = w.mount("bob");
    tree::assert_same("on a second machine with an empty cache", &want, &tree::scan(&b.path("src")));
    b.remount();
    tree::assert_same("there again after a remount", &want, &tree::scan(&b.path("src")));
    // And back: what the second machine removes and moves is what the first sees.
    fs::rename(b.path("src/odd"), b.path("moved")).unwrap();
    b.wait();
    let moved = tree::scan(&b.path("moved"));
    common::until("the move arrives", Duration::from_secs(30), || (a.path("moved").exists() && !a.path("src/odd").exists()).then_some(()));
    tree::assert_same("moved", &moved, &tree::scan(&a.path("moved")));
}

#[test]
fn git_repository_is_made_committed_and_checked() {
    let m = Mounted::new();
    let repo = m.path("repo");
    fs::create_dir(&repo).unwrap();
    tree::sources(&repo, count(500, 20_000));
    // Files nobody may read, and set-id bits, are not git's business.
    cli::sh(&repo, "chmod -R u+rw .", &[]).ok();
    let git = |script: &str| cli::run(Command::new("sh").arg("-ec").arg(script).current_dir(&repo), BULK).ok();
    git("git init -q . && git config user.name t && git config user.email t@example.org && git config gc.auto 0");
    git("git add -A && git commit -q -m one && git fsck --full --strict");
    assert_eq!(git("git status --porcelain").stdout, "");
    git("echo changed >>odd/mode-644; git mv odd/names moved-names; git rm -q odd/empty-1; git commit -q -a -m two");
    git(
        "git checkout -q -b other HEAD~1 && echo x >new && git add new && git commit -q -m three && git merge -q -m merge master || git merge -q -m merge main",
    );
    git("git gc -q --prune=now && git fsck --full --strict && git stash list && git clone -q . ../clone && git -C ../clone fsck --full");
    assert_eq!(git("git status --porcelain").stdout, "");
    m.wait();
    m.remount();
    git("git fsck --full --strict");
    assert_eq!(git("git status --porcelain").stdout, "");
    assert_eq!(git("git rev-parse HEAD").stdout, git("git -C ../clone rev-parse HEAD").stdout);
}

#[test]
fn cargo_builds_a_small_crate() {
    let m = Mounted::new();
    let dir = m.path("small");
    fs::create_dir_all(dir.join("src")).unwrap();
    fs::write(dir.join("Cargo.toml"), "[package]\nname = \"small\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n").unwrap();
    fs::write(dir.join("src/main.rs"), "mod part;\nfn main() { println!(\"{}\", part::answer()); }\n").unwrap();
    fs::write(dir.join("src/part.rs"), "pub fn answer() -> u32 { 41 }\n").unwrap();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = || {
        let mut c = Command::new(&cargo);
        c.args(["run", "--offline", "-q"]).current_dir(&dir).env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
        cli::run(&mut c, BULK).ok().stdout
    };
    assert_eq!(build(), "41\n");
    // A change must be noticed by its time alone, and the incremental state of the first build must have stayed whole.
    fs::write(dir.join("src/part.rs"), "pub fn answer() -> u32 { 42 }\n").unwrap();
    assert_eq!(build(), "42\n");
    m.remount();
    assert_eq!(build(), "42\n");
}

#[test]
fn sqlite_database_is_written_and_whole() {
    let m = Mounted::new();
    let sqlite = tools::find("sqlite3");
    let db = m.path("data.db");
    let sql = |text: &str| cli::run(Command::new(&sqlite).arg(&db).arg(text), BULK).ok().stdout;
    for mode in ["delete", "wal"] {
        sql(&format!("PRAGMA journal_mode={mode}; CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, mode TEXT, body BLOB);"));
        sql(&format!(
            "BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<5000) INSERT INTO t(mode,body) SELECT '{mode}', randomblob(200+i%700) FROM n; COMMIT;"
        ));
        sql("UPDATE t SET body=randomblob(300) WHERE id%7=0; DELETE FROM t WHERE id%11=0;");
        assert_eq!(sql("PRAGMA integrity_check;"), "ok\n", "{mode}");
    }
    // Two writers at a time: locks decide, nothing tears.
    std::thread::scope(|s| {
        for t in 0..2 {
            let (sqlite, db) = (&sqlite, &db);
            s.spawn(move || {
                for i in 0..40 {
                    let text = format!(".timeout 60000\nINSERT INTO t(mode,body) VALUES('thread{t}', randomblob({i}));");
                    let mut c = Command::new(sqlite);
                    cli::run(c.arg(db).arg("-cmd").arg(".timeout 60000").arg(text.lines().last().unwrap()), BULK).ok();
                }
            });
        }
    });
    assert_eq!(sql("SELECT count(*) FROM t WHERE mode LIKE 'thread%'; PRAGMA integrity_check;"), "80\nok\n");
    let rows = sql("SELECT count(*), sum(length(body)) FROM t; PRAGMA wal_checkpoint(TRUNCATE);");
    m.wait();
    m.remount();
    assert_eq!(sql("PRAGMA integrity_check;"), "ok\n");
    assert_eq!(rows.lines().next(), sql("SELECT count(*), sum(length(body)) FROM t;").lines().next());
}

/// The ways editors save, each a shell script that leaves `$1` in the file `f` beside a neighbour.
const SAVES: [(&str, &str); 5] = [
    ("in place", "printf %s \"$1\" >f"),
    ("write aside, rename over", "printf %s \"$1\" >f.tmp1234; mv -f f.tmp1234 f"),
    ("vim: backup by rename, new file, remove the backup", "mv f f~; printf %s \"$1\" >f; chmod 644 f; rm f~"),
    ("emacs: backup by copy, in place", "cp -p f f~; printf %s \"$1\" >f"),
    (
        "gedit: aside with the same mode, fsync, rename",
        "cp -p f .goutputstream-X; printf %s \"$1\" >.goutputstream-X; sync .goutputstream-X; mv .goutputstream-X f",
    ),
];

#[test]
fn every_way_editors_save_leaves_the_new_text_here_and_elsewhere() {
    let w = World::new();
    let a = w.mount("ann");
    for (i, (how, script)) in SAVES.iter().enumerate() {
        let dir = a.path(format!("case{i}"));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("f"), "first").unwrap();
        a.wait();
        for round in 0..3 {
            let text = format!("text {round} saved by {how}");
            cli::sh(&dir, script, &[text.as_ref()]).ok();
            assert_eq!(fs::read_to_string(dir.join("f")).unwrap(), text, "{how}");
        }
    }
    a.wait();
    a.remount();
    let b = w.mount("bob");
    for (i, (how, _)) in SAVES.iter().enumerate() {
        let want = format!("text 2 saved by {how}");
        assert_eq!(fs::read_to_string(a.path(format!("case{i}/f"))).unwrap(), want);
        assert_eq!(fs::read_to_string(b.path(format!("case{i}/f"))).unwrap(), want);
        let siblings: Vec<_> =
            fs::read_dir(b.path(format!("case{i}"))).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        assert!(siblings.iter().all(|n| n == "f" || n == "f~"), "{how}: {siblings:?}");
    }
}

#[test]
fn vim_itself_saves() {
    let m = Mounted::new();
    let vim = tools::find("vim");
    fs::write(m.path("f.txt"), "one\n").unwrap();
    for (i, backup) in ["yes", "no", "auto"].into_iter().enumerate() {
        let mut c = Command::new(&vim);
        c.args(["-u", "NONE", "-i", "NONE", "-es", "-c", &format!("set backupcopy={backup} writebackup swapfile fsync")]);
        c.args(["-c", &format!("normal Goline {i}"), "-c", "wq", "f.txt"]).current_dir(m.root()).env("TERM", "dumb");
        cli::run(&mut c, Duration::from_secs(60)).ok();
    }
    assert_eq!(fs::read_to_string(m.path("f.txt")).unwrap(), "one\nline 0\nline 1\nline 2\n");
    let names: Vec<_> = fs::read_dir(m.root()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["f.txt"]);
}

#[test]
fn rsync_copies_and_then_finds_nothing_to_do() {
    let w = World::new();
    let m = w.mount("ann");
    let rsync = tools::find("rsync");
    let src = w.dir().join("src");
    fs::create_dir(&src).unwrap();
    tree::sources(&src, count(500, 20_000));
    let from = format!("{}/", src.display());
    let sync = |extra: &[&str]| {
        cli::run(Command::new(&rsync).args(["-aXH", "--modify-window=-1", "--delete"]).args(extra).arg(&from).arg(m.path("copy")), BULK)
            .ok()
    };
    sync(&[]);
    tree::assert_same("after rsync", &tree::scan(&src), &tree::scan(&m.path("copy")));
    assert_eq!(sync(&["-i"]).stdout, "", "a second rsync found differences");
    fs::write(src.join("odd/mode-644"), "changed text").unwrap();
    fs::remove_dir_all(src.join("odd/names")).unwrap();
    assert!(sync(&["-i", "--inplace"]).stdout.contains("mode-644"));
    m.wait();
    m.remount();
    assert_eq!(sync(&["-i", "-c"]).stdout, "", "rsync found differences after a remount");
    // And out of the drive again.
    let back = w.dir().join("back");
    cli::run(Command::new(&rsync).args(["-aXH", "--modify-window=-1"]).arg(format!("{}/", m.path("copy").display())).arg(&back), BULK).ok();
    tree::assert_same("copied back", &tree::scan(&src), &tree::scan(&back));
}

#[test]
fn tar_unpacks_into_the_drive_and_packs_the_same_again() {
    let w = World::new();
    let m = w.mount("ann");
    let src = w.dir().join("src");
    fs::create_dir(&src).unwrap();
    tree::sources(&src, count(500, 20_000));
    cli::run(Command::new("tar").args(["--xattrs", "-cf"]).arg(w.dir().join("a.tar")).arg("-C").arg(&src).arg("."), BULK).ok();
    fs::create_dir(m.path("t")).unwrap();
    cli::run(Command::new("tar").args(["--xattrs", "-xpf"]).arg(w.dir().join("a.tar")).arg("-C").arg(m.path("t")), BULK).ok();
    tree::assert_same("unpacked", &tree::scan(&src), &tree::scan(&m.path("t")));
    cli::run(Command::new("tar").args(["--compare", "-f"]).arg(w.dir().join("a.tar")).arg("-C").arg(m.path("t")), BULK).ok();
    m.wait();
    m.remount();
    cli::run(Command::new("tar").args(["--xattrs", "-cf"]).arg(m.path("b.tar")).arg("-C").arg(m.path("t")).arg("."), BULK).ok();
    let back = w.dir().join("back");
    fs::create_dir(&back).unwrap();
    cli::run(Command::new("tar").args(["--xattrs", "-xpf"]).arg(m.path("b.tar")).arg("-C").arg(&back), BULK).ok();
    tree::assert_same("packed and unpacked again", &tree::scan(&src), &tree::scan(&back));
    assert!(fs::metadata(m.path("b.tar")).unwrap().size() > 0);
}
