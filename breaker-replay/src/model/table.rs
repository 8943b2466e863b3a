//! The connection tables: find, open, establish and join a connection, as the kernel program does.

use breaker_common::abi::{Connection, ConnectionKey, kind, reason, undeclared};
use breaker_common::decide::{ACK, SYN, Segment};
use breaker_common::fix::SIGNATURE;

use super::slot::{Slot, Table};
use super::{HOST, Model, env};

/// Returns true for the start of a FIX message, and for a part of that start.
#[inline(always)]
fn signature(payload: &[u8]) -> (bool, bool) {
    let confirmed = payload.starts_with(&SIGNATURE);
    let partial = !payload.is_empty() && payload.len() < SIGNATURE.len() && SIGNATURE.starts_with(payload);
    (confirmed, partial)
}

impl Model {
    /// Returns the state of a connection in either table.
    pub fn connection(&self, key: &ConnectionKey) -> Option<&Connection> {
        self.connections.get(key).or_else(|| self.transient.get(key))
    }

    /// Returns the connection in a slot.
    #[inline(always)]
    pub fn at(&self, slot: Slot) -> &Connection {
        match slot.table {
            Table::Live => self.connections.at(slot.index),
            Table::Transient => self.transient.at(slot.index),
        }
    }

    /// Finds or creates the connection of a packet. `Err` is the reason why there is no verdict.
    #[inline(always)]
    pub fn find(&mut self, key: &ConnectionKey, segment: &Segment, payload: &[u8]) -> Result<Slot, u32> {
        if self.maps.is_port_watched(key.remote_port) {
            if segment.flags & SYN == 0
                && let Some(index) = self.connections.find(key)
                && self.connections.at(index).contested == 0
            {
                return Ok(Slot { table: Table::Live, index });
            }
        } else if self.maps.undeclared == undeclared::IGNORE || signature(payload) == (false, false) {
            return Err(reason::NOT_OURS);
        }
        self.locate(key, segment, payload)
    }

    /// Finds a connection that [`Self::find`] has not found, or creates one.
    #[cold]
    fn locate(&mut self, key: &ConnectionKey, segment: &Segment, payload: &[u8]) -> Result<Slot, u32> {
        if segment.opens_connection() {
            return self.open(key, segment, payload);
        }
        let live = self.connections.find(key);
        if let Some(index) = self.transient.find(key) {
            let other = *self.transient.at(index);
            if other.session == Connection::IGNORED {
                return live.map(|index| Slot { table: Table::Live, index }).ok_or(reason::NOT_OURS);
            }
            if other.closed_ns == 0
                && other.session | other.shared_endpoint != 0
                && other.is_established_by(segment)
            {
                return self.establish(key, other);
            }
            if live.is_none() {
                return Ok(Slot { table: Table::Transient, index });
            }
        }
        match live {
            Some(index) => Ok(Slot { table: Table::Live, index }),
            None => self.join(key, segment, payload),
        }
    }

    fn open(&mut self, key: &ConnectionKey, segment: &Segment, payload: &[u8]) -> Result<Slot, u32> {
        if let Some(index) = self.transient.find(key)
            && self.transient.at(index).is_opened_by(segment)
        {
            return Ok(Slot { table: Table::Transient, index });
        }
        if let Some(index) = self.connections.find(key) {
            let live = self.connections.at_mut(index);
            if live.is_opened_by(segment) {
                return Ok(Slot { table: Table::Live, index });
            }
            if live.closed_ns != 0 {
                self.connections.remove(key);
            } else if segment.length != 0 {
                return Err(reason::FOREIGN);
            } else {
                live.contested = 1;
            }
        }
        let target = self.target(key);
        if target == 0 {
            return self.join(key, segment, payload);
        }
        if self.connections.find(key).is_none() {
            self.inbound.remove(key);
        }
        let connection = Connection::new(target, segment);
        if segment.length != 0 {
            return self.establish(key, connection);
        }
        Ok(self.put_transient(key, connection))
    }

    fn establish(&mut self, key: &ConnectionKey, connection: Connection) -> Result<Slot, u32> {
        let replaces = self.connections.find(key).is_some();
        if !replaces && self.connections.len() >= self.max_connections {
            self.emit(kind::TABLE_FULL, connection.session, key);
            return Err(reason::TABLE_FULL);
        }
        if replaces {
            self.inbound.remove(key);
        }
        let index = self.connections.insert(key, connection);
        self.transient.remove(key);
        Ok(Slot { table: Table::Live, index })
    }

    /// Returns the packed target of a declared endpoint, or 0.
    fn target(&self, key: &ConnectionKey) -> u32 {
        if self.maps.is_port_watched(key.remote_port) { self.maps.lookup_endpoint(key) } else { 0 }
    }

    fn join(&mut self, key: &ConnectionKey, segment: &Segment, payload: &[u8]) -> Result<Slot, u32> {
        let target = self.target(key);
        if target != 0 {
            if segment.flags & (SYN | ACK) == SYN | ACK {
                self.put_transient(key, Connection::ignored());
                return Err(reason::NOT_OURS);
            }
            if segment.length == 0 {
                return Err(reason::CONTROL);
            }
            return self.establish(key, Connection::new(target, segment));
        }
        let (confirmed, partial) = signature(payload);
        if self.maps.undeclared == undeclared::IGNORE || !confirmed && !partial {
            return Err(reason::NOT_OURS);
        }
        let blocked = if self.maps.undeclared == undeclared::BLOCK { self.maps.clock } else { 0 };
        let seq = segment.seq.wrapping_add(u32::from(segment.flags & SYN != 0));
        let slot = self.put_transient(key, Connection::undeclared(seq, blocked, confirmed));
        self.maps.watch_port(key.remote_port);
        if confirmed {
            self.emit(kind::UNDECLARED, 0, key);
        }
        Ok(slot)
    }

    fn put_transient(&mut self, key: &ConnectionKey, connection: Connection) -> Slot {
        for evicted in self.transient.evict(self.max_transient) {
            if self.connections.find(&evicted).is_none() {
                self.inbound.remove(&evicted);
            }
        }
        Slot { table: Table::Transient, index: self.transient.insert(key, connection) }
    }

    /// Moves a connection to the transient table if it is closed or ignored, as the kernel program does in
    /// `connection::retire`.
    #[inline(always)]
    pub(super) fn retire(&mut self, slot: Slot, key: &ConnectionKey) {
        if slot.table == Table::Live {
            let connection = self.connections.at(slot.index);
            if connection.closed_ns != 0 || connection.session == Connection::IGNORED {
                let connection = *connection;
                self.connections.remove(key);
                self.put_transient(key, connection);
            }
        }
    }

    /// Puts a connection into one of the tables, in place of any other with its key.
    pub fn put(&mut self, table: Table, key: &ConnectionKey, connection: Connection) {
        self.connections.remove(key);
        self.transient.remove(key);
        match table {
            Table::Live => _ = self.connections.insert(key, connection),
            Table::Transient => _ = self.put_transient(key, connection),
        }
    }

    /// Returns the connection in a slot, to be changed.
    #[inline(always)]
    pub fn at_mut(&mut self, slot: Slot) -> &mut Connection {
        match slot.table {
            Table::Live => self.connections.at_mut(slot.index),
            Table::Transient => self.transient.at_mut(slot.index),
        }
    }

    fn emit(&mut self, kind: u32, session: u32, key: &ConnectionKey) {
        self.scratch.events.push(env::event(self.maps.clock, kind, HOST, session, key));
    }
}
