//! The metrics: figures read from the maps when somebody asks, as text, over HTTP.

mod families;
mod figures;
mod server;
mod text;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use tokio::sync::Semaphore;

pub use families::FAMILIES;
pub use server::Server;

use super::history::History;
use super::judgement::Judgement;
use super::loaded::Loaded;
use super::log::Log;
use super::watch::LastCheck;
use crate::enforced::Problem;
use figures::Figures;
use text::Format;

/// Where the figures come from.
pub struct Source {
    /// What is loaded.
    pub loaded: Arc<Loaded>,
    /// The way into the audit log.
    pub log: Arc<Log>,
    /// What the audit log tells of the past.
    pub history: Mutex<History>,
    /// One scrape at a time: each takes megabytes where there are many sessions.
    pub turn: Arc<Semaphore>,
    /// When the watch last looked.
    pub last_look: Arc<LastCheck>,
    /// Whether the breaker is in force.
    pub judgement: Arc<Judgement>,
}

impl Source {
    /// The metrics as text.
    fn metrics(&self, format: Format) -> Result<String> {
        let history = self.read_history();
        text::text(Figures::read(self, &history)?, format).context("writing the metrics")
    }

    /// What the audit log tells of by now.
    pub fn read_history(&self) -> MutexGuard<'_, History> {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        // A new scope must be known before its trips are read of.
        if let Err(error) = self.loaded.follow() {
            super::say(&format!("the figures are of the policy before: {error:#}"));
        }
        history.know(self.loaded.now().breaker.names());
        if let Err(error) = history.read_on() {
            super::say(&format!("trips are not counted on: {error:#}"));
        }
        history
    }

    /// What keeps the breaker from being in force, and what is not well with the agent; empty where all is. A tripped scope is no illness.
    fn health_problems(&self) -> Vec<String> {
        let enforced = self.judgement.now();
        let mut health_problems: Vec<_> = enforced.problems.iter().map(Problem::line).collect();
        if self.last_look.is_stale() {
            health_problems.push("the watch has not looked for two seconds".to_owned());
        }
        health_problems
    }
}
