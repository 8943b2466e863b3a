//! The speed of what people look at: a redraw of `top`, and `replay`.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Instant;

use breaker_user::testbed::TwoHosts;
use breaker_user::top::{App, Options, Reading, Source, Style, text};
use tempfile::TempDir;

use super::figures::Row;
use super::order::sized;
use super::report::Table;
use super::scale::Scale;
use crate::command::{breaker, command};
use crate::many_sessions::ManySessions;
use crate::pcap_file::{PcapFile, Sender};
use crate::testbed::Testbed;

/// Sessions of `top`.
const SESSIONS: usize = 1_000;
/// Seconds that `top` shows.
const HISTORY_S: u64 = 900;
/// Columns and rows of the terminal.
const TERMINAL: (u16, u16) = (200, 60);
/// Sessions of a capture, each with a connection.
const CAPTURED_SESSIONS: u16 = 4;
/// Bytes of an order whose frame has 259 bytes.
const ORDER: usize = 205;
/// Time between two frames, ns.
const STEP_NS: u64 = 20_000;
/// First port of the sessions of a capture.
const PORT: u16 = 9_001;
const GB: f64 = 1e9;

/// The section.
pub fn tables(scale: &Scale) -> Vec<Table> {
    vec![redraw(scale), replay(scale)]
}

/// Time of a redraw.
fn redraw(scale: &Scale) -> Table {
    let (columns, rows) = TERMINAL;
    let title = format!(
        "duration of a redraw of `breaker top` with {columns} x {rows} cells in ms, with {SESSIONS} sessions \
         and the rates of 15 minutes, from the samples of a second to the text of the screen, {} times",
        scale.looks
    );
    let mut row = Row::new(format!("redraw of top: {SESSIONS} sessions"), "ms");
    let many = ManySessions::new(SESSIONS, 64, 0);
    many.testbed.on_host(|| {
        let mut source = Source::open(Testbed::root()).expect("opening the load");
        let mut read =
            |second| Reading { second: Some(second), ..source.read(None, true).expect("reading the state") };
        let style = Style { is_coloured: true, is_utf8: true };
        let mut app = App::new(Options { act: false, style });
        (0..HISTORY_S).for_each(|second| app.show(read(second)));
        for second in (HISTORY_S..).take(scale.looks) {
            let reading = read(second);
            let start = Instant::now();
            app.show(reading);
            let screen = text(&mut app, TERMINAL);
            row.rounds.push(start.elapsed().as_secs_f64() * 1e3);
            assert!(screen.contains("group/g0"), "{screen}");
        }
    });
    let mut table = Table::new(title, &["sessions", "p50", "p99"]);
    let [p50, p99] = [0.5, 0.99].map(|share| format!("{:.2}", row.quantile(share)));
    table.line([SESSIONS.to_string(), p50, p99]);
    table.keep([&row]);
    table
}

/// Speed of a replay.
fn replay(scale: &Scale) -> Table {
    let directory = TempDir::new().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (capture, bytes) = (path("capture.pcap"), write_capture(&path("capture.pcap"), scale.captured));
    let title = format!(
        "speed of `breaker replay` in GB of a capture a second of one core, from the start of the program to \
         its end, with a capture of {} MB in the page cache, of {CAPTURED_SESSIONS} sessions in turns with \
         frames of 259 bytes, an order each; three scopes, four limits; {} runs each in turns",
        bytes / 1_000_000,
        scale.rounds
    );
    let policies = [("nothing trips", 1_000_000), ("each session trips after 1000 orders", 1_000)];
    let mut lines = policies.map(|(name, max)| {
        let config = path(&format!("{max}.toml"));
        std::fs::write(&config, policy(max)).expect("writing a configuration");
        (config, Row::new(format!("replay: {name}"), "GB/s"))
    });
    for _ in 0..scale.rounds {
        for (config, row) in &mut lines {
            let start = Instant::now();
            let status = command().args(["replay", "--json", "--config", config, &capture]).output();
            row.rounds.push(bytes as f64 / GB / start.elapsed().as_secs_f64());
            assert!(status.expect("running breaker").status.success());
        }
    }
    let mut table = Table::new(title, &["limits", "GB/s, median", "range"]);
    for (config, row) in &lines {
        let found = breaker(&["replay", "--json", "--config", config, &capture]).expect_exit(0).json();
        assert_eq!(found["exact"], true, "{found:#}");
        let (_, name) = row.what.split_once(": ").expect("as it was made");
        let range = format!("{:.2} to {:.2}", row.quantile(0.0), row.quantile(1.0));
        table.line([name.to_owned(), format!("{:.2}", row.median()), range]);
        table.keep([row]);
    }
    table
}

/// Writes a capture of at least so many bytes. Returns its length.
fn write_capture(path: &str, at_least: usize) -> usize {
    const PIECE: usize = 1 << 20;
    let mut out = File::create(path).expect("making a capture");
    let (mut file, mut written, mut at_ns) = (PcapFile::default(), 0, 1_796_031_000_000_000_000);
    let ends = |n| (SocketAddr::new(TwoHosts::FIRM, 40_000 + n), SocketAddr::new(TwoHosts::VENUE, PORT + n));
    let open = |n| {
        let (from, to) = ends(n);
        Sender::open(&mut file, at_ns, from, to)
    };
    let mut senders: Vec<_> = (0..CAPTURED_SESSIONS).map(open).collect();
    for id in 0.. {
        for sender in &mut senders {
            at_ns += STEP_NS;
            sender.send(&mut file, at_ns, &sized("D", id % 1_000_000, ORDER));
        }
        if file.bytes().len() >= PIECE {
            out.write_all(file.bytes()).expect("writing a capture");
            written += file.bytes().len();
            file.clear();
            if written >= at_least {
                break;
            }
        }
    }
    written
}

/// A host, a group and the sessions of the capture, with four limits for each session.
fn policy(max: u64) -> String {
    let limit = |class: &str, max| format!("{{ class = \"{class}\", max = {max}, per = \"1s\" }}");
    let mut text = format!(
        "[host]\ninterfaces = [\"lo\"]\nlimits = [{0}]\n[[group]]\nname = \"g\"\nlimits = [{0}]\n",
        limit("order", 1_000_000)
    );
    for n in 0..CAPTURED_SESSIONS {
        text += &format!(
            "[[session]]\nname = \"s{n}\"\nremote = \"{}:{}\"\ngroups = [\"g\"]\nlimits = [{}, {}]\n",
            TwoHosts::VENUE,
            PORT + n,
            limit("order", max),
            limit("cancel", 1_000)
        );
    }
    text
}
