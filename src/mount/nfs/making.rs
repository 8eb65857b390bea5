//! Procedures that make a name: files, directories, links, nodes.
//!
//! Must: an exclusive create that is sent again is the same file, also after a restart.
//! Must: other front ends hear of the name (`Vfs::announce_name`).

use super::access::May;
use super::convert::{after, device_number, mode_of, set_attr, status};
use super::handle::handle;
use super::procedures::Nfs;
use super::wire::{Args, Caller, Garbage};
use crate::error::{Kind, Result};
use crate::vfs::{Attr, FileType, SetAttr, Time};
use nfs3_types::nfs3::*;

impl Nfs {
    pub(super) fn create(&self, caller: &Caller, mut a: Args<'_>) -> std::result::Result<CREATE3res, Garbage> {
        let (dir, name) = (a.handle()?, a.name()?);
        let how = match a.u32()? {
            0 => createhow3::UNCHECKED(a.attributes()?),
            1 => createhow3::GUARDED(a.attributes()?),
            2 => createhow3::EXCLUSIVE(createverf3(a.verifier()?)),
            _ => return Err(Garbage),
        };
        a.end()?;
        let made = self.directory(caller, &dir, May::Write).and_then(|d| self.make(caller, d.ino, name, &how));
        Ok(self.made(&dir, made))
    }

    fn make(&self, caller: &Caller, dir: u64, name: &[u8], how: &createhow3) -> Result<Attr, nfsstat3> {
        let attrs = match how {
            createhow3::UNCHECKED(s) | createhow3::GUARDED(s) => s.clone(),
            createhow3::EXCLUSIVE(_) => sattr3::default(),
        };
        // If it is not told, the client sets it next.
        let mode = mode_of(&attrs).unwrap_or(0o600);
        match self.vfs.create(dir, name, mode, caller.uid, caller.gid) {
            Ok((made, opened)) => {
                self.files.made(made.ino, opened.fh).map_err(|e| status(&e))?;
                let rest = match how {
                    // Told apart from another's by what no other has in its place, also after a restart.
                    createhow3::EXCLUSIVE(v) => SetAttr { atime: Some(mark(v)), ..SetAttr::default() },
                    _ => {
                        let SetAttr { size, atime, mtime, .. } = set_attr(&attrs, true);
                        SetAttr { size: size.filter(|s| *s > 0), atime, mtime, ..SetAttr::default() }
                    }
                };
                let made = if rest == SetAttr::default() { Ok(made) } else { self.vfs.setattr(made.ino, &rest) };
                self.announced(dir, name, made)
            }
            Err(e) if e.kind() == Kind::Exists => {
                let found = self.vfs.lookup(dir, name).map_err(|e| status(&e))?;
                match how {
                    createhow3::UNCHECKED(s) if found.kind == FileType::File => {
                        if let set_size3::Some(_) = s.size {
                            let size = sattr3 { size: s.size, ..sattr3::default() };
                            self.change(caller, &found, &size)?;
                        }
                        self.vfs.getattr(found.ino).map_err(|e| status(&e))
                    }
                    // Sent again, because the answer was lost.
                    createhow3::EXCLUSIVE(v) if found.kind == FileType::File && found.atime == mark(v) => Ok(found),
                    _ => Err(nfsstat3::NFS3ERR_EXIST),
                }
            }
            Err(e) => Err(status(&e)),
        }
    }

    fn made(&self, dir: &nfs_fh3, made: Result<Attr, nfsstat3>) -> CREATE3res {
        let dir_wcc = self.wcc_of(dir);
        match made {
            Ok(a) => Nfs3Result::Ok(CREATE3resok {
                obj: post_op_fh3::Some(handle(&self.secret, &a)),
                obj_attributes: after(Some(&a), self.secret.fsid),
                dir_wcc,
            }),
            Err(e) => Nfs3Result::Err((e, CREATE3resfail { dir_wcc })),
        }
    }

