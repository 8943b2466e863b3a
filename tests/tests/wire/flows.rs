//! Flows that are not FIX of a declared session: unreadable sessions, undeclared FIX, connections without
//! room in the table, and other traffic.

use std::collections::HashSet;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use breaker_common::abi::{Connection, ConnectionKey};
use breaker_tests::frame::{message, order};
use breaker_tests::receiver::{End, Receiver, TcpConnection};
use breaker_tests::require_root;
use breaker_tests::rng::Rng;
use breaker_tests::testbed::Testbed;
use breaker_user::kernel::maps::Table;
use breaker_user::testbed::{Offload, TwoHosts};
use serde_json::Value;

/// Bytes that look like TLS records of application data.
fn tls_records(length: usize, rng: &mut Rng) -> Vec<u8> {
    let head = [0x17, 3, 3, 0x40, 0];
    head.into_iter().chain(std::iter::repeat_with(|| rng.below(256) as u8)).take(length).collect()
}

fn opaque_session(limits: &str) -> String {
    format!(
        "[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\nwire = \"opaque\"\nlimits = [{limits}]\n"
    )
}

/// Adds nftables rules to the venue's ingress.
fn nft(testbed: &Testbed, rules: &str) {
    let table = format!(
        "table inet venue {{ counter data {{ }}; chain input {{ type filter hook input priority 0; {rules} }}; }}"
    );
    let ran = testbed.network.venue.run(|| Command::new("nft").arg(table).status());
    assert!(ran.expect("running nft (package nftables)").success());
}

/// Counts segments with payload: those longer than the headers of IPv4, and of TCP with time stamps.
const COUNT: &str = "tcp dport 9001 tcp flags & syn == 0 meta length > 52 counter name data;";

/// A size below the first receive window, before the receiver knows its reader's speed (kernel
/// `tcp_select_initial_window`).
const FIRST_WINDOW: usize = 60_000;

/// Number of segments with payload that arrived at the venue.
fn segments_at_venue(testbed: &Testbed) -> u64 {
    let ran = testbed
        .network
        .venue
        .run(|| Command::new("nft").args(["-j", "list", "counters"]).output())
        .expect("nft");
    let found: Value = serde_json::from_slice(&ran.stdout).expect("JSON");
    let objects = found["nftables"].as_array().expect("objects");
    objects.iter().find_map(|object| object["counter"]["packets"].as_u64()).expect("the counter")
}

/// Turns offloads off, so that segments leave as on a wire and the venue can count them. The hook sees them
/// before that.
fn disable_segmentation_offload(testbed: &Testbed) {
    testbed
        .network
        .firm
        .set_offload(TwoHosts::INTERFACE, Offload::Tso, false)
        .expect("turning segmentation offload off");
}

#[test]
fn what_cannot_be_read_counts_as_one_order_a_segment_on_the_wire() {
    require_root!();
    for mtu in [1_500, 576, 9_000] {
        let testbed = Testbed::unloaded(&opaque_session(""));
        for end in [&testbed.network.firm, &testbed.network.venue] {
            end.set_mtu(TwoHosts::INTERFACE, mtu).expect("the MTU");
        }
        let policy = testbed.policy();
        testbed.on_host(|| breaker_user::kernel::load::load(&policy, &Testbed::root())).expect("loading");
        disable_segmentation_offload(&testbed);
        nft(&testbed, COUNT);
        let receiver = testbed.listen(9001);
        let mut rng = Rng(0x7153 + mtu as u64);
        let mut line = receiver.connect(&testbed);
        let mss = line.tcp_info().mss;
        assert_eq!(mss, mtu as usize - 52, "the MSS");
        // Up to the initial window (RFC 6928): full segments and a rest.
        let mut expected = 0;
        for length in [1, mss - 1, mss, mss + 1, 2 * mss, 5 * mss + 7, 10 * mss] {
            line.send_and_wait(&tls_records(length, &mut rng));
            expected += length.div_ceil(mss) as u64;
            let (counted, sent) = (testbed.counters(1).passed[0], line.tcp_info());
            // Bytes beyond the peer's first window are cut at its end too, in some runs.
            if length < FIRST_WINDOW {
                assert_eq!(sent.first_sends, expected, "{length} bytes more, MTU {mtu}");
            }
            assert_eq!(
                (counted, segments_at_venue(&testbed)),
                (sent.first_sends, sent.first_sends + sent.retransmits),
                "{length} bytes more, MTU {mtu}"
            );
            expected = sent.first_sends;
        }
        // More bytes, in as many segments as the windows allow.
        line.send_and_wait(&tls_records(65_536, &mut rng));
        line.send_and_wait(&tls_records(1_000_000, &mut rng));
        let (counted, sent) = (testbed.counters(1), line.tcp_info());
        assert_eq!(
            (counted.passed[0], segments_at_venue(&testbed)),
            (sent.first_sends, sent.first_sends + sent.retransmits),
            "MTU {mtu}"
        );
        assert!(
            sent.first_sends >= expected + (65_536usize.div_ceil(mss) + 1_000_000usize.div_ceil(mss)) as u64
        );
        assert_eq!((counted.passed[1..].iter().sum::<u64>(), counted.desyncs), (0, 0));
    }
}

