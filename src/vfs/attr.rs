//! Attributes: what `stat`, `chmod`, `touch`, `setfattr` and `df` see and change.

use super::node::{Moment, St};
use super::state_attrs::STATE;
use super::{Touches, Vfs, control, is_control};
use crate::error::{Error, IoContext, Kind, Result};
use crate::model::Version;
use crate::model::ops::{self, Accepted, AttrChange, Target};
use crate::model::view::View;
use crate::state::rows::*;
use crate::state::tree::inode_at;
use crate::state::{Ns, Tree};
use base64::Engine;
use std::collections::BTreeMap;

/// What `stat` tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Attr {
    /// Inode number.
    pub ino: u64,
    /// Told apart from an earlier directory of the same number.
    pub generation: u32,
    /// What it is.
    pub kind: FileType,
    /// Permission bits.
    pub mode: u32,
    /// Link count.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number.
    pub rdev: u32,
    /// Bytes.
    pub size: u64,
    /// Units of 512 bytes: those of a fully hydrated file, so that they do not change with hydration.
    pub blocks: u64,
    /// Access.
    pub atime: Time,
    /// Content change.
    pub mtime: Time,
    /// Any change.
    pub ctime: Time,
    /// Birth.
    pub btime: Time,
}

/// Changes of attributes; none keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Bytes.
    pub size: Option<u64>,
    /// Access.
    pub atime: Option<Time>,
    /// Content change.
    pub mtime: Option<Time>,
    /// The caller may not keep set-id bits through a change of size or owner.
    pub kill_suid: bool,
}

/// What `df` tells, in units of `block` bytes.
#[derive(Clone, Copy, Debug)]
pub struct StatFs {
    /// Block size.
    pub block: u32,
    /// All blocks.
    pub blocks: u64,
    /// Free for root.
    pub free: u64,
    /// Free for others.
    pub available: u64,
    /// Inodes.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
}

/// Longest attribute value and sum of values kept in a record.
const XATTR_MAX: usize = 64 << 10;

impl Attr {
    /// What the row of an inode says; of a file in use its node knows better ([`Vfs::attr_of`]).
    pub(super) fn of_row(ino: u64, i: &Inode) -> Attr {
        Attr {
            ino,
            generation: i.generation,
            kind: i.kind,
            mode: i.mode,
            nlink: i.nlink(),
            uid: i.uid,
            gid: i.gid,
            rdev: i.rdev,
            size: i.size,
            blocks: if i.kind == FileType::File { i.blocks.unwrap_or(i.size.div_ceil(512)) } else { 0 },
            atime: i.atime,
            mtime: i.mtime,
            ctime: i.ctime,
            btime: i.btime,
        }
    }
}

impl Vfs {
    /// Attributes of an inode from its row `i`, which was read after `since`: of a file in use its node knows better.
    pub(crate) fn attr_of(&self, ino: u64, i: &Inode, mut since: Moment) -> Attr {
        let mut node = self.loaded(ino);
        let mut again = None;
        // One that was forgotten after the row was read took what was not in the row with it.
        while i.kind == FileType::File && node.is_none() && since != self.moment() {
            since = self.moment();
            again = self.replica.read(|r| r.get(Tree::Inode, ino)).ok().flatten();
            node = self.loaded(ino);
        }
        let i = again.as_ref().unwrap_or(i);
        let mut a = Attr::of_row(ino, i);
        if i.kind == FileType::File
            && let Some(n) = node
        {
            let mut st = n.st.lock();
            if let Err(e) = self.absorb(&mut st) {
                tracing::warn!(ino, error = %e, "a file that is written directly could not be looked at");
            }
            // The row that was read before may have been written since, by a seal, and what was newer here is in it now.
            if let Ok(Some(i)) = self.replica.read(|r| r.get(Tree::Inode, ino)) {
                a = Attr::of_row(ino, &i);
            }
            a.size = st.size;
            a.blocks = self.blocks_of(&st).or(i.blocks).unwrap_or(st.size.div_ceil(512));
            if st.stale_attr {
                a.mtime = st.mtime;
                a.ctime = a.ctime.max(st.mtime);
            }
        }
        a
    }

    /// Attributes of an inode.
    pub fn getattr(&self, ino: u64) -> Result<Attr> {
        if is_control(ino) {
            return self.control_attr(ino);
        }
        let since = self.moment();
        let i = self.replica.read(|r| inode_at(r, ino))?;
        Ok(self.attr_of(ino, &i, since))
    }

