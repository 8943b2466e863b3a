//! A model of breaker without a kernel: maps are vectors, packets are arguments.
//!
//! The model calls `decide` in the order of the kernel program, so that a test can compare both. It changes
//! switches as the CLI does.

mod env;
mod policy;
mod scope;
mod table;
mod walk;

use std::cell::Cell;

use breaker_common::abi::{
    CompId, Connection, ConnectionKey, Counters, Endpoint, Event, Inbound, Limit, Scope, Session, Target,
    identity, reason, undeclared,
};
use breaker_common::decide::{self, SYN, Segment, Verdict, decide};
use breaker_common::limits::{self, Scopes};
use breaker_common::message::LimitClass;

use env::ModelEnv;
use scope::CellScope;
use table::Table;
use walk::payload::chunk;

/// Remote port of session 0, an undeclared endpoint. Session N has the port N higher.
pub const FIRST_PORT: u16 = 9000;
/// Scope number of the host.
pub const HOST: u32 = 0;

/// All maps, and a clock.
pub struct Model {
    /// Sessions by number; session 0 is `undeclared`.
    pub sessions: Vec<Session>,
    /// Scopes by number: the host, the groups, the sessions.
    pub scopes: Vec<Cell<Scope>>,
    /// Rings of all limits.
    pub times: Vec<Cell<u64>>,
    /// Endpoints: prefix length in bits, key, and packed [`Target`].
    pub endpoints: Vec<(u32, Endpoint, u32)>,
    /// Remote ports of endpoints, network order.
    pub ports: Vec<u16>,
    /// Live connections of declared sessions.
    pub connections: Vec<(ConnectionKey, Connection)>,
    /// All other connections.
    pub transient: Vec<(ConnectionKey, Connection)>,
    /// Capacity of `connections`.
    pub max_connections: usize,
    /// Declared CompIDs by number.
    pub comp_ids: Vec<CompId>,
    /// Sessions at shared endpoints: endpoint, numbers of the CompIDs, session.
    pub identities: Vec<(u32, [u32; 4], u32)>,
    /// Inbound directions of the connections.
    pub inbound: Vec<(ConnectionKey, Inbound)>,
    /// Time of the agent's last heartbeat, ns.
    pub heartbeat: u64,
    /// Maximum age of the heartbeat in ns, and true if its loss trips the host.
    pub deadman: Option<(u64, bool)>,
    /// Treatment of undeclared FIX flows: one of [`undeclared`].
    pub undeclared: u32,
    /// Counters by session.
    pub counters: Vec<Counters>,
    /// Emitted events.
    pub events: Vec<Event>,
    /// CLOCK_MONOTONIC, ns.
    pub clock: u64,
    /// Wire segments per packet.
    pub wire_segments: u32,
    groups: u32,
}

/// Returns the key of the connection from `local_port` to the port of a session.
pub fn key(session: u32, local_port: u16) -> ConnectionKey {
    let address = |last: u8| [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes([10, 0, 0, last])];
    let remote_port = (FIRST_PORT + session as u16).to_be();
    ConnectionKey { local: address(1), remote: address(2), local_port: local_port.to_be(), remote_port }
}

impl Model {
    /// Creates armed scopes without limits. `sessions[i]` lists the groups (`1..=groups`) of session `i + 1`.
    pub fn new(groups: u32, sessions: &[&[u32]]) -> Self {
        let count = sessions.len() as u32 + 1;
        let scope = Cell::new(Scope { armed: 1, ..Scope::default() });
        let mut model = Self {
            sessions: Vec::new(),
            scopes: vec![scope; (1 + groups + count) as usize],
            times: Vec::new(),
            endpoints: Vec::new(),
            ports: Vec::new(),
            comp_ids: Vec::new(),
            identities: Vec::new(),
            inbound: Vec::new(),
            heartbeat: 0,
            deadman: None,
            connections: Vec::new(),
            transient: Vec::new(),
            max_connections: 1024,
            undeclared: undeclared::WATCH,
            counters: vec![Counters::default(); count as usize],
            events: Vec::new(),
            clock: 1_000_000_000,
            wire_segments: 1,
            groups,
        };
        for (number, groups) in std::iter::once(&[][..]).chain(sessions.iter().copied()).enumerate() {
            model.declare(number as u32, groups);
        }
        model
    }

    fn declare(&mut self, number: u32, groups: &[u32]) {
        let listed: Vec<u32> =
            [self.scope_of(number)].into_iter().chain(groups.iter().copied()).chain([HOST]).collect();
        self.sessions.push(policy::session(&listed));
        if number != 0 {
            let port = (FIRST_PORT + number as u16).to_be();
            self.ports.push(port);
            self.endpoints.push((
                Endpoint::FIXED_BITS,
                Endpoint { port, pad: 0, local: [0; 4], remote: [0; 4] },
                number,
            ));
        }
    }

    /// Returns the number of a session's own scope.
    pub fn scope_of(&self, session: u32) -> u32 {
        1 + self.groups + session
    }

    /// Returns a copy of a scope.
    pub fn scope(&self, scope: u32) -> Scope {
        self.scopes[scope as usize].get()
    }

    /// Changes a scope, as user space does.
    pub fn set(&mut self, scope: u32, change: impl FnOnce(&mut Scope)) {
        change(self.scopes[scope as usize].get_mut());
    }

