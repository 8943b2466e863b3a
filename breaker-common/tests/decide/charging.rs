//! The charge of messages to limits, and the resulting trips.

use breaker_common::abi::{LimitRef, Override, RingLayout, cause, flag, kind};
use breaker_common::counts::SegmentCounts;
use breaker_common::decide::{Segment, Verdict};
use breaker_common::fix::MsgType;
use breaker_common::message::{Class, LimitClass};

use super::{GROUP, Line, SECOND, event_scopes, model};
use breaker_replay::model::HOST;

#[test]
fn the_message_beyond_a_limit_trips_its_scope_and_is_charged_to_none() {
    let mut model = model();
    let own = model.scope_of(1);
    model.add_limit(own, LimitClass::Order, 2, SECOND);
    model.add_limit(GROUP, LimitClass::Message, 100, SECOND);
    model.add_limit(HOST, LimitClass::Order, 100, SECOND);
    let mut line = Line::open(&mut model, 1, 1);
    let mut other = Line::open(&mut model, 2, 1);
    assert_eq!(
        [(); 3].map(|()| line.fix(&mut model, "D")),
        [Verdict::Passed, Verdict::Passed, Verdict::Limit]
    );
    assert_eq!([own, GROUP, HOST].map(|scope| model.scope(scope).windows[0].issued), [2, 2, 2]);
    assert_eq!([own, GROUP, HOST].map(|scope| model.scope(scope).switch.causes), [cause::RATE, 0, 0]);
    assert_eq!((line.fix(&mut model, "0"), other.fix(&mut model, "D")), (Verdict::Fenced, Verdict::Passed));
    let trip = model.scope(own).trip;
    assert_eq!(
        (trip.cause, trip.limit, trip.session, trip.used, trip.at_ns),
        (cause::RATE, 0, 1, 3, model.maps.clock)
    );
    assert_eq!(
        (event_scopes(&model, kind::TRIPPED), event_scopes(&model, kind::FENCED)),
        (vec![own], vec![own])
    );
    // The reset empties the windows of this scope only.
    model.reset(own);
    let mut line = Line::open(&mut model, 1, 2);
    assert_eq!(
        [(); 3].map(|()| line.fix(&mut model, "D")),
        [Verdict::Passed, Verdict::Passed, Verdict::Limit]
    );
    assert_eq!(model.scope(HOST).windows[0].issued, 5);
}

#[test]
fn a_session_lists_the_limits_of_its_scopes_in_the_order_of_the_scopes() {
    let mut model = model();
    let own = model.scope_of(1);
    model.add_limit(HOST, LimitClass::Fill, 9, SECOND);
    model.add_limit(own, LimitClass::Cancel, 2, SECOND);
    model.add_limit(own, LimitClass::Message, 3, 0);
    model.add_limit(GROUP, LimitClass::Reject, 4, SECOND);
    let limit_refs =
        model.maps.sessions[1].limit_refs.iter().take_while(|limit_ref| limit_ref.counter != LimitRef::END);
    let listed: Vec<_> = limit_refs.map(|limit_ref| (limit_ref.scope, limit_ref.position)).collect();
    assert_eq!(listed, [(own, 0), (own, 1), (GROUP, 0), (HOST, 0)]);
    // A segment with two messages of each class, so with ten outbound messages in total.
    let mut counts = SegmentCounts { messages: [2; 10], ..SegmentCounts::default() };
    counts.store_total();
    let counted: Vec<_> = model.maps.sessions[1]
        .limit_refs
        .iter()
        .map_while(|limit_ref| counts.for_counter(limit_ref.counter))
        .collect();
    assert_eq!(counted, [2, 10, 2, 2]);
    assert_eq!(model.maps.sessions[1].limit_refs[1].ring, RingLayout::NONE, "a total keeps no times");
    assert_eq!(model.maps.sessions[2].limit_refs.map(|limit_ref| limit_ref.scope)[..3], [GROUP, HOST, 0]);
}

