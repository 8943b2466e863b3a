//! Limits inline: at most N orders cross a gateway, from sockets and from engines that bypass their kernel.

use std::io::Write;
use std::thread::sleep;
use std::time::{Duration, Instant};

use breaker_tests::frame::order;
use breaker_tests::gateway::{Hook, Inline, Offloads};
use breaker_tests::receiver::End;
use breaker_tests::require_root;
use breaker_tests::user_tcp::UserTcp;

use super::{
    LIMIT, ONE_RETRANSMIT, POLICY, at, both_families, connect, inline, is_reset, write_ends_in_reset,
};

#[test]
fn one_by_one_exactly_n_cross_and_both_ends_are_reset() {
    require_root!();
    for (hook, offloads) in hooks_and_checksums() {
        for venue in both_families(9001) {
            let testbed = Inline::inline(hook, offloads, POLICY);
            let receiver = testbed.listen_at(venue);
            let mut stream = connect(&testbed, venue);
            for id in 0..LIMIT {
                stream.write_all(&order(id as u32)).expect("sending");
                receiver.wait("the order", |all| all[0].complete("D") == id + 1);
            }
            assert!(testbed.status_json().causes("session/x1").is_empty(), "N are within the limit");
            // The first segment is withheld and resets the venue. The second, even if only a retransmit,
            // resets the sender.
            let _ = stream.write_all(&order(LIMIT as u32));
            assert!(
                is_reset(&mut stream, ONE_RETRANSMIT),
                "the sender sees the reset ({hook:?}, {offloads:?}, {venue})"
            );
            receiver.wait("the reset at the venue", |all| all[0].end == End::Reset);
            assert_eq!((receiver.last().complete("D"), receiver.last().count("D")), (LIMIT, LIMIT));
            let status = testbed.status_json();
            assert_eq!(status.messages("x1", "order").0, LIMIT as u64);
            assert_eq!((status.causes("session/x1"), status.desyncs("x1")), (vec!["rate"], 0));
        }
    }
}

#[test]
fn a_blast_of_ten_thousand_never_lets_more_than_n_cross() {
    require_root!();
    for (hook, offloads) in hooks_and_checksums() {
        let testbed = Inline::inline(hook, offloads, POLICY);
        let receiver = testbed.listen(9001);
        let orders: Vec<u8> = (0..10_000).flat_map(order).collect();
        let mut stream = connect(&testbed, at(9001));
        let dead = orders.chunks(orders.len() / 4).any(|part| write_ends_in_reset(&mut stream, part));
        assert!(
            dead || is_reset(&mut stream, ONE_RETRANSMIT),
            "the sender sees the reset ({hook:?}, {offloads:?})"
        );
        receiver.wait("the reset", |all| all[0].end == End::Reset);
        let last = receiver.last();
        assert!(last.complete("D") <= LIMIT, "{} crossed", last.complete("D"));
        let passed = testbed.status_json().messages("x1", "order").0;
        assert_eq!(last.count("D") as u64, passed, "the kernel counts the orders that arrived");
        // A segment of the MTU's size holds about ten orders, and passes or is withheld as a whole.
        assert!(last.count("D") + 11 > LIMIT, "{} crossed: it tripped early", last.count("D"));
    }
}

#[test]
fn a_sender_with_segmentation_offload_is_cut_off_too() {
    require_root!();
    for hook in Hook::ALL {
        let testbed = Inline::inline(hook, Offloads::Segments, POLICY);
        let receiver = testbed.listen(9001);
        let orders: Vec<u8> = (0..10_000).flat_map(order).collect();
        let mut stream = connect(&testbed, at(9001));
        // Some orders in segments of their own, so that the first segment is not one of 64 KB.
        for part in orders[..order(0).len() * 100].chunks(order(0).len()) {
            stream.write_all(part).expect("sending");
        }
        let dead = orders.chunks(orders.len() / 4).any(|part| write_ends_in_reset(&mut stream, part));
        // At the generic hook a large segment, cut down to a reset, keeps its segmentation fields. An
        // interface that segments in software drops it. So a retransmit, which is small, resets the venue,
        // and one more resets the sender.
        assert!(dead || is_reset(&mut stream, 2 * ONE_RETRANSMIT), "the sender sees the reset ({hook:?})");
        receiver.wait("the reset", |all| all[0].end == End::Reset);
        let last = receiver.last();
        assert!(last.complete("D") <= LIMIT, "{} crossed", last.complete("D"));
        assert_eq!(last.count("D") as u64, testbed.status_json().messages("x1", "order").0);
    }
}

