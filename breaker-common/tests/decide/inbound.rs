//! Inbound messages: fills, rejects and ratios.

use breaker_common::abi::{Connection, cause, kind};
use breaker_common::decide::{ACK, Segment, Verdict};
use breaker_common::message::LimitClass;

use super::messages::build;
use super::{GROUP, Line, SECOND, event_scopes, model};
use breaker_replay::model::Model;

/// Receives a message on a connection.
fn receive(model: &mut Model, line: &Line, seq: &mut u32, msg_type: &str, fields: &[u8]) {
    let bytes = build("FIX.4.4", 1, msg_type, fields);
    let segment =
        Segment { seq: *seq, length: bytes.len() as u32, ack: line.seq, flags: ACK, ..Segment::default() };
    *seq += segment.length;
    model.observe(&line.key, &segment, &bytes);
}

#[test]
fn segments_of_a_blind_attacker_count_nothing() {
    let mut model = model();
    let mut line = Line::open(&mut model, 1, 1);
    assert_eq!(line.fix(&mut model, "D"), Verdict::Passed);
    let mut seq = 500;
    receive(&mut model, &line, &mut seq, "j", b"");
    let bytes = build("FIX.4.4", 1, "j", b"");
    let good = Segment { seq, length: bytes.len() as u32, ack: line.seq, flags: ACK, ..Segment::default() };
    for forged in [
        Segment { ack: line.seq + 100, ..good },
        Segment { ack: line.seq.wrapping_sub(2 << 20), ..good },
        Segment { flags: 0, ..good },
        Segment { seq: seq + (1 << 24), ..good },
        Segment { seq: seq.wrapping_sub(1 << 24), ..good },
    ] {
        model.observe(&line.key, &forged, &bytes);
        assert_eq!(
            (model.counters[1].inbound, model.counters[1].inbound_desyncs),
            ([0, 1, 0], 0),
            "{forged:?}"
        );
    }
    model.observe(&line.key, &good, &bytes);
    assert_eq!(model.counters[1].inbound, [0, 2, 0]);
}

#[test]
fn inbound_messages_are_counted_and_one_reject_too_many_trips() {
    let mut model = model();
    model.add_limit(GROUP, LimitClass::Reject, 2, 60 * SECOND);
    let mut line = Line::open(&mut model, 1, 1);
    let mut seq = 500;
    let reports: [(&str, &[u8]); 6] = [
        ("8", b"150=F\x0139=1\x01"),
        ("8", b"39=2\x01"),
        ("8", b"150=0\x0139=0\x01"),
        ("0", b""),
        ("j", b""),
        ("8", b"39=8\x01150=8\x01"),
    ];
    reports.iter().for_each(|(msg_type, fields)| receive(&mut model, &line, &mut seq, msg_type, fields));
    assert_eq!((model.counters[1].inbound, model.inbound.len()), ([2, 2, 2], 1));
    assert_eq!(line.fix(&mut model, "D"), Verdict::Passed);
    receive(&mut model, &line, &mut seq, "3", b"");
    assert_eq!((model.scope(GROUP).switch.causes, line.fix(&mut model, "D")), (cause::RATE, Verdict::Fenced));
    assert_eq!(model.connection(&line.key).map(|connection| connection.epoch), Some(Connection::FENCED));
}

#[test]
fn a_ratio_passes_its_first_orders_and_then_a_number_for_each_fill() {
    let mut model = model();
    let scope = model.scope_of(1);
    model.add_ratio(scope, 3, 4);
    let mut line = Line::open(&mut model, 1, 1);
    let mut seq = 500;
    assert_eq!([(); 4].map(|()| line.fix(&mut model, "D")), [Verdict::Passed; 4]);
    receive(&mut model, &line, &mut seq, "8", b"150=F\x0139=1\x01");
    receive(&mut model, &line, &mut seq, "8", b"150=F\x0139=1\x01");
    assert_eq!(
        [(); 3].map(|()| line.fix(&mut model, "D")),
        [Verdict::Passed, Verdict::Passed, Verdict::Limit]
    );
    model.reset(scope);
    let mut line = Line::open(&mut model, 1, 2);
    assert_eq!([(); 4].map(|()| line.fix(&mut model, "D")), [Verdict::Passed; 4]);
    assert_eq!(line.fix(&mut model, "D"), Verdict::Limit, "fills from before the reset are void");
}

#[test]
fn a_ratio_warns_by_shares_of_what_the_fills_allow() {
    let mut model = model();
    model.add_ratio(model.scope_of(1), 3, 4);
    let mut line = Line::open(&mut model, 1, 1);
    let mut seq = 500;
    (0..20).for_each(|_| receive(&mut model, &line, &mut seq, "8", b"150=F\x0139=1\x01"));
    for _ in 0..29 {
        assert_eq!(line.fix(&mut model, "D"), Verdict::Passed);
    }
    assert!(event_scopes(&model, kind::WARNED).is_empty());
    assert_eq!(line.fix(&mut model, "D"), Verdict::Passed);
    assert_eq!(event_scopes(&model, kind::WARNED).len(), 1, "half of 60");
}
