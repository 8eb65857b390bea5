//! Bursts of saves: an archive being unpacked, a build. They go out as what is left of them when they pause, and the
//! programs that write them have the processor to themselves meanwhile.
//!
//! Must: a single save waits for nothing; a burst waits for at most a second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// So many saves since the last look are a burst…
const BURST: u64 = 8;
/// …until so long fewer than that came…
const LULL: Duration = Duration::from_millis(20);
/// …or at the latest after this time.
const LONGEST: Duration = Duration::from_secs(1);

/// Who publishes asks it before each round.
#[derive(Default)]
pub(super) struct Burst {
    /// Saves that were known at the last look.
    seen: u64,
}

impl Burst {
    /// Waits while many files are saved one after the other. `saves` counts them. Cancel-safe.
    pub(super) async fn pass(&mut self, saves: &AtomicU64) {
        let start = Instant::now();
        loop {
            let now = saves.load(Ordering::Relaxed);
            let new = now - std::mem::replace(&mut self.seen, now);
            if new < BURST || start.elapsed() >= LONGEST {
                return;
            }
            tokio::time::sleep(LULL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::sync::Arc;

    #[tokio::test]
    async fn few_saves_wait_for_nothing_and_a_burst_until_it_pauses() {
        let (mut burst, saves) = (Burst::default(), AtomicU64::new(0));
        for _ in 0..3 {
            assert!(burst.pass(&saves).now_or_never().is_some());
            saves.fetch_add(BURST - 1, Ordering::Relaxed);
        }
        assert!(burst.pass(&saves).now_or_never().is_some());
        saves.fetch_add(BURST, Ordering::Relaxed);
        {
            let pass = burst.pass(&saves);
            tokio::pin!(pass);
            assert!(pass.as_mut().now_or_never().is_none(), "a burst was not waited for");
            pass.await;
        }
        assert!(burst.pass(&saves).now_or_never().is_some());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_burst_without_end_is_not_waited_for_for_ever() {
        let (saves, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (s, e) = (saves.clone(), stop.clone());
        let writer = std::thread::spawn(move || {
            while e.load(Ordering::Relaxed) == 0 {
                s.fetch_add(1, Ordering::Relaxed);
            }
        });
        Burst::default().pass(&saves).await;
        stop.store(1, Ordering::Relaxed);
        writer.join().unwrap();
    }
}
