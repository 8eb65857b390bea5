//! What has to be settled when the store is reached: that it is the right one, that the own log is our own, that the
//! registry knows us.
//!
//! Must: on start and after every loss of the store, before anything is applied or published.

use super::core::{Fleet, blocking};
use super::facts;
use crate::error::{Error, Kind, Result};
use crate::model::activity::What;
use crate::store::identity;
use futures_util::FutureExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What was settled with the store, kept while it comes and goes.
#[derive(Default)]
pub(super) struct Link {
    /// Registered under this id, at this time (ms).
    registered: Option<(String, i64)>,
}

/// How often the registry object is written again, for `last_seen`.
const SEEN_EVERY_MS: i64 = 3_600_000;

impl Fleet {
    /// Settles things with the store unless that is done. Cheap while the store answers.
    ///
    /// Errors: of the store; `Usage` if it is another store than the one this state belongs to.
    pub async fn connect(self: &Arc<Self>) -> Result<()> {
        if self.is_online() {
            return Ok(());
        }
        let mut link = self.link.lock().await;
        if self.is_online() {
            return Ok(());
        }
        self.right_store().await?;
        {
            let _log = self.log.lock().await;
            self.own_log().await?;
        }
        self.know_condemned().boxed().await?;
        let me = self.me();
        let now = self.clock.now_ms();
        let current = link.registered.as_ref().is_some_and(|(id, at)| *id == me.id && now - at < SEEN_EVERY_MS);
        if !current {
            self.registry().of(self.replica.read(facts::store_id)?).put_own(&me, &*self.clock).boxed().await?;
            self.registry().rebuild_view().await?;
            link.registered = Some((me.id.clone(), now));
        }
        self.online.store(true, Ordering::SeqCst);
        self.happened(What::Store { reachable: true, why: None });
        Ok(())
    }

    /// Tells the registry that this device is alive, now and then.
    pub(super) async fn seen(self: &Arc<Self>) -> Result<()> {
        let mut link = self.link.lock().await;
        let me = self.me();
        let now = self.clock.now_ms();
        if link.registered.as_ref().is_none_or(|(id, at)| *id != me.id || now - at >= SEEN_EVERY_MS) {
            self.registry().of(self.replica.read(facts::store_id)?).put_own(&me, &*self.clock).boxed().await?;
            link.registered = Some((me.id.clone(), now));
        }
        Ok(())
    }

    /// The store did not answer as it should: whoever uses it next settles things again.
    pub(super) fn lost(&self, e: &Error) {
        if matches!(e.kind(), Kind::Unavailable | Kind::Timeout | Kind::Unauthorized) && self.online.swap(false, Ordering::SeqCst) {
            tracing::warn!("the store does not answer: {e}");
            self.happened(What::Store { reachable: false, why: Some(e.to_string()) });
        }
    }

    async fn right_store(self: &Arc<Self>) -> Result<()> {
        let (known, last) = self.replica.read(|r| Ok((facts::store_id(r)?, facts::store_place(r)?)))?;
        let found = match &known {
            Some(id) => identity::expect_where(&*self.store, &self.keys, id, last.as_deref()).await?,
            None => identity::ensure(&*self.store, &self.keys, &*self.clock).await?,
        };
        let here = identity::place(&*self.store, &self.keys);
        if known.is_some() && last.as_ref() == Some(&here) {
            return Ok(());
        }
        self.replica.db().write(|t| {
            facts::set_store_id(t, &found.id)?;
            facts::set_store_place(t, &here)
        })
    }

    /// Looks whether a copy of this machine goes on with the log under our id. Cheap: for every catch-up, since a device
    /// that writes nothing would not notice otherwise, and never reads its own log.
    pub(super) async fn still_ours(self: &Arc<Self>) -> Result<()> {
        let me = self.me();
        let next = self.replica.read(|r| facts::published(r, &me.id))? + 1;
        if self.store.head(&self.keys.batch(&me.id, next)).await?.is_none() {
            return Ok(());
        }
        // Perhaps it is our own batch on its way out: the lock waits for that.
        let _log = self.log.lock().await;
        self.own_log().await
    }

    /// Reads the own next log key until nothing is there. What this device fixed and put before a crash is finished;
    /// anything else was written by a copy of this machine. The caller holds the `log` lock.
    async fn own_log(self: &Arc<Self>) -> Result<()> {
        loop {
            let me = self.me();
            let next = self.replica.read(|r| facts::published(r, &me.id))? + 1;
            let body = match self.store.get(&self.keys.batch(&me.id, next)).await {
                Ok(body) => body,
                Err(e) if e.kind() == Kind::NotFound => return self.put_missing(next - 1).await,
                Err(e) => return Err(e.context("reading the end of this device's own log")),
            };
            let this = self.clone();
            let fixed = blocking(move || this.fixed()).await?;
            let ours = fixed.filter(|(seq, _)| *seq == next).map(|(_, batch)| batch);
            let key = self.keys.batch(&me.id, next);
            let written = ours.as_ref().map(|batch| &batch.body[..]);
            if written != Some(&body[..]) && self.is_anothers(&key, &body, written).await? {
                self.take_new_id(&me.id, "the store has a batch of this device that this machine did not write").await?;
            } else if let Some(batch) = ours {
                self.finish(next, batch, Default::default()).await?;
            }
        }
    }
}
