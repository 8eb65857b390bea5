//! `hydrate`, `unsync`, `pin` and `unpin`: where bytes are.
//!
//! Must: bytes are dropped only when every chunk of them was just seen in the store.
//! Must: what is pinned comes here in the background while a daemon runs, also what others add below later.

use super::paths::{files, walk};
use super::{Core, blocking};
use crate::content::Priority;
use crate::daemon::protocol::{Hydrated, OnPath, Pinned, Response, Skipped, Unpinned, Unsynced};
use crate::daemon::service::Progress;
use crate::error::{Error, Kind, Result};
use crate::model::RelPath;
use crate::state::rows::FileType;
use crate::vfs::{Dropped, Found, Held, IGNORE_FILE, Invalidate, Vfs};
use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Files under way at a time.
const PARALLEL: usize = 6;
/// Things to look at that are remembered one by one; beyond, everything pinned is looked through again.
const QUEUE: usize = 10_000;
/// How often everything pinned is looked through without a reason: what could not be fetched is tried again then.
const AGAIN: Duration = Duration::from_secs(300);
/// Changes are collected for this long before they are looked at.
const SETTLE: Duration = Duration::from_millis(200);

impl Core {
    pub(super) async fn hydrate(&self, request: OnPath, progress: &Progress) -> Result<Response> {
        let top = self.found(&request.path).await?;
        let mut out = Hydrated { path: top.path.as_str().to_owned(), ..Hydrated::default() };
        let vfs = self.vfs.clone();
        let all = blocking(move || {
            let found = files(&vfs, top)?;
            found.into_iter().map(|f| vfs.look(&f).map(|l| (f, l))).filter(|r| !gone(r)).collect::<Result<Vec<_>>>()
        })
        .await?;
        let room = self.vfs.cache_use().max_bytes;
        let (mut needed, mut work) = (0u64, Vec::new());
        for (f, l) in all {
            let missing = f.attr.size.saturating_sub(l.here);
            if missing > 0 && needed.saturating_add(f.attr.size) > room {
                let why = "it does not fit into the cache (cache.max_bytes)".to_owned();
                out.skipped.push(Skipped { path: f.path.as_str().to_owned(), why });
                continue;
            }
            if !matches!(l.held, Held::LocalOnly | Held::Pending) {
                needed += f.attr.size;
            }
            work.push((f, missing));
        }
        let total: u64 = work.iter().map(|(_, m)| m).sum();
        let fetched = AtomicU64::new(0);
        let down = std::sync::atomic::AtomicBool::new(false);
        let (fetched, down) = (&fetched, &down);
        let mut done = stream::iter(work)
            .map(|(f, missing)| {
                let vfs = self.vfs.clone();
                async move {
                    if missing == 0 {
                        return (f, missing, Ok(()));
                    }
                    if down.load(Ordering::Relaxed) {
                        return (f, missing, Err(Error::new(Kind::Unavailable, "the store does not answer")));
                    }
                    let before = AtomicU64::new(0);
                    let tell = |at: u64, _: u64| {
                        let at = at.min(missing);
                        let n = at.saturating_sub(before.swap(at, Ordering::Relaxed));
                        let sum = fetched.fetch_add(n, Ordering::Relaxed) + n;
                        progress.bytes("fetching", sum, Some(total), Some(f.path.as_str()));
                    };
                    let r = vfs.hydrate(f.attr.ino, &tell).await.map(drop);
                    if r.as_ref().is_err_and(|e: &Error| matches!(e.kind(), Kind::Unavailable | Kind::Timeout | Kind::Unauthorized)) {
                        down.store(true, Ordering::Relaxed);
                    }
                    (f, missing, r)
                }
                .boxed()
            })
            .buffer_unordered(PARALLEL);
        while let Some((f, missing, r)) = done.next().await {
            match r {
                Ok(()) => {
                    out.files += 1;
                    out.bytes += f.attr.size;
                    out.fetched += missing;
                }
                Err(e) if e.kind() == Kind::Stale => {}
                Err(e) => out.skipped.push(Skipped { path: f.path.as_str().to_owned(), why: e.to_string() }),
            }
        }
        drop(done);
        Ok(Response::Hydrated(out))
    }