#[test]
fn two_sockets_share_one_limit_exactly() {
    require_root!();
    for hook in Hook::ALL {
        let testbed = inline(hook);
        let receiver = testbed.listen(9001);
        let streams = [connect(&testbed, at(9001)), connect(&testbed, at(9001))];
        std::thread::scope(|scope| {
            for mut stream in streams {
                scope.spawn(move || (0..5_000).any(|id| write_ends_in_reset(&mut stream, &order(id))));
            }
        });
        receiver.wait("both resets", |all| all.iter().all(|one| one.end == End::Reset));
        let crossed: u64 = receiver.received().iter().map(|one| one.count("D") as u64).sum();
        assert!(crossed <= LIMIT as u64, "{crossed} crossed");
        let (passed, withheld) = testbed.status_json().messages("x1", "order");
        assert_eq!(crossed, passed);
        assert!(
            passed + withheld > LIMIT as u64,
            "{passed} crossed and {withheld} were withheld: it tripped early"
        );
    }
}

#[test]
fn an_engine_that_bypasses_its_kernel_is_cut_off_at_exactly_n() {
    require_root!();
    for hook in Hook::ALL {
        for venue in both_families(9001) {
            let testbed = Inline::inline(hook, Offloads::None, POLICY);
            let receiver = testbed.listen_at(venue);
            let mut engine = UserTcp::connect(&testbed.network, 40_000, venue);
            // The longest and the shortest TCP header: a withheld segment is cut down to one without options.
            engine.options = if venue.is_ipv4() { 40 } else { 0 };
            for id in 0..LIMIT {
                engine.send(&order(id as u32));
                receiver.wait("the order", |all| all[0].complete("D") == id + 1);
            }
            let withheld = engine.send(&order(LIMIT as u32));
            receiver.wait("the reset at the venue", |all| all[0].end == End::Reset);
            let again = Instant::now();
            engine.transmit(&[withheld]);
            assert!(
                engine.is_reset(ONE_RETRANSMIT),
                "the retransmit is answered by a reset ({hook:?}, {venue})"
            );
            assert!(again.elapsed() < Duration::from_millis(200), "{:?}", again.elapsed());
            engine.send(&order(LIMIT as u32 + 1));
            assert!(engine.is_reset(ONE_RETRANSMIT), "so do all later segments");
            assert_eq!((receiver.last().complete("D"), receiver.last().count("D")), (LIMIT, LIMIT));
            assert_eq!(testbed.status_json().messages("x1", "order").0, LIMIT as u64);
        }
    }
}

#[test]
fn an_engine_without_flow_control_is_cut_off_at_exactly_n() {
    require_root!();
    for hook in Hook::ALL {
        let testbed = Inline::inline(hook, Offloads::None, POLICY);
        let receiver = testbed.listen(9001);
        let mut engine = UserTcp::connect(&testbed.network, 40_000, at(9001));
        let frames = engine.next(&(0..300).map(order).collect::<Vec<_>>());
        for frame in frames {
            engine.transmit(&[frame]);
            // So that the veth's queue of 256 frames does not overflow. All frames together are smaller than
            // the venue's window, which this engine does not track.
            sleep(Duration::from_micros(20));
        }
        receiver.wait("the reset at the venue", |all| all[0].end == End::Reset);
        assert!(engine.is_reset(ONE_RETRANSMIT), "the sender sees the reset ({hook:?})");
        assert_eq!((receiver.last().complete("D"), receiver.last().count("D")), (LIMIT, LIMIT));
        assert_eq!(testbed.status_json().messages("x1", "order").0, LIMIT as u64);
    }
}

/// Each hook with each kind of checksum, in frames as on a wire.
fn hooks_and_checksums() -> impl Iterator<Item = (Hook, Offloads)> {
    Hook::ALL
        .into_iter()
        .flat_map(|hook| [Offloads::None, Offloads::Checksums].map(|offloads| (hook, offloads)))
}
