//! The figures of one scrape, read from the maps. Plain data, so that the encoding needs no kernel.

use std::collections::{BTreeMap, HashMap};

use std::time::Duration;

use anyhow::Result;
use breaker_common::abi::{Counters, Interface, WARNINGS_PER_LIMIT, reason, unseen};
use breaker_common::window;
use jiff::Timestamp;

use super::source::Source;
use crate::agent::event_queue::Counts;
use crate::agent::history::{History, Trips};
use crate::agent::last_check::Reattachments;
use crate::config::ScopeIndex;
use crate::display;
use crate::enforced::Enforced;
use crate::kernel::Breaker;
use crate::kernel::connections::{ConnectionCount, ConnectionTable};
use crate::kernel::limit_use::LimitUse;
use crate::kernel::text::trim_padding;
use crate::state;

/// The figures of one scrape.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Version, commit, layout and program tag of what is loaded.
    /// Version, commit, layout and program tag of the load.
    pub build: [String; 4],
    /// Name and SHA-256 of the policy.
    pub policy: [String; 2],
    /// Scopes.
    pub scopes: Vec<Scope>,
    /// Sessions.
    pub sessions: Vec<Session>,
    /// True if inbound messages are read.
    pub inbound: bool,
    /// Interfaces, and whether the program is attached and first.
    pub interfaces: BTreeMap<String, bool>,
    /// Re-attachments by interface.
    pub reattached: BTreeMap<String, Reattachments>,
    /// Number of tamperings that the agent found.
    pub tampered: u64,
    /// Whether the breaker is in force, and its problems.
    pub enforced: Enforced,
    /// Age of the heartbeat in ns.
    pub heartbeat_age_ns: Option<u64>,
    /// Connection table: used entries and size.
    pub table: [u64; 2],
    /// Packets that passed unread, by interface and kind.
    pub unseen: Vec<(String, &'static str, u64)>,
    /// Lost events.
    pub events_lost: u64,
    /// Events that were left out.
    pub events_left_out: u64,
    /// Number of the last line of the audit log, as META keeps it; 0 for none.
    pub audit_seq: u64,
    /// Entries that are not in the audit log yet.
    pub audit_pending: u64,
    /// Failed writes of the audit log.
    pub audit_failures: u64,
    /// The program that runs for events: failed runs, and events that found no room.
    pub on_event: Counts,
    /// Whether the state file is in order, and its age in ms if it can be read.
    pub state: (bool, Option<u64>),
}

/// A scope.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Name, as in `status`.
    pub name: String,
    /// True if its limits trip it.
    pub armed: bool,
    /// Cause bits.
    pub causes: u64,
    /// Epoch.
    pub epoch: u64,
    /// Trips by cause.
    pub trips: Trips,
    /// Limits of the scope.
    pub limits: Vec<Limit>,
}

/// A limit.
#[derive(Clone, Debug, Default)]
pub struct Limit {
    /// Class of the counted messages.
    pub class: &'static str,
    /// Length of the interval.
    pub per: String,
    /// Messages that may pass.
    pub max: u64,
    /// Messages in the window now.
    pub used: u64,
    /// Most messages that the window has held.
    pub peak: u64,
    /// Highest warning level since the last acknowledgement, or now.
    pub warning: u64,
    /// Time since the first warning that nobody has acknowledged.
    pub warning_age: Option<Duration>,
}

/// A session.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// Name of the session.
    pub name: String,
    /// Messages and segments.
    pub counters: Counters,
    /// Connections.
    pub connections: ConnectionCount,
}

