//! Random operations on the drive beside a small reference model of a POSIX file system: after each step both show
//! the same tree, and the rows of the local database fit together. Kills in between lose nothing.
//!
//! `VFS_MODEL_SEEDS=a..b` runs other seeds, `VFS_MODEL_STEPS=n` longer sequences. What a seed finds becomes a named
//! test in `vfs_core`.

#![allow(clippy::unwrap_used)]

#[path = "common/vfs.rs"]
mod common;

use common::{Rig, check_rows};
use std::collections::BTreeMap;
use tcfs::ErrorKind;
use tcfs::clock::{Clock, ManualClock};
use tcfs::state::rows::{FileType, ROOT};

type Step<T> = Result<T, ErrorKind>;

/// What a path is in the reference: number of a node.
#[derive(Clone)]
enum Node {
    Dir(BTreeMap<String, usize>),
    File(Vec<u8>),
    Link(String),
}

/// A file system of nodes that never go away: numbers are inode identities.
#[derive(Clone)]
struct Model {
    nodes: Vec<Node>,
}

impl Model {
    fn dir(&self, n: usize) -> Step<&BTreeMap<String, usize>> {
        match &self.nodes[n] {
            Node::Dir(d) => Ok(d),
            _ => Err(ErrorKind::NotDir),
        }
    }

    fn names(&mut self, n: usize) -> &mut BTreeMap<String, usize> {
        match &mut self.nodes[n] {
            Node::Dir(d) => d,
            _ => panic!("not a directory"),
        }
    }

    fn find(&self, path: &str) -> Step<usize> {
        path.split('/').filter(|p| !p.is_empty()).try_fold(0, |at, p| self.dir(at)?.get(p).copied().ok_or(ErrorKind::NotFound))
    }

    fn place<'p>(&self, path: &'p str) -> Step<(usize, &'p str, Option<usize>)> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = self.find(dir)?;
        let there = self.dir(dir)?.get(name).copied();
        Ok((dir, name, there))
    }

    fn make(&mut self, path: &str, node: Node) -> Step<usize> {
        let (dir, name, there) = self.place(path)?;
        if there.is_some() {
            return Err(ErrorKind::Exists);
        }
        self.nodes.push(node);
        let n = self.nodes.len() - 1;
        self.names(dir).insert(name.to_owned(), n);
        Ok(n)
    }

    fn remove(&mut self, path: &str, want_dir: bool) -> Step<()> {
        let (dir, name, there) = self.place(path)?;
        let is_dir = match &self.nodes[there.ok_or(ErrorKind::NotFound)?] {
            Node::Dir(d) if want_dir && !d.is_empty() => return Err(ErrorKind::NotEmpty),
            Node::Dir(_) => true,
            _ => false,
        };
        match (want_dir, is_dir) {
            (true, false) => Err(ErrorKind::NotDir),
            (false, true) => Err(ErrorKind::IsDir),
            _ => {
                self.names(dir).remove(name);
                Ok(())
            }
        }
    }

    fn link(&mut self, from: &str, to: &str) -> Step<()> {
        let n = self.find(from)?;
        let (dir, name, there) = self.place(to)?;
        if matches!(self.nodes[n], Node::Dir(_)) {
            return Err(ErrorKind::NotPermitted);
        }
        if there.is_some() {
            return Err(ErrorKind::Exists);
        }
        self.names(dir).insert(name.to_owned(), n);
        Ok(())
    }

    fn below(&self, n: usize, dir: usize) -> bool {
        n == dir || matches!(&self.nodes[n], Node::Dir(d) if d.values().any(|c| self.below(*c, dir)))
    }

    fn rename(&mut self, from: &str, to: &str, no_replace: bool) -> Step<()> {
        let (fd, fname, n) = self.place(from)?;
        let (td, tname, there) = self.place(to)?;
        let n = n.ok_or(ErrorKind::NotFound)?;
        if let Some(t) = there {
            if no_replace {
                return Err(ErrorKind::Exists);
            }
            if t == n {
                return Ok(());
            }
            match (&self.nodes[n], &self.nodes[t]) {
                (Node::Dir(_), Node::Dir(d)) if !d.is_empty() => return Err(ErrorKind::NotEmpty),
                (Node::Dir(_), Node::Dir(_)) => {}
                (Node::Dir(_), _) => return Err(ErrorKind::NotDir),
                (_, Node::Dir(_)) => return Err(ErrorKind::IsDir),
                _ => {}
            }
        }
        if self.below(n, td) {
            return Err(ErrorKind::Invalid);
        }
        self.names(fd).remove(fname);
        self.names(td).insert(tname.to_owned(), n);
        Ok(())
    }

    fn exchange(&mut self, a: &str, b: &str) -> Step<()> {
        let (ad, an, x) = self.place(a)?;
        let (bd, bn, y) = self.place(b)?;
        let (x, y) = (x.ok_or(ErrorKind::NotFound)?, y.ok_or(ErrorKind::NotFound)?);
        if x == y {
            return Ok(());
        }
        if self.below(x, bd) || self.below(y, ad) {
            return Err(ErrorKind::Invalid);
        }
        self.names(ad).insert(an.to_owned(), y);
        self.names(bd).insert(bn.to_owned(), x);
        Ok(())
    }

    fn nlink(&self, n: usize) -> u32 {
        match &self.nodes[n] {
            Node::Dir(d) => 2 + d.values().filter(|c| matches!(self.nodes[**c], Node::Dir(_))).count() as u32,
            _ => self.count(0, n),
        }
    }

    fn count(&self, at: usize, n: usize) -> u32 {
        match &self.nodes[at] {
            Node::Dir(d) => d.values().map(|c| u32::from(*c == n) + self.count(*c, n)).sum(),
            _ => 0,
        }
    }
}

