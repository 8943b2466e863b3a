//! Connections: their start, their end, and connections of no session.

use breaker_common::abi::{Connection, cause, flag, reason, undeclared};
use breaker_common::decide::{ACK, FIN, RST, SYN, Segment, Verdict};
use breaker_common::message::LimitClass;

use super::messages::build;
use super::{Line, SECOND, model, session_of};
use breaker_replay::model::{HOST, key};

#[test]
fn a_first_fragment_is_withheld_and_leaves_its_connection_alive() {
    let mut model = model();
    let mut line = Line::open(&mut model, 1, 1);
    let bytes = build("FIX.4.4", 1, "D", b"");
    for length in [0, bytes.len()] {
        let segment = Segment { seq: line.seq, length: length as u32, fragment: true, ..Segment::default() };
        assert_eq!(model.packet(&line.key, &segment, &bytes[..length]), Verdict::Fragmented);
    }
    assert_eq!(line.send(&mut model, &bytes), Verdict::Passed);
}

#[test]
fn a_second_syn_replaces_the_connection_once_it_is_answered() {
    let mut model = model();
    let mut first = Line::open(&mut model, 1, 1);
    assert_eq!(first.fix(&mut model, "D"), Verdict::Passed);
    // Without an answer, the first connection stays alive.
    let mut second = Line { key: first.key, seq: 900_000 };
    assert_eq!(second.control(&mut model, SYN), Verdict::Control);
    assert_eq!((first.fix(&mut model, "D"), model.counters[1].passed[0]), (Verdict::Passed, 2));
    // After the answer, queued segments of the first connection belong to another connection.
    second.seq += 1;
    assert_eq!(second.control(&mut model, ACK), Verdict::Control);
    assert_eq!(second.fix(&mut model, "D"), Verdict::Passed);
    assert_eq!(first.fix(&mut model, "D"), Verdict::Foreign);
    assert_eq!((second.fix(&mut model, "D"), model.counters[1].passed[0]), (Verdict::Passed, 4));
}

#[test]
fn a_connection_opened_by_the_peer_belongs_to_no_session() {
    let mut model = model();
    model.maps.sessions[1].flags = flag::DESYNC_TRIPS;
    let answer = Segment { seq: 7, flags: SYN | ACK, ..Segment::default() };
    assert_eq!(model.process(&key(1, 22), &answer, &[]), Err(reason::NOT_OURS));
    let banner = Segment { seq: 8, length: 7, flags: ACK, ..Segment::default() };
    assert_eq!(model.process(&key(1, 22), &banner, b"SSH-2.0"), Err(reason::NOT_OURS));
    assert_eq!((model.connections.len(), model.scope(model.scope_of(1)).switch.causes), (0, 0));
}

#[test]
fn unanswered_and_closed_connections_take_no_place_of_a_live_one() {
    let mut model = model();
    model.max_connections = 1;
    for port in 1..=50 {
        let refused = Line { key: key(1, port), seq: 1000 };
        assert_eq!(refused.control(&mut model, SYN), Verdict::Control);
    }
    for port in 51..=60 {
        let mut line = Line::open(&mut model, 1, port);
        assert_eq!(line.fix(&mut model, "D"), Verdict::Passed);
        assert_eq!(line.control(&mut model, FIN | ACK), Verdict::Control);
    }
    let mut live = Line::open(&mut model, 1, 61);
    assert_eq!(live.fix(&mut model, "D"), Verdict::Passed);
    assert_eq!(model.connections.len(), 1);
}

#[test]
fn a_connection_joined_in_mid_stream_lives_where_nothing_ever_tripped() {
    let mut model = model();
    let mut line = Line::joined(1, 1);
    assert_eq!(line.send(&mut model, b"the end of a message\x01"), Verdict::Passed);
    assert_eq!(line.fix(&mut model, "D"), Verdict::Passed);
    assert_eq!(
        (model.counters[1].passed[0], model.counters[1].desyncs),
        (2, 0),
        "one order for the unread bytes"
    );
    model.trip(2, cause::MANUAL);
    assert_eq!(line.fix(&mut model, "D"), Verdict::Passed, "another group");
    assert_eq!(Line::joined(3, 1).fix(&mut model, "0"), Verdict::Fenced);
    model.reset(2);
    assert_eq!(Line::joined(3, 2).fix(&mut model, "0"), Verdict::Fenced);
    assert_eq!(model.connection(&key(3, 2)).map(|connection| connection.epoch), Some(Connection::FENCED));
    // A reload declares the session later, so the connection is newer than the trip.
    model.maps.clock += 1;
    model.maps.sessions[3].declared_ns = model.maps.clock;
    assert_eq!(Line::joined(3, 3).fix(&mut model, "0"), Verdict::Passed);
}

