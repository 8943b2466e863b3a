//! More cores: each runs orders of a connection of its own, all at the same time, against shared scopes.
//!
//! The program runs at XDP, where each repeat of a test run can be a new segment without a system call. The
//! cores contend for the same words as often as they can; on a wire they contend less.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;

use aya::programs::Xdp;
use aya_obj::programs::XdpAttachType;

use super::curve::{Curve, note, picture};
use crate::bench::hook::{POLICY, mean, segment};
use crate::bench::order::{LENGTH, order};
use crate::bench::report::Table;
use crate::bench::scale::Scale;
use crate::cpu::pin_to_cpu;
use crate::empty_program::EmptyProgram;
use crate::frame::Frame;
use crate::gateway::{Gateway, Hook, Inline, Offloads};
use crate::sequence::SequenceAdvancer;
use crate::testbed::Testbed;

/// Port of the first session.
const PORT: u16 = 9001;
const SERIES: [&str; 2] =
    ["connections of one session, all limits shared", "one session per connection, no limit shared"];

/// A policy with as many limits for each session as [`POLICY`] has, none of them shared by two sessions.
fn separate(sessions: usize) -> String {
    let limits = "limits = [{ class = \"order\", max = 3000000, per = \"100ms\" }, { class = \"message\", \
                  max = 3000000, per = \"100ms\" }]";
    let mut text = String::new();
    for number in 0..sessions {
        let (name, port) = (format!("a{number}"), PORT + number as u16);
        writeln!(text, "[[group]]\nname = \"{name}\"\n{limits}").expect("writing to memory");
        writeln!(
            text,
            "[[session]]\nname = \"{name}\"\nremote = \"10.9.0.2:{port}\"\ngroups = [\"{name}\"]\n{limits}"
        )
        .expect("writing to memory");
    }
    text
}

/// The curve.
pub fn table(scale: &Scale) -> Table {
    let most = thread::available_parallelism().map_or(1, usize::from);
    let mut counts: Vec<usize> = (0..).map(|power| 1 << power).take_while(|count| *count < most).collect();
    counts.push(most);
    let testbeds =
        [POLICY, &separate(most)].map(|policy| Inline::inline(Hook::Native, Offloads::None, policy));
    let mut empty = EmptyProgram::open();
    let zero = SequenceAdvancer::before_xdp(empty.xdp());
    let programs = testbeds.each_ref().map(MeasuredProgram::new);
    let mut curve = Curve::new(&SERIES, &counts);
    // Few repeats, so that the machine's speed is the same for all points of a round.
    let repeat = scale.repeat / 5;
    let mut start = 1u32;
    for _ in 0..scale.short_rounds {
        for (place, cores) in counts.iter().enumerate() {
            let zero = at_once(*cores, |core| mean(zero.xdp(), &programs[0].frame(core, 1).bytes(), repeat));
            for (series, (lane, testbed)) in programs.iter().zip(&testbeds).enumerate() {
                let ns = testbed.on_host(|| at_once(*cores, |core| lane.orders(core, start, repeat)));
                curve.push(series, place, ns - zero);
            }
            // Where a SYN is no repetition of one before it.
            start = start.wrapping_add(repeat.wrapping_mul(LENGTH as u32));
        }
    }
    let expected = scale.short_rounds as u64 * counts.iter().sum::<usize>() as u64 * u64::from(repeat);
    for testbed in &testbeds {
        let counted: u64 = testbed.status().sessions.iter().map(|one| one.messages["order"].passed).sum();
        assert_eq!(counted, expected, "each order was counted once");
    }
    let shape = "of as many cores at once and their mean, XDP, three scopes, four limits";
    let method = format!("BPF_PROG_TEST_RUN, new sequence numbers, {repeat} times in a row");
    let note = note(scale.short_rounds, shape, &method);
    let title = format!("an order of {LENGTH} bytes on each of several cores at once: {note}");
    let why = "A limit is exact over all cores: all cores take tickets from one word, and a core fetches \
               the word that another core has written. Sessions without a shared limit fetch nothing";
    curve.table(title, picture("cores", "cores", "ns an order and core, above an empty program", why))
}

/// A program, and the connections of its orders.
struct MeasuredProgram {
    program: Xdp,
    fresh: SequenceAdvancer,
    /// Whether each connection has a session of its own.
    separate: bool,
}

impl MeasuredProgram {
    fn new(testbed: &Inline) -> Self {
        let pinned = || {
            Xdp::from_pin(Testbed::root().program(), XdpAttachType::Interface).expect("opening the program")
        };
        let program = testbed.on_host(pinned);
        let separate = testbed.policy().sessions().len() > 1;
        Self { fresh: SequenceAdvancer::before_xdp(&program), program, separate }
    }

    /// A segment of the connection of a core.
    fn frame(&self, core: usize, seq: u32) -> Frame {
        let from = SocketAddr::new(Gateway::ENGINE[0], 40_000 + core as u16);
        let port = if self.separate { PORT + core as u16 } else { PORT };
        segment(from, port, seq, &order(1))
    }

    /// Mean time of one order on a new connection, ns.
    fn orders(&self, core: usize, start: u32, count: u32) -> f64 {
        let mut syn = self.frame(core, start.wrapping_sub(1)).with_flags(2);
        syn.payload.clear();
        mean(&self.program, &syn.bytes(), 1);
        // The first segment of the run is the one behind this frame.
        mean(self.fresh.xdp(), &self.frame(core, start.wrapping_sub(LENGTH as u32)).bytes(), count)
    }
}

/// Runs a function on each of the first cores at the same time, in the namespace of this thread. Returns the
/// mean of the results.
fn at_once(cores: usize, measure: impl Fn(usize) -> f64 + Sync) -> f64 {
    let (barrier, measure) = (Barrier::new(cores), &measure);
    let on = |core: usize| {
        pin_to_cpu(core);
        barrier.wait();
        measure(core)
    };
    let found: Vec<f64> = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|core| scope.spawn(move || on(core))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a figure")).collect()
    });
    found.iter().sum::<f64>() / cores as f64
}
