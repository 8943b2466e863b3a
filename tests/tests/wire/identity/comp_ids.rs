//! Identification: the CompIDs of the first message assign the connection to a session.

use breaker_tests::frame::message_with_body;
use breaker_tests::gateway::{Hook, Inline, Offloads};
use breaker_tests::receiver::{End, TcpConnection};
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;

use super::{
    A, B, REMOTE, TWO, UNDECLARED, at, cancel, logged_on, logon, logon_of, messages, order, orders, testbed,
    two_sessions,
};

#[test]
fn each_logon_assigns_its_connection_to_a_session() {
    require_root!();
    let third =
        "[[session]]\nname = \"c\"\nremote = \"10.9.0.2:9001\"\nsender = \"DESK-A\"\ntarget = \"OTHER\"\n";
    let limit = "limits = [{ class = \"order\", max = 3, per = \"total\" }]";
    let (testbed, receiver) = testbed(&format!("{}{third}", two_sessions(limit)));
    let mut connections = [logon_of("A"), logon_of("B"), logon("49=DESK-A|56=OTHER")]
        .map(|logon| logged_on(&testbed, &receiver, &logon));
    for id in 0..3 {
        connections.iter_mut().for_each(|connection| connection.send_and_wait(&order(id)));
    }
    connections[1].send_and_wait(&cancel());
    assert_eq!((orders(&testbed), messages(&testbed)), ([0, 3, 3, 3], [0, 4, 5, 4]));
    // A second connection of the same session shares its limit.
    let mut again = logged_on(&testbed, &receiver, &logon_of("A"));
    again.try_send(&order(4));
    assert_eq!(again.wait_for_reset().count("D"), 0);
    assert_eq!(testbed.tripped(), ["session/a"]);
    connections[1].send_and_wait(&order(5));
    connections[2].send_and_wait(&order(5));
    connections[0].try_send(&order(5));
    assert_eq!(connections[0].wait_for_reset().complete("D"), 3);
    assert_eq!((orders(&testbed), testbed.counters(A).withheld[0]), ([0, 3, 4, 4], 1));
    let trips = testbed.events_of_kind("tripped");
    assert_eq!(
        (trips.len(), &trips[0]["scope"], &trips[0]["counts"]["session"]),
        (1, &"session/a".into(), &"a".into())
    );
}

#[test]
fn sub_ids_alone_distinguish_sessions() {
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
        let mut connection = logged_on(&testbed, &receiver, &logon(&format!("49=FIRM|56=VENUE|{subs}")));
        connection.send_and_wait(&order(1));
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
            let mut connection = receiver.connect(&testbed);
            connection.send_and_wait(&logon[..cut]);
            connection.send_and_wait(&logon[cut..]);
            connection.send_and_wait(&order(cut));
            expected[session] += 1;
            assert_eq!(orders(&testbed), expected, "{name}, cut at {cut}");
        }
        let mut connection = receiver.connect(&testbed);
        logon.iter().for_each(|byte| connection.send_and_wait(&[*byte]));
        connection.send_and_wait(&order(0));
        expected[session] += 1;
        assert_eq!(orders(&testbed), expected, "{name}, one byte a segment");
    }
    // The Logon itself counts for its session, once, wherever it is cut.
    assert_eq!([A, B].map(|session| testbed.counters(session).passed[4]), [expected[A], expected[B]]);
    assert_eq!(messages(&testbed), [0, 2 * expected[A], 2 * expected[B]]);
    assert_eq!([UNDECLARED, A, B].map(|session| testbed.counters(session).desyncs), [0; 3]);
}

#[test]
fn comp_ids_are_read_from_their_own_fields_in_any_order() {
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
        let mut connection = logged_on(&testbed, &receiver, &logon(&header));
        connection.send_and_wait(&order(1));
        expected[session] += 1;
        assert_eq!(orders(&testbed), expected, "{header}");
    }
}

#[test]
fn comp_ids_match_in_full_up_to_28_bytes_and_never_beyond() {
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
            let mut connection = receiver.connect(&testbed);
            logon.chunks(size).for_each(|piece| connection.send_and_wait(piece));
            connection.send_and_wait(&order(1));
            expected[session] += 1;
            assert_eq!(orders(&testbed), expected, "{sender}, {size} bytes a segment");
        }
    }
}

#[test]
fn orders_in_the_segment_of_the_logon_count_for_its_session() {
    require_root!();
    let (testbed, receiver) =
        testbed(&two_sessions("limits = [{ class = \"order\", max = 4, per = \"total\" }]"));
    let with = |name: &str, count: usize| [logon_of(name), (0..count).flat_map(order).collect()].concat();
    logged_on(&testbed, &receiver, &with("B", 9));
    logged_on(&testbed, &receiver, &with("A", 3));
    assert_eq!(orders(&testbed), [0, 3, 9]);
    // The tail of the Logon, with orders behind it; the last order is cut.
    let (logon, tail) = (with("A", 1), order(9));
    let mut connection = receiver.connect(&testbed);
    connection.send_and_wait(&logon[..70]);
    connection.send_and_wait(&[&logon[70..], &tail[..40]].concat()[..logon.len() - 70]);
    assert_eq!(orders(&testbed), [0, 4, 9]);
    // One order over the limit is withheld with the Logon in its segment, and trips no other session.
    let mut connection = receiver.connect(&testbed);
    connection.try_send(&with("A", 1));
    assert_eq!(connection.wait_for_reset().bytes, b"");
    assert_eq!((orders(&testbed), testbed.counters(A).withheld), ([0, 4, 9], [1, 0, 0, 0, 1]));
    assert_eq!(testbed.tripped(), ["session/a"]);
    // The same while the session is tripped. A Logon alone passes.
    let mut connection = receiver.connect(&testbed);
    connection.try_send(&with("A", 1));
    assert_eq!(connection.wait_for_reset().bytes, b"");
    logged_on(&testbed, &receiver, &logon_of("A")).send_and_wait(&cancel());
    logged_on(&testbed, &receiver, &with("B", 1));
    assert_eq!(orders(&testbed), [0, 4, 10]);
}

