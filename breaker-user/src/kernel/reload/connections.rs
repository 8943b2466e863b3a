//! Connections whose session comes or goes with a new policy.

use anyhow::Result;
use breaker_common::abi::{Connection, ConnectionKey, Endpoint};

use super::endpoints::Trie;
use super::in_force::InForce;
use super::sums;
use crate::kernel::maps::{PodConnection, PodKey};
use crate::kernel::tables::Tables;
use crate::kernel::{Breaker, clock};

/// What is to be done about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    /// Nothing.
    Leave,
    /// Its session goes: it stays fenced as an undeclared one.
    Fence,
    /// It is to be found anew, as one seen in mid-stream.
    Forget,
}

/// Before the new policy is in force: what is fenced must stay so where its session goes, and what is left of a session that was there
/// once must not be taken for young.
pub fn prepare(breaker: &Breaker, now: &InForce, next: &Tables) -> Result<()> {
    let comes_or_goes = |session: u32| now.declares_session(session) != declares(next, session);
    if !(0..next.sessions.len() as u32).any(comes_or_goes) {
        return Ok(());
    }
    each(breaker, |_, connection| {
        let session = connection.session;
        match (now.declares_session(session), declares(next, session)) {
            (true, false) if Some(connection.epoch) != sums::epoch(now, session) => Deed::Fence,
            (false, true) if connection.epoch != Connection::FENCED => Deed::Forget,
            _ => Deed::Leave,
        }
    })
}

/// After it: connections of nobody to places that are somebody's now. What is fenced stays so.
pub fn settle(breaker: &Breaker, now: &InForce, next: &Tables) -> Result<()> {
    let places = Trie::of(next.endpoints.iter().copied());
    let undeclared = sums::epoch(now, 0);
    each(breaker, |key, connection| {
        let orphan = match connection.session {
            0 => connection.shared_endpoint == 0 && Some(connection.epoch) == undeclared,
            session => {
                now.declares_session(session)
                    && !declares(next, session)
                    && connection.epoch != Connection::FENCED
            }
        };
        let endpoint = Endpoint { port: key.remote_port, pad: 0, local: key.local, remote: key.remote };
        if orphan && places.whose(&endpoint, Endpoint::BITS, |word| word) != 0 {
            Deed::Forget
        } else {
            Deed::Leave
        }
    })
}

fn each(breaker: &Breaker, deed: impl Fn(&ConnectionKey, &Connection) -> Deed) -> Result<()> {
    let mut found = Vec::new();
    breaker.maps().for_each_connection(|table, key, connection| {
        if deed(key, connection) != Deed::Leave {
            found.push((table, *key));
        }
    })?;
    for (table, key) in found {
        let mut table = breaker.maps().connections(table)?;
        // Looked at once more, for another may have its ports by now.
        let Ok(PodConnection(found)) = table.get(&PodKey(key), 0) else { continue };
        match deed(&key, &found) {
            Deed::Leave => {}
            Deed::Fence => {
                let closed_ns = if found.closed_ns == 0 { clock::now_ns() } else { found.closed_ns };
                let fenced = Connection {
                    session: 0,
                    shared_endpoint: 0,
                    epoch: Connection::FENCED,
                    closed_ns,
                    ..found
                };
                table.insert(PodKey(key), PodConnection(fenced), EXISTING)?;
            }
            // Gone meanwhile is as good.
            Deed::Forget => drop(table.remove(&PodKey(key))),
        }
    }
    Ok(())
}

/// `BPF_EXIST`: replaces, and adds nothing.
const EXISTING: u64 = 2;

fn declares(next: &Tables, session: u32) -> bool {
    next.sessions.get(session as usize).is_some_and(|found| found.scope_count != 0)
}

impl InForce {
    /// Whether the policy has the session.
    fn declares_session(&self, session: u32) -> bool {
        self.sessions.get(session as usize).is_some_and(|found| found.scope_count != 0)
    }
}
