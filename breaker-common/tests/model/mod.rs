//! breaker without a kernel: maps as vectors, packets as arguments. Around `decide` it does what breaker-ebpf does, in its order,
//! so that the two can be held against each other; and to the switches it does what the CLI does.

mod policy;
mod run;
mod scope;
mod walk;

use std::cell::Cell;

use breaker_common::abi::{
    CompId, Connection, ConnectionKey, Counters, Endpoint, Event, Inbound, Limit, Scope, Session, Target, identity,
    kind, reason, undeclared,
};
use breaker_common::class::LimitClass;
use breaker_common::decide::{self, FIN, RST, SYN, Segment, Verdict, decide};
use breaker_common::fix::SIGNATURE;
use breaker_common::limits::{self, Scopes};
use breaker_common::stream::Stream;

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
    /// Whose connections are: prefix length in bits, and a word of [`Target`].
    pub endpoints: Vec<(u32, Endpoint, u32)>,
    /// Remote ports at which connections are looked up, network order.
    pub ports: Vec<u16>,
    /// The connection table.
    pub connections: Vec<(ConnectionKey, Connection)>,
    /// How many it may hold.
    pub most_connections: usize,
    /// CompIDs that are declared, by number.
    pub comp_ids: Vec<CompId>,
    /// Sessions at shared places: place, numbers of their CompIDs, session.
    pub identities: Vec<(u32, [u32; 4], u32)>,
    /// What came in.
    pub inbound: Vec<(ConnectionKey, Inbound)>,
    /// When the agent was last seen alive.
    pub heartbeat: u64,
    /// How long it may be silent, ns, and whether more trips the host.
    pub deadman: Option<(u64, bool)>,
    /// What becomes of FIX that no session declares: one of [`undeclared`].
    pub undeclared: u32,
    /// Counters by session.
    pub counters: Vec<Counters>,
    /// All that was told.
    pub events: Vec<Event>,
    /// CLOCK_MONOTONIC, ns.
    pub clock: u64,
    /// Segments that a packet leaves as.
    pub wire_segments: u32,
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
            comp_ids: Vec::new(),
            identities: Vec::new(),
            inbound: Vec::new(),
            heartbeat: 0,
            deadman: None,
            connections: Vec::new(),
            most_connections: 1024,
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
        let slots = if per_ns == 0 { 0 } else { 1 << limit.slots.ring_bits };
        self.times.resize(self.times.len() + slots, Cell::new(0));
        self.put(scope, limit);
    }

    /// Gives a scope a ratio: so many orders for each fill, after the first few.
    pub fn add_ratio(&mut self, scope: u32, per_fill: u32, after: u64) {
        let limit = Limit { per_fill, ..policy::limit(LimitClass::Order, after, 0, 0) };
        self.put(scope, limit);
    }

    fn put(&mut self, scope: u32, limit: Limit) {
        self.set(scope, |scope| scope::add_limit(scope, limit));
        let scopes = &self.scopes;
        let of = |number: u32| {
            let scope = scopes[number as usize].get();
            (scope.rules[0], scope.limits[0])
        };
        self.sessions.iter_mut().for_each(|session| limits::meter(session, of));
    }

    /// Puts sessions to one place, at the port of the first; each shows its SenderCompID(49) and TargetCompID(56).
    pub fn share(&mut self, place: u32, sessions: &[(u32, [&str; 2])]) {
        for (session, comp_ids) in sessions {
            let mut ids = [0; 4];
            for (id, text) in ids.iter_mut().zip(comp_ids) {
                *id = self.comp_id(text);
            }
            self.identities.push((place, ids, *session));
        }
        let port = (FIRST_PORT + sessions[0].0 as u16).to_be();
        let word = Target::Shared { place, mask: 0b11 }.pack();
        self.endpoints.iter_mut().filter(|(_, endpoint, _)| endpoint.port == port).for_each(|known| known.2 = word);
    }

    /// The number of a CompID, declared now where it was not.
    pub fn comp_id(&mut self, text: &str) -> u32 {
        let byte = |at: usize| text.as_bytes().get(at).copied().unwrap_or_default();
        let packed: CompId = std::array::from_fn(|i| u64::from_le_bytes(std::array::from_fn(|j| byte(8 * i + j))));
        let at = self.comp_ids.iter().position(|known| *known == packed);
        if at.is_none() {
            self.comp_ids.push(packed);
        }
        identity::FIRST + at.unwrap_or(self.comp_ids.len() - 1) as u32
    }

    /// `breaker trip`.
    pub fn trip(&mut self, scope: u32, cause: u64) {
        let now = self.clock;
        self.set(scope, |scope| {
            scope.switch.causes |= cause;
            scope.switch.raised_ns = now;
            scope.switch.epoch += 1;
        });
    }

    /// `breaker reset`.
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
        let mut run = Run::new(self, key, connection.session, payload);
        let verdict = decide(&mut run, &mut connection, segment);
        let (tally, told) = (run.tally, run.told);
        self.events.extend(told);
        self.connections[place].1 = connection;
        if let Some(counters) = self.counters.get_mut(connection.session as usize) {
            counters.count(verdict, &tally);
        }
        Ok(verdict)
    }

    /// Takes note of a packet that comes in on a connection that is in the table.
    pub fn observe(&mut self, key: &ConnectionKey, segment: &Segment, payload: &[u8]) {
        assert_eq!(segment.length as usize, payload.len());
        let Some(number) = self.connection(key).map(|connection| connection.session) else { return };
        let place = self.inbound.iter().position(|(known, _)| known == key).unwrap_or_else(|| {
            let syn = segment.flags & SYN != 0;
            let stream = if syn { Stream::at(segment.seq.wrapping_add(1)) } else { Stream::joined(segment.seq) };
            self.inbound.push((*key, Inbound { stream }));
            self.inbound.len() - 1
        });
        let (session, mut inbound) = (self.sessions[number as usize], self.inbound[place].1);
        let mut run = Run::new(self, key, number, payload).incoming();
        decide::observe(&mut run, &session, &mut inbound.stream, segment);
        let (tally, told) = (run.tally, run.told);
        self.events.extend(told);
        self.inbound[place].1 = inbound;
        self.counters[number as usize].count_in(&tally);
    }

    /// breaker-ebpf's `connection::find`.
    fn find(&mut self, key: &ConnectionKey, segment: &Segment, payload: &[u8]) -> Result<usize, u32> {
        let looked_up = self.ports.contains(&key.remote_port);
        if looked_up && let Some(place) = self.connections.iter().position(|(known, _)| known == key) {
            let connection = &self.connections[place].1;
            if !connection.is_reused(segment) {
                if connection.session != Connection::IGNORED {
                    return Ok(place);
                }
                if segment.flags & (FIN | RST) != 0 {
                    self.connections[place].1.closed_ns = self.clock;
                }
                return Err(reason::NOT_OURS);
            }
            self.connections.remove(place);
            self.inbound.retain(|(known, _)| known != key);
        }
        let begins_like_fix = self.undeclared != undeclared::IGNORE && payload.starts_with(&SIGNATURE);
        if !looked_up && !begins_like_fix {
            return Err(reason::NOT_OURS);
        }
        let word = if looked_up { self.whose(key) } else { 0 };
        if segment.flags & RST != 0 && segment.length == 0 {
            return Err(if word == 0 { reason::NOT_OURS } else { reason::CONTROL });
        }
        let connection = match Target::unpack(word) {
            Target::Nobody if !begins_like_fix => return Err(reason::NOT_OURS),
            Target::Nobody => {
                let blocked = self.undeclared == undeclared::BLOCK;
                Connection::undeclared(segment.seq, if blocked { self.clock } else { 0 })
            }
            Target::Session(_) | Target::Shared { .. } => Connection::new(word, segment),
        };
        if self.connections.len() == self.most_connections {
            self.tell(kind::TABLE_FULL, connection.session, key);
            return Err(reason::TABLE_FULL);
        }
        if word == 0 {
            self.ports.push(key.remote_port);
            self.tell(kind::UNDECLARED, 0, key);
        }
        self.connections.push((*key, connection));
        Ok(self.connections.len() - 1)
    }

    fn tell(&mut self, kind: u32, session: u32, key: &ConnectionKey) {
        self.events.push(run::event(self.clock, kind, HOST, session, key));
    }

    fn whose(&self, key: &ConnectionKey) -> u32 {
        self.longest(key, key.local).or_else(|| self.longest(key, [0; 4])).unwrap_or(0)
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
        self.endpoints.iter().filter(matches).max_by_key(|(bits, ..)| *bits).map(|(_, _, word)| *word)
    }

    fn shared(&self, scope: u32) -> InMemory<'_> {
        InMemory { scope: &self.scopes[scope as usize], times: &self.times }
    }
}

impl<'a> Scopes for &'a Model {
    type Scope = InMemory<'a>;

    fn scope(&self, number: u32) -> Option<InMemory<'a>> {
        Some(self.shared(number))
    }
}
