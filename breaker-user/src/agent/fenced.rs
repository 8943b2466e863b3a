//! Ends the sockets of fenced connections. The hook's reset reaches a socket with the next payload, so an idle one would learn nothing; and
//! strict reverse path filtering may drop the reset that goes back to this host.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use breaker_common::abi::mode;
use serde_json::json;
use tokio::select;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::loaded::Loaded;
use super::log::Log;
use crate::kernel::Breaker;
use crate::kernel::disconnect::Selection;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);

/// Ends them until the shutdown.
pub async fn run(loaded: Arc<Loaded>, log: Arc<Log>, shutdown: impl Future<Output = ()>) {
    tokio::pin!(shutdown);
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        select! {
            _ = tick.tick() => {}
            () = &mut shutdown => return,
        }
        // Tables are walked and sockets listed: not on the thread of the heartbeat.
        let of = Arc::clone(&loaded);
        match spawn_blocking(move || end(&of.now().breaker)).await {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(count)) => log.note(loaded.entry("connections_ended", json!({ "connections": count }))),
            Ok(Err(error)) => super::say(&format!("sockets of fenced connections were not ended: {error:#}")),
        }
    }
}

/// Ends the sockets of fenced connections of sessions whose connections are reset, and returns how many.
fn end(breaker: &Breaker) -> Result<usize> {
    let counts = breaker.connection_counts()?;
    let is_fenced = |session: &crate::config::SessionIndex| {
        counts.get(session.get() as usize).is_some_and(|count| count.fenced != 0)
    };
    let fenced: Vec<_> = breaker.names().sessions().filter(is_fenced).collect();
    if fenced.is_empty() || breaker.meta().mode == mode::INLINE {
        return Ok(0);
    }
    breaker.disconnect(&breaker.with_tcp_resets(fenced)?, Selection::Fenced)
}
