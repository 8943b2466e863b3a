//! FIX of no declared session, as the key `undeclared` says.

use breaker_tests::frame::{message, order};
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;

use super::{OtherTraffic, undeclared};

const CANCEL: &[u8] = b"11=C-1\x0141=R-1\x01";

#[test]
fn ignored_undeclared_fix_is_neither_counted_nor_withheld() {
    require_root!();
    let testbed = Testbed::load(&undeclared("ignore", r#"{ class = "message", max = 5, per = "total" }"#));
    let receivers = [9005, 9001, 22].map(|port| testbed.listen(port));
    let mut others = OtherTraffic::new(&testbed, &[&receivers[0], &receivers[2]]);
    let mut connection = receivers[0].connect(&testbed);
    (0..10).for_each(|id| connection.send_and_wait(&order(id)));
    assert_eq!(testbed.tripped(), [""; 0]);
    // A trip of the declared session does not affect it.
    let mut declared = receivers[1].connect(&testbed);
    testbed.trip("host");
    declared.wait_for_reset();
    connection.send_and_wait(&order(11));
    receivers[0].connect(&testbed).send_and_wait(&order(12));
    others.exchange();
    let counters = testbed.counters(0);
    assert_eq!((counters.packets_passed, counters.packets_withheld), (0, 0));
    assert!(testbed.events_of_kind("undeclared").is_empty());
}

#[test]
fn watched_undeclared_fix_counts_for_the_host_and_its_limit_trips_it() {
    require_root!();
    let limit = undeclared("watch", r#"{ class = "order", max = 5, per = "total" }"#);
    let testbed = Testbed::load(&format!("undeclared_trips = true\n{limit}"));
    let receivers = [9005, 9001, 22].map(|port| testbed.listen(port));
    let mut others = OtherTraffic::new(&testbed, &[&receivers[0], &receivers[2]]);
    let mut connection = receivers[0].connect(&testbed);
    let mut declared = receivers[1].connect(&testbed);
    for id in 0..2 {
        connection.send_and_wait(&order(id));
        declared.send_and_wait(&order(id));
        connection.send_and_wait(&message("FIX.4.4", "0", b""));
    }
    connection.send_and_wait(&order(2));
    assert_eq!(testbed.tripped(), [""; 0]);
    connection.try_send(&order(3));
    assert_eq!(connection.wait_for_reset().complete("D"), 3);
    let [watched, own] = [0, 1].map(|session| testbed.counters(session));
    assert_eq!((watched.passed, watched.withheld, watched.desyncs), ([3, 0, 0, 0, 2], [1, 0, 0, 0, 0], 0));
    assert_eq!((own.passed[0], own.packets_withheld), (2, 0));
    // A trip of the host withholds the session's orders and those of new connections.
    declared.try_send(&order(3));
    assert_eq!(declared.wait_for_reset().complete("D"), 2);
    let mut new_connection = receivers[0].connect(&testbed);
    new_connection.send_and_wait(&message("FIX.4.4", "F", CANCEL));
    new_connection.try_send(&order(4));
    assert_eq!((new_connection.wait_for_reset().complete("F"), new_connection.received().count("D")), (1, 0));
    others.exchange();
    let status = testbed.status();
    let host = status.scopes.iter().find(|scope| scope.scope == "host").expect("the host");
    assert_eq!(
        (host.causes.as_slice(), testbed.tripped().as_slice()),
        (&["rate"][..], &["host".to_owned()][..])
    );
    assert_eq!(host.last_trip.as_ref().expect("a trip").session, "undeclared");
    let events = testbed.events_of_kind("undeclared");
    assert_eq!(events.len(), 2, "one event for each connection: {events:?}");
    let name = events[0]["counts"]["connection"].as_str().expect("a connection");
    assert!(name.ends_with(" > 10.9.0.2:9005"), "{name}");
    assert_eq!(events[0]["counts"]["session"], "undeclared");
    // After a reset new connections trade, and older ones stay fenced.
    testbed.reset("host");
    connection = receivers[0].connect(&testbed);
    connection.send_and_wait(&order(5));
}

#[test]
fn a_watched_flow_is_as_old_as_its_first_fix_and_a_trip_fences_it() {
    require_root!();
    let testbed = Testbed::load(&undeclared("watch", ""));
    let receiver = testbed.listen(9005);
    let [mut old, mut late] = [receiver.connect(&testbed), receiver.connect(&testbed)];
    old.send_and_wait(&order(1));
    late.send_and_wait(b"CONNECT venue:9005 HTTP/1.1\r\n\r\n");
    testbed.trip("session/undeclared");
    testbed.reset("session/undeclared");
    // Not even a heartbeat on this connection passes. The other one had sent no FIX.
    old.try_send(&message("FIX.4.4", "0", b""));
    assert_eq!((old.wait_for_reset().complete("D"), old.received().count("0")), (1, 0));
    late.send_and_wait(&order(2));
    assert_eq!(testbed.counters(0).passed[0], 2);
}

#[test]
fn blocked_undeclared_fix_is_reset_at_its_first_byte_and_nothing_of_it_arrives() {
    require_root!();
    let testbed = Testbed::load(&undeclared("block", ""));
    let receivers = [9005, 9001, 22].map(|port| testbed.listen(port));
    let mut others = OtherTraffic::new(&testbed, &[&receivers[0], &receivers[2]]);
    let blocked = |first: &[u8], bytes: &[u8]| {
        let mut connection = receivers[0].connect(&testbed);
        if !first.is_empty() {
            connection.send_and_wait(first);
        }
        connection.try_send(bytes);
        assert!(
            connection.wait_for_reset().bytes == first,
            "{} bytes came where {} were no FIX",
            connection.received().bytes.len(),
            first.len()
        );
    };
    blocked(b"", &order(1));
    blocked(b"", &message("FIXT.1.1", "A", b"98=0\x01108=30\x01"));
    blocked(b"CONNECT venue:9005 HTTP/1.1\r\n\r\n", &(0..1_000).flat_map(order).collect::<Vec<_>>());
    // The head of a message is enough, wherever TCP cuts it.
    blocked(b"", &order(1)[..20]);
    others.exchange();
    let mut declared = receivers[1].connect(&testbed);
    declared.send_and_wait(&order(1));
    assert_eq!(testbed.tripped(), [""; 0]);
    testbed.trip("host");
    declared.wait_for_reset();
    blocked(b"", &message("FIX.4.4", "F", CANCEL));
    others.exchange();
    let (counters, own) = (testbed.counters(0), testbed.counters(1));
    assert_eq!((counters.passed, counters.packets_passed, own.passed[0]), ([0; 5], 0, 1));
    assert!(counters.packets_withheld >= 5);
    assert_eq!(testbed.events_of_kind("undeclared").len(), 5);
}
