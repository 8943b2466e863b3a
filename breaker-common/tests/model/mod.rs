//! breaker without a kernel: maps as vectors, packets as arguments. Around `decide` it does what breaker-ebpf does, in its order,
//! so that the two can be held against each other; and to the switches it does what the CLI does.

mod policy;
mod run;
mod scope;
mod walk;

use std::cell::Cell;

use breaker_common::abi::{
    Connection, ConnectionKey, Counters, Endpoint, Event, Scope, Session, kind, reason, undeclared,
};
use breaker_common::class::LimitClass;
use breaker_common::decide::{RST, Segment, Verdict, decide};
use breaker_common::fix::SIGNATURE;

use run::Run;
use scope::InMemory;

/// Remote port of session 0; that of the others is so much higher. At session 0's nobody has declared anything.
pub const FIRST_PORT: u16 = 9000;
/// The scope of everything.
pub const HOST: u32 = 0;

/// All maps, and a clock.
pub struct Model {
    /// Sessions by number; session 0 is `undeclared`.
    pub sessions: Vec<Session>,
    /// Scopes by number: the host, the groups, the sessions.
    pub scopes: Vec<Cell<Scope>>,
    /// The rings of all limits.
    pub times: Vec<Cell<u64>>,
    /// Which session a connection belongs to: prefix length in bits, and session.
    pub endpoints: Vec<(u32, Endpoint, u32)>,
    /// Remote ports at which connections are looked up, network order.
    pub ports: Vec<u16>,
    /// The connection table.
    pub connections: Vec<(ConnectionKey, Connection)>,
    /// How many it may hold.
    pub most_connections: usize,
    /// What becomes of FIX that no session declares: one of [`undeclared`].
    pub undeclared: u32,
    /// Counters by session.
    pub counters: Vec<Counters>,
    /// All that was told.
    pub events: Vec<Event>,
    /// CLOCK_MONOTONIC, ns.
    pub clock: u64,
    groups: u32,
}

/// The state of the first connection from `local_port` to a session's port.
pub fn key(session: u32, local_port: u16) -> ConnectionKey {
    let address = |last: u8| [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes([10, 0, 0, last])];
    let remote_port = (FIRST_PORT + session as u16).to_be();
    ConnectionKey { local: address(1), remote: address(2), local_port: local_port.to_be(), remote_port }
}

