//! Repositories that travel as bundles: which there are, and their bundles in the tree of versions.
//!
//! A bundle is a version of `<repository>/.git` and nothing that is shown: what is shown there is this machine's own `.git`,
//! which stays on it.
//!
//! Not here: making bundles and taking them in (`fleet::git`), when that is done (`daemon`).

use super::place::Bytes;
use super::{Vfs, not_found};
use crate::content::Priority;
use crate::error::{Error, IoContext, Kind, Result};
use crate::model::entry::merged;
use crate::model::ops::{self, Accepted, Attrs};
use crate::model::{ChunkRef, FileContent, Hash, Kind as What, RelPath, Version};
use crate::state::rows::*;
use crate::state::tree::{dir_of, path_of_dir};
use crate::state::{Tree, uncut_token};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use tokio::time::Instant;

/// Name of what a repository is kept in.
pub const GIT_DIR: &str = ".git";
/// The directory of what is in none.
const NOWHERE: u64 = 0;
/// Directories that are looked at in one go.
const PAGE: usize = 4096;

/// A place where a repository is, here or elsewhere.
#[derive(Clone, Debug)]
pub struct RepoAt {
    /// Directory of its worktree.
    pub dir: u64,
    /// Path of that.
    pub path: RelPath,
    /// The directory is there.
    pub shown: bool,
    /// There is a `.git` here.
    pub here: bool,
    /// Bundles that count.
    pub heads: Vec<Version>,
    /// There are none because the repository was moved: its directory now.
    pub moved_to: Option<RelPath>,
}

impl RepoAt {
    /// Whether a bundle that the device `me` made is still on its way to the store.
    pub fn is_pending(&self, me: &str) -> bool {
        self.heads.iter().any(|v| v.device_id == me && v.is_uncut())
    }
}

impl Vfs {
    /// Directories that may have a repository, looked for through all that there are. Blocking on the local state.
    pub fn find_repositories(&self) -> Result<Vec<u64>> {
        let (mut from, mut out) = (0u64, Vec::new());
        loop {
            let page: Vec<(u64, Inode)> = self.replica.read(|r| r.scan_int(Tree::Inode, from, u64::MAX, PAGE))?;
            let Some((last, _)) = page.last() else { return Ok(out) };
            from = last + 1;
            for (ino, i) in &page {
                if i.kind == FileType::Dir
                    && !i.dead
                    && self.replica.read(|r| r.get::<Slot>(Tree::Entry, slot_key(*ino, GIT_DIR)))?.is_some()
                {
                    out.push(*ino);
                }
            }
        }
    }

    /// Directories whose `.git` came, went or changed without this machine since this was last asked.
    pub fn repositories_told(&self) -> Vec<u64> {
        self.git_dirs.lock().drain().collect()
    }

    /// A number that moves with whatever git does on this machine.
    pub fn git_activity(&self) -> u64 {
        self.locked.load(Ordering::Acquire)
    }

    /// What there is of a repository in a directory; none if there is none.
    pub fn repository(&self, dir: u64) -> Result<Option<RepoAt>> {
        self.replica.read(|r| {
            let Some(i) = r.get::<Inode>(Tree::Inode, dir)?.filter(|i| i.kind == FileType::Dir && !i.local_only) else { return Ok(None) };
            let Some(slot) = r.get::<Slot>(Tree::Entry, slot_key(dir, GIT_DIR))? else { return Ok(None) };
            let here = !i.dead && slot.ino() != 0;
            let (mut heads, mut moved_to) = (Vec::new(), None);
            if let Slot::Register(reg) = slot {
                heads.extend(reg.entry.live().filter(|v| v.is_bundle()).cloned());
                let to = reg.entry.tombstones().find_map(|t| t.moved_to.clone());
                moved_to = to.filter(|to| heads.is_empty() && to.file_name() == GIT_DIR).and_then(|to| to.parent());
            }
            let path = path_of_dir(r, dir)?;
            Ok((here || !heads.is_empty()).then_some(RepoAt { dir, path, shown: !i.dead, here, heads, moved_to }))
        })
    }

