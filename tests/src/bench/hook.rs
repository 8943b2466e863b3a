//! The cost of a packet at tc egress, relative to an empty program (BPF_PROG_TEST_RUN).

use std::net::SocketAddr;

use aya::programs::SchedClassifier;
use breaker_user::testbed::TwoHosts;

use super::figures::{Row, median};
use super::order::{order, sized};
use super::report::Table;
use super::scale::Scale;
use crate::empty_program::EmptyProgram;
use crate::frame::Frame;
use crate::sequence::SequenceAdvancer;
use crate::test_run::{TestRunnable, run};
use crate::testbed::Testbed;

/// Three scopes with four limits. No limit is reached, and each window is filled and over many times in a
/// round.
pub const POLICY: &str = r#"
limits = [{ class = "order", max = 3000000, per = "100ms" }]
[[group]]
name = "desk"
limits = [{ class = "order", max = 3000000, per = "100ms" }]
[[session]]
name = "x1"
remote = "10.9.0.2:9001"
groups = ["desk"]
limits = [{ class = "order", max = 3000000, per = "100ms" },
          { class = "message", max = 3000000, per = "100ms" }]
"#;

/// [`POLICY`] with limits small enough that the time of each message is kept. They are not reached either,
/// because packets run one by one.
fn kept() -> String {
    POLICY.replace("max = 3000000, per = \"100ms\"", &format!("max = {KEPT}, per = \"1ms\""))
}

/// A limit of at most 2,046 keeps the time of each message.
const KEPT: u32 = 2_000;

/// A segment of a session as a Linux host sends it, with time stamps.
pub fn segment(from: SocketAddr, port: u16, seq: u32, payload: &[u8]) -> Frame {
    let mut frame = Frame::new(from, SocketAddr::new(TwoHosts::VENUE, port), seq, payload);
    frame.options = 12;
    frame
}

/// Mean time of a test run, ns.
pub fn mean(program: &impl TestRunnable, frame: &[u8], repeat: u32) -> f64 {
    run(program, frame, repeat).ns as f64
}

/// The section.
pub fn tables(scale: &Scale) -> Vec<Table> {
    let testbed = Testbed::load(POLICY);
    let mut tables = testbed.on_host(|| {
        let program = SchedClassifier::from_pin(Testbed::root().program()).expect("opening the program");
        let mut loaded = EmptyProgram::open();
        let empty = loaded.classifier();
        vec![hot(scale, empty, &program), single(scale, empty, &program)]
    });
    let (counters, runs) = (testbed.counters(1), scale.rounds as u64 * u64::from(scale.repeat));
    assert!(
        counters.passed[0] >= 11 * runs && counters.passed[4] >= runs,
        "segments were not new: {counters:?}"
    );
    let testbed = Testbed::load(&kept());
    tables.push(testbed.on_host(|| {
        let program = SchedClassifier::from_pin(Testbed::root().program()).expect("opening the program");
        once(scale, EmptyProgram::open().classifier(), &program)
    }));
    tables
}

fn local(port: u16, seq: u32, payload: &[u8]) -> Frame {
    segment(SocketAddr::new(TwoHosts::FIRM, 40_000), port, seq, payload)
}