struct Open {
    fh: u64,
    node: usize,
}

struct World {
    rig: Rig,
    model: Model,
    /// Reference node → inode.
    inos: BTreeMap<usize, u64>,
    open: Vec<Open>,
    random: std::sync::Arc<ManualClock>,
    log: Vec<String>,
}

fn kind<T>(r: tcfs::error::Result<T>) -> Step<T> {
    r.map_err(|e| e.kind())
}

impl World {
    fn new(seed: u64) -> World {
        let rig = Rig::new();
        let model = Model { nodes: vec![Node::Dir(BTreeMap::new())] };
        World { rig, model, inos: [(0, ROOT)].into(), open: vec![], random: ManualClock::new(0, seed), log: vec![] }
    }

    fn pick(&self, n: u64) -> u64 {
        self.random.random() % n
    }

    /// Up to three components of two letters.
    fn path(&self) -> String {
        let depth = 1 + self.pick(3);
        (0..depth).map(|_| if self.pick(2) == 0 { "a" } else { "b" }).collect::<Vec<_>>().join("/")
    }

    fn both<T: std::fmt::Debug, U: std::fmt::Debug>(&mut self, what: String, drive: Step<T>, model: Step<U>) -> Option<(T, U)> {
        self.log.push(format!("{what}: {:?}", model.as_ref().map(|_| ())));
        match (drive, model) {
            (Ok(t), Ok(u)) => Some((t, u)),
            // With two paths several things may be wrong at once, and which is told is nobody's business.
            (Err(a), Err(b)) if a == b || ["rename", "link", "exchange"].iter().any(|w| what.starts_with(w)) => None,
            (a, b) => panic!("{what}: the drive says {a:?}, the reference {b:?}"),
        }
    }

