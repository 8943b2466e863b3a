//! Records the rates of the sessions once a second, and serves them as JSON.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::select;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::loaded::Loaded;
use super::notice::notice;
use crate::rates::{self, Ring, SECONDS, STEP_MS};

/// The rates of the last 15 minutes.
pub struct Recorder {
    loaded: Arc<Loaded>,
    ring: Mutex<Ring>,
}

impl Recorder {
    /// Makes a recorder without samples.
    pub fn new(loaded: Arc<Loaded>) -> Self {
        Self { loaded, ring: Mutex::default() }
    }

    /// Takes a sample each second until the shutdown. A late sample belongs to the nearest second.
    pub async fn run(self: Arc<Self>, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let start = Instant::now();
        let mut tick = interval(Duration::from_millis(STEP_MS));
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            select! {
                _ = tick.tick() => {}
                () = &mut shutdown => return,
            }
            let recorder = Arc::clone(&self);
            let sampled = spawn_blocking(move || recorder.sample(start)).await;
            if let Err(error) = sampled.context("a panic").flatten() {
                notice(&format!("the rates of this second are not recorded: {error:#}"));
            }
        }
    }

    fn sample(&self, start: Instant) -> Result<()> {
        // Without this step the names are those of the last policy until another task follows the new one.
        self.loaded.follow_policy()?;
        let elapsed = start.elapsed().as_millis() as u64;
        let samples = rates::read(&self.loaded.in_force().breaker)?;
        self.ring().record((elapsed + STEP_MS / 2) / STEP_MS, &samples);
        Ok(())
    }

    /// The rates of the last seconds as JSON. The query is that of the request, such as `seconds=60`; without
    /// it the rates are those of the last 15 minutes.
    ///
    /// # Errors
    /// Describes an invalid query and the remedy.
    pub fn json(&self, query: Option<&str>) -> Result<String> {
        let seconds = seconds(query.unwrap_or_default())?;
        serde_json::to_string(&self.ring().rates(seconds)).context("writing the history")
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of seconds that a query asks for.
fn seconds(query: &str) -> Result<usize> {
    if query.is_empty() {
        return Ok(SECONDS);
    }
    let number = query.strip_prefix("seconds=").and_then(|text| text.parse().ok());
    number
        .filter(|number| (1..=SECONDS).contains(number))
        .with_context(|| format!("reading the query: {query:?}: write seconds=N, N from 1 to {SECONDS}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_its_number_of_seconds() {
        for (query, expected) in [("", Some(900)), ("seconds=1", Some(1)), ("seconds=900", Some(900))] {
            assert_eq!(seconds(query).ok(), expected, "{query}");
        }
        for query in ["seconds=0", "seconds=901", "seconds=", "seconds=-1", "minutes=1", "seconds=1&x=2"] {
            let error = format!("{:#}", seconds(query).expect_err(query));
            assert!(error.contains("write seconds=N"), "{error}");
        }
    }
}
