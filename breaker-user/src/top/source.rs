//! Reads the state of a load for `top`, once a second and at each change of a switch.

use std::time::{Duration, Instant};

use anyhow::Result;
use breaker_common::abi::{Meta, SIDES};
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use super::agent_history;
use crate::audit::{Line, Reader};
use crate::config::Scope;
use crate::enforced::{Enforced, Facts, facts};
use crate::journal;
use crate::kernel::connections::{ConnectionCount, ConnectionState};
use crate::kernel::memory::Mapped;
use crate::kernel::{Breaker, PinRoot, connection_text};
use crate::rates::{self, STEP_MS, Samples};
use crate::view::rates::{Rates, SessionRates};
use crate::view::status::{self, Agent};
use crate::view::top::{Connection, SessionRow, Top};
use crate::view::{scope, session};

/// Bytes at the end of the audit log whose events are shown at the start.
const LOG_TAIL: u64 = 64 * 1024;
/// Shortest pause between two readings of the slow facts, as a multiple of the CPU time that one takes. They
/// walk the connection table and the routes.
const FACTS_PAUSE_RATIO: u32 = 200;
/// Number of the first second: the ring has room for the rates of the agent before it.
const FIRST_SECOND: u64 = rates::SECONDS as u64;

/// A reader of the state.
pub struct Source {
    root: PinRoot,
    open: Option<Open>,
    log: Option<Reader>,
    start: Instant,
}

/// The opened load.
struct Open {
    breaker: Breaker,
    meta: Mapped<Meta>,
    slow: Option<SlowFacts>,
    stamp: u64,
}

/// The facts that take long to read.
struct SlowFacts {
    read_at: Instant,
    /// CPU time of the process for the reading.
    took: Duration,
    /// All facts of the health check but the attachments.
    facts: Facts,
    connections: Vec<ConnectionCount>,
    details: Vec<Connection>,
    details_of: Option<String>,
}

/// The state at one moment.
pub struct Reading {
    /// The second of the samples; `None` if they are no sample of a whole second.
    pub second: Option<u64>,
    /// Samples of the sessions.
    pub samples: Samples,
    /// The document. Its rates are not set.
    pub top: Top,
    /// Connections of the session in detail.
    pub connections: Vec<Connection>,
}

impl Source {
    /// Opens the load under a root.
    pub fn open(root: PinRoot) -> Result<Self> {
        let open = Some(Open::new(&root)?);
        Ok(Self { root, open, log: None, start: Instant::now() })
    }

    /// The rates that the agent has recorded, and their last second; `None` without a running agent.
    pub fn recorded(&self) -> Option<(u64, Rates<Vec<SessionRates>>)> {
        let open = self.open.as_ref()?;
        if !Agent::new(open.breaker.heartbeat_age_ns().ok()?).running {
            return None;
        }
        let rates = agent_history::fetch(&open.breaker).ok()?;
        Some((FIRST_SECOND + self.elapsed().saturating_sub(1), rates))
    }

    /// Returns true if a switch or an arm has changed since the last reading.
    pub fn has_changed(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.breaker.switch_stamp() != open.stamp)
    }

    /// Time until the next second begins.
    pub fn until_next_second(&self) -> Duration {
        let step = Duration::from_millis(STEP_MS);
        step - Duration::from_nanos((self.start.elapsed().as_nanos() % step.as_nanos()) as u64)
    }

    /// Reads the state. `details` names a session whose connections are wanted. `is_sample` is true once a
    /// second.
    pub fn read(&mut self, details: Option<&str>, is_sample: bool) -> Result<Reading> {
        let second = is_sample.then(|| FIRST_SECOND + self.elapsed());
        let mut open = match self.open.take() {
            Some(open) if open.is_current() => open,
            _ => Open::new(&self.root)?,
        };
        let log = journal::path(&open.breaker);
        let log = self.log.get_or_insert_with(|| Reader::of_tail(log, LOG_TAIL));
        open.stamp = open.breaker.switch_stamp();
        open.read_slow_facts(details);
        let reading = open.read(second, new_events(log));
        self.open = Some(open);
        reading
    }

    /// Whole seconds since the start, rounded.
    fn elapsed(&self) -> u64 {
        (self.start.elapsed().as_millis() as u64 + STEP_MS / 2) / STEP_MS
    }
}

