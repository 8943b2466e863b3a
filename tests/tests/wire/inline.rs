//! Inline mode: breaker on a gateway in front of the trading host, at XDP. The trading host runs nothing of
//! breaker.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use breaker_tests::frame::{Frame, message, order};
use breaker_tests::gateway::{Gateway, Hook, Inline, Offloads};
use breaker_tests::receiver::End;
use breaker_tests::require_root;
use breaker_tests::user_tcp::UserTcp;
use etherparse::Ipv4Header;

const POLICY: &str = r#"
[[session]]
name = "x1"
remote = ["10.9.0.2:9001", "[fd09::2]:9001"]
limits = [{ class = "order", max = 137, per = "total" }]
[[session]]
name = "x2"
remote = ["10.9.0.2:9002", "[fd09::2]:9002"]
"#;
const LIMIT: usize = 137;
/// A sender's first retransmit comes after 200 ms of silence on a link this short, its second after 400 ms
/// more.
const ONE_RETRANSMIT: Duration = Duration::from_secs(1);
/// Time after which no more segments arrive.
const QUIET: Duration = Duration::from_millis(700);

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(Gateway::VENUE[0], port)
}

fn both_families(port: u16) -> [SocketAddr; 2] {
    Gateway::VENUE.map(|address| SocketAddr::new(address, port))
}

fn inline(hook: Hook) -> Inline {
    Inline::inline(hook, Offloads::Checksums, POLICY)
}

fn connect(testbed: &Inline, to: SocketAddr) -> TcpStream {
    let stream = testbed.network.firm.run(|| TcpStream::connect(to)).expect("connecting");
    stream.set_nodelay(true).expect("no delay");
    // A sender without a reset would otherwise block without end.
    stream.set_write_timeout(Some(2 * ONE_RETRANSMIT)).expect("a timeout");
    stream
}

/// Returns true if the write ends in a reset; any other error is a failure.
fn write_ends_in_reset(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    match stream.write_all(bytes) {
        Ok(()) => false,
        Err(error) if [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error.kind()) => true,
        Err(error) => panic!("{error}"),
    }
}

