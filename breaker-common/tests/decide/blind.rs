//! Blind streams: events, trips and counts.

use breaker_common::abi::{cause, flag, kind};
use breaker_common::decide::Verdict;
use breaker_common::message::LimitClass;

use super::{Line, SECOND, event_scopes, model};

#[test]
fn a_desync_causes_an_event_and_trips_if_the_policy_says_so() {
    for trips in [false, true] {
        let mut model = model();
        let scope = model.scope_of(1);
        model.maps.sessions[1].flags = if trips { flag::DESYNC_TRIPS } else { 0 };
        let mut line = Line::open(&mut model, 1, 1);
        assert_eq!(line.fix(&mut model, "D"), Verdict::Passed);
        let verdict = line.send(&mut model, b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(verdict, if trips { Verdict::Desync } else { Verdict::Passed });
        assert_eq!(model.scope(scope).switch.causes, if trips { cause::DESYNC } else { 0 });
        assert_eq!(line.fix(&mut model, "D"), if trips { Verdict::Fenced } else { Verdict::Passed });
        assert_eq!((event_scopes(&model, kind::DESYNCED), model.counters[1].desyncs), (vec![scope], 1));
        assert_eq!(event_scopes(&model, kind::BLIND), [scope]);
        assert_eq!(event_scopes(&model, kind::SIGHTED), if trips { vec![] } else { vec![scope] });
        assert_eq!(event_scopes(&model, kind::TRIPPED), if trips { vec![scope] } else { vec![] });
    }
}

#[test]
fn garbage_on_a_new_connection_fences_it_alone() {
    let mut model = model();
    model.maps.sessions[1].flags = flag::DESYNC_TRIPS;
    let mut engine = Line::open(&mut model, 1, 1);
    let mut port_check = Line::open(&mut model, 1, 2);
    assert_eq!(port_check.send(&mut model, b"\n"), Verdict::Desync);
    assert_eq!(
        (port_check.send(&mut model, b"\n"), engine.fix(&mut model, "D")),
        (Verdict::Fenced, Verdict::Passed)
    );
}

#[test]
fn unread_bytes_count_as_orders_against_the_limits_unless_the_policy_says_otherwise() {
    for (flags, verdict, orders) in [(0, Verdict::Limit, 0), (flag::BLIND_UNCOUNTED, Verdict::Passed, 0)] {
        let mut model = model();
        let scope = model.scope_of(1);
        model.maps.sessions[1].flags = flags;
        model.add_limit(scope, LimitClass::Order, 5, SECOND);
        let mut line = Line::open(&mut model, 1, 1);
        assert_eq!(line.send(&mut model, &[b'x'; 501]), verdict);
        assert_eq!((model.counters[1].passed[0], model.counters[1].unread), (orders, 1));
    }
    let mut model = model();
    model.add_limit(model.scope_of(1), LimitClass::Order, 5, SECOND);
    let mut line = Line::open(&mut model, 1, 1);
    assert_eq!(line.send(&mut model, &[b'x'; 500]), Verdict::Passed);
    assert_eq!((model.counters[1].passed[0], line.fix(&mut model, "D")), (5, Verdict::Limit));
}

#[test]
fn a_desync_of_a_disarmed_session_causes_an_event_and_withholds_nothing() {
    let mut model = model();
    let scope = model.scope_of(1);
    model.maps.sessions[1].flags = flag::DESYNC_TRIPS;
    model.set(scope, |scope| scope.armed = 0);
    let mut line = Line::open(&mut model, 1, 1);
    assert_eq!(line.send(&mut model, b"GET / HTTP/1.1\r\n\r\n"), Verdict::Passed);
    assert_eq!((model.scope(scope).switch.causes, event_scopes(&model, kind::DESYNCED)), (0, vec![scope]));
}
