//! Sends the number and hash of the audit log's last line to journald once a minute. An attacker who
//! truncates the log, its companion file and the maps does not reach a journal that is sealed or forwarded.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::log::Log;
use super::periodic::{Interval, run_blocking};
use crate::journald;

const INTERVAL: Interval = Interval::new(Duration::from_secs(60));

/// Sends immediately and then once a minute, until the shutdown.
pub async fn run(log: Arc<Log>, shutdown: impl Future<Output = ()>) {
    let send = move || {
        if let Some(end) = log.last_line() {
            // The result is ignored: a host without journald has the other anchors.
            let _ = journald::send_end(log.path(), &end);
        }
    };
    run_blocking(INTERVAL, shutdown, send, |()| {}).await;
}