#[test]
fn a_limit_on_segments_lets_no_more_of_them_cross() {
    require_root!();
    let mut rng = Rng(0x7154);
    let limited = opaque_session(r#"{ class = "order", max = 20, per = "1h" }"#);
    // One by one: exactly as many segments as the limit.
    let testbed = Testbed::load(&limited);
    let receiver = testbed.listen(9001);
    let mut line = receiver.connect(&testbed);
    for _ in 0..20 {
        line.send_and_wait(&tls_records(300, &mut rng));
    }
    line.try_send(&tls_records(300, &mut rng));
    assert_eq!(line.wait_for_reset().bytes.len(), 20 * 300);
    let counters = testbed.counters(1);
    assert_eq!((counters.passed[0], counters.withheld[0]), (20, 1));
    // While tripped no segment passes, because each may be an order; nor on a new connection.
    let mut line = receiver.connect(&testbed);
    line.try_send(&tls_records(1, &mut rng));
    assert_eq!(line.wait_for_reset().bytes.len(), 0);

    // In one write: the segments that cross are counted, and not more than the limit.
    let testbed = Testbed::load(&limited);
    let receiver = testbed.listen(9001);
    let mut line = receiver.connect(&testbed);
    let mss = line.tcp_info().mss;
    line.try_send(&tls_records(400_000, &mut rng));
    let crossed = line.wait_for_reset().bytes.len().div_ceil(mss) as u64;
    let counters = testbed.counters(1);
    assert!(crossed <= 20, "{crossed} segments crossed");
    assert_eq!(counters.passed[0], crossed);
    assert!(counters.passed[0] + counters.withheld[0] > 20, "it did not trip early: {counters:?}");
}

#[test]
fn segments_that_were_lost_and_sent_again_are_not_counted_again() {
    require_root!();
    let testbed = Testbed::load(&opaque_session(""));
    disable_segmentation_offload(&testbed);
    // Not the SYN: the kernel would count its retransmit, which is no segment with payload.
    nft(&testbed, "tcp dport 9001 tcp flags & syn == 0 numgen random mod 100 < 5 drop;");
    let receiver = testbed.listen(9001);
    let mut line = receiver.connect(&testbed);
    let bytes = tls_records(1_000_000, &mut Rng(0x7155));
    assert!(line.try_send(&bytes));
    let patience = Instant::now() + Duration::from_secs(60);
    while line.received().bytes.len() < bytes.len() {
        assert!(Instant::now() < patience, "the receiver has {} bytes", line.received().bytes.len());
        sleep(Duration::from_millis(20));
    }
    assert!(line.received().bytes == bytes);
    let (sent, counters) = (line.tcp_info(), testbed.counters(1));
    assert!(
        sent.retransmits > 0 && counters.retransmitted > 0,
        "something was lost and sent again: {counters:?}"
    );
    assert_eq!((counters.passed[0], counters.withheld[0], counters.desyncs), (sent.first_sends, 0, 0));
}

/// A policy for undeclared FIX, and a session.
fn undeclared(policy: &str, limits: &str) -> String {
    format!(
        "undeclared = \"{policy}\"\nlimits = [{limits}]\n[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\n"
    )
}

const CANCEL: &[u8] = b"11=C-1\x0141=R-1\x01";

/// Web and shell traffic, to the port of the undeclared flow and to others. All of it arrives, on old
/// connections and on new ones.
struct OtherTraffic<'a> {
    lines: Vec<TcpConnection<'a>>,
    receivers: Vec<&'a Receiver>,
    testbed: &'a Testbed,
}

