//! Objects that garbage collection somewhere in the fleet is going to remove, as this device knows it.
//!
//! Must: who wants to use one of them again puts it again, and does not rely on one that it found: the collector leaves
//! what was put after it was condemned. Must: where the collector may be looking at it at this moment, whoever put it waits
//! out the time between that look and the removal, and sees that it is still there.
//! Not here: the lists (`model::gc`), when they are read (`fleet::gc`).

use crate::error::{Error, Kind, Result};
use crate::model::Hash;
use crate::store::Store;
use parking_lot::RwLock;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What is known of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doom {
    /// The store's time from which on it may be removed, seconds since 1970.
    pub from: i64,
}

#[derive(Default)]
struct Known {
    objects: HashMap<Hash, Doom>,
    /// There is a list that cannot be read: everything may be on it but what was put since, which is here.
    unread: Option<HashSet<Hash>>,
}

/// What is condemned. Shared by all that publishes; cheap to ask.
#[derive(Clone)]
pub struct Condemned {
    known: Arc<RwLock<Known>>,
    settle: Duration,
}

/// Far beyond what a collector lets pass between its last look at an object and its removal: some seconds, and the time-out
/// of a request.
pub const SETTLE: Duration = Duration::from_secs(180);

impl Default for Condemned {
    fn default() -> Self {
        Condemned::new(SETTLE)
    }
}

impl fmt::Debug for Condemned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Condemned({})", self.known.read().objects.len())
    }
}

impl Condemned {
    /// Nothing yet; `settle`: how long a collector may take from its last look to the removal.
    pub fn new(settle: Duration) -> Condemned {
        Condemned { known: Arc::default(), settle }
    }

    /// From now on these; `unreadable`: and perhaps everything else.
    pub fn set(&self, objects: HashMap<Hash, Doom>, unreadable: bool) {
        *self.known.write() = Known { objects, unread: unreadable.then(HashSet::new) };
    }

    /// Whether an object is condemned.
    pub fn of(&self, hash: &Hash) -> Option<Doom> {
        let known = self.known.read();
        let may_be = || known.unread.as_ref().is_some_and(|put| !put.contains(hash));
        known.objects.get(hash).copied().or_else(|| may_be().then_some(Doom { from: i64::MIN }))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.known.read().objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An object that was condemned was put just now: returns when no collector will remove it any more.
    ///
    /// Errors: of the store; `Unavailable` if it was removed all the same, which cannot happen again: put it once more.
    pub async fn outlast(&self, store: &dyn Store, key: &str, hash: &Hash, doom: Doom) -> Result<()> {
        let gone = || Error::new(Kind::Unavailable, format!("{key} was removed as garbage while it was put: it is put again"));
        let meta = store.head(key).await?.ok_or_else(gone)?;
        if meta.modified >= doom.from {
            tokio::time::sleep(self.settle).await;
            store.head(key).await?.ok_or_else(gone)?;
        }
        let mut known = self.known.write();
        known.objects.remove(hash);
        if let Some(put) = &mut known.unread {
            put.insert(*hash);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::store::memory::MemoryStore;
    use crate::store::{PutMode, Store};

    #[tokio::test(start_paused = true)]
    async fn what_was_put_late_waits_until_no_collector_can_be_at_it() {
        let clock = ManualClock::new(1_000_000_000_000, 1);
        let store = MemoryStore::with(clock.clone(), 10);
        let c = Condemned::new(Duration::from_secs(60));
        let (early, late) = (Hash::of(b"early"), Hash::of(b"late"));
        c.set([(early, Doom { from: 2000 }), (late, Doom { from: 900 })].into(), false);
        assert!(c.of(&early).is_some() && c.of(&Hash::of(b"other")).is_none() && c.len() == 2);
        for (key, hash, waits) in [("early", early, false), ("late", late, true)] {
            store.put(key, b"x".as_slice().into(), PutMode::Overwrite).await.unwrap();
            let began = tokio::time::Instant::now();
            let doom = c.of(&hash).unwrap();
            c.outlast(&*store, key, &hash, doom).await.unwrap();
            assert_eq!(began.elapsed() >= Duration::from_secs(60), waits, "{key}");
            assert!(c.of(&hash).is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_removed_meanwhile_is_an_error_that_is_tried_again() {
        let store = MemoryStore::new();
        let c = Condemned::default();
        let (hash, doom) = (Hash::of(b"x"), Doom { from: i64::MIN });
        c.set([(hash, doom)].into(), false);
        store.put("x", b"x".as_slice().into(), PutMode::Overwrite).await.unwrap();
        let removing = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            store.delete("x").await.unwrap();
        };
        let (done, ()) = tokio::join!(c.outlast(&*store, "x", &hash, doom), removing);
        assert!(done.unwrap_err().kind().is_transient() && c.of(&hash).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn where_a_list_cannot_be_read_everything_may_be_on_it() {
        let c = Condemned::default();
        c.set(HashMap::new(), true);
        assert!(c.of(&Hash::of(b"any")).is_some());
        let store = MemoryStore::with(ManualClock::new(0, 1), 10);
        let (hash, key) = (Hash::of(b"put"), "put");
        store.put(key, b"put".as_slice().into(), PutMode::Overwrite).await.unwrap();
        c.outlast(&*store, key, &hash, c.of(&hash).unwrap()).await.unwrap();
        assert!(c.of(&hash).is_none() && c.of(&Hash::of(b"any")).is_some());
    }
}
