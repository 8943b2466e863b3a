//! The environment of a decision, as the kernel program implements it.

use breaker_common::abi::{ConnectionKey, Event, Framing, Scope, Session, Switch, Target, Trip, cause, kind};
use breaker_common::class::{self, outbound_kind, session_class};
use breaker_common::counts::SegmentCounts;
use breaker_common::decide::{Env, HOST, ScopeHistory, Segment, SharedEndpointState, Switches};
use breaker_common::fix::MsgType;
use breaker_common::limits::{
    self, Attempt, Charge, LimitExceeded, PendingCharge, SharedScope, WarningRaised,
};
use breaker_common::message::Class;
use breaker_common::window::EXCEEDED;

use super::Model;
use super::walk::{Bytes, Walk};

/// The environment of one packet.
pub struct ModelEnv<'a> {
    model: &'a Model,
    key: &'a ConnectionKey,
    session: u32,
    payload: &'a [u8],
    inbound: bool,
    pending: PendingCharge,
    /// Counts of the segment.
    pub counts: SegmentCounts,
    /// Events of the packet.
    pub events: Vec<Event>,
}

/// Creates an event that is not about a limit.
pub fn event(at_ns: u64, kind: u32, scope: u32, session: u32, key: &ConnectionKey) -> Event {
    Event { at_ns, kind, scope, session, limit: 0, cause: 0, used: 0, connection: *key, level: 0 }
}

impl<'a> ModelEnv<'a> {
    /// Creates the environment of an outbound packet.
    pub fn new(model: &'a Model, key: &'a ConnectionKey, session: u32, payload: &'a [u8]) -> Self {
        let (pending, counts) = Default::default();
        Self { model, key, session, payload, inbound: false, pending, counts, events: Vec::new() }
    }

    /// Turns it into the environment of an inbound packet.
    pub fn inbound(self) -> Self {
        Self { inbound: true, ..self }
    }

    fn switch(&self, scope: u32) -> Switch {
        self.model.shared_scope(scope).switch()
    }

    fn event(&self, kind: u32, scope: u32) -> Event {
        event(self.model.clock, kind, scope, self.session, self.key)
    }
}

impl Charge for ModelEnv<'_> {
    fn try_charge(&mut self, session: &Session) -> Attempt {
        let model = self.model;
        limits::try_charge(&model, session, &mut self.pending, &self.counts, || model.clock)
    }

    fn find_exceeded(&mut self, session: &Session) -> Option<LimitExceeded> {
        let model = self.model;
        limits::find_exceeded(&model, session, &mut self.pending, &self.counts, || model.clock)
    }

    fn take_tickets(&mut self, session: &Session) -> u64 {
        limits::take_tickets(&self.model, session, &mut self.pending, &self.counts)
    }

    fn commit(&mut self, session: &Session, uncommitted: u64) -> Option<LimitExceeded> {
        let (model, pending, counts) = (self.model, self.pending, self.counts);
        let mut first = None;
        limits::for_each_uncommitted(uncommitted, |i, raced| {
            let limit_ref = &session.limit_refs[i];
            let on_warning = |WarningRaised { limit, used, level }| {
                let kind = if level == EXCEEDED { kind::WOULD_TRIP } else { kind::WARNED };
                self.events.push(Event {
                    limit,
                    used,
                    level: level as u32,
                    ..self.event(kind, limit_ref.scope)
                });
            };
            first = first.or(limits::commit(
                &model,
                (i, limit_ref, raced),
                (&pending, &counts),
                || model.clock,
                on_warning,
            ));
        });
        first
    }
}

