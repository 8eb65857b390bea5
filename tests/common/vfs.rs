//! A drive in the process: a `Vfs` over a temporary state and a store in memory, with a clock turned by hand, and
//! other devices whose versions arrive when the test says so.

#![allow(dead_code)]

use std::sync::Arc;
use std::time::Duration;
use tcfs::ErrorKind;
use tcfs::clock::{Clock, ManualClock};
use tcfs::content::fetch::{FetchOptions, Fetcher};
use tcfs::content::upload::{UploadOptions, Uploader};
use tcfs::error::Result;
use tcfs::fleet::{Files, Outcome, Resolved};
use tcfs::model::manifest::{About, SyncManifest};
use tcfs::model::ops::{self, Accepted, Attrs, Author, Target};
use tcfs::model::version::INLINE_CHUNKS;
use tcfs::model::{ConflictMode, Entry, FileContent, Hash, Kind, RelPath, Version, view};
use tcfs::state::rows::*;
use tcfs::state::tree::register_at;
use tcfs::state::{Replica, Scan, Tree};
use tcfs::store::fault::FaultStore;
use tcfs::store::keys::Keys;
use tcfs::store::memory::MemoryStore;
use tcfs::store::{PutMode, Store, StoreRef};
use tcfs::vfs::{Attr, Options, SetAttr, Vfs, VfsFiles};

pub const ME: &str = "ann-00000001";

pub fn path(s: &str) -> RelPath {
    RelPath::parse(s).unwrap()
}

/// The drive under test with everything around it.
pub struct Rig {
    pub dir: tempfile::TempDir,
    pub store: Arc<FaultStore>,
    pub keys: Keys,
    pub clock: Arc<ManualClock>,
    pub options: Options,
    vfs: Option<Arc<Vfs>>,
}

impl std::ops::Deref for Rig {
    type Target = Arc<Vfs>;
    fn deref(&self) -> &Arc<Vfs> {
        self.vfs.as_ref().expect("the drive is open")
    }
}

impl Rig {
    pub fn new() -> Rig {
        Rig::with(|_| {})
    }

