//! The verdict on a segment (docs: "Tripped").

#[path = "../messages/mod.rs"]
mod messages;

mod blind;
mod charging;
mod connections;
mod fences;
mod fields;
mod identity;
mod inbound;
mod machine;
mod trips;

use breaker_common::abi::ConnectionKey;
use breaker_common::decide::{ACK, SYN, Segment, Verdict};

use breaker_replay::model::{Model, key};
use messages::build;

const SECOND: u64 = 1_000_000_000;
/// A MsgType of each class.
const TYPES: [&str; 5] = ["D", "F", "R", "H", "0"];
const GROUP: u32 = 1;

/// The sending end of a connection.
struct Line {
    key: ConnectionKey,
    seq: u32,
}

impl Line {
    /// Creates a connection without a seen SYN.
    fn joined(session: u32, port: u16) -> Self {
        Self { key: key(session, port), seq: 5000 }
    }

    /// Opens a connection. The port and the number of events give each SYN its own sequence number.
    fn open(model: &mut Model, session: u32, port: u16) -> Self {
        let mut line = Self::joined(session, port);
        line.seq = port as u32 * 100_000 + model.events().len() as u32;
        assert_eq!(line.control(model, SYN), Verdict::Control);
        line.seq += 1;
        assert_eq!(line.control(model, ACK), Verdict::Control);
        line
    }

    fn control(&self, model: &mut Model, flags: u8) -> Verdict {
        let segment = Segment { seq: self.seq, flags, ..Segment::default() };
        model.packet(&self.key, &segment, &[])
    }

    fn send(&mut self, model: &mut Model, payload: &[u8]) -> Verdict {
        let length = payload.len() as u32;
        let segment = Segment { seq: self.seq, length, flags: ACK, ..Segment::default() };
        self.seq += length;
        model.packet(&self.key, &segment, payload)
    }

    fn fix(&mut self, model: &mut Model, msg_type: &str) -> Verdict {
        self.send(model, &build("FIX.4.4", 1, msg_type, b"58=x\x01"))
    }
}

/// Returns a model with two sessions in one group and a third session in another group.
fn model() -> Model {
    Model::new(2, &[&[GROUP], &[GROUP], &[2]])
}

/// Returns the scopes of all events of a kind.
fn event_scopes(model: &Model, kind: u32) -> Vec<u32> {
    model.events().iter().filter(|event| event.kind == kind).map(|event| event.scope).collect()
}

/// Returns the session of a connection.
fn session_of(model: &Model, line: &Line) -> u32 {
    model.connection(&line.key).expect("a connection").session
}
