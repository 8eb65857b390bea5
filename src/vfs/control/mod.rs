//! The control directory `/.tcfs/`: what the drive says of itself, and its past, as files that any program reads.
//!
//! | name | what it is |
//! |---|---|
//! | `status.json`, `devices.json`, `conflicts.json`, `pending.json` | as `tcfs … --json` prints them |
//! | `metrics` | counters and gauges in Prometheus' text format |
//! | `events` | what happens, a line of JSON each; grows, for `tail -f`, and is begun anew when it is large |
//! | `log` | the daemon's log |
//! | `at/<time>/…` | the drive as it was: `at/2026-02-13T18:04:05Z`, `at/1h ago`, `at/yesterday` |
//! | `history/<path>/` | one file for each version of `<path>`, and directories for the names below it |
//! | `recovered/` | what was found after a crash and belongs to no file |
//!
//! Its inodes are made as names are looked up. Their numbers follow from their paths in it, above all numbers of files, so
//! that they are the same after they were forgotten here; how many are kept is bounded.
//!
//! Must: nobody but the user who mounts enters it. Must: nothing in it can be changed, except that what is in `recovered/`
//! can be removed. Must: no call waits for the store but reading an old version. Must: a listing of the root does not show
//! it.
//! Not here: what the state files say (`Facts`, which the daemon implements), what its inodes are (`nodes`), which version was
//! there at a moment (`past`), open files (`reading`).

mod nodes;
mod past;
mod reading;

use super::{Attr, DirEntry, FileType, ROOT, Time, Vfs, not_found};
use crate::error::{Error, IoContext, Kind, Result};
use crate::model::Kind as Made;
use bytes::Bytes;
use dashmap::DashMap;
use lru::LruCache;
use nodes::{Node, What, number};
use parking_lot::Mutex;
use reading::Open;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Name of the control directory in the root of the drive; no file can have it.
pub const CONTROL: &str = ".tcfs";
/// Its owner's alone: names and bytes of what lies in private directories are in it, too.
const TOP_MODE: u32 = 0o500;
/// Numbers from here on are those of the control directory.
const FIRST: u64 = 1 << 62;
/// Handles with this bit are of open files in it.
const HANDLE: u64 = 1 << 63;
/// Inodes that are kept in mind.
const KEPT: NonZeroUsize = NonZeroUsize::new(1 << 15).expect("not zero");
/// How long the text of a state file is shown before it is asked for again.
const FRESH: Duration = Duration::from_millis(300);
/// How long `at/1h ago` leads to the same moment after it was used, and for how long at most.
const SAME_MOMENT: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// What a listing of `at/` offers; any other time works as well.
const OFFERED: [&str; 7] = ["10m ago", "1h ago", "6h ago", "yesterday", "2d ago", "7d ago", "30d ago"];

/// A file of the control directory that the daemon writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fact {
    /// `status.json`.
    Status,
    /// `devices.json`.
    Devices,
    /// `conflicts.json`.
    Conflicts,
    /// `pending.json`.
    Pending,
    /// `metrics`.
    Metrics,
    /// `events`.
    Events,
    /// `log`.
    Log,
}

impl Fact {
    /// All of them with their names.
    pub const ALL: [(Fact, &'static str); 7] = [
        (Fact::Status, "status.json"),
        (Fact::Devices, "devices.json"),
        (Fact::Conflicts, "conflicts.json"),
        (Fact::Pending, "pending.json"),
        (Fact::Metrics, "metrics"),
        (Fact::Events, "events"),
        (Fact::Log, "log"),
    ];
}

/// Where a [`Fact`] comes from.
pub enum Told {
    /// Its text now.
    Text(Vec<u8>),
    /// The file on this disk that it is.
    File(PathBuf),
}

/// Whoever writes the state files. Asked on any thread; may block on the local state, never on the network.
pub trait Facts: Send + Sync {
    /// What a file says now. None: there is no such file.
    fn tell(&self, of: Fact) -> Result<Option<Told>>;
}

/// Whether an inode is one of the control directory.
pub fn is_control(ino: u64) -> bool {
    ino >= FIRST
}

/// Whether a handle is one of an open file in it.
pub(super) fn is_handle(fh: u64) -> bool {
    fh & HANDLE != 0
}

/// The refusal of a change in it.
pub(super) fn read_only() -> Error {
    Error::new(Kind::ReadOnly, format!("{CONTROL} shows what is and what was: nothing in it can be changed"))
        .hint("copy what you need out of it")
}

struct Text {
    bytes: Bytes,
    asked: Instant,
    changed: Time,
}

/// A moment that `at/1h ago` leads to.
struct Meant {
    at: i64,
    since: Instant,
    used: Instant,
}

/// The control directory of a drive.
pub(super) struct Control {
    facts: OnceLock<Arc<dyn Facts>>,
    nodes: Mutex<LruCache<u64, Arc<Node>>>,
    texts: Mutex<HashMap<Fact, Text>>,
    meant: Mutex<HashMap<String, Meant>>,
    open: DashMap<u64, Arc<Open>>,
    since: Time,
}

impl Control {
    pub(super) fn new(now: Time) -> Control {
        Control {
            facts: OnceLock::new(),
            nodes: Mutex::new(LruCache::new(KEPT)),
            texts: Mutex::default(),
            meant: Mutex::default(),
            open: DashMap::new(),
            since: now,
        }
    }
}

impl Vfs {
    /// Says who writes the state files; the first one counts.
    pub fn tells(&self, facts: Arc<dyn Facts>) {
        let _ = self.control.facts.set(facts);
    }

