//! The connection tables: find, open, establish and join a connection, as the kernel program does.

use breaker_common::abi::{Connection, ConnectionKey, Endpoint, kind, reason, undeclared};
use breaker_common::decide::{ACK, SYN, Segment};
use breaker_common::fix::SIGNATURE;

use super::{HOST, Model, env};

/// The table of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    /// Live connections of declared sessions.
    Live,
    /// All other connections. The kernel may evict them.
    Transient,
}

impl Model {
    /// Returns the state of a connection in either table.
    pub fn connection(&self, key: &ConnectionKey) -> Option<&Connection> {
        let all = self.connections.iter().chain(&self.transient);
        all.into_iter().find(|(known, _)| known == key).map(|(_, connection)| connection)
    }

    pub(super) fn slot(&mut self, table: Table, key: &ConnectionKey) -> Option<&mut Connection> {
        let entries = match table {
            Table::Live => &mut self.connections,
            Table::Transient => &mut self.transient,
        };
        entries.iter_mut().find(|(known, _)| known == key).map(|(_, connection)| connection)
    }

    pub(super) fn put(&mut self, table: Table, key: &ConnectionKey, connection: Connection) {
        match (self.slot(table, key), table) {
            (Some(slot), _) => *slot = connection,
            (None, Table::Live) => self.connections.push((*key, connection)),
            (None, Table::Transient) => self.transient.push((*key, connection)),
        }
    }

    /// Finds or creates the connection of a packet. `Err` is the reason why there is no verdict.
    pub(super) fn find(
        &mut self,
        key: &ConnectionKey,
        segment: &Segment,
        payload: &[u8],
    ) -> Result<Table, u32> {
        let known_port = self.ports.contains(&key.remote_port);
        let live = self.slot(Table::Live, key).is_some();
        if known_port
            && live
            && segment.flags & SYN == 0
            && self.slot(Table::Live, key).is_some_and(|live| live.contested == 0)
        {
            return Ok(Table::Live);
        }
        let partial =
            !payload.is_empty() && payload.len() < SIGNATURE.len() && SIGNATURE.starts_with(payload);
        let watched = self.undeclared != undeclared::IGNORE;
        let signature = (watched && payload.starts_with(&SIGNATURE), watched && partial);
        if !known_port && signature == (false, false) {
            return Err(reason::NOT_OURS);
        }
        let target = if known_port { self.lookup_endpoint(key) } else { 0 };
        if segment.opens_connection() {
            return self.open(key, segment, target, signature);
        }
        if let Some(other) = self.slot(Table::Transient, key).copied() {
            if other.session == Connection::IGNORED {
                return if live { Ok(Table::Live) } else { Err(reason::NOT_OURS) };
            }
            if other.closed_ns == 0
                && other.session | other.shared_endpoint != 0
                && other.is_established_by(segment)
            {
                return self.establish(key, other);
            }
            if !live {
                return Ok(Table::Transient);
            }
        }
        if live { Ok(Table::Live) } else { self.join(key, segment, target, signature) }
    }

    fn open(
        &mut self,
        key: &ConnectionKey,
        segment: &Segment,
        target: u32,
        signature: (bool, bool),
    ) -> Result<Table, u32> {
        if self.slot(Table::Transient, key).is_some_and(|other| other.is_opened_by(segment)) {
            return Ok(Table::Transient);
        }
        if let Some(live) = self.slot(Table::Live, key) {
            if live.is_opened_by(segment) {
                return Ok(Table::Live);
            }
            if live.closed_ns != 0 {
                self.connections.retain(|(known, _)| known != key);
            } else if segment.length != 0 {
                return Err(reason::FOREIGN);
            } else {
                live.contested = 1;
            }
        }
        if target == 0 {
            return self.join(key, segment, target, signature);
        }
        if self.slot(Table::Live, key).is_none() {
            self.inbound.retain(|(known, _)| known != key);
        }
        let connection = Connection::new(target, segment);
        if segment.length != 0 {
            return self.establish(key, connection);
        }
        self.put(Table::Transient, key, connection);
        Ok(Table::Transient)
    }

    fn establish(&mut self, key: &ConnectionKey, connection: Connection) -> Result<Table, u32> {
        if self.slot(Table::Live, key).is_none() && self.connections.len() == self.max_connections {
            self.emit(kind::TABLE_FULL, connection.session, key);
            return Err(reason::TABLE_FULL);
        }
        if self.slot(Table::Live, key).is_some() {
            self.inbound.retain(|(known, _)| known != key);
        }
        self.put(Table::Live, key, connection);
        self.transient.retain(|(known, _)| known != key);
        Ok(Table::Live)
    }

    fn join(
        &mut self,
        key: &ConnectionKey,
        segment: &Segment,
        target: u32,
        (confirmed, partial): (bool, bool),
    ) -> Result<Table, u32> {
        if target != 0 {
            if segment.flags & (SYN | ACK) == SYN | ACK {
                self.put(Table::Transient, key, Connection::ignored());
                return Err(reason::NOT_OURS);
            }
            if segment.length == 0 {
                return Err(reason::CONTROL);
            }
            return self.establish(key, Connection::new(target, segment));
        }
        if !confirmed && !partial {
            return Err(reason::NOT_OURS);
        }
        let blocked = if self.undeclared == undeclared::BLOCK { self.clock } else { 0 };
        let seq = segment.seq.wrapping_add(u32::from(segment.flags & SYN != 0));
        self.put(Table::Transient, key, Connection::undeclared(seq, blocked, confirmed));
        self.ports.push(key.remote_port);
        if confirmed {
            self.emit(kind::UNDECLARED, 0, key);
        }
        Ok(Table::Transient)
    }

    fn emit(&mut self, kind: u32, session: u32, key: &ConnectionKey) {
        self.events.push(env::event(self.clock, kind, HOST, session, key));
    }

    /// Returns the packed target of the endpoint, or 0.
    fn lookup_endpoint(&self, key: &ConnectionKey) -> u32 {
        self.longest_prefix(key, key.local).or_else(|| self.longest_prefix(key, [0; 4])).unwrap_or(0)
    }

    /// Returns the target with the longest matching prefix of the remote address.
    fn longest_prefix(&self, key: &ConnectionKey, local: [u32; 4]) -> Option<u32> {
        let remote = |address: [u32; 4]| {
            address.into_iter().fold(0u128, |all, word| all << 32 | u32::from_be(word) as u128)
        };
        let matches = |(bits, endpoint, _): &&(u32, Endpoint, u32)| {
            let differing = remote(endpoint.remote) ^ remote(key.remote);
            endpoint.port == key.remote_port
                && endpoint.local == local
                && differing.leading_zeros() >= bits - Endpoint::FIXED_BITS
        };
        self.endpoints.iter().filter(matches).max_by_key(|(bits, ..)| *bits).map(|(_, _, target)| *target)
    }
}
