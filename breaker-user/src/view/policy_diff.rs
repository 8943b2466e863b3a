//! The differences between two policies in words and as JSON. Both are contracts with scripts.

use serde_json::{Value, json};

use crate::config::Policy;
use crate::display::{duration, limit as limit_text};
use crate::kernel::reload::PolicyDiff;
use crate::kernel::reload::diff::{Change, Deadman, Loosening};

/// The loosenings, a line each: `session/x1: 500 order per 3s becomes 501 order per 3s`.
pub fn lines(loosened: &[Loosening]) -> Vec<String> {
    loosened.iter().map(line).collect()
}

/// A loosening in a line.
pub fn line(found: &Loosening) -> String {
    format!("{}: {}", found.scope, change(&found.change))
}

/// The counts of a `policy_changed` event.
pub fn counts(diff: &PolicyDiff, policy: &Policy) -> Value {
    json!({
        "sha256": policy.sha256_hex(),
        "loosened": lines(&diff.loosened),
        "added": diff.added,
        "removed": diff.removed,
    })
}

fn change(change: &Change) -> String {
    match change {
        Change::ScopeRemoved => "no longer declared".to_owned(),
        Change::Disarmed => "disarmed".to_owned(),
        Change::LimitRaised { old, new } => format!("{} becomes {}", limit_text(old), limit_text(new)),
        Change::LimitRemoved(limit) => format!("{} is removed", limit_text(limit)),
        Change::Undeclared { old, new } => format!("undeclared: {old} becomes {new}"),
        Change::TableFullPasses => "on_table_full: block becomes pass".to_owned(),
        Change::Deadman { old, new } => format!("deadman: {} becomes {}", deadman(old), deadman(new)),
        Change::GroupLeft(group) => format!("no longer in {group}"),
        Change::WhileTripped { old, new } => format!("while_tripped: {old} becomes {new}"),
        Change::OnDesync { old, new } => format!("on_desync: {old} becomes {new}"),
        Change::LongestMessage { old, new } => format!("longest: {old} bytes become {new}"),
        Change::RestrictedToUser(uid) => {
            format!("user: sockets of others than account {uid} become undeclared")
        }
        Change::PossDupPasses => "possdup: block becomes pass".to_owned(),
        Change::Wire { becomes_opaque: true } => "wire: fix becomes opaque".to_owned(),
        Change::Wire { becomes_opaque: false } => "wire: opaque becomes fix".to_owned(),
        Change::MsgType { msg_type, old, new } => {
            let bytes = msg_type.0.to_le_bytes();
            let text = String::from_utf8_lossy(&bytes).trim_matches('\0').to_owned();
            format!("MsgType {text}: {} becomes {}", old.name(), new.name())
        }
        Change::EndpointLost { endpoint, to_another_session: true } => {
            format!("connections to {endpoint} are another session's")
        }
        Change::EndpointLost { endpoint, to_another_session: false } => {
            format!("connections to {endpoint} are undeclared")
        }
    }
}

fn deadman(deadman: &Deadman) -> String {
    match (deadman.after_ns, deadman.trips) {
        (0, _) => "nothing".to_owned(),
        (after, true) => format!("trip after {}", duration(after)),
        (after, false) => format!("warn after {}", duration(after)),
    }
}
