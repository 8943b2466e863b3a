//! The replay guard on the wire: orders that an engine sends again after a trip, told by PossDupFlag(43).

use breaker_tests::frame::spelt;
use breaker_tests::privileged;
use breaker_tests::rig::Rig;
use breaker_tests::sink::{End, Line, Sink};
use breaker_user::testbed::TwoHosts;
use serde_json::Value;

/// Two sessions, the first with these keys.
fn policy(keys: &str) -> String {
    format!(
        "[[group]]\nname = \"g\"\n[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\ngroups = [\"g\"]\n{keys}\n\
         [[session]]\nname = \"x2\"\nremote = \"10.9.0.2:9002\"\n"
    )
}

fn listen(rig: &Rig) -> Sink {
    Sink::listen(&rig.wire.venue, TwoHosts::venue_socket(9001))
}

/// A rig whose first session has tripped and was reset, and the venue's end of that session.
fn guarded(keys: &str) -> (Rig, Sink) {
    let rig = Rig::new(&policy(keys));
    let sink = listen(&rig);
    again(&rig);
    (rig, sink)
}

/// Trips and resets once more, where it is not tripped.
fn again(rig: &Rig) {
    rig.trip("session/x1");
    rig.reset("session/x1");
}

fn connect<'a>(rig: &Rig, sink: &'a Sink) -> Line<'a> {
    sink.connect(&rig.wire.firm)
}

/// The start of a header, and the body of an order.
const HEAD: &str = "49=FIRM|56=VENUE|34=7|52=20261122-09:30:00.000|";
const BODY: &str = "11=R-1|21=1|55=IBM|54=1|38=100|40=2|44=101.25|";

/// A message with these fields behind MsgType(35).
fn of(msg_type: &str, fields: &str) -> Vec<u8> {
    spelt(&format!("35={msg_type}|{fields}"))
}

/// An order as it is when it is sent for the first time, and as a replay.
fn fresh() -> Vec<u8> {
    of("D", &format!("{HEAD}{BODY}"))
}

fn replay() -> Vec<u8> {
    of("D", &format!("49=FIRM|56=VENUE|34=7|43=Y|52=20261122-09:30:00.000|122=20261122-09:29:00.000|{BODY}"))
}

/// Why the first session is tripped.
fn causes(rig: &Rig) -> Vec<&'static str> {
    rig.status().scopes.into_iter().find(|scope| scope.scope == "session/x1").expect("the scope").causes
}

/// What was told of a kind.
fn told(rig: &Rig, kind: &str) -> Vec<Value> {
    rig.told().into_iter().filter(|line| line["kind"] == kind).collect()
}

/// Where the flag's field ends.
fn behind_flag(message: &[u8]) -> usize {
    message.windows(6).position(|window| window == b"\x0143=Y\x01").expect("the flag") + 6
}

#[test]
fn a_replayed_order_is_withheld_and_trips_its_session_again() {
    if !privileged() {
        return;
    }
    let (rig, sink) = guarded("");
    let mut line = connect(&rig, &sink);
    line.deliver(&fresh());
    line.offer(&replay());
    assert_eq!(line.reset().bytes, fresh());
    let counters = rig.counters(1);
    assert_eq!((counters.passed, counters.withheld), ([1, 0, 0, 0, 0], [1, 0, 0, 0, 0]));
    assert_eq!((causes(&rig), rig.status().packets["replay"]), (vec!["replay"], 1));
    let (replayed, tripped) = (told(&rig, "replayed"), told(&rig, "tripped"));
    assert_eq!((replayed.len(), &replayed[0]["scope"]), (1, &"session/x1".into()));
    assert_eq!(
        (tripped.len(), &tripped[1]["cause"], &tripped[1]["scope"]),
        (2, &"replay".into(), &"session/x1".into())
    );
    // It is latched as any trip, and the other session never noticed.
    let mut line = connect(&rig, &sink);
    line.offer(&fresh());
    assert_eq!(line.reset().bytes, b"");
    let other = Sink::listen(&rig.wire.venue, TwoHosts::venue_socket(9002));
    other.connect(&rig.wire.firm).deliver(&replay());
    // Nor does the guard wear off with the reset.
    rig.reset("session/x1");
    let mut line = connect(&rig, &sink);
    line.deliver(&fresh());
    line.offer(&replay());
    line.reset();
    assert_eq!(causes(&rig), ["replay"]);
}

