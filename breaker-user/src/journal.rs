//! What this process did, into the audit log of what is loaded.

use std::io::Write;

use anyhow::Result;
use breaker_common::abi::cause;
use jiff::Timestamp;
use serde_json::Value;

use crate::audit::{self, Actor, Entry};
use crate::config::ScopeIndex;
use crate::kernel::Breaker;
use crate::kernel::tables::unpadded;

/// Notes a deed of the command line. A log that cannot be written is said on standard error: it never stops a trip.
pub fn note(breaker: &Breaker, kind: &str, about: Option<(ScopeIndex, u64)>, reason: Option<&str>, counts: Value) {
    let entry = Entry {
        time: Timestamp::now(),
        kind: kind.to_owned(),
        scope: about.map(|(scope, _)| breaker.names().name(scope).to_string()),
        cause: about.and_then(|(_, causes)| names(causes)),
        actor: Actor::this("cli"),
        reason: reason.map(str::to_owned),
        counts,
        policy: unpadded(&breaker.policy().name),
    };
    if let Err(error) = write(breaker, std::slice::from_ref(&entry)) {
        // Whatever becomes of this warning, what was done is done.
        let _ = writeln!(
            std::io::stderr(),
            "breaker: the audit log was not written: {error:#}: what was done is done: see to [agent].audit, and note by hand: {}",
            told(&entry)
        );
    }
}

/// An entry in a line.
fn told(entry: &Entry) -> String {
    let scope = entry.scope.as_deref().unwrap_or("host");
    format!(
        "{:.3} {} {scope} by {} {:?}",
        entry.time,
        entry.kind,
        entry.actor.user,
        entry.reason.as_deref().unwrap_or("-")
    )
}

/// Appends entries to the log of a load.
pub fn write(breaker: &Breaker, entries: &[Entry]) -> Result<()> {
    audit::append(&path(breaker), entries)
}

/// The audit log of a load.
pub fn path(breaker: &Breaker) -> std::path::PathBuf {
    unpadded(&breaker.meta().audit).into()
}

/// Cause bits by name; `None` for none.
pub fn names(causes: u64) -> Option<String> {
    let names: Vec<_> = cause::NAMES.iter().filter(|(bit, _)| causes & bit != 0).map(|(_, name)| *name).collect();
    (!names.is_empty()).then(|| names.join(","))
}
