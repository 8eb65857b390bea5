//! The drive as its front ends see it: one call, typed requests and answers, progress on the side.
//!
//! Behind it is either the core in this process (`tcfs push` without a daemon) or a daemon's socket
//! (`daemon::client::Client`); front ends cannot tell. Tests put a fake behind it.

use super::protocol::{Item, MountInfo, ProgressLine, Request, Response, Unit};
use crate::error::{Error, Kind, Result};
use async_trait::async_trait;
use tokio::sync::mpsc;

/// Does what is asked.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// Does `request`. Many calls run at once.
    ///
    /// Cancel-safe by contract: the future is dropped when the client goes away, so work that must not stop halfway
    /// is moved into a task of the service's own before the first `.await`.
    async fn call(&self, request: Request, progress: &Progress) -> Result<Response>;

    /// What is mounted right now; no I/O. The daemon decides by it whether to stay.
    fn mounts(&self) -> Vec<MountInfo> {
        Vec::new()
    }

    /// The end: unmounts what is mounted, seals and keeps everything, closes the state. Called once, after the last
    /// `call` has returned or was dropped; never fails, only logs. Bounded: it does not wait for the store.
    async fn shutdown(&self) {}
}

/// Updates under way to whoever collects them.
const UPDATES: usize = 256;

/// One request with all its items; its progress is nobody's.
pub async fn collect(service: &dyn Service, request: Request) -> Result<(Vec<Item>, Response)> {
    let (progress, mut updates) = Progress::channel(UPDATES);
    let call = service.call(request, &progress);
    let mut items = Vec::new();
    let mut take = |u: Update| {
        if let Update::Item(i) = u {
            items.push(i)
        }
    };
    tokio::pin!(call);
    let result = loop {
        tokio::select! {
            biased;
            Some(u) = updates.recv() => take(u),
            r = &mut call => break r,
        }
    };
    while let Ok(u) = updates.try_recv() {
        take(u);
    }
    Ok((items, result?))
}

/// What a call sends while it runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// How far it is.
    Progress(ProgressLine),
    /// An element of a list.
    Item(Item),
}

/// Where a running call reports to. Cheap to clone into tasks.
#[derive(Clone)]
pub struct Progress {
    to: Option<mpsc::Sender<Update>>,
}

impl Progress {
    /// Nobody listens.
    pub fn none() -> Progress {
        Progress { to: None }
    }

    /// Reports into a channel of `capacity`.
    pub fn channel(capacity: usize) -> (Progress, mpsc::Receiver<Update>) {
        let (tx, rx) = mpsc::channel(capacity);
        (Progress { to: Some(tx) }, rx)
    }

    /// How far it is. Never waits: a line that does not fit is dropped, the next one carries the newer state anyway.
    pub fn report(&self, line: ProgressLine) {
        if let Some(to) = &self.to {
            let _ = to.try_send(Update::Progress(line));
        }
    }

    /// [`report`](Self::report) in bytes.
    pub fn bytes(&self, what: &str, done: u64, total: Option<u64>, path: Option<&str>) {
        self.report(ProgressLine { what: what.to_owned(), done, total, unit: Unit::Bytes, path: path.map(str::to_owned) });
    }

    /// [`report`](Self::report) in files.
    pub fn files(&self, what: &str, done: u64, total: Option<u64>, path: Option<&str>) {
        self.report(ProgressLine { what: what.to_owned(), done, total, unit: Unit::Files, path: path.map(str::to_owned) });
    }

    /// One element of a list; waits for a slow reader. `Interrupted` when nobody reads any more: stop then.
    pub async fn item(&self, item: Item) -> Result<()> {
        match &self.to {
            None => Ok(()),
            Some(to) => {
                to.send(Update::Item(item)).await.map_err(|_| Error::new(Kind::Interrupted, "sending a list: the reader went away"))
            }
        }
    }

    /// Like [`item`](Self::item), from a blocking thread.
    pub fn blocking_item(&self, item: Item) -> Result<()> {
        match &self.to {
            None => Ok(()),
            Some(to) => {
                to.blocking_send(Update::Item(item)).map_err(|_| Error::new(Kind::Interrupted, "sending a list: the reader went away"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::protocol::Check;

    #[tokio::test]
    async fn progress_is_dropped_when_full_and_items_wait() {
        let (p, mut rx) = Progress::channel(1);
        p.files("reading", 1, None, None);
        p.files("reading", 2, None, None);
        let item = p.item(Item::Check(Check::ok("x", "y")));
        tokio::pin!(item);
        assert!(futures_util::poll!(&mut item).is_pending());
        assert!(matches!(rx.recv().await, Some(Update::Progress(l)) if l.done == 1));
        item.await.unwrap();
        assert!(matches!(rx.recv().await, Some(Update::Item(_))));
        drop(rx);
        assert_eq!(p.item(Item::Check(Check::ok("x", "y"))).await.unwrap_err().kind(), Kind::Interrupted);
    }
}
