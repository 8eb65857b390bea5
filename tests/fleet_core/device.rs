//! A device in the process: replica on disk, bytes in memory, the real fleet layer; and a store that watches the order
//! of writes and can stop at any put.

#[path = "../common/copy.rs"]
mod copy;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tcfs::clock::{Clock, ManualClock};
use tcfs::content::{RangeSet, codec};
use tcfs::fleet::bus::Bus;
use tcfs::fleet::identity::{Identity, Me};
use tcfs::fleet::{CutSource, Files, Fleet, Options, Outcome, Parts, Resolved, Round, Settings};
use tcfs::model::manifest::Manifest;
use tcfs::model::ops::{self, At, Attrs, Author};
use tcfs::model::record::{self, Line};
use tcfs::model::reissue::Reissue;
use tcfs::model::{Accepted, ChunkRef, ConflictMode, Entry, FileContent, Hash, Kind, RelPath, Target, Version, view};
use tcfs::state::rows::{ROOT, Sealed, Slot, Time, slot_after, slot_end, slot_name};
use tcfs::state::tree::{has_children, register_at};
use tcfs::state::{Change, Ctx, Ns, Replica, Scan, Tree, prefix_end, uncut_token};
use tcfs::store::keys::Keys;
use tcfs::store::{ObjectMeta, Page, PutMode, PutOutcome, Store, StoreRef};
use tcfs::{Error, ErrorKind, Result};

pub fn keys() -> Keys {
    Keys::new("default")
}

/// A store that checks, at every put of a log batch, that everything it speaks of is there already; and that can die
/// at any put.
pub struct Witness {
    pub inner: StoreRef,
    pub broken: Mutex<Vec<String>>,
    puts: AtomicU64,
    die_at: Mutex<Option<(u64, bool)>>,
    dead: AtomicBool,
}

impl Witness {
    pub fn new(inner: StoreRef) -> Arc<Witness> {
        Arc::new(Witness {
            inner,
            broken: Mutex::default(),
            puts: AtomicU64::new(0),
            die_at: Mutex::default(),
            dead: AtomicBool::new(false),
        })
    }
    /// Dies at the n-th put from now (0 = the next); `done`: that one still takes effect.
    pub fn die_at(&self, n: u64, done: bool) {
        *self.die_at.lock() = Some((self.puts.load(Ordering::SeqCst) + n, done));
    }
    pub fn revive(&self) -> bool {
        *self.die_at.lock() = None;
        self.dead.swap(false, Ordering::SeqCst)
    }
    pub fn puts(&self) -> u64 {
        self.puts.load(Ordering::SeqCst)
    }
    fn alive(&self) -> Result<()> {
        if self.dead.load(Ordering::SeqCst) { Err(Error::new(ErrorKind::Unavailable, "the store is dead")) } else { Ok(()) }
    }
    async fn check(&self, key: &str, body: &[u8]) {
        for line in record::decode(&codec::decode_lines(key, body, 1 << 30).unwrap()) {
            let Line::Version(v) = line else { panic!("{line:?}") };
            let Some(c) = v.file() else { continue };
            let manifest = self.inner.get(&keys().manifest(&c.manifest)).await;
            let Ok(manifest) = manifest else {
                self.broken.lock().push(format!("{key}: {:?} is published before its manifest", v.path));
                continue;
            };
            for chunk in Manifest::parse(&manifest).unwrap().chunks() {
                if self.inner.head(&keys().chunk(chunk)).await.unwrap().is_none() {
                    self.broken.lock().push(format!("{key}: {:?} is published before chunk {chunk}", v.path));
                }
            }
        }
    }
}

