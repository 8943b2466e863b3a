//! Sessions at a shared endpoint, identified by the CompIDs of each connection's first message.

use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use breaker_common::abi::Counters;
use breaker_tests::frame::message_with_body;
use breaker_tests::gateway::{Hook, Inline, Offloads};
use breaker_tests::receiver::{End, Receiver, TcpConnection};
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use breaker_user::kernel::load;

const REMOTE: &str = "10.9.0.2:9001";
/// Numbers of the sessions of [`TWO`], behind that of undeclared flows.
const UNDECLARED: usize = 0;
const A: usize = 1;
const B: usize = 2;

/// Two sessions at one endpoint.
const TWO: &str = r#"
[[session]]
name = "a"
remote = "10.9.0.2:9001"
sender = "DESK-A"
target = "VENUE"
[[session]]
name = "b"
remote = "10.9.0.2:9001"
sender = "DESK-B"
target = "VENUE"
"#;

/// [`TWO`] with these keys for `a`.
fn two_sessions(keys: &str) -> String {
    TWO.replacen("sender", &format!("{keys}\nsender"), 1)
}

fn at(remote: &str) -> SocketAddr {
    remote.parse().expect("an address")
}

/// A testbed, and the venue's end.
fn testbed(policy: &str) -> (Testbed, Receiver) {
    let testbed = Testbed::load(policy);
    let receiver = testbed.listen_at(at(REMOTE));
    (testbed, receiver)
}

/// A Logon with this header behind MsgType(35).
fn logon(header: &str) -> Vec<u8> {
    message_with_body(&format!("35=A|{header}|98=0|108=30|"))
}

fn logon_of(name: &str) -> Vec<u8> {
    logon(&format!("49=DESK-{name}|56=VENUE|34=1|52=20261122-09:30:00.000"))
}

fn order(id: usize) -> Vec<u8> {
    message_with_body(&format!(
        "35=D|49=DESK-?|56=VENUE|34=2|52=20261122-09:30:00.000|11=R-{id}|55=IBM|54=1|38=100|40=2|44=1|"
    ))
}

fn cancel() -> Vec<u8> {
    message_with_body("35=F|49=DESK-?|56=VENUE|34=2|52=20261122-09:30:00.000|11=C-1|41=R-1|55=IBM|54=1|")
}

/// A connection that has logged on.
fn logged_on<'a>(testbed: &Testbed, receiver: &'a Receiver, logon: &[u8]) -> TcpConnection<'a> {
    let mut line = receiver.connect(testbed);
    line.send_and_wait(logon);
    line
}

/// Orders that passed, by session.
fn orders<const N: usize>(testbed: &Testbed) -> [u64; N] {
    testbed.with_breaker(|breaker| {
        let counters = breaker.counters().expect("reading the counters");
        std::array::from_fn(|session| counters[session].passed[0])
    })
}

/// Messages that passed, by session.
fn messages<const N: usize>(testbed: &Testbed) -> [u64; N] {
    std::array::from_fn(|session| testbed.counters(session).passed.iter().sum())
}

#[test]
fn each_connections_logon_decides_whose_it_is() {
    require_root!();
    let third =
        "[[session]]\nname = \"c\"\nremote = \"10.9.0.2:9001\"\nsender = \"DESK-A\"\ntarget = \"OTHER\"\n";
    let limit = "limits = [{ class = \"order\", max = 3, per = \"total\" }]";
    let (testbed, receiver) = testbed(&format!("{}{third}", two_sessions(limit)));
    let mut lines = [logon_of("A"), logon_of("B"), logon("49=DESK-A|56=OTHER")]
        .map(|logon| logged_on(&testbed, &receiver, &logon));
    for id in 0..3 {
        lines.iter_mut().for_each(|line| line.send_and_wait(&order(id)));
    }
    lines[1].send_and_wait(&cancel());
    assert_eq!((orders(&testbed), messages(&testbed)), ([0, 3, 3, 3], [0, 4, 5, 4]));
    // A second connection of the same session shares its limit.
    let mut again = logged_on(&testbed, &receiver, &logon_of("A"));
    again.try_send(&order(4));
    assert_eq!(again.wait_for_reset().count("D"), 0);
    assert_eq!(testbed.tripped(), ["session/a"]);
    lines[1].send_and_wait(&order(5));
    lines[2].send_and_wait(&order(5));
    lines[0].try_send(&order(5));
    assert_eq!(lines[0].wait_for_reset().complete("D"), 3);
    assert_eq!((orders(&testbed), testbed.counters(A).withheld[0]), ([0, 3, 4, 4], 1));
    let trips = testbed.events_of_kind("tripped");
    assert_eq!(
        (trips.len(), &trips[0]["scope"], &trips[0]["counts"]["session"]),
        (1, &"session/a".into(), &"a".into())
    );
}

