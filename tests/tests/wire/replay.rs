//! The replay guard: orders that an engine sends again after a trip, marked by PossDupFlag(43).

use breaker_tests::frame::message_with_body;
use breaker_tests::receiver::{End, Receiver};
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;

/// Two sessions, the first with these keys.
fn policy(keys: &str) -> String {
    format!(
        "[[group]]\nname = \"g\"\n[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\ngroups = \
         [\"g\"]\n{keys}\n\
         [[session]]\nname = \"x2\"\nremote = \"10.9.0.2:9002\"\n"
    )
}

/// A testbed whose first session was tripped and reset, and the venue's end of that session.
fn guarded_session(keys: &str) -> (Testbed, Receiver) {
    let testbed = Testbed::load(&policy(keys));
    let receiver = testbed.listen(9001);
    trip_and_reset(&testbed);
    (testbed, receiver)
}

/// Trips and resets the session again, unless it is tripped.
fn trip_and_reset(testbed: &Testbed) {
    testbed.trip("session/x1");
    testbed.reset("session/x1");
}

/// The start of a header, and the body of an order.
const HEAD: &str = "49=FIRM|56=VENUE|34=7|52=20261122-09:30:00.000|";
const BODY: &str = "11=R-1|21=1|55=IBM|54=1|38=100|40=2|44=101.25|";

/// A message with these fields behind MsgType(35).
fn message_of_type(msg_type: &str, fields: &str) -> Vec<u8> {
    message_with_body(&format!("35={msg_type}|{fields}"))
}

/// An order that is sent for the first time; and below, a replay of it.
fn first_sent() -> Vec<u8> {
    message_of_type("D", &format!("{HEAD}{BODY}"))
}

fn replay() -> Vec<u8> {
    message_of_type(
        "D",
        &format!("49=FIRM|56=VENUE|34=7|43=Y|52=20261122-09:30:00.000|122=20261122-09:29:00.000|{BODY}"),
    )
}

/// Offset behind the field of the flag.
fn flag_end(message: &[u8]) -> usize {
    message.windows(6).position(|window| window == b"\x0143=Y\x01").expect("the flag") + 6
}

#[test]
fn a_replayed_order_is_withheld_and_trips_its_session_again() {
    require_root!();
    let (testbed, receiver) = guarded_session("");
    let mut connection = receiver.connect(&testbed);
    connection.send_and_wait(&first_sent());
    connection.try_send(&replay());
    assert_eq!(connection.wait_for_reset().bytes, first_sent());
    let counters = testbed.counters(1);
    assert_eq!((counters.passed, counters.withheld), ([1, 0, 0, 0, 0], [1, 0, 0, 0, 0]));
    assert_eq!((testbed.causes("session/x1"), testbed.status().packets["replay"]), (vec!["replay"], 1));
    let (replayed, tripped) = (testbed.events_of_kind("replayed"), testbed.events_of_kind("tripped"));
    assert_eq!((replayed.len(), &replayed[0]["scope"]), (1, &"session/x1".into()));
    assert_eq!(
        (tripped.len(), &tripped[1]["cause"], &tripped[1]["scope"]),
        (2, &"replay".into(), &"session/x1".into())
    );
    // The trip is latched as any other, and does not affect the other session.
    let mut connection = receiver.connect(&testbed);
    connection.try_send(&first_sent());
    assert_eq!(connection.wait_for_reset().bytes, b"");
    let other = testbed.listen(9002);
    other.connect(&testbed).send_and_wait(&replay());
    // The guard lasts after a reset.
    testbed.reset("session/x1");
    let mut connection = receiver.connect(&testbed);
    connection.send_and_wait(&first_sent());
    connection.try_send(&replay());
    connection.wait_for_reset();
    assert_eq!(testbed.causes("session/x1"), ["replay"]);
}

#[test]
fn a_trip_of_any_scope_starts_the_guard_of_its_sessions() {
    require_root!();
    for scope in ["host", "group/g"] {
        let testbed = Testbed::load(&policy(""));
        let receiver = testbed.listen(9001);
        testbed.trip(scope);
        testbed.reset(scope);
        let mut connection = receiver.connect(&testbed);
        connection.try_send(&replay());
        assert_eq!(connection.wait_for_reset().bytes, b"", "{scope}");
        assert_eq!(testbed.causes("session/x1"), ["replay"], "{scope}");
    }
}

