//! The switch: trips and resets by hand, fences, messages that pass while tripped, and no stale order after a
//! reset.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use breaker_tests::frame::{message, order};
use breaker_tests::receiver::End;
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use breaker_user::testbed::TwoHosts;

const POLICY: &str = r#"
[[session]]
name = "x1"
remote = "10.9.0.2:9001"
[[session]]
name = "x2"
remote = "10.9.0.2:9002"
"#;

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(TwoHosts::VENUE, port)
}

/// Writes orders until the receive window is closed and the send queue has been full for 200 ms. Returns the
/// number of orders begun.
pub fn queue_orders(stream: &mut TcpStream) -> u32 {
    stream.set_nonblocking(true).expect("not blocking");
    let (mut id, mut refusals, mut rest) = (0, 0, Vec::new());
    while refusals < 20 {
        if rest.is_empty() {
            rest = order(id);
            id += 1;
        }
        match stream.write(&rest) {
            Ok(written) => {
                rest.drain(..written);
                refusals = 0;
            }
            Err(_) => {
                refusals += 1;
                sleep(Duration::from_millis(10));
            }
        }
    }
    id
}

#[test]
fn a_trip_ends_an_idle_connection_at_both_ends() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let receiver = testbed.listen(9001);
    let mut stream = testbed.connect(9001);
    stream.write_all(&message("FIX.4.4", "A", b"98=0\x01108=30\x01")).expect("logging on");
    receiver.wait("the logon", |all| all.len() == 1 && all[0].complete("A") == 1);
    let thrown = Instant::now();
    testbed.trip("session/x1");
    receiver.wait("the reset", |all| all[0].end == End::Reset);
    assert!(receiver.last().at - thrown < Duration::from_secs(1));
    stream.set_read_timeout(Some(Duration::from_secs(2))).expect("setting a timeout");
    assert!(stream.read(&mut [0; 1]).is_err(), "the sender sees the reset");
}

#[test]
fn nothing_queued_before_a_reset_arrives_after_it_even_behind_a_closed_window() {
    require_root!();
    for on_trip in ["reset", "drop"] {
        let testbed = Testbed::load(&format!("on_trip = \"{on_trip}\"\n{POLICY}"));
        let receiver = testbed.listen(9001);
        receiver.set_reading(false);
        let mut stream = testbed.connect(9001);
        let id = queue_orders(&mut stream);
        testbed.trip("session/x1");
        let before = testbed.counters(1).passed[0];
        assert!(u64::from(id) > before, "orders are queued: {id} written, {before} crossed");
        testbed.reset("session/x1");
        receiver.set_reading(true);
        // Longer than the zero-window probe, which would have started the queued orders.
        sleep(Duration::from_secs(2));
        let crossed = receiver.last().complete("D") as u64;
        assert!(crossed <= before, "{crossed} arrived, but {before} had crossed before the trip ({on_trip})");
        assert_eq!(testbed.counters(1).passed[0], before);
        // A new connection trades.
        let mut new_connection = testbed.connect(9001);
        new_connection.write_all(&order(1)).expect("sending");
        receiver.wait("the order of the new connection", |all| all.len() == 2 && all[1].complete("D") == 1);
    }
}

#[test]
fn while_tripped_cancels_pass_on_a_new_connection_and_the_first_order_fences_it() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let receiver = testbed.listen(9001);
    testbed.trip("session/x1");
    let mut stream = testbed.connect(9001);
    for (msg_type, fields) in
        [("A", &b"98=0\x01"[..]), ("0", b""), ("F", b"11=C\x0141=R\x01"), ("H", b"11=R\x01")]
    {
        stream.write_all(&message("FIX.4.4", msg_type, fields)).expect("sending");
        sleep(Duration::from_millis(5));
    }
    receiver.wait("the four", |all| all.len() == 1 && all[0].complete("H") == 1);
    stream.write_all(&order(1)).expect("queueing");
    receiver.wait("the reset", |all| all[0].end == End::Reset);
    let last = receiver.last();
    assert_eq!((last.count("D"), last.complete("A"), last.complete("0"), last.complete("F")), (0, 1, 1, 1));
    assert_eq!(testbed.counters(1).withheld[0], 1);
}

