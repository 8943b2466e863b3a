//! The maps that user space fills, and the scopes, in memory.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use breaker_common::abi::{CompId, ConnectionKey, Endpoint, Scope, Session, Switch, flag, undeclared};
use breaker_common::limits::Scopes;

use super::scope::ScopeInMemory;

/// The maps of a policy, and a clock.
#[derive(Clone)]
pub struct Maps {
    /// Sessions by number; session 0 is `undeclared`.
    pub sessions: Vec<Session>,
    /// Scopes by number.
    pub scopes: Vec<RefCell<Scope>>,
    /// Rings of all limits.
    pub times: Vec<Cell<u64>>,
    /// Endpoints by port in network order: prefix length in bits, key, and packed
    /// [`breaker_common::abi::Target`].
    pub endpoints: HashMap<u16, Vec<(u32, Endpoint, u32)>>,
    /// Declared CompIDs by number, from [`breaker_common::abi::identity::FIRST`] on.
    pub comp_ids: Vec<CompId>,
    /// Sessions at shared endpoints: endpoint, numbers of the CompIDs, session.
    pub identities: Vec<(u32, [u32; 4], u32)>,
    /// Treatment of undeclared FIX flows: one of [`undeclared`].
    pub undeclared: u32,
    /// Time of the agent's last heartbeat, ns.
    pub heartbeat: u64,
    /// Maximum age of the heartbeat in ns, and true if its loss trips the host.
    pub deadman: Option<(u64, bool)>,
    /// CLOCK_MONOTONIC, ns.
    pub clock: u64,
    /// Wire segments per packet.
    pub wire_segments: u32,
    /// True if no scope trips, although sequencing is that of armed scopes.
    pub(super) unenforced: bool,
    /// One bit for each watched remote port, in host order.
    ports: Vec<u64>,
}

impl Default for Maps {
    fn default() -> Self {
        Self {
            sessions: Vec::new(),
            scopes: Vec::new(),
            times: Vec::new(),
            endpoints: HashMap::new(),
            comp_ids: Vec::new(),
            identities: Vec::new(),
            undeclared: undeclared::WATCH,
            heartbeat: 0,
            deadman: None,
            clock: 1_000_000_000,
            wire_segments: 1,
            unenforced: false,
            ports: vec![0; 1024],
        }
    }
}

impl Maps {
    /// Adds an endpoint with so many bits of its prefix, and watches its port.
    pub fn add_endpoint(&mut self, bits: u32, endpoint: Endpoint, target: u32) {
        self.watch_port(endpoint.port);
        self.endpoints.entry(endpoint.port).or_default().push((bits, endpoint, target));
    }

    /// Watches a remote port, in network order, from now on.
    pub fn watch_port(&mut self, port: u16) {
        let port = u16::from_be(port);
        self.ports[port as usize >> 6] |= 1 << (port & 63);
    }

    /// Returns true if connections to a remote port, in network order, are looked up.
    #[inline(always)]
    pub fn is_port_watched(&self, port: u16) -> bool {
        let port = u16::from_be(port);
        self.ports[port as usize >> 6] >> (port & 63) & 1 == 1
    }

    /// Returns the packed target of a connection's endpoint, or 0. An endpoint with the local address takes
    /// precedence over one with any local address.
    pub fn lookup_endpoint(&self, key: &ConnectionKey) -> u32 {
        self.longest_prefix(key, key.local).or_else(|| self.longest_prefix(key, [0; 4])).unwrap_or(0)
    }

    /// Returns the target with the longest matching prefix of the remote address.
    fn longest_prefix(&self, key: &ConnectionKey, local: [u32; 4]) -> Option<u32> {
        let remote = |address: [u32; 4]| {
            address.into_iter().fold(0u128, |all, word| all << 32 | u32::from_be(word) as u128)
        };
        let matches = |(bits, endpoint, _): &&(u32, Endpoint, u32)| {
            let differing = remote(endpoint.remote) ^ remote(key.remote);
            endpoint.local == local && differing.leading_zeros() >= bits - Endpoint::FIXED_BITS
        };
        let declared = self.endpoints.get(&key.remote_port)?;
        declared.iter().filter(matches).max_by_key(|(bits, ..)| *bits).map(|(_, _, target)| *target)
    }

    /// Lets everything pass: no scope trips, and exceeded limits are only events.
    pub(super) fn unenforce(&mut self) {
        self.unenforced = true;
        self.undeclared = undeclared::WATCH;
        for session in &mut self.sessions {
            session.flags = session.flags & !flag::DESYNC_TRIPS | flag::REPLAYS_PASS;
        }
        for scope in &mut self.scopes {
            let scope = scope.get_mut();
            (scope.armed, scope.switch, scope.withheld_ns) = (0, Switch::default(), 0);
            (scope.trip, scope.fences) = Default::default();
        }
    }

    /// Returns a scope.
    #[inline(always)]
    pub fn scope_in_memory(&self, number: u32) -> Option<ScopeInMemory<'_>> {
        let scope = self.scopes.get(number as usize)?;
        Some(ScopeInMemory { scope, times: &self.times })
    }

    /// Changes the target of every endpoint at a port, in network order.
    pub fn retarget(&mut self, port: u16, target: u32) {
        for endpoint in self.endpoints.get_mut(&port).into_iter().flatten() {
            endpoint.2 = target;
        }
    }
}

impl<'a> Scopes for &'a Maps {
    type Scope = ScopeInMemory<'a>;

    #[inline(always)]
    fn scope(&self, number: u32) -> Option<ScopeInMemory<'a>> {
        Maps::scope_in_memory(self, number)
    }
}
