//! Content from outside the drive put at a path: `tcfs push`.
//!
//! Must: it replaces only what this device has had outside before (what it pushed there or pulled from there), or what
//! has the same content. Every other head stays beside it: outside content is never newer just because it came later.
//! Must: bytes are whole in a local file before a version speaks of them; a crash before that leaves nothing.
//! Not here: walking local directories (`daemon::core::push`).

use super::{Touches, Vfs, not_found};
use crate::content::Priority;
use crate::error::{Error, IoContext, Kind, Result};
use crate::model::entry::{Entry, merged};
use crate::model::ops::{self, Accepted, Attrs};
use crate::model::ranges::RangeSet;
use crate::model::view::View;
use crate::model::{ChunkRef, FileContent, Hash, Kind as What, Place, RelPath, VClock, Version};
use crate::state::rows::*;
use crate::state::tree::register_at;
use crate::state::{Change, Tree, uncut_token};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tokio::time::Instant;

/// Bytes read at a time when files are compared.
const BLOCK: usize = 1 << 20;

/// Bytes copied into this machine's unpublished files, not yet part of the drive. Gone again if it is dropped.
pub struct Bytes {
    vfs: Arc<Vfs>,
    pub(super) ino: u64,
    pub(super) size: u64,
    pub(super) placed: bool,
}

impl Drop for Bytes {
    fn drop(&mut self) {
        if !self.placed
            && let Err(e) = self.vfs.remove_inode(self.ino, true)
        {
            tracing::warn!(error = %e, "bytes that were copied in could not be removed; the next start tries again");
        }
    }
}

/// What is to stand at a path.
pub enum New {
    /// A regular file of these bytes.
    File(Bytes),
    /// A symbolic link.
    Symlink(String),
}

/// What stands at a path, compared with something from outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Compared {
    /// Nothing.
    Absent,
    /// The same; clock of the heads that are.
    Same(VClock),
    /// Something else; clocks of hidden or visible heads that are the same all the same.
    Different(Vec<VClock>),
    /// A directory.
    Dir,
}

/// What placing did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The path is in conflict now.
    pub conflict: bool,
}

impl Vfs {
    /// Whether something at `path` would never leave this machine. `dir`: its directory, if that is there.
    pub fn stays_here(&self, dir: Option<u64>, path: &RelPath, is_dir: bool) -> Result<bool> {
        let inside = |dir| self.replica.read(|r| Ok(self.dir_inode(r, dir)?.local_only));
        Ok(dir.map(inside).transpose()?.unwrap_or(false)
            || self.rules.is_local_path(path, is_dir)?
            || self.ignored_path(path, is_dir)?.is_some())
    }

    /// Copies the bytes of an open local file in, by reflink where the disk can. Blocking. None if the file changed
    /// while it was read.
    pub fn copy_in(self: &Arc<Self>, source: &File) -> Result<Option<Bytes>> {
        let before = source.metadata().doing(|| "looking at the file")?;
        let ino = self.replica.next_id();
        self.replica.db().write(|t| t.put(Tree::Orphan, ino, &()))?;
        let bytes = Bytes { vfs: self.clone(), ino, size: before.len(), placed: false };
        let path = self.local_path(ino, true);
        let file = File::options().write(true).create_new(true).open(&path).doing(|| format!("making {}", path.display()))?;
        if crate::sys::clone_file(source, &file).is_err() {
            copy_data(source, &file, before.len()).doing(|| format!("copying into {}", path.display()))?;
        }
        let after = source.metadata().doing(|| "looking at the file")?;
        let same = after.len() == before.len() && after.modified().ok() == before.modified().ok();
        let whole = file.metadata().doing(|| format!("looking at {}", path.display()))?.len() == before.len();
        Ok((same && whole).then_some(bytes))
    }

    /// Compares a path with a regular local file: by size, then by hash, else byte by byte. Blocking; asks the store for
    /// a chunk list only if nothing else decides.
    pub fn compare_file(self: &Arc<Self>, path: &RelPath, file: &File) -> Result<Compared> {
        let size = file.metadata().doing(|| format!("looking at what is to become {path:?}"))?.len();
        let mut hash = None;
        self.compare(path, &mut |v, ino| match v.file() {
            Some(c) if c.size == size => self.holds(c, ino, file, &mut hash),
            _ => Ok(false),
        })
    }

