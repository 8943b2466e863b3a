//! Instructions that a packet takes in the kernel. A machine that `cargo xtask kernels` emulates runs one
//! instruction a nanosecond. There the time of a test run (BPF_PROG_TEST_RUN) is the number of instructions,
//! and each run gives the same.
//!
//! The number says nothing on waits for memory. A packet of a test run at tc is linear; the packets of a
//! socket are not, and each copy of their payload takes more instructions.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::programs::{SchedClassifier, Xdp};
use aya_obj::programs::XdpAttachType;
use breaker_common::abi::Counters;
use breaker_common::decide::SYN;
use breaker_user::testbed::TwoHosts;

use crate::bench::order::{order, sized};
use crate::empty_program::EmptyProgram;
use crate::frame::{ACK, Frame};
use crate::gateway::{Gateway, Hook, Inline, Offloads};
use crate::network::Network;
use crate::test_run::{TestRunnable, run};
use crate::testbed::Testbed;
use crate::venue::fill;

/// Instructions by hook and kind of packet, for example `egress: heartbeat`: those above an empty program
/// with the same frame.
pub type Counts = BTreeMap<String, u64>;

/// Sessions by the number of their scopes and limits. No limit is reached. Each session is also in its own
/// scope and in that of the host, which has one limit.
const SHAPES: [Shape; 5] = [
    Shape { port: 9001, name: "2 scopes, 1 limit", groups: &[], limits: 0 },
    Shape { port: 9002, name: "3 scopes, 1 limit", groups: &["g0"], limits: 0 },
    Shape { port: 9003, name: "3 scopes, 4 limits", groups: &["g1"], limits: 2 },
    Shape { port: 9004, name: "6 scopes, 1 limit", groups: &["g0", "g5", "g6", "g7"], limits: 0 },
    Shape { port: 9005, name: "6 scopes, 16 limits", groups: &["g1", "g2", "g4", "g8"], limits: 4 },
];
/// Groups: name, number of limits.
const GROUPS: [(&str, usize); 8] =
    [("g0", 0), ("g1", 1), ("g2", 2), ("g4", 4), ("g5", 0), ("g6", 0), ("g7", 0), ("g8", 4)];
/// Port of the session in [`SHAPES`] for all other kinds of packets.
const USUAL: u16 = 9003;
/// Addresses of the venue and of the trading host.
const VENUE: [IpAddr; 2] = [TwoHosts::VENUE, TwoHosts::VENUE_V6];
const HOST: [IpAddr; 2] = [TwoHosts::FIRM, TwoHosts::FIRM_V6];
/// Longer than any window.
const SILENCE: Duration = Duration::from_secs(5);
/// Port of the session that is tripped.
const TRIPPED: u16 = 9009;
/// Port of another application.
const ELSEWHERE: u16 = 8080;
/// Maximum of each limit: never reached, and small enough that the time of each message is kept.
const FEW: u32 = 2_000;
/// Runs of each kind of packet to warm up. [`RUNS`] are counted after them.
const WARM: usize = 4;
/// Orders that give a window a peak which later orders do not reach.
const PEAK: usize = 400;
const RUNS: usize = 12;
/// Percent by which the median of the runs may exceed the minimum. A search takes a few steps more or less,
/// by where it begins.
const SPREAD: u64 = 1;

/// A kind of session.
struct Shape {
    port: u16,
    name: &'static str,
    groups: &'static [&'static str],
    limits: usize,
}

/// Counts each kind of packet: at tc egress, inbound, and inline.
///
/// # Errors
/// If a program cannot be opened, or if runs of one kind differ, because the machine is not emulated with one
/// instruction a nanosecond.
pub fn count() -> Result<Counts> {
    let mut counts = Counts::new();
    let testbed = Testbed::load(&policy());
    testbed.on_host(|| -> Result<()> {
        let mut loaded = EmptyProgram::open();
        let empty = loaded.classifier();
        let egress = SchedClassifier::from_pin(Testbed::root().program())?;
        outgoing(
            &mut Bench { path: "egress", empty, program: &egress, counts: &mut counts },
            &testbed,
            HOST,
        )?;
        let inbound = SchedClassifier::from_pin(Testbed::root().inbound_program())?;
        incoming(&mut Bench { path: "inbound", empty, program: &inbound, counts: &mut counts }, &egress)
    })?;
    let testbed = Inline::inline(Hook::Native, Offloads::None, &policy());
    testbed.on_host(|| -> Result<()> {
        let mut loaded = EmptyProgram::open();
        let empty = &*loaded.xdp();
        let inline = Xdp::from_pin(Testbed::root().program(), XdpAttachType::Interface)?;
        outgoing(
            &mut Bench { path: "inline", empty, program: &inline, counts: &mut counts },
            &testbed,
            Gateway::ENGINE,
        )
    })?;
    Ok(counts)
}

