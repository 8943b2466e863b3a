//! Watches the switches. Only a reset removes a cause, and it raises `resets` first. No operation lowers an
//! epoch. Each change of `armed` by a verb or a reload raises `armed_changes` first.

use std::collections::BTreeMap;

use anyhow::Result;
use breaker_common::abi::{Switch, cause};
use serde_json::json;

use super::loaded::InForce;
use super::tampering::{Finding, Tampering};
use crate::config::ScopeIndex;
use crate::kernel::Breaker;

/// The switches at the last check.
#[derive(Default)]
pub struct SwitchWatch {
    known: BTreeMap<String, Known>,
}

/// A switch at the last check.
#[derive(Clone, Copy)]
struct Known {
    switch: Switch,
    armed: Armed,
    /// True if the switch has a new epoch and no cause. Two consecutive checks never see this state of a
    /// reset that is in progress.
    is_suspect: bool,
}

/// Whether a scope is armed, and the number of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Armed {
    is_armed: bool,
    changes: u32,
}

/// A change of a switch that neither a trip nor a reset makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// These causes were removed.
    Removed(u64),
    /// The epoch was lowered from this one.
    Lowered(u64),
    /// The epoch was raised by a trip, and its unknown cause was removed.
    UnknownRemoved,
}

impl SwitchWatch {
    /// Compares the switches with the last check, and repairs each change that neither a trip nor a reset
    /// made.
    pub fn check(&mut self, in_force: &InForce, tampering: &Tampering) {
        let breaker = &in_force.breaker;
        let mut known = BTreeMap::new();
        for scope in breaker.names().iter() {
            let Ok(armed) = Armed::read(breaker, scope) else { continue };
            let Ok(now) = breaker.switch(scope) else { continue };
            let name = breaker.names().name(scope).to_string();
            let before = self.known.get(&name);
            let armed = match before {
                Some(before) if armed.is_changed_since(before.armed) => {
                    repair_armed(breaker, (scope, &name), armed, tampering)
                }
                _ => armed,
            };
            let change = before.and_then(|before| change(&before.switch, &now));
            let is_confirmed =
                change != Some(Change::UnknownRemoved) || before.is_some_and(|before| before.is_suspect);
            if let Some(change) = change.filter(|_| is_confirmed) {
                repair(breaker, (scope, &name), change, &now, tampering);
            }
            let (switch, is_suspect) = match before {
                // The next check confirms the change against the same switch.
                Some(before) if !is_confirmed => (before.switch, true),
                _ => (breaker.switch(scope).unwrap_or(now), false),
            };
            known.insert(name, Known { switch, armed, is_suspect });
        }
        self.known = known;
    }
}

impl Armed {
    fn read(breaker: &Breaker, scope: ScopeIndex) -> Result<Self> {
        let before = breaker.scope(scope)?;
        let after = breaker.scope(scope)?;
        // A change in progress has raised `armed_changes`, and sets `armed` later.
        let changes = before.armed_changes.max(after.armed_changes);
        Ok(Self { is_armed: after.armed != 0, changes })
    }

    /// Returns true if `armed` was written, but `armed_changes` was not.
    fn is_changed_since(self, before: Self) -> bool {
        self.is_armed != before.is_armed && self.changes == before.changes
    }
}

/// Reports a scope that another process armed or disarmed, and arms a disarmed one. Returns the state after
/// the repair.
fn repair_armed(
    breaker: &Breaker,
    (scope, name): (ScopeIndex, &str),
    now: Armed,
    tampering: &Tampering,
) -> Armed {
    let repaired = if now.is_armed { Ok(()) } else { breaker.set_armed(scope, true) };
    let found = match &repaired {
        Ok(()) if now.is_armed => "it was armed, and not by breaker: it stays armed".to_owned(),
        Ok(()) => "it was disarmed, and not by breaker: it is armed again".to_owned(),
        Err(error) => format!("it was disarmed, and not by breaker: it cannot be armed: {error:#}"),
    };
    tampering.set_problem(name, repaired.err().map(|_| found.clone()));
    tampering.record(Finding {
        place: name,
        scope: Some(name.to_owned()),
        causes: 0,
        found,
        fields: json!({ "armed": now.is_armed }),
    });
    Armed::read(breaker, scope).unwrap_or(now)
}

/// Returns the change of a switch that neither a trip nor a reset makes.
fn change(before: &Switch, now: &Switch) -> Option<Change> {
    // A reset raises `resets` before it removes causes.
    if now.resets > before.resets {
        return None;
    }
    let removed = before.causes & !now.causes;
    if removed != 0 {
        Some(Change::Removed(removed))
    } else if now.epoch < before.epoch {
        Some(Change::Lowered(before.epoch))
    } else if now.epoch > before.epoch && now.causes == 0 {
        Some(Change::UnknownRemoved)
    } else {
        None
    }
}

/// Repairs a switch: sets the removed causes again, and raises the epoch above every known epoch.
fn repair(
    breaker: &Breaker,
    (scope, name): (ScopeIndex, &str),
    change: Change,
    now: &Switch,
    tampering: &Tampering,
) {
    let trip = |causes| breaker.trip(scope, causes);
    let (causes, found, repaired): (u64, &str, Result<()>) = match change {
        Change::Removed(causes) => (causes, "causes were removed without a reset", trip(causes)),
        Change::UnknownRemoved => {
            (cause::STATE, "the cause of a trip was removed without a reset", trip(cause::STATE))
        }
        Change::Lowered(epoch) => (0, "the epoch was lowered", breaker.raise_epoch(scope, epoch + 1)),
    };
    let outcome = match &repaired {
        Ok(()) if causes != 0 => "the scope is tripped again".to_owned(),
        Ok(()) => "the epoch is raised again".to_owned(),
        Err(error) => format!("the switch cannot be written: {error:#}"),
    };
    tampering.record(Finding {
        place: name,
        scope: Some(name.to_owned()),
        causes,
        found: format!("{found}: {outcome}"),
        fields: json!({ "epoch": now.epoch, "resets": now.resets }),
    });
    tampering.set_problem(name, repaired.err().map(|_| format!("{found}: {outcome}")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_by_neither_a_trip_nor_a_reset_are_found() {
        let switch = |causes, epoch, resets| Switch { causes, epoch, resets, ..Switch::default() };
        for (before, now, found) in [
            (switch(0, 0, 0), switch(0, 0, 0), None),
            (switch(0, 0, 0), switch(1, 1, 0), None),
            (switch(0, 0, 0), switch(1, 0, 0), None),
            (switch(3, 2, 0), switch(0, 3, 1), None),
            (switch(3, 2, 1), switch(7, 3, 1), None),
            (switch(3, 2, 1), switch(0, 2, 1), Some(Change::Removed(3))),
            (switch(3, 2, 1), switch(4, 3, 1), Some(Change::Removed(3))),
            (switch(3, 2, 1), switch(2, 2, 1), Some(Change::Removed(1))),
            (switch(3, 2, 1), switch(0, 0, 0), Some(Change::Removed(3))),
            (switch(3, 2, 1), switch(3, 1, 1), Some(Change::Lowered(2))),
            (switch(0, 2, 1), switch(0, 3, 1), Some(Change::UnknownRemoved)),
        ] {
            assert_eq!(change(&before, &now), found, "{before:?} {now:?}");
        }
    }
}