    /// Compares what a path shows, be it a sibling or local-only, with a regular local file of the same size.
    pub fn compare_shown(self: &Arc<Self>, path: &RelPath, file: &File) -> Result<Compared> {
        let found = self.find(path)?;
        let inode: Inode = self.replica.read(|r| r.get(Tree::Inode, found.attr.ino)?.ok_or_else(|| not_found(path.as_str())))?;
        let busy = self.is_busy(found.attr.ino);
        let content = inode.content.filter(|_| !busy).unwrap_or(FileContent {
            manifest: Hash::ZERO,
            size: found.attr.size,
            root: Hash::ZERO,
            chunks: None,
            hash: None,
        });
        // A file that was saved again since it was last published differs from what its content says.
        let local: Option<Local> = self.replica.read(|r| r.get(Tree::Local, found.attr.ino))?;
        let changed = local.is_some_and(|l| !l.dirty.is_empty() || l.token.is_some());
        let content = if changed { FileContent { manifest: Hash::ZERO, hash: None, ..content } } else { content };
        let same = self.holds(&FileContent { size: found.attr.size, ..content }, found.attr.ino, file, &mut None)?;
        Ok(if same { Compared::Same(VClock::new()) } else { Compared::Different(Vec::new()) })
    }

    /// Compares a path with a symbolic link.
    pub fn compare_link(&self, path: &RelPath, target: &str) -> Result<Compared> {
        self.compare(path, &mut |v, _| Ok(matches!(&v.kind, What::Symlink { target: t } if t == target)))
    }

    fn compare(&self, path: &RelPath, same: &mut dyn FnMut(&Version, u64) -> Result<bool>) -> Result<Compared> {
        let Some(reg) = self.replica.read(|r| register_at(r, path))? else { return Ok(Compared::Absent) };
        let seen = self.replica.read(|r| self.with_view(r, &reg, |v, _| (v.is_dir, v.shown.map(|s| s.vclock.clone()))))?;
        let Some((is_dir, shown)) = seen else { return Ok(Compared::Absent) };
        if is_dir {
            return Ok(Compared::Dir);
        }
        let mut equal = Vec::new();
        for h in self.entry(&reg).live() {
            // The inode that shows the head, where one does.
            let sib = reg.sib_of(&h.vclock).map(|s| s.ino);
            let ino = sib.unwrap_or(if shown.as_ref() == Some(&h.vclock) { reg.ino } else { 0 });
            if same(h, ino)? {
                equal.push(h.vclock.clone());
            }
        }
        Ok(match shown {
            Some(s) if equal.contains(&s) => {
                let mut clock = VClock::new();
                equal.iter().for_each(|c| clock.merge(c));
                Compared::Same(clock)
            }
            _ => Compared::Different(equal),
        })
    }

    /// Whether a content is what a local file of the same size holds.
    fn holds(self: &Arc<Self>, content: &FileContent, ino: u64, file: &File, hash: &mut Option<Hash>) -> Result<bool> {
        let read = |e: std::io::Error| Error::io("reading the file", e);
        if content.size == 0 {
            return Ok(true);
        }
        if let Some(known) = content.hash {
            let have = match *hash {
                Some(h) => h,
                None => hash_of(file).map_err(read)?,
            };
            *hash = Some(have);
            return Ok(have == known);
        }
        if !content.manifest.is_zero() {
            let deadline = Instant::now() + self.options.read_deadline;
            let list = match self.rt.block_on(self.chunk_list(ino, content, Priority::Foreground, deadline)) {
                Ok(l) => l,
                // What cannot be compared counts as different: then both stay.
                Err(e) if e.kind().is_transient() => return Ok(false),
                Err(e) => return Err(e),
            };
            return same_chunks(file, &list.list).map_err(read);
        }
        // Saved here and not cut yet: its bytes are here.
        let overlay = self.local_path(ino, true);
        match File::open(&overlay) {
            Ok(mine) => same_bytes(&mine, file, content.size).map_err(read),
            Err(_) => Ok(false),
        }
    }