#[test]
fn any_scopes_trip_puts_its_sessions_on_guard() {
    if !privileged() {
        return;
    }
    for scope in ["host", "group/g"] {
        let rig = Rig::new(&policy(""));
        let sink = listen(&rig);
        rig.trip(scope);
        rig.reset(scope);
        let mut line = connect(&rig, &sink);
        line.offer(&replay());
        assert_eq!(line.reset().bytes, b"", "{scope}");
        assert_eq!(causes(&rig), ["replay"], "{scope}");
    }
}

#[test]
fn the_flag_is_found_anywhere_in_the_header_and_behind_data() {
    if !privileged() {
        return;
    }
    let (rig, sink) = guarded("");
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
        // Where no header field should be.
        format!("{HEAD}{BODY}43=Y|"),
    ] {
        let mut line = connect(&rig, &sink);
        line.offer(&of("D", &fields));
        assert_eq!(line.reset().count("D"), 0, "{fields}");
        assert_eq!(causes(&rig), ["replay"], "{fields}");
        rig.reset("session/x1");
    }
}

#[test]
fn the_flag_is_found_however_the_message_is_cut() {
    if !privileged() {
        return;
    }
    let (rig, sink) = guarded("");
    for message in [replay(), of("D", &format!("43=Y|{HEAD}")), of("D", "95=9|96=|43=N|58=|43=Y|11=R-1|")] {
        let end = behind_flag(&message);
        for cut in 1..message.len() {
            let mut line = connect(&rig, &sink);
            // As long as the flag is not whole, nothing tells.
            let crosses = if cut < end { &message[..cut] } else { b"" };
            if crosses.is_empty() {
                line.offer(&message[..cut]);
            } else {
                line.deliver(crosses);
                line.offer(&message[cut..]);
            }
            assert_eq!(line.reset().bytes, crosses, "cut at {cut} of {}", message.len());
            assert_eq!(causes(&rig), ["replay"], "cut at {cut}");
            rig.reset("session/x1");
        }
        // One byte a segment; and the flag in a segment of its own.
        let mut line = connect(&rig, &sink);
        message[..end - 1].iter().for_each(|byte| line.deliver(&[*byte]));
        line.offer(&message[end - 1..end]);
        assert_eq!(line.reset().bytes, message[..end - 1]);
        rig.reset("session/x1");
        let mut line = connect(&rig, &sink);
        line.deliver(&message[..end - 5]);
        line.offer(&message[end - 5..end]);
        assert_eq!(line.reset().bytes, message[..end - 5]);
        assert_eq!(causes(&rig), ["replay"]);
        rig.reset("session/x1");
    }
}

#[test]
fn what_only_looks_like_the_flag_passes() {
    if !privileged() {
        return;
    }
    let (rig, sink) = guarded("");
    let mut line = connect(&rig, &sink);
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
        // One that tells a replay's length from its tag alone would stop here.
        format!("{HEAD}{BODY}95=8|96={decoy}|95=8|96={decoy}|"),
    ];
    for (length, data) in
        [(95, 96), (354, 355), (90, 91), (93, 89), (212, 213), (348, 349), (618, 619), (1184, 1185)]
    {
        looks.push(format!("{HEAD}{BODY}{length}=8|{data}={decoy}|"));
        looks.push(format!("{length}=8|{data}={decoy}|{HEAD}{BODY}"));
    }
    for fields in &looks {
        line.deliver(&of("D", fields));
        sent += 1;
        assert_eq!((rig.counters(1).passed[0], line.received().end), (sent, End::Open), "{fields}");
    }
    // However it is cut.
    for fields in [format!("49=F|95=8|96={decoy}|11=R-1|"), "49=F|58=43=Y|11=R-1|".to_owned()] {
        let message = of("D", &fields);
        for cut in 1..message.len() {
            line.deliver(&message[..cut]);
            line.deliver(&message[cut..]);
            sent += 1;
        }
        message.iter().for_each(|byte| line.deliver(&[*byte]));
        sent += 1;
    }
    let counters = rig.counters(1);
    assert_eq!((counters.passed, counters.desyncs), ([sent, 0, 0, 0, 0], 0));
    assert_eq!((causes(&rig), told(&rig, "replayed").len()), (vec![], 0));
}

