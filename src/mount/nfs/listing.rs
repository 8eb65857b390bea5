//! Listings: READDIR and READDIRPLUS, page by page.
//!
//! Must: a name that is there throughout is in it exactly once, whatever comes and goes between two pages: a cookie follows
//! from its name, so there is no verifier to outdate.

use super::access::May;
use super::convert::{after, status};
use super::handle::handle;
use super::procedures::Nfs;
use super::wire::{Args, Caller, DATA_MAX, Garbage};
use crate::error::Result;
use crate::vfs::Attr;
use nfs3_types::nfs3::*;
use nfs3_types::xdr_codec::{List, Pack};

/// Lines of a listing that are read at a time.
const PAGE: usize = 256;
/// Bytes of a listing besides its lines: attributes, verifier, marks, the head of the reply.
const LISTING: usize = 256;

impl Nfs {
    pub(super) fn readdir(&self, caller: &Caller, mut a: Args<'_>) -> std::result::Result<READDIR3res<'static>, Garbage> {
        let (fh, cookie, _verifier, count) = (a.handle()?, a.u64()?, a.verifier()?, a.u32()?);
        a.end()?;
        let mut entries = Vec::new();
        let eof = self.directory(caller, &fh, May::Read).and_then(|d| {
            let mut room = Room::new(count, u32::MAX)?;
            self.listing(&d, cookie, false, |l| {
                let e = entry3 { fileid: l.ino, name: l.name.into_bytes().into(), cookie: l.cookie };
                room.take(e.packed_size() + 4, 0).then(|| entries.push(e)).is_some()
            })
        });
        let dir_attributes = self.post_of(&fh);
        Ok(match eof {
            Ok(eof) if eof || !entries.is_empty() => {
                let reply = dirlist3 { entries: List(entries), eof };
                Nfs3Result::Ok(READDIR3resok { dir_attributes, cookieverf: cookieverf3::default(), reply })
            }
            Ok(_) => Nfs3Result::Err((nfsstat3::NFS3ERR_TOOSMALL, READDIR3resfail { dir_attributes })),
            Err(e) => Nfs3Result::Err((e, READDIR3resfail { dir_attributes })),
        })
    }

    pub(super) fn readdirplus(&self, caller: &Caller, mut a: Args<'_>) -> std::result::Result<READDIRPLUS3res<'static>, Garbage> {
        let (fh, cookie, _verifier, names, most) = (a.handle()?, a.u64()?, a.verifier()?, a.u32()?, a.u32()?);
        a.end()?;
        let mut entries = Vec::new();
        let eof = self.directory(caller, &fh, May::Read).and_then(|d| {
            let mut room = Room::new(most, names)?;
            self.listing(&d, cookie, true, |l| {
                let e = entryplus3 {
                    fileid: l.ino,
                    cookie: l.cookie,
                    name_attributes: after(l.attr.as_ref(), self.secret.fsid),
                    name_handle: l.attr.as_ref().map_or(post_op_fh3::None, |a| post_op_fh3::Some(handle(&self.secret, a))),
                    name: l.name.into_bytes().into(),
                };
                // What the client counts as the listing proper: number, name and place of each.
                let proper = e.name.packed_size() + 16;
                room.take(e.packed_size() + 4, proper).then(|| entries.push(e)).is_some()
            })
        });
        let dir_attributes = self.post_of(&fh);
        Ok(match eof {
            Ok(eof) if eof || !entries.is_empty() => {
                let reply = dirlistplus3 { entries: List(entries), eof };
                Nfs3Result::Ok(READDIRPLUS3resok { dir_attributes, cookieverf: cookieverf3::default(), reply })
            }
            Ok(_) => Nfs3Result::Err((nfsstat3::NFS3ERR_TOOSMALL, READDIRPLUS3resfail { dir_attributes })),
            Err(e) => Nfs3Result::Err((e, READDIRPLUS3resfail { dir_attributes })),
        })
    }

    /// Lines of a listing after `cookie`, until `take` says that there is no more room. Whether that was all.
    fn listing(&self, dir: &Attr, cookie: u64, attrs: bool, mut take: impl FnMut(Line) -> bool) -> Result<bool, nfsstat3> {
        if cookie < 1 && !take(Line { ino: dir.ino, name: ".".into(), cookie: 1, attr: attrs.then(|| dir.clone()) }) {
            return Ok(false);
        }
        if cookie < 2 {
            let up = self.vfs.parent(dir.ino).and_then(|up| self.vfs.getattr(up)).map_err(|e| status(&e))?;
            if !take(Line { ino: up.ino, name: "..".into(), cookie: 2, attr: attrs.then_some(up) }) {
                return Ok(false);
            }
        }
        let mut at = cookie;
        loop {
            let page = self.vfs.readdir(dir.ino, at, PAGE, attrs).map_err(|e| status(&e))?;
            let last = page.len() < PAGE;
            for e in page {
                at = e.cookie;
                if !take(Line { ino: e.ino, name: e.name, cookie: e.cookie, attr: e.attr }) {
                    return Ok(false);
                }
            }
            if last {
                return Ok(true);
            }
        }
    }
}

/// A line of a listing.
struct Line {
    ino: u64,
    name: String,
    cookie: u64,
    attr: Option<Attr>,
}

/// Room in the reply of a listing.
struct Room {
    all: usize,
    names: usize,
}

impl Room {
    fn new(all: u32, names: u32) -> Result<Room, nfsstat3> {
        let all = (all.min(DATA_MAX) as usize).checked_sub(LISTING).ok_or(nfsstat3::NFS3ERR_TOOSMALL)?;
        Ok(Room { all, names: names as usize })
    }

    /// Takes it, if there is so much.
    fn take(&mut self, all: usize, names: usize) -> bool {
        match (self.all.checked_sub(all), self.names.checked_sub(names)) {
            (Some(a), Some(n)) => {
                (self.all, self.names) = (a, n);
                true
            }
            _ => false,
        }
    }
}
