//! The replay guard: orders that an engine sends again after a trip, marked by PossDupFlag(43).

use breaker_tests::frame::message_with_body;
use breaker_tests::receiver::{End, Receiver, TcpConnection};
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use breaker_user::testbed::TwoHosts;
use serde_json::Value;

/// Two sessions, the first with these keys.
fn policy(keys: &str) -> String {
    format!(
        "[[group]]\nname = \"g\"\n[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\ngroups = [\"g\"]\n{keys}\n\
         [[session]]\nname = \"x2\"\nremote = \"10.9.0.2:9002\"\n"
    )
}

fn listen(testbed: &Testbed) -> Receiver {
    Receiver::listen(&testbed.network.venue, TwoHosts::venue_socket(9001))
}

/// A testbed whose first session was tripped and reset, and the venue's end of that session.
fn guarded(keys: &str) -> (Testbed, Receiver) {
    let testbed = Testbed::load(&policy(keys));
    let receiver = listen(&testbed);
    again(&testbed);
    (testbed, receiver)
}

/// Trips and resets the session again, unless it is tripped.
fn again(testbed: &Testbed) {
    testbed.trip("session/x1");
    testbed.reset("session/x1");
}

fn connect<'a>(testbed: &Testbed, receiver: &'a Receiver) -> TcpConnection<'a> {
    receiver.connect(&testbed.network.firm)
}

/// The start of a header, and the body of an order.
const HEAD: &str = "49=FIRM|56=VENUE|34=7|52=20261122-09:30:00.000|";
const BODY: &str = "11=R-1|21=1|55=IBM|54=1|38=100|40=2|44=101.25|";

/// A message with these fields behind MsgType(35).
fn of(msg_type: &str, fields: &str) -> Vec<u8> {
    message_with_body(&format!("35={msg_type}|{fields}"))
}

/// An order that is sent for the first time; and below, a replay of it.
fn fresh() -> Vec<u8> {
    of("D", &format!("{HEAD}{BODY}"))
}

fn replay() -> Vec<u8> {
    of("D", &format!("49=FIRM|56=VENUE|34=7|43=Y|52=20261122-09:30:00.000|122=20261122-09:29:00.000|{BODY}"))
}

/// Causes of the first session's trip.
fn causes(testbed: &Testbed) -> Vec<&'static str> {
    testbed.status().scopes.into_iter().find(|scope| scope.scope == "session/x1").expect("the scope").causes
}

/// Events of a kind.
fn told(testbed: &Testbed, kind: &str) -> Vec<Value> {
    testbed.events().into_iter().filter(|line| line["kind"] == kind).collect()
}

/// Offset behind the field of the flag.
fn behind_flag(message: &[u8]) -> usize {
    message.windows(6).position(|window| window == b"\x0143=Y\x01").expect("the flag") + 6
}

#[test]
fn a_replayed_order_is_withheld_and_trips_its_session_again() {
    require_root!();
    let (testbed, receiver) = guarded("");
    let mut line = connect(&testbed, &receiver);
    line.send_and_wait(&fresh());
    line.try_send(&replay());
    assert_eq!(line.wait_for_reset().bytes, fresh());
    let counters = testbed.counters(1);
    assert_eq!((counters.passed, counters.withheld), ([1, 0, 0, 0, 0], [1, 0, 0, 0, 0]));
    assert_eq!((causes(&testbed), testbed.status().packets["replay"]), (vec!["replay"], 1));
    let (replayed, tripped) = (told(&testbed, "replayed"), told(&testbed, "tripped"));
    assert_eq!((replayed.len(), &replayed[0]["scope"]), (1, &"session/x1".into()));
    assert_eq!(
        (tripped.len(), &tripped[1]["cause"], &tripped[1]["scope"]),
        (2, &"replay".into(), &"session/x1".into())
    );
    // The trip is latched as any other, and does not affect the other session.
    let mut line = connect(&testbed, &receiver);
    line.try_send(&fresh());
    assert_eq!(line.wait_for_reset().bytes, b"");
    let other = Receiver::listen(&testbed.network.venue, TwoHosts::venue_socket(9002));
    other.connect(&testbed.network.firm).send_and_wait(&replay());
    // The guard lasts after a reset.
    testbed.reset("session/x1");
    let mut line = connect(&testbed, &receiver);
    line.send_and_wait(&fresh());
    line.try_send(&replay());
    line.wait_for_reset();
    assert_eq!(causes(&testbed), ["replay"]);
}

