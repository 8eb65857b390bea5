//! The drive as a FUSE file system (Linux).
//!
//! The kernel caches names, attributes and pages for a day and is told of what changes without it. A remote version
//! comes as a new inode, so cached pages never go stale.
//!
//! Must: no handler waits for the network: what needs it is answered from a task later.
//! Must: notifications go out on a thread of their own, holding no lock: they can block on the inode that a handler
//! is serving.
//! Must: while an inode has passthrough opens every open of it uses the same backing id, and while it has cached
//! opens none is passthrough: the kernel answers a mixture with EIO.
//! Not here: what an operation does (`vfs`).

use crate::error::{Error, Kind, Result};
use crate::vfs::{Attr, FileType as Type, Invalidate, ReadNow, SetAttr, Time, Vfs};
use dashmap::DashMap;
use fuser::{
    BackgroundSession, BackingId, Config, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, Notifier, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
    Request, SessionACL, TimeOrNow, WriteFlags,
};
use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long the kernel may believe what it was told; changes are notified.
const TTL: Duration = Duration::from_secs(24 * 3600);
/// Files below this are served over us: registering a backing file costs more than it saves.
const PASSTHROUGH_FROM: u64 = 128 << 10;
/// Threads that take requests: with two cores, more only wait for each other.
const THREADS: usize = 3;

/// How to mount.
#[derive(Clone, Debug, Default)]
pub struct MountOptions {
    /// Other users may use it too.
    pub allow_other: bool,
    /// Nothing can be changed.
    pub read_only: bool,
    /// Never let the kernel use local files itself.
    pub no_passthrough: bool,
}

/// A mounted drive; unmounts when dropped.
pub struct FuseMount {
    session: Option<BackgroundSession>,
    vfs: Arc<Vfs>,
    watcher: Arc<dyn Invalidate>,
    told: Option<std::thread::JoinHandle<()>>,
    stop: mpsc::Sender<Told>,
    passthrough: Arc<AtomicBool>,
    /// Where.
    pub mountpoint: PathBuf,
}

enum Told {
    Name(u64, String),
    Attr(u64),
    Data(u64),
    Stop,
}

struct Teller(mpsc::Sender<Told>);

impl Invalidate for Teller {
    fn name(&self, dir: u64, name: &str) {
        let _ = self.0.send(Told::Name(dir, name.to_owned()));
    }
    fn attr(&self, ino: u64) {
        let _ = self.0.send(Told::Attr(ino));
    }
    fn data(&self, ino: u64) {
        let _ = self.0.send(Told::Data(ino));
    }
}

/// Mounts `vfs` on `mountpoint`. To be called within a runtime.
///
/// Errors: `NotFound` with the package to install if a helper is needed and missing; what the kernel says otherwise.
pub fn mount(vfs: Arc<Vfs>, mountpoint: &Path, options: &MountOptions) -> Result<FuseMount> {
    let passthrough = !options.no_passthrough && rustix::process::geteuid().is_root();
    let possible = Arc::new(AtomicBool::new(passthrough));
    let fs = Fuse { vfs: vfs.clone(), rt: tokio::runtime::Handle::current(), passthrough: possible.clone(), backing: DashMap::new() };
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("tcfs".into()),
        MountOption::Subtype("tcfs".into()),
        MountOption::DefaultPermissions,
        MountOption::NoAtime,
        // What comes from other machines gets no special powers here.
        MountOption::NoSuid,
        MountOption::NoDev,
    ];
    if options.read_only {
        config.mount_options.push(MountOption::RO);
    }
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(THREADS);
    let session = fuser::spawn_mount(fs, mountpoint, &config).map_err(|e| explain(mountpoint, options, e))?;
    let notifier = session.notifier();
    let (tx, rx) = mpsc::channel();
    let watcher: Arc<dyn Invalidate> = Arc::new(Teller(tx.clone()));
    vfs.watch(watcher.clone());
    let told = std::thread::Builder::new()
        .name("fuse-notify".into())
        .spawn(move || tell(&notifier, &rx))
        .map_err(|e| Error::io("starting the notification thread", e))?;
    Ok(FuseMount {
        session: Some(session),
        vfs,
        watcher,
        told: Some(told),
        stop: tx,
        passthrough: possible,
        mountpoint: mountpoint.to_owned(),
    })
}

fn explain(mountpoint: &Path, options: &MountOptions, e: io::Error) -> Error {
    let at = mountpoint.display();
    if !Path::new("/dev/fuse").exists() {
        return Error::new(Kind::Unsupported, format!("mounting on {at}: this kernel has no /dev/fuse"))
            .hint("load the module (modprobe fuse), or in a container start it with --device /dev/fuse");
    }
    let root = rustix::process::geteuid().is_root();
    if !root && e.kind() == io::ErrorKind::NotFound {
        return Error::new(Kind::NotFound, format!("mounting on {at}: fusermount3 is missing"))
            .hint("install it: apt install fuse3 (Debian, Ubuntu), dnf install fuse3 (Fedora), pacman -S fuse3 (Arch)");
    }
    let err = Error::io(format!("mounting on {at}"), e);
    if !root && options.allow_other {
        return err.hint("--allow-other needs the line `user_allow_other` in /etc/fuse.conf");
    }
    err
}