#[test]
fn the_flag_is_found_anywhere_in_the_header_and_behind_data() {
    require_root!();
    let (testbed, receiver) = guarded_session("");
    let long = "x".repeat(3_000);
    for fields in [
        format!("43=Y|{HEAD}{BODY}"),
        format!("{HEAD}43=Y|{BODY}"),
        format!("49=FIRM|56=VENUE|50=A|57=B|142=C|143=D|43=Y|34=7|97=Y|52=20261122-09:30:00.000|{BODY}"),
        format!("{HEAD}97=N|115=N|43=Y|{BODY}"),
        format!("{HEAD}95=10|96=x|43=N|y|z|43=Y|{BODY}"),
        format!("{HEAD}90=3|91=43=|43=Y|{BODY}"),
        format!("{HEAD}95=0|43=Y|{BODY}"),
        format!("{HEAD}95=0|96=|43=Y|{BODY}"),
        format!("{HEAD}95=0003000|96={long}|43=Y|{BODY}"),
        format!("{HEAD}50={long}|43=Y|{BODY}"),
        format!("{HEAD}50={}|43=Y|{BODY}", &long[..29]),
        format!("{HEAD}50={}|43=Y|{BODY}", &long[..28]),
        // A flag behind the body, where no header field may be.
        format!("{HEAD}{BODY}43=Y|"),
    ] {
        let mut connection = receiver.connect(&testbed);
        connection.try_send(&message_of_type("D", &fields));
        assert_eq!(connection.wait_for_reset().count("D"), 0, "{fields}");
        assert_eq!(testbed.causes("session/x1"), ["replay"], "{fields}");
        testbed.reset("session/x1");
    }
}

#[test]
fn the_flag_is_found_however_the_message_is_cut() {
    require_root!();
    let (testbed, receiver) = guarded_session("");
    for message in [
        replay(),
        message_of_type("D", &format!("43=Y|{HEAD}")),
        message_of_type("D", "95=9|96=|43=N|58=|43=Y|11=R-1|"),
    ] {
        let end = flag_end(&message);
        for cut in 1..message.len() {
            let mut connection = receiver.connect(&testbed);
            // Without the complete flag the message is not known to be a replay.
            let crosses = if cut < end { &message[..cut] } else { b"" };
            if crosses.is_empty() {
                connection.try_send(&message[..cut]);
            } else {
                connection.send_and_wait(crosses);
                connection.try_send(&message[cut..]);
            }
            assert_eq!(connection.wait_for_reset().bytes, crosses, "cut at {cut} of {}", message.len());
            assert_eq!(testbed.causes("session/x1"), ["replay"], "cut at {cut}");
            testbed.reset("session/x1");
        }
        // One byte in each segment; and the flag in a segment of its own.
        let mut connection = receiver.connect(&testbed);
        message[..end - 1].iter().for_each(|byte| connection.send_and_wait(&[*byte]));
        connection.try_send(&message[end - 1..end]);
        assert_eq!(connection.wait_for_reset().bytes, message[..end - 1]);
        testbed.reset("session/x1");
        let mut connection = receiver.connect(&testbed);
        connection.send_and_wait(&message[..end - 5]);
        connection.try_send(&message[end - 5..end]);
        assert_eq!(connection.wait_for_reset().bytes, message[..end - 5]);
        assert_eq!(testbed.causes("session/x1"), ["replay"]);
        testbed.reset("session/x1");
    }
}

#[test]
fn bytes_that_only_look_like_the_flag_pass() {
    require_root!();
    let (testbed, receiver) = guarded_session("");
    let mut connection = receiver.connect(&testbed);
    let (mut sent, decoy) = (0, "x|43=Y|y");
    let mut looks = vec![
        format!("{HEAD}43=N|{BODY}"),
        format!("{HEAD}43=|{BODY}"),
        format!("{HEAD}97=Y|{BODY}"),
        format!("{HEAD}143=Y|{BODY}"),
        format!("{HEAD}430=Y|{BODY}"),
        format!("{HEAD}{BODY}58=43=Y|"),
        format!("{HEAD}{BODY}58= 43=Y|"),
        format!("{HEAD}43=N|95=8|96={decoy}|{BODY}"),
        // A reader that ends the data at the tag of the decoy would stop here.
        format!("{HEAD}{BODY}95=8|96={decoy}|95=8|96={decoy}|"),
    ];
    for (length, data) in
        [(95, 96), (354, 355), (90, 91), (93, 89), (212, 213), (348, 349), (618, 619), (1184, 1185)]
    {
        looks.push(format!("{HEAD}{BODY}{length}=8|{data}={decoy}|"));
        looks.push(format!("{length}=8|{data}={decoy}|{HEAD}{BODY}"));
    }
    for fields in &looks {
        connection.send_and_wait(&message_of_type("D", fields));
        sent += 1;
        assert_eq!((testbed.counters(1).passed[0], connection.received().end), (sent, End::Open), "{fields}");
    }
    // However the message is cut.
    for fields in [format!("49=F|95=8|96={decoy}|11=R-1|"), "49=F|58=43=Y|11=R-1|".to_owned()] {
        let message = message_of_type("D", &fields);
        for cut in 1..message.len() {
            connection.send_and_wait(&message[..cut]);
            connection.send_and_wait(&message[cut..]);
            sent += 1;
        }
        message.iter().for_each(|byte| connection.send_and_wait(&[*byte]));
        sent += 1;
    }
    let counters = testbed.counters(1);
    assert_eq!((counters.passed, counters.desyncs), ([sent, 0, 0, 0, 0], 0));
    assert_eq!((testbed.causes("session/x1"), testbed.events_of_kind("replayed").len()), (vec![], 0));
}

