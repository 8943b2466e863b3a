//! The source of the figures: the load, the log, the history and the checks of the agent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use crate::agent::history::History;
use crate::agent::last_check::LastCheck;
use crate::agent::loaded::Loaded;
use crate::agent::log::Log;
use crate::agent::monitor::Monitor;
use crate::agent::notice::notice;
use crate::agent::recorder::Recorder;
use crate::agent::tampering::Tampering;
use crate::enforced::Problem;

/// The source of the figures.
pub struct Source {
    /// The load.
    pub loaded: Arc<Loaded>,
    /// The queue of the audit log.
    pub log: Arc<Log>,
    /// The history in the audit log.
    pub history: Mutex<History>,
    /// Allows one scrape at a time, because each takes megabytes with many sessions.
    pub scrape_turn: Arc<Semaphore>,
    /// Allows one history at a time, for the same reason. Viewers of the page must not delay a scrape.
    pub history_turn: Arc<Semaphore>,
    /// The last check of the watch.
    pub last_check: Arc<LastCheck>,
    /// Whether the breaker is in force.
    pub monitor: Arc<Monitor>,
    /// Tampering that the agent found.
    pub tampering: Arc<Tampering>,
    /// The rates of the last 15 minutes.
    pub recorder: Arc<Recorder>,
}

impl Source {
    /// The history up to now.
    pub fn read_history(&self) -> MutexGuard<'_, History> {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        // The trips of a new scope count only after the history knows the scope.
        if let Err(error) = self.loaded.follow_policy() {
            notice(&format!("figures are of the previous policy: {error:#}"));
        }
        history.add_scopes(self.loaded.in_force().breaker.names());
        if let Err(error) = history.read_new() {
            notice(&format!("new trips are not counted: {error:#}"));
        }
        history
    }

    /// Problems of enforcement and of the agent; empty if there are none. A tripped scope is no problem.
    pub fn health_problems(&self) -> Vec<String> {
        let enforced = self.monitor.enforced();
        let mut health_problems: Vec<_> = enforced.problems.iter().map(Problem::line).collect();
        if self.last_check.is_stale() {
            health_problems.push("the attachments were not checked for two seconds".to_owned());
        }
        health_problems
    }
}