#[async_trait]
impl Store for Witness {
    async fn get(&self, key: &str) -> Result<Bytes> {
        self.alive()?;
        self.inner.get(key).await
    }
    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<PutOutcome> {
        self.alive()?;
        let n = self.puts.fetch_add(1, Ordering::SeqCst);
        let die = self.die_at.lock().filter(|(at, _)| n >= *at);
        if let Some((_, done)) = die {
            self.dead.store(true, Ordering::SeqCst);
            if !done {
                return Err(Error::new(ErrorKind::Unavailable, "the store died before the put"));
            }
        }
        if key.starts_with(&keys().logs()) {
            self.check(key, &body).await;
        }
        let out = self.inner.put(key, body, mode).await?;
        if die.is_some() { Err(Error::new(ErrorKind::Timeout, "the store died after the put")) } else { Ok(out) }
    }
    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page> {
        self.alive()?;
        self.inner.list(prefix, after).await
    }
    async fn delete(&self, key: &str) -> Result<()> {
        self.alive()?;
        self.inner.delete(key).await
    }
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        self.alive()?;
        self.inner.head(key).await
    }
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn watch(&self, prefix: &str) -> Option<tokio::sync::mpsc::Receiver<()>> {
        self.inner.watch(prefix)
    }
}

/// A device's bytes, which survive a crash as a disk does.
#[derive(Default)]
pub struct Disk {
    /// Inode → bytes and count of changes.
    pub files: Mutex<HashMap<u64, (Bytes, u64)>>,
    /// Path → inode of the file that this device wrote there.
    pub inos: Mutex<HashMap<String, u64>>,
    pub resolved: Mutex<Vec<Resolved>>,
    pub fail_resolved: AtomicBool,
    pub synced: Mutex<Vec<u64>>,
    pub wanted: Mutex<Vec<u64>>,
    pub changes: Mutex<Vec<Change>>,
    pub opened: AtomicU64,
    pub new_ids: Mutex<Vec<(String, String)>>,
    pub interactive: AtomicBool,
    pub writing: Mutex<Vec<u64>>,
    /// Inodes whose bytes cannot be read.
    pub broken: Mutex<Vec<u64>>,
    /// So many more transactions that apply something, then the process is killed; 0: never.
    pub dies_after: AtomicU64,
}

impl Files for Disk {
    fn settings(&self) -> Settings {
        let mode = if self.interactive.load(Ordering::SeqCst) { ConflictMode::Interactive } else { ConflictMode::Auto };
        Settings { mode, show_siblings: false, uid: 0, gid: 0, boot: 1 }
    }
    fn cut_source(&self, ino: u64, wgen: u64) -> Result<Option<CutSource>> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        if self.broken.lock().contains(&ino) {
            return Err(Error::new(ErrorKind::Corrupt, "a bad sector"));
        }
        let files = self.files.lock();
        let (bytes, _) = match files.get(&ino) {
            Some(f) if f.1 == wgen => f,
            _ => return Ok(None),
        };
        let size = bytes.len() as u64;
        Ok(Some(CutSource { reader: Box::new(bytes.clone()), size, base: None, dirty: RangeSet::of(0..size) }))
    }
    fn unchanged(&self, ino: u64, wgen: u64) -> bool {
        self.files.lock().get(&ino).is_some_and(|f| f.1 == wgen)
    }
    fn resolved(&self, what: &[Resolved]) -> Result<()> {
        if self.fail_resolved.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Io, "killed here"));
        }
        let chunks_add_up = |c: &FileContent, list: &[ChunkRef]| list.iter().map(|c| u64::from(c.1)).sum::<u64>() == c.size;
        for r in what {
            if let Outcome::Cut { content, chunks } = &r.outcome {
                assert!(chunks_add_up(content, chunks), "{r:?}");
            }
        }
        self.resolved.lock().extend_from_slice(what);
        Ok(())
    }
    fn busy(&self, ino: u64) -> bool {
        self.writing.lock().contains(&ino)
    }
    fn changed(&self, changes: Vec<Change>) {
        self.changes.lock().extend(changes);
    }
    fn sync_data(&self, inos: &[u64]) -> Result<()> {
        self.synced.lock().extend_from_slice(inos);
        Ok(())
    }
    fn wanted(&self, ino: u64) {
        self.wanted.lock().push(ino);
    }
    fn expand_moves(&self, _: &mut Ns<'_, '_>) -> Result<()> {
        match self.dies_after.load(Ordering::SeqCst) {
            0 => Ok(()),
            1 => Err(Error::new(ErrorKind::Io, "killed here")),
            n => {
                self.dies_after.store(n - 1, Ordering::SeqCst);
                Ok(())
            }
        }
    }
    fn new_id(&self, change: &Reissue<'_>) {
        self.new_ids.lock().push((change.old_id.to_owned(), change.new_id.to_owned()));
    }
}

