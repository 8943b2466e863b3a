//! The text of an explanation. Sessions with the same effects share a paragraph, so that a trip of a host
//! with thousands of sessions fits a screen.

use super::explanation::{Explanation, SessionEffect};
use crate::config::{OnTrip, WhileTripped};

/// Most names and connections in a line.
const MAX_LISTED: usize = 6;

/// What to do before a reset.
const RESET_ADVICE: &str =
    "stop the sender and cancel at the venue first; no order from before the reset ever passes";

/// Formats an explanation. `done`: the scope was just tripped; otherwise nothing is changed.
pub fn text(explanation: &Explanation, done: bool) -> String {
    let Explanation { scope, tripped, sessions, reset } = explanation;
    let title = match (done, tripped) {
        (true, _) => format!("the trip of {scope}:"),
        (false, true) => format!("{scope} is tripped already; another trip, which is not done now:"),
        (false, false) => format!("a trip of {scope}, which is not done now:"),
    };
    let mut lines = vec![title];
    for same in groups(sessions) {
        let Some(first) = same.first() else { continue };
        let names = same.iter().map(|session| format!("session/{}", session.name));
        lines.push(format!("  {}", listed(names, same.len())));
        lines.push(format!("    cut      {}", cut(&same, first.on_trip)));
        lines.push(format!("    passes   {}", passes(first)));
        lines.push(format!("    venue    {}", first.venue));
        lines.push(format!("    stays    {}", first.stays));
    }
    if sessions.is_empty() {
        lines.push("  no session belongs to it: nothing is cut".to_owned());
    }
    lines.push(format!("  reset      {reset}"));
    lines.push(format!("             {RESET_ADVICE}"));
    lines.join("\n")
}

/// Groups sessions with the same effects, in the order of their first session.
fn groups(sessions: &[SessionEffect]) -> Vec<Vec<&SessionEffect>> {
    let mut groups: Vec<Vec<&SessionEffect>> = Vec::new();
    for session in sessions {
        let key = |one: &SessionEffect| {
            (one.on_trip, one.while_tripped, one.passes.clone(), one.cancel_on_disconnect, one.venue)
        };
        match groups.iter_mut().find(|group| group.first().is_some_and(|first| key(first) == key(session))) {
            Some(group) => group.push(session),
            None => groups.push(vec![session]),
        }
    }
    groups
}

fn cut(sessions: &[&SessionEffect], on_trip: OnTrip) -> String {
    let count = |session: &&SessionEffect| session.connections.len() + session.connections_left_out;
    let (count, how) = (sessions.iter().map(count).sum(), how(on_trip));
    let ends = sessions.iter().flat_map(|session| &session.connections);
    let ends = listed(ends.map(|ends| format!("{} > {}", ends.local, ends.remote)), count);
    match count {
        0 => "no connection is open".to_owned(),
        1 => format!("1 connection, {how}: {ends}"),
        _ => format!("{count} connections, {how}: {ends}"),
    }
}

fn how(on_trip: OnTrip) -> &'static str {
    match on_trip {
        OnTrip::Reset => "by a TCP reset to both ends",
        OnTrip::Drop => "by dropping all payload",
    }
}

fn passes(session: &SessionEffect) -> String {
    if session.while_tripped == WhileTripped::Isolate {
        return "nothing: a new connection is not let through (isolate)".to_owned();
    }
    if session.passes.is_empty() {
        return "nothing: the messages of an opaque session are not read".to_owned();
    }
    format!(
        "on a new connection: {}; the first message of {} ends it ({})",
        session.passes.join(", "),
        session.withheld.join(", "),
        session.while_tripped
    )
}

/// Joins the first few of `count` texts, and counts the others.
fn listed(all: impl Iterator<Item = String>, count: usize) -> String {
    let shown = all.take(MAX_LISTED).collect::<Vec<_>>().join(", ");
    if count <= MAX_LISTED { shown } else { format!("{shown} and {} more", count - MAX_LISTED) }
}
