//! Disconnects fenced connections.
//!
//! The hook's RST reaches a socket with its next payload only, so that an idle socket would stay open. Strict
//! reverse path filtering may also drop the RST to this host.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use breaker_common::abi::mode;
use serde_json::json;

use super::loaded::Loaded;
use super::log::Log;
use super::notice::notice;
use super::periodic::{Interval, run_blocking};
use crate::config::SessionIndex;
use crate::kernel::Breaker;
use crate::kernel::disconnect::Selection;

const INTERVAL: Interval = Interval::new(Duration::from_secs(1));

/// Disconnects fenced connections until the shutdown.
pub async fn run(loaded: Arc<Loaded>, log: Arc<Log>, shutdown: impl Future<Output = ()>) {
    let worker = Arc::clone(&loaded);
    let work = move || disconnect_fenced(&worker.in_force().breaker);
    run_blocking(INTERVAL, shutdown, work, |result| match result {
        Ok(0) => {}
        Ok(count) => log.record(loaded.entry("connections_ended", json!({ "connections": count }))),
        Err(error) => notice(&format!("fenced connections were not ended: {error:#}")),
    })
    .await;
}

/// Disconnects the fenced connections of sessions with `on_trip = "reset"`, and returns their number.
fn disconnect_fenced(breaker: &Breaker) -> Result<usize> {
    let counts = breaker.connection_counts()?;
    let is_fenced =
        |session: &SessionIndex| counts.get(session.get() as usize).is_some_and(|count| count.fenced != 0);
    let fenced: Vec<_> = breaker.names().sessions().filter(is_fenced).collect();
    if fenced.is_empty() || breaker.meta().mode == mode::INLINE {
        return Ok(0);
    }
    breaker.disconnect(&breaker.with_tcp_resets(fenced)?, Selection::Fenced)
}