#[test]
fn sub_ids_alone_tell_sessions_apart() {
    require_root!();
    let session =
        |name: &str, subs: &str| format!("[[session]]\nname = {name:?}\nremote = {REMOTE:?}\n{subs}\n");
    let both = |[sender, target]: [&str; 2]| format!("sender_sub = {sender:?}\ntarget_sub = {target:?}");
    // The same two values the other way round: a value counts only in its own field.
    let (testbed, receiver) =
        testbed(&[session("a", &both(["X", "Y"])), session("b", &both(["Y", "X"]))].concat());
    for (subs, expected) in [
        ("50=X|57=Y", [0, 1, 0]),
        ("57=X|50=Y", [0, 1, 1]),
        ("57=Y|50=X", [0, 2, 1]),
        ("50=X|57=X", [1, 2, 1]),
        ("50=X", [2, 2, 1]),
        ("49=X|56=Y", [3, 2, 1]),
    ] {
        let mut line = logged_on(&testbed, &receiver, &logon(&format!("49=FIRM|56=VENUE|{subs}")));
        line.send_and_wait(&order(1));
        assert_eq!(orders(&testbed), expected, "{subs}");
    }
}

#[test]
fn a_logon_is_read_however_it_is_cut() {
    require_root!();
    let (testbed, receiver) = testbed(TWO);
    let mut expected = [0; 3];
    for (name, session) in [("A", A), ("B", B)] {
        let logon = logon_of(name);
        for cut in 1..logon.len() {
            let mut line = receiver.connect(&testbed);
            line.send_and_wait(&logon[..cut]);
            line.send_and_wait(&logon[cut..]);
            line.send_and_wait(&order(cut));
            expected[session] += 1;
            assert_eq!(orders(&testbed), expected, "{name}, cut at {cut}");
        }
        let mut line = receiver.connect(&testbed);
        logon.iter().for_each(|byte| line.send_and_wait(&[*byte]));
        line.send_and_wait(&order(0));
        expected[session] += 1;
        assert_eq!(orders(&testbed), expected, "{name}, one byte a segment");
    }
    // The Logon itself counts for its session, once, wherever it is cut.
    assert_eq!([A, B].map(|session| testbed.counters(session).passed[4]), [expected[A], expected[B]]);
    assert_eq!(messages(&testbed), [0, 2 * expected[A], 2 * expected[B]]);
    assert_eq!([UNDECLARED, A, B].map(|session| testbed.counters(session).desyncs), [0; 3]);
}

