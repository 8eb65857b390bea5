//! The daemon seen from the command line: finds it, starts it in the background, ends it, and says what happened when
//! it does not come up.
//!
//! Must: no fork after threads: the program executes itself anew, and the new process leaves the session before it
//! starts its own threads. Must: whoever is told that a daemon ended finds its state free.

use super::client::Client;
use super::config::Config;
use super::log::last_lines;
use super::mounts::{self, Answer};
use super::pathargs::real_parent;
use super::protocol::{Mount, Mounted, Request, Response, Stopped, Unmount, Unmounted, WireError};
use super::run::make_state_dir;
use super::service::{Progress, Service};
use super::shell::unexpected;
use crate::error::{Error, IoContext, Kind, Result};
use crate::state::lock;
use std::ffi::OsString;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a daemon may take to open its state. Recovery after a crash reads everything that was in flight.
const STARTING: Duration = Duration::from_secs(120);
/// How long a daemon that was told to stop may take to let go of its state.
const STOPPING: Duration = Duration::from_secs(75);
/// How long a forced unmount waits for the daemon before it is done without it.
const FORCED: Duration = Duration::from_secs(10);
/// How often a state that is about to change is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Lines of the log that are shown when a daemon dies.
const LAST_LINES: usize = 8;

/// How this program starts itself in the background.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program.
    pub exe: PathBuf,
    /// Global flags to hand on (`--state-dir …`), before the command.
    pub flags: Vec<OsString>,
}

/// The process that owns this machine's state, if one does.
pub fn owner(config: &Config) -> Option<u32> {
    lock::owner(&config.dirs.lock())
}

/// The running daemon, or a new one; true where it was started. One that `stays` goes on when nothing is mounted.
pub async fn ensure(config: &Config, launch: &Launch, stays: bool) -> Result<(Client, bool)> {
    match Client::connect(&config.socket()).await {
        Err(e) if e.kind() == Kind::NoDaemon => start(config, launch, stays).await.map(|c| (c, true)),
        other => other.map(|c| (c, false)),
    }
}