fn hot(scale: &Scale, empty: &SchedClassifier, program: &SchedClassifier) -> Table {
    let order = order(1);
    let mut udp = local(53, 1, &order).bytes();
    udp[23] = 17;
    let frames: [(&'static str, &SchedClassifier, Vec<u8>); 6] = [
        ("empty program", empty, local(9001, 1, &order).bytes()),
        ("not TCP", program, udp),
        ("another application's segment", program, local(8080, 1, &[b'x'; 200]).bytes()),
        ("another application's pure ACK", program, local(8080, 1, b"").bytes()),
        ("a session's pure ACK", program, local(9001, 1, b"").bytes()),
        ("a session's retransmit", program, local(9001, 1, &order).bytes()),
    ];
    mean(program, &local(9001, 0, b"").with_flags(2).bytes(), 1);
    mean(program, &local(9001, 1, &order).bytes(), 1);
    let mut rows: Vec<Row> = frames.iter().map(|(what, ..)| Row::new(*what, "ns")).collect();
    for _ in 0..scale.rounds {
        for (row, (_, program, frame)) in rows.iter_mut().zip(&frames) {
            row.rounds.push(mean(*program, frame, scale.repeat));
        }
    }
    let title = format!("tc egress: the same packet {} times (BPF_PROG_TEST_RUN)", scale.repeat);
    let mut table = Table::new(title, &["packet", "ns", "against empty"]);
    for row in &rows {
        table.line([row.what.clone(), format!("{:.0}", row.median()), format!("{:.1}", row.ratio(&rows[0]))]);
    }
    table.keep(&rows);
    table
}

/// Packets that have their full cost only once: each run has the next sequence number. Its increment is in
/// all rows.
fn single(scale: &Scale, empty: &SchedClassifier, program: &SchedClassifier) -> Table {
    let (order, heartbeat) = (order(1), sized("0", 1, 100));
    let ten = order.repeat(10);
    let cases: [(&'static str, &SchedClassifier, &[u8]); 4] = [
        ("empty program", empty, &order),
        ("a heartbeat, 1 limit", program, &heartbeat),
        ("an order, 3 scopes, 4 limits", program, &order),
        ("ten orders in a segment", program, &ten),
    ];
    let fresh = [empty, program, program, program].map(SequenceAdvancer::before_classifier);
    let mut rows: Vec<Row> = cases.iter().map(|(what, ..)| Row::new(*what, "ns")).collect();
    let mut seq = 1u32;
    for _ in 0..scale.rounds {
        for ((row, (_, _, payload)), fresh) in rows.iter_mut().zip(&cases).zip(&fresh) {
            // A new connection: the next sequence number after this SYN is `seq`.
            mean(program, &local(9001, seq.wrapping_sub(1), b"").with_flags(2).bytes(), 1);
            let length = payload.len() as u32;
            // The first segment of the run is the one behind this frame.
            let frame = local(9001, seq.wrapping_sub(length), payload).bytes();
            row.rounds.push(mean(fresh.classifier(), &frame, scale.repeat));
            seq = seq.wrapping_add(length.wrapping_mul(scale.repeat));
        }
    }
    let title = format!(
        "tc egress: {} segments, each the next one of its connection (BPF_PROG_TEST_RUN)",
        scale.repeat
    );
    let mut table = Table::new(title, &["packet", "ns", "above empty"]);
    let zero = rows[0].median();
    for row in &rows {
        table.line([row.what.clone(), format!("{:.0}", row.median()), format!("{:.0}", row.median() - zero)]);
    }
    let each = (rows[3].median() - rows[2].median()) / 9.0;
    table.line(["each further message in a segment".to_owned(), format!("{each:.0}")]);
    table.keep(&rows);
    table
}

/// One run at a time, as often as limits with kept times allow. Other code uses the caches between two runs.
fn once(scale: &Scale, empty: &SchedClassifier, program: &SchedClassifier) -> Table {
    let order = order(1);
    let mut rows = ["empty program, once", "an order, 3 scopes, 4 limits that keep its time, once"]
        .map(|what| Row::new(what, "ns"));
    mean(program, &local(9001, 0, b"").with_flags(2).bytes(), 1);
    let mut seq = 1u32;
    for _ in 0..scale.rounds {
        for (row, program) in rows.iter_mut().zip([empty, program]) {
            let times = (0..scale.singles).map(|_| {
                let frame = local(9001, seq, &order).bytes();
                if row.what != "empty program, once" {
                    seq = seq.wrapping_add(order.len() as u32);
                }
                mean(program, &frame, 1)
            });
            row.rounds.push(median(times.collect()));
        }
    }
    let title = format!(
        "tc egress: each packet once, with limits of {KEPT}, each of which keeps the time of each message \
         (BPF_PROG_TEST_RUN, median of {})",
        scale.singles
    );
    let mut table = Table::new(title, &["packet", "ns", "above empty"]);
    for row in &rows {
        table.line([
            row.what.clone(),
            format!("{:.0}", row.median()),
            format!("{:.0}", row.median() - rows[0].median()),
        ]);
    }
    table.keep(&rows);
    table
}
