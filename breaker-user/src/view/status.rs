//! `status`: what is in force, read back from the kernel. The field names are a contract with scripts.

use std::collections::BTreeMap;
use std::thread;

use anyhow::{Context, Result, anyhow};
use breaker_common::abi::{self, Counters, cause};
use breaker_common::message::{Class, InboundClass, LimitClass};
use jiff::{Timestamp, Unit};
use serde::Serialize;

use super::failures::{Failure, failures};
use crate::cli_error::Code;
use crate::config::{self, Per, ScopeIndex};
use crate::enforced::{Enforced, ProblemKind, facts};
use crate::kernel::attachment::Attachment;
use crate::kernel::breaker::{ConnectionCount, LimitUse};
use crate::kernel::tables::trim_padding;
use crate::kernel::{Breaker, clock};

/// Everything.
#[derive(Debug, Serialize)]
pub struct Status {
    /// What is loaded.
    pub breaker: Build,
    /// The policy that was loaded.
    pub policy: Policy,
    /// The agent.
    pub agent: Agent,
    /// Where it enforces.
    pub interfaces: Vec<Interface>,
    /// Switches and limits.
    pub scopes: Vec<Scope>,
    /// What was sent.
    pub sessions: Vec<SessionView>,
    /// Whether it is in force.
    pub enforced: Enforced,
    /// What happens in each failure.
    pub failure_policy: Vec<Failure>,
    /// Packets by the way they ended.
    pub packets: BTreeMap<&'static str, u64>,
}

/// What is loaded.
#[derive(Debug, Serialize)]
pub struct Build {
    /// Version of the program that loaded it.
    pub version: String,
    /// Commit of that program.
    pub git: String,
    /// Number of the layout.
    pub abi: u32,
    /// The kernel's hash of the attached program.
    pub program_tag: String,
    /// When.
    pub loaded_at: Timestamp,
}

/// The policy that was loaded.
#[derive(Debug, Serialize)]
pub struct Policy {
    /// The operator's name for it.
    pub name: String,
    /// SHA-256 of its file.
    pub sha256: String,
}

/// The agent.
#[derive(Debug, Serialize)]
pub struct Agent {
    /// Its heartbeat is younger than [`ALIVE_NS`].
    pub running: bool,
    /// Age of its heartbeat; null where none ran since the load.
    pub heartbeat_age_ms: Option<u64>,
}

/// An agent that beats every 100 ms and is silent for this long is not running, ns.
pub const ALIVE_NS: u64 = 1_000_000_000;

/// Where it enforces.
#[derive(Debug, Serialize)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Number.
    pub ifindex: u32,
    /// `egress` or `inline`; `inbound` where what comes in is read.
    pub mode: &'static str,
    /// `tcx` or `clsact`; `native` or `generic` of XDP.
    pub hook: &'static str,
    /// The program is attached.
    pub attached: bool,
    /// It comes first in its chain.
    pub first: bool,
    /// It lasts without any process.
    pub pinned: bool,
}

/// A scope.
#[derive(Debug, Serialize)]
pub struct Scope {
    /// `host`, `group/NAME`, `session/NAME`.
    pub scope: String,
    /// Its limits trip it.
    pub armed: bool,
    /// It is tripped.
    pub tripped: bool,
    /// Why.
    pub causes: Vec<&'static str>,
    /// Raised by each trip and reset.
    pub epoch: u64,
    /// What the kernel last tripped it for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_trip: Option<Trip>,
    /// Its limits.
    pub limits: Vec<Limit>,
}

/// A trip that the kernel made.
#[derive(Debug, Serialize)]
pub struct Trip {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub cause: String,
    /// The session whose message it was.
    pub session: String,
    /// The limit that was passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// Messages that its window would have held.
    pub used: u64,
}

/// A limit.
#[derive(Debug, Serialize)]
pub struct Limit {
    /// What it counts.
    pub class: &'static str,
    /// How many may cross; of a ratio, how many may before it counts,
    pub max: u64,
    /// in any interval of this length, or `total`.
    pub per: String,
    /// Of a ratio, how many may cross for each fill that came in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_fill: Option<u32>,
    /// Messages in its window now.
    pub used: u64,
    /// Most that any window has held.
    pub peak: u64,
}

