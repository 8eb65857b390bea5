//! Open files of the control directory and their bytes.
//!
//! Must: the text of a state file is whole: a handle shows what it was when it was opened. Must: a log that grows, or is
//! begun anew, is followed by whoever has it open. Must: of an old version only the chunks that are read are fetched, and
//! nothing of them is kept but the last.

use super::super::node::Chunks;
use super::super::{Vfs, not_found};
use crate::content::Priority;
use crate::error::{Error, IoContext, Kind, Result};
use crate::model::{ChunkRef, FileContent, Version};
use crate::state::tree::register_at;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// An open file of the control directory.
pub(super) enum Open {
    /// A state file as it was when it was opened.
    Text(Bytes),
    /// A file on this disk, found anew at each read.
    Path(PathBuf),
    /// A version whose bytes are in the store.
    Old(Box<Old>),
    /// A version that is only here: a handle of its local file.
    Here(u64),
}

/// A version that is being read.
pub(super) struct Old {
    content: FileContent,
    chunks: OnceCell<Arc<Chunks>>,
    /// The chunk that was read last: the next read mostly begins in it.
    last: Mutex<Option<(ChunkRef, Bytes)>>,
}

impl Open {
    pub(super) fn version(vfs: &Arc<Vfs>, v: &Version) -> Result<Open> {
        let content = v.file().ok_or_else(|| Error::new(Kind::Invalid, format!("{} was no regular file", v.path)))?;
        if !v.is_uncut() {
            return Ok(Open::Old(Box::new(Old { content: content.clone(), chunks: OnceCell::new(), last: Mutex::default() })));
        }
        let reg = vfs.replica.read(|r| register_at(r, &v.path))?.ok_or_else(|| not_found(v.path.as_str()))?;
        if !reg.entry.heads.contains(v) {
            let what = format!("this version of {} was replaced before it was published", v.path);
            return Err(Error::new(Kind::NotFound, what));
        }
        let ino = reg.sib_of(&v.vclock).map_or(reg.ino, |s| s.ino);
        Ok(Open::Here(vfs.open_sparing(ino, false, false)?.fh))
    }

    /// Size now; none where only reading tells.
    pub(super) fn size(&self) -> Option<u64> {
        match self {
            Open::Text(t) => Some(t.len() as u64),
            Open::Path(p) => p.metadata().ok().map(|m| m.len()),
            Open::Old(o) => Some(o.content.size),
            Open::Here(_) => None,
        }
    }

    /// At most `len` bytes at `off`; fewer at the end.
    pub(super) async fn read(&self, vfs: &Arc<Vfs>, off: u64, len: usize) -> Result<Bytes> {
        match self {
            Open::Text(text) => {
                let from = (off.min(text.len() as u64)) as usize;
                Ok(text.slice(from..text.len().min(from.saturating_add(len))))
            }
            Open::Path(path) => {
                let path = path.clone();
                crate::fleet::blocking(move || {
                    let file = File::open(&path).doing(|| format!("opening {}", path.display()))?;
                    let size = file.metadata().doing(|| format!("looking at {}", path.display()))?.len();
                    let mut buf = vec![0; size.saturating_sub(off).min(len as u64) as usize];
                    file.read_exact_at(&mut buf, off).doing(|| format!("reading {}", path.display()))?;
                    Ok(buf.into())
                })
                .await
            }
            Open::Old(old) => old.read(vfs, off, len).await,
            Open::Here(fh) => {
                let now = Box::pin(vfs.hydrate_read(*fh, off, len)).await?;
                let mut buf = vec![0; now.len];
                now.read_into(&mut buf, off)?;
                Ok(buf.into())
            }
        }
    }
}

impl Old {
    async fn read(&self, vfs: &Arc<Vfs>, off: u64, len: usize) -> Result<Bytes> {
        let end = off.saturating_add(len as u64).min(self.content.size);
        if off >= end {
            return Ok(Bytes::new());
        }
        let deadline = Instant::now() + vfs.options().read_deadline;
        let chunks = self.chunks.get_or_try_init(|| vfs.chunks_of(&self.content, Priority::Foreground, deadline)).await?;
        let mut out = BytesMut::with_capacity((end - off) as usize);
        for (start, c) in chunks.overlapping(off..end) {
            let known = self.last.lock().as_ref().filter(|(last, _)| *last == c).map(|(_, b)| b.clone());
            let chunk = match known {
                Some(b) => b,
                None => {
                    let b = vfs.chunk(c, Priority::Foreground, deadline).await?;
                    *self.last.lock() = Some((c, b.clone()));
                    b
                }
            };
            let (from, to) = (off.saturating_sub(start) as usize, chunk.len().min((end - start) as usize));
            out.extend_from_slice(chunk.get(from..to).unwrap_or_default());
        }
        Ok(out.freeze())
    }
}