#[test]
fn a_limit_of_a_group_is_shared_and_the_trip_is_the_groups() {
    let mut model = model();
    model.add_limit(GROUP, LimitClass::Order, 3, SECOND);
    let [mut first, mut second, mut other] = [1, 2, 3].map(|session| Line::open(&mut model, session, 1));
    assert_eq!([(); 2].map(|()| first.fix(&mut model, "D")), [Verdict::Passed; 2]);
    assert_eq!([(); 2].map(|()| second.fix(&mut model, "D")), [Verdict::Passed, Verdict::Limit]);
    assert_eq!((first.fix(&mut model, "0"), other.fix(&mut model, "D")), (Verdict::Fenced, Verdict::Passed));
}

#[test]
fn a_disarmed_scope_withholds_nothing_and_reports_that_it_would_trip() {
    let mut model = model();
    let scope = model.scope_of(1);
    model.add_limit(scope, LimitClass::Order, 2, SECOND);
    model.set(scope, |scope| scope.armed = 0);
    let mut line = Line::open(&mut model, 1, 1);
    for _ in 0..10 {
        assert_eq!(line.fix(&mut model, "D"), Verdict::Passed);
    }
    assert_eq!(
        (event_scopes(&model, kind::WOULD_TRIP), event_scopes(&model, kind::TRIPPED)),
        (vec![scope], vec![])
    );
    assert_eq!(model.scope(scope).switch.causes, 0);
    assert_eq!(model.counters[1].passed, [10, 0, 0, 0, 0]);
}

#[test]
fn an_opaque_session_counts_segments_as_they_leave() {
    let mut model = model();
    model.maps.sessions[1].flags = flag::OPAQUE | flag::DESYNC_TRIPS;
    model.add_limit(model.scope_of(1), LimitClass::Order, 50, SECOND);
    let line = Line::open(&mut model, 1, 1);
    model.maps.wire_segments = 42;
    let segment = Segment { seq: line.seq, length: 60_000, ..Segment::default() };
    assert_eq!(model.packet(&line.key, &segment, &[0x17; 60_000]), Verdict::Passed);
    assert_eq!(
        model.packet(&line.key, &segment, &[0x17; 60_000]),
        Verdict::Passed,
        "a retransmit counts nothing"
    );
    assert_eq!((model.counters[1].passed[0], model.counters[1].retransmitted), (42, 1));
    let ahead = Segment { seq: line.seq + 90_000, ..segment };
    assert_eq!(model.packet(&line.key, &ahead, &[0x17; 60_000]), Verdict::Ahead);
    let next = Segment { seq: line.seq + 60_000, ..segment };
    model.maps.wire_segments = 9;
    assert_eq!(model.packet(&line.key, &next, &[0x17; 60_000]), Verdict::Limit);
    assert_eq!((model.counters[1].withheld[0], model.counters[1].desyncs), (9, 0));
}

#[test]
fn a_session_may_override_classes() {
    let mut model = model();
    let packed = |text| MsgType::new(text).expect("1 to 8 bytes").0;
    let overrides = [
        Override { msg_type: packed("U1"), class: Class::Query as u64 },
        Override { msg_type: packed("H"), class: 99 },
    ];
    model.maps.sessions[1].overrides[..2].copy_from_slice(&overrides);
    model.maps.sessions[1].override_count = 2;
    for session in [1, 2] {
        let mut line = Line::open(&mut model, session, 1);
        assert_eq!(["U1", "H", "F"].map(|msg_type| line.fix(&mut model, msg_type)), [Verdict::Passed; 3]);
    }
    assert_eq!(model.counters[1].passed, [1, 1, 0, 1, 0]);
    assert_eq!(model.counters[2].passed, [1, 1, 0, 1, 0], "U1 an order, H a query");
}

#[test]
fn a_limit_exceeded_while_tripped_is_a_further_cause_and_fences_again() {
    let mut model = model();
    model.add_limit(GROUP, LimitClass::Cancel, 2, SECOND);
    model.trip(GROUP, cause::MANUAL);
    let [mut first, mut second] = [1, 2].map(|session| Line::open(&mut model, session, 1));
    assert_eq!(
        [(); 3].map(|()| first.fix(&mut model, "F")),
        [Verdict::Passed, Verdict::Passed, Verdict::Limit]
    );
    assert_eq!(model.scope(GROUP).switch.causes, cause::MANUAL | cause::RATE);
    assert_eq!(second.fix(&mut model, "0"), Verdict::Fenced);
}
