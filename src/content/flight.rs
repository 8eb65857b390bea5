//! Single flight: callers that want the same thing at the same time share one piece of work.
//!
//! Must: at most one flight per key; every waiter gets its outcome, also when the one who began it went away.
//! Must: a flight that nobody waits for any more is stopped; one that panics is an error to its waiters, not a hang.
//! Not here: what a flight does (`fetch`).

use crate::error::{Error, Kind, Result};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

/// An error that can be given to several.
#[derive(Clone)]
struct Fault {
    kind: Kind,
    text: String,
    hint: Option<String>,
}

impl Fault {
    fn of(e: &Error) -> Fault {
        Fault { kind: e.kind(), text: e.to_string(), hint: e.hint_text().map(str::to_owned) }
    }
    fn error(&self, kind: Kind) -> Error {
        let e = Error::new(kind, self.text.clone());
        match &self.hint {
            Some(h) => e.hint(h.clone()),
            None => e,
        }
    }
}

#[derive(Clone)]
enum Outcome {
    /// Under way; the last error that is being retried.
    Flying(Option<Fault>),
    Landed(std::result::Result<Bytes, Fault>),
}

/// What the work and its waiters share.
pub(super) struct Flight {
    /// Whether a program waits for it.
    pub(super) urgent: Arc<AtomicBool>,
    outcome: watch::Sender<Outcome>,
}

impl Flight {
    /// Tells the waiters what is being retried; they report it if their time runs out.
    pub(super) fn retrying(&self, e: &Error) {
        self.outcome.send_replace(Outcome::Flying(Some(Fault::of(e))));
    }
}

struct Entry {
    id: u64,
    waiters: usize,
    flight: Arc<Flight>,
    abort: AbortHandle,
}

/// The flights under way. Lock order: `table` is a leaf.
pub(super) struct Flights<K> {
    table: Mutex<Table<K>>,
}

struct Table<K> {
    entries: HashMap<K, Entry>,
    next: u64,
}

/// A caller's interest in a flight; dropping it gives the interest up.
pub(super) struct Waiter<K: Eq + Hash> {
    flights: Arc<Flights<K>>,
    key: K,
    id: u64,
    flight: Arc<Flight>,
    /// Whether the flight was under way already.
    pub(super) joined: bool,
}

impl<K: Eq + Hash + Clone + Send + 'static> Flights<K> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Flights { table: Mutex::new(Table { entries: HashMap::new(), next: 0 }) })
    }

    /// Joins the flight for `key`, or begins it with the future that `work` makes, on a task of its own.
    pub(super) fn join<F>(self: &Arc<Self>, key: K, urgent: bool, work: impl FnOnce(Arc<Flight>) -> F) -> Waiter<K>
    where
        F: Future<Output = Result<Bytes>> + Send + 'static,
    {
        let mut table = self.table.lock();
        if let Some(e) = table.entries.get_mut(&key) {
            e.waiters += 1;
            if urgent {
                e.flight.urgent.store(true, Relaxed);
            }
            return Waiter { flights: self.clone(), key, id: e.id, flight: e.flight.clone(), joined: true };
        }
        let flight = Arc::new(Flight { urgent: Arc::new(AtomicBool::new(urgent)), outcome: watch::Sender::new(Outcome::Flying(None)) });
        let id = table.next;
        table.next += 1;
        let landing = Landing { flights: self.clone(), key: key.clone(), id, flight: flight.clone() };
        let work = work(flight.clone());
        let task = tokio::spawn(async move {
            let result = work.await;
            landing.land(result.map_err(|e| Fault::of(&e)));
        });
        table.entries.insert(key.clone(), Entry { id, waiters: 1, flight: flight.clone(), abort: task.abort_handle() });
        Waiter { flights: self.clone(), key, id, flight, joined: false }
    }
}

/// Makes sure that a flight ends with an outcome, even by a panic.
struct Landing<K: Eq + Hash> {
    flights: Arc<Flights<K>>,
    key: K,
    id: u64,
    flight: Arc<Flight>,
}

impl<K: Eq + Hash> Landing<K> {
    fn land(&self, result: std::result::Result<Bytes, Fault>) {
        // First the outcome, then the entry: who joins between the two finds it done.
        self.flight.outcome.send_replace(Outcome::Landed(result));
        let mut table = self.flights.table.lock();
        if table.entries.get(&self.key).is_some_and(|e| e.id == self.id) {
            table.entries.remove(&self.key);
        }
    }
}

impl<K: Eq + Hash> Drop for Landing<K> {
    fn drop(&mut self) {
        let landed = matches!(*self.flight.outcome.borrow(), Outcome::Landed(_));
        if !landed {
            self.land(Err(Fault { kind: Kind::Internal, text: "fetching: the task ended without a result".into(), hint: None }));
        }
    }
}

impl<K: Eq + Hash> Waiter<K> {
    /// Waits for the outcome until `deadline`. Errors: those of the flight; at the deadline `Unavailable` with the error
    /// that was being retried, or `Timeout` if there was no answer at all.
    pub(super) async fn wait(self, what: impl FnOnce() -> String, deadline: Instant) -> Result<Bytes> {
        let mut outcome = self.flight.outcome.subscribe();
        let landed = timeout_at(deadline, outcome.wait_for(|o| matches!(o, Outcome::Landed(_)))).await;
        let last = match landed {
            Ok(Ok(o)) => o.clone(),
            // The sender lives in `self.flight`; the last value says it all.
            Ok(Err(_)) | Err(_) => self.flight.outcome.borrow().clone(),
        };
        match last {
            Outcome::Landed(Ok(bytes)) => Ok(bytes),
            Outcome::Landed(Err(f)) => Err(f.error(f.kind)),
            Outcome::Flying(Some(f)) => Err(f.error(Kind::Unavailable).context(format!("{} within the time given", what()))),
            Outcome::Flying(None) => Err(Error::new(Kind::Timeout, format!("{}: no answer within the time given", what()))
                .hint("the store is slow or cannot be reached; try again, or look at `tcfs status`")),
        }
    }
}

impl<K: Eq + Hash> Drop for Waiter<K> {
    fn drop(&mut self) {
        let stop = {
            let mut table = self.flights.table.lock();
            match table.entries.get_mut(&self.key) {
                Some(e) if e.id == self.id => {
                    e.waiters -= 1;
                    if e.waiters == 0 { table.entries.remove(&self.key) } else { None }
                }
                _ => None,
            }
        };
        if let Some(e) = stop {
            e.abort.abort();
        }
    }
}
