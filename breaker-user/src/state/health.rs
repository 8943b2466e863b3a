//! Condition of the state file, for `status`, the check of enforcement and the metrics.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

use super::contents::{AgentRun, Contents};
use super::save::store;
use super::store::Found;
use crate::journal;
use crate::kernel::{Breaker, durable};

/// Condition of the state file.
#[derive(Clone, Debug, Serialize)]
pub struct Health {
    /// Path of the state file.
    pub path: String,
    /// Whether the file is whole, can be written, and has every trip that the kernel has.
    pub ok: bool,
    /// The problem that was found.
    pub found: Option<String>,
    /// The remedy.
    pub cure: Option<&'static str>,
    /// Time of the last write.
    pub written_at: Option<Timestamp>,
    /// Age of the last write in ms; 0 if the clock was set back since.
    pub age_ms: Option<u64>,
    /// Number of the last write.
    pub generation: Option<u64>,
    /// Whether an agent runs, or how the last agent ended: `never`, `running`, `ended`.
    pub agent: Option<AgentRun>,
    /// `[host].unclean_boot`.
    pub unclean_boot: Option<String>,
    /// Scopes that are tripped in the file and that the policy in force does not have.
    pub kept: Vec<String>,
}

const REMEDY: &str = "any verb that changes a scope, or the agent, writes it";

/// Checks the state file of a load.
pub fn health(breaker: &Breaker) -> Health {
    let store = store(breaker);
    let found = store.read();
    let contents = found.contents();
    let problem = match &found {
        Found::Nothing => Some("it is missing".to_owned()),
        Found::Damaged(found) | Found::Older(_, found) => Some(found.clone()),
        Found::Whole(_) => None,
    };
    let problem = problem
        .or_else(|| store.unwritable())
        .or_else(|| contents.and_then(|contents| missing_trips(breaker, contents)));
    let names = breaker.names();
    let declared: BTreeSet<_> = names.iter().map(|scope| names.name(scope).to_string()).collect();
    let kept = contents.map(|contents| {
        let tripped = contents
            .scopes
            .iter()
            .filter(|(name, scope)| !scope.causes.is_empty() && !declared.contains(*name));
        tripped.map(|(name, _)| name.clone()).collect()
    });
    let age = contents.map(|contents| Timestamp::now().duration_since(contents.written_at).as_millis());
    Health {
        path: store.path().display().to_string(),
        ok: problem.is_none(),
        cure: problem.is_some().then_some(REMEDY),
        found: problem,
        written_at: contents.map(|contents| contents.written_at),
        age_ms: age.map(|age| u64::try_from(age).unwrap_or_default()),
        generation: contents.map(|contents| contents.generation),
        agent: contents.map(|contents| contents.agent),
        unclean_boot: contents.map(|contents| contents.unclean_boot.clone()),
        kept: kept.unwrap_or_default(),
    }
}

/// Describes the trips of the kernel that the file does not have.
fn missing_trips(breaker: &Breaker, contents: &Contents) -> Option<String> {
    let states = match durable::read(breaker) {
        Ok(states) => states,
        Err(error) => return Some(format!("it cannot be compared with the switches ({error:#})")),
    };
    let missing = states.iter().filter_map(|(name, state)| {
        let written = contents.scopes.get(name).map_or(0, |scope| scope.cause_bits());
        journal::cause_field(state.causes & !written).map(|causes| format!("{name} ({causes})"))
    });
    let missing: Vec<_> = missing.collect();
    (!missing.is_empty()).then(|| format!("it does not have these trips yet: {}", missing.join(", ")))
}
