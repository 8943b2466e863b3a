//! The kernel program's clock, CLOCK_MONOTONIC, and what its readings are in the time of day. No decision uses the time of day.

use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC, ns: what `bpf_ktime_get_ns` reads.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The time of day at a reading of [`now_ns`].
pub fn time_of(at_ns: u64) -> Timestamp {
    let age = Duration::from_nanos(now_ns().saturating_sub(at_ns));
    Timestamp::now() - age
}
