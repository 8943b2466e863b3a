//! Connections whose session the next policy adds or removes.

use anyhow::Result;
use breaker_common::abi::{Connection, ConnectionKey, Endpoint};

use super::endpoints::Trie;
use super::epoch_sums;
use super::in_force::InForce;
use crate::kernel::maps::{PodConnection, PodKey};
use crate::kernel::tables::Tables;
use crate::kernel::{Breaker, clock};

/// The change of an entry of the connection table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// No change.
    Keep,
    /// The connection stays fenced, as an undeclared one: its session is removed.
    Fence,
    /// The entry is removed. The program then finds the connection in mid-stream.
    Remove,
}

/// Before the store of the side. A fenced connection stays fenced when its session is removed. Entries left
/// over from an earlier declaration of a session are removed: their epoch sums may look current.
pub fn prepare(breaker: &Breaker, now: &InForce, next: &Tables) -> Result<()> {
    let is_changed = |session: u32| now.declares_session(session) != next.declares_session(session);
    if !(0..next.sessions.len() as u32).any(is_changed) {
        return Ok(());
    }
    apply(breaker, |_, connection| {
        let session = connection.session;
        match (now.declares_session(session), next.declares_session(session)) {
            (true, false) if Some(connection.epoch) != epoch_sums::epoch(now, session) => Action::Fence,
            (false, true) if connection.epoch != Connection::FENCED => Action::Remove,
            _ => Action::Keep,
        }
    })
}

/// After the store of the side. Removes connections without a session to endpoints that are declared now. A
/// fenced connection stays.
pub fn finish(breaker: &Breaker, now: &InForce, next: &Tables) -> Result<()> {
    let endpoints = Trie::new(next.endpoints.iter().copied());
    let undeclared = epoch_sums::epoch(now, 0);
    apply(breaker, |key, connection| {
        let has_no_session = match connection.session {
            0 => connection.shared_endpoint == 0 && Some(connection.epoch) == undeclared,
            session => {
                now.declares_session(session)
                    && !next.declares_session(session)
                    && connection.epoch != Connection::FENCED
            }
        };
        let endpoint = Endpoint { port: key.remote_port, pad: 0, local: key.local, remote: key.remote };
        if has_no_session && endpoints.lookup(&endpoint, Endpoint::BITS, |word| word) != 0 {
            Action::Remove
        } else {
            Action::Keep
        }
    })
}

fn apply(breaker: &Breaker, action: impl Fn(&ConnectionKey, &Connection) -> Action) -> Result<()> {
    let mut found = Vec::new();
    breaker.maps().for_each_connection(|table, key, connection| {
        if action(key, connection) != Action::Keep {
            found.push((table, *key));
        }
    })?;
    for (table, key) in found {
        let mut table = breaker.maps().connections(table)?;
        // Another connection may have the same ports by now.
        let Ok(PodConnection(found)) = table.get(&PodKey(key), 0) else { continue };
        match action(&key, &found) {
            Action::Keep => {}
            Action::Fence => table.insert(PodKey(key), PodConnection(fenced(&found)), BPF_EXIST)?,
            Action::Remove => drop(table.remove(&PodKey(key))),
        }
    }
    Ok(())
}

/// The connection as a fenced and undeclared one.
fn fenced(found: &Connection) -> Connection {
    let closed_ns = if found.closed_ns == 0 { clock::now_ns() } else { found.closed_ns };
    Connection { session: 0, shared_endpoint: 0, epoch: Connection::FENCED, closed_ns, ..*found }
}

/// Replaces an entry, and adds none (kernel `uapi/linux/bpf.h`).
const BPF_EXIST: u64 = 2;
