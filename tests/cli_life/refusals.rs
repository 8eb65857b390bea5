//! Refusals, each as a person provokes it.

use super::{answer, machine, refused, s};
use crate::common::{Mounted, World, cli, sys, until};
use crate::drive_only;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn a_mountpoint_with_files_in_it_is_refused_with_the_commands_that_bring_them_in() {
    drive_only!();
    let (w, m) = machine();
    let at = w.dir().join("full");
    fs::create_dir(&at).unwrap();
    fs::write(at.join("precious"), "x").unwrap();
    refused(&m.cli(&["mount", s(&at)]), 1, &["is not empty", "precious", "cp -a"]);
    // Nothing stays behind: no mount, no daemon, and the file is there.
    assert!(!sys::is_mounted(&at) && fs::read_to_string(at.join("precious")).unwrap() == "x");
    m.cli(&["status"]).exit(10);
    let error = answer(&m.cli(&["--json", "mount", s(&at)]).exit(1))["error"].clone();
    assert_eq!(error["kind"], "not_empty");
    fs::write(w.dir().join("file"), "").unwrap();
    refused(&m.cli(&["mount", s(&w.dir().join("file"))]), 1, &["is not a directory"]);
    // What the hint says works as it stands.
    let old = w.dir().join("full.old");
    fs::rename(&at, &old).unwrap();
    m.cli(&["mount", s(&at)]).ok();
    cli::sh(w.dir(), r#"cp -a "$1/." "$2/""#, &[old.as_os_str(), at.as_os_str()]).ok();
    assert_eq!(fs::read_to_string(at.join("precious")).unwrap(), "x");
    m.cli(&["unmount", s(&at)]).ok();
}

#[test]
fn a_mountpoint_around_or_inside_state_cache_or_store_is_refused() {
    drive_only!();
    let w = World::new();
    let cache = w.dir().join("elsewhere/cache");
    let m = w.device("ann").env("TCFS_CACHE_DIR", s(&cache)).off();
    for (at, what, how) in [
        (m.state().to_owned(), "state", "lies inside"),
        (m.state().join("mnt"), "state", "lies inside"),
        (m.state().parent().unwrap().to_owned(), "state", "contains"),
        (cache.join("x"), "cache", "lies inside"),
        (w.dir().join("elsewhere"), "cache", "contains"),
        (m.store().join("deep/er"), "store", "lies inside"),
        (m.store().to_owned(), "store", "lies inside"),
    ] {
        refused(&m.cli(&["mount", s(&at)]), 2, &[how, &format!("the {what} of the drive"), "tcfs mount ~/tcfs"]);
        assert!(!sys::is_mounted(&at));
    }
    // A link does not hide it.
    std::os::unix::fs::symlink(m.store(), w.dir().join("link")).unwrap();
    refused(&m.cli(&["mount", s(&w.dir().join("link/m"))]), 2, &["lies inside the store"]);
    assert!(!m.store().join("m").exists() && !m.store().join("deep").exists(), "the refused directory was made");
}

#[test]
fn another_store_is_refused_by_every_command_and_left_as_it_is() {
    drive_only!();
    let w = World::new();
    let m = w.device("ann").off();
    let other = w.device("bob").store(w.dir().join("other")).off();
    let file = w.dir().join("f");
    fs::write(&file, "text").unwrap();
    for machine in [&m, &other] {
        machine.cli(&["push", s(&file)]).ok();
    }
    let objects = |dir: &std::path::Path| crate::common::mounted::walk_files(dir).len();
    let before = objects(other.store());
    let url = format!("file://{}", other.store().display());
    let with_other = |args: &[&str]| m.cli(&[&["--store", url.as_str()][..], args].concat());
    let said = ["is another store", "than the one this machine's state belongs to", "tcfs store move"];
    for args in [&["mount", s(m.root())][..], &["push", s(&file)], &["pull", "f", "/tmp/"], &["device", "list"]] {
        refused(&with_other(args), 2, &said);
    }
    assert!(!sys::is_mounted(m.root()));
    assert_eq!(objects(other.store()), before, "something was written to the other store");
    let d = with_other(&["doctor"]).exit(1);
    assert!(d.stdout.contains("is another store"), "{}", d.text());
    assert_eq!(objects(other.store()), before, "doctor wrote to the other store");
    // The right one works as before.
    m.cli(&["pull", "f", s(&w.dir().join("back"))]).ok();
}

#[test]
fn a_store_directory_that_is_missing_counts_as_offline_and_is_not_made_anew() {
    drive_only!();
    let w = World::new();
    let m = w.device("ann").off();
    let file = w.dir().join("f");
    fs::write(&file, "text").unwrap();
    m.cli(&["push", s(&file)]).ok();
    let away = w.dir().join("away");
    fs::rename(m.store(), &away).unwrap();
    // Missing altogether, and the empty mount point of a disk.
    for empty in [false, true] {
        if empty {
            fs::create_dir(m.store()).unwrap();
        }
        let to = w.dir().join("out");
        let p = answer(&m.cli(&["--json", "pull", "f", s(&to)]).ok());
        assert_eq!((p["offline"].as_bool(), fs::read_to_string(&to).unwrap().as_str()), (Some(true), "text"));
        fs::remove_file(&to).unwrap();
        let d = m.cli(&["device", "list"]).ok();
        assert!(d.stdout.contains("ann") && d.stderr.contains("does not answer"), "{}", d.text());
        let listed = answer(&m.cli(&["--json", "device", "list"]).ok());
        assert_eq!((listed["type"].as_str(), listed["offline"].as_bool()), (Some("devices"), Some(true)));
        let d = m.cli(&["doctor"]).exit(1);
        assert!(d.stdout.contains("is missing or empty") && d.stdout.contains("is its disk or share mounted?"), "{}", d.text());
        let mounted = m.try_mount().ok();
        assert!(
            mounted.stdout.contains("note: the store does not answer") && mounted.stdout.contains("is missing or empty"),
            "{}",
            mounted.text()
        );
        fs::write(m.path(format!("written {empty}")), "here").unwrap();
        assert_eq!(fs::read_to_string(m.path("f")).unwrap(), "text");
        let waited = answer(&m.cli(&["--json", "wait", "--timeout", "300ms"]).exit(3));
        assert!(waited["pending"].as_u64().unwrap() >= 1 && waited["why"].as_str().unwrap().contains("is missing or empty"), "{waited}");
        m.cli(&["unmount", s(m.root())]).ok();
        let p = answer(&m.cli(&["--json", "push", s(&file), "--to", &format!("g{empty}")]).exit(3));
        assert_eq!(p["queued"].as_bool(), Some(true));
        match fs::read_dir(m.store()) {
            Ok(mut d) => assert!(empty && d.next().is_none(), "something was written in the place of the store"),
            Err(_) => assert!(!empty, "the store directory is gone"),
        }
    }
    fs::remove_dir(m.store()).unwrap();
    fs::rename(&away, m.store()).unwrap();
    m.cli(&["wait"]).ok();
    let b = w.device("bob").off();
    b.cli(&["pull", "written true", s(&w.dir().join("b"))]).ok();
    assert_eq!(fs::read_to_string(w.dir().join("b")).unwrap(), "here");
}

#[test]
fn a_busy_unmount_names_the_processes_and_force_does_it_all_the_same() {
    drive_only!();
    let m = Mounted::new();
    fs::create_dir(m.path("d")).unwrap();
    fs::write(m.path("d/f"), "text").unwrap();
    // One works in it, one holds a file open.
    let mut works = Command::new("sleep").arg("600").current_dir(m.path("d")).spawn().unwrap();
    let mut holds = Command::new("sleep").arg("600").stdin(Stdio::from(fs::File::open(m.path("d/f")).unwrap())).spawn().unwrap();
    let (w, h) = (format!("sleep (process {}) works in it", works.id()), format!("sleep (process {}) has d/f open", holds.id()));
    let busy = m.cli(&["unmount", s(m.root())]);
    let error = answer(&m.cli(&["--json", "unmount"]).exit(1))["error"].clone();
    refused(&busy, 1, &["is in use", &w, &h, "tcfs unmount --force"]);
    assert_eq!(error["kind"], "busy");
    // Whoever asks from inside is not one of them.
    let inside = cli::run(m.tcfs(&["unmount"]).current_dir(m.path("d")), Duration::from_secs(60));
    assert!(!inside.exit(1).stderr.contains("tcfs (process"));
    // It goes on as it was.
    assert_eq!(fs::read_to_string(m.path("d/f")).unwrap(), "text");
    m.cli(&["unmount", "--force", s(m.root())]).ok();
    assert!(!sys::is_mounted(m.root()));
    for child in [&mut works, &mut holds] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    until("the daemon ends", Duration::from_secs(60), || (!sys::alive(m.pid())).then_some(()));
    m.mount();
    assert_eq!(fs::read_to_string(m.path("d/f")).unwrap(), "text");
}

#[test]
fn unmounting_what_is_not_mounted_says_what_is() {
    drive_only!();
    let m = Mounted::new();
    refused(&m.cli(&["unmount", "/tmp"]), 1, &["is not mounted on /tmp", s(m.root())]);
    m.unmount();
    refused(&m.cli(&["unmount"]), 10, &["no daemon is running", "tcfs mount"]);
}

#[test]
fn a_state_directory_too_long_for_a_socket_and_no_runtime_directory_work() {
    drive_only!();
    let w = World::new();
    let long = w.dir().join("s".repeat(130));
    let m = w.device("ann").state(&long).env("XDG_RUNTIME_DIR", "").mount();
    let socket = m.status()["socket"].as_str().unwrap().to_owned();
    assert!(socket.len() <= 100 && socket.starts_with("/tmp/tcfs-"), "{socket}");
    fs::write(m.path("f"), "text").unwrap();
    m.wait();
    m.remount();
    assert_eq!(fs::read_to_string(m.path("f")).unwrap(), "text");
    m.unmount();
    assert!(!std::path::Path::new(&socket).exists());
}

#[test]
fn without_a_home_a_state_directory_and_a_mountpoint_are_enough() {
    drive_only!();
    let (_w, m) = machine();
    let mut without = m.tcfs(&["mount", s(m.root())]);
    cli::run(without.env_remove("HOME"), Duration::from_secs(60)).ok();
    fs::write(m.path("f"), "text").unwrap();
    m.cli(&["unmount", s(m.root())]).ok();
    let nowhere = cli::run(m.tcfs(&["mount"]).env_remove("HOME"), Duration::from_secs(60));
    refused(&nowhere, 2, &["HOME is not set", "tcfs mount /mnt/tcfs"]);
    let neither = cli::run(m.tcfs(&["mount", s(m.root())]).env_remove("HOME").env_remove("TCFS_STATE_DIR"), Duration::from_secs(60));
    refused(&neither, 2, &["HOME is not set", "--state-dir"]);
}

#[test]
fn a_state_that_another_process_owns_is_exit_code_eleven() {
    drive_only!();
    let m = Mounted::new();
    let foreground = m.cli(&["mount", "--foreground", s(&m.root().with_file_name("second"))]);
    refused(&foreground, 11, &["is running already", &m.pid().to_string(), "tcfs daemon stop"]);
    m.unmount();
    // Somebody who owns it and does not speak.
    let lock = fs::File::open(m.state().join("lock")).unwrap();
    sys::flock(&lock, libc::LOCK_EX | libc::LOCK_NB).unwrap();
    for args in [&["ls"][..], &["mount", s(m.root())]] {
        refused(&m.cli(args), 11, &["in use"]);
    }
    drop(lock);
    m.mount();
}

#[test]
fn a_question_to_a_machine_that_is_not_enrolled_is_exit_code_twelve_and_enrols_nobody() {
    drive_only!();
    let (w, m) = machine();
    for args in [
        &["ls"][..],
        &["history", "f"],
        &["restore", "f"],
        &["wait"],
        &["conflicts"],
        &["resolve-conflict", "f", "--keep-both"],
        &["hydrate", "f"],
        &["unsync", "f"],
        &["pin", "f"],
        &["unpin", "f"],
        &["device", "rename", "x"],
        &["device", "revoke", "x"],
        &["store", "move", "file:///nowhere"],
        &["store", "copy", "file:///nowhere"],
    ] {
        refused(&m.cli(args), 12, &["has no identity yet", "tcfs device enroll", "tcfs mount"]);
    }
    assert_eq!(answer(&m.cli(&["--json", "ls"]).exit(12))["error"]["kind"], "not_enrolled");
    assert!(!m.state().exists() && fs::read_dir(w.store()).unwrap().next().is_none(), "something was made");
    m.cli(&["device", "enroll"]).ok();
    assert_eq!(m.cli(&["ls"]).ok().stdout, "");
    // Also while the identity file is lost: the database knows.
    fs::remove_file(m.state().join("identity.json")).unwrap();
    m.cli(&["ls"]).ok();
}

#[test]
fn a_state_of_a_newer_version_is_refused_and_left_as_it_is_and_one_of_an_older_taken_over() {
    drive_only!();
    let (w, m) = machine();
    fs::write(w.dir().join("f"), "text").unwrap();
    m.cli(&["push", s(&w.dir().join("f"))]).ok();
    let db = crate::common::mounted::walk_files(m.state()).into_iter().find(|p| p.extension().is_some_and(|e| e == "db")).unwrap();
    let version = |sql: &str| cli::run(Command::new("sqlite3").arg(&db).arg(sql), Duration::from_secs(20)).ok().stdout;
    let was = version("PRAGMA user_version");
    version("PRAGMA user_version=99");
    for args in [&["ls"][..], &["mount", s(m.root())]] {
        refused(&m.cli(args), 1, &["newer", "99"]);
    }
    assert_eq!(version("PRAGMA user_version"), "99\n");
    version(&format!("PRAGMA user_version={}", was.trim()));
    assert_eq!(m.cli(&["ls"]).ok().stdout, "f\n");
    // One of an older version, which lacks what came since, is taken over.
    version("DROP TABLE seen; PRAGMA user_version=0");
    assert_eq!(m.cli(&["ls"]).ok().stdout, "f\n");
    fs::write(w.dir().join("f"), "other").unwrap();
    m.cli(&["push", "--force", s(&w.dir().join("f"))]).ok();
    assert_eq!((version("PRAGMA user_version"), version("SELECT count(*) FROM seen")), (was, "1\n".into()));
}

#[test]
fn a_config_that_cannot_be_read_is_refused_by_every_command() {
    let (w, m) = machine();
    let file = w.dir().join("c.toml");
    let with = |args: &[&str]| m.cli(&[&["--config", s(&file)][..], args].concat());
    for (text, parts) in [
        (None, &["c.toml", "tcfs config path"][..]),
        (Some("stroe = \"file:///x\""), &["line 1: unknown key `stroe`", "did you mean `store`?"]),
        (Some("\n[cache]\nmax_byte = 1"), &["line 3: unknown key `cache.max_byte`", "did you mean `cache.max_bytes`?"]),
        (Some("conflict_mode = \"ask\""), &["line 1: conflict_mode: expected one of auto, interactive, defer"]),
        (Some("store = \"/x"), &["c.toml", "line 1"]),
        (Some("store = \"ftp://x\""), &["ftp"]),
    ] {
        match text {
            Some(t) => fs::write(&file, t).unwrap(),
            None => fs::create_dir(&file).unwrap(),
        }
        for args in [&["mount"][..], &["status"], &["ls"], &["config", "check"]] {
            refused(&with(args), 2, parts);
        }
        match text {
            Some(_) => fs::remove_file(&file).unwrap(),
            None => fs::remove_dir(&file).unwrap(),
        }
    }
    refused(&with(&["ls"]), 2, &["c.toml", "--config"]);
}

#[test]
fn paths_that_are_not_there_or_not_what_a_command_wants_are_named() {
    drive_only!();
    let m = Mounted::new();
    fs::create_dir(m.path("d")).unwrap();
    fs::write(m.path("d/f"), "text").unwrap();
    m.wait();
    let out = m.world().dir().join("out");
    for args in [
        &["ls", "nothing"][..],
        &["pull", "nothing", s(&out)],
        &["hydrate", "nothing"],
        &["unsync", "nothing"],
        &["pin", "nothing"],
        &["unpin", "nothing"],
        &["history", "nothing"],
        &["restore", "nothing"],
        &["wait", "nothing"],
        &["resolve-conflict", "nothing", "--keep-local"],
        &["push", "nothing"],
    ] {
        refused(&m.cli(args), 1, &["nothing"]);
        let e = answer(&m.cli(&[&["--json"], args].concat()).exit(1))["error"].clone();
        assert_eq!(e["kind"], "not_found", "{args:?}: {e}");
    }
    refused(&m.cli(&["ls", "d/f/g"]), 1, &["d/f"]);
    refused(&m.cli(&["ls", "/tmp"]), 2, &["is not in the drive", s(m.root())]);
    refused(&m.cli(&["resolve-conflict", "d/f", "--keep-local"]), 1, &["is not in conflict", "tcfs conflicts"]);
    refused(&m.cli(&["history", "/"]), 2, &["root of the drive"]);
    refused(&m.cli(&["pull", "d/f", s(&out.join("no/such/place"))]), 1, &["no/such"]);
    refused(&m.cli(&["device", "rename", "Not A Name"]), 2, &["Not A Name"]);
    refused(&m.cli(&["store", "move", "ftp://x"]), 2, &["ftp"]);
    // All ways to name one file.
    let cwd = |dir: &std::path::Path, args: &[&str]| cli::run(m.tcfs(args).current_dir(dir), Duration::from_secs(60));
    let root = m.root().to_owned();
    for (dir, name) in [
        (root.as_path(), "d/f"),
        (&root.join("d"), "f"),
        (&root.join("d"), "../d/f"),
        (std::path::Path::new("/"), "d/f"),
        (std::path::Path::new("/"), "tcfs/default/d/f"),
        (std::path::Path::new("/"), s(&root.join("d/f"))),
    ] {
        let ls = answer(&cwd(dir, &["--json", "ls", name]).ok());
        assert_eq!((ls["path"].as_str(), ls["entries"].as_u64()), (Some("d/f"), Some(1)), "{name} in {}", dir.display());
    }
    // Names with spaces, quotes, newlines and a dash.
    for name in ["with space", "quo'te\"", "new\nline", "-dash", "ünï"] {
        fs::write(m.path(name), name).unwrap();
        let ls = answer(&cwd(&root, &["--json", "ls", "--", name]).ok());
        assert_eq!(ls["path"].as_str(), Some(name));
        let out = m.world().dir().join("named");
        cwd(&root, &["pull", "--force", "--", name, s(&out)]).ok();
        assert_eq!(fs::read_to_string(&out).unwrap(), name);
    }
}

#[test]
fn a_daemon_that_hangs_is_told_within_seconds_and_force_takes_its_mount_away() {
    drive_only!();
    let m = Mounted::new();
    fs::write(m.path("f"), "text").unwrap();
    m.wait();
    let pid = m.pid();
    // SAFETY: the id came from this machine's own daemon.
    unsafe { libc::kill(pid, libc::SIGSTOP) };
    // A busy machine takes a moment to stop all its threads; meanwhile they answer.
    until("all of it stands still", Duration::from_secs(20), || {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|t| t.unwrap().path().join("stat"));
        threads
            .into_iter()
            .all(|t| fs::read_to_string(t).is_ok_and(|s| s.rsplit(')').next().unwrap().trim_start().starts_with('T')))
            .then_some(())
    });
    let status = m.cli(&["status"]);
    let forced = m.cli(&["unmount", "--force", s(m.root())]);
    // SAFETY: as above.
    unsafe { libc::kill(pid, libc::SIGCONT) };
    refused(&status, 1, &["does not answer", "tcfs unmount --force"]);
    forced.ok();
    assert!(!sys::is_mounted(m.root()));
    until("the daemon ends", Duration::from_secs(60), || (!sys::alive(pid)).then_some(()));
    m.mount();
    assert_eq!(fs::read_to_string(m.path("f")).unwrap(), "text");
}
