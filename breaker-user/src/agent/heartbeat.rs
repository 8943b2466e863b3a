//! The agent's heartbeat: a time on the kernel program's clock. `status` shows its age, and `[host].deadman`
//! uses it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::select;
use tokio::time::{MissedTickBehavior, interval};

use super::loaded::Loaded;
use super::notice::notice;
use crate::kernel::clock;

/// Period of the heartbeat.
const EVERY: Duration = Duration::from_millis(100);

/// Writes one heartbeat.
pub fn beat(loaded: &Loaded) -> Result<()> {
    let in_force = loaded.in_force();
    let beats = in_force.breaker.maps().heartbeat()?;
    beats.set(0, clock::now_ns())?;
    beats.set(1, 1)
}

/// Writes heartbeats until the shutdown.
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
            notice(&format!("the heartbeat was not written: {error:#}"));
        }
    }
}