#[test]
fn admin_only_withholds_cancels() {
    require_root!();
    let testbed = Testbed::load(&format!("while_tripped = \"admin-only\"\n{POLICY}"));
    let receiver = testbed.listen(9001);
    testbed.trip("host");
    let mut stream = testbed.connect(9001);
    stream.write_all(&message("FIX.4.4", "A", b"98=0\x01")).expect("logging on");
    receiver.wait("the logon", |all| all.len() == 1 && all[0].complete("A") == 1);
    stream.write_all(&message("FIX.4.4", "F", b"11=C\x01")).expect("queueing");
    receiver.wait("the reset", |all| all[0].end == End::Reset);
    assert_eq!(receiver.last().count("F"), 0);
}

#[test]
fn isolate_withholds_the_connection() {
    require_root!();
    let testbed = Testbed::load(&format!("while_tripped = \"isolate\"\n{POLICY}"));
    let _sink = testbed.listen(9001);
    testbed.trip("session/x1");
    let refused = testbed.on_host(|| TcpStream::connect_timeout(&at(9001), Duration::from_millis(500)));
    assert!(refused.is_err(), "no connection opens");
    testbed.reset("session/x1");
    testbed.connect(9001).write_all(&order(1)).expect("sending after the reset");
}

#[test]
fn a_tripped_session_leaves_everything_else_alone() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let receivers = [9001, 9002, 22].map(|port| testbed.listen(port));
    let mut streams = [9001, 9002, 22].map(|port| testbed.connect(port));
    for stream in &mut streams {
        stream.write_all(&order(1)).expect("sending");
    }
    receivers
        .iter()
        .for_each(|receiver| receiver.wait("the first", |all| all.len() == 1 && all[0].complete("D") == 1));
    testbed.trip("session/x1");
    // New ARP, a TCP ping to a closed port, ssh-like bytes, and the other session's orders.
    testbed.on_host(|| Command::new("ip").args(["neigh", "flush", "all"]).status()).expect("flushing");
    let refused = testbed
        .on_host(|| TcpStream::connect_timeout(&at(7), Duration::from_secs(2)))
        .expect_err("the port is closed");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    streams[1].write_all(&order(2)).expect("the other session sends");
    streams[2].write_all(&vec![b'x'; 100_000]).expect("ssh sends");
    receivers[0].wait("the reset", |all| all[0].end == End::Reset);
    receivers[1].wait("the other's order", |all| all[0].complete("D") == 2);
    receivers[2].wait("the bytes", |all| all[0].bytes.len() >= 100_000);
    // Inbound data is still acknowledged: pure ACKs pass.
    let back = testbed.network.venue.run(|| TcpListener::bind("10.9.0.2:9003")).expect("listening");
    let mut inbound = testbed.on_host(|| TcpStream::connect("10.9.0.2:9003")).expect("connecting");
    back.accept().expect("accepting").0.write_all(b"fill").expect("sending");
    inbound.read_exact(&mut [0; 4]).expect("a fill arrives");
}

#[test]
fn attached_in_mid_stream_counting_starts_at_the_next_message_that_begins_a_segment() {
    require_root!();
    let testbed = Testbed::unloaded(POLICY);
    let receiver = testbed.listen(9001);
    let mut stream = testbed.connect(9001);
    let half = order(1);
    stream.write_all(&half[..60]).expect("sending");
    sleep(Duration::from_millis(20));
    let policy = testbed.policy();
    testbed.on_host(|| breaker_user::kernel::load::load(&policy, &Testbed::root())).expect("loading");
    stream.write_all(&half[60..]).expect("sending");
    sleep(Duration::from_millis(20));
    for id in 2..=10 {
        stream.write_all(&order(id)).expect("sending");
        sleep(Duration::from_millis(2));
    }
    receiver.wait("all ten", |all| all[0].complete("D") == 10);
    // The rest of the message at the load counts as an order.
    let counters = testbed.counters(1);
    assert_eq!((counters.passed[0], counters.blind_orders), (10, 1));
    // The connection is older than any trip, and is fenced by one.
    testbed.trip("session/x1");
    receiver.wait("the reset", |all| all[0].end == End::Reset);
}