    fn step(&mut self) {
        self.rig.tick();
        let (p, q) = (self.path(), self.path());
        match self.pick(20) {
            0..3 => {
                let drive = kind(self.rig.create_open(&p)).map(|(a, fh)| (a.ino, fh));
                let model = self.model.make(&p, Node::File(vec![]));
                if let Some(((ino, fh), node)) = self.both(format!("create {p}"), drive, model) {
                    self.inos.insert(node, ino);
                    self.open.push(Open { fh, node });
                }
            }
            3..6 => {
                let drive = kind(
                    self.rig
                        .resolve(p.rsplit_once('/').map_or("", |x| x.0))
                        .and_then(|d| self.rig.mkdir(d.ino, p.rsplit('/').next().unwrap().as_bytes(), 0o755, 0, 0).map(|a| a.ino)),
                );
                let model = self.model.make(&p, Node::Dir(BTreeMap::new()));
                if let Some((ino, node)) = self.both(format!("mkdir {p}"), drive, model) {
                    self.inos.insert(node, ino);
                }
            }
            6 => {
                let drive = kind(self.rig.ln_s(&q, &p).map(|a| a.ino));
                let model = self.model.make(&p, Node::Link(q.clone()));
                if let Some((ino, node)) = self.both(format!("symlink {p} -> {q}"), drive, model) {
                    self.inos.insert(node, ino);
                }
            }
            7 => {
                let (drive, model) = (kind(self.rig.ln(&p, &q)).map(|_| ()), self.model.link(&p, &q));
                self.both(format!("link {p} {q}"), drive, model);
            }
            8 | 9 => {
                let (drive, model) = (kind(self.rig.rm(&p)), self.model.remove(&p, false));
                self.both(format!("unlink {p}"), drive, model);
            }
            10 => {
                let (drive, model) = (kind(self.rig.rmd(&p)), self.model.remove(&p, true));
                self.both(format!("rmdir {p}"), drive, model);
            }
            11..14 => {
                let no_replace = self.pick(4) == 0;
                let drive = if no_replace { self.rig.mv_no_replace(&p, &q) } else { self.rig.mv(&p, &q) };
                let model = self.model.rename(&p, &q, no_replace);
                self.both(format!("rename {p} {q} {no_replace}"), kind(drive), model);
            }
            14 => {
                let (drive, model) = (kind(self.rig.swap(&p, &q)), self.model.exchange(&p, &q));
                self.both(format!("exchange {p} {q}"), drive, model);
            }
            15 => {
                if let Ok(n) = self.model.find(&p)
                    && let Node::File(bytes) = &mut self.model.nodes[n]
                {
                    let truncate = self.random.random().is_multiple_of(2);
                    if truncate {
                        bytes.clear();
                    }
                    let fh = self.rig.open_file(self.inos[&n], true, truncate).unwrap().fh;
                    self.open.push(Open { fh, node: n });
                    self.log.push(format!("open {p} truncate {truncate}"));
                }
            }
            16 | 17 if !self.open.is_empty() => {
                let at = self.pick(self.open.len() as u64) as usize;
                let (off, len, byte) = (self.pick(20), self.pick(9) as usize, self.pick(26) as u8 + b'a');
                let o = &self.open[at];
                let Node::File(bytes) = &mut self.model.nodes[o.node] else { panic!("an open file") };
                if self.random.random().is_multiple_of(4) {
                    self.log.push(format!("truncate node {} to {off}", o.node));
                    bytes.resize(off as usize, 0);
                    self.rig.truncate(self.inos[&o.node], off).unwrap();
                } else {
                    self.log.push(format!("write node {} at {off} {len} × {byte}", o.node));
                    if len > 0 {
                        bytes.resize(bytes.len().max(off as usize + len), 0);
                        bytes[off as usize..off as usize + len].fill(byte);
                        self.rig.write(o.fh, off, &vec![byte; len], false).unwrap();
                    }
                }
            }
            18 if self.has(&p) => {
                self.log.push(format!("chmod {p}"));
                let mode = 0o600 + self.pick(64) as u32;
                self.rig.chmod(&p, mode);
            }
            _ if !self.open.is_empty() => {
                let at = self.pick(self.open.len() as u64) as usize;
                let o = self.open.remove(at);
                self.log.push(format!("close node {}", o.node));
                self.rig.flush(o.fh).unwrap();
                self.rig.release(o.fh).unwrap();
            }
            _ => {}
        }
        if self.pick(25) == 0 {
            self.log.push("kill".into());
            self.open.clear();
            self.rig.crash();
        }
    }

    fn has(&self, p: &str) -> bool {
        self.model.find(p).is_ok()
    }

