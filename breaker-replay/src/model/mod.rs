//! A model of breaker without a kernel: maps are in memory, packets are arguments.
//!
//! The model calls `decide` in the order of the kernel program, so that a test can compare both. It changes
//! switches as the CLI does.

pub mod chunk;
pub mod connections;
mod declare;
mod env;
pub mod maps;
pub mod payload;
pub mod policy;
pub mod scope;
mod slot;
mod table;
pub mod walk;

use breaker_common::abi::{
    Connection, ConnectionKey, Counters, Event, Inbound, Scope, Session, Stream, reason,
};
use breaker_common::counts::SegmentCounts;
use breaker_common::decide::{self, SYN, Segment, Verdict, decide};

use connections::Connections;
use env::{ModelEnv, Scratch};
use maps::Maps;
use scope::ScopeInMemory;

pub use slot::{Slot, Table};

/// Remote port of session 0, an undeclared endpoint. Session N has the port N higher.
pub const FIRST_PORT: u16 = 9000;
/// Scope number of the host.
pub const HOST: u32 = 0;

/// All maps, and a clock.
#[derive(Clone)]
pub struct Model {
    /// The maps that user space fills, and the scopes.
    pub maps: Maps,
    /// Live connections of declared sessions.
    pub connections: Connections<Connection>,
    /// All other connections.
    pub transient: Connections<Connection>,
    /// Inbound directions of the connections.
    pub inbound: Connections<Inbound>,
    /// Capacity of `connections` and of `inbound`.
    pub max_connections: usize,
    /// Capacity of `transient`.
    pub max_transient: usize,
    /// Counters by session.
    pub counters: Vec<Counters>,
    scratch: Scratch,
    last_session: u32,
    groups: u32,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            maps: Maps::default(),
            connections: Connections::default(),
            transient: Connections::default(),
            inbound: Connections::default(),
            max_connections: 1024,
            max_transient: 4096,
            counters: Vec::new(),
            scratch: Scratch::default(),
            last_session: 0,
            groups: 0,
        }
    }
}

/// Returns the key of the connection from `local_port` to the port of a session.
pub fn key(session: u32, local_port: u16) -> ConnectionKey {
    let address = |last: u8| [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes([10, 0, 0, last])];
    let remote_port = (FIRST_PORT + session as u16).to_be();
    ConnectionKey { local: address(1), remote: address(2), local_port: local_port.to_be(), remote_port }
}

impl Model {
    /// Creates a model with these maps and without connections.
    pub fn with_maps(maps: Maps) -> Self {
        let counters = vec![Counters::default(); maps.sessions.len()];
        Self { maps, counters, ..Self::default() }
    }

    /// Returns a copy of a scope.
    pub fn scope(&self, scope: u32) -> Scope {
        *self.maps.scopes[scope as usize].borrow()
    }

    /// Changes a scope, as user space does.
    pub fn set(&mut self, scope: u32, change: impl FnOnce(&mut Scope)) {
        change(self.maps.scopes[scope as usize].get_mut());
    }

    /// Trips a scope, as `breaker trip` does.
    pub fn trip(&mut self, scope: u32, cause: u64) {
        let now = self.maps.clock;
        self.set(scope, |scope| {
            scope.switch.causes |= cause;
            scope.switch.raised_ns = now;
            scope.switch.epoch += 1;
        });
    }

    /// Resets a scope, as `breaker reset` does.
    pub fn reset(&mut self, scope: u32) {
        let now = self.maps.clock;
        self.set(scope, |scope| {
            scope.switch.raised_ns = now;
            scope.switch.epoch += 1;
            scope.switch.resets += 1;
            for window in &mut scope.windows {
                (window.floor, window.fill_floor) = (window.issued, window.fills);
            }
            scope.switch.causes = 0;
        });
    }

    /// Returns the verdict on a segment of a session's connection. Panics if there is none.
    pub fn packet(&mut self, key: &ConnectionKey, segment: &Segment, payload: &[u8]) -> Verdict {
        self.process(key, segment, payload)
            .unwrap_or_else(|reason| panic!("no verdict: {}", reason::NAMES[reason as usize]))
    }

