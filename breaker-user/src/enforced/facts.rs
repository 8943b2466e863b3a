//! Reads the facts for the judgement from the kernel.

use anyhow::Result;
use breaker_common::abi::{UnseenKey, probe, unseen};

use super::{Enforced, Facts, UnreadPackets};
use crate::config::SessionIndex;
use crate::kernel::Breaker;
use crate::kernel::attachment::{self, Attachment};
use crate::kernel::connections::{ConnectionCount, ConnectionTable};
use crate::kernel::links::{self, Link};
use crate::kernel::loaded_programs;
use crate::kernel::netns;
use crate::kernel::text::trim_padding;
use crate::kernel::tunnels;
use crate::state;

impl Enforced {
    /// Reads all facts and judges them. A fact that cannot be read is a problem. `audit`: the reason why the
    /// audit log is not written.
    pub fn read(breaker: &Breaker, audit: Option<String>) -> Self {
        let table = breaker.connection_table();
        let facts = match breaker.attachments() {
            Ok(attachments) => read(breaker, attachments, &table, audit),
            Err(error) => unknown(&error),
        };
        Self::judge(facts)
    }
}

/// The facts if the attachments cannot be read.
fn unknown(error: &anyhow::Error) -> Facts {
    Facts { namespace: Some(format!("the attached programs cannot be read: {error:#}")), ..Facts::default() }
}

/// Reads all facts that the caller has not read yet.
pub fn read(
    breaker: &Breaker,
    attachments: Vec<Attachment>,
    table: &Result<ConnectionTable>,
    audit: Option<String>,
) -> Facts {
    let mount_problem = breaker.root().private_mount_problem();
    let mut facts = Facts { attachments, private_mount: mount_problem, audit, ..Facts::default() };
    let mut unreadable = Vec::new();
    match table {
        Ok(table) => {
            facts.table = [table.live_entries, breaker.meta().connections.into()];
            facts.blind = blind_sessions(breaker, &table.by_session);
        }
        Err(error) => unreadable.push(format!("{error:#}")),
    }
    let mut keep = |read: Result<()>| unreadable.extend(read.err().map(|error| format!("{error:#}")));
    keep(breaker.pin_mismatch().map(|found| facts.pin_mismatch = found));
    keep(unread_packets(breaker).map(|found| facts.unread = found));
    keep(probe_failures(breaker).map(|found| (facts.unstamped, facts.tampered) = found));
    keep(disarmed_scopes(breaker).map(|found| facts.disarmed = found));
    keep(breaker.bypasses().map(|found| facts.bypasses = found));
    keep(notes(breaker).map(|found| facts.notes = found));
    facts.notes.extend(state_note(breaker));
    facts.blind.extend(unreadable.into_iter().map(|found| ("host".to_owned(), found)));
    facts
}

fn blind_sessions(breaker: &Breaker, connections: &[ConnectionCount]) -> Vec<(String, String)> {
    let count =
        |session: SessionIndex| connections.get(session.get() as usize).map_or(0, |count| count.blind);
    let describe = |session| {
        let name = format!("session/{}", breaker.names().session_name(session));
        match count(session) {
            0 => None,
            1 => Some((name, "1 live connection cannot be followed".to_owned())),
            many => Some((name, format!("{many} live connections cannot be followed"))),
        }
    };
    breaker.names().sessions().filter_map(describe).collect()
}

/// Age of the agent's heartbeat above which its findings are old.
const MAX_HEARTBEAT_AGE_NS: u64 = 3_000_000_000;

/// Names of interfaces whose probe frames get no stamp, and tampering: place and finding.
type ProbeFailures = (Vec<String>, Vec<(String, String)>);

/// Returns the failures that a running agent recorded.
fn probe_failures(breaker: &Breaker) -> Result<ProbeFailures> {
    if breaker.heartbeat_age_ns()?.is_none_or(|age| age > MAX_HEARTBEAT_AGE_NS) {
        return Ok(ProbeFailures::default());
    }
    let failures = breaker.maps().probes()?.failures()?;
    let has_failed = |number: u32| failures.contains(&number);
    let unstamped = breaker.interfaces().iter().filter(|interface| has_failed(interface.ifindex));
    let tampered = has_failed(probe::POLICY_MAPS)
        .then(|| ("host".to_owned(), "the maps of the policy were changed, and not by breaker".to_owned()));
    Ok((unstamped.map(|interface| trim_padding(&interface.name)).collect(), tampered.into_iter().collect()))
}

fn disarmed_scopes(breaker: &Breaker) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for scope in breaker.names().iter() {
        if breaker.scope(scope)?.armed == 0 {
            found.push(breaker.names().name(scope).to_string());
        }
    }
    Ok(found)
}

/// Returns the packets that passed unread, by interface and kind.
fn unread_packets(breaker: &Breaker) -> Result<Vec<UnreadPackets>> {
    let interface_name = |ifindex: u32| {
        let found = breaker.interfaces().iter().find(|interface| interface.ifindex == ifindex);
        found.map(|interface| trim_padding(&interface.name))
    };
    let found = breaker.maps().unseen()?;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let links = breaker.in_netns(links::all)??;
    let describe = |(key, packets): (UnseenKey, u64)| {
        let kind = unseen::NAMES.get(key.kind as usize).copied()?;
        let interface = interface_name(key.ifindex)?;
        Some(UnreadPackets { interface, kind, packets, sender: expected_sender(key.kind, &links) })
    };
    let mut found: Vec<_> =
        found.into_iter().filter(|(_, packets)| *packets != 0).filter_map(describe).collect();
    found.sort_by(|a, b| (&a.interface, a.kind).cmp(&(&b.interface, b.kind)));
    Ok(found)
}

/// Returns the sender of packets of a kind on a correctly configured host.
fn expected_sender(kind: u32, links: &[Link]) -> Option<String> {
    match kind {
        unseen::LLC => Some("spanning tree and other bridge protocols".to_owned()),
        unseen::PPPOE => Some("PPPoE discovery".to_owned()),
        unseen::MALFORMED => Some("no TCP stack accepts them as data".to_owned()),
        kind => tunnels::sender(kind, links),
    }
}

/// What is wrong with the state file: it withholds nothing and lets nothing pass before the next load.
fn state_note(breaker: &Breaker) -> Option<String> {
    let state = state::health(breaker);
    let (found, cure) = (state.found?, state.cure?);
    Some(format!("the state file: {found}: {cure}"))
}

fn notes(breaker: &Breaker) -> Result<Vec<String>> {
    let points = breaker.attach_points()?;
    let others = breaker.in_netns(|| attachment::other_breakers(&points))?;
    let describe = |(interface, id): (String, u32)| {
        format!(
            "{interface}: another breaker decides there too ({}): it withholds by its own switches, which \
             are under another --pin-root, or under one that a mount hides: see `findmnt -t bpf`",
            loaded_programs::describe(id)
        )
    };
    let entered = breaker.is_in_other_netns()?.then(|| {
        format!(
            "judged in the network namespace of the load, {}, which is not the one of this process",
            netns::name(breaker.meta().netns)
        )
    });
    Ok(others.into_iter().map(describe).chain(entered).collect())
}
