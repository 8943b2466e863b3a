//! Tampering: changes of the load that no verb and no agent made. Each is an event and a count; one that
//! is not repaired is a problem too.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::loaded::Loaded;
use super::log::Log;
use super::notice::notice;
use crate::journal;

/// Shortest time between two events about one place: a loop of changes must not fill the log.
const EVENT_PERIOD: Duration = Duration::from_secs(1);

/// The tampering that the agent found.
pub struct Tampering {
    loaded: Arc<Loaded>,
    log: Arc<Log>,
    count: AtomicU64,
    places: Mutex<BTreeMap<String, Place>>,
}

/// The history of a place.
#[derive(Default)]
struct Place {
    /// Time of the last event.
    logged: Option<Instant>,
    /// Findings since the last event that have no event of their own.
    suppressed: u64,
    /// The finding that is not repaired.
    problem: Option<String>,
}

/// One finding.
pub struct Finding<'a> {
    /// The interface or scope, or `host`.
    pub place: &'a str,
    /// Name of the scope, if the place is one.
    pub scope: Option<String>,
    /// Cause bits that were removed from the scope.
    pub causes: u64,
    /// The finding in words.
    pub found: String,
    /// Further fields of the event, a JSON object.
    pub fields: Value,
}

impl Tampering {
    /// Nothing is found yet.
    pub fn new(loaded: Arc<Loaded>, log: Arc<Log>) -> Self {
        Self { loaded, log, count: AtomicU64::new(0), places: Mutex::default() }
    }

    /// Number of findings since the agent started.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Counts and logs a finding.
    pub fn record(&self, finding: Finding<'_>) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let Some(suppressed) = self.log_turn(finding.place) else { return };
        notice(&format!("{}: tampered: {}", finding.place, finding.found));
        let mut counts = finding.fields;
        if let Value::Object(fields) = &mut counts {
            fields.insert("found".to_owned(), finding.found.into());
            if suppressed != 0 {
                fields.insert("suppressed".to_owned(), suppressed.into());
            }
        }
        let mut entry = self.loaded.entry("tampered", counts);
        (entry.scope, entry.cause) = (finding.scope, journal::cause_field(finding.causes));
        self.log.record(entry);
    }

    /// Returns how many findings were suppressed before this one; `None` if this one is suppressed too.
    fn log_turn(&self, place: &str) -> Option<u64> {
        let mut places = self.places();
        let known = places.entry(place.to_owned()).or_default();
        if known.logged.is_some_and(|at| at.elapsed() < EVENT_PERIOD) {
            known.suppressed += 1;
            return None;
        }
        known.logged = Some(Instant::now());
        Some(std::mem::take(&mut known.suppressed))
    }

    /// Logs the findings that were suppressed, once their time has come.
    pub fn log_suppressed(&self) {
        let due: Vec<(String, u64)> = self
            .places()
            .iter_mut()
            .filter(|(_, known)| known.suppressed != 0)
            .filter(|(_, known)| known.logged.is_none_or(|at| at.elapsed() >= EVENT_PERIOD))
            .map(|(place, known)| {
                known.logged = Some(Instant::now());
                (place.clone(), std::mem::take(&mut known.suppressed))
            })
            .collect();
        for (place, suppressed) in due {
            let found = format!("{suppressed} more changes within a second");
            let counts = json!({ "where": place, "found": found, "suppressed": suppressed });
            self.log.record(self.loaded.entry("tampered", counts));
        }
    }

    /// Sets the problem of a place, or removes it.
    pub fn set_problem(&self, place: &str, problem: Option<String>) {
        self.places().entry(place.to_owned()).or_default().problem = problem;
    }

    /// The problems: place and finding.
    pub fn problems(&self) -> Vec<(String, String)> {
        let found = |(place, known): (&String, &Place)| Some((place.clone(), known.problem.clone()?));
        self.places().iter().filter_map(found).collect()
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<String, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
