//! `learn` as a configuration to paste, with the reason beside each number.

use std::fmt::Write;

use super::learn::{Learn, Session, Window};
use super::replay_table::captures;
use crate::config::{COMP_IDS, Policy, WireFormat, Word};

/// The limits that are proposed, by class and window: a scope has at most four. The others are comments.
const PROPOSED: [(&str, &str); 4] = [("order", "1s"), ("order", "1m"), ("cancel", "1s"), ("cancel", "1m")];

/// Formats the result as TOML. `interfaces` are those of the host.
pub fn toml(learn: &Learn, policy: &Policy, interfaces: &[String]) -> String {
    let mut text =
        format!("# Limits proposed by `breaker learn`: the highest peak, times {}.\n", learn.factor);
    for line in captures(&learn.captures).lines().chain(learn.notes.iter().map(String::as_str)) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# {}", line.trim_end());
    }
    let days = if learn.captures.is_empty() { "warnings in the audit log" } else { "messages" };
    let _ = writeln!(text, "# Times are UTC. Day counts are days with {days}.\n");
    text.push_str("policy = \"learnt\"\n\n[host]\n");
    let interfaces: Vec<_> = interfaces.iter().map(|name| quote(name)).collect();
    let _ = writeln!(text, "interfaces = [{}] # the way to the venues", interfaces.join(", "));
    for group in policy.groups() {
        let _ = writeln!(text, "\n[[group]]\nname = {}", quote(group.name.as_str()));
    }
    for found in &learn.sessions {
        session(&mut text, found, (policy, learn.captures.is_empty()));
    }
    text.truncate(text.trim_end().len());
    text
}

/// `is_loaded`: the peaks are those of what is loaded.
fn session(text: &mut String, session: &Session, (policy, is_loaded): (&Policy, bool)) {
    text.push_str("\n[[session]]\n");
    if !session.declared {
        text.push_str("# Not in the configuration: seen in the captures.\n");
    }
    let _ = writeln!(text, "name = {}", quote(&session.name));
    let remotes: Vec<_> = session.remote.iter().map(|remote| quote(remote)).collect();
    let _ = writeln!(text, "remote = [{}]", remotes.join(", "));
    match session.index.and_then(|index| policy.session(index)) {
        None => {
            for (key, id) in [("sender", &session.sender), ("target", &session.target)] {
                if let Some(id) = id {
                    let _ = writeln!(text, "{key} = {}", quote(id));
                }
            }
        }
        Some(declared) => {
            if let Some(local) = declared.local {
                let _ = writeln!(text, "local = \"{local}\"");
            }
            for ((key, _), id) in COMP_IDS.iter().zip(declared.comp_ids()) {
                if let Some(id) = id {
                    let _ = writeln!(text, "{key} = {}", quote(id.as_str()));
                }
            }
            if declared.wire != WireFormat::default() {
                let _ = writeln!(text, "wire = \"{}\"", declared.wire.word());
            }
            let groups = declared.groups.iter().map(|group| quote(policy.group(*group).name.as_str()));
            let groups: Vec<_> = groups.collect();
            if !groups.is_empty() {
                let _ = writeln!(text, "groups = [{}]", groups.join(", "));
            }
        }
    }
    limits(text, session, is_loaded);
}

fn limits(text: &mut String, session: &Session, is_loaded: bool) {
    if session.windows.is_empty() {
        text.push_str("# No message was seen.\n");
        return;
    }
    // What is loaded has at most four limits, of any window.
    let is_proposed = |window: &Window| is_loaded || PROPOSED.contains(&(window.class, window.per.as_str()));
    text.push_str("limits = [\n");
    for window in session.windows.iter().filter(|window| is_proposed(window)) {
        let _ = writeln!(text, "  {}, # {}", entry(window), reason(window));
    }
    text.push_str("]\n");
    for window in session.windows.iter().filter(|window| !is_proposed(window)) {
        let _ = writeln!(text, "# {} # {}", entry(window), reason(window));
    }
}

fn entry(window: &Window) -> String {
    format!("{{ class = \"{}\", max = {}, per = \"{}\" }}", window.class, window.max, window.per)
}

fn reason(window: &Window) -> String {
    let Window { peak, days, p50, p90, days_warned, days_tripped, .. } = window;
    let found = match window.peak_at {
        None => format!("peak {peak} since the load"),
        Some(at) => format!("peak {peak} at {at:.3}"),
    };
    if *days == 0 {
        return found;
    }
    format!(
        "{found}; daily peaks of {days} days: p50 {p50}, p90 {p90}; would have warned on {days_warned} days \
         and tripped on {days_tripped}"
    )
}

/// Writes a TOML string. All texts are printable ASCII.
fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
