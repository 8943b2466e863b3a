//! Sessions in `status`: connections, messages and segments.

use std::collections::BTreeMap;

use anyhow::Result;
use breaker_common::abi::Counters;
use breaker_common::message::{Class, InboundClass};
use serde::Serialize;

use crate::config::{ScopeIndex, ScopeName, SessionIndex};
use crate::kernel::Breaker;
use crate::kernel::connections::ConnectionCount;
use crate::kernel::sessions::scopes;

/// A session.
#[derive(Debug, Serialize)]
pub struct Session {
    /// Name of the session.
    pub name: String,
    /// Names of its groups.
    pub groups: Vec<String>,
    /// Connections that are open and not fenced.
    pub connections: u64,
    /// Fenced connections.
    pub fenced: u64,
    /// Messages by class.
    pub messages: BTreeMap<&'static str, Verdicts>,
    /// Segments with payload.
    pub packets: Verdicts,
    /// Segments with retransmitted bytes.
    pub retransmitted: u64,
    /// Number of desyncs.
    pub desyncs: u64,
    /// Live connections that are blind now.
    pub blind: u64,
    /// Segments that could not be read completely.
    pub unread: u64,
    /// Inbound messages if they are read: `fill`, `reject`, `other`, and the number of inbound `desyncs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inbound: Option<BTreeMap<&'static str, u64>>,
}

/// Counts by verdict.
#[derive(Debug, Serialize, PartialEq, Eq, Clone, Copy)]
pub struct Verdicts {
    /// Number passed.
    pub passed: u64,
    /// Number withheld.
    pub withheld: u64,
}

/// Reads the sessions of all scopes, or of one.
pub fn sessions(
    breaker: &Breaker,
    only: Option<ScopeIndex>,
    counters: &[Counters],
    connections: &[ConnectionCount],
) -> Result<Vec<Session>> {
    let indices = match only {
        Some(scope) => breaker.sessions_of(scope)?,
        None => breaker.names().sessions().collect(),
    };
    let view = |session: SessionIndex| {
        let n = session.get() as usize;
        let (counters, connections) = (counters.get(n)?, connections.get(n)?);
        Some(Session {
            name: breaker.names().session_name(session).to_string(),
            groups: groups(breaker, session),
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
    Ok(indices.into_iter().filter_map(view).collect())
}

/// Names of the groups of a session; none if the session cannot be read.
fn groups(breaker: &Breaker, session: SessionIndex) -> Vec<String> {
    let names = breaker.names();
    let group = |scope: ScopeIndex| match names.name(scope) {
        ScopeName::Group(group) => Some(group.to_string()),
        _ => None,
    };
    let numbers = breaker.session(session).map(|found| scopes(&found).to_vec()).unwrap_or_default();
    numbers.into_iter().filter_map(|number| names.scope(number)).filter_map(group).collect()
}

fn messages(counters: &Counters) -> BTreeMap<&'static str, Verdicts> {
    let verdicts = |class: Class| Verdicts {
        passed: counters.passed[class as usize],
        withheld: counters.withheld[class as usize],
    };
    Class::ALL.into_iter().map(|class| (class.name(), verdicts(class))).collect()
}

fn inbound(counters: &Counters) -> BTreeMap<&'static str, u64> {
    let messages = InboundClass::ALL.into_iter().map(InboundClass::name).zip(counters.inbound);
    messages.chain([("desyncs", counters.inbound_desyncs)]).collect()
}
