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
use crate::display;
use crate::journal::{self, Action};
use crate::kernel::disconnect::Selection;
use crate::kernel::{Breaker, PinRoot, Reset, recorded};
use crate::state::{self, Act};

/// A sender counts as stopped if none of its segments was withheld for this long, in ns.
const STOPPED_NS: u64 = 5_000_000_000;

/// Resets a scope if this is safe.
pub fn run(root: &PinRoot, asked: &ResetArgs) -> Result<ExitCode> {
    let ResetArgs { switch: args, force, .. } = asked;
    open(root, args)?;
    let _lock = root.lock()?;
    // Opened again, because a reload may have held the lock: the checks are against the policy in force.
    let (breaker, scope) = open(root, args)?;
    let before = breaker.switch(scope)?;
    let action = |kind, counts| Action {
        kind,
        scope: Some(&args.scope),
        causes: before.causes,
        reason: Some(&args.reason),
        counts,
    };
    if let Some((found, cure)) = objection(&breaker, scope, before.causes, *force)? {
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
        reset_switch(&breaker, args, scope, before)
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

/// Resets the switch of a scope, unless it has tripped since it was checked.
fn reset_switch(breaker: &Breaker, args: &SwitchArgs, scope: ScopeIndex, checked: Switch) -> Result<()> {
    match breaker.reset(scope, checked)? {
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

/// Fails if a scope that was reset has tripped again.
fn require_untripped(breaker: &Breaker, args: &SwitchArgs, scope: ScopeIndex) -> Result<()> {
    if breaker.switch(scope)?.causes == 0 {
        return Ok(());
    }
    let text =
        format!("resetting {}: it was reset, and has tripped again since: see `breaker status`", args.scope);
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

/// What was found that makes a reset unsafe, and what to do; `None` if it is safe.
fn objection(
    breaker: &Breaker,
    scope: ScopeIndex,
    causes: u64,
    force: bool,
) -> Result<Option<(String, String)>> {
    if causes == 0 {
        return Ok(Some(("it is not tripped".to_owned(), "run `breaker status` to see what is".to_owned())));
    }
    if let Some((after, age)) = breaker.heartbeat_silence_ns()?
        && causes & cause::DEADMAN != 0
        && age > after
    {
        let (after, age) = (display::duration(after), age / 1_000_000);
        let found = format!("the agent has been silent for {age} ms, and the policy allows {after}");
        let cure = "start `breaker agent`: without it, the next message trips the scope again";
        return Ok(Some((found, cure.to_owned())));
    }
    let program = breaker.program()?;
    if !recorded::is_recorded(breaker.root(), &program)? {
        let (tag, loaded_tag) = (program.tag(), breaker.meta().program_tag);
        let found = format!("the attached program is {tag:016x}, and {loaded_tag:016x} was loaded");
        return Ok(Some((
            found,
            "run `breaker unload --force`, and load a program that you trust".to_owned(),
        )));
    }
    // A person may override this objection alone. A full window without a recent sender is no objection.
    if force { Ok(None) } else { sender_not_stopped(breaker, scope) }
}

/// Objects to a reset if a limit is reached and the sender has not stopped.
fn sender_not_stopped(breaker: &Breaker, scope: ScopeIndex) -> Result<Option<(String, String)>> {
    let limits = breaker.limits(scope)?;
    let full = limits.into_iter().find(|found| found.limit.per_ns != 0 && found.used >= found.limit.max);
    let Some(full) = full else { return Ok(None) };
    let Some(age) = breaker.withheld_age_ns(scope)?.filter(|age| *age < STOPPED_NS) else {
        return Ok(None);
    };
    let found = format!(
        "its rate is at the limit, {} {} messages in the last {}, and its sender has not stopped: a segment \
         was withheld \
         {} ms ago",
        full.used,
        display::class(full.limit.class),
        display::interval(&full.limit),
        age / 1_000_000
    );
    let cure = "stop the sender and wait 5s, or reset with --force, which is logged";
    Ok(Some((found, cure.to_owned())))
}
