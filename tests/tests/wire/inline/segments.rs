//! Frames that do not arrive as one stream in order: tags, fragments, loss, reordering, and segments that the
//! venue discards.

use std::io::Write;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use breaker_tests::frame::{Frame, message, order};
use breaker_tests::gateway::{Hook, Inline, Offloads};
use breaker_tests::require_root;
use breaker_tests::user_tcp::UserTcp;
use etherparse::Ipv4Header;

use super::{LIMIT, POLICY, QUIET, at, both_families, connect};

#[test]
fn tagged_frames_are_counted_like_any_other() {
    require_root!();
    for hook in Hook::ALL {
        for venue in both_families(9001) {
            let testbed = Inline::inline(hook, Offloads::None, POLICY);
            // No answer comes, because no host has an address in that VLAN. The program counts all the same.
            let mut engine = UserTcp::new(&testbed.network, 40_000, venue);
            engine.vlan = Some(100);
            engine.open();
            let frames = engine.next(&(0..200).map(order).collect::<Vec<_>>());
            engine.transmit(&frames[..LIMIT]);
            wait_for_orders(&testbed, LIMIT as u64);
            assert!(testbed.status_json().causes("session/x1").is_empty(), "N are within the limit");
            engine.transmit(&frames[LIMIT..]);
            sleep(QUIET / 10);
            let status = testbed.status_json();
            assert_eq!((status.messages("x1", "order").0, status.desyncs("x1")), (LIMIT as u64, 0));
            assert_eq!(status.causes("session/x1"), ["rate"]);
        }
    }
}

#[test]
fn reordered_repeated_and_overlapping_segments_are_counted_once() {
    require_root!();
    for hook in Hook::ALL {
        for venue in both_families(9001) {
            let testbed = Inline::inline(hook, Offloads::None, POLICY);
            let receiver = testbed.listen_at(venue);
            let mut engine = UserTcp::connect(&testbed.network, 40_000, venue);
            let payloads: Vec<_> = (0..10).map(order).collect();
            let mut frames = engine.next(&payloads);
            // One segment that overlaps its neighbours by half, two in reverse order, and one twice.
            let half = payloads[1].len() / 2;
            let joined = [&payloads[1][half..], &payloads[2]].concat();
            let overlap = engine.segment(frames[1].seq.wrapping_add(half as u32), &joined);
            let again = frames[2].clone();
            frames.swap(6, 7);
            // Segments ahead of a gap are withheld until it is filled: TCP sends them again.
            let again_behind = frames[6..].to_vec();
            frames.insert(5, again);
            frames.insert(4, overlap);
            frames.extend(again_behind);
            for frame in &frames {
                engine.transmit(std::slice::from_ref(frame));
            }
            receiver.wait("ten orders", |all| all[0].complete("D") == 10);
            assert_eq!(receiver.last().bytes, payloads.concat());
            let status = testbed.status_json();
            assert_eq!(status.messages("x1", "order"), (10, 0));
            assert!(status.retransmitted("x1") >= 2);
        }
    }
}

#[test]
fn an_order_in_ip_fragments_is_withheld_and_counts_when_sent_again_whole() {
    require_root!();
    for hook in Hook::ALL {
        for venue in both_families(9001) {
            let testbed = Inline::inline(hook, Offloads::None, &format!("on_desync = \"trip\"\n{POLICY}"));
            let receiver = testbed.listen_at(venue);
            let mut engine = UserTcp::connect(&testbed.network, 40_000, venue);
            engine.send(&order(0));
            let cut = engine.next(&[order(1)]).remove(0);
            // Cut behind the TCP header, inside the order, and inside the TCP header (RFC 3128).
            for size in [64, 24, 16, 8] {
                engine.transmit_bytes(&cut.fragments(size));
            }
            sleep(QUIET);
            assert_eq!(receiver.last().count("D"), 1, "{hook:?}, {venue}");
            engine.transmit(&[cut]);
            receiver.wait("the order", |all| all[0].complete("D") == 2);
            let status = testbed.status_json();
            assert_eq!((status.messages("x1", "order"), status.desyncs("x1")), ((2, 0), 0));
            assert!(status.causes("session/x1").is_empty());
        }
    }
}

