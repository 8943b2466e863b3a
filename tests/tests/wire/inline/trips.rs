//! Trips and resets inline, by hand and by a limit, and the traffic that they leave alone.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use breaker_tests::frame::{message, order};
use breaker_tests::gateway::{Gateway, Hook, Inline, Offloads};
use breaker_tests::receiver::End;
use breaker_tests::require_root;
use breaker_tests::user_tcp::UserTcp;

use super::{LIMIT, ONE_RETRANSMIT, POLICY, QUIET, at, both_families, connect, inline, is_reset};

#[test]
fn status_shows_the_hook_and_an_unload_detaches_it() {
    require_root!();
    for hook in Hook::ALL {
        let testbed = inline(hook);
        let status = testbed.status_json();
        assert!(testbed.is_attached_by(hook), "{status:?}");
        assert_eq!(status["agent"]["running"], false);
        assert_eq!(testbed.cli("unload").exit_code, Some(0));
        let link =
            testbed.on_host(|| Command::new("ip").args(["-d", "link", "show", Gateway::INSIDE]).output());
        let link = String::from_utf8(link.expect("running ip").stdout).expect("UTF-8");
        assert!(!link.contains("xdp"), "{link}");
        let receiver = testbed.listen(9001);
        let mut stream = connect(&testbed, at(9001));
        let orders: Vec<u8> = (0..200).flat_map(order).collect();
        stream.write_all(&orders).expect("sending");
        receiver.wait("all of them", |all| all[0].complete("D") == 200);
    }
}

#[test]
fn a_trip_by_hand_ends_a_live_connection_and_after_a_reset_a_new_one_trades() {
    require_root!();
    for hook in Hook::ALL {
        for venue in both_families(9001) {
            let testbed = inline(hook);
            let receiver = testbed.listen_at(venue);
            let mut stream = connect(&testbed, venue);
            for (msg_type, fields) in [("A", &b"98=0\x01108=30\x01"[..]), ("D", b"11=R-1\x01")] {
                stream.write_all(&message("FIX.4.4", msg_type, fields)).expect("sending");
            }
            receiver.wait("the order", |all| all[0].complete("D") == 1);
            testbed.trip("session/x1");
            assert_eq!(testbed.status_json().causes("session/x1"), ["manual"]);
            let _ = stream.write_all(&order(2));
            assert!(is_reset(&mut stream, ONE_RETRANSMIT), "the sender sees the reset ({hook:?}, {venue})");
            receiver.wait("the reset at the venue", |all| all[0].end == End::Reset);

            // While tripped: a new connection may cancel, and its first order ends it.
            let mut stream = connect(&testbed, venue);
            for (msg_type, fields) in [("A", &b"98=0\x01"[..]), ("F", b"11=C\x0141=R-1\x01")] {
                stream.write_all(&message("FIX.4.4", msg_type, fields)).expect("sending");
            }
            receiver.wait("the cancel", |all| all.len() == 2 && all[1].complete("F") == 1);
            let _ = stream.write_all(&order(3));
            assert!(is_reset(&mut stream, ONE_RETRANSMIT));
            receiver.wait("the reset at the venue", |all| all[1].end == End::Reset);

            testbed.reset("session/x1");
            connect(&testbed, venue).write_all(&order(4)).expect("sending");
            receiver
                .wait("the order of the new connection", |all| all.len() == 3 && all[2].complete("D") == 1);
            let crossed: Vec<_> = receiver.received().iter().map(|one| one.count("D")).collect();
            assert_eq!(crossed, [1, 0, 1]);
        }
    }
}

#[test]
fn nothing_queued_before_a_reset_arrives_after_it_even_behind_a_closed_window() {
    require_root!();
    for (hook, on_trip) in
        Hook::ALL.into_iter().flat_map(|hook| ["reset", "drop"].map(|on_trip| (hook, on_trip)))
    {
        let unlimited = POLICY.replace("max = 137", "max = 1000000");
        let testbed =
            Inline::inline(hook, Offloads::Checksums, &format!("on_trip = {on_trip:?}\n{unlimited}"));
        let receiver = testbed.listen(9001);
        receiver.set_reading(false);
        let mut stream = connect(&testbed, at(9001));
        let id = crate::switch::queue_orders(&mut stream);
        let before = testbed.status_json().messages("x1", "order").0;
        assert!(u64::from(id) > before, "orders are queued: {id} written, {before} crossed");
        testbed.trip("session/x1");
        testbed.reset("session/x1");
        receiver.set_reading(true);
        // Longer than the zero-window probe, which would have started the queued orders.
        sleep(Duration::from_secs(2));
        let crossed = receiver.last().complete("D") as u64;
        assert!(
            crossed <= before,
            "{crossed} arrived, but {before} had crossed before the trip ({hook:?}, {on_trip})"
        );
        assert_eq!(testbed.status_json().messages("x1", "order").0, before);
        connect(&testbed, at(9001)).write_all(&order(1)).expect("sending");
        receiver.wait("the order of the new connection", |all| all.len() == 2 && all[1].complete("D") == 1);
    }
}

#[test]
fn one_of_two_sessions_trips_and_the_other_continues() {
    require_root!();
    for hook in Hook::ALL {
        let testbed = inline(hook);
        let receivers = [9001, 9002].map(|port| testbed.listen(port));
        let mut streams = [9001, 9002].map(|port| connect(&testbed, at(port)));
        for round in 1..=200 {
            for stream in &mut streams {
                let _ = stream.write_all(&order(round));
            }
            receivers[1].wait("the other's order", |all| all[0].complete("D") == round as usize);
        }
        receivers[0].wait("the reset", |all| all[0].end == End::Reset);
        assert_eq!(receivers[0].last().complete("D"), LIMIT);
        assert_eq!(receivers[1].last().end, End::Open);
        let status = testbed.status_json();
        assert_eq!(status.causes("session/x1"), ["rate"]);
        assert!(status.causes("session/x2").is_empty());
        assert_eq!(status.messages("x2", "order"), (200, 0));
    }
}

