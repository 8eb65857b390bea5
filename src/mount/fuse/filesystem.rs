//! The operations of the kernel, one by one: converted, handed on, answered.
//!
//! Must: no handler waits for the network or for a disk to sync: what needs that is answered from a task later.

use super::Fuse;
use super::convert::{attr_of, errno, kind_of, negative, ok, reader, reply_read, time_of, ttl, ttl_of, xattr};
use super::passthrough::{PASSTHROUGH_FROM, read_only};
use super::retell::{Lookup, RETOLD};
use crate::error::{Kind, Result};
use crate::vfs::{Attr, SetAttr, is_control};
use fuser::{
    CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

impl Fuse {
    fn entry(&self, name: &OsStr, reply: ReplyEntry, attr: Result<Attr>) {
        let a = ok!(reply, attr);
        reply.entry(&ttl(name).min(ttl_of(a.ino)), &attr_of(&a), Generation(u64::from(a.generation)));
    }
}

impl Filesystem for Fuse {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = [
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_BIG_WRITES,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
            InitFlags::FUSE_MAX_PAGES,
        ];
        for flag in wanted {
            // Old kernels lack some; each is an optimisation.
            let _ = config.add_capabilities(flag);
        }
        if self.passthrough.load(Ordering::Relaxed) {
            let possible = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok() && config.set_max_stack_depth(2).is_ok();
            self.passthrough.store(possible, Ordering::Relaxed);
        }
        let _ = config.set_max_write(1 << 20);
        let _ = config.set_max_readahead(1 << 20);
        let _ = config.set_max_background(128);
        let _ = config.set_congestion_threshold(96);
        let _ = config.set_time_granularity(Duration::from_nanos(1));
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.retell.lookup(req, parent.0, name) {
            Lookup::Truth => {}
            Lookup::Nothing => return reply.error(Errno::ENOENT),
            Lookup::Past(was) => return reply.entry(&Duration::ZERO, &was.attr, was.generation),
        }
        match self.vfs.lookup(parent.0, name.as_bytes()) {
            Err(e) if e.kind() == Kind::NotFound => {
                reply.entry(&ttl(name).min(ttl_of(parent.0)), &negative(), Generation(0));
            }
            Ok(a) if self.vfs.is_fleeting(parent.0, name.as_bytes()) => {
                reply.entry(&Duration::ZERO, &attr_of(&a), Generation(u64::from(a.generation)));
            }
            other => self.entry(name, reply, other),
        }
    }

    fn forget(&self, _req: &Request, _ino: INodeNo, _nlookup: u64) {}

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let a = ok!(reply, self.vfs.getattr(ino.0));
        reply.attr(&ttl_of(ino.0), &attr_of(&a));
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if self.retell.is_by(req) {
            let a = ok!(reply, self.vfs.getattr(ino.0));
            return reply.attr(&ttl_of(ino.0), &attr_of(&a));
        }
        let time = |t: TimeOrNow| match t {
            TimeOrNow::SpecificTime(t) => time_of(t),
            TimeOrNow::Now => time_of(SystemTime::now()),
        };
        let set = SetAttr {
            mode,
            uid,
            gid,
            size,
            atime: atime.map(time),
            mtime: mtime.map(time),
            kill_suid: uid.is_some() || gid.is_some() || size.is_some() && req.uid() != 0,
        };
        let a = ok!(reply, self.vfs.setattr(ino.0, &set));
        reply.attr(&ttl_of(ino.0), &attr_of(&a));
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let target = ok!(reply, self.vfs.readlink(ino.0));
        reply.data(target.as_bytes());
    }

    fn mknod(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, rdev: u32, reply: ReplyEntry) {
        let made = self.vfs.mknod(parent.0, name.as_bytes(), mode, rdev, req.uid(), req.gid());
        self.entry(name, reply, made);
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        if self.retell.makes(req, parent.0, name) {
            return self.entry(name, reply, self.vfs.lookup(parent.0, name.as_bytes()));
        }
        let made = self.vfs.mkdir(parent.0, name.as_bytes(), mode & 0o7777, req.uid(), req.gid());
        self.entry(name, reply, made);
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if self.retell.is_by(req) {
            // What the name leads to by now is not touched: the kernel only forgets it, and looks again.
            return reply.ok();
        }
        ok!(reply, self.vfs.unlink(parent.0, name.as_bytes()));
        reply.ok();
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if self.retell.is_by(req) {
            // A directory that was made again must not be dead to the kernel.
            return match self.vfs.lookup(parent.0, name.as_bytes()) {
                Err(e) if e.kind() == Kind::NotFound => reply.ok(),
                _ => reply.error(Errno::ESTALE),
            };
        }
        ok!(reply, self.vfs.rmdir(parent.0, name.as_bytes()));
        reply.ok();
    }

    fn symlink(&self, req: &Request, parent: INodeNo, link_name: &OsStr, target: &Path, reply: ReplyEntry) {
        if self.retell.makes(req, parent.0, link_name) {
            return self.entry(link_name, reply, self.vfs.lookup(parent.0, link_name.as_bytes()));
        }
        let made = self.vfs.symlink(parent.0, link_name.as_bytes(), target.as_os_str().as_bytes(), req.uid(), req.gid());
        self.entry(link_name, reply, made);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (a, b) = (name.as_bytes(), newname.as_bytes());
        if flags.contains(RenameFlags::RENAME_WHITEOUT) {
            return reply.error(Errno::EINVAL);
        }
        let done = if flags.contains(RenameFlags::RENAME_EXCHANGE) {
            self.vfs.exchange(parent.0, a, newparent.0, b)
        } else {
            self.vfs.rename(parent.0, a, newparent.0, b, flags.contains(RenameFlags::RENAME_NOREPLACE))
        };
        ok!(reply, done);
        reply.ok();
    }

    fn link(&self, _req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        self.entry(newname, reply, self.vfs.link(ino.0, newparent.0, newname.as_bytes()));
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if self.retell.is_by(req) {
            return reply.opened(FileHandle(RETOLD), FopenFlags::FOPEN_KEEP_CACHE);
        }
        let write = flags.acc_mode() != OpenAccMode::O_RDONLY;
        let truncate = flags.0 & libc::O_TRUNC != 0;
        let opened = ok!(reply, self.vfs.open_for(ino.0, write, truncate, &reader(req.pid())));
        if is_control(ino.0) {
            // Without the kernel's cache, where what it says may change from one read to the next.
            let how = if self.vfs.is_old(ino.0) { FopenFlags::empty() } else { FopenFlags::FOPEN_DIRECT_IO };
            return reply.opened(FileHandle(opened.fh), how | FopenFlags::FOPEN_NOFLUSH);
        }
        if truncate && req.uid() != 0 {
            let _ = self.vfs.setattr(ino.0, &SetAttr { kill_suid: true, ..SetAttr::default() });
        }
        let wants = opened.whole && (opened.size >= PASSTHROUGH_FROM || truncate);
        let id = self.backing(ino.0, opened.fh, wants, |f| reply.open_backing(read_only(f)?));
        if let Err(e) = self.vfs.count_open(opened.fh, id.is_some()) {
            return reply.error(errno(&e));
        }
        match id {
            Some(id) => reply.opened_passthrough(FileHandle(opened.fh), FopenFlags::empty(), &id),
            None => {
                let mut f = FopenFlags::FOPEN_KEEP_CACHE;
                if !write {
                    f |= FopenFlags::FOPEN_NOFLUSH;
                }
                reply.opened(FileHandle(opened.fh), f);
            }
        }
    }

    fn create(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, flags: i32, reply: ReplyCreate) {
        if self.retell.is_by(req) {
            let a = ok!(reply, self.vfs.lookup(parent.0, name.as_bytes()));
            let g = Generation(u64::from(a.generation));
            return reply.created(&ttl(name), &attr_of(&a), g, FileHandle(RETOLD), FopenFlags::FOPEN_KEEP_CACHE);
        }
        let made = self.vfs.create(parent.0, name.as_bytes(), mode, req.uid(), req.gid());
        let (attr, opened) = match made {
            // Made by another client meanwhile: without O_EXCL that is the file to open.
            Err(e) if e.kind() == Kind::Exists && flags & libc::O_EXCL == 0 => {
                let found = self.vfs.lookup(parent.0, name.as_bytes()).and_then(|a| {
                    let write = flags & libc::O_ACCMODE != libc::O_RDONLY;
                    Ok((a.clone(), self.vfs.open_file(a.ino, write, flags & libc::O_TRUNC != 0)?))
                });
                ok!(reply, found)
            }
            other => ok!(reply, other),
        };
        let id = self.backing(attr.ino, opened.fh, opened.size == 0, |f| reply.open_backing(read_only(f)?));
        if let Err(e) = self.vfs.count_open(opened.fh, id.is_some()) {
            return reply.error(errno(&e));
        }
        let (a, g, fh) = (attr_of(&attr), Generation(u64::from(attr.generation)), FileHandle(opened.fh));
        match id {
            Some(id) => reply.created_passthrough(&ttl(name), &a, g, fh, FopenFlags::empty(), &id),
            None => reply.created(&ttl(name), &a, g, fh, FopenFlags::FOPEN_KEEP_CACHE),
        }
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match ok!(reply, self.vfs.read_now(fh.0, offset, size as usize)) {
            Some(now) => reply_read(&now, offset, reply),
            None => {
                let vfs = self.vfs.clone();
                self.rt.spawn(async move {
                    match vfs.hydrate_read(fh.0, offset, size as usize).await {
                        Ok(now) => reply_read(&now, offset, reply),
                        Err(e) => reply.error(errno(&e)),
                    }
                });
            }
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mapped = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let written = if mapped { self.vfs.write_back(fh.0, offset, data) } else { self.vfs.write(fh.0, offset, data, false) };
        let n = ok!(reply, written);
        if write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID) {
            let _ = self.vfs.setattr(ino.0, &SetAttr { kill_suid: true, ..SetAttr::default() });
        }
        reply.written(n as u32);
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        if fh.0 == RETOLD {
            return reply.ok();
        }
        ok!(reply, self.vfs.flush(fh.0));
        reply.ok();
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        if fh.0 == RETOLD {
            return reply.ok();
        }
        let passthrough = self.vfs.handle(fh.0).is_ok_and(|h| h.passthrough);
        if passthrough {
            self.unback(ino.0);
        }
        ok!(reply, self.vfs.release(fh.0));
        reply.ok();
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let vfs = self.vfs.clone();
        self.rt.spawn_blocking(move || match vfs.fsync(fh.0) {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(errno(&e)),
        });
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // From then on the kernel opens directories without asking, and keeps their listings.
        reply.error(Errno::ENOSYS);
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        if offset < 2 {
            let up = INodeNo(ok!(reply, self.vfs.parent(ino.0)));
            if offset < 1 && reply.add(ino, 1, FileType::Directory, ".") || reply.add(up, 2, FileType::Directory, "..") {
                return reply.ok();
            }
        }
        let mut cookie = offset;
        loop {
            let page = ok!(reply, self.vfs.readdir(ino.0, cookie, 256, false));
            for e in &page {
                if reply.add(INodeNo(e.ino), e.cookie, kind_of(e.kind), &e.name) {
                    return reply.ok();
                }
                cookie = e.cookie;
            }
            if page.len() < 256 {
                return reply.ok();
            }
        }
    }

    fn readdirplus(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        if offset < 2 {
            // The kernel takes nothing but the number from these two.
            let dots = |reply: &mut ReplyDirectoryPlus, at: u64, off: u64, name: &str| {
                let a = FileAttr { ino: INodeNo(at), kind: FileType::Directory, ..negative() };
                reply.add(INodeNo(at), off, name, &Duration::ZERO, &a, Generation(0))
            };
            let up = ok!(reply, self.vfs.parent(ino.0));
            if offset < 1 && dots(&mut reply, ino.0, 1, ".") || dots(&mut reply, up, 2, "..") {
                return reply.ok();
            }
        }
        let mut cookie = offset;
        loop {
            let page = ok!(reply, self.vfs.readdir(ino.0, cookie, 128, true));
            for e in &page {
                if let Some(a) = &e.attr
                    && reply.add(INodeNo(e.ino), e.cookie, &e.name, &ttl_of(e.ino), &attr_of(a), Generation(u64::from(a.generation)))
                {
                    return reply.ok();
                }
                cookie = e.cookie;
            }
            if page.len() < 128 {
                return reply.ok();
            }
        }
    }

    fn fsyncdir(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let vfs = self.vfs.clone();
        self.rt.spawn_blocking(move || match vfs.sync() {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(errno(&e)),
        });
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let s = ok!(reply, self.vfs.statfs());
        reply.statfs(s.blocks, s.free, s.available, s.files, s.files_free, s.block, 255, s.block);
    }

    fn setxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, value: &[u8], flags: i32, _position: u32, reply: ReplyEmpty) {
        let Some(name) = name.to_str() else { return reply.error(Errno::from_i32(libc::EILSEQ)) };
        let (create, replace) = (flags & libc::XATTR_CREATE != 0, flags & libc::XATTR_REPLACE != 0);
        ok!(reply, self.vfs.setxattr(ino.0, name, Some(value), create, replace));
        reply.ok();
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let Some(name) = name.to_str() else { return reply.error(Errno::from_i32(libc::ENODATA)) };
        let value = ok!(reply, self.vfs.getxattr(ino.0, name));
        xattr(reply, &value, size);
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names = ok!(reply, self.vfs.listxattr(ino.0));
        let mut list = Vec::new();
        for n in names {
            list.extend_from_slice(n.as_bytes());
            list.push(0);
        }
        xattr(reply, &list, size);
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let Some(name) = name.to_str() else { return reply.error(Errno::from_i32(libc::ENODATA)) };
        ok!(reply, self.vfs.setxattr(ino.0, name, None, false, false));
        reply.ok();
    }

    fn fallocate(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, length: u64, mode: i32, reply: ReplyEmpty) {
        if fh.0 == RETOLD {
            return reply.ok();
        }
        ok!(reply, self.vfs.fallocate(fh.0, offset, length, mode));
        reply.ok();
    }

    fn lseek(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let at = ok!(reply, self.vfs.seek(fh.0, offset, whence));
        reply.offset(at);
    }

    fn copy_file_range(
        &self,
        _req: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let vfs = self.vfs.clone();
        // The reply counts in 32 bits; callers go on where it ends.
        let len = len.min(1 << 30);
        self.rt.spawn(async move {
            match vfs.copy_range(fh_in.0, offset_in, fh_out.0, offset_out, len).await {
                Ok(n) => reply.written(n as u32),
                Err(e) => reply.error(errno(&e)),
            }
        });
    }
}