pub struct Device {
    pub dir: tempfile::TempDir,
    pub disk: Arc<Disk>,
    pub replica: Arc<Replica>,
    pub fleet: Arc<Fleet>,
    pub me: Arc<Me>,
    pub clock: Arc<ManualClock>,
    pub store: StoreRef,
    pub options: Options,
    pub bus: Option<Arc<dyn Bus>>,
}

fn path(p: &str) -> RelPath {
    RelPath::parse(p).unwrap()
}

fn attrs() -> Attrs {
    Attrs { mode: 0o644, mtime: (1, 0), xattrs: BTreeMap::new() }
}

impl Device {
    pub fn new(name: &str, store: StoreRef) -> Device {
        let seed = u64::from(name.as_bytes()[0]) * 1000 + name.len() as u64;
        Self::with(name, store, seed, Options::default())
    }

    pub fn with(name: &str, store: StoreRef, seed: u64, options: Options) -> Device {
        let clock = ManualClock::new(1_700_000_000_000_000_000, seed);
        let identity = Identity::create(name, &*clock).unwrap();
        Self::at(tempfile::tempdir().unwrap(), identity, store, clock, Arc::default(), options, None)
    }

    /// On a bus.
    #[allow(dead_code)] // by one of two suites
    pub fn on(bus: Arc<dyn Bus>, name: &str, store: StoreRef, seed: u64, options: Options) -> Device {
        let clock = ManualClock::new(1_700_000_000_000_000_000, seed);
        let identity = Identity::create(name, &*clock).unwrap();
        Self::at(tempfile::tempdir().unwrap(), identity, store, clock, Arc::default(), options, Some(bus))
    }

    fn at(
        dir: tempfile::TempDir,
        identity: Identity,
        store: StoreRef,
        clock: Arc<ManualClock>,
        disk: Arc<Disk>,
        options: Options,
        bus: Option<Arc<dyn Bus>>,
    ) -> Device {
        let (replica, fleet, me) = Self::open(dir.path(), identity, &store, &clock, &disk, &options, &bus);
        Device { dir, disk, replica, fleet, me, clock, store, options, bus }
    }

    fn open(
        dir: &Path,
        identity: Identity,
        store: &StoreRef,
        clock: &Arc<ManualClock>,
        disk: &Arc<Disk>,
        options: &Options,
        bus: &Option<Arc<dyn Bus>>,
    ) -> (Arc<Replica>, Arc<Fleet>, Arc<Me>) {
        let replica = Arc::new(Replica::open(dir).unwrap());
        let me = Me::new(identity);
        let parts = Parts {
            replica: replica.clone(),
            store: store.clone(),
            keys: keys(),
            files: disk.clone(),
            clock: clock.clone(),
            me: me.clone(),
            state_dir: dir.to_owned(),
            bus: bus.clone(),
            options: options.clone(),
        };
        (replica, Fleet::new(parts).unwrap(), me)
    }

    /// As after kill -9: everything in memory is gone, what the database committed or journalled is read again.
    pub async fn crash(self) -> Device {
        let Device { dir, disk, replica, fleet, me, clock, store, options, bus } = self;
        let identity = (*me.get()).clone();
        drop(fleet);
        // Tasks of the fleet may hold the replica for a moment.
        while Arc::strong_count(&replica) > 1 {
            tokio::task::yield_now().await;
        }
        drop(replica);
        Self::at(dir, identity, store, clock, disk, options, bus)
    }

