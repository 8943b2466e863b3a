//! A packet under judgement: breaker-ebpf's `work`.

use breaker_common::abi::Framing;
use breaker_common::abi::{ConnectionKey, Event, Scope, Session, Target, Trip, cause, kind};
use breaker_common::class::{self};
use breaker_common::class::{outbound_kind, session_class};
use breaker_common::counts::SegmentCounts;
use breaker_common::decide::{Env, HOST, ScopeHistory, Segment, SharedEndpointState, Switches};
use breaker_common::fix::MsgType;
use breaker_common::limits::{
    self, Attempt, Charge, LimitExceeded, PendingCharge, SharedScope, WarningRaised,
};
use breaker_common::message::Class;
use breaker_common::window::EXCEEDED;

use super::Model;
use super::walk::{Bytes, walk};

/// See the module.
pub struct Run<'a> {
    model: &'a Model,
    key: &'a ConnectionKey,
    session: u32,
    payload: &'a [u8],
    incoming: bool,
    marks: PendingCharge,
    /// What the segment has brought.
    pub counts: SegmentCounts,
    /// The events that it led to.
    pub told: Vec<Event>,
}

/// An event with nothing to say of limits.
pub fn event(at_ns: u64, kind: u32, scope: u32, session: u32, key: &ConnectionKey) -> Event {
    Event { at_ns, kind, scope, session, limit: 0, cause: 0, used: 0, connection: *key, level: 0 }
}

impl<'a> Run<'a> {
    /// Nothing read, nothing told.
    pub fn new(model: &'a Model, key: &'a ConnectionKey, session: u32, payload: &'a [u8]) -> Self {
        let (marks, counts) = Default::default();
        Self { model, key, session, payload, incoming: false, marks, counts, told: Vec::new() }
    }

    /// Likewise, of a packet that comes in.
    pub fn inbound_kind(self) -> Self {
        Self { incoming: true, ..self }
    }

    fn event(&self, kind: u32, scope: u32) -> Event {
        event(self.model.clock, kind, scope, self.session, self.key)
    }
}

impl Charge for Run<'_> {
    fn try_charge(&mut self, session: &Session) -> Attempt {
        let model = self.model;
        limits::try_charge(&model, session, &mut self.marks, &self.counts, || model.clock)
    }

    fn find_exceeded(&mut self, session: &Session) -> Option<LimitExceeded> {
        let model = self.model;
        limits::find_exceeded(&model, session, &mut self.marks, &self.counts, || model.clock)
    }

    fn take_tickets(&mut self, session: &Session) -> u64 {
        limits::take_tickets(&self.model, session, &mut self.marks, &self.counts)
    }

    fn commit(&mut self, session: &Session, unsettled: u64) -> Option<LimitExceeded> {
        let (model, marks, counts) = (self.model, self.marks, self.counts);
        let mut first = None;
        limits::for_each_uncommitted(unsettled, |i, raced| {
            let meter = &session.limit_refs[i];
            let rose = |WarningRaised { limit, used, level }| {
                let kind = if level == EXCEEDED { kind::WOULD_TRIP } else { kind::WARNED };
                self.told.push(Event { limit, used, level: level as u32, ..self.event(kind, meter.scope) });
            };
            first =
                first.or(limits::commit(&model, (i, meter, raced), (&marks, &counts), || model.clock, rose));
        });
        first
    }
}

