//! Mountpoints seen from outside: what is mounted where, what was left by a dead daemon, who uses it, how it is taken
//! away, and where the drive refuses to be mounted.
//!
//! Must: nothing here waits on a mount that does not answer; what could is done on a thread with a deadline.
//! Not here: serving a mount (`mount`).

use super::paths::{Env, normalize};
use crate::error::{Error, IoContext, Kind, Result};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Name of our mounts in `/proc/self/mountinfo`: the source of a mount made by root (type `fuse`), and the subtype of one
/// made through the helper (type `fuse.tcfs`).
pub const FS_NAME: &str = "tcfs";

/// How long a mount may take to answer `stat` before it counts as hanging.
const ANSWER: Duration = Duration::from_secs(3);
/// How long a helper program may run.
const HELPER: Duration = Duration::from_secs(10);

/// A line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// Where.
    pub mountpoint: PathBuf,
    /// Type, such as `ext4`, `fuse` or `fuse.tcfs`.
    pub fstype: String,
    /// What is mounted, such as `/dev/sda1`; of ours [`FS_NAME`].
    pub source: String,
    /// Minor device number; of a FUSE mount the number of its connection.
    pub minor: u32,
}

impl MountEntry {
    /// Whether it is a FUSE mount of a tcfs daemon.
    pub fn is_ours(&self) -> bool {
        self.fstype.strip_prefix("fuse.") == Some(FS_NAME) || self.fstype == "fuse" && self.source == FS_NAME
    }
}

/// Reads `/proc/self/mountinfo`; lines that are not understood are passed over.
pub fn parse_mountinfo(text: &[u8]) -> Vec<MountEntry> {
    text.split(|b| *b == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|b| *b == b' ');
            let device = std::str::from_utf8(fields.nth(2)?).ok()?;
            let mountpoint = unescape(fields.nth(1)?);
            let mut end = fields.skip_while(|f| *f != b"-").skip(1);
            let (fstype, source) = (end.next()?, end.next().unwrap_or_default());
            Some(MountEntry {
                mountpoint,
                fstype: String::from_utf8_lossy(fstype).into_owned(),
                source: unescape(source).to_string_lossy().into_owned(),
                minor: device.split_once(':')?.1.parse().ok()?,
            })
        })
        .collect()
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut i = 0;
    while i < field.len() {
        let octal = field.get(i + 1..i + 4).filter(|d| field[i] == b'\\' && d.iter().all(|c| (b'0'..=b'7').contains(c)));
        match octal {
            Some(d) => {
                out.push(d.iter().fold(0u32, |n, c| n << 3 | u32::from(c - b'0')) as u8);
                i += 4;
            }
            None => {
                out.push(field[i]);
                i += 1;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

/// What is mounted on this system; nothing where the kernel does not tell.
pub fn mounted() -> Vec<MountEntry> {
    std::fs::read("/proc/self/mountinfo").map(|t| parse_mountinfo(&t)).unwrap_or_default()
}

/// Our mount at `mountpoint`, the topmost one.
pub fn ours_at(mountpoint: &Path) -> Option<MountEntry> {
    mounted().into_iter().rfind(|m| m.mountpoint == mountpoint && m.is_ours())
}

/// How a mountpoint answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It works.
    Alive,
    /// Its daemon is dead.
    Dead,
    /// No answer within the deadline.
    Hangs,
}

/// Asks a mountpoint whether anybody serves it, with a deadline.
pub fn probe(mountpoint: &Path) -> Answer {
    let path = mountpoint.to_owned();
    within(ANSWER, move || match rustix::fs::statfs(&path) {
        Err(rustix::io::Errno::NOTCONN | rustix::io::Errno::CONNABORTED) => Answer::Dead,
        _ => Answer::Alive,
    })
    .unwrap_or(Answer::Hangs)
}

/// Runs `f` on a thread and gives up waiting after `deadline`; the thread is then left to itself.
pub fn within<T: Send + 'static>(deadline: Duration, f: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (tx, rx) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let _ = tx.send(f());
    });
    rx.recv_timeout(deadline).ok()
}