    /// A copy of the machine's disk, started as another machine.
    pub fn clone_machine(&self, seed: u64) -> Device {
        self.clone_machine_on(seed, self.store.clone())
    }

    /// The same, with its own way to the store.
    pub fn clone_machine_on(&self, seed: u64, store: StoreRef) -> Device {
        self.replica.db().commit().unwrap();
        let dir = tempfile::tempdir().unwrap();
        copy::copy(self.dir.path(), dir.path());
        let disk = Disk::default();
        *disk.files.lock() = self.disk.files.lock().clone();
        *disk.inos.lock() = self.disk.inos.lock().clone();
        let clock = ManualClock::new(self.clock.now_ns(), seed);
        Self::at(dir, (*self.me.get()).clone(), store, clock, Arc::new(disk), self.options.clone(), self.bus.clone())
    }

    pub fn id(&self) -> String {
        self.me.get().id.clone()
    }

    fn author(&self) -> Author {
        let me = self.me.get();
        Author { device_id: me.id.clone(), device_name: me.name.clone(), now_ms: self.clock.now_ms() }
    }

    fn change<T>(&self, body: impl FnOnce(&mut Ns<'_, '_>, &Author) -> Result<T>) -> T {
        let author = self.author();
        let settings = self.disk.settings();
        let ctx = Ctx {
            mode: settings.mode,
            show_siblings: false,
            me: &author.device_id,
            now: Time::from_ns(self.clock.now_ns()),
            uid: 0,
            gid: 0,
            busy: &|_| false,
        };
        let (out, _) = self.replica.write(&ctx, |ns| body(ns, &author)).unwrap();
        self.fleet.wake();
        out
    }

    /// Merges and seals versions as one row; returns its number.
    fn seal(&self, ns: &mut Ns<'_, '_>, versions: Vec<Version>, files: Vec<(Hash, u64, u64)>) -> Result<u64> {
        let mut touched = Vec::new();
        for v in &versions {
            touched.push((ns.merge(v)?.0, v.path.file_name().to_owned()));
        }
        let seq = ns.next_id();
        ns.t.put(Tree::Outbox, seq, &Sealed { versions, files, at: self.clock.now_ms(), boot: 1, recovered: false })?;
        for (dir, name) in touched {
            ns.reconcile(dir, &name)?;
        }
        Ok(seq)
    }

    fn entry(&self, ns: &Ns<'_, '_>, p: &RelPath) -> Result<(Entry, bool)> {
        let r = register_at(ns.t, p)?.unwrap_or_default();
        let implied = r.dir != 0 && has_children(ns.t, r.dir)?;
        Ok((r.entry, implied))
    }

    /// Writes a file as a close seals it.
    pub fn write(&self, p: &str, bytes: impl Into<Bytes>) -> u64 {
        let (p, bytes) = (path(p), bytes.into());
        self.change(|ns, author| {
            // The same inode is written again only where its own version is all there is: a sibling has its own. A file that
            // followed a move took its inode along.
            let (now, _) = self.entry(ns, &p)?;
            let own = match &now.heads[..] {
                [only] if only.device_id == author.device_id && !only.is_tombstone() => Some(only),
                _ => None,
            };
            match own {
                None => drop(self.disk.inos.lock().remove(p.as_str())),
                Some(head) if head.is_uncut() => {
                    let rows: Vec<(u64, Sealed)> = ns.t.scan_int(Tree::Outbox, 0, u64::MAX, 1 << 30)?;
                    let token = head.file().map(|c| c.root);
                    let sealed = rows.iter().flat_map(|(_, s)| &s.files).find(|f| Some(f.0) == token);
                    sealed.map(|(_, ino, _)| self.disk.inos.lock().insert(p.as_str().to_owned(), *ino));
                }
                Some(_) => {}
            }
            let ino = *self.disk.inos.lock().entry(p.as_str().to_owned()).or_insert_with(|| ns.next_id());
            let wgen = {
                let mut files = self.disk.files.lock();
                let f = files.entry(ino).or_default();
                *f = (bytes.clone(), f.1 + 1);
                f.1
            };
            let (entry, implied) = self.entry(ns, &p)?;
            let seen = view(&entry, implied, self.disk.settings().mode, &author.device_id);
            let accepted = seen.map_or_else(|| Accepted::of_entry(&entry), |v| Accepted::to_write(&v, Target::Path));
            let token = uncut_token(std::array::from_fn(|_| self.clock.random()));
            let content = FileContent { manifest: Hash::ZERO, size: bytes.len() as u64, root: token, chunks: None, hash: None };
            let v = ops::write(&p, &entry, &accepted, Kind::File(content), attrs(), author)?;
            self.seal(ns, vec![v], vec![(token, ino, wgen)])
        })
    }

