//! `status` as tables for a person. Colour is used on a terminal only, unless NO_COLOR is set.

use std::fmt::Write;
use std::io::IsTerminal;

use super::columns::{Cell, Columns};
use super::scope::{Limit, Scope};
use super::status::Status;
use crate::state::Health;

/// Formats `status` as text.
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
    let _ = writeln!(text, "agent   {agent}");
    let _ = writeln!(text, "state   {}", state(&status.state));
    let _ = writeln!(text, "in force {}\n", if status.enforced.ok { "yes" } else { "NO" });
    for problem in &status.enforced.problems {
        let _ =
            writeln!(text, "{}: {}: {}", problem.kind.name().to_uppercase(), problem.location, problem.found);
        let _ = writeln!(text, "  to do: {}", problem.cure);
    }
    for note in &status.enforced.notes {
        let _ = writeln!(text, "note: {note}");
    }
    if !(status.enforced.problems.is_empty() && status.enforced.notes.is_empty()) {
        text.push('\n');
    }
    let tables = [
        interfaces(status),
        scopes(status),
        trips(status),
        warnings(status),
        sessions(status),
        inbound(status),
        failures(status),
    ];
    let is_coloured = is_coloured();
    for table in tables.iter().filter(|table| !table.is_empty()) {
        let _ = writeln!(text, "{}", table.text(is_coloured));
    }
    text.truncate(text.trim_end().len());
    text
}

/// Formats a scope in one line, for the verbs that change it.
pub fn scope(scope: &Scope) -> String {
    let state = if scope.tripped {
        format!("TRIPPED ({})", scope.causes.join(", "))
    } else {
        "not tripped".to_owned()
    };
    let armed = if scope.armed { "armed" } else { "DISARMED" };
    format!("{}: {state}, {armed}, epoch {}", scope.scope, scope.epoch)
}

/// The state file in one line.
fn state(state: &Health) -> String {
    let age =
        state.age_ms.map_or_else(String::new, |age| format!(", written {:.1} s ago", age as f64 / 1000.0));
    match &state.found {
        None => format!("{}{age}", state.path),
        Some(found) => format!("{}{age}: NOT OK: {found}", state.path),
    }
}

/// Returns true if standard output shows colour.
pub fn is_coloured() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn interfaces(status: &Status) -> Columns {
    let mut table = Columns::new(&["INTERFACE", "IFINDEX", "MODE", "HOOK", "STATE"]);
    for interface in &status.interfaces {
        let state = match (interface.attached, interface.first, interface.pinned) {
            (true, true, true) if interface.hook == "clsact" => {
                Cell::new("attached, first; `tc filter del` removes it")
            }
            (true, true, true) => Cell::new("attached, first in its chain"),
            (true, true, false) => Cell::bad("UNPINNED: it detaches when the agent ends"),
            (true, false, _) => Cell::bad("DISPLACED: another program decides before it"),
            (false, _, _) => Cell::bad("DETACHED: nothing is enforced here"),
        };
        table.row([
            Cell::new(interface.name.clone()),
            Cell::number(interface.ifindex.into()),
            Cell::new(interface.mode),
            Cell::new(interface.hook),
            state,
        ]);
    }
    table
}

fn scopes(status: &Status) -> Columns {
    let mut table = Columns::new(&["SCOPE", "SWITCH", "ARMED", "EPOCH", "LIMIT", "USED", "PEAK"]);
    for scope in &status.scopes {
        // One line for each cause: all seven in one line would be wider than the rest of the table.
        let switch = if scope.tripped {
            Cell::bad(format!("TRIPPED: {}", scope.causes.join(",\n")))
        } else {
            Cell::new("passing")
        };
        let armed = if scope.armed { Cell::new("yes") } else { Cell::bad("DISARMED") };
        let lines = |text: fn(&Limit) -> String| scope.limits.iter().map(text).collect::<Vec<_>>().join("\n");
        let limits = match &scope.limits[..] {
            [] => "none".to_owned(),
            _ => lines(|limit| match limit.per_fill {
                Some(ratio) => format!("{ratio} {} / fill, from {}", limit.class, limit.max),
                None => format!("{} {} / {}", limit.max, limit.class, limit.per),
            }),
        };
        let used = lines(|limit| limit.used.to_string());
        let peak = lines(|limit| limit.peak.to_string());
        let head = [Cell::new(scope.scope.clone()), switch, armed, Cell::number(scope.epoch)];
        table.row(head.into_iter().chain([limits, used, peak].map(Cell::new)));
    }
    table
}

/// Trips by the kernel program. A table of its own, because it would widen the columns of the scopes.
fn trips(status: &Status) -> Columns {
    let mut table = Columns::new(&["TRIPPED BY THE KERNEL", "AT", "BY", "FOR"]);
    for scope in &status.scopes {
        let Some(trip) = &scope.last_trip else { continue };
        let why = match &trip.limit {
            Some(limit) => format!("{}: {} in the window of {limit}", trip.cause, trip.used),
            None => trip.cause.clone(),
        };
        let session = format!("session/{}", trip.session);
        table.row([
            Cell::bad(scope.scope.clone()),
            Cell::new(format!("{:.3}", trip.at)),
            Cell::new(session),
            Cell::new(why),
        ]);
    }
    table
}

/// Warnings that nobody has acknowledged.
fn warnings(status: &Status) -> Columns {
    let mut table = Columns::new(&["WARNED", "LIMIT", "LEVEL", "USED", "SINCE", "TO DO"]);
    for warning in &status.warnings {
        table.row([
            Cell::bad(warning.scope.clone()),
            Cell::new(warning.limit.clone()),
            Cell::number(warning.level),
            Cell::number(warning.used),
            Cell::new(format!("{:.0}", warning.since)),
            Cell::new(format!("`breaker ack {}`", warning.scope)),
        ]);
    }
    table
}

fn sessions(status: &Status) -> Columns {
    let header =
        ["SESSION", "LIVE", "FENCED", "ORDERS", "WITHHELD", "CANCELS", "OTHER", "RETRANSMITTED", "DESYNCS"];
    let mut table = Columns::new(&header);
    for session in &status.sessions {
        let passed = |name| session.messages.get(name).map_or(0, |verdicts| verdicts.passed);
        let other = passed("interest") + passed("query") + passed("admin");
        let figures = [session.connections, session.fenced, passed("order")];
        let rest = [passed("cancel"), other, session.retransmitted, session.desyncs];
        let withheld = match session.packets.withheld {
            0 => Cell::number(0),
            packets => Cell::new(format!("{packets} segments")),
        };
        let name = Cell::new(session.name.clone());
        table.row(
            [name]
                .into_iter()
                .chain(figures.map(Cell::number))
                .chain([withheld])
                .chain(rest.map(Cell::number)),
        );
    }
    table
}

/// Inbound messages, if they are read.
fn inbound(status: &Status) -> Columns {
    let mut table = Columns::new(&["INBOUND FOR", "FILLS", "REJECTS", "OTHER"]);
    for session in &status.sessions {
        let Some(inbound) = &session.inbound else { continue };
        let figure = |name| Cell::number(inbound.get(name).copied().unwrap_or_default());
        table.row([Cell::new(session.name.clone()), figure("fill"), figure("reject"), figure("other")]);
    }
    table
}

fn failures(status: &Status) -> Columns {
    let mut table = Columns::new(&["FAILURE", "THEN"]);
    for failure in &status.failure_policy {
        table.row([Cell::new(failure.failure), Cell::new(failure.then.clone())]);
    }
    table
}
