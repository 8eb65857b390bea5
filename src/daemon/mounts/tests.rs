//! Mountpoints of this machine, also such as nobody serves.

use super::fuse_needs::allows_other;
use super::table::{parse_mount_list, unescape};
use super::users::{parse_lsof, users_in};
use super::*;
use crate::daemon::pathargs::real_parent;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

#[test]
fn mountinfo_is_read_with_its_escapes() {
    let text = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        99 22 0:57 / /home/u/my\\040drive rw,nosuid shared:1 master:2 - fuse.tcfs x rw,user_id=0\nnonsense\n";
    let got = parse_mountinfo(text);
    assert_eq!(got.len(), 2);
    assert_eq!(got[1], MountEntry { mountpoint: "/home/u/my drive".into(), fstype: "fuse.tcfs".into(), source: "x".into(), minor: 57 });
    assert!(got[1].is_ours() && !got[0].is_ours());
    let root = parse_mountinfo(b"47 27 0:44 / /m rw,nosuid - fuse tcfs rw,user_id=0\n48 27 0:45 / /m rw - fuse other rw\n");
    assert!(root[0].is_ours() && !root[1].is_ours());
    assert_eq!(unescape(br"/a\134040\"), PathBuf::from(r"/a\040\"));
}

#[test]
fn the_list_of_a_mac_is_read() {
    let text = "/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)\n\
        map auto_home on /System/Volumes/Data/home (autofs, automounted, nobrowse)\n\
        127.0.0.1:/tcfs-0a1b on /Users/u/my drive (old) on (nfs, nodev, nosuid, mounted by u)\nnonsense\n";
    let got = parse_mount_list(text);
    assert_eq!(got.len(), 3);
    assert_eq!(got[2].mountpoint, Path::new("/Users/u/my drive (old) on"));
    assert!(got[2].is_ours() && got[2].is_nfs() && !got[0].is_ours() && !got[1].is_ours());
}

#[test]
fn what_lsof_tells_is_read() {
    let text = "p812\nczsh\nfcwd\nn/Users/u/tcfs/notes\np9000\ncvim\nf12\nn/Users/u/tcfs/plan.md\nf13\nn/Users/u/tcfs/b\n\
        p77\nctool\nftxt\nn/Users/u/tcfs/bin/tool\np5\ncother\nf3\nn/tmp/x\np6\nclister\nf3\nn/Users/u/tcfs\n";
    let got: Vec<String> =
        parse_lsof(text, Path::new("/Users/u/tcfs")).into_iter().map(|u| format!("{} {} {}", u.pid, u.name, u.how)).collect();
    assert_eq!(got, ["6 lister has it open", "77 tool runs bin/tool", "812 zsh works in it", "9000 vim has plan.md open"]);
    assert_eq!(parse_lsof("\np\nn/x\n\u{e9}x\n", Path::new("/x")), []);
}

#[test]
fn a_mountpoint_over_files_is_refused_with_the_commands_that_help() {
    let tmp = tempfile::tempdir().unwrap();
    let at = tmp.path().join("m");
    assert_eq!(prepare_mountpoint(&at, &[]).unwrap(), at.canonicalize().unwrap());
    fs::write(at.join("precious"), "").unwrap();
    let e = prepare_mountpoint(&at, &[]).unwrap_err();
    assert_eq!(e.kind(), Kind::NotEmpty);
    assert!(e.to_string().contains("precious") && e.hint_text().unwrap().contains("cp -a"), "{e:?}");
    fs::write(tmp.path().join("file"), "").unwrap();
    assert_eq!(prepare_mountpoint(&tmp.path().join("file"), &[]).unwrap_err().kind(), Kind::NotDir);
    assert_eq!(prepare_mountpoint(&tmp.path().join("file/x"), &[]).unwrap_err().kind(), Kind::NotDir);
}

#[test]
fn a_mountpoint_around_or_inside_our_directories_is_refused_through_links_too() {
    let tmp = tempfile::tempdir().unwrap();
    let state = tmp.path().join("home/.local/state/tcfs");
    fs::create_dir_all(&state).unwrap();
    symlink(tmp.path().join("home"), tmp.path().join("link")).unwrap();
    let keep: [(&str, &Path); 1] = [("state", &state)];
    for (at, word) in
        [("home", "contains"), ("link", "contains"), ("home/.local/state/tcfs/m", "inside"), ("link/.local/state/tcfs", "inside")]
    {
        let e = prepare_mountpoint(&tmp.path().join(at), &keep).unwrap_err();
        assert!(e.kind() == Kind::Usage && e.to_string().contains(word), "{at}: {e:?}");
    }
    assert!(!state.join("m").exists());
    prepare_mountpoint(&tmp.path().join("home/tcfs"), &keep).unwrap();
    // A store that does not exist yet counts as well.
    let store = tmp.path().join("home/s/store");
    let e = prepare_mountpoint(&tmp.path().join("home/s"), &[("store", &store)]).unwrap_err();
    assert!(e.to_string().contains("contains the store"), "{e}");
}

#[test]
fn processes_that_use_a_mount_are_found_by_every_trace() {
    let tmp = tempfile::tempdir().unwrap();
    let (proc, m) = (tmp.path(), Path::new("/m nt"));
    let process = |pid: &str, links: &[(&str, &str)], maps: &str| {
        let dir = proc.join(pid);
        fs::create_dir_all(dir.join("fd")).unwrap();
        fs::write(dir.join("comm"), format!("prog{pid}\n")).unwrap();
        fs::write(dir.join("maps"), maps).unwrap();
        for (name, target) in links {
            symlink(target, dir.join(name)).unwrap();
        }
    };
    process("10", &[("cwd", "/m nt/sub")], "");
    process("11", &[("cwd", "/"), ("exe", "/m nt/bin/x")], "");
    process("12", &[("cwd", "/"), ("fd/3", "/m nt/notes/plan.md")], "");
    process("13", &[("cwd", "/")], "00-01 r--p 0 00:39 7    /m nt/lib.so\n");
    process("14", &[("cwd", "/m nt2"), ("fd/1", "/dev/null")], "00-01 r--p 0 00:39 7 /lib.so\n");
    process("15", &[("root", "/m nt")], "");
    process("notapid", &[("cwd", "/m nt")], "");
    let got: Vec<(u32, String)> = users_in(m, proc).into_iter().map(|u| (u.pid, format!("{} {}", u.name, u.how))).collect();
    assert_eq!(
        got,
        [
            (10, "prog10 works in it".to_owned()),
            (11, "prog11 runs bin/x".to_owned()),
            (12, "prog12 has notes/plan.md open".to_owned()),
            (13, "prog13 has lib.so mapped".to_owned()),
            (15, "prog15 has its root in it".to_owned()),
        ]
    );
    let e = busy(m, &users_in(m, proc));
    assert!(e.to_string().contains("prog12 (process 12) has notes/plan.md open") && e.kind() == Kind::Busy, "{e}");
}

#[test]
fn a_real_process_in_a_directory_is_found() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().canonicalize().unwrap();
    let mut child = Command::new("sleep").arg("60").current_dir(&dir).spawn().unwrap();
    let found = users_in(&dir, Path::new("/proc"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(found.iter().any(|u| u.pid == child.id() && u.how == "works in it"), "{found:?}");
}

/// A FUSE mount that nobody serves: while the descriptor is open it hangs, then it is dead. None for users.
#[cfg(not(target_os = "macos"))]
pub(in crate::daemon) fn unserved(at: &Path) -> Option<fs::File> {
    use std::os::fd::AsRawFd;
    if !rustix::process::getuid().is_root() {
        eprintln!("skipped: only root can make such a mount");
        return None;
    }
    // Not `create_dir_all`: that would look at a mount that is there already.
    let _ = fs::create_dir(at);
    let device = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
    let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    let data = std::ffi::CString::new(data).unwrap();
    rustix::mount::mount(FS_NAME, at, "fuse", rustix::mount::MountFlags::empty(), data.as_c_str()).unwrap();
    Some(device)
}

#[test]
#[cfg(not(target_os = "macos"))]
fn what_dead_daemons_left_is_cleaned_up_even_twice() {
    let tmp = tempfile::tempdir().unwrap();
    let at = tmp.path().canonicalize().unwrap().join("m nt");
    let (Some(first), Some(second)) = (unserved(&at), unserved(&at)) else { return };
    drop((first, second));
    assert_eq!(probe(&at), Answer::Dead);
    assert_eq!(real_parent(&at), at);
    assert!(clean_stale(&at).unwrap());
    assert_eq!((ours_at(&at), probe(&at), clean_stale(&at).unwrap()), (None, Answer::Alive, false));
    assert_eq!(prepare_mountpoint(&at, &[]).unwrap(), at);
}

#[test]
#[cfg(not(target_os = "macos"))]
fn a_mount_that_hangs_is_told_and_taken_away_within_the_deadline() {
    let tmp = tempfile::tempdir().unwrap();
    let at = tmp.path().canonicalize().unwrap().join("m");
    let Some(_device) = unserved(&at) else { return };
    let began = Instant::now();
    assert_eq!(probe(&at), Answer::Hangs);
    assert!(!clean_stale(&at).unwrap(), "a mount that may come back was taken away");
    detach(&at).unwrap();
    assert_eq!((ours_at(&at), probe(&at)), (None, Answer::Alive));
    assert!(began.elapsed() < ANSWER * 5, "{:?}", began.elapsed());
}

#[test]
fn deadlines_hold() {
    assert_eq!(within(Duration::from_secs(60), || 7), Some(7));
    assert_eq!(within(Duration::from_millis(1), || std::thread::sleep(Duration::from_secs(5))), None);
    let (ok, why) = run(Command::new("sleep").arg("60"), Duration::from_millis(20)).unwrap();
    assert!(!ok && why.starts_with("no answer"), "{why}");
    assert!(!run(&mut Command::new("false"), Duration::from_secs(60)).unwrap().0);
}

#[test]
fn the_helper_is_found_by_path_and_its_package_is_named() {
    let tmp = tempfile::tempdir().unwrap();
    fs::write(tmp.path().join("fusermount3"), "").unwrap();
    let env = Env::from([("PATH".to_owned(), format!("rel:{}", tmp.path().display()))]);
    assert_eq!(helper(&env), Some(tmp.path().join("fusermount3")));
    assert!(no_helper().hint_text().unwrap().contains("apt install fuse3"));
    assert!(allows_other("# x\n user_allow_other \n") && !allows_other("#user_allow_other"));
}
