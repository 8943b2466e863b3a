//! breaker without a kernel: maps as vectors, packets as arguments. Around `decide` it does what breaker-ebpf does, in its order,
//! so that the two can be held against each other; and to the switches it does what the CLI does.

mod policy;
mod run;
mod scope;
mod walk;

use std::cell::Cell;

use breaker_common::abi::Inbound;
use breaker_common::abi::{
    CompId, Connection, ConnectionKey, Counters, Endpoint, Event, Limit, Scope, Session, Target, identity,
    kind, reason, undeclared,
};
use breaker_common::decide::{self, ACK, SYN, Segment, Verdict, decide};
use breaker_common::fix::SIGNATURE;
use breaker_common::limits::{self, Scopes};
use breaker_common::message::LimitClass;

use run::Run;
use scope::InMemory;

/// Remote port of session 0; that of the others is so much higher. At session 0's nobody has declared anything.
pub const FIRST_PORT: u16 = 9000;
/// The scope of everything.
pub const HOST: u32 = 0;

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Live,
    Transient,
}

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
    /// Open connections of declared sessions,
    pub connections: Vec<(ConnectionKey, Connection)>,
    /// and all others.
    pub transient: Vec<(ConnectionKey, Connection)>,
    /// How many open ones it may hold.
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
            transient: Vec::new(),
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
        let layout = if per_ns == 0 { 0 } else { 1 << limit.ring.ring_bits };
        self.times.resize(self.times.len() + layout, Cell::new(0));
        self.put_limit(scope, limit);
    }

    /// Gives a scope a ratio: so many orders for each fill, after the first few.
    pub fn add_ratio(&mut self, scope: u32, per_fill: u32, after: u64) {
        let limit = Limit { per_fill, ..policy::limit(LimitClass::Order, after, 0, 0) };
        self.put_limit(scope, limit);
    }

    fn put_limit(&mut self, scope: u32, limit: Limit) {
        self.set(scope, |scope| scope::add_limit(scope, limit));
        let scopes = &self.scopes;
        let of = |number: u32| {
            let scope = scopes[number as usize].get();
            (scope.rules[0], scope.limits[0])
        };
        self.sessions.iter_mut().for_each(|session| limits::list_limits(session, of));
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
        let word = Target::Shared { endpoint: place, mask: 0b11 }.pack();
        self.endpoints
            .iter_mut()
            .filter(|(_, endpoint, _)| endpoint.port == port)
            .for_each(|known| known.2 = word);
    }

    /// The number of a CompID, declared now where it was not.
    pub fn comp_id(&mut self, text: &str) -> u32 {
        let byte = |at: usize| text.as_bytes().get(at).copied().unwrap_or_default();
        let packed: CompId =
            std::array::from_fn(|i| u64::from_le_bytes(std::array::from_fn(|j| byte(8 * i + j))));
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

    /// The state of a connection, where it is in a table.
    pub fn connection(&self, key: &ConnectionKey) -> Option<&Connection> {
        let all = self.connections.iter().chain(&self.transient);
        all.into_iter().find(|(known, _)| known == key).map(|(_, connection)| connection)
    }

    fn slot(&mut self, table: Table, key: &ConnectionKey) -> Option<&mut Connection> {
        let entries = match table {
            Table::Live => &mut self.connections,
            Table::Transient => &mut self.transient,
        };
        entries.iter_mut().find(|(known, _)| known == key).map(|(_, connection)| connection)
    }

    fn put(&mut self, table: Table, key: &ConnectionKey, connection: Connection) {
        match (self.slot(table, key), table) {
            (Some(slot), _) => *slot = connection,
            (None, Table::Live) => self.connections.push((*key, connection)),
            (None, Table::Transient) => self.transient.push((*key, connection)),
        }
    }

    /// Judges a segment of a session's connection.
    pub fn packet(&mut self, key: &ConnectionKey, segment: &Segment, payload: &[u8]) -> Verdict {
        self.pass(key, segment, payload)
            .unwrap_or_else(|reason| panic!("not judged: {}", reason::NAMES[reason as usize]))
    }

    /// Judges a packet; `Err` is the reason why there was no verdict.
    pub fn pass(&mut self, key: &ConnectionKey, segment: &Segment, payload: &[u8]) -> Result<Verdict, u32> {
        assert_eq!(segment.length as usize, payload.len());
        let table = self.find(key, segment, payload)?;
        let mut connection = *self.slot(table, key).expect("it was found");
        let mut run = Run::new(self, key, connection.session, payload);
        let verdict = decide(&mut run, &mut connection, segment);
        let (counts, told) = (run.counts, run.told);
        self.events.extend(told);
        *self.slot(table, key).expect("it was found") = connection;
        // breaker-ebpf's `connection::retire`.
        let over = connection.closed_ns != 0 || connection.session == Connection::IGNORED;
        if over && table == Table::Live {
            self.connections.retain(|(known, _)| known != key);
            self.put(Table::Transient, key, connection);
        }
        if let Some(counters) = self.counters.get_mut(connection.session as usize) {
            counters.count(verdict, &counts);
        }
        Ok(verdict)
    }

    /// Takes note of a packet that comes in on a connection that is in the table.
    pub fn observe(&mut self, key: &ConnectionKey, segment: &Segment, payload: &[u8]) {
        assert_eq!(segment.length as usize, payload.len());
        let Some(connection) = self.connection(key).copied() else { return };
        let number = connection.session;
        let place = self.inbound.iter().position(|(known, _)| known == key).unwrap_or_else(|| {
            let syn = segment.flags & SYN != 0;
            let inbound =
                if syn { Inbound::at(segment.seq.wrapping_add(1)) } else { Inbound::joined(segment.seq) };
            self.inbound.push((*key, inbound));
            self.inbound.len() - 1
        });
        let (session, mut inbound) = (self.sessions[number as usize], self.inbound[place].1);
        let mut run = Run::new(self, key, number, payload).inbound_kind();
        decide::observe(&mut run, &session, &connection, &mut inbound, segment);
        let (counts, told) = (run.counts, run.told);
        self.events.extend(told);
        self.inbound[place].1 = inbound;
        self.counters[number as usize].count_inbound(&counts);
    }

    /// breaker-ebpf's `connection::find`.
    fn find(&mut self, key: &ConnectionKey, segment: &Segment, payload: &[u8]) -> Result<Table, u32> {
        let looked_up = self.ports.contains(&key.remote_port);
        let live = self.slot(Table::Live, key).is_some();
        if looked_up
            && live
            && segment.flags & SYN == 0
            && self.slot(Table::Live, key).is_some_and(|live| live.contested == 0)
        {
            return Ok(Table::Live);
        }
        let short = !payload.is_empty() && payload.len() < SIGNATURE.len() && SIGNATURE.starts_with(payload);
        let watched = self.undeclared != undeclared::IGNORE;
        let beginning = (watched && payload.starts_with(&SIGNATURE), watched && short);
        if !looked_up && beginning == (false, false) {
            return Err(reason::NOT_OURS);
        }
        let word = if looked_up { self.whose(key) } else { 0 };
        if segment.opens_connection() {
            return self.open(key, segment, word, beginning);
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
        if live { Ok(Table::Live) } else { self.join(key, segment, word, beginning) }
    }

    fn open(
        &mut self,
        key: &ConnectionKey,
        segment: &Segment,
        word: u32,
        beginning: (bool, bool),
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
        if word == 0 {
            return self.join(key, segment, word, beginning);
        }
        if self.slot(Table::Live, key).is_none() {
            self.inbound.retain(|(known, _)| known != key);
        }
        let connection = Connection::new(word, segment);
        if segment.length != 0 {
            return self.establish(key, connection);
        }
        self.put(Table::Transient, key, connection);
        Ok(Table::Transient)
    }

    fn establish(&mut self, key: &ConnectionKey, connection: Connection) -> Result<Table, u32> {
        if self.slot(Table::Live, key).is_none() && self.connections.len() == self.most_connections {
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
        word: u32,
        (whole, short): (bool, bool),
    ) -> Result<Table, u32> {
        if word != 0 {
            if segment.flags & (SYN | ACK) == SYN | ACK {
                self.put(Table::Transient, key, Connection::ignored());
                return Err(reason::NOT_OURS);
            }
            if segment.length == 0 {
                return Err(reason::CONTROL);
            }
            return self.establish(key, Connection::new(word, segment));
        }
        if !whole && !short {
            return Err(reason::NOT_OURS);
        }
        let blocked = if self.undeclared == undeclared::BLOCK { self.clock } else { 0 };
        let seq = segment.seq.wrapping_add(u32::from(segment.flags & SYN != 0));
        self.put(Table::Transient, key, Connection::undeclared(seq, blocked, whole));
        self.ports.push(key.remote_port);
        if whole {
            self.emit(kind::UNDECLARED, 0, key);
        }
        Ok(Table::Transient)
    }

    fn emit(&mut self, kind: u32, session: u32, key: &ConnectionKey) {
        self.events.push(run::event(self.clock, kind, HOST, session, key));
    }

    fn whose(&self, key: &ConnectionKey) -> u32 {
        self.longest(key, key.local).or_else(|| self.longest(key, [0; 4])).unwrap_or(0)
    }

    fn longest(&self, key: &ConnectionKey, local: [u32; 4]) -> Option<u32> {
        let remote = |address: [u32; 4]| {
            address.into_iter().fold(0u128, |all, word| all << 32 | u32::from_be(word) as u128)
        };
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
