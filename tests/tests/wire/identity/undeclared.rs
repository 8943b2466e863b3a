//! First messages that identify no session.

use breaker_common::abi::Counters;
use breaker_tests::receiver::End;
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;

use super::{A, TWO, UNDECLARED, cancel, logged_on, logon_of, messages, order, orders, testbed};

#[test]
fn an_unknown_logon_is_treated_as_the_policy_on_undeclared_says() {
    require_root!();
    for policy in ["ignore", "watch", "block"] {
        // A first message that is an order itself is undeclared too, without a Logon.
        for (what, first) in [("logon", logon_of("C")), ("order", order(1)), ("cut", logon_of("C"))] {
            let (testbed, receiver) = testbed(&format!("undeclared = {policy:?}\n{TWO}"));
            let mut connection = receiver.connect(&testbed);
            let (head, tail) = if what == "cut" { first.split_at(60) } else { first.split_at(0) };
            if !head.is_empty() {
                connection.send_and_wait(head);
            }
            let status = |testbed: &Testbed, reason: &str| testbed.status().packets[reason];
            match policy {
                "block" => {
                    connection.try_send(tail);
                    assert_eq!(connection.wait_for_reset().bytes, head, "{what}");
                    assert_eq!(status(&testbed, "undeclared"), 1);
                    let Counters { passed, packets_withheld, .. } = testbed.counters(UNDECLARED);
                    assert_eq!((passed, packets_withheld), ([0; 5], 1), "{what}");
                }
                _ => {
                    connection.send_and_wait(tail);
                    connection.send_and_wait(&order(2));
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
fn ignored_connections_pass_while_the_host_is_tripped() {
    require_root!();
    let (testbed, receiver) = testbed(&format!("undeclared = \"ignore\"\n{TWO}"));
    let mut connection = logged_on(&testbed, &receiver, &logon_of("C"));
    testbed.trip("host");
    connection.send_and_wait(&order(1));
    assert_eq!((connection.received().end, messages(&testbed)), (End::Open, [0, 0, 0]));
}

#[test]
fn bytes_that_are_not_fix_are_undeclared() {
    require_root!();
    for policy in ["ignore", "watch", "block"] {
        for first in [&b"SSH-2.0-OpenSSH\r\n"[..], b"\x16\x03\x01\x02\x00\x01", b"8=FIX.9.9\x019=5\x01", b"G"]
        {
            let (testbed, receiver) = testbed(&format!("undeclared = {policy:?}\n{TWO}"));
            let mut connection = receiver.connect(&testbed);
            (0..4).for_each(|_| connection.send_and_wait(first));
            assert_eq!(connection.received().end, End::Open);
            // A connection that may belong to a session, and is never read, would have no limit.
            connection.try_send(first);
            assert_eq!(connection.wait_for_reset().bytes, first.repeat(4));
            assert_eq!(testbed.events_of_kind("undeclared").len(), 1, "{policy}");
            // The connection may still become any session's: until then its bytes count as undeclared orders.
            assert_eq!((messages(&testbed), testbed.tripped()), ([4, 0, 0], vec![]));
        }
    }
}

#[test]
fn a_loop_of_undeclared_connections_isolates_no_declared_session() {
    require_root!();
    let (testbed, receiver) = testbed(TWO);
    testbed.trip("host");
    // A reconnect loop of undeclared connections.
    for _ in 0..3 {
        let mut connection = logged_on(&testbed, &receiver, &logon_of("C"));
        connection.try_send(&order(1));
        connection.wait_for_reset();
    }
    let mut connection = logged_on(&testbed, &receiver, &logon_of("A"));
    connection.send_and_wait(&cancel());
    assert_eq!(connection.received().complete("F"), 1);
}