    /// The seal of a handle that was open since before anything arrived: it replaces this device's own head only.
    pub fn write_on(&self, p: &str, bytes: &'static str) -> u64 {
        let p = path(p);
        self.change(|ns, author| {
            let (entry, _) = self.entry(ns, &p)?;
            let own = entry.live().find(|h| h.device_id == author.device_id).unwrap().clone();
            let accepted = Accepted { clock: own.vclock.clone(), base: Some(own.content_id()), place: own.place.clone() };
            let ino = self.disk.inos.lock()[p.as_str()];
            let wgen = {
                let mut files = self.disk.files.lock();
                let f = files.entry(ino).or_default();
                *f = (Bytes::from_static(bytes.as_bytes()), f.1 + 1);
                f.1
            };
            let token = uncut_token(std::array::from_fn(|_| self.clock.random()));
            let content = FileContent { manifest: Hash::ZERO, size: bytes.len() as u64, root: token, chunks: None, hash: None };
            let v = ops::write(&p, &entry, &accepted, Kind::File(content), attrs(), author)?;
            self.seal(ns, vec![v], vec![(token, ino, wgen)])
        })
    }

    /// Changes a file's bytes without sealing them: an open handle that goes on writing.
    pub fn scribble(&self, p: &str, bytes: &'static [u8]) {
        let ino = self.disk.inos.lock()[p];
        let mut files = self.disk.files.lock();
        let f = files.get_mut(&ino).unwrap();
        *f = (Bytes::from_static(bytes), f.1 + 1);
    }

    pub fn mkdir(&self, p: &str) -> u64 {
        let p = path(p);
        self.change(|ns, author| {
            let (entry, _) = self.entry(ns, &p)?;
            let v = ops::mkdir(&p, &entry, 0o755, (1, 0), author)?;
            self.seal(ns, vec![v], vec![])
        })
    }

    pub fn chmod(&self, p: &str, mode: u32) -> u64 {
        let p = path(p);
        self.change(|ns, author| {
            let (entry, implied) = self.entry(ns, &p)?;
            let seen = view(&entry, implied, ConflictMode::Auto, &author.device_id).unwrap();
            let change = ops::AttrChange { mode: Some(mode), ..Default::default() };
            let v = ops::set_attrs(&p, &entry, &seen, Target::Path, change, author)?;
            self.seal(ns, vec![v], vec![])
        })
    }

    pub fn touch(&self, p: &str, mtime: (i64, u32)) -> u64 {
        let p = path(p);
        self.change(|ns, author| {
            let (entry, implied) = self.entry(ns, &p)?;
            let seen = view(&entry, implied, ConflictMode::Auto, &author.device_id).unwrap();
            let change = ops::AttrChange { mtime: Some(mtime), ..Default::default() };
            let v = ops::set_attrs(&p, &entry, &seen, Target::Path, change, author)?;
            self.seal(ns, vec![v], vec![])
        })
    }

