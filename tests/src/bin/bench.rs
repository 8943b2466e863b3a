//! `cargo xtask bench`: what a packet costs in the hook, and what a round trip costs over the wire, each beside its own zero in the
//! same run. Prints a table in Markdown; with a path as argument writes the figures there as JSON.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use breaker_tests::empty::Empty;
use breaker_tests::frame::{Frame, message};
use breaker_tests::privileged;
use breaker_tests::rig::Rig;
use breaker_user::lab::{Namespace, Wire};
use serde_json::{Value, json};

const POLICY: &str = r#"
limits = [{ class = "order", max = 1000000000, per = "1s" }]
[[group]]
name = "desk"
limits = [{ class = "order", max = 1000000000, per = "1s" }]
[[session]]
name = "x1"
remote = "10.9.0.2:9001"
groups = ["desk"]
limits = [{ class = "order", max = 1000000000, per = "1s" }, { class = "message", max = 1000000000, per = "1s" }]
"#;
const ROUNDS: usize = 7;
const REPEAT: u32 = 500_000;
const SINGLES: u32 = 10_000;
const PINGS: usize = 20_000;

/// A row of the table: what, and its figure in each round.
struct Row {
    what: &'static str,
    unit: &'static str,
    rounds: Vec<f64>,
}

impl Row {
    fn median(&self) -> f64 {
        median(self.rounds.clone())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    if !privileged() {
        return;
    }
    let (hot, single) = in_the_hook();
    let trips = round_trips();
    let empty = hot[0].median();
    println!("| packet, the same {REPEAT} times (BPF_PROG_TEST_RUN) | ns | against empty |\n|---|---|---|");
    for row in &hot {
        println!("| {} | {:.0} | {:.1} |", row.what, row.median(), row.median() / empty);
    }
    let zero = single[0].median();
    println!("\n| packet, each once (BPF_PROG_TEST_RUN, median of {SINGLES}) | ns | above empty |\n|---|---|---|");
    for row in &single {
        println!("| {} | {:.0} | {:.0} |", row.what, row.median(), row.median() - zero);
    }
    let each = (single[3].median() - single[2].median()) / 9.0;
    println!("| each further message in a segment | {each:.0} | |");
    println!("\n| 200-byte ping-pong over veth, {PINGS} round trips a round | p50 us | ratio |\n|---|---|---|");
    for row in &trips {
        println!("| {} | {:.2} | {:.3} |", row.what, row.median(), ratio(row, &trips[0]));
    }
    if let Some(path) = std::env::args().nth(1) {
        let rows = |rows: &[Row]| -> Value {
            rows.iter()
                .map(|row| json!({ "what": row.what, "unit": row.unit, "rounds": row.rounds, "median": row.median() }))
                .collect()
        };
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let text = json!({ "kernel": release, "command": "cargo xtask bench", "hot": rows(&hot), "single": rows(&single), "round_trip": rows(&trips) });
        std::fs::write(path, serde_json::to_string_pretty(&text).expect("JSON") + "\n").expect("writing the results");
    }
}

/// Median over the rounds of the ratio within each: the machine's speed may change between rounds.
fn ratio(row: &Row, zero: &Row) -> f64 {
    median(row.rounds.iter().zip(&zero.rounds).map(|(one, zero)| one / zero).collect())
}

/// A test run's mean time, ns.
fn run(program: &SchedClassifier, frame: &[u8], repeat: u32) -> f64 {
    let mut packet = vec![0; frame.len() + 256];
    let options =
        TestRunOptions { data_in: Some(frame), data_out: Some(&mut packet), repeat, ..TestRunOptions::default() };
    program.test_run(options).expect("running the program").duration.as_nanos() as f64
}

fn in_the_hook() -> (Vec<Row>, Vec<Row>) {
    let rig = Rig::new(POLICY);
    rig.inside(|| {
        let program = SchedClassifier::from_pin(Rig::root().program()).expect("opening the program");
        let mut loaded = Empty::open();
        let empty = loaded.classifier();
        (hot(empty, &program), single(empty, &program))
    })
}

fn text(msg_type: &str, length: usize) -> Vec<u8> {
    let fields = format!("58={}\x01", "x".repeat(length.saturating_sub(100)));
    message("FIX.4.4", msg_type, fields.as_bytes())
}

fn segment(port: u16, seq: u32, payload: &[u8]) -> Frame {
    let mut frame = Frame::new(SocketAddr::new(Wire::FIRM, 40_000), SocketAddr::new(Wire::VENUE, port), seq, payload);
    frame.options = 12;
    frame
}

fn hot(empty: &SchedClassifier, program: &SchedClassifier) -> Vec<Row> {
    let order = text("D", 200);
    let mut udp = segment(53, 1, &order).bytes();
    udp[23] = 17;
    let frames: [(&'static str, &SchedClassifier, Vec<u8>); 6] = [
        ("empty program", empty, segment(9001, 1, &order).bytes()),
        ("not TCP", program, udp),
        ("another application's segment", program, segment(8080, 1, &[b'x'; 200]).bytes()),
        ("another application's pure ACK", program, segment(8080, 1, b"").bytes()),
        ("a session's pure ACK", program, segment(9001, 1, b"").bytes()),
        ("a session's retransmit", program, segment(9001, 1, &order).bytes()),
    ];
    run(program, &segment(9001, 0, b"").with_flags(2).bytes(), 1);
    run(program, &segment(9001, 1, &order).bytes(), 1);
    let mut rows: Vec<Row> = frames.iter().map(|(what, ..)| Row { what, unit: "ns", rounds: Vec::new() }).collect();
    for _ in 0..ROUNDS {
        for (row, (_, program, frame)) in rows.iter_mut().zip(&frames) {
            row.rounds.push(run(program, frame, REPEAT));
        }
    }
    rows
}

/// Packets that cost what they do only once: each run has the next sequence number.
fn single(empty: &SchedClassifier, program: &SchedClassifier) -> Vec<Row> {
    let (order, heartbeat) = (text("D", 200), text("0", 100));
    let ten = order.repeat(10);
    let cases: [(&'static str, &SchedClassifier, &[u8]); 4] = [
        ("empty program", empty, &order),
        ("a heartbeat, 1 limit", program, &heartbeat),
        ("an order, 3 scopes, 4 limits", program, &order),
        ("ten orders in a segment", program, &ten),
    ];
    let mut rows: Vec<Row> = cases.iter().map(|(what, ..)| Row { what, unit: "ns", rounds: Vec::new() }).collect();
    let mut seq = 1 + order.len() as u32;
    for _ in 0..ROUNDS {
        for (row, (_, program, payload)) in rows.iter_mut().zip(&cases) {
            let times = (0..SINGLES).map(|_| {
                let frame = segment(9001, seq, payload).bytes();
                if row.what != "empty program" {
                    seq = seq.wrapping_add(payload.len() as u32);
                }
                run(program, &frame, 1)
            });
            row.rounds.push(median(times.collect()));
        }
    }
    rows
}

/// A venue that sends back what comes, and the connection to it.
fn echo(firm: &Namespace, venue: &Namespace) -> TcpStream {
    let at = SocketAddr::new(Wire::VENUE, 9001);
    let listener = venue.run(|| TcpListener::bind(at)).expect("listening");
    venue.spawn(move || {
        let (mut stream, _) = listener.accept().expect("accepting");
        stream.set_nodelay(true).expect("no delay");
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..length]).is_err() {
                return;
            }
        }
    });
    let stream = firm.run(|| TcpStream::connect(at)).expect("connecting");
    stream.set_nodelay(true).expect("no delay");
    stream
}

