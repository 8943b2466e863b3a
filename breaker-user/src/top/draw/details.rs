//! One scope: its state, limits, rates, connections and last trip.

use ratatui::layout::Rect;
use ratatui::text::Line;

use super::super::app::{App, CELL_S};
use super::super::rows::{permille, rate};
use super::history::cells;
use super::text::wrap;
use crate::rates::SECONDS;
use crate::view::scope::Scope;
use crate::view::top::{SessionRow, Top};

/// The lines about a scope.
pub fn lines(app: &App, name: &str, area: Rect) -> Vec<Line<'static>> {
    let style = app.options.style;
    let Some(top) = &app.top else { return Vec::new() };
    let Some(at) = top.scopes.iter().position(|scope| scope.scope == name) else {
        return vec![Line::from(format!("{name} is not in the policy in force: Esc"))];
    };
    let scope = &top.scopes[at];
    let width = usize::from(area.width);
    let mut lines = state(app, scope);
    lines.extend(rates(app, top, at, width));
    let session = name.strip_prefix("session/");
    let row = session.and_then(|name| top.sessions.iter().find(|row| row.session.name == name));
    let groups = row.map(|row| row.session.groups.as_slice()).unwrap_or_default();
    let others = top.scopes.iter().filter(|other| {
        row.is_some()
            && (other.scope == "host"
                || other
                    .scope
                    .strip_prefix("group/")
                    .is_some_and(|name| groups.iter().any(|group| group == name)))
    });
    lines.push(Line::styled("LIMITS", style.quiet()));
    for scope in std::iter::once(scope).chain(others) {
        lines.extend(limits(app, scope, width));
    }
    if let Some(row) = row {
        lines.extend(counts(app, row));
        let connection = |found: &crate::view::top::Connection| {
            let cells = if found.state == "live" { style.good() } else { style.caution() };
            Line::styled(format!("  {:<8}{}", found.state, found.addresses), cells)
        };
        lines.extend(app.connections.iter().map(connection));
    }
    lines.into_iter().flat_map(|line| wrapped(app, line, width)).collect()
}

/// The lines of a line that is too long. Continued lines are indented.
fn wrapped(app: &App, line: Line<'static>, width: usize) -> Vec<Line<'static>> {
    let text = app.options.style.fit(&line.to_string(), usize::MAX);
    if text.chars().count() <= width {
        return vec![Line::styled(text, line.style)];
    }
    let indent = "  ".repeat(usize::from(width > 40));
    let lines = wrap(&text, width - indent.len());
    let indented = |(at, text): (usize, String)| {
        let text = if at == 0 { text } else { format!("{indent}{text}") };
        Line::styled(text, line.style)
    };
    lines.into_iter().enumerate().map(indented).collect()
}

/// The switch and the last trip.
fn state(app: &App, scope: &Scope) -> Vec<Line<'static>> {
    let style = app.options.style;
    let mut words = vec![crate::view::table::scope(scope)];
    if let Some(trip) = &scope.last_trip {
        let why = match &trip.limit {
            Some(limit) => format!("{} in the window of {limit}", trip.used),
            None => trip.cause.clone(),
        };
        words.push(format!("last trip by the kernel: {:.3} by session/{}: {why}", trip.at, trip.session));
    }
    let last = app
        .events
        .iter()
        .rev()
        .find(|line| line.entry.kind == "tripped" && line.entry.scope.as_deref() == Some(&scope.scope));
    words.extend(
        last.map(|line| format!("last trip in the log: {}", crate::view::event::event_line(&line.entry))),
    );
    let cells = match (scope.tripped, scope.armed) {
        (true, _) => style.alarm(),
        (false, false) => style.caution(),
        (false, true) => style.good(),
    };
    words.into_iter().map(|text| Line::styled(text, cells)).collect()
}

/// The rate now and the highest of the last 15 minutes, and the history.
fn rates(app: &App, top: &Top, at: usize, width: usize) -> Vec<Line<'static>> {
    let style = app.options.style;
    let sessions = app.members.get(at).map(Vec::as_slice).unwrap_or_default();
    let figure = |value: Option<u32>| value.map_or("-".to_owned(), |value| value.to_string());
    let highest = app.ring.orders(sessions, SECONDS, 0).flatten().max();
    let now = figure(rate(app, top, at, app.back));
    let history = cells(app, sessions, (SECONDS / CELL_S).min(width));
    vec![
        Line::from(format!(
            "orders/s: {now} at the shown second, {} at most in 15 minutes; {CELL_S} s a character:",
            figure(highest)
        )),
        Line::styled(style.sparkline(&history), style.quiet()),
    ]
}

fn limits(app: &App, scope: &Scope, width: usize) -> Vec<Line<'static>> {
    let style = app.options.style;
    let line = |limit: &crate::view::scope::Limit| {
        let what = match limit.per_fill {
            Some(ratio) => format!("{ratio} {} per fill, from {}", limit.class, limit.max),
            None => format!("{} {} per {}", limit.max, limit.class, limit.per),
        };
        let permille = permille(limit);
        let bar = style.bar((width / 10).clamp(4, 30), permille);
        let figures = format!("used {} ({}%), peak {}", limit.used, permille / 10, limit.peak);
        let cells = if permille >= 900 { style.caution() } else { ratatui::style::Style::new() };
        Line::styled(format!("  {:<16} {what:<24} {bar} {figures}", style.fit(&scope.scope, 16)), cells)
    };
    match scope.limits.as_slice() {
        [] => vec![Line::from(format!("  {:<16} none", style.fit(&scope.scope, 16)))],
        limits => limits.iter().map(line).collect(),
    }
}

/// Messages by class, and the number of connections.
fn counts(app: &App, row: &SessionRow) -> Vec<Line<'static>> {
    let session = &row.session;
    let messages = session.messages.iter().map(|(class, verdicts)| match verdicts.withheld {
        0 => format!("{class} {}", verdicts.passed),
        withheld => format!("{class} {} ({withheld} withheld)", verdicts.passed),
    });
    let rest = format!("retransmitted {}, desyncs {}", session.retransmitted, session.desyncs);
    let connections = format!(
        "CONNECTIONS: {} live, {} blind, {} fenced",
        session.connections, session.blind, session.fenced
    );
    vec![
        Line::from(format!("passed since the load: {}, {rest}", messages.collect::<Vec<_>>().join(", "))),
        Line::styled(connections, app.options.style.quiet()),
    ]
}
