//! What a packet costs in the kernel, in instructions: on a machine that is emulated with one instruction a nanosecond, the time of a test
//! run is their number, and repeats exactly. `cargo xtask kernels` boots such a machine.
//!
//! In a test run a packet lies in one piece, and at tc real ones do not: each copy of payload costs more there.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use aya::programs::{SchedClassifier, Xdp};
use aya_obj::programs::XdpAttachType;
use breaker_user::lab::Wire;

use crate::bench::hook::segment;
use crate::bench::order::{order, sized};
use crate::empty::Empty;
use crate::gateway::{Gateway, Hook, Inline, Offloads};
use crate::rig::{Network, Rig, Runs, run};
use crate::venue::fill;

/// Instructions by case, above those of an empty program over the same frame.
pub type Counts = BTreeMap<String, u64>;

/// Sessions with this many scopes and limits, none of which is reached. A session is always under its own scope and the host's, and the
/// host has a limit here.
const SHAPES: [Shape; 6] = [
    Shape { port: 9001, name: "2 scopes, 1 limit", groups: &[], limits: 0, max: NEVER },
    Shape { port: 9002, name: "3 scopes, 1 limit", groups: &["g0"], limits: 0, max: NEVER },
    Shape { port: 9003, name: "3 scopes, 4 limits", groups: &["g1"], limits: 2, max: NEVER },
    Shape { port: 9004, name: "3 scopes, 4 limits, a time kept of each order", groups: &["few"], limits: 2, max: FEW },
    Shape { port: 9005, name: "6 scopes, 1 limit", groups: &["g0", "g5", "g6", "g7"], limits: 0, max: NEVER },
    Shape { port: 9006, name: "6 scopes, 16 limits", groups: &["g1", "g2", "g4", "g8"], limits: 4, max: NEVER },
];
/// Groups by name, number of limits, and what those allow.
const GROUPS: [(&str, usize, u32); 9] = [
    ("g0", 0, NEVER),
    ("g1", 1, NEVER),
    ("g2", 2, NEVER),
    ("g4", 4, NEVER),
    ("g5", 0, NEVER),
    ("g6", 0, NEVER),
    ("g7", 0, NEVER),
    ("g8", 4, NEVER),
    ("few", 1, FEW),
];
/// The one of [`SHAPES`] that all but orders are counted with.
const USUAL: u16 = 9003;
/// A session that is tripped.
const TRIPPED: u16 = 9009;
/// A place of another application.
const ELSEWHERE: u16 = 8080;
/// Limits that are not reached. Of more than 2,046 messages a window keeps the time of some only.
const NEVER: u32 = 1_000_000_000;
const FEW: u32 = 2_000;
/// Runs that are not looked at, and those that are.
const WARM: usize = 4;
const RUNS: usize = 12;

struct Shape {
    port: u16,
    name: &'static str,
    groups: &'static [&'static str],
    limits: usize,
    max: u32,
}

/// Counts everything: at tc egress, on what comes in, and inline.
pub fn count() -> Result<Counts> {
    let mut counts = Counts::new();
    let rig = Rig::new(&policy());
    rig.inside(|| -> Result<()> {
        let mut loaded = Empty::open();
        let empty = loaded.classifier();
        let egress = SchedClassifier::from_pin(Rig::root().program())?;
        outbound(&mut Bench { path: "egress", empty, program: &egress, counts: &mut counts }, &rig, Wire::FIRM)?;
        let inbound = SchedClassifier::from_pin(Rig::root().inbound_program())?;
        self::inbound(&mut Bench { path: "inbound", empty, program: &inbound, counts: &mut counts }, &egress)
    })?;
    let rig = Inline::inline(Hook::Native, Offloads::None, &policy());
    rig.inside(|| -> Result<()> {
        let mut loaded = Empty::open();
        let empty = &*loaded.xdp();
        let inline = Xdp::from_pin(Rig::root().program(), XdpAttachType::Interface)?;
        outbound(&mut Bench { path: "inline", empty, program: &inline, counts: &mut counts }, &rig, Gateway::ENGINE[0])
    })?;
    Ok(counts)
}

fn policy() -> String {
    let scope = |head: &str, name: &str, keys: &str, limits: usize, max: u32| {
        let limits: String =
            (1..=limits).map(|seconds| format!("{{ class = \"order\", max = {max}, per = \"{seconds}s\" }}, ")).collect();
        format!("[[{head}]]\nname = {name:?}\n{keys}limits = [{limits}]\n")
    };
    let session = |port: u16, groups: &[&str], limits, max| {
        let keys = format!("remote = \"{}:{port}\"\ngroups = {groups:?}\n", Wire::VENUE);
        scope("session", &format!("to-{port}"), &keys, limits, max)
    };
    let groups: String = GROUPS.iter().map(|&(name, limits, max)| scope("group", name, "", limits, max)).collect();
    let sessions: String =
        SHAPES.iter().map(|shape| session(shape.port, shape.groups, shape.limits, shape.max)).collect();
    let host = format!("inbound = \"watch\"\nlimits = [{{ class = \"order\", max = {NEVER}, per = \"1s\" }}]\n");
    host + &groups + &sessions + &session(TRIPPED, &["g1"], 2, NEVER)
}

