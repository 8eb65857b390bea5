//! How long to wait before something that failed is tried again.

use std::time::Duration;

/// The first wait, doubled so often, up to the longest; between half and the whole of it, so that many devices do not come
/// back in step.
pub(super) fn backoff((first, longest): (Duration, Duration), doublings: u32) -> Duration {
    let full = first.saturating_mul(1 << doublings.min(10)).min(longest);
    full.mul_f64(0.5 + fastrand::f64() / 2.0)
}