impl Model {
    /// Armed scopes without limits: `sessions[i]` lists the groups, `1..=groups`, of session `i + 1`.
    pub fn new(groups: u32, sessions: &[&[u32]]) -> Self {
        let count = sessions.len() as u32 + 1;
        let scope = Cell::new(Scope { armed: 1, ..Scope::default() });
        let mut model = Self {
            sessions: Vec::new(),
            scopes: vec![scope; (1 + groups + count) as usize],
            times: Vec::new(),
            endpoints: Vec::new(),
            ports: Vec::new(),
            connections: Vec::new(),
            most_connections: 1024,
            undeclared: undeclared::WATCH,
            counters: vec![Counters::default(); count as usize],
            events: Vec::new(),
            clock: 1_000_000_000,
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

    /// The own scope of a session.
    pub fn scope_of(&self, session: u32) -> u32 {
        1 + self.groups + session
    }

    /// A scope as it stands.
    pub fn scope(&self, scope: u32) -> Scope {
        self.scopes[scope as usize].get()
    }

    /// Changes a scope as user space does.
    pub fn set(&mut self, scope: u32, change: impl FnOnce(&mut Scope)) {
        change(self.scopes[scope as usize].get_mut());
    }

    /// Gives a scope one more limit.
    pub fn add_limit(&mut self, scope: u32, class: LimitClass, max: u64, per_ns: u64) {
        let limit = policy::limit(class, max, per_ns, self.times.len() as u32);
        let slots = if per_ns == 0 { 0 } else { 1 << limit.ring_bits };
        self.times.resize(self.times.len() + slots, Cell::new(0));
        self.set(scope, |scope| scope::add_limit(scope, limit));
    }

    /// `breaker trip`.
    pub fn trip(&mut self, scope: u32, cause: u64) {
        self.set(scope, |scope| {
            scope.switch.causes |= cause;
            scope.switch.epoch += 1;
        });
    }

    /// `breaker reset`.
    pub fn reset(&mut self, scope: u32) {
        self.set(scope, |scope| {
            scope.switch.epoch += 1;
            for (limit, window) in scope.limits.iter_mut().zip(&scope.windows) {
                limit.floor = window.issued;
            }
            scope.switch.causes = 0;
        });
    }

    /// The state of a connection, where it is in the table.
    pub fn connection(&self, key: &ConnectionKey) -> Option<&Connection> {
        self.connections.iter().find(|(known, _)| known == key).map(|(_, connection)| connection)
    }

    /// Judges a segment of a session's connection.
    pub fn packet(&mut self, key: &ConnectionKey, segment: &Segment, payload: &[u8]) -> Verdict {
        self.pass(key, segment, payload)
            .unwrap_or_else(|reason| panic!("not judged: {}", reason::NAMES[reason as usize]))
    }

    /// Judges a packet; `Err` is the reason why there was no verdict.
    pub fn pass(&mut self, key: &ConnectionKey, segment: &Segment, payload: &[u8]) -> Result<Verdict, u32> {
        assert_eq!(segment.length as usize, payload.len());
        let place = self.find(key, segment, payload)?;
        let mut connection = self.connections[place].1;
        let number = connection.session;
        let session = self.sessions[number as usize];
        let mut run = Run::new(self, key, number, payload);
        let verdict = decide(&mut run, &session, &mut connection, segment);
        let (tally, told) = (run.tally, run.told);
        self.events.extend(told);
        self.connections[place].1 = connection;
        self.counters[number as usize].count(verdict, &tally);
        Ok(verdict)
    }

    /// breaker-ebpf's `connection::find`.
    fn find(&mut self, key: &ConnectionKey, segment: &Segment, payload: &[u8]) -> Result<usize, u32> {
        let looked_up = self.ports.contains(&key.remote_port);
        if looked_up && let Some(place) = self.connections.iter().position(|(known, _)| known == key) {
            if !self.connections[place].1.is_reused(segment) {
                return Ok(place);
            }
            self.connections.remove(place);
        }
        let session = if looked_up { self.session_of(key) } else { None };
        let begins_like_fix = payload.len() >= 8 && payload.starts_with(&SIGNATURE);
        if session.is_none() && (self.undeclared == undeclared::IGNORE || !begins_like_fix) {
            return Err(reason::NOT_OURS);
        }
        let connection = session.map_or_else(
            || {
                self.ports.push(key.remote_port);
                self.tell(kind::UNDECLARED, 0, key);
                Connection::undeclared(segment.seq, self.undeclared == undeclared::BLOCK)
            },
            |session| Connection::joined(session, segment.seq),
        );
        if segment.flags & RST != 0 && segment.length == 0 {
            return Err(reason::CONTROL);
        }
        if self.connections.len() == self.most_connections {
            self.tell(kind::TABLE_FULL, connection.session, key);
            return Err(reason::TABLE_FULL);
        }
        self.connections.push((*key, connection));
        Ok(self.connections.len() - 1)
    }

    fn tell(&mut self, kind: u32, session: u32, key: &ConnectionKey) {
        self.events.push(run::event(self.clock, kind, HOST, session, key));
    }

    fn session_of(&self, key: &ConnectionKey) -> Option<u32> {
        self.longest(key, key.local).or_else(|| self.longest(key, [0; 4]))
    }

    fn longest(&self, key: &ConnectionKey, local: [u32; 4]) -> Option<u32> {
        let remote =
            |address: [u32; 4]| address.into_iter().fold(0u128, |all, word| all << 32 | u32::from_be(word) as u128);
        let matches = |(bits, endpoint, _): &&(u32, Endpoint, u32)| {
            let differing = remote(endpoint.remote) ^ remote(key.remote);
            endpoint.port == key.remote_port
                && endpoint.local == local
                && differing.leading_zeros() >= bits - Endpoint::FIXED_BITS
        };
        self.endpoints.iter().filter(matches).max_by_key(|(bits, ..)| *bits).map(|(_, _, session)| *session)
    }

    fn shared(&self, scope: u32) -> InMemory<'_> {
        InMemory { scope: &self.scopes[scope as usize], times: &self.times }
    }
}