    /// Changes attributes.
    pub fn setattr(&self, ino: u64, set: &SetAttr) -> Result<Attr> {
        if is_control(ino) {
            return Err(control::read_only());
        }
        if let Some(size) = set.size {
            let i = self.replica.read(|r| inode_at(r, ino))?;
            match i.kind {
                FileType::File => self.truncate(ino, size)?,
                FileType::Dir => return Err(Error::new(Kind::IsDir, "a directory cannot be truncated")),
                _ => return Err(Error::new(Kind::Invalid, "only a regular file can be truncated")),
            }
        }
        let since = self.moment();
        let node = self.loaded(ino);
        let mut st = node.as_ref().map(|n| n.st.lock());
        if let Some(st) = st.as_deref_mut() {
            self.absorb(st)?;
            if let Some(n) = &node {
                self.persist(n, st)?;
            }
        }
        let unsealed = node.as_ref().is_some_and(|n| n.unsealed.load(std::sync::atomic::Ordering::Acquire));
        let inode = self.change_settled(&[], Touches::Only(&[ino]), |ns| {
            let mut i = ns.inode(ino)?;
            let was = (i.mode, i.mtime);
            if let Some(m) = set.mode {
                i.mode = m & 0o7777;
            }
            if set.uid.is_some() || set.gid.is_some() || set.kill_suid {
                if i.kind == FileType::File && set.mode.is_none() && set.kill_suid {
                    i.mode &= !0o4000;
                    if i.mode & 0o010 != 0 {
                        i.mode &= !0o2000;
                    }
                }
                i.uid = set.uid.unwrap_or(i.uid);
                i.gid = set.gid.unwrap_or(i.gid);
            }
            i.atime = set.atime.unwrap_or(i.atime);
            i.mtime = set.mtime.unwrap_or(i.mtime);
            i.ctime = ns.ctx.now;
            let changed = (i.mode, i.mtime) != was;
            ns.put_inode(ino, &i)?;
            if changed && !i.local_only && !unsealed && ino != ROOT {
                let change = AttrChange {
                    mode: (i.mode != was.0).then_some(i.mode),
                    // That of a directory moves with its listing, which is no version; who writes one says where it is.
                    mtime: (i.mtime != was.1 || i.kind == FileType::Dir).then_some(i.mtime.pair()),
                    xattrs: None,
                };
                self.write_attrs(ns, ino, &i, &change, st.as_deref_mut())?;
            }
            ns.inode(ino)
        })?;
        if let Some(st) = st.as_deref_mut().filter(|_| unsealed) {
            // Its seal brings them: there has to be one.
            st.sealed_wgen = None;
        }
        if let (Some(st), Some(m)) = (st.as_deref_mut(), set.mtime) {
            st.mtime = m;
        }
        drop(st);
        self.sealed.notify_one();
        Ok(self.attr_of(ino, &inode, since))
    }

