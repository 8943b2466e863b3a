//! The limits that a session is subject to, as the session lists them.

use crate::abi::{LIMITS_PER_SCOPE, LIMITS_PER_SESSION, Limit, LimitRef, Rules, Session};
use crate::message::{Class, InboundClass, LimitClass, TOTAL};

use super::scope::{Scopes, SharedScope};

/// Lists the limits of a session's scopes in [`Session::limit_refs`], in the order of the scopes.
///
/// `limits_of` returns the limits of a scope.
pub fn list_limits(session: &mut Session, limits_of: impl Fn(u32) -> (Rules, [Limit; LIMITS_PER_SCOPE])) {
    let mut count = 0;
    session.limit_refs = [LimitRef::default(); LIMITS_PER_SESSION];
    for scope in session.scopes.into_iter().take(session.scope_count as usize) {
        let (rules, limits) = limits_of(scope);
        for (position, limit) in limits.iter().enumerate().filter(|(i, _)| rules.positions >> i & 1 == 1) {
            let (position, counter) = (position as u16, counter(limit.class));
            session.limit_refs[count] = LimitRef { scope, position, counter, ring: limit.ring };
            count += 1;
        }
    }
}

/// Returns [`LimitRef::counter`] of a limit of this class.
fn counter(class: u32) -> u16 {
    let counters = LimitClass::ALL.map(|class| match class {
        LimitClass::Order => Class::Order as u16,
        LimitClass::Cancel => Class::Cancel as u16,
        LimitClass::Message => TOTAL as u16,
        LimitClass::Fill => InboundClass::Fill as u16,
        LimitClass::Reject => InboundClass::Reject as u16,
    });
    1 + counters.get(class as usize).copied().unwrap_or(TOTAL as u16)
}

/// Adds inbound fills to every ratio among the limits of a session.
#[inline(always)]
pub fn record_fills(scopes: &impl Scopes, session: &Session, fills: u64) {
    let mut i = 0;
    while i < LIMITS_PER_SESSION && session.limit_refs[i].counter != LimitRef::END {
        let limit_ref = &session.limit_refs[i];
        if let Some(scope) = scopes.scope(limit_ref.scope)
            && scope.limit(limit_ref.position as usize).per_fill != 0
        {
            scope.add_fills(limit_ref.position as usize, fills);
        }
        i += 1;
    }
}