#[test]
fn comp_ids_are_found_wherever_they_stand_and_nowhere_else() {
    require_root!();
    let (testbed, receiver) = testbed(TWO);
    let mut expected = [0; 3];
    let fake = "|49=DESK-B|56=VENUE|";
    let data = |length: u32, tag: u32| format!("{length}={}|{tag}={fake}", fake.len());
    for (header, session) in [
        ("49=DESK-A|56=VENUE".to_owned(), A),
        ("56=VENUE|49=DESK-A".to_owned(), A),
        (
            "34=1|52=20261122-09:30:00.000|56=VENUE|43=N|97=N|122=20261122-09:30:00.000|49=DESK-A".to_owned(),
            A,
        ),
        (
            "49=DESK-A|50=DESK-B|43=Y|57=X|97=Y|52=20261122-09:30:00.000|56=VENUE|122=20261122-09:30:00"
                .to_owned(),
            A,
        ),
        ("128=DESK-B|115=DESK-B|49=DESK-A|56=VENUE|116=DESK-B|129=VENUE".to_owned(), A),
        // Data fields and text fields hold no CompIDs.
        (format!("49=DESK-A|56=VENUE|{}", data(95, 96)), A),
        (format!("{}|49=DESK-A|56=VENUE", data(90, 91)), A),
        (format!("{}|49=DESK-A|{}|56=VENUE", data(212, 213), data(354, 355)), A),
        ("49=DESK-A|56=VENUE|95=0|58=49=DESK-B".to_owned(), A),
        // A length field without a data field.
        ("95=0|49=DESK-A|56=VENUE".to_owned(), A),
        ("95=|49=DESK-A|56=VENUE".to_owned(), A),
        (format!("58={}|49=DESK-A|56=VENUE", "x".repeat(500)), A),
        ("1149=DESK-B|49=DESK-A|156=X|56=VENUE|149=DESK-B".to_owned(), A),
        ("49=DESK-A|56=VENUE2".to_owned(), UNDECLARED),
        ("49=DESK-|56=VENUE".to_owned(), UNDECLARED),
        ("49=desk-a|56=VENUE".to_owned(), UNDECLARED),
        ("49=DESK-A".to_owned(), UNDECLARED),
        ("49=|56=VENUE".to_owned(), UNDECLARED),
        ("49=VENUE|56=DESK-A".to_owned(), UNDECLARED),
    ] {
        let mut line = logged_on(&testbed, &receiver, &logon(&header));
        line.send_and_wait(&order(1));
        expected[session] += 1;
        assert_eq!(orders(&testbed), expected, "{header}");
    }
}

#[test]
fn values_up_to_28_bytes_count_whole_and_longer_ones_match_none() {
    require_root!();
    let longest = "ABCDEFGHIJKLMNOPQRSTUVWXYZ-1";
    let twin = "ABCDEFGHIJKLMNOPQRSTUVWXYZ-2";
    assert_eq!(longest.len(), 28);
    let policy = TWO.replace("DESK-A", longest).replace("DESK-B", twin);
    let (testbed, receiver) = testbed(&policy);
    let mut expected = [0; 3];
    for (sender, session) in [
        (longest.to_owned(), A),
        (twin.to_owned(), B),
        (longest[..27].to_owned(), UNDECLARED),
        (format!("{longest}1"), UNDECLARED),
        (format!("{longest}{longest}"), UNDECLARED),
        ("Z".repeat(3_000), UNDECLARED),
        // The first value counts, as for a venue.
        (format!("{}|49={twin}", "Z".repeat(40)), UNDECLARED),
        (format!("{twin}|49={longest}"), B),
    ] {
        let logon = logon(&format!("49={sender}|56=VENUE"));
        for size in [logon.len(), 31, 32, 33, 7] {
            let mut line = receiver.connect(&testbed);
            logon.chunks(size).for_each(|piece| line.send_and_wait(piece));
            line.send_and_wait(&order(1));
            expected[session] += 1;
            assert_eq!(orders(&testbed), expected, "{sender}, {size} bytes a segment");
        }
    }
}

