//! Inbound traffic: how it is counted, and that none of it is ever withheld.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use aya::programs::{SchedClassifier, TcAttachType};
use breaker_common::abi::Counters;
use breaker_common::decide::{FIN, SYN};
use breaker_tests::cpu::pin_to_cpu;
use breaker_tests::frame::{ACK, Frame, order};
use breaker_tests::gateway::{Gateway, Hook, Inline, Offloads};
use breaker_tests::packet_socket::PacketSocket;
use breaker_tests::receiver::tcp_info;
use breaker_tests::require_root;
use breaker_tests::rng::Rng;
use breaker_tests::testbed::{Network, Testbed};
use breaker_tests::venue::{
    ConnectionPair, class_index, fill, inbound_samples, random_inbound, random_segments, reject,
};
use breaker_user::testbed::{Namespace, Offload, TwoHosts};

const POLICY: &str = r#"
inbound = "watch"
undeclared = "ignore"
[[session]]
name = "x1"
remote = ["10.9.0.2:9001", "[fd09::2]:9001"]
[[session]]
name = "x2"
remote = ["10.9.0.2:9002", "[fd09::2]:9002"]
"#;
const BOTH: [IpAddr; 2] = [TwoHosts::VENUE, TwoHosts::VENUE_V6];

fn with_clsact() -> Testbed {
    Testbed::load(&format!("hook = \"clsact\"\n{POLICY}"))
}

/// Sets an interface up to receive as a network card does: by one queue, in order, and joined by GRO. Without
/// NAPI a veth processes a frame on the CPU of its sender, several at a time and in any order. It uses NAPI
/// only if the sender has no TSO.
fn receive_by_queue(sender: (&Namespace, &str), at: (&Namespace, &str)) {
    sender.0.set_offload(sender.1, Offload::Tso, false).expect("no TSO");
    at.0.set_offload(at.1, Offload::Gro, true).expect("NAPI");
}

fn pair(testbed: &Testbed, address: IpAddr, port: u16) -> ConnectionPair {
    ConnectionPair::connect(&testbed.network.firm, &testbed.network.venue, SocketAddr::new(address, port))
}

/// Inbound counts of the sessions by their numbers, and the number of lost streams.
fn inbound<const N: usize>(testbed: &Testbed<impl Network>, sessions: [usize; N]) -> [([u64; 3], u64); N] {
    let of = |session| {
        let Counters { inbound, inbound_desyncs, .. } =
            testbed.with_breaker(|breaker| breaker.counters().expect("counters"))[session];
        (inbound, inbound_desyncs)
    };
    sessions.map(of)
}

fn sum(a: [u64; 3], b: [u64; 3]) -> [u64; 3] {
    [0, 1, 2].map(|i| a[i] + b[i])
}

/// Sends one message of each kind in a segment of its own, and checks how it is counted.
fn send_each_kind(testbed: &Testbed<impl Network>, pair: &mut ConnectionPair) {
    let mut expected = inbound(testbed, [1])[0].0;
    for (message, class) in inbound_samples() {
        pair.venue_sends(&[&message]);
        expected[class_index(class)] += 1;
        let shown = String::from_utf8_lossy(&message).replace('\x01', "|");
        assert_eq!(inbound(testbed, [1])[0], (expected, 0), "{class:?}: {shown:.400}");
    }
    assert_eq!(testbed.status_json().inbound("x1"), expected);
}

#[test]
fn each_kind_of_message_counts_as_what_it_is() {
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
fn what_is_lost_behind_the_hook_and_comes_again_counts_once() {
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
    assert!(sent.retransmits > 0, "the venue sent some of it again: {sent:?}");
    assert_eq!(inbound(&testbed, [1]), [(expected, 0)]);
}

#[test]
fn what_is_lost_ahead_of_the_hook_is_a_stream_lost_and_counting_goes_on_behind_it() {
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
    assert!(counted == sent || lost > 0, "what is not counted is told of: {counted:?} of {sent:?}");
    let status = testbed.status_json();
    assert_eq!(status["sessions"][1]["inbound"]["desyncs"], lost, "and shown: {}", status["sessions"][1]);
    // The next message that begins a segment restores the framing, at the latest.
    let (bytes, more) = random_inbound(&mut rng, 300);
    pair.venue_sends(&[&fill()]);
    let [(before, _)] = inbound(&testbed, [1]);
    pair.venue_sends(&random_segments(&mut rng, &bytes, 20_000));
    assert_eq!(inbound(&testbed, [1]), [(sum(before, more), lost)]);
}

/// A connection of crafted frames without a socket: only the test sends.
struct FrameConnection<'a> {
    testbed: &'a Testbed,
    firm: SocketAddr,
    venue: SocketAddr,
    socket: PacketSocket,
    /// The venue's acknowledgement: all bytes that the trading host has sent.
    acked: Cell<u32>,
}

