//! The configuration: reads text and returns a validated policy. No module below sees an unvalidated string.
//!
//! [`load`] reads a file, [`parse`] a text. Both return a [`Policy`], or every error in the file, each with
//! its line, its column and what to do.

mod check;
mod diagnostics;
mod endpoint;
mod fleet;
mod invalid;
mod limit;
mod on_event;
mod people;
mod policy;
mod read;
mod read_scope;
mod read_session;
mod reader;
mod scope;
mod text;
mod words;

#[cfg(test)]
mod tests;

use std::fs::OpenOptions;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use toml::de::DeTable;

use crate::file;

pub use breaker_common::message::{Class, LimitClass};
pub use diagnostics::{ConfigErrors, Diagnostic, Diagnostics, Severity};
pub use endpoint::{Endpoint, Prefix};
pub use fleet::{EngineLoss, EngineLossAction, EtcdUrl, Fleet, FleetTls};
pub use invalid::Invalid;
pub use limit::{Limit, Limits, Per, Preset, WarnLevels};
pub use on_event::{EventKind, OnEvent, parse_on_event};
pub use people::{People, Person, parse_people};
pub use policy::{
    Agent, COMP_IDS, DEFAULT_AUDIT, DEFAULT_CONTROL, DEFAULT_STATE, Deadman, EndpointSessions, Group, Host,
    METRICS, Policy, Session,
};
pub use scope::{GroupIndex, Scope, ScopeIndex, ScopeLabel, ScopeName, Scopes, SessionIndex, UnknownScope};
pub use text::{AbsolutePath, CompId, Interface, MessageSize, MsgType, Name, PolicyName, User};
pub use words::{
    CancelOnDisconnect, DeadmanAction, Hook, Inbound, Mode, OnDesync, OnTableFull, OnTrip, PossDup,
    UncleanBoot, Undeclared, WhileTripped, WireFormat, Word,
};

use diagnostics::{Lines, Problem, Problems};
use reader::Section;

/// Default path of the configuration file.
pub const DEFAULT_PATH: &str = "/etc/breaker/breaker.toml";

/// Longest file that is read, in bytes: twice the size of a file with the maximum number of sessions.
const LONGEST: u64 = 4 << 20;

/// Most errors that are listed one by one.
const MAX_ERRORS: usize = 5_000;

/// A policy and the file it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Path of the file, as given.
    pub path: PathBuf,
    /// The policy in the file.
    pub policy: Policy,
}

/// Reads a configuration file.
///
/// # Errors
/// If the file cannot be read: is no regular file, is longer than 4 MiB, is not UTF-8, or is refused by
/// [`parse`].
pub fn load(path: &Path) -> Result<Loaded, ConfigErrors> {
    let name = path.display().to_string();
    let refuse = |found: &str, remedy| ConfigErrors::new(Diagnostics::about_file(&name, found, remedy));
    let mut bytes = Vec::new();
    file::open(OpenOptions::new().read(true), path)
        .and_then(|file| Ok(file.take(LONGEST + 1).read_to_end(&mut bytes)?))
        .map_err(|error| {
            let found = format!("cannot be read: {}", error.root_cause());
            refuse(&found, "name a regular file that you may read with --config")
        })?;
    if bytes.len() as u64 > LONGEST {
        return Err(refuse("is longer than 4 MiB", "name a configuration file with --config"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let valid = String::from_utf8_lossy(&bytes);
        let at = error.valid_up_to();
        let problem =
            Problem::new(at..at, "configuration", "bytes that are not UTF-8", "save the file as UTF-8");
        ConfigErrors::new(Diagnostics::new(&name, &valid, Severity::Error, vec![problem]))
    })?;
    parse(&name, text).map(|policy| Loaded { path: path.to_owned(), policy })
}

/// Parses a configuration. `file_name` appears in messages only.
///
/// # Errors
/// If the text is not TOML or breaks a rule: every error in it, in the order of the file.
pub fn parse(file_name: &str, text: &str) -> Result<Policy, ConfigErrors> {
    let (document, syntax) = DeTable::parse_recoverable(text);
    let mut problems = Problems::default();
    let mut read = read::read(Section::new(String::new(), 0..0, document.get_ref()), &mut problems);
    check::check(&mut read, &mut problems);
    let errors = truncate(MAX_ERRORS, merge_syntax_errors(text, &syntax, problems.errors));
    let (Some(host), []) = (read.host, errors.as_slice()) else {
        return Err(ConfigErrors::new(Diagnostics::new(file_name, text, Severity::Error, errors)));
    };
    let groups: Vec<Group> = read.groups.into_iter().map(|(group, _)| group).collect();
    let sessions: Vec<Session> = read.sessions.into_iter().map(|declared| declared.session).collect();
    let scopes = Scopes::new(
        groups.iter().map(|group| group.name.clone()).collect(),
        sessions.iter().map(|session| session.name.clone()).collect(),
    );
    Ok(Policy {
        name: read.name,
        sha256: Sha256::digest(text).into(),
        text: text.into(),
        host,
        agent: read.agent,
        people: read.people,
        fleet: read.fleet,
        groups,
        sessions,
        scopes,
        warnings: Diagnostics::new(file_name, text, Severity::Warning, problems.warnings),
    })
}

/// Keeps the first `max` errors and counts the rest: a file in another format has an error in every line.
fn truncate(max: usize, mut errors: Vec<Problem>) -> Vec<Problem> {
    let more = errors.len().saturating_sub(max);
    if let Some(next) = errors.get(max).map(|next| next.span.clone()) {
        errors.truncate(max);
        errors.push(Problem::new(
            next,
            "configuration",
            &format!("{more} more errors"),
            "correct the errors above first",
        ));
    }
    errors
}

/// Merges the syntax errors and the other errors.
///
/// The parser continues after a syntax error, but its view of that line and of later lines is unreliable.
/// Each line therefore gets one syntax error. Other errors count only above the first syntax error, and
/// errors about missing keys do not count at all.
fn merge_syntax_errors(text: &str, syntax: &[toml::de::Error], others: Vec<Problem>) -> Vec<Problem> {
    let lines = Lines::new(text);
    let mut errors: Vec<Problem> = syntax
        .iter()
        .map(|error| {
            let span = error.span().unwrap_or_default();
            Problem::new(span, "TOML syntax", error.message(), "correct this line")
        })
        .collect();
    errors.sort_by_key(|error| error.span.start);
    errors.dedup_by_key(|error| lines.index(error.span.start));
    let Some(first) = errors.first().map(|error| lines.index(error.span.start)) else { return others };
    let reliable = |problem: &Problem| !problem.absence && lines.index(problem.span.start) < first;
    errors.extend(others.into_iter().filter(reliable));
    errors
}
