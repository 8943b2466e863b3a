//! Random histories of three sessions in two groups.
//!
//! After a trip, no payload of an older connection ever passes again. No other connection is fenced.

use breaker_common::abi::{cause, reason};
use breaker_common::decide::{ACK, FIN, SYN, Segment, Verdict};
use breaker_common::message::LimitClass;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::messages::build;
use breaker_replay::model::{HOST, Model, key};

const SESSIONS: [&[u32]; 3] = [&[1], &[1, 2], &[2]];
const CONNECTIONS: usize = 6;
const SCOPES: u32 = 7;
const CAUSES: [u64; 4] = [cause::MANUAL, cause::DEADMAN, cause::FLEET, cause::RATE];

#[derive(Clone, Copy, Debug)]
enum Payload {
    /// A whole message of this type.
    Message(&'static str),
    /// The first bytes of an order. The next payload is the rest.
    Cut(usize),
    Garbage,
    /// The last payload again.
    Repeat,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Open,
    RepeatSyn,
    Send(Payload),
    Fin,
    Trip(u32, u64),
    Reset(u32),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let payload = prop_oneof![
        8 => select(&["D", "D", "G", "F", "H", "0", "A", "R", "U7"][..]).prop_map(Payload::Message),
        1 => (1..60usize).prop_map(Payload::Cut),
        1 => Just(Payload::Garbage),
        2 => Just(Payload::Repeat),
    ];
    let step = prop_oneof![
        6 => Just(Step::Open),
        2 => Just(Step::RepeatSyn),
        30 => payload.prop_map(Step::Send),
        1 => Just(Step::Fin),
        2 => (0..SCOPES, select(&CAUSES[..])).prop_map(|(scope, cause)| Step::Trip(scope, cause)),
        4 => (0..SCOPES).prop_map(Step::Reset),
        3 => (1..2_000_000_000u64).prop_map(Step::Wait),
    ];
    vec((0..CONNECTIONS, step), 1..250)
}

/// Expected state of a connection.
#[derive(Clone, Default)]
struct Line {
    /// Time of the SYN; 0 if the SYN was not seen.
    opened_at: usize,
    isn: u32,
    seq: u32,
    last: Vec<u8>,
    /// The rest of a cut message.
    rest: Vec<u8>,
    withheld: bool,
    /// True if all payloads were whole messages.
    whole: bool,
}

struct Machine {
    model: Model,
    lines: Vec<Line>,
    /// Time of the last trip or reset of each scope.
    changed: [usize; SCOPES as usize],
    now: usize,
}

impl Machine {
    fn new() -> Self {
        let mut model = Model::new(2, &SESSIONS);
        model.add_limit(model.scope_of(1), LimitClass::Order, 5, 1_000_000_000);
        model.add_limit(1, LimitClass::Message, 12, 500_000_000);
        model.add_limit(HOST, LimitClass::Order, 15, 1_000_000_000);
        let line = Line { seq: 1, ..Line::default() };
        Self { model, lines: vec![line; CONNECTIONS], changed: Default::default(), now: 0 }
    }

    fn session(connection: usize) -> u32 {
        (connection / 2) as u32 + 1
    }

    fn scopes(&self, connection: usize) -> Vec<u32> {
        let session = self.model.maps.sessions[Self::session(connection) as usize];
        session.scopes[..session.scope_count as usize].to_vec()
    }

    fn causes(&self, connection: usize) -> u64 {
        self.scopes(connection)
            .into_iter()
            .fold(0, |causes, scope| causes | self.model.scope(scope).switch.causes)
    }

    fn packet(&mut self, connection: usize, seq: u32, flags: u8, payload: &[u8]) -> Verdict {
        let segment = Segment { seq, length: payload.len() as u32, ack: 0, flags, ..Segment::default() };
        let before: Vec<_> = (0..SCOPES).map(|scope| self.model.scope(scope).switch).collect();
        let key = key(Self::session(connection), connection as u16);
        // Without payload the program creates no state.
        let verdict = match self.model.process(&key, &segment, payload) {
            Err(reason::CONTROL) => Verdict::Control,
            judged => judged.expect("a verdict"),
        };
        for (scope, before) in before.into_iter().enumerate() {
            let after = self.model.scope(scope as u32).switch;
            assert_eq!(after.causes & before.causes, before.causes, "no packet clears a cause");
            assert_eq!(
                after.epoch - before.epoch,
                (after.causes != before.causes) as u64,
                "each new cause raises the epoch"
            );
            if after != before {
                self.changed[scope] = self.now;
            }
        }
        verdict
    }

