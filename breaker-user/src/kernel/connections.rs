//! Reads the connection tables of a loaded breaker.

use anyhow::Result;
use breaker_common::abi::{Connection, ConnectionKey, sync};

use super::maps::{PodKey, Table};
use super::{Breaker, clock};
use crate::config::SessionIndex;

/// The connections of a session, by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCount {
    /// Open and not fenced.
    pub live: u64,
    /// Fenced: open, or not evicted yet.
    pub fenced: u64,
    /// Live, and not in sync now.
    pub blind: u64,
}

/// The connections of all sessions, and the use of the table of live connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionTable {
    /// Connections, by session number.
    pub by_session: Vec<ConnectionCount>,
    /// Entries of the table of live connections in use.
    pub live_entries: u64,
}

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// Open, not fenced, and in sync.
    Live,
    /// Open and not fenced, but not in sync.
    Blind,
    /// Fenced: open, or not evicted yet.
    Fenced,
    /// Closed or unanswered, and not fenced.
    Closed,
}

impl Breaker {
    /// Returns every connection.
    pub fn connections(&self) -> Result<Vec<(ConnectionKey, Connection)>> {
        let mut all = Vec::new();
        self.maps().for_each_connection(|_, key, connection| all.push((*key, *connection)))?;
        Ok(all)
    }

    /// Returns the connections of a session, each with its state.
    pub fn connections_of(&self, session: SessionIndex) -> Result<Vec<(ConnectionKey, ConnectionState)>> {
        let epoch = self.epoch_sum(session.get());
        let mut found = Vec::new();
        self.maps().for_each_connection(|table, key, connection| {
            if connection.session == session.get() {
                found.push((*key, state(table, connection, epoch)));
            }
        })?;
        Ok(found)
    }

    /// Returns the number of entries of the table of live connections in use.
    pub fn live_connections(&self) -> Result<u64> {
        let mut count = 0;
        self.maps().for_each_in(Table::Live, |_, _| count += 1)?;
        Ok(count)
    }

    /// Counts connections by session.
    pub fn connection_counts(&self) -> Result<Vec<ConnectionCount>> {
        Ok(self.connection_table()?.by_session)
    }

    /// Counts connections by session, and the entries of the table of live connections.
    pub fn connection_table(&self) -> Result<ConnectionTable> {
        let mut by_session = vec![ConnectionCount::default(); self.policy().sessions as usize];
        let sessions = self.maps().sessions()?;
        let epochs: Vec<u64> = (0..self.policy().sessions).map(|n| self.epoch_sum_in(sessions, n)).collect();
        let mut live_entries = 0;
        self.maps().for_each_connection(|table, _, connection| {
            live_entries += u64::from(table == Table::Live);
            let session = connection.session as usize;
            let Some(count) = by_session.get_mut(session) else { return };
            let state = state(table, connection, epochs[session]);
            count.fenced += u64::from(state == ConnectionState::Fenced);
            count.live += u64::from(matches!(state, ConnectionState::Live | ConnectionState::Blind));
            count.blind += u64::from(state == ConnectionState::Blind);
        })?;
        Ok(ConnectionTable { by_session, live_entries })
    }

    /// Removes connections that sent their FIN or RST more than `age_ns` ago. Returns how many.
    pub fn evict_closed(&self, age_ns: u64) -> Result<usize> {
        let now = clock::now_ns();
        let mut old = Vec::new();
        self.maps().for_each_connection(|table, key, connection| {
            let closed = connection.closed_ns;
            if closed != 0 && now.saturating_sub(closed) > age_ns {
                old.push((table, PodKey(*key)));
            }
        })?;
        let mut inbound = self.maps().inbound()?;
        let mut evicted = 0;
        for (table, key) in old {
            let mut map = self.maps().connections(table)?;
            // A new SYN may have reopened the entry meanwhile.
            let is_closed = map.get(&key, 0).is_ok_and(|found| found.0.closed_ns != 0);
            if is_closed && map.remove(&key).is_ok() {
                evicted += 1;
                // A connection without inbound traffic has no entry.
                let _ = inbound.remove(&key);
            }
        }
        Ok(evicted)
    }
}

/// The state of a connection of a session with this sum of epochs.
fn state(table: Table, connection: &Connection, epoch: u64) -> ConnectionState {
    let is_unanswered = table == Table::Transient && connection.opened == 1 && connection.stream.sent == 0;
    if connection.epoch != epoch {
        ConnectionState::Fenced
    } else if connection.closed_ns != 0 || is_unanswered {
        ConnectionState::Closed
    } else if connection.stream.framing.sync != sync::IN_SYNC {
        ConnectionState::Blind
    } else {
        ConnectionState::Live
    }
}