#[test]
fn orders_in_the_logons_own_segment_are_its_sessions() {
    require_root!();
    let (testbed, receiver) =
        testbed(&two_sessions("limits = [{ class = \"order\", max = 4, per = \"total\" }]"));
    let with = |name: &str, count: usize| [logon_of(name), (0..count).flat_map(order).collect()].concat();
    logged_on(&testbed, &receiver, &with("B", 9));
    logged_on(&testbed, &receiver, &with("A", 3));
    assert_eq!(orders(&testbed), [0, 3, 9]);
    // The tail of the Logon, with orders behind it; the last order is cut.
    let (logon, tail) = (with("A", 1), order(9));
    let mut line = receiver.connect(&testbed);
    line.send_and_wait(&logon[..70]);
    line.send_and_wait(&[&logon[70..], &tail[..40]].concat()[..logon.len() - 70]);
    assert_eq!(orders(&testbed), [0, 4, 9]);
    // One order over the limit is withheld with the Logon in its segment, and trips no other session.
    let mut line = receiver.connect(&testbed);
    line.try_send(&with("A", 1));
    assert_eq!(line.wait_for_reset().bytes, b"");
    assert_eq!((orders(&testbed), testbed.counters(A).withheld), ([0, 4, 9], [1, 0, 0, 0, 1]));
    assert_eq!(testbed.tripped(), ["session/a"]);
    // The same while the session is tripped. A Logon alone passes.
    let mut line = receiver.connect(&testbed);
    line.try_send(&with("A", 1));
    assert_eq!(line.wait_for_reset().bytes, b"");
    logged_on(&testbed, &receiver, &logon_of("A")).send_and_wait(&cancel());
    logged_on(&testbed, &receiver, &with("B", 1));
    assert_eq!(orders(&testbed), [0, 4, 10]);
}

#[test]
fn a_logon_of_no_session_is_undeclared_and_the_policy_says_what_becomes_of_it() {
    require_root!();
    for policy in ["ignore", "watch", "block"] {
        // A first message that is an order itself is undeclared too, without a Logon.
        for (what, first) in [("logon", logon_of("C")), ("order", order(1)), ("cut", logon_of("C"))] {
            let (testbed, receiver) = testbed(&format!("undeclared = {policy:?}\n{TWO}"));
            let mut line = receiver.connect(&testbed);
            let (head, tail) = if what == "cut" { first.split_at(60) } else { first.split_at(0) };
            if !head.is_empty() {
                line.send_and_wait(head);
            }
            let status = |testbed: &Testbed, reason: &str| testbed.status().packets[reason];
            match policy {
                "block" => {
                    line.try_send(tail);
                    assert_eq!(line.wait_for_reset().bytes, head, "{what}");
                    assert_eq!(status(&testbed, "undeclared"), 1);
                    let Counters { passed, packets_withheld, .. } = testbed.counters(UNDECLARED);
                    assert_eq!((passed, packets_withheld), ([0; 5], 1), "{what}");
                }
                _ => {
                    line.send_and_wait(tail);
                    line.send_and_wait(&order(2));
                    let counted = if policy == "watch" { 1 + u64::from(what == "order") } else { 0 };
                    assert_eq!(orders(&testbed), [counted, 0, 0], "{policy} {what}");
                }
            }
            let events = testbed.events_of_kind("undeclared");
            assert_eq!(events.len(), usize::from(policy != "ignore"), "{policy} {what}");
            if let Some(event) = events.first() {
                assert_eq!(
                    (&event["scope"], &event["counts"]["session"]),
                    (&"host".into(), &"undeclared".into())
                );
                let connection = event["counts"]["connection"].as_str().expect("a connection");
                assert!(connection.ends_with("> 10.9.0.2:9001"), "{connection}");
            }
            // The declared sessions continue.
            assert_eq!(testbed.tripped(), [""; 0]);
            logged_on(&testbed, &receiver, &logon_of("A")).send_and_wait(&order(3));
            assert_eq!(orders::<3>(&testbed)[A..], [1, 0]);
        }
    }
}

#[test]
fn ignored_connections_are_nobodys_whatever_trips() {
    require_root!();
    let (testbed, receiver) = testbed(&format!("undeclared = \"ignore\"\n{TWO}"));
    let mut line = logged_on(&testbed, &receiver, &logon_of("C"));
    testbed.trip("host");
    line.send_and_wait(&order(1));
    assert_eq!((line.received().end, messages(&testbed)), (End::Open, [0, 0, 0]));
}