    /// Returns the verdict on a packet. `Err` is the reason why there is no verdict.
    ///
    /// The payload may be shorter than the segment says, if a short snaplen has cut it.
    pub fn process(
        &mut self,
        key: &ConnectionKey,
        segment: &Segment,
        payload: &[u8],
    ) -> Result<Verdict, u32> {
        let slot = self.find(key, segment, payload)?;
        Ok(self.decide(slot, key, segment, payload))
    }

    /// Returns the verdict on a packet of a found connection. Counts its messages: [`Self::counts`].
    #[inline(always)]
    pub fn decide(&mut self, slot: Slot, key: &ConnectionKey, segment: &Segment, payload: &[u8]) -> Verdict {
        let (maps, scratch) = (&self.maps, &mut self.scratch);
        // Not `at_mut`, which borrows the whole model.
        let connection = match slot.table {
            Table::Live => self.connections.at_mut(slot.index()),
            Table::Transient => self.transient.at_mut(slot.index()),
        };
        let mut env = ModelEnv::new(maps, scratch, (key, connection.session), payload);
        let verdict = decide(&mut env, connection, segment);
        self.last_session = connection.session;
        if let Some(counters) = self.counters.get_mut(connection.session as usize) {
            counters.count(verdict, &self.scratch.counts);
        }
        self.retire(slot, key);
        verdict
    }

    /// Returns the counts of the last segment.
    #[inline(always)]
    pub fn counts(&self) -> &SegmentCounts {
        &self.scratch.counts
    }

    /// Returns the session of the last segment, or [`Connection::IGNORED`].
    #[inline(always)]
    pub fn last_session(&self) -> u32 {
        self.last_session
    }

    /// Continues a connection at this sequence number: the bytes before it are in a gap that is never filled.
    pub fn skip_gap(&mut self, key: &ConnectionKey, seq: u32) {
        let connection = match self.connections.get_mut(key) {
            Some(connection) => connection,
            None => match self.transient.get_mut(key) {
                Some(connection) => connection,
                None => return,
            },
        };
        if connection.opened == 1 && connection.stream.sent == 0 {
            // `decide` never skips the first byte of a connection.
            (connection.opened, connection.stream) = (0, Stream::joined(seq));
        } else {
            // As if TCP had sent the segment so often that its peer must have the bytes of the gap.
            (connection.stream.ahead, connection.stream.ahead_seq) = (u32::MAX / 2, seq);
        }
    }

    /// Returns the events since they were last cleared.
    #[inline(always)]
    pub fn events(&self) -> &[Event] {
        &self.scratch.events
    }

    /// Forgets the events.
    #[inline(always)]
    pub fn clear_events(&mut self) {
        self.scratch.events.clear();
    }

    /// Lets everything pass from now on: no scope is tripped or trips, and exceeded limits are only events.
    pub fn unenforce(&mut self) {
        self.maps.unenforce();
    }

    /// Counts an inbound packet of a connection in a table. Returns its session, or `None` if no connection
    /// has this key.
    pub fn observe(&mut self, key: &ConnectionKey, segment: &Segment, payload: &[u8]) -> Option<u32> {
        let connection = *self.connection(key)?;
        let number = connection.session;
        let session: Session = *self.maps.sessions.get(number as usize)?;
        let index = match self.inbound.find(key) {
            Some(index) => index,
            None if self.inbound.len() >= self.max_connections + self.max_transient => return None,
            None => {
                let syn = segment.flags & SYN != 0;
                let inbound = match syn {
                    true => Inbound::at(segment.seq.wrapping_add(1)),
                    false => Inbound::joined(segment.seq),
                };
                self.inbound.insert(key, inbound)
            }
        };
        let inbound = self.inbound.at_mut(index);
        let mut env = ModelEnv::new(&self.maps, &mut self.scratch, (key, number), payload).inbound();
        decide::observe(&mut env, &session, &connection, inbound, segment);
        if let Some(counters) = self.counters.get_mut(number as usize) {
            counters.count_inbound(&self.scratch.counts);
        }
        Some(number)
    }

    /// Returns a scope in memory, as a decision sees it.
    pub fn shared_scope(&self, scope: u32) -> ScopeInMemory<'_> {
        ScopeInMemory { scope: &self.maps.scopes[scope as usize], times: &self.maps.times }
    }
}