    pub fn with(set: impl FnOnce(&mut Options)) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let store = FaultStore::new(MemoryStore::new(), 1);
        let clock = ManualClock::new(1_770_000_000_000_000_000, 7);
        let mut options = Options {
            state_dir: dir.path().join("state"),
            cache_dir: dir.path().join("cache"),
            conflict_mode: ConflictMode::Auto,
            cache_max: 1 << 40,
            hydrate_whole_below: 0,
            read_deadline: Duration::from_secs(20),
            uid: 1000,
            gid: 1000,
            exclude_patterns: vec!["*.swp".into()],
            sync_git_dirs: false,
            move_at_once: tcfs::vfs::MOVE_AT_ONCE,
            readers: Default::default(),
            min_free: 256 << 20,
            brake: tcfs::vfs::BrakeOptions::default(),
            boot: 1,
        };
        set(&mut options);
        let mut rig = Rig { dir, store, keys: Keys::new("default"), clock, options, vfs: None };
        rig.open();
        rig
    }

    fn open(&mut self) {
        let replica = Arc::new(Replica::open(&self.options.state_dir).unwrap());
        let store: StoreRef = self.store.clone();
        let fetcher = Fetcher::new(store, self.keys.clone(), self.clock.clone(), FetchOptions::default());
        let text = format!(r#"{{"format":1,"id":"{ME}","name":"ann","secret_key":"{}=","enrolled_at":0}}"#, "A".repeat(43));
        let device = tcfs::fleet::Me::new(tcfs::fleet::Identity::from_json(&text, "the tests' identity").unwrap());
        let vfs = Vfs::open(replica, fetcher, self.clock.clone(), device, self.options.clone());
        self.vfs = Some(vfs.unwrap());
    }

    /// As `kill -9` and a new start: nothing is closed, sealed or committed.
    pub fn crash(&mut self) {
        self.crash_with(|_| {});
    }

    /// The same with other options from then on.
    pub fn crash_with(&mut self, set: impl FnOnce(&mut Options)) {
        let vfs = self.vfs.take().expect("the drive is open");
        for _ in 0..1000 {
            // Read-ahead in the background lets go when it is done.
            if Arc::strong_count(&vfs) == 1 {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(vfs);
        set(&mut self.options);
        self.open();
    }

    /// A graceful stop and a new start.
    pub fn restart(&mut self) {
        self.close().unwrap();
        self.crash();
    }

    /// Turns the clock by some milliseconds.
    pub fn tick(&self) {
        self.clock.advance(10_000_000);
    }

    // -- by path

    fn split<'a>(&self, p: &'a str) -> Result<(u64, &'a [u8])> {
        let (dir, name) = p.rsplit_once('/').unwrap_or(("", p));
        Ok((self.resolve(dir)?.ino, name.as_bytes()))
    }

    pub fn ino(&self, p: &str) -> u64 {
        self.resolve(p).unwrap_or_else(|e| panic!("{p}: {e}")).ino
    }

    pub fn has(&self, p: &str) -> bool {
        match self.resolve(p) {
            Ok(_) => true,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotDir) => false,
            Err(e) => panic!("{p}: {e}"),
        }
    }

    pub fn create_open(&self, p: &str) -> Result<(Attr, u64)> {
        let (dir, name) = self.split(p)?;
        let (attr, o) = self.create(dir, name, 0o644, 1000, 1000)?;
        Ok((attr, o.fh))
    }

    /// Creates or overwrites, as `cp` does.
    pub fn put(&self, p: &str, bytes: &[u8]) -> u64 {
        let (ino, fh) = match self.resolve(p) {
            Ok(a) => (a.ino, self.open_file(a.ino, true, true).unwrap().fh),
            Err(_) => {
                let (a, fh) = self.create_open(p).unwrap();
                (a.ino, fh)
            }
        };
        assert_eq!(self.write(fh, 0, bytes, false).unwrap(), bytes.len());
        self.flush(fh).unwrap();
        self.release(fh).unwrap();
        ino
    }

    pub fn mkdirp(&self, p: &str) -> u64 {
        let (dir, name) = self.split(p).unwrap();
        self.mkdir(dir, name, 0o755, 1000, 1000).unwrap().ino
    }

    pub fn rm(&self, p: &str) -> Result<()> {
        let (dir, name) = self.split(p)?;
        self.unlink(dir, name)
    }

    pub fn rmd(&self, p: &str) -> Result<()> {
        let (dir, name) = self.split(p)?;
        self.rmdir(dir, name)
    }

    pub fn mv(&self, from: &str, to: &str) -> Result<()> {
        let ((a, an), (b, bn)) = (self.split(from)?, self.split(to)?);
        self.rename(a, an, b, bn, false)
    }

    pub fn mv_no_replace(&self, from: &str, to: &str) -> Result<()> {
        let ((a, an), (b, bn)) = (self.split(from)?, self.split(to)?);
        self.rename(a, an, b, bn, true)
    }

    pub fn swap(&self, from: &str, to: &str) -> Result<()> {
        let ((a, an), (b, bn)) = (self.split(from)?, self.split(to)?);
        self.exchange(a, an, b, bn)
    }

    pub fn ln(&self, from: &str, to: &str) -> Result<Attr> {
        let (b, bn) = self.split(to)?;
        self.link(self.resolve(from)?.ino, b, bn)
    }

    pub fn ln_s(&self, target: &str, p: &str) -> Result<Attr> {
        let (b, bn) = self.split(p)?;
        self.symlink(b, bn, target.as_bytes(), 1000, 1000)
    }

    pub fn chmod(&self, p: &str, mode: u32) -> Attr {
        self.setattr(self.ino(p), &SetAttr { mode: Some(mode), ..SetAttr::default() }).unwrap()
    }

    pub fn open_rw(&self, p: &str) -> u64 {
        self.open_file(self.ino(p), true, false).unwrap().fh
    }

    pub fn open_ro(&self, p: &str) -> u64 {
        self.open_file(self.ino(p), false, false).unwrap().fh
    }

    /// Bytes of an open handle that are here without asking the store.
    pub fn read_local(&self, fh: u64, off: u64, len: usize) -> Result<Option<Vec<u8>>> {
        Ok(self.read_now(fh, off, len)?.map(|r| {
            let mut buf = vec![0; r.len];
            r.read_into(&mut buf, off).unwrap();
            buf
        }))
    }

    /// Bytes of an open handle, fetched if need be.
    pub async fn read_fh(&self, fh: u64, off: u64, len: usize) -> Result<Vec<u8>> {
        if let Some(b) = self.read_local(fh, off, len)? {
            return Ok(b);
        }
        let r = self.hydrate_read(fh, off, len).await?;
        let mut buf = vec![0; r.len];
        r.read_into(&mut buf, off).unwrap();
        Ok(buf)
    }

    pub async fn read_ino(&self, ino: u64) -> Result<Vec<u8>> {
        let size = self.getattr(ino)?.size as usize;
        let fh = self.open_file(ino, false, false)?.fh;
        let got = self.read_fh(fh, 0, size + 10).await;
        self.release(fh)?;
        got
    }

    pub async fn cat(&self, p: &str) -> Vec<u8> {
        self.read_ino(self.ino(p)).await.unwrap_or_else(|e| panic!("{p}: {e}"))
    }

    pub async fn text(&self, p: &str) -> String {
        String::from_utf8(self.cat(p).await).unwrap()
    }

    /// Names of a directory, sorted.
    pub fn ls(&self, p: &str) -> Vec<String> {
        let mut names: Vec<String> = self.readdir(self.ino(p), 0, usize::MAX, false).unwrap().into_iter().map(|e| e.name).collect();
        names.sort();
        names
    }

    // -- other devices

    /// The entry of a path.
    pub fn entry(&self, p: &str) -> Entry {
        self.replica().read(|r| Ok(register_at(r, &path(p))?.map(|r| r.entry).unwrap_or_default())).unwrap()
    }

    /// Puts bytes into the store as another device would.
    pub async fn upload(&self, p: &str, bytes: &[u8]) -> FileContent {
        let all = std::iter::once(0..bytes.len() as u64).collect();
        let cut = self.uploader().publish(Box::new(bytes::Bytes::copy_from_slice(bytes)), None, &all, bytes.len() as u64).await.unwrap();
        let about = About {
            vclock: Default::default(),
            written_by: "bob-00000002".into(),
            written_at: 0,
            mode: 0o100644,
            mtime: (0, 0),
            base: None,
        };
        let (id, body) = SyncManifest::new(&path(p), &cut.chunks, cut.file_hash, about).encode().unwrap();
        self.store.put(&self.keys.manifest(&id), body.into(), PutMode::Overwrite).await.unwrap();
        let chunks = (cut.chunks.len() <= INLINE_CHUNKS).then(|| cut.chunks.clone());
        FileContent { manifest: id, size: bytes.len() as u64, root: cut.root, chunks, hash: cut.file_hash }
    }

    pub fn author(&self, name: &str) -> Author {
        let n = match name {
            "ann" => 1,
            "bob" => 2,
            "cat" => 3,
            _ => 9,
        };
        Author { device_id: format!("{name}-{n:08x}"), device_name: name.into(), now_ms: self.clock.now_ms() }
    }

    /// What `name` writes at `p` when what it has seen is `seen`.
    pub async fn version_of(&self, name: &str, p: &str, seen: &Entry, bytes: &[u8]) -> Version {
        let content = self.upload(p, bytes).await;
        let who = self.author(name);
        let accepted = match view(seen, false, ConflictMode::Auto, &who.device_id) {
            Some(v) => Accepted::to_write(&v, Target::Path),
            None => Accepted::of_entry(seen),
        };
        let attrs = Attrs { mode: 0o644, mtime: (1_760_000_000, 5), ..Attrs::default() };
        ops::write(&path(p), seen, &accepted, Kind::File(content), attrs, &who).unwrap()
    }

    /// A delete by `name`, which has seen `seen`.
    pub fn tombstone_of(&self, name: &str, p: &str, seen: &Entry) -> Version {
        let who = self.author(name);
        let v = view(seen, false, ConflictMode::Auto, &who.device_id).expect("there is something to delete");
        ops::remove(&path(p), seen, &v, Target::Path, &who).unwrap()
    }

    /// A version arrives, as publishing and applying bring it.
    pub fn arrive(&self, v: &Version) {
        self.change(&[], |ns| {
            let (dir, changed) = ns.merge(v)?;
            if changed {
                ns.reconcile(dir, v.path.file_name())?;
            }
            Ok(())
        })
        .unwrap();
    }

    /// `name` writes `p` having seen everything that is here, and the version arrives.
    pub async fn remote(&self, name: &str, p: &str, bytes: &[u8]) -> Version {
        let v = self.version_of(name, p, &self.entry(p), bytes).await;
        self.arrive(&v);
        v
    }

    /// `name` writes `p` having seen nothing of it.
    pub async fn remote_blind(&self, name: &str, p: &str, bytes: &[u8]) -> Version {
        let v = self.version_of(name, p, &Entry::default(), bytes).await;
        self.arrive(&v);
        v
    }

    // -- the publisher

    /// What it makes of the last seal of a file, which is of `bytes`: the same as of those bytes alone.
    pub async fn cut_last(&self, p: &str, bytes: &[u8]) -> Resolved {
        let of = self.ino(p);
        let (token, ino, wgen) = *self.outbox().iter().flat_map(|r| &r.files).rfind(|f| f.1 == of).unwrap();
        let files = VfsFiles(Arc::clone(self));
        let source = tokio::task::spawn_blocking(move || files.cut_source(ino, wgen)).await.unwrap().unwrap().unwrap();
        let cut = self.uploader().publish(source.reader, source.base.as_deref(), &source.dirty, source.size).await.unwrap();
        let content = self.upload(p, bytes).await;
        assert_eq!((cut.root, source.size), (content.root, bytes.len() as u64), "{p}");
        Resolved { token, ino, wgen, outcome: Outcome::Cut { content, chunks: cut.chunks } }
    }

    /// Those bytes are in the store, and the drive hears of it; their row stays in the outbox.
    pub fn tell(&self, what: &Resolved) {
        VfsFiles(Arc::clone(self)).resolved(std::slice::from_ref(what)).unwrap();
    }

    fn uploader(&self) -> Uploader {
        Uploader::new(self.store.clone(), self.keys.clone(), self.clock.clone(), UploadOptions::default())
    }

    /// All sealed versions, in order.
    pub fn outbox(&self) -> Vec<Sealed> {
        let rows: Vec<(u64, Sealed)> = self.replica().read(|r| r.scan_int(Tree::Outbox, 0, u64::MAX, usize::MAX)).unwrap();
        rows.into_iter().map(|(_, s)| s).collect()
    }
}

