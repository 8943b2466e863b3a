//! What this process does, into the audit log of what is loaded. The line comes first and the deed second, so that nothing is done unseen;
//! a trip alone is made first.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use breaker_common::abi::cause;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::audit::{self, Actor, Entry, Locked};
use crate::cli_error::{self, CliError, Code};
use crate::kernel::Switchboard;
use crate::kernel::tables::trim_padding;

/// How long a line about what is done already waits for the other writers of the log: a trip must not hang because one of them does.
const PATIENCE: Duration = Duration::from_millis(50);

/// How long the process waits that is left behind where that was not enough.
const LATER: Duration = Duration::from_secs(600);

/// A deed of the command line.
pub struct Deed<'a> {
    /// The kind of event.
    pub kind: &'a str,
    /// The scope that it is about, and for which causes.
    pub about: Option<(&'a str, u64)>,
    /// Why, in somebody's words.
    pub reason: Option<&'a str>,
    /// Figures.
    pub counts: Value,
}

impl<'a> Deed<'a> {
    /// A deed that is about the load as a whole.
    pub fn of_all(kind: &'a str, counts: Value) -> Self {
        Self { kind, about: None, reason: None, counts }
    }

    /// As an entry of the log, at this moment, under the policy of this name.
    pub fn entry(&self, policy: String) -> Entry {
        Entry {
            time: Timestamp::now(),
            kind: self.kind.to_owned(),
            scope: self.about.map(|(scope, _)| scope.to_owned()),
            cause: self.about.and_then(|(_, causes)| names(causes)),
            actor: Actor::this("cli"),
            reason: self.reason.map(str::to_owned),
            counts: self.counts.clone(),
            policy,
        }
    }
}

/// Notes what is about to be done. What cannot be noted is refused: `doing` says what that is.
pub fn before(path: &Path, doing: &str, entry: Entry) -> Result<()> {
    // Room for the line that says that it failed too.
    let written = audit::reserve(path).and_then(|()| audit::append(path, &[entry]));
    written.map_err(|error| {
        let code = if cli_error::is_denied(&error) { Code::Permission } else { Code::Refused };
        let found =
            format!("the audit log cannot be written ({error:#}): make room, or see to [agent].audit");
        CliError::new(code, format!("{doing}: refused, nothing is changed: {found}")).into()
    })
}

/// Notes what was done. A log that cannot be written is said on standard error: it never stops a trip.
pub fn note(board: &Switchboard, deed: &Deed) {
    note_at(&path(board), deed.entry(trim_padding(&board.policy().name)));
}

/// Notes that what the log tells of was not done after all.
pub fn failed(path: &Path, kind: &str, entry: &Entry, error: &anyhow::Error) {
    let counts = json!({ "found": cli_error::text_of(error) });
    note_at(path, Entry { time: Timestamp::now(), kind: kind.to_owned(), counts, ..entry.clone() });
}

fn note_at(path: &Path, entry: Entry) {
    if let Err(error) = audit::append_within(path, std::slice::from_ref(&entry), PATIENCE) {
        if error.downcast_ref::<Locked>().is_some() {
            note_later(path, &entry);
        }
        // Whatever becomes of this warning, what was done is done.
        let _ = writeln!(
            std::io::stderr(),
            "breaker: the audit log was not written: {error:#}: what was done is done: see to [agent].audit, and note by hand: {}",
            told(&entry)
        );
    }
}

/// Leaves a process behind that writes the line once the log is free, and ends then, or gives up.
fn note_later(path: &Path, entry: &Entry) {
    // SAFETY: the verbs have no other thread, and the child does nothing but open, write and close files.
    if unsafe { libc::fork() } != 0 {
        return;
    }
    // Whoever reads the verb's output waits for its end, and must not wait for this.
    let closed = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").is_ok_and(|null| {
        rustix::stdio::dup2_stdin(&null).is_ok()
            && rustix::stdio::dup2_stdout(&null).is_ok()
            && rustix::stdio::dup2_stderr(&null).is_ok()
    });
    let _ = rustix::process::setsid();
    let written = closed && audit::append_within(path, std::slice::from_ref(entry), LATER).is_ok();
    // SAFETY: ends this process, without what the parent has still to do at its end.
    unsafe { libc::_exit(i32::from(!written)) };
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

/// The audit log of a load.
pub fn path(board: &Switchboard) -> PathBuf {
    trim_padding(&board.meta().audit).into()
}

/// Cause bits by name; `None` for none.
pub fn names(causes: u64) -> Option<String> {
    let names: Vec<_> =
        cause::NAMES.iter().filter(|(bit, _)| causes & bit != 0).map(|(_, name)| *name).collect();
    (!names.is_empty()).then(|| names.join(","))
}
