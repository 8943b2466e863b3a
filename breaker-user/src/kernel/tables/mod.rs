//! A policy as the values of the kernel program's maps. Pure.
//!
//! A policy that replaces another one keeps the numbers of everything that both declare ([`Allocated`]). So
//! connections keep their session, and limits keep their window.

pub mod capacity;
pub mod limits;
pub mod numbers;
mod settings;

use std::collections::BTreeMap;

use anyhow::Result;
use breaker_common::abi::{self, CompId, Endpoint, IdentityKey, Label, Rules, Session, Target, identity};
use breaker_common::limits::list_limits;
use bytemuck::Zeroable;

use self::capacity::Capacity;
use self::limits::{RingAllocator, ScopeLimits};
use self::numbers::{Allocated, Numbers, SharedEndpoints};
use super::address::map_address;
use crate::config::{EndpointSessions, Policy, SessionIndex};

/// Values of all maps that user space fills, for one side.
pub struct Tables {
    /// The policy as a whole.
    pub policy: abi::Policy,
    /// Labels, by scope number.
    pub labels: Vec<Label>,
    /// Whether an exceeded limit trips, by scope number; `None` for a scope that the policy does not declare.
    pub armed: Vec<Option<bool>>,
    /// Limits, by scope number.
    pub rules: Vec<ScopeLimits>,
    /// Sessions, by number; without scopes if the policy does not declare them.
    pub sessions: Vec<Session>,
    /// Endpoints: key, length of the prefix in bits, and a packed [`Target`].
    pub endpoints: Vec<(Endpoint, u32, u32)>,
    /// Numbers of CompIDs and SubIDs.
    pub comp_ids: BTreeMap<CompId, u32>,
    /// Sessions of shared endpoints.
    pub identities: Vec<(IdentityKey, u32)>,
    /// Bits of the ports that have endpoints, in words of 64.
    pub ports: BTreeMap<u32, u64>,
    /// Slots of all rings.
    pub ring_slots: u32,
}

impl Tables {
    /// The tables of a policy. Numbers and rings that are allocated stay.
    pub fn new(policy: &Policy, allocated: Allocated) -> Result<Self> {
        let numbers = Numbers::assign(policy, &allocated)?;
        let mut tables = Self {
            policy: settings::policy(policy)?,
            armed: vec![None; numbers.labels.len()],
            rules: vec![(Rules::default(), Default::default()); numbers.labels.len()],
            sessions: vec![Session::zeroed(); numbers.session_count as usize],
            labels: numbers.labels.clone(),
            endpoints: Vec::new(),
            comp_ids: allocated.comp_ids,
            identities: Vec::new(),
            ports: BTreeMap::new(),
            ring_slots: 0,
        };
        (tables.policy.scopes, tables.policy.sessions) = (tables.labels.len() as u32, numbers.session_count);
        let mut rings = RingAllocator::new(allocated.rings);
        for scope in policy.scopes().iter() {
            let number = numbers.scope(scope) as usize;
            let before = allocated.rules.get(number).copied().unwrap_or_default();
            tables.armed[number] = Some(policy.armed(scope));
            tables.rules[number] = limits::lay_out(policy.limits(scope), before, &mut rings)?;
            if policy.armed(scope) {
                tables.rules[number].0.positions |= Rules::ARMED;
            }
        }
        tables.ring_slots = rings.end();
        for session in policy.scopes().sessions() {
            tables.sessions[numbers.session(session) as usize] = tables.session(policy, session, &numbers);
        }
        let mut shared = SharedEndpoints::new(allocated.shared_endpoints);
        for endpoint in policy.endpoints() {
            tables.add_endpoint(policy, &endpoint, &mut shared, &numbers);
        }
        Ok(tables)
    }

    /// Returns true if the policy declares the scope.
    pub fn declares(&self, scope: usize) -> bool {
        self.armed.get(scope).copied().flatten().is_some()
    }

    /// Returns true if the policy declares the session.
    pub fn declares_session(&self, session: u32) -> bool {
        self.sessions.get(session as usize).is_some_and(|found| found.scope_count != 0)
    }

