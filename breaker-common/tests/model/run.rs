//! A packet under judgement: breaker-ebpf's `work`.

use breaker_common::abi::{ConnectionKey, Event, SCOPES_PER_SESSION, Session, Trip, kind};
use breaker_common::decide::{Switches, World};
use breaker_common::limits::{self, Charge, Marks, Passed, Rise, SharedScope};
use breaker_common::stream::{Framing, Fresh, Tally, class_in};
use breaker_common::window::EXCEEDED;

use super::Model;
use super::walk::walk;

/// See the module.
pub struct Run<'a> {
    model: &'a Model,
    key: &'a ConnectionKey,
    session: u32,
    payload: &'a [u8],
    marks: [Marks; SCOPES_PER_SESSION],
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
        let marks = Default::default();
        Self { model, key, session, payload, marks, tally: Tally::default(), told: Vec::new() }
    }

    fn event(&self, kind: u32, scope: u32) -> Event {
        event(self.model.clock, kind, scope, self.session, self.key)
    }
}

impl Charge for Run<'_> {
    fn now(&mut self) -> u64 {
        self.model.clock
    }

    fn mark(&mut self, position: usize, scope: u32) {
        limits::mark(&self.model.shared(scope), &mut self.marks[position], &self.tally);
    }

    fn concerned(&self, position: usize) -> bool {
        self.marks[position].concerned != 0
    }

    fn look(&mut self, position: usize, scope: u32, now: u64) -> Option<Passed> {
        limits::look(&self.model.shared(scope), &mut self.marks[position], &self.tally, now)
    }

    fn take(&mut self, position: usize, scope: u32, now: u64) -> Option<Passed> {
        let (model, marks, tally) = (self.model, self.marks[position], self.tally);
        let rose = |Rise { limit, used, level }| {
            let kind = if level == EXCEEDED { kind::WOULD_TRIP } else { kind::WARNED };
            self.told.push(Event { limit, used, level: level as u32, ..self.event(kind, scope) });
        };
        limits::take(&model.shared(scope), &marks, &tally, now, || model.clock, rose)
    }
}

impl World for Run<'_> {
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

    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    fn walk(&mut self, session: &Session, framing: &mut Framing, fresh: &Fresh) {
        walk(framing, self.payload, fresh, |msg_type| class_in(session, msg_type), &mut self.tally);
    }

    fn trip(&mut self, scope: u32, cause: u64, passed: Passed) {
        let Passed { limit, used } = passed;
        let trip = Trip { at_ns: self.model.clock, cause, limit, session: self.session, used };
        if limits::trip(&self.model.shared(scope), trip) {
            self.told.push(Event { limit, cause, used, ..self.event(kind::TRIPPED, scope) });
        }
    }

    fn tell(&mut self, kind: u32, scope: u32) {
        self.told.push(self.event(kind, scope));
    }
}