    pub(super) async fn unsync(&self, request: OnPath, progress: &Progress) -> Result<Response> {
        let top = self.found(&request.path).await?;
        let alone = (top.attr.kind == FileType::File).then_some(top.attr.ino);
        let mut out = Unsynced { path: top.path.as_str().to_owned(), ..Unsynced::default() };
        let vfs = self.vfs.clone();
        let all = blocking(move || {
            vfs.seal_closed()?;
            files(&vfs, top)
        })
        .await?;
        let total = all.len() as u64;
        let mut results = stream::iter(all)
            .map(|f| {
                let vfs = self.vfs.clone();
                async move {
                    let r = drop_verified(&vfs, &f).await;
                    (f, r)
                }
                .boxed()
            })
            .buffer_unordered(PARALLEL);
        let mut n = 0;
        while let Some((f, r)) = results.next().await {
            n += 1;
            progress.files("checking", n, Some(total), Some(f.path.as_str()));
            let path = f.path.as_str().to_owned();
            match r {
                Ok(Dropped::Freed(bytes)) => {
                    out.files += 1;
                    out.bytes += bytes;
                }
                Ok(Dropped::WasStub) => {}
                // Below a directory nobody asked for these.
                Ok(Dropped::Kept(why)) if why.starts_with("local-only") && alone != Some(f.attr.ino) => {}
                Ok(Dropped::Kept(why)) => out.kept.push(Skipped { path, why: why.to_owned() }),
                Err(e) if e.kind() == Kind::Stale => {}
                Err(e) => out.kept.push(Skipped { path, why: format!("it could not be verified in the store: {e}") }),
            }
        }
        drop(results);
        Ok(Response::Unsynced(out))
    }

    pub(super) async fn pin(&self, request: OnPath) -> Result<Response> {
        let top = self.found(&request.path).await?;
        let path = top.path.clone();
        let vfs = self.vfs.clone();
        let pinned = blocking(move || {
            vfs.pin(&path, true)?;
            let mut out = Pinned { path: path.as_str().to_owned(), ..Pinned::default() };
            walk(&vfs, top, &mut |f| {
                if f.attr.kind == FileType::File {
                    let look = vfs.look(f)?;
                    out.files += 1;
                    out.bytes += f.attr.size;
                    out.missing += f.attr.size.saturating_sub(look.here);
                }
                Ok(true)
            })?;
            Ok(out)
        })
        .await?;
        self.pinner.look_through();
        Ok(Response::Pinned(pinned))
    }

    pub(super) async fn unpin(&self, request: OnPath) -> Result<Response> {
        // What was pinned may be gone by now.
        let path = self.path(&request.path)?;
        let vfs = self.vfs.clone();
        let at = path.clone();
        let was_pinned = blocking(move || {
            let was = vfs.pinned(&at)?;
            if !was {
                vfs.must_exist(&at)?;
            }
            vfs.pin(&at, false)?;
            Ok(was)
        })
        .await?;
        self.pinner.look_through();
        Ok(Response::Unpinned(Unpinned { path: path.as_str().to_owned(), was_pinned }))
    }
}

fn gone<T>(r: &Result<T>) -> bool {
    r.as_ref().is_err_and(|e| matches!(e.kind(), Kind::NotFound | Kind::Stale))
}

/// Drops a file's bytes once its manifest and every chunk was seen in the store.
async fn drop_verified(vfs: &Arc<Vfs>, f: &Found) -> Result<Dropped> {
    let (v, at) = (vfs.clone(), f.clone());
    let look = blocking(move || v.look(&at)).await?;
    match look.held {
        Held::Stub => return Ok(Dropped::WasStub),
        Held::LocalOnly => return Ok(Dropped::Kept("local-only: it is nowhere else")),
        Held::Pending => return Ok(Dropped::Kept("not published yet")),
        Held::Partial | Held::Hydrated if f.attr.size == 0 => return Ok(Dropped::WasStub),
        Held::Partial | Held::Hydrated => {}
    }
    vfs.drop_verified(f.attr.ino, Priority::Foreground).await
}

/// Keeps what is pinned here.
pub(super) struct Pinner {
    vfs: Arc<Vfs>,
    queue: Mutex<Queue>,
    wake: Notify,
    bytes: AtomicU64,
}

#[derive(Default)]
struct Queue {
    names: Vec<(u64, String)>,
    inos: Vec<u64>,
    all: bool,
}

impl Invalidate for Pinner {
    fn name(&self, dir: u64, name: &str, _was: u64) {
        self.note(|q| q.names.push((dir, name.to_owned())));
    }
    fn attr(&self, ino: u64) {
        self.note(|q| q.inos.push(ino));
    }
    fn data(&self, ino: u64) {
        self.note(|q| q.inos.push(ino));
    }
    fn pins(&self) {
        self.look_through();
    }
}

