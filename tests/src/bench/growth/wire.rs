//! Longer messages, and more messages in an skb. They go over a veth, because a test run takes no skb of 64
//! KB.
//!
//! The kernel measures the run times (BPF_ENABLE_STATS) of breaker and of an empty program behind it, which
//! gets the same skbs.

use std::io::Write;
use std::net::TcpStream;
use std::thread::yield_now;

use aya::programs::ProgramInfo;
use aya::sys::{Stats, enable_stats};
use breaker_user::testbed::TwoHosts;

use super::curve::{Curve, note, picture};
use crate::bench::alternative::PORT;
use crate::bench::counting_server::CountingServer;
use crate::bench::hook::POLICY;
use crate::bench::report::Table;
use crate::bench::scale::Scale;
use crate::empty_program::EmptyProgram;
use crate::frame::message_with_body;
use crate::testbed::Testbed;

/// Lengths of a message, bytes.
const LENGTHS: [usize; 7] = [60, 125, 250, 500, 1_000, 2_000, 4_096];
/// Messages in a send; the last is nearly 64 KB.
const MESSAGES: [usize; 9] = [1, 2, 4, 10, 25, 50, 100, 200, 400];
/// Length of each of these messages, bytes.
const EACH: usize = 150;
/// Packets of the network itself that may come between two reads of the statistics.
const OTHER_PACKETS: u64 = 2;
/// Orders to warm the connection up.
const WARM: usize = 40_000;

/// The two curves.
pub fn tables(scale: &Scale) -> [Table; 2] {
    let lengths = LENGTHS.map(|length| (length, order(length)));
    let messages = MESSAGES.map(|count| (count, order(EACH).repeat(count)));
    let path = MeasuredPath::new();
    path.warm_up();
    let [mut by_length, mut by_number] = [("an order", &LENGTHS[..]), ("a message", &MESSAGES[..])]
        .map(|(series, places)| Curve::new(&[series], places));
    let (mut skbs, mut sends) = (0, 0);
    for _ in 0..scale.short_rounds {
        for (place, (_, payload)) in lengths.iter().enumerate() {
            by_length.push(0, place, path.cost(payload, scale.sends).0);
        }
        for (place, (count, payload)) in messages.iter().enumerate() {
            let (ns, met) = path.cost(payload, scale.sends);
            by_number.push(0, place, ns / *count as f64);
            (skbs, sends) = (skbs + met, sends + scale.sends as u64);
        }
    }
    let whole = LENGTHS.len() + MESSAGES.iter().sum::<usize>();
    let counted = path.testbed.counters(1).passed[0];
    assert_eq!(
        counted,
        (WARM + scale.short_rounds * scale.sends * whole) as u64,
        "each order was counted once"
    );
    let shape = "tc egress over veth, three scopes, four limits";
    let method = format!("kernel run-time statistics, {} sends", scale.sends);
    let note = note(scale.short_rounds, shape, &method);
    [
        by_length.table(
            format!("an order, by its length, each the only one of its skb: {note}"),
            picture(
                "length",
                "bytes a message",
                "ns an order, above an empty program",
                "The header is at the start of a message, and the rest is skipped",
            ),
        ),
        by_number.table(
            format!(
                "an order of {EACH} bytes, by the number of them in a send, which is {:.2} skbs: {note}",
                skbs as f64 / sends as f64
            ),
            picture(
                "messages",
                "messages an skb",
                "ns a message, above an empty program",
                "The messages of an skb share its fixed cost: finding its connection and scopes, and \
                 charging the limits",
            ),
        ),
    ]
}

/// An order of this length.
fn order(length: usize) -> Vec<u8> {
    let spelled = |pad: usize| message_with_body(&format!("35=D|11=1|58={}|", "x".repeat(pad)));
    // A longer message has more digits in its length.
    let fits = |pad: &usize| spelled(*pad).len() == length;
    spelled((0..length).find(fits).expect("a length that a message can have"))
}

/// A loaded breaker with an empty program behind it, and a connection through both.
struct MeasuredPath {
    testbed: Testbed,
    empty: EmptyProgram,
    server: CountingServer,
    stream: TcpStream,
}

impl MeasuredPath {
    fn new() -> Self {
        let testbed = Testbed::load(POLICY);
        let server = CountingServer::listen(&testbed.network.venue, false);
        let connect = || {
            (
                EmptyProgram::open().attach_behind(TwoHosts::INTERFACE),
                TcpStream::connect(TwoHosts::venue_socket(PORT)),
            )
        };
        let (empty, stream) = testbed.on_host(connect);
        let stream = stream.expect("connecting");
        stream.set_nodelay(true).expect("setting TCP_NODELAY");
        Self { testbed, empty, server, stream }
    }

    /// Sends until TCP sends 64 KB at once.
    fn warm_up(&self) {
        let most = MESSAGES.iter().max().expect("there are some");
        let payload = order(EACH).repeat(*most);
        (0..WARM / most).for_each(|_| (&self.stream).write_all(&payload).expect("sending"));
        self.server.wait((WARM * EACH) as u64);
    }

    /// Cost of a send above an empty program, ns, and the number of skbs of all sends.
    fn cost(&self, payload: &[u8], sends: usize) -> (f64, u64) {
        let _counting = enable_stats(Stats::RunTime).expect("asking for run times");
        let before = self.programs();
        for _ in 0..sends {
            let until = self.server.bytes() + payload.len() as u64;
            (&self.stream).write_all(payload).expect("sending");
            // So that the next send is an skb of its own.
            while self.server.bytes() < until {
                yield_now();
            }
        }
        let after = self.programs();
        let [took, zero] = [0, 1].map(|of| (after[of].run_time() - before[of].run_time()).as_nanos() as f64);
        let [met, behind] = [0, 1].map(|of| after[of].run_count() - before[of].run_count());
        // The statistics are read one after the other; a packet of the network itself may come between.
        assert!(
            met.abs_diff(behind) <= OTHER_PACKETS,
            "the empty program meets what breaker meets: {met}, {behind}"
        );
        ((took - zero) / sends as f64, met)
    }

    fn programs(&self) -> [ProgramInfo; 2] {
        let pinned =
            || ProgramInfo::from_pin(Testbed::root().program()).expect("reading the program information");
        [self.testbed.on_host(pinned), self.empty.info()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_the_length_that_is_asked_for() {
        for length in LENGTHS.into_iter().chain([EACH]) {
            assert_eq!(order(length).len(), length);
        }
    }
}
