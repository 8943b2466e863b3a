//! The same as tables for a person. Colour on a terminal only, and not where NO_COLOR is set.

use std::fmt::Write;
use std::io::IsTerminal;

use comfy_table::{Cell, Color, Table, presets};

use super::status::{Scope, Status};

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
    for table in [interfaces(status), scopes(status), sessions(status), failures(status)] {
        let _ = writeln!(text, "{table}\n");
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
        let state = match (interface.attached, interface.first) {
            (true, true) => Cell::new("attached, first in its chain"),
            (true, false) => bad("DISPLACED: another program decides before it"),
            (false, _) => bad("DETACHED: nothing is enforced here"),
        };
        let cells = [&interface.name, &interface.ifindex.to_string(), interface.mode, interface.hook].map(Cell::new);
        table.add_row(cells.into_iter().chain([state]));
    }
    table
}

fn scopes(status: &Status) -> Table {
    let mut table = table(&["SCOPE", "SWITCH", "ARMED", "EPOCH", "LIMIT", "USED", "PEAK"]);
    for scope in &status.scopes {
        let switch =
            if scope.tripped { bad(&format!("TRIPPED: {}", scope.causes.join(", "))) } else { Cell::new("passing") };
        let armed = if scope.armed { Cell::new("yes") } else { bad("DISARMED") };
        let mut rows = scope.limits.iter().map(|limit| {
            [format!("{} {} / {}", limit.max, limit.class, limit.per), limit.used.to_string(), limit.peak.to_string()]
        });
        let first = rows.next().unwrap_or_else(|| ["none", "", ""].map(str::to_owned));
        let head = [Cell::new(&scope.scope), switch, armed, Cell::new(scope.epoch)];
        table.add_row(head.into_iter().chain(first.map(Cell::new)));
        for row in rows {
            table.add_row(["", "", "", ""].map(Cell::new).into_iter().chain(row.map(Cell::new)));
        }
        if let Some(trip) = &scope.last_trip {
            let why = trip
                .limit
                .as_ref()
                .map_or_else(String::new, |limit| format!(": {} in the window of {limit}", trip.used));
            table.add_row(vec![Cell::new(""), bad(&format!("{} by {}{why}", trip.at, trip.session))]);
        }
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

fn failures(status: &Status) -> Table {
    let mut table = table(&["FAILURE", "THEN"]);
    for failure in &status.failure_policy {
        table.add_row([failure.failure, &failure.then].map(Cell::new));
    }
    table
}
