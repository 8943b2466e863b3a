//! Traffic during a change of programs: a tripped session sends frames at full speed, and a live session
//! sends orders, of which each must arrive.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

use breaker_user::testbed::{Namespace, TwoHosts};

use crate::frame::{Frame, order};
use crate::packet_socket::PacketSocket;
use crate::receiver::{End, Receiver};

/// The traffic during an upgrade.
pub struct Traffic<'a> {
    /// The host that sends.
    pub firm: &'a Namespace,
    /// The host with the peer of the live session.
    pub venue: &'a Namespace,
    /// Sends one frame of the tripped session. Returns true if the hook let the frame pass.
    pub flood: Box<dyn Fn() -> bool + Send + Sync + 'a>,
}

/// The counts of the traffic.
#[derive(Debug, Default)]
pub struct TrafficResult {
    /// Orders that the live session wrote, and those that arrived.
    pub orders: [u64; 2],
    /// Frames of the tripped session: sent, and let pass.
    pub frames: [u64; 2],
}

impl Traffic<'_> {
    /// Runs an action while the traffic is sent.
    ///
    /// # Panics
    /// If the live connection ends, or an order of it does not arrive.
    pub fn run(&self, action: impl FnOnce()) -> TrafficResult {
        let receiver = Receiver::listen(self.venue, TwoHosts::venue_socket(9001));
        let mut stream =
            self.firm.run(|| TcpStream::connect(TwoHosts::venue_socket(9001))).expect("connecting");
        stream.set_nodelay(true).expect("no delay");
        let (done, sent, passed) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        let mut written = 0;
        let resets_before = resets_sent(self.venue);
        scope(|threads| {
            threads.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    passed.fetch_add(u64::from((self.flood)()), Ordering::Relaxed);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
            let live = threads.spawn(|| {
                let mut written = 0;
                while !done.load(Ordering::Relaxed) {
                    written += 1;
                    stream.write_all(&order(written)).expect("an order of the live session");
                    sleep(Duration::from_micros(300));
                }
                written
            });
            sleep(Duration::from_millis(200));
            action();
            done.store(true, Ordering::Relaxed);
            written = u64::from(live.join().expect("the live session"));
        });
        receiver.wait("every order", |all| all[0].count("D") as u64 == written);
        assert_eq!(receiver.last().end, End::Open);
        // The venue answers each segment with an RST, because no socket listens on the port.
        let passed = passed.into_inner() + (resets_sent(self.venue) - resets_before);
        TrafficResult {
            orders: [written, receiver.last().complete("D") as u64],
            frames: [sent.into_inner(), passed],
        }
    }
}

/// Returns the number of RSTs that a host has sent: `OutRsts` in /proc/net/snmp.
fn resets_sent(host: &Namespace) -> u64 {
    let text = host.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp")).expect("the counters");
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, figures) = (lines.next().expect("names"), lines.next().expect("figures"));
    let found = names.split(' ').zip(figures.split(' ')).find(|(name, _)| *name == "OutRsts");
    found.expect("OutRsts").1.parse().expect("a number")
}

/// Returns a segment of the tripped session on a connection without a SYN.
pub fn segment(from: SocketAddr) -> Frame {
    Frame::new(from, TwoHosts::venue_socket(9002), 1_000, &order(1))
}

/// Returns the traffic of a trading host. Its packet socket reports whether the hook dropped a frame.
pub fn of_host(network: &TwoHosts) -> Traffic<'_> {
    let socket = PacketSocket::send_only(&network.firm, TwoHosts::INTERFACE);
    let mut frame = segment("10.9.0.1:7777".parse().expect("an address"));
    let venue = network.venue.hardware_address(TwoHosts::INTERFACE).expect("the venue's address");
    frame.hardware[1] = venue;
    let frame = frame.bytes();
    Traffic { firm: &network.firm, venue: &network.venue, flood: Box::new(move || socket.send(&frame)) }
}
