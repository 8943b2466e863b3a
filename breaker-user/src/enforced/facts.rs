//! Reads the facts that the judgement goes by.

use anyhow::Result;
use breaker_common::abi::unseen;

use super::{Enforced, Facts, Unread};
use crate::audit;
use crate::config::SessionIndex;
use crate::journal;
use crate::kernel::Breaker;
use crate::kernel::attachment::{self, Attachment};
use crate::kernel::breaker::ConnectionCount;
use crate::kernel::links::{self, Link};
use crate::kernel::netns;
use crate::kernel::tables::trim_padding;
use crate::kernel::tunnels;

impl Enforced {
    /// Judges what is loaded. What cannot be read counts against it.
    pub fn read(breaker: &Breaker) -> Self {
        let table = breaker.connection_table();
        Self::judge(
            breaker.attachments().map_or_else(|error| unknown(&error), |found| read(breaker, found, &table)),
        )
    }
}

/// Facts where nobody can tell what is attached.
pub fn unknown(error: &anyhow::Error) -> Facts {
    Facts { namespace: Some(format!("nobody can tell what is attached: {error:#}")), ..Facts::default() }
}

/// Reads all facts. What the caller has read already comes from it: the attachments, the connections by session and the entries of
/// their table.
pub fn read(
    breaker: &Breaker,
    attachments: Vec<Attachment>,
    table: &Result<(Vec<ConnectionCount>, u64)>,
) -> Facts {
    let mut facts = Facts { attachments, pins: breaker.root().private_mount_problem(), ..Facts::default() };
    facts.audit = audit::check_path(&journal::path(breaker)).err().map(|error| format!("{error:#}"));
    let mut unreadable = Vec::new();
    match table {
        Ok((connections, taken)) => {
            facts.table = [*taken, breaker.meta().connections.into()];
            facts.blind = blind(breaker, connections);
        }
        Err(error) => unreadable.push(format!("{error:#}")),
    }
    let mut keep = |read: Result<()>| unreadable.extend(read.err().map(|error| format!("{error:#}")));
    keep(breaker.pin_mismatch().map(|found| facts.pin_mismatch = found));
    keep(unread(breaker).map(|found| facts.unread = found));
    keep(disarmed(breaker).map(|found| facts.disarmed = found));
    keep(breaker.bypasses().map(|found| facts.routes = found));
    keep(notes(breaker).map(|found| facts.notes = found));
    facts.blind.extend(unreadable.into_iter().map(|found| ("host".to_owned(), found)));
    facts
}

fn blind(breaker: &Breaker, connections: &[ConnectionCount]) -> Vec<(String, String)> {
    let count =
        |session: SessionIndex| connections.get(session.get() as usize).map_or(0, |count| count.blind);
    let told = |session| {
        let name = format!("session/{}", breaker.names().session_name(session));
        match count(session) {
            0 => None,
            1 => Some((name, "1 live connection cannot be followed".to_owned())),
            many => Some((name, format!("{many} live connections cannot be followed"))),
        }
    };
    breaker.names().sessions().filter_map(told).collect()
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
        found.map(|interface| trim_padding(&interface.name))
    };
    let found = breaker.maps().unseen()?;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let links = breaker.within(links::all)??;
    let of = |(key, packets): (breaker_common::abi::UnseenKey, u64)| {
        let kind = unseen::NAMES.get(key.kind as usize).copied()?;
        Some(Unread { interface: name(key.ifindex)?, kind, packets, carries: carries(key.kind, &links) })
    };
    let mut found: Vec<_> = found.into_iter().filter(|(_, packets)| *packets != 0).filter_map(of).collect();
    found.sort_by(|a, b| (&a.interface, a.kind).cmp(&(&b.interface, b.kind)));
    Ok(found)
}

/// What sends such packets on an ordinary host.
fn carries(kind: u32, links: &[Link]) -> Option<String> {
    match kind {
        unseen::LLC => Some("spanning tree and other protocols of a bridge".to_owned()),
        unseen::PPPOE => Some("the setting up of PPPoE".to_owned()),
        unseen::MALFORMED => Some("no TCP stack takes them for data".to_owned()),
        kind => tunnels::sender(kind, links),
    }
}

fn notes(breaker: &Breaker) -> Result<Vec<String>> {
    let places = breaker.attach_points()?;
    let others = breaker.within(|| attachment::other_breakers(&places))?;
    let told = |(interface, id): (String, u32)| {
        format!(
            "{interface}: another breaker decides there too ({}): it withholds by itself, and its switches are under another \
             --pin-root, or hidden by a BPF file system mounted over its own: see `findmnt -t bpf`",
            attachment::describe(id)
        )
    };
    let entered = breaker.is_in_other_netns()?.then(|| {
        format!(
            "judged in the network namespace of the load, {}, which is not the one of this process",
            netns::name(breaker.meta().netns)
        )
    });
    Ok(others.into_iter().map(told).chain(entered).collect())
}