/// Takes away what dead daemons left mounted at `mountpoint`; says whether there was anything.
pub fn clean_stale(mountpoint: &Path) -> Result<bool> {
    let mut cleaned = false;
    // Mounts can lie on top of each other; each round takes the topmost one.
    for _ in 0..16 {
        if ours_at(mountpoint).is_none() || probe(mountpoint) != Answer::Dead {
            return Ok(cleaned);
        }
        detach(mountpoint)?;
        cleaned = true;
    }
    Ok(cleaned)
}

/// Unmounts at once, whoever uses it: programs that have files open get errors. Never waits for the daemon.
pub fn detach(mountpoint: &Path) -> Result<()> {
    if let Some(entry) = ours_at(mountpoint) {
        // Ends every call that hangs in this mount. Only possible for its owner, and only an extra.
        let abort = format!("/sys/fs/fuse/connections/{}/abort", entry.minor);
        let _ = within(ANSWER, move || std::fs::write(abort, "1"));
    }
    let direct = {
        let path = mountpoint.to_owned();
        within(ANSWER, move || unmount_lazily(&path))
    };
    if let Some(Ok(())) = direct {
        return Ok(());
    }
    let doing = format!("unmounting {}", mountpoint.display());
    let mut command = match helper(&env_path()) {
        Some(h) => {
            let mut c = Command::new(h);
            c.args(["-u", "-z", "--"]);
            c
        }
        None if cfg!(target_os = "macos") => {
            let mut c = Command::new("/usr/sbin/diskutil");
            c.args(["unmount", "force"]);
            c
        }
        None => return Err(no_helper().context(doing)),
    };
    let (ok, output) = run(command.arg(mountpoint), HELPER).doing(|| doing.clone())?;
    if ok || ours_at(mountpoint).is_none() {
        return Ok(());
    }
    Err(Error::new(Kind::Io, format!("{doing}: {output}")).hint(format!("as root: umount -l {}", mountpoint.display())))
}

#[cfg(target_os = "linux")]
fn unmount_lazily(path: &Path) -> rustix::io::Result<()> {
    use rustix::mount::{UnmountFlags, unmount};
    unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
}

#[cfg(not(target_os = "linux"))]
fn unmount_lazily(_: &Path) -> rustix::io::Result<()> {
    Err(rustix::io::Errno::NOSYS)
}

