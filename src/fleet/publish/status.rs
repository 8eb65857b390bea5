//! The outbox as people see it, and waiting until it has gone out.

use super::super::core::{Fleet, blocking};
use super::{PAGE, size};
use crate::error::{Error, Kind, Result};
use crate::model::{RelPath, Version};
use crate::state::Tree;
use crate::state::rows::Sealed;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// The outbox as people see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PublishStatus {
    /// Rows not yet in the log; at most 50,000 are counted.
    pub pending: u64,
    /// Bytes of files among them that are not cut.
    pub bytes: u64,
    /// Files whose bytes are being put into the store.
    pub active: u64,
    /// A path that is being published.
    pub current: Option<String>,
    /// Why the last attempt failed; none while it works.
    pub last_error: Option<String>,
    /// Since when it fails, milliseconds since 1970.
    pub since: Option<i64>,
}

#[derive(Default)]
pub(in crate::fleet) struct PublishState {
    pub(super) now: Mutex<PublishStatus>,
}

/// Rows that [`Fleet::publish_status`] counts at most.
const STATUS_ROWS: usize = 50_000;

impl Fleet {
    /// Waits until every row up to `upto` is in this device's log.
    ///
    /// Errors: `Timeout` after `patience`, with the last error of publishing as its reason. Cancel-safe.
    pub async fn wait_published(self: &Arc<Self>, upto: u64, patience: Duration) -> Result<()> {
        self.wait_published_at(upto, None, patience).await
    }

    /// Waits until every row up to `upto` is in this device's log; with `only`, every row of that path and of what is
    /// below it.
    ///
    /// Errors: `Timeout` after `patience`, with the last error of publishing as its reason. Cancel-safe.
    pub async fn wait_published_at(self: &Arc<Self>, upto: u64, only: Option<&RelPath>, patience: Duration) -> Result<()> {
        let wait = async {
            let mut from = 0;
            loop {
                let gone = self.gone_out.notified();
                tokio::pin!(gone);
                gone.as_mut().enable();
                let (this, only) = (self.clone(), only.cloned());
                match blocking(move || this.first_pending(from, upto, only.as_ref())).await? {
                    None => return Ok(()),
                    // Rows up to `upto` only go: what lies before needs no second look.
                    Some(first) => from = first,
                }
                gone.await;
            }
        };
        match tokio::time::timeout(patience, wait).await {
            Ok(r) => r,
            Err(_) => {
                let why = self.publishing.now.lock().last_error.clone();
                let e = Error::new(Kind::Timeout, "waiting until everything is in the store");
                Err(e.hint(
                    why.map_or("it goes on in the background".to_owned(), |w| format!("it goes on in the background; last error: {w}")),
                ))
            }
        }
    }

    /// The first row from `from` to `upto` that has a version of `only`, or of what is below it. Blocking.
    fn first_pending(&self, mut from: u64, upto: u64, only: Option<&RelPath>) -> Result<Option<u64>> {
        let page = if only.is_some() { PAGE } else { 1 };
        loop {
            let rows: Vec<(u64, Sealed)> = self.replica.read(|r| r.scan_int(Tree::Outbox, from, upto.saturating_add(1), page))?;
            let Some((last, _)) = rows.last() else { return Ok(None) };
            if let Some((seq, _)) = rows.iter().find(|(_, s)| only.is_none_or(|p| s.concerns(p))) {
                return Ok(Some(*seq));
            }
            from = last + 1;
        }
    }

    /// The outbox as it is now. Blocking; reads up to 50,000 rows.
    pub fn publish_status(&self) -> Result<PublishStatus> {
        let mut status = self.publishing.now.lock().clone();
        status.active = self.cuts.running();
        let mut from = 0;
        while (status.pending as usize) < STATUS_ROWS {
            let page: Vec<(u64, Sealed)> = self.replica.read(|r| r.scan_int(Tree::Outbox, from, u64::MAX, PAGE))?;
            let Some((last, _)) = page.last() else { break };
            from = last + 1;
            status.pending += page.len() as u64;
            status.bytes += page.iter().flat_map(|(_, s)| &s.versions).filter(|v| v.is_uncut()).map(size).sum::<u64>();
        }
        Ok(status)
    }

    pub(super) fn note_current(&self, v: Option<&Version>) {
        self.publishing.now.lock().current = v.map(|v| v.path.as_str().to_owned());
    }

    pub(in crate::fleet) fn works(&self) {
        let mut now = self.publishing.now.lock();
        if now.last_error.take().is_some() {
            tracing::info!("publishing works again");
        }
        now.since = None;
    }

    pub(super) fn fails(&self, e: &Error) {
        let mut now = self.publishing.now.lock();
        let text = e.to_string();
        if now.last_error.as_ref() != Some(&text) {
            tracing::warn!("publishing: {e}");
        }
        now.last_error = Some(text);
        now.since.get_or_insert(self.clock.now_ms());
    }
}