    /// Puts something from outside at `name` in `dir`. `equal`: heads that hold the same, from a comparison; `force`
    /// replaces everything that is there. Blocking.
    ///
    /// Errors: `IsDir` if a directory has the name, `Exists` if the name is that of a sibling.
    pub fn place(&self, dir: u64, name: &str, new: &mut New, attrs: &Attrs, equal: &[VClock], force: bool) -> Result<Placed> {
        let random = [self.clock.random(), self.clock.random(), self.clock.random(), self.clock.random()];
        let (kind, token) = match new {
            New::Symlink(target) => (What::Symlink { target: target.clone() }, None),
            New::File(b) => {
                let token = uncut_token(random);
                let content = FileContent { manifest: Hash::ZERO, size: b.size, root: token, chunks: None, hash: None };
                (What::File(content), Some(token))
            }
        };
        // As for a rename over a file: after a power cut there must be one of the two.
        let over = self.ino_at(dir, name)?;
        let promised = over != 0 && self.is_promised(over)?;
        if let New::File(b) = new
            && promised
        {
            let path = self.local_path(b.ino, true);
            let synced = File::open(&path).and_then(|f| f.sync_all());
            synced.doing(|| format!("syncing {}", path.display()))?;
            path.parent().map(crate::state::journal::sync_dir).transpose()?;
        }
        let placed = self.change_settled(&[], Touches::Anything, |ns| {
            let parent = self.dir_inode(ns.t, dir)?;
            if let Some(Slot::Sibling { of, .. }) = ns.slot(dir, name)? {
                return Err(Error::new(Kind::Exists, format!("{name:?} is a version of {of:?} that is in conflict"))
                    .hint("resolve the conflict first: `tcfs conflicts` lists it"));
            }
            let path = ns.path_of_dir(dir)?.join(name);
            let mut reg = ns.register(dir, name)?;
            let seen: VClock = ns.t.get(Tree::Seen, path.as_str())?.unwrap_or_default();
            let had = |h: &Version| force || seen.ge(&h.vclock) || equal.contains(&h.vclock);
            let accepted = self.with_view(ns.t, &reg, |v, e| {
                if v.is_dir { Err(Error::new(Kind::IsDir, format!("{path:?} is a directory"))) } else { Ok(accept(v, e, &had)) }
            })?;
            let accepted = accepted.transpose()?.unwrap_or_else(|| Accepted::of_entry(&reg.entry));
            let v = ops::write(&path, &reg.entry, &accepted, kind.clone(), attrs.clone(), &self.author())?;
            ns.merge_into(&mut reg, &v)?;
            let mut row = Sealed { ..self.sealed_row() };
            if let (New::File(b), Some(token)) = (&*new, token) {
                // Shown as a sibling at first, so that the view below finds the inode of this head and its place.
                let at = ns.free_sibling(dir, name, &self.device().1)?;
                let gid = parent.group_for(self.options.gid);
                let mut i = Inode::new(FileType::File, attrs.mode & 0o7777, self.options.uid, gid, ns.ctx.now);
                (i.size, i.mtime, i.shows) = (b.size, attrs.mtime.into(), v.vclock.clone());
                i.links.push((dir, at.clone()));
                ns.put_inode(b.ino, &i)?;
                let local = self.row_of(b.size, token, promised);
                ns.t.put(Tree::Local, b.ino, &local)?;
                ns.t.del(Tree::Orphan, b.ino)?;
                ns.put_slot(dir, &at, &Slot::Sibling { ino: b.ino, of: name.to_owned() })?;
                ns.changes.push(Change::Name { dir, name: at.clone(), was: 0 });
                reg.sibs.push(Sib { name: at, ino: b.ino, clock: v.vclock.clone() });
                row.files.push((token, b.ino, 1));
            }
            let mut now = seen;
            now.merge(&v.vclock);
            ns.t.put(Tree::Seen, path.as_str(), &now)?;
            row.versions.push(v);
            ns.put_slot(dir, name, &Slot::Register(Box::new(reg)))?;
            ns.reconcile(dir, name)?;
            self.enqueue(ns, row)?;
            let reg = ns.register(dir, name)?;
            let conflict = self.with_view(ns.t, &reg, |v, _| v.is_conflict())?.unwrap_or(false);
            Ok(Placed { conflict })
        })?;
        if let New::File(b) = new {
            b.placed = true;
        }
        self.sealed.notify_one();
        Ok(placed)
    }

    /// The row of bytes that were copied in and are sealed by `token`; `promised`: they are on the disk.
    pub(super) fn row_of(&self, size: u64, token: Hash, promised: bool) -> Local {
        let all = RangeSet::of(0..size);
        Local {
            overlay: true,
            have: all.clone(),
            dirty: all,
            wgen: 1,
            token: Some((token, 1)),
            unsynced_boot: if promised { 0 } else { self.boot },
            promise: if promised { Promise::Kept } else { Promise::None },
            used: self.clock.now_ms() / 1000,
            ..Local::default()
        }
    }