    /// Versions of every name of an inode that change only metadata. An open handle that had accepted what they replace
    /// accepts them.
    fn write_attrs(&self, ns: &mut Ns<'_, '_>, ino: u64, i: &Inode, change: &AttrChange, mut st: Option<&mut St>) -> Result<()> {
        let author = self.author();
        let mut out: Vec<Version> = Vec::new();
        let mut conflicts = Vec::new();
        for (dir, name) in &i.links {
            let Some(mut at) = self.at(ns.t, *dir, name)? else { continue };
            let entry = at.reg.entry.clone();
            let made = |v: &View<'_>| {
                let before = Accepted::to_write(v, at.target);
                ops::set_attrs(&at.path, &entry, v, at.target, change.clone(), &author).map(|v| (v, before))
            };
            let made = match at.target {
                Target::Path => self.with_seen(ns.t, &at.reg, |v, _| v.map(made))?,
                _ => self.with_view(ns.t, &at.reg, |v, _| made(v))?,
            };
            let Some((v, before)) = made.transpose()? else { continue };
            ns.merge_into(&mut at.reg, &v)?;
            if let Some((path, a)) = st.as_deref_mut().and_then(|s| s.accept.as_mut())
                && *path == at.path
                && a.clock.ge(&before.clock)
            {
                *a = a.after(&v);
            }
            for s in at.reg.sibs.iter_mut().filter(|s| s.ino == ino) {
                s.clock = v.vclock.clone();
            }
            if at.reg.entry.heads.len() > 1 || !at.reg.sibs.is_empty() {
                conflicts.push((at.dir, at.name.clone()));
            }
            ns.put_slot(at.dir, &at.name, &Slot::Register(Box::new(at.reg)))?;
            out.push(v);
        }
        if let Some(first) = out.first() {
            let mut i = i.clone();
            i.shows = first.vclock.clone();
            ns.put_inode(ino, &i)?;
            let files = self.files_of(ns, &out, ino)?;
            self.enqueue(ns, Sealed { versions: out, files, ..self.sealed_row() })?;
        }
        // Siblings stand in the order of their versions, and a head that was outdated may not be any more.
        for (dir, name) in conflicts {
            ns.reconcile(dir, &name)?;
        }
        Ok(())
    }

    /// Value of an extended attribute.
    pub fn getxattr(&self, ino: u64, name: &str) -> Result<Vec<u8>> {
        if let Some(what) = name.strip_prefix(STATE) {
            return self.state_attr(ino, what);
        }
        if is_control(ino) {
            return Err(Error::new(Kind::NoAttr, format!("no attribute {name}")));
        }
        let i = self.replica.read(|r| inode_at(r, ino))?;
        i.xattrs.get(name).cloned().ok_or_else(|| Error::new(Kind::NoAttr, format!("no attribute {name}")))
    }

    /// Names of the extended attributes.
    /// Those that tell state are not among them: programs that copy attributes would try to set them.
    pub fn listxattr(&self, ino: u64) -> Result<Vec<String>> {
        if is_control(ino) {
            return Ok(Vec::new());
        }
        let i = self.replica.read(|r| inode_at(r, ino))?;
        Ok(i.xattrs.into_keys().collect())
    }

    /// Sets (`Some`) or removes an extended attribute. `create`/`replace`: it must not / must exist.
    pub fn setxattr(&self, ino: u64, name: &str, value: Option<&[u8]>, create: bool, replace: bool) -> Result<()> {
        if !name.starts_with("user.") {
            return Err(Error::new(Kind::Unsupported, format!("attribute {name}: only user.* is kept")));
        }
        if let Some(what) = name.strip_prefix(STATE) {
            return self.set_state_attr(ino, what, value);
        }
        if is_control(ino) {
            return Err(control::read_only());
        }
        let node = self.loaded(ino);
        let mut st = node.as_ref().map(|n| n.st.lock());
        let unsealed = node.as_ref().is_some_and(|n| n.unsealed.load(std::sync::atomic::Ordering::Acquire));
        self.change_settled(&[], Touches::Only(&[ino]), |ns| {
            let mut i = ns.inode(ino)?;
            let had = i.xattrs.contains_key(name);
            match value {
                Some(_) if create && had => return Err(Error::new(Kind::Exists, format!("attribute {name} exists"))),
                Some(_) if replace && !had => return Err(Error::new(Kind::NoAttr, format!("no attribute {name}"))),
                None if !had => return Err(Error::new(Kind::NoAttr, format!("no attribute {name}"))),
                Some(v) => {
                    i.xattrs.insert(name.to_owned(), v.to_vec());
                    if i.xattrs.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() > XATTR_MAX {
                        return Err(Error::new(Kind::NoSpace, format!("attribute {name}: more than {XATTR_MAX} bytes of attributes")));
                    }
                }
                None => {
                    i.xattrs.remove(name);
                }
            }
            i.ctime = ns.ctx.now;
            ns.put_inode(ino, &i)?;
            if !i.local_only && !unsealed && ino != ROOT {
                let change = AttrChange { xattrs: Some(encode_xattrs(&i.xattrs)), ..AttrChange::default() };
                self.write_attrs(ns, ino, &i, &change, st.as_deref_mut())?;
            }
            Ok(())
        })?;
        if let Some(st) = st.as_deref_mut().filter(|_| unsealed) {
            st.sealed_wgen = None;
        }
        drop(st);
        self.sealed.notify_one();
        Ok(())
    }

    /// Target of a symbolic link.
    pub fn readlink(&self, ino: u64) -> Result<String> {
        if is_control(ino) {
            return self.control_link(ino);
        }
        let i = self.replica.read(|r| inode_at(r, ino))?;
        if i.kind == FileType::Symlink { Ok(i.target) } else { Err(Error::new(Kind::Invalid, "not a symbolic link")) }
    }

    /// Space: of the disk that holds the state, which is where what is written goes first.
    pub fn statfs(&self) -> Result<StatFs> {
        let s = rustix::fs::statvfs(&self.options.state_dir).map_err(std::io::Error::from).doing(|| "asking for free space")?;
        Ok(StatFs {
            block: s.f_frsize as u32,
            blocks: s.f_blocks,
            free: s.f_bfree,
            available: s.f_bavail,
            files: s.f_files,
            files_free: s.f_ffree,
        })
    }
}

pub(crate) fn encode_xattrs(x: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, String> {
    x.iter().map(|(k, v)| (k.clone(), base64::engine::general_purpose::STANDARD.encode(v))).collect()
}
