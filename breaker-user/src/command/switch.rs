//! `breaker arm`, `disarm`, `trip`, `reset`: each changes the kernel's state, reads it back, and prints what it read.

use std::process::ExitCode;

use anyhow::{Context, Result};
use breaker_common::abi::{cause, mode};
use serde_json::{Value, json};

use super::{in_force, say};
use crate::cli::SwitchArgs;
use crate::config::ScopeIndex;
use crate::enforced::Enforced;
use crate::fault::{Code, Fault};
use crate::kernel::disconnect::Ended;
use crate::kernel::{Breaker, PinRoot, Switchboard};
use crate::view::{self, status::causes};
use crate::{audit, journal};

/// Arms or disarms a scope. A tripped scope stays as it is.
pub fn arm(root: &PinRoot, args: &SwitchArgs, armed: bool) -> Result<ExitCode> {
    let (breaker, scope) = open(root, args)?;
    let verb = if armed { "arming" } else { "disarming" };
    let held = breaker.scope(scope)?.switch.causes;
    if !armed && held != 0 {
        return Err(refused(args, verb, &format!("it is tripped ({})", causes(held).join(", ")), "reset it first"));
    }
    breaker.set_armed(scope, armed)?;
    if (breaker.scope(scope)?.armed != 0) != armed {
        return Err(
            Fault::new(Code::Unexpected, format!("{verb} {}: the kernel still says otherwise", args.scope)).into()
        );
    }
    journal::note(&breaker, if armed { "armed" } else { "disarmed" }, Some((scope, 0)), Some(&args.reason), json!({}));
    let code = show(&breaker, scope, args, json!({}), "")?;
    // A scope that was to be disarmed holds nothing.
    Ok(if armed { code } else { ExitCode::SUCCESS })
}

/// Trips a scope, and ends its idle connections too.
pub fn trip(root: &PinRoot, args: &SwitchArgs) -> Result<ExitCode> {
    let (board, scope) = throw(root, args)?;
    // The switch is thrown: whatever fails from here on, no order of the scope passes.
    let breaker = Breaker::of(board).with_context(|| format!("{} is tripped; looking at the rest", args.scope))?;
    let (ended, told) = if breaker.meta().mode == mode::INLINE {
        (0, "connections end at their next message".to_owned())
    } else {
        match end(&breaker, scope, Ended::All) {
            Ok(count) => (count, format!("connections ended: {count}")),
            Err(error) => (0, format!("idle connections were not ended ({error:#}): they are at their next message")),
        }
    };
    let switch = breaker.switch(scope)?;
    let counts = json!({ "epoch": switch.epoch, "connections_ended": ended });
    journal::note(&breaker, "tripped", Some((scope, cause::MANUAL)), Some(&args.reason), counts.clone());
    let shown = show(&breaker, scope, args, counts, &told)?;
    if switch.causes & cause::MANUAL == 0 {
        let text =
            format!("tripping {}: it was tripped, and somebody has reset it since: see `breaker events`", args.scope);
        return Err(Fault::new(Code::Unexpected, text).into());
    }
    Ok(shown)
}

/// Ends connections of a scope's sessions, and returns how many.
fn end(breaker: &Breaker, scope: ScopeIndex, which: Ended) -> Result<usize> {
    let sessions = breaker.with_resets(breaker.sessions_of(scope)?)?;
    breaker.end_sockets(&sessions, which)
}

/// Throws a scope's switch, before anything else is opened or read.
fn throw(root: &PinRoot, args: &SwitchArgs) -> Result<(Switchboard, ScopeIndex)> {
    let board = Switchboard::open(root)?;
    let scope = board.find(&args.scope)?;
    board.trip(scope, cause::MANUAL)?;
    Ok((board, scope))
}

