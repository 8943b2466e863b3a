//! Evicts closed connections from the connection table. The kernel program does not, because late packets may
//! follow.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::loaded::Loaded;
use super::notice::notice;
use super::periodic::{Interval, run_blocking};

const INTERVAL: Interval = Interval::new(Duration::from_secs(10));
/// Time since the FIN or RST of an evicted connection: longer than TCP retransmits either (tcp(7),
/// `tcp_fin_timeout`).
const CLOSED_FOR: Duration = Duration::from_secs(120);

/// Evicts closed connections until the shutdown.
pub async fn run(loaded: Arc<Loaded>, shutdown: impl Future<Output = ()>) {
    let work = move || loaded.in_force().breaker.evict_closed(CLOSED_FOR.as_nanos() as u64);
    run_blocking(INTERVAL, shutdown, work, |result| {
        if let Err(error) = result {
            notice(&format!("closed connections were not evicted: {error:#}"));
        }
    })
    .await;
}
