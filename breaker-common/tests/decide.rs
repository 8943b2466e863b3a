//! The verdict on a segment, promise by promise (docs: "Tripped"); `charging` has those about limits, `machine` random histories.

mod charging;
mod machine;
mod messages;
mod model;
mod rare;

use breaker_common::abi::{Connection, ConnectionKey, cause, flag, kind, reason, undeclared, while_tripped};
use breaker_common::decide::{ACK, FIN, RST, SYN, Segment, URG, Verdict};
use breaker_common::message::{Class, LimitClass};

use messages::build;
use model::{HOST, Model, key};

const SECOND: u64 = 1_000_000_000;
/// A type of each class.
const TYPES: [&str; 5] = ["D", "F", "R", "H", "0"];
const GROUP: u32 = 1;

/// The sending end of a connection.
struct Line {
    key: ConnectionKey,
    seq: u32,
}

impl Line {
    /// A connection whose SYN nobody has seen.
    fn joined(session: u32, port: u16) -> Self {
        Self { key: key(session, port), seq: 5000 }
    }

    /// A connection that opens now; each SYN has a sequence number of its own, as port and time give it.
    fn open(model: &mut Model, session: u32, port: u16) -> Self {
        let mut line = Self::joined(session, port);
        line.seq = port as u32 * 100_000 + model.events.len() as u32;
        assert_eq!(line.control(model, SYN), Verdict::Control);
        line.seq += 1;
        // The peer has answered.
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

/// Two sessions in one group, and one beside it.
fn model() -> Model {
    Model::new(2, &[&[GROUP], &[GROUP], &[2]])
}

fn told(model: &Model, kind: u32) -> Vec<u32> {
    model.events.iter().filter(|event| event.kind == kind).map(|event| event.scope).collect()
}

#[test]
fn what_is_older_than_a_trip_or_a_reset_never_passes_again() {
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
    assert_eq!(told(&model, kind::FENCED), [scope, scope], "once a connection");
}

#[test]
fn a_syn_sent_again_keeps_its_age_and_a_new_one_is_young() {
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
fn a_syn_sent_again_keeps_its_age_even_behind_a_fin() {
    // The answering side of Fast Open may send data and FIN before its SYN is acknowledged, and then that SYN once more.
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
            model.sessions[1].while_tripped = mode;
            model.trip(model.scope_of(1), cause::MANUAL);
            let mut line = Line::open(&mut model, 1, 1);
            let passes = passing.contains(&class);
            let verdict = line.fix(&mut model, TYPES[class as usize]);
            assert_eq!(verdict, if passes { Verdict::Passed } else { Verdict::Tripped }, "{mode} {class:?}");
            // What was withheld has fenced the connection.
            assert_eq!(line.fix(&mut model, "0"), if passes { Verdict::Passed } else { Verdict::Fenced });
        }
    }
}

#[test]
fn isolated_means_not_even_a_syn_and_only_while_tripped() {
    let mut model = model();
    model.sessions[1].while_tripped = while_tripped::ISOLATE;
    let mut before = Line::open(&mut model, 1, 1);
    model.trip(model.scope_of(1), cause::MANUAL);
    let during = Line::joined(1, 2);
    assert_eq!(during.control(&mut model, SYN), Verdict::Isolated);
    assert_eq!(before.fix(&mut model, "0"), Verdict::Fenced);
    model.reset(model.scope_of(1));
    assert_eq!(Line::open(&mut model, 1, 3).fix(&mut model, "D"), Verdict::Passed);
}

#[test]
fn one_order_among_harmless_messages_withholds_its_segment() {
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
fn what_cannot_be_read_is_no_harmless_message() {
    let mut model = model();
    model.trip(HOST, cause::MANUAL);
    let bytes = build("FIX.4.4", 1, "F", b"");
    assert_eq!(Line::open(&mut model, 1, 1).send(&mut model, &bytes[3..]), Verdict::Tripped);
    let mut holed = Line::open(&mut model, 1, 2);
    holed.seq += 10;
    assert_eq!(holed.send(&mut model, &bytes), Verdict::Ahead);
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
fn a_second_syn_takes_over_once_it_was_answered_and_what_was_queued_before_is_dead() {
    let mut model = model();
    let mut first = Line::open(&mut model, 1, 1);
    assert_eq!(first.fix(&mut model, "D"), Verdict::Passed);
    // Not answered: the first one lives on, and is read on.
    let mut second = Line { key: first.key, seq: 900_000 };
    assert_eq!(second.control(&mut model, SYN), Verdict::Control);
    assert_eq!((first.fix(&mut model, "D"), model.counters[1].passed[0]), (Verdict::Passed, 2));
    // Answered: what the first one had queued is of another connection.
    second.seq += 1;
    assert_eq!(second.control(&mut model, ACK), Verdict::Control);
    assert_eq!(second.fix(&mut model, "D"), Verdict::Passed);
    assert_eq!(first.fix(&mut model, "D"), Verdict::Foreign);
    assert_eq!((second.fix(&mut model, "D"), model.counters[1].passed[0]), (Verdict::Passed, 4));
}

#[test]
fn a_connection_that_the_peer_has_opened_is_nobodys() {
    let mut model = model();
    model.sessions[1].flags = flag::DESYNC_TRIPS;
    let answer = Segment { seq: 7, flags: SYN | ACK, ..Segment::default() };
    assert_eq!(model.pass(&key(1, 22), &answer, &[]), Err(reason::NOT_OURS));
    let banner = Segment { seq: 8, length: 7, flags: ACK, ..Segment::default() };
    assert_eq!(model.pass(&key(1, 22), &banner, b"SSH-2.0"), Err(reason::NOT_OURS));
    assert_eq!((model.connections.len(), model.scope(model.scope_of(1)).switch.causes), (0, 0));
}

#[test]
fn attempts_that_nobody_answers_and_what_has_closed_take_no_place_of_a_live_connection() {
    let mut model = model();
    model.most_connections = 1;
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
fn between_the_two_writes_of_a_trip_nothing_that_cannot_be_read_passes() {
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
    model.clock += 86_400 * SECOND;
    assert_eq!(model.scope(scope).switch.causes, cause::FLEET | cause::MANUAL);
    assert_eq!(second.fix(&mut model, "0"), Verdict::Fenced, "a further cause fences anew");
    model.reset(scope);
    assert_eq!(model.scope(scope).switch.causes, 0);
}

#[test]
fn a_desync_is_told_and_trips_where_the_policy_says_so() {
    for trips in [false, true] {
        let mut model = model();
        let scope = model.scope_of(1);
        model.sessions[1].flags = if trips { flag::DESYNC_TRIPS } else { 0 };
        let mut line = Line::open(&mut model, 1, 1);
        assert_eq!(line.fix(&mut model, "D"), Verdict::Passed);
        let verdict = line.send(&mut model, b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(verdict, if trips { Verdict::Desync } else { Verdict::Passed });
        assert_eq!(model.scope(scope).switch.causes, if trips { cause::DESYNC } else { 0 });
        assert_eq!(line.fix(&mut model, "D"), if trips { Verdict::Fenced } else { Verdict::Passed });
        assert_eq!((told(&model, kind::DESYNCED), model.counters[1].desyncs), (vec![scope], 1));
        assert_eq!(told(&model, kind::BLIND), [scope]);
        assert_eq!(told(&model, kind::SIGHTED), if trips { vec![] } else { vec![scope] });
        assert_eq!(told(&model, kind::TRIPPED), if trips { vec![scope] } else { vec![] });
    }
}

#[test]
fn a_connection_that_never_was_fix_ends_alone_where_a_lost_stream_trips() {
    let mut model = model();
    model.sessions[1].flags = flag::DESYNC_TRIPS;
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
        model.sessions[1].flags = flags;
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
fn a_disarmed_session_that_is_lost_is_told_and_withholds_nothing() {
    let mut model = model();
    let scope = model.scope_of(1);
    model.sessions[1].flags = flag::DESYNC_TRIPS;
    model.set(scope, |scope| scope.armed = 0);
    let mut line = Line::open(&mut model, 1, 1);
    assert_eq!(line.send(&mut model, b"GET / HTTP/1.1\r\n\r\n"), Verdict::Passed);
    assert_eq!((model.scope(scope).switch.causes, told(&model, kind::DESYNCED)), (0, vec![scope]));
}

#[test]
fn a_blocked_flow_stays_blocked_when_its_ports_are_used_again() {
    let mut model = model();
    model.undeclared = undeclared::BLOCK;
    let order = build("FIX.4.4", 1, "D", b"");
    let segment = Segment { seq: 1, length: order.len() as u32, ..Segment::default() };
    assert_eq!(model.pass(&key(0, 1), &segment, &order), Ok(Verdict::Fenced));
    let syn = Segment { seq: 9, flags: SYN, ..Segment::default() };
    assert_eq!(model.pass(&key(0, 1), &syn, &[]), Err(reason::NOT_OURS));
    let again = Segment { seq: 10, ..segment };
    assert_eq!(model.pass(&key(0, 1), &again, &order), Ok(Verdict::Fenced));
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
        "one for what could not be read"
    );
    model.trip(2, cause::MANUAL);
    assert_eq!(line.fix(&mut model, "D"), Verdict::Passed, "another group");
    assert_eq!(Line::joined(3, 1).fix(&mut model, "0"), Verdict::Fenced);
    model.reset(2);
    assert_eq!(Line::joined(3, 2).fix(&mut model, "0"), Verdict::Fenced);
    assert_eq!(model.connection(&key(3, 2)).map(|connection| connection.epoch), Some(Connection::FENCED));
    // Declared since, as a reload does, it is as young as that.
    model.clock += 1;
    model.sessions[3].declared_ns = model.clock;
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
    assert_eq!(model.pass(&key(1, 9), &refusal, &[]), Err(reason::CONTROL));
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
        model.undeclared = policy;
        model.add_limit(HOST, LimitClass::Order, 100, SECOND);
        let order = build("FIX.4.4", 1, "D", b"");
        let segment = Segment { seq: 1, length: order.len() as u32, ..Segment::default() };
        assert_eq!(model.pass(&key(0, 1), &segment, &order), verdict);
        let watched = policy == undeclared::WATCH;
        assert_eq!(
            (model.counters[0].passed[0], model.scope(HOST).windows[0].issued),
            (watched as u64, watched as u64)
        );
        // While tripped, what only looks like FIX is withheld as an order would be.
        model.trip(HOST, cause::MANUAL);
        let odd = b"8=FIX.9.9\x01";
        let segment = Segment { seq: 1, length: odd.len() as u32, ..Segment::default() };
        let expected = if watched { Ok(Verdict::Tripped) } else { verdict };
        assert_eq!(model.pass(&key(0, 3), &segment, odd), expected);
        // Anything but FIX is nobody's business.
        let other = Segment { seq: 1, length: 16, ..Segment::default() };
        assert_eq!(model.pass(&key(0, 2), &other, b"GET / HTTP/1.1\r\n"), Err(reason::NOT_OURS));
    }
}
