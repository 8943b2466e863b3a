//! `replay`: what a policy does on captures. The field names are a contract with scripts.

use std::collections::BTreeMap;

use breaker_common::abi::{self, LIMITS_PER_SCOPE};
use breaker_common::message::{Class, InboundClass};
use breaker_replay::engine::{Engine, Figures};
use jiff::Timestamp;
use serde::Serialize;

use super::session::Verdicts;
use super::status::Policy;
use crate::config::{self, Inbound};
use crate::display;
use crate::replay::captures::CaptureRead;
use crate::replay::collect::{Collector, LimitTally, Moment, Tally, TripTally};

/// A replay.
#[derive(Debug, Serialize)]
pub struct Replay {
    /// The policy.
    pub policy: Policy,
    /// The captures, in the order of the command line.
    pub captures: Vec<Capture>,
    /// Time of the first packet.
    pub first: Option<Timestamp>,
    /// Time of the last packet.
    pub last: Option<Timestamp>,
    /// Numbers of packets.
    pub packets: BTreeMap<&'static str, u64>,
    /// True if every message was read.
    pub exact: bool,
    /// Why the counts are not exact, and what the replay cannot know.
    pub notes: Vec<String>,
    /// Scopes with their limits.
    pub scopes: Vec<Scope>,
    /// Trips in the order of time.
    pub trips: Vec<Trip>,
    /// Sessions with their messages.
    pub sessions: Vec<Session>,
    /// FIX flows to endpoints that no session declares.
    pub undeclared: Vec<Flow>,
}

/// A capture.
#[derive(Debug, Serialize)]
pub struct Capture {
    /// Path of the file.
    pub file: String,
    /// `pcap` or `pcapng`.
    pub format: &'static str,
    /// Packets up to the end, or up to where the capture breaks off.
    pub packets: u64,
    /// Bytes, uncompressed.
    pub bytes: u64,
    /// Where the capture breaks off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken: Option<Broken>,
}

/// Where and why a capture breaks off.
#[derive(Debug, Serialize)]
pub struct Broken {
    /// Offset of the record that cannot be read, in the uncompressed file.
    pub offset: u64,
    /// Number of that packet, from 1.
    pub packet: u64,
    /// What was found.
    pub found: String,
}

/// A scope.
#[derive(Debug, Serialize)]
pub struct Scope {
    /// `host`, `group/NAME` or `session/NAME`.
    pub scope: String,
    /// True if its limits trip it.
    pub armed: bool,
    /// True if it would be tripped at the end.
    pub tripped: bool,
    /// Its limits.
    pub limits: Vec<Limit>,
}

/// A limit, each as if nothing had tripped before.
#[derive(Debug, Serialize)]
pub struct Limit {
    /// Class of the counted messages.
    pub class: &'static str,
    /// Messages that may pass in an interval.
    pub max: u64,
    /// Length of the interval, or `total`.
    pub per: String,
    /// Orders that may pass for each fill, for a ratio only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_fill: Option<u32>,
    /// The limit in one phrase.
    #[serde(skip)]
    pub text: String,
    /// Most messages in any interval.
    pub peak: u64,
    /// End of the first interval with so many.
    pub peak_at: Option<Timestamp>,
    /// First warning at each level.
    pub warned: Vec<Warning>,
    /// First message above the limit.
    pub exceeded: Option<Exceeded>,
    /// How often the window went above the limit.
    pub times_exceeded: u64,
}

/// The first warning at a level.
#[derive(Debug, Serialize)]
pub struct Warning {
    /// Messages that cause the warning.
    pub level: u64,
    /// Time of the warning.
    pub at: Timestamp,
    /// Messages in the window.
    pub used: u64,
}

/// The first message above a limit.
#[derive(Debug, Serialize)]
pub struct Exceeded {
    /// Time of the message.
    pub at: Timestamp,
    /// Messages in the window.
    pub used: u64,
    /// Session of the message.
    pub session: String,
}

/// A trip.
#[derive(Debug, Serialize)]
pub struct Trip {
    /// The scope.
    pub scope: String,
    /// Time of the trip.
    pub at: Timestamp,
    /// Its cause.
    pub cause: String,
    /// The exceeded limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// Messages in the window, with those of the withheld segment.
    pub used: u64,
    /// Session whose message tripped the scope.
    pub session: String,
}

