//! Determines the initial state of the scopes of a load: the state in the file, and tripped if the file is
//! not reliable. Does no I/O.

use std::collections::BTreeMap;

use breaker_common::abi::cause;
use jiff::civil::Date;

use super::contents::{AgentRun, Contents, Scope};
use super::now;
use super::store::Found;
use crate::config::{Policy, UncleanBoot};
use crate::kernel::durable::{ScopeState, ScopeStates};

/// The input of a plan besides the state file.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Whether the policy arms each scope, by name.
    pub armed: BTreeMap<String, bool>,
    /// `[host].unclean_boot`: the treatment of a host that went down while its agent ran.
    pub unclean_boot: UncleanBoot,
    /// Whether the audit log had lines before this load.
    pub has_history: bool,
    /// The kernel's boot id.
    pub boot_id: String,
    /// The current day in UTC.
    pub today: Date,
}

impl Wanted {
    /// Collects the input for a policy on this host.
    pub fn of(policy: &Policy, has_history: bool) -> Self {
        let scopes = policy.scopes();
        Self {
            armed: scopes.iter().map(|scope| (scopes.name(scope).to_string(), policy.armed(scope))).collect(),
            unclean_boot: policy.host().unclean_boot,
            has_history,
            boot_id: now::boot_id(),
            today: now::today(),
        }
    }
}

/// The initial state of the scopes of a load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// States of the scopes by name. A scope without a state comes up as in the policy.
    pub states: ScopeStates,
    /// The reason why armed scopes come up tripped with the cause `state`.
    pub closed: Option<String>,
    /// Scopes that were tripped and come up tripped, with their causes.
    pub restored: Vec<(String, u64)>,
    /// Scopes that were tripped and are not in the policy, with their causes. The state file keeps the
    /// scopes.
    pub absent: Vec<(String, u64)>,
    /// Scopes that a person has armed or disarmed against the policy, and whether each is armed.
    pub decided: Vec<(String, bool)>,
    /// Further notes for a person.
    pub notes: Vec<String>,
}

impl Plan {
    /// Returns the scopes that come up tripped with the cause `state`.
    pub fn closed_scopes(&self) -> impl Iterator<Item = &str> {
        let is_closed = |(_, state): &(&String, &ScopeState)| state.causes & cause::STATE != 0;
        let closed = self.states.iter().filter(move |found| self.closed.is_some() && is_closed(found));
        closed.map(|(name, _)| name.as_str())
    }
}

/// Determines the initial state of each scope.
pub fn plan(found: &Found, wanted: &Wanted) -> Plan {
    let (closed, note) = find_doubt(found, wanted);
    let mut plan = Plan { notes: note.into_iter().collect(), ..Plan::default() };
    let scopes = found.contents().map(|contents| &contents.scopes);
    for (name, by_policy) in &wanted.armed {
        let kept = scopes.and_then(|scopes| scopes.get(name));
        let mut state =
            kept.map_or_else(|| untouched(*by_policy), |kept| state(kept, *by_policy, wanted.today));
        if state.causes != 0 {
            plan.restored.push((name.clone(), state.causes));
        }
        if closed.is_some() && state.armed {
            state.causes |= cause::STATE;
        }
        if state.armed != *by_policy {
            plan.decided.push((name.clone(), state.armed));
        }
        plan.states.insert(name.clone(), state);
    }
    let absent = scopes.into_iter().flatten().filter(|(name, _)| !wanted.armed.contains_key(*name));
    let absent = absent.map(|(name, scope)| (name.clone(), scope.cause_bits()));
    plan.absent = absent.filter(|(_, causes)| *causes != 0).collect();
    plan.closed = closed;
    plan
}

/// Returns the reason why a trip may be missing in the file, or a note if the policy accepts that.
fn find_doubt(found: &Found, wanted: &Wanted) -> (Option<String>, Option<String>) {
    let contents = match found {
        Found::Nothing if wanted.has_history => {
            return (Some("it is missing, though the audit log has lines".to_owned()), None);
        }
        Found::Nothing => return (None, None),
        Found::Damaged(found) => return (Some(found.clone()), None),
        Found::Older(_, found) => {
            return (Some(format!("{found}; the generation before it is taken")), None);
        }
        Found::Whole(contents) => contents,
    };
    if !contents.loaded || contents.boot_id == wanted.boot_id {
        return (None, None);
    }
    match (contents.agent, wanted.unclean_boot) {
        (AgentRun::Running, UncleanBoot::Trip) => {
            (Some(format!("the host went down while an agent was running: {MISSING}")), None)
        }
        (AgentRun::Running, UncleanBoot::Pass) => {
            let note = format!(
                "the host went down while an agent was running: {MISSING}, and unclean_boot = \"pass\""
            );
            (None, Some(note))
        }
        (AgentRun::Never, _) => (None, Some(format!("no agent has ever run on this host: {MISSING}"))),
        (AgentRun::Ended, _) => (None, None),
    }
}

const MISSING: &str = "a trip that the kernel made after the last write may be missing";

fn untouched(armed: bool) -> ScopeState {
    ScopeState { armed, armed_by_policy: armed, ..ScopeState::default() }
}

/// Returns the state of a kept scope under a policy that arms the scope or not. A person's decision to arm or
/// disarm holds until the policy changes.
fn state(kept: &Scope, by_policy: bool, today: Date) -> ScopeState {
    let armed = if kept.armed_by_policy == by_policy { kept.armed } else { by_policy };
    // The replay guard ends at midnight UTC, unless the scope is tripped.
    let guarded = kept.replay_guard.is_some_and(|day| day >= today || kept.cause_bits() != 0);
    kept.state((armed, by_policy), guarded)
}

/// Merges the states in the kernel into the kept scopes. The kernel's state replaces that of every scope in
/// the policy; all other scopes are kept.
pub fn merge(before: Option<&Contents>, states: &ScopeStates, today: Date) -> BTreeMap<String, Scope> {
    let empty = BTreeMap::new();
    let kept = before.map_or(&empty, |before| &before.scopes);
    let is_absent = |(name, scope): &(&String, &Scope)| !states.contains_key(*name) && scope.is_noteworthy();
    let absent = kept.iter().filter(is_absent).map(|(name, scope)| (name.clone(), scope.clone()));
    let mut merged: BTreeMap<_, _> = absent.collect();
    // A trip of a group or of the host also renews the replay guard of a session.
    let epoch = |name: &String| kept.get(name).map_or(0, |scope| scope.epoch);
    let is_raised = states.iter().any(|(name, state)| state.epoch != epoch(name));
    for (name, state) in states {
        let day = kept.get(name).and_then(|scope| scope.replay_guard).filter(|_| !is_raised);
        merged.insert(name.clone(), Scope::of(state, state.guarded.then(|| day.unwrap_or(today))));
    }
    merged
}
