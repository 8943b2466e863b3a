//! Reconnect loops: an engine that reconnects with orders while its session is tripped is isolated.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use breaker_common::abi::while_tripped;
use breaker_tests::frame::{message, order};
use breaker_tests::receiver::{End, Receiver, TcpConnection};
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use breaker_user::testbed::TwoHosts;

/// A policy with two sessions, and keys for the host and for the first session.
fn policy(host: &str, keys: &str) -> String {
    format!(
        "{host}\n[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\n{keys}\n\
         [[session]]\nname = \"x2\"\nremote = \"10.9.0.2:9002\"\n"
    )
}

/// Actions on a withheld segment.
const ON_TRIP: [&str; 2] = ["reset", "drop"];

fn listen(testbed: &Testbed) -> [Receiver; 2] {
    [9001, 9002].map(|port| testbed.listen(port))
}

/// Returns true if a connection to the first session's venue opens.
fn connection_opens(testbed: &Testbed) -> bool {
    let tried = testbed
        .on_host(|| TcpStream::connect_timeout(&TwoHosts::venue_socket(9001), Duration::from_millis(300)));
    match tried {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(
                error.kind(),
                ErrorKind::TimedOut,
                "the SYN is withheld, so that no answer comes: {error}"
            );
            false
        }
    }
}

/// A new connection that is fenced by its first order.
fn fenced_connection<'a>(testbed: &Testbed, receiver: &'a Receiver) -> TcpConnection<'a> {
    let mut connection = receiver.connect(testbed);
    connection.send_and_wait(&message("FIX.4.4", "A", b"98=0\x01108=30\x01"));
    let before = testbed.counters(1).withheld[0];
    connection.try_send(&order(1));
    receiver.wait("the order to be withheld", |_| testbed.counters(1).withheld[0] > before);
    connection
}

fn withheld_syns(testbed: &Testbed) -> u64 {
    testbed.status().packets["isolated"]
}

#[test]
fn the_third_fenced_connection_isolates_its_session_until_the_reset() {
    require_root!();
    for on_trip in ON_TRIP {
        let testbed = Testbed::load(&policy(&format!("on_trip = {on_trip:?}"), ""));
        let [receiver, other] = listen(&testbed);
        testbed.trip("session/x1");
        fenced_connection(&testbed, &receiver);
        fenced_connection(&testbed, &receiver);
        assert_eq!(testbed.events_of_kind("isolated").len(), 0, "{on_trip}: two are no loop");
        // A connection that adds no risk does not count, and continues when the session is isolated.
        let mut harmless = receiver.connect(&testbed);
        harmless.send_and_wait(&message("FIX.4.4", "F", b"11=C\x01"));
        fenced_connection(&testbed, &receiver);
        let events = testbed.events_of_kind("isolated");
        assert_eq!((events.len(), &events[0]["scope"]), (1, &"session/x1".into()), "{on_trip}");
        assert_eq!((connection_opens(&testbed), withheld_syns(&testbed) > 0), (false, true), "{on_trip}");
        harmless.send_and_wait(&message("FIX.4.4", "F", b"11=C\x01"));
        // The other session is not affected, before or during its own trip.
        other.connect(&testbed).send_and_wait(&order(1));
        testbed.trip("session/x2");
        other.connect(&testbed).send_and_wait(&message("FIX.4.4", "F", b"11=C\x01"));
        // Another cause changes nothing; a reset lifts the isolation.
        testbed.trip("host");
        assert!(!connection_opens(&testbed), "{on_trip}");
        testbed.reset("host");
        assert!(connection_opens(&testbed), "{on_trip}: with a reset of any of its scopes all is forgiven");
        testbed.reset("session/x1");
        receiver.connect(&testbed).send_and_wait(&order(1));
        assert_eq!(testbed.events_of_kind("isolated").len(), 1, "{on_trip}");
        // Three more connections isolate the session again.
        testbed.trip("session/x1");
        fenced_connection(&testbed, &receiver);
        fenced_connection(&testbed, &receiver);
        assert!(connection_opens(&testbed), "{on_trip}");
        fenced_connection(&testbed, &receiver);
        assert_eq!(
            (connection_opens(&testbed), testbed.events_of_kind("isolated").len()),
            (false, 2),
            "{on_trip}"
        );
    }
}

