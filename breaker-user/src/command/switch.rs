//! `breaker arm`, `disarm`, `trip`, `reset`: each changes the kernel's state, reads it back, and prints what it read.

use std::process::ExitCode;

use anyhow::Result;
use breaker_common::abi::cause;
use serde_json::{Value, json};

use super::say;
use crate::cli::SwitchArgs;
use crate::config::ScopeIndex;
use crate::fault::{Code, Fault};
use crate::journal;
use crate::kernel::{Breaker, PinRoot};
use crate::view::{self, status::causes};

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
    show(&breaker, scope, args, json!({}), "")
}

/// Trips a scope, and ends its idle connections too.
pub fn trip(root: &PinRoot, args: &SwitchArgs) -> Result<ExitCode> {
    let (breaker, scope) = open(root, args)?;
    breaker.trip(scope, cause::MANUAL)?;
    // The switch is thrown: whatever fails from here on, no order of the scope passes.
    let state = breaker.scope(scope)?;
    if state.switch.causes & cause::MANUAL == 0 {
        return Err(
            Fault::new(Code::Unexpected, format!("tripping {}: the kernel does not have it", args.scope)).into()
        );
    }
    let sessions = breaker.sessions_to_end(scope)?;
    let (destroyed, warning) = match breaker.destroy_sockets(&sessions) {
        Ok(count) => (count, String::new()),
        Err(error) => (0, format!("; idle connections were not ended ({error:#}): they are at their next message")),
    };
    let counts = json!({ "epoch": state.switch.epoch, "connections_ended": destroyed });
    journal::note(&breaker, "tripped", Some((scope, cause::MANUAL)), Some(&args.reason), counts.clone());
    show(&breaker, scope, args, counts, &format!("{destroyed} connections ended{warning}"))
}

/// Resets a scope, where that is safe.
pub fn reset(root: &PinRoot, args: &SwitchArgs) -> Result<ExitCode> {
    let (breaker, scope) = open(root, args)?;
    let _lock = root.lock()?;
    let held = breaker.scope(scope)?.switch.causes;
    if let Some((found, cure)) = objection(&breaker, scope, held)? {
        journal::note(&breaker, "reset_refused", Some((scope, held)), Some(&args.reason), json!({ "found": found }));
        return Err(refused(args, "resetting", &found, &cure));
    }
    breaker.reset(scope, held)?;
    let fenced: u64 = {
        let counts = breaker.connection_counts()?;
        let of = breaker.sessions_of(scope)?;
        of.iter().filter_map(|session| counts.get(session.get() as usize)).map(|count| count.fenced).sum()
    };
    let after = breaker.scope(scope)?;
    if after.switch.causes & held != 0 {
        let text =
            format!("resetting {}: it tripped again at once ({})", args.scope, causes(after.switch.causes).join(", "));
        return Err(Fault::new(Code::Refused, text).into());
    }
    let counts = json!({ "epoch": after.switch.epoch, "connections_fenced": fenced });
    journal::note(&breaker, "reset", Some((scope, held)), Some(&args.reason), counts.clone());
    let told = format!("{fenced} connections are fenced and must reconnect; what they had queued is dead");
    show(&breaker, scope, args, counts, &told)
}

/// Why a reset is refused, and what to do about it.
fn objection(breaker: &Breaker, scope: ScopeIndex, held: u64) -> Result<Option<(String, String)>> {
    if held == 0 {
        return Ok(Some(("it is not tripped".to_owned(), "see `breaker status`".to_owned())));
    }
    let state = breaker.scope(scope)?;
    for (limit, used) in state.limits.iter().zip(breaker.used(scope)?) {
        if limit.per_ns != 0 && used >= limit.max {
            let (class, per) = (view::status::class_name(limit.class), view::status::per(limit));
            let found = format!(
                "its rate is still at the limit: {used} {class} messages in the last {per}, where {} may cross",
                limit.max
            );
            return Ok(Some((found, format!("wait {per} and see that the sender has stopped"))));
        }
    }
    let program = breaker.program()?;
    if program.tag() != breaker.meta().program_tag {
        let found =
            format!("the program is {:016x}, where {:016x} was armed", program.tag(), breaker.meta().program_tag);
        return Ok(Some((found, "unload --force, and load what you trust".to_owned())));
    }
    let detached = breaker.attachments()?.into_iter().find(|interface| !interface.attached || !interface.first);
    Ok(detached.map(|interface| {
        let what = if interface.attached { "displaced by another program" } else { "detached" };
        (format!("the hook on {} is {what}", interface.name), "see `breaker status` and load again".to_owned())
    }))
}

fn open(root: &PinRoot, args: &SwitchArgs) -> Result<(Breaker, ScopeIndex)> {
    let breaker = Breaker::open(root)?;
    let scope = breaker.find(&args.scope)?;
    if args.reason.trim().is_empty() {
        let text = "reading --reason: it is empty: say why, for the audit log".to_owned();
        return Err(Fault::new(Code::Usage, text).into());
    }
    Ok((breaker, scope))
}

fn refused(args: &SwitchArgs, verb: &str, found: &str, cure: &str) -> anyhow::Error {
    Fault::new(Code::Refused, format!("{verb} {}: refused, nothing is changed: {found}: {cure}", args.scope)).into()
}

/// Prints the scope as the kernel now has it.
fn show(breaker: &Breaker, scope: ScopeIndex, args: &SwitchArgs, counts: Value, told: &str) -> Result<ExitCode> {
    let status = view::Status::read(breaker, Some(scope))?;
    for state in &status.scopes {
        let text = if args.json {
            serde_json::to_string_pretty(&json!({ "scope": state, "counts": counts }))?
        } else if told.is_empty() {
            view::table::scope(state)
        } else {
            format!("{}; {told}", view::table::scope(state))
        };
        say(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}
