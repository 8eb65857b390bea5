//! The daemon's log: a file in the state directory that is rotated by size, and stderr in the foreground.
//!
//! Must: a full disk or a missing directory never stops the daemon; lines are then lost, nothing else.
//! Not here: what is logged, and the last resort for a daemon that dies before this is set up (`lifecycle`).

use super::config::Config;
use crate::error::{IoContext, Result};
use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Starts logging for this process: to the log file, and to stderr if `foreground`. Once per process; a second call
/// changes nothing.
pub fn start(config: &Config, foreground: bool) -> Result<()> {
    let file = Rotated::open(&config.dirs.log(), config.log.max_bytes.0, config.log.keep)?;
    let level = config.log.level.as_str();
    // Other crates only when something is wrong, or when everything was asked for. Never the bus's: it prints what it
    // sends, an error at every attempt included, and what matters of it is said by `fleet::nats`.
    let rules = || {
        let all = if level == "trace" { "trace".to_owned() } else { format!("warn,tcfs={level}") };
        EnvFilter::new(all + ",async_nats=off")
    };
    let to_file = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(file).with_filter(rules());
    let to_stderr = foreground.then(|| tracing_subscriber::fmt::layer().with_ansi(false).with_writer(io::stderr).with_filter(rules()));
    if tracing_subscriber::registry().with(to_file).with(to_stderr).try_init().is_ok() {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |p| {
            tracing::error!(panic = %p, "a thread panicked");
            before(p);
            if std::thread::current().name().is_some_and(|n| n.starts_with(crate::mount::THREADS_NAMED)) {
                // It was answering a kernel, which goes on waiting: whoever asked could not even be killed. The end of the
                // process gives them errors, and the next start finds what it finds after any kill.
                tracing::error!("the daemon ends, because a request of a mount can never be answered");
                std::process::abort();
            }
        }));
    }
    Ok(())
}

/// A file that is renamed to `<name>.1`, `.2`, … when it grows over a size.
#[derive(Clone)]
pub struct Rotated {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    path: PathBuf,
    file: File,
    size: u64,
    max: u64,
    keep: u64,
}

impl Rotated {
    /// Opens (appending) or makes the file and its directory; `keep` old files stay beside it.
    pub fn open(path: &Path, max: u64, keep: u64) -> Result<Rotated> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).doing(|| format!("making {}", dir.display()))?;
        }
        let (file, size) = append(path).doing(|| format!("opening the log {}", path.display()))?;
        Ok(Rotated { inner: Arc::new(Mutex::new(Inner { path: path.to_owned(), file, size, max: max.max(1), keep })) })
    }
}

fn append(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let size = file.metadata()?.size();
    Ok((file, size))
}

impl Inner {
    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |n: u64| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        };
        for n in (1..self.keep).rev() {
            match std::fs::rename(numbered(n), numbered(n + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        if self.keep > 0 {
            std::fs::rename(&self.path, numbered(1))?;
        } else {
            std::fs::remove_file(&self.path)?;
        }
        (self.file, self.size) = append(&self.path)?;
        Ok(())
    }
}

impl Write for &Rotated {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut inner = self.inner.lock();
        if inner.size > 0 && inner.size + line.len() as u64 > inner.max {
            // Where it cannot be rotated the file just goes on growing.
            let _ = inner.rotate();
        }
        inner.file.write_all(line)?;
        inner.size += line.len() as u64;
        Ok(line.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.lock().file.flush()
    }
}

/// A borrowed writer for one line.
pub struct LineWriter<'a>(&'a Rotated);

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        (&mut self.0).write(line)
    }
    fn flush(&mut self) -> io::Result<()> {
        (&mut self.0).flush()
    }
}

impl<'a> MakeWriter<'a> for Rotated {
    type Writer = LineWriter<'a>;
    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter(self)
    }
}

/// The last `n` lines of a file, at most 64 KiB of it; empty if it cannot be read.
pub fn last_lines(path: &Path, n: usize) -> Vec<String> {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> io::Result<String> {
        let mut f = File::open(path)?;
        let from = f.metadata()?.size().saturating_sub(64 << 10);
        f.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        f.take(64 << 10).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(n)..].iter().map(|l| l.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_rotated_by_size_and_few_are_kept() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("log").join("t.log");
        let log = Rotated::open(&path, 10, 2).unwrap();
        for line in ["aaaaaaaa\n", "bbbbbbbb\n", "cccccccc\n", "dddddddd\n"] {
            (&log).write_all(line.as_bytes()).unwrap();
        }
        let read = |suffix: &str| std::fs::read_to_string(format!("{}{suffix}", path.display())).ok();
        assert_eq!(read("").as_deref(), Some("dddddddd\n"));
        assert_eq!((read(".1").as_deref(), read(".2").as_deref()), (Some("cccccccc\n"), Some("bbbbbbbb\n")));
        assert_eq!(read(".3"), None);
        // Opened again it appends and knows its size.
        drop(log);
        let log = Rotated::open(&path, 10, 0).unwrap();
        (&log).write_all(b"e\n").unwrap();
        (&log).write_all(b"ffffffff\n").unwrap();
        assert_eq!(read("").as_deref(), Some("ffffffff\n"));
        assert_eq!(read(".1").as_deref(), Some("cccccccc\n"));
    }

    #[test]
    fn the_last_lines_are_the_last() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("x");
        std::fs::write(&path, format!("{}\none\n\ntwo\n", "x".repeat(100 << 10))).unwrap();
        assert_eq!(last_lines(&path, 2), ["one", "two"]);
        assert_eq!(last_lines(&tmp.path().join("none"), 2), Vec::<String>::new());
    }
}
