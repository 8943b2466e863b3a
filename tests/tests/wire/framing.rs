//! Counts do not depend on how the stream is cut, on loss, on repeats, or on the order of segments.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use breaker_tests::frame::{ACK, Frame, message, message_with_body, order};
use breaker_tests::require_root;
use breaker_tests::rng::Rng;
use breaker_tests::testbed::Testbed;
use breaker_user::testbed::TwoHosts;

const POLICY: &str = r#"
[[session]]
name = "x1"
remote = ["10.9.0.2:9001", "[fd09::2]:9001"]
"#;
const SYN: u8 = 2;

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(TwoHosts::VENUE, port)
}

/// Orders, cancels, heartbeats, and data fields full of fake messages, with the number of each class.
fn mixed(messages: usize, rng: &mut Rng) -> (Vec<u8>, [u64; 5]) {
    let (mut bytes, mut counts) = (Vec::new(), [0; 5]);
    for id in 0..messages {
        let (class, one) = match rng.below(5) {
            0 => (1, message("FIXT.1.1", "F", b"11=C-1\x0141=R-1\x01")),
            1 => (4, message("FIX.4.2", "0", b"")),
            2 => {
                let fake = order(7);
                let mut data = format!("11=X\x0195={}\x0196=", fake.len()).into_bytes();
                data.extend_from_slice(&fake);
                data.push(1);
                (0, message("FIX.4.4", "D", &data))
            }
            _ => (0, order(id as u32)),
        };
        counts[class] += 1;
        bytes.extend_from_slice(&one);
    }
    (bytes, counts)
}

#[test]
fn random_cuts_from_1_byte_to_70_000_give_the_same_counts() {
    require_root!();
    for (largest, nodelay) in [(3, true), (70_000, true), (70_000, false), (700, false)] {
        let testbed = Testbed::load(POLICY);
        let receiver = testbed.listen(9001);
        let mut rng = Rng(0x5eed + largest);
        let (bytes, expected) = mixed(if largest == 3 { 100 } else { 20_000 }, &mut rng);
        let mut stream = testbed.on_host(|| TcpStream::connect(at(9001))).expect("connecting");
        stream.set_nodelay(nodelay).expect("the option");
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let length = (1 + rng.below(largest) as usize).min(rest.len());
            stream.write_all(&rest[..length]).expect("sending");
            rest = &rest[length..];
        }
        receiver.wait("everything", |all| all[0].bytes.len() == bytes.len());
        let counters = testbed.counters(1);
        assert_eq!((counters.passed, counters.desyncs), (expected, 0), "cuts up to {largest}");
    }
}

#[test]
fn the_shortest_messages_fill_the_largest_segments_and_all_are_counted() {
    require_root!();
    // A length of one digit and a type of two characters are not in the common header layout.
    let (shortest, long_type, common) =
        (message_with_body("35=D|"), message_with_body("35=AB|"), message_with_body("35=D|11=A-1|"));
    let rare = [shortest.repeat(16), common.clone()].concat();
    for pattern in [shortest.clone(), long_type.clone(), common.clone(), [shortest, common].concat(), rare] {
        let testbed = Testbed::load(POLICY);
        let receiver = testbed.listen(9001);
        let bytes = pattern.repeat(1_300_000 / pattern.len());
        let messages = bytes.windows(2).filter(|pair| pair == b"8=").count() as u64;
        let mut stream = testbed.on_host(|| TcpStream::connect(at(9001))).expect("connecting");
        stream.write_all(&bytes).expect("sending");
        receiver.wait("everything", |all| all[0].bytes.len() == bytes.len());
        let counters = testbed.counters(1);
        assert_eq!(
            (counters.passed[0], counters.desyncs),
            (messages, 0),
            "{} bytes a pattern",
            pattern.len()
        );
        assert!(
            counters.packets_passed < 200,
            "{} segments, so none of them is large",
            counters.packets_passed
        );
    }
}

#[test]
fn retransmits_after_loss_at_the_receiver_count_once() {
    require_root!();
    let testbed = Testbed::load(POLICY);
    let rules = "table inet loss { chain input { type filter hook input priority 0; \
                 tcp dport 9001 numgen random mod 100 < 3 drop; }; }";
    let ran = testbed.network.venue.run(|| Command::new("nft").arg(rules).status());
    assert!(ran.expect("running nft (package nftables)").success());
    let receiver = testbed.listen(9001);
    let (bytes, expected) = mixed(20_000, &mut Rng(77));
    let mut stream = testbed.on_host(|| TcpStream::connect(at(9001))).expect("connecting");
    for part in bytes.chunks(1_000) {
        stream.write_all(part).expect("sending");
    }
    let patience = std::time::Instant::now() + Duration::from_secs(60);
    while receiver.last().bytes.len() < bytes.len() {
        assert!(
            std::time::Instant::now() < patience,
            "the receiver has {} of {}",
            receiver.last().bytes.len(),
            bytes.len()
        );
        sleep(Duration::from_millis(20));
    }
    let counters = testbed.counters(1);
    assert_eq!((counters.passed, counters.desyncs), (expected, 0));
    assert!(counters.retransmitted > 0, "some segments were retransmitted");
}

#[test]
fn duplicated_reordered_and_overlapping_frames_are_counted_once() {
    require_root!();
    for vlan in [None, Some(100)] {
        let testbed = Testbed::load(POLICY);
        let (from, to) = (SocketAddr::new(TwoHosts::FIRM, 40_000), at(9001));
        let mut frames = vec![Frame::new(from, to, 999, b"").with_flags(SYN)];
        let mut seq = 1_000;
        for id in 0..10 {
            let payload = order(id);
            frames.push(Frame::new(from, to, seq, &payload));
            seq += payload.len() as u32;
        }
        // One segment twice, two in reverse order, and one that overlaps its neighbours by half.
        let again = frames[3].clone();
        frames.insert(5, again);
        frames.swap(7, 8);
        // Segments ahead of the gap are withheld: TCP sends them again.
        frames.extend_from_within(7..);
        let half = frames[2].payload.len() / 2;
        let mut overlap = Frame::new(from, to, frames[2].seq + half as u32, &frames[2].payload[half..]);
        overlap.payload.extend_from_slice(&frames[3].payload);
        frames.insert(6, overlap);
        for frame in &mut frames {
            frame.vlan = vlan;
            if frame.flags != SYN {
                frame.flags |= ACK;
            }
            frame.options = 12;
        }
        testbed.inject_frames(&frames.iter().map(Frame::bytes).collect::<Vec<_>>());
        let counters = testbed.counters(1);
        assert_eq!(counters.passed[0], 10, "{counters:?}");
        assert_eq!(testbed.status().packets["passed"], counters.packets_passed);
        assert!(counters.retransmitted >= 2);
    }
}