#[test]
fn bytes_that_are_no_fix_are_undeclared() {
    require_root!();
    for policy in ["ignore", "watch", "block"] {
        for first in [&b"SSH-2.0-OpenSSH\r\n"[..], b"\x16\x03\x01\x02\x00\x01", b"8=FIX.9.9\x019=5\x01", b"G"]
        {
            let (testbed, receiver) = testbed(&format!("undeclared = {policy:?}\n{TWO}"));
            let mut line = receiver.connect(&testbed);
            (0..4).for_each(|_| line.send_and_wait(first));
            assert_eq!(line.received().end, End::Open);
            // A connection that may belong to a session, and is never read, would have no limit.
            line.try_send(first);
            assert_eq!(line.wait_for_reset().bytes, first.repeat(4));
            assert_eq!(testbed.events_of_kind("undeclared").len(), 1, "{policy}");
            // The connection may still become any session's: until then its bytes count as undeclared orders.
            assert_eq!((messages(&testbed), testbed.tripped()), ([4, 0, 0], vec![]));
        }
    }
}

#[test]
fn a_trip_ends_the_idle_connections_of_its_session_and_no_others() {
    require_root!();
    let (testbed, receiver) = testbed(TWO);
    let mut of_a = [(); 2].map(|()| logged_on(&testbed, &receiver, &logon_of("A")));
    let mut of_b = [(); 2].map(|()| logged_on(&testbed, &receiver, &logon_of("B")));
    let mut undeclared = logged_on(&testbed, &receiver, &logon_of("C"));
    let mut silent = receiver.connect(&testbed);
    let output = testbed.switch("trip", "session/a");
    assert!(output.stdout.contains("connections ended: 2"), "{output:?}");
    of_a.iter_mut().for_each(|line| drop(line.wait_for_reset()));
    of_b.iter_mut().for_each(|line| line.send_and_wait(&order(1)));
    undeclared.send_and_wait(&order(1));
    // A connection that has not identified itself may belong to another session.
    silent.send_and_wait(&logon_of("B"));
    silent.send_and_wait(&order(1));
    assert_eq!(orders(&testbed), [1, 0, 3]);
    assert_eq!(testbed.tripped(), ["session/a"]);
    // A trip of the host ends all connections, also those without an identity.
    let mut silent = receiver.connect(&testbed);
    testbed.trip("host");
    of_b.iter_mut().chain([&mut undeclared, &mut silent]).for_each(|line| drop(line.wait_for_reset()));
}

#[test]
fn a_connection_is_as_old_as_its_syn_when_its_logon_tells_whose_it_is() {
    require_root!();
    for scope in ["session/a", "group/g"] {
        let group = "[[group]]\nname = \"g\"\n";
        let (testbed, receiver) = testbed(&format!("{group}{}", two_sessions("groups = [\"g\"]")));
        let connect = || receiver.connect(&testbed);
        // Connections opened before the trip are fenced by it, also if they log on after the reset.
        let [mut before, mut cut] = [connect(), connect()];
        let whole = logon_of("A");
        cut.send_and_wait(&whole[..50]);
        let mut of_b = [connect(), connect()];
        testbed.trip(scope);
        let mut meanwhile = connect();
        let mut late = connect();
        of_b[0].send_and_wait(&logon_of("B"));
        of_b[0].send_and_wait(&order(1));
        late.send_and_wait(&whole);
        late.send_and_wait(&cancel());
        testbed.reset(scope);
        before.try_send(&whole);
        assert_eq!(before.wait_for_reset().bytes, b"", "{scope}");
        cut.try_send(&whole[50..]);
        assert_eq!(cut.wait_for_reset().bytes, whole[..50], "{scope}");
        meanwhile.try_send(&whole);
        assert_eq!(meanwhile.wait_for_reset().bytes, b"", "{scope}");
        late.try_send(&cancel());
        assert_eq!(late.wait_for_reset().count("F"), 1, "{scope}");
        of_b[1].send_and_wait(&logon_of("B"));
        of_b[1].send_and_wait(&order(1));
        // A connection opened after the trip may log on later.
        let mut after = connect();
        sleep(Duration::from_millis(50));
        after.send_and_wait(&whole);
        after.send_and_wait(&order(1));
        assert_eq!((orders(&testbed), testbed.tripped()), ([0, 1, 2], vec![]), "{scope}");
    }
}

