//! FIX sessions between two namespaces: what arrives, what is lost, and how connections end.

use std::io::Read as _;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use breaker_user::testbed::fix::{AcceptorSettings, End, Initiator, InitiatorSettings, cl_ord_ids};
use breaker_user::testbed::{Moment, TwoHosts};

use super::{PATIENCE, acceptor, engine, impatient_engine, in_laboratory, log_on};

#[test]
fn ten_thousand_orders_arrive_exactly() {
    in_laboratory(|wire| {
        let venue = acceptor(wire, AcceptorSettings::default());
        let engine = engine(wire);
        let start = Moment::now();
        assert_eq!(engine.send_orders("R", 1..=9_999).messages, 9_999);
        assert_eq!(engine.send_order("R-010000").messages, 1);
        assert_eq!(engine.send_cancel("X-000001", "R-000001").messages, 1);
        venue.wait_for_orders(10_000, PATIENCE).unwrap();
        assert!(engine.wait_for_reports(10_001, PATIENCE));
        assert_eq!(venue.order_count(), 10_000);
        assert_eq!(venue.cl_ord_ids(), cl_ord_ids("R", 1..=10_000));
        let orders = venue.orders();
        assert!(orders.is_sorted_by_key(|order| (order.at, order.seq)));
        assert!(orders[0].at > start && orders[0].seq == 2);
        assert_eq!(venue.cancels()[0].cl_ord_id, "X-000001");
        engine.logout().unwrap();
        assert_eq!(venue.wait_for_end(0, PATIENCE).unwrap().how, End::LoggedOut(String::new()));
        assert_eq!((engine.rejects(), venue.gaps()), (0, vec![]));
    });
}

#[test]
fn sequence_numbers_go_on_after_a_reconnect() {
    in_laboratory(|wire| {
        let venue = acceptor(wire, AcceptorSettings::default());
        let engine = engine(wire);
        let _ = engine.send_orders("R", 1..=10);
        assert!(engine.wait_for_reports(10, PATIENCE));
        engine.disconnect();
        assert_eq!(venue.wait_for_end(0, PATIENCE).unwrap().how, End::Eof);
        log_on(wire, &engine);
        let _ = engine.send_orders("R", 11..=20);
        venue.wait_for_orders(20, PATIENCE).unwrap();
        assert_eq!(venue.gaps(), []);
        // Logon, ten orders, Logon, ten orders.
        assert_eq!(engine.next_seq(), 23);
        assert_eq!(venue.orders().last().map(|order| (order.seq, order.connection)), Some((22, 1)));
    });
}

#[test]
fn what_was_lost_is_asked_for_and_never_sent_again() {
    in_laboratory(|wire| {
        let venue = acceptor(wire, AcceptorSettings { reports: true, receive_buffer: Some(4096) });
        let engine = impatient_engine(wire);
        let _ = engine.send_orders("R", 1..=10);
        venue.wait_for_orders(10, PATIENCE).unwrap();
        venue.pause_reading();
        // One more read may be under way; these orders stay in the sender's socket, and go with it.
        let _ = engine.send_orders("R", 11..=500);
        engine.abort();
        venue.resume_reading();
        assert_eq!(venue.wait_for_end(0, PATIENCE).unwrap().how, End::Reset);
        let arrived = venue.order_count();
        assert!(arrived < 500, "{arrived}");
        log_on(wire, &engine);
        let _ = engine.send_order("R-009999");
        venue.wait_for_orders(arrived + 1, PATIENCE).unwrap();
        assert!(engine.wait_for_reports(1, PATIENCE));
        // What arrived whole had the numbers 2 to `arrived` + 1, and the new Logon 502.
        assert_eq!(venue.gaps(), [(arrived as u64 + 2, 501)]);
        engine.logout().unwrap();
        assert_eq!((venue.order_count(), engine.rejects()), (arrived + 1, 0));
    });
}

#[test]
fn a_reset_is_told_from_an_end_of_file() {
    in_laboratory(|wire| {
        let venue = acceptor(wire, AcceptorSettings::default());
        let engine = engine(wire);
        assert_eq!(engine.send_order("R-000001").messages, 1);
        venue.wait_for_orders(1, PATIENCE).unwrap();
        let before = Moment::now();
        engine.abort();
        let ending = venue.wait_for_end(0, PATIENCE).unwrap();
        assert_eq!(ending.how, End::Reset);
        assert!(ending.at.since(before) < Duration::from_secs(1));
        assert_eq!(engine.ending().unwrap().how, End::Closed);
        assert_eq!(engine.send_order("R-000002").messages, 0);
    });
}