fn tell(notifier: &Notifier, rx: &mpsc::Receiver<Told>) {
    while let Ok(what) = rx.recv() {
        // ENOENT: the kernel does not know it, which is as good.
        let _ = match what {
            Told::Name(dir, name) => notifier.inval_entry(INodeNo(dir), OsStr::new(&name)),
            Told::Attr(ino) => notifier.inval_inode(INodeNo(ino), -1, 0),
            Told::Data(ino) => notifier.inval_inode(INodeNo(ino), 0, 0),
            Told::Stop => return,
        };
    }
}

impl FuseMount {
    /// Unmounts; waits until the kernel has let go. `Busy` if programs have files open in it.
    pub fn unmount(mut self) -> Result<()> {
        self.end()
    }

    /// Whether large files are read and written by the kernel directly.
    pub fn passthrough(&self) -> bool {
        self.passthrough.load(Ordering::Relaxed)
    }

    /// Whether the kernel has ended the session (somebody unmounted it).
    pub fn is_over(&self) -> bool {
        self.session.as_ref().is_none_or(|s| s.guard.is_finished())
    }

    fn end(&mut self) -> Result<()> {
        self.vfs.unwatch(&self.watcher);
        let _ = self.stop.send(Told::Stop);
        if let Some(t) = self.told.take() {
            let _ = t.join();
        }
        match self.session.take() {
            Some(s) if s.guard.is_finished() => Ok(()),
            Some(s) => match s.umount_and_join() {
                // Unmounted already (by us, through the kernel or the helper), the session is just ending.
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(()),
                other => other.map_err(|e| Error::io(format!("unmounting {}", self.mountpoint.display()), e)),
            },
            None => Ok(()),
        }
    }
}

impl Drop for FuseMount {
    fn drop(&mut self) {
        if let Err(e) = self.end() {
            tracing::warn!(error = %e, "unmounting");
        }
    }
}

struct Fuse {
    vfs: Arc<Vfs>,
    rt: tokio::runtime::Handle,
    passthrough: Arc<AtomicBool>,
    backing: DashMap<u64, (Arc<BackingId>, u32)>,
}

fn errno(e: &Error) -> Errno {
    match e.kind() {
        Kind::Io | Kind::Internal | Kind::Corrupt | Kind::Unavailable | Kind::Timeout | Kind::Unauthorized => {
            tracing::error!(error = %e, "a file operation failed");
        }
        _ => tracing::debug!(error = %e, "a file operation was refused"),
    }
    Errno::from_i32(e.errno())
}

fn system_time(t: Time) -> SystemTime {
    if t.sec >= 0 {
        UNIX_EPOCH + Duration::new(t.sec as u64, t.nsec)
    } else {
        UNIX_EPOCH - Duration::from_secs(t.sec.unsigned_abs()) + Duration::from_nanos(u64::from(t.nsec))
    }
}

fn time_of(t: SystemTime) -> Time {
    match t.duration_since(UNIX_EPOCH) {
        Ok(d) => Time { sec: d.as_secs() as i64, nsec: d.subsec_nanos() },
        // fuser takes the nanoseconds of a time before 1970 off, which the kernel means to be added.
        Err(e) => Time { sec: -(e.duration().as_secs() as i64), nsec: e.duration().subsec_nanos() },
    }
}

fn kind_of(k: Type) -> FileType {
    match k {
        Type::File => FileType::RegularFile,
        Type::Dir => FileType::Directory,
        Type::Symlink => FileType::Symlink,
        Type::Fifo => FileType::NamedPipe,
        Type::Socket => FileType::Socket,
        Type::Char => FileType::CharDevice,
        Type::Block => FileType::BlockDevice,
    }
}

fn attr_of(a: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(a.ino),
        size: a.size,
        blocks: a.blocks,
        atime: system_time(a.atime),
        mtime: system_time(a.mtime),
        ctime: system_time(a.ctime),
        crtime: system_time(a.btime),
        kind: kind_of(a.kind),
        perm: a.mode as u16,
        nlink: a.nlink,
        uid: a.uid,
        gid: a.gid,
        rdev: a.rdev,
        blksize: 4096,
        flags: 0,
    }
}