#[test]
fn any_scopes_trip_puts_its_sessions_on_guard() {
    require_root!();
    for scope in ["host", "group/g"] {
        let testbed = Testbed::load(&policy(""));
        let receiver = listen(&testbed);
        testbed.trip(scope);
        testbed.reset(scope);
        let mut line = connect(&testbed, &receiver);
        line.try_send(&replay());
        assert_eq!(line.wait_for_reset().bytes, b"", "{scope}");
        assert_eq!(causes(&testbed), ["replay"], "{scope}");
    }
}

#[test]
fn the_flag_is_found_anywhere_in_the_header_and_behind_data() {
    require_root!();
    let (testbed, receiver) = guarded("");
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
        let mut line = connect(&testbed, &receiver);
        line.try_send(&of("D", &fields));
        assert_eq!(line.wait_for_reset().count("D"), 0, "{fields}");
        assert_eq!(causes(&testbed), ["replay"], "{fields}");
        testbed.reset("session/x1");
    }
}

#[test]
fn the_flag_is_found_however_the_message_is_cut() {
    require_root!();
    let (testbed, receiver) = guarded("");
    for message in [replay(), of("D", &format!("43=Y|{HEAD}")), of("D", "95=9|96=|43=N|58=|43=Y|11=R-1|")] {
        let end = behind_flag(&message);
        for cut in 1..message.len() {
            let mut line = connect(&testbed, &receiver);
            // Without the complete flag the message is not known to be a replay.
            let crosses = if cut < end { &message[..cut] } else { b"" };
            if crosses.is_empty() {
                line.try_send(&message[..cut]);
            } else {
                line.send_and_wait(crosses);
                line.try_send(&message[cut..]);
            }
            assert_eq!(line.wait_for_reset().bytes, crosses, "cut at {cut} of {}", message.len());
            assert_eq!(causes(&testbed), ["replay"], "cut at {cut}");
            testbed.reset("session/x1");
        }
        // One byte in each segment; and the flag in a segment of its own.
        let mut line = connect(&testbed, &receiver);
        message[..end - 1].iter().for_each(|byte| line.send_and_wait(&[*byte]));
        line.try_send(&message[end - 1..end]);
        assert_eq!(line.wait_for_reset().bytes, message[..end - 1]);
        testbed.reset("session/x1");
        let mut line = connect(&testbed, &receiver);
        line.send_and_wait(&message[..end - 5]);
        line.try_send(&message[end - 5..end]);
        assert_eq!(line.wait_for_reset().bytes, message[..end - 5]);
        assert_eq!(causes(&testbed), ["replay"]);
        testbed.reset("session/x1");
    }
}

#[test]
fn what_only_looks_like_the_flag_passes() {
    require_root!();
    let (testbed, receiver) = guarded("");
    let mut line = connect(&testbed, &receiver);
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
        line.send_and_wait(&of("D", fields));
        sent += 1;
        assert_eq!((testbed.counters(1).passed[0], line.received().end), (sent, End::Open), "{fields}");
    }
    // However the message is cut.
    for fields in [format!("49=F|95=8|96={decoy}|11=R-1|"), "49=F|58=43=Y|11=R-1|".to_owned()] {
        let message = of("D", &fields);
        for cut in 1..message.len() {
            line.send_and_wait(&message[..cut]);
            line.send_and_wait(&message[cut..]);
            sent += 1;
        }
        message.iter().for_each(|byte| line.send_and_wait(&[*byte]));
        sent += 1;
    }
    let counters = testbed.counters(1);
    assert_eq!((counters.passed, counters.desyncs), ([sent, 0, 0, 0, 0], 0));
    assert_eq!((causes(&testbed), told(&testbed, "replayed").len()), (vec![], 0));
}

