//! The sums of epochs and resets that a session's connections are compared with. Pure.
//!
//! A connection carries the sum of its scopes' epochs at its SYN. If a session changes its groups, the new
//! sum may differ by all past trips and resets of these groups, and every connection of the session would be
//! fenced. The sum may also equal one from before a trip, and a fenced connection would pass again. So the
//! session gets one more scope, without name and limits, whose epoch is the difference. Sums wrap, so the
//! difference may be negative.

use breaker_common::abi::{
    LIMITS_PER_SCOPE, Label, Limit, Rules, SCOPES_PER_SESSION, Scope, Session, Switch, label,
};
use breaker_common::decide::{ScopeHistory, Switches};
use bytemuck::Zeroable;

use super::in_force::{InForce, scope_name};
use crate::kernel::sessions::scopes;
use crate::kernel::tables::Tables;

/// Preserves the sums of every session that both policies declare. Returns the scopes that hold the
/// differences, by number.
///
/// # Errors
/// A text if a session has no room for one more scope.
pub fn preserve(now: &InForce, next: &mut Tables) -> Result<Vec<(u32, Scope)>, String> {
    let mut made = Vec::new();
    let in_use: Vec<u32> = now.sessions.iter().flat_map(scopes).copied().collect();
    let mut free: Vec<u32> = (0..next.labels.len() as u32)
        .filter(|scope| next.labels[*scope as usize].kind == label::FREE && !in_use.contains(scope))
        .collect();
    for number in 0..now.sessions.len().min(next.sessions.len()) {
        let (old, new) = (&now.sessions[number], &mut next.sessions[number]);
        if old.scope_count == 0 || new.scope_count == 0 {
            continue;
        }
        new.day_epoch = old.day_epoch;
        let (before, after) = (sums(now, old), sums(now, new));
        let [epoch, resets] = [before[0].wrapping_sub(after[0]), before[1].wrapping_sub(after[1])];
        if (epoch, resets) == (0, 0) {
            continue;
        }
        let position = new.scope_count as usize;
        if position >= SCOPES_PER_SESSION {
            let own = next.labels.get(new.scopes[0] as usize).map(scope_name).unwrap_or_default();
            return Err(format!(
                "{own} changes its groups, some of which have tripped before, and it has no room to record \
                 that"
            ));
        }
        let scope = free.pop().unwrap_or_else(|| {
            next.labels.push(Label { kind: label::FREE, session: 0, name: [0; 64] });
            next.armed.push(None);
            next.rules.push((Rules::default(), [Limit::default(); LIMITS_PER_SCOPE]));
            next.policy.scopes = next.labels.len() as u32;
            next.policy.scopes - 1
        });
        new.scopes[position] = scope;
        new.scope_count += 1;
        let switch = Switch { epoch, resets, ..Switch::default() };
        made.push((scope, Scope { switch, ..Scope::zeroed() }));
    }
    Ok(made)
}

/// The epoch sum and the sum of the resets of a session's scopes. A new scope counts 0.
fn sums(now: &InForce, session: &Session) -> [u64; 2] {
    let switch_of = |scope: u32| now.scopes.get(scope as usize).map(|scope| scope.switch);
    let switches = |scope| switch_of(scope).map(|switch| (switch.epoch, switch.causes));
    [Switches::combined(session, switches).epoch, ScopeHistory::combined(session, switch_of).resets]
}

/// The epoch sum of connections of a session that are not fenced; `None` if the policy in force does not
/// declare the session.
pub fn epoch(now: &InForce, session: u32) -> Option<u64> {
    let found = now.sessions.get(session as usize).filter(|found| found.scope_count != 0)?;
    Some(sums(now, found)[0])
}