fn ping(stream: &mut TcpStream, order: &[u8]) -> f64 {
    let mut buffer = vec![0; order.len()];
    let times = (0..PINGS).map(|_| {
        let start = Instant::now();
        stream.write_all(order).expect("sending");
        stream.read_exact(&mut buffer).expect("receiving");
        start.elapsed().as_nanos() as f64 / 1e3
    });
    median(times.collect())
}

fn round_trips() -> Vec<Row> {
    let plain = [Wire::new().expect("a wire"), Wire::new().expect("a wire")];
    let rig = Rig::new(POLICY);
    let mut streams = [
        ("no filter", echo(&plain[0].firm, &plain[0].venue)),
        ("no filter again (A/A)", echo(&plain[1].firm, &plain[1].venue)),
        ("breaker, 3 scopes, 4 limits", echo(&rig.wire.firm, &rig.wire.venue)),
    ];
    let order = text("D", 200);
    let mut rows: Vec<Row> = streams.iter().map(|(what, _)| Row { what, unit: "us", rounds: Vec::new() }).collect();
    for _ in 0..ROUNDS {
        for (row, (_, stream)) in rows.iter_mut().zip(&mut streams) {
            row.rounds.push(ping(stream, &order));
        }
    }
    assert!(rig.counters(1).passed[0] >= (ROUNDS * PINGS) as u64, "the filter saw the orders");
    rows
}