#[test]
fn a_reset_in_the_middle_of_a_blast_is_the_same_to_who_sends() {
    in_laboratory(|wire| {
        let listener = wire.venue.run(|| TcpListener::bind(TwoHosts::venue_socket(9001))).unwrap();
        let engine = Initiator::new(InitiatorSettings::new(TwoHosts::venue_socket(9001)));
        for _ in 0..20 {
            wire.firm.run(|| engine.connect()).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            let sent = thread::scope(|scope| {
                let blast = scope.spawn(|| engine.send_orders("R", 1..=u64::MAX));
                stream.read_exact(&mut [0; 1_000_000]).unwrap();
                rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
                drop(stream);
                blast.join().unwrap()
            });
            assert!(sent.messages > 1_000_000 / 200);
            assert_eq!(sent.ending.map(|ending| ending.how), Some(End::Reset));
        }
    });
}

#[test]
fn an_engine_may_log_on_again_at_once() {
    in_laboratory(|wire| {
        let venue = acceptor(wire, AcceptorSettings::default());
        let engine = engine(wire);
        for number in 1..=50 {
            let _ = engine.send_orders("R", number * 100..=number * 100 + 99);
            engine.abort();
            log_on(wire, &engine);
        }
        engine.logout().unwrap();
        let connections = venue.connections();
        assert!(
            connections[..50].iter().all(|connection| connection.ending.as_ref().unwrap().how == End::Reset)
        );
        assert_eq!(engine.rejects(), 0);
    });
}

#[test]
fn a_second_logon_of_a_session_is_refused() {
    in_laboratory(|wire| {
        let venue = acceptor(wire, AcceptorSettings::default());
        let first = engine(wire);
        let second = Initiator::new(InitiatorSettings::new(TwoHosts::venue_socket(9001)));
        wire.firm.run(|| second.connect()).unwrap();
        let refused = second.logon().unwrap_err().to_string();
        assert!(refused.contains("the connection ended: Eof"), "{refused}");
        let why = End::Violation("the session has another connection".to_owned());
        assert_eq!(venue.wait_for_end(1, PATIENCE).unwrap().how, why);
        let other = InitiatorSettings {
            sender: "OTHER".to_owned(),
            ..InitiatorSettings::new(TwoHosts::venue_socket(9001))
        };
        log_on(wire, &Initiator::new(other));
        assert_eq!(first.send_order("R-000001").messages, 1);
        venue.wait_for_orders(1, PATIENCE).unwrap();
    });
}

#[test]
fn heartbeats_keep_a_session_and_silence_ends_it() {
    in_laboratory(|wire| {
        let venue = acceptor(wire, AcceptorSettings::default());
        let settings = InitiatorSettings::new(TwoHosts::venue_socket(9001));
        let engine = Initiator::new(InitiatorSettings { heartbeat: Duration::from_secs(1), ..settings });
        log_on(wire, &engine);
        thread::sleep(Duration::from_millis(2_600));
        assert_eq!((engine.ending(), venue.connections()[0].ending.as_ref()), (None, None));
        // Logon, and a heartbeat each second; a busy machine may be late with one.
        assert!(engine.next_seq() > 2);
        // The cable is cut: neither hears the other.
        wire.firm.set_down("eth1").unwrap();
        assert_eq!(engine.wait_for_end(PATIENCE).unwrap().how, End::Silent);
        assert_eq!(venue.wait_for_end(0, PATIENCE).unwrap().how, End::Silent);
    });
}

#[test]
fn a_shut_window_stalls_the_sender() {
    in_laboratory(|wire| {
        let venue = acceptor(wire, AcceptorSettings { reports: false, receive_buffer: Some(4096) });
        let engine = impatient_engine(wire);
        venue.pause_reading();
        let sent = engine.send_orders("R", 1..=1_000_000);
        assert_eq!(sent.ending.map(|ending| ending.how), Some(End::Stalled));
        assert!(sent.messages > 100 && sent.messages < 1_000_000, "{}", sent.messages);
        venue.resume_reading();
        // What was handed to TCP still comes, and no more.
        venue.wait_for_orders(sent.messages as usize, PATIENCE).unwrap();
        assert_eq!(venue.wait_for_end(0, PATIENCE).unwrap().how, End::Eof);
        assert_eq!(venue.cl_ord_ids(), cl_ord_ids("R", 1..=sent.messages));
    });
}

#[test]
fn a_connection_can_have_the_ports_of_an_earlier_one() {
    in_laboratory(|wire| {
        let venue = acceptor(wire, AcceptorSettings::default());
        let local = Some((TwoHosts::FIRM, 40_001).into());
        let engine = Initiator::new(InitiatorSettings {
            local,
            ..InitiatorSettings::new(TwoHosts::venue_socket(9001))
        });
        for connection in 0..3 {
            log_on(wire, &engine);
            assert_eq!(venue.connections()[connection].peer, (TwoHosts::FIRM, 40_001).into());
            engine.abort();
            assert_eq!(venue.wait_for_end(connection, PATIENCE).unwrap().how, End::Reset);
        }
    });
}