/// A session.
#[derive(Debug, Serialize)]
pub struct SessionView {
    /// Its name.
    pub name: String,
    /// Connections that are open and not fenced.
    pub connections: u64,
    /// Connections that are fenced.
    pub fenced: u64,
    /// Messages by class.
    pub messages: BTreeMap<&'static str, Verdicts>,
    /// Segments with payload.
    pub packets: Verdicts,
    /// Segments with bytes seen before.
    pub retransmitted: u64,
    /// Times its stream was lost.
    pub desyncs: u64,
    /// Live connections that cannot be followed right now.
    pub blind: u64,
    /// Segments of which something could not be read.
    pub unread: u64,
    /// What came in, where that is read: `fill`, `reject`, `other`; and `desyncs`, the times that this stream was lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inbound: Option<BTreeMap<&'static str, u64>>,
}

/// Counts by verdict.
#[derive(Debug, Serialize, PartialEq, Eq, Clone, Copy)]
pub struct Verdicts {
    /// Crossed.
    pub passed: u64,
    /// Withheld.
    pub withheld: u64,
}

impl Status {
    /// Reads everything, or what concerns one scope.
    pub fn read(breaker: &Breaker, only: Option<ScopeIndex>) -> Result<Self> {
        // A full connection table takes as long to walk as all the rest takes to read: both at once.
        thread::scope(|threads| {
            let walk = thread::Builder::new().spawn_scoped(threads, || breaker.connection_table());
            let walk = walk.context("starting a thread")?;
            let age = breaker.heartbeat_age_ns()?;
            let counters = breaker.counters()?;
            let attachments = breaker.attachments()?;
            let table = walk.join().map_err(|_| anyhow!("walking over the connections panicked"))?;
            let enforced = Enforced::judge(facts::read(breaker, attachments.clone(), &table));
            let (connections, _) = table?;
            Ok(Self {
                breaker: build(breaker)?,
                policy: policy(breaker.policy()),
                agent: Agent {
                    running: age.is_some_and(|age| age < ALIVE_NS),
                    heartbeat_age_ms: age.map(|age| age / 1_000_000),
                },
                interfaces: interfaces(&attachments),
                scopes: scopes(breaker, only)?,
                failure_policy: failures(breaker)?,
                packets: packets(breaker, &counters)?,
                sessions: sessions(breaker, only, &counters, &connections)?,
                enforced,
            })
        })
    }

    /// The exit code that `status` ends with: what is not enforced comes before a trip, and that before a scope that is disarmed.
    pub fn code(&self) -> Option<Code> {
        let tripped = self.scopes.iter().any(|scope| scope.tripped);
        let lesser = self.scopes.iter().any(|scope| !scope.armed) || self.enforced.has(ProblemKind::Audit);
        match (self.enforced.is_impaired(), tripped, lesser) {
            (true, ..) | (false, false, true) => Some(Code::Unprotected),
            (false, true, _) => Some(Code::Tripped),
            (false, false, false) => None,
        }
    }
}

/// Packets by the way they ended. What passed is in the sessions' own counters: the program counts no packet twice.
fn packets(breaker: &Breaker, counters: &[Counters]) -> Result<BTreeMap<&'static str, u64>> {
    let mut packets: BTreeMap<_, _> = abi::reason::NAMES.into_iter().zip(breaker.reasons()?).collect();
    let passed = counters.iter().map(|counters| counters.packets_passed).sum();
    packets.insert(abi::reason::NAMES[abi::reason::PASSED as usize], passed);
    Ok(packets)
}

/// Names of cause bits.
pub fn causes(bits: u64) -> Vec<&'static str> {
    cause::NAMES.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect()
}

/// SHA-256 in hex.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn build(breaker: &Breaker) -> Result<Build> {
    let meta = breaker.meta();
    Ok(Build {
        version: trim_padding(&meta.version),
        git: trim_padding(&meta.git),
        abi: meta.abi,
        program_tag: format!("{:016x}", breaker.program()?.tag()),
        loaded_at: Timestamp::from_second(meta.loaded_at as i64)?,
    })
}

fn policy(policy: &abi::Policy) -> Policy {
    Policy { name: trim_padding(&policy.name), sha256: hex(&policy.sha256) }
}

fn interfaces(attachments: &[Attachment]) -> Vec<Interface> {
    let view = |found: &Attachment| Interface {
        name: found.name.clone(),
        ifindex: found.ifindex,
        mode: found.mode,
        hook: found.hook,
        attached: found.attached,
        first: found.first,
        pinned: found.pinned,
    };
    attachments.iter().map(view).collect()
}

