//! `breaker trip`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use breaker_common::abi::{cause, mode};
use serde_json::{Value, json};

use super::explain;
use super::other_layout;
use super::output::{not_saved, warn};
use super::scope::{Outcome, disconnect, show};
use crate::cli::TripArgs;
use crate::cli_error::{self, CliError, Code};
use crate::config::ScopeIndex;
use crate::journal::{self, Action};
use crate::kernel::disconnect::Selection;
use crate::kernel::frozen::FrozenBoard;
use crate::kernel::{Breaker, PinRoot, Switchboard};
use crate::state::{self, Saved};
use crate::view::Explanation;

/// Trips a scope, then disconnects its connections, idle ones included.
pub fn run(root: &PinRoot, args: &TripArgs) -> Result<ExitCode> {
    if args.explain {
        return explain::run(root, args);
    }
    let (board, scope) = match set_switch(root, args) {
        Err(refusal) if cli_error::code_of(&refusal) == Code::Mismatch => {
            return match FrozenBoard::open(root) {
                Ok(board) => other_layout::trip(root, args, &board, refusal),
                Err(_) => Err(refusal),
            };
        }
        tripped => tripped?,
    };
    // From here on no order of the scope passes, whatever fails below.
    let (reason, problem) = args.reason();
    let log = |board: &Switchboard, mut counts: Value| {
        if let Some(problem) = &problem {
            counts["reason_replaced"] = problem.as_str().into();
        }
        let action = Action {
            kind: "tripped",
            scope: Some(&args.scope),
            causes: cause::MANUAL,
            reason: Some(&reason),
            counts: counts.clone(),
        };
        journal::log_after(board, &action);
        counts
    };
    let breaker = Breaker::from_switchboard(board).inspect_err(|_| {
        if let Ok(board) = Switchboard::open(root) {
            log(&board, json!({}));
        }
    });
    let breaker = breaker.with_context(|| format!("{} is tripped; reading its state", args.scope))?;
    // Read before the connections end. Everything else of the explanation waits until the trip is logged.
    let connections = breaker.sessions_of(scope).and_then(|sessions| breaker.open_connections(&sessions));
    let (disconnected, mut details) = disconnect_all(&breaker, scope);
    if let Some(problem) = &problem {
        details = format!("{details}; its reason: {problem}: logged as {reason:?}");
    }
    let switch = breaker.switch(scope)?;
    let counts = log(&breaker, json!({ "epoch": switch.epoch, "connections_ended": disconnected }));
    save_trip(&breaker, &args.scope);
    // A failure does not stop the trip.
    let explanation = connections
        .and_then(|connections| Explanation::of(&breaker, scope, &connections))
        .inspect_err(|error| warn(&format!("breaker: {} is tripped; its effects: {error:#}", args.scope)))
        .ok();
    let shown = show(&breaker, scope, args.json, Outcome { counts, details, explanation });
    if switch.causes & cause::MANUAL == 0 {
        let text = format!("tripping {}: it was tripped, and reset since: see `breaker events`", args.scope);
        return Err(CliError::new(Code::Unexpected, text).into());
    }
    shown
}

/// Writes a trip to the state file. A failure neither fails nor delays the trip.
fn save_trip(breaker: &Breaker, scope: &str) {
    match state::save_in_background(breaker) {
        Ok(Saved::Done) => {}
        Ok(Saved::Later) => warn(&format!(
            "breaker: {scope} is tripped, and the state file is not written yet: a background process writes \
             it: see `breaker status`"
        )),
        Err(error) => warn(&not_saved(&format!("{scope} is tripped"), &error)),
    }
}

/// Trips the scope before anything else is opened or read.
fn set_switch(root: &PinRoot, args: &TripArgs) -> Result<(Switchboard, ScopeIndex)> {
    let board = Switchboard::open(root)?;
    let scope = board.find(&args.scope)?;
    board.trip(scope, cause::MANUAL)?;
    Ok((board, scope))
}

/// Disconnects all connections of a scope. Returns their number and a text about them.
fn disconnect_all(breaker: &Breaker, scope: ScopeIndex) -> (usize, String) {
    if breaker.meta().mode == mode::INLINE {
        return (0, "connections end at their next message".to_owned());
    }
    match disconnect(breaker, scope, Selection::All) {
        Ok(count) => (count, format!("connections ended: {count}")),
        Err(error) => {
            (0, format!("idle connections were not ended ({error:#}): they end at their next message"))
        }
    }
}
