//! Trips and resets: which connections they fence, and which messages pass while a scope is tripped.

use breaker_common::abi::{cause, kind, while_tripped};
use breaker_common::decide::{ACK, FIN, SYN, Segment, URG, Verdict};
use breaker_common::message::{Class, LimitClass};

use super::messages::build;
use super::{GROUP, Line, SECOND, TYPES, event_scopes, model};
use breaker_replay::model::HOST;

#[test]
fn a_connection_older_than_a_trip_or_reset_never_passes_again() {
    let mut model = model();
    let scope = model.scope_of(1);
    let mut before = Line::open(&mut model, 1, 1);
    assert_eq!(before.fix(&mut model, "D"), Verdict::Passed);
    model.trip(scope, cause::MANUAL);
    let mut between = Line::open(&mut model, 1, 2);
    for msg_type in TYPES {
        assert_eq!(before.fix(&mut model, msg_type), Verdict::Fenced);
    }
    assert_eq!(between.fix(&mut model, "F"), Verdict::Passed);
    model.reset(scope);
    let mut after = Line::open(&mut model, 1, 3);
    assert_eq!(before.fix(&mut model, "0"), Verdict::Fenced);
    assert_eq!(between.fix(&mut model, "F"), Verdict::Fenced);
    assert_eq!(after.fix(&mut model, "D"), Verdict::Passed);
    assert_eq!(event_scopes(&model, kind::FENCED), [scope, scope], "one event per connection");
}

#[test]
fn a_repeated_syn_keeps_its_age_and_a_new_one_is_current() {
    let mut model = model();
    let mut line = Line::open(&mut model, 1, 1);
    model.trip(HOST, cause::MANUAL);
    model.reset(HOST);
    line.seq -= 1;
    assert_eq!(line.control(&mut model, SYN), Verdict::Control);
    line.seq += 1;
    assert_eq!(line.fix(&mut model, "D"), Verdict::Fenced);
    let mut again = Line::open(&mut model, 1, 1);
    assert_eq!(again.fix(&mut model, "D"), Verdict::Passed);
}

#[test]
fn a_repeated_syn_keeps_its_age_even_after_a_fin() {
    // With Fast Open, the passive side may send data and FIN before its SYN is acknowledged, and then repeat
    // the SYN.
    let mut model = model();
    let mut line = Line::open(&mut model, 1, 1);
    let syn = line.seq - 1;
    assert_eq!(line.fix(&mut model, "D"), Verdict::Passed);
    assert_eq!(line.control(&mut model, FIN), Verdict::Control);
    model.trip(HOST, cause::MANUAL);
    model.reset(HOST);
    line.seq = syn;
    assert_eq!(line.control(&mut model, SYN), Verdict::Control);
    line.seq += 1;
    assert_eq!(line.fix(&mut model, "D"), Verdict::Fenced);
}

#[test]
fn a_trip_of_a_group_or_of_the_host_reaches_every_session_of_it_and_no_other() {
    for (scope, withheld) in [(GROUP, [true, true, false]), (HOST, [true; 3]), (2, [false, false, true])] {
        let mut model = model();
        let mut old = [1, 2, 3].map(|session| Line::open(&mut model, session, 1));
        model.trip(scope, cause::MANUAL);
        let mut new = [1, 2, 3].map(|session| Line::open(&mut model, session, 2));
        for i in 0..3 {
            assert_eq!(old[i].fix(&mut model, "F") == Verdict::Fenced, withheld[i]);
            assert_eq!(new[i].fix(&mut model, "F"), Verdict::Passed);
            assert_eq!(new[i].fix(&mut model, "D") == Verdict::Tripped, withheld[i]);
        }
    }
}

#[test]
fn while_tripped_says_which_classes_pass_on_a_new_connection() {
    let modes = [
        (while_tripped::REDUCE_ONLY, vec![Class::Cancel, Class::Query, Class::Admin]),
        (while_tripped::ADMIN_ONLY, vec![Class::Admin]),
        (77, vec![]),
    ];
    for (mode, passing) in modes {
        for class in Class::ALL {
            let mut model = model();
            model.maps.sessions[1].while_tripped = mode;
            model.trip(model.scope_of(1), cause::MANUAL);
            let mut line = Line::open(&mut model, 1, 1);
            let passes = passing.contains(&class);
            let verdict = line.fix(&mut model, TYPES[class as usize]);
            assert_eq!(verdict, if passes { Verdict::Passed } else { Verdict::Tripped }, "{mode} {class:?}");
            // The withheld message has fenced the connection.
            assert_eq!(line.fix(&mut model, "0"), if passes { Verdict::Passed } else { Verdict::Fenced });
        }
    }
}