/// The new events. A line that is not an event is left out: `breaker audit verify` reports it.
fn new_events(log: &mut Reader) -> Vec<Line> {
    let mut events = Vec::new();
    // The result is ignored: a log that cannot be read is a problem of the health check.
    let _ = log.read_new(|text| {
        events.extend(serde_json::from_slice::<Line>(text).ok());
        Ok(())
    });
    events
}

impl Open {
    fn new(root: &PinRoot) -> Result<Self> {
        let breaker = Breaker::open(root)?;
        Ok(Self {
            meta: Mapped::open(&root.map("META"))?,
            stamp: breaker.switch_stamp(),
            breaker,
            slow: None,
        })
    }

    /// Returns true if the same load is pinned and the same policy is in force.
    fn is_current(&self) -> bool {
        let known = self.breaker.meta();
        let is_same = self.meta.get(0).is_some_and(|meta| {
            let sha256 = |meta: &Meta| meta.policies[meta.side as usize & (SIDES - 1)].sha256;
            (meta.side, meta.generation, meta.unloading) == (known.side, known.generation, known.unloading)
                && sha256(&meta) == sha256(known)
        });
        is_same && self.breaker.is_pinned()
    }

    /// Reads the facts that take long, unless they are recent.
    fn read_slow_facts(&mut self, details: Option<&str>) {
        let is_recent = |slow: &SlowFacts| {
            slow.read_at.elapsed() < slow.took * FACTS_PAUSE_RATIO && slow.details_of.as_deref() == details
        };
        if self.slow.as_ref().is_some_and(is_recent) {
            return;
        }
        let (read_at, start) = (Instant::now(), cpu_time());
        let breaker = &self.breaker;
        let table = breaker.connection_table();
        let facts = facts::read(breaker, Vec::new(), &table, journal::problem(breaker));
        let connections = table.map(|table| table.by_session).unwrap_or_default();
        let details_of = details.map(str::to_owned);
        let details = details.and_then(|name| self.connections_of(name).ok()).unwrap_or_default();
        let took = cpu_time().saturating_sub(start);
        self.slow = Some(SlowFacts { read_at, took, facts, connections, details, details_of });
    }

    /// Judges the facts with the attachments of this moment.
    fn enforced(&self) -> Enforced {
        let mut facts = self.slow.as_ref().map(|slow| slow.facts.clone()).unwrap_or_default();
        match self.breaker.attachments() {
            Ok(attachments) => facts.attachments = attachments,
            Err(error) => {
                facts.namespace = Some(format!("the attached programs cannot be read: {error:#}"));
            }
        }
        Enforced::judge(facts)
    }

    fn connections_of(&self, name: &str) -> Result<Vec<Connection>> {
        let Scope::Session(session) = self.breaker.names().what(self.breaker.find(name)?) else {
            return Ok(Vec::new());
        };
        let connection = |(key, state)| Connection {
            addresses: connection_text(&key),
            state: match state {
                ConnectionState::Live => "live",
                ConnectionState::Blind => "blind",
                ConnectionState::Fenced => "fenced",
                ConnectionState::Closed => "closed",
            },
        };
        Ok(self.breaker.connections_of(session)?.into_iter().map(connection).collect())
    }

    fn read(&self, second: Option<u64>, events: Vec<Line>) -> Result<Reading> {
        let breaker = &self.breaker;
        let counters = breaker.counters()?;
        let slow = self.slow.as_ref();
        let none = vec![ConnectionCount::default(); counters.len()];
        let connections = slow.map(|slow| &slow.connections).filter(|found| !found.is_empty());
        let sessions = session::sessions(breaker, None, &counters, connections.unwrap_or(&none))?;
        let row =
            |session| SessionRow { session, order_per_s: None, withheld_per_s: None, limit_permille: None };
        Ok(Reading {
            second,
            samples: rates::from_counters(breaker, &counters)?,
            connections: slow.map(|slow| slow.details.clone()).unwrap_or_default(),
            top: Top {
                time: Timestamp::now(),
                policy: status::policy(breaker.policy()),
                agent: Agent::new(breaker.heartbeat_age_ns()?),
                enforced: self.enforced(),
                warnings: status::warnings(breaker, None),
                scopes: scope::scopes(breaker, None)?,
                sessions: sessions.into_iter().map(row).collect(),
                events,
            },
        })
    }
}

/// CPU time that this process has used.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