    async fn compare(&self) {
        let mut todo = vec![(String::new(), 0usize)];
        while let Some((path, n)) = todo.pop() {
            let attr = self.rig.resolve(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
            assert_eq!(attr.ino, self.inos[&n], "inode of {path:?}");
            assert_eq!(attr.nlink, self.model.nlink(n), "links of {path:?}");
            match &self.model.nodes[n] {
                Node::Dir(d) => {
                    assert_eq!(attr.kind, FileType::Dir);
                    assert_eq!(self.rig.ls(&path), d.keys().cloned().collect::<Vec<_>>(), "names in {path:?}");
                    todo.extend(d.iter().map(|(name, c)| (if path.is_empty() { name.clone() } else { format!("{path}/{name}") }, *c)));
                }
                Node::File(b) => {
                    assert_eq!((attr.kind, attr.size), (FileType::File, b.len() as u64), "{path:?}");
                    assert_eq!(self.rig.cat(&path).await, *b, "bytes of {path:?}");
                }
                Node::Link(t) => assert_eq!(self.rig.readlink(attr.ino).unwrap(), *t),
            }
        }
        for o in &self.open {
            let Node::File(b) = &self.model.nodes[o.node] else { panic!("an open file") };
            assert_eq!(self.rig.read_fh(o.fh, 0, 100).await.unwrap(), *b, "bytes of open node {}", o.node);
            assert_eq!(self.rig.getattr(self.inos[&o.node]).unwrap().nlink, self.model.nlink(o.node));
        }
    }
}

/// Prints what was done when a test fails.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("steps:\n  {}", self.log.join("\n  "));
        }
    }
}

/// A name from the environment or the default.
fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// Whatever is done in whatever order, the drive shows what a local disk would show, also after kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_operations_behave_as_on_a_local_disk() {
    let seeds = setting("VFS_MODEL_SEEDS", "0..8");
    let (from, to) = seeds.split_once("..").unwrap();
    let steps: usize = setting("VFS_MODEL_STEPS", "250").parse().unwrap();
    for seed in from.parse::<u64>().unwrap()..to.parse().unwrap() {
        eprintln!("seed {seed}");
        let mut w = World::new(seed);
        // Every other run leaves directory moves to be written out when something depends on it.
        let waiting = seed % 2 == 1;
        if waiting {
            w.rig.crash_with(|o| o.move_at_once = 0);
        }
        for n in 0..steps {
            w.step();
            w.compare().await;
            if !waiting || n % 8 == 7 {
                check_rows(&w.rig, Some(&[]));
            }
        }
        check_rows(&w.rig, Some(&[]));
    }
}

/// What another device may do to a path, given what it saw at some time before.
struct Remote {
    name: &'static str,
    /// What it has seen of each path.
    seen: BTreeMap<String, tcfs::model::Entry>,
}

impl World {
    /// Anything at all on this device; what comes back does not matter here.
    fn anything(&mut self) {
        self.rig.tick();
        let all: Vec<String> = self.all_paths();
        let some = |w: &World| match w.pick(3) {
            0 if !all.is_empty() => all[w.pick(all.len() as u64) as usize].clone(),
            _ => w.path(),
        };
        let (p, q) = (some(self), some(self));
        let op = self.pick(12);
        self.log.push(format!("local {op} {p} {q}"));
        match op {
            0 | 1 => {
                if let Ok((_, fh)) = self.rig.create_open(&p) {
                    self.rig.write(fh, 0, p.as_bytes(), false).unwrap();
                    self.open.push(Open { fh, node: 0 });
                }
            }
            2 => {
                let dir = self.rig.resolve(p.rsplit_once('/').map_or("", |x| x.0));
                let _ = dir.and_then(|d| self.rig.mkdir(d.ino, p.rsplit('/').next().unwrap().as_bytes(), 0o755, 0, 0));
            }
            3 => drop(self.rig.rm(&p)),
            4 => drop(self.rig.rmd(&p)),
            5 | 6 => drop(self.rig.mv(&p, &q)),
            7 => drop(self.rig.swap(&p, &q)),
            8 => drop(self.rig.ln(&p, &q)),
            9 => {
                if let Ok(a) = self.rig.resolve(&p)
                    && let Ok(o) = self.rig.open_file(a.ino, true, self.pick(2) == 0)
                {
                    if self.pick(2) == 0 {
                        self.rig.write(o.fh, self.pick(4), b"edit", false).unwrap();
                    }
                    self.open.push(Open { fh: o.fh, node: 0 });
                }
            }
            10 if self.rig.has(&p) && !p.is_empty() => {
                self.rig.chmod(&p, 0o600 + self.pick(64) as u32);
            }
            _ if !self.open.is_empty() => {
                let at = self.pick(self.open.len() as u64) as usize;
                self.rig.release(self.open.remove(at).fh).unwrap();
            }
            _ => {}
        }
    }

