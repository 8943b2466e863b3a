//! Inline mode over veth: frames with one order each from a packet socket at the trading host, through a
//! gateway, counted on arrival. Sender, gateway and arrival share one CPU, as the kernel runs a veth. The
//! figures are of all three together.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use breaker_user::testbed::{Namespace, TwoHosts};

use super::figures::{Row, median};
use super::hook::{POLICY, segment};
use super::inline::venue;
use super::order::{LENGTH, TYPE_AT, order};
use super::report::Table;
use super::scale::Scale;
use super::shell::run_with_input;
use crate::allow_list::AllowList;
use crate::cpu::pin_to_cpu;
use crate::empty_program::EmptyProgram;
use crate::gateway::{Gateway, Hook, Inline, Offloads};
use crate::packet_socket::PacketSocket;

/// Frames of one system call.
const BATCH: usize = 64;
/// Bytes of the sequence number in a frame of Ethernet and IPv4 without options.
const SEQ: std::ops::Range<usize> = 38..42;

/// The filter on the gateway.
enum Filter {
    Nothing(Gateway),
    EmptyProgram(Gateway, #[expect(dead_code, reason = "attached for as long as it is here")] EmptyProgram),
    AllowList(Gateway, #[expect(dead_code, reason = "attached for as long as it is here")] AllowList),
    Breaker(Inline),
}

impl Filter {
    fn network(&self) -> &Gateway {
        match self {
            Self::Nothing(network) | Self::EmptyProgram(network, _) | Self::AllowList(network, _) => network,
            Self::Breaker(testbed) => &testbed.network,
        }
    }
}

/// A gateway with a filter, and the next frames of its sender.
struct Candidate {
    what: &'static str,
    filter: Filter,
    socket: PacketSocket,
    frames: Vec<Vec<u8>>,
    seq: u32,
}

/// Result of a burst of frames.
struct Burst {
    per_second: f64,
    arrived: f64,
}

/// The section.
pub fn tables(scale: &Scale) -> Vec<Table> {
    let mut candidates = candidates();
    let mut rates: Vec<Row> =
        candidates.iter().map(|candidate| Row::new(candidate.what, "frames/s")).collect();
    let mut arrivals: Vec<Row> =
        candidates.iter().map(|candidate| Row::new(candidate.what, "share that arrived")).collect();
    for candidate in &mut candidates {
        candidate.burst(BATCH * 8);
    }
    for _ in 0..scale.short_rounds {
        for ((candidate, rate), arrived) in candidates.iter_mut().zip(&mut rates).zip(&mut arrivals) {
            let burst = candidate.burst(scale.frames);
            rate.rounds.push(burst.per_second);
            arrived.rounds.push(burst.arrived);
        }
    }
    let title = format!(
        "gateway over veth: {} frames with one order of {LENGTH} bytes each, new sequence numbers, from a \
         packet socket (sendmmsg of {BATCH}, past the qdisc); sender, gateway and receiver on one core",
        scale.frames
    );
    let mut table = Table::new(
        title,
        &["on the gateway", "frames/s arrived", "ratio", "ns a frame above nothing", "arrived"],
    );
    let above = |row: &Row| {
        median(row.rounds.iter().zip(&rates[0].rounds).map(|(one, zero)| 1e9 / one - 1e9 / zero).collect())
    };
    for (rate, arrived) in rates.iter().zip(&arrivals) {
        let (per_second, above) = (rate.median(), above(rate));
        let ratio = rate.ratio(&rates[0]);
        let arrived = 100.0 * arrived.median();
        table.line([
            rate.what.clone(),
            format!("{per_second:.0}"),
            format!("{ratio:.3}"),
            format!("{above:.0}"),
            format!("{arrived:.1} %"),
        ]);
    }
    table.keep(rates.iter().chain(&arrivals));
    for candidate in &candidates {
        candidate.check();
    }
    vec![table]
}

fn candidates() -> Vec<Candidate> {
    let new = || Gateway::new(Offloads::None).expect("making namespaces");
    let mut candidates = vec![
        Candidate::new("nothing", Filter::Nothing(new())),
        Candidate::new("nothing again (A/A)", Filter::Nothing(new())),
    ];
    let network = new();
    let empty = network.gateway.run(|| EmptyProgram::open().attach(Gateway::INSIDE));
    candidates.push(Candidate::new("empty XDP", Filter::EmptyProgram(network, empty)));
    let network = new();
    let allow = network.gateway.run(|| AllowList::open(venue()).attach(Gateway::INSIDE));
    candidates.push(Candidate::new("allow-list XDP", Filter::AllowList(network, allow)));
    let network = new();
    run_with_input(&network.gateway, "nft -f -", &count_orders("forward")).expect("loading the rules");
    candidates.push(Candidate::new("nftables, counts `35=D` at its place", Filter::Nothing(network)));
    for (what, hook) in [("breaker, native XDP", Hook::Native), ("breaker, generic XDP", Hook::Generic)] {
        candidates.push(Candidate::new(what, Filter::Breaker(Inline::inline(hook, Offloads::None, POLICY))));
    }
    candidates
}

/// Rules that match an order at the start of a segment's payload, and count it.
fn count_orders(hook: &str) -> String {
    format!(
        "table ip bench {{ chain orders {{ type filter hook {hook} priority 0; tcp dport 9001 @ih,{},32 \
         0x33353d44 counter; }}; }}",
        TYPE_AT * 8
    )
}

/// Gives a frame another sequence number, and updates the checksum (RFC 1624, section 3).
fn renumber(frame: &mut [u8], seq: u32) {
    const CHECKSUM: usize = SEQ.start + 12;
    let halves = |word: u32| (word & 0xffff) + (word >> 16);
    let old = u32::from_be_bytes(frame[SEQ].try_into().expect("four bytes"));
    let checksum = u16::from_be_bytes([frame[CHECKSUM], frame[CHECKSUM + 1]]);
    let sum = u32::from(!checksum) + halves(!old) + halves(seq);
    frame[SEQ].copy_from_slice(&seq.to_be_bytes());
    frame[CHECKSUM..CHECKSUM + 2].copy_from_slice(&(!halves(halves(sum)) as u16).to_be_bytes());
}

impl Candidate {
    fn new(what: &'static str, filter: Filter) -> Self {
        let network = filter.network();
        // The venue has no such connection: frames are counted and dropped.
        let quiet = "table netdev bench { chain quiet { type filter hook ingress device eth1 priority 0; \
                     ip protocol tcp drop; }; }";
        run_with_input(&network.venue, "nft -f -", quiet).expect("loading the rules");
        let own = network.firm.hardware_address(TwoHosts::INTERFACE).expect("the hardware address");
        let next = network.gateway.hardware_address(Gateway::INSIDE).expect("the gateway's address");
        let socket = PacketSocket::bypass_qdisc(&network.firm, TwoHosts::INTERFACE);
        let frame = |seq, payload: &[u8], flags| {
            let mut frame =
                segment(SocketAddr::new(Gateway::ENGINE[0], 40_000), 9001, seq, payload).with_flags(flags);
            frame.hardware = [own, next];
            frame.bytes()
        };
        socket.send(&frame(0, b"", 2));
        let frames = (0..BATCH).map(|id| frame(0, &order(id), 0x18)).collect();
        Self { what, filter, socket, frames, seq: 1 }
    }

    /// Sends frames, and waits until no more of them arrive.
    fn burst(&mut self, frames: usize) -> Burst {
        let (socket, batch, seq) = (&self.socket, &mut self.frames, &mut self.seq);
        let network = self.filter.network();
        let before = received(&network.venue);
        let elapsed = network.firm.run(move || {
            pin_to_cpu(0);
            let start = Instant::now();
            for _ in 0..frames / BATCH {
                for frame in batch.iter_mut() {
                    renumber(frame, *seq);
                    *seq = seq.wrapping_add(LENGTH as u32);
                }
                socket.send_all(batch);
            }
            start.elapsed()
        });
        let arrived = settled(&network.venue) - before;
        let sent = frames / BATCH * BATCH;
        Burst { per_second: arrived as f64 / elapsed.as_secs_f64(), arrived: arrived as f64 / sent as f64 }
    }

    /// Asserts that the filter has counted the frames.
    fn check(&self) {
        if let Filter::Breaker(testbed) = &self.filter {
            let (passed, arrived) = (testbed.counters(1).passed[0], received(&testbed.network.venue));
            assert!(
                passed * 100 >= arrived * 99,
                "{}: breaker counted {passed} orders where {arrived} frames arrived",
                self.what
            );
        } else if self.what.starts_with("nftables") {
            let rules = run_with_input(&self.filter.network().gateway, "nft list ruleset", "")
                .expect("listing the rules");
            assert!(!rules.contains("counter packets 0 "), "nftables saw no order: {rules}");
        }
    }
}

/// Number of frames received at the interface of the venue.
fn received(venue: &Namespace) -> u64 {
    let path = format!("/sys/class/net/{}/statistics/rx_packets", TwoHosts::INTERFACE);
    venue.run(|| std::fs::read_to_string(path)).expect("reading a counter").trim().parse().expect("a number")
}

fn settled(venue: &Namespace) -> u64 {
    let mut last = received(venue);
    loop {
        std::thread::sleep(Duration::from_millis(5));
        let now = received(venue);
        if now == last {
            return now;
        }
        last = now;
    }
}
