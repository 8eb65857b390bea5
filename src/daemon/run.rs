//! The daemon process from its first line to its last.
//!
//! Must: the state is owned before the socket is bound; the socket is gone before the state is let go.
//! Must: SIGTERM, SIGINT and SIGHUP end it gracefully; nothing is lost, what is not published goes out next time.
//! Not here: starting it in the background (`lifecycle`).

use super::config::Config;
use super::protocol::{Mount, Request, Response};
use super::service::{Progress, Service};
use super::shell::{Life, Shell};
use super::socket::{Server, stopped};
use super::{log, notify};
use crate::error::{Error, IoContext, Kind, Result};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// How often a daemon that was started for a mount looks whether it is still needed.
const TICK: Duration = Duration::from_secs(1);
/// One that never got its mount ends after so many looks without a client.
const NEVER_MOUNTED: u32 = 60;
/// One whose mount went away ends after so many, so that a mount right behind an unmount still finds it.
const UNMOUNTED: u32 = 2;
/// Longest time for the core to seal and close; beyond it the process ends as if it had been killed, which it survives.
const CLOSING: Duration = Duration::from_secs(60);

/// What must happen in a process that is to serve while it has one thread: keeping capabilities from git and other programs
/// that it starts.
pub fn before_threads() -> Result<()> {
    crate::sys::keep_capabilities_here().doing(|| "keeping capabilities from other programs")
}

/// How a daemon runs.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Goes on when nothing is mounted.
    pub stays: bool,
    /// Logs to stderr too.
    pub foreground: bool,
    /// Mounted before it is ready; one that fails ends it.
    pub mounts: Vec<Mount>,
}

/// Runs a daemon to its end. `ready` is given the answers to [`RunOptions::mounts`] once everything is up.
pub async fn run(config: Arc<Config>, options: RunOptions, ready: impl FnOnce(Vec<Response>) + Send) -> Result<()> {
    super::memory::give_back();
    make_state_dir(&config.dirs.state)?;
    log::start(&config, options.foreground)?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), store = %config.store, "the daemon starts");
    for w in config.warnings() {
        tracing::warn!("{w}");
    }
    let service = super::open_service(&config).await.inspect_err(|e| tracing::error!(error = %e, "opening the drive failed"))?;
    let result = run_with(config, service, options, signal()?, ready).await;
    match &result {
        Ok(()) => tracing::info!("the daemon ends"),
        Err(e) => tracing::error!(error = %e, "the daemon ends with an error"),
    }
    result
}

/// [`run`] around a given service, until `signal` or a request ends it.
pub async fn run_with(
    config: Arc<Config>,
    service: Arc<dyn Service>,
    options: RunOptions,
    signal: impl Future<Output = &'static str> + Send,
    ready: impl FnOnce(Vec<Response>) + Send,
) -> Result<()> {
    let (stop, mut stop_seen) = watch::channel(false);
    let server = match Server::bind(&config.socket()) {
        Ok(s) => s,
        Err(e) => {
            service.shutdown().await;
            return Err(e);
        }
    };
    let connections = server.connections();
    let life = Arc::new(Life { stays: AtomicBool::new(options.stays), ..Life::default() });
    let shell: Arc<dyn Service> = Arc::new(Shell::new(service, config, life.clone(), stop.clone()));
    let mut serving = tokio::spawn(server.serve(shell.clone(), stop_seen.clone()));
    tokio::pin!(signal);

    let up = async {
        let mut answers = Vec::new();
        for m in options.mounts {
            answers.push(shell.call(Request::Mount(m), &Progress::none()).await?);
        }
        Ok::<_, Error>(answers)
    };
    let started = tokio::select! {
        r = up => r.map(Some),
        name = &mut signal => {
            tracing::info!(signal = name, "told to stop while starting");
            Ok(None)
        }
    };
    let result = match started {
        Ok(Some(answers)) => {
            ready(answers);
            notify::ready();
            tokio::select! {
                biased;
                name = &mut signal => tracing::info!(signal = name, "told to stop"),
                () = stopped(&mut stop_seen) => {}
                () = abandoned(&*shell, &connections, &life, TICK) => tracing::info!("nothing is mounted, the daemon ends"),
                _ = &mut serving => tracing::error!("the socket closed by itself"),
            }
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(e) => Err(e),
    };
    notify::stopping();
    stop.send_replace(true);
    if !serving.is_finished() {
        let _ = serving.await;
    }
    if tokio::time::timeout(CLOSING, shell.shutdown()).await.is_err() {
        tracing::error!("closing the drive took longer than {} s; it is left as it is, the next start recovers", CLOSING.as_secs());
    }
    result
}

/// Returns when the last mount went away without `tcfs unmount` (somebody called `umount`), or none ever came.
async fn abandoned(shell: &dyn Service, connections: &AtomicUsize, life: &Life, tick: Duration) {
    let mut tick = tokio::time::interval(tick);
    let mut looks = 0;
    loop {
        tick.tick().await;
        let kept = !shell.mounts().is_empty() || connections.load(Ordering::SeqCst) > 0 || life.stays.load(Ordering::SeqCst);
        looks = if kept { 0 } else { looks + 1 };
        // Not judged by what a look sees: a mount may come and go between two of them.
        if looks >= if life.mounted.load(Ordering::SeqCst) { UNMOUNTED } else { NEVER_MOUNTED } {
            return;
        }
    }
}

/// Makes the state directory, for this user alone.
pub fn make_state_dir(state: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state)
        .doing(|| format!("making the state directory {}", state.display()))
        .map_err(|e| e.hint("--state-dir DIR puts it elsewhere"))
}

