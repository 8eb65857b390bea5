//! Snapshots of the namespace in the store, from which a new device starts instead of reading every log from its first
//! batch.
//!
//! Must: a snapshot says of each log that it is in it up to some batch, and then nothing up to there is missing. Must: the
//! logs are the truth: whatever a snapshot is or says, a device that cannot use it reads the logs and ends in the same
//! state. Must: old ones are removed by garbage collection only.
//! Not here: the lines (`model::snapshot`), their compression (`content::codec`).
//!
//! **When one is written.** Reading the logs from the newest snapshot on should never cost more than loading it does.
//! Loading costs by its records; reading logs by theirs, and for each batch a request, worth some records. So one is due
//! when that many came as are half of it, and not for less than some thousands, which are read in a second or two. Then
//! writing costs at most a few records for each record published, however large the fleet's tree is, and a new device
//! does at most half as much again as it must. A device counts what came since it knows of a new snapshot; when it finds
//! one due it looks whether there is one already. Each finds it due at a slightly different moment, so mostly one writes;
//! several at once are harmless.

mod choose;
mod load;
mod write;

pub(super) use choose::{Lines, header_of};

use super::core::Fleet;
use super::facts::{self, Growth};
use crate::error::{Kind, Result};
use crate::model::Hash;
use crate::store::{ObjectMeta, list_all};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Below this many records none is worth its object.
const WORTH: u64 = 10_000;
/// What a batch costs a reader besides its records: a request to an S3, sixteen under way, takes as long as applying these.
const BATCH: u64 = 16;
/// Bytes of a snapshot for each of its records, about.
const RECORD_BYTES: u64 = 150;
/// How often it is asked whether one is due. Asking reads two rows.
const TICK: Duration = Duration::from_secs(10);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(600);

/// What is known of the snapshots in the store.
#[derive(Default)]
pub(super) struct SnapshotState {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Keys that were counted from already.
    seen: BTreeSet<String>,
    /// Keys of those that are of no use.
    bad: BTreeSet<String>,
}

impl SnapshotState {
    /// It is of no use, and no reason not to write another.
    fn condemn(&self, key: &str) {
        self.known.lock().bad.insert(key.to_owned());
    }
}

impl Fleet {
    /// Writes snapshots when they are due, until `stop` says true.
    pub(super) async fn snapshot_loop(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut told = None;
        while !*stop.borrow() {
            let done = tokio::select! {
                r = self.snapshot_if_due() => r,
                _ = stop.wait_for(|s| *s) => return,
            };
            let wait = match done {
                Ok(_) => {
                    told = None;
                    TICK
                }
                Err(e) => {
                    self.lost(&e);
                    let text = e.to_string();
                    if told.as_ref() != Some(&text) && e.kind() != Kind::Interrupted {
                        tracing::warn!("no snapshot for new devices was written: {text}");
                        told = Some(text);
                    }
                    AGAIN
                }
            };
            tokio::select! {
                _ = tokio::time::sleep(wait) => {}
                _ = stop.wait_for(|s| *s) => return,
            }
        }
    }

    /// Writes a snapshot if the logs have grown enough and nobody else has written one. The key of the new one.
    ///
    /// Cancel-safe. Errors: of the store, of the local state.
    pub async fn snapshot_if_due(self: &Arc<Self>) -> Result<Option<String>> {
        if !self.is_due()? || !self.is_online() {
            return Ok(None);
        }
        let mut objects = self.list_snapshots().await?;
        let new = {
            let mut known = self.snapshots.known.lock();
            objects.retain(|o| !known.bad.contains(&o.key));
            objects.retain(|o| known.seen.insert(o.key.clone()));
            objects.into_iter().max_by_key(|o| (o.modified, o.size))
        };
        if let Some(new) = new {
            // How old it is nobody knows without reading it: from here on at most as much comes again.
            self.count_from(new.size)?;
            return Ok(None);
        }
        self.write_snapshot().await
    }

    async fn list_snapshots(&self) -> Result<Vec<ObjectMeta>> {
        list_all(&*self.store, &self.keys.snapshots()).await
    }

    fn is_due(&self) -> Result<bool> {
        let Growth { records, batches, size } = self.replica.read(facts::growth)?;
        let cost = records.saturating_add(batches.saturating_mul(BATCH));
        let enough = (size / RECORD_BYTES / 2).max(self.options.snapshot_from.unwrap_or(WORTH));
        // Up to half more, by device.
        let own = u64::from(Hash::of(self.me().id.as_bytes()).0[0]);
        Ok(cost >= enough.saturating_add(enough.saturating_mul(own) / 512))
    }

    /// A snapshot of `size` bytes is known from now on.
    fn count_from(&self, size: u64) -> Result<()> {
        self.replica.db().write(|t| facts::set_growth(t, &Growth { size, ..Growth::default() }))
    }
}
