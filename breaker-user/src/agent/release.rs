//! Releases memory that only the start or a large response needed.

use std::future::Future;
use std::time::Duration;

use super::periodic::{Interval, run_blocking};
use crate::resident;

const INTERVAL: Interval = Interval { period: Duration::from_secs(2), min_pause_ratio: 100 };

/// Releases it in each interval until the shutdown.
pub async fn run(shutdown: impl Future<Output = ()>) {
    run_blocking(INTERVAL, shutdown, resident::release, |()| {}).await;
}