    /// Notes that what stands at a path now is also outside: pulled from there, or found the same.
    pub fn note_seen(&self, all: &[(RelPath, Option<VClock>)]) -> Result<()> {
        let me = self.device().0;
        let busy = |ino| self.is_busy(ino);
        let ctx = self.ctx(&me, &busy);
        self.replica.write(&ctx, |ns| {
            for (path, clock) in all {
                let clock = match clock {
                    Some(c) => Some(c.clone()),
                    None => match register_at(ns.t, path)? {
                        Some(reg) => self.with_view(ns.t, &reg, |v, _| merged(v.accepted.iter().copied()))?,
                        None => None,
                    },
                };
                if let Some(c) = clock {
                    let mut now: VClock = ns.t.get(Tree::Seen, path.as_str())?.unwrap_or_default();
                    now.merge(&c);
                    ns.t.put(Tree::Seen, path.as_str(), &now)?;
                }
            }
            Ok(())
        })?;
        Ok(())
    }
}

/// What a version from outside accepts of an entry: tombstones, heads that `had` knows, and those with the same content
/// as one of these.
fn accept(view: &View<'_>, entry: &Entry, had: &dyn Fn(&Version) -> bool) -> Accepted {
    let known: Vec<&Version> = entry.live().filter(|h| had(h)).collect();
    let ok = |h: &Version| h.is_tombstone() || known.iter().any(|k| k.vclock == h.vclock || k.same_content(h));
    let replaced = view.visible().find(|h| ok(h));
    let leaves = view.visible().any(|h| !ok(h));
    let place = replaced.filter(|_| leaves).map(|h| {
        let (name, id) = h.place();
        Place { name: name.to_owned(), id: id.to_owned() }
    });
    Accepted { clock: merged(entry.heads.iter().filter(|h| ok(h))), base: replaced.map(Version::content_id), place }
}

/// Copies what is no hole.
pub(super) fn copy_data(from: &File, to: &File, size: u64) -> std::io::Result<()> {
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(from, rustix::fs::SeekFrom::Data(at)) {
            Ok(d) => d,
            Err(rustix::io::Errno::NXIO) => break,
            Err(_) => at,
        };
        let end = rustix::fs::seek(from, rustix::fs::SeekFrom::Hole(data)).unwrap_or(size).min(size);
        at = data;
        while at < end {
            let want = (end - at).min(1 << 30) as usize;
            match crate::sys::copy_range(from, at, to, at, want) {
                Ok(0) => return to.set_len(size),
                Ok(n) => at += n as u64,
                Err(_) => {
                    let mut buf = vec![0; want.min(BLOCK)];
                    let n = from.read_at(&mut buf, at)?;
                    if n == 0 {
                        return to.set_len(at);
                    }
                    to.write_all_at(&buf[..n], at)?;
                    at += n as u64;
                }
            }
        }
        if end <= data {
            break;
        }
    }
    to.set_len(size)
}

fn hash_of(file: &File) -> std::io::Result<Hash> {
    let (mut h, mut buf, mut at) = (blake3::Hasher::new(), vec![0; BLOCK], 0);
    loop {
        let n = file.read_at(&mut buf, at)?;
        if n == 0 {
            return Ok(Hash(*h.finalize().as_bytes()));
        }
        h.update(&buf[..n]);
        at += n as u64;
    }
}

fn same_chunks(file: &File, list: &[ChunkRef]) -> std::io::Result<bool> {
    let mut at = 0;
    for c in list {
        let mut buf = vec![0; c.1 as usize];
        match file.read_exact_at(&mut buf, at) {
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            other => other?,
        }
        if Hash::of(&buf) != c.0 {
            return Ok(false);
        }
        at += u64::from(c.1);
    }
    Ok(true)
}

fn same_bytes(a: &File, b: &File, size: u64) -> std::io::Result<bool> {
    let (mut x, mut y) = (vec![0; BLOCK], vec![0; BLOCK]);
    let mut at = 0;
    while at < size {
        let n = (size - at).min(BLOCK as u64) as usize;
        for (f, buf) in [(a, &mut x), (b, &mut y)] {
            match f.read_exact_at(&mut buf[..n], at) {
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
                other => other?,
            }
        }
        if x[..n] != y[..n] {
            return Ok(false);
        }
        at += n as u64;
    }
    Ok(true)
}
