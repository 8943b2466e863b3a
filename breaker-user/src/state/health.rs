//! How the state file stands, for `status`, the judgement and the metrics.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

use super::contents::{AgentRun, Contents};
use super::save::store;
use super::store::Found;
use crate::journal;
use crate::kernel::{Breaker, durable};

/// How the state file stands.
#[derive(Clone, Debug, Serialize)]
pub struct Health {
    /// The state file.
    pub path: String,
    /// It is whole, can be written, and has every trip that the kernel has.
    pub ok: bool,
    /// What is wrong with it.
    pub found: Option<String>,
    /// What to do.
    pub cure: Option<&'static str>,
    /// When it was last written.
    pub written_at: Option<Timestamp>,
    /// How long ago that was; 0 where the clock was set back since.
    pub age_ms: Option<u64>,
    /// Number of the write.
    pub generation: Option<u64>,
    /// How the last agent ended: `never`, `running`, `ended`.
    pub agent: Option<AgentRun>,
    /// `[host].unclean_boot`.
    pub unclean_boot: Option<String>,
    /// Scopes that are tripped in it and that the policy in force does not have.
    pub kept: Vec<String>,
}

const WRITE: &str = "any verb that changes a scope, or the agent, writes it";

/// Looks at the state file of what is loaded.
pub fn health(breaker: &Breaker) -> Health {
    let store = store(breaker);
    let found = store.read();
    let contents = found.contents();
    let wrong = match &found {
        Found::Nothing => Some("it is missing".to_owned()),
        Found::Damaged(found) | Found::Older(_, found) => Some(found.clone()),
        Found::Whole(_) => None,
    };
    let wrong = wrong
        .or_else(|| store.unwritable())
        .or_else(|| contents.and_then(|contents| behind(breaker, contents)));
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
        ok: wrong.is_none(),
        cure: wrong.is_some().then_some(WRITE),
        found: wrong,
        written_at: contents.map(|contents| contents.written_at),
        age_ms: age.map(|age| u64::try_from(age).unwrap_or_default()),
        generation: contents.map(|contents| contents.generation),
        agent: contents.map(|contents| contents.agent),
        unclean_boot: contents.map(|contents| contents.unclean_boot.clone()),
        kept: kept.unwrap_or_default(),
    }
}

/// Trips of the kernel that the file does not have.
fn behind(breaker: &Breaker, contents: &Contents) -> Option<String> {
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