pub fn hash(b: &[u8]) -> Hash {
    Hash::of(b)
}

/// Every slot of the database: (directory, name, slot).
pub fn all_slots(rig: &Rig) -> Vec<(u64, String, Slot)> {
    let mut out = Vec::new();
    rig.replica()
        .read(|r| {
            r.scan(Tree::Entry, Scan::From(&[], &[0xff; 32]), usize::MAX, |k, s: Slot| {
                out.push((u64::from_be_bytes(k[..8].try_into().unwrap()), slot_name(k).to_owned(), s));
                Ok(())
            })
        })
        .unwrap();
    out
}

/// Checks what must hold between the rows of the database at any time. `all_local`: nothing was published and all
/// versions are in the outbox or in `arrived`.
pub fn check_rows(rig: &Rig, arrived: Option<&[Version]>) {
    if let Err(e) = rows_fit(rig, arrived) {
        panic!("the rows do not fit together: {e}");
    }
}

fn rows_fit(rig: &Rig, arrived: Option<&[Version]>) -> std::result::Result<(), String> {
    use std::collections::BTreeMap;
    use tcfs::state::tree::{has_children, path_of_dir};
    rig.drain_moves().unwrap();
    let slots: BTreeMap<(u64, String), Slot> = all_slots(rig).into_iter().map(|(d, n, s)| ((d, n), s)).collect();
    let (inodes, locals, orphans, unsealed, outbox) = rig
        .replica()
        .read(|r| {
            let i: Vec<(u64, Inode)> = r.scan_int(Tree::Inode, 0, u64::MAX, usize::MAX)?;
            let l: Vec<(u64, Local)> = r.scan_int(Tree::Local, 0, u64::MAX, usize::MAX)?;
            let o: Vec<(u64, ())> = r.scan_int(Tree::Orphan, 0, u64::MAX, usize::MAX)?;
            let u: Vec<(u64, ())> = r.scan_int(Tree::Unsealed, 0, u64::MAX, usize::MAX)?;
            let x: Vec<(u64, Sealed)> = r.scan_int(Tree::Outbox, 0, u64::MAX, usize::MAX)?;
            Ok((
                i.into_iter().collect::<BTreeMap<_, _>>(),
                l.into_iter().collect::<BTreeMap<_, _>>(),
                o.into_iter().map(|x| x.0).collect::<Vec<_>>(),
                u.into_iter().map(|x| x.0).collect::<Vec<_>>(),
                x,
            ))
        })
        .unwrap();
    let err = |text: String| Err(text);
    let busy = |i: &u64| unsealed.contains(i) || rig.is_busy(*i);
    let mut subdirs: BTreeMap<u64, u32> = BTreeMap::new();
    for ((dir, name), slot) in &slots {
        let here = format!("{name:?} in {dir}");
        let Some(parent) = inodes.get(dir) else { return err(format!("{here}: no such directory")) };
        let ino = slot.ino();
        if ino != 0 {
            let Some(i) = inodes.get(&ino) else { return err(format!("{here}: inode {ino} is not there")) };
            if !i.links.contains(&(*dir, name.clone())) {
                return err(format!("{here}: inode {ino} has the names {:?}", i.links));
            }
            // While a file with the directory's name, or a sibling of it, is open for writing, the directory waits for it.
            let waits = |l: &(u64, String)| match slots.get(l) {
                Some(Slot::Register(r)) => busy(&r.ino) || r.sibs.iter().any(|s| busy(&s.ino)),
                _ => false,
            };
            if parent.dead && !parent.links.iter().any(waits) {
                return err(format!("{here}: shown in a directory that is gone"));
            }
            if i.dead {
                return err(format!("{here}: shows a directory that is gone"));
            }
            if i.kind == FileType::Dir {
                *subdirs.entry(*dir).or_default() += 1;
            }
        }
        match slot {
            Slot::Register(r) => {
                let shown = inodes.get(&r.ino);
                let local = shown.is_some_and(|i| i.local_only);
                if r.ino != 0 && !local && (r.ino == r.dir) != (shown.unwrap().kind == FileType::Dir) {
                    return err(format!("{here}: inode {} and directory {} do not agree", r.ino, r.dir));
                }
                if r.dir != 0 && inodes.get(&r.dir).is_none_or(|d| d.links != [(*dir, name.clone())]) {
                    return err(format!("{here}: directory {} hangs elsewhere: {:?}", r.dir, inodes.get(&r.dir).map(|d| &d.links)));
                }
                if r.ino == 0 && r.dir == 0 && r.sibs.is_empty() && r.entry.is_empty() {
                    return err(format!("{here}: an empty register"));
                }
                for s in &r.sibs {
                    match slots.get(&(*dir, s.name.clone())) {
                        Some(Slot::Sibling { ino, of }) if *ino == s.ino && of == name => {}
                        other => return err(format!("{here}: sibling {s:?} has the slot {other:?}")),
                    }
                }
                let p = rig.replica().read(|t| Ok(path_of_dir(t, *dir)?.join(name))).unwrap();
                for h in &r.entry.heads {
                    if h.path != p {
                        return err(format!("{here}: at {p:?} lies a version of {:?}", h.path));
                    }
                }
                if local || busy(&r.ino) || r.sibs.iter().any(|s| busy(&s.ino)) {
                    continue;
                }
                let implied = r.dir != 0 && rig.replica().read(|t| has_children(t, r.dir)).unwrap();
                let entry = tcfs::model::brake::in_effect(&r.entry, ME);
                let seen = view(&entry, implied, rig.options.conflict_mode, ME);
                // The names of a (former) hard link may have got different modes elsewhere; the file has the one that came last.
                let fits = match &seen {
                    None => r.ino == 0,
                    Some(v) if v.is_dir => r.ino != 0 && r.ino == r.dir,
                    Some(v) => {
                        shows(shown, locals.get(&r.ino), v.shown.unwrap())
                            && (shown.unwrap().mode == v.mode & 0o7777 || shown.unwrap().shows != v.shown.unwrap().vclock)
                    }
                };
                if !fits {
                    return err(format!("{here}: shows {} {shown:?} {:?}, the view is {seen:?}", r.ino, locals.get(&r.ino)));
                }
                if rig.options.conflict_mode != ConflictMode::Defer {
                    let want: Vec<_> = seen.iter().flat_map(|v| &v.siblings).map(|s| s.head).collect();
                    if want.len() != r.sibs.len() {
                        return err(format!("{here}: siblings {:?}, the view has {want:?}", r.sibs));
                    }
                    for (s, h) in r.sibs.iter().zip(want) {
                        if s.clock != h.vclock || !shows(inodes.get(&s.ino), locals.get(&s.ino), h) {
                            return err(format!("{here}: sibling {s:?} {:?} shows another head than {h:?}", inodes.get(&s.ino)));
                        }
                    }
                }
            }
            Slot::Sibling { of, ino } => match slots.get(&(*dir, of.clone())) {
                Some(Slot::Register(r)) if r.sibs.iter().any(|s| s.name == *name && s.ino == *ino) => {}
                other => return err(format!("{here}: its owner {of:?} is {other:?}")),
            },
            Slot::LocalOnly { ino } => {
                if !inodes[ino].local_only {
                    return err(format!("{here}: inode {ino} is not local-only"));
                }
            }
        }
    }
    for (ino, i) in &inodes {
        if *ino == ROOT {
            continue;
        }
        if i.links.is_empty() != orphans.contains(ino) {
            return err(format!("inode {ino} {i:?}: its row among the orphans is wrong"));
        }
        for l in &i.links {
            let fits = match slots.get(l) {
                Some(Slot::Register(r)) => r.ino == *ino || r.dir == *ino && i.dead,
                Some(s) => s.ino() == *ino,
                None => false,
            };
            if !fits {
                return err(format!("inode {ino} claims the name {l:?}, whose slot is {:?}", slots.get(l)));
            }
        }
        if i.kind == FileType::Dir && !i.dead && i.subdirs != subdirs.get(ino).copied().unwrap_or(0) {
            return err(format!("directory {ino} {:?}: {} subdirectories counted, {:?} there", i.links, i.subdirs, subdirs.get(ino)));
        }
        let clean = i.kind == FileType::File && !i.local_only && !i.links.is_empty() && !unsealed.contains(ino) && !rig.is_busy(*ino);
        if clean && i.size > 0 && locals.get(ino).is_none_or(|l| l.token.is_none()) && i.content.is_none() {
            return err(format!("inode {ino} {:?}: neither content nor a seal", i.links));
        }
    }
    if inodes[&ROOT].subdirs != subdirs.get(&ROOT).copied().unwrap_or(0) {
        return err(format!("the root counts {} subdirectories, {:?} are there", inodes[&ROOT].subdirs, subdirs.get(&ROOT)));
    }
    for (what, list) in [("orphan", &orphans), ("unsealed", &unsealed), ("local", &locals.keys().copied().collect())] {
        for ino in list {
            if !inodes.contains_key(ino) {
                return err(format!("a row {what} of inode {ino}, which is not there"));
            }
        }
    }
    let mut written: BTreeMap<RelPath, Entry> = BTreeMap::new();
    for (n, row) in &outbox {
        if row.versions.is_empty() {
            return err(format!("outbox row {n} is empty"));
        }
        for v in &row.versions {
            if let Some(c) = v.file().filter(|_| v.is_uncut())
                && !row.files.iter().any(|f| f.0 == c.root)
            {
                let same: Vec<_> = outbox
                    .iter()
                    .filter(|r| r.1.versions.iter().any(|w| w.file().is_some_and(|f| f.root == c.root)))
                    .map(|(n, r)| (n, &r.files, r.versions.iter().map(|v| (v.path.to_string(), v.vclock.clone())).collect::<Vec<_>>()))
                    .collect();
                return err(format!("outbox row {n}: nothing says where the bytes of {v:?} are; all with this token: {same:#?}"));
            }
            written.entry(v.path.clone()).or_default().merge(v.clone());
        }
    }
    if let Some(arrived) = arrived {
        arrived.iter().for_each(|v| {
            written.entry(v.path.clone()).or_default().merge(v.clone());
        });
        let mut there: BTreeMap<RelPath, Entry> = BTreeMap::new();
        for ((dir, name), slot) in &slots {
            if let Slot::Register(r) = slot
                && !r.entry.is_empty()
            {
                there.insert(rig.replica().read(|t| Ok(path_of_dir(t, *dir)?.join(name))).unwrap(), r.entry.clone());
            }
        }
        for p in there.keys().chain(written.keys()) {
            if there.get(p) != written.get(p) {
                return err(format!("{p:?}: here {:#?}\nwritten {:#?}", there.get(p), written.get(p)));
            }
        }
    }
    Ok(())
}

