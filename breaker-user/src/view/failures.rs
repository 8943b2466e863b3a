//! Behaviour in each failure, under the policy in force.

use anyhow::Result;
use breaker_common::abi::{LimitRef, Meta, Policy, Session, flag, mode, undeclared};
use serde::Serialize;

use crate::display::duration;
use crate::kernel::Breaker;
use crate::state::Health;

/// A failure and the behaviour in it.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// The failure.
    pub failure: &'static str,
    /// The behaviour.
    pub then: String,
}

/// Returns the behaviour in every failure.
pub fn failures(breaker: &Breaker, state: &Health) -> Result<Vec<Failure>> {
    let policy = breaker.policy();
    let sessions = breaker
        .names()
        .sessions()
        .map(|session| breaker.session(session))
        .collect::<Result<Vec<Session>>>()?;
    let full = if policy.flags & flag::PASS_WHEN_FULL == 0 {
        "block"
    } else {
        "pass: not counted, not limited, and not stopped by a trip"
    };
    let unclean = match state.unclean_boot.as_deref() {
        Some("pass") => "pass: a trip by the kernel may be lost (`unclean_boot`)",
        _ => "armed scopes come up tripped (`unclean_boot`)",
    };
    let set = [
        ("reboot, or pins lost", "the state file restores trips, epochs, arms, totals".to_owned()),
        ("power cut while an agent runs", unclean.to_owned()),
        ("table full", full.to_owned()),
        ("stream lost", stream_lost(&sessions)),
        ("undeclared FIX", undeclared_fix(policy, &sessions).to_owned()),
        ("agent dead", agent_dead(policy)),
        ("order resent (PossDupFlag=Y) after a trip", resent_order(&sessions)),
    ];
    let fixed = fixed_failures(breaker.meta()).map(|(failure, then)| (failure, then.to_owned()));
    let lost = "counted; inbound messages are not counted until a segment begins with 8=FIX";
    let read = (breaker.meta().inbound != 0).then(|| ("inbound stream lost", lost.to_owned()));
    Ok(set.into_iter().chain(read).chain(fixed).map(|(failure, then)| Failure { failure, then }).collect())
}

/// Returns the behaviour when the framing of a stream is lost.
fn stream_lost(sessions: &[Session]) -> String {
    let trips = sessions.iter().filter(|session| session.flags & flag::DESYNC_TRIPS != 0).count();
    let uncounted = sessions.iter().filter(|session| session.flags & flag::BLIND_UNCOUNTED != 0).count();
    let counted = sessions.len() - trips - uncounted;
    let treatments = [
        (counted, "its bytes count as orders, each 100 as one"),
        (trips, "trip"),
        (uncounted, "warn: it passes UNCOUNTED"),
    ];
    match treatments.iter().find(|(count, _)| *count == sessions.len()) {
        Some((_, what)) => (*what).to_owned(),
        None => {
            let used = treatments.iter().filter(|(count, _)| *count != 0);
            used.map(|(count, what)| format!("{what} (in {count} of {} sessions)", sessions.len()))
                .collect::<Vec<_>>()
                .join("; ")
        }
    }
}

/// Returns the behaviour for a FIX connection that no session declares.
fn undeclared_fix(policy: &Policy, sessions: &[Session]) -> &'static str {
    let is_limited =
        sessions.first().is_some_and(|undeclared| undeclared.limit_refs[0].position != LimitRef::END);
    match policy.undeclared {
        undeclared::BLOCK => "block",
        undeclared::WATCH if is_limited => "watch: it passes, counted, under the host's limits",
        undeclared::WATCH => "watch: it passes, counted, under no limit",
        _ => "pass uncounted",
    }
}

/// Returns the behaviour when the agent has died.
fn agent_dead(policy: &Policy) -> String {
    match (policy.deadman_ns, policy.flags & flag::HEARTBEAT_LOSS_TRIPS != 0) {
        (0, _) => "enforcement goes on; events wait in the ring".to_owned(),
        (after, trips) => {
            let after = duration(after);
            let what = if trips { "the host trips" } else { "an event tells" };
            format!("enforcement goes on; {what} at the next message after {after}")
        }
    }
}

/// Returns the behaviour for an order that is resent after a trip.
fn resent_order(sessions: &[Session]) -> String {
    // Declared sessions only: undeclared connections may always replay.
    let declared = &sessions[1.min(sessions.len())..];
    match declared.iter().filter(|session| session.flags & flag::REPLAYS_PASS != 0).count() {
        0 => "trip: withheld; cure: sequence reset, or possdup = \"pass\"".to_owned(),
        n if n == declared.len() => "pass, counted as an order".to_owned(),
        n => format!("trip, but pass in {n} of {} sessions", declared.len()),
    }
}

/// Returns the failures whose behaviour depends only on the mode and the kernel.
fn fixed_failures(meta: &Meta) -> [(&'static str, &'static str); 15] {
    let (idle, bypass) = match meta.mode {
        mode::INLINE => (
            "ends at its next message: its sockets are on another host",
            "seen if its frames pass through this gateway",
        ),
        _ => {
            ("ended at once by `trip`, within 1 s by the agent, else at its next message", "not seen at all")
        }
    };
    let pages = match meta {
        meta if meta.mode == mode::INLINE => "not possible: a frame does not change",
        meta if meta.shared_pages != 0 => "not read: the bytes in such pages count as orders",
        _ => "NOT SEEN: this kernel cannot detect it (Linux 6.2 can)",
    };
    [
        ("idle connection of a tripped scope", idle),
        ("event ring full", "enforcement goes on; lost events are counted"),
        ("more than 6 VLAN tags or MPLS labels", "pass unread, counted as unseen by interface and kind"),
        ("headers cut short or contradictory", "pass, counted as unseen: no TCP stack accepts them as data"),
        ("IP fragment", "the first is withheld, as is one that hides a TCP header"),
        ("tunnel (IP in IP, GRE, ESP, VXLAN), 802.2", "pass unread, counted as unseen by interface and kind"),
        ("Multipath TCP", "additional subflows are refused; the first subflow is read"),
        ("segment ahead of a gap", "withheld until TCP has filled the gap; otherwise a desync"),
        ("table full of live connections", "as `table full`; other connections take no entry"),
        ("pages changed after sending (sendfile)", pages),
        ("state file damaged, or missing after a load", "armed scopes come up tripped (state)"),
        ("trip by the kernel without an agent", "in the state file after the next verb or agent"),
        ("link removed by root", "nothing is enforced: `status` and the agent report it"),
        ("kernel bypass (Onload, DPDK, RDMA, AF_XDP)", bypass),
        ("FIX inside TLS", "not read: declare the session with `wire = \"opaque\"`"),
    ]
}