impl Pinner {
    pub(super) fn new(vfs: Arc<Vfs>) -> Arc<Pinner> {
        let queue = Queue { all: true, ..Queue::default() };
        Arc::new(Pinner { vfs, queue: Mutex::new(queue), wake: Notify::new(), bytes: AtomicU64::new(0) })
    }

    /// Bytes of pinned files that are here, as of the last look.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Looks through everything pinned soon.
    pub(super) fn look_through(&self) {
        self.queue.lock().all = true;
        self.wake.notify_one();
    }

    fn note(&self, add: impl FnOnce(&mut Queue)) {
        let mut q = self.queue.lock();
        if q.all {
            return;
        }
        add(&mut q);
        if q.names.len() + q.inos.len() > QUEUE {
            *q = Queue { all: true, ..Queue::default() };
        }
        drop(q);
        self.wake.notify_one();
    }

    /// Works until `stop` says true.
    pub(super) async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            let queue = std::mem::take(&mut *self.queue.lock());
            let work = async {
                if let Err(e) = self.look(queue).await {
                    tracing::debug!(error = %e, "fetching what is pinned; it is tried again");
                }
            };
            tokio::select! { () = work => {}, _ = stop.wait_for(|s| *s) => return }
            let woken = tokio::select! {
                () = self.wake.notified() => true,
                () = tokio::time::sleep(AGAIN) => false,
                _ = stop.wait_for(|s| *s) => return,
            };
            if woken {
                tokio::time::sleep(SETTLE).await;
            } else {
                self.queue.lock().all = true;
            }
        }
    }

    async fn look(&self, queue: Queue) -> Result<()> {
        let vfs = self.vfs.clone();
        let whole = queue.all;
        let (wanted, here) = blocking(move || {
            let pins = super::paths::pins(&vfs)?;
            let mut wanted = Vec::new();
            let mut here = 0u64;
            // Rules are always wanted: until they are here they do not count.
            let rules: Vec<u64> = vfs.wanted_rules();
            wanted.extend(rules.into_iter().map(|ino| (ino, 0)));
            let is_rules = |p: &RelPath| !p.is_root() && p.file_name() == IGNORE_FILE;
            let tops: Vec<Found> = if queue.all {
                let paths = pins.0.iter().filter_map(|p| RelPath::parse(p).ok());
                // What lies below another pin is walked with that one.
                let own = |p: &RelPath| !p.parent().is_some_and(|up| pins.cover(&up));
                paths.filter(own).filter_map(|p| vfs.find(&p).ok()).collect()
            } else {
                let names = queue.names.into_iter().filter_map(|(dir, name)| Some(vfs.path_of(dir).ok()?.join(&name)));
                let inos = queue.inos.into_iter().filter(|i| vfs.getattr(*i).is_ok_and(|a| a.kind == FileType::File));
                let paths: Vec<RelPath> = names.chain(inos.filter_map(|i| vfs.path_of(i).ok())).collect();
                paths.into_iter().filter(|p| pins.cover(p) || is_rules(p)).filter_map(|p| vfs.find(&p).ok()).collect()
            };
            for top in tops {
                for f in files(&vfs, top)? {
                    let Ok(look) = vfs.look(&f) else { continue };
                    here += look.here;
                    if look.here < f.attr.size {
                        wanted.push((f.attr.ino, f.attr.size - look.here));
                    }
                }
            }
            Ok((wanted, here))
        })
        .await?;
        if whole {
            self.bytes.store(here, Ordering::Relaxed);
        }
        let rules = !wanted.is_empty();
        let mut fetching = stream::iter(wanted)
            .map(|(ino, missing)| {
                let vfs = self.vfs.clone();
                async move { vfs.hydrate(ino, &|_, _| {}).await.map(|_| missing) }.boxed()
            })
            .buffer_unordered(PARALLEL / 2);
        while let Some(r) = fetching.next().await {
            match r {
                Ok(n) => drop(self.bytes.fetch_add(n, Ordering::Relaxed)),
                Err(e) if matches!(e.kind(), Kind::Unavailable | Kind::Timeout | Kind::Unauthorized) => return Err(e),
                Err(e) => tracing::debug!(error = %e, "fetching a pinned file"),
            }
        }
        if rules {
            self.vfs.rules_changed();
        }
        Ok(())
    }
}
