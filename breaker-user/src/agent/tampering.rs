//! Tampering: changes of the load that neither a verb nor the agent made. Each change is counted and logged.
//! A change that is not repaired is also a problem of the health check.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::loaded::Loaded;
use super::log::Log;
use super::notice::notice;
use crate::journal;

/// Shortest time between two events about one place, so that a loop of changes does not fill the log.
const EVENT_PERIOD: Duration = Duration::from_secs(1);

/// The tampering that the agent found.
pub struct Tampering {
    loaded: Arc<Loaded>,
    log: Arc<Log>,
    count: AtomicU64,
    places: Mutex<BTreeMap<String, Place>>,
}

/// The findings about one place.
#[derive(Default)]
struct Place {
    /// Time of the last event.
    logged_at: Option<Instant>,
    /// Number of findings since the last event that were not logged.
    suppressed: u64,
    /// The finding that is not repaired, if any.
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
    /// Description of the finding.
    pub found: String,
    /// Further fields of the event, a JSON object.
    pub fields: Value,
}

impl Tampering {
    /// Makes a record without findings.
    pub fn new(loaded: Arc<Loaded>, log: Arc<Log>) -> Self {
        Self { loaded, log, count: AtomicU64::new(0), places: Mutex::default() }
    }

    /// Returns the number of findings since the agent started.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Counts and logs a finding.
    pub fn record(&self, finding: Finding<'_>) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let Some(suppressed) = self.suppressed_before(finding.place) else { return };
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

    /// Returns the number of suppressed findings before a new one. Returns `None` if the new finding is
    /// suppressed too.
    fn suppressed_before(&self, place: &str) -> Option<u64> {
        let mut places = self.places();
        let known = places.entry(place.to_owned()).or_default();
        if known.logged_at.is_some_and(|at| at.elapsed() < EVENT_PERIOD) {
            known.suppressed += 1;
            return None;
        }
        known.logged_at = Some(Instant::now());
        Some(std::mem::take(&mut known.suppressed))
    }

    /// Logs the number of suppressed findings of each place, once [`EVENT_PERIOD`] has passed.
    pub fn log_suppressed(&self) {
        let due: Vec<(String, u64)> = self
            .places()
            .iter_mut()
            .filter(|(_, known)| known.suppressed != 0)
            .filter(|(_, known)| known.logged_at.is_none_or(|at| at.elapsed() >= EVENT_PERIOD))
            .map(|(place, known)| {
                known.logged_at = Some(Instant::now());
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

    /// Returns place and description of each problem.
    pub fn problems(&self) -> Vec<(String, String)> {
        let found = |(place, known): (&String, &Place)| Some((place.clone(), known.problem.clone()?));
        self.places().iter().filter_map(found).collect()
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<String, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
