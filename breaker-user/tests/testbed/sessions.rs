//! FIX sessions between two namespaces: what arrives, what is lost, and how connections end.

use std::io::Read as _;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use breaker_user::testbed::fix::{AcceptorSettings, End, Initiator, InitiatorSettings, cl_ord_ids};
use breaker_user::testbed::{Moment, TwoHosts};

use super::{TIMEOUT, acceptor, engine, impatient_engine, in_testbed, log_on};

#[test]
fn ten_thousand_orders_arrive_exactly() {
    in_testbed(|hosts| {
        let venue = acceptor(hosts, AcceptorSettings::default());
        let engine = engine(hosts);
        let start = Moment::now();
        assert_eq!(engine.send_orders("R", 1..=9_999).messages, 9_999);
        assert_eq!(engine.send_order("R-010000").messages, 1);
        assert_eq!(engine.send_cancel("X-000001", "R-000001").messages, 1);
        venue.wait_for_orders(10_000, TIMEOUT).unwrap();
        assert!(engine.wait_for_reports(10_001, TIMEOUT));
        assert_eq!(venue.order_count(), 10_000);
        assert_eq!(venue.cl_ord_ids(), cl_ord_ids("R", 1..=10_000));
        let orders = venue.orders();
        assert!(orders.is_sorted_by_key(|order| (order.at, order.seq)));
        assert!(orders[0].at > start && orders[0].seq == 2);
        assert_eq!(venue.cancels()[0].cl_ord_id, "X-000001");
        engine.logout().unwrap();
        assert_eq!(venue.wait_for_end(0, TIMEOUT).unwrap().how, End::LoggedOut(String::new()));
        assert_eq!((engine.rejects(), venue.gaps()), (0, vec![]));
    });
}

#[test]
fn sequence_numbers_continue_after_a_reconnect() {
    in_testbed(|hosts| {
        let venue = acceptor(hosts, AcceptorSettings::default());
        let engine = engine(hosts);
        let _ = engine.send_orders("R", 1..=10);
        assert!(engine.wait_for_reports(10, TIMEOUT));
        engine.disconnect();
        assert_eq!(venue.wait_for_end(0, TIMEOUT).unwrap().how, End::Eof);
        log_on(hosts, &engine);
        let _ = engine.send_orders("R", 11..=20);
        venue.wait_for_orders(20, TIMEOUT).unwrap();
        assert_eq!(venue.gaps(), []);
        // Logon, ten orders, Logon, ten orders.
        assert_eq!(engine.next_seq(), 23);
        assert_eq!(venue.orders().last().map(|order| (order.seq, order.connection)), Some((22, 1)));
    });
}

#[test]
fn lost_orders_are_requested_and_never_resent() {
    in_testbed(|hosts| {
        let venue = acceptor(hosts, AcceptorSettings { reports: true, receive_buffer: Some(4096) });
        let engine = impatient_engine(hosts);
        let _ = engine.send_orders("R", 1..=10);
        venue.wait_for_orders(10, TIMEOUT).unwrap();
        venue.pause_reading();
        // One more read may be in progress. These orders stay in the sender's socket, and are lost with it.
        let _ = engine.send_orders("R", 11..=500);
        engine.abort();
        venue.resume_reading();
        assert_eq!(venue.wait_for_end(0, TIMEOUT).unwrap().how, End::Reset);
        let arrived = venue.order_count();
        assert!(arrived < 500, "{arrived}");
        log_on(hosts, &engine);
        let _ = engine.send_order("R-009999");
        venue.wait_for_orders(arrived + 1, TIMEOUT).unwrap();
        assert!(engine.wait_for_reports(1, TIMEOUT));
        // The received orders had the numbers 2 to `arrived` + 1, and the new Logon 502.
        assert_eq!(venue.gaps(), [(arrived as u64 + 2, 501)]);
        engine.logout().unwrap();
        assert_eq!((venue.order_count(), engine.rejects()), (arrived + 1, 0));
    });
}

#[test]
fn a_reset_differs_from_an_end_of_file() {
    in_testbed(|hosts| {
        let venue = acceptor(hosts, AcceptorSettings::default());
        let engine = engine(hosts);
        assert_eq!(engine.send_order("R-000001").messages, 1);
        venue.wait_for_orders(1, TIMEOUT).unwrap();
        let before = Moment::now();
        engine.abort();
        let ending = venue.wait_for_end(0, TIMEOUT).unwrap();
        assert_eq!(ending.how, End::Reset);
        assert!(ending.at.since(before) < Duration::from_secs(1));
        assert_eq!(engine.ending().unwrap().how, End::Closed);
        assert_eq!(engine.send_order("R-000002").messages, 0);
    });
}