impl Env for Run<'_> {
    type Session = Box<Session>;

    fn session(&mut self, number: u32) -> Option<Box<Session>> {
        self.session = number;
        self.model.sessions.get(number as usize).map(|session| Box::new(*session))
    }

    fn session_by_comp_ids(&mut self, place: u32, ids: [u32; 4]) -> u32 {
        let found = self.model.identities.iter().find(|known| (known.0, known.1) == (place, ids));
        found.map_or(0, |(_, _, session)| *session)
    }

    fn shared_endpoint_state(&mut self, word: u32) -> SharedEndpointState {
        let Target::Shared { endpoint, .. } = Target::unpack(word) else {
            panic!("{word} is no shared endpoint")
        };
        let mut found = SharedEndpointState::default();
        for (_, _, session) in self.model.identities.iter().filter(|known| known.0 == endpoint) {
            let session = &self.model.sessions[*session as usize];
            for scope in &session.scopes[..session.scope_count as usize] {
                let switch = self.model.shared(*scope).switch();
                found.raised_ns = found.raised_ns.max(switch.raised_ns);
                found.causes |= switch.causes;
            }
        }
        found
    }

    fn undeclared(&mut self) -> u32 {
        self.model.undeclared
    }

    fn history(&mut self, session: &Session) -> ScopeHistory {
        let mut past = ScopeHistory { raised_ns: 0, resets: 0 };
        for scope in &session.scopes[..session.scope_count as usize] {
            let switch = self.model.shared(*scope).switch();
            past.raised_ns = past.raised_ns.max(switch.raised_ns);
            past.resets += switch.resets;
        }
        past
    }

    fn switches(&mut self, session: &Session) -> Switches {
        let mut sum = Switches { epoch: 0, causes: 0 };
        for scope in &session.scopes[..session.scope_count as usize] {
            let switch = self.model.shared(*scope).switch();
            sum.epoch += switch.epoch;
            sum.causes |= switch.causes;
        }
        sum
    }

    fn armed(&mut self, scope: u32) -> bool {
        self.model.shared(scope).armed()
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
        if self.incoming {
            return walk(framing, payload, bytes, longest, class::inbound_kind, false, &mut self.counts);
        }
        let session = self.model.sessions[self.session as usize];
        let kind_of = |msg_type: MsgType| {
            let class: (Class, bool) = session_class(&session, msg_type);
            outbound_kind(msg_type, class, any, orders)
        };
        let hops = any | orders | session.override_count == 0;
        walk(framing, payload, bytes, longest, kind_of, hops, &mut self.counts);
    }

    fn heartbeat_lost(&mut self, _: &Session) -> Option<bool> {
        let (after, trips) = self.model.deadman?;
        (self.model.clock - self.model.heartbeat > after).then_some(trips)
    }

    fn emit_heartbeat_lost(&mut self) {
        let told = &self.model.scopes[HOST as usize];
        let mut scope = told.get();
        if scope.heartbeat_reported != self.model.heartbeat + 1 {
            scope.heartbeat_reported = self.model.heartbeat + 1;
            told.set(scope);
            self.told.push(Event { cause: cause::DEADMAN, ..self.event(kind::HEARTBEAT_LOST, HOST) });
        }
    }

    fn record_fence(&mut self, scope: u32, raised: u64, resets: u64) {
        if limits::record_fence(&self.model.shared(scope), self.model.clock, raised, resets) {
            self.told.push(self.event(kind::ISOLATED, scope));
        }
    }

    fn set_withheld_time(&mut self, scope: u32) {
        let noted = &self.model.scopes[scope as usize];
        noted.set(Scope { withheld_ns: self.model.clock, ..noted.get() });
    }

    fn is_isolated(&mut self, scope: u32, resets: u64) -> bool {
        limits::is_isolated(&self.model.shared(scope), resets)
    }

    fn record_fills(&mut self, session: &Session, fills: u64) {
        limits::record_fills(&self.model, session, fills);
    }

    fn trip(&mut self, scope: u32, cause: u64, passed: LimitExceeded) {
        let LimitExceeded { limit, used, .. } = passed;
        let trip = Trip { at_ns: self.model.clock, cause, limit, session: self.session, used };
        if limits::trip(&self.model.shared(scope), trip) {
            self.told.push(Event { limit, cause, used, ..self.event(kind::TRIPPED, scope) });
        }
    }

    fn emit(&mut self, kind: u32, scope: u32, count: u32) {
        self.told.push(Event { used: count as u64, ..self.event(kind, scope) });
    }
}
