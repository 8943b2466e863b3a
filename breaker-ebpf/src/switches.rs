//! The switches of the scopes: their state for a decision, and the changes that a decision makes, each with
//! its event.

use core::hint::black_box;

use breaker_common::abi::{Event, SCOPES_PER_SESSION, Session, Switch, Trip, cause, identity, kind};
use breaker_common::decide::{HOST, ScopeHistory, SharedEndpointState, Switches};
use breaker_common::limits::{self, SharedScope};

use crate::clock::now;
use crate::scratch::{Scratch, non_null};
use crate::{event, policy, scope};

/// Returns the combined switches of a session's scopes.
///
/// A plain loop: [`Switches::combined`] takes Linux 6.1 20,000 more verified instructions in `egress`.
#[inline(always)]
pub fn switches(session: &Session) -> Switches {
    let mut switches = Switches { epoch: 0, causes: 0 };
    let mut i = 0;
    while i < SCOPES_PER_SESSION && (i as u32) < session.scope_count {
        if let Some(scope) = scope::get(session.scopes[i], 0) {
            let (epoch, causes) = scope.epoch_and_causes();
            switches.add(epoch, causes);
        }
        i += 1;
    }
    switches
}

/// Returns the combined history of a session's scopes. A plain loop, as in [`switches`].
#[inline(always)]
pub fn history(session: &Session) -> ScopeHistory {
    let mut history = ScopeHistory { raised_ns: 0, resets: 0 };
    let mut i = 0;
    while i < SCOPES_PER_SESSION && (i as u32) < session.scope_count {
        if let Some(scope) = scope::get(session.scopes[i], 0) {
            history.add(scope.switch());
        }
        i += 1;
    }
    history
}

#[inline(always)]
fn switch_of(scope: u32) -> Option<Switch> {
    scope::get(scope, 0).map(|scope| scope.switch())
}

/// Writes the state of all sessions at a shared endpoint to `Scratch::shared_endpoint_state`. A global
/// function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn shared_endpoint_state(scratch: *mut Scratch, endpoint: u32) -> u32 {
    let Some(scratch) = non_null(scratch) else { return 0 };
    scratch.shared_endpoint_state = SharedEndpointState { causes: 0, raised_ns: 0 };
    let mut i = 0;
    while i < identity::MAX_SESSIONS_PER_ENDPOINT {
        let key = [identity::LISTED, i, black_box(0), black_box(0)];
        let number = policy::session_by_comp_ids(endpoint, key, scratch.side);
        if number == 0 {
            break;
        }
        add_session_state(scratch, number);
        i += 1;
    }
    i
}

/// Adds the state of a session to `Scratch::shared_endpoint_state`. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn add_session_state(scratch: *mut Scratch, number: u32) -> u32 {
    let Some(scratch) = non_null(scratch) else { return 0 };
    let Some(session) = policy::session(number, scratch.side) else { return 0 };
    scratch.shared_endpoint_state.add_session(session, switch_of);
    0
}

/// [`limits::trip`], and an event if the cause is new. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn trip(scratch: *mut Scratch, number: u32, cause: u64, limit: u32, used: u64) -> u32 {
    let Some(scratch) = non_null(scratch) else { return 0 };
    let Some(scope) = scope::get(number, scratch.side) else { return 0 };
    let event = event::new(kind::TRIPPED, number, scratch.session, scratch.packet.key);
    if limits::trip(&scope, Trip { at_ns: event.at_ns, cause, limit, session: scratch.session, used }) {
        event::send(&Event { limit, cause, used, ..event });
    }
    0
}

/// [`limits::record_fence`], and an event if the fence isolates the session. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn record_fence(scratch: *mut Scratch, number: u32, raised: u64, resets: u64) -> u32 {
    let (Some(scratch), Some(scope)) = (non_null(scratch), scope::get(number, 0)) else { return 0 };
    if limits::record_fence(&scope, now(), raised, resets) {
        event::send(&event::new(kind::ISOLATED, number, scratch.session, scratch.packet.key));
    }
    0
}

/// Sends an event about the connection. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn emit(scratch: *mut Scratch, kind: u32, scope: u32, count: u32) -> u32 {
    let Some(scratch) = non_null(scratch) else { return 0 };
    let event = event::new(kind, scope, scratch.session, scratch.packet.key);
    event::send(&Event { used: count as u64, ..event });
    0
}

/// Sends an event about the lost heartbeat, once for each heartbeat. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn emit_heartbeat_lost(scratch: *mut Scratch) -> u32 {
    let Some(scratch) = non_null(scratch) else { return 0 };
    let (Some((beat, ..)), Some(host)) = (policy::heartbeat(scratch.side), scope::get(HOST, 0)) else {
        return 0;
    };
    // One more than the heartbeat, for the time of a load may be 0, which the field holds at first.
    let report = beat.wrapping_add(1);
    if host.swap_heartbeat_reported(report) != report {
        event::send(&Event {
            cause: cause::DEADMAN,
            ..event::new(kind::HEARTBEAT_LOST, HOST, scratch.session, scratch.packet.key)
        });
    }
    0
}
