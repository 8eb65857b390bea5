//! The procedures of NFS version 3 (RFC 1813), one by one: arguments read, handed on, answered.
//!
//! Must: what is answered as stable is durable here; the verifier of unstable writes is another one after a restart, so
//! that clients send again what they had not committed.
//! A directory's attributes before an operation are never given: between two looks at it a change from elsewhere could
//! hide, and a client would take it for its own and keep an old listing.
//! Not here: who may call at all (`server`), open files (`files`), making names (`making`), listings (`listing`), what the
//! file system is like (`info`).

use super::access::{self, May};
use super::convert::{after, attributes, before, set_attr, status, time};
use super::files::Files;
use super::handle::{handle, named};
use super::secret::Secret;
use super::wire::{Args, Call, Caller, DATA_MAX, Garbage, READ_HEAD, Reply};
use crate::error::{Kind, Result};
use crate::vfs::{Attr, FileType, SetAttr, Vfs};
use nfs3_types::nfs3::*;
use nfs3_types::rpc::accept_stat;
use nfs3_types::xdr_codec::Void;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The file system as one caller after the other sees it.
pub(super) struct Nfs {
    pub(super) vfs: Arc<Vfs>,
    pub(super) files: Arc<Files>,
    pub(super) secret: Secret,
    /// Nothing can be changed.
    pub(super) read_only: bool,
    /// Of this start of the server.
    pub(super) verifier: writeverf3,
    /// It can be mounted now.
    pub(super) admits: AtomicBool,
}

impl Nfs {
    /// Answers a call whose arguments begin at `at` in its record. What may block does so elsewhere.
    pub(super) async fn answer(self: &Arc<Self>, call: &Call, caller: Caller, record: &Arc<Vec<u8>>, at: usize) -> Reply {
        let xid = call.xid;
        let Ok(procedure) = NFS_PROGRAM::try_from(call.procedure) else { return Reply::failed(xid, accept_stat::PROC_UNAVAIL) };
        if procedure == NFS_PROGRAM::NFSPROC3_READ {
            let reply = self.read(xid, &caller, Args(&record[at..])).await;
            return reply.unwrap_or_else(|Garbage| Reply::failed(xid, accept_stat::GARBAGE_ARGS));
        }
        let (this, record) = (self.clone(), record.clone());
        let done = tokio::task::spawn_blocking(move || this.answer_blocking(xid, procedure, &caller, Args(&record[at..])));
        match done.await {
            Ok(Ok(reply)) => reply,
            Ok(Err(Garbage)) => Reply::failed(xid, accept_stat::GARBAGE_ARGS),
            Err(_) => Reply::failed(xid, accept_stat::SYSTEM_ERR),
        }
    }

    fn answer_blocking(&self, xid: u32, procedure: NFS_PROGRAM, caller: &Caller, a: Args<'_>) -> std::result::Result<Reply, Garbage> {
        use NFS_PROGRAM::*;
        Ok(match procedure {
            NFSPROC3_NULL | NFSPROC3_READ => Reply::of(xid, &Void),
            NFSPROC3_GETATTR => Reply::of(xid, &self.getattr(a)?),
            NFSPROC3_SETATTR => Reply::of(xid, &self.setattr(caller, a)?),
            NFSPROC3_LOOKUP => Reply::of(xid, &self.lookup(caller, a)?),
            NFSPROC3_ACCESS => Reply::of(xid, &self.access(caller, a)?),
            NFSPROC3_READLINK => Reply::of(xid, &self.readlink(a)?),
            NFSPROC3_WRITE => Reply::of(xid, &self.write(caller, a)?),
            NFSPROC3_CREATE => Reply::of(xid, &self.create(caller, a)?),
            NFSPROC3_MKDIR => Reply::of(xid, &self.mkdir(caller, a)?),
            NFSPROC3_SYMLINK => Reply::of(xid, &self.symlink(caller, a)?),
            NFSPROC3_MKNOD => Reply::of(xid, &self.mknod(caller, a)?),
            NFSPROC3_REMOVE => Reply::of(xid, &self.remove(caller, a, false)?),
            NFSPROC3_RMDIR => Reply::of(xid, &self.remove(caller, a, true)?),
            NFSPROC3_RENAME => Reply::of(xid, &self.rename(caller, a)?),
            NFSPROC3_LINK => Reply::of(xid, &self.link(caller, a)?),
            NFSPROC3_READDIR => Reply::of(xid, &self.readdir(caller, a)?),
            NFSPROC3_READDIRPLUS => Reply::of(xid, &self.readdirplus(caller, a)?),
            NFSPROC3_FSSTAT => Reply::of(xid, &self.fsstat(a)?),
            NFSPROC3_FSINFO => Reply::of(xid, &self.fsinfo(a)?),
            NFSPROC3_PATHCONF => Reply::of(xid, &self.pathconf(a)?),
            NFSPROC3_COMMIT => Reply::of(xid, &self.commit(a)?),
        })
    }