#[test]
fn a_tripped_host_leaves_everything_else_alone() {
    require_root!();
    for hook in Hook::ALL {
        let testbed = inline(hook);
        for (family, venue) in both_families(22).into_iter().enumerate() {
            let listener = testbed
                .network
                .venue
                .run(|| TcpListener::bind(both_families(9001)[family]))
                .expect("listening");
            let mut session = connect(&testbed, both_families(9001)[family]);
            let (mut accepted, _) = listener.accept().expect("accepting");
            let receiver = testbed.listen_at(venue);
            let mut other = connect(&testbed, venue);
            let engine = UserTcp::new(&testbed.network, 40_000, venue);
            testbed.trip("host");

            // New ARP and neighbour discovery, from both sides of the inside link.
            for namespace in [&testbed.network.firm, &testbed.network.gateway] {
                let flush = || Command::new("ip").args(["neigh", "flush", "all"]).status();
                assert!(namespace.run(flush).expect("running ip (package iproute2)").success());
            }
            let nobody = SocketAddr::new(venue.ip(), 7);
            let refused =
                testbed.network.firm.run(|| TcpStream::connect_timeout(&nobody, Duration::from_secs(2)));
            assert_eq!(refused.expect_err("the port is closed").kind(), ErrorKind::ConnectionRefused);
            assert!(engine.ping(), "{venue} answers a ping");

            // Another application, on an old and a new connection.
            other.write_all(&vec![b'x'; 100_000]).expect("sending");
            connect(&testbed, venue).write_all(&vec![b'x'; 100_000]).expect("sending");
            receiver
                .wait("the bytes", |all| all.len() == 2 && all.iter().all(|one| one.bytes.len() == 100_000));

            // Fills of the tripped session still arrive and are acknowledged: more than a window's worth.
            let fills = vec![b'f'; 2_000_000];
            let writer = std::thread::spawn(move || accepted.write_all(&fills).map(|()| accepted));
            let mut received = vec![0; 2_000_000];
            session.set_read_timeout(Some(Duration::from_secs(5))).expect("setting a timeout");
            session.read_exact(&mut received).expect("the fills");
            let mut accepted = writer.join().expect("the writer").expect("sending fills");

            // The session may close its connection in order.
            drop(session);
            accepted.set_read_timeout(Some(Duration::from_secs(2))).expect("setting a timeout");
            assert_eq!(accepted.read(&mut [0; 1]).expect("FIN"), 0);
            testbed.reset("host");
        }
    }
}

#[test]
fn on_trip_drop_drops_the_payload_without_a_reset() {
    require_root!();
    for hook in Hook::ALL {
        for venue in both_families(9001) {
            let testbed = Inline::inline(hook, Offloads::Checksums, &format!("on_trip = \"drop\"\n{POLICY}"));
            let listener = testbed.network.venue.run(|| TcpListener::bind(venue)).expect("listening");
            let mut stream = connect(&testbed, venue);
            let (mut accepted, _) = listener.accept().expect("accepting");
            for id in 0..LIMIT as u32 {
                let order = order(id);
                stream.write_all(&order).expect("sending");
                accepted.read_exact(&mut vec![0; order.len()]).expect("the order");
            }
            for id in 0..10 {
                stream.write_all(&order(id)).expect("sending");
            }
            accepted.set_read_timeout(Some(QUIET)).expect("setting a timeout");
            let silence = accepted.read(&mut [0; 1]).expect_err("no bytes");
            assert_eq!(silence.kind(), ErrorKind::WouldBlock, "{silence}");
            // Fills still arrive.
            accepted.write_all(b"fill").expect("sending");
            stream.set_read_timeout(Some(Duration::from_secs(2))).expect("setting a timeout");
            stream.read_exact(&mut [0; 4]).expect("a fill arrives");
            let (passed, withheld) = testbed.status_json().messages("x1", "order");
            assert_eq!(passed, LIMIT as u64);
            assert!(withheld >= 1);
        }
        let testbed = Inline::inline(hook, Offloads::None, &format!("on_trip = \"drop\"\n{POLICY}"));
        let receiver = testbed.listen(9001);
        let mut engine = UserTcp::connect(&testbed.network, 40_000, at(9001));
        for id in 0..LIMIT {
            engine.send(&order(id as u32));
            receiver.wait("the order", |all| all[0].complete("D") == id + 1);
        }
        engine.send(&order(0));
        engine.send(&order(1));
        assert!(!engine.is_reset(QUIET), "no reset comes back ({hook:?})");
        assert_eq!((receiver.last().end, receiver.last().count("D")), (End::Open, LIMIT));
    }
}

#[test]
fn an_isolated_session_opens_no_connection() {
    require_root!();
    for hook in Hook::ALL {
        let testbed =
            Inline::inline(hook, Offloads::Checksums, &format!("while_tripped = \"isolate\"\n{POLICY}"));
        for venue in both_families(9001) {
            let receiver = testbed.listen_at(venue);
            testbed.trip("session/x1");
            let refused =
                testbed.network.firm.run(|| TcpStream::connect_timeout(&venue, Duration::from_millis(500)));
            assert_eq!(refused.expect_err("no connection opens").kind(), ErrorKind::TimedOut);
            assert!(receiver.received().is_empty());
            testbed.reset("session/x1");
            connect(&testbed, venue).write_all(&order(1)).expect("sending after the reset");
            receiver.wait("the order", |all| all[0].complete("D") == 1);
        }
    }
}