fn policy() -> String {
    let scope = |head: &str, name: &str, keys: &str, limits: usize| {
        let limits: String = (1..=limits)
            .map(|seconds| format!("{{ class = \"order\", max = {FEW}, per = \"{seconds}s\" }}, "))
            .collect();
        format!("[[{head}]]\nname = {name:?}\n{keys}limits = [{limits}]\n")
    };
    let session = |port: u16, groups: &[&str], limits| {
        let remotes = VENUE.map(|address| SocketAddr::new(address, port).to_string());
        let keys = format!("remote = {remotes:?}\ngroups = {groups:?}\n");
        scope("session", &format!("to-{port}"), &keys, limits)
    };
    let groups: String = GROUPS.iter().map(|&(name, limits)| scope("group", name, "", limits)).collect();
    let sessions: String =
        SHAPES.iter().map(|shape| session(shape.port, shape.groups, shape.limits)).collect();
    let host =
        format!("inbound = \"watch\"\nlimits = [{{ class = \"order\", max = {FEW}, per = \"1s\" }}]\n");
    host + &groups + &sessions + &session(TRIPPED, &["g1"], 2)
}

/// The sender of one direction of a connection.
struct Sender {
    from: SocketAddr,
    to: SocketAddr,
    seq: u32,
}

impl Sender {
    fn new([from, to]: [IpAddr; 2], ports: [u16; 2]) -> Self {
        Self { from: SocketAddr::new(from, ports[0]), to: SocketAddr::new(to, ports[1]), seq: 1 }
    }

    fn syn(&self) -> Vec<u8> {
        self.framed(self.seq.wrapping_sub(1), SYN, b"")
    }

    /// The next bytes of the stream.
    fn send(&mut self, payload: &[u8]) -> Vec<u8> {
        let frame = self.framed(self.seq, ACK, payload);
        self.seq = self.seq.wrapping_add(payload.len() as u32);
        frame
    }

    /// A segment as a Linux host sends it, with time stamps.
    fn framed(&self, seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = Frame::new(self.from, self.to, seq, payload).with_flags(flags);
        frame.options = 12;
        frame.bytes()
    }
}

/// A program and an empty program to compare it with.
struct Bench<'a, P> {
    path: &'static str,
    empty: &'a P,
    program: &'a P,
    counts: &'a mut Counts,
}

impl<P: TestRunnable> Bench<'_, P> {
    /// Counts a kind of packet. Each run has a frame of its own.
    fn case(&mut self, kind: &str, mut frame: impl FnMut() -> Vec<u8>) -> Result<u64> {
        let name = format!("{}: {kind}", self.path);
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for _ in 0..WARM + RUNS {
            let frame = frame();
            with.push(run(self.program, &frame, 1).ns);
            without.push(run(self.empty, &frame, 1).ns);
        }
        let zero = undisturbed(&without[WARM..]).with_context(|| format!("{name}: an empty program"))?;
        let all = undisturbed(&with[WARM..]).with_context(|| name.clone())?;
        let own = all
            .checked_sub(zero)
            .with_context(|| format!("{name}: less than an empty program: {all}, {zero}"))?;
        println!("{name}: {own} above {zero}");
        self.keep(kind, own);
        Ok(own)
    }

    fn keep(&mut self, kind: &str, count: u64) {
        self.counts.insert(format!("{}: {kind}", self.path), count);
    }
}

/// The number of instructions of runs that no interrupt disturbed: the minimum, from which the median must
/// not differ.
fn undisturbed(runs: &[u64]) -> Result<u64> {
    let mut sorted = runs.to_vec();
    sorted.sort_unstable();
    let (least, middle) = (sorted[0], sorted[sorted.len() / 2]);
    ensure!(middle * 100 <= least * (100 + SPREAD), "runs differ by more than {SPREAD} %: {runs:?}");
    Ok(least)
}

