//! Sessions, limits and endpoints, as user space declares them.

use std::cell::{Cell, RefCell};

use breaker_common::abi::{CompId, Counters, Endpoint, Limit, Scope, Target, identity};
use breaker_common::limits;
use breaker_common::message::LimitClass;

use super::chunk::chunk;
use super::{FIRST_PORT, HOST, Model, policy, scope};

impl Model {
    /// Creates armed scopes without limits. `sessions[i]` lists the groups (`1..=groups`) of session `i + 1`.
    pub fn new(groups: u32, sessions: &[&[u32]]) -> Self {
        let count = sessions.len() as u32 + 1;
        let mut model = Self { groups, ..Self::default() };
        let scope = RefCell::new(Scope { armed: 1, ..Scope::default() });
        model.maps.scopes = vec![scope; (1 + groups + count) as usize];
        model.counters = vec![Counters::default(); count as usize];
        for (number, groups) in std::iter::once(&[][..]).chain(sessions.iter().copied()).enumerate() {
            model.declare(number as u32, groups);
        }
        model
    }

    fn declare(&mut self, number: u32, groups: &[u32]) {
        let listed: Vec<u32> =
            [self.scope_of(number)].into_iter().chain(groups.iter().copied()).chain([HOST]).collect();
        self.maps.sessions.push(policy::session(&listed));
        if number != 0 {
            let port = (FIRST_PORT + number as u16).to_be();
            let endpoint = Endpoint { port, pad: 0, local: [0; 4], remote: [0; 4] };
            self.maps.add_endpoint(Endpoint::FIXED_BITS, endpoint, number);
        }
    }

    /// Returns the number of a session's own scope.
    pub fn scope_of(&self, session: u32) -> u32 {
        1 + self.groups + session
    }

    /// Adds a limit to a scope.
    pub fn add_limit(&mut self, scope: u32, class: LimitClass, max: u64, per_ns: u64) {
        let limit = policy::limit(class, max, per_ns, self.maps.times.len() as u32);
        let layout = if per_ns == 0 { 0 } else { 1 << limit.ring.ring_bits };
        self.maps.times.resize(self.maps.times.len() + layout, Cell::new(0));
        self.put_limit(scope, limit);
    }

    /// Adds a ratio to a scope: `per_fill` orders for each fill, but at least `after`.
    pub fn add_ratio(&mut self, scope: u32, per_fill: u32, after: u64) {
        let limit = Limit { per_fill, ..policy::limit(LimitClass::Order, after, 0, 0) };
        self.put_limit(scope, limit);
    }

    fn put_limit(&mut self, scope: u32, limit: Limit) {
        self.set(scope, |scope| scope::add_limit(scope, limit));
        let scopes = &self.maps.scopes;
        let limits_of = |number: u32| {
            let scope = scopes[number as usize].borrow();
            (scope.rules[0], scope.limits[0])
        };
        self.maps.sessions.iter_mut().for_each(|session| limits::list_limits(session, limits_of));
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
            self.maps.identities.push((endpoint, ids, *session));
        }
        let port = (FIRST_PORT + sessions[0].0 as u16).to_be();
        self.maps.retarget(port, Target::Shared { endpoint, mask: 0b11 }.pack());
    }

    /// Returns the number of a CompID, and declares the CompID if necessary.
    pub fn comp_id(&mut self, text: &str) -> u32 {
        let packed: CompId = chunk(text.as_bytes());
        let known = &mut self.maps.comp_ids;
        let at = known.iter().position(|known| *known == packed);
        if at.is_none() {
            known.push(packed);
        }
        identity::FIRST + at.unwrap_or(known.len() - 1) as u32
    }
}
