//! The limits of a session's scopes: check and charge the messages of one segment.
//!
//! A segment passes or is withheld as a whole, and may be subject to many limits. The charge has three steps:
//! 1. [`precheck`] compares each limit with its threshold, [`Window::recheck_at`](crate::abi::Window).
//!    Below the threshold no limit can be exceeded, and [`charge_below_threshold`] takes all tickets.
//! 2. Otherwise [`find_exceeded`] searches for an exceeded limit. A withheld segment takes no ticket.
//! 3. [`take_tickets`] takes the tickets. [`commit()`] then checks each limit near its threshold again with
//!    the real tickets, because another CPU may have taken tickets in between.
//!
//! A window holds at most the messages since its tail was last searched. Most limits are therefore far from
//! their threshold, and cost one comparison and one addition. The clock is read at most once per segment, and
//! again for each limit that another CPU raced for.

mod check;
mod commit;
mod fences;
mod list;
mod pending;
mod scope;
mod tickets;

use core::hint::cold_path;

use crate::abi::{LIMITS_PER_SESSION, Session};

use pending::RACED;

pub use check::{find_exceeded, precheck};
pub use commit::commit;
pub use fences::{is_isolated, record_fence};
pub use list::{list_limits, record_fills};
pub use pending::{Attempt, LimitExceeded, PendingCharge, Precheck, WarningRaised, for_each_uncommitted};
pub use scope::{Scopes, SharedScope, trip};
pub use tickets::{charge_below_threshold, take_tickets, try_charge};

/// The steps of a charge. The kernel makes each step a function that the verifier checks once.
pub trait Charge {
    /// Calls [`try_charge`].
    fn try_charge(&mut self, session: &Session) -> Attempt;
    /// Calls [`find_exceeded`].
    fn find_exceeded(&mut self, session: &Session) -> Option<LimitExceeded>;
    /// Calls [`take_tickets`].
    fn take_tickets(&mut self, session: &Session) -> u64;
    /// Calls [`commit()`] for each limit in `uncommitted` ([`for_each_uncommitted`]). Returns the first
    /// exceeded limit.
    fn commit(&mut self, session: &Session, uncommitted: u64) -> Option<LimitExceeded>;
}

/// Charges the messages of a segment to all limits of its session, or to none if a limit is exceeded.
///
/// Returns the exceeded limit.
#[inline(always)]
pub fn charge(session: &Session, charge: &mut impl Charge) -> Option<LimitExceeded> {
    let uncommitted = match charge.try_charge(session) {
        Attempt::NotCounted => return None,
        Attempt::Charged(uncommitted) => uncommitted,
        Attempt::NearLimit => {
            cold_path();
            if let Some(exceeded) = charge.find_exceeded(session) {
                return Some(exceeded);
            }
            charge.take_tickets(session)
        }
    };
    if uncommitted == 0 {
        return None;
    }
    cold_path();
    charge.commit(session, uncommitted)
}

/// Charges inbound messages to all limits of their session, and calls `trip` for each exceeded limit.
///
/// Inbound messages are never withheld, so each takes its ticket even if a limit is exceeded.
#[inline(always)]
pub fn charge_inbound<C: Charge>(
    session: &Session,
    charge: &mut C,
    mut trip: impl FnMut(&mut C, LimitExceeded),
) {
    let uncommitted = match charge.try_charge(session) {
        Attempt::NotCounted => return,
        Attempt::Charged(uncommitted) => uncommitted,
        Attempt::NearLimit => {
            // Only updates the tails. `commit` finds the exceeded limits again.
            charge.find_exceeded(session);
            charge.take_tickets(session)
        }
    };
    let mut i = 0;
    while i < LIMITS_PER_SESSION && uncommitted != 0 {
        if pending::has_bit(uncommitted, i)
            && let Some(exceeded) = charge.commit(session, uncommitted & (1 << RACED | 1) << i)
        {
            trip(charge, exceeded);
        }
        i += 1;
    }
}
