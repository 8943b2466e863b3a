//! Makes room in the connection table: the kernel program never removes a connection, for its last packets may still come.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::loaded::Loaded;

/// How often it looks,
const EVERY: Duration = Duration::from_secs(10);
/// and how long ago a connection has sent its FIN or RST by then: longer than TCP repeats either (tcp(7), `tcp_fin_timeout`).
const CLOSED_FOR: Duration = Duration::from_secs(120);

/// Forgets closed connections until the shutdown.
pub async fn run(loaded: Arc<Loaded>, shutdown: impl Future<Output = ()>) {
    tokio::pin!(shutdown);
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        select! {
            _ = tick.tick() => {}
            () = &mut shutdown => return,
        }
        // A full table takes a tenth of a second to walk: not on the thread of the heartbeat.
        let of = Arc::clone(&loaded);
        let forgotten =
            spawn_blocking(move || of.now().breaker.evict_closed(CLOSED_FOR.as_nanos() as u64)).await;
        if let Ok(Err(error)) = forgotten {
            super::say(&format!("closed connections were not forgotten: {error:#}"));
        }
    }
}