/// The venue's initial sequence number. The numbers wrap soon.
const ISN: u32 = u32::MAX - 700;

impl<'a> FrameConnection<'a> {
    fn new(testbed: &'a Testbed, port: u16, venue: SocketAddr) -> Self {
        // On the CPU of the only receive queue, a frame has been processed when the send returns.
        pin_to_cpu(0);
        let host: IpAddr =
            if venue.is_ipv4() { "10.9.0.77" } else { "fd09::77" }.parse().expect("an address");
        let socket = PacketSocket::send_only(&testbed.network.venue, TwoHosts::INTERFACE);
        Self { testbed, firm: SocketAddr::new(host, port), venue, socket, acked: Cell::new(0) }
    }

    /// Sends a segment from the trading host.
    fn firm_sends(&self, seq: u32, flags: u8, payload: &[u8]) {
        self.testbed
            .inject_frames(&[Frame::new(self.firm, self.venue, seq, payload).with_flags(flags).bytes()]);
        let space = payload.len() as u32 + u32::from(flags & (SYN | FIN) != 0);
        self.acked.set(seq.wrapping_add(space));
    }

    /// Sends bytes of a stream from the venue.
    fn venue_sends_part(&self, stream: &[u8], from: usize, length: usize) {
        self.segment(ISN.wrapping_add(1 + from as u32), ACK, &stream[from..from + length]);
    }

    fn segment(&self, seq: u32, flags: u8, payload: &[u8]) {
        let mut frame = Frame::new(self.venue, self.firm, seq, payload).with_flags(flags);
        frame.ack = self.acked.get();
        self.socket.send(&frame.bytes());
        // A veth processes a frame after the send has returned.
        sleep(Duration::from_millis(3));
    }

    fn open(&self) {
        self.firm_sends(1_000, SYN, b"");
        self.segment(ISN, SYN | ACK, b"");
    }
}

/// Ten messages, and where each begins.
fn ten_messages() -> (Vec<u8>, Vec<usize>) {
    let messages: Vec<_> = (0..10).map(|i| if i % 3 == 0 { reject() } else { fill() }).collect();
    let starts = messages.iter().scan(0, |at, message| Some(std::mem::replace(at, *at + message.len())));
    (messages.concat(), starts.collect())
}

#[test]
fn repeated_reordered_and_overlapping_frames_count_once() {
    require_root!();
    let (bytes, starts) = ten_messages();
    let [m1, m2, m3, m4, m5, m6] = [1, 2, 3, 4, 5, 6].map(|i| starts[i]);
    let all = bytes.len();
    /// Inbound counts, and number of lost streams.
    type Counted = ([u64; 3], u64);
    /// Start and end of segments.
    type Segments<'a> = &'a [(usize, usize)];
    const PLAIN: Counted = ([6, 4, 0], 0);
    const LOST: Counted = ([6, 4, 0], 1);
    // The field that identifies a fill arrives after the end of its message, which has been counted as
    // another one.
    const LATE: Counted = ([5, 4, 1], 0);
    // Segments in the order of arrival: start, end. Each list holds all ten messages.
    let orders: &[(&str, Counted, Segments)] = &[
        ("in order", PLAIN, &[(0, m3), (m3, all)]),
        ("again", PLAIN, &[(0, m3), (0, m3), (m3, all), (m1, m5), (0, all)]),
        ("overlapping", PLAIN, &[(0, m3 + 20), (m2, m5 + 7), (m5, all)]),
        ("cut in a header", PLAIN, &[(0, m3 + 4), (m3 + 4, m3 + 9), (m3 + 9, all)]),
        ("swapped, and the second begins with a message", LOST, &[(0, m2), (m4, m6), (m2, m4), (m6, all)]),
        (
            "swapped inside a message",
            LATE,
            &[(0, m2 + 60), (m2 + 80, m2 + 90), (m2 + 60, m2 + 80), (m2 + 90, all)],
        ),
        ("the late ones twice", LOST, &[(0, m2), (m4, m6), (m2, m4), (m2, m4), (m4, m6), (m6, all)]),
        ("late ones in parts", LOST, &[(0, m2), (m4, m6), (m2, m3 + 9), (m3 + 9, m4), (m6, all)]),
    ];
    for venue in BOTH.map(|address| SocketAddr::new(address, 9001)) {
        let testbed = Testbed::load(POLICY);
        let mut before = [0; 3];
        let mut lost = 0;
        for (port, (what, (counts, loses), segments)) in (40_000..).zip(orders) {
            let frames = FrameConnection::new(&testbed, port, venue);
            frames.open();
            segments.iter().for_each(|&(from, to)| frames.venue_sends_part(&bytes, from, to - from));
            (before, lost) = (sum(before, *counts), lost + loses);
            assert_eq!(inbound(&testbed, [1]), [(before, lost)], "{what}, {venue}");
        }
    }
}

