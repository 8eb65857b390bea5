//! The bytes of one head of a path, whether the mount shows it or not: to compare versions in conflict.
//!
//! Must: nothing is kept here that was not; a head that is only here is read from its own local file.
//! Not here: comparing (`daemon::core::diff`).

use super::{Vfs, not_found};
use crate::content::Priority;
use crate::error::{Error, Kind, Result};
use crate::model::{ChunkRef, RelPath, Version};
use crate::state::tree::register_at;
use bytes::Bytes;
use std::sync::Arc;
use tokio::time::Instant;

/// Bytes read at a time from a local file.
const STEP: usize = 1 << 20;

/// Reads a head from its beginning. Dropping it closes what is open.
pub struct Peek {
    vfs: Arc<Vfs>,
    from: From,
}

enum From {
    /// An open handle, and how far it is read.
    Local { fh: u64, at: u64 },
    /// Chunks, and how many of them are read.
    Chunks { list: Vec<ChunkRef>, next: usize },
}

impl Drop for Peek {
    fn drop(&mut self) {
        if let From::Local { fh, .. } = self.from
            && let Err(e) = self.vfs.release(fh)
        {
            tracing::warn!(error = %e, "closing a version that was compared");
        }
    }
}

impl Vfs {
    /// Opens a head of `path`, a regular file. Reads at most its chunk list.
    ///
    /// Errors: of the store; `NotFound` if the path has no such head any more.
    pub async fn peek(self: &Arc<Self>, path: &RelPath, head: &Version) -> Result<Peek> {
        let content = head.file().ok_or_else(|| Error::new(Kind::Invalid, format!("{path} is no regular file")))?;
        if head.is_uncut() {
            let (this, path, clock) = (self.clone(), path.clone(), head.vclock.clone());
            let open = move || {
                let reg = this.replica.read(|r| register_at(r, &path))?.ok_or_else(|| not_found(path.as_str()))?;
                this.open_file(reg.sib_of(&clock).map_or(reg.ino, |s| s.ino), false, false)
            };
            let opened = crate::fleet::blocking(open).await?;
            return Ok(Peek { vfs: self.clone(), from: From::Local { fh: opened.fh, at: 0 } });
        }
        let list = self.chunks_of(content, Priority::Foreground, self.peek_deadline()).await?.list.clone();
        Ok(Peek { vfs: self.clone(), from: From::Chunks { list, next: 0 } })
    }

    fn peek_deadline(&self) -> Instant {
        Instant::now() + self.options.read_deadline
    }
}

impl Peek {
    /// The next bytes; empty at the end.
    pub async fn next(&mut self) -> Result<Bytes> {
        match &mut self.from {
            From::Local { fh, at } => {
                let now = self.vfs.hydrate_read(*fh, *at, STEP).await?;
                let mut buf = vec![0; now.len];
                now.read_into(&mut buf, *at)?;
                *at += now.len as u64;
                Ok(buf.into())
            }
            From::Chunks { list, next } => {
                let Some(chunk) = list.get(*next).copied() else { return Ok(Bytes::new()) };
                *next += 1;
                self.vfs.chunk(chunk, Priority::Foreground, self.vfs.peek_deadline()).await
            }
        }
    }

    /// Passes over what both have in common at their beginnings as far as their chunk lists tell: so many bytes.
    pub fn skip_common(&mut self, other: &mut Peek) -> u64 {
        match (&mut self.from, &mut other.from) {
            (From::Chunks { list: a, next: i }, From::Chunks { list: b, next: j }) => {
                let same = a.iter().zip(b.iter()).take_while(|(x, y)| x == y).count();
                (*i, *j) = (same, same);
                a[..same].iter().map(|c| u64::from(c.1)).sum()
            }
            _ => 0,
        }
    }
}