/// Resolves with the name of the first signal that asks for an end.
pub fn signal() -> Result<impl Future<Output = &'static str> + Send> {
    use tokio::signal::unix::{SignalKind, signal};
    let on = |kind| signal(kind).map_err(|e| Error::new(Kind::Io, "listening for signals").source(e));
    let (mut term, mut int, mut hup) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?, on(SignalKind::hangup())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
            _ = hup.recv() => "SIGHUP",
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::client::Client;
    use crate::daemon::shell::tests::{FakeCore, config_in};
    use tokio::sync::oneshot;

    struct Up {
        core: Arc<FakeCore>,
        signal: oneshot::Sender<()>,
        running: tokio::task::JoinHandle<Result<()>>,
        config: Arc<Config>,
        tmp: tempfile::TempDir,
    }

    async fn up(stays: bool, mounts: &[&str]) -> Up {
        let tmp = tempfile::tempdir().unwrap();
        let config = config_in(tmp.path());
        make_state_dir(&config.dirs.state).unwrap();
        let core = Arc::new(FakeCore::default());
        let (signal, signalled) = oneshot::channel::<()>();
        let (ready, is_ready) = oneshot::channel();
        let mounts = mounts.iter().map(|m| Mount { mountpoint: tmp.path().join(m), ..Mount::default() }).collect();
        let options = RunOptions { stays, foreground: false, mounts };
        let signal_seen = async move {
            let _ = signalled.await;
            "TEST"
        };
        let running = tokio::spawn(run_with(config.clone(), core.clone(), options, signal_seen, move |a| {
            let _ = ready.send(a);
        }));
        let _ = is_ready.await;
        Up { core, signal, running, config, tmp }
    }

    #[tokio::test]
    async fn a_signal_ends_it_gracefully_and_takes_the_socket_away() {
        let up = up(true, &["m"]).await;
        assert_eq!(up.core.mounts.lock().len(), 1);
        assert!(up.config.socket().exists());
        up.signal.send(()).unwrap();
        up.running.await.unwrap().unwrap();
        assert!(up.core.ended.load(Ordering::SeqCst) && !up.config.socket().exists());
    }

    #[tokio::test]
    async fn a_stop_request_is_answered_before_it_ends() {
        let up = up(true, &[]).await;
        let client = Client::connect(&up.config.socket()).await.unwrap();
        assert!(matches!(client.call(Request::Stop, &Progress::none()).await, Ok(Response::Stopped(_))));
        up.running.await.unwrap().unwrap();
        assert!(up.core.ended.load(Ordering::SeqCst));
        drop((up.signal, up.tmp));
    }

    #[tokio::test]
    async fn a_mount_that_fails_at_the_start_ends_it_with_its_error() {
        let up = up(true, &["state/inside"]).await;
        let e = up.running.await.unwrap().unwrap_err();
        assert!(e.kind() == Kind::Usage && up.core.ended.load(Ordering::SeqCst), "{e:?}");
        assert!(!up.config.socket().exists());
        drop((up.signal, up.tmp));
    }

    #[tokio::test]
    async fn a_mount_taken_away_from_outside_ends_it_unless_a_client_or_an_order_keeps_it() {
        let core = FakeCore::default();
        core.mounts.lock().push(Default::default());
        let connections = AtomicUsize::new(0);
        let life = Life { mounted: AtomicBool::new(true), ..Life::default() };
        let ends = abandoned(&core, &connections, &life, Duration::from_millis(1));
        tokio::pin!(ends);
        let much_later = || tokio::time::sleep(Duration::from_millis(u64::from(NEVER_MOUNTED) * 3));
        tokio::select! {
            () = &mut ends => panic!("ended while mounted"),
            () = much_later() => {}
        }
        core.mounts.lock().clear();
        connections.store(1, Ordering::SeqCst);
        tokio::select! {
            () = &mut ends => panic!("ended under a client"),
            () = much_later() => {}
        }
        connections.store(0, Ordering::SeqCst);
        life.stays.store(true, Ordering::SeqCst);
        tokio::select! {
            () = &mut ends => panic!("ended though it was told to stay"),
            () = much_later() => {}
        }
        life.stays.store(false, Ordering::SeqCst);
        ends.await;
    }

    #[tokio::test]
    async fn one_that_never_got_its_mount_ends() {
        abandoned(&FakeCore::default(), &AtomicUsize::new(0), &Life::default(), Duration::from_millis(1)).await;
    }

    #[tokio::test]
    async fn one_whose_mount_came_and_went_between_two_looks_ends_soon() {
        let (life, tick) = (Life { mounted: AtomicBool::new(true), ..Life::default() }, Duration::from_millis(200));
        let began = std::time::Instant::now();
        abandoned(&FakeCore::default(), &AtomicUsize::new(0), &life, tick).await;
        assert!(began.elapsed() < tick * NEVER_MOUNTED / 2, "it waited as if no mount had ever come");
    }
}