    /// The control directory itself.
    pub(super) fn control_dir(&self) -> Attr {
        let top = self.kept_node(Node::new(ROOT, String::new(), What::Top));
        self.attr_of_dir(&top, TOP_MODE, self.control.since)
    }

    fn kept_node(&self, node: Arc<Node>) -> Arc<Node> {
        let mut nodes = self.control.nodes.lock();
        nodes.put(node.ino, node.clone());
        node
    }

    fn control_node(&self, ino: u64) -> Result<Arc<Node>> {
        let kept = self.control.nodes.lock().get(&ino).cloned();
        match kept {
            Some(n) => Ok(n),
            None if ino == number("") => Ok(self.kept_node(Node::new(ROOT, String::new(), What::Top))),
            None => Err(crate::state::tree::stale(ino)),
        }
    }

    pub(super) fn control_attr(&self, ino: u64) -> Result<Attr> {
        self.attr_of_node(&self.control_node(ino)?)
    }

    pub(super) fn control_parent(&self, ino: u64) -> Result<u64> {
        Ok(self.control_node(ino)?.parent)
    }

    /// Whether it is a file of the past, whose bytes do not change.
    pub fn is_old(&self, ino: u64) -> bool {
        self.control_node(ino).is_ok_and(|n| matches!(n.what, What::Old(..)))
    }

    pub(super) fn control_link(&self, ino: u64) -> Result<String> {
        match &self.control_node(ino)?.what {
            What::Old(v, ..) => match &v.kind {
                Made::Symlink { target } => Ok(target.clone()),
                _ => Err(Error::new(Kind::Invalid, "not a symbolic link")),
            },
            _ => Err(Error::new(Kind::Invalid, "not a symbolic link")),
        }
    }

    pub(super) fn control_lookup(&self, dir: u64, name: &str) -> Result<Attr> {
        let node = self.control_node(dir)?;
        let child = self.child_of(&node, name)?.ok_or_else(|| not_found(name))?;
        self.attr_of_node(&self.kept_node(child))
    }

    pub(super) fn control_list(&self, dir: u64, cookie: u64, max: usize, attrs: bool) -> Result<Vec<DirEntry>> {
        let node = self.control_node(dir)?;
        let known = node.listing.lock().clone().filter(|_| cookie > 0);
        let lines = match known {
            Some(l) => l,
            None => {
                let mut lines = self.lines_of(&node)?;
                lines.sort_by_key(|l| l.cookie);
                Arc::new(lines)
            }
        };
        let from = lines.partition_point(|l| l.cookie <= cookie);
        let page = &lines[from..lines.len().min(from.saturating_add(max))];
        let more = from + page.len() < lines.len();
        *node.listing.lock() = more.then(|| lines.clone());
        let mut out = Vec::with_capacity(page.len());
        for l in page {
            let child = self.kept_node(l.node.clone());
            let attr = if attrs { Some(self.attr_of_node(&child)?) } else { None };
            out.push(DirEntry { name: l.name.clone(), ino: child.ino, kind: child.kind(), cookie: l.cookie, attr });
        }
        Ok(out)
    }

