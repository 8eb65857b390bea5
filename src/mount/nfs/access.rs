//! Who may do what, by mode and owner, as a kernel decides it.

use super::wire::Caller;
use crate::vfs::{Attr, FileType, SetAttr};
use nfs3_types::nfs3::{
    ACCESS3_DELETE, ACCESS3_EXECUTE, ACCESS3_EXTEND, ACCESS3_LOOKUP, ACCESS3_MODIFY, ACCESS3_READ, nfsstat3, sattr3, set_atime, set_mtime,
};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum May {
    /// Its bytes, or what a listing shows.
    Read,
    /// To change bytes, or names.
    Write,
    /// To find names in a directory, or to run a program.
    Search,
}

/// The three bits that count for a caller.
fn bits(caller: &Caller, a: &Attr) -> u32 {
    if caller.uid == a.uid {
        a.mode >> 6 & 7
    } else if caller.gid == a.gid || caller.groups.contains(&a.gid) {
        a.mode >> 3 & 7
    } else {
        a.mode & 7
    }
}

/// Whether the caller may. Root may all but run what nobody may run.
pub(super) fn allowed(caller: &Caller, a: &Attr, may: May) -> bool {
    if caller.uid == 0 {
        return may != May::Search || a.kind == FileType::Dir || a.mode & 0o111 != 0;
    }
    let bit = match may {
        May::Read => 4,
        May::Write => 2,
        May::Search => 1,
    };
    bits(caller, a) & bit != 0
}

/// Everything that ACCESS can grant.
pub(super) fn granted(caller: &Caller, a: &Attr, read_only: bool) -> u32 {
    let can = |may| allowed(caller, a, may);
    let mut out = 0;
    if can(May::Read) {
        out |= ACCESS3_READ;
    }
    if can(May::Search) {
        out |= if a.kind == FileType::Dir { ACCESS3_LOOKUP } else { ACCESS3_EXECUTE };
    }
    if can(May::Write) && !read_only {
        out |= ACCESS3_MODIFY | ACCESS3_EXTEND;
        if a.kind == FileType::Dir {
            out |= ACCESS3_DELETE;
        }
    }
    out
}

/// Whether the caller may change attributes so; what changes nothing is left out.
pub(super) fn may_change(caller: &Caller, was: &Attr, set: &mut SetAttr, asked: &sattr3) -> Result<(), nfsstat3> {
    set.uid = set.uid.filter(|u| *u != was.uid);
    set.gid = set.gid.filter(|g| *g != was.gid);
    if caller.uid == 0 {
        return Ok(());
    }
    let owner = caller.uid == was.uid;
    let joins = set.gid.is_none_or(|g| owner && (caller.gid == g || caller.groups.contains(&g)));
    if set.uid.is_some() || !joins || set.mode.is_some() && !owner {
        return Err(nfsstat3::NFS3ERR_PERM);
    }
    // The owner, who opened it, may size it: a client checks when a file is opened.
    if set.size.is_some() && !owner && !allowed(caller, was, May::Write) {
        return Err(nfsstat3::NFS3ERR_ACCES);
    }
    let chosen = matches!(asked.atime, set_atime::SET_TO_CLIENT_TIME(_)) || matches!(asked.mtime, set_mtime::SET_TO_CLIENT_TIME(_));
    if chosen && !owner {
        return Err(nfsstat3::NFS3ERR_PERM);
    }
    if (set.atime.is_some() || set.mtime.is_some()) && !owner && !allowed(caller, was, May::Write) {
        return Err(nfsstat3::NFS3ERR_ACCES);
    }
    Ok(())
}
