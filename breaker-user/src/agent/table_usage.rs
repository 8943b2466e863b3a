//! Reports a connection table that fills up. New connections of an armed session are withheld while the table
//! is full.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::loaded::Loaded;
use super::log::Log;
use super::notice::notice;
use super::periodic::{Interval, run_blocking};

/// At most every second, and at most 2 % of the time: a full table takes a tenth of a second to walk.
const INTERVAL: Interval = Interval { period: Duration::from_secs(1), min_pause_ratio: 50 };

/// A fill level that is reported.
struct Level {
    /// Percentage at which it is reached.
    reached: u64,
    /// Percentage below which it is left.
    left: u64,
    /// Kind of the event.
    kind: &'static str,
}

const LEVELS: [Level; 2] = [
    Level { reached: 80, left: 75, kind: "table_filling" },
    Level { reached: 100, left: 95, kind: "table_full" },
];

/// Reports the levels that the table reaches, until the shutdown.
pub async fn run(loaded: Arc<Loaded>, log: Arc<Log>, shutdown: impl Future<Output = ()>) {
    let worker = Arc::clone(&loaded);
    let work = move || worker.in_force().breaker.live_connections();
    let mut reached = [false; LEVELS.len()];
    run_blocking(INTERVAL, shutdown, work, |result| {
        let Ok(used) = result else { return };
        let size = u64::from(loaded.in_force().breaker.meta().connections);
        for kind in newly_reached(&mut reached, used, size) {
            notice(&format!("{kind}: {used} of {size} connections: raise [host].connections"));
            log.record(loaded.entry(kind, json!({ "used": used, "size": size })));
        }
    })
    .await;
}

/// Updates the levels, and returns the kinds of those that are newly reached.
fn newly_reached(reached: &mut [bool; LEVELS.len()], used: u64, size: u64) -> Vec<&'static str> {
    let mut kinds = Vec::new();
    for (reached, level) in reached.iter_mut().zip(LEVELS) {
        let is_at = |percent: u64| used * 100 >= size * percent;
        if !*reached && is_at(level.reached) {
            kinds.push(level.kind);
        }
        *reached = is_at(level.reached) || *reached && is_at(level.left);
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_is_reported_once_each_time_it_is_reached() {
        let mut reached = [false; 2];
        let filling = ["table_filling"].as_slice();
        let full = ["table_full"].as_slice();
        for (used, expected) in [
            (0, &[][..]),
            (79, &[]),
            (80, filling),
            (99, &[]),
            (100, full),
            (100, &[]),
            (96, &[]),
            (100, &[]),
            (90, &[]),
            (100, full),
            (78, &[]),
            (85, &[]),
            (10, &[]),
            (100, &["table_filling", "table_full"]),
        ] {
            assert_eq!(newly_reached(&mut reached, used, 100), expected, "{used}");
        }
        assert_eq!(newly_reached(&mut [false; 2], 52, 64), filling, "81.25 %");
    }
}
