//! The environment of a decision, as the kernel program implements it.

use breaker_common::abi::{ConnectionKey, Event, Framing, Session, Switch, Target, Trip, cause, kind};
use breaker_common::class::{self, outbound_kind, session_class};
use breaker_common::counts::SegmentCounts;
use breaker_common::decide::{Env, HOST, ScopeHistory, Segment, SharedEndpointState, Switches};
use breaker_common::fix::MsgType;
use breaker_common::limits::{
    self, Attempt, Charge, LimitExceeded, PendingCharge, SharedScope, WarningRaised,
};
use breaker_common::message::Class;
use breaker_common::window::EXCEEDED;

use super::maps::Maps;
use super::payload::Bytes;
use super::walk::Walk;

/// What a decision writes besides the maps.
#[derive(Clone, Default)]
pub struct Scratch {
    /// Counts of the segment.
    pub counts: SegmentCounts,
    /// Events, in their order. The caller takes them away.
    pub events: Vec<Event>,
    pending: PendingCharge,
}

/// The environment of one packet.
pub struct ModelEnv<'a> {
    maps: &'a Maps,
    scratch: &'a mut Scratch,
    key: &'a ConnectionKey,
    session: u32,
    payload: &'a [u8],
    inbound: bool,
}

/// Creates an event that is not about a limit.
pub fn event(at_ns: u64, kind: u32, scope: u32, session: u32, key: &ConnectionKey) -> Event {
    Event { at_ns, kind, scope, session, limit: 0, cause: 0, used: 0, connection: *key, level: 0 }
}

impl<'a> ModelEnv<'a> {
    /// Creates the environment of an outbound packet of a session.
    #[inline(always)]
    pub fn new(
        maps: &'a Maps,
        scratch: &'a mut Scratch,
        (key, session): (&'a ConnectionKey, u32),
        payload: &'a [u8],
    ) -> Self {
        scratch.counts = SegmentCounts::default();
        Self { maps, scratch, key, session, payload, inbound: false }
    }

    /// Turns it into the environment of an inbound packet.
    pub fn inbound(self) -> Self {
        Self { inbound: true, ..self }
    }

    #[inline(always)]
    fn switch(&self, scope: u32) -> Option<Switch> {
        Some(self.maps.scope_in_memory(scope)?.switch())
    }

    fn event(&self, kind: u32, scope: u32) -> Event {
        event(self.maps.clock, kind, scope, self.session, self.key)
    }
}

impl Charge for ModelEnv<'_> {
    fn try_charge(&mut self, session: &Session) -> Attempt {
        let (maps, Scratch { pending, counts, .. }) = (self.maps, &mut *self.scratch);
        limits::try_charge(&maps, session, pending, counts, || maps.clock)
    }

    fn find_exceeded(&mut self, session: &Session) -> Option<LimitExceeded> {
        let (maps, Scratch { pending, counts, .. }) = (self.maps, &mut *self.scratch);
        limits::find_exceeded(&maps, session, pending, counts, || maps.clock)
    }

    fn take_tickets(&mut self, session: &Session) -> u64 {
        let Scratch { pending, counts, .. } = &mut *self.scratch;
        limits::take_tickets(&self.maps, session, pending, counts)
    }

    fn commit(&mut self, session: &Session, uncommitted: u64) -> Option<LimitExceeded> {
        let (maps, pending, counts) = (self.maps, self.scratch.pending, self.scratch.counts);
        let mut first = None;
        limits::for_each_uncommitted(uncommitted, |i, raced| {
            let limit_ref = &session.limit_refs[i];
            let on_warning = |WarningRaised { limit, used, level }| {
                let kind = if level == EXCEEDED { kind::WOULD_TRIP } else { kind::WARNED };
                let event = self.event(kind, limit_ref.scope);
                self.scratch.events.push(Event { limit, used, level: level as u32, ..event });
            };
            first = first.or(limits::commit(
                &maps,
                (i, limit_ref, raced),
                (&pending, &counts),
                || maps.clock,
                on_warning,
            ));
        });
        first
    }
}

impl<'a> Env for ModelEnv<'a> {
    type Session = &'a Session;

