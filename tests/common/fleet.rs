//! A fleet in memory: devices with entries, outbox, cursors and logs, over the public `model` functions only.
//!
//! For the tests of the rules (traces, the table of conflicts, random fleets). What it leaves out on purpose: bytes,
//! disks, stores, time. Log objects go through the record format, so that what is compared is what peers would read.

#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use tcfs::model::coalesce::coalesce;
use tcfs::model::heal::{Lookup, heal};
use tcfs::model::ops::{self, At, AttrChange, Attrs};
use tcfs::model::record::{self, Line};
use tcfs::model::reissue::Reissue;
use tcfs::model::resolve::{Keep, resolve};
use tcfs::model::sibling::sibling_names;
use tcfs::model::{Accepted, Author, ConflictMode, Entry, FileContent, Hash, Kind, RelPath, Target, Version, View, view};

pub fn path(s: &str) -> RelPath {
    RelPath::parse(s).unwrap()
}

/// A file whose root spells its content, so that roots sort as contents do.
pub fn file(content: &str) -> Kind {
    let mut root = [0u8; 32];
    root[..content.len()].copy_from_slice(content.as_bytes());
    let manifest = Hash::of(content.as_bytes());
    Kind::File(FileContent { manifest, size: content.len() as u64, root: Hash(root), chunks: None, hash: None })
}

pub fn link(target: &str) -> Kind {
    Kind::Symlink { target: target.to_owned() }
}

/// `F:text`, `L:target`, `D`.
pub fn describe(v: &Version) -> String {
    match v.kind.content() {
        Kind::File(c) => format!("F:{}", String::from_utf8_lossy(&c.root.0[..c.size as usize])),
        Kind::Symlink { target } => format!("L:{target}"),
        Kind::Dir => "D".into(),
        Kind::Bundle { .. } => "B".into(),
        Kind::Tombstone | Kind::HeldBack { .. } => "T".into(),
    }
}

/// One write, whatever becomes of its clock and id later: path, time (unique for each write), actor without the device.
pub type Uid = (RelPath, i64, String);

pub fn uid(v: &Version) -> Uid {
    (v.path.clone(), v.written_at, v.actor[v.device_id.len()..].to_owned())
}

/// What all devices share: the store's logs, and the truth about who accepted what.
#[derive(Default)]
pub struct World {
    pub logs: BTreeMap<String, BTreeMap<u64, Vec<u8>>>,
    /// Logs in the order in which they began.
    pub writers: Vec<String>,
    pub next_id: u32,
    pub now: i64,
    pub truth: HashMap<Uid, Vec<Uid>>,
    pub written: HashMap<Uid, Version>,
    pub heals: usize,
}

impl World {
    pub fn device(&mut self, name: &str, mode: ConflictMode) -> Device {
        let id = self.new_id(name);
        Device { name: name.into(), id, mode, ..Device::default() }
    }

    fn new_id(&mut self, name: &str) -> String {
        self.next_id += 1;
        format!("{name}-{:02}", self.next_id)
    }

    pub fn object(&self, id: &str, seq: u64) -> Option<Vec<Version>> {
        self.logs.get(id)?.get(&seq).map(|body| versions(body))
    }

    pub fn published(&self) -> Vec<Version> {
        self.logs.values().flat_map(|l| l.values()).flat_map(|b| versions(b)).collect()
    }

    pub fn past(&self, u: &Uid) -> BTreeSet<Uid> {
        let (mut seen, mut todo) = (BTreeSet::new(), self.truth.get(u).cloned().unwrap_or_default());
        while let Some(x) = todo.pop() {
            if seen.insert(x.clone()) {
                todo.extend(self.truth.get(&x).cloned().unwrap_or_default());
            }
        }
        seen
    }
}

fn versions(body: &[u8]) -> Vec<Version> {
    let read = |l| match l {
        Line::Version(v) => *v,
        other => panic!("a log object holds {other:?}"),
    };
    record::decode(body).into_iter().map(read).collect()
}