/// A session.
#[derive(Debug, Serialize)]
pub struct Session {
    /// Name of the session.
    pub name: String,
    /// Messages by class.
    pub messages: BTreeMap<&'static str, Verdicts>,
    /// Segments with payload.
    pub packets: Verdicts,
    /// Time of the first withheld segment.
    pub first_withheld: Option<Timestamp>,
    /// Segments with retransmitted bytes.
    pub retransmitted: u64,
    /// Number of desyncs.
    pub desyncs: u64,
    /// Segments that could not be read completely.
    pub unread: u64,
    /// Orders that their bytes count as. `messages` includes them.
    pub blind_orders: u64,
    /// Inbound messages, if the policy reads them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inbound: Option<BTreeMap<&'static str, u64>>,
}

/// An undeclared flow.
#[derive(Debug, Serialize)]
pub struct Flow {
    /// Remote address and port.
    pub remote: String,
    /// SenderCompID(49) of its first message; empty if unread.
    pub sender: String,
    /// TargetCompID(56) of its first message.
    pub target: String,
    /// Messages by class.
    pub messages: BTreeMap<&'static str, Verdicts>,
}

/// Returns a time of a capture.
pub fn time(ns: u64) -> Timestamp {
    Timestamp::from_nanosecond(ns.into()).unwrap_or(Timestamp::MAX)
}

impl Replay {
    /// Makes the view of a finished replay.
    pub fn new(
        policy: &config::Policy,
        engine: &Engine,
        found: &Collector,
        captures: &[CaptureRead],
    ) -> Self {
        let span = engine.span();
        let (exact, notes) = notes(policy, engine.figures(), found);
        let reads_inbound = policy.host().inbound == Inbound::Watch;
        let sessions = policy.scopes().sessions().filter_map(|index| {
            let tally = found.sessions.get(index.get() as usize)?;
            Some(session(policy.scopes().session_name(index).to_string(), tally, reads_inbound))
        });
        let flows = found.flows.all().iter().zip(&found.flow_tallies);
        Self {
            policy: Policy { name: policy.name().to_string(), sha256: policy.sha256_hex() },
            captures: captures.iter().map(capture).collect(),
            first: span.map(|(first, _)| time(first)),
            last: span.map(|(_, last)| time(last)),
            packets: packets(engine.figures()),
            exact,
            notes,
            scopes: (0..found.limits.len() as u32)
                .map(|number| scope(policy, engine, found, number))
                .collect(),
            trips: found.trips.iter().map(|tally| trip(policy, engine, tally)).collect(),
            sessions: sessions.collect(),
            undeclared: flows
                .map(|(flow, tally)| Flow {
                    remote: flow.remote.to_string(),
                    sender: flow.sender.clone(),
                    target: flow.target.clone(),
                    messages: messages(tally),
                })
                .collect(),
        }
    }

    /// Returns true if a capture breaks off.
    pub fn is_broken(&self) -> bool {
        self.captures.iter().any(|capture| capture.broken.is_some())
    }
}

/// Makes the view of a capture.
pub fn capture(read: &CaptureRead) -> Capture {
    let broken = read.broken.as_ref().map(|broken| Broken {
        offset: broken.offset,
        packet: broken.packets + 1,
        found: broken.found.clone(),
    });
    Capture {
        file: read.path.display().to_string(),
        format: read.format,
        packets: read.packets,
        bytes: read.bytes,
        broken,
    }
}

fn packets(figures: &Figures) -> BTreeMap<&'static str, u64> {
    BTreeMap::from([
        ("read", figures.packets),
        ("outbound", figures.outbound),
        ("inbound", figures.inbound),
        ("other", figures.other),
        ("malformed", figures.malformed),
        ("fragments", figures.fragments),
        ("cut", figures.cut),
        ("cut_headers", figures.cut_headers),
        ("unknown_link", figures.unknown_link),
    ])
}