#[test]
fn a_syn_that_comes_again_late_starts_nothing_anew_and_reused_ports_do() {
    require_root!();
    let (bytes, starts) = ten_messages();
    let testbed = Testbed::load(POLICY);
    let frames = FrameConnection::new(&testbed, 40_000, SocketAddr::new(TwoHosts::VENUE, 9001));
    frames.open();
    frames.venue_sends_part(&bytes, 0, starts[5]);
    frames.segment(ISN, SYN | ACK, b"");
    frames.venue_sends_part(&bytes, starts[2], starts[5] - starts[2]);
    frames.venue_sends_part(&bytes, starts[5], bytes.len() - starts[5]);
    assert_eq!(inbound(&testbed, [1]), [([6, 4, 0], 0)], "the repeated SYN");
    // The same ports again, with other initial sequence numbers.
    for isn in [ISN.wrapping_sub(9_999), ISN.wrapping_add(1 << 30), 7] {
        frames.firm_sends(2_000, FIN | ACK, b"");
        frames.firm_sends(isn ^ 0x5555, SYN, b"");
        frames.segment(isn, SYN | ACK, b"");
        frames.segment(isn.wrapping_add(1), ACK, &bytes);
    }
    assert_eq!(inbound(&testbed, [1]), [([24, 16, 0], 0)], "the new connections");
}

#[test]
fn what_no_session_asked_for_is_not_looked_at() {
    require_root!();
    let (bytes, _) = ten_messages();
    let testbed = Testbed::load(POLICY);
    // From a session's endpoint, on a connection that the trading host never opened.
    let stranger = FrameConnection::new(&testbed, 40_000, SocketAddr::new(TwoHosts::VENUE, 9001));
    stranger.segment(ISN, SYN | ACK, b"");
    stranger.venue_sends_part(&bytes, 0, bytes.len());
    // From an address and from a port of no session.
    for (port, venue) in [(40_001, "10.9.0.3:9001"), (40_002, "10.9.0.2:9003")] {
        let frames = FrameConnection::new(&testbed, port, venue.parse().expect("an address"));
        frames.open();
        frames.venue_sends_part(&bytes, 0, bytes.len());
    }
    let mut other = pair(&testbed, TwoHosts::VENUE, 9003);
    other.firm_sends(&order(1));
    other.venue_sends(&[&bytes]);
    assert_eq!(inbound(&testbed, [0, 1, 2]), [([0; 3], 0); 3]);
    let known = testbed.with_breaker(|breaker| breaker.maps().inbound().expect("the table").keys().count());
    assert_eq!(known, 0, "and no room is taken");
}

