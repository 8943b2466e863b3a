//! Periodic work on a blocking thread, which keeps the heartbeat's thread free.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::select;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::notice::notice;

/// Interval of periodic work.
#[derive(Clone, Copy)]
pub struct Interval {
    /// Time between the starts of two runs.
    pub period: Duration,
    /// Shortest pause after a run, as a multiple of the run's duration.
    pub min_pause_ratio: u32,
}

impl Interval {
    /// An interval without a minimum pause.
    pub const fn new(period: Duration) -> Self {
        Self { period, min_pause_ratio: 0 }
    }

    fn pause_after(self, run: Duration) -> Duration {
        self.period.saturating_sub(run).max(run * self.min_pause_ratio)
    }
}

/// Runs `work` on a blocking thread at once and then in each interval, until the shutdown. Calls `report`
/// with each result on the agent's own thread. A panic in `work` ends that run only.
pub async fn run_blocking<R: Send + 'static>(
    interval: Interval,
    shutdown: impl Future<Output = ()>,
    work: impl Fn() -> R + Send + Sync + 'static,
    mut report: impl FnMut(R),
) {
    tokio::pin!(shutdown);
    let work = Arc::new(work);
    let mut pause = Duration::ZERO;
    loop {
        select! {
            () = sleep(pause) => {}
            () = &mut shutdown => return,
        }
        let (run, start) = (Arc::clone(&work), Instant::now());
        match spawn_blocking(move || run()).await {
            Ok(result) => report(result),
            Err(error) => notice(&format!("periodic work failed: {error}: it is retried")),
        }
        pause = interval.pause_after(start.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_takes_long_is_followed_by_a_pause() {
        let second = Duration::from_secs(1);
        let tenth = Duration::from_millis(100);
        assert_eq!(Interval::new(second).pause_after(tenth), 9 * tenth);
        assert_eq!(Interval::new(second).pause_after(2 * second), Duration::ZERO);
        let interval = Interval { period: second, min_pause_ratio: 50 };
        assert_eq!(interval.pause_after(Duration::from_millis(1)), Duration::from_millis(999));
        assert_eq!(interval.pause_after(tenth), 50 * tenth);
    }
}
