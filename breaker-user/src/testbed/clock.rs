//! The clock that the kernel program stamps with.

use std::fmt;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A moment on `CLOCK_MONOTONIC`: the clock of [`std::time::Instant`] and of the kernel's `bpf_ktime_get_ns`, in a form
/// that can be compared with the latter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The moment that it is.
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        // Monotonic time counts up from 0 at boot, so neither part is ever negative.
        Self(now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs())
    }

    /// The moment that the kernel stamped so.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds on `CLOCK_MONOTONIC`, as `bpf_ktime_get_ns` gives them.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this moment; nothing where `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The time from this moment to now.
    pub fn elapsed(self) -> Duration {
        Self::now().since(self)
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09} s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}