#[test]
fn a_first_message_that_is_an_order_identifies_the_session_too() {
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
        let mut connection = receiver.connect(&testbed);
        if at != 0 {
            connection.send_and_wait(&first[..at]);
        }
        connection.try_send(&first[at..]);
        assert_eq!(connection.wait_for_reset().complete("D"), 0, "cut at {at}");
        testbed.reset("session/a");
        testbed.trip("session/a");
    }
    assert_eq!(orders(&testbed), [0, 2, 0]);
}

#[test]
fn sessions_are_distinguished_over_ipv6() {
    require_root!();
    let remote = "[fd09::2]:9001";
    let testbed = Testbed::load(&TWO.replace(REMOTE, remote));
    let receiver = testbed.listen_at(at(remote));
    let whole = logon_of("A");
    for cut in [1, 8, 26, 33, 50, 51, 60, whole.len() - 1] {
        let mut connection = receiver.connect(&testbed);
        connection.send_and_wait(&whole[..cut]);
        connection.send_and_wait(&whole[cut..]);
        connection.send_and_wait(&order(cut));
    }
    let mut of_a = logged_on(&testbed, &receiver, &logon_of("A"));
    let mut of_b = logged_on(&testbed, &receiver, &logon_of("B"));
    of_b.send_and_wait(&order(1));
    logged_on(&testbed, &receiver, &logon_of("C")).send_and_wait(&order(1));
    assert_eq!(orders(&testbed), [1, 8, 1]);
    testbed.trip("session/a");
    of_a.wait_for_reset();
    of_b.send_and_wait(&order(2));
    let mut connection = logged_on(&testbed, &receiver, &logon_of("A"));
    connection.try_send(&order(3));
    assert_eq!(connection.wait_for_reset().count("D"), 0);
}

#[test]
fn at_an_endpoint_of_its_own_other_comp_ids_are_only_reported() {
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
            let mut connection = receiver.connect(&testbed);
            whole.chunks(size).for_each(|piece| connection.send_and_wait(piece));
            // Only the first message is read for CompIDs.
            connection.send_and_wait(&order(1));
            connection.send_and_wait(&order(2));
        }
        assert_eq!((messages(&testbed), testbed.tripped()), ([0, 9], vec![]), "{header}");
        let events = testbed.events_of_kind("comp_id_mismatch");
        assert_eq!(events.len(), if mismatched { 3 } else { 0 }, "{header}");
        assert!(events.iter().all(|event| event["scope"] == "session/a"), "{events:?}");
        assert_eq!(testbed.events_of_kind("undeclared").len(), 0);
    }
}

#[test]
fn inline_sessions_are_distinguished_too() {
    require_root!();
    for hook in Hook::ALL {
        let testbed = Inline::inline(hook, Offloads::Checksums, TWO);
        let receiver = testbed.listen_at(at(REMOTE));
        let whole = logon_of("A");
        for cut in [1, 12, 26, 33, 50, 51, 60, whole.len() - 1] {
            let mut connection = receiver.connect(&testbed);
            connection.send_and_wait(&whole[..cut]);
            connection.send_and_wait(&whole[cut..]);
            connection.send_and_wait(&order(cut));
        }
        let [mut of_a, mut of_b, mut undeclared] = ["A", "B", "C"].map(|name| {
            let mut connection = receiver.connect(&testbed);
            connection.send_and_wait(&logon_of(name));
            connection
        });
        of_b.send_and_wait(&order(1));
        undeclared.send_and_wait(&order(1));
        let counted = |session| testbed.counters(session).passed[0];
        assert_eq!([UNDECLARED, A, B].map(counted), [1, 8, 1], "{hook:?}");
        testbed.trip("session/a");
        of_a.try_send(&cancel());
        // The sender sees the reset only at its next segment, which another test covers.
        let ends = |connection: &TcpConnection<'_>| {
            receiver.wait("the end", |_| connection.received().end == End::Reset)
        };
        ends(&of_a);
        assert_eq!(of_a.received().count("F"), 0, "{hook:?}");
        of_b.send_and_wait(&order(2));
        let mut connection = receiver.connect(&testbed);
        connection.send_and_wait(&logon_of("A"));
        connection.send_and_wait(&cancel());
        connection.try_send(&order(3));
        ends(&connection);
        assert_eq!(connection.received().count("D"), 0, "{hook:?}");
        assert_eq!([UNDECLARED, A, B].map(counted), [1, 8, 2], "{hook:?}");
    }
}