impl<'a> OtherTraffic<'a> {
    fn new(testbed: &'a Testbed, receivers: &[&'a Receiver]) -> Self {
        let lines = receivers.iter().map(|receiver| receiver.connect(testbed)).collect();
        let mut others = Self { lines, receivers: receivers.to_vec(), testbed };
        others.exchange();
        others
    }

    fn exchange(&mut self) {
        let fresh: Vec<_> = self.receivers.iter().map(|receiver| receiver.connect(self.testbed)).collect();
        self.lines.extend(fresh);
        for line in &mut self.lines {
            line.send_and_wait(b"POST /orders HTTP/1.1\r\nHost: venue\r\nContent-Length: 40000\r\n\r\n");
            line.send_and_wait(&tls_records(40_000, &mut Rng(0x7156)));
            line.send_and_wait(b"SSH-2.0-OpenSSH_9.9\r\n");
            line.send_and_wait(b"8");
            assert_eq!(line.received().end, End::Open);
        }
    }
}

#[test]
fn ignored_undeclared_fix_is_nobodys_business() {
    require_root!();
    let testbed = Testbed::load(&undeclared("ignore", r#"{ class = "message", max = 5, per = "total" }"#));
    let receivers = [9005, 9001, 22].map(|port| testbed.listen(port));
    let mut others = OtherTraffic::new(&testbed, &[&receivers[0], &receivers[2]]);
    let mut line = receivers[0].connect(&testbed);
    (0..10).for_each(|id| line.send_and_wait(&order(id)));
    assert_eq!(testbed.tripped(), [""; 0]);
    // A trip of the declared session does not affect it.
    let mut declared = receivers[1].connect(&testbed);
    testbed.trip("host");
    declared.wait_for_reset();
    line.send_and_wait(&order(11));
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
    let mut line = receivers[0].connect(&testbed);
    let mut declared = receivers[1].connect(&testbed);
    for id in 0..2 {
        line.send_and_wait(&order(id));
        declared.send_and_wait(&order(id));
        line.send_and_wait(&message("FIX.4.4", "0", b""));
    }
    line.send_and_wait(&order(2));
    assert_eq!(testbed.tripped(), [""; 0]);
    line.try_send(&order(3));
    assert_eq!(line.wait_for_reset().complete("D"), 3);
    let [watched, own] = [0, 1].map(|session| testbed.counters(session));
    assert_eq!((watched.passed, watched.withheld, watched.desyncs), ([3, 0, 0, 0, 2], [1, 0, 0, 0, 0], 0));
    assert_eq!((own.passed[0], own.packets_withheld), (2, 0));
    // A trip of the host withholds the session's orders and those of new connections.
    declared.try_send(&order(3));
    assert_eq!(declared.wait_for_reset().complete("D"), 2);
    let mut fresh = receivers[0].connect(&testbed);
    fresh.send_and_wait(&message("FIX.4.4", "F", CANCEL));
    fresh.try_send(&order(4));
    assert_eq!((fresh.wait_for_reset().complete("F"), fresh.received().count("D")), (1, 0));
    others.exchange();
    let status = testbed.status();
    let host = status.scopes.iter().find(|scope| scope.scope == "host").expect("the host");
    assert_eq!(
        (host.causes.as_slice(), testbed.tripped().as_slice()),
        (&["rate"][..], &["host".to_owned()][..])
    );
    assert_eq!(host.last_trip.as_ref().expect("a trip").session, "undeclared");
    let told = testbed.events_of_kind("undeclared");
    assert_eq!(told.len(), 2, "once a connection: {told:?}");
    let connection = told[0]["counts"]["connection"].as_str().expect("a connection");
    assert!(connection.ends_with(" > 10.9.0.2:9005"), "{connection}");
    assert_eq!(told[0]["counts"]["session"], "undeclared");
    // After a reset new connections trade, and older ones stay fenced.
    testbed.reset("host");
    line = receivers[0].connect(&testbed);
    line.send_and_wait(&order(5));
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
        let mut line = receivers[0].connect(&testbed);
        if !first.is_empty() {
            line.send_and_wait(first);
        }
        line.try_send(bytes);
        assert!(
            line.wait_for_reset().bytes == first,
            "{} bytes came where {} were no FIX",
            line.received().bytes.len(),
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

/// Opens more connections of `x1` than the table holds. Returns those in the table and those that are not.
fn overfill<'a>(testbed: &Testbed, receiver: &'a Receiver) -> [Vec<TcpConnection<'a>>; 2] {
    let lines = (0..80).map(|_| receiver.connect(testbed));
    let lines: Vec<_> =
        lines.map(|line| (line.stream.local_addr().expect("an address").port(), line)).collect();
    let mut tracked = HashSet::new();
    testbed.with_breaker(|breaker| {
        let note = |table, key: &ConnectionKey, _: &Connection| {
            if table == Table::Live {
                tracked.insert(u16::from_be(key.local_port));
            }
        };
        breaker.maps().for_each_connection(note).expect("the tables");
    });
    let (in_it, out): (Vec<_>, Vec<_>) = lines.into_iter().partition(|(port, _)| tracked.contains(port));
    // The table keeps free entries for each CPU, so that a few may be unused. It never holds one too many.
    assert!(
        tracked.len() <= 64 && in_it.len() >= 40 && out.len() >= 80 - 64,
        "{} and {}",
        in_it.len(),
        out.len()
    );
    [in_it, out].map(|lines| lines.into_iter().map(|(_, line)| line).collect())
}

#[test]
fn of_a_connection_that_finds_no_room_nothing_passes_or_all_uncounted_as_the_policy_says() {
    require_root!();
    for policy in ["block", "pass"] {
        let testbed = Testbed::load(&format!(
            "on_table_full = \"{policy}\"\nconnections = 64\n[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\n\
             [[session]]\nname = \"x2\"\nremote = \"10.9.0.2:9002\"\nlimits = [{{ class = \"order\", max = 3, per = \"1h\" }}]\n"
        ));
        let receivers = [9001, 9002].map(|port| testbed.listen(port));
        let mut other = receivers[1].connect(&testbed);
        other.send_and_wait(&order(1));
        assert_eq!(testbed.status().packets["table_full"], 0);
        let [mut tracked, mut untracked] = overfill(&testbed, &receivers[0]);
        for line in &mut untracked {
            assert!(line.try_send(&order(1)));
        }
        if policy == "block" {
            // Longer than the retransmission timeout.
            sleep(Duration::from_millis(500));
            assert!(
                untracked.iter().all(|line| line.received().bytes.is_empty()),
                "not one order of theirs arrives"
            );
        }
        for line in &mut tracked {
            line.send_and_wait(&order(2));
        }
        if policy == "pass" {
            untracked.iter_mut().for_each(|line| line.send_and_wait(&order(2)));
            assert!(untracked.iter().all(|line| line.received().complete("D") == 2));
        }
        assert!(tracked.iter().all(|line| line.received().complete("D") == 1));
        assert_eq!(
            testbed.counters(1).passed[0],
            tracked.len() as u64,
            "{policy}: what is tracked is counted"
        );
        assert!(testbed.status().packets["table_full"] >= untracked.len() as u64);
        // The other session continues, with its limit.
        other.send_and_wait(&order(2));
        other.send_and_wait(&order(3));
        other.try_send(&order(4));
        assert_eq!(other.wait_for_reset().complete("D"), 3);
        let told = testbed.events_of_kind("table_full");
        assert!(!told.is_empty() && told.iter().all(|line| line["counts"]["session"] == "x1"), "{told:?}");
    }
}

#[test]
fn a_full_table_keeps_no_web_or_shell_traffic_back() {
    require_root!();
    for policy in ["watch", "block"] {
        let testbed = Testbed::load(&format!("connections = 64\n{}", undeclared(policy, "")));
        let receivers = [9001, 9005, 22].map(|port| testbed.listen(port));
        let [_tracked, _untracked] = overfill(&testbed, &receivers[0]);
        // An undeclared FIX connection takes the place of another one of its kind.
        let mut line = receivers[1].connect(&testbed);
        line.try_send(&order(1));
        OtherTraffic::new(&testbed, &[&receivers[1], &receivers[2]]).exchange();
        assert_eq!(line.received().bytes.is_empty(), policy == "block");
    }
}
