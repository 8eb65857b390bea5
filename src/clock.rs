//! Time and randomness as inputs, so that tests turn the clock by hand and a seed decides a whole world.
//!
//! Not here: durations and timers of the runtime (`tokio::time`), which tests pause instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A source of wall-clock time and of random numbers.
pub trait Clock: Send + Sync {
    /// Nanoseconds since 1970; may jump, and decides nothing about order between devices.
    fn now_ns(&self) -> i64;
    /// 64 random bits.
    fn random(&self) -> u64;
    /// Milliseconds since 1970.
    fn now_ms(&self) -> i64 {
        self.now_ns() / 1_000_000
    }
}

/// A moment by both clocks of a machine: the one that people set, and the one that only goes forward and stands still
/// while the machine sleeps.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    wall: i64,
    at: Instant,
}

impl Moment {
    /// Now.
    pub fn now(clock: &dyn Clock) -> Moment {
        Moment { wall: clock.now_ms(), at: Instant::now() }
    }

    /// Whether it is at most `d` ago by either clock. A clock that was turned back, and a machine that slept, only make it
    /// longer ago.
    pub fn is_within(&self, d: Duration, clock: &dyn Clock) -> bool {
        let by_wall = clock.now_ms().checked_sub(self.wall).is_some_and(|ms| (0..=d.as_millis() as i64).contains(&ms));
        by_wall && self.at.elapsed() <= d
    }
}

/// The machine's clock and the operating system's random numbers.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ns(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(d) => d.as_nanos() as i64,
            Err(e) => -(e.duration().as_nanos() as i64),
        }
    }
    fn random(&self) -> u64 {
        // The kernel's generator does not fail once the system is up; a failure here is a broken machine.
        getrandom::u64().expect("the kernel's random number generator answers")
    }
}

/// A clock for tests: stands still until it is turned; its random numbers follow from the seed.
pub struct ManualClock {
    ns: AtomicI64,
    seed: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `ns` and draws from `seed`.
    pub fn new(ns: i64, seed: u64) -> Arc<Self> {
        Arc::new(ManualClock { ns: AtomicI64::new(ns), seed: AtomicU64::new(seed) })
    }
    /// Turns it forward (or back) by `ns`.
    pub fn advance(&self, ns: i64) {
        self.ns.fetch_add(ns, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ns(&self) -> i64 {
        self.ns.load(Ordering::SeqCst)
    }
    fn random(&self) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014): one addition decides the next state.
        let mut z = self.seed.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::SeqCst).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
