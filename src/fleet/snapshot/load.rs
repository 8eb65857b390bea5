//! A new device starts from a snapshot.
//!
//! Must: the cursors are set when everything else is in the database, in one transaction of their own: who was interrupted
//! before is still new, and begins again or reads the logs; what was merged already is merged once more, which changes
//! nothing. Must: heads are merged as records of a batch are.
//! Memory: a page of lines.

use super::super::apply::{parked_key, parse_unapplied};
use super::super::core::{Fleet, blocking};
use super::choose::{Chosen, Lines};
use crate::error::Result;
use crate::model::activity::What;
use crate::model::snapshot::{Header, Line, Parked};
use crate::model::{Hash, Version};
use crate::state::Tree;
use crate::state::rows::Cursor;
use crate::state::tree::past_of;
use std::sync::Arc;
use std::time::Instant;

/// Lines that go into one transaction: what programs on the mount wait for at most.
const PAGE: usize = 500;

impl Fleet {
    /// Starts from the best snapshot there is, if this device has applied nothing yet. How many lines were in it.
    ///
    /// Cancel-safe: see above. The caller holds `catching`. Errors: of the store, of the local state.
    pub(in super::super) async fn start_from_snapshot(self: &Arc<Self>, problems: &mut Vec<String>) -> Result<Option<u64>> {
        let Some(chosen) = self.choose_snapshot(problems).await? else { return Ok(None) };
        let (lines, began) = (chosen.lines, Instant::now());
        tracing::info!(key = chosen.key, lines, by = chosen.header.device_id, "starting from a snapshot");
        let this = self.clone();
        blocking(move || this.load(&chosen)).await?;
        tracing::info!(lines, seconds = began.elapsed().as_secs(), "the snapshot is loaded");
        self.happened(What::CaughtUp { versions: lines });
        Ok(Some(lines))
    }

    /// Blocking.
    fn load(&self, chosen: &Chosen) -> Result<()> {
        let mut lines = Lines::new(&chosen.key, &chosen.body)?;
        let mut page = Page::default();
        while let Some(line) = lines.next()? {
            match line {
                Line::Head(v) => page.heads.push(*v),
                Line::Unknown(text) => page.parked.push(unknown(&chosen.header, text)),
                Line::Parked(p) => match parse_unapplied(&p.text) {
                    Some(v) => page.heads.push(v),
                    None => page.parked.push(p),
                },
                Line::Past(v) => page.past.push(*v),
                Line::End(_) => {}
            }
            if page.len() >= PAGE {
                self.merge_page(&mut page)?;
            }
        }
        self.merge_page(&mut page)?;
        self.set_cursors(&chosen.header, chosen.body.len() as u64)?;
        self.snapshots.known.lock().seen.insert(chosen.key.clone());
        Ok(())
    }

    fn merge_page(&self, page: &mut Page) -> Result<()> {
        self.transact(|ns, me| {
            self.merge_all(ns, me, &page.heads)?;
            for p in &page.parked {
                ns.t.put(Tree::Parked, parked_key(&p.device, p.seq, p.line), &p.text)?;
            }
            for v in &page.past {
                if !past_of(ns.t, &v.path)?.contains(v) {
                    ns.remember(v)?;
                }
            }
            Ok(())
        })?;
        *page = Page::default();
        Ok(())
    }

    fn set_cursors(&self, header: &Header, size: u64) -> Result<()> {
        self.transact(|ns, me| {
            for (device, seq) in header.cursors.iter().filter(|(d, _)| **d != me.id) {
                let known: Cursor = ns.t.get(Tree::Cursor, device.as_str())?.unwrap_or_default();
                let seq = known.seq.max(*seq);
                ns.t.put(Tree::Cursor, device.as_str(), &Cursor { seq, at: self.clock.now_ms() })?;
            }
            Ok(())
        })?;
        self.count_from(size)?;
        // What is not written to the disk yet would only be loaded again.
        self.replica.db().commit()
    }
}

/// Lines that are merged together.
#[derive(Default)]
struct Page {
    heads: Vec<Version>,
    parked: Vec<Parked>,
    past: Vec<Version>,
}

/// A head that this tcfs does not know. Which line of which log it was nobody says; it keeps its place whoever sends it.
fn unknown(header: &Header, text: String) -> Parked {
    let mut number = [0; 8];
    number.copy_from_slice(&Hash::of(text.as_bytes()).0[..8]);
    Parked { device: header.device_id.clone(), seq: u64::from_be_bytes(number), line: 0, text }
}

impl Page {
    fn len(&self) -> usize {
        self.heads.len() + self.parked.len() + self.past.len()
    }
}
