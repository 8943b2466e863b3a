//! What a packet costs in the hook at tc egress, beside an empty program (BPF_PROG_TEST_RUN).

use std::net::SocketAddr;

use aya::programs::SchedClassifier;
use breaker_user::lab::Wire;

use super::figures::{Row, median};
use super::order::{order, sized};
use super::report::Table;
use super::scale::Scale;
use crate::empty::Empty;
use crate::frame::Frame;
use crate::rig::{Rig, Runs, run};

/// Three scopes with four limits that nothing reaches, and whose windows are full and over many times in a round.
pub const POLICY: &str = r#"
limits = [{ class = "order", max = 3000000, per = "100ms" }]
[[group]]
name = "desk"
limits = [{ class = "order", max = 3000000, per = "100ms" }]
[[session]]
name = "x1"
remote = "10.9.0.2:9001"
groups = ["desk"]
limits = [{ class = "order", max = 3000000, per = "100ms" }, { class = "message", max = 3000000, per = "100ms" }]
"#;

/// A segment of a session, as a Linux host sends it: with time stamps.
pub fn segment(from: SocketAddr, port: u16, seq: u32, payload: &[u8]) -> Frame {
    let mut frame = Frame::new(from, SocketAddr::new(Wire::VENUE, port), seq, payload);
    frame.options = 12;
    frame
}

/// A test run's mean time, ns.
pub fn mean(program: &impl Runs, frame: &[u8], repeat: u32) -> f64 {
    run(program, frame, repeat).ns as f64
}

/// The section.
pub fn tables(scale: &Scale) -> Vec<Table> {
    let rig = Rig::new(POLICY);
    rig.inside(|| {
        let program = SchedClassifier::from_pin(Rig::root().program()).expect("opening the program");
        let mut loaded = Empty::open();
        let empty = loaded.classifier();
        vec![hot(scale, empty, &program), single(scale, empty, &program)]
    })
}

fn local(port: u16, seq: u32, payload: &[u8]) -> Frame {
    segment(SocketAddr::new(Wire::FIRM, 40_000), port, seq, payload)
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

/// Packets that cost what they do only once: each run has the next sequence number.
fn single(scale: &Scale, empty: &SchedClassifier, program: &SchedClassifier) -> Table {
    let (order, heartbeat) = (order(1), sized("0", 1, 100));
    let ten = order.repeat(10);
    let cases: [(&'static str, &SchedClassifier, &[u8]); 4] = [
        ("empty program", empty, &order),
        ("a heartbeat, 1 limit", program, &heartbeat),
        ("an order, 3 scopes, 4 limits", program, &order),
        ("ten orders in a segment", program, &ten),
    ];
    let mut rows: Vec<Row> = cases.iter().map(|(what, ..)| Row::new(*what, "ns")).collect();
    let mut seq = 1 + order.len() as u32;
    for _ in 0..scale.rounds {
        for (row, (_, program, payload)) in rows.iter_mut().zip(&cases) {
            let times = (0..scale.singles).map(|_| {
                let frame = local(9001, seq, payload).bytes();
                if row.what != "empty program" {
                    seq = seq.wrapping_add(payload.len() as u32);
                }
                mean(*program, &frame, 1)
            });
            row.rounds.push(median(times.collect()));
        }
    }
    let title = format!("tc egress: each packet once (BPF_PROG_TEST_RUN, median of {})", scale.singles);
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
