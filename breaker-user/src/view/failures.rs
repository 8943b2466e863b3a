//! What happens in each failure, as the policy in force has it.

use anyhow::Result;
use breaker_common::abi::{LimitRef, Session, flag, mode, undeclared};
use serde::Serialize;

use super::status::duration;
use crate::kernel::Breaker;

/// A failure and what happens then.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// What goes wrong.
    pub failure: &'static str,
    /// What happens.
    pub then: String,
}

/// All of them.
pub fn failures(breaker: &Breaker) -> Result<Vec<Failure>> {
    let policy = breaker.policy();
    let sessions = breaker
        .names()
        .sessions()
        .map(|session| breaker.session(session))
        .collect::<Result<Vec<Session>>>()?;
    let trips = sessions.iter().filter(|session| session.flags & flag::DESYNC_TRIPS != 0).count();
    let uncounted = sessions.iter().filter(|session| session.flags & flag::BLIND_UNCOUNTED != 0).count();
    let counted = sessions.len() - trips - uncounted;
    let ways = [
        (counted, "its bytes count as orders, 100 of them as one"),
        (trips, "trip"),
        (uncounted, "warn: it passes UNCOUNTED"),
    ];
    let lost = match ways.iter().find(|(count, _)| *count == sessions.len()) {
        Some((_, what)) => (*what).to_owned(),
        None => {
            let told = ways.iter().filter(|(count, _)| *count != 0);
            told.map(|(count, what)| format!("{what} (in {count} of {} sessions)", sessions.len()))
                .collect::<Vec<_>>()
                .join("; ")
        }
    };
    let full = if policy.flags & flag::PASS_WHEN_FULL == 0 {
        "block"
    } else {
        "pass: not counted, not limited, and no trip reaches it"
    };
    let is_limited =
        sessions.first().is_some_and(|undeclared| undeclared.limit_refs[0].position != LimitRef::END);
    let undeclared = match policy.undeclared {
        undeclared::BLOCK => "block",
        undeclared::WATCH if is_limited => "watch: it passes, counted, under the host's limits",
        undeclared::WATCH => "watch: it passes, counted, under no limit",
        _ => "pass uncounted",
    };
    let dead = match (policy.deadman_ns, policy.flags & flag::HEARTBEAT_LOSS_TRIPS != 0) {
        (0, _) => "enforcement goes on; events wait in the ring".to_owned(),
        (after, trips) => {
            let after = duration(after);
            let what = if trips { "the host trips" } else { "an event tells" };
            format!("enforcement goes on; {what} at the next message after {after}")
        }
    };
    // Of the declared ones: in what nobody declares replays always pass.
    let declared = &sessions[1.min(sessions.len())..];
    let repeated = match declared.iter().filter(|session| session.flags & flag::REPLAYS_PASS != 0).count() {
        0 => "trip: withheld; way out: sequence reset, or possdup = \"pass\"".to_owned(),
        n if n == declared.len() => "pass, counted as an order".to_owned(),
        n => format!("trip, but pass in {n} of {} sessions", declared.len()),
    };
    let (idle, bypass) = match breaker.meta().mode {
        mode::INLINE => (
            "ends at its next message: its sockets are on another host",
            "seen, where its frames come by this gateway",
        ),
        _ => ("ended at once by `trip`, by the agent in 1 s, else at its next message", "not seen at all"),
    };
    let pages = match breaker.meta() {
        meta if meta.mode == mode::INLINE => "cannot be: a frame is what it is",
        meta if meta.shared_pages != 0 => "cannot be read: the bytes in such pages count as orders",
        _ => "NOT SEEN: this kernel cannot tell (Linux 6.2 can)",
    };
    let fixed = [
        ("idle connection of a tripped scope", idle),
        ("event ring full", "enforcement goes on; lost events are counted"),
        ("more than 6 VLAN tags or MPLS labels", "pass unread, counted as unseen by interface and kind"),
        ("headers cut short or contradictory", "pass, counted as unseen: no TCP stack takes them for data"),
        ("IP fragment", "the first is withheld, as one that hides a TCP header is"),
        ("tunnel (IP in IP, GRE, ESP, VXLAN), 802.2", "pass unread, counted as unseen by interface and kind"),
        ("Multipath TCP", "a further path is refused; the first one is followed"),
        ("segment ahead of a gap", "withheld until TCP has filled the gap; else the stream is lost"),
        ("table full of live connections", "as `table full`; others take no place there"),
        ("pages changed after sending (sendfile)", pages),
        ("link removed by root", "nothing is enforced: `status` and the agent tell"),
        ("kernel bypass (Onload, DPDK, RDMA, AF_XDP)", bypass),
        ("FIX inside TLS", "not read: declare the session `wire = \"opaque\"`"),
    ];
    let set = [
        ("table full", full.to_owned()),
        ("stream lost", lost),
        ("undeclared FIX", undeclared.to_owned()),
        ("agent dead", dead),
        ("order repeated (PossDupFlag=Y) after a trip", repeated),
    ];
    let fixed = fixed.map(|(failure, then)| (failure, then.to_owned()));
    let lost = "counted; what comes in goes uncounted until a segment begins with 8=FIX";
    let read = (breaker.meta().inbound != 0).then(|| ("stream that comes in lost", lost.to_owned()));
    Ok(set.into_iter().chain(read).chain(fixed).map(|(failure, then)| Failure { failure, then }).collect())
}
