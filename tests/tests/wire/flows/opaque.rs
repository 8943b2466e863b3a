//! Sessions that cannot be read (`wire = "opaque"`): each segment counts as an order.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use breaker_tests::require_root;
use breaker_tests::rng::Rng;
use breaker_tests::testbed::Testbed;
use breaker_user::testbed::{Offload, TwoHosts};
use serde_json::Value;

use super::tls_records;

fn opaque_session(limits: &str) -> String {
    format!(
        "[[session]]\nname = \"x1\"\nremote = \"10.9.0.2:9001\"\nwire = \"opaque\"\nlimits = [{limits}]\n"
    )
}

/// Adds nftables rules to the venue's ingress.
fn nft(testbed: &Testbed, rules: &str) {
    let table = format!(
        "table inet venue {{ counter data {{ }}; chain input {{ type filter hook input priority 0; \
         {rules} }}; }}"
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
fn each_unreadable_segment_counts_as_one_order() {
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
        let mut connection = receiver.connect(&testbed);
        let mss = connection.tcp_info().mss;
        assert_eq!(mss, mtu as usize - 52, "the MSS");
        // Up to the initial window (RFC 6928): full segments and a rest.
        let mut expected = 0;
        for length in [1, mss - 1, mss, mss + 1, 2 * mss, 5 * mss + 7, 10 * mss] {
            connection.send_and_wait(&tls_records(length, &mut rng));
            expected += length.div_ceil(mss) as u64;
            let (counted, sent) = (testbed.counters(1).passed[0], connection.tcp_info());
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
        connection.send_and_wait(&tls_records(65_536, &mut rng));
        connection.send_and_wait(&tls_records(1_000_000, &mut rng));
        let (counted, sent) = (testbed.counters(1), connection.tcp_info());
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
    let mut connection = receiver.connect(&testbed);
    for _ in 0..20 {
        connection.send_and_wait(&tls_records(300, &mut rng));
    }
    connection.try_send(&tls_records(300, &mut rng));
    assert_eq!(connection.wait_for_reset().bytes.len(), 20 * 300);
    let counters = testbed.counters(1);
    assert_eq!((counters.passed[0], counters.withheld[0]), (20, 1));
    // While tripped no segment passes, because each may be an order; nor on a new connection.
    let mut connection = receiver.connect(&testbed);
    connection.try_send(&tls_records(1, &mut rng));
    assert_eq!(connection.wait_for_reset().bytes.len(), 0);

    // In one write: the segments that cross are counted, and not more than the limit.
    let testbed = Testbed::load(&limited);
    let receiver = testbed.listen(9001);
    let mut connection = receiver.connect(&testbed);
    let mss = connection.tcp_info().mss;
    connection.try_send(&tls_records(400_000, &mut rng));
    let crossed = connection.wait_for_reset().bytes.len().div_ceil(mss) as u64;
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
    let mut connection = receiver.connect(&testbed);
    let bytes = tls_records(1_000_000, &mut Rng(0x7155));
    assert!(connection.try_send(&bytes));
    let patience = Instant::now() + Duration::from_secs(60);
    while connection.received().bytes.len() < bytes.len() {
        assert!(Instant::now() < patience, "the receiver has {} bytes", connection.received().bytes.len());
        sleep(Duration::from_millis(20));
    }
    assert!(connection.received().bytes == bytes);
    let (sent, counters) = (connection.tcp_info(), testbed.counters(1));
    assert!(
        sent.retransmits > 0 && counters.retransmitted > 0,
        "some segments were retransmitted: {counters:?}"
    );
    assert_eq!((counters.passed[0], counters.withheld[0], counters.desyncs), (sent.first_sends, 0, 0));
}