#[test]
fn while_tripped_the_logon_brings_its_sessions_rules() {
    require_root!();
    for (rule, cancels, logons) in [("reduce-only", 1, 1), ("admin-only", 0, 1), ("isolate", 0, 0)] {
        let (testbed, receiver) = testbed(&two_sessions(&format!("while_tripped = {rule:?}")));
        testbed.trip("session/a");
        let mut line = receiver.connect(&testbed);
        line.try_send(&logon_of("A"));
        sleep(Duration::from_millis(30));
        line.try_send(&cancel());
        sleep(Duration::from_millis(30));
        line.try_send(&order(1));
        let came = line.wait_for_reset();
        assert_eq!((came.complete("A"), came.complete("F"), came.count("D")), (logons, cancels, 0), "{rule}");
        let mut other = logged_on(&testbed, &receiver, &logon_of("B"));
        other.send_and_wait(&order(1));
        other.send_and_wait(&cancel());
        assert_eq!(orders(&testbed), [0, 0, 1], "{rule}");
    }
}

#[test]
fn who_sends_an_order_first_has_a_session_too_however_that_order_is_cut() {
    require_root!();
    let (testbed, receiver) = testbed(TWO);
    let first = message_with_body(
        "35=D|49=DESK-A|56=VENUE|34=2|52=20261122-09:30:00.000|11=R-1|55=IBM|54=1|38=100|40=2|44=1|",
    );
    let [mut whole, mut cut] = [(); 2].map(|()| receiver.connect(&testbed));
    whole.send_and_wait(&first);
    cut.send_and_wait(&first[..100]);
    cut.send_and_wait(&first[100..]);
    assert_eq!(orders(&testbed), [0, 2, 0]);
    testbed.trip("session/a");
    for at in [0, 10, 20, 25, 30, 60, first.len() - 1] {
        let mut line = receiver.connect(&testbed);
        if at != 0 {
            line.send_and_wait(&first[..at]);
        }
        line.try_send(&first[at..]);
        assert_eq!(line.wait_for_reset().complete("D"), 0, "cut at {at}");
        testbed.reset("session/a");
        testbed.trip("session/a");
    }
    assert_eq!(orders(&testbed), [0, 2, 0]);
}

#[test]
fn sessions_are_told_apart_over_ipv6() {
    require_root!();
    let remote = "[fd09::2]:9001";
    let testbed = Testbed::load(&TWO.replace(REMOTE, remote));
    let receiver = testbed.listen_at(at(remote));
    let whole = logon_of("A");
    for cut in [1, 8, 26, 33, 50, 51, 60, whole.len() - 1] {
        let mut line = receiver.connect(&testbed);
        line.send_and_wait(&whole[..cut]);
        line.send_and_wait(&whole[cut..]);
        line.send_and_wait(&order(cut));
    }
    let mut of_a = logged_on(&testbed, &receiver, &logon_of("A"));
    let mut of_b = logged_on(&testbed, &receiver, &logon_of("B"));
    of_b.send_and_wait(&order(1));
    logged_on(&testbed, &receiver, &logon_of("C")).send_and_wait(&order(1));
    assert_eq!(orders(&testbed), [1, 8, 1]);
    testbed.trip("session/a");
    of_a.wait_for_reset();
    of_b.send_and_wait(&order(2));
    let mut line = logged_on(&testbed, &receiver, &logon_of("A"));
    line.try_send(&order(3));
    assert_eq!(line.wait_for_reset().count("D"), 0);
}

