//! The agent's sign of life, by the kernel program's own clock: `status` shows its age, and a dead man's switch goes by it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::select;
use tokio::time::{MissedTickBehavior, interval};

use super::loaded::Loaded;
use crate::kernel::clock;

/// How often it beats.
const EVERY: Duration = Duration::from_millis(100);

/// Beats once.
pub fn beat(loaded: &Loaded) -> Result<()> {
    let now = loaded.now();
    let beats = now.breaker.maps().heartbeat()?;
    beats.set(0, clock::now_ns())?;
    beats.set(1, 1)
}

/// Beats until the shutdown.
pub async fn run(loaded: Arc<Loaded>, shutdown: impl Future<Output = ()>) {
    tokio::pin!(shutdown);
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        select! {
            _ = tick.tick() => {}
            () = &mut shutdown => return,
        }
        if let Err(error) = beat(&loaded) {
            super::say(&format!("the heartbeat was not written: {error:#}"));
        }
    }
}