    /// What a state file says, at most `age` old.
    fn told(&self, fact: Fact, age: Duration) -> Result<Option<Now>> {
        if let Some(t) = self.control.texts.lock().get(&fact).filter(|t| t.asked.elapsed() < age) {
            return Ok(Some(Now::Text(t.bytes.clone(), t.changed)));
        }
        let Some(facts) = self.control.facts.get() else { return Ok(None) };
        let text = match facts.tell(fact)? {
            None => return Ok(None),
            Some(Told::File(p)) => return Ok(Some(Now::File(p))),
            Some(Told::Text(t)) => t,
        };
        let mut texts = self.control.texts.lock();
        let was = texts.get(&fact).filter(|t| t.bytes == text);
        let (bytes, changed) = was.map_or_else(|| (text.into(), self.now()), |t| (t.bytes.clone(), t.changed));
        texts.insert(fact, Text { bytes: bytes.clone(), asked: Instant::now(), changed });
        Ok(Some(Now::Text(bytes, changed)))
    }

    /// Opens a file of the control directory for reading. `again`: what it says is asked for anew.
    pub(super) fn open_control(self: &Arc<Self>, ino: u64, write: bool, again: bool) -> Result<super::Opened> {
        let node = self.control_node(ino)?;
        if write {
            return Err(read_only());
        }
        let open = match &node.what {
            What::Old(v, ..) => Open::version(self, v)?,
            What::Found(p) => Open::Path(p.clone()),
            What::Fact(f) => {
                let age = if again { FRESH } else { Duration::MAX };
                match self.told(*f, age)?.ok_or_else(|| not_found(&node.path))? {
                    Now::Text(t, _) => Open::Text(t),
                    Now::File(p) => Open::Path(p),
                }
            }
            _ => return Err(Error::new(Kind::IsDir, format!("{} is a directory", node.path))),
        };
        let size = open.size().map_or_else(|| self.control_attr(ino).map(|a| a.size), Ok)?;
        let fh = HANDLE | self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.control.open.insert(fh, Arc::new(open));
        Ok(super::Opened { fh, whole: true, size })
    }

    fn control_file(&self, fh: u64) -> Result<Arc<Open>> {
        let open = self.control.open.get(&fh).map(|o| o.clone());
        open.ok_or_else(|| Error::new(Kind::Stale, format!("file handle {fh} is not open")))
    }

    /// Waits for the store where an old version is read, up to the read deadline. Cancel-safe.
    pub(super) async fn read_control(self: &Arc<Self>, fh: u64, off: u64, len: usize) -> Result<Bytes> {
        self.control_file(fh)?.read(self, off, len).await
    }

    pub(super) fn seek_control(&self, fh: u64, off: i64, whence: i32) -> Result<i64> {
        let size = self.control_file(fh)?.size().unwrap_or(u64::MAX) as i64;
        match whence {
            _ if off < 0 || off >= size => Err(Error::new(Kind::BeyondEnd, "seeking beyond the end")),
            libc::SEEK_DATA => Ok(off),
            libc::SEEK_HOLE => Ok(size),
            _ => Err(Error::new(Kind::Invalid, "seeking")),
        }
    }

    pub(super) fn release_control(&self, fh: u64) -> Result<()> {
        match self.control.open.remove(&fh).map(|(_, o)| o) {
            Some(o) => {
                if let Open::Here(inner) = *o {
                    self.release(inner)
                } else {
                    Ok(())
                }
            }
            None => Ok(()),
        }
    }

    /// Removes what was found after a crash.
    ///
    /// Errors: `ReadOnly` for everything else.
    pub(super) fn remove_found(&self, dir: u64, name: &str) -> Result<()> {
        let node = self.control_node(dir)?;
        let What::Found(at) = &node.what else { return Err(read_only()) };
        std::fs::remove_file(at.join(name)).doing(|| format!("removing {}", at.join(name).display()))
    }

    /// The name of something in `dir` that is to go; not one in the control directory, nor its own.
    pub(super) fn old_name(&self, dir: u64, name: &[u8]) -> Result<String> {
        let name = super::names::parse_name(name)?;
        if is_control(dir) || dir == ROOT && name == CONTROL { Err(read_only()) } else { Ok(name) }
    }

    /// The name of something new in `dir`; not one in the control directory, nor its own.
    pub(super) fn new_name(&self, dir: u64, name: &[u8]) -> Result<String> {
        if is_control(dir) {
            return Err(read_only());
        }
        let name = super::names::parse_name(name)?;
        if dir == ROOT && name == CONTROL {
            return Err(Error::new(Kind::Exists, format!("{CONTROL} is the control directory of the drive")));
        }
        Ok(name)
    }
}

/// A state file, now.
enum Now {
    Text(Bytes, Time),
    File(PathBuf),
}
