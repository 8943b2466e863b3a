//! Decides how the scopes of a policy come up: as the state file has them, and tripped where that file cannot
//! be relied on. Pure.

use std::collections::BTreeMap;

use breaker_common::abi::cause;
use jiff::civil::Date;

use super::contents::{AgentRun, Contents, Scope};
use super::now;
use super::store::Found;
use crate::config::{Policy, UncleanBoot};
use crate::kernel::durable::{ScopeState, ScopeStates};

/// What a load goes by beside the state file.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Whether the policy arms each scope, by name.
    pub armed: BTreeMap<String, bool>,
    /// What the policy says of a host that went down without an end of its agent.
    pub unclean_boot: UncleanBoot,
    /// Whether the audit log had lines before this load.
    pub has_history: bool,
    /// The kernel's boot id.
    pub boot_id: String,
    /// The day, UTC.
    pub today: Date,
}

impl Wanted {
    /// What a policy wants, on this host.
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

/// How the scopes of a load come up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Their states, by name; those that are not here come up as the policy has them.
    pub states: ScopeStates,
    /// Why armed scopes come up tripped with the cause `state`.
    pub closed: Option<String>,
    /// Scopes that were tripped and come up so, with their causes.
    pub restored: Vec<(String, u64)>,
    /// Scopes that were tripped and that the policy does not have, with their causes. The state file keeps
    /// them.
    pub absent: Vec<(String, u64)>,
    /// Scopes that a person has armed or disarmed otherwise than the policy does.
    pub decided: Vec<(String, bool)>,
    /// What else a person should know.
    pub notes: Vec<String>,
}

impl Plan {
    /// Scopes that come up tripped with the cause `state`.
    pub fn closed_scopes(&self) -> impl Iterator<Item = &str> {
        let is_closed = |(_, state): &(&String, &ScopeState)| state.causes & cause::STATE != 0;
        let closed = self.states.iter().filter(move |found| self.closed.is_some() && is_closed(found));
        closed.map(|(name, _)| name.as_str())
    }
}

/// Decides.
pub fn plan(found: &Found, wanted: &Wanted) -> Plan {
    let (closed, note) = doubt(found, wanted);
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

/// Why a trip may be missing in what was found, or a note where that is accepted.
fn doubt(found: &Found, wanted: &Wanted) -> (Option<String>, Option<String>) {
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

/// A kept scope under a policy that arms it or not. A person's decision holds until the policy says something
/// new.
fn state(kept: &Scope, by_policy: bool, today: Date) -> ScopeState {
    let armed = if kept.armed_by_policy == by_policy { kept.armed } else { by_policy };
    // At midnight an agent begins a day in which replays pass again, unless the scope is tripped.
    let guarded = kept.replay_guard.is_some_and(|day| day >= today || kept.cause_bits() != 0);
    kept.state((armed, by_policy), guarded)
}

/// Merges what the kernel has into what was kept: the kernel's word holds for every scope of its policy, and
/// the others stay.
pub fn merge(before: Option<&Contents>, states: &ScopeStates, today: Date) -> BTreeMap<String, Scope> {
    let empty = BTreeMap::new();
    let kept = before.map_or(&empty, |before| &before.scopes);
    let is_absent = |(name, scope): &(&String, &Scope)| !states.contains_key(*name) && scope.is_noteworthy();
    let absent = kept.iter().filter(is_absent).map(|(name, scope)| (name.clone(), scope.clone()));
    let mut merged: BTreeMap<_, _> = absent.collect();
    // A trip of a group or of the host begins the guard of a session anew, too.
    let epoch = |name: &String| kept.get(name).map_or(0, |scope| scope.epoch);
    let is_raised = states.iter().any(|(name, state)| state.epoch != epoch(name));
    for (name, state) in states {
        let day = kept.get(name).and_then(|scope| scope.replay_guard).filter(|_| !is_raised);
        merged.insert(name.clone(), Scope::of(state, state.guarded.then(|| day.unwrap_or(today))));
    }
    merged
}