    /// Makes a bundle the version of a repository, in the place of those that it has in it: what counted `at` the time when
    /// it was looked at, and not what came since. It goes out by itself.
    pub fn put_bundle(&self, at: &RepoAt, mut bytes: Bytes, meta: BTreeMap<String, String>) -> Result<()> {
        let repo = &at.path;
        let random = [self.clock.random(), self.clock.random(), self.clock.random(), self.clock.random()];
        let token = uncut_token(random);
        let content = FileContent { manifest: Hash::ZERO, size: bytes.size, root: token, chunks: None, hash: None };
        let path = repo.join(GIT_DIR);
        let ino = bytes.ino;
        self.change_settled(&[], super::Touches::Anything, |ns| {
            let dir = dir_of(ns.t, repo)?.ok_or_else(|| not_found(repo.as_str()))?;
            let mut reg = ns.register(dir, GIT_DIR)?;
            let clock = merged(at.heads.iter().chain(reg.entry.tombstones()));
            let accepted = Accepted { clock, base: None, place: None };
            let attrs = Attrs { mode: 0o644, mtime: ns.ctx.now.pair(), ..Attrs::default() };
            let kind = What::Bundle { content: content.clone(), meta: meta.clone() };
            let v = ops::write(&path, &reg.entry, &accepted, kind, attrs, &self.author())?;
            ns.merge_into(&mut reg, &v)?;
            // A name that is in no directory keeps the bytes until they are published.
            let mut i = Inode::new(FileType::File, 0o600, self.options.uid, self.options.gid, ns.ctx.now);
            i.links.push((NOWHERE, format!("{token}")));
            (i.size, i.shows) = (bytes.size, v.vclock.clone());
            ns.put_inode(ino, &i)?;
            let local = self.row_of(bytes.size, token, false);
            ns.t.put(Tree::Local, ino, &local)?;
            ns.t.del(Tree::Orphan, ino)?;
            ns.put_slot(dir, GIT_DIR, &Slot::Register(Box::new(reg)))?;
            self.enqueue(ns, Sealed { versions: vec![v], files: vec![(token, ino, 1)], ..self.sealed_row() })?;
            Ok(())
        })?;
        bytes.placed = true;
        self.sealed.notify_one();
        Ok(())
    }

    /// The bytes of a bundle are in the store: nothing here needs them any more.
    pub(super) fn let_bundle_go(&self, ino: u64) -> Result<()> {
        let was = self.replica.db().write(|t| {
            let Some(mut i) = t.get::<Inode>(Tree::Inode, ino)? else { return Ok(false) };
            if i.links.first().is_none_or(|(dir, _)| *dir != NOWHERE) {
                return Ok(false);
            }
            i.links.clear();
            t.put(Tree::Inode, ino, &i)?;
            t.put(Tree::Orphan, ino, &())?;
            Ok(true)
        })?;
        if was {
            self.orphaned(ino);
        }
        Ok(())
    }

    /// Writes the bytes of a bundle to a local file. Waits for the store, for each part up to the read deadline.
    pub async fn fetch_bundle(&self, v: &Version, to: &File) -> Result<()> {
        let What::Bundle { content, .. } = &v.kind else { return Err(Error::new(Kind::Internal, format!("{} is no bundle", v.path))) };
        let deadline = || Instant::now() + self.options.read_deadline;
        let list: Vec<ChunkRef> = match &content.chunks {
            Some(c) => c.clone(),
            None => self.listed_in_manifest(content.manifest, Priority::Background, deadline()).await?,
        };
        let mut at = 0;
        for c in list {
            let bytes = self.fetcher.chunk(c, Priority::Background, deadline()).await?;
            to.write_all_at(&bytes, at).doing(|| "writing a bundle")?;
            at += bytes.len() as u64;
        }
        Ok(())
    }
}
