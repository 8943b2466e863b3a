//! Actions of this process in the audit log of what is loaded.
//!
//! The entry precedes the action, so that no action is unlogged. A trip alone comes before its entry.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::audit::{self, Actor, AuditLog, Entry, Locked};
use crate::cli_error::{self, CliError, Code};
use crate::kernel::Switchboard;
use crate::kernel::text::trim_padding;
use crate::load_log::LoadLog;
use crate::{background, config, display, journald, load_log};

/// Longest wait for other writers of the log, after the action: a trip must not hang because of a lock.
const LOCK_TIMEOUT: Duration = Duration::from_millis(50);

/// Longest wait of the background process that takes over after [`LOCK_TIMEOUT`].
const BACKGROUND_TIMEOUT: Duration = Duration::from_secs(600);

/// An action of the command line.
pub struct Action<'a> {
    /// Kind of the event.
    pub kind: &'a str,
    /// Scope of the action; `None` if it concerns the whole load.
    pub scope: Option<&'a str>,
    /// Cause bits; 0 for none.
    pub causes: u64,
    /// Reason that the person gave.
    pub reason: Option<&'a str>,
    /// Figures, as a JSON object.
    pub counts: Value,
}

impl<'a> Action<'a> {
    /// Makes an action that concerns the whole load.
    pub fn on_load(kind: &'a str, counts: Value) -> Self {
        Self { kind, scope: None, causes: 0, reason: None, counts }
    }

    /// The entry of the action at this moment, under a policy of this name.
    pub fn entry(&self, policy: String) -> Entry {
        Entry {
            time: Timestamp::now(),
            kind: self.kind.to_owned(),
            scope: self.scope.map(str::to_owned),
            cause: cause_field(self.causes),
            actor: Actor::this_process("cli"),
            reason: self.reason.map(str::to_owned),
            counts: self.counts.clone(),
            policy,
        }
    }
}

/// The `cause` of an entry: the names of cause bits, separated by commas.
pub fn cause_field(bits: u64) -> Option<String> {
    let names = display::causes(bits);
    (!names.is_empty()).then(|| names.join(","))
}

/// Path of the audit log of a load.
pub fn path(board: &Switchboard) -> PathBuf {
    load_log::path(board)
}

/// The reason why the audit log of a load cannot be written, if it cannot.
pub fn problem(board: &Switchboard) -> Option<String> {
    audit::check_path(&path(board)).err().map(|error| format!("{error:#}"))
}

/// Logs an action before it is performed. The error refuses the action; `doing` names it, such as `loading`.
pub fn log_before(log: &(impl AuditLog + ?Sized), doing: &str, entry: Entry) -> Result<()> {
    // The reserved space is for the entry of a failure.
    let written = audit::reserve(log.path()).and_then(|()| audit::append(log, &[entry]));
    written.map_err(|error| {
        let code = if cli_error::is_denied(&error) { Code::Permission } else { Code::Refused };
        let found =
            format!("the audit log cannot be written ({error:#}): free space, or correct [agent].audit");
        CliError::new(code, format!("{doing}: refused, nothing is changed: {found}")).into()
    })
}

/// Logs an action after it was performed. If the log cannot be written, prints a warning: this never stops a
/// trip.
pub fn log_after(board: &Switchboard, action: &Action) {
    append_or_warn(&LoadLog::open(board), action.entry(trim_padding(&board.policy().name)));
}

/// Logs that the action of an earlier entry failed.
pub fn log_failure(log: &(impl AuditLog + ?Sized), kind: &str, entry: &Entry, error: &anyhow::Error) {
    let counts = json!({ "found": cli_error::text_of(error) });
    append_or_warn(log, Entry { time: Timestamp::now(), kind: kind.to_owned(), counts, ..entry.clone() });
}

/// Logs an entry about something that is done. If the log cannot be written, sends the entry to journald and
/// prints a warning.
pub fn append_or_warn(log: &(impl AuditLog + ?Sized), entry: Entry) {
    if let Err(error) = audit::append_within(log, std::slice::from_ref(&entry), LOCK_TIMEOUT) {
        if error.downcast_ref::<Locked>().is_some() {
            append_in_background(log, &entry);
        }
        let in_journald = journald::send_entry(log.path(), &entry).is_ok();
        let record = record_place(in_journald);
        // The result is ignored: the action is done, even if standard error is closed.
        let _ = writeln!(
            std::io::stderr(),
            "breaker: the audit log was not written: {error:#}: the action is done: check [agent].audit; \
             {record}: {}",
            summary(&entry)
        );
    }
}

/// Starts a process that writes the entry once the log is unlocked, or gives up after [`BACKGROUND_TIMEOUT`].
fn append_in_background(log: &(impl AuditLog + ?Sized), entry: &Entry) {
    // The result is ignored: the caller prints the entry, to be recorded by hand.
    let _ = background::run(|| {
        let _ = audit::append_within(log, std::slice::from_ref(entry), BACKGROUND_TIMEOUT);
    });
}

/// Sends an action to journald, for a load whose audit log is unknown. Returns the place of the record and
/// the action, in one line of text.
pub fn record_without_log(action: &Action) -> String {
    let entry = action.entry(String::new());
    let in_journald = journald::send_entry(Path::new(config::DEFAULT_AUDIT), &entry).is_ok();
    format!("{}: {}", record_place(in_journald), summary(&entry))
}

fn record_place(in_journald: bool) -> &'static str {
    if in_journald { "journald has it" } else { "record by hand" }
}

/// An entry in one line of text.
fn summary(entry: &Entry) -> String {
    let scope = entry.scope.as_deref().unwrap_or("host");
    format!(
        "{:.3} {} {scope} by {} {:?}",
        entry.time,
        entry.kind,
        entry.actor.user,
        entry.reason.as_deref().unwrap_or("-")
    )
}
