//! A snapshot of what this device has, written into the store.
//!
//! Must: what is in it is in the logs: it is taken in one read transaction in which the outbox is empty and no directory
//! move waits to be written out. Must: it is put only after it was read as a reader would, with the last batch of each log
//! from the store: what a reader would pass over, or what would mislead it, is not put.
//! Memory: the compressed lines, about 150 bytes for each entry, and the numbers of directories.

use super::super::core::{Fleet, blocking};
use super::super::facts;
use crate::content::codec::LinesWriter;
use crate::error::{Error, Kind, Result};
use crate::model::snapshot::{FORMAT, Header, Line, Parked, Tally};
use crate::model::{Hash, RelPath, Version};
use crate::state::rows::{DirMove, ROOT, Sealed, Slot, slot_after, slot_end};
use crate::state::tree::register_at;
use crate::state::{Read, Scan, Tree, prefix_end};
use crate::store::{MAX_OBJECT, PutMode};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;

/// Larger ones are not written: half of what a reader takes.
const BYTES_MAX: usize = (MAX_OBJECT / 2) as usize;

impl Fleet {
    /// Writes a snapshot now. Its key; none if there is something in the outbox, or if what counts of a revoked device's
    /// log is less than was applied here.
    ///
    /// Cancel-safe. Errors: of the store, of the local state; `Corrupt` if what is here cannot be all that the logs say.
    pub async fn write_snapshot(self: &Arc<Self>) -> Result<Option<String>> {
        self.connect().await?;
        self.still_ours().await?;
        let this = self.clone();
        let Some((header, body)) = blocking(move || this.take_snapshot()).await? else { return Ok(None) };
        if let Some(why) = self.unusable(&header).await? {
            tracing::info!("no snapshot is written: {why}");
            return Ok(None);
        }
        let id = Hash::of(&body);
        let key = self.keys.snapshot(&id.to_hex());
        let lines = self.examine(&key, &header, body.clone()).await.map_err(|e| e.context("a snapshot just taken"))?;
        let size = body.len() as u64;
        self.store.put(&key, body, PutMode::IfAbsent).await?;
        self.snapshots.known.lock().seen.insert(key.clone());
        self.count_from(size)?;
        tracing::info!(key, lines, size, "wrote a snapshot: new devices start from it");
        Ok(Some(key))
    }

    /// The body of a snapshot. Blocking.
    fn take_snapshot(&self) -> Result<Option<(Header, Bytes)>> {
        let now = self.clock.now_ms();
        self.replica.db().read_beside(|r| {
            let idle = r.scan_int::<Sealed>(Tree::Outbox, 0, u64::MAX, 1)?.is_empty()
                && r.scan_int::<DirMove>(Tree::Move, 0, u64::MAX, 1)?.is_empty();
            let Some(me) = facts::identity(r)?.filter(|_| idle) else { return Ok(None) };
            let cursors = facts::applied(r, &me.id)?;
            let header = Header { snapshot: FORMAT, device_id: me.id, written_at: now, cursors };
            let mut out = Out { zstd: LinesWriter::new()?, tally: Tally::default() };
            out.line(&header.encode()?)?;
            entries(r, &mut out)?;
            parked(r, &mut out)?;
            past(r, now - self.options.gc.history.as_millis() as i64, &mut out)?;
            let end = Line::End(out.tally.end()).encode()?;
            out.line(&end)?;
            Ok(Some((header, out.zstd.finish()?)))
        })
    }
}

struct Out {
    zstd: LinesWriter,
    tally: Tally,
}

impl Out {
    fn line(&mut self, line: &[u8]) -> Result<()> {
        self.tally.add(line);
        self.zstd.write(line)?;
        if self.zstd.written() > BYTES_MAX {
            let what = format!("a snapshot would have more than {} MiB", BYTES_MAX >> 20);
            return Err(Error::new(Kind::Unsupported, what).hint("new devices read the logs from their beginning"));
        }
        Ok(())
    }
}

