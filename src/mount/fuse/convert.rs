//! Between the drive's types and the kernel's.
//!
//! Must: what is not the stored spelling of a name is never kept by the kernel: nobody tells it when that changes.

use crate::error::{Error, Kind};
use crate::vfs::{Attr, FileType as Type, ReadNow, Reader, Time, is_control};
use fuser::{Errno, FileAttr, FileType, INodeNo, ReplyData, ReplyXattr};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(super) fn errno(e: &Error) -> Errno {
    match e.kind() {
        Kind::Io | Kind::Internal | Kind::Corrupt | Kind::Unavailable | Kind::Timeout | Kind::Unauthorized => {
            tracing::error!(error = %e, "a file operation failed");
        }
        _ => tracing::debug!(error = %e, "a file operation was refused"),
    }
    Errno::from_i32(e.errno())
}

pub(super) fn system_time(t: Time) -> SystemTime {
    if t.sec >= 0 {
        UNIX_EPOCH + Duration::new(t.sec as u64, t.nsec)
    } else {
        UNIX_EPOCH - Duration::from_secs(t.sec.unsigned_abs()) + Duration::from_nanos(u64::from(t.nsec))
    }
}

pub(super) fn time_of(t: SystemTime) -> Time {
    match t.duration_since(UNIX_EPOCH) {
        Ok(d) => Time { sec: d.as_secs() as i64, nsec: d.subsec_nanos() },
        // fuser takes the nanoseconds of a time before 1970 off, which the kernel means to be added.
        Err(e) => Time { sec: -(e.duration().as_secs() as i64), nsec: e.duration().subsec_nanos() },
    }
}

pub(super) fn kind_of(k: Type) -> FileType {
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

pub(super) fn attr_of(a: &Attr) -> FileAttr {
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
pub(super) fn negative() -> FileAttr {
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

/// How long the kernel may believe what a name leads to: only the stored spelling of it is told of when it changes.
pub(super) fn ttl(name: &OsStr) -> Duration {
    let stored = name.is_ascii() || name.to_str().is_some_and(crate::model::path::is_stored_spelling);
    if stored { TTL } else { Duration::ZERO }
}

/// How long the kernel may believe what it was told; changes are notified.
const TTL: Duration = Duration::from_secs(24 * 3600);

/// How long it may believe the attributes of an inode. Of the control directory nothing is notified.
pub(super) fn ttl_of(ino: u64) -> Duration {
    if is_control(ino) { Duration::ZERO } else { TTL }
}

/// How long the names of a process are believed: one that opens many files is looked at once in a while.
const NAMED: Duration = Duration::from_secs(1);
/// So many are kept in mind.
const READERS: usize = 256;

thread_local! {
    static KNOWN: RefCell<HashMap<u32, (Instant, Rc<Reader>)>> = RefCell::default();
}

/// The program that a request comes from. Its thread's number is enough to find it; one that is gone has no names.
pub(super) fn reader(pid: u32) -> Rc<Reader> {
    KNOWN.with_borrow_mut(|known| {
        if let Some((at, r)) = known.get(&pid)
            && at.elapsed() < NAMED
        {
            return r.clone();
        }
        if known.len() >= READERS {
            known.clear();
        }
        let r = Rc::new(names_of(pid));
        known.insert(pid, (Instant::now(), r.clone()));
        r
    })
}

fn names_of(pid: u32) -> Reader {
    if pid == 0 {
        return Reader::default();
    }
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let exe = exe.and_then(|p| p.file_name().map(|n| n.to_string_lossy().trim_end_matches(" (deleted)").to_owned()));
    let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok().map(|t| t.trim_end().to_owned());
    let comm = comm.filter(|c| Some(c) != exe.as_ref());
    Reader { names: exe.into_iter().chain(comm).collect() }
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
pub(super) use ok;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn reply_read(now: &ReadNow, offset: u64, reply: ReplyData) {
    BUFFER.with_borrow_mut(|buf| {
        if buf.len() < now.len {
            buf.resize(now.len, 0);
        }
        if let Err(e) = now.read_into(&mut buf[..now.len], offset) {
            return reply.error(errno(&e));
        }
        reply.data(&buf[..now.len]);
    });
}

pub(super) fn xattr(reply: ReplyXattr, value: &[u8], size: u32) {
    if size == 0 {
        reply.size(value.len() as u32);
    } else if value.len() > size as usize {
        reply.error(Errno::ERANGE);
    } else {
        reply.data(value);
    }
}
