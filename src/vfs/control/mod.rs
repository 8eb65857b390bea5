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
//! Must: nothing in it can be changed, except that what is in `recovered/` can be removed. Must: no call waits for the
//! store but reading an old version. Must: a listing of the root does not show it.
//! Not here: what the state files say (`Facts`, which the daemon implements), which version was there at a moment (`past`),
//! open files (`reading`).

mod past;
mod reading;

use super::{Attr, DirEntry, FileType, ROOT, Time, Vfs, not_found};
use crate::error::{Error, IoContext, Kind, Result};
use crate::human;
use crate::model::brake::seen_by;
use crate::model::{Hash, Kind as Made, RelPath, Version};
use crate::state::rows::cookie_of;
use bytes::Bytes;
use dashmap::DashMap;
use lru::LruCache;
use parking_lot::Mutex;
use past::Was;
use reading::Open;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Name of the control directory in the root of the drive; no file can have it.
pub const CONTROL: &str = ".tcfs";
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

/// What an inode is.
enum What {
    Top,
    /// `at/`.
    At,
    /// A directory as it was.
    Past {
        at: i64,
        path: RelPath,
        mode: u32,
        mtime: (i64, u32),
    },
    /// `history/`, or a path in it.
    History(RelPath),
    /// A file or link of the past.
    Old(Box<Version>, u32, (i64, u32)),
    Fact(Fact),
    /// `recovered/`, or what lies in it.
    Found(PathBuf),
}

struct Node {
    ino: u64,
    parent: u64,
    /// Path below the control directory.
    path: String,
    what: What,
    /// While it is being listed.
    listing: Mutex<Option<Arc<Vec<Line>>>>,
}

