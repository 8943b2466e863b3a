//! Counts of inbound messages, over sockets.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use breaker_tests::cpu::pin_to_cpu;
use breaker_tests::frame::order;
use breaker_tests::gateway::{Gateway, Hook, Inline, Offloads};
use breaker_tests::network::Network;
use breaker_tests::receiver::tcp_info;
use breaker_tests::require_root;
use breaker_tests::rng::Rng;
use breaker_tests::testbed::Testbed;
use breaker_tests::venue::{
    ConnectionPair, class_index, fill, inbound_samples, random_inbound, random_segments,
};
use breaker_user::testbed::{Namespace, Offload, TwoHosts};

use super::{BOTH, POLICY, inbound, pair, sum, with_clsact};

/// Sets an interface up to receive as a network card does: by one queue, in order, and joined by GRO. Without
/// NAPI a veth processes a frame on the CPU of its sender, several at a time and in any order. It uses NAPI
/// only if the sender has no TSO.
fn receive_by_queue(sender: (&Namespace, &str), at: (&Namespace, &str)) {
    sender.0.set_offload(sender.1, Offload::Tso, false).expect("no TSO");
    at.0.set_offload(at.1, Offload::Gro, true).expect("NAPI");
}

/// Sends one message of each kind in a segment of its own, and checks how it is counted.
fn send_each_kind(testbed: &Testbed<impl Network>, pair: &mut ConnectionPair) {
    let mut expected = inbound(testbed, [1])[0].0;
    for (message, class) in inbound_samples() {
        pair.venue_sends(&[&message]);
        expected[class_index(class)] += 1;
        let status = String::from_utf8_lossy(&message).replace('\x01', "|");
        assert_eq!(inbound(testbed, [1])[0], (expected, 0), "{class:?}: {status:.400}");
    }
    assert_eq!(testbed.status_json().inbound("x1"), expected);
}

#[test]
fn each_kind_of_inbound_message_counts_for_its_class() {
    require_root!();
    for testbed in [Testbed::load(POLICY), with_clsact()] {
        for address in BOTH {
            send_each_kind(&testbed, &mut pair(&testbed, address, 9001));
        }
        assert_eq!(inbound(&testbed, [2]), [([0; 3], 0)]);
    }
    for hook in Hook::ALL {
        let testbed = Inline::inline(hook, Offloads::Checksums, POLICY);
        for address in Gateway::VENUE {
            send_each_kind(
                &testbed,
                &mut ConnectionPair::connect(
                    &testbed.network.firm,
                    &testbed.network.venue,
                    SocketAddr::new(address, 9001),
                ),
            );
        }
    }
}

/// Both ends of two sessions send at the same time, in parts of any size. Every message of either direction
/// counts once.
fn exchange_on_both_sessions(
    testbed: &Testbed<impl Network>,
    [firm, venue]: [&Namespace; 2],
    address: IpAddr,
    limit_in_flight: usize,
    rng: &mut Rng,
) {
    let before = inbound(testbed, [1, 2]);
    let sent = [testbed.counters(1).passed[0], testbed.counters(2).passed[0]];
    let orders: Vec<u8> = (0..3_000).flat_map(order).collect();
    let streams = [random_inbound(rng, 6_000), random_inbound(rng, 6_000)];
    let parts = streams.each_ref().map(|(bytes, _)| random_segments(rng, bytes, 60_000));
    let orders = random_segments(rng, &orders, 30_000);
    std::thread::scope(|threads| {
        for (port, parts) in [9001, 9002].into_iter().zip(&parts) {
            let mut pair = ConnectionPair::connect(firm, venue, SocketAddr::new(address, port))
                .limit_in_flight(limit_in_flight);
            let orders = &orders;
            threads.spawn(move || pair.exchange(orders, parts));
        }
    });
    let expected = [0, 1].map(|i| (sum(before[i].0, streams[i].1), 0));
    assert_eq!(inbound(testbed, [1, 2]), expected, "{address}");
    for (session, before) in [1, 2].into_iter().zip(sent) {
        let counters = testbed.counters(session);
        assert_eq!((counters.passed[0] - before, counters.desyncs), (3_000, 0), "{address}");
    }
}

