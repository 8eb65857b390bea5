//! Turns at the store: so many requests and so many bytes at a time, what a program waits for first.
//!
//! Must: a foreground request never waits for a background one that has not begun, and never for all the places being
//! taken by background ones. Must: dropping a wait or a permit gives its place to the next.
//! Within a class it is first come, first served; a big request is not overtaken by small ones of its class.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::sync::oneshot;

/// Who is waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// A program is stopped until the bytes come.
    Foreground,
    /// Read-ahead, background hydration, pins.
    Background,
}

/// The bounds and the queue. Lock order: `state` is a leaf; nothing is called with it held.
pub(super) struct Slots {
    state: Mutex<State>,
    requests: usize,
    background: usize,
    memory: u64,
}

#[derive(Default)]
struct State {
    running: usize,
    running_background: usize,
    bytes: u64,
    queue: VecDeque<Ticket>,
    next: u64,
}

struct Ticket {
    id: u64,
    /// Shared with the request, which becomes urgent when a program joins it.
    urgent: Arc<AtomicBool>,
    bytes: u64,
    go: oneshot::Sender<Permit>,
}

/// The right to one request; gives it back when dropped.
pub(super) struct Permit {
    slots: Arc<Slots>,
    bytes: u64,
    background: bool,
}

/// A place in the queue; leaves it when dropped.
struct Place {
    slots: Arc<Slots>,
    id: u64,
}

impl Slots {
    /// At most `requests` at a time, of which at most `background` in the background, with `memory` bytes together. A
    /// request that is larger than that alone goes when nothing else runs.
    pub(super) fn new(requests: usize, background: usize, memory: u64) -> Arc<Self> {
        let requests = requests.max(1);
        // One place stays for the foreground where there are two.
        let background = background.clamp(1, requests.max(2) - 1);
        Arc::new(Slots { state: Mutex::default(), requests, background, memory })
    }

    /// Waits for a turn. Cancel-safe.
    pub(super) async fn acquire(self: &Arc<Self>, urgent: Arc<AtomicBool>, bytes: u64) -> Permit {
        let (go, turn) = oneshot::channel();
        let place = {
            let mut s = self.state.lock();
            let id = s.next;
            s.next += 1;
            s.queue.push_back(Ticket { id, urgent, bytes, go });
            Place { slots: self.clone(), id }
        };
        self.serve();
        let permit = turn.await;
        drop(place);
        // Only `serve` takes tickets out while their place is held, and it sends a permit to each.
        permit.expect("a ticket is dropped with its place or served")
    }

    /// Gives turns to whoever can go. Call after a request became urgent.
    pub(super) fn serve(self: &Arc<Self>) {
        loop {
            let (ticket, background) = {
                let mut s = self.state.lock();
                let urgent = s.queue.iter().position(|t| t.urgent.load(Relaxed));
                let (at, background) = match urgent {
                    Some(at) => (at, false),
                    None if s.running_background < self.background => (0, true),
                    None => return,
                };
                let Some(ticket) = s.queue.get(at) else { return };
                let fits = s.running == 0 || (s.running < self.requests && s.bytes + ticket.bytes <= self.memory);
                if !fits {
                    return;
                }
                let Some(ticket) = s.queue.remove(at) else { return };
                s.running += 1;
                s.running_background += usize::from(background);
                s.bytes += ticket.bytes;
                (ticket, background)
            };
            let permit = Permit { slots: self.clone(), bytes: ticket.bytes, background };
            // If the waiter is gone the permit comes back and is dropped here, with no lock held. Its drop calls this
            // function again: at most as deep as there are waiters that left in this very moment.
            drop(ticket.go.send(permit));
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        {
            let mut s = self.slots.state.lock();
            s.running -= 1;
            s.running_background -= usize::from(self.background);
            s.bytes -= self.bytes;
        }
        self.slots.serve();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let left = {
            let mut s = self.slots.state.lock();
            let at = s.queue.iter().position(|t| t.id == self.id);
            at.and_then(|at| s.queue.remove(at))
        };
        // Whoever stood behind a big one may fit now.
        if left.is_some() {
            self.slots.serve();
        }
    }
}
