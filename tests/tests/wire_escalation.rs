//! A reconnect loop on the wire: an engine that keeps coming back with orders while its session is tripped is isolated.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use breaker_common::abi::while_tripped;
use breaker_tests::frame::{message, order};
use breaker_tests::privileged;
use breaker_tests::rig::Rig;
use breaker_tests::sink::{End, Line, Sink};
use breaker_user::testbed::TwoHosts;
use serde_json::Value;

/// Two sessions, with these keys for the host and for the first of them.
fn policy(host: &str, keys: &str) -> String {
    format!(
        "{host}\n[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\n{keys}\n\
         [[session]]\nname = \"x2\"\nremote = \"10.9.0.2:9002\"\n"
    )
}

/// What becomes of a withheld segment.
const WAYS: [&str; 2] = ["reset", "drop"];

fn listen(rig: &Rig) -> [Sink; 2] {
    [9001, 9002].map(|port| Sink::listen(&rig.wire.venue, TwoHosts::venue_socket(port)))
}

fn connect<'a>(rig: &Rig, sink: &'a Sink) -> Line<'a> {
    sink.connect(&rig.wire.firm)
}

/// Whether a connection to the first session's venue comes about.
fn opens(rig: &Rig) -> bool {
    let tried =
        rig.inside(|| TcpStream::connect_timeout(&TwoHosts::venue_socket(9001), Duration::from_millis(300)));
    match tried {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(
                error.kind(),
                ErrorKind::TimedOut,
                "its SYN is withheld, and nobody refuses it: {error}"
            );
            false
        }
    }
}

/// A new connection that is fenced by its first order.
fn fence<'a>(rig: &Rig, sink: &'a Sink) -> Line<'a> {
    let mut line = connect(rig, sink);
    line.deliver(&message("FIX.4.4", "A", b"98=0\x01108=30\x01"));
    let before = rig.counters(1).withheld[0];
    line.offer(&order(1));
    sink.wait("the order to be withheld", |_| rig.counters(1).withheld[0] > before);
    line
}

/// Events that tell of isolation.
fn isolated(rig: &Rig) -> Vec<Value> {
    rig.told().into_iter().filter(|line| line["kind"] == "isolated").collect()
}

fn withheld_syns(rig: &Rig) -> u64 {
    rig.status().packets["isolated"]
}

#[test]
fn the_third_fenced_connection_isolates_its_session_until_the_reset() {
    if !privileged() {
        return;
    }
    for on_trip in WAYS {
        let rig = Rig::new(&policy(&format!("on_trip = {on_trip:?}"), ""));
        let [sink, other] = listen(&rig);
        rig.trip("session/x1");
        fence(&rig, &sink);
        fence(&rig, &sink);
        assert_eq!(isolated(&rig).len(), 0, "{on_trip}: two are no loop");
        // One that adds no risk is none of them, and goes on when the session is isolated.
        let mut harmless = connect(&rig, &sink);
        harmless.deliver(&message("FIX.4.4", "F", b"11=C\x01"));
        fence(&rig, &sink);
        let events = isolated(&rig);
        assert_eq!((events.len(), &events[0]["scope"]), (1, &"session/x1".into()), "{on_trip}");
        assert_eq!((opens(&rig), withheld_syns(&rig) > 0), (false, true), "{on_trip}");
        harmless.deliver(&message("FIX.4.4", "F", b"11=C\x01"));
        // The other session neither before nor while its own trip.
        connect(&rig, &other).deliver(&order(1));
        rig.trip("session/x2");
        connect(&rig, &other).deliver(&message("FIX.4.4", "F", b"11=C\x01"));
        // Another cause changes nothing, a reset all.
        rig.trip("host");
        assert!(!opens(&rig), "{on_trip}");
        rig.reset("host");
        assert!(opens(&rig), "{on_trip}: with a reset of any of its scopes all is forgiven");
        rig.reset("session/x1");
        connect(&rig, &sink).deliver(&order(1));
        assert_eq!(isolated(&rig).len(), 1, "{on_trip}");
        // It takes three again.
        rig.trip("session/x1");
        fence(&rig, &sink);
        fence(&rig, &sink);
        assert!(opens(&rig), "{on_trip}");
        fence(&rig, &sink);
        assert_eq!((opens(&rig), isolated(&rig).len()), (false, 2), "{on_trip}");
    }
}