    pub(super) fn mkdir(&self, caller: &Caller, mut a: Args<'_>) -> std::result::Result<CREATE3res, Garbage> {
        let (dir, name, attrs) = (a.handle()?, a.name()?, a.attributes()?);
        a.end()?;
        let mode = mode_of(&attrs).unwrap_or(0o777);
        let made = self
            .directory(caller, &dir, May::Write)
            .and_then(|d| self.announced(d.ino, name, self.vfs.mkdir(d.ino, name, mode, caller.uid, caller.gid)));
        // The two procedures answer alike.
        Ok(self.made(&dir, made))
    }

    pub(super) fn symlink(&self, caller: &Caller, mut a: Args<'_>) -> std::result::Result<CREATE3res, Garbage> {
        let (dir, name, _attrs, target) = (a.handle()?, a.name()?, a.attributes()?, a.name()?);
        a.end()?;
        let made = self
            .directory(caller, &dir, May::Write)
            .and_then(|d| self.announced(d.ino, name, self.vfs.symlink(d.ino, name, target, caller.uid, caller.gid)));
        Ok(self.made(&dir, made))
    }

    /// Fifos, sockets and device nodes: they stay on this machine, and it is the client that makes something of them.
    pub(super) fn mknod(&self, caller: &Caller, mut a: Args<'_>) -> std::result::Result<CREATE3res, Garbage> {
        let (dir, name) = (a.handle()?, a.name()?);
        let kind = a.u32()?;
        let device = kind == ftype3::NF3CHR as u32 || kind == ftype3::NF3BLK as u32;
        let mut done = Err(nfsstat3::NFS3ERR_BADTYPE);
        if let Some(bits) = node_bits(kind) {
            let attrs = a.attributes()?;
            let number = if device { device_number(a.u32()?, a.u32()?) } else { 0 };
            a.end()?;
            let mode = mode_of(&attrs).unwrap_or(0o600);
            done = self.directory(caller, &dir, May::Write).and_then(|d| {
                if device && caller.uid != 0 {
                    return Err(nfsstat3::NFS3ERR_PERM);
                }
                let made = self.vfs.mknod(d.ino, name, bits | mode, number, caller.uid, caller.gid);
                self.announced(d.ino, name, made)
            });
        }
        // The two procedures answer alike.
        Ok(self.made(&dir, done))
    }

    /// A second name: one file here, files of equal content elsewhere.
    pub(super) fn link(&self, caller: &Caller, mut a: Args<'_>) -> std::result::Result<LINK3res, Garbage> {
        let (file, dir, name) = (a.handle()?, a.handle()?, a.name()?);
        a.end()?;
        let done = self.directory(caller, &dir, May::Write).and_then(|d| {
            let of = self.object(&file)?;
            let made = self.vfs.link(of.ino, d.ino, name);
            self.announced(d.ino, name, made)
        });
        let (file_attributes, linkdir_wcc) = (self.post_of(&file), self.wcc_of(&dir));
        Ok(match done {
            Ok(_) => Nfs3Result::Ok(LINK3resok { file_attributes, linkdir_wcc }),
            Err(e) => Nfs3Result::Err((e, LINK3resfail { file_attributes, linkdir_wcc })),
        })
    }

    /// A name that was made: other front ends hear of it.
    fn announced(&self, dir: u64, name: &[u8], made: Result<Attr>) -> Result<Attr, nfsstat3> {
        let a = made.map_err(|e| status(&e))?;
        self.vfs.announce_name(dir, name, 0);
        if a.nlink > 1 {
            self.vfs.announce_inode(a.ino);
        }
        Ok(a)
    }
}

/// The mark of an exclusive create, until the client sets the times.
fn mark(v: &createverf3) -> Time {
    Time { sec: i64::from_be_bytes(v.0), nsec: 1 }
}

/// The type of a node as `mknod` wants it; none for what other procedures make.
fn node_bits(kind: u32) -> Option<u32> {
    let all = [(ftype3::NF3FIFO, 0o010_000), (ftype3::NF3SOCK, 0o140_000), (ftype3::NF3CHR, 0o020_000), (ftype3::NF3BLK, 0o060_000)];
    all.iter().find(|(k, _)| *k as u32 == kind).map(|(_, bits)| *bits)
}