struct Line {
    name: String,
    cookie: u64,
    node: Arc<Node>,
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

fn number(path: &str) -> u64 {
    let hash = Hash::of(path.as_bytes());
    let mut b = [0u8; 8];
    b.copy_from_slice(&hash.0[..8]);
    FIRST | u64::from_le_bytes(b) >> 2
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

impl Node {
    fn new(parent: u64, path: String, what: What) -> Arc<Node> {
        Arc::new(Node { ino: number(&path), parent, path, what, listing: Mutex::default() })
    }

    fn child(&self, name: &str, what: What) -> Arc<Node> {
        Node::new(self.ino, join(&self.path, name), what)
    }

    fn kind(&self) -> FileType {
        match &self.what {
            What::Top | What::At | What::Past { .. } | What::History(_) => FileType::Dir,
            What::Old(v, ..) if matches!(v.kind, Made::Symlink { .. }) => FileType::Symlink,
            What::Found(p) if p.is_dir() => FileType::Dir,
            What::Old(..) | What::Fact(_) | What::Found(_) => FileType::File,
        }
    }
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
        self.attr_of_dir(&top, 0o555, self.control.since)
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

    fn child_of(&self, dir: &Arc<Node>, name: &str) -> Result<Option<Arc<Node>>> {
        Ok(match &dir.what {
            What::Top => self.top_lines(dir)?.into_iter().find(|l| l.name == name).map(|l| l.node),
            What::At => self.moment_of(name).map(|at| past_root(dir, at)),
            What::Past { at, path, .. } => {
                self.drain_moves()?;
                self.replica.read(|r| self.name_at(r, path, name, *at))?.map(|w| past_child(dir, *at, path, w))
            }
            What::History(path) => match self.replica.read(|r| past::was_ever(r, &path.join(name)))? {
                true => Some(dir.child(name, What::History(path.join(name)))),
                false => self.versions_in(dir, path)?.into_iter().find(|l| l.name == name).map(|l| l.node),
            },
            What::Found(at) => {
                let at = at.join(name);
                std::fs::symlink_metadata(&at).is_ok_and(|m| m.is_file() || m.is_dir()).then(|| dir.child(name, What::Found(at)))
            }
            What::Old(..) | What::Fact(_) => return Err(Error::new(Kind::NotDir, format!("{} is not a directory", dir.path))),
        })
    }

    fn lines_of(&self, dir: &Arc<Node>) -> Result<Vec<Line>> {
        let line = |name: &str, node| Line { name: name.to_owned(), cookie: cookie_of(name), node };
        Ok(match &dir.what {
            What::Top => self.top_lines(dir)?,
            What::At => OFFERED.iter().filter_map(|n| Some(line(n, past_root(dir, self.moment_of(n)?)))).collect(),
            What::Past { at, path, .. } => {
                self.drain_moves()?;
                let all = self.replica.read(|r| self.list_at(r, path, *at))?;
                all.into_iter().map(|w| line(&w.name.clone(), past_child(dir, *at, path, w))).collect()
            }
            What::History(path) => {
                self.drain_moves()?;
                let ever = self.replica.read(|r| past::ever_in(r, path))?;
                let mut out: Vec<Line> = ever.keys().map(|n| line(n, dir.child(n, What::History(path.join(n))))).collect();
                out.extend(self.versions_in(dir, path)?.into_iter().filter(|l| !ever.contains_key(&l.name)));
                out
            }
            What::Found(at) => {
                let read = match std::fs::read_dir(at) {
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
                    other => other.doing(|| format!("listing {}", at.display()))?,
                };
                let names = read.flatten().filter_map(|e| e.file_name().into_string().ok());
                names.map(|n| line(&n, dir.child(&n, What::Found(at.join(&n))))).collect()
            }
            What::Old(..) | What::Fact(_) => return Err(Error::new(Kind::NotDir, format!("{} is not a directory", dir.path))),
        })
    }

    fn top_lines(&self, dir: &Arc<Node>) -> Result<Vec<Line>> {
        let line = |name: &str, what| Line { name: name.to_owned(), cookie: cookie_of(name), node: dir.child(name, what) };
        let mut out = vec![
            line("at", What::At),
            line("history", What::History(RelPath::root())),
            line("recovered", What::Found(self.recovered_dir())),
        ];
        if self.control.facts.get().is_some() {
            out.extend(Fact::ALL.iter().map(|(f, name)| line(name, What::Fact(*f))));
        }
        Ok(out)
    }

    /// The versions of a path that were files or links, oldest first, each as a file.
    fn versions_in(&self, dir: &Arc<Node>, path: &RelPath) -> Result<Vec<Line>> {
        if path.is_root() {
            return Ok(Vec::new());
        }
        let me = self.device().0;
        let (entry, past) = self.versions(path)?;
        let all = past.into_iter().chain(entry.heads);
        Ok(all
            .filter_map(|v| {
                let seen = seen_by(&v, &me).into_owned();
                if !matches!(seen.kind, Made::File(_) | Made::Symlink { .. }) {
                    return None;
                }
                let name = version_name(&seen, &v.id());
                let (mode, mtime) = (seen.kind.type_bits() | seen.mode & 0o7777, (v.written_at.div_euclid(1000), 0));
                let node = dir.child(&name, What::Old(Box::new(seen), mode, mtime));
                Some(Line { cookie: cookie_of(&name), name, node })
            })
            .collect())
    }

    /// The moment that a name in `at/` means. One told by how long ago it is stays the same while it is used, so that a
    /// program which walks the tree does not see it move.
    fn moment_of(&self, name: &str) -> Option<i64> {
        let now = self.clock.now_ms();
        let at = human::parse(name, now, human::zone_at(now)).ok()?;
        if !human::is_relative(name) {
            return Some(at);
        }
        let mut meant = self.control.meant.lock();
        meant.retain(|_, m| m.used.elapsed() < SAME_MOMENT.0 && m.since.elapsed() < SAME_MOMENT.1);
        let m = meant.entry(name.to_owned()).or_insert_with(|| Meant { at, since: Instant::now(), used: Instant::now() });
        m.used = Instant::now();
        Some(m.at)
    }

    fn attr_of_node(&self, node: &Arc<Node>) -> Result<Attr> {
        match &node.what {
            What::Top => Ok(self.attr_of_dir(node, 0o555, self.control.since)),
            // Listings of it may be other at any time: a kernel that kept one goes by this.
            What::At | What::History(_) => Ok(self.attr_of_dir(node, 0o555, self.now())),
            What::Past { mode, mtime, .. } => Ok(self.attr_of_dir(node, mode & 0o7777, (*mtime).into())),
            What::Old(v, mode, mtime) => {
                let size = match &v.kind {
                    Made::Symlink { target } => target.len() as u64,
                    _ => v.file().map_or(0, |c| c.size),
                };
                Ok(Attr { size, ..self.attr_of_file(node, node.kind(), mode & 0o7777, (*mtime).into()) })
            }
            What::Fact(f) => match self.told(*f, FRESH)? {
                Some(Now::Text(t, changed)) => Ok(Attr { size: t.len() as u64, ..self.attr_of_file(node, FileType::File, 0o444, changed) }),
                Some(Now::File(p)) => self.attr_on_disk(node, &p, 0o444),
                None => Err(not_found(&node.path)),
            },
            What::Found(p) if node.path == "recovered" && !p.exists() => Ok(self.attr_of_dir(node, 0o755, self.control.since)),
            What::Found(p) => self.attr_on_disk(node, p, 0o644),
        }
    }

    fn attr_on_disk(&self, node: &Arc<Node>, at: &std::path::Path, mode: u32) -> Result<Attr> {
        let m = match std::fs::symlink_metadata(at) {
            // A log that nobody has written to yet.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && matches!(node.what, What::Fact(_)) => {
                return Ok(self.attr_of_file(node, FileType::File, mode, self.control.since));
            }
            other => other.doing(|| format!("looking at {}", at.display()))?,
        };
        let changed = Time { sec: m.mtime(), nsec: m.mtime_nsec() as u32 };
        if m.is_dir() {
            return Ok(self.attr_of_dir(node, 0o755, changed));
        }
        Ok(Attr { size: m.len(), ..self.attr_of_file(node, FileType::File, mode, changed) })
    }

    fn attr_of_dir(&self, node: &Node, mode: u32, t: Time) -> Attr {
        Attr { nlink: 2, ..self.attr_of_file(node, FileType::Dir, mode, t) }
    }

    fn attr_of_file(&self, node: &Node, kind: FileType, mode: u32, t: Time) -> Attr {
        let (uid, gid) = (self.options.uid, self.options.gid);
        let times = (t, t, t, t);
        Attr {
            ino: node.ino,
            generation: 0,
            kind,
            mode,
            nlink: 1,
            uid,
            gid,
            rdev: 0,
            size: 0,
            blocks: 0,
            atime: times.0,
            mtime: times.1,
            ctime: times.2,
            btime: times.3,
        }
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

fn past_root(dir: &Arc<Node>, at: i64) -> Arc<Node> {
    let mtime = (at.div_euclid(1000), 0);
    // By its moment, not by its name: the same one can be named in many ways.
    dir.child(&at.to_string(), What::Past { at, path: RelPath::root(), mode: 0o755, mtime })
}

fn past_child(dir: &Arc<Node>, at: i64, path: &RelPath, w: Was) -> Arc<Node> {
    let what = match w.version {
        Some(v) if !w.is_dir => What::Old(Box::new(v), w.mode, w.mtime),
        _ => {
            let mtime = if w.mtime == (0, 0) { (at.div_euclid(1000), 0) } else { w.mtime };
            What::Past { at, path: path.join(&w.name), mode: w.mode, mtime }
        }
    };
    dir.child(&w.name, what)
}

/// `2026-02-13T18-04-05.123Z.yoga.4f2a91c0.md`: in order of time, by whom, which, and what programs know its kind by.
fn version_name(v: &Version, id: &str) -> String {
    let name = v.path.file_name();
    let ext = name.rfind('.').filter(|at| *at > 0 && name.len() - at <= 16).map_or("", |at| &name[at..]);
    let device: String = v.device_name.chars().filter(|c| *c != '/').take(40).collect();
    format!("{}.{device}.{}{ext}", human::stamp(v.written_at), &id[..id.len().min(8)])
}