    fn all_paths(&self) -> Vec<String> {
        let (mut out, mut todo) = (Vec::new(), vec![String::new()]);
        while let Some(p) = todo.pop() {
            for e in self.rig.readdir(self.rig.ino(&p), 0, usize::MAX, false).unwrap() {
                let path = if p.is_empty() { e.name } else { format!("{p}/{}", e.name) };
                if e.kind == FileType::Dir {
                    todo.push(path.clone());
                }
                out.push(path);
            }
        }
        out
    }
}

/// Versions of other devices that arrive at any moment, in any conflict mode, leave the rows fitting together and no
/// head behind; whoever writes keeps the name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_remote_versions_keep_the_rows_together() {
    use tcfs::model::{ConflictMode, Entry};
    let seeds = setting("VFS_MODEL_SEEDS", "0..12");
    let (from, to) = seeds.split_once("..").unwrap();
    let steps: usize = setting("VFS_MODEL_STEPS", "250").parse().unwrap();
    for seed in from.parse::<u64>().unwrap()..to.parse().unwrap() {
        eprintln!("seed {seed}");
        let mut w = World::new(seed);
        let mode = [ConflictMode::Auto, ConflictMode::Interactive, ConflictMode::Defer][(seed % 3) as usize];
        let waiting = seed % 2 == 1;
        w.rig.crash_with(|o| {
            o.conflict_mode = mode;
            o.move_at_once = if waiting { 0 } else { o.move_at_once };
        });
        let mut arrived: Vec<tcfs::model::Version> = Vec::new();
        let mut others = ["abe", "bob"].map(|name| Remote { name, seen: BTreeMap::new() });
        for _ in 0..steps {
            if w.pick(3) > 0 {
                w.anything();
            } else {
                let r = &mut others[(w.random.random() % 2) as usize];
                let p = {
                    let depth = 1 + w.random.random() % 3;
                    (0..depth).map(|_| if w.random.random().is_multiple_of(2) { "a" } else { "b" }).collect::<Vec<_>>().join("/")
                };
                // It hears of this device now and then.
                if w.random.random().is_multiple_of(2) {
                    r.seen.insert(p.clone(), w.rig.entry(&p));
                }
                let mut seen = r.seen.get(&p).cloned().unwrap_or_else(Entry::default);
                let live_files = seen.is_live() && seen.live().all(|v| !v.is_dir());
                let v = if live_files && w.random.random().is_multiple_of(3) {
                    w.rig.tombstone_of(r.name, &p, &seen)
                } else {
                    let text = format!("{}{}", r.name, w.random.random() % 3);
                    w.rig.version_of(r.name, &p, &seen, text.as_bytes()).await
                };
                w.log.push(format!("{} {p} {:?} {:?}", r.name, v.kind, v.vclock));
                seen.merge(v.clone());
                r.seen.insert(p, seen);
                w.rig.arrive(&v);
                arrived.push(v);
            }
            if w.pick(30) == 0 {
                w.log.push("kill".into());
                w.open.clear();
                w.rig.crash();
            }
            if !waiting || w.pick(8) == 0 {
                check_rows(&w.rig, Some(&arrived));
            }
        }
        for o in std::mem::take(&mut w.open) {
            w.rig.release(o.fh).unwrap();
        }
        check_rows(&w.rig, Some(&arrived));
        // Nothing hangs on the order in which it came: a look at every name once more changes nothing.
        let before = w.all_paths();
        for v in &arrived {
            w.rig.arrive(v);
        }
        assert_eq!(w.all_paths(), before);
    }
}