/// Returns true if the socket reports a reset in time.
fn is_reset(stream: &mut TcpStream, patience: Duration) -> bool {
    stream.set_read_timeout(Some(patience)).expect("a timeout");
    stream.read(&mut [0; 1]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn status_says_where_it_stands_and_after_unload_nothing_does() {
    require_root!();
    for hook in Hook::ALL {
        let testbed = inline(hook);
        let shown = testbed.status_json();
        assert!(testbed.is_attached_by(hook), "{shown:?}");
        assert_eq!(shown["agent"]["running"], false);
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
fn one_by_one_exactly_n_cross_and_both_ends_are_told() {
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
                "the sender is told ({hook:?}, {offloads:?}, {venue})"
            );
            receiver.wait("the receiver is told", |all| all[0].end == End::Reset);
            assert_eq!((receiver.last().complete("D"), receiver.last().count("D")), (LIMIT, LIMIT));
            let shown = testbed.status_json();
            assert_eq!(shown.messages("x1", "order").0, LIMIT as u64);
            assert_eq!((shown.causes("session/x1"), shown.desyncs("x1")), (vec!["rate"], 0));
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
        assert!(dead || is_reset(&mut stream, ONE_RETRANSMIT), "the sender is told ({hook:?}, {offloads:?})");
        receiver.wait("the reset", |all| all[0].end == End::Reset);
        let last = receiver.last();
        assert!(last.complete("D") <= LIMIT, "{} crossed", last.complete("D"));
        let passed = testbed.status_json().messages("x1", "order").0;
        assert_eq!(last.count("D") as u64, passed, "what the kernel says crossed is what came");
        // A segment of the MTU's size holds about ten orders, and passes or is withheld as a whole.
        assert!(last.count("D") + 11 > LIMIT, "{} crossed: it tripped early", last.count("D"));
    }
}

#[test]
fn a_neighbour_that_leaves_segmentation_to_others_is_cut_off_too() {
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
        assert!(dead || is_reset(&mut stream, 2 * ONE_RETRANSMIT), "the sender is told ({hook:?})");
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
            assert!(is_reset(&mut stream, ONE_RETRANSMIT), "the sender is told ({hook:?}, {venue})");
            receiver.wait("the venue is told", |all| all[0].end == End::Reset);

            // While tripped: a new connection may cancel, and its first order ends it.
            let mut stream = connect(&testbed, venue);
            for (msg_type, fields) in [("A", &b"98=0\x01"[..]), ("F", b"11=C\x0141=R-1\x01")] {
                stream.write_all(&message("FIX.4.4", msg_type, fields)).expect("sending");
            }
            receiver.wait("the cancel", |all| all.len() == 2 && all[1].complete("F") == 1);
            let _ = stream.write_all(&order(3));
            assert!(is_reset(&mut stream, ONE_RETRANSMIT));
            receiver.wait("the venue is told", |all| all[1].end == End::Reset);

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
fn nothing_queued_before_a_reset_comes_after_it_even_from_behind_a_shut_window() {
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
        stream.set_nonblocking(true).expect("not blocking");
        let (mut id, mut refusals, mut rest) = (0, 0, Vec::new());
        // Until the receive window is closed and the send queue has been full for 200 ms.
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
            "{crossed} came where {before} had crossed before the trip ({hook:?}, {on_trip})"
        );
        assert_eq!(testbed.status_json().messages("x1", "order").0, before);
        connect(&testbed, at(9001)).write_all(&order(1)).expect("sending");
        receiver.wait("the order of the new connection", |all| all.len() == 2 && all[1].complete("D") == 1);
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
            receiver.wait("the venue is told", |all| all[0].end == End::Reset);
            let again = Instant::now();
            engine.transmit(&[withheld]);
            assert!(
                engine.is_reset(ONE_RETRANSMIT),
                "its retransmit comes back as a reset ({hook:?}, {venue})"
            );
            assert!(again.elapsed() < Duration::from_millis(200), "{:?}", again.elapsed());
            engine.send(&order(LIMIT as u32 + 1));
            assert!(engine.is_reset(ONE_RETRANSMIT), "and so does all that it sends from now on");
            assert_eq!((receiver.last().complete("D"), receiver.last().count("D")), (LIMIT, LIMIT));
            assert_eq!(testbed.status_json().messages("x1", "order").0, LIMIT as u64);
        }
    }
}

#[test]
fn an_engine_that_never_waits_is_cut_off_all_the_same() {
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
        receiver.wait("the venue is told", |all| all[0].end == End::Reset);
        assert!(engine.is_reset(ONE_RETRANSMIT), "the sender is told ({hook:?})");
        assert_eq!((receiver.last().complete("D"), receiver.last().count("D")), (LIMIT, LIMIT));
        assert_eq!(testbed.status_json().messages("x1", "order").0, LIMIT as u64);
    }
}

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
            let shown = testbed.status_json();
            assert_eq!((shown.messages("x1", "order").0, shown.desyncs("x1")), (LIMIT as u64, 0));
            assert_eq!(shown.causes("session/x1"), ["rate"]);
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
            let shown = testbed.status_json();
            assert_eq!(shown.messages("x1", "order"), (10, 0));
            assert!(shown.retransmitted("x1") >= 2);
        }
    }
}

#[test]
fn an_order_in_ip_fragments_is_withheld_and_counts_when_it_comes_whole() {
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
            let shown = testbed.status_json();
            assert_eq!((shown.messages("x1", "order"), shown.desyncs("x1")), ((2, 0), 0));
            assert!(shown.causes("session/x1").is_empty());
        }
    }
}