#[test]
fn cancels_and_other_messages_may_be_replayed() {
    require_root!();
    let (testbed, receiver) = guarded_session("classes = { U1 = \"query\", U2 = \"order\", 8 = \"order\" }");
    let mut connection = receiver.connect(&testbed);
    let dup = format!("{HEAD}43=Y|{BODY}");
    for msg_type in ["F", "q", "A", "0", "2", "4", "H", "R", "AE", "U1"] {
        connection.send_and_wait(&message_of_type(msg_type, &dup));
    }
    // A mass action has its class by type, whatever its flag.
    for fields in [format!("{dup}1373=1|"), format!("{dup}1373=3|"), format!("1373=3|{dup}")] {
        connection.send_and_wait(&message_of_type("CA", &fields));
    }
    assert_eq!((testbed.counters(1).passed, testbed.causes("session/x1")), ([0, 5, 2, 2, 4], vec![]));
    for (msg_type, fields) in [
        ("D", dup.clone()),
        ("G", dup.clone()),
        ("E", dup.clone()),
        ("AB", dup.clone()),
        ("U7", dup.clone()),
        ("U2", dup.clone()),
        ("8", dup.clone()),
        ("CA", dup.clone()),
        ("CA", format!("{dup}1373=2|")),
        ("CA", format!("1373=2|{dup}")),
    ] {
        let mut connection = receiver.connect(&testbed);
        connection.try_send(&message_of_type(msg_type, &fields));
        assert_eq!(connection.wait_for_reset().bytes, b"", "{msg_type} {fields}");
        assert_eq!(testbed.causes("session/x1"), ["replay"], "{msg_type} {fields}");
        testbed.reset("session/x1");
    }
}

#[test]
fn one_replay_among_many_orders_is_enough() {
    require_root!();
    let (testbed, receiver) = guarded_session("");
    // More messages than the walk parses at a time, in segments of any size.
    let many = first_sent().repeat(400);
    for at in [0, 1, 63, 64, 65, 200, 400] {
        let mut connection = receiver.connect(&testbed);
        let (before, behind) = many.split_at(at * first_sent().len());
        connection.try_send(&[before, &replay(), behind].concat());
        let received = connection.wait_for_reset();
        assert!(before.starts_with(&received.bytes), "behind {at}: {} bytes came", received.bytes.len());
        assert_eq!(testbed.causes("session/x1"), ["replay"], "behind {at}");
        testbed.reset("session/x1");
    }
    let mut connection = receiver.connect(&testbed);
    connection.send_and_wait(&many);
    assert_eq!(testbed.causes("session/x1"), [""; 0]);
}

#[test]
fn before_any_trip_a_replay_is_an_ordinary_order() {
    require_root!();
    let testbed = Testbed::load(&policy("limits = [{ class = \"order\", max = 2, per = \"total\" }]"));
    let receiver = testbed.listen(9001);
    let mut connection = receiver.connect(&testbed);
    connection.send_and_wait(&replay());
    connection.send_and_wait(&replay());
    assert_eq!((testbed.counters(1).passed[0], testbed.events_of_kind("replayed").len()), (2, 0));
    connection.try_send(&replay());
    connection.wait_for_reset();
    assert_eq!(testbed.causes("session/x1"), ["rate"]);
    // While tripped, a replay is an order like any other.
    let mut connection = receiver.connect(&testbed);
    connection.try_send(&replay());
    connection.wait_for_reset();
    assert_eq!(testbed.causes("session/x1"), ["rate"]);
}

