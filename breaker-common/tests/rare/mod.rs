//! What only some connections meet: a shared endpoint, a replay, a silent agent, a reconnect loop, limits on what comes in.

use breaker_common::abi::{Connection, cause, flag, kind, reason, undeclared};
use breaker_common::decide::{ACK, FIN, SYN, Segment, Verdict};
use breaker_common::message::LimitClass;

use super::messages::build;
use super::model::{HOST, Model};
use super::{GROUP, Line, SECOND, model, told};

const PLACE: u32 = 7;

/// Sessions 1 and 2 at the port of session 1.
fn shared() -> Model {
    let mut model = model();
    model.share(PLACE, &[(1, ["FIRM", "ONE"]), (2, ["FIRM", "TWO"])]);
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

fn session_of(model: &Model, line: &Line) -> u32 {
    model.connection(&line.key).expect("a connection").session
}

#[test]
fn the_first_message_tells_whose_a_connection_is_however_it_is_cut() {
    for (target, session) in [("ONE", 1), ("TWO", 2)] {
        let bytes = logon(target);
        for cut in 1..bytes.len() {
            let mut model = shared();
            let mut line = Line::open(&mut model, 1, 1);
            assert_eq!(line.send(&mut model, &bytes[..cut]), Verdict::Passed);
            assert_eq!(session_of(&model, &line), 0, "nobody's yet");
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
fn a_logon_of_nobody_is_ignored_watched_or_blocked() {
    for (policy, first, then) in [
        (undeclared::IGNORE, Verdict::Ignored, None),
        (undeclared::WATCH, Verdict::Passed, Some(Verdict::Passed)),
        (undeclared::BLOCK, Verdict::Undeclared, Some(Verdict::Fenced)),
    ] {
        let mut model = shared();
        model.undeclared = policy;
        let mut line = Line::open(&mut model, 1, 1);
        assert_eq!(line.send(&mut model, &logon("THREE")), first);
        let watched = u64::from(policy == undeclared::WATCH);
        let order = build("FIX.4.4", 1, "D", b"");
        let segment = Segment { seq: line.seq, length: order.len() as u32, ..Segment::default() };
        assert_eq!(model.pass(&line.key, &segment, &order).ok(), then);
        assert_eq!(model.counters[0].passed[0], watched);
        assert_eq!(told(&model, kind::UNDECLARED).len(), usize::from(policy != undeclared::IGNORE));
    }
}

#[test]
fn a_connection_is_as_old_as_its_syn_whenever_it_tells_whose_it_is() {
    let mut model = shared();
    let scope = model.scope_of(1);
    let [mut before, mut other] = [1, 2].map(|port| Line::open(&mut model, 1, port));
    model.clock += 1;
    model.trip(scope, cause::MANUAL);
    model.reset(scope);
    model.clock += 1;
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
        model.sessions[1].comp_ids = [model.comp_id("FIRM"), model.comp_id("ONE"), 0, 0];
        let mut line = Line::open(&mut model, 1, 1);
        assert_eq!(line.send(&mut model, &logon(target)), Verdict::Passed);
        assert_eq!(line.send(&mut model, &logon("THREE")), Verdict::Passed);
        assert_eq!(told(&model, kind::MISMATCHED).len(), mismatches);
    }
}

/// An order that is called a possible duplicate, behind a data field that only looks so.
fn replay() -> Vec<u8> {
    build("FIX.4.4", 1, "D", b"34=9\x0149=FIRM\x0195=6\x0196=x\x0143=N\x0143=Y\x0156=ONE\x0111=R\x01")
}

#[test]
fn after_a_trip_a_repeated_order_trips_again_and_before_it_does_not() {
    let mut model = model();
    let scope = model.scope_of(1);
    let mut line = Line::open(&mut model, 1, 1);
    assert_eq!(line.send(&mut model, &replay()), Verdict::Passed);
    model.trip(scope, cause::MANUAL);
    model.reset(scope);
    let mut line = Line::open(&mut model, 1, 2);
    assert_eq!(line.fix(&mut model, "D"), Verdict::Passed);
    assert_eq!(line.send(&mut model, &replay()), Verdict::Replay);
    assert_eq!(
        (model.scope(scope).switch.causes, told(&model, kind::REPLAYED)),
        (cause::REPLAY, vec![scope])
    );
    model.reset(scope);
    // The agent's day begins anew.
    model.sessions[1].day_epoch = (0..7).map(|scope| model.scope(scope).switch.epoch).sum();
    let mut line = Line::open(&mut model, 1, 3);
    assert_eq!(line.send(&mut model, &replay()), Verdict::Passed);
}

#[test]
fn a_replay_is_seen_in_whichever_segment_it_is_and_only_where_it_is_minded() {
    let bytes = replay();
    for cut in 1..bytes.len() {
        let mut model = model();
        model.trip(HOST, cause::MANUAL);
        model.reset(HOST);
        let [mut guarded, mut passing, mut disarmed] =
            [1, 2, 3].map(|session| Line::open(&mut model, session, 1));
        model.sessions[2].flags = flag::REPLAYS_PASS;
        model.set(model.scope_of(3), |scope| scope.armed = 0);
        let verdicts = [guarded.send(&mut model, &bytes[..cut]), guarded.send(&mut model, &bytes[cut..])];
        assert!(verdicts.contains(&Verdict::Replay), "cut at {cut}: {verdicts:?}");
        for line in [&mut passing, &mut disarmed] {
            assert_eq!(
                [line.send(&mut model, &bytes[..cut]), line.send(&mut model, &bytes[cut..])],
                [Verdict::Passed; 2]
            );
        }
        assert_eq!(told(&model, kind::REPLAYED), [model.scope_of(1), model.scope_of(3)]);
    }
}

#[test]
fn a_length_before_a_field_without_a_tag_hides_nothing_behind_it() {
    let bytes = build("FIX.4.4", 1, "D", b"34=9\x0195=5\x01AB\x0143=Y\x0111=R\x01");
    for cut in 1..bytes.len() {
        let mut model = model();
        model.trip(HOST, cause::MANUAL);
        model.reset(HOST);
        let mut line = Line::open(&mut model, 1, 1);
        let verdicts = [line.send(&mut model, &bytes[..cut]), line.send(&mut model, &bytes[cut..])];
        assert!(verdicts.contains(&Verdict::Replay), "cut at {cut}: {verdicts:?}");
    }
}

#[test]
fn a_mass_action_is_what_its_field_says_once_that_has_come() {
    for (action, class) in
        [("1373=1\x01", 1), ("1373=3\x01", 1), ("1373=2\x01", 0), ("1373=31\x01", 0), ("", 0)]
    {
        let bytes = build("FIXT.1.1", 1, "CA", format!("11=M\x01{action}1374=1\x01").as_bytes());
        for cut in 1..bytes.len() {
            let mut model = model();
            let mut line = Line::open(&mut model, 1, 1);
            line.send(&mut model, &bytes[..cut]);
            line.send(&mut model, &bytes[cut..]);
            let mut expected = [0; 5];
            expected[class] = 1;
            assert_eq!(model.counters[1].passed, expected, "{action:?} cut at {cut}");
        }
    }
}

#[test]
fn a_silent_agent_is_told_of_once_or_trips_the_host() {
    for trips in [false, true] {
        let mut model = model();
        model.heartbeat = model.clock;
        model.deadman = Some((SECOND, trips));
        let mut line = Line::open(&mut model, 1, 1);
        model.clock += SECOND;
        assert_eq!(line.fix(&mut model, "D"), Verdict::Passed, "just in time");
        model.clock += 1;
        let then = if trips { Verdict::Deadman } else { Verdict::Passed };
        assert_eq!(line.fix(&mut model, "0"), then);
        assert_eq!(line.fix(&mut model, "D"), if trips { Verdict::Fenced } else { Verdict::Passed });
        assert_eq!(told(&model, kind::HEARTBEAT_LOST), [HOST]);
        assert_eq!(model.scope(HOST).switch.causes, if trips { cause::DEADMAN } else { 0 });
        // Tripped for that, what adds no risk passes on a new connection.
        assert_eq!(Line::open(&mut model, 1, 2).fix(&mut model, "F"), Verdict::Passed);
        model.heartbeat = model.clock;
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
        // A trip fences any number, which are one.
        old.iter_mut().for_each(|line| assert_eq!(line.fix(&mut model, "D"), Verdict::Fenced));
        for port in 10..12 {
            model.clock += pause;
            assert_eq!(Line::open(&mut model, 1, port).fix(&mut model, "D"), Verdict::Tripped);
        }
        let expected = if isolated { Verdict::Isolated } else { Verdict::Control };
        let next = Line::joined(1, 20);
        assert_eq!(
            (next.control(&mut model, SYN), told(&model, kind::ISOLATED).len()),
            (expected, isolated.into())
        );
        assert_eq!(Line::joined(2, 20).control(&mut model, SYN), Verdict::Control, "another session");
        model.reset(scope);
        model.trip(scope, cause::MANUAL);
        assert_eq!(Line::joined(1, 21).control(&mut model, SYN), Verdict::Control, "a reset has forgiven it");
    }
}

/// Shows a message that comes in on a connection.
fn comes_in(model: &mut Model, line: &Line, seq: &mut u32, msg_type: &str, fields: &[u8]) {
    let bytes = build("FIX.4.4", 1, msg_type, fields);
    let segment =
        Segment { seq: *seq, length: bytes.len() as u32, ack: line.seq, flags: ACK, ..Segment::default() };
    *seq += segment.length;
    model.observe(&line.key, &segment, &bytes);
}

#[test]
fn what_a_forger_sends_who_does_not_see_the_connection_counts_nothing() {
    let mut model = model();
    let mut line = Line::open(&mut model, 1, 1);
    assert_eq!(line.fix(&mut model, "D"), Verdict::Passed);
    let mut seq = 500;
    comes_in(&mut model, &line, &mut seq, "j", b"");
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
fn what_comes_in_is_counted_and_one_reject_too_many_trips() {
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
    reports.iter().for_each(|(msg_type, fields)| comes_in(&mut model, &line, &mut seq, msg_type, fields));
    assert_eq!((model.counters[1].inbound, model.inbound.len()), ([2, 2, 2], 1));
    assert_eq!(line.fix(&mut model, "D"), Verdict::Passed);
    comes_in(&mut model, &line, &mut seq, "3", b"");
    assert_eq!((model.scope(GROUP).switch.causes, line.fix(&mut model, "D")), (cause::RATE, Verdict::Fenced));
    assert_eq!(model.connection(&line.key).map(|connection| connection.epoch), Some(Connection::FENCED));
}

#[test]
fn beyond_the_first_orders_so_many_cross_for_each_fill() {
    let mut model = model();
    let scope = model.scope_of(1);
    model.add_ratio(scope, 3, 4);
    let mut line = Line::open(&mut model, 1, 1);
    let mut seq = 500;
    assert_eq!([(); 4].map(|()| line.fix(&mut model, "D")), [Verdict::Passed; 4]);
    comes_in(&mut model, &line, &mut seq, "8", b"150=F\x0139=1\x01");
    comes_in(&mut model, &line, &mut seq, "8", b"150=F\x0139=1\x01");
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
fn a_peer_that_was_told_from_further_ahead_is_told_again_where_it_waits() {
    let mut model = model();
    let mut line = Line::open(&mut model, 1, 1);
    model.trip(GROUP, cause::MANUAL);
    let first = line.seq;
    for (ahead, told) in [(200, 0), (300, 1), (0, 0), (100, 1), (0, 1)] {
        line.seq = first.wrapping_add(ahead);
        assert_eq!(line.fix(&mut model, "D"), Verdict::Fenced);
        let connection = &mut model.transient[0].1;
        assert_eq!(connection.peer_notified, told, "{ahead} bytes ahead");
        // So does whoever makes the reset.
        connection.peer_notified = 1;
    }
    assert_eq!(model.transient[0].1.withheld_seq, first);
}

#[test]
fn a_connection_that_is_not_looked_at_takes_no_place_of_a_live_one() {
    let mut model = shared();
    model.undeclared = undeclared::IGNORE;
    let mut line = Line::open(&mut model, 1, 1);
    assert_eq!(line.send(&mut model, &logon("THREE")), Verdict::Ignored);
    assert_eq!((model.connections.len(), session_of(&model, &line)), (0, Connection::IGNORED));
    let fin = Segment { seq: line.seq, flags: FIN, ..Segment::default() };
    assert_eq!(model.pass(&line.key, &fin, &[]), Err(reason::NOT_OURS));
}

#[test]
fn a_session_that_is_no_longer_declared_leaves_what_is_fenced_fenced() {
    let mut model = model();
    let [mut fenced, mut live] = [1, 2].map(|port| Line::open(&mut model, 1, port));
    assert_eq!(live.fix(&mut model, "D"), Verdict::Passed);
    model.connections[0].1.epoch = Connection::FENCED;
    model.sessions[1].scope_count = 0;
    assert_eq!((fenced.fix(&mut model, "0"), live.fix(&mut model, "D")), (Verdict::Fenced, Verdict::Passed));
    assert_eq!((session_of(&model, &live), model.counters[0].passed[0]), (0, 1), "undeclared from then on");
}

#[test]
fn at_a_shared_endpoint_the_logon_of_an_isolated_session_is_withheld() {
    let mut model = shared();
    model.trip(model.scope_of(1), cause::MANUAL);
    model.clock += 1;
    for port in 1..=3 {
        let mut line = Line::open(&mut model, 1, port);
        assert_eq!(line.send(&mut model, &logon("ONE")), Verdict::Passed);
        assert_eq!(line.fix(&mut model, "D"), Verdict::Tripped);
    }
    let [mut own, mut other] = [4, 5].map(|port| Line::open(&mut model, 1, port));
    assert_eq!(own.send(&mut model, &logon("ONE")), Verdict::Tripped);
    assert_eq!(other.send(&mut model, &logon("TWO")), Verdict::Passed);
}

#[test]
fn segments_of_what_cannot_be_read_wait_for_those_before_them_and_all_count() {
    let mut model = model();
    model.sessions[1].flags = flag::OPAQUE | flag::DESYNC_TRIPS;
    let line = Line::open(&mut model, 1, 1);
    for (ahead, verdict) in
        [(0, Verdict::Passed), (200, Verdict::Ahead), (100, Verdict::Passed), (200, Verdict::Passed)]
    {
        let segment = Segment { seq: line.seq + ahead, length: 100, ..Segment::default() };
        assert_eq!(model.packet(&line.key, &segment, &[0x17; 100]), verdict, "{ahead} bytes ahead");
    }
    assert_eq!((model.counters[1].passed[0], model.counters[1].desyncs), (3, 0));
}

#[test]
fn a_ratio_warns_by_shares_of_what_the_fills_allow() {
    let mut model = model();
    model.add_ratio(model.scope_of(1), 3, 4);
    let mut line = Line::open(&mut model, 1, 1);
    let mut seq = 500;
    (0..20).for_each(|_| comes_in(&mut model, &line, &mut seq, "8", b"150=F\x0139=1\x01"));
    for _ in 0..29 {
        assert_eq!(line.fix(&mut model, "D"), Verdict::Passed);
    }
    assert!(told(&model, kind::WARNED).is_empty());
    assert_eq!(line.fix(&mut model, "D"), Verdict::Passed);
    assert_eq!(told(&model, kind::WARNED).len(), 1, "half of 60");
}