#[derive(Clone, Default)]
pub struct Device {
    pub name: String,
    pub id: String,
    pub mode: ConflictMode,
    pub entries: BTreeMap<RelPath, Entry>,
    pub outbox: Vec<Vec<Version>>,
    pub inflight: Option<(u64, Vec<Version>)>,
    pub seq: u64,
    pub cursors: BTreeMap<String, u64>,
    pub known: BTreeSet<RelPath>,
    pub former_ids: Vec<String>,
}

/// What a name of the tree stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub path: RelPath,
    pub target: Target,
}

struct Entries<'a>(&'a BTreeMap<RelPath, Entry>);

impl Lookup for Entries<'_> {
    fn entry(&self, path: &RelPath) -> Option<Entry> {
        self.0.get(path).cloned()
    }
    fn below(&self, dir: &RelPath) -> Vec<RelPath> {
        self.0.keys().filter(|p| p.is_below(dir)).rev().cloned().collect()
    }
}

impl Device {
    // ---------- what is seen

    pub fn entry(&self, p: &RelPath) -> Entry {
        self.entries.get(p).cloned().unwrap_or_default()
    }

    fn implied(&self) -> BTreeSet<RelPath> {
        self.entries.iter().filter(|(_, e)| e.is_live()).flat_map(|(p, _)| p.ancestors().collect::<Vec<_>>()).collect()
    }

    pub fn is_shown(&self, p: &RelPath) -> bool {
        self.entry(p).is_live() || self.implied().contains(p)
    }

    /// Paths with their entries; a directory that exists only through its children has an empty one.
    fn shown(&self) -> BTreeMap<RelPath, (Entry, bool)> {
        let implied = self.implied();
        let mut out: BTreeMap<RelPath, (Entry, bool)> = implied.iter().map(|p| (p.clone(), (self.entry(p), true))).collect();
        out.extend(self.entries.iter().filter(|(p, e)| e.is_live() && !implied.contains(p)).map(|(p, e)| (p.clone(), (e.clone(), false))));
        out
    }