#[test]
fn a_connection_joined_in_mid_stream_is_settled_by_its_next_message() {
    require_root!();
    let testbed = Testbed::unloaded(TWO);
    let receiver = testbed.listen_at(at(REMOTE));
    let message = |name: &str| {
        message_with_body(&format!("35=D|49=DESK-{name}|56=VENUE|34=7|11=R-1|55=IBM|54=1|38=1|40=2|44=1|"))
    };
    let mut lines = ["A", "B", "C"].map(|name| {
        let mut line = logged_on(&testbed, &receiver, &logon_of(name));
        line.send_and_wait(&message(name)[..40]);
        (name, line)
    });
    let policy = testbed.policy();
    testbed.on_host(|| load::load(&policy, &Testbed::root())).expect("loading");
    for (name, line) in &mut lines {
        // The rest of the message at the load identifies no session, and counts as an undeclared order.
        line.send_and_wait(&message(name)[40..]);
        line.send_and_wait(&message(name));
    }
    assert_eq!(orders(&testbed), [4, 1, 1]);
    for (name, line) in &mut lines {
        // The next message need not identify a session either.
        line.send_and_wait(&order(1));
        line.send_and_wait(&message(name)[..60]);
        line.send_and_wait(&message(name)[60..]);
    }
    assert_eq!(orders(&testbed), [6, 3, 3]);
    // A connection is live if nothing has tripped yet. It is older than the first trip.
    testbed.trip("session/a");
    let [(_, of_a), (_, of_b), (_, of_c)] = &mut lines;
    of_a.wait_for_reset();
    of_b.send_and_wait(&order(2));
    of_c.send_and_wait(&order(2));
}

#[test]
fn one_that_was_joined_is_fenced_where_any_session_of_its_place_has_tripped_before_it_tells() {
    require_root!();
    let testbed = Testbed::unloaded(TWO);
    let receiver = testbed.listen_at(at(REMOTE));
    let [mut of_a, mut of_b] = ["A", "B"].map(|name| logged_on(&testbed, &receiver, &logon_of(name)));
    let policy = testbed.policy();
    testbed.on_host(|| load::load(&policy, &Testbed::root())).expect("loading");
    testbed.trip("session/a");
    testbed.reset("session/a");
    let heartbeat = |name: &str| message_with_body(&format!("35=0|49=DESK-{name}|56=VENUE|34=7|"));
    of_a.try_send(&heartbeat("A"));
    assert_eq!(of_a.wait_for_reset().count("0"), 0);
    // The connection has not identified itself yet.
    of_b.try_send(&heartbeat("B"));
    assert_eq!(of_b.wait_for_reset().count("0"), 0);
    logged_on(&testbed, &receiver, &logon_of("B")).send_and_wait(&order(1));
    assert_eq!(orders(&testbed), [0, 0, 1]);
}

#[test]
fn at_an_address_of_its_own_a_session_only_tells_of_another_name() {
    require_root!();
    let own = |subs: &str| {
        format!(
            "[[session]]\nname = \"a\"\nremote = {REMOTE:?}\nsender = \"FIRM\"\ntarget = \"VENUE\"\n{subs}"
        )
    };
    let (plain, desk) = (own(""), own("sender_sub = \"DESK7\"\n"));
    for (policy, header, mismatched) in [
        (&plain, "49=FIRM|56=VENUE", false),
        (&plain, "56=VENUE|50=ANY|57=ANY|49=FIRM", false),
        (&plain, "49=FIRM2|56=VENUE", true),
        (&plain, "49=VENUE|56=FIRM", true),
        (&plain, "56=VENUE", true),
        (&desk, "49=FIRM|56=VENUE|50=DESK7", false),
        (&desk, "49=FIRM|56=VENUE", true),
        (&desk, "49=FIRM|56=VENUE|57=DESK7", true),
    ] {
        let (testbed, receiver) = testbed(policy);
        let whole = logon(header);
        for size in [whole.len(), 20, 1] {
            let mut line = receiver.connect(&testbed);
            whole.chunks(size).for_each(|piece| line.send_and_wait(piece));
            // Only the first message is read for CompIDs.
            line.send_and_wait(&order(1));
            line.send_and_wait(&order(2));
        }
        assert_eq!((messages(&testbed), testbed.tripped()), ([0, 9], vec![]), "{header}");
        let events = testbed.events_of_kind("comp_id_mismatch");
        assert_eq!(events.len(), if mismatched { 3 } else { 0 }, "{header}");
        assert!(events.iter().all(|event| event["scope"] == "session/a"), "{events:?}");
        assert_eq!(testbed.events_of_kind("undeclared").len(), 0);
    }
}

