//! The state of scopes that outlives a load. It is read from the maps of one load, and written to the maps of
//! the next load before anything is attached.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use breaker_common::abi::{LIMITS_PER_SCOPE, Limit, Rules, Scope, Session, Window, label};

use super::breaker::Breaker;
use super::clock;
use super::memory::Mapped;
use super::pins::PinRoot;
use super::reload::in_force::scope_name;
use super::tables::Tables;
use crate::config::{ScopeIndex, SessionIndex};

/// States of scopes by name: `host`, `group/NAME`, `session/NAME`.
pub type ScopeStates = BTreeMap<String, ScopeState>;

/// The state of a scope that outlives a load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScopeState {
    /// Cause bits.
    pub causes: u64,
    /// Number of trips and resets.
    pub epoch: u64,
    /// Number of resets.
    pub resets: u64,
    /// Whether an exceeded limit trips the scope.
    pub armed: bool,
    /// Whether the policy arms the scope. A person may have armed or disarmed the scope since.
    pub armed_by_policy: bool,
    /// Use of the limits that count since the last reset.
    pub totals: Vec<Total>,
    /// Whether the replays of a session are withheld, because it has tripped since the agent's day began.
    pub guarded: bool,
}

/// Use of a limit that counts since the last reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// A [`breaker_common::message::LimitClass`] code.
    pub class: u32,
    /// Whether the limit is a ratio to the fills.
    pub per_fill: bool,
    /// Messages since the last reset.
    pub used: u64,
    /// Fills since the last reset.
    pub fills: u64,
}

/// Reads the states of all scopes of the policy in force.
pub fn read(breaker: &Breaker) -> Result<ScopeStates> {
    let names = breaker.names();
    let mut states = ScopeStates::new();
    for scope in names.iter() {
        states.insert(names.name(scope).to_string(), scope_state(breaker, scope)?);
    }
    for session in names.sessions() {
        let name = names.name(names.of_session(session)).to_string();
        // If SESSIONS cannot be read, the trips are still saved, and the session counts as guarded.
        let guarded = is_guarded(breaker, session).unwrap_or(true);
        if let Some(state) = states.get_mut(&name) {
            state.guarded = guarded;
        }
    }
    Ok(states)
}

fn scope_state(breaker: &Breaker, scope: ScopeIndex) -> Result<ScopeState> {
    // The switch is read last, so that it includes a trip during the other reads.
    let (rules, limits, windows) = {
        let found = breaker.scope(scope)?;
        (found.rules[breaker.side()], found.limits[breaker.side()], found.windows)
    };
    let armed = breaker.scope(scope)?.armed != 0;
    let switch = breaker.switch(scope)?;
    Ok(ScopeState {
        causes: switch.causes,
        epoch: switch.epoch,
        resets: switch.resets,
        armed,
        armed_by_policy: rules.positions & Rules::ARMED != 0,
        totals: total_limits(&rules, &limits).map(|i| total(&limits[i], &windows[i])).collect(),
        guarded: false,
    })
}

/// Returns the positions of the limits that count since the last reset.
fn total_limits(rules: &Rules, limits: &[Limit; LIMITS_PER_SCOPE]) -> impl Iterator<Item = usize> {
    let positions = (0..LIMITS_PER_SCOPE).filter(|i| rules.positions >> i & 1 == 1 && limits[*i].per_ns == 0);
    positions.collect::<Vec<_>>().into_iter()
}

fn total(limit: &Limit, window: &Window) -> Total {
    Total {
        class: limit.class,
        per_fill: limit.per_fill != 0,
        used: window.issued.saturating_sub(window.floor),
        fills: window.fills.saturating_sub(window.fill_floor),
    }
}

fn is_guarded(breaker: &Breaker, session: SessionIndex) -> Result<bool> {
    Ok(breaker.session(session)?.day_epoch != breaker.epoch_sum(session.get()))
}

/// Writes states to the filled maps of a load that is not attached yet. A scope without a state is not
/// changed.
pub fn restore(tables: &Tables, states: &ScopeStates, root: &PinRoot) -> Result<()> {
    let scopes = Mapped::<Scope>::open(&root.map("SCOPES"))?;
    let sessions = Mapped::<Session>::open(&root.map("SESSIONS"))?;
    // This time is later than the `declared_ns` of every session. A connection whose SYN was not seen is
    // therefore older, and fenced.
    let now = clock::now_ns();
    for (number, label) in tables.labels.iter().enumerate() {
        let Some(state) = states.get(&scope_name(label)) else { continue };
        let mut scope = scopes.get(number as u32).context("a scope is not in its map")?;
        restore_scope(&mut scope, state, now);
        scopes.set(number as u32, scope)?;
    }
    let guarded: Vec<u32> = tables
        .labels
        .iter()
        .filter(|found| found.kind == label::SESSION)
        .filter(|found| states.get(&scope_name(found)).is_some_and(|state| state.guarded))
        .map(|found| found.session)
        .collect();
    for number in 0..tables.sessions.len() as u32 {
        let place = number * breaker_common::abi::SIDES as u32;
        let mut session = sessions.get(place).context("a session is not in its map")?;
        let count = (session.scope_count as usize).min(session.scopes.len());
        let epochs = session.scopes[..count].iter().filter_map(|scope| scopes.get(*scope));
        let sum = epochs.fold(0u64, |sum, scope| sum.wrapping_add(scope.switch.epoch));
        // Epochs only rise, so the sum minus one never equals a later sum.
        session.day_epoch = if guarded.contains(&number) { sum.wrapping_sub(1) } else { sum };
        sessions.set(place, session)?;
    }
    Ok(())
}

fn restore_scope(scope: &mut Scope, state: &ScopeState, now: u64) {
    scope.armed = state.armed as u32;
    scope.switch.causes = state.causes;
    scope.switch.resets = state.resets;
    if state.epoch != 0 || state.causes != 0 {
        scope.switch.epoch = state.epoch.wrapping_add(1);
        scope.switch.raised_ns = now;
    }
    let (rules, limits) = (scope.rules[0], scope.limits[0]);
    for position in total_limits(&rules, &limits) {
        let limit = &limits[position];
        let same = |total: &&Total| (total.class, total.per_fill) == (limit.class, limit.per_fill != 0);
        let Some(total) = state.totals.iter().find(same) else { continue };
        let window = &mut scope.windows[position];
        (window.issued, window.fills, window.peak) = (total.used, total.fills, total.used);
    }
}
