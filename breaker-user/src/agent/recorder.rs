//! Records the rates of the sessions once a second, and serves them as JSON.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::select;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::loaded::Loaded;
use super::notice::notice;
use crate::rates::{self, Ring, SECONDS, STEP_MS};
use crate::view::rates::{Rates, SessionRates};

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

    /// The rates of the last seconds as JSON. The query is that of the request, such as
    /// `seconds=60&session=NAME`; without it the rates are those of the last 15 minutes and of all sessions.
    ///
    /// # Errors
    /// Describes an invalid query and the remedy.
    pub fn json(&self, query: Option<&str>) -> Result<String> {
        let (seconds, session) = parse(query.unwrap_or_default())?;
        let ring = self.ring();
        match session {
            Some(session) => serde_json::to_string(&ring.rates_of(session, seconds)),
            None => serde_json::to_string(&ring.rates(seconds)),
        }
        .context("writing the history")
    }

    /// The rates of the last second.
    pub fn last_second(&self) -> Rates<Vec<SessionRates>> {
        self.ring().last_second()
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of seconds and the session that a query asks for.
fn parse(query: &str) -> Result<(usize, Option<&str>)> {
    let (mut seconds, mut session) = (SECONDS, None);
    for part in query.split('&').filter(|_| !query.is_empty()) {
        // The name of a session has no character that a URL encodes.
        let is_read = match part.split_once('=') {
            Some(("seconds", text)) => text.parse().is_ok_and(|number| {
                seconds = number;
                (1..=SECONDS).contains(&number)
            }),
            Some(("session", name)) if !name.is_empty() => {
                session = Some(name);
                true
            }
            _ => false,
        };
        ensure!(
            is_read,
            "reading the query: {query:?}: write seconds=N, N from 1 to {SECONDS}, and session=NAME for one \
             session"
        );
    }
    Ok((seconds, session))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_its_seconds_and_its_session() {
        for (query, expected) in [
            ("", (900, None)),
            ("seconds=1", (1, None)),
            ("seconds=900", (900, None)),
            ("session=x1", (900, Some("x1"))),
            ("session=x1&seconds=2", (2, Some("x1"))),
        ] {
            assert_eq!(parse(query).ok(), Some(expected), "{query}");
        }
        let refused = [
            "seconds=0",
            "seconds=901",
            "seconds=",
            "seconds=-1",
            "minutes=1",
            "seconds=1&x=2",
            "session=",
            "&",
        ];
        for query in refused {
            let error = format!("{:#}", parse(query).expect_err(query));
            assert!(error.contains("write seconds=N"), "{error}");
        }
    }
}