#[test]
fn segments_lost_ahead_of_the_gateway_are_awaited_and_count_once() {
    require_root!();
    const FLIGHT: usize = 20;
    for hook in Hook::ALL {
        for venue in both_families(9001) {
            let policy = POLICY.replace("max = 137", "max = 400");
            let testbed = Inline::inline(hook, Offloads::None, &format!("on_desync = \"trip\"\n{policy}"));
            let receiver = testbed.listen_at(venue);
            let mut engine = UserTcp::connect(&testbed.network, 40_000, venue);
            let frames = engine.next(&(0..400).map(order).collect::<Vec<_>>());
            for (number, flight) in frames.chunks(FLIGHT).enumerate() {
                // One segment of each flight is lost. TCP sends it and the later ones again.
                let lost = number % FLIGHT;
                engine.transmit(&flight[..lost]);
                engine.transmit(&flight[lost + 1..]);
                engine.transmit(&flight[lost..]);
            }
            receiver.wait("all of them", |all| all[0].complete("D") == 400);
            let status = testbed.status_json();
            assert_eq!((status.messages("x1", "order"), status.desyncs("x1")), ((400, 0), 0), "{hook:?}");
            assert_eq!(status["packets"]["ahead"], (0..20).map(|lost| FLIGHT - 1 - lost).sum::<usize>());
            assert!(status.causes("session/x1").is_empty(), "a repaired loss trips nothing");
        }
    }
}

/// The frame with a wrong TCP checksum.
fn with_wrong_checksum(frame: &Frame) -> Vec<u8> {
    let mut bytes = frame.bytes();
    let tcp = if frame.to.is_ipv4() { 34 } else { 54 };
    bytes[tcp + 16] ^= 0x77;
    bytes
}

/// The frame with a hop limit of 2.
fn with_low_hop_limit(frame: &Frame) -> Vec<u8> {
    let mut bytes = frame.bytes();
    if frame.to.is_ipv6() {
        bytes[21] = 2;
        return bytes;
    }
    let (mut header, _) = Ipv4Header::from_slice(&bytes[14..]).expect("an IPv4 header");
    header.time_to_live = 2;
    header.header_checksum = header.calc_header_checksum();
    bytes[14..34].copy_from_slice(&header.to_bytes());
    bytes
}

#[test]
fn segments_that_the_venue_discards_do_not_count_as_seen() {
    require_root!();
    let heartbeat = |length: usize| {
        let of = |text: usize| message("FIX.4.4", "0", format!("58={}\x01", "x".repeat(text)).as_bytes());
        (0..length).map(of).find(|message| message.len() == length).expect("one that is as long")
    };
    for hook in Hook::ALL {
        for venue in both_families(9001) {
            for alter in [with_wrong_checksum, with_low_hop_limit] {
                let testbed = Inline::inline(hook, Offloads::None, &POLICY.replace("max = 137", "max = 5"));
                let receiver = testbed.listen_at(venue);
                let mut engine = UserTcp::connect(&testbed.network, 40_000, venue);
                for id in 0..20 {
                    // First a heartbeat that the venue ignores, then an order with the same sequence numbers.
                    let seq = engine.seq;
                    let decoy = engine.segment(seq, &heartbeat(order(id).len()));
                    engine.transmit_bytes(&[alter(&decoy)]);
                    engine.send(&order(id));
                }
                sleep(QUIET / 2);
                assert_eq!(receiver.last().count("D"), 5, "{hook:?}, {venue}");
                let status = testbed.status_json();
                assert_eq!(status.messages("x1", "order").0, 5);
                assert_eq!(status.causes("session/x1"), ["rate"]);
                assert_eq!(status["packets"]["undeliverable"], 20);
            }
        }
    }
}

#[test]
fn retransmits_after_loss_are_not_counted_again() {
    require_root!();
    for hook in Hook::ALL {
        let testbed = Inline::inline(hook, Offloads::Checksums, &POLICY.replace("max = 137", "max = 20000"));
        let rules = "table inet loss { chain input { type filter hook input priority 0; \
                     tcp dport 9001 numgen random mod 100 < 3 drop; }; }";
        let ran = testbed.network.venue.run(|| Command::new("nft").arg(rules).status());
        assert!(ran.expect("running nft (package nftables)").success());
        let receiver = testbed.listen(9001);
        let mut stream = connect(&testbed, at(9001));
        let bytes: Vec<u8> = (0..5_000).flat_map(order).collect();
        for part in bytes.chunks(1_000) {
            stream.write_all(part).expect("sending");
        }
        let until = Instant::now() + Duration::from_secs(60);
        while receiver.last().bytes.len() < bytes.len() {
            assert!(
                Instant::now() < until,
                "the receiver has {} of {}",
                receiver.last().bytes.len(),
                bytes.len()
            );
            sleep(Duration::from_millis(20));
        }
        let status = testbed.status_json();
        assert_eq!((status.messages("x1", "order"), status.desyncs("x1")), ((5_000, 0), 0), "{hook:?}");
        assert!(status.retransmitted("x1") > 0, "some segments were retransmitted");
    }
}

/// Waits until that many orders of the first session have passed.
fn wait_for_orders(testbed: &Inline, orders: u64) {
    let until = Instant::now() + Duration::from_secs(5);
    while testbed.status_json().messages("x1", "order").0 < orders {
        assert!(Instant::now() < until, "{:?}", testbed.status_json().messages("x1", "order"));
        sleep(Duration::from_millis(5));
    }
}