#[test]
fn what_is_lost_ahead_of_the_gateway_is_waited_for_and_every_order_counts_once() {
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
            let shown = testbed.status_json();
            assert_eq!((shown.messages("x1", "order"), shown.desyncs("x1")), ((400, 0), 0), "{hook:?}");
            assert_eq!(shown["packets"]["ahead"], (0..20).map(|lost| FLIGHT - 1 - lost).sum::<usize>());
            assert!(shown.causes("session/x1").is_empty(), "a loss that TCP repaired trips nothing");
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
fn bytes_that_the_venue_will_not_take_are_not_taken_for_seen() {
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
                let shown = testbed.status_json();
                assert_eq!(shown.messages("x1", "order").0, 5);
                assert_eq!(shown.causes("session/x1"), ["rate"]);
                assert_eq!(shown["packets"]["undeliverable"], 20);
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
        let shown = testbed.status_json();
        assert_eq!((shown.messages("x1", "order"), shown.desyncs("x1")), ((5_000, 0), 0), "{hook:?}");
        assert!(shown.retransmitted("x1") > 0, "something was lost and sent again");
    }
}

#[test]
fn of_two_sessions_one_is_tripped_and_the_other_goes_on() {
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
        let shown = testbed.status_json();
        assert_eq!(shown.causes("session/x1"), ["rate"]);
        assert!(shown.causes("session/x2").is_empty());
        assert_eq!(shown.messages("x2", "order"), (200, 0));
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
            assert_eq!(refused.expect_err("nobody listens").kind(), ErrorKind::ConnectionRefused);
            assert!(engine.ping(), "{venue} answers a ping");

            // Another application, on an old and a new connection.
            other.write_all(&vec![b'x'; 100_000]).expect("sending");
            connect(&testbed, venue).write_all(&vec![b'x'; 100_000]).expect("sending");
            receiver
                .wait("the bytes", |all| all.len() == 2 && all.iter().all(|one| one.bytes.len() == 100_000));

            // Fills of the tripped session still arrive and are acknowledged: more than a window's worth.
            let fills = vec![b'f'; 2_000_000];
            let writer = std::thread::spawn(move || accepted.write_all(&fills).map(|()| accepted));
            let mut came = vec![0; 2_000_000];
            session.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
            session.read_exact(&mut came).expect("the fills");
            let mut accepted = writer.join().expect("the writer").expect("sending fills");

            // The session may close its connection in order.
            drop(session);
            accepted.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
            assert_eq!(accepted.read(&mut [0; 1]).expect("FIN"), 0);
            testbed.reset("host");
        }
    }
}

#[test]
fn on_trip_drop_lets_the_payload_vanish_and_tells_nobody() {
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
                stream.write_all(&order(id)).expect("the sender does not learn of it");
            }
            accepted.set_read_timeout(Some(QUIET)).expect("a timeout");
            let silence = accepted.read(&mut [0; 1]).expect_err("silence");
            assert_eq!(silence.kind(), ErrorKind::WouldBlock, "{silence}");
            // Fills still arrive.
            accepted.write_all(b"fill").expect("sending");
            stream.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
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
fn isolated_a_tripped_session_gets_no_connection_at_all() {
    require_root!();
    for hook in Hook::ALL {
        let testbed =
            Inline::inline(hook, Offloads::Checksums, &format!("while_tripped = \"isolate\"\n{POLICY}"));
        for venue in both_families(9001) {
            let receiver = testbed.listen_at(venue);
            testbed.trip("session/x1");
            let refused =
                testbed.network.firm.run(|| TcpStream::connect_timeout(&venue, Duration::from_millis(500)));
            assert_eq!(refused.expect_err("no connection comes about").kind(), ErrorKind::TimedOut);
            assert!(receiver.received().is_empty());
            testbed.reset("session/x1");
            connect(&testbed, venue).write_all(&order(1)).expect("after the reset it does");
            receiver.wait("the order", |all| all[0].complete("D") == 1);
        }
    }
}

/// Each hook with each kind of checksum, in frames as on a wire.
fn hooks_and_checksums() -> impl Iterator<Item = (Hook, Offloads)> {
    Hook::ALL
        .into_iter()
        .flat_map(|hook| [Offloads::None, Offloads::Checksums].map(|offloads| (hook, offloads)))
}

/// Waits until that many orders of the first session have passed.
fn wait_for_orders(testbed: &Inline, orders: u64) {
    let until = Instant::now() + Duration::from_secs(5);
    while testbed.status_json().messages("x1", "order").0 < orders {
        assert!(Instant::now() < until, "{:?}", testbed.status_json().messages("x1", "order"));
        sleep(Duration::from_millis(5));
    }
}
