//! `drill --live`: trips a session of the load whose configuration says `drill = true`, and measures the trip
//! on the wire of this host. The session stays tripped.

use std::collections::HashSet;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use breaker_common::abi::{cause, flag, mode};

use super::figures::Report;
use crate::cli_error::{CliError, Code};
use crate::config::{Scope, ScopeIndex, SessionIndex};
use crate::display;
use crate::kernel::packets::{Addresses, Packets};
use crate::kernel::sockets::SockDiag;
use crate::kernel::{Breaker, PinRoot};
use crate::testbed::Moment;

/// Longest time from the switch to the last byte and to the resets.
const PROMISED: Duration = Duration::from_millis(5);
/// Time for which late bytes are watched for after the trip.
const WATCH: Duration = Duration::from_millis(500);
/// The kernel turns timestamps of packets on in the background (kernel `net_enable_timestamp`). Before that a
/// packet has the time at which it is read.
const TIMESTAMPS: Duration = Duration::from_millis(200);
/// Longest wait for the sockets to end.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What the wire and the sockets of this host showed.
#[derive(Debug, Default)]
struct Observed {
    /// Times of the last segment with payload that left, and of the first reset of each connection.
    last_payload: Option<Moment>,
    resets: Vec<(Addresses, Moment)>,
    /// Packets that the capture lost.
    lost: u32,
    /// When the last socket had ended; `None` if one is still open.
    ended: Option<Moment>,
}

/// Trips a session and measures.
///
/// # Errors
/// Exit code 4 for a session that may not be tripped, or that has no connection. Nothing is changed then.
pub fn run(root: &PinRoot, name: &str) -> Result<Report> {
    let breaker = Breaker::open(root)?;
    let target = breaker.find(name)?;
    let session = allowed(&breaker, target, name)?;
    let connections: HashSet<_> = breaker
        .in_netns(|| breaker.session_sockets())??
        .into_iter()
        .filter(|socket| socket.session == Some(session))
        .map(|socket| Addresses { local: socket.local, remote: socket.remote })
        .collect();
    if connections.is_empty() {
        let found = "it has no open connection on this host, so that nothing could be measured";
        return Err(refused(name, found, "let the engine log on first"));
    }
    let observed = breaker.in_netns(|| observe(&connections, || trip(root, name)))??;
    let switch = breaker.switch(target)?;
    let drops = breaker.session(session)?.flags & flag::DROP != 0;
    let mut report = Report::new("live", "A session of this host is tripped, and measured on its wire");
    let switched = Moment::from_nanos(switch.raised_ns);
    report.count("connections of the session", connections.len() as u64);
    report.promise(
        "the switch is read back as tripped by a person",
        format!("{}, epoch {}", display::causes(switch.causes).join(", "), switch.epoch),
        switch.causes & cause::MANUAL != 0,
    );
    let last = observed.last_payload.map_or(Duration::ZERO, |at| at.since(switched));
    report.time("the switch, to the last byte that left this host", last);
    report.promise_time("the last byte leaves within 5 ms of the switch", last, PROMISED);
    report.promise_count("the capture lost no packet", 0, observed.lost.into());
    if !drops {
        measure_ends(&mut report, &observed, switched, connections.len() as u64);
    }
    Ok(report)
}

/// Measures the reset at each end.
fn measure_ends(report: &mut Report, observed: &Observed, switched: Moment, connections: u64) {
    let resets = observed.resets.iter().map(|(_, at)| at.since(switched)).max();
    if let Some(slowest) = resets {
        report.time("the switch, to the last reset that left to the venue", slowest);
    }
    if let Some(ended) = observed.ended {
        report.time("the switch, to the end of the last socket of the engine", ended.since(switched));
    }
    report.promise_count(
        "a reset leaves to the venue on each connection",
        connections,
        observed.resets.len() as u64,
    );
    let found = if observed.ended.is_some() { "ended" } else { "open" };
    report.promise("every socket of the engine ends", found, observed.ended.is_some());
}