#[test]
fn isolated_means_not_even_a_syn_and_only_while_tripped() {
    let mut model = model();
    model.maps.sessions[1].while_tripped = while_tripped::ISOLATE;
    let mut before = Line::open(&mut model, 1, 1);
    model.trip(model.scope_of(1), cause::MANUAL);
    let during = Line::joined(1, 2);
    assert_eq!(during.control(&mut model, SYN), Verdict::Isolated);
    assert_eq!(before.fix(&mut model, "0"), Verdict::Fenced);
    model.reset(model.scope_of(1));
    assert_eq!(Line::open(&mut model, 1, 3).fix(&mut model, "D"), Verdict::Passed);
}

#[test]
fn one_order_among_allowed_messages_withholds_its_segment() {
    let mut model = model();
    model.trip(model.scope_of(1), cause::MANUAL);
    let mut line = Line::open(&mut model, 1, 1);
    let segment = ["A", "F", "D", "0"].map(|msg_type| build("FIX.4.2", 1, msg_type, b"")).concat();
    assert_eq!(line.send(&mut model, &segment), Verdict::Tripped);
    assert_eq!((model.counters[1].passed, model.counters[1].withheld), ([0; 5], [1, 1, 0, 0, 2]));
}

#[test]
fn an_order_begun_before_a_trip_does_not_end_after_it() {
    let mut model = model();
    let order = build("FIX.4.4", 1, "D", b"58=x\x01");
    let mut line = Line::open(&mut model, 1, 1);
    assert_eq!(line.send(&mut model, &order[..30]), Verdict::Passed);
    model.trip(GROUP, cause::MANUAL);
    assert_eq!(line.send(&mut model, &order[30..]), Verdict::Fenced);
}

#[test]
fn unread_bytes_are_withheld_while_tripped() {
    let mut model = model();
    model.trip(HOST, cause::MANUAL);
    let bytes = build("FIX.4.4", 1, "F", b"");
    assert_eq!(Line::open(&mut model, 1, 1).send(&mut model, &bytes[3..]), Verdict::Tripped);
    let mut ahead = Line::open(&mut model, 1, 2);
    ahead.seq += 10;
    assert_eq!(ahead.send(&mut model, &bytes), Verdict::Ahead);
    let fragment = Line::open(&mut model, 1, 3);
    let segment =
        Segment { seq: fragment.seq, length: bytes.len() as u32, fragment: true, ..Segment::default() };
    assert_eq!(model.packet(&fragment.key, &segment, &bytes), Verdict::Fragmented);
    let urgent = Line::open(&mut model, 1, 4);
    let segment =
        Segment { seq: urgent.seq, length: bytes.len() as u32, flags: ACK | URG, ..Segment::default() };
    assert_eq!(model.packet(&urgent.key, &segment, &bytes), Verdict::Tripped);
}

#[test]
fn between_the_two_writes_of_a_trip_unread_bytes_are_withheld() {
    let mut model = model();
    let mut line = Line::joined(1, 1);
    assert_eq!(line.send(&mut model, b"the middle of a message"), Verdict::Passed);
    model.set(HOST, |scope| scope.switch.causes |= cause::MANUAL);
    assert_eq!(line.send(&mut model, b", its end\x01"), Verdict::Tripped);
}

#[test]
fn causes_latch_until_reset() {
    let mut model = model();
    let scope = model.scope_of(1);
    model.add_limit(scope, LimitClass::Order, 2, SECOND);
    let mut line = Line::open(&mut model, 1, 1);
    model.trip(scope, cause::FLEET);
    let mut second = Line::open(&mut model, 1, 2);
    assert_eq!((line.fix(&mut model, "0"), second.fix(&mut model, "0")), (Verdict::Fenced, Verdict::Passed));
    model.trip(scope, cause::MANUAL);
    model.maps.clock += 86_400 * SECOND;
    assert_eq!(model.scope(scope).switch.causes, cause::FLEET | cause::MANUAL);
    assert_eq!(second.fix(&mut model, "0"), Verdict::Fenced, "a further cause fences anew");
    model.reset(scope);
    assert_eq!(model.scope(scope).switch.causes, 0);
}
