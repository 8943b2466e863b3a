//! Identity: the CompIDs of the first message.

use breaker_common::abi::{Connection, cause, kind, reason, undeclared};
use breaker_common::decide::{FIN, Segment, Verdict};

use super::messages::build;
use super::{Line, event_scopes, model, session_of};
use breaker_replay::model::Model;

const ENDPOINT: u32 = 7;

/// Returns a model with the sessions 1 and 2 at the port of session 1.
fn shared_endpoint() -> Model {
    let mut model = model();
    model.share(ENDPOINT, &[(1, ["FIRM", "ONE"]), (2, ["FIRM", "TWO"])]);
    model
}

fn logon(target: &str) -> Vec<u8> {
    build(
        "FIX.4.4",
        1,
        "A",
        format!("34=1\x0149=FIRM\x0152=20261122-09:30:00\x0156={target}\x0198=0\x01").as_bytes(),
    )
}

#[test]
fn the_first_message_identifies_the_session_at_any_cut() {
    for (target, session) in [("ONE", 1), ("TWO", 2)] {
        let bytes = logon(target);
        for cut in 1..bytes.len() {
            let mut model = shared_endpoint();
            let mut line = Line::open(&mut model, 1, 1);
            assert_eq!(line.send(&mut model, &bytes[..cut]), Verdict::Passed);
            assert_eq!(session_of(&model, &line), 0, "not identified yet");
            assert_eq!(line.send(&mut model, &bytes[cut..]), Verdict::Passed);
            assert_eq!(line.fix(&mut model, "D"), Verdict::Passed);
            assert_eq!(
                (session_of(&model, &line), model.counters[session as usize].passed[0]),
                (session, 1),
                "{cut}"
            );
        }
    }
}

#[test]
fn an_undeclared_logon_is_ignored_watched_or_blocked() {
    for (policy, first, then) in [
        (undeclared::IGNORE, Verdict::Ignored, None),
        (undeclared::WATCH, Verdict::Passed, Some(Verdict::Passed)),
        (undeclared::BLOCK, Verdict::Undeclared, Some(Verdict::Fenced)),
    ] {
        let mut model = shared_endpoint();
        model.maps.undeclared = policy;
        let mut line = Line::open(&mut model, 1, 1);
        assert_eq!(line.send(&mut model, &logon("THREE")), first);
        let watched = u64::from(policy == undeclared::WATCH);
        let order = build("FIX.4.4", 1, "D", b"");
        let segment = Segment { seq: line.seq, length: order.len() as u32, ..Segment::default() };
        assert_eq!(model.process(&line.key, &segment, &order).ok(), then);
        assert_eq!(model.counters[0].passed[0], watched);
        assert_eq!(event_scopes(&model, kind::UNDECLARED).len(), usize::from(policy != undeclared::IGNORE));
    }
}

#[test]
fn an_identified_connection_is_as_old_as_its_syn() {
    let mut model = shared_endpoint();
    let scope = model.scope_of(1);
    let [mut before, mut other] = [1, 2].map(|port| Line::open(&mut model, 1, port));
    model.maps.clock += 1;
    model.trip(scope, cause::MANUAL);
    model.reset(scope);
    model.maps.clock += 1;
    let mut after = Line::open(&mut model, 1, 3);
    assert_eq!(before.send(&mut model, &logon("ONE")), Verdict::Fenced);
    assert_eq!(other.send(&mut model, &logon("TWO")), Verdict::Passed, "another session's trip");
    assert_eq!(after.send(&mut model, &logon("ONE")), Verdict::Passed);
    let mut joined = Line::joined(1, 4);
    assert_eq!(joined.send(&mut model, &logon("ONE")), Verdict::Fenced, "its SYN was not seen");
}

#[test]
fn comp_ids_at_an_endpoint_of_its_own_are_compared_once() {
    for (target, mismatches) in [("ONE", 0), ("TWO", 1)] {
        let mut model = model();
        model.maps.sessions[1].comp_ids = [model.comp_id("FIRM"), model.comp_id("ONE"), 0, 0];
        let mut line = Line::open(&mut model, 1, 1);
        assert_eq!(line.send(&mut model, &logon(target)), Verdict::Passed);
        assert_eq!(line.send(&mut model, &logon("THREE")), Verdict::Passed);
        assert_eq!(event_scopes(&model, kind::MISMATCHED).len(), mismatches);
    }
}

#[test]
fn an_ignored_connection_takes_no_place_of_a_live_one() {
    let mut model = shared_endpoint();
    model.maps.undeclared = undeclared::IGNORE;
    let mut line = Line::open(&mut model, 1, 1);
    assert_eq!(line.send(&mut model, &logon("THREE")), Verdict::Ignored);
    assert_eq!((model.connections.len(), session_of(&model, &line)), (0, Connection::IGNORED));
    let fin = Segment { seq: line.seq, flags: FIN, ..Segment::default() };
    assert_eq!(model.process(&line.key, &fin, &[]), Err(reason::NOT_OURS));
}

#[test]
fn at_a_shared_endpoint_the_logon_of_an_isolated_session_is_withheld() {
    let mut model = shared_endpoint();
    model.trip(model.scope_of(1), cause::MANUAL);
    model.maps.clock += 1;
    for port in 1..=3 {
        let mut line = Line::open(&mut model, 1, port);
        assert_eq!(line.send(&mut model, &logon("ONE")), Verdict::Passed);
        assert_eq!(line.fix(&mut model, "D"), Verdict::Tripped);
    }
    let [mut own, mut other] = [4, 5].map(|port| Line::open(&mut model, 1, port));
    assert_eq!(own.send(&mut model, &logon("ONE")), Verdict::Tripped);
    assert_eq!(other.send(&mut model, &logon("TWO")), Verdict::Passed);
}
