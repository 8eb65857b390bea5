//! Room for the bytes of large reads, used again: fresh memory of that size is zeroed and mapped page by page each time, which
//! takes as long as the read itself.
//!
//! Memory: at most [`KEPT`] of them while nothing is read, each for as much as one reply carries.

use super::wire::DATA_MAX;
use parking_lot::Mutex;

/// From this size on room is kept.
const LARGE: usize = 128 << 10;
/// So many are kept.
const KEPT: usize = 16;

/// What is free.
#[derive(Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// Room for `len` bytes; what is in it means nothing.
    pub(super) fn take(&self, len: usize) -> Vec<u8> {
        if len < LARGE {
            return vec![0; len];
        }
        let mut room = self.0.lock().pop().unwrap_or_else(|| Vec::with_capacity(DATA_MAX as usize + LARGE));
        room.resize(len, 0);
        room
    }

    /// Gives it back.
    pub(super) fn give(&self, room: Vec<u8>) {
        if room.capacity() >= LARGE {
            let mut free = self.0.lock();
            if free.len() < KEPT {
                free.push(room);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_room_is_used_again_and_small_is_not_kept() {
        let b = Buffers::default();
        let first = b.take(LARGE + 5);
        let at = first.as_ptr();
        b.give(first);
        let again = b.take(LARGE + 9);
        assert_eq!((again.as_ptr(), again.len()), (at, LARGE + 9));
        let small = b.take(10);
        b.give(small);
        assert!(b.0.lock().is_empty());
        (0..2 * KEPT).for_each(|_| b.give(vec![0; LARGE]));
        assert_eq!(b.0.lock().len(), KEPT);
    }
}