#[test]
fn connections_that_one_trip_fences_are_no_loop() {
    require_root!();
    for on_trip in ON_TRIP {
        // All five connections are live at the trip, by hand and by a limit.
        for by_limit in [false, true] {
            let limit = "limits = [{ class = \"order\", max = 5, per = \"total\" }]";
            let testbed = Testbed::load(&policy(&format!("on_trip = {on_trip:?}"), limit));
            let [receiver, _] = listen(&testbed);
            let mut connections: Vec<_> = (0..5).map(|_| receiver.connect(&testbed)).collect();
            connections.iter_mut().for_each(|connection| connection.send_and_wait(&order(1)));
            if by_limit {
                let before = testbed.counters(1).packets_withheld;
                connections[0].try_send(&order(2));
                receiver.wait("the trip", |_| testbed.counters(1).packets_withheld > before);
            } else {
                testbed.trip("session/x1");
            }
            // Later segments of these connections are withheld, dead or not.
            for connection in &mut connections {
                connection.try_send(&order(3));
            }
            assert_eq!(receiver.received().iter().map(|one| one.complete("D")).sum::<usize>(), 5);
            let events = (testbed.events_of_kind("isolated").len(), connection_opens(&testbed));
            assert_eq!(events, (0, true), "{on_trip}, by limit: {by_limit}");
            // The connections count once at most. With two more it is a loop, if one of them was fenced in
            // the packet path.
            let fenced = u64::from(on_trip == "drop" || by_limit);
            fenced_connection(&testbed, &receiver);
            assert_eq!(testbed.events_of_kind("isolated").len(), 0);
            fenced_connection(&testbed, &receiver);
            assert_eq!(
                testbed.events_of_kind("isolated").len() as u64,
                fenced,
                "{on_trip}, by limit: {by_limit}"
            );
            assert_eq!(connection_opens(&testbed), fenced == 0);
        }
    }
}

#[test]
fn a_fenced_connection_that_tries_again_is_still_one() {
    require_root!();
    let testbed = Testbed::load(&policy("on_trip = \"drop\"", ""));
    let [receiver, _] = listen(&testbed);
    testbed.trip("session/x1");
    let mut connection = fenced_connection(&testbed, &receiver);
    // TCP retransmits, and the engine sends more.
    for id in 0..5 {
        connection.try_send(&order(id));
    }
    receiver.wait("three tries", |_| testbed.counters(1).packets_withheld >= 4);
    assert_eq!(
        (testbed.events_of_kind("isolated").len(), connection_opens(&testbed), connection.received().end),
        (0, true, End::Open)
    );
}

#[test]
fn a_trip_of_the_host_isolates_only_the_session_in_the_loop() {
    require_root!();
    let testbed = Testbed::load(&policy("", ""));
    let [receiver, other] = listen(&testbed);
    testbed.trip("host");
    (0..3).for_each(|_| drop(fenced_connection(&testbed, &receiver)));
    assert!(!connection_opens(&testbed));
    let mut connection = other.connect(&testbed);
    connection.send_and_wait(&message("FIX.4.4", "F", b"11=C\x01"));
    connection.try_send(&order(1));
    connection.wait_for_reset();
    let events = testbed.events_of_kind("isolated");
    assert_eq!((events.len(), &events[0]["scope"]), (1, &"session/x1".into()));
    // A reset of the host, which had tripped, lifts the isolation.
    testbed.reset("host");
    receiver.connect(&testbed).send_and_wait(&order(1));
}

#[test]
fn under_admin_only_a_loop_isolates_too() {
    require_root!();
    let testbed = Testbed::load(&policy("", "while_tripped = \"admin-only\""));
    let [receiver, _] = listen(&testbed);
    let rule = testbed.with_breaker(|breaker| {
        let session = breaker.names().sessions().nth(1).expect("a session");
        breaker.session(session).expect("its settings").while_tripped
    });
    assert_eq!(rule, while_tripped::ADMIN_ONLY);
    testbed.trip("session/x1");
    for _ in 0..3 {
        let mut connection = receiver.connect(&testbed);
        connection.try_send(&message("FIX.4.4", "F", b"11=C\x01"));
        assert_eq!(connection.wait_for_reset().bytes, b"");
    }
    assert_eq!((testbed.events_of_kind("isolated").len(), connection_opens(&testbed)), (1, false));
}
