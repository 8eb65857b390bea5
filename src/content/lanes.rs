//! A bound with two lanes: bulk work may take most of it, never all, so that a small save does not stand behind a big one.
//!
//! Must: within a lane it is first come, first served; what is taken comes back when the [`Hold`] is dropped.

use crate::error::{Error, Kind, Result};
use std::sync::Arc;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// Which queue to stand in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Small files.
    Quick,
    /// Files that take a while.
    Bulk,
}

/// So many units, of which the bulk lane has three quarters.
#[derive(Clone)]
pub(super) struct Bound {
    all: Arc<Semaphore>,
    bulk: Arc<Semaphore>,
    /// What one request can take at most, so that it never waits for more than there is.
    most: u32,
}

/// Units taken.
pub(super) struct Hold {
    #[allow(dead_code, reason = "a permit is for being held")]
    all: OwnedSemaphorePermit,
    #[allow(dead_code, reason = "a permit is for being held")]
    bulk: Option<OwnedSemaphorePermit>,
}

impl Bound {
    /// A bound of `units`, at least one for each lane.
    pub(super) fn new(units: usize) -> Self {
        let units = units.clamp(2, 1 << 30);
        let bulk = (units - units / 4).min(units - 1);
        Bound { all: Arc::new(Semaphore::new(units)), bulk: Arc::new(Semaphore::new(bulk)), most: bulk as u32 }
    }

    /// Waits for `n` units, or all that the bulk lane has. Cancel-safe.
    pub(super) async fn take(&self, n: u32, lane: Lane) -> Result<Hold> {
        let n = n.min(self.most);
        let bulk = match lane {
            Lane::Quick => None,
            Lane::Bulk => Some(self.bulk.clone().acquire_many_owned(n).await.map_err(closed)?),
        };
        Ok(Hold { all: self.all.clone().acquire_many_owned(n).await.map_err(closed)?, bulk })
    }

    /// Units that nobody holds.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.all.available_permits()
    }
}

fn closed(e: AcquireError) -> Error {
    // Nobody closes these semaphores.
    Error::new(Kind::Internal, "waiting for a turn to upload").source(e)
}