    /// What a handle leads to.
    pub(super) fn object(&self, fh: &nfs_fh3) -> Result<Attr, nfsstat3> {
        let named = named(&self.secret, fh).ok_or(nfsstat3::NFS3ERR_BADHANDLE)?;
        match self.vfs.getattr(named.ino) {
            Ok(a) if a.generation == named.generation => Ok(a),
            Ok(_) => Err(nfsstat3::NFS3ERR_STALE),
            Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Stale) => Err(nfsstat3::NFS3ERR_STALE),
            Err(e) => Err(status(&e)),
        }
    }

    /// A directory in which the caller may do something.
    pub(super) fn directory(&self, caller: &Caller, fh: &nfs_fh3, may: May) -> Result<Attr, nfsstat3> {
        let dir = self.object(fh)?;
        if dir.kind != FileType::Dir {
            return Err(nfsstat3::NFS3ERR_NOTDIR);
        }
        self.allowed(caller, &dir, may)?;
        Ok(dir)
    }

    fn allowed(&self, caller: &Caller, a: &Attr, may: May) -> Result<(), nfsstat3> {
        if may == May::Write && self.read_only {
            return Err(nfsstat3::NFS3ERR_ROFS);
        }
        if access::allowed(caller, a, may) { Ok(()) } else { Err(nfsstat3::NFS3ERR_ACCES) }
    }

    pub(super) fn wcc_of(&self, fh: &nfs_fh3) -> wcc_data {
        wcc_data { before: pre_op_attr::None, after: self.post_of(fh) }
    }

    /// Attributes of what may be gone meanwhile.
    pub(super) fn post_of(&self, fh: &nfs_fh3) -> post_op_attr {
        let now = named(&self.secret, fh).and_then(|n| self.vfs.getattr(n.ino).ok());
        after(now.as_ref(), self.secret.fsid)
    }

    fn getattr(&self, mut a: Args<'_>) -> std::result::Result<GETATTR3res, Garbage> {
        let fh = a.handle()?;
        a.end()?;
        Ok(match self.object(&fh) {
            Ok(a) => Nfs3Result::Ok(GETATTR3resok { obj_attributes: attributes(&a, self.secret.fsid) }),
            Err(e) => Nfs3Result::Err((e, Void)),
        })
    }

    fn setattr(&self, caller: &Caller, mut a: Args<'_>) -> std::result::Result<SETATTR3res, Garbage> {
        let (fh, new, guard) = (a.handle()?, a.attributes()?, a.guard()?);
        a.end()?;
        let done = (|| {
            let was = self.object(&fh)?;
            if self.read_only {
                return Err(nfsstat3::NFS3ERR_ROFS);
            }
            if guard.is_some_and(|g| g != time(was.ctime)) {
                return Err(nfsstat3::NFS3ERR_NOT_SYNC);
            }
            self.change(caller, &was, &new)?;
            Ok(was)
        })();
        let of = self.wcc_of(&fh);
        Ok(match done {
            Ok(was) => Nfs3Result::Ok(SETATTR3resok { obj_wcc: wcc_data { before: pre_op_attr::Some(before(&was)), after: of.after } }),
            Err(e) => Nfs3Result::Err((e, SETATTR3resfail { obj_wcc: of })),
        })
    }

    /// Changes attributes as far as the caller may.
    pub(super) fn change(&self, caller: &Caller, was: &Attr, new: &sattr3) -> Result<(), nfsstat3> {
        let mut set = set_attr(new, caller.uid == 0);
        access::may_change(caller, was, &mut set, new)?;
        if set.size.is_some() && was.kind == FileType::File {
            // What is written next belongs to the same save.
            self.files.touch(was.ino).map_err(|e| status(&e))?;
        }
        self.vfs.setattr(was.ino, &set).map_err(|e| status(&e))?;
        self.files.outdate(was.ino);
        self.vfs.announce_inode(was.ino);
        Ok(())
    }

    fn lookup(&self, caller: &Caller, mut a: Args<'_>) -> std::result::Result<LOOKUP3res, Garbage> {
        let (dir, name) = (a.handle()?, a.name()?);
        a.end()?;
        let found = self.directory(caller, &dir, May::Search).and_then(|d| {
            let found = match name {
                b"." => return Ok(d),
                b".." => self.vfs.parent(d.ino).and_then(|up| self.vfs.getattr(up)),
                name => self.vfs.lookup(d.ino, name),
            };
            found.map_err(|e| status(&e))
        });
        let dir_attributes = self.post_of(&dir);
        Ok(match found {
            Ok(f) => Nfs3Result::Ok(LOOKUP3resok {
                object: handle(&self.secret, &f),
                obj_attributes: after(Some(&f), self.secret.fsid),
                dir_attributes,
            }),
            Err(e) => Nfs3Result::Err((e, LOOKUP3resfail { dir_attributes })),
        })
    }

    fn access(&self, caller: &Caller, mut a: Args<'_>) -> std::result::Result<ACCESS3res, Garbage> {
        let (fh, asked) = (a.handle()?, a.u32()?);
        a.end()?;
        Ok(match self.object(&fh) {
            Ok(o) => {
                let access = asked & access::granted(caller, &o, self.read_only);
                Nfs3Result::Ok(ACCESS3resok { obj_attributes: after(Some(&o), self.secret.fsid), access })
            }
            Err(e) => Nfs3Result::Err((e, ACCESS3resfail { obj_attributes: post_op_attr::None })),
        })
    }

    fn readlink(&self, mut a: Args<'_>) -> std::result::Result<READLINK3res<'static>, Garbage> {
        let fh = a.handle()?;
        a.end()?;
        let target = self.object(&fh).and_then(|o| match o.kind {
            FileType::Symlink => self.vfs.readlink(o.ino).map_err(|e| status(&e)),
            _ => Err(nfsstat3::NFS3ERR_INVAL),
        });
        let symlink_attributes = self.post_of(&fh);
        Ok(match target {
            Ok(t) => Nfs3Result::Ok(READLINK3resok { symlink_attributes, data: t.into_bytes().into() }),
            Err(e) => Nfs3Result::Err((e, READLINK3resfail { symlink_attributes })),
        })
    }

    async fn read(self: &Arc<Self>, xid: u32, caller: &Caller, mut a: Args<'_>) -> std::result::Result<Reply, Garbage> {
        let (fh, offset, count) = (a.handle()?, a.u64()?, a.u32()?);
        a.end()?;
        let failed = |e, file_attributes| Reply::of(xid, &READ3res::Err((e, READ3resfail { file_attributes })));
        let file = self.object(&fh).and_then(|o| {
            regular(&o)?;
            // A file that may only be executed is read to be executed.
            self.allowed(caller, &o, May::Read).or_else(|e| self.allowed(caller, &o, May::Search).map_err(|_| e))?;
            Ok(o)
        });
        let file = match file {
            Ok(f) => f,
            Err(e) => return Ok(failed(e, post_op_attr::None)),
        };
        let bytes = self.files.read(file.ino, offset, count).await;
        let now = self.vfs.getattr(file.ino).unwrap_or(file);
        let of = attributes(&now, self.secret.fsid);
        Ok(match bytes {
            Ok(bytes) => {
                let len = bytes.len() - READ_HEAD;
                // Fewer than asked for are the last ones, whatever was written behind them since: no bytes without the end
                // are an error to a client.
                let eof = len < count.min(DATA_MAX) as usize || offset.saturating_add(len as u64) >= now.size;
                Reply::read(xid, bytes, &of, eof)
            }
            Err(e) => failed(e, post_op_attr::Some(of)),
        })
    }

    fn write(&self, caller: &Caller, mut a: Args<'_>) -> std::result::Result<WRITE3res, Garbage> {
        let (fh, offset, count, stable) = (a.handle()?, a.u64()?, a.u32()?, a.u32()?);
        let data = a.opaque(DATA_MAX as usize)?;
        a.end()?;
        let data = data.get(..count as usize).ok_or(Garbage)?;
        let stable = match stable {
            0 => false,
            1 | 2 => true,
            _ => return Err(Garbage),
        };
        let done = (|| {
            let was = self.object(&fh)?;
            regular(&was)?;
            // Who opened it may write, whatever the mode became since: the client checked when it was opened.
            if caller.uid != was.uid || self.read_only {
                self.allowed(caller, &was, May::Write)?;
            }
            let n = self.files.write(was.ino, offset, data, stable).map_err(|e| status(&e))?;
            if caller.uid != 0 && was.mode & 0o6000 != 0 {
                let _ = self.vfs.setattr(was.ino, &SetAttr { kill_suid: true, ..SetAttr::default() });
            }
            self.vfs.announce_inode(was.ino);
            Ok((was, n))
        })();
        let of = self.wcc_of(&fh);
        Ok(match done {
            Ok((was, n)) => Nfs3Result::Ok(WRITE3resok {
                file_wcc: wcc_data { before: pre_op_attr::Some(before(&was)), after: of.after },
                count: n as u32,
                committed: if stable { stable_how::FILE_SYNC } else { stable_how::UNSTABLE },
                verf: self.verifier,
            }),
            Err(e) => Nfs3Result::Err((e, WRITE3resfail { file_wcc: of })),
        })
    }

    fn commit(&self, mut a: Args<'_>) -> std::result::Result<COMMIT3res, Garbage> {
        let (fh, _, _) = (a.handle()?, a.u64()?, a.u32()?);
        a.end()?;
        let done = self.object(&fh).and_then(|o| match o.kind {
            FileType::File => self.files.commit(o.ino).map_err(|e| status(&e)),
            _ => self.vfs.sync().map_err(|e| status(&e)),
        });
        let file_wcc = self.wcc_of(&fh);
        Ok(match done {
            Ok(()) => Nfs3Result::Ok(COMMIT3resok { file_wcc, verf: self.verifier }),
            Err(e) => Nfs3Result::Err((e, COMMIT3resfail { file_wcc })),
        })
    }

    fn remove(&self, caller: &Caller, mut a: Args<'_>, directory: bool) -> std::result::Result<REMOVE3res, Garbage> {
        let (dir, name) = (a.handle()?, a.name()?);
        a.end()?;
        let done = self.directory(caller, &dir, May::Write).and_then(|d| {
            self.sticky(caller, &d, name)?;
            let was = self.vfs.lookup(d.ino, name).ok();
            let done = if directory { self.vfs.rmdir(d.ino, name) } else { self.vfs.unlink(d.ino, name) };
            done.map_err(|e| status(&e))?;
            self.vfs.announce_name(d.ino, name, was.as_ref().map_or(0, |a| a.ino));
            self.let_go(was);
            Ok(())
        });
        let dir_wcc = self.wcc_of(&dir);
        Ok(match done {
            Ok(()) => Nfs3Result::Ok(REMOVE3resok { dir_wcc }),
            Err(e) => Nfs3Result::Err((e, REMOVE3resfail { dir_wcc })),
        })
    }

    /// A client that removes a file does not have it open: it would have given it another name. None of its handles counts
    /// any more once the file has no name.
    fn let_go(&self, was: Option<Attr>) {
        if let Some(a) = was
            && a.kind == FileType::File
        {
            if self.vfs.getattr(a.ino).is_ok_and(|a| a.nlink > 0) {
                self.vfs.announce_inode(a.ino);
                return;
            }
            self.files.forget(a.ino);
        }
    }

    /// In a sticky directory one removes one's own.
    fn sticky(&self, caller: &Caller, dir: &Attr, name: &[u8]) -> Result<(), nfsstat3> {
        if dir.mode & 0o1000 == 0 || caller.uid == 0 || caller.uid == dir.uid {
            return Ok(());
        }
        let found = self.vfs.lookup(dir.ino, name).map_err(|e| status(&e))?;
        if found.uid == caller.uid { Ok(()) } else { Err(nfsstat3::NFS3ERR_ACCES) }
    }

    fn rename(&self, caller: &Caller, mut a: Args<'_>) -> std::result::Result<RENAME3res, Garbage> {
        let (from, name, to, new) = (a.handle()?, a.name()?, a.handle()?, a.name()?);
        a.end()?;
        let done = self.directory(caller, &from, May::Write).and_then(|f| {
            let t = self.directory(caller, &to, May::Write)?;
            self.sticky(caller, &f, name)?;
            let (moved, over) = (self.vfs.lookup(f.ino, name).ok(), self.vfs.lookup(t.ino, new).ok());
            let aside = f.ino == t.ino && Vfs::is_aside(new) && !Vfs::is_aside(name);
            let done = if aside { self.vfs.set_aside(f.ino, name, new) } else { self.vfs.rename(f.ino, name, t.ino, new, false) };
            done.map_err(|e| status(&e))?;
            self.vfs.announce_name(f.ino, name, moved.map_or(0, |a| a.ino));
            self.vfs.announce_name(t.ino, new, over.as_ref().map_or(0, |a| a.ino));
            self.let_go(over);
            Ok(())
        });
        let (fromdir_wcc, todir_wcc) = (self.wcc_of(&from), self.wcc_of(&to));
        Ok(match done {
            Ok(()) => Nfs3Result::Ok(RENAME3resok { fromdir_wcc, todir_wcc }),
            Err(e) => Nfs3Result::Err((e, RENAME3resfail { fromdir_wcc, todir_wcc })),
        })
    }
}

fn regular(a: &Attr) -> Result<(), nfsstat3> {
    match a.kind {
        FileType::File => Ok(()),
        FileType::Dir => Err(nfsstat3::NFS3ERR_ISDIR),
        _ => Err(nfsstat3::NFS3ERR_INVAL),
    }
}
