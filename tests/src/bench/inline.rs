//! Inline mode: frames with an order through XDP, per second and core (BPF_PROG_TEST_RUN).
//!
//! A test run repeats one buffer, which breaker sees as a retransmit. The program `fresh` raises the sequence
//! number in the buffer and tail-calls the measured program, so that each frame is a new segment. Its cost is
//! in all rows.

use std::net::{SocketAddr, SocketAddrV4};

use aya::programs::Xdp;
use aya_obj::programs::XdpAttachType;
use breaker_user::testbed::TwoHosts;

use super::figures::Row;
use super::hook::{POLICY, mean, segment};
use super::order::{LENGTH, order};
use super::report::Table;
use super::scale::Scale;
use crate::allow_list::AllowList;
use crate::empty_program::EmptyProgram;
use crate::frame::Frame;
use crate::gateway::{Gateway, Hook, Inline, Offloads};
use crate::sequence::SequenceAdvancer;
use crate::testbed::Testbed;

/// Trading host's end of the connection.
const FROM: SocketAddr = SocketAddr::new(Gateway::ENGINE[0], 40_000);

/// Venue's end of the connection.
pub fn venue() -> SocketAddrV4 {
    match TwoHosts::venue_socket(9001) {
        SocketAddr::V4(place) => place,
        SocketAddr::V6(place) => panic!("{place} is not IPv4"),
    }
}

/// The section.
pub fn tables(scale: &Scale) -> Vec<Table> {
    let testbed = Inline::inline(Hook::Native, Offloads::None, POLICY);
    let (mut empty, mut allow) = (EmptyProgram::open(), AllowList::open(venue()));
    let table = testbed.on_host(|| {
        let program =
            Xdp::from_pin(Testbed::root().program(), XdpAttachType::Interface).expect("opening the program");
        measure(
            scale,
            [
                ("empty", empty.xdp()),
                ("allow-list of ports and addresses", allow.xdp()),
                ("breaker", &program),
            ],
        )
    });
    let expected = scale.rounds as u64 * u64::from(scale.repeat);
    let passed = testbed.counters(1).passed[0];
    assert!(passed >= expected, "breaker counted {passed} orders where {expected} were new");
    vec![table]
}

fn measure(scale: &Scale, programs: [(&str, &Xdp); 3]) -> Table {
    let fresh = programs.map(|(_, program)| SequenceAdvancer::before_xdp(program));
    let frame = |seq| segment(FROM, 9001, seq, &order(1));
    let mut rows: Vec<[Row; 2]> = programs
        .iter()
        .map(|(what, _)| {
            ["new segments", "the same frame again"].map(|of| Row::new(format!("{what}: {of}"), "ns"))
        })
        .collect();
    for round in 0..scale.rounds as u32 {
        let start = 1 + round.wrapping_mul(scale.repeat).wrapping_mul(LENGTH as u32);
        for ((row, fresh), (_, program)) in rows.iter_mut().zip(&fresh).zip(&programs) {
            open(program, start);
            // The first segment of the run is the one behind this frame.
            row[0].rounds.push(mean(
                fresh.xdp(),
                &frame(start.wrapping_sub(LENGTH as u32)).bytes(),
                scale.repeat,
            ));
            row[1].rounds.push(mean(*program, &frame(start).bytes(), scale.repeat));
        }
    }
    let title = format!(
        "XDP: a frame with one order of {LENGTH} bytes, {} times, packets a second on one core \
         (BPF_PROG_TEST_RUN). New segments: each has the next sequence number, and all rows include the \
         cost of setting the number. The same frame again is a retransmit",
        scale.repeat
    );
    let head = [
        "program",
        "new segments, ns",
        "above empty",
        "million/s",
        "same frame again, ns",
        "above empty",
        "million/s",
    ];
    let mut table = Table::new(title, &head);
    for ((what, _), row) in programs.iter().zip(&rows) {
        let cells = row.iter().zip(&rows[0]).flat_map(|(row, zero)| {
            let ns = row.median();
            [format!("{ns:.0}"), format!("{:.0}", ns - zero.median()), format!("{:.1}", 1e3 / ns)]
        });
        table.line(std::iter::once((*what).to_owned()).chain(cells));
    }
    table.keep(rows.iter().flatten());
    table
}

/// Opens a connection by its SYN, so that the next sequence number is `seq`.
fn open(program: &Xdp, seq: u32) {
    let syn: Frame = segment(FROM, 9001, seq.wrapping_sub(1), b"").with_flags(2);
    mean(program, &syn.bytes(), 1);
}