/// One end of a connection: where it stands.
struct End {
    from: SocketAddr,
    to: SocketAddr,
    seq: u32,
}

impl End {
    /// Of a trading host's connection to a port of the venue.
    fn new(from: IpAddr, local: u16, port: u16) -> Self {
        Self { from: SocketAddr::new(from, local), to: SocketAddr::new(Wire::VENUE, port), seq: 1 }
    }

    fn syn(&self) -> Vec<u8> {
        self.framed(self.seq.wrapping_sub(1), b"", 2)
    }

    /// The next bytes of the stream.
    fn send(&mut self, payload: &[u8]) -> Vec<u8> {
        let frame = self.framed(self.seq, payload, 0x18);
        self.seq = self.seq.wrapping_add(payload.len() as u32);
        frame
    }

    fn framed(&self, seq: u32, payload: &[u8], flags: u8) -> Vec<u8> {
        let mut frame = segment(self.from, self.to.port(), seq, payload);
        frame.to = self.to;
        frame.with_flags(flags).bytes()
    }
}

/// A program beside an empty one.
struct Bench<'a, P> {
    path: &'static str,
    empty: &'a P,
    program: &'a P,
    counts: &'a mut Counts,
}

impl<P: Runs> Bench<'_, P> {
    /// Counts a kind of packet, given each time anew.
    fn case(&mut self, name: &str, mut frame: impl FnMut() -> Vec<u8>) -> Result<()> {
        let name = format!("{}: {name}", self.path);
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for _ in 0..WARM + RUNS {
            let frame = frame();
            with.push(run(self.program, &frame, 1).ns);
            without.push(run(self.empty, &frame, 1).ns);
        }
        let with = settled(&with).with_context(|| name.clone())?;
        let without = settled(&without).with_context(|| format!("{name}: an empty program"))?;
        println!("{name}: {} ({with} - {without})", with.saturating_sub(without));
        self.counts.insert(name, with.saturating_sub(without));
        Ok(())
    }
}

/// The number that runs come to when nothing comes between: the least.
fn settled(runs: &[u64]) -> Result<u64> {
    let runs = &runs[WARM..];
    let least = *runs.iter().min().context("no runs")?;
    println!("    {runs:?}");
    let agree = runs.iter().filter(|&&one| one == least).count();
    ensure!(agree > 0, "of {RUNS} runs only {agree} came to the least number: {runs:?}");
    Ok(least)
}

fn outbound<P: Runs>(bench: &mut Bench<'_, P>, rig: &Rig<impl Network>, from: IpAddr) -> Result<()> {
    let program = bench.program;
    let mut locals = 20_000..;
    let mut new = |port: u16| End::new(from, locals.next().unwrap_or_default(), port);
    let open = |end: End| {
        run(program, &end.syn(), 1);
        end
    };
    let order = order(1);
    let mut elsewhere = new(ELSEWHERE);
    bench.case("not TCP", || {
        let mut frame = elsewhere.send(&order);
        frame[23] = 17;
        frame
    })?;
    bench.case("another application's SYN", || elsewhere.syn())?;
    bench.case("another application's pure ACK", || elsewhere.send(b""))?;
    bench.case("another application's segment", || elsewhere.send(&[b'x'; 200]))?;
    bench.case("SYN of a new connection", || new(USUAL).syn())?;
    let mut usual = open(new(USUAL));
    bench.case("heartbeat", || usual.send(&sized("0", 1, 100)))?;
    bench.case("pure ACK", || usual.send(b""))?;
    for shape in &SHAPES {
        let mut end = open(new(shape.port));
        bench.case(&format!("order, {}", shape.name), || end.send(&order))?;
    }
    let last = usual.send(&order);
    run(program, &last, 1);
    bench.case("retransmit", || last.clone())?;
    bench.case("ten orders in a segment", || usual.send(&order.repeat(10)))?;
    let mut old: Vec<End> = (0..WARM + RUNS).map(|_| open(new(TRIPPED))).collect();
    rig.trip(&format!("session/to-{TRIPPED}"));
    let mut each = old.iter_mut();
    bench.case("order of a tripped session, its connection's first", || next(&mut each).send(&order))?;
    let mut each = old.iter_mut();
    bench.case("order of a tripped session, its connection's second", || next(&mut each).send(&order))?;
    Ok(())
}

fn next<'a>(ends: &mut impl Iterator<Item = &'a mut End>) -> &'a mut End {
    ends.next().expect("as many as there are runs")
}

fn inbound(bench: &mut Bench<'_, SchedClassifier>, egress: &SchedClassifier) -> Result<()> {
    let own = End::new(Wire::FIRM, 60_000, USUAL);
    run(egress, &own.syn(), 1);
    let mut venue = End { from: own.to, to: own.from, seq: 1 };
    let mut elsewhere = End { from: SocketAddr::new(Wire::VENUE, ELSEWHERE), to: own.from, seq: 1 };
    bench.case("another application's segment", || elsewhere.send(&[b'x'; 200]))?;
    bench.case("pure ACK", || venue.send(b""))?;
    bench.case("heartbeat", || venue.send(&sized("0", 1, 100)))?;
    bench.case("fill", || venue.send(&fill()))
}
