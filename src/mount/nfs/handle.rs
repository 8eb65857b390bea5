//! File handles: what a client names a file by, across restarts of the daemon and renames of the file.
//!
//! A handle is the secret of this drive's export, the inode number and its generation. Must: without the secret there is
//! none, so that who cannot read the state directory cannot make one up. Must: nothing in it changes with a restart.

use super::secret::Secret;
use crate::vfs::Attr;
use nfs3_types::nfs3::nfs_fh3;
use nfs3_types::xdr_codec::Opaque;

/// Bytes of a handle.
const LEN: usize = 28;

/// An inode as a handle names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) ino: u64,
    pub(super) generation: u32,
}

/// The handle of an inode.
pub(super) fn handle(secret: &Secret, a: &Attr) -> nfs_fh3 {
    let mut h = Vec::with_capacity(LEN);
    h.extend_from_slice(&secret.handles);
    h.extend_from_slice(&a.ino.to_be_bytes());
    h.extend_from_slice(&a.generation.to_be_bytes());
    nfs_fh3 { data: Opaque::owned(h) }
}

/// What a handle names; none if this export did not make it.
pub(super) fn named(secret: &Secret, handle: &nfs_fh3) -> Option<Named> {
    let h: &[u8; LEN] = handle.data.as_ref().try_into().ok()?;
    let (mark, rest) = h.split_at(16);
    // Who guesses learns nothing from the time that it takes.
    let differs = mark.iter().zip(&secret.handles).fold(0, |d, (a, b)| d | (a ^ b));
    let (ino, generation) = rest.split_at(8);
    match differs {
        0 => Some(Named { ino: u64::from_be_bytes(ino.try_into().ok()?), generation: u32::from_be_bytes(generation.try_into().ok()?) }),
        _ => None,
    }
}