    fn session(&mut self, number: u32) -> Option<&'a Session> {
        self.session = number;
        self.maps.sessions.get(number as usize)
    }

    fn session_by_comp_ids(&mut self, endpoint: u32, comp_ids: [u32; 4]) -> u32 {
        let found = self.maps.identities.iter().find(|known| (known.0, known.1) == (endpoint, comp_ids));
        found.map_or(0, |(_, _, session)| *session)
    }

    fn shared_endpoint_state(&mut self, target: u32) -> SharedEndpointState {
        let mut state = SharedEndpointState::default();
        let Target::Shared { endpoint, .. } = Target::unpack(target) else { return state };
        for (_, _, session) in self.maps.identities.iter().filter(|known| known.0 == endpoint) {
            if let Some(session) = self.maps.sessions.get(*session as usize) {
                state.add_session(session, |scope| self.switch(scope));
            }
        }
        state
    }

    fn undeclared(&mut self) -> u32 {
        self.maps.undeclared
    }

    fn history(&mut self, session: &Session) -> ScopeHistory {
        ScopeHistory::combined(session, |scope| self.switch(scope))
    }

    #[inline(always)]
    fn switches(&mut self, session: &Session) -> Switches {
        Switches::combined(session, |scope| {
            let scope = self.maps.scopes.get(scope as usize)?.borrow();
            Some((scope.switch.epoch, scope.switch.causes))
        })
    }

    fn armed(&mut self, scope: u32) -> bool {
        self.maps.unenforced || self.maps.scope_in_memory(scope).is_some_and(|scope| scope.armed())
    }

    fn now(&mut self) -> u64 {
        self.maps.clock
    }

    fn wire_segments(&mut self, _: &Segment) -> u32 {
        self.maps.wire_segments
    }

    fn counts(&mut self) -> &mut SegmentCounts {
        &mut self.scratch.counts
    }

    #[inline(always)]
    fn walk(&mut self, framing: &mut Framing, bytes: (u32, u32), longest: u32, (any, orders): (u32, u32)) {
        let (payload, counts) = (Bytes(self.payload, &self.maps.comp_ids), &mut self.scratch.counts);
        if self.inbound {
            let walk = Walk { longest, kind_of: class::inbound_kind, skips_common: false };
            return walk.segment(framing, payload, bytes, counts);
        }
        let Some(session) = self.maps.sessions.get(self.session as usize) else { return };
        let kind_of = |msg_type: MsgType| {
            let class: (Class, bool) = session_class(session, msg_type);
            outbound_kind(msg_type, class, any, orders)
        };
        let skips_common = any | orders | session.override_count == 0;
        Walk { longest, kind_of, skips_common }.segment(framing, payload, bytes, counts);
    }

    fn heartbeat_lost(&mut self, _: &Session) -> Option<bool> {
        let (after, trips) = self.maps.deadman?;
        (self.maps.clock - self.maps.heartbeat > after).then_some(trips)
    }

    fn emit_heartbeat_lost(&mut self) {
        let Some(host) = self.maps.scopes.get(HOST as usize) else { return };
        if host.borrow().heartbeat_reported != self.maps.heartbeat + 1 {
            host.borrow_mut().heartbeat_reported = self.maps.heartbeat + 1;
            let event = self.event(kind::HEARTBEAT_LOST, HOST);
            self.scratch.events.push(Event { cause: cause::DEADMAN, ..event });
        }
    }

    fn record_fence(&mut self, scope: u32, raised: u64, resets: u64) {
        let Some(shared) = self.maps.scope_in_memory(scope) else { return };
        if limits::record_fence(&shared, self.maps.clock, raised, resets) {
            self.emit(kind::ISOLATED, scope, 0);
        }
    }

    fn set_withheld_time(&mut self, scope: u32) {
        if let Some(scope) = self.maps.scopes.get(scope as usize) {
            scope.borrow_mut().withheld_ns = self.maps.clock;
        }
    }

    fn is_isolated(&mut self, scope: u32, resets: u64) -> bool {
        self.maps.scope_in_memory(scope).is_some_and(|scope| limits::is_isolated(&scope, resets))
    }

    fn record_fills(&mut self, session: &Session, fills: u64) {
        limits::record_fills(&self.maps, session, fills);
    }

    fn trip(&mut self, scope: u32, cause: u64, exceeded: LimitExceeded) {
        let LimitExceeded { limit, used, .. } = exceeded;
        let trip = Trip { at_ns: self.maps.clock, cause, limit, session: self.session, used };
        let Some(shared) = self.maps.scope_in_memory(scope) else { return };
        if limits::trip(&shared, trip) {
            let event = self.event(kind::TRIPPED, scope);
            self.scratch.events.push(Event { limit, cause, used, ..event });
        }
    }

    fn emit(&mut self, kind: u32, scope: u32, count: u32) {
        let event = self.event(kind, scope);
        self.scratch.events.push(Event { used: count as u64, ..event });
    }
}