    fn view_in<'a>(&self, shown: &'a BTreeMap<RelPath, (Entry, bool)>, p: &RelPath, mode: ConflictMode) -> Option<View<'a>> {
        let (entry, implied) = shown.get(p)?;
        view(entry, *implied, mode, &self.id)
    }

    pub fn names_as(&self, mode: ConflictMode) -> BTreeMap<String, Name> {
        let shown = self.shown();
        let mut out: BTreeMap<String, Name> =
            shown.keys().map(|p| (p.to_string(), Name { path: p.clone(), target: Target::Path })).collect();
        for p in shown.keys() {
            let view = self.view_in(&shown, p, mode).unwrap();
            let dir = p.parent().unwrap_or_default();
            let names = sibling_names(p.file_name(), &view, &|n| out.contains_key(dir.join(n).as_str()));
            assert_eq!(names.len(), view.siblings.len());
            for (i, n) in names.iter().enumerate() {
                let clash = out.insert(dir.join(n).to_string(), Name { path: p.clone(), target: Target::Sibling(i) });
                assert_eq!(clash, None, "a sibling took a name");
            }
        }
        out
    }

    pub fn names(&self) -> BTreeMap<String, Name> {
        self.names_as(self.mode)
    }

    /// Names with what they hold: `D`, `F:text|mode`, and without a mode for siblings.
    pub fn tree_as(&self, mode: ConflictMode) -> BTreeMap<String, String> {
        let shown = self.shown();
        let text = |n: &Name| {
            let view = self.view_in(&shown, &n.path, mode).unwrap();
            match n.target {
                Target::Sibling(i) => describe(view.siblings[i].head),
                Target::Path if view.is_dir => "D".into(),
                Target::Path => format!("{}|{:o}", describe(view.shown.unwrap()), view.mode & 0o7777),
            }
        };
        self.names_as(mode).iter().map(|(name, n)| (name.clone(), text(n))).collect()
    }

    pub fn tree(&self) -> BTreeMap<String, String> {
        self.tree_as(self.mode)
    }

    /// As tables are written: files and links only, contents only.
    pub fn files(&self) -> BTreeMap<String, String> {
        let bare = |s: &str| s.split('|').next().unwrap().trim_start_matches("F:").to_owned();
        self.tree_as(ConflictMode::Auto).iter().filter(|(_, t)| *t != "D").map(|(n, t)| (n.clone(), bare(t))).collect()
    }

    pub fn with_view<T>(&self, p: &str, f: impl FnOnce(&View) -> T) -> Option<T> {
        let shown = self.shown();
        self.view_in(&shown, &path(p), self.mode).map(|v| f(&v))
    }

    // ---------- writing

    fn author(&self, w: &mut World) -> Author {
        w.now += 1;
        Author { device_id: self.id.clone(), device_name: self.name.clone(), now_ms: w.now }
    }

    fn put(&mut self, w: &mut World, mut v: Version, batch: &mut Vec<Version>) {
        // Times decide nothing, so they can number the writes.
        w.now += 1;
        v.written_at = w.now;
        let entry = self.entries.entry(v.path.clone()).or_default();
        let accepted = entry.heads.iter().filter(|h| v.vclock.covers(&h.vclock)).map(uid).collect();
        assert_eq!(w.truth.insert(uid(&v), accepted), None, "two writes with one uid");
        w.written.insert(uid(&v), v.clone());
        assert!(entry.merge(v.clone()), "a new version changes its entry: {v:?} in {entry:?}");
        batch.push(v);
    }

    fn seal(&mut self, batch: Vec<Version>) {
        if !batch.is_empty() {
            self.outbox.push(batch);
        }
    }

    pub fn write(&mut self, w: &mut World, name: &str, kind: Kind) {
        let a = self.author(w);
        let at = self.names().get(name).cloned();
        let v = match at {
            None => {
                let (p, attrs) = (path(name), Attrs { mode: 0o644, ..Attrs::default() });
                let entry = self.entry(&p);
                ops::write(&p, &entry, &Accepted::of_entry(&entry), kind, attrs, &a)
            }
            Some(n) => {
                let shown = self.shown();
                let view = self.view_in(&shown, &n.path, self.mode).unwrap();
                let mode = match n.target {
                    Target::Path if view.is_dir => return,
                    Target::Path => view.mode,
                    Target::Sibling(i) => view.siblings[i].head.mode,
                };
                let attrs = Attrs { mode, ..Attrs::default() };
                ops::write(&n.path, &self.entry(&n.path), &Accepted::to_write(&view, n.target), kind, attrs, &a)
            }
        };
        let mut b = vec![];
        self.put(w, v.unwrap(), &mut b);
        self.seal(b);
    }

    pub fn mkdir(&mut self, w: &mut World, p: &str) {
        let (p, a) = (path(p), self.author(w));
        if !self.is_shown(&p) {
            let mut b = vec![];
            self.put(w, ops::mkdir(&p, &self.entry(&p), 0o755, (0, 0), &a).unwrap(), &mut b);
            self.seal(b);
        }
    }

    pub fn chmod(&mut self, w: &mut World, name: &str, mode: Option<u32>, mtime: Option<i64>) {
        let a = self.author(w);
        let n = self.names()[name].clone();
        let shown = self.shown();
        let view = self.view_in(&shown, &n.path, self.mode).unwrap();
        if n.target != Target::Path {
            return;
        }
        let change = AttrChange { mode, mtime: mtime.map(|t| (t, 0)), xattrs: None };
        let v = ops::set_attrs(&n.path, &self.entry(&n.path), &view, n.target, change, &a).unwrap();
        let mut b = vec![];
        self.put(w, v, &mut b);
        self.seal(b);
    }

    fn keep_parent(&mut self, w: &mut World, p: &RelPath, a: &Author, b: &mut Vec<Version>) {
        let Some(q) = p.parent().filter(|q| !q.is_root()) else { return };
        if !self.is_shown(&q) {
            let v = ops::keep_parent(&q, &self.entry(&q), (0, 0), a).unwrap();
            self.put(w, v, b);
        }
    }

    pub fn rm(&mut self, w: &mut World, name: &str) {
        let a = self.author(w);
        let n = self.names()[name].clone();
        let shown = self.shown();
        let view = self.view_in(&shown, &n.path, self.mode).unwrap();
        let v = ops::remove(&n.path, &self.entry(&n.path), &view, n.target, &a).unwrap();
        let mut b = vec![];
        self.put(w, v, &mut b);
        if n.target == Target::Path {
            self.keep_parent(w, &n.path, &a, &mut b);
        }
        self.seal(b);
    }

    pub fn rmr(&mut self, w: &mut World, dir: &str) {
        let below = format!("{dir}/");
        for round in 0.. {
            assert!(round < 60, "rm -r does not end");
            let names = self.names();
            let inside = names.keys().filter(|n| n.starts_with(&below));
            let order = |n: &&String| (std::cmp::Reverse(n.matches('/').count()), !n.contains(".conflict-"), (*n).clone());
            let Some(next) = inside.min_by_key(order) else { break };
            self.rm(w, &next.clone());
        }
        if self.names().contains_key(dir) {
            self.rm(w, dir);
        }
    }

    pub fn mv(&mut self, w: &mut World, src: &str, dst: &str) {
        let names = self.names();
        let n = names[src].clone();
        if src == dst || dst.starts_with(&format!("{src}/")) {
            return;
        }
        let shown = self.shown();
        let view = self.view_in(&shown, &n.path, self.mode).unwrap();
        let entry = self.entry(&n.path);
        let a = self.author(w);
        let (to, mut b) = (path(dst), vec![]);
        let target = names.get(dst);
        let there = self.entry(&to);
        let (from_at, to_at) = (At { path: &n.path, entry: &entry }, At { path: &to, entry: &there });
        let out = match n.target {
            Target::Sibling(_) if to == n.path && view.is_dir => return,
            Target::Sibling(i) if to == n.path => vec![ops::rename_sibling_onto_path(&n.path, &entry, &view, i, &a).unwrap()],
            Target::Sibling(_) if target.is_some() => return,
            Target::Sibling(i) => ops::rename_sibling_away(from_at, &view, i, to_at, &Accepted::of_entry(&there), &a).unwrap(),
            Target::Path if view.is_dir && target.is_some() => return,
            Target::Path if view.is_dir => {
                let mut out = vec![];
                for q in shown.keys().filter(|q| **q == n.path || q.is_below(&n.path)) {
                    let t = q.rebase(&n.path, &to).unwrap();
                    let view = self.view_in(&shown, q, self.mode).unwrap();
                    let (entry, there) = (self.entry(q), self.entry(&t));
                    out.extend(ops::move_entry(At { path: q, entry: &entry }, &view, At { path: &t, entry: &there }, &a).unwrap());
                }
                out
            }
            Target::Path => {
                let over = match target {
                    None => Accepted::of_entry(&there),
                    Some(t) if t.target != Target::Path => return,
                    Some(_) => {
                        let over = self.view_in(&shown, &to, self.mode).unwrap();
                        if over.is_dir {
                            return;
                        }
                        Accepted::to_write(&over, Target::Path)
                    }
                };
                ops::rename(from_at, &view, to_at, &over, &a).unwrap()
            }
        };
        let file = n.target == Target::Path && !view.is_dir;
        for v in out {
            self.put(w, v, &mut b);
        }
        if file {
            self.keep_parent(w, &n.path, &a, &mut b);
        }
        self.seal(b);
    }

    /// As editors save: a new file, renamed over the old one.
    pub fn save(&mut self, w: &mut World, name: &str, kind: Kind) {
        let temporary = path(name).parent().unwrap().join(".t~");
        self.write(w, temporary.as_str(), kind);
        self.mv(w, temporary.as_str(), name);
    }

    pub fn keep(&mut self, w: &mut World, p: &str, keep: &Keep) {
        let p = path(p);
        let a = self.author(w);
        let shown = self.shown();
        let Some(view) = self.view_in(&shown, &p, self.mode).filter(|v| !v.is_dir) else { return };
        let all = self.names();
        let name = |i| all.iter().find(|(_, n)| n.path == p && n.target == Target::Sibling(i)).unwrap().0.clone();
        let names: Vec<String> = (0..view.siblings.len()).map(|i| path(&name(i)).file_name().to_owned()).collect();
        let lookup = |q: &RelPath| self.entries.get(q).cloned();
        let out = resolve(At { path: &p, entry: &self.entry(&p) }, &view, keep, &names, &lookup, &a).unwrap();
        let mut b = vec![];
        for v in out {
            self.put(w, v, &mut b);
        }
        self.seal(b);
    }

    // ---------- outbox

    pub fn coalesce(&mut self) {
        let known = self.known.clone();
        let result = coalesce(&self.outbox, &|p| known.contains(p));
        for p in &result.forget {
            self.entries.remove(p);
        }
        for (old, new) in result.repointed {
            assert!(self.entries.get_mut(&old.path).unwrap().replace(&old, new));
        }
        self.outbox = result.batches.into_iter().map(|b| b.versions).filter(|b| !b.is_empty()).collect();
    }

    /// `crash`: stop before or after the put of the first object.
    pub fn publish(&mut self, w: &mut World, objects: usize, crash: Option<&str>) {
        for _ in 0..objects {
            if self.inflight.is_none() {
                self.coalesce();
                if self.outbox.is_empty() {
                    return;
                }
                self.inflight = Some((self.seq + 1, self.outbox.remove(0)));
            }
            let (seq, batch) = self.inflight.clone().unwrap();
            if crash == Some("before_put") {
                return;
            }
            if !w.logs.contains_key(&self.id) {
                w.writers.push(self.id.clone());
            }
            let body = record::encode(&batch).unwrap();
            let log = w.logs.entry(self.id.clone()).or_default();
            if log.get(&seq).is_some_and(|there| *there != body) {
                self.take_new_id(w);
                continue;
            }
            log.insert(seq, body);
            if crash == Some("after_put") {
                return;
            }
            self.seq = seq;
            self.known.extend(batch.into_iter().map(|v| v.path));
            self.inflight = None;
        }
    }

    fn take_new_id(&mut self, w: &mut World) {
        let (old_id, new_id) = (self.id.clone(), w.new_id(&self.name));
        let own: Vec<Version> = (1..=self.seq).flat_map(|n| w.object(&old_id, n).unwrap_or_default()).collect();
        let published = |p: &RelPath, actor: &str| {
            let of_path = own.iter().filter(|v| v.path == *p);
            of_path.map(|v| v.vclock.get(actor)).max().unwrap_or(0)
        };
        let change = Reissue { old_id: &old_id, new_id: &new_id, published: &published, raised: &|_| 0 };
        let rows: Vec<Vec<Version>> = self.inflight.take().map(|(_, b)| b).into_iter().chain(std::mem::take(&mut self.outbox)).collect();
        self.outbox = rows.iter().map(|b| b.iter().map(|v| change.version(v)).collect()).collect();
        for entry in self.entries.values_mut() {
            *entry = change.entry(entry);
        }
        self.cursors.insert(old_id.clone(), self.seq);
        self.seq = 0;
        self.former_ids.push(std::mem::replace(&mut self.id, new_id));
    }

    // ---------- applying

    pub fn apply_from(&mut self, w: &mut World, id: &str, upto: Option<u64>) {
        if id == self.id {
            return;
        }
        let next = self.seq + 1;
        let own = |n| w.logs.get(&self.id).and_then(|l| l.get(&n));
        if let Some(there) = own(next) {
            let ours = self.inflight.as_ref().is_some_and(|(_, b)| record::encode(b).unwrap() == *there);
            if !ours || own(next + 1).is_some() {
                self.take_new_id(w);
            }
        }
        let mut n = self.cursors.get(id).copied().unwrap_or(0);
        while upto.is_none_or(|u| n < u)
            && let Some(batch) = w.object(id, n + 1)
        {
            n += 1;
            self.apply(w, batch);
            self.cursors.insert(id.to_owned(), n);
        }
    }

    pub fn apply(&mut self, w: &mut World, batch: Vec<Version>) {
        let mut touched = vec![];
        for v in batch {
            self.known.insert(v.path.clone());
            if self.entries.entry(v.path.clone()).or_default().merge(v.clone()) {
                touched.push(v);
            }
        }
        for t in touched.iter().filter(|t| t.moved_to.is_some()) {
            let a = self.author(w);
            let healed = heal(t, &Entries(&self.entries), &a).unwrap();
            w.heals += healed.len() / 2;
            assert!(w.heals < 2000, "healing does not end");
            let mut b = vec![];
            for v in healed {
                self.put(w, v, &mut b);
            }
            self.seal(b);
        }
    }
}

