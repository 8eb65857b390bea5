//! Replies that are kept for a while, so that a call which comes again is not done again.
//!
//! Told apart by all of its bytes, the number that the client gave it among them.

use super::wire::Reply;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::OnceCell;

/// So many are kept: more than a client has under way.
const KEPT: usize = 1024;

/// The reply to a call, once there is one.
pub(super) type Slot = Arc<OnceCell<Reply>>;

/// Replies by call.
#[derive(Default)]
pub(super) struct Replies {
    known: Mutex<(HashMap<blake3::Hash, Slot>, VecDeque<blake3::Hash>)>,
}

impl Replies {
    /// Where the reply to this call is, or will be.
    pub(super) fn slot(&self, record: &[u8]) -> Slot {
        let key = blake3::hash(record);
        let mut known = self.known.lock();
        let (slots, order) = &mut *known;
        if let Some(s) = slots.get(&key) {
            return s.clone();
        }
        if order.len() >= KEPT
            && let Some(oldest) = order.pop_front()
        {
            slots.remove(&oldest);
        }
        order.push_back(key);
        slots.entry(key).or_default().clone()
    }
}
