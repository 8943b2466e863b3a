//! Times between two attempts.

use std::time::Duration;

/// Shortest time between two attempts.
const SHORTEST: Duration = Duration::from_millis(20);

/// Times between attempts: random from 20 ms to a bound that doubles with each attempt. Clients that lost the
/// same member therefore do not return at the same moment.
pub(super) struct Backoff {
    bound: Duration,
    longest: Duration,
}

impl Backoff {
    /// Times up to `longest`.
    pub const fn new(longest: Duration) -> Self {
        Self { bound: SHORTEST, longest }
    }

    /// The time until the next attempt.
    pub fn next(&mut self) -> Duration {
        self.bound = (self.bound * 2).min(self.longest);
        SHORTEST + (self.bound - SHORTEST).mul_f64(fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_grow_from_20_ms_to_the_longest() {
        let longest = Duration::from_secs(1);
        let mut backoff = Backoff::new(longest);
        let times: Vec<_> = std::iter::repeat_with(|| backoff.next()).take(1_000).collect();
        assert!(times.iter().all(|time| (SHORTEST..=longest).contains(time)));
        assert!(times[0] <= SHORTEST * 2 && times[10..].iter().any(|time| *time > longest / 2));
    }
}
