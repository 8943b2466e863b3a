//! Fences, reconnect loops and the heartbeat.

use breaker_common::abi::{cause, kind};
use breaker_common::decide::{SYN, Verdict};

use super::{GROUP, Line, SECOND, event_scopes, model};
use breaker_replay::model::HOST;

#[test]
fn a_lost_heartbeat_causes_one_event_and_may_trip_the_host() {
    for trips in [false, true] {
        let mut model = model();
        model.maps.heartbeat = model.maps.clock;
        model.maps.deadman = Some((SECOND, trips));
        let mut line = Line::open(&mut model, 1, 1);
        model.maps.clock += SECOND;
        assert_eq!(line.fix(&mut model, "D"), Verdict::Passed, "just in time");
        model.maps.clock += 1;
        let then = if trips { Verdict::Deadman } else { Verdict::Passed };
        assert_eq!(line.fix(&mut model, "0"), then);
        assert_eq!(line.fix(&mut model, "D"), if trips { Verdict::Fenced } else { Verdict::Passed });
        assert_eq!(event_scopes(&model, kind::HEARTBEAT_LOST), [HOST]);
        assert_eq!(model.scope(HOST).switch.causes, if trips { cause::DEADMAN } else { 0 });
        // After this trip, a cancel passes on a new connection.
        assert_eq!(Line::open(&mut model, 1, 2).fix(&mut model, "F"), Verdict::Passed);
        model.maps.heartbeat = model.maps.clock;
        model.reset(HOST);
        assert_eq!(Line::open(&mut model, 1, 3).fix(&mut model, "D"), Verdict::Passed);
    }
}

#[test]
fn three_connections_fenced_within_a_minute_isolate_their_session_until_a_reset() {
    for (pause, isolated) in [(SECOND, true), (31 * SECOND, false)] {
        let mut model = model();
        let scope = model.scope_of(1);
        let mut old: Vec<_> = (0..5).map(|port| Line::open(&mut model, 1, port)).collect();
        model.trip(scope, cause::MANUAL);
        // All connections fenced by one trip count once.
        old.iter_mut().for_each(|line| assert_eq!(line.fix(&mut model, "D"), Verdict::Fenced));
        for port in 10..12 {
            model.maps.clock += pause;
            assert_eq!(Line::open(&mut model, 1, port).fix(&mut model, "D"), Verdict::Tripped);
        }
        let expected = if isolated { Verdict::Isolated } else { Verdict::Control };
        let next = Line::joined(1, 20);
        assert_eq!(
            (next.control(&mut model, SYN), event_scopes(&model, kind::ISOLATED).len()),
            (expected, isolated.into())
        );
        assert_eq!(Line::joined(2, 20).control(&mut model, SYN), Verdict::Control, "another session");
        model.reset(scope);
        model.trip(scope, cause::MANUAL);
        assert_eq!(
            Line::joined(1, 21).control(&mut model, SYN),
            Verdict::Control,
            "the reset has discarded the fences"
        );
    }
}

#[test]
fn a_peer_is_reset_again_at_a_lower_sequence_number() {
    let mut model = model();
    let mut line = Line::open(&mut model, 1, 1);
    model.trip(GROUP, cause::MANUAL);
    let first = line.seq;
    for (ahead, notified) in [(200, 0), (300, 1), (0, 0), (100, 1), (0, 1)] {
        line.seq = first.wrapping_add(ahead);
        assert_eq!(line.fix(&mut model, "D"), Verdict::Fenced);
        let connection = model.transient.get_mut(&line.key).expect("a connection");
        assert_eq!(connection.peer_notified, notified, "{ahead} bytes ahead");
        // The kernel program does the same when it sends a reset.
        connection.peer_notified = 1;
    }
    assert_eq!(model.connection(&line.key).expect("a connection").withheld_seq, first);
}
