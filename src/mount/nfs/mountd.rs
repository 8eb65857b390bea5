//! The MOUNT protocol, version 3 (RFC 1813, appendix I): a client names the export and gets the handle of its root.
//!
//! Must: a path that is not the export's is refused, and the export's own is told to nobody. Must: the right path is not
//! enough once the system has mounted it, for then its table shows the path to every user.

use super::handle::handle;
use super::procedures::Nfs;
use super::wire::{Args, Garbage, Reply};
use nfs3_types::mount::{MOUNT_PROGRAM, fhandle3, mountres3, mountres3_ok, mountstat3};
use nfs3_types::rpc::{accept_stat, auth_flavor};
use nfs3_types::xdr_codec::Void;
use std::sync::atomic::Ordering;

impl Nfs {
    /// Answers a call of the MOUNT program. Blocking on the local state only.
    pub(super) fn answer_mount(&self, xid: u32, procedure: u32, args: Args<'_>) -> Reply {
        let Ok(procedure) = MOUNT_PROGRAM::try_from(procedure) else { return Reply::failed(xid, accept_stat::PROC_UNAVAIL) };
        match procedure {
            MOUNT_PROGRAM::MOUNTPROC3_MNT => match self.mount(args) {
                Ok(r) => Reply::of(xid, &r),
                Err(Garbage) => Reply::failed(xid, accept_stat::GARBAGE_ARGS),
            },
            MOUNT_PROGRAM::MOUNTPROC3_NULL | MOUNT_PROGRAM::MOUNTPROC3_UMNT | MOUNT_PROGRAM::MOUNTPROC3_UMNTALL => Reply::of(xid, &Void),
            // Lists without lines: who has mounted it, and what there is to mount.
            MOUNT_PROGRAM::MOUNTPROC3_DUMP | MOUNT_PROGRAM::MOUNTPROC3_EXPORT => Reply::of(xid, &0u32),
        }
    }

    fn mount(&self, mut a: Args<'_>) -> Result<mountres3<'static>, Garbage> {
        let path = a.name()?;
        a.end()?;
        let named = path.strip_prefix(b"/").unwrap_or(path);
        if named.strip_suffix(b"/").unwrap_or(named) != self.secret.export.as_bytes() {
            tracing::warn!("a mount of a path that is not the export's was refused");
            return Ok(mountres3::Err(mountstat3::MNT3ERR_ACCES));
        }
        if !self.admits.load(Ordering::Acquire) {
            tracing::warn!("a mount was refused: the drive is mounted already, and nobody here is mounting it now");
            return Ok(mountres3::Err(mountstat3::MNT3ERR_ACCES));
        }
        Ok(match self.vfs.getattr(crate::vfs::ROOT) {
            Ok(root) => mountres3::Ok(mountres3_ok {
                fhandle: fhandle3(handle(&self.secret, &root).data),
                auth_flavors: vec![auth_flavor::AUTH_UNIX as u32],
            }),
            Err(e) => {
                tracing::error!(error = %e, "the root cannot be mounted");
                mountres3::Err(mountstat3::MNT3ERR_SERVERFAULT)
            }
        })
    }
}