    fn step(&mut self, connection: usize, step: Step) {
        self.now += 1;
        let line = &mut self.lines[connection];
        match step {
            Step::Open => {
                let isn = self.now as u32 * 1_000_003;
                *line = Line {
                    opened_at: self.now,
                    isn,
                    seq: isn.wrapping_add(1),
                    whole: true,
                    ..Line::default()
                };
                self.syn(connection, isn);
            }
            Step::RepeatSyn if line.opened_at != 0 => {
                let isn = line.isn;
                self.syn(connection, isn);
            }
            Step::RepeatSyn => {}
            Step::Fin => {
                let seq = line.seq;
                assert_eq!(self.packet(connection, seq, FIN | ACK, &[]), Verdict::Control);
            }
            Step::Send(payload) => self.send(connection, payload),
            Step::Trip(scope, cause) => {
                self.model.trip(scope, cause);
                self.changed[scope as usize] = self.now;
            }
            Step::Reset(scope) => {
                self.model.reset(scope);
                self.changed[scope as usize] = self.now;
            }
            Step::Wait(ns) => self.model.maps.clock += ns,
        }
    }

    /// Sends a SYN. It passes unless three fenced connections within a minute have isolated the session.
    fn syn(&mut self, connection: usize, isn: u32) {
        let own = self.model.scope_of(Self::session(connection));
        let isolated = self.model.scope(own).fences.generation & 1 == 1;
        match self.packet(connection, isn, SYN, &[]) {
            Verdict::Control => {
                assert!(self.causes(connection) == 0 || !isolated || self.was_reset(connection))
            }
            Verdict::Isolated => {
                assert!(self.causes(connection) != 0 && isolated && !self.was_reset(connection))
            }
            other => panic!("{other:?} for a SYN"),
        }
    }

    /// Returns true if a scope of the session was reset since its isolation.
    fn was_reset(&self, connection: usize) -> bool {
        let own = self.model.scope_of(Self::session(connection));
        let resets = self
            .scopes(connection)
            .into_iter()
            .map(|scope| self.model.scope(scope).switch.resets)
            .sum::<u64>();
        self.model.scope(own).fences.generation >> 1 != resets
    }

    fn send(&mut self, connection: usize, payload: Payload) {
        let order = build("FIX.4.4", 1, "D", b"58=some text that makes it longer\x01");
        let line = &mut self.lines[connection];
        let mut bytes = std::mem::take(&mut line.rest);
        match payload {
            Payload::Message(msg_type) => bytes.extend(build("FIX.4.2", 1, msg_type, b"58=x\x01")),
            Payload::Cut(at) => {
                bytes.extend(&order[..at]);
                line.rest = order[at..].to_vec();
            }
            Payload::Garbage => bytes.extend(b"no message"),
            Payload::Repeat => bytes = line.last.clone(),
        }
        if bytes.is_empty() {
            return;
        }
        let repeated = matches!(payload, Payload::Repeat);
        if !repeated {
            line.whole &= matches!(payload, Payload::Message(_)) && bytes.starts_with(b"8=FIX");
            line.last = bytes.clone();
            line.seq = line.seq.wrapping_add(bytes.len() as u32);
        }
        let seq = line.seq.wrapping_sub(bytes.len() as u32);
        let causes = self.causes(connection);
        let stale = self
            .scopes(connection)
            .iter()
            .any(|scope| self.changed[*scope as usize] > self.lines[connection].opened_at);
        let fenced = stale || self.lines[connection].withheld;
        let verdict = self.packet(connection, seq, ACK, &bytes);
        let adds_risk = matches!(payload, Payload::Message("D" | "G" | "R" | "U7"));
        match verdict {
            Verdict::Fenced => assert!(fenced, "{connection} is as new as its scopes"),
            _ if fenced => panic!("{connection} is older than a trip or reset, but: {verdict:?}"),
            Verdict::Passed => {
                assert!(causes == 0 || repeated || !adds_risk, "{payload:?} passed while tripped")
            }
            Verdict::Tripped => {
                assert!(causes != 0 && !repeated);
                assert!(adds_risk || !self.lines[connection].whole, "{payload:?} adds no risk");
            }
            Verdict::Limit => assert!(self.causes(connection) & cause::RATE != 0),
            Verdict::Control
            | Verdict::Isolated
            | Verdict::Desync
            | Verdict::Ahead
            | Verdict::Foreign
            | Verdict::Fragmented
            | Verdict::Replay
            | Verdict::Deadman
            | Verdict::Undeclared
            | Verdict::Ignored
            | Verdict::Unconfigured => panic!("{verdict:?} for {payload:?}"),
        }
        self.lines[connection].withheld |= verdict.withheld();
    }
}

proptest! {
    #[test]
    fn no_payload_of_a_connection_older_than_a_trip_ever_passes_again(steps in steps()) {
        let mut machine = Machine::new();
        for (connection, step) in steps {
            machine.step(connection, step);
        }
    }
}