    /// Removes a path, or the first sibling of it.
    pub fn rm_target(&self, p: &str, target: Target) -> u64 {
        let p = path(p);
        self.change(|ns, author| {
            let (entry, implied) = self.entry(ns, &p)?;
            let seen = view(&entry, implied, self.disk.settings().mode, &author.device_id).expect("something to remove");
            let mut versions = vec![ops::remove(&p, &entry, &seen, target, author)?];
            if let Some(parent) = p.parent().filter(|q| !q.is_root()) {
                let (entry, _) = self.entry(ns, &parent)?;
                if !entry.is_live() {
                    versions.push(ops::keep_parent(&parent, &entry, (1, 0), author)?);
                }
            }
            self.disk.inos.lock().remove(p.as_str());
            self.seal(ns, versions, vec![])
        })
    }

    pub fn rm(&self, p: &str) -> u64 {
        self.rm_target(p, Target::Path)
    }

    pub fn mv(&self, from: &str, to: &str) -> u64 {
        let (from, to) = (path(from), path(to));
        self.change(|ns, author| {
            let (source, implied) = self.entry(ns, &from)?;
            let (target, over_dir) = self.entry(ns, &to)?;
            let mode = self.disk.settings().mode;
            let seen = view(&source, implied, mode, &author.device_id).expect("something to move");
            let over = match view(&target, over_dir, mode, &author.device_id) {
                Some(v) => Accepted::to_write(&v, Target::Path),
                None => Accepted::of_entry(&target),
            };
            let at = |path, entry| At { path, entry };
            let versions = ops::rename(at(&from, &source), &seen, at(&to, &target), &over, author)?;
            let mut inos = self.disk.inos.lock();
            inos.remove(to.as_str());
            if let Some(ino) = inos.remove(from.as_str()).filter(|_| source.heads.len() == 1) {
                inos.insert(to.as_str().to_owned(), ino);
            }
            drop(inos);
            self.seal(ns, versions, vec![])
        })
    }