/// Whether an inode holds what a head says.
fn shows(i: Option<&Inode>, local: Option<&Local>, h: &Version) -> bool {
    let Some(i) = i else { return false };
    match &h.kind {
        // An empty file that hid beside a full one and is shown again has a new inode; there are no bytes to lose.
        Kind::File(c) if h.is_uncut() && c.size == 0 => i.kind == FileType::File && i.size == 0,
        Kind::File(c) if h.is_uncut() => {
            i.kind == FileType::File && local.is_some_and(|l| l.token.is_some_and(|t| t.0 == c.root)) && i.size == c.size
        }
        Kind::File(c) => {
            let sealed = local.and_then(|l| l.token).is_some();
            i.kind == FileType::File && !sealed && i.size == c.size && i.content.as_ref().is_some_and(|m| m.same_bytes(c))
        }
        Kind::Symlink { target } => i.kind == FileType::Symlink && i.target == *target,
        _ => false,
    }
}

/// Waits until something that goes on in the background is so.
pub async fn until_async(ready: impl Fn() -> bool) {
    for _ in 0..1000 {
        if ready() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it does not come about");
}

impl Rig {
    /// Another device replaces what it sees here.
    pub async fn write_over(&self, name: &str, p: &str, bytes: &[u8]) -> Version {
        let v = self.version_of(name, p, &self.entry(p), bytes).await;
        self.arrive(&v);
        v
    }
}