#[test]
fn cancels_and_all_that_is_no_order_may_be_repeated() {
    require_root!();
    let (testbed, receiver) = guarded("classes = { U1 = \"query\", U2 = \"order\", 8 = \"order\" }");
    let mut line = connect(&testbed, &receiver);
    let dup = format!("{HEAD}43=Y|{BODY}");
    for msg_type in ["F", "q", "A", "0", "2", "4", "H", "R", "AE", "U1"] {
        line.send_and_wait(&of(msg_type, &dup));
    }
    // A mass action has its class by type, whatever its flag.
    for fields in [format!("{dup}1373=1|"), format!("{dup}1373=3|"), format!("1373=3|{dup}")] {
        line.send_and_wait(&of("CA", &fields));
    }
    assert_eq!((testbed.counters(1).passed, causes(&testbed)), ([0, 5, 2, 2, 4], vec![]));
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
        let mut line = connect(&testbed, &receiver);
        line.try_send(&of(msg_type, &fields));
        assert_eq!(line.wait_for_reset().bytes, b"", "{msg_type} {fields}");
        assert_eq!(causes(&testbed), ["replay"], "{msg_type} {fields}");
        testbed.reset("session/x1");
    }
}

#[test]
fn one_replay_among_many_orders_is_enough() {
    require_root!();
    let (testbed, receiver) = guarded("");
    // More messages than the walk parses at a time, in segments of any size.
    let many = fresh().repeat(400);
    for at in [0, 1, 63, 64, 65, 200, 400] {
        let mut line = connect(&testbed, &receiver);
        let (before, behind) = many.split_at(at * fresh().len());
        line.try_send(&[before, &replay(), behind].concat());
        let came = line.wait_for_reset();
        assert!(before.starts_with(&came.bytes), "behind {at}: {} bytes came", came.bytes.len());
        assert_eq!(causes(&testbed), ["replay"], "behind {at}");
        testbed.reset("session/x1");
    }
    let mut line = connect(&testbed, &receiver);
    line.send_and_wait(&many);
    assert_eq!(causes(&testbed), [""; 0]);
}

#[test]
fn before_any_trip_a_replay_is_an_order_like_any() {
    require_root!();
    let testbed = Testbed::load(&policy("limits = [{ class = \"order\", max = 2, per = \"total\" }]"));
    let receiver = listen(&testbed);
    let mut line = connect(&testbed, &receiver);
    line.send_and_wait(&replay());
    line.send_and_wait(&replay());
    assert_eq!((testbed.counters(1).passed[0], told(&testbed, "replayed").len()), (2, 0));
    line.try_send(&replay());
    line.wait_for_reset();
    assert_eq!(causes(&testbed), ["rate"]);
    // While tripped, a replay is an order like any other.
    let mut line = connect(&testbed, &receiver);
    line.try_send(&replay());
    line.wait_for_reset();
    assert_eq!(causes(&testbed), ["rate"]);
}

#[test]
fn where_the_policy_lets_replays_pass_they_pass() {
    require_root!();
    let (testbed, receiver) = guarded("possdup = \"pass\"");
    let mut line = connect(&testbed, &receiver);
    line.send_and_wait(&replay());
    again(&testbed);
    let mut line = connect(&testbed, &receiver);
    line.send_and_wait(&replay());
    assert_eq!(
        (testbed.counters(1).passed[0], causes(&testbed), told(&testbed, "replayed").len()),
        (2, vec![], 0)
    );
}