#[test]
fn blasts_cut_anywhere_and_both_directions_at_once_are_counted_exactly() {
    require_root!();
    let mut rng = Rng(0x1b_b0_0d);
    for testbed in [Testbed::load(POLICY), with_clsact()] {
        receive_by_queue(
            (&testbed.network.venue, TwoHosts::INTERFACE),
            (&testbed.network.firm, TwoHosts::INTERFACE),
        );
        for address in BOTH {
            exchange_on_both_sessions(
                &testbed,
                [&testbed.network.firm, &testbed.network.venue],
                address,
                32 << 10,
                &mut rng,
            );
        }
    }
    for offloads in Offloads::ALL {
        let testbed = Inline::inline(Hook::Native, offloads, POLICY);
        receive_by_queue(
            (&testbed.network.venue, TwoHosts::INTERFACE),
            (&testbed.network.gateway, Gateway::OUTSIDE),
        );
        for address in Gateway::VENUE {
            exchange_on_both_sessions(
                &testbed,
                [&testbed.network.firm, &testbed.network.venue],
                address,
                32 << 10,
                &mut rng,
            );
        }
    }
    pin_to_cpu(0);
    for testbed in [Testbed::load(POLICY), with_clsact()] {
        for address in BOTH {
            exchange_on_both_sessions(
                &testbed,
                [&testbed.network.firm, &testbed.network.venue],
                address,
                4 << 20,
                &mut rng,
            );
        }
    }
}

#[test]
fn one_byte_a_segment_is_counted_like_any_other_cut() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let mut pair = pair(&testbed, TwoHosts::VENUE, 9001);
    let (mut bytes, mut expected) = (Vec::new(), [0; 3]);
    for (message, class) in inbound_samples().into_iter().filter(|(message, _)| message.len() < 1_000) {
        bytes.extend_from_slice(&message);
        expected[class_index(class)] += 1;
    }
    pair.venue_sends(&bytes.chunks(1).collect::<Vec<_>>());
    assert_eq!(inbound(&testbed, [1]), [(expected, 0)]);
}

fn nft(at: &Namespace, rules: &str) {
    let ran = at.run(|| Command::new("nft").arg(rules).output()).expect("running nft");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn segments_lost_behind_the_hook_count_once() {
    require_root!();
    // The hook is ahead of netfilter: it sees a segment that the firewall then drops, and its retransmit.
    let testbed = Testbed::load(POLICY);
    nft(&testbed.network.firm, "add table inet t; add chain inet t c { type filter hook input priority 0; }");
    nft(
        &testbed.network.firm,
        "add rule inet t c tcp sport 9001 tcp flags & (syn | psh) == psh numgen inc mod 3 == 0 drop",
    );
    let mut rng = Rng(0x105e);
    let mut pair = pair(&testbed, TwoHosts::VENUE, 9001);
    let (bytes, expected) = random_inbound(&mut rng, 2_000);
    pair.venue_sends(&random_segments(&mut rng, &bytes, 5_000));
    let sent = tcp_info(&pair.venue);
    println!("lost behind the hook: {sent:?}");
    assert!(sent.retransmits > 0, "the venue retransmitted: {sent:?}");
    assert_eq!(inbound(&testbed, [1]), [(expected, 0)]);
}

#[test]
fn segments_lost_ahead_of_the_hook_lose_the_framing_until_a_later_message() {
    require_root!();
    // At a gateway the hook is behind the firewall: it sees gaps, and their late retransmits.
    let testbed = Inline::inline(Hook::Native, Offloads::None, POLICY);
    let mut rng = Rng(0x105e);
    let to = SocketAddr::new(Gateway::VENUE[0], 9001);
    let mut pair = ConnectionPair::connect(&testbed.network.firm, &testbed.network.venue, to);
    nft(
        &testbed.network.gateway,
        "add table inet t; add chain inet t c { type filter hook forward priority 0; }",
    );
    nft(&testbed.network.gateway, "add rule inet t c tcp sport 9001 numgen random mod 25 == 0 counter drop");
    let (bytes, sent) = random_inbound(&mut rng, 1_000);
    pair.venue_sends(&random_segments(&mut rng, &bytes, 20_000));
    nft(&testbed.network.gateway, "delete table inet t");
    let [(counted, lost)] = inbound(&testbed, [1]);
    println!("lossy: sent {sent:?}, counted {counted:?}, streams lost {lost}");
    // If the field that identifies a fill is missing, the message counts as another one.
    let total = |counts: [u64; 3]| counts.iter().sum::<u64>();
    let most = (0..2).all(|i| counted[i] <= sent[i]) && total(counted) <= total(sent);
    assert!(most, "{counted:?} of {sent:?}");
    assert!(counted == sent || lost > 0, "lost counts are reported: {counted:?} of {sent:?}");
    let status = testbed.status_json();
    assert_eq!(
        status["sessions"][1]["inbound"]["desyncs"], lost,
        "the status shows it: {}",
        status["sessions"][1]
    );
    // The next message that begins a segment restores the framing, at the latest.
    let (bytes, more) = random_inbound(&mut rng, 300);
    pair.venue_sends(&[&fill()]);
    let [(before, _)] = inbound(&testbed, [1]);
    pair.venue_sends(&random_segments(&mut rng, &bytes, 20_000));
    assert_eq!(inbound(&testbed, [1]), [(sum(before, more), lost)]);
}