#[test]
fn cancels_and_all_that_is_no_order_may_be_repeated() {
    if !privileged() {
        return;
    }
    let (rig, sink) = guarded("classes = { U1 = \"query\", U2 = \"order\", 8 = \"order\" }");
    let mut line = connect(&rig, &sink);
    let dup = format!("{HEAD}43=Y|{BODY}");
    for msg_type in ["F", "q", "A", "0", "2", "4", "H", "R", "AE", "U1"] {
        line.deliver(&of(msg_type, &dup));
    }
    // A mass action is what it does, wherever its flag stands.
    for fields in [format!("{dup}1373=1|"), format!("{dup}1373=3|"), format!("1373=3|{dup}")] {
        line.deliver(&of("CA", &fields));
    }
    assert_eq!((rig.counters(1).passed, causes(&rig)), ([0, 5, 2, 2, 4], vec![]));
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
        let mut line = connect(&rig, &sink);
        line.offer(&of(msg_type, &fields));
        assert_eq!(line.reset().bytes, b"", "{msg_type} {fields}");
        assert_eq!(causes(&rig), ["replay"], "{msg_type} {fields}");
        rig.reset("session/x1");
    }
}

#[test]
fn one_replay_among_many_orders_is_enough() {
    if !privileged() {
        return;
    }
    let (rig, sink) = guarded("");
    // More messages than the walk takes at a time, in segments of any size.
    let many = fresh().repeat(400);
    for at in [0, 1, 63, 64, 65, 200, 400] {
        let mut line = connect(&rig, &sink);
        let (before, behind) = many.split_at(at * fresh().len());
        line.offer(&[before, &replay(), behind].concat());
        let came = line.reset();
        assert!(before.starts_with(&came.bytes), "behind {at}: {} bytes came", came.bytes.len());
        assert_eq!(causes(&rig), ["replay"], "behind {at}");
        rig.reset("session/x1");
    }
    let mut line = connect(&rig, &sink);
    line.deliver(&many);
    assert_eq!(causes(&rig), [""; 0]);
}

#[test]
fn before_any_trip_a_replay_is_an_order_like_any() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(&policy("limits = [{ class = \"order\", max = 2, per = \"total\" }]"));
    let sink = listen(&rig);
    let mut line = connect(&rig, &sink);
    line.deliver(&replay());
    line.deliver(&replay());
    assert_eq!((rig.counters(1).passed[0], told(&rig, "replayed").len()), (2, 0));
    line.offer(&replay());
    line.reset();
    assert_eq!(causes(&rig), ["rate"]);
    // While it is tripped, a replay is an order like any too.
    let mut line = connect(&rig, &sink);
    line.offer(&replay());
    line.reset();
    assert_eq!(causes(&rig), ["rate"]);
}

#[test]
fn where_the_policy_lets_replays_pass_they_pass() {
    if !privileged() {
        return;
    }
    let (rig, sink) = guarded("possdup = \"pass\"");
    let mut line = connect(&rig, &sink);
    line.deliver(&replay());
    again(&rig);
    let mut line = connect(&rig, &sink);
    line.deliver(&replay());
    assert_eq!((rig.counters(1).passed[0], causes(&rig), told(&rig, "replayed").len()), (2, vec![], 0));
}

