//! What every command has at hand: the configuration, the output, and a way to the drive with or without a daemon.

use super::Global;
use super::output::Output;
use crate::daemon::client::Client;
use crate::daemon::config::{Config, Sources};
use crate::daemon::lifecycle::Launch;
use crate::daemon::pathargs::{self, Place};
use crate::daemon::protocol::{Item, MountInfo, Request, Response};
use crate::daemon::service::{Progress, Service, Update, collect};
use crate::daemon::{log, run};
use crate::error::{Error, IoContext, Kind, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Updates in flight between the work and the printing.
const UPDATES: usize = 256;

/// At hand in every command.
pub struct Ctx {
    /// The configuration.
    pub config: Arc<Config>,
    /// Prints.
    pub out: Output,
    /// How to start the daemon.
    pub launch: Launch,
}

/// The drive: a daemon's, or opened in this process for one command.
pub struct Drive {
    service: Arc<dyn Service>,
    /// What the daemon has mounted; nothing without one.
    mounts: Vec<MountInfo>,
    in_process: bool,
}

/// The sources of the configuration with the global flags in them.
pub fn sources(global: &Global) -> Sources {
    let mut s = Sources::of_process();
    s.config_file = global.config.clone();
    let text = |p: &Path| p.to_string_lossy().into_owned();
    s.flags.extend(global.state_dir.as_ref().map(|d| ("state_dir", text(d), "--state-dir")));
    s.flags.extend(global.store.as_ref().map(|u| ("store", u.clone(), "--store")));
    s
}

impl Ctx {
    /// Loads the configuration.
    pub fn load(global: &Global) -> Result<(Config, Launch)> {
        let config = Config::load(&sources(global))?;
        let exe = std::env::current_exe().doing(|| "finding this program")?;
        // What was given as a flag is handed on as it was understood here: absolute.
        let mut flags: Vec<OsString> = Vec::new();
        if let (Some(_), Some(file)) = (&global.config, &config.file_path) {
            flags.extend(["--config".into(), file.into()]);
        }
        if global.state_dir.is_some() {
            flags.extend(["--state-dir".into(), config.dirs.state.clone().into()]);
        }
        if global.store.is_some() {
            flags.extend(["--store".into(), config.store.to_string().into()]);
        }
        Ok((config, Launch { exe, flags }))
    }

    /// Where the drive is mounted: as typed, else as configured.
    pub fn mountpoint(&self, typed: Option<&Path>) -> Result<PathBuf> {
        match typed {
            Some(m) => Ok(self.local(m)),
            None => Ok(self.config.mountpoint()?.to_owned()),
        }
    }

    /// The running daemon; `NoDaemon` without one.
    pub async fn daemon(&self) -> Result<Drive> {
        let client = Client::connect(&self.config.socket()).await?;
        let mounts = match client.call(Request::Status, &Progress::none()).await? {
            Response::Status(s) => s.mounts,
            _ => Vec::new(),
        };
        Ok(Drive { service: Arc::new(client), mounts, in_process: false })
    }

    /// [`Ctx::drive`] for a command that makes sense only on a machine that is enrolled: it does not enrol it.
    pub async fn own_drive(&self) -> Result<Drive> {
        match self.daemon().await {
            Err(e) if e.kind() == Kind::NoDaemon => crate::daemon::must_be_enrolled(&self.config)?,
            other => return other,
        }
        self.drive().await
    }

    /// The running daemon, or the drive opened in this process, which enrols a machine that is not.
    pub async fn drive(&self) -> Result<Drive> {
        match self.daemon().await {
            Err(e) if e.kind() == Kind::NoDaemon => {}
            other => return other,
        }
        run::make_state_dir(&self.config.dirs.state)?;
        log::start(&self.config, false)?;
        match crate::daemon::open_service(&self.config).await {
            Ok(service) => Ok(Drive { service, mounts: Vec::new(), in_process: true }),
            // A daemon came up in the meantime.
            Err(e) if e.kind() == Kind::Locked => self.daemon().await.map_err(|_| e),
            Err(e) => Err(e),
        }
    }

    /// Does one request on the drive and lets go of it: items to `item`, progress to the bar.
    pub async fn ask(&self, drive: Drive, request: Request, item: impl FnMut(Item)) -> Result<Response> {
        let result = self.call(&drive, request, item).await;
        drive.close().await;
        result
    }

    /// Does one request whose answer is not to be shown: its items with it.
    pub async fn ask_quietly(&self, drive: Drive, request: Request) -> Result<(Vec<Item>, Response)> {
        collect(&*drive.service, request).await
    }

    /// Does one request.
    pub async fn call(&self, drive: &Drive, request: Request, item: impl FnMut(Item)) -> Result<Response> {
        let stopped = async {
            // A daemon notices by itself that we are gone; a drive in this process must be closed. Listening for signals
            // takes their usual effect away, so only then.
            match drive.in_process.then(run::signal) {
                Some(Ok(signal)) => signal.await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            r = self.follow(&*drive.service, request, item) => r,
            name = stopped => Err(Error::new(Kind::Interrupted, format!("stopped by {name}"))),
        }
    }

    /// Runs a call and shows what it reports.
    async fn follow(&self, service: &dyn Service, request: Request, mut item: impl FnMut(Item)) -> Result<Response> {
        let (progress, mut updates) = Progress::channel(UPDATES);
        let call = service.call(request, &progress);
        tokio::pin!(call);
        let mut show = |u: Update| match u {
            Update::Progress(p) => self.out.progress(&p),
            Update::Item(i) => {
                self.out.object(&i);
                item(i);
            }
        };
        let result = loop {
            tokio::select! {
                biased;
                Some(u) = updates.recv() => show(u),
                r = &mut call => break r,
            }
        };
        while let Ok(u) = updates.try_recv() {
            show(u);
        }
        self.out.done();
        result
    }

    /// Runs `work` with a [`Progress`] that moves the bar.
    pub async fn with_progress<T>(&self, work: impl AsyncFnOnce(&Progress) -> T) -> T {
        let (progress, mut updates) = Progress::channel(UPDATES);
        let work = work(&progress);
        tokio::pin!(work);
        let result = loop {
            tokio::select! {
                biased;
                Some(u) = updates.recv() => if let Update::Progress(p) = u { self.out.progress(&p) },
                r = &mut work => break r,
            }
        };
        self.out.done();
        result
    }

    /// A PATH argument as a request wants it.
    pub fn path(&self, drive: &Drive, typed: &str) -> Result<String> {
        let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let mounts: Vec<PathBuf> = drive.mounts.iter().map(|m| m.mountpoint.clone()).collect();
        let place = Place { cwd: &cwd, mounts: &mounts, real: &pathargs::real_parent, exists: &|p| p.symlink_metadata().is_ok() };
        pathargs::resolve(typed, &place)
    }

    /// A local path argument, absolute.
    pub fn local(&self, typed: &Path) -> PathBuf {
        std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")).join(typed)
    }

    /// A command line of this program that can be copied: by its name if that is on the PATH, with the global flags.
    pub fn command(&self, rest: &str) -> String {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut out =
            if on_path(&self.launch.exe, &path) { "tcfs".to_owned() } else { super::format::shell(&self.launch.exe.to_string_lossy()) };
        for f in &self.launch.flags {
            out = format!("{out} {}", super::format::shell(&f.to_string_lossy()));
        }
        format!("{out} {rest}")
    }
}

impl Drive {
    /// What is mounted.
    pub fn mounts(&self) -> &[MountInfo] {
        &self.mounts
    }

    /// Lets go of it; a drive in this process is closed.
    pub async fn close(self) {
        if self.in_process {
            self.service.shutdown().await;
        }
    }
}

/// Whether `tcfs` on the PATH is this program.
pub fn on_path(exe: &Path, path: &std::ffi::OsStr) -> bool {
    let exe = exe.canonicalize().unwrap_or_else(|_| exe.to_owned());
    let first = std::env::split_paths(path).map(|d| d.join("tcfs")).find(|p| p.is_file());
    first.and_then(|p| p.canonicalize().ok()).is_some_and(|p| p == exe)
}

/// An answer of the wrong kind.
pub fn unexpected(got: &Response) -> Error {
    crate::daemon::shell::unexpected("a request", got)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_counts_only_if_it_leads_to_this_very_program() {
        let tmp = tempfile::tempdir().unwrap();
        let (a, b) = (tmp.path().join("a"), tmp.path().join("b"));
        for d in [&a, &b] {
            std::fs::create_dir(d).unwrap();
        }
        std::fs::write(a.join("tcfs"), "").unwrap();
        let path = |dirs: &[&PathBuf]| std::env::join_paths(dirs).unwrap();
        assert!(on_path(&a.join("tcfs"), &path(&[&b, &a])));
        std::os::unix::fs::symlink(a.join("tcfs"), b.join("tcfs")).unwrap();
        assert!(on_path(&a.join("tcfs"), &path(&[&b, &a])));
        std::fs::remove_file(b.join("tcfs")).unwrap();
        std::fs::write(b.join("tcfs"), "").unwrap();
        assert!(!on_path(&a.join("tcfs"), &path(&[&b, &a])));
        assert!(!on_path(&a.join("tcfs"), &path(&[])));
    }
}
