//! `breaker reset`.

use std::process::ExitCode;

use anyhow::Result;
use breaker_common::abi::{Switch, cause, flag, mode};
use serde_json::json;

use super::consent;
use super::scope::{Outcome, disconnect, not_durable, open, perform_logged, refused, require_state, show};
use crate::cli::{ResetArgs, SwitchArgs};
use crate::cli_error::{CliError, Code};
use crate::config::ScopeIndex;
use crate::journal::{self, Action};
use crate::kernel::disconnect::Selection;
use crate::kernel::{Breaker, PinRoot, Reset};
use crate::reset::objection;
use crate::state::{self, Act};

/// Resets a scope if this is safe.
pub fn run(root: &PinRoot, asked: &ResetArgs) -> Result<ExitCode> {
    let ResetArgs { switch: args, force, .. } = asked;
    open(root, args)?;
    let _lock = root.lock()?;
    // Opened again, because a reload may have held the lock: the checks are against the policy in force.
    let (breaker, scope) = open(root, args)?;
    let before = breaker.switch(scope)?;
    // The fleet resets its own trips. Root may break the glass where the fleet is gone.
    let clears = if asked.break_glass { u64::MAX } else { !cause::FLEET };
    let action = |kind, counts| Action {
        kind,
        scope: Some(&args.scope),
        causes: before.causes & clears,
        reason: Some(&args.reason),
        counts,
    };
    let objection = match before.causes {
        cause::FLEET if clears & cause::FLEET == 0 => Some(fleet_objection(args)),
        causes => objection(&breaker, scope, causes, *force)?,
    };
    if let Some((found, cure)) = objection {
        journal::log_after(&breaker, &action("reset_refused", json!({ "found": found })));
        return Err(refused(args, "resetting", &found, &cure));
    }
    let consent = consent::obtain(&breaker, asked, before.epoch)?;
    require_state(&breaker, args, "resetting")?;
    let fenced = open_connections(&breaker, scope)?;
    let mut counts = json!({ "epoch": before.epoch + 1, "connections_fenced": fenced, "forced": force });
    if let Some(first) = &consent {
        counts["requested_by"] = json!({ "user": first.user, "uid": first.uid, "reason": first.reason });
    }
    let action = action("reset", counts.clone());
    perform_logged(&breaker, ("resetting", "reset_refused"), &action, || {
        reset_switch(&breaker, args, scope, (before, clears))
    })?;
    if consent.is_some() {
        consent::withdraw(&breaker, args);
    }
    let saved = state::save(&breaker, Act::Changed);
    let (disconnected, text) = end_fenced(&breaker, scope);
    let mut details =
        format!("connections fenced: {fenced}, and their queued orders will never pass; {text}");
    if blocks_replays(&breaker, scope)? {
        details += REPLAY_ADVICE;
    }
    counts["connections_ended"] = disconnected.into();
    let shown = show(&breaker, scope, args.json, Outcome { counts, details, explanation: None });
    saved.map_err(|error| not_durable(args, "resetting", &error))?;
    require_untripped(&breaker, args, scope)?;
    shown
}

/// The objection to the reset of a trip of the fleet.
fn fleet_objection(args: &SwitchArgs) -> (String, String) {
    let cure = format!(
        "`breaker fleet status` shows its scope, and `breaker fleet reset` lifts it; where the fleet is \
         gone, root runs `breaker reset {} --break-glass`",
        args.scope
    );
    ("the fleet tripped it".to_owned(), cure)
}

/// Resets the switch of a scope, unless it has tripped since it was checked.
fn reset_switch(
    breaker: &Breaker,
    args: &SwitchArgs,
    scope: ScopeIndex,
    (checked, clears): (Switch, u64),
) -> Result<()> {
    match breaker.reset(scope, checked, clears)? {
        Reset::Done | Reset::TrippedAgain => Ok(()),
        Reset::Refused => {
            let cure = "see `breaker status`, and decide again";
            Err(refused(args, "resetting", "it has tripped again since the check", cure))
        }
    }
}

/// Ends the fenced connections of a scope. Returns their number and a text about the result.
fn end_fenced(breaker: &Breaker, scope: ScopeIndex) -> (usize, String) {
    let inline = breaker.meta().mode == mode::INLINE;
    let result = if inline { Ok(0) } else { disconnect(breaker, scope, Selection::Fenced) };
    match result {
        Ok(count) => (count, format!("connections ended: {count}")),
        Err(error) => (0, format!("none was ended ({error:#}): they end at their next message")),
    }
}

/// Fails if a scope that was reset is tripped: again, or still by the fleet.
fn require_untripped(breaker: &Breaker, args: &SwitchArgs, scope: ScopeIndex) -> Result<()> {
    let found = match breaker.switch(scope)?.causes {
        0 => return Ok(()),
        cause::FLEET => "it stays tripped by the fleet: `breaker fleet reset` lifts that",
        _ => "it has tripped again since: see `breaker status`",
    };
    let text = format!("resetting {}: it was reset, and {found}", args.scope);
    Err(CliError::new(Code::Unexpected, text).into())
}

/// Advice about engines that resend their queued orders after a reset.
const REPLAY_ADVICE: &str = "
an engine that keeps its messages resends them with PossDupFlag=Y, which trips the scope again until \
midnight UTC: \
make the engine drop them (a sequence reset agreed with the venue; QuickFIX: PersistMessages=N), or set \
possdup = \"pass\" and reload to let them pass";

/// Returns true if resent orders would trip a session of the scope.
fn blocks_replays(breaker: &Breaker, scope: ScopeIndex) -> Result<bool> {
    let sessions = breaker.sessions_of(scope)?;
    let flags = sessions.into_iter().map(|session| breaker.session(session).map(|found| found.flags));
    Ok(flags.collect::<Result<Vec<_>>>()?.into_iter().any(|flags| flags & flag::REPLAYS_PASS == 0))
}

/// Number of connections of a scope that are fenced, or that a reset would fence.
fn open_connections(breaker: &Breaker, scope: ScopeIndex) -> Result<u64> {
    let counts = breaker.connection_counts()?;
    let sessions = breaker.sessions_of(scope)?;
    let counts = sessions.iter().filter_map(|session| counts.get(session.get() as usize));
    Ok(counts.map(|count| count.fenced + count.live).sum())
}
