//! When others' logs are looked at: at once where the store tells of changes, now and then in any case, and on request.
//!
//! Must: a lost notification costs a poll interval, never more. Must: an unreachable store is tried again for ever.
//! Not here: applying (`apply`).

use super::core::{Fleet, blocking};
use crate::error::{Kind, Result};
use crate::state::tree::names;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

/// Poll interval with a store that tells of changes, and with another.
const POLL: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));
/// Before notifications that ended are asked for again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often all logs are listed, to find devices that the registry does not name, and gaps.
const LIST_LOGS: Duration = Duration::from_secs(3600);

/// How following goes, for people.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FollowStatus {
    /// When everything was last applied, milliseconds since 1970.
    pub caught_up_at: Option<i64>,
    /// Why the last attempt failed; none while it works.
    pub last_error: Option<String>,
    /// What sort of failure that was, and what to do about it.
    pub last_kind: Option<(Kind, Option<String>)>,
    /// Logs that stand still, damaged records.
    pub problems: Vec<String>,
}

#[derive(Default)]
pub(super) struct FollowState {
    now: Mutex<FollowStatus>,
    /// The status changed.
    noted: Notify,
    /// Revoked devices, with the last batch of each that counts.
    pub(super) revoked: Mutex<HashMap<String, u64>>,
    /// Devices that were seen in the store when it was last looked at.
    pub(super) seen: Mutex<BTreeSet<String>>,
}

impl Fleet {
    /// Ids of the devices that were heard of: they have a log, are in the store's registry, or spoke on the bus.
    ///
    /// Errors: of the local state.
    pub fn heard_of(&self) -> Result<BTreeSet<String>> {
        let mut all = self.following.seen.lock().clone();
        all.extend(self.cursors()?.into_keys());
        all.extend(self.presence().into_keys());
        Ok(all)
    }

    /// How following goes.
    pub fn follow_status(&self) -> FollowStatus {
        self.following.now.lock().clone()
    }

    /// Waits until the others' logs were looked at once since the start, with or without success; for `patience`, and
    /// as often again (up to six times) while something comes in. Cancel-safe.
    pub async fn first_look(&self, patience: Duration) {
        let looked = async {
            loop {
                let noted = self.following.noted.notified();
                tokio::pin!(noted);
                noted.as_mut().enable();
                {
                    let now = self.following.now.lock();
                    if now.caught_up_at.is_some() || now.last_error.is_some() {
                        return;
                    }
                }
                noted.await;
            }
        };
        tokio::pin!(looked);
        let progress = || (self.cursors().unwrap_or_default(), self.replica.read(names).unwrap_or_default());
        let mut before = progress();
        for _ in 0..6 {
            if tokio::time::timeout(patience, &mut looked).await.is_ok() {
                return;
            }
            let now = progress();
            if now == before {
                break;
            }
            before = now;
        }
        tracing::info!("the store takes long to answer: what the other devices did comes later");
    }

    /// Follows until `stop` says true.
    pub(super) async fn follow_loop(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let this = self.clone();
        if let Err(e) = blocking(move || this.apply_parked()).await {
            tracing::error!("applying records that were parked: {e}");
        }
        let mut told: Option<mpsc::Receiver<()>> = None;
        let mut listed: Option<Instant> = None;
        let mut first = true;
        while !*stop.borrow() {
            // The first look is a quick one; listing all logs can take a while.
            let list = !first && listed.is_none_or(|at| at.elapsed() >= LIST_LOGS);
            let done = tokio::select! {
                r = self.catch_up_as(list) => r,
                _ = stop.wait_for(|s| *s) => return,
            };
            let ok = done.is_ok();
            self.note(done);
            if list && ok {
                listed = Some(Instant::now());
            }
            if ok {
                // Once the store answers there is something to watch; what came before that was just applied or is
                // with the look that follows at once.
                if told.is_none() {
                    told = self.store.watch(&self.keys.logs());
                    if told.is_some() && first {
                        first = false;
                        continue;
                    }
                }
                for done in [self.seen().await, self.renew_lease_if_due().await] {
                    if let Err(e) = done {
                        self.lost(&e);
                    }
                }
            }
            let poll = self.options.poll_interval.unwrap_or(if told.is_some() { POLL.0 } else { POLL.1 });
            let wait = if std::mem::take(&mut first) && ok { Duration::ZERO } else { poll };
            let gone = tokio::select! {
                _ = tokio::time::sleep(wait) => false,
                _ = self.look.notified() => false,
                m = next(&mut told) => m.is_none(),
                _ = stop.wait_for(|s| *s) => return,
            };
            if gone {
                // Whatever ended the notifications may end them again at once.
                told = None;
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    fn note(&self, done: crate::error::Result<super::CaughtUp>) {
        let mut now = self.following.now.lock();
        match done {
            Ok(c) => {
                now.caught_up_at = Some(self.clock.now_ms());
                if now.last_error.take().is_some() {
                    tracing::info!("the store answers again");
                    // Whoever waits to try again need not wait any longer; nobody else is to hear of it later.
                    self.returned.notify_waiters();
                }
                now.last_kind = None;
                now.problems = c.problems;
            }
            Err(e) => {
                let text = e.to_string();
                if now.last_error.as_ref() != Some(&text) {
                    tracing::warn!("looking for changes of other devices: {text}");
                }
                now.last_error = Some(text);
                now.last_kind = Some((e.kind(), e.hint_text().map(str::to_owned)));
            }
        }
        drop(now);
        self.following.noted.notify_waiters();
    }
}

/// The next notification; never, where there are none.
async fn next(told: &mut Option<mpsc::Receiver<()>>) -> Option<()> {
    match told {
        Some(rx) => rx.recv().await,
        None => std::future::pending().await,
    }
}
