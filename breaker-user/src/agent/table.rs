//! Tells when the table of live connections fills up: a connection of an armed session that finds no room in it is not let through.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::select;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::loaded::Loaded;
use super::log::Log;

/// How often it looks, at most; and of its time so little goes into looking.
const EVERY: Duration = Duration::from_secs(1);
const IDLE: u32 = 50;

/// Levels in per cent: which kind of event tells that one was reached, and below what it counts as left again.
const LEVELS: [(u64, u64, &str); 2] = [(80, 75, "table_filling"), (100, 95, "table_full")];

/// Looks until the shutdown.
pub async fn run(loaded: Arc<Loaded>, log: Arc<Log>, shutdown: impl Future<Output = ()>) {
    tokio::pin!(shutdown);
    let mut reached = [false; LEVELS.len()];
    let mut pause = Duration::ZERO;
    loop {
        select! {
            () = sleep(pause) => {}
            () = &mut shutdown => return,
        }
        let (of, begun) = (Arc::clone(&loaded), Instant::now());
        // A full table takes its time to walk: not on the thread of the heartbeat.
        let used = spawn_blocking(move || of.now().breaker.live_connections()).await;
        pause = EVERY.max(begun.elapsed() * IDLE);
        let Ok(Ok(used)) = used else { continue };
        let size = u64::from(loaded.now().breaker.meta().connections);
        for kind in crossed(&mut reached, used, size) {
            super::say(&format!("{kind}: {used} of {size} connections: raise [host].connections"));
            log.note(loaded.entry(kind, json!({ "used": used, "size": size })));
        }
    }
}

/// The kinds of the levels that are reached and were not.
fn crossed(reached: &mut [bool; LEVELS.len()], used: u64, size: u64) -> Vec<&'static str> {
    let mut kinds = Vec::new();
    for (reached, (up, down, kind)) in reached.iter_mut().zip(LEVELS) {
        let is_at = |percent: u64| used * 100 >= size * percent;
        if !*reached && is_at(up) {
            kinds.push(kind);
        }
        *reached = is_at(up) || *reached && is_at(down);
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_is_told_once_each_time_it_is_reached() {
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
            assert_eq!(crossed(&mut reached, used, 100), expected, "{used}");
        }
        assert_eq!(crossed(&mut [false; 2], 52, 64), filling, "81.25 %");
    }
}
