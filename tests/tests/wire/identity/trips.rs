//! Trips, fences and isolation of one session at a shared endpoint.

use std::io::{ErrorKind, Read};
use std::thread::sleep;
use std::time::Duration;

use breaker_tests::frame::message_with_body;
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use breaker_user::kernel::load;

use super::{A, REMOTE, TWO, at, cancel, logged_on, logon_of, order, orders, testbed, two_sessions};

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
    of_a.iter_mut().for_each(|connection| drop(connection.wait_for_reset()));
    of_b.iter_mut().for_each(|connection| connection.send_and_wait(&order(1)));
    undeclared.send_and_wait(&order(1));
    // A connection that has not identified itself may belong to another session.
    silent.send_and_wait(&logon_of("B"));
    silent.send_and_wait(&order(1));
    assert_eq!(orders(&testbed), [1, 0, 3]);
    assert_eq!(testbed.tripped(), ["session/a"]);
    // A trip of the host ends all connections, also those without an identity.
    let mut silent = receiver.connect(&testbed);
    testbed.trip("host");
    of_b.iter_mut()
        .chain([&mut undeclared, &mut silent])
        .for_each(|connection| drop(connection.wait_for_reset()));
}

#[test]
fn a_connection_is_as_old_as_its_syn_whenever_it_logs_on() {
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
fn a_logon_while_tripped_applies_the_rules_of_its_session() {
    require_root!();
    for (rule, cancels, logons) in [("reduce-only", 1, 1), ("admin-only", 0, 1), ("isolate", 0, 0)] {
        let (testbed, receiver) = testbed(&two_sessions(&format!("while_tripped = {rule:?}")));
        testbed.trip("session/a");
        let mut connection = receiver.connect(&testbed);
        connection.try_send(&logon_of("A"));
        sleep(Duration::from_millis(30));
        connection.try_send(&cancel());
        sleep(Duration::from_millis(30));
        connection.try_send(&order(1));
        let received = connection.wait_for_reset();
        assert_eq!(
            (received.complete("A"), received.complete("F"), received.count("D")),
            (logons, cancels, 0),
            "{rule}"
        );
        let mut other = logged_on(&testbed, &receiver, &logon_of("B"));
        other.send_and_wait(&order(1));
        other.send_and_wait(&cancel());
        assert_eq!(orders(&testbed), [0, 0, 1], "{rule}");
    }
}

#[test]
fn the_next_message_identifies_a_connection_joined_in_mid_stream() {
    require_root!();
    let testbed = Testbed::unloaded(TWO);
    let receiver = testbed.listen_at(at(REMOTE));
    let message = |name: &str| {
        message_with_body(&format!("35=D|49=DESK-{name}|56=VENUE|34=7|11=R-1|55=IBM|54=1|38=1|40=2|44=1|"))
    };
    let mut connections = ["A", "B", "C"].map(|name| {
        let mut connection = logged_on(&testbed, &receiver, &logon_of(name));
        connection.send_and_wait(&message(name)[..40]);
        (name, connection)
    });
    let policy = testbed.policy();
    testbed.on_host(|| load::load(&policy, &Testbed::root())).expect("loading");
    for (name, connection) in &mut connections {
        // The rest of the message at the load identifies no session, and counts as an undeclared order.
        connection.send_and_wait(&message(name)[40..]);
        connection.send_and_wait(&message(name));
    }
    assert_eq!(orders(&testbed), [4, 1, 1]);
    for (name, connection) in &mut connections {
        // The next message need not identify a session either.
        connection.send_and_wait(&order(1));
        connection.send_and_wait(&message(name)[..60]);
        connection.send_and_wait(&message(name)[60..]);
    }
    assert_eq!(orders(&testbed), [6, 3, 3]);
    // A connection is live if nothing has tripped yet. It is older than the first trip.
    testbed.trip("session/a");
    let [(_, of_a), (_, of_b), (_, of_c)] = &mut connections;
    of_a.wait_for_reset();
    of_b.send_and_wait(&order(2));
    of_c.send_and_wait(&order(2));
}

#[test]
fn an_unidentified_connection_is_fenced_by_any_trip_at_its_endpoint() {
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
fn a_loop_at_a_shared_endpoint_isolates_its_session_only() {
    require_root!();
    for on_trip in ["reset", "drop"] {
        let (testbed, receiver) = testbed(&format!("on_trip = {on_trip:?}\n{TWO}"));
        testbed.trip("session/a");
        for id in 0..3 {
            let mut connection = logged_on(&testbed, &receiver, &logon_of("A"));
            let before = testbed.counters(A).packets_withheld;
            connection.try_send(&order(id));
            if on_trip == "reset" {
                connection.wait_for_reset();
            }
            receiver.wait("the order to be withheld", |_| testbed.counters(A).packets_withheld > before);
        }
        let events = testbed.events_of_kind("isolated");
        assert_eq!((events.len(), &events[0]["scope"]), (1, &"session/a".into()), "{on_trip}");
        // The Logon identifies the connection, so the Logon is withheld.
        let mut connection = receiver.connect(&testbed);
        connection.try_send(&logon_of("A"));
        if on_trip == "reset" {
            assert_eq!(connection.wait_for_reset().bytes, b"");
        } else {
            connection.stream.set_read_timeout(Some(Duration::from_millis(500))).expect("setting a timeout");
            let waited = connection.stream.read(&mut [0; 1]).expect_err("no bytes arrive");
            assert_eq!((waited.kind(), connection.received().bytes), (ErrorKind::WouldBlock, vec![]));
        }
        logged_on(&testbed, &receiver, &logon_of("B")).send_and_wait(&order(1));
        testbed.reset("session/a");
        logged_on(&testbed, &receiver, &logon_of("A")).send_and_wait(&order(1));
        assert_eq!(orders(&testbed), [0, 1, 1], "{on_trip}");
    }
}
