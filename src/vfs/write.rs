//! Writing, sizing and copying.
//!
//! Must: a write is in the local file when it returns.
//! Must: before the first byte changes, the row says that it may have (`node::before_change`).
//! Not here: `fsync` (`fsync`), versions (`seal`).

use super::node::{Node, St};
use super::open::Handle;
use super::{Vfs, control};
use crate::content::Priority;
use crate::error::{Error, IoContext, Kind, Result};
use crate::fleet::blocking;
use crate::state::rows::Promise;
use crate::sys;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Writes as much as can be written: how many bytes, and what stopped it.
fn write_some(file: &File, data: &[u8], off: u64) -> (usize, Option<std::io::Error>) {
    let mut done = 0;
    while done < data.len() {
        match file.write_at(&data[done..], off + done as u64) {
            Ok(0) => return (done, Some(std::io::ErrorKind::WriteZero.into())),
            Ok(n) => done += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return (done, Some(e)),
        }
    }
    (done, None)
}

/// Bytes that one `copy_file_range` copies: the file that gets them is locked meanwhile, and programs ask again.
pub const COPY_MAX: u64 = 64 << 20;

/// Largest file: what a signed offset holds.
pub(super) const SIZE_MAX: u64 = i64::MAX as u64;

impl Vfs {
    /// Writes `data` at `off`, or at the end if `append`. Returns the bytes written.
    pub fn write(&self, fh: u64, off: u64, data: &[u8], append: bool) -> Result<usize> {
        let h = self.handle(fh)?;
        h.goes_on();
        self.write_node(&h.node, off, data, append)
    }

    /// The same for pages of a mapping that the kernel writes back: that can be long after the `close` of the handle.
    pub fn write_back(&self, fh: u64, off: u64, data: &[u8]) -> Result<usize> {
        self.write_node(&self.handle(fh)?.node, off, data, false)
    }

    pub(crate) fn write_node(&self, node: &Node, off: u64, data: &[u8], append: bool) -> Result<usize> {
        self.room()?;
        let mut st = node.st.lock();
        let off = if append { st.size } else { off };
        let end = off.checked_add(data.len() as u64).filter(|e| *e <= SIZE_MAX);
        let end = end.ok_or_else(|| Error::new(Kind::TooBig, format!("writing inode {} beyond the largest offset", node.ino)))?;
        self.before_change(node, &mut st, off..end)?;
        let file = self.local_file(node, &mut st)?;
        let was = st.size;
        let (written, failed) = write_some(&file, data, off);
        if written > 0 || failed.is_none() {
            // A gap before it reads as zeros, which the published version may not have there.
            self.after_change(node, &mut st, off.min(was)..off + written as u64)?;
        }
        match failed {
            // What was written counts, as on any disk; the next write meets the error.
            Some(e) if written == 0 => Err(e).doing(|| format!("writing the local bytes of inode {}", node.ino)),
            _ => Ok(written),
        }
    }

    /// Sets the size of a file.
    pub fn truncate(&self, ino: u64, size: u64) -> Result<()> {
        let node = self.hold(ino)?;
        // A writer for as long as it takes, so that a version that arrives meanwhile leaves it the name.
        node.writers.fetch_add(1, Ordering::AcqRel);
        let done = {
            let mut st = node.st.lock();
            self.truncate_locked(&node, &mut st, size)
        };
        let last = node.writers.fetch_sub(1, Ordering::AcqRel) == 1;
        let sealed = match last {
            true if node.unsealed.load(Ordering::Acquire) => self.seal_if_needed(&node),
            true => self.after_last_writer(&node),
            false => Ok(()),
        };
        self.unhold(&node);
        done.and(sealed)
    }

    pub(crate) fn truncate_locked(&self, node: &Node, st: &mut St, size: u64) -> Result<()> {
        if size > SIZE_MAX {
            return Err(Error::new(Kind::TooBig, format!("truncating inode {} beyond the largest offset", node.ino)));
        }
        self.absorb(st)?;
        let was = st.size;
        if size > was {
            self.room()?;
        }
        self.before_change(node, st, size.min(was)..size.min(was))?;
        let file = self.local_file(node, st)?;
        file.set_len(size).doing(|| format!("sizing the local bytes of inode {}", node.ino))?;
        st.have.truncate(size);
        st.dirty.truncate(size);
        st.marked.truncate(size);
        st.size = size.min(was);
        self.after_change(node, st, size.min(was)..size)?;
        st.size = size;
        if size == 0 {
            st.promise = Promise::None;
        }
        // A length is not found again from the local file alone once the rest was published.
        self.persist(node, st)
    }