/// Returns the session if a live drill may trip it.
fn allowed(breaker: &Breaker, scope: ScopeIndex, name: &str) -> Result<SessionIndex> {
    let Scope::Session(session) = breaker.names().what(scope) else {
        return Err(refused(name, "it is no session", "name one, like session/NAME"));
    };
    if breaker.session(session)?.flags & flag::DRILL == 0 {
        let cure = "write drill = true into its [[session]], and reload";
        return Err(refused(name, "its configuration does not allow a live drill", cure));
    }
    if breaker.meta().mode == mode::INLINE {
        let found = "the sockets of the engine are not on this gateway";
        return Err(refused(name, found, "run the drill on a trading host with mode = \"egress\""));
    }
    if breaker.switch(scope)?.causes != 0 {
        return Err(refused(name, "it is tripped already", "reset it first"));
    }
    Ok(session)
}

fn refused(name: &str, found: &str, cure: &str) -> anyhow::Error {
    let text = format!("drilling {name}: refused, nothing is changed: {found}: {cure}");
    CliError::new(Code::Refused, text).into()
}

/// Runs `breaker trip`, as a person would.
fn trip(root: &PinRoot, name: &str) -> Result<()> {
    let mut command = Command::new(std::env::current_exe().context("finding this program")?);
    command.arg("--pin-root").arg(root.path()).args(["trip", name, "--reason", "drill --live"]);
    if root.is_private() {
        command.env("BREAKER_PRIVATE_PINS", "1");
    }
    let output = command.output().context("running breaker")?;
    if output.status.success() {
        return Ok(());
    }
    Err(anyhow!("tripping {name}: {}", String::from_utf8_lossy(&output.stderr).trim_end()))
}

/// Watches connections in the network namespace of this thread during an act.
fn observe(connections: &HashSet<Addresses>, act: impl FnOnce() -> Result<()>) -> Result<Observed> {
    let packets = Packets::open()?;
    sleep(TIMESTAMPS);
    let stop = AtomicBool::new(false);
    scope(|threads| {
        let capture = threads.spawn(|| capture(packets, connections, &stop));
        let done = act().and_then(|()| wait_for_end(connections));
        sleep(WATCH);
        stop.store(true, Ordering::Relaxed);
        let captured = capture.join().map_err(|_| anyhow!("the capture panicked"))?;
        Ok(Observed { ended: done?, ..captured? })
    })
}

/// Records the outbound segments of connections.
fn capture(mut packets: Packets, connections: &HashSet<Addresses>, stop: &AtomicBool) -> Result<Observed> {
    let mut observed = Observed::default();
    while !stop.load(Ordering::Relaxed) {
        let Some(segment) = packets.next(Duration::from_millis(20))? else { continue };
        let at = Moment::from_nanos(segment.at_ns);
        let addresses = Addresses { local: segment.source, remote: segment.destination };
        if !connections.contains(&addresses) {
            continue;
        }
        if segment.is_reset() {
            if observed.resets.iter().all(|(known, _)| *known != addresses) {
                observed.resets.push((addresses, at));
            }
        } else if !segment.payload.is_empty() {
            observed.last_payload = Some(at);
        }
    }
    observed.lost = packets.lost()?;
    Ok(observed)
}

/// Waits until the sockets of connections have ended. Returns when, or `None` if one stays open.
fn wait_for_end(connections: &HashSet<Addresses>) -> Result<Option<Moment>> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let is_open = SockDiag::open()?.connected()?.iter().any(|socket| {
            let ((local, local_port), (remote, remote_port)) = (socket.local(), socket.remote());
            connections.contains(&Addresses {
                local: (local, local_port).into(),
                remote: (remote, remote_port).into(),
            })
        });
        if !is_open {
            return Ok(Some(Moment::now()));
        }
        if Instant::now() > deadline {
            return Ok(None);
        }
        sleep(Duration::from_millis(1));
    }
}