impl Env for ModelEnv<'_> {
    type Session = Box<Session>;

    fn session(&mut self, number: u32) -> Option<Box<Session>> {
        self.session = number;
        self.model.sessions.get(number as usize).map(|session| Box::new(*session))
    }

    fn session_by_comp_ids(&mut self, endpoint: u32, comp_ids: [u32; 4]) -> u32 {
        let found = self.model.identities.iter().find(|known| (known.0, known.1) == (endpoint, comp_ids));
        found.map_or(0, |(_, _, session)| *session)
    }

    fn shared_endpoint_state(&mut self, target: u32) -> SharedEndpointState {
        let Target::Shared { endpoint, .. } = Target::unpack(target) else {
            panic!("{target} is no shared endpoint")
        };
        let mut state = SharedEndpointState::default();
        for (_, _, session) in self.model.identities.iter().filter(|known| known.0 == endpoint) {
            state.add_session(&self.model.sessions[*session as usize], |scope| Some(self.switch(scope)));
        }
        state
    }

    fn undeclared(&mut self) -> u32 {
        self.model.undeclared
    }

    fn history(&mut self, session: &Session) -> ScopeHistory {
        ScopeHistory::combined(session, |scope| Some(self.switch(scope)))
    }

    fn switches(&mut self, session: &Session) -> Switches {
        Switches::combined(session, |scope| {
            let switch = self.switch(scope);
            Some((switch.epoch, switch.causes))
        })
    }

    fn armed(&mut self, scope: u32) -> bool {
        self.model.shared_scope(scope).armed()
    }

    fn now(&mut self) -> u64 {
        self.model.clock
    }

    fn wire_segments(&mut self, _: &Segment) -> u32 {
        self.model.wire_segments
    }

    fn counts(&mut self) -> &mut SegmentCounts {
        &mut self.counts
    }

    fn walk(&mut self, framing: &mut Framing, bytes: (u32, u32), longest: u32, (any, orders): (u32, u32)) {
        let payload = Bytes(self.payload, &self.model.comp_ids);
        if self.inbound {
            let walk = Walk { longest, kind_of: class::inbound_kind, skips_common: false };
            return walk.segment(framing, payload, bytes, &mut self.counts);
        }
        let session = self.model.sessions[self.session as usize];
        let kind_of = |msg_type: MsgType| {
            let class: (Class, bool) = session_class(&session, msg_type);
            outbound_kind(msg_type, class, any, orders)
        };
        let skips_common = any | orders | session.override_count == 0;
        Walk { longest, kind_of, skips_common }.segment(framing, payload, bytes, &mut self.counts);
    }

    fn heartbeat_lost(&mut self, _: &Session) -> Option<bool> {
        let (after, trips) = self.model.deadman?;
        (self.model.clock - self.model.heartbeat > after).then_some(trips)
    }

    fn emit_heartbeat_lost(&mut self) {
        let host = &self.model.scopes[HOST as usize];
        let mut scope = host.get();
        if scope.heartbeat_reported != self.model.heartbeat + 1 {
            scope.heartbeat_reported = self.model.heartbeat + 1;
            host.set(scope);
            self.events.push(Event { cause: cause::DEADMAN, ..self.event(kind::HEARTBEAT_LOST, HOST) });
        }
    }

    fn record_fence(&mut self, scope: u32, raised: u64, resets: u64) {
        if limits::record_fence(&self.model.shared_scope(scope), self.model.clock, raised, resets) {
            self.events.push(self.event(kind::ISOLATED, scope));
        }
    }

    fn set_withheld_time(&mut self, scope: u32) {
        let cell = &self.model.scopes[scope as usize];
        cell.set(Scope { withheld_ns: self.model.clock, ..cell.get() });
    }

    fn is_isolated(&mut self, scope: u32, resets: u64) -> bool {
        limits::is_isolated(&self.model.shared_scope(scope), resets)
    }

    fn record_fills(&mut self, session: &Session, fills: u64) {
        limits::record_fills(&self.model, session, fills);
    }

    fn trip(&mut self, scope: u32, cause: u64, exceeded: LimitExceeded) {
        let LimitExceeded { limit, used, .. } = exceeded;
        let trip = Trip { at_ns: self.model.clock, cause, limit, session: self.session, used };
        if limits::trip(&self.model.shared_scope(scope), trip) {
            self.events.push(Event { limit, cause, used, ..self.event(kind::TRIPPED, scope) });
        }
    }

    fn emit(&mut self, kind: u32, scope: u32, count: u32) {
        self.events.push(Event { used: count as u64, ..self.event(kind, scope) });
    }
}
