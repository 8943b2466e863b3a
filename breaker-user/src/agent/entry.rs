//! Audit log entries for the kernel program's events.

use std::collections::HashMap;

use breaker_common::abi::{Event, Limit, cause, kind};
use serde_json::{Map, Value};

use crate::audit::{Actor, Entry};
use crate::config::Scopes;
use crate::display;
use crate::journal;
use crate::kernel::{clock, connection_text};

/// Names of the kinds of events, a contract with scripts.
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

/// The policy that gives the numbers of an event their meaning.
pub trait EventContext {
    /// Names of scopes and sessions.
    fn names(&self) -> &Scopes;
    /// A limit of a scope by its position.
    fn limit(&self, scope: u32, position: u32) -> Option<Limit>;
    /// Name of the policy in force.
    fn policy(&self) -> &str;
}

/// Entries for a batch of events, in their order.
///
/// A full table causes an event for each packet. The batch has one entry for each session, with their number,
/// so that a flood of packets does not flood the log.
pub fn entries<'a>(events: impl IntoIterator<Item = &'a Event>, context: &impl EventContext) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut full: HashMap<u32, (usize, u64)> = HashMap::new();
    for event in events {
        if event.kind == kind::TABLE_FULL {
            let (_, count) = full.entry(event.session).or_insert((entries.len(), 0));
            *count += 1;
            if *count > 1 {
                continue;
            }
        }
        entries.push(entry(event, context));
    }
    for (position, count) in full.into_values() {
        if let Some(Value::Object(counts)) = entries.get_mut(position).map(|entry| &mut entry.counts) {
            counts.insert("events".to_owned(), count.into());
        }
    }
    entries
}

/// The entry for one event.
fn entry(event: &Event, context: &impl EventContext) -> Entry {
    let name = KINDS.iter().find(|(kind, _)| *kind == event.kind).map(|(_, name)| *name);
    Entry {
        time: clock::time_of(event.at_ns),
        kind: name.unwrap_or("unknown").to_owned(),
        scope: context.names().scope(event.scope).map(|scope| context.names().name(scope).to_string()),
        cause: journal::cause_field(event.cause),
        actor: Actor::kernel(),
        reason: None,
        counts: Value::Object(counts(event, context)),
        policy: context.policy().to_owned(),
    }
}

fn counts(event: &Event, context: &impl EventContext) -> Map<String, Value> {
    let mut counts = Map::new();
    if let Some(session) = context.names().session(event.session) {
        counts.insert("session".to_owned(), context.names().session_name(session).as_str().into());
    }
    counts.insert("connection".to_owned(), connection_text(&event.connection).into());
    let has_limit = matches!(event.kind, kind::WOULD_TRIP | kind::WARNED)
        || event.kind == kind::TRIPPED && event.cause == cause::RATE;
    if has_limit {
        if let Some(limit) = context.limit(event.scope, event.limit) {
            counts.insert("limit".to_owned(), display::limit(&limit).into());
        }
        counts.insert("used".to_owned(), event.used.into());
    }
    if event.kind == kind::WARNED {
        counts.insert("level".to_owned(), event.level.into());
    }
    counts
}