/// Publishes and applies until nothing moves.
pub fn settle(w: &mut World, devices: &mut [Device]) {
    for _ in 0..40 {
        let busy = devices.iter().any(|d| !d.outbox.is_empty() || d.inflight.is_some());
        for d in devices.iter_mut() {
            d.publish(w, 99, None);
        }
        for d in devices.iter_mut() {
            for o in w.writers.clone() {
                d.apply_from(w, &o, None);
            }
        }
        if !busy && devices.iter().all(|d| d.outbox.is_empty()) {
            return;
        }
    }
    panic!("the fleet does not come to rest");
}

/// What must hold whenever a fleet has come to rest.
pub fn check_rest(w: &mut World, devices: &mut [Device]) {
    let tree = devices[0].tree_as(ConflictMode::Auto);
    for d in devices.iter() {
        assert_eq!(d.tree_as(ConflictMode::Auto), tree, "{} shows another tree than {}", d.name, devices[0].name);
        for (p, e) in &d.entries {
            assert_eq!(e, &devices[0].entry(p), "{} and {} have other heads of {p:?}", d.name, devices[0].name);
        }
    }
    for d in devices.iter_mut() {
        let before = d.entries.clone();
        let others: Vec<Vec<u8>> = w.logs.iter().filter(|(id, _)| **id != d.id).flat_map(|(_, l)| l.values().cloned()).collect();
        for body in others {
            d.apply(w, versions(&body));
        }
        assert_eq!(d.entries, before, "applying everything twice changed {}", d.name);
        assert!(d.outbox.is_empty(), "applying everything twice made {} write", d.name);
    }
    // Clocks say exactly who accepted what, and everything published is a head or was accepted by one.
    let published = w.published();
    for v in &published {
        let past = w.past(&uid(v));
        for other in published.iter().filter(|o| o.path == v.path && v.vclock.covers(&o.vclock)) {
            assert!(past.contains(&uid(other)), "{v:?} covers {other:?}, which its author never saw");
        }
        let heads = devices[0].entry(&v.path).heads;
        let kept = heads.iter().any(|h| h == v || w.past(&uid(h)).contains(&uid(v)));
        assert!(kept, "lost: {v:?}, heads {heads:?}");
    }
}
