//! Change notification for directories (inotify, FSEvents): "something under here may have changed".
//!
//! Must: messages coalesce; one waits at most. Must: a file that lands in a directory younger than its watch is told of
//! as well: such a directory is announced again a little later, when the watch surely stands.
//! Not here: polling, which everybody does besides: a share tells nothing of what other machines write.

use crate::error::{Error, Kind, Result};
use notify::event::{CreateKind, EventKind, ModifyKind};
use notify::{RecursiveMode, Watcher};
use std::path::Path;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// When a new directory is announced again. The watch is set within a millisecond on a quiet machine.
const AGAIN: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(450)];

/// Watches an existing directory and all below it until the receiver is dropped. Must be called inside a runtime.
pub(super) fn watch(dir: &Path) -> Result<mpsc::Receiver<()>> {
    let runtime = Handle::try_current().map_err(|e| Error::new(Kind::Internal, format!("watching {}: {e}", dir.display())))?;
    let (tx, rx) = mpsc::channel(1);
    let failed = |e: notify::Error| Error::new(Kind::Unsupported, format!("watching {}", dir.display())).source(e);
    let announce = tx.clone();
    let spawner = runtime.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else {
            let _ = announce.try_send(()); // events were lost: that, too, may be a change
            return;
        };
        if !is_change(&event) {
            return;
        }
        let _ = announce.try_send(());
        if matches!(event.kind, EventKind::Create(CreateKind::Folder | CreateKind::Any)) {
            let announce = announce.clone();
            spawner.spawn(async move {
                for wait in AGAIN {
                    tokio::time::sleep(wait).await;
                    let _ = announce.try_send(());
                }
            });
        }
    })
    .map_err(failed)?;
    watcher.watch(dir, RecursiveMode::Recursive).map_err(failed)?;
    runtime.spawn(async move {
        tx.closed().await;
        drop(watcher);
    });
    Ok(rx)
}

/// Reads and attribute changes are none; a full queue is.
fn is_change(event: &notify::Event) -> bool {
    match event.kind {
        EventKind::Access(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Metadata(_)) => event.need_rescan(),
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Other => true,
    }
}
