//! The figures of one scrape, read from the maps at that moment. Plain data: what is made of them needs no kernel.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use breaker_common::abi::{Counters, Interface, WARNINGS_PER_LIMIT, reason, unseen};
use breaker_common::window;

use super::Source;
use crate::agent::history::{History, Trips};
use crate::config::ScopeIndex;
use crate::enforced::Enforced;
use crate::kernel::Breaker;
use crate::kernel::breaker::ConnectionCount;
use crate::kernel::breaker::LimitUse;
use crate::kernel::tables::trim_padding;
use crate::view::status::{class_name, per};

/// The figures of one scrape.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Version, commit, layout and program tag of what is loaded.
    pub build: [String; 4],
    /// Name and sha256 of the policy.
    pub policy: [String; 2],
    /// Scopes.
    pub scopes: Vec<Scope>,
    /// Sessions.
    pub sessions: Vec<Session>,
    /// What comes in is read.
    pub inbound: bool,
    /// Interfaces, and whether nothing leaves there but by us.
    pub interfaces: BTreeMap<String, bool>,
    /// How often the agent has attached to an interface that was made again.
    pub reattached: BTreeMap<String, u64>,
    /// Whether the breaker is in force, and what keeps it from that.
    pub enforced: Enforced,
    /// Age of the heartbeat, ns.
    pub heartbeat_age_ns: Option<u64>,
    /// Entries of the connection table: taken, and in all.
    pub table: [u64; 2],
    /// Packets that passed unread, by interface and kind.
    pub unseen: Vec<(String, &'static str, u64)>,
    /// Events that were lost.
    pub events_lost: u64,
    /// Events that were left out.
    pub events_left_out: u64,
    /// Entries that the audit log does not have yet.
    pub audit_pending: u64,
    /// Failed writes of it.
    pub audit_failures: u64,
}

/// A scope.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// As `status` calls it.
    pub name: String,
    /// Whether its limits trip it.
    pub armed: bool,
    /// Cause bits.
    pub causes: u64,
    /// Its epoch.
    pub epoch: u64,
    /// Trips by cause.
    pub trips: Trips,
    /// Its limits.
    pub limits: Vec<Limit>,
}

/// A limit.
#[derive(Clone, Debug, Default)]
pub struct Limit {
    /// What it counts.
    pub class: &'static str,
    /// Over which time.
    pub per: String,
    /// Messages that may cross,
    pub max: u64,
    /// that its window holds now,
    pub used: u64,
    /// and that it ever held.
    pub peak: u64,
    /// Warning levels that its window reaches now.
    pub warning: u64,
}

/// A session.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// Its name.
    pub name: String,
    /// What it has sent.
    pub counters: Counters,
    /// Its connections.
    pub connections: ConnectionCount,
}

impl Figures {
    /// Reads them.
    pub fn read(of: &Source, history: &History) -> Result<Self> {
        let now = of.loaded.now();
        let breaker = &now.breaker;
        let meta = breaker.meta();
        let (connections, taken) = breaker.connection_table()?;
        let names = breaker.names();
        let counters = breaker.counters()?;
        let interfaces = of.loaded.attachments();
        Ok(Self {
            build: [
                trim_padding(&meta.version),
                trim_padding(&meta.git),
                meta.abi.to_string(),
                format!("{:016x}", of.loaded.tag),
            ],
            policy: [
                now.policy.clone(),
                breaker.policy().sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
            ],
            scopes: names.iter().map(|index| scope(breaker, history, index)).collect::<Result<_>>()?,
            // Sessions that a reload has removed leave holes among the numbers.
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
                .map(|name| (name.clone(), of.last_look.reattachments(&name)))
                .collect(),
            enforced: of.judgement.now(),
            heartbeat_age_ns: breaker.heartbeat_age_ns()?,
            unseen: unseen(breaker)?,
            events_left_out: breaker.reason(reason::EVENT_LEFT_OUT)?,
            table: [taken, meta.connections.into()],
            events_lost: breaker.reason(reason::EVENT_LOST)? + of.log.refused(),
            audit_pending: of.log.pending() as u64,
            audit_failures: of.log.failures(),
        })
    }
}

/// Packets that passed unread, of each kind at each interface, those that were none included.
fn unseen(breaker: &Breaker) -> Result<Vec<(String, &'static str, u64)>> {
    let counted: HashMap<_, _> =
        breaker.maps().unseen()?.into_iter().map(|(key, count)| ((key.ifindex, key.kind), count)).collect();
    let of = |interface: &Interface| {
        let (name, ifindex) = (trim_padding(&interface.name), interface.ifindex);
        let count = |kind: usize| counted.get(&(ifindex, kind as u32)).copied().unwrap_or_default();
        let kinds: Vec<_> =
            unseen::NAMES.into_iter().enumerate().map(|(kind, word)| (word, count(kind))).collect();
        kinds.into_iter().map(move |(word, count)| (name.clone(), word, count))
    };
    Ok(breaker.interfaces().iter().flat_map(of).collect())
}

fn scope(breaker: &Breaker, history: &History, index: ScopeIndex) -> Result<Scope> {
    let name = breaker.names().name(index).to_string();
    let state = breaker.scope(index)?;
    let limit = |found: LimitUse| Limit {
        class: class_name(found.limit.class),
        // A ratio may stand beside a total of the same class.
        per: if found.limit.per_fill == 0 { per(&found.limit) } else { "fill".to_owned() },
        max: found.max_messages,
        used: found.used,
        peak: found.peak,
        warning: window::warning_level(&found.limit, found.max_messages, found.used)
            .min(WARNINGS_PER_LIMIT as u64 + 1),
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
