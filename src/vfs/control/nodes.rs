//! The inodes of the control directory: what each is, what is in it, and its attributes.
//!
//! Not here: how they are kept (`super`), which version was there at a moment (`past`).

use super::past::{self, Was};
use super::{Attr, FIRST, FRESH, Fact, FileType, Meant, Now, OFFERED, SAME_MOMENT, TOP_MODE, Time, Vfs, not_found};
use crate::error::{Error, IoContext, Kind, Result};
use crate::human;
use crate::model::brake::seen_by;
use crate::model::{Hash, Kind as Made, RelPath, Version};
use crate::state::rows::cookie_of;
use parking_lot::Mutex;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// What an inode is.
pub(super) enum What {
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

pub(super) struct Node {
    pub(super) ino: u64,
    pub(super) parent: u64,
    /// Path below the control directory.
    pub(super) path: String,
    pub(super) what: What,
    /// While it is being listed.
    pub(super) listing: Mutex<Option<Arc<Vec<Line>>>>,
}

pub(super) struct Line {
    pub(super) name: String,
    pub(super) cookie: u64,
    pub(super) node: Arc<Node>,
}

pub(super) fn number(path: &str) -> u64 {
    let hash = Hash::of(path.as_bytes());
    let mut b = [0u8; 8];
    b.copy_from_slice(&hash.0[..8]);
    FIRST | u64::from_le_bytes(b) >> 2
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

impl Node {
    pub(super) fn new(parent: u64, path: String, what: What) -> Arc<Node> {
        Arc::new(Node { ino: number(&path), parent, path, what, listing: Mutex::default() })
    }

    fn child(&self, name: &str, what: What) -> Arc<Node> {
        Node::new(self.ino, join(&self.path, name), what)
    }

    pub(super) fn kind(&self) -> FileType {
        match &self.what {
            What::Top | What::At | What::Past { .. } | What::History(_) => FileType::Dir,
            What::Old(v, ..) if matches!(v.kind, Made::Symlink { .. }) => FileType::Symlink,
            What::Found(p) if p.is_dir() => FileType::Dir,
            What::Old(..) | What::Fact(_) | What::Found(_) => FileType::File,
        }
    }
}

impl Vfs {
    pub(super) fn child_of(&self, dir: &Arc<Node>, name: &str) -> Result<Option<Arc<Node>>> {
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

    pub(super) fn lines_of(&self, dir: &Arc<Node>) -> Result<Vec<Line>> {
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

    pub(super) fn attr_of_node(&self, node: &Arc<Node>) -> Result<Attr> {
        match &node.what {
            What::Top => Ok(self.attr_of_dir(node, TOP_MODE, self.control.since)),
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

    pub(super) fn attr_of_dir(&self, node: &Node, mode: u32, t: Time) -> Attr {
        Attr { nlink: 2, ..self.attr_of_file(node, FileType::Dir, mode, t) }
    }

    fn attr_of_file(&self, node: &Node, kind: FileType, mode: u32, t: Time) -> Attr {
        let (uid, gid) = (self.options.uid, self.options.gid);
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
            atime: t,
            mtime: t,
            ctime: t,
            btime: t,
        }
    }
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