    fn session(&mut self, policy: &Policy, index: SessionIndex, numbers: &Numbers) -> Session {
        let mut made = settings::session(policy, index);
        let scopes = policy.scopes_of(index);
        made.scope_count = scopes.len() as u32;
        for (slot, scope) in made.scopes.iter_mut().zip(scopes) {
            *slot = numbers.scope(scope);
        }
        // Anybody can send undeclared traffic. It counts for the host's limits only if the file says so.
        if policy.session(index).is_some() || policy.host().undeclared_trips {
            list_limits(&mut made, |scope| self.rules[scope as usize]);
        }
        made.comp_ids = self.comp_ids_of(policy, index);
        made
    }

    /// The numbers of a session's CompIDs and SubIDs; 0 for any.
    fn comp_ids_of(&mut self, policy: &Policy, index: SessionIndex) -> [u32; 4] {
        let Some(session) = policy.session(index) else { return [0; 4] };
        session.comp_ids().map(|id| id.map_or(0, |id| numbers::comp_id(&mut self.comp_ids, id)))
    }

    /// Adds an endpoint and its port, and the sessions of a shared endpoint.
    fn add_endpoint(
        &mut self,
        policy: &Policy,
        declared: &EndpointSessions,
        shared: &mut SharedEndpoints,
        numbers: &Numbers,
    ) {
        let prefix = declared.remote.prefix();
        let mapped_bits = if prefix.address().is_ipv4() { 96 } else { 0 };
        let bits = Endpoint::FIXED_BITS + mapped_bits + prefix.length() as u32;
        let port = declared.remote.port();
        let key = Endpoint {
            port: port.to_be(),
            pad: 0,
            local: declared.local.map_or([0; 4], map_address),
            remote: map_address(prefix.address()),
        };
        let target = match declared.sessions[..] {
            [one] => Target::Session(numbers.session(one)),
            _ => {
                let endpoint = shared.number(key, bits);
                let mask = self.add_identities(policy, endpoint, &declared.sessions, numbers);
                Target::Shared { endpoint, mask }
            }
        };
        // An entry with port 0, for packets whose port cannot be found.
        let any_port = (Endpoint { port: 0, local: [0; 4], ..key }, bits, Target::Session(1).pack());
        if !self.endpoints.contains(&any_port) {
            self.endpoints.push(any_port);
        }
        *self.ports.entry(port as u32 / 64).or_default() |= 1u64 << (port % 64);
        self.endpoints.push((key, bits, target.pack()));
    }

    /// Adds the sessions of a shared endpoint. Returns the mask of the CompIDs and SubIDs that tell them
    /// apart.
    fn add_identities(
        &mut self,
        policy: &Policy,
        endpoint: u32,
        sessions: &[SessionIndex],
        numbers: &Numbers,
    ) -> u32 {
        let mut mask = 0;
        for index in sessions.iter().filter(|index| policy.session(**index).is_some()) {
            let comp_ids = self.comp_ids_of(policy, *index);
            mask = (0..comp_ids.len()).filter(|&i| comp_ids[i] != 0).fold(0, |mask, i| mask | 1 << i);
            self.identities.push((IdentityKey { endpoint, comp_ids }, numbers.session(*index)));
        }
        for (position, index) in sessions.iter().enumerate() {
            let comp_ids = [identity::LISTED, position as u32, 0, 0];
            self.identities.push((IdentityKey { endpoint, comp_ids }, numbers.session(*index)));
        }
        mask
    }

    /// The entries that the maps are made with: more than this policy needs, so that a reload can add
    /// sessions.
    pub fn capacity(&self) -> Capacity {
        let with_reserve = |count: usize| (count + count / 2 + 32) as u32;
        Capacity {
            scopes: with_reserve(self.labels.len()),
            sessions: with_reserve(self.sessions.len()),
            // An added session takes two entries: its endpoint, and its address with port 0.
            endpoints: with_reserve(self.endpoints.len()) + 32,
            identities: with_reserve(self.identities.len()),
            comp_ids: with_reserve(self.comp_ids.len()),
            // If every limit changes its window, the rings of both policies are in use for a moment.
            ring_slots: self.ring_slots.saturating_mul(2).saturating_add(65_536),
        }
    }
}