    /// Publishes until nothing is left or nothing can be done now.
    pub async fn publish(&self) -> Result<Round> {
        loop {
            match self.fleet.round().await {
                Ok(Round::Published { .. }) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    pub async fn pull(&self) {
        let done = self.fleet.catch_up().await.unwrap();
        assert_eq!(done.problems, Vec::<String>::new());
    }

    pub fn outbox(&self) -> Vec<(u64, Sealed)> {
        self.replica.read(|r| r.scan_int(Tree::Outbox, 0, u64::MAX, 1 << 30)).unwrap()
    }

    pub fn register(&self, p: &str) -> Entry {
        self.replica.read(|r| register_at(r, &path(p))).unwrap().unwrap_or_default().entry
    }

    /// Every entry that has a head.
    pub fn entries(&self) -> BTreeMap<String, Entry> {
        let mut out = BTreeMap::new();
        self.replica
            .read(|r| {
                r.scan(Tree::Entry, Scan::From(&[], &prefix_end(&[])), usize::MAX >> 1, |_, s: Slot| {
                    if let Slot::Register(reg) = s
                        && let Some(head) = reg.entry.heads.first()
                    {
                        out.insert(head.path.as_str().to_owned(), reg.entry);
                    }
                    Ok(())
                })
            })
            .unwrap();
        out
    }

    /// Everything that others have covered, by path.
    pub fn history(&self) -> Vec<Version> {
        self.rows(Tree::History)
    }

    /// Records of a later tcfs.
    pub fn parked(&self) -> Vec<String> {
        self.rows(Tree::Parked)
    }

    fn rows<T: serde::de::DeserializeOwned>(&self, tree: Tree) -> Vec<T> {
        let mut out = Vec::new();
        let all = Scan::From(&[], &[0xff]);
        self.replica
            .read(|r| {
                r.scan(tree, all, usize::MAX >> 1, |_, row: T| {
                    out.push(row);
                    Ok(())
                })
            })
            .unwrap();
        out
    }

    /// The inode shown at a path.
    pub fn ino(&self, p: &str) -> u64 {
        self.replica.read(|r| register_at(r, &path(p))).unwrap().unwrap_or_default().ino
    }

    /// Files without a name: their bytes may be freed.
    pub fn orphans(&self) -> u64 {
        self.replica.read(|r| r.count(Tree::Orphan)).unwrap()
    }

    /// What a seal does last.
    pub fn after_seal(&self, p: &str) -> bool {
        self.change(|ns, author| tcfs::fleet::healing::after_seal(ns, &path(p), author, 1))
    }

    /// Whether a file is shown at a path.
    pub fn shows(&self, p: &str) -> bool {
        view(&self.register(p), false, self.disk.settings().mode, &self.id()).is_some_and(|v| !v.is_dir)
    }

    /// What a listing of everything shows: files with their content, directories with a slash.
    pub async fn ls(&self) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        let mut todo = vec![(ROOT, RelPath::root())];
        let mut files = Vec::new();
        while let Some((dir, at)) = todo.pop() {
            let mut slots: HashMap<String, Slot> = HashMap::new();
            self.replica
                .read(|r| {
                    r.scan(Tree::Entry, Scan::From(&slot_after(dir, 0), &slot_end(dir)), 1 << 30, |k, s: Slot| {
                        slots.insert(slot_name(k).to_owned(), s);
                        Ok(())
                    })
                })
                .unwrap();
            for (name, slot) in &slots {
                let p = at.join(name);
                match slot {
                    Slot::Register(r) if r.ino != 0 && r.ino == r.dir => {
                        out.insert(format!("{p}/"), String::new());
                        todo.push((r.dir, p));
                    }
                    Slot::Register(r) if r.ino != 0 => {
                        let seen = view(&r.entry, false, self.disk.settings().mode, &self.id()).unwrap();
                        files.push((p, seen.shown.unwrap().clone()));
                    }
                    Slot::Sibling { of, .. } => {
                        let Some(Slot::Register(owner)) = slots.get(of) else { panic!("a sibling of nothing") };
                        let sib = owner.sibs.iter().find(|s| s.name == *name).unwrap();
                        let head = owner.entry.heads.iter().find(|h| h.vclock == sib.clock).unwrap();
                        files.push((p, head.clone()));
                    }
                    _ => {}
                }
            }
        }
        for (p, v) in files {
            out.insert(p.as_str().to_owned(), self.read(&v).await);
        }
        out
    }

    async fn read(&self, v: &Version) -> String {
        let c = match &v.kind {
            Kind::File(c) => c,
            other => return format!("{other:?}"),
        };
        if c.manifest.is_zero() {
            let (_, ino, wgen) =
                *self.outbox().iter().flat_map(|(_, s)| s.files.clone()).collect::<Vec<_>>().iter().find(|f| f.0 == c.root).unwrap();
            let f = self.disk.files.lock()[&ino].clone();
            return if f.1 == wgen { String::from_utf8_lossy(&f.0).into_owned() } else { "(written again)".into() };
        }
        let manifest = Manifest::parse(&self.store.get(&keys().manifest(&c.manifest)).await.unwrap()).unwrap();
        let mut bytes = Vec::new();
        for h in manifest.chunks() {
            let body = self.store.get(&keys().chunk(h)).await.unwrap();
            bytes.extend_from_slice(&codec::decode(h, None, body).unwrap());
        }
        assert_eq!(bytes.len() as u64, c.size);
        assert!(c.hash.is_none_or(|h| h == Hash::of(&bytes)));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The versions in this device's log, batch by batch.
    pub async fn log(&self) -> Vec<Vec<Version>> {
        let mut out = Vec::new();
        for seq in 1.. {
            let key = keys().batch(&self.id(), seq);
            let Ok(body) = self.store.get(&key).await else { break };
            let lines = record::decode(&codec::decode_lines(&key, &body, 1 << 30).unwrap());
            let version = |l| match l {
                Line::Version(v) => *v,
                other => panic!("{other:?}"),
            };
            out.push(lines.into_iter().map(version).collect());
        }
        out
    }
}
