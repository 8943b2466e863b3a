//! The same as tables for a person. Colour on a terminal only, and not where NO_COLOR is set.

use std::fmt::Write;
use std::io::IsTerminal;

use comfy_table::{Cell, Color, Table, presets};

use super::status::{Limit, Scope, Status};

/// `status` as text.
pub fn status(status: &Status) -> String {
    let mut text = String::new();
    let build = &status.breaker;
    let agent = match status.agent.heartbeat_age_ms {
        Some(age) if status.agent.running => format!("running, heartbeat {age} ms ago"),
        Some(age) => format!("NOT RUNNING, last seen {:.1} s ago; enforcement goes on", age as f64 / 1000.0),
        None => "none since the load; enforcement needs none".to_owned(),
    };
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "breaker {} ({}), layout {}, program {}",
        build.version, build.git, build.abi, build.program_tag
    );
    let _ = writeln!(text, "loaded  {}", build.loaded_at);
    let _ = writeln!(text, "policy  {} (sha256 {})", status.policy.name, status.policy.sha256);
    let _ = writeln!(text, "agent   {agent}\n");
    let tables =
        [interfaces(status), scopes(status), trips(status), sessions(status), inbound(status), failures(status)];
    for table in tables.iter().filter(|table| !table.is_empty()) {
        // The last column's padding would be there to be selected, copied and wrapped.
        for line in table.lines() {
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}

/// A scope in one line, as the verbs that change it print it.
pub fn scope(scope: &Scope) -> String {
    let state = if scope.tripped { format!("TRIPPED ({})", scope.causes.join(", ")) } else { "not tripped".to_owned() };
    let armed = if scope.armed { "armed" } else { "DISARMED" };
    format!("{}: {state}, {armed}, epoch {}", scope.scope, scope.epoch)
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().map(Cell::new));
    if !coloured() {
        table.force_no_tty();
    }
    table
}

/// A cell that shouts.
fn bad(text: &str) -> Cell {
    let cell = Cell::new(text);
    if coloured() { cell.fg(Color::Red) } else { cell }
}

fn coloured() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn interfaces(status: &Status) -> Table {
    let mut table = table(&["INTERFACE", "IFINDEX", "MODE", "HOOK", "STATE"]);
    for interface in &status.interfaces {
        let state = match (interface.attached, interface.first, interface.pinned) {
            (true, true, true) if interface.hook == "clsact" => {
                Cell::new("attached, first; any `tc filter del` removes it")
            }
            (true, true, true) => Cell::new("attached, first in its chain"),
            (true, true, false) => bad("UNPINNED: it detaches when the agent ends"),
            (true, false, _) => bad("DISPLACED: another program decides before it"),
            (false, _, _) => bad("DETACHED: nothing is enforced here"),
        };
        let cells = [&interface.name, &interface.ifindex.to_string(), interface.mode, interface.hook].map(Cell::new);
        table.add_row(cells.into_iter().chain([state]));
    }
    table
}

fn scopes(status: &Status) -> Table {
    let mut table = table(&["SCOPE", "SWITCH", "ARMED", "EPOCH", "LIMIT", "USED", "PEAK"]);
    for scope in &status.scopes {
        // A line for each cause: all seven in one would be wider than the rest of the table.
        let switch =
            if scope.tripped { bad(&format!("TRIPPED: {}", scope.causes.join(",\n"))) } else { Cell::new("passing") };
        let armed = if scope.armed { Cell::new("yes") } else { bad("DISARMED") };
        let lines = |of: fn(&Limit) -> String| scope.limits.iter().map(of).collect::<Vec<_>>().join("\n");
        let limits = match &scope.limits[..] {
            [] => "none".to_owned(),
            _ => lines(|limit| match limit.per_fill {
                Some(ratio) => format!("{ratio} {} / fill, from {}", limit.class, limit.max),
                None => format!("{} {} / {}", limit.max, limit.class, limit.per),
            }),
        };
        let used = lines(|limit| limit.used.to_string());
        let peak = lines(|limit| limit.peak.to_string());
        let head = [Cell::new(&scope.scope), switch, armed, Cell::new(scope.epoch)];
        table.add_row(head.into_iter().chain([limits, used, peak].map(Cell::new)));
    }
    table
}

/// What the kernel tripped, and why: a table of its own, for it would widen the columns of the scopes.
fn trips(status: &Status) -> Table {
    let mut table = table(&["TRIPPED BY THE KERNEL", "AT", "BY", "FOR"]);
    for scope in &status.scopes {
        let Some(trip) = &scope.last_trip else { continue };
        let why = match &trip.limit {
            Some(limit) => format!("{}: {} in the window of {limit}", trip.cause, trip.used),
            None => trip.cause.clone(),
        };
        let session = format!("session/{}", trip.session);
        table.add_row([bad(&scope.scope), Cell::new(format!("{:.3}", trip.at)), Cell::new(session), Cell::new(why)]);
    }
    table
}

fn sessions(status: &Status) -> Table {
    let header = ["SESSION", "LIVE", "FENCED", "ORDERS", "WITHHELD", "CANCELS", "OTHER", "RETRANSMITTED", "DESYNCS"];
    let mut table = table(&header);
    for session in &status.sessions {
        let passed = |name| session.messages.get(name).map_or(0, |verdicts| verdicts.passed);
        let other = passed("interest") + passed("query") + passed("admin");
        let figures = [session.connections, session.fenced, passed("order")];
        let rest = [passed("cancel"), other, session.retransmitted, session.desyncs];
        let withheld = match session.packets.withheld {
            0 => "0".to_owned(),
            packets => format!("{packets} segments"),
        };
        let cells = std::iter::once(session.name.clone())
            .chain(figures.map(|figure| figure.to_string()))
            .chain([withheld])
            .chain(rest.map(|figure| figure.to_string()));
        table.add_row(cells.map(Cell::new));
    }
    table
}

/// What came in, where that is read.
fn inbound(status: &Status) -> Table {
    let mut table = table(&["CAME IN FOR", "FILLS", "REJECTS", "OTHER"]);
    for session in &status.sessions {
        let Some(inbound) = &session.inbound else { continue };
        let figure = |name| Cell::new(inbound.get(name).copied().unwrap_or_default());
        table.add_row([Cell::new(&session.name), figure("fill"), figure("reject"), figure("other")]);
    }
    table
}

fn failures(status: &Status) -> Table {
    let mut table = table(&["FAILURE", "THEN"]);
    for failure in &status.failure_policy {
        table.add_row([failure.failure, &failure.then].map(Cell::new));
    }
    table
}