#[test]
fn what_nobody_declared_isolates_nobody_who_is_declared() {
    require_root!();
    let (testbed, receiver) = testbed(TWO);
    testbed.trip("host");
    // A reconnect loop of undeclared connections.
    for _ in 0..3 {
        let mut line = logged_on(&testbed, &receiver, &logon_of("C"));
        line.try_send(&order(1));
        line.wait_for_reset();
    }
    let mut line = logged_on(&testbed, &receiver, &logon_of("A"));
    line.send_and_wait(&cancel());
    assert_eq!(line.received().complete("F"), 1);
}

#[test]
fn a_loop_isolates_its_session_at_a_shared_place_from_its_logon_on_and_no_other() {
    require_root!();
    for on_trip in ["reset", "drop"] {
        let (testbed, receiver) = testbed(&format!("on_trip = {on_trip:?}\n{TWO}"));
        testbed.trip("session/a");
        for id in 0..3 {
            let mut line = logged_on(&testbed, &receiver, &logon_of("A"));
            let before = testbed.counters(A).packets_withheld;
            line.try_send(&order(id));
            if on_trip == "reset" {
                line.wait_for_reset();
            }
            receiver.wait("the order to be withheld", |_| testbed.counters(A).packets_withheld > before);
        }
        let events = testbed.events_of_kind("isolated");
        assert_eq!((events.len(), &events[0]["scope"]), (1, &"session/a".into()), "{on_trip}");
        // The Logon identifies the connection, so the Logon is withheld.
        let mut line = receiver.connect(&testbed);
        line.try_send(&logon_of("A"));
        if on_trip == "reset" {
            assert_eq!(line.wait_for_reset().bytes, b"");
        } else {
            line.stream.set_read_timeout(Some(Duration::from_millis(500))).expect("a time limit");
            let waited = line.stream.read(&mut [0; 1]).expect_err("nothing comes");
            assert_eq!((waited.kind(), line.received().bytes), (ErrorKind::WouldBlock, vec![]));
        }
        logged_on(&testbed, &receiver, &logon_of("B")).send_and_wait(&order(1));
        testbed.reset("session/a");
        logged_on(&testbed, &receiver, &logon_of("A")).send_and_wait(&order(1));
        assert_eq!(orders(&testbed), [0, 1, 1], "{on_trip}");
    }
}

#[test]
fn inline_sessions_are_told_apart_too() {
    require_root!();
    for hook in Hook::ALL {
        let testbed = Inline::inline(hook, Offloads::Checksums, TWO);
        let receiver = testbed.listen_at(at(REMOTE));
        let whole = logon_of("A");
        for cut in [1, 12, 26, 33, 50, 51, 60, whole.len() - 1] {
            let mut line = receiver.connect(&testbed);
            line.send_and_wait(&whole[..cut]);
            line.send_and_wait(&whole[cut..]);
            line.send_and_wait(&order(cut));
        }
        let [mut of_a, mut of_b, mut undeclared] = ["A", "B", "C"].map(|name| {
            let mut line = receiver.connect(&testbed);
            line.send_and_wait(&logon_of(name));
            line
        });
        of_b.send_and_wait(&order(1));
        undeclared.send_and_wait(&order(1));
        let counted = |session| testbed.counters(session).passed[0];
        assert_eq!([UNDECLARED, A, B].map(counted), [1, 8, 1], "{hook:?}");
        testbed.trip("session/a");
        of_a.try_send(&cancel());
        // The sender sees the reset only at its next segment, which another test covers.
        let ends = |line: &TcpConnection<'_>| receiver.wait("the end", |_| line.received().end == End::Reset);
        ends(&of_a);
        assert_eq!(of_a.received().count("F"), 0, "{hook:?}");
        of_b.send_and_wait(&order(2));
        let mut line = receiver.connect(&testbed);
        line.send_and_wait(&logon_of("A"));
        line.send_and_wait(&cancel());
        line.try_send(&order(3));
        ends(&line);
        assert_eq!(line.received().count("D"), 0, "{hook:?}");
        assert_eq!([UNDECLARED, A, B].map(counted), [1, 8, 2], "{hook:?}");
    }
}