#[test]
fn segments_without_payload_always_pass() {
    let mut model = model();
    let mut line = Line::open(&mut model, 1, 1);
    model.trip(HOST, cause::MANUAL);
    assert_eq!(line.fix(&mut model, "D"), Verdict::Fenced);
    for flags in [0, FIN, RST, FIN | 0x10, SYN] {
        assert_eq!(line.control(&mut model, flags), Verdict::Control, "{flags:#x}");
    }
    assert_eq!(model.counters[1].packets_passed, 0);
    let refusal = Segment { flags: RST, ..Segment::default() };
    assert_eq!(model.process(&key(1, 9), &refusal, &[]), Err(reason::CONTROL));
    assert_eq!(model.connection(&key(1, 9)), None, "a refusal takes no room");
}

#[test]
fn the_payload_of_a_syn_is_the_first_of_its_stream() {
    let mut model = model();
    let order = build("FIX.4.4", 1, "D", b"");
    let syn = Segment { seq: u32::MAX - 3, length: 40, flags: SYN, ..Segment::default() };
    let mut line = Line::joined(1, 1);
    let stream = [order.clone(), order.clone()].concat();
    assert_eq!(model.packet(&line.key, &syn, &stream[..40]), Verdict::Passed);
    line.seq = (u32::MAX - 3).wrapping_add(41);
    assert_eq!(line.send(&mut model, &stream[40..]), Verdict::Passed);
    assert_eq!((model.counters[1].passed[0], model.counters[1].desyncs), (2, 0));
}

#[test]
fn fix_that_no_session_declares_is_ignored_watched_or_blocked() {
    for (policy, verdict) in [
        (undeclared::IGNORE, Err(reason::NOT_OURS)),
        (undeclared::WATCH, Ok(Verdict::Passed)),
        (undeclared::BLOCK, Ok(Verdict::Fenced)),
    ] {
        let mut model = model();
        model.maps.undeclared = policy;
        model.add_limit(HOST, LimitClass::Order, 100, SECOND);
        let order = build("FIX.4.4", 1, "D", b"");
        let segment = Segment { seq: 1, length: order.len() as u32, ..Segment::default() };
        assert_eq!(model.process(&key(0, 1), &segment, &order), verdict);
        let watched = policy == undeclared::WATCH;
        assert_eq!(
            (model.counters[0].passed[0], model.scope(HOST).windows[0].issued),
            (watched as u64, watched as u64)
        );
        // While the host is tripped, bytes that resemble FIX are withheld like an order.
        model.trip(HOST, cause::MANUAL);
        let odd = b"8=FIX.9.9\x01";
        let segment = Segment { seq: 1, length: odd.len() as u32, ..Segment::default() };
        let expected = if watched { Ok(Verdict::Tripped) } else { verdict };
        assert_eq!(model.process(&key(0, 3), &segment, odd), expected);
        // Other protocols are ignored.
        let other = Segment { seq: 1, length: 16, ..Segment::default() };
        assert_eq!(model.process(&key(0, 2), &other, b"GET / HTTP/1.1\r\n"), Err(reason::NOT_OURS));
    }
}

#[test]
fn a_blocked_flow_stays_blocked_when_its_ports_are_used_again() {
    let mut model = model();
    model.maps.undeclared = undeclared::BLOCK;
    let order = build("FIX.4.4", 1, "D", b"");
    let segment = Segment { seq: 1, length: order.len() as u32, ..Segment::default() };
    assert_eq!(model.process(&key(0, 1), &segment, &order), Ok(Verdict::Fenced));
    let syn = Segment { seq: 9, flags: SYN, ..Segment::default() };
    assert_eq!(model.process(&key(0, 1), &syn, &[]), Err(reason::NOT_OURS));
    let again = Segment { seq: 10, ..segment };
    assert_eq!(model.process(&key(0, 1), &again, &order), Ok(Verdict::Fenced));
}

#[test]
fn a_session_that_is_no_longer_declared_leaves_fenced_connections_fenced() {
    let mut model = model();
    let [mut fenced, mut live] = [1, 2].map(|port| Line::open(&mut model, 1, port));
    assert_eq!(live.fix(&mut model, "D"), Verdict::Passed);
    model.connections.get_mut(&fenced.key).expect("a connection").epoch = Connection::FENCED;
    model.maps.sessions[1].scope_count = 0;
    assert_eq!((fenced.fix(&mut model, "0"), live.fix(&mut model, "D")), (Verdict::Fenced, Verdict::Passed));
    assert_eq!((session_of(&model, &live), model.counters[0].passed[0]), (0, 1), "undeclared from then on");
}

#[test]
fn segments_of_an_opaque_session_wait_for_a_gap_and_all_count() {
    let mut model = model();
    model.maps.sessions[1].flags = flag::OPAQUE | flag::DESYNC_TRIPS;
    let line = Line::open(&mut model, 1, 1);
    for (ahead, verdict) in
        [(0, Verdict::Passed), (200, Verdict::Ahead), (100, Verdict::Passed), (200, Verdict::Passed)]
    {
        let segment = Segment { seq: line.seq + ahead, length: 100, ..Segment::default() };
        assert_eq!(model.packet(&line.key, &segment, &[0x17; 100]), verdict, "{ahead} bytes ahead");
    }
    assert_eq!((model.counters[1].passed[0], model.counters[1].desyncs), (3, 0));
}