    /// Adds a limit to a scope.
    pub fn add_limit(&mut self, scope: u32, class: LimitClass, max: u64, per_ns: u64) {
        let limit = policy::limit(class, max, per_ns, self.times.len() as u32);
        let layout = if per_ns == 0 { 0 } else { 1 << limit.ring.ring_bits };
        self.times.resize(self.times.len() + layout, Cell::new(0));
        self.put_limit(scope, limit);
    }

    /// Adds a ratio to a scope: `per_fill` orders for each fill, but at least `after`.
    pub fn add_ratio(&mut self, scope: u32, per_fill: u32, after: u64) {
        let limit = Limit { per_fill, ..policy::limit(LimitClass::Order, after, 0, 0) };
        self.put_limit(scope, limit);
    }

    fn put_limit(&mut self, scope: u32, limit: Limit) {
        self.set(scope, |scope| scope::add_limit(scope, limit));
        let scopes = &self.scopes;
        let limits_of = |number: u32| {
            let scope = scopes[number as usize].get();
            (scope.rules[0], scope.limits[0])
        };
        self.sessions.iter_mut().for_each(|session| limits::list_limits(session, limits_of));
    }

    /// Moves sessions to a shared endpoint at the port of the first session.
    ///
    /// Each session has its SenderCompID(49) and TargetCompID(56).
    pub fn share(&mut self, endpoint: u32, sessions: &[(u32, [&str; 2])]) {
        for (session, comp_ids) in sessions {
            let mut ids = [0; 4];
            for (id, text) in ids.iter_mut().zip(comp_ids) {
                *id = self.comp_id(text);
            }
            self.identities.push((endpoint, ids, *session));
        }
        let port = (FIRST_PORT + sessions[0].0 as u16).to_be();
        let target = Target::Shared { endpoint, mask: 0b11 }.pack();
        self.endpoints
            .iter_mut()
            .filter(|(_, endpoint, _)| endpoint.port == port)
            .for_each(|known| known.2 = target);
    }

    /// Returns the number of a CompID, and declares the CompID if necessary.
    pub fn comp_id(&mut self, text: &str) -> u32 {
        let packed: CompId = chunk(text.as_bytes());
        let at = self.comp_ids.iter().position(|known| *known == packed);
        if at.is_none() {
            self.comp_ids.push(packed);
        }
        identity::FIRST + at.unwrap_or(self.comp_ids.len() - 1) as u32
    }

    /// Trips a scope, as `breaker trip` does.
    pub fn trip(&mut self, scope: u32, cause: u64) {
        let now = self.clock;
        self.set(scope, |scope| {
            scope.switch.causes |= cause;
            scope.switch.raised_ns = now;
            scope.switch.epoch += 1;
        });
    }

    /// Resets a scope, as `breaker reset` does.
    pub fn reset(&mut self, scope: u32) {
        let now = self.clock;
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

    /// Returns the verdict on a segment of a session's connection.
    pub fn packet(&mut self, key: &ConnectionKey, segment: &Segment, payload: &[u8]) -> Verdict {
        self.process(key, segment, payload)
            .unwrap_or_else(|reason| panic!("no verdict: {}", reason::NAMES[reason as usize]))
    }

    /// Returns the verdict on a packet. `Err` is the reason why there is no verdict.
    pub fn process(
        &mut self,
        key: &ConnectionKey,
        segment: &Segment,
        payload: &[u8],
    ) -> Result<Verdict, u32> {
        assert_eq!(segment.length as usize, payload.len());
        let table = self.find(key, segment, payload)?;
        let mut connection = *self.slot(table, key).expect("a connection");
        let mut env = ModelEnv::new(self, key, connection.session, payload);
        let verdict = decide(&mut env, &mut connection, segment);
        let (counts, events) = (env.counts, env.events);
        self.events.extend(events);
        *self.slot(table, key).expect("a connection") = connection;
        // The kernel program does the same in `connection::retire`.
        let closed = connection.closed_ns != 0 || connection.session == Connection::IGNORED;
        if closed && table == Table::Live {
            self.connections.retain(|(known, _)| known != key);
            self.put(Table::Transient, key, connection);
        }
        if let Some(counters) = self.counters.get_mut(connection.session as usize) {
            counters.count(verdict, &counts);
        }
        Ok(verdict)
    }

    /// Counts an inbound packet of a connection in a table.
    pub fn observe(&mut self, key: &ConnectionKey, segment: &Segment, payload: &[u8]) {
        assert_eq!(segment.length as usize, payload.len());
        let Some(connection) = self.connection(key).copied() else { return };
        let number = connection.session;
        let position = self.inbound.iter().position(|(known, _)| known == key).unwrap_or_else(|| {
            let syn = segment.flags & SYN != 0;
            let inbound =
                if syn { Inbound::at(segment.seq.wrapping_add(1)) } else { Inbound::joined(segment.seq) };
            self.inbound.push((*key, inbound));
            self.inbound.len() - 1
        });
        let (session, mut inbound) = (self.sessions[number as usize], self.inbound[position].1);
        let mut env = ModelEnv::new(self, key, number, payload).inbound();
        decide::observe(&mut env, &session, &connection, &mut inbound, segment);
        let (counts, events) = (env.counts, env.events);
        self.events.extend(events);
        self.inbound[position].1 = inbound;
        self.counters[number as usize].count_inbound(&counts);
    }

    fn shared_scope(&self, scope: u32) -> CellScope<'_> {
        CellScope { scope: &self.scopes[scope as usize], times: &self.times }
    }
}

impl<'a> Scopes for &'a Model {
    type Scope = CellScope<'a>;

    fn scope(&self, number: u32) -> Option<CellScope<'a>> {
        Some(self.shared_scope(number))
    }
}
