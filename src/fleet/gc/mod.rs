//! Garbage collection: objects that nothing needs any more leave the store.
//!
//! **What is needed.** The heads of every path; every version that was one of them within the last 30 days, as a snapshot
//! of that age and the logs since then have them; what a lease names; what the older layout's index names; of a record that
//! is not understood, all that it may name. Manifests, and the chunks that those name. Logs are never removed.
//! Must: age is the store's own time, never what a version says of itself.
//!
//! **How it goes**, with publishers at work on other machines that collect nothing themselves and may sleep at any point:
//!
//! 1. A collector marks what is needed, and writes a list of all other objects, each older than the grace: they are
//!    *condemned* (`model::gc`). Nothing is removed yet.
//! 2. Every device reads the lists now and then, and says in its lease (`model::lease`) by which editions it goes, and what
//!    it needs that no log says. From then on it takes a condemned object for one that is not there: it puts it again
//!    (`content::condemned`). What it took before, without knowing, is published, or is named in that lease: both are
//!    settled under the lock under which batches are fixed.
//! 3. The collector marks again: leases first, then the logs. It removes what was on its list for at least the grace, is
//!    still not needed, was not put since, and is known to be condemned to *every* device that is not revoked.
//!
//! So a device that is away for months holds everything back that was condemned meanwhile, and nothing that it may build
//! on goes; only revoking it ends that. Must: step 3 never relies on a clock of a device, on a listing being fresh, or on how
//! long a publisher takes. What is left to time is only the moment between a collector's last look at an object and its
//! removal; a publisher that puts a condemned object in that moment waits until it is over, and looks.
//!
//! Any number of devices may collect at once, each with its own list. In the background one does: the smallest id among
//! those that renewed their leases lately.

mod lease;
mod mark;
mod sweep;

pub(super) use lease::LeaseState;
pub use sweep::{Amount, Collected, Holder};

use super::core::Fleet;
use crate::error::{Error, Result};
use crate::store::{PutMode, list_all};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Times of garbage collection.
#[derive(Clone, Debug)]
pub struct GcOptions {
    /// Whether this device collects in the background, if it is the one to do so.
    pub enabled: bool,
    /// How long a condemned object stays at least, and how old an object must be before it is condemned.
    pub grace: Duration,
    /// How long what was deleted or written over can be brought back.
    pub history: Duration,
    /// How often it is done.
    pub every: Duration,
    /// How often this device renews its lease.
    pub lease_every: Duration,
    /// How often it is asked whether something is due.
    pub tick: Duration,
}

const HOUR: u64 = 3600;

impl Default for GcOptions {
    fn default() -> Self {
        GcOptions {
            enabled: true,
            grace: Duration::from_secs(24 * HOUR),
            history: Duration::from_secs(30 * 24 * HOUR),
            every: Duration::from_secs(24 * HOUR),
            lease_every: Duration::from_secs(12 * HOUR),
            tick: Duration::from_secs(6 * HOUR),
        }
    }
}

/// Leases that are older do not take part in the choice of who collects.
const LATELY: u32 = 3;
/// A snapshot is written for garbage collection when the newest one is so old and something was published since: history
/// ends at one.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(7 * 24 * HOUR);

impl Fleet {
    /// Collects now and then, if this device is the one to do so, until `stop` says true.
    pub(super) async fn gc_loop(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        if !self.options.gc.enabled {
            return;
        }
        // Not among all that is done at a start.
        let mut wait = (self.options.gc.tick / 12).max(Duration::from_secs(1)).min(self.options.gc.tick);
        loop {
            tokio::select! {
                _ = tokio::time::sleep(wait) => {}
                _ = stop.wait_for(|s| *s) => return,
            }
            wait = self.options.gc.tick;
            if !self.is_online() {
                continue;
            }
            let done = tokio::select! {
                r = self.collect_if_due() => r,
                _ = stop.wait_for(|s| *s) => return,
            };
            if let Err(e) = done {
                self.lost(&e);
                tracing::warn!("garbage collection: {e}; it is tried again");
            }
        }
    }

    /// Collects if this device is the one to do so and it was not done within the interval. What was done.
    ///
    /// Cancel-safe. Errors: as [`Fleet::collect`].
    pub async fn collect_if_due(self: &Arc<Self>) -> Result<Option<Collected>> {
        let me = self.me().id.clone();
        let now = self.store_time().await?;
        if let Some(last) = self.store.head(&self.keys.condemned_by(&me)).await?
            && now - last.modified < secs(self.options.gc.every)
        {
            return Ok(None);
        }
        let prefix = self.keys.leases();
        let revoked = self.members().await?.revoked;
        let lately = secs(self.options.gc.every) * i64::from(LATELY);
        let at_work = list_all(&*self.store, &prefix).await?.into_iter().filter(|o| now - o.modified < lately);
        let ids = at_work.filter_map(|o| o.key.strip_prefix(&prefix).map(str::to_owned)).filter(|id| !revoked.contains(id));
        if ids.min().as_ref() != Some(&me) {
            return Ok(None);
        }
        self.keep_a_snapshot(now).await?;
        let done = self.collect(false, &|_, _, _| {}).await?;
        tracing::info!(removed = done.removed.objects, bytes = done.removed.bytes, condemned = done.condemned.objects, "collected garbage");
        Ok(Some(done))
    }

    /// Sees to it that there will be a snapshot at which history can end.
    async fn keep_a_snapshot(self: &Arc<Self>, now: i64) -> Result<()> {
        let newest = list_all(&*self.store, &self.keys.snapshots()).await?.into_iter().map(|o| o.modified).max();
        let old = newest.is_none_or(|at| now - at > secs(SNAPSHOT_EVERY).min(secs(self.options.gc.history)));
        let grown = self.replica.read(super::facts::growth)?.batches > 0;
        if old
            && grown
            && let Err(e) = self.write_snapshot().await
        {
            // It is only needed in a month.
            tracing::warn!("no snapshot was written for garbage collection: {e}");
        }
        Ok(())
    }

    /// The store's time now, seconds since 1970: that of an object put for this.
    ///
    /// Errors: of the store; `Unsupported` if it does not tell when an object was written.
    async fn store_time(&self) -> Result<i64> {
        let key = self.keys.canary(self.clock.random());
        self.store.put(&key, b"what time is it".as_slice().into(), PutMode::Overwrite).await?;
        let meta = self.store.head(&key).await;
        self.store.delete(&key).await?;
        match meta?.map_or(0, |m| m.modified) {
            0 => {
                let what = format!("{} does not tell when an object was written", self.store.describe());
                Err(Error::new(crate::error::Kind::Unsupported, what).hint("without that, nothing can be collected there"))
            }
            at => Ok(at),
        }
    }
}

/// As seconds.
fn secs(d: Duration) -> i64 {
    i64::try_from(d.as_secs()).unwrap_or(i64::MAX / 4)
}
