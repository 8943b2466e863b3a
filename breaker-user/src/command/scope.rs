//! Parts of the verbs that change one scope: `arm`, `disarm`, `trip`, `reset`.
//!
//! Each verb changes the kernel's state, reads the state back, and prints what it read.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};

use super::output::{enforcement_code, is_output_closed, print};
use crate::cli::SwitchArgs;
use crate::cli_error::{CliError, Code};
use crate::config::ScopeIndex;
use crate::enforced::Enforced;
use crate::journal::{self, Action};
use crate::kernel::disconnect::Selection;
use crate::kernel::text::trim_padding;
use crate::kernel::{Breaker, PinRoot};
use crate::load_log::LoadLog;
use crate::state::{self, Act};
use crate::view::{self, Explanation, explanation_text};

/// Opens the load and finds the scope.
pub fn open(root: &PinRoot, args: &SwitchArgs) -> Result<(Breaker, ScopeIndex)> {
    let breaker = Breaker::open(root)?;
    let scope = breaker.find(&args.scope)?;
    Ok((breaker, scope))
}

/// Logs an action and performs it. Logs a failure as an event of the kind `failure_kind`.
pub fn perform_logged(
    breaker: &Breaker,
    (doing, failure_kind): (&str, &str),
    action: &Action,
    perform: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let log = LoadLog::open(breaker);
    let entry = action.entry(trim_padding(&breaker.policy().name));
    journal::log_before(&log, &format!("{doing} {}", action.scope.unwrap_or("host")), entry.clone())?;
    perform().inspect_err(|error| journal::log_failure(&log, failure_kind, &entry, error))
}

/// Refuses an action that loosens, if the state file cannot record it: a reboot would undo the action.
pub fn require_state(breaker: &Breaker, args: &SwitchArgs, doing: &str) -> Result<()> {
    state::save(breaker, Act::Changed).map_err(|error| {
        let found = format!("the state file cannot be written ({error:#})");
        refused(args, doing, &found, "free space, or correct [agent].state")
    })
}

/// The error of an action that the kernel has performed and the state file does not contain.
pub fn not_durable(args: &SwitchArgs, doing: &str, error: &anyhow::Error) -> anyhow::Error {
    let text = format!(
        "{doing} {}: done in the kernel, but the state file does not contain it: {error:#}: a reboot would \
         undo it: free space, or correct [agent].state; the agent, or the next verb that changes a scope, \
         writes the file",
        args.scope
    );
    CliError::new(Code::Unexpected, text).into()
}

/// Disconnects connections of a scope's sessions, and returns their number.
pub fn disconnect(breaker: &Breaker, scope: ScopeIndex, selection: Selection) -> Result<usize> {
    let sessions = breaker.with_tcp_resets(breaker.sessions_of(scope)?)?;
    breaker.disconnect(&sessions, selection)
}

/// The error of a refused action: what was found, and what to do.
pub fn refused(args: &SwitchArgs, doing: &str, found: &str, cure: &str) -> anyhow::Error {
    let text = format!("{doing} {}: refused, nothing is changed: {found}: {cure}", args.scope);
    CliError::new(Code::Refused, text).into()
}

/// What an action reports besides the scope.
#[derive(Default)]
pub struct Outcome {
    /// Counts, for JSON.
    pub counts: Value,
    /// Text behind the scope; empty for none.
    pub details: String,
    /// The effects of a trip.
    pub explanation: Option<Explanation>,
}

/// Prints the scope as read from the kernel, and the outcome of the action. Returns the exit code.
pub fn show(breaker: &Breaker, scope: ScopeIndex, json: bool, outcome: Outcome) -> Result<ExitCode> {
    let Outcome { counts, details, explanation } = outcome;
    let state = view::scope::scope(breaker, scope)?;
    let enforced = Enforced::read(breaker, journal::problem(breaker));
    let text = if json {
        let mut shown = json!({ "scope": state, "counts": counts, "enforced": enforced });
        if let Some(explanation) = explanation {
            shown["explanation"] = serde_json::to_value(explanation)?;
        }
        serde_json::to_string_pretty(&shown)?
    } else if details.is_empty() {
        view::table::scope(&state)
    } else {
        let effects = explanation.map(|effects| format!("\n{}", explanation_text::text(&effects, true)));
        format!("{}; {details}{}", view::table::scope(&state), effects.unwrap_or_default())
    };
    match print(&text) {
        // The exit code still says whether the scope is enforced.
        Err(error) if is_output_closed(&error) => {}
        result => result?,
    }
    Ok(enforcement_code(&enforced))
}