/// Runs a program to its end or its deadline; success and what it printed on stderr.
fn run(command: &mut Command, deadline: Duration) -> std::io::Result<(bool, String)> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let end = Instant::now() + deadline;
    loop {
        if let Some(status) = child.try_wait()? {
            let mut text = String::new();
            if let Some(mut e) = child.stderr.take() {
                let _ = std::io::Read::read_to_string(&mut e, &mut text);
            }
            return Ok((status.success(), text.trim().to_owned()));
        }
        if Instant::now() >= end {
            child.kill()?;
            return Ok((false, format!("no answer after {} s", deadline.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn env_path() -> Env {
    std::env::var("PATH").map(|p| Env::from([("PATH".to_owned(), p)])).unwrap_or_default()
}

/// The setuid program through which a user mounts FUSE.
pub fn helper(env: &Env) -> Option<PathBuf> {
    let path = env.get("PATH").map_or("", String::as_str);
    let dirs = path.split(':').filter(|d| d.starts_with('/')).chain(["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"]);
    let dirs: Vec<&str> = dirs.collect();
    ["fusermount3", "fusermount"].iter().find_map(|name| dirs.iter().map(|d| Path::new(d).join(name)).find(|p| p.is_file()))
}

/// The error of a user who has no helper.
pub fn no_helper() -> Error {
    Error::new(Kind::Unsupported, "mounting as a user needs the program fusermount3, which is not installed")
        .hint("it is in the package fuse3 (apt install fuse3, dnf install fuse3, pacman -S fuse3, apk add fuse3); as root it is not needed")
}

/// Whether this user may open `/dev/fuse`; the helper looks at that, too.
pub fn may_open_fuse() -> bool {
    use rustix::fs::Access;
    rustix::fs::access("/dev/fuse", Access::READ_OK | Access::WRITE_OK).is_ok()
}

/// The error of a user who may not.
pub fn no_access() -> Error {
    Error::new(Kind::Denied, "this user may not open /dev/fuse, so it cannot mount")
        .hint("as root: chmod 666 /dev/fuse (the rules of the package fuse3 do that at boot)")
}

/// What the kernel and the system must offer for a FUSE mount by `uid`.
pub fn check_fuse(uid: u32, allow_other: bool, env: &Env) -> Result<()> {
    if !Path::new("/dev/fuse").exists() {
        return Err(Error::new(Kind::Unsupported, "the kernel offers no FUSE: /dev/fuse does not exist")
            .hint("as root: modprobe fuse; in a container: --device /dev/fuse --cap-add SYS_ADMIN"));
    }
    if uid == 0 {
        return Ok(());
    }
    if helper(env).is_none() {
        return Err(no_helper());
    }
    if !may_open_fuse() {
        return Err(no_access());
    }
    if allow_other && !allows_other(&std::fs::read_to_string("/etc/fuse.conf").unwrap_or_default()) {
        return Err(Error::new(Kind::Denied, "--allow-other is not permitted to users on this system")
            .hint("as root: echo user_allow_other >> /etc/fuse.conf"));
    }
    Ok(())
}

fn allows_other(fuse_conf: &str) -> bool {
    fuse_conf.lines().any(|l| l.trim() == "user_allow_other")
}

/// Directories of ours that no mount may cover or lie in, with what they are.
pub type Keep<'a> = [(&'a str, &'a Path)];

/// Refuses a mountpoint where files would be hidden or the drive would stand on itself; makes the directory if it
/// does not exist. Returns it without symbolic links.
pub fn prepare_mountpoint(mountpoint: &Path, keep: &Keep<'_>) -> Result<PathBuf> {
    let real = resolve(mountpoint);
    for (what, dir) in keep {
        let dir = resolve(dir);
        let shown = mountpoint.display();
        if real.starts_with(&dir) {
            return Err(Error::new(Kind::Usage, format!("{shown} lies inside the {what} of the drive ({})", dir.display()))
                .hint("mount it elsewhere: tcfs mount ~/tcfs"));
        }
        if dir.starts_with(&real) {
            return Err(Error::new(Kind::Usage, format!("{shown} contains the {what} of the drive ({})", dir.display()))
                .hint("mount it on a directory of its own: tcfs mount ~/tcfs"));
        }
    }
    let doing = || format!("preparing the mountpoint {}", mountpoint.display());
    std::fs::create_dir_all(&real).map_err(|e| match e.raw_os_error() {
        Some(libc::EEXIST | libc::ENOTDIR) => Error::new(Kind::NotDir, format!("{} is not a directory", mountpoint.display())),
        _ => Error::io(doing(), e).hint("make it yourself, or mount elsewhere"),
    })?;
    let mut first = std::fs::read_dir(&real).doing(doing)?;
    if let Some(entry) = first.next() {
        let name = entry.doing(doing)?.file_name();
        let at = mountpoint.display();
        return Err(Error::new(
            Kind::NotEmpty,
            format!("{at} is not empty (it has {} in it), a mount would hide that", Path::new(&name).display()),
        )
        .hint(format!("to bring its content into the drive: mv {at} {at}.old && tcfs mount {at} && cp -a {at}.old/. {at}/")));
    }
    Ok(real)
}

/// The path without symbolic links as far as it exists, by text beyond.
pub fn resolve(path: &Path) -> PathBuf {
    let path = normalize(path);
    let mut rest = Vec::new();
    let mut at = path.as_path();
    loop {
        if let Ok(real) = at.canonicalize() {
            return rest.iter().rev().fold(real, |p, c| p.join(c));
        }
        match (at.parent(), at.file_name()) {
            (Some(parent), Some(name)) => {
                rest.push(name.to_owned());
                at = parent;
            }
            _ => return path,
        }
    }
}

/// A process that uses a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Process.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// How: `works in it`, `has plan.md open`, …
    pub how: String,
}

/// Processes that use files below `mountpoint`, as far as this user may see; this process is left out. Looks only at
/// `/proc`, never at the mount itself.
pub fn users(mountpoint: &Path, proc: &Path) -> Vec<User> {
    let me = std::process::id();
    let mut out: Vec<User> = std::fs::read_dir(proc)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| Some((e.file_name().to_str()?.parse::<u32>().ok()?, e.path())))
        .filter(|(pid, _)| *pid != me)
        .filter_map(|(pid, dir)| {
            let how = usage(mountpoint, &dir)?;
            let name = std::fs::read_to_string(dir.join("comm")).unwrap_or_default().trim().to_owned();
            Some(User { pid, name, how })
        })
        .collect();
    out.sort_by_key(|u| u.pid);
    out
}

fn usage(mountpoint: &Path, dir: &Path) -> Option<String> {
    let link = |name: &str| std::fs::read_link(dir.join(name)).ok();
    let below = |p: &Path| p.strip_prefix(mountpoint).ok().map(|r| r.display().to_string());
    if link("cwd").is_some_and(|p| p.starts_with(mountpoint)) {
        return Some("works in it".to_owned());
    }
    if link("root").is_some_and(|p| p.starts_with(mountpoint)) {
        return Some("has its root in it".to_owned());
    }
    if let Some(rel) = link("exe").as_deref().and_then(below) {
        return Some(format!("runs {rel}"));
    }
    let fds = std::fs::read_dir(dir.join("fd")).into_iter().flatten().flatten();
    if let Some(rel) = fds.filter_map(|f| std::fs::read_link(f.path()).ok()).find_map(|p| below(&p)) {
        return Some(format!("has {} open", if rel.is_empty() { "it" } else { &rel }));
    }
    let maps = std::fs::read(dir.join("maps")).unwrap_or_default();
    maps.split(|b| *b == b'\n')
        .filter_map(|l| l.iter().position(|b| *b == b'/').map(|at| PathBuf::from(OsString::from_vec(l[at..].to_vec()))))
        .find_map(|p| below(&p))
        .map(|rel| format!("has {rel} mapped"))
}

/// The sentence for a mount that cannot be unmounted because of `users`.
pub fn busy(mountpoint: &Path, users: &[User]) -> Error {
    let at = mountpoint.display();
    let mut who: Vec<String> = users.iter().take(5).map(|u| format!("{} (process {}) {}", u.name, u.pid, u.how)).collect();
    if users.len() > 5 {
        who.push(format!("and {} more", users.len() - 5));
    }
    let who = if who.is_empty() { "a program of another user, most likely".to_owned() } else { who.join(", ") };
    Error::new(Kind::Busy, format!("{at} is in use: {who}"))
        .hint(format!("end these programs or leave the directory; or tcfs unmount --force {at}, which gives them errors"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::daemon::pathargs::real_parent;
    use std::fs;
    use std::os::unix::fs::symlink;

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
        let got: Vec<(u32, String)> = users(m, proc).into_iter().map(|u| (u.pid, format!("{} {}", u.name, u.how))).collect();
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
        let e = busy(m, &users(m, proc));
        assert!(e.to_string().contains("prog12 (process 12) has notes/plan.md open") && e.kind() == Kind::Busy, "{e}");
    }

    #[test]
    fn a_real_process_in_a_directory_is_found() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().canonicalize().unwrap();
        let mut child = Command::new("sleep").arg("60").current_dir(&dir).spawn().unwrap();
        let found = users(&dir, Path::new("/proc"));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.iter().any(|u| u.pid == child.id() && u.how == "works in it"), "{found:?}");
    }

    /// A FUSE mount that nobody serves: while the descriptor is open it hangs, then it is dead. None for users.
    #[cfg(target_os = "linux")]
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
    #[cfg(target_os = "linux")]
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
    #[cfg(target_os = "linux")]
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
}
