//! Which chunks are known to be in the store: those put or headed a short while ago.
//!
//! Must: an answer is never older than the time given; garbage collection relies on a reused chunk having been looked
//! at within a quarter of its grace. A clock that was turned, and a machine that slept, only make entries older.

use crate::clock::{Clock, Moment};
use crate::model::Hash;
use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

/// A bounded memory of chunk hashes, the least recently used forgotten first (about 100 bytes each).
pub struct Known {
    seen: Mutex<LruCache<Hash, Moment>>,
    clock: Arc<dyn Clock>,
    fresh: Duration,
}

impl Known {
    /// Remembers at most `entries` hashes for `fresh`.
    pub fn new(clock: Arc<dyn Clock>, entries: usize, fresh: Duration) -> Self {
        let entries = NonZeroUsize::new(entries).unwrap_or(NonZeroUsize::MIN);
        Known { seen: Mutex::new(LruCache::new(entries)), clock, fresh }
    }

    /// Whether the chunk was seen in the store within the time.
    pub fn is_fresh(&self, hash: &Hash) -> bool {
        let mut seen = self.seen.lock();
        let Some(at) = seen.get(hash) else { return false };
        let fresh = at.is_within(self.fresh, &*self.clock);
        if !fresh {
            seen.pop(hash);
        }
        fresh
    }

    /// The chunk was put, headed or read just now.
    pub fn add(&self, hash: Hash) {
        let now = Moment::now(&*self.clock);
        self.seen.lock().put(hash, now);
    }

    /// The chunk turned out not to be there.
    pub fn forget(&self, hash: &Hash) {
        self.seen.lock().pop(hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn entries_age_are_bounded_and_distrust_a_clock_turned_back() {
        let clock = ManualClock::new(1_000_000_000, 1);
        let k = Known::new(clock.clone(), 2, Duration::from_secs(10));
        let h = |i: u8| Hash::of(&[i]);
        k.add(h(1));
        assert!(k.is_fresh(&h(1)) && !k.is_fresh(&h(2)));
        clock.advance(10_000_000_000);
        assert!(k.is_fresh(&h(1)));
        clock.advance(1_000_000);
        assert!(!k.is_fresh(&h(1)));
        k.add(h(1));
        clock.advance(-1_000_000);
        assert!(!k.is_fresh(&h(1)));
        (1..=3).for_each(|i| k.add(h(i)));
        assert!(!k.is_fresh(&h(1)) && k.is_fresh(&h(2)) && k.is_fresh(&h(3)));
        k.forget(&h(3));
        assert!(!k.is_fresh(&h(3)));
    }
}
