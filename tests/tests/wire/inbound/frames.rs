//! Counts of crafted inbound frames: repeats, reordering, and connections that no session opened.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

use breaker_common::decide::{FIN, SYN};
use breaker_tests::cpu::pin_to_cpu;
use breaker_tests::frame::{ACK, Frame, order};
use breaker_tests::packet_socket::PacketSocket;
use breaker_tests::require_root;
use breaker_tests::testbed::Testbed;
use breaker_tests::venue::{fill, reject};
use breaker_user::testbed::TwoHosts;

use super::{BOTH, POLICY, inbound, pair, sum};

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
fn a_repeated_syn_starts_no_new_stream_but_reused_ports_do() {
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
fn inbound_traffic_of_no_session_is_not_read() {
    require_root!();
    let (bytes, _) = ten_messages();
    let testbed = Testbed::load(POLICY);
    // From a session's endpoint, on a connection that the trading host never opened.
    let unopened = FrameConnection::new(&testbed, 40_000, SocketAddr::new(TwoHosts::VENUE, 9001));
    unopened.segment(ISN, SYN | ACK, b"");
    unopened.venue_sends_part(&bytes, 0, bytes.len());
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
    assert_eq!(known, 0, "no table entry is used");
}