/// All heads of all entries, directories before what is in them.
fn entries(r: &Read<'_>, out: &mut Out) -> Result<()> {
    let mut reached = 0u64;
    let mut todo = VecDeque::from([ROOT]);
    while let Some(dir) = todo.pop_front() {
        r.scan(Tree::Entry, Scan::From(&slot_after(dir, 0), &slot_end(dir)), usize::MAX >> 1, |_, s: Slot| {
            let Slot::Register(reg) = s else { return Ok(()) };
            reached += 1;
            if reg.dir != 0 {
                todo.push_back(reg.dir);
            }
            for head in reg.entry.heads {
                out.line(&Line::Head(Box::new(head)).encode()?)?;
            }
            Ok(())
        })?;
    }
    // A row that no directory leads to is of no use to anybody, but it may not be what this snapshot leaves out.
    let mut all = 0u64;
    r.scan(Tree::Entry, Scan::From(&[], &prefix_end(&[])), usize::MAX >> 1, |_, sort: u8| {
        all += u64::from(sort == REGISTER);
        Ok(())
    })?;
    if all == reached { Ok(()) } else { unreached(r) }
}

/// First byte of a row that is a register.
const REGISTER: u8 = 0;

/// Errors: `Corrupt` if a head of any row is not at its path, nor anything that covers it.
fn unreached(r: &Read<'_>) -> Result<()> {
    r.scan(Tree::Entry, Scan::From(&[], &prefix_end(&[])), usize::MAX >> 1, |_, s: Slot| {
        let Slot::Register(reg) = s else { return Ok(()) };
        for head in &reg.entry.heads {
            let there = register_at(r, &head.path)?.unwrap_or_default().entry;
            if !there.heads.iter().any(|h| h == head || h.vclock.covers(&head.vclock)) {
                let what = format!("the local state has a version of {:?} to which no directory leads", head.path);
                return Err(Error::new(Kind::Corrupt, what).hint("`tcfs doctor` checks the state"));
            }
        }
        Ok(())
    })
}

/// Records of a later tcfs that wait here.
fn parked(r: &Read<'_>, out: &mut Out) -> Result<()> {
    r.scan(Tree::Parked, Scan::From(&[], &prefix_end(&[])), usize::MAX >> 1, |k, text: String| {
        let Some((device, seq, line)) = super::super::apply::parse_parked_key(k) else { return Ok(()) };
        out.line(&Line::Parked(Parked { device, seq, line, text }).encode()?)
    })
}

/// Versions that were covered since `since`. A row says when its version was written, not when it was covered: that was
/// when the next one of its path was written, or the heads.
fn past(r: &Read<'_>, since: i64, out: &mut Out) -> Result<()> {
    let mut before: Option<Version> = None;
    let heads_at = |path: &RelPath| -> Result<i64> {
        let entry = register_at(r, path)?.unwrap_or_default().entry;
        Ok(entry.heads.iter().map(|h| h.written_at).max().unwrap_or(i64::MIN))
    };
    let mut settle = |v: Version, next: Option<&Version>| -> Result<()> {
        let covered_at = match next.filter(|n| n.path == v.path) {
            Some(n) => n.written_at,
            None => heads_at(&v.path)?,
        };
        if covered_at.max(v.written_at) < since {
            return Ok(());
        }
        match Line::Past(Box::new(v)).encode() {
            Ok(line) => out.line(&line),
            // Something that never left this device as it is here: it is of use here only.
            Err(e) if e.kind() == Kind::Invalid => Ok(()),
            Err(e) => Err(e),
        }
    };
    r.scan(Tree::History, Scan::From(&[], &prefix_end(&[])), usize::MAX >> 1, |_, v: Version| {
        if let Some(b) = before.take() {
            settle(b, Some(&v))?;
        }
        before = Some(v);
        Ok(())
    })?;
    before.map_or(Ok(()), |b| settle(b, None))
}