#[test]
fn nothing_that_comes_in_is_withheld_while_tripped() {
    require_root!();
    let limits = "limits = [{ class = \"reject\", max = 3, per = \"1h\" }]\n[[session]]\nname = \"x2\"";
    for hook in ["auto", "clsact"] {
        let policy = POLICY.replacen("[[session]]\nname = \"x2\"", limits, 1);
        let testbed = Testbed::load(&format!("hook = {hook:?}\non_trip = \"drop\"\n{policy}"));
        let mut rng = Rng(0xd0_07);
        let mut old = pair(&testbed, TwoHosts::VENUE, 9001);
        old.venue_sends(&[&reject().repeat(3)]);
        old.venue_sends(&[&reject()]);
        let mut expected = [0, 4, 0];
        let mut come = |pair: &mut ConnectionPair, rng: &mut Rng| {
            let (bytes, counts) = random_inbound(rng, 500);
            pair.venue_sends(&random_segments(rng, &bytes, 30_000));
            expected = sum(expected, counts);
            assert_eq!(inbound(&testbed, [1]), [(expected, 0)]);
        };
        let causes = |scope: &str| {
            let found = testbed.status().scopes.into_iter().find(|found| found.scope == scope);
            found.expect("the scope").causes
        };
        assert_eq!(causes("session/x1"), ["rate"], "tripped by what came in");
        come(&mut old, &mut rng);
        testbed.trip("session/x1");
        testbed.trip("host");
        come(&mut old, &mut rng);
        // The next order fences the connection; inbound segments still pass.
        std::io::Write::write_all(&mut old.firm, &order(1)).expect("taken by the socket");
        sleep(Duration::from_millis(20));
        assert_eq!(testbed.status().packets["fenced"], 1);
        come(&mut old, &mut rng);
        let mut new = pair(&testbed, TwoHosts::VENUE, 9001);
        come(&mut new, &mut rng);
        assert_eq!(testbed.counters(1).passed[0], 0);
    }
}

/// Number of programs at a hook of tcx, in the namespace of this thread.
fn tcx_programs(interface: &str, direction: TcAttachType) -> usize {
    SchedClassifier::query_tcx(interface, direction).map_or(0, |(_, programs)| programs.len())
}

#[test]
fn status_shows_where_it_hangs_and_an_unload_leaves_nothing() {
    require_root!();
    let both = [TcAttachType::Ingress, TcAttachType::Egress];
    for (hook, word, each) in [("auto", "tcx", 1), ("clsact", "clsact", 0)] {
        let testbed = Testbed::load(&format!("hook = {hook:?}\n{POLICY}"));
        let interfaces: Vec<_> = testbed
            .status()
            .interfaces
            .into_iter()
            .map(|one| (one.mode, one.hook, one.attached, one.first))
            .collect();
        assert_eq!(interfaces, [("egress", word, true, true), ("inbound", word, true, true)]);
        let at = |direction| testbed.on_host(|| tcx_programs(TwoHosts::INTERFACE, direction));
        assert_eq!(both.map(at), [each; 2]);
        testbed.cli("unload").expect_exit(0);
        assert_eq!(both.map(at), [0; 2]);
        let tc = testbed
            .on_host(|| Command::new("tc").args(["qdisc", "show", "dev", TwoHosts::INTERFACE]).output());
        let tc = String::from_utf8(tc.expect("running tc").stdout).expect("text");
        assert!(!tc.contains("clsact"), "{tc}");
        assert!(!Testbed::root().exists(), "no pin is left");
    }
    let testbed = Inline::inline(Hook::Native, Offloads::Checksums, POLICY);
    let shown = testbed.status_json();
    let interfaces: Vec<_> =
        (0..2).map(|i| (&shown["interfaces"][i]["mode"], &shown["interfaces"][i]["hook"])).collect();
    assert_eq!(interfaces, [(&"inline".into(), &"native".into()), (&"inbound".into(), &"tcx".into())]);
    let at = |direction| testbed.on_host(|| tcx_programs(Gateway::INSIDE, direction));
    assert_eq!(both.map(at), [0, 1]);
    assert_eq!(testbed.cli("unload").exit_code, Some(0));
    assert_eq!(both.map(at), [0, 0]);
}

#[test]
fn without_a_need_for_it_nothing_is_read() {
    require_root!();
    let quiet = POLICY.replace("inbound = \"watch\"\n", "");
    let testbed = Testbed::load(&quiet);
    let mut line = pair(&testbed, TwoHosts::VENUE, 9001);
    line.venue_sends(&[&fill()]);
    assert_eq!(inbound(&testbed, [1]), [([0; 3], 0)]);
    assert_eq!(testbed.on_host(|| tcx_programs(TwoHosts::INTERFACE, TcAttachType::Ingress)), 0);
    let status = testbed.status_json();
    assert!(status["sessions"][1].get("inbound").is_none(), "{}", status["sessions"][1]);
    // A limit on inbound messages attaches the hook.
    let testbed =
        Testbed::load(&format!("limits = [{{ class = \"fill\", max = 5, per = \"1s\" }}]\n{quiet}"));
    let mut line = pair(&testbed, TwoHosts::VENUE, 9001);
    line.venue_sends(&[&fill()]);
    assert_eq!(inbound(&testbed, [1]), [([1, 0, 0], 0)]);
}