/// Returns true if every message was read, and what is not exact or not known.
fn notes(policy: &config::Policy, figures: &Figures, found: &Collector) -> (bool, Vec<String>) {
    let blind: u64 = found.sessions.iter().map(|tally| tally.blind_orders).sum();
    let inexact = [
        (figures.cut_unread, "segments are cut by the snaplen where a message may start"),
        (figures.cut_headers, "packets are cut by the snaplen before their TCP header ends"),
        (figures.gaps, "gaps in streams: the capture does not have their bytes"),
        (figures.fragments, "IP fragments cannot be read"),
        (figures.unknown_link, "packets have a link type that is not supported"),
        (figures.table_full, "segments found no room in the connection table"),
        (blind, "orders are counted by bytes that could not be read, 100 bytes each"),
    ];
    let mut notes: Vec<_> = inexact
        .iter()
        .filter(|(count, _)| *count != 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let exact = notes.is_empty();
    if figures.gap_bytes != 0 {
        notes.push(format!("{} bytes are missing in the gaps", figures.gap_bytes));
    }
    if figures.earlier != 0 {
        let text = "packets are older than one before them: they count at the time of that packet";
        notes.push(format!("{} {text}", figures.earlier));
    }
    if policy.host().deadman.is_some() {
        notes.push("a capture has no heartbeat: the dead man's switch is not replayed".to_owned());
    }
    if policy.sessions().iter().any(|session| session.user.is_some()) {
        notes.push("a capture has no users: `user` matches every connection".to_owned());
    }
    (exact, notes)
}

fn messages(tally: &Tally) -> BTreeMap<&'static str, Verdicts> {
    let verdicts = |class: Class| {
        let (seen, withheld) = (tally.seen[class as usize], tally.withheld[class as usize]);
        Verdicts { passed: seen - withheld, withheld }
    };
    Class::ALL.into_iter().map(|class| (class.name(), verdicts(class))).collect()
}

fn session(name: String, tally: &Tally, reads_inbound: bool) -> Session {
    let inbound = InboundClass::ALL.into_iter().map(InboundClass::name).zip(tally.inbound);
    Session {
        name,
        messages: messages(tally),
        packets: Verdicts { passed: tally.segments_passed, withheld: tally.segments_withheld },
        first_withheld: tally.first_withheld_ns.map(time),
        retransmitted: tally.retransmitted,
        desyncs: tally.desyncs,
        unread: tally.unread,
        blind_orders: tally.blind_orders,
        inbound: reads_inbound.then(|| inbound.collect()),
    }
}

fn session_name(policy: &config::Policy, session: u32) -> String {
    let found = policy.scopes().session(session);
    found.map_or_else(String::new, |index| policy.scopes().session_name(index).to_string())
}

fn scope(policy: &config::Policy, engine: &Engine, found: &Collector, number: u32) -> Scope {
    let (open, enforced) = (engine.open(), engine.enforced());
    let state = open.scope(number);
    let used = (0..LIMITS_PER_SCOPE).filter(|position| state.rules[0].positions >> position & 1 == 1);
    let limits = used.map(|position| {
        let window = found.windows.get(number, position);
        let peak = window.map_or(0, |window| window.peak);
        let peak_at = window.filter(|window| window.peak != 0).map(|window| time(window.peak_ns));
        let tally = found.limits.get(number as usize).map(|limits| limits[position]).unwrap_or_default();
        limit(policy, &state.limits[0][position], (peak, peak_at), &tally)
    });
    let enforced = enforced.scope(number);
    Scope {
        scope: scope_name(policy, number),
        armed: enforced.armed != 0,
        tripped: enforced.switch.causes != 0,
        limits: limits.collect(),
    }
}

/// Returns the name of a scope by its number.
pub fn scope_name(policy: &config::Policy, number: u32) -> String {
    let found = policy.scopes().scope(number);
    found.map_or_else(String::new, |index| policy.scopes().name(index).to_string())
}

fn limit(
    policy: &config::Policy,
    limit: &abi::Limit,
    (peak, peak_at): (u64, Option<Timestamp>),
    tally: &LimitTally,
) -> Limit {
    let warned = limit.warn.iter().zip(tally.warned).filter_map(|(level, moment)| {
        let Moment { at_ns, used, .. } = moment?;
        Some(Warning { level: *level, at: time(at_ns), used })
    });
    let exceeded = tally.exceeded.map(|Moment { at_ns, used, session }| Exceeded {
        at: time(at_ns),
        used,
        session: session_name(policy, session),
    });
    Limit {
        class: display::class(limit.class),
        max: limit.max,
        per: display::interval(limit),
        per_fill: (limit.per_fill != 0).then_some(limit.per_fill),
        text: display::limit(limit),
        peak,
        peak_at,
        warned: warned.collect(),
        exceeded,
        times_exceeded: tally.times_exceeded.max(u64::from(tally.exceeded.is_some())),
    }
}

fn trip(policy: &config::Policy, engine: &Engine, tally: &TripTally) -> Trip {
    let limits = engine.open().scope(tally.scope).limits[0];
    let limit = tally.limit.and_then(|position| limits.get(position as usize).map(display::limit));
    Trip {
        scope: scope_name(policy, tally.scope),
        at: time(tally.moment.at_ns),
        cause: display::causes(tally.cause).concat(),
        limit,
        used: tally.moment.used,
        session: session_name(policy, tally.moment.session),
    }
}
