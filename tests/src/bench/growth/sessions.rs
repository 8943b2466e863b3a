//! More sessions and more connections: each order runs once, with the next sequence number of its connection
//! (BPF_PROG_TEST_RUN).

use aya::programs::SchedClassifier;

use super::curve::{Curve, note, picture};
use crate::bench::figures::median;
use crate::bench::hook::mean;
use crate::bench::report::Table;
use crate::bench::scale::Scale;
use crate::empty_program::EmptyProgram;
use crate::frame::order;
use crate::many_sessions::{ManySessions, segment};
use crate::rng::Rng;

/// Numbers of sessions, with a connection each.
const SESSIONS: [usize; 4] = [1, 10, 100, 1_000];
/// The largest number of groups.
const GROUPS: usize = 64;
/// Numbers of connections of one session.
const CONNECTIONS: [usize; 6] = [1, 10, 100, 1_000, 10_000, 60_000];

const SERIES: [&str; 2] = ["the same connection again", "a different connection each time"];
const COST: &str = "ns an order, above an empty program";
const WHY: &str = "The connection and the scopes of an order are found by a hash or a number, whatever the \
                   number of sessions and connections. Orders of ever different connections fetch memory \
                   that is in no cache";

/// The two curves.
pub fn tables(scale: &Scale) -> [Table; 2] {
    let mut loaded = EmptyProgram::open();
    let empty = loaded.classifier();
    let sessions = SESSIONS.map(|sessions| ManySessions::new(sessions, sessions.min(GROUPS), sessions));
    let connections = CONNECTIONS.map(|connections| ManySessions::new(1, 1, connections));
    let shape = "tc egress, three scopes with four limits each, of which an order meets two";
    let method = format!("BPF_PROG_TEST_RUN, each order once, median of {}", singles(scale));
    let note = note(scale.short_rounds, shape, &method);
    let sessions = measure(scale, empty, sessions, &SESSIONS).table(
        format!("an order, by the number of sessions, each with a connection: {note}"),
        picture("sessions", "sessions", COST, WHY),
    );
    let connections = measure(scale, empty, connections, &CONNECTIONS).table(
        format!("an order, by the number of connections of one session: {note}"),
        picture("connections", "connections", COST, WHY),
    );
    [sessions, connections]
}

/// Orders of a round and position: few, so that the machine's speed is the same for all positions.
fn singles(scale: &Scale) -> usize {
    scale.singles as usize / 5
}

fn measure<const N: usize>(
    scale: &Scale,
    empty: &SchedClassifier,
    mut all: [ManySessions; N],
    counts: &[usize; N],
) -> Curve {
    let mut curve = Curve::new(&SERIES, counts);
    let mut rng = Rng(0x5ca1e);
    let singles = singles(scale);
    for _ in 0..scale.short_rounds {
        let zero = all[0].testbed.on_host(|| {
            let order = order(1);
            let times =
                (0..singles as u32).map(|number| mean(empty, &segment(0, 1, number, &order).bytes(), 1));
            median(times.collect())
        });
        for (place, (many, count)) in all.iter_mut().zip(counts).enumerate() {
            curve.push(0, place, median(many.orders(singles, || count - 1)) - zero);
            curve.push(1, place, median(many.orders(singles, || rng.below(*count as u64) as usize)) - zero);
        }
    }
    for many in &all {
        assert_eq!(many.counted(), 2 * (scale.short_rounds * singles) as u64, "each order was counted once");
    }
    curve
}
