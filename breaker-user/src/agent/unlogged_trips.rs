//! Logs trips that a switch shows and the audit log does not contain: their event was lost, or its writer
//! failed.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::metrics::Source;
use super::notice::notice;
use super::periodic::{Interval, run_blocking};
use crate::audit::{self, Entry};
use crate::journal;

/// A trip is logged after two checks have missed it, because its entry may be on the way.
const INTERVAL: Interval = Interval::new(Duration::from_secs(1));

/// Cause bits that a switch has and the log does not, by the scope's name.
type Missing = HashMap<String, u64>;

/// Checks the switches until the shutdown.
pub async fn run(source: Arc<Source>, shutdown: impl Future<Output = ()>) {
    let worker = Arc::clone(&source);
    let mut before = Missing::new();
    run_blocking(
        INTERVAL,
        shutdown,
        move || find_missing(&worker),
        |result| {
            if let Ok(now) = result {
                before = record_missing(&source, &before, now);
            }
        },
    )
    .await;
}

/// Compares the switches with the log.
fn find_missing(source: &Source) -> Result<Missing> {
    // The author of a trip may still wait for the lock.
    if audit::is_locked(&journal::path(&source.loaded.in_force().breaker)) {
        return Ok(Missing::new());
    }
    let history = source.read_history();
    let loaded = source.loaded.in_force();
    let names = loaded.breaker.names();
    let mut missing = Missing::new();
    for scope in names.iter() {
        let name = names.name(scope).to_string();
        let unlogged = loaded.breaker.switch(scope)?.causes & !history.causes(&name);
        if unlogged != 0 {
            missing.insert(name, unlogged);
        }
    }
    Ok(missing)
}

/// Logs the causes that two checks have missed, unless entries wait to be written. Returns the rest for the
/// next check.
fn record_missing(source: &Source, before: &Missing, mut now: Missing) -> Missing {
    if source.log.pending() != 0 {
        return Missing::new();
    }
    now.retain(|scope, causes| {
        let both = *causes & before.get(scope).copied().unwrap_or_default();
        if both != 0 {
            notice(&format!("{scope} is tripped, and the audit log has no entry for the trip"));
            let counts = json!({ "found": "in its switch: the log had no entry" });
            let entry = source.loaded.entry("tripped", counts);
            source.log.record(Entry {
                scope: Some(scope.clone()),
                cause: journal::cause_field(both),
                ..entry
            });
        }
        both == 0
    });
    now
}