impl Figures {
    /// Reads the figures.
    pub fn read(source: &Source, history: &History) -> Result<Self> {
        let in_force = source.loaded.in_force();
        let breaker = &in_force.breaker;
        let meta = breaker.meta();
        let state = state::health(breaker);
        let ConnectionTable { by_session: connections, live_entries: used } = breaker.connection_table()?;
        let names = breaker.names();
        let counters = breaker.counters()?;
        let interfaces = source.loaded.attachments();
        Ok(Self {
            build: [
                trim_padding(&meta.version),
                trim_padding(&meta.git),
                meta.abi.to_string(),
                format!("{:016x}", meta.program_tag),
            ],
            policy: [in_force.policy.clone(), display::hex(&breaker.policy().sha256)],
            scopes: names.iter().map(|index| scope(breaker, history, index)).collect::<Result<_>>()?,
            // Sessions that a reload has removed leave unused numbers.
            sessions: names
                .sessions()
                .filter_map(|session| {
                    let number = session.get() as usize;
                    let (counters, connections) = (*counters.get(number)?, *connections.get(number)?);
                    Some(Session { name: names.session_name(session).to_string(), counters, connections })
                })
                .collect(),
            inbound: meta.inbound != 0,
            interfaces: interfaces
                .into_iter()
                .filter(|found| found.mode != "inbound")
                .map(|found| (found.name, found.attached && found.first))
                .collect(),
            reattached: breaker
                .interfaces()
                .iter()
                .map(|found| trim_padding(&found.name))
                .map(|name| (name.clone(), source.last_check.reattachments(&name)))
                .collect(),
            tampered: source.tampering.count(),
            enforced: source.monitor.enforced(),
            heartbeat_age_ns: breaker.heartbeat_age_ns()?,
            unseen: unseen(breaker)?,
            events_left_out: breaker.reason(reason::EVENT_LEFT_OUT)?,
            table: [used, meta.connections.into()],
            events_lost: breaker.reason(reason::EVENT_LOST)? + source.log.refused(),
            audit_seq: source.log.last_line().map_or(0, |end| end.seq),
            audit_pending: source.log.pending() as u64,
            audit_failures: source.log.failures(),
            on_event: source.log.on_event().counts(),
            state: (state.ok, state.age_ms),
        })
    }
}

/// Packets that passed unread, for each interface and kind, zero counts included.
fn unseen(breaker: &Breaker) -> Result<Vec<(String, &'static str, u64)>> {
    let counted: HashMap<_, _> =
        breaker.maps().unseen()?.into_iter().map(|(key, count)| ((key.ifindex, key.kind), count)).collect();
    let of_interface = |interface: &Interface| {
        let (name, ifindex) = (trim_padding(&interface.name), interface.ifindex);
        let count = |kind: usize| counted.get(&(ifindex, kind as u32)).copied().unwrap_or_default();
        let kinds: Vec<_> =
            unseen::NAMES.into_iter().enumerate().map(|(kind, word)| (word, count(kind))).collect();
        kinds.into_iter().map(move |(word, count)| (name.clone(), word, count))
    };
    Ok(breaker.interfaces().iter().flat_map(of_interface).collect())
}

fn scope(breaker: &Breaker, history: &History, index: ScopeIndex) -> Result<Scope> {
    let name = breaker.names().name(index).to_string();
    let state = breaker.scope(index)?;
    let limit = |found: LimitUse| {
        let warned = history.warning(&name, display::limit(&found.limit));
        Limit {
            class: display::class(found.limit.class),
            // A scope may have a ratio and a total of the same class.
            per: if found.limit.per_fill == 0 { display::interval(&found.limit) } else { "fill".to_owned() },
            max: found.max_messages,
            used: found.used,
            peak: found.peak,
            warning: window::warning_level(&found.limit, found.max_messages, found.used)
                .min(WARNINGS_PER_LIMIT as u64 + 1)
                .max(warned.map_or(0, |warned| warned.level)),
            warning_age: warned.map(|warned| Timestamp::now().duration_since(warned.since).unsigned_abs()),
        }
    };
    Ok(Scope {
        armed: state.armed != 0,
        causes: state.switch.causes,
        epoch: state.switch.epoch,
        trips: history.trips(&name),
        limits: breaker.limits(index)?.into_iter().map(limit).collect(),
        name,
    })
}
