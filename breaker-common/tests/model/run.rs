//! A packet under judgement: breaker-ebpf's `work`.

use breaker_common::abi::{ConnectionKey, Event, Scope, Session, Target, Trip, cause, kind};
use breaker_common::class::{self, Class};
use breaker_common::decide::{AtPlace, HOST, Past, Segment, Switches, World};
use breaker_common::fix::MsgType;
use breaker_common::limits::{self, Attempt, Charge, Marks, Passed, Rise, SharedScope};
use breaker_common::stream::{Framing, Tally, class_in, outgoing};
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
    marks: Marks,
    /// What the segment has brought.
    pub tally: Tally,
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
        let (marks, tally) = Default::default();
        Self { model, key, session, payload, incoming: false, marks, tally, told: Vec::new() }
    }

    /// Likewise, of a packet that comes in.
    pub fn incoming(self) -> Self {
        Self { incoming: true, ..self }
    }

    fn event(&self, kind: u32, scope: u32) -> Event {
        event(self.model.clock, kind, scope, self.session, self.key)
    }
}

impl Charge for Run<'_> {
    fn attempt(&mut self, session: &Session) -> Attempt {
        let model = self.model;
        limits::attempt(&model, session, &mut self.marks, &self.tally, || model.clock)
    }

    fn look(&mut self, session: &Session) -> Option<Passed> {
        let model = self.model;
        limits::look(&model, session, &mut self.marks, &self.tally, || model.clock)
    }

    fn take(&mut self, session: &Session) -> u64 {
        limits::take(&self.model, session, &mut self.marks, &self.tally)
    }

    fn settle(&mut self, session: &Session, unsettled: u64) -> Option<Passed> {
        let (model, marks, tally) = (self.model, self.marks, self.tally);
        let mut first = None;
        limits::each_unsettled(unsettled, |i, raced| {
            let meter = &session.meters[i];
            let rose = |Rise { limit, used, level }| {
                let kind = if level == EXCEEDED { kind::WOULD_TRIP } else { kind::WARNED };
                self.told.push(Event { limit, used, level: level as u32, ..self.event(kind, meter.scope) });
            };
            first = first.or(limits::settle(&model, (i, meter, raced), (&marks, &tally), || model.clock, rose));
        });
        first
    }
}

impl World for Run<'_> {
    type Session = Box<Session>;

    fn session(&mut self, number: u32) -> Option<Box<Session>> {
        self.session = number;
        self.model.sessions.get(number as usize).map(|session| Box::new(*session))
    }

    fn session_at(&mut self, place: u32, ids: [u32; 4]) -> u32 {
        let found = self.model.identities.iter().find(|known| (known.0, known.1) == (place, ids));
        found.map_or(0, |(_, _, session)| *session)
    }

    fn at_place(&mut self, word: u32) -> AtPlace {
        let Target::Shared { place, .. } = Target::unpack(word) else { panic!("{word} is no shared place") };
        let mut found = AtPlace::default();
        for (_, _, session) in self.model.identities.iter().filter(|known| known.0 == place) {
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

    fn past(&mut self, session: &Session) -> Past {
        let mut past = Past { raised_ns: 0, resets: 0 };
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

    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    fn walk(&mut self, framing: &mut Framing, bytes: (u32, u32), longest: u32, (any, orders): (u32, u32)) {
        let payload = Bytes(self.payload, &self.model.comp_ids);
        if self.incoming {
            return walk(framing, payload, bytes, longest, class::incoming, false, &mut self.tally);
        }
        let session = self.model.sessions[self.session as usize];
        let kind_of = |msg_type: MsgType| {
            let class: (Class, bool) = class_in(&session, msg_type);
            outgoing(msg_type, class, any, orders)
        };
        let hops = any | orders | session.override_count == 0;
        walk(framing, payload, bytes, longest, kind_of, hops, &mut self.tally);
    }

    fn silence(&mut self, _: &Session) -> Option<bool> {
        let (after, trips) = self.model.deadman?;
        (self.model.clock - self.model.heartbeat > after).then_some(trips)
    }

    fn tell_silence(&mut self) {
        let told = &self.model.scopes[HOST as usize];
        let mut scope = told.get();
        if scope.silent != self.model.heartbeat + 1 {
            scope.silent = self.model.heartbeat + 1;
            told.set(scope);
            self.told.push(Event { cause: cause::DEADMAN, ..self.event(kind::SILENT, HOST) });
        }
    }

    fn fence(&mut self, scope: u32, raised: u64, resets: u64) {
        if limits::fence(&self.model.shared(scope), self.model.clock, raised, resets) {
            self.told.push(self.event(kind::ISOLATED, scope));
        }
    }

    fn note_withheld(&mut self, scope: u32) {
        let noted = &self.model.scopes[scope as usize];
        noted.set(Scope { withheld_ns: self.model.clock, ..noted.get() });
    }

    fn isolated(&mut self, scope: u32, resets: u64) -> bool {
        limits::isolated(&self.model.shared(scope), resets)
    }

    fn fill(&mut self, session: &Session, fills: u64) {
        limits::fill(&self.model, session, fills);
    }

    fn trip(&mut self, scope: u32, cause: u64, passed: Passed) {
        let Passed { limit, used, .. } = passed;
        let trip = Trip { at_ns: self.model.clock, cause, limit, session: self.session, used };
        if limits::trip(&self.model.shared(scope), trip) {
            self.told.push(Event { limit, cause, used, ..self.event(kind::TRIPPED, scope) });
        }
    }

    fn tell(&mut self, kind: u32, scope: u32, count: u32) {
        self.told.push(Event { used: count as u64, ..self.event(kind, scope) });
    }
}