/// Resets a scope, where that is safe.
pub fn reset(root: &PinRoot, args: &SwitchArgs) -> Result<ExitCode> {
    open(root, args)?;
    let _lock = root.lock()?;
    // Anew, for a reload may have held the lock: what speaks against the reset goes by the policy in force.
    let (breaker, scope) = open(root, args)?;
    let seen = breaker.switch(scope)?;
    // Nothing may pass again unseen.
    if let Err(error) = audit::reserve(&journal::path(&breaker)) {
        let found = format!("the audit log cannot be written ({error:#})");
        return Err(refused(args, "resetting", &found, "make room, or see to [agent].audit"));
    }
    let refuse = |found: String, cure: &str| {
        let about = Some((scope, seen.causes));
        journal::note(&breaker, "reset_refused", about, Some(&args.reason), json!({ "found": found }));
        Err(refused(args, "resetting", &found, cure))
    };
    if let Some((found, cure)) = objection(&breaker, scope, seen.causes)? {
        return refuse(found, &cure);
    }
    if !breaker.reset(scope, seen)? {
        return refuse("it tripped again meanwhile".to_owned(), "see `breaker status`, and decide anew");
    }
    let fenced: u64 = {
        let counts = breaker.connection_counts()?;
        let of = breaker.sessions_of(scope)?;
        of.iter().filter_map(|session| counts.get(session.get() as usize)).map(|count| count.fenced).sum()
    };
    let inline = breaker.meta().mode == mode::INLINE;
    let (ended, told) = match if inline { Ok(0) } else { end(&breaker, scope, Ended::Fenced) } {
        Ok(count) => (count, format!("connections ended: {count}")),
        Err(error) => (0, format!("none was ended ({error:#}): they are at their next message")),
    };
    let epoch = breaker.switch(scope)?.epoch;
    let counts = json!({ "epoch": epoch, "connections_fenced": fenced, "connections_ended": ended });
    journal::note(&breaker, "reset", Some((scope, seen.causes)), Some(&args.reason), counts.clone());
    let told = format!("connections fenced: {fenced}, and what they had queued is dead; {told}");
    show(&breaker, scope, args, counts, &told)
}

/// Why a reset is refused, and what to do about it.
fn objection(breaker: &Breaker, scope: ScopeIndex, held: u64) -> Result<Option<(String, String)>> {
    if held == 0 {
        return Ok(Some(("it is not tripped".to_owned(), "`breaker status` lists what is".to_owned())));
    }
    for found in breaker.limits(scope)? {
        let limit = &found.limit;
        if limit.per_ns != 0 && found.used >= limit.max {
            let (class, per) = (view::status::class_name(limit.class), view::status::per(limit));
            let found = format!(
                "its rate is still at the limit: {} {class} messages in the last {per}, where {} may cross",
                found.used, limit.max
            );
            return Ok(Some((found, format!("wait {per} and see that the sender has stopped"))));
        }
    }
    if let Some((after, age)) = breaker.silence_ns()?
        && held & cause::DEADMAN != 0
        && age > after
    {
        let (after, age) = (view::status::duration(after), age / 1_000_000);
        let found = format!("the agent is still silent, for {age} ms where the policy allows {after}");
        return Ok(Some((found, "start `breaker agent`, or the next message would trip it again".to_owned())));
    }
    let program = breaker.program()?;
    if program.tag() != breaker.meta().program_tag {
        let found =
            format!("the program is {:016x}, where {:016x} was armed", program.tag(), breaker.meta().program_tag);
        return Ok(Some((found, "unload --force, and load what you trust".to_owned())));
    }
    Ok(None)
}

fn open(root: &PinRoot, args: &SwitchArgs) -> Result<(Breaker, ScopeIndex)> {
    let breaker = Breaker::open(root)?;
    let scope = breaker.find(&args.scope)?;
    Ok((breaker, scope))
}

fn refused(args: &SwitchArgs, verb: &str, found: &str, cure: &str) -> anyhow::Error {
    Fault::new(Code::Refused, format!("{verb} {}: refused, nothing is changed: {found}: {cure}", args.scope)).into()
}

/// Prints the scope as the kernel now has it.
fn show(breaker: &Breaker, scope: ScopeIndex, args: &SwitchArgs, counts: Value, told: &str) -> Result<ExitCode> {
    let state = view::status::scope(breaker, scope)?;
    let enforced = Enforced::read(breaker);
    say(&if args.json {
        serde_json::to_string_pretty(&json!({ "scope": state, "counts": counts, "enforced": enforced }))?
    } else if told.is_empty() {
        view::table::scope(&state)
    } else {
        format!("{}; {told}", view::table::scope(&state))
    })?;
    Ok(in_force(&enforced))
}
