//! The sums of epochs and resets that a session's connections are compared with. Pure.
//!
//! A connection is as old as the sum of its scopes' epochs at its SYN. Where a session gets other groups the sum of the new ones may
//! differ by all that ever happened to them, and every connection of it would be fenced; or worse, be what it was before a trip, and
//! one that was fenced would live again. So a scope of no name and no limit takes its place among the others: its epoch is the
//! difference, below 0 too, for sums wrap.

use breaker_common::abi::{
    LIMITS_PER_SCOPE, Label, Limit, Rules, SCOPES_PER_SESSION, Scope, Session, Switch, label,
};
use bytemuck::Zeroable;

use super::in_force::{InForce, named};
use crate::kernel::tables::Tables;

/// Has every session that stays keep its sums. Returns the scopes that make up the differences, by number, or why that cannot be.
pub fn keep(now: &InForce, next: &mut Tables) -> Result<Vec<(u32, Scope)>, String> {
    let mut made = Vec::new();
    // Those that the policy in force has in use are not to be touched.
    let used: Vec<u32> = now.sessions.iter().flat_map(scopes).collect();
    let mut free: Vec<u32> = (0..next.labels.len() as u32)
        .filter(|scope| next.labels[*scope as usize].kind == label::FREE && !used.contains(scope))
        .collect();
    for number in 0..now.sessions.len().min(next.sessions.len()) {
        let (old, new) = (&now.sessions[number], &mut next.sessions[number]);
        if old.scope_count == 0 || new.scope_count == 0 {
            continue;
        }
        new.day_epoch = old.day_epoch;
        let (before, after) = (sum(now, old), sum(now, new));
        let missing = [before.epoch.wrapping_sub(after.epoch), before.resets.wrapping_sub(after.resets)];
        if missing == [0, 0] {
            continue;
        }
        let place = new.scope_count as usize;
        if place >= SCOPES_PER_SESSION {
            let own = next.labels.get(new.scopes[0] as usize).map(named).unwrap_or_default();
            return Err(format!(
                "{own} gets other groups, of which some have tripped before, and has no room to remember that"
            ));
        }
        let scope = free.pop().unwrap_or_else(|| {
            next.labels.push(Label { kind: label::FREE, session: 0, name: [0; 64] });
            next.armed.push(None);
            next.rules.push((Rules::default(), [Limit::default(); LIMITS_PER_SCOPE]));
            next.policy.scopes = next.labels.len() as u32;
            next.policy.scopes - 1
        });
        new.scopes[place] = scope;
        new.scope_count += 1;
        let switch = Switch { epoch: missing[0], resets: missing[1], ..Switch::default() };
        made.push((scope, Scope { switch, ..Scope::zeroed() }));
    }
    Ok(made)
}

/// The scopes of a session.
fn scopes(session: &Session) -> Vec<u32> {
    session.scopes[..(session.scope_count as usize).min(SCOPES_PER_SESSION)].to_vec()
}

/// The sums of a session's scopes; one that is new has none.
fn sum(now: &InForce, session: &Session) -> Switch {
    let switches = scopes(session)
        .into_iter()
        .filter_map(|scope| now.scopes.get(scope as usize))
        .map(|scope| scope.switch);
    switches.fold(Switch::default(), |sum, switch| Switch {
        epoch: sum.epoch.wrapping_add(switch.epoch),
        resets: sum.resets.wrapping_add(switch.resets),
        ..sum
    })
}

/// The sum of epochs that a session's connections of now must have.
pub fn epoch(now: &InForce, session: u32) -> Option<u64> {
    let found = now.sessions.get(session as usize).filter(|found| found.scope_count != 0)?;
    Some(sum(now, found).epoch)
}
