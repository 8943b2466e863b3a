//! `status`: the state read back from the kernel. The field names are a contract with scripts.

use std::collections::BTreeMap;
use std::thread;

use anyhow::{Context, Result, anyhow};
use breaker_common::abi::{self, Counters};
use jiff::Timestamp;
use serde::Serialize;

use super::failures::{Failure, failures};
use super::scope::{Scope, scopes};
use super::session::{Session, sessions};
use crate::cli_error::Code;
use crate::config::ScopeIndex;
use crate::display::hex;
use crate::enforced::{Enforced, ProblemKind, facts};
use crate::journal;
use crate::kernel::Breaker;
use crate::kernel::attachment::Attachment;
use crate::kernel::connections::ConnectionCount;
use crate::kernel::text::trim_padding;
use crate::state::warnings::Warning;
use crate::state::{self, Health};

/// The status of a load.
#[derive(Debug, Serialize)]
pub struct Status {
    /// What is loaded.
    pub breaker: Build,
    /// The policy in force.
    pub policy: Policy,
    /// The agent.
    pub agent: Agent,
    /// Attachments.
    pub interfaces: Vec<Attachment>,
    /// Switches and limits.
    pub scopes: Vec<Scope>,
    /// Connections, messages and segments.
    pub sessions: Vec<Session>,
    /// Whether the breaker is in force.
    pub enforced: Enforced,
    /// Warnings that nobody has acknowledged. The agent finds them.
    pub warnings: Vec<Warning>,
    /// The state file, which outlives the load.
    pub state: Health,
    /// Behaviour in each failure.
    pub failure_policy: Vec<Failure>,
    /// Packets by reason.
    pub packets: BTreeMap<&'static str, u64>,
}

/// What is loaded.
#[derive(Debug, Serialize)]
pub struct Build {
    /// Version of the program that loaded it.
    pub version: String,
    /// Git commit of that program.
    pub git: String,
    /// Number of the layout.
    pub abi: u32,
    /// The kernel's tag of the attached program.
    pub program_tag: String,
    /// Time of the load.
    pub loaded_at: Timestamp,
}

/// The policy in force.
#[derive(Debug, Serialize)]
pub struct Policy {
    /// The operator's name for the policy.
    pub name: String,
    /// SHA-256 of its file.
    pub sha256: String,
}

/// The agent.
#[derive(Debug, Serialize)]
pub struct Agent {
    /// True if its heartbeat is younger than [`ALIVE_NS`].
    pub running: bool,
    /// Age of its heartbeat; null if no agent has run since the load.
    pub heartbeat_age_ms: Option<u64>,
}

/// The parts of a status that the caller has read: they take the longest, and the agent reads some by itself.
#[derive(Debug)]
pub struct Observed {
    /// Attachments.
    pub attachments: Vec<Attachment>,
    /// Connections by session number.
    pub connections: Vec<ConnectionCount>,
    /// Whether the breaker is in force.
    pub enforced: Enforced,
    /// The state file.
    pub state: Health,
}

impl Agent {
    /// The agent with a heartbeat of this age in ns.
    pub fn new(age: Option<u64>) -> Self {
        Self {
            running: age.is_some_and(|age| age < ALIVE_NS),
            heartbeat_age_ms: age.map(|age| age / 1_000_000),
        }
    }
}

/// Age of the heartbeat in ns from which the agent counts as not running. It beats every 100 ms.
pub const ALIVE_NS: u64 = 1_000_000_000;

impl Status {
    /// Reads the whole status, or the part of one scope.
    pub fn read(breaker: &Breaker, only: Option<ScopeIndex>) -> Result<Self> {
        // A walk of a full connection table takes as long as all other reads: both run in parallel.
        thread::scope(|threads| {
            let walk = thread::Builder::new().spawn_scoped(threads, || breaker.connection_table());
            let walk = walk.context("starting a thread")?;
            let attachments = breaker.attachments()?;
            let table = walk.join().map_err(|_| anyhow!("reading the connection table panicked"))?;
            let state = state::health(breaker);
            let enforced =
                Enforced::judge(facts::read(breaker, attachments.clone(), &table, journal::problem(breaker)));
            let connections = table?.by_session;
            Self::of(breaker, only, Observed { attachments, connections, enforced, state })
        })
    }

    /// Reads the rest of the status.
    pub fn of(breaker: &Breaker, only: Option<ScopeIndex>, observed: Observed) -> Result<Self> {
        let Observed { attachments, connections, enforced, state } = observed;
        let age = breaker.heartbeat_age_ns()?;
        let counters = breaker.counters()?;
        Ok(Self {
            breaker: build(breaker)?,
            policy: policy(breaker.policy()),
            agent: Agent::new(age),
            interfaces: attachments,
            warnings: warnings(breaker, only),
            scopes: scopes(breaker, only)?,
            failure_policy: failures(breaker, &state)?,
            state,
            packets: packets(breaker, &counters)?,
            sessions: sessions(breaker, only, &counters, &connections)?,
            enforced,
        })
    }

    /// Exit code of `status`: missing enforcement comes before a trip, and a trip before a disarmed scope.
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

/// The warnings of the declared scopes, or of one of them.
pub fn warnings(breaker: &Breaker, only: Option<ScopeIndex>) -> Vec<Warning> {
    let names = breaker.names();
    let mut found = state::warnings::read(&state::store(breaker));
    if !found.is_empty() {
        let shown = names.iter().filter(|scope| only.is_none_or(|only| only == *scope));
        let shown: Vec<_> = shown.map(|scope| names.name(scope).to_string()).collect();
        found.retain(|warning| shown.contains(&warning.scope));
    }
    found
}

/// Packets by reason. The kernel program counts a passed packet in the session's counters only.
fn packets(breaker: &Breaker, counters: &[Counters]) -> Result<BTreeMap<&'static str, u64>> {
    let mut packets: BTreeMap<_, _> = abi::reason::NAMES.into_iter().zip(breaker.reasons()?).collect();
    let passed = counters.iter().map(|counters| counters.packets_passed).sum();
    packets.insert(abi::reason::NAMES[abi::reason::PASSED as usize], passed);
    Ok(packets)
}

/// Reads what is loaded.
pub(super) fn build(breaker: &Breaker) -> Result<Build> {
    let meta = breaker.meta();
    Ok(Build {
        version: trim_padding(&meta.version),
        git: trim_padding(&meta.git),
        abi: meta.abi,
        program_tag: format!("{:016x}", breaker.program()?.tag()),
        loaded_at: Timestamp::from_second(meta.loaded_at as i64)?,
    })
}

/// The name and the hash of a policy.
pub fn policy(policy: &abi::Policy) -> Policy {
    Policy { name: trim_padding(&policy.name), sha256: hex(&policy.sha256) }
}
