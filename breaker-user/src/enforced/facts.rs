//! Reads the facts that the judgement goes by.

use anyhow::Result;
use breaker_common::abi::unseen;

use super::{Enforced, Facts, Unread};
use crate::kernel::Breaker;
use crate::kernel::attachment::{self, Attachment};
use crate::kernel::breaker::ConnectionCount;
use crate::kernel::tables::unpadded;

impl Enforced {
    /// Judges what is loaded. What cannot be read counts against it.
    pub fn read(breaker: &Breaker) -> Self {
        let read = || {
            let (connections, taken) = breaker.connection_table()?;
            read(breaker, breaker.attachments()?, &connections, taken)
        };
        Self::of(read().unwrap_or_else(|error| unknown(&error)))
    }
}

/// Facts where they cannot be read.
pub fn unknown(error: &anyhow::Error) -> Facts {
    Facts { namespace: Some(format!("nobody can tell what is in force: {error:#}")), ..Facts::default() }
}

/// Reads all facts. What the caller has read already comes from it: attachments, connections by session, entries of their table.
pub fn read(
    breaker: &Breaker,
    attachments: Vec<Attachment>,
    connections: &[ConnectionCount],
    taken: u64,
) -> Result<Facts> {
    Ok(Facts {
        attachments,
        blind: blind(breaker, connections),
        unread: unread(breaker)?,
        table: [taken, breaker.meta().connections.into()],
        disarmed: disarmed(breaker)?,
        notes: notes(breaker)?,
        ..Facts::default()
    })
}

fn blind(breaker: &Breaker, connections: &[ConnectionCount]) -> Vec<(String, u64)> {
    let count =
        |session: &crate::config::SessionIndex| connections.get(session.get() as usize).map(|count| count.blind);
    let named = breaker.names().sessions().filter_map(|session| Some((session, count(&session)?)));
    let named = named.filter(|(_, blind)| *blind != 0);
    named.map(|(session, blind)| (format!("session/{}", breaker.names().session_name(session)), blind)).collect()
}

fn disarmed(breaker: &Breaker) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for scope in breaker.names().iter() {
        if breaker.scope(scope)?.armed == 0 {
            found.push(breaker.names().name(scope).to_string());
        }
    }
    Ok(found)
}

/// Packets that passed unread, by interface and kind.
fn unread(breaker: &Breaker) -> Result<Vec<Unread>> {
    let name = |ifindex: u32| {
        let found = breaker.interfaces().iter().find(|interface| interface.ifindex == ifindex);
        found.map(|interface| unpadded(&interface.name))
    };
    let of = |(key, packets): (breaker_common::abi::UnseenKey, u64)| {
        let kind = unseen::NAMES.get(key.kind as usize).copied()?;
        Some(Unread { interface: name(key.ifindex)?, kind, packets, carries: carries(key.kind) })
    };
    let mut found: Vec<_> =
        breaker.maps().unseen()?.into_iter().filter(|(_, packets)| *packets != 0).filter_map(of).collect();
    found.sort_by(|a, b| (&a.interface, a.kind).cmp(&(&b.interface, b.kind)));
    Ok(found)
}

/// What sends such packets on an ordinary host.
fn carries(kind: u32) -> Option<String> {
    match kind {
        unseen::LLC => Some("spanning tree and other protocols of a bridge".to_owned()),
        unseen::MALFORMED => Some("no TCP stack takes them for data".to_owned()),
        _ => None,
    }
}

fn notes(breaker: &Breaker) -> Result<Vec<String>> {
    let others = attachment::other_breakers(&breaker.places()?);
    let told = |(interface, id): (String, u32)| {
        format!(
            "{interface}: another breaker decides there too ({}): it withholds by itself, and its switches are under another \
             --pin-root, or hidden by a BPF file system mounted over its own: see `findmnt -t bpf`",
            attachment::describe(id)
        )
    };
    Ok(others.into_iter().map(told).collect())
}
