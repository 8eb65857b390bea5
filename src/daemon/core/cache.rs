//! `cache`: what the chunk cache holds, the largest files first.

use super::paths::pins;
use super::{Core, blocking};
use crate::daemon::protocol::{CacheList, CacheSum, Cached, Item, Response};
use crate::daemon::service::Progress;
use crate::error::Result;

impl Core {
    pub(super) async fn cache_list(&self, request: CacheList, progress: &Progress) -> Result<Response> {
        let (this, progress) = (self.shared()?, progress.clone());
        blocking(move || {
            let pins = pins(&this.vfs)?;
            for (ino, here) in this.vfs.largest_cached(usize::try_from(request.top).unwrap_or(usize::MAX)) {
                // One that went away meanwhile is nobody's.
                let (Ok(path), Ok(attr)) = (this.vfs.path_of(ino), this.vfs.getattr(ino)) else { continue };
                progress.blocking_item(Item::Cached(Cached {
                    here,
                    size: attr.size,
                    used_at: this.vfs.used_at(ino)?,
                    pinned: pins.cover(&path),
                    path: path.as_str().to_owned(),
                }))?;
            }
            let unpublished = this.fleet.publish_status()?.bytes;
            let disk = rustix::fs::statvfs(&this.config.cache.dir).ok();
            let bytes = |blocks: u64, d: &rustix::fs::StatVfs| blocks.saturating_mul(d.f_frsize);
            Ok(Response::Cache(CacheSum {
                cache: this.cache_now(unpublished),
                disk_free: disk.as_ref().map_or(0, |d| bytes(d.f_bavail, d)),
                disk: disk.as_ref().map_or(0, |d| bytes(d.f_blocks, d)),
                min_free: this.config.cache.min_free.0,
            }))
        })
        .await
    }
}
