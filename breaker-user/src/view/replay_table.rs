//! `replay` as tables for a person.

use std::fmt::Write;

use jiff::Timestamp;

use super::columns::{Cell, Columns};
use super::replay::{Capture, Limit, Replay};
use super::session::Verdicts;
use super::table::is_coloured;

/// Formats a replay as text.
pub fn replay(replay: &Replay) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "policy  {} (sha256 {})", replay.policy.name, replay.policy.sha256);
    text.push_str(&captures(&replay.captures));
    if let (Some(first), Some(last)) = (replay.first, replay.last) {
        let _ = writeln!(text, "time    {} to {}", short(first), short(last));
    }
    let packets = |name| replay.packets.get(name).copied().unwrap_or_default();
    let _ = writeln!(
        text,
        "packets {} read: {} outbound, {} inbound, {} other\nexact   {}\n",
        packets("read"),
        packets("outbound"),
        packets("inbound"),
        packets("other"),
        if replay.exact { "yes" } else { "NO" }
    );
    for note in &replay.notes {
        let _ = writeln!(text, "note: {note}");
    }
    if !replay.notes.is_empty() {
        text.push('\n');
    }
    let tables = [trips(replay), sessions(replay), limits(replay), undeclared(replay)];
    for table in tables.iter().filter(|table| !table.is_empty()) {
        let _ = writeln!(text, "{}", table.text(is_coloured()));
    }
    if replay.trips.is_empty() {
        text.push_str("Nothing would have tripped.\n");
    }
    text.truncate(text.trim_end().len());
    text
}

/// One line for each capture, and one more where it breaks off.
pub fn captures(captures: &[Capture]) -> String {
    let mut text = String::new();
    for capture in captures {
        let Capture { file, format, packets, bytes, broken } = capture;
        let _ = writeln!(text, "capture {file}: {format}, {packets} packets, {bytes} bytes");
        if let Some(broken) = broken {
            let _ = writeln!(
                text,
                "BROKEN  {file}: at byte {}, packet {}: {}: everything before is included",
                broken.offset, broken.packet, broken.found
            );
        }
    }
    text
}

/// A time with milliseconds.
fn short(time: Timestamp) -> String {
    format!("{time:.3}")
}

fn trips(replay: &Replay) -> Columns {
    let mut table = Columns::new(&["WOULD TRIP", "AT", "BY", "FOR"]);
    for trip in &replay.trips {
        let why = match &trip.limit {
            Some(limit) => format!("{}: {} in the window of {limit}", trip.cause, trip.used),
            None => trip.cause.clone(),
        };
        let session = format!("session/{}", trip.session);
        let cells =
            [Cell::bad(trip.scope.clone()), Cell::new(short(trip.at)), Cell::new(session), Cell::new(why)];
        table.row(cells);
    }
    table
}

/// Messages that pass, and behind a plus sign those that would be withheld.
fn figure(verdicts: Option<&Verdicts>) -> Cell {
    match verdicts {
        Some(Verdicts { passed, withheld: 0 }) => Cell::number(*passed),
        Some(Verdicts { passed, withheld }) => Cell::bad(format!("{passed} + {withheld} withheld")),
        None => Cell::new("0"),
    }
}

fn sessions(replay: &Replay) -> Columns {
    let header = ["SESSION", "ORDERS", "CANCELS", "INTEREST", "QUERY", "ADMIN", "FIRST WITHHELD", "RESENT"];
    let mut table = Columns::new(&header);
    for session in &replay.sessions {
        let classes = ["order", "cancel", "interest", "query", "admin"];
        let figures = classes.map(|class| figure(session.messages.get(class)));
        let first = session.first_withheld.map_or_else(|| "never".to_owned(), short);
        table.row(
            [Cell::new(session.name.clone())]
                .into_iter()
                .chain(figures)
                .chain([Cell::new(first), Cell::number(session.retransmitted)]),
        );
    }
    table
}

fn limits(replay: &Replay) -> Columns {
    let mut table =
        Columns::new(&["SCOPE", "LIMIT", "PEAK", "PEAK AT", "FIRST WARNING", "FIRST EXCEEDED", "TIMES"]);
    for scope in &replay.scopes {
        let name = if scope.armed { scope.scope.clone() } else { format!("{} (disarmed)", scope.scope) };
        for limit in &scope.limits {
            table.row(limit_row(name.clone(), limit));
        }
    }
    table
}

fn limit_row(scope: String, limit: &Limit) -> [Cell; 7] {
    let never = || Cell::new("never");
    let warned = limit.warned.first().map_or_else(never, |warning| {
        Cell::new(format!("{} ({} of {})", short(warning.at), warning.used, limit.max))
    });
    let exceeded = limit.exceeded.as_ref().map_or_else(never, |exceeded| Cell::bad(short(exceeded.at)));
    let peak_at = limit.peak_at.map_or_else(|| "never".to_owned(), short);
    [
        Cell::new(scope),
        Cell::new(limit.text.clone()),
        Cell::number(limit.peak),
        Cell::new(peak_at),
        warned,
        exceeded,
        Cell::number(limit.times_exceeded),
    ]
}

fn undeclared(replay: &Replay) -> Columns {
    let header = ["UNDECLARED FIX TO", "SENDER", "TARGET", "ORDERS", "CANCELS", "INTEREST", "QUERY", "ADMIN"];
    let mut table = Columns::new(&header);
    for flow in &replay.undeclared {
        let classes = ["order", "cancel", "interest", "query", "admin"];
        let names = [flow.remote.clone(), flow.sender.clone(), flow.target.clone()];
        let figures = classes.map(|class| figure(flow.messages.get(class)));
        table.row(names.map(Cell::new).into_iter().chain(figures));
    }
    table
}