#[test]
fn of_a_disarmed_session_a_replay_is_told_and_passes() {
    if !privileged() {
        return;
    }
    let (rig, sink) = guarded("armed = false");
    let mut line = connect(&rig, &sink);
    line.deliver(&replay());
    line.deliver(&fresh());
    line.deliver(&replay());
    assert_eq!((rig.counters(1).passed[0], causes(&rig)), (3, vec![]));
    let replayed = told(&rig, "replayed");
    assert_eq!((replayed.len(), &replayed[1]["counts"]["session"]), (2, &"x1".into()));
    let ran = rig.cli(&["arm", "session/x1", "--reason", "test"]);
    assert!(ran.status.success());
    line.offer(&replay());
    line.reset();
    assert_eq!(causes(&rig), ["replay"]);
}

#[test]
fn at_a_shared_endpoint_the_guard_is_that_of_the_session_that_the_logon_names() {
    if !privileged() {
        return;
    }
    let of_session = |name: &str, keys: &str| {
        format!("[[session]]\nname = \"{name}\"\nremote = \"10.9.0.2:9001\"\nsender = \"{name}\"\n{keys}\n")
    };
    let rig = Rig::new(
        &[of_session("x1", ""), of_session("x2", ""), of_session("x3", "possdup = \"pass\"")].concat(),
    );
    let sink = listen(&rig);
    for session in ["x1", "x3"] {
        rig.trip(&format!("session/{session}"));
        rig.reset(&format!("session/{session}"));
    }
    let logon = |name: &str| of("A", &format!("49={name}|56=VENUE|34=1|"));
    let own = |name: &str| of("D", &format!("43=Y|49={name}|56=VENUE|34=1|{BODY}"));
    for (name, passes) in [("x1", false), ("x2", true), ("x3", true), ("nobody", true)] {
        // In the Logon's own segment, in one behind it, and, whatever a venue makes of that, instead of it, whole and cut.
        let first = own(name);
        for pieces in [
            vec![[logon(name), replay()].concat()],
            vec![logon(name), replay()],
            vec![first.clone()],
            vec![first[..behind_flag(&first)].to_vec(), first[behind_flag(&first)..].to_vec()],
        ] {
            let mut line = connect(&rig, &sink);
            let (last, before) = pieces.split_last().expect("pieces");
            before.iter().for_each(|piece| line.deliver(piece));
            if passes {
                line.deliver(last);
            } else {
                line.offer(last);
                assert_eq!(line.reset().bytes, before.concat(), "{name}, {} pieces", pieces.len());
                assert_eq!(causes(&rig), ["replay"], "{name}, {} pieces", pieces.len());
                rig.reset("session/x1");
            }
            assert_eq!(causes(&rig), [""; 0], "{name}, {} pieces", pieces.len());
        }
    }
    assert_eq!([0, 1, 2, 3].map(|session| rig.counters(session).passed[0]), [4, 0, 4, 4]);
}

#[test]
fn a_new_day_forgives_what_was_reset_and_not_what_is_still_tripped() {
    if !privileged() {
        return;
    }
    let (rig, sink) = guarded("");
    rig.trip("session/x1");
    rig.breaker(|breaker| breaker.start_trading_day().expect("a new day"));
    rig.reset("session/x1");
    let mut line = connect(&rig, &sink);
    line.offer(&replay());
    line.reset();
    assert_eq!(causes(&rig), ["replay"], "it was tripped at midnight");
    rig.reset("session/x1");
    rig.breaker(|breaker| breaker.start_trading_day().expect("a new day"));
    connect(&rig, &sink).deliver(&replay());
    assert!(causes(&rig).is_empty());
    // What trips on the new day puts it on guard again.
    again(&rig);
    let mut line = connect(&rig, &sink);
    line.offer(&replay());
    line.reset();
    assert_eq!(causes(&rig), ["replay"]);
}