#[test]
fn replays_pass_if_the_policy_allows_them() {
    require_root!();
    let (testbed, receiver) = guarded_session("possdup = \"pass\"");
    let mut connection = receiver.connect(&testbed);
    connection.send_and_wait(&replay());
    trip_and_reset(&testbed);
    let mut connection = receiver.connect(&testbed);
    connection.send_and_wait(&replay());
    assert_eq!(
        (
            testbed.counters(1).passed[0],
            testbed.causes("session/x1"),
            testbed.events_of_kind("replayed").len()
        ),
        (2, vec![], 0)
    );
}

#[test]
fn a_replay_of_a_disarmed_session_passes_with_an_event() {
    require_root!();
    let (testbed, receiver) = guarded_session("armed = false");
    let mut connection = receiver.connect(&testbed);
    connection.send_and_wait(&replay());
    connection.send_and_wait(&first_sent());
    connection.send_and_wait(&replay());
    assert_eq!((testbed.counters(1).passed[0], testbed.causes("session/x1")), (3, vec![]));
    let replayed = testbed.events_of_kind("replayed");
    assert_eq!((replayed.len(), &replayed[1]["counts"]["session"]), (2, &"x1".into()));
    testbed.switch("arm", "session/x1").expect_exit(0);
    connection.try_send(&replay());
    connection.wait_for_reset();
    assert_eq!(testbed.causes("session/x1"), ["replay"]);
}

#[test]
fn at_a_shared_endpoint_the_guard_is_that_of_the_session_of_the_logon() {
    require_root!();
    let of_session = |name: &str, keys: &str| {
        format!("[[session]]\nname = \"{name}\"\nremote = \"10.9.0.2:9001\"\nsender = \"{name}\"\n{keys}\n")
    };
    let testbed = Testbed::load(
        &[of_session("x1", ""), of_session("x2", ""), of_session("x3", "possdup = \"pass\"")].concat(),
    );
    let receiver = testbed.listen(9001);
    for session in ["x1", "x3"] {
        testbed.trip(&format!("session/{session}"));
        testbed.reset(&format!("session/{session}"));
    }
    let logon = |name: &str| message_of_type("A", &format!("49={name}|56=VENUE|34=1|"));
    let own = |name: &str| message_of_type("D", &format!("43=Y|49={name}|56=VENUE|34=1|{BODY}"));
    for (name, passes) in [("x1", false), ("x2", true), ("x3", true), ("nobody", true)] {
        // In the segment of the Logon, in the one behind it, and in place of the Logon, whole and cut.
        let first = own(name);
        for pieces in [
            vec![[logon(name), replay()].concat()],
            vec![logon(name), replay()],
            vec![first.clone()],
            vec![first[..flag_end(&first)].to_vec(), first[flag_end(&first)..].to_vec()],
        ] {
            let mut connection = receiver.connect(&testbed);
            let (last, before) = pieces.split_last().expect("pieces");
            before.iter().for_each(|piece| connection.send_and_wait(piece));
            if passes {
                connection.send_and_wait(last);
            } else {
                connection.try_send(last);
                assert_eq!(
                    connection.wait_for_reset().bytes,
                    before.concat(),
                    "{name}, {} pieces",
                    pieces.len()
                );
                assert_eq!(testbed.causes("session/x1"), ["replay"], "{name}, {} pieces", pieces.len());
                testbed.reset("session/x1");
            }
            assert_eq!(testbed.causes("session/x1"), [""; 0], "{name}, {} pieces", pieces.len());
        }
    }
    assert_eq!([0, 1, 2, 3].map(|session| testbed.counters(session).passed[0]), [4, 0, 4, 4]);
}

#[test]
fn a_new_day_ends_the_guard_unless_the_session_is_tripped() {
    require_root!();
    let (testbed, receiver) = guarded_session("");
    testbed.trip("session/x1");
    testbed.with_breaker(|breaker| breaker.start_trading_day().expect("a new day"));
    testbed.reset("session/x1");
    let mut connection = receiver.connect(&testbed);
    connection.try_send(&replay());
    connection.wait_for_reset();
    assert_eq!(testbed.causes("session/x1"), ["replay"], "it was tripped at midnight");
    testbed.reset("session/x1");
    testbed.with_breaker(|breaker| breaker.start_trading_day().expect("a new day"));
    receiver.connect(&testbed).send_and_wait(&replay());
    assert!(testbed.causes("session/x1").is_empty());
    // A trip on the new day starts the guard again.
    trip_and_reset(&testbed);
    let mut connection = receiver.connect(&testbed);
    connection.try_send(&replay());
    connection.wait_for_reset();
    assert_eq!(testbed.causes("session/x1"), ["replay"]);
}