async fn start(config: &Config, launch: &Launch, stays: bool) -> Result<Client> {
    make_state_dir(&config.dirs.state)?;
    let startup = config.dirs.startup_log();
    if let Some(dir) = startup.parent() {
        std::fs::create_dir_all(dir).doing(|| format!("making {}", dir.display()))?;
    }
    let out = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&startup)
        .doing(|| format!("opening {}", startup.display()))?;
    let err = out.try_clone().doing(|| format!("opening {}", startup.display()))?;
    keep_descriptors();
    let mut command = Command::new(&launch.exe);
    command.args(&launch.flags).args(["--json", "daemon", "run", "--detached"]);
    if !stays {
        command.arg("--until-unmounted");
    }
    let mut child =
        command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().doing(|| format!("starting the daemon ({})", launch.exe.display()))?;
    let deadline = Instant::now() + STARTING;
    let mut ended: Option<(ExitStatus, Instant)> = None;
    loop {
        match Client::connect(&config.socket()).await {
            Err(e) if e.kind() == Kind::NoDaemon => {}
            other => return other,
        }
        if ended.is_none() {
            ended = has_ended(&mut child)?.map(|s| (s, Instant::now()));
        }
        if let Some((status, since)) = ended {
            let e = why_it_ended(config, status);
            // Another `tcfs mount` was quicker: its daemon will answer in a moment.
            if e.kind() != Kind::Locked || since.elapsed() > Duration::from_secs(5) {
                return Err(e);
            }
        }
        if Instant::now() > deadline {
            return Err(Error::new(
                Kind::Timeout,
                format!("the daemon (process {}) did not come up in {} s", child.id(), STARTING.as_secs()),
            )
            .hint(log_hint(config)));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Keeps descriptors that this process was given by its parent (a pipe of `$(…)` or of a build) from the daemon: whoever
/// waits for their end would wait as long as the daemon lives.
fn keep_descriptors() {
    let Ok(open) = std::fs::read_dir(crate::sys::descriptors()) else { return };
    let numbers: Vec<i32> = open.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(|n| *n > 2).collect();
    for n in numbers {
        // SAFETY: setting the close-on-exec flag touches no memory; a number that is not open any more gives EBADF.
        unsafe { libc::fcntl(n, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

fn has_ended(child: &mut Child) -> Result<Option<ExitStatus>> {
    child.try_wait().doing(|| "waiting for the daemon")
}

/// The error with which a daemon ended while starting: as it wrote it itself, else what is known.
fn why_it_ended(config: &Config, status: ExitStatus) -> Error {
    #[derive(serde::Deserialize)]
    struct Line {
        error: WireError,
    }
    let lines = last_lines(&config.dirs.startup_log(), LAST_LINES);
    if let Some(line) = lines.iter().rev().find_map(|l| serde_json::from_str::<Line>(l).ok()) {
        return line.error.into();
    }
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (_, Some(signal)) => format!("was ended by signal {signal}"),
        _ => "ended".to_owned(),
    };
    Error::new(Kind::Io, format!("the daemon {how} while starting")).hint(log_hint(config))
}

/// The last lines of the log, and where the rest is.
fn log_hint(config: &Config) -> String {
    let log = config.dirs.log();
    let mut lines = last_lines(&log, LAST_LINES);
    lines.extend(last_lines(&config.dirs.startup_log(), LAST_LINES));
    match lines.len() {
        0 => format!("its log is empty: {}", log.display()),
        n => format!("the last lines of {}:\n{}", log.display(), lines[n.saturating_sub(LAST_LINES)..].join("\n")),
    }
}

/// Mounts, starting the daemon if need be; returns when the mount answers.
pub async fn mount(config: &Config, launch: &Launch, request: Mount, progress: &Progress) -> Result<Mounted> {
    let (client, started) = ensure(config, launch, false).await?;
    if !started {
        same_store(&client, config).await?;
    }
    match client.call(Request::Mount(request), progress).await {
        Ok(Response::Mounted(m)) => {
            if m.mount.command.is_some() {
                return Ok(m);
            }
            let at = m.mount.mountpoint.clone();
            let answer = tokio::task::spawn_blocking(move || mounts::probe(&at)).await.unwrap_or(Answer::Hangs);
            if answer == Answer::Alive {
                return Ok(m);
            }
            Err(Error::new(Kind::Timeout, format!("{} is mounted but does not answer", m.mount.mountpoint.display()))
                .hint(log_hint(config)))
        }
        Ok(other) => Err(unexpected("mount", &other)),
        Err(e) if e.kind() == Kind::Interrupted => Err(Error::new(Kind::Io, "the daemon died while mounting").hint(log_hint(config))),
        Err(e) => Err(e),
    }
}

/// Refuses to go on with a daemon that serves another store than the one asked for.
async fn same_store(client: &Client, config: &Config) -> Result<()> {
    match client.call(Request::Status, &Progress::none()).await? {
        Response::Status(s) if s.store == config.store.to_string() => Ok(()),
        Response::Status(s) => Err(Error::new(
            Kind::Usage,
            format!("the running daemon (process {}) serves {}, the configuration says {}", s.pid, s.store, config.store),
        )
        .hint("`tcfs daemon restart` takes the configuration over; a second store needs a --state-dir of its own")),
        other => Err(unexpected("status", &other)),
    }
}

/// Ends the daemon; returns when its state is free.
pub async fn stop(config: &Config) -> Result<Stopped> {
    let owner = owner(config);
    let stopped = match Client::connect(&config.socket()).await {
        Ok(client) => match client.call(Request::Stop, &Progress::none()).await? {
            Response::Stopped(s) => s,
            other => return Err(unexpected("stop", &other)),
        },
        // It owns the state but does not speak: starting, stopping, hanging, or of another version.
        Err(e) => match owner.and_then(|p| rustix::process::Pid::from_raw(p as i32)) {
            Some(pid) => {
                rustix::process::kill_process(pid, rustix::process::Signal::TERM)
                    .map_err(|k| Error::io(format!("ending process {}", pid.as_raw_nonzero()), k.into()))?;
                Stopped::default()
            }
            None => return Err(e),
        },
    };
    ended(config, owner).await?;
    Ok(stopped)
}

/// Waits until the process that owned the state has let go of it.
async fn ended(config: &Config, owner: Option<u32>) -> Result<()> {
    let deadline = Instant::now() + STOPPING;
    while owner.is_some() && self::owner(config) == owner {
        if Instant::now() > deadline {
            return Err(Error::new(Kind::Timeout, format!("the daemon (process {}) does not end", owner.unwrap_or(0)))
                .hint("kill -9 ends it; nothing that was closed or synced is lost, the next mount recovers"));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Unmounts `mountpoint` (none: all). With `force` it does so whoever uses it and whether or not a daemon answers.
pub async fn unmount(config: &Config, mountpoint: Option<PathBuf>, force: bool, progress: &Progress) -> Result<Unmounted> {
    let owner = owner(config);
    let asked = async {
        let client = Client::connect(&config.socket()).await?;
        match client.call(Request::Unmount(Unmount { mountpoint: mountpoint.clone(), force }), progress).await? {
            Response::Unmounted(u) => Ok(u),
            other => Err(unexpected("unmount", &other)),
        }
    };
    let deadline = if force { FORCED } else { Duration::MAX };
    let asked =
        tokio::time::timeout(deadline, asked).await.unwrap_or_else(|_| Err(Error::new(Kind::Timeout, "the daemon does not answer")));
    match asked {
        Ok(u) => {
            if u.daemon_stops {
                ended(config, owner).await?;
            }
            Ok(u)
        }
        Err(e) => {
            let Some(at) = mountpoint.or_else(|| config.mountpoint.clone()) else { return Err(e) };
            let at = real_parent(&super::paths::normalize(&at));
            tokio::task::spawn_blocking(move || without_daemon(&at, force, e))
                .await
                .map_err(|e| Error::new(Kind::Internal, "unmounting").source(e))?
        }
    }
}

/// What can be done about a mount whose daemon did not do it: a dead one is cleaned up, a living one only by force.
fn without_daemon(at: &Path, force: bool, e: Error) -> Result<Unmounted> {
    if mounts::ours_at(at).is_none() || (e.kind() == Kind::Busy && !force) {
        return Err(e);
    }
    match mounts::probe(at) {
        Answer::Dead => {
            mounts::clean_stale(at)?;
        }
        _ if force => mounts::detach(at)?,
        Answer::Alive if matches!(e.kind(), Kind::NoDaemon | Kind::NotFound) => {
            return Err(Error::new(
                Kind::NotFound,
                format!("the drive on {} belongs to a daemon with another state directory", at.display()),
            )
            .hint("name it with --state-dir; --force unmounts without asking it"));
        }
        _ => return Err(e),
    }
    Ok(Unmounted { mountpoints: vec![at.to_owned()], pending: 0, daemon_stops: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::shell::tests::config_in;

    /// A program that ends at once, as a daemon that cannot start.
    fn launch(dir: &Path, script: &str) -> Launch {
        use std::os::unix::fs::PermissionsExt;
        let exe = dir.join("fake");
        std::fs::write(&exe, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&exe, std::fs::Permissions::from_mode(0o755)).unwrap();
        Launch { exe, flags: vec!["--flag".into()] }
    }

    #[tokio::test]
    async fn a_daemon_that_cannot_start_hands_its_error_over() {
        let tmp = tempfile::tempdir().unwrap();
        let config = config_in(tmp.path());
        let script = r#"echo noise; echo '{"error":{"kind":"corrupt","message":"broken state","hint":"mend it"}}'; exit 1"#;
        let e = ensure(&config, &launch(tmp.path(), script), true).await.err().unwrap();
        assert_eq!((e.kind(), e.to_string().as_str(), e.hint_text()), (Kind::Corrupt, "broken state", Some("mend it")));
    }

    #[tokio::test]
    async fn a_daemon_that_dies_shows_the_last_lines_of_its_log() {
        let tmp = tempfile::tempdir().unwrap();
        let config = config_in(tmp.path());
        let script = format!("echo 'deep trouble' >> {}; kill -9 $$", config.dirs.log().display());
        let e = ensure(&config, &launch(tmp.path(), &script), true).await.err().unwrap();
        assert!(e.to_string().contains("signal 9") && e.hint_text().unwrap().ends_with("deep trouble"), "{e:?}");
    }

    #[tokio::test]
    async fn it_is_started_with_the_flags_of_the_caller() {
        let tmp = tempfile::tempdir().unwrap();
        let config = config_in(tmp.path());
        let e = ensure(&config, &launch(tmp.path(), "echo \"$*\"; exit 3"), false).await.err().unwrap();
        assert!(e.hint_text().unwrap().contains("--flag --json daemon run --detached --until-unmounted"), "{e:?}");
    }

    #[tokio::test]
    async fn without_a_daemon_stop_and_unmount_say_so() {
        let tmp = tempfile::tempdir().unwrap();
        let config = config_in(tmp.path());
        assert_eq!(stop(&config).await.unwrap_err().kind(), Kind::NoDaemon);
        assert_eq!(unmount(&config, None, false, &Progress::none()).await.unwrap_err().kind(), Kind::NoDaemon);
        let at = Some(tmp.path().to_owned());
        assert_eq!(unmount(&config, at, true, &Progress::none()).await.unwrap_err().kind(), Kind::NoDaemon);
    }

    #[tokio::test]
    #[cfg(not(target_os = "macos"))]
    async fn a_mount_without_its_daemon_is_unmounted_if_dead_and_by_force_if_not() {
        use crate::daemon::mounts::tests::unserved;
        let tmp = tempfile::tempdir().unwrap();
        let config = config_in(tmp.path());
        let at = tmp.path().canonicalize().unwrap().join("m");
        let nobody = Progress::none();
        let un = |force| unmount(&config, Some(at.clone()), force, &nobody);
        let Some(device) = unserved(&at) else { return };
        let e = un(false).await.unwrap_err();
        assert!(e.kind() == Kind::NoDaemon && mounts::ours_at(&at).is_some(), "{e:?}");
        assert_eq!(un(true).await.unwrap().mountpoints, std::slice::from_ref(&at));
        assert!(mounts::ours_at(&at).is_none());
        drop((device, unserved(&at)));
        assert_eq!(un(false).await.unwrap().mountpoints, std::slice::from_ref(&at));
        assert!(mounts::ours_at(&at).is_none());
    }

    #[tokio::test]
    async fn stopping_ends_an_owner_that_does_not_speak() {
        let tmp = tempfile::tempdir().unwrap();
        let config = config_in(tmp.path());
        make_state_dir(&config.dirs.state).unwrap();
        // A process that holds the lock, with its number in the file, and no socket.
        let lock = config.dirs.lock();
        let script = format!("echo $$ > {0}; exec 9<>{0}; flock -x 9; echo held; exec sleep 60", lock.display());
        let mut child = Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut held = [0u8; 5];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut held).unwrap();
        let reaped = std::thread::spawn(move || child.wait().unwrap());
        stop(&config).await.unwrap();
        assert_eq!(reaped.join().unwrap().signal(), Some(15));
    }
}
