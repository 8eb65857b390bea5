//! Between the drive's types and the protocol's (RFC 1813).

use crate::error::{Error, Kind};
use crate::vfs::{Attr, FileType, SetAttr, Time};
use nfs3_types::nfs3::{Nfs3Option, fattr3, ftype3, nfsstat3, nfstime3, post_op_attr, sattr3, set_atime, set_mtime, specdata3, wcc_attr};
use nfs3_types::xdr_codec::{Pack, Unpack};
use std::time::{SystemTime, UNIX_EPOCH};

/// The status for an error. What this server means by "try again in a moment" is said by those who mean it, never here.
pub(super) fn status(e: &Error) -> nfsstat3 {
    use nfsstat3::*;
    match e.kind() {
        Kind::Io | Kind::Internal | Kind::Corrupt | Kind::Unavailable | Kind::Timeout | Kind::Unauthorized => {
            tracing::error!(error = %e, "a file operation failed");
        }
        _ => tracing::debug!(error = %e, "a file operation was refused"),
    }
    match e.kind() {
        Kind::NotFound => NFS3ERR_NOENT,
        Kind::Exists => NFS3ERR_EXIST,
        Kind::IsDir => NFS3ERR_ISDIR,
        Kind::NotDir => NFS3ERR_NOTDIR,
        Kind::NotEmpty => NFS3ERR_NOTEMPTY,
        Kind::BadName | Kind::Invalid | Kind::Usage | Kind::NotUtf8 => NFS3ERR_INVAL,
        Kind::NameTooLong => NFS3ERR_NAMETOOLONG,
        Kind::Denied => NFS3ERR_ACCES,
        Kind::NotPermitted => NFS3ERR_PERM,
        Kind::ReadOnly => NFS3ERR_ROFS,
        Kind::NoSpace => NFS3ERR_NOSPC,
        Kind::TooBig => NFS3ERR_FBIG,
        Kind::CrossDevice => NFS3ERR_XDEV,
        Kind::Stale => NFS3ERR_STALE,
        Kind::Unsupported => NFS3ERR_NOTSUPP,
        Kind::TooManyLinks => NFS3ERR_MLINK,
        Kind::BeyondEnd => NFS3ERR_NXIO,
        Kind::NoAttr | Kind::Range => NFS3ERR_INVAL,
        Kind::Busy | Kind::Locked | Kind::Interrupted => NFS3ERR_JUKEBOX,
        Kind::Unavailable | Kind::Timeout | Kind::Corrupt | Kind::Unauthorized => NFS3ERR_IO,
        Kind::NoDaemon | Kind::NotEnrolled | Kind::Partial | Kind::Io | Kind::Internal => NFS3ERR_IO,
    }
}

/// The protocol's times have 32 bits and no sign: what lies outside is the nearest that there is.
pub(super) fn time(t: Time) -> nfstime3 {
    match u32::try_from(t.sec) {
        Ok(seconds) => nfstime3 { seconds, nseconds: t.nsec },
        Err(_) if t.sec < 0 => nfstime3 { seconds: 0, nseconds: 0 },
        Err(_) => nfstime3 { seconds: u32::MAX, nseconds: 999_999_999 },
    }
}

fn time_of(t: nfstime3) -> Time {
    Time { sec: i64::from(t.seconds), nsec: t.nseconds.min(999_999_999) }
}

fn now() -> Time {
    let d = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time { sec: d.as_secs() as i64, nsec: d.subsec_nanos() }
}

fn kind(k: FileType) -> ftype3 {
    match k {
        FileType::File => ftype3::NF3REG,
        FileType::Dir => ftype3::NF3DIR,
        FileType::Symlink => ftype3::NF3LNK,
        FileType::Fifo => ftype3::NF3FIFO,
        FileType::Socket => ftype3::NF3SOCK,
        FileType::Char => ftype3::NF3CHR,
        FileType::Block => ftype3::NF3BLK,
    }
}

/// What `stat` on a client tells.
pub(super) fn attributes(a: &Attr, fsid: u64) -> fattr3 {
    fattr3 {
        type_: kind(a.kind),
        mode: a.mode & 0o7777,
        nlink: a.nlink,
        uid: a.uid,
        gid: a.gid,
        size: if a.kind == FileType::Dir { a.size.max(512) } else { a.size },
        used: a.blocks.saturating_mul(512),
        rdev: specdata3 { specdata1: a.rdev >> 8 & 0xfff, specdata2: a.rdev & 0xff | a.rdev >> 12 & 0xfff00 },
        fsid,
        fileid: a.ino,
        atime: time(a.atime),
        mtime: time(a.mtime),
        ctime: time(a.ctime),
    }
}

/// The number of a device as Linux packs it, and as rows have it: twelve bits of major, twenty of minor.
pub(super) fn device_number(major: u32, minor: u32) -> u32 {
    minor & 0xff | (major & 0xfff) << 8 | (minor & 0xfff00) << 12
}

/// What a client compares its cache with.
pub(super) fn before(a: &Attr) -> wcc_attr {
    wcc_attr { size: a.size, mtime: time(a.mtime), ctime: time(a.ctime) }
}

/// Attributes after an operation, where they are to be had.
pub(super) fn after(a: Option<&Attr>, fsid: u64) -> post_op_attr {
    a.map_or(post_op_attr::None, |a| post_op_attr::Some(attributes(a, fsid)))
}

/// A change of attributes. `kill_suid` where who asks is not root and changes size or owner.
pub(super) fn set_attr(s: &sattr3, root: bool) -> SetAttr {
    let (uid, gid, size) = (option(s.uid), option(s.gid), option(s.size));
    SetAttr {
        mode: mode_of(s),
        uid,
        gid,
        size,
        atime: match s.atime {
            set_atime::DONT_CHANGE => None,
            set_atime::SET_TO_SERVER_TIME => Some(now()),
            set_atime::SET_TO_CLIENT_TIME(t) => Some(time_of(t)),
        },
        mtime: match s.mtime {
            set_mtime::DONT_CHANGE => None,
            set_mtime::SET_TO_SERVER_TIME => Some(now()),
            set_mtime::SET_TO_CLIENT_TIME(t) => Some(time_of(t)),
        },
        kill_suid: uid.is_some() || gid.is_some() || size.is_some() && !root,
    }
}

/// The permissions that are asked for.
pub(super) fn mode_of(s: &sattr3) -> Option<u32> {
    option(s.mode).map(|m| m & 0o7777)
}

fn option<T: Copy + Pack + Unpack>(given: Nfs3Option<T>) -> Option<T> {
    match given {
        Nfs3Option::Some(t) => Some(t),
        Nfs3Option::None => None,
    }
}
