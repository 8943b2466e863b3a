//! The charge of a segment's messages to the limits of a session: `breaker_common::limits`, cut into global
//! functions.
//!
//! A limit that a function reports as exceeded is in `Scratch::exceeded`.

use breaker_common::abi::{Event, Session, kind};
use breaker_common::limits::{self, Attempt, Precheck, WarningRaised};
use breaker_common::window::EXCEEDED;

use crate::boundary::Pack;
use crate::clock::now;
use crate::event;
use crate::scope::OnSide;
use crate::scratch::{Scratch, non_null};

/// [`limits::try_charge`]: a packed [`Attempt`].
///
/// The two halves are global functions: up to Linux 6.1 the verifier follows the second half again for each
/// path through the first.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn try_charge(scratch: *mut Scratch, session: *const Session) -> u64 {
    let (Some(checked), Some(declared)) = (non_null(scratch), non_null(session.cast_mut())) else {
        return Attempt::NotCounted.pack();
    };
    match limits::precheck(&OnSide(checked.side), declared, &mut checked.pending, &checked.counts) {
        Precheck::NotCounted => Attempt::NotCounted.pack(),
        Precheck::NearLimit => Attempt::NearLimit.pack(),
        Precheck::BelowThreshold => charge_below_threshold(scratch, session),
    }
}

/// [`limits::charge_below_threshold`]. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn charge_below_threshold(scratch: *mut Scratch, session: *const Session) -> u64 {
    let (Some(scratch), Some(session)) = (non_null(scratch), non_null(session.cast_mut())) else { return 0 };
    let read = &raw mut scratch.now;
    // SAFETY: a field of the scratch memory. The verifier does not track whether memory was written, so it
    // follows one path.
    let clock = || unsafe {
        if read.read_volatile() == 0 {
            read.write_volatile(now());
        }
        read.read_volatile()
    };
    limits::charge_below_threshold(
        &OnSide(scratch.side),
        session,
        &mut scratch.pending,
        &scratch.counts,
        clock,
    )
}

/// [`limits::find_exceeded`]: 1 if a limit is exceeded. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_exceeded(scratch: *mut Scratch, session: *const Session) -> u32 {
    let (Some(scratch), Some(session)) = (non_null(scratch), non_null(session.cast_mut())) else { return 0 };
    let Some(exceeded) =
        limits::find_exceeded(&OnSide(scratch.side), session, &mut scratch.pending, &scratch.counts, now)
    else {
        return 0;
    };
    scratch.exceeded = exceeded;
    1
}

/// [`limits::take_tickets`]. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn take_tickets(scratch: *mut Scratch, session: *const Session) -> u64 {
    let (Some(scratch), Some(session)) = (non_null(scratch), non_null(session.cast_mut())) else { return 0 };
    limits::take_tickets(&OnSide(scratch.side), session, &mut scratch.pending, &scratch.counts)
}

/// [`limits::commit`] of all uncommitted limits: 1 if one is exceeded. Reports the first one. A global
/// function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn commit(scratch: *mut Scratch, session: *const Session, uncommitted: u64) -> u32 {
    let Some(scratch) = non_null(scratch) else { return 0 };
    scratch.exceeded.used = 0;
    limits::for_each_uncommitted(uncommitted, |i, raced| {
        commit_one(scratch, session, i as u32, raced as u32);
    });
    (scratch.exceeded.used != 0) as u32
}

/// [`limits::commit`] of the session's limit with index `i`. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn commit_one(scratch: *mut Scratch, session: *const Session, i: u32, raced: u32) -> u32 {
    let (Some(scratch), Some(session)) = (non_null(scratch), non_null(session.cast_mut())) else { return 0 };
    let Some(limit_ref) = session.limit_refs.get(i as usize) else { return 0 };
    let number = limit_ref.scope;
    let on_warning = |warning: WarningRaised| {
        emit_warning(&raw const *scratch, number, warning.limit, warning.level, warning.used);
    };
    let (limit, segment) = ((i as usize, limit_ref, raced != 0), (&scratch.pending, &scratch.counts));
    if let Some(exceeded) = limits::commit(&OnSide(scratch.side), limit, segment, now, on_warning)
        && scratch.exceeded.used == 0
    {
        scratch.exceeded = exceeded;
    }
    0
}

/// Sends an event about a raised warning level. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn emit_warning(scratch: *const Scratch, scope: u32, limit: u32, level: u64, used: u64) -> u32 {
    let Some(scratch) = non_null(scratch.cast_mut()) else { return 0 };
    let kind = if level == EXCEEDED { kind::WOULD_TRIP } else { kind::WARNED };
    let event = event::new(kind, scope, scratch.session, scratch.packet.key);
    event::send(&Event { limit, used, level: level as u32, ..event });
    0
}