#[test]
fn of_a_disarmed_session_a_replay_is_told_and_passes() {
    require_root!();
    let (testbed, receiver) = guarded("armed = false");
    let mut line = connect(&testbed, &receiver);
    line.send_and_wait(&replay());
    line.send_and_wait(&fresh());
    line.send_and_wait(&replay());
    assert_eq!((testbed.counters(1).passed[0], causes(&testbed)), (3, vec![]));
    let replayed = told(&testbed, "replayed");
    assert_eq!((replayed.len(), &replayed[1]["counts"]["session"]), (2, &"x1".into()));
    testbed.switch("arm", "session/x1").expect_exit(0);
    line.try_send(&replay());
    line.wait_for_reset();
    assert_eq!(causes(&testbed), ["replay"]);
}

#[test]
fn at_a_shared_endpoint_the_guard_is_that_of_the_session_that_the_logon_names() {
    require_root!();
    let of_session = |name: &str, keys: &str| {
        format!("[[session]]\nname = \"{name}\"\nremote = \"10.9.0.2:9001\"\nsender = \"{name}\"\n{keys}\n")
    };
    let testbed = Testbed::load(
        &[of_session("x1", ""), of_session("x2", ""), of_session("x3", "possdup = \"pass\"")].concat(),
    );
    let receiver = listen(&testbed);
    for session in ["x1", "x3"] {
        testbed.trip(&format!("session/{session}"));
        testbed.reset(&format!("session/{session}"));
    }
    let logon = |name: &str| of("A", &format!("49={name}|56=VENUE|34=1|"));
    let own = |name: &str| of("D", &format!("43=Y|49={name}|56=VENUE|34=1|{BODY}"));
    for (name, passes) in [("x1", false), ("x2", true), ("x3", true), ("nobody", true)] {
        // In the segment of the Logon, in the one behind it, and in place of the Logon, whole and cut.
        let first = own(name);
        for pieces in [
            vec![[logon(name), replay()].concat()],
            vec![logon(name), replay()],
            vec![first.clone()],
            vec![first[..behind_flag(&first)].to_vec(), first[behind_flag(&first)..].to_vec()],
        ] {
            let mut line = connect(&testbed, &receiver);
            let (last, before) = pieces.split_last().expect("pieces");
            before.iter().for_each(|piece| line.send_and_wait(piece));
            if passes {
                line.send_and_wait(last);
            } else {
                line.try_send(last);
                assert_eq!(line.wait_for_reset().bytes, before.concat(), "{name}, {} pieces", pieces.len());
                assert_eq!(causes(&testbed), ["replay"], "{name}, {} pieces", pieces.len());
                testbed.reset("session/x1");
            }
            assert_eq!(causes(&testbed), [""; 0], "{name}, {} pieces", pieces.len());
        }
    }
    assert_eq!([0, 1, 2, 3].map(|session| testbed.counters(session).passed[0]), [4, 0, 4, 4]);
}

#[test]
fn a_new_day_forgives_what_was_reset_and_not_what_is_still_tripped() {
    require_root!();
    let (testbed, receiver) = guarded("");
    testbed.trip("session/x1");
    testbed.with_breaker(|breaker| breaker.start_trading_day().expect("a new day"));
    testbed.reset("session/x1");
    let mut line = connect(&testbed, &receiver);
    line.try_send(&replay());
    line.wait_for_reset();
    assert_eq!(causes(&testbed), ["replay"], "it was tripped at midnight");
    testbed.reset("session/x1");
    testbed.with_breaker(|breaker| breaker.start_trading_day().expect("a new day"));
    connect(&testbed, &receiver).send_and_wait(&replay());
    assert!(causes(&testbed).is_empty());
    // A trip on the new day starts the guard again.
    again(&testbed);
    let mut line = connect(&testbed, &receiver);
    line.try_send(&replay());
    line.wait_for_reset();
    assert_eq!(causes(&testbed), ["replay"]);
}
