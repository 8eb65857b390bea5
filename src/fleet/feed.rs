//! The feed: what happens, told to whoever listens, as it happens.
//!
//! Must: telling never waits and costs nothing while nobody listens; a slow listener loses the oldest.
//! Not here: who listens and what is written down (`daemon::core::activity`).

use super::core::Fleet;
use crate::model::Version;
use crate::model::activity::{Activity, Change, What};
use tokio::sync::broadcast;

/// What a listener may be behind.
const BEHIND: usize = 4096;
/// Of more versions that come at once only the number is told.
const ONE_BY_ONE: usize = 2000;

/// Where events come out.
pub(super) struct Feed(broadcast::Sender<Activity>);

impl Default for Feed {
    fn default() -> Self {
        Feed(broadcast::channel(BEHIND).0)
    }
}

impl Fleet {
    /// Everything that happens from now on.
    pub fn listen(&self) -> broadcast::Receiver<Activity> {
        self.feed.0.subscribe()
    }

    /// Tells that something happened, now.
    pub fn happened(&self, what: What) {
        if self.feed.0.receiver_count() > 0 {
            // Without a listener it is lost, as it should be.
            let _ = self.feed.0.send(Activity { at: self.clock.now_ms(), what });
        }
    }

    pub(super) fn came(&self, versions: &[Version]) {
        self.each(versions, What::Arrived);
    }

    pub(super) fn went_out(&self, versions: &[Version]) {
        self.each(versions, What::Published);
    }

    fn each(&self, versions: &[Version], what: fn(Change) -> What) {
        if self.feed.0.receiver_count() == 0 {
            return;
        }
        if versions.len() > ONE_BY_ONE {
            return self.happened(What::CaughtUp { versions: versions.len() as u64 });
        }
        versions.iter().for_each(|v| self.happened(what(Change::of(v))));
    }
}