/// An entry that says "no such name" and may be believed.
fn negative() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn reply_read(now: &ReadNow, offset: u64, reply: ReplyData) {
    BUFFER.with_borrow_mut(|buf| {
        if buf.len() < now.len {
            buf.resize(now.len, 0);
        }
        let mut done = 0;
        while done < now.len {
            match now.file.read_at(&mut buf[done..now.len], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return reply.error(errno(&Error::io("reading local bytes", e))),
            }
        }
        // A sparse end that the local file does not have yet reads as zeros.
        buf[done..now.len].fill(0);
        reply.data(&buf[..now.len]);
    });
}

/// Replies with an error or goes on.
macro_rules! ok {
    ($reply:ident, $what:expr) => {
        match $what {
            Ok(v) => v,
            Err(e) => return $reply.error(errno(&e)),
        }
    };
}

/// How long the kernel may believe what a name leads to: only the stored spelling of it is told of when it changes.
fn ttl(name: &OsStr) -> Duration {
    let stored = name.is_ascii() || name.to_str().is_some_and(crate::model::path::is_stored_spelling);
    if stored { TTL } else { Duration::ZERO }
}

impl Fuse {
    fn entry(&self, name: &OsStr, reply: ReplyEntry, attr: Result<Attr>) {
        let a = ok!(reply, attr);
        reply.entry(&ttl(name), &attr_of(&a), Generation(u64::from(a.generation)));
    }

    /// The backing id for an open, if the kernel is to use the local file itself.
    fn backing(
        &self,
        ino: u64,
        fh: u64,
        wants: bool,
        open: impl FnOnce(&std::fs::File) -> io::Result<BackingId>,
    ) -> Option<Arc<BackingId>> {
        let shard = self.backing.entry(ino);
        let (direct, _) = self.vfs.open_modes(ino);
        if direct == 0 && !(wants && self.passthrough.load(Ordering::Relaxed)) {
            return None;
        }
        match self.vfs.lend(fh) {
            Ok(Some(file)) => {
                let id = match shard {
                    dashmap::Entry::Occupied(mut o) => {
                        o.get_mut().1 += 1;
                        o.get().0.clone()
                    }
                    dashmap::Entry::Vacant(v) => match open(&file) {
                        Ok(id) => {
                            let id = Arc::new(id);
                            v.insert((id.clone(), 1));
                            id
                        }
                        Err(e) => {
                            tracing::info!(error = %e, "passthrough is not possible here; files are served by the daemon");
                            self.passthrough.store(false, Ordering::Relaxed);
                            return None;
                        }
                    },
                };
                Some(id)
            }
            Ok(None) => None,
            Err(e) => {
                tracing::warn!(ino, error = %e, "lending a local file to the kernel");
                None
            }
        }
    }

    fn unback(&self, ino: u64) {
        if let dashmap::Entry::Occupied(mut o) = self.backing.entry(ino) {
            o.get_mut().1 -= 1;
            if o.get().1 == 0 {
                o.remove();
            }
        }
    }
}

/// A read-only descriptor of the same local file: what the kernel is given must not itself count as a writer.
fn read_only(file: &std::fs::File) -> io::Result<std::fs::File> {
    use std::os::fd::AsRawFd;
    std::fs::File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
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

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.vfs.lookup(parent.0, name.as_bytes()) {
            Err(e) if e.kind() == Kind::NotFound => reply.entry(&ttl(name), &negative(), Generation(0)),
            Ok(a) if self.vfs.is_fleeting(parent.0, name.as_bytes()) => {
                reply.entry(&Duration::ZERO, &attr_of(&a), Generation(u64::from(a.generation)));
            }
            other => self.entry(name, reply, other),
        }
    }

    fn forget(&self, _req: &Request, _ino: INodeNo, _nlookup: u64) {}

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let a = ok!(reply, self.vfs.getattr(ino.0));
        reply.attr(&TTL, &attr_of(&a));
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
        reply.attr(&TTL, &attr_of(&a));
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
        let made = self.vfs.mkdir(parent.0, name.as_bytes(), mode & 0o7777, req.uid(), req.gid());
        self.entry(name, reply, made);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        ok!(reply, self.vfs.unlink(parent.0, name.as_bytes()));
        reply.ok();
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        ok!(reply, self.vfs.rmdir(parent.0, name.as_bytes()));
        reply.ok();
    }

    fn symlink(&self, req: &Request, parent: INodeNo, link_name: &OsStr, target: &Path, reply: ReplyEntry) {
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
        let write = flags.acc_mode() != OpenAccMode::O_RDONLY;
        let truncate = flags.0 & libc::O_TRUNC != 0;
        let opened = ok!(reply, self.vfs.open_file(ino.0, write, truncate));
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
                    && reply.add(INodeNo(e.ino), e.cookie, &e.name, &TTL, &attr_of(a), Generation(u64::from(a.generation)))
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

fn xattr(reply: ReplyXattr, value: &[u8], size: u32) {
    if size == 0 {
        reply.size(value.len() as u32);
    } else if value.len() > size as usize {
        reply.error(Errno::ERANGE);
    } else {
        reply.data(value);
    }
}
