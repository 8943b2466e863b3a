//! The settings of a policy and of a session, as the maps store them.

use anyhow::Result;
use breaker_common::abi::{self, Override, Session, flag, undeclared, while_tripped};
use bytemuck::Zeroable;

use crate::config::{
    CancelOnDisconnect, DeadmanAction, MessageSize, OnDesync, OnTableFull, OnTrip, Policy, PossDup,
    SessionIndex, Undeclared, WhileTripped, WireFormat,
};
use crate::kernel::text::pad_to;

/// Returns the settings of a policy as a whole, without the numbers of its scopes and sessions.
pub fn policy(policy: &Policy) -> Result<abi::Policy> {
    let host = policy.host();
    let silence_trips = host.deadman.is_some_and(|deadman| deadman.action == DeadmanAction::Trip);
    Ok(abi::Policy {
        sha256: *policy.sha256(),
        name: pad_to(policy.name().as_str())?,
        flags: flags([
            (host.on_table_full == OnTableFull::Pass, flag::PASS_WHEN_FULL),
            (silence_trips, flag::HEARTBEAT_LOSS_TRIPS),
        ]),
        undeclared: match host.undeclared {
            Undeclared::Ignore => undeclared::IGNORE,
            Undeclared::Watch => undeclared::WATCH,
            Undeclared::Block => undeclared::BLOCK,
        },
        deadman_ns: host.deadman.map_or(0, |deadman| deadman.after.as_nanos() as u64),
        ..abi::Policy::zeroed()
    })
}

/// Returns the settings of a session, without its scopes and CompIDs. `session/undeclared` has the settings
/// of the host.
pub fn session(policy: &Policy, index: SessionIndex) -> Session {
    let mut made = Session::zeroed();
    let host = policy.host();
    let declared = policy.session(index);
    let (on_trip, on_desync, tripped) = declared
        .map_or((host.on_trip, host.on_desync, host.while_tripped), |session| {
            (session.on_trip, session.on_desync, session.while_tripped)
        });
    made.flags = flags([
        (on_trip == OnTrip::Drop, flag::DROP),
        (on_desync == OnDesync::Trip, flag::DESYNC_TRIPS),
        (on_desync == OnDesync::Warn, flag::BLIND_UNCOUNTED),
        (declared.is_some_and(|session| session.user.is_some()), flag::MATCH_UID),
        (declared.is_some_and(|session| session.wire == WireFormat::Opaque), flag::OPAQUE),
        // After a reset an undeclared connection has no known Logon that a resend could follow.
        (declared.is_none_or(|session| session.possdup == PossDup::Pass), flag::REPLAYS_PASS),
        (host.deadman.is_some(), flag::WATCHES_HEARTBEAT),
        (declared.is_some_and(|session| session.drill), flag::DRILL),
    ]);
    made.flags |= match declared.and_then(|session| session.cancel_on_disconnect) {
        None => 0,
        Some(CancelOnDisconnect::All) => flag::VENUE_CANCELS_ALL,
        Some(CancelOnDisconnect::Day) => flag::VENUE_CANCELS_DAY,
        Some(CancelOnDisconnect::None) => flag::VENUE_CANCELS_NONE,
    };
    made.longest = declared.map_or(MessageSize::DEFAULT, |session| session.longest).bytes();
    made.uid = declared.and_then(|session| session.user).map_or(0, |user| user.uid());
    made.while_tripped = match tripped {
        WhileTripped::ReduceOnly => while_tripped::REDUCE_ONLY,
        WhileTripped::AdminOnly => while_tripped::ADMIN_ONLY,
        WhileTripped::Isolate => while_tripped::ISOLATE,
    };
    let classes = declared.map_or(&[][..], |session| &session.classes);
    made.override_count = classes.len() as u32;
    for (slot, (msg_type, class)) in made.overrides.iter_mut().zip(classes) {
        *slot = Override { msg_type: msg_type.packed().0, class: *class as u64 };
    }
    made
}

fn flags<const N: usize>(bits: [(bool, u32); N]) -> u32 {
    bits.into_iter().fold(0, |all, (set, bit)| if set { all | bit } else { all })
}