#[test]
fn a_reset_during_a_burst_is_a_reset_to_the_sender() {
    in_testbed(|hosts| {
        let listener = hosts.venue.run(|| TcpListener::bind(TwoHosts::venue_socket(9001))).unwrap();
        let engine = Initiator::new(InitiatorSettings::new(TwoHosts::venue_socket(9001)));
        for _ in 0..20 {
            hosts.firm.run(|| engine.connect()).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            let sent = thread::scope(|scope| {
                let burst = scope.spawn(|| engine.send_orders("R", 1..=u64::MAX));
                stream.read_exact(&mut [0; 1_000_000]).unwrap();
                rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
                drop(stream);
                burst.join().unwrap()
            });
            assert!(sent.messages > 1_000_000 / 200);
            assert_eq!(sent.ending.map(|ending| ending.how), Some(End::Reset));
        }
    });
}

#[test]
fn an_engine_may_log_on_again_at_once() {
    in_testbed(|hosts| {
        let venue = acceptor(hosts, AcceptorSettings::default());
        let engine = engine(hosts);
        for number in 1..=50 {
            let _ = engine.send_orders("R", number * 100..=number * 100 + 99);
            engine.abort();
            log_on(hosts, &engine);
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
    in_testbed(|hosts| {
        let venue = acceptor(hosts, AcceptorSettings::default());
        let first = engine(hosts);
        let second = Initiator::new(InitiatorSettings::new(TwoHosts::venue_socket(9001)));
        hosts.firm.run(|| second.connect()).unwrap();
        let refused = second.logon().unwrap_err().to_string();
        assert!(refused.contains("the connection ended: Eof"), "{refused}");
        let why = End::Violation("the session has another connection".to_owned());
        assert_eq!(venue.wait_for_end(1, TIMEOUT).unwrap().how, why);
        let other = InitiatorSettings {
            sender: "OTHER".to_owned(),
            ..InitiatorSettings::new(TwoHosts::venue_socket(9001))
        };
        log_on(hosts, &Initiator::new(other));
        assert_eq!(first.send_order("R-000001").messages, 1);
        venue.wait_for_orders(1, TIMEOUT).unwrap();
    });
}

#[test]
fn heartbeats_keep_a_session_and_silence_ends_it() {
    in_testbed(|hosts| {
        let venue = acceptor(hosts, AcceptorSettings::default());
        let settings = InitiatorSettings::new(TwoHosts::venue_socket(9001));
        let engine = Initiator::new(InitiatorSettings { heartbeat: Duration::from_secs(1), ..settings });
        log_on(hosts, &engine);
        thread::sleep(Duration::from_millis(2_600));
        assert_eq!((engine.ending(), venue.connections()[0].ending.as_ref()), (None, None));
        // A Logon and a heartbeat each second; a busy host may be late with one.
        assert!(engine.next_seq() > 2);
        // The link is down: neither side receives anything.
        hosts.firm.set_down("eth1").unwrap();
        assert_eq!(engine.wait_for_end(TIMEOUT).unwrap().how, End::Silent);
        assert_eq!(venue.wait_for_end(0, TIMEOUT).unwrap().how, End::Silent);
    });
}

#[test]
fn a_closed_window_stalls_the_sender() {
    in_testbed(|hosts| {
        let venue = acceptor(hosts, AcceptorSettings { reports: false, receive_buffer: Some(4096) });
        let engine = impatient_engine(hosts);
        venue.pause_reading();
        let sent = engine.send_orders("R", 1..=1_000_000);
        assert_eq!(sent.ending.map(|ending| ending.how), Some(End::Stalled));
        assert!(sent.messages > 100 && sent.messages < 1_000_000, "{}", sent.messages);
        venue.resume_reading();
        // Data that TCP accepted still arrives, and nothing more.
        venue.wait_for_orders(sent.messages as usize, TIMEOUT).unwrap();
        assert_eq!(venue.wait_for_end(0, TIMEOUT).unwrap().how, End::Eof);
        assert_eq!(venue.cl_ord_ids(), cl_ord_ids("R", 1..=sent.messages));
    });
}

#[test]
fn a_connection_can_have_the_ports_of_an_earlier_one() {
    in_testbed(|hosts| {
        let venue = acceptor(hosts, AcceptorSettings::default());
        let local = Some((TwoHosts::FIRM, 40_001).into());
        let engine = Initiator::new(InitiatorSettings {
            local,
            ..InitiatorSettings::new(TwoHosts::venue_socket(9001))
        });
        for connection in 0..3 {
            log_on(hosts, &engine);
            assert_eq!(venue.connections()[connection].peer, (TwoHosts::FIRM, 40_001).into());
            engine.abort();
            assert_eq!(venue.wait_for_end(connection, TIMEOUT).unwrap().how, End::Reset);
        }
    });
}
