//! Trips that the audit log does not tell of, though a switch shows them: their event was lost, or whoever made them could not write. They
//! are noted once.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio::select;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::metrics::Source;
use crate::audit::{self, Entry};
use crate::journal;

/// How often it looks. A trip is noted when two looks have missed it: its line may be on the way.
const EVERY: Duration = Duration::from_secs(1);

/// Causes that a scope has and the log has not, by the scope's name.
type Missing = HashMap<String, u64>;

/// Looks until the shutdown.
pub async fn run(source: Arc<Source>, shutdown: impl Future<Output = ()>) {
    tokio::pin!(shutdown);
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = Missing::new();
    loop {
        select! {
            _ = tick.tick() => {}
            () = &mut shutdown => return,
        }
        // The log lies on a disk: not on the thread of the heartbeat.
        let of = Arc::clone(&source);
        let Ok(Ok(now)) = spawn_blocking(move || missing(&of)).await else { continue };
        before = note(&source, &before, now);
    }
}

/// What a look misses.
fn missing(source: &Source) -> Result<Missing> {
    // Whoever tripped something may still wait for the lock to tell of it.
    if audit::is_locked(&journal::path(&source.loaded.now().breaker)) {
        return Ok(Missing::new());
    }
    let history = source.read_history();
    let loaded = source.loaded.now();
    let names = loaded.breaker.names();
    let mut missing = Missing::new();
    for scope in names.iter() {
        let name = names.name(scope).to_string();
        let unknown = loaded.breaker.switch(scope)?.causes & !history.causes(&name);
        if unknown != 0 {
            missing.insert(name, unknown);
        }
    }
    Ok(missing)
}

/// Notes what two looks have missed, where nothing waits to be written. Returns what is still to be looked at again.
fn note(source: &Source, before: &Missing, mut now: Missing) -> Missing {
    if source.log.pending() != 0 {
        return Missing::new();
    }
    now.retain(|scope, causes| {
        let both = *causes & before.get(scope).copied().unwrap_or_default();
        if both != 0 {
            super::say(&format!("{scope} is tripped, and the audit log did not tell of it"));
            let counts = json!({ "found": "in its switch: no line told of it" });
            let entry = source.loaded.entry("tripped", counts);
            source.log.note(Entry { scope: Some(scope.clone()), cause: journal::names(both), ..entry });
        }
        both == 0
    });
    now
}
