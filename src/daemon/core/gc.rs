//! `gc`: objects that nothing needs any more leave the store.

use super::Core;
use crate::daemon::protocol::{Amount, Collected, DeviceRef, Gc, Holder, Response};
use crate::daemon::service::Progress;
use crate::error::Result;
use crate::fleet;

impl Core {
    pub(super) async fn gc(&self, request: Gc, progress: &Progress) -> Result<Response> {
        let bar = progress.clone();
        let tell = move |what: &str, done: u64, total: Option<u64>| bar.files(what, done, total, None);
        let done = self.fleet.collect(request.dry_run, &tell).await?;
        let holders = self.holders(done.holders).await?;
        let ms = |s: i64| s.saturating_mul(1000);
        Ok(Response::Collected(Collected {
            dry_run: request.dry_run,
            all: amount(done.all),
            needed: amount(done.needed),
            young: amount(done.young),
            condemned: amount(done.condemned),
            held: amount(done.held),
            removed: amount(done.removed),
            next_at: done.next_at.map(ms),
            holders,
            history_from: done.history_from.map(ms),
        }))
    }

    /// The same with names.
    pub(super) async fn holders(&self, of: Vec<fleet::Holder>) -> Result<Vec<Holder>> {
        if of.is_empty() {
            return Ok(Vec::new());
        }
        let known = self.fleet.registry().list().await?.devices;
        let name = |id: &str| known.iter().find(|d| d.record.id == id).map_or_else(|| id.to_owned(), |d| d.shown_name.clone());
        let holder = |h: fleet::Holder| Holder {
            lease_at: h.lease_at.map(|s| s.saturating_mul(1000)),
            device: DeviceRef { name: name(&h.device), id: h.device },
        };
        Ok(of.into_iter().map(holder).collect())
    }
}

fn amount(a: fleet::Amount) -> Amount {
    Amount { objects: a.objects, bytes: a.bytes }
}