/// All scopes, or the one that is asked for.
fn scopes(breaker: &Breaker, only: Option<ScopeIndex>) -> Result<Vec<Scope>> {
    let names = breaker.names();
    let mut scopes: Vec<_> = names.iter().filter(|scope| only.is_none_or(|only| only == *scope)).collect();
    // By number, a group that a reload has added would come behind the sessions.
    scopes.sort_by_key(|scope| match names.what(*scope) {
        config::Scope::Host => (0, 0),
        config::Scope::Group(group) => (1, group.get()),
        config::Scope::Session(session) => (2, session.get()),
    });
    scopes.into_iter().map(|index| scope(breaker, index)).collect()
}

/// A scope as it stands now.
pub fn scope(breaker: &Breaker, index: ScopeIndex) -> Result<Scope> {
    let state = breaker.scope(index)?;
    let limit = |found: LimitUse| Limit {
        class: class_name(found.limit.class),
        max: found.limit.max,
        per: per(&found.limit),
        per_fill: (found.limit.per_fill != 0).then_some(found.limit.per_fill),
        used: found.used,
        peak: found.peak,
    };
    let causes = causes(state.switch.causes);
    Ok(Scope {
        scope: breaker.names().name(index).to_string(),
        armed: state.armed != 0,
        tripped: state.switch.causes != 0,
        epoch: state.switch.epoch,
        last_trip: (state.trip.at_ns != 0 && state.switch.causes & state.trip.cause != 0)
            .then(|| trip(breaker, index, &state)),
        limits: breaker.limits(index)?.into_iter().map(limit).collect(),
        causes,
    })
}

fn trip(breaker: &Breaker, scope: ScopeIndex, state: &abi::Scope) -> Trip {
    let trip = &state.trip;
    let session = breaker
        .names()
        .session(trip.session)
        .map(|session| breaker.names().session_name(session).to_string());
    let at = clock::time_of(trip.at_ns);
    let limit =
        breaker.limit(scope, trip.limit as usize).ok().flatten().filter(|_| trip.cause == cause::RATE);
    Trip {
        // Two clocks are read for it, so that finer digits would differ from one reading to the next.
        at: at.round(Unit::Millisecond).unwrap_or(at),
        cause: causes(trip.cause).concat(),
        session: session.unwrap_or_default(),
        limit: limit.map(|limit| worded(&limit)),
        used: trip.used,
    }
}

/// The name of a limit's class.
pub fn class_name(code: u32) -> &'static str {
    LimitClass::ALL.get(code as usize).map_or("unknown", |class| class.name())
}

/// The interval of a limit, as the configuration spells it.
pub fn per(limit: &abi::Limit) -> String {
    if limit.per_ns == 0 { Per::Total.to_string() } else { duration(limit.per_ns) }
}

/// A time in ns, as the configuration spells it.
pub fn duration(ns: u64) -> String {
    Per::Window(std::time::Duration::from_nanos(ns)).to_string()
}

/// A limit in words.
pub fn worded(limit: &abi::Limit) -> String {
    let class = class_name(limit.class);
    match limit.per_fill {
        0 => format!("{} {class} per {}", limit.max, per(limit)),
        ratio => format!("{ratio} {class} per fill after {}", limit.max),
    }
}

fn sessions(
    breaker: &Breaker,
    only: Option<ScopeIndex>,
    counters: &[Counters],
    connections: &[ConnectionCount],
) -> Result<Vec<SessionView>> {
    let of = match only {
        Some(scope) => breaker.sessions_of(scope)?,
        None => breaker.names().sessions().collect(),
    };
    let view = |session: crate::config::SessionIndex| {
        let n = session.get() as usize;
        let (counters, connections) = (counters.get(n)?, connections.get(n)?);
        Some(SessionView {
            name: breaker.names().session_name(session).to_string(),
            connections: connections.live,
            fenced: connections.fenced,
            messages: messages(counters),
            packets: Verdicts { passed: counters.packets_passed, withheld: counters.packets_withheld },
            retransmitted: counters.retransmitted,
            desyncs: counters.desyncs,
            blind: connections.blind,
            unread: counters.unread,
            inbound: (breaker.meta().inbound != 0).then(|| inbound(counters)),
        })
    };
    Ok(of.into_iter().filter_map(view).collect())
}

fn messages(counters: &Counters) -> BTreeMap<&'static str, Verdicts> {
    let of = |class: Class| Verdicts {
        passed: counters.passed[class as usize],
        withheld: counters.withheld[class as usize],
    };
    Class::ALL.into_iter().map(|class| (class.name(), of(class))).collect()
}

fn inbound(counters: &Counters) -> BTreeMap<&'static str, u64> {
    let messages = InboundClass::ALL.into_iter().map(InboundClass::name).zip(counters.inbound);
    messages.chain([("desyncs", counters.inbound_desyncs)]).collect()
}