    /// `fallocate`. `mode` as in Linux; what the local disk cannot do is refused.
    pub fn fallocate(&self, fh: u64, off: u64, len: u64, mode: i32) -> Result<()> {
        let h = self.handle(fh)?;
        h.goes_on();
        let end = off.checked_add(len).filter(|e| *e <= SIZE_MAX && len > 0);
        let end = end.ok_or_else(|| Error::new(Kind::TooBig, "allocating beyond the largest offset"))?;
        let keep = mode & sys::KEEP_SIZE != 0;
        let zeroing = mode & (sys::PUNCH_HOLE | sys::ZERO_RANGE) != 0;
        let known = sys::KEEP_SIZE | sys::PUNCH_HOLE | sys::ZERO_RANGE;
        if mode & !known != 0 {
            return Err(Error::new(Kind::Unsupported, "this way of allocating is not supported"));
        }
        let mut st = h.node.st.lock();
        let was = st.size;
        let top = if keep { end.min(was) } else { end };
        if !zeroing {
            self.room()?;
        }
        if zeroing {
            self.before_change(&h.node, &mut st, off.min(top)..top)?;
            let file = self.local_file(&h.node, &mut st)?;
            sys::fallocate(&file, mode, off, len).doing(|| "allocating local space")?;
            let from = if off > was { was } else { off };
            if from < top {
                self.after_change(&h.node, &mut st, from..top)?;
            }
        } else {
            // Space is promised where the bytes will lie. A stub stays one: blocks under ranges that are not here
            // read as zeros in the local file only.
            self.before_change(&h.node, &mut st, was.min(top)..top)?;
            let file = self.local_file(&h.node, &mut st)?;
            sys::fallocate(&file, mode, off, len).doing(|| "allocating local space")?;
            if top > was {
                self.after_change(&h.node, &mut st, was..top)?;
            }
        }
        self.persist(&h.node, &mut st)
    }

    /// `copy_file_range` within the drive. Bytes are copied between the local files (by reflink where the disk can), at
    /// most `COPY_MAX` in one call: the bytes copied.
    pub async fn copy_range(self: &Arc<Self>, from: u64, off_in: u64, to: u64, off_out: u64, len: u64) -> Result<u64> {
        if control::is_handle(from) {
            // The caller reads and writes then.
            return Err(Error::new(Kind::CrossDevice, "copying out of the control directory"));
        }
        let (src, dst) = (self.handle(from)?, self.handle(to)?);
        let len = {
            let mut st = src.node.st.lock();
            self.absorb(&mut st)?;
            len.min(st.size.saturating_sub(off_in)).min(COPY_MAX)
        };
        if len == 0 {
            return Ok(0);
        }
        self.hydrate_range(&src.node, off_in..off_in + len, Priority::Foreground).await?;
        let this = self.clone();
        blocking(move || this.copy_here(&src, off_in, &dst, off_out, len)).await
    }

    /// The same of bytes that are here.
    fn copy_here(&self, src: &Handle, off_in: u64, dst: &Handle, off_out: u64, len: u64) -> Result<u64> {
        let source = {
            let mut st = src.node.st.lock();
            self.local_file(&src.node, &mut st)?
        };
        if Arc::ptr_eq(&src.node, &dst.node) {
            // Through memory: the kernel refuses overlapping ranges of one file.
            if off_in < off_out + len && off_out < off_in + len {
                return Err(Error::new(Kind::Invalid, "copying a range onto itself"));
            }
        }
        self.room()?;
        dst.goes_on();
        let mut st = dst.node.st.lock();
        let end = off_out.checked_add(len).filter(|e| *e <= SIZE_MAX);
        let end = end.ok_or_else(|| Error::new(Kind::TooBig, "copying beyond the largest offset"))?;
        self.before_change(&dst.node, &mut st, off_out..end)?;
        let file = self.local_file(&dst.node, &mut st)?;
        let was = st.size;
        let mut b = off_out;
        while b < end {
            match sys::copy_range(&source, off_in + (b - off_out), &file, b, (end - b) as usize) {
                Ok(0) => break,
                Ok(n) => b += n as u64,
                // What was copied counts; the next call meets the error.
                Err(_) if b > off_out => break,
                Err(e) => return Err(Error::io("copying local bytes", e)),
            }
        }
        if b > off_out {
            self.after_change(&dst.node, &mut st, off_out.min(was)..b)?;
        }
        Ok(b - off_out)
    }
}
