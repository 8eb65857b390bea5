//! Inodes: what one shows of a version, and whether one has a version's bytes.
//!
//! Not here: its fields (`rows`), which inode shows which head (`reconcile`), its local file (`vfs`).

use super::read::Read;
use super::rows::*;
use super::schema::Tree;
use crate::error::Result;
use crate::model::{self, FileContent, Hash, VClock, Version};
use std::collections::BTreeMap;

impl Inode {
    /// A fresh inode with all times at `now`.
    pub fn new(kind: FileType, mode: u32, uid: u32, gid: u32, now: Time) -> Inode {
        Inode {
            kind,
            mode,
            uid,
            gid,
            rdev: 0,
            size: 0,
            blocks: None,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            generation: 0,
            target: String::new(),
            xattrs: BTreeMap::new(),
            links: Vec::new(),
            subdirs: 0,
            content: None,
            shows: VClock::new(),
            local_only: false,
            dead: false,
        }
    }

    /// Group of what is made in this directory by somebody of group `gid`: a set-group-id directory gives its own.
    pub fn group_for(&self, gid: u32) -> u32 {
        if self.mode & 0o2000 != 0 { self.gid } else { gid }
    }

    /// One of its names is another from now on.
    pub fn rename_link(&mut self, (dir, name): (u64, &str), (to, to_name): (u64, &str)) {
        for l in self.links.iter_mut().filter(|l| l.0 == dir && l.1 == name) {
            *l = (to, to_name.to_owned());
        }
    }

    /// Link count as `stat` tells it.
    pub fn nlink(&self) -> u32 {
        match self.kind {
            FileType::Dir if self.dead => 0,
            FileType::Dir => 2 + self.subdirs,
            _ => self.links.len() as u32,
        }
    }

    /// Takes size, times, mode, content and attributes from a version.
    pub(crate) fn take(&mut self, v: &Version, mode: u32, mtime: (i64, u32), now: Time) {
        self.mode = mode & 0o7777;
        self.mtime = mtime.into();
        self.ctime = now;
        self.shows = v.vclock.clone();
        self.xattrs = v.xattrs.iter().map(|(k, b)| (k.clone(), unbase64(b))).collect();
        match v.kind.content() {
            model::Kind::File(c) => {
                if self.content.as_ref().is_none_or(|m| m.root != c.root) {
                    self.blocks = None;
                }
                self.size = c.size;
                // Bytes that are not cut yet lie over the content there was; their token is in `Local`.
                if !v.is_uncut() {
                    self.content = Some(c.clone());
                }
            }
            model::Kind::Symlink { target } => {
                self.size = target.len() as u64;
                self.target = target.clone();
            }
            model::Kind::Dir | model::Kind::Bundle { .. } | model::Kind::Tombstone | model::Kind::HeldBack { .. } => {}
        }
    }
}

fn unbase64(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default()
}

/// What a version is as a file.
pub(super) fn file_type(v: &Version) -> FileType {
    match v.kind.content() {
        model::Kind::Dir => FileType::Dir,
        model::Kind::Symlink { .. } => FileType::Symlink,
        model::Kind::File(_) | model::Kind::Bundle { .. } | model::Kind::Tombstone | model::Kind::HeldBack { .. } => FileType::File,
    }
}

/// Whether an inode that is not being written has the bytes (or the target) of a head.
pub fn holds(r: &Read<'_>, ino: u64, i: &Inode, h: &Version) -> Result<bool> {
    Ok(match &h.kind {
        model::Kind::File(c) if i.kind == FileType::File => match r.get::<Local>(Tree::Local, ino)?.and_then(|l| l.token) {
            Some((token, _)) => token == c.root,
            None => i.content.as_ref().is_some_and(|m| same_content(m, c)),
        },
        model::Kind::Symlink { target } => i.kind == FileType::Symlink && i.target == *target,
        _ => false,
    })
}

/// Whether two contents are the same bytes, as far as both sides tell.
fn same_content(a: &FileContent, b: &FileContent) -> bool {
    a.root == b.root || a.size == b.size && a.hash.is_some() && a.hash == b.hash
}

/// A token for content that is not cut yet: unique, and never the root of anything.
pub fn uncut_token(random: [u64; 4]) -> Hash {
    let mut b = [0u8; 32];
    for (i, r) in random.iter().enumerate() {
        b[8 * i..8 * i + 8].copy_from_slice(&r.to_le_bytes());
    }
    Hash(b)
}