fn outgoing<P: TestRunnable>(
    bench: &mut Bench<'_, P>,
    testbed: &Testbed<impl Network>,
    from: [IpAddr; 2],
) -> Result<()> {
    let program = bench.program;
    let mut locals = 20_000..;
    let mut of = |family: usize, port: u16| {
        Sender::new([from[family], VENUE[family]], [locals.next().unwrap_or_default(), port])
    };
    let open = |end: Sender| {
        run(program, &end.syn(), 1);
        end
    };
    let order = order(1);
    let mut elsewhere = of(0, ELSEWHERE);
    bench.case("not TCP", || {
        let mut frame = elsewhere.send(&order);
        frame[23] = 17;
        frame
    })?;
    bench.case("another application's SYN", || elsewhere.syn())?;
    bench.case("another application's pure ACK", || elsewhere.send(b""))?;
    bench.case("another application's segment", || elsewhere.send(&[b'x'; 200]))?;
    bench.case("SYN of a new connection", || of(0, USUAL).syn())?;
    let mut one = 0;
    for shape in &SHAPES {
        let mut end = open(of(0, shape.port));
        let usual = shape.port == USUAL;
        if usual {
            bench.case(&format!("order, {}, at a new peak", shape.name), || end.send(&order))?;
        }
        for _ in 0..PEAK {
            run(program, &end.send(&order), 1);
        }
        sleep(SILENCE);
        let found = bench.case(&format!("order, {}", shape.name), || end.send(&order))?;
        if usual {
            one = found;
            bench.case(&format!("order, {}, after a silence", shape.name), || {
                sleep(SILENCE);
                end.send(&order)
            })?;
        }
    }
    let mut v6 = open(of(1, USUAL));
    bench.case("order, 3 scopes, 4 limits, IPv6", || v6.send(&order))?;
    let mut usual = open(of(0, USUAL));
    let (start, rest) = order.split_at(order.len() / 2);
    bench.case("the rest of an order that began in another segment", || {
        run(program, &usual.send(start), 1);
        usual.send(rest)
    })?;
    bench.case("pure ACK", || usual.send(b""))?;
    bench.case("heartbeat", || usual.send(&sized("0", 1, 100)))?;
    let last = usual.send(&order);
    run(program, &last, 1);
    bench.case("retransmit of an order", || last.clone())?;
    let ten = bench.case("ten orders in a segment", || usual.send(&order.repeat(10)))?;
    bench.keep("each further order in a segment", ten.saturating_sub(one) / 9);
    let mut old: Vec<Sender> = (0..WARM + RUNS).map(|_| open(of(0, TRIPPED))).collect();
    testbed.trip(&format!("session/to-{TRIPPED}"));
    let mut each = old.iter_mut();
    bench.case("order of a tripped session, which fences its connection", || next(&mut each).send(&order))?;
    let mut each = old.iter_mut();
    bench.case("order on a fenced connection", || next(&mut each).send(&order))?;
    check_counters(testbed)
}

/// Checks that each run was what its name says.
///
/// Orders of a run: one of each shape, one at a peak, one after a silence, one over IPv6, one in two parts,
/// and ten.
fn check_counters(testbed: &Testbed<impl Network>) -> Result<()> {
    let runs = (WARM + RUNS) as u64;
    let counters: Vec<_> = (1..=SHAPES.len() + 1).map(|session| testbed.counters(session)).collect();
    let sum = |of: fn(&Counters) -> u64| counters.iter().map(of).sum::<u64>();
    let found = (
        sum(|of| of.passed[0]),
        sum(|of| of.packets_withheld),
        sum(|of| of.retransmitted),
        sum(|of| of.desyncs),
    );
    let passed = runs * (SHAPES.len() as u64 + 14) + 1 + (PEAK * SHAPES.len()) as u64;
    let expected = (passed, 2 * runs, runs, 0);
    ensure!(
        found == expected,
        "orders passed, segments withheld, seen before, streams lost: {found:?}, not {expected:?}"
    );
    Ok(())
}

fn next<'a>(ends: &mut impl Iterator<Item = &'a mut Sender>) -> &'a mut Sender {
    ends.next().expect("as many as there are runs")
}

fn incoming(bench: &mut Bench<'_, SchedClassifier>, egress: &SchedClassifier) -> Result<()> {
    let local = 60_000;
    run(egress, &Sender::new([TwoHosts::FIRM, TwoHosts::VENUE], [local, USUAL]).syn(), 1);
    let mut venue = Sender::new([TwoHosts::VENUE, TwoHosts::FIRM], [USUAL, local]);
    let mut elsewhere = Sender::new([TwoHosts::VENUE, TwoHosts::FIRM], [ELSEWHERE, local]);
    bench.case("another application's segment", || elsewhere.send(&[b'x'; 200]))?;
    bench.case("pure ACK", || venue.send(b""))?;
    bench.case("heartbeat", || venue.send(&sized("0", 1, 100)))?;
    bench.case("fill", || venue.send(&fill()))?;
    Ok(())
}
