//! `ls`: what is in the drive and where its bytes are, from local state alone.

use super::paths::{Pins, kind_of, pins, walk};
use super::{Core, blocking};
use crate::daemon::protocol::{Entry, EntryKind, Item, Listed, Ls, Residence, Response};
use crate::daemon::service::Progress;
use crate::error::{Kind, Result};
use crate::state::rows::FileType;
use crate::vfs::{Found, Held, Vfs};

impl Core {
    pub(super) async fn ls(&self, request: Ls, progress: &Progress) -> Result<Response> {
        let top = self.found(&request.path).await?;
        let (vfs, progress) = (self.vfs.clone(), progress.clone());
        let offline = !self.fleet.is_online() && self.fleet.follow_status().last_error.is_some();
        let mut sum = Listed { path: top.path.as_str().to_owned(), offline, ..Listed::default() };
        blocking(move || {
            let pins = pins(&vfs)?;
            let first = top.attr.ino;
            let is_dir = top.attr.kind == FileType::Dir;
            walk(&vfs, top, &mut |f| {
                let is_top = f.attr.ino == first;
                if is_top && is_dir {
                    return Ok(true);
                }
                if !is_top && !request.all && f.name.starts_with('.') {
                    return Ok(false);
                }
                let e = match entry(&vfs, &pins, f) {
                    Ok(e) => e,
                    // It went away while it was looked at.
                    Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Stale) => return Ok(false),
                    Err(e) => return Err(e),
                };
                sum.entries += 1;
                sum.bytes += if e.kind == EntryKind::File { e.size } else { 0 };
                progress.blocking_item(Item::Entry(e))?;
                Ok(request.recursive)
            })?;
            Ok(Response::Listed(sum))
        })
        .await
    }
}

/// Where bytes are, for lists.
pub(super) fn residence(held: Held) -> Residence {
    match held {
        Held::Stub => Residence::Stub,
        Held::Partial => Residence::Partial,
        Held::Hydrated => Residence::Hydrated,
        Held::Pending => Residence::Pending,
        Held::LocalOnly => Residence::LocalOnly,
    }
}

/// A line of a list.
pub(super) fn entry(vfs: &Vfs, pins: &Pins, f: &Found) -> Result<Entry> {
    let look = vfs.look(f)?;
    let link = f.attr.kind == FileType::Symlink;
    Ok(Entry {
        path: f.path.as_str().to_owned(),
        kind: kind_of(f.attr.kind),
        size: if link || f.attr.kind == FileType::File { f.attr.size } else { 0 },
        mode: f.attr.kind.bits() | f.attr.mode,
        mtime: f.attr.mtime.sec,
        mtime_ns: f.attr.mtime.nsec,
        residence: residence(look.held),
        pinned: pins.cover(&f.path),
        conflict: look.conflict,
        device: look.device,
        target: if link { Some(vfs.readlink(f.attr.ino)?) } else { None },
    })
}
