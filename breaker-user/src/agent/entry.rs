//! The kernel program's events as lines of the audit log. Pure but for the time of day.

use std::collections::HashMap;
use std::net::SocketAddr;

use breaker_common::abi::{ConnectionKey, Event, Limit, cause, kind};
use serde_json::{Map, Value};

use crate::audit::{Actor, Entry};
use crate::config::Scopes;
use crate::journal;
use crate::kernel::clock;
use crate::kernel::tables::ip;
use crate::view::status::worded;

/// The names of the kinds of event: a contract with scripts.
pub const KINDS: [(u32, &str); 13] = [
    (kind::TRIPPED, "tripped"),
    (kind::WOULD_TRIP, "would_trip"),
    (kind::WARNED, "warned"),
    (kind::FENCED, "connection_fenced"),
    (kind::DESYNCED, "desynced"),
    (kind::TABLE_FULL, "table_full"),
    (kind::UNDECLARED, "undeclared"),
    (kind::REPLAYED, "replayed"),
    (kind::HEARTBEAT_LOST, "warned"),
    (kind::ISOLATED, "isolated"),
    (kind::MISMATCHED, "comp_id_mismatch"),
    (kind::BLIND, "blind"),
    (kind::SIGHTED, "sighted"),
];

/// What the numbers of an event stand for.
pub trait Glossary {
    /// Names of scopes and sessions.
    fn names(&self) -> &Scopes;
    /// A limit of a scope, by position.
    fn limit(&self, scope: u32, position: u32) -> Option<Limit>;
    /// Name of the policy in force.
    fn policy(&self) -> &str;
}

/// Entries for events, in their order. A full table is an event for each packet, and a flood of packets must not flood the log: the
/// batch tells of it once a session, with their number.
pub fn entries<'a>(events: impl IntoIterator<Item = &'a Event>, of: &impl Glossary) -> Vec<Entry> {
    let mut made: Vec<Entry> = Vec::new();
    let mut full: HashMap<u32, (usize, u64)> = HashMap::new();
    for event in events {
        if event.kind == kind::TABLE_FULL {
            let (_, count) = full.entry(event.session).or_insert((made.len(), 0));
            *count += 1;
            if *count > 1 {
                continue;
            }
        }
        made.push(entry(event, of));
    }
    for (position, count) in full.into_values() {
        if let Some(Value::Object(counts)) = made.get_mut(position).map(|entry| &mut entry.counts) {
            counts.insert("events".to_owned(), count.into());
        }
    }
    made
}

/// The entry for one event.
fn entry(event: &Event, of: &impl Glossary) -> Entry {
    let name = KINDS.iter().find(|(kind, _)| *kind == event.kind).map(|(_, name)| *name);
    Entry {
        time: clock::time_of(event.at_ns),
        kind: name.unwrap_or("unknown").to_owned(),
        scope: of.names().scope(event.scope).map(|scope| of.names().name(scope).to_string()),
        cause: journal::names(event.cause),
        actor: Actor::kernel(),
        reason: None,
        counts: Value::Object(counts(event, of)),
        policy: of.policy().to_owned(),
    }
}

fn counts(event: &Event, of: &impl Glossary) -> Map<String, Value> {
    let mut counts = Map::new();
    if let Some(session) = of.names().session(event.session) {
        counts.insert("session".to_owned(), of.names().session_name(session).as_str().into());
    }
    counts.insert("connection".to_owned(), connection(&event.connection).into());
    let limited = matches!(event.kind, kind::WOULD_TRIP | kind::WARNED)
        || event.kind == kind::TRIPPED && event.cause == cause::RATE;
    if limited {
        if let Some(limit) = of.limit(event.scope, event.limit) {
            counts.insert("limit".to_owned(), worded(&limit).into());
        }
        counts.insert("used".to_owned(), event.used.into());
    }
    if event.kind == kind::WARNED {
        counts.insert("level".to_owned(), event.level.into());
    }
    counts
}

/// A connection, from this host to its peer.
fn connection(key: &ConnectionKey) -> String {
    let end = |address, port: u16| SocketAddr::new(ip(address), u16::from_be(port));
    format!("{} > {}", end(key.local, key.local_port), end(key.remote, key.remote_port))
}