#[test]
fn connections_that_one_trip_fences_are_no_loop() {
    if !privileged() {
        return;
    }
    for on_trip in WAYS {
        // All five are live at the trip, by hand and by a limit.
        for by_limit in [false, true] {
            let limit = "limits = [{ class = \"order\", max = 5, per = \"total\" }]";
            let rig = Rig::new(&policy(&format!("on_trip = {on_trip:?}"), limit));
            let [sink, _] = listen(&rig);
            let mut lines: Vec<_> = (0..5).map(|_| connect(&rig, &sink)).collect();
            lines.iter_mut().for_each(|line| line.deliver(&order(1)));
            if by_limit {
                let before = rig.counters(1).packets_withheld;
                lines[0].offer(&order(2));
                sink.wait("the trip", |_| rig.counters(1).packets_withheld > before);
            } else {
                rig.trip("session/x1");
            }
            // Dead or not: whatever they still send is withheld.
            for line in &mut lines {
                line.offer(&order(3));
            }
            assert_eq!(sink.received().iter().map(|one| one.whole("D")).sum::<usize>(), 5);
            let told = (isolated(&rig).len(), opens(&rig));
            assert_eq!(told, (0, true), "{on_trip}, by limit: {by_limit}");
            // They count as one at most: with two more it is a loop, where any of them was fenced in the packet path.
            let fenced = u64::from(on_trip == "drop" || by_limit);
            fence(&rig, &sink);
            assert_eq!(isolated(&rig).len(), 0);
            fence(&rig, &sink);
            assert_eq!(isolated(&rig).len() as u64, fenced, "{on_trip}, by limit: {by_limit}");
            assert_eq!(opens(&rig), fenced == 0);
        }
    }
}

#[test]
fn a_fenced_connection_that_tries_again_is_still_one() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(&policy("on_trip = \"drop\"", ""));
    let [sink, _] = listen(&rig);
    rig.trip("session/x1");
    let mut line = fence(&rig, &sink);
    // TCP sends it again and again, and the engine more.
    for id in 0..5 {
        line.offer(&order(id));
    }
    sink.wait("three tries", |_| rig.counters(1).packets_withheld >= 4);
    assert_eq!((isolated(&rig).len(), opens(&rig), line.received().end), (0, true, End::Open));
}

#[test]
fn the_host_tripped_isolates_only_the_session_in_the_loop() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(&policy("", ""));
    let [sink, other] = listen(&rig);
    rig.trip("host");
    (0..3).for_each(|_| drop(fence(&rig, &sink)));
    assert!(!opens(&rig));
    let mut line = connect(&rig, &other);
    line.deliver(&message("FIX.4.4", "F", b"11=C\x01"));
    line.offer(&order(1));
    line.reset();
    let events = isolated(&rig);
    assert_eq!((events.len(), &events[0]["scope"]), (1, &"session/x1".into()));
    // A reset of the host lifts it, whose trip it was.
    rig.reset("host");
    connect(&rig, &sink).deliver(&order(1));
}

#[test]
fn under_admin_only_a_loop_isolates_too() {
    if !privileged() {
        return;
    }
    let rig = Rig::new(&policy("", "while_tripped = \"admin-only\""));
    let [sink, _] = listen(&rig);
    let rule = rig.breaker(|breaker| {
        let session = breaker.names().sessions().nth(1).expect("a session");
        breaker.session(session).expect("its settings").while_tripped
    });
    assert_eq!(rule, while_tripped::ADMIN_ONLY);
    rig.trip("session/x1");
    for _ in 0..3 {
        let mut line = connect(&rig, &sink);
        line.offer(&message("FIX.4.4", "F", b"11=C\x01"));
        assert_eq!(line.reset().bytes, b"");
    }
    assert_eq!((isolated(&rig).len(), opens(&rig)), (1, false));
}
