//! `breaker arm`, `disarm`, `trip`, `reset`: each changes the kernel's state, reads it back, and prints what it read. The line in the log
//! comes before the deed; of a trip, after it.

use std::process::ExitCode;

use anyhow::{Context, Result};
use breaker_common::abi::{cause, flag, mode};
use serde_json::{Value, json};

use super::{in_force, say};
use crate::cli::{ResetArgs, SwitchArgs, TripArgs};
use crate::cli_error::{CliError, Code};
use crate::config::ScopeIndex;
use crate::enforced::Enforced;
use crate::journal::{self, Deed};
use crate::kernel::disconnect::Selection;
use crate::kernel::tables::trim_padding;
use crate::kernel::{Breaker, PinRoot, Reset, Switchboard};
use crate::view::{self, status::causes};

/// A sender has stopped where nothing of it was withheld for so long, ns.
const STOPPED_NS: u64 = 5_000_000_000;

/// Arms or disarms a scope. A tripped scope stays as it is.
pub fn arm(root: &PinRoot, args: &SwitchArgs, armed: bool) -> Result<ExitCode> {
    let (breaker, scope) = open(root, args)?;
    let verb = if armed { "arming" } else { "disarming" };
    let held = breaker.scope(scope)?.switch.causes;
    if !armed && held != 0 {
        return Err(refused(
            args,
            verb,
            &format!("it is tripped ({})", causes(held).join(", ")),
            "reset it first",
        ));
    }
    let (kind, failed) = if armed { ("armed", "arming_failed") } else { ("disarmed", "disarming_failed") };
    let deed = Deed { kind, about: Some((&args.scope, 0)), reason: Some(&args.reason), counts: json!({}) };
    logged(&breaker, (verb, failed), &deed, || {
        breaker.set_armed(scope, armed)?;
        if (breaker.scope(scope)?.armed != 0) == armed {
            return Ok(());
        }
        let text = format!("{verb} {}: the kernel still says otherwise", args.scope);
        Err(CliError::new(Code::Unexpected, text).into())
    })?;
    let code = show(&breaker, scope, args.json, json!({}), "")?;
    // A scope that was to be disarmed holds nothing.
    Ok(if armed { code } else { ExitCode::SUCCESS })
}

/// Does what is noted first; what then fails is noted too.
fn logged(
    breaker: &Breaker,
    (doing, failed): (&str, &str),
    deed: &Deed,
    act: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let path = journal::path(breaker);
    let entry = deed.entry(trim_padding(&breaker.policy().name));
    let scope = deed.about.map_or("host", |(scope, _)| scope);
    journal::before(&path, &format!("{doing} {scope}"), entry.clone())?;
    act().inspect_err(|error| journal::failed(&path, failed, &entry, error))
}

/// Trips a scope, and ends its idle connections too.
pub fn trip(root: &PinRoot, args: &TripArgs) -> Result<ExitCode> {
    let (board, scope) = throw(root, args)?;
    // The switch is thrown: whatever fails from here on, no order of the scope passes.
    let (reason, replaced) = args.reason();
    let noted = replaced.map(|found| (format!("its reason: {found}: noted as {reason:?}"), found));
    let tell = |board: &Switchboard, mut counts: Value| {
        if let Some((_, found)) = &noted {
            counts["reason_replaced"] = found.as_str().into();
        }
        let about = Some((args.scope.as_str(), cause::MANUAL));
        journal::note(board, &Deed { kind: "tripped", about, reason: Some(&reason), counts: counts.clone() });
        counts
    };
    let breaker = Breaker::from_switchboard(board).inspect_err(|_| {
        if let Ok(board) = Switchboard::open(root) {
            tell(&board, json!({}));
        }
    });
    let breaker = breaker.with_context(|| format!("{} is tripped; looking at the rest", args.scope))?;
    let (ended, mut told) = if breaker.meta().mode == mode::INLINE {
        (0, "connections end at their next message".to_owned())
    } else {
        match end(&breaker, scope, Selection::All) {
            Ok(count) => (count, format!("connections ended: {count}")),
            Err(error) => {
                (0, format!("idle connections were not ended ({error:#}): they are at their next message"))
            }
        }
    };
    if let Some((text, _)) = &noted {
        told = format!("{told}; {text}");
    }
    let switch = breaker.switch(scope)?;
    let counts = tell(&breaker, json!({ "epoch": switch.epoch, "connections_ended": ended }));
    let shown = show(&breaker, scope, args.json, counts, &told);
    if switch.causes & cause::MANUAL == 0 {
        let text = format!(
            "tripping {}: it was tripped, and somebody has reset it since: see `breaker events`",
            args.scope
        );
        return Err(CliError::new(Code::Unexpected, text).into());
    }
    shown
}

/// Ends connections of a scope's sessions, and returns how many.
fn end(breaker: &Breaker, scope: ScopeIndex, which: Selection) -> Result<usize> {
    let sessions = breaker.with_tcp_resets(breaker.sessions_of(scope)?)?;
    breaker.disconnect(&sessions, which)
}

/// Throws a scope's switch, before anything else is opened or read.
fn throw(root: &PinRoot, args: &TripArgs) -> Result<(Switchboard, ScopeIndex)> {
    let board = Switchboard::open(root)?;
    let scope = board.find(&args.scope)?;
    board.trip(scope, cause::MANUAL)?;
    Ok((board, scope))
}

/// Resets a scope, where that is safe.
pub fn reset(root: &PinRoot, ResetArgs { switch: args, force }: &ResetArgs) -> Result<ExitCode> {
    open(root, args)?;
    let _lock = root.lock()?;
    // Anew, for a reload may have held the lock: what speaks against the reset goes by the policy in force.
    let (breaker, scope) = open(root, args)?;
    let seen = breaker.switch(scope)?;
    let about = Some((args.scope.as_str(), seen.causes));
    if let Some((found, cure)) = objection(&breaker, scope, seen.causes, *force)? {
        let counts = json!({ "found": found });
        journal::note(&breaker, &Deed { kind: "reset_refused", about, reason: Some(&args.reason), counts });
        return Err(refused(args, "resetting", &found, &cure));
    }
    let fenced = connections(&breaker, scope)?;
    let mut counts = json!({ "epoch": seen.epoch + 1, "connections_fenced": fenced, "forced": force });
    let deed = Deed { kind: "reset", about, reason: Some(&args.reason), counts: counts.clone() };
    logged(&breaker, ("resetting", "reset_refused"), &deed, || match breaker.reset(scope, seen)? {
        Reset::Done | Reset::TrippedAgain => Ok(()),
        Reset::Refused => {
            let cure = "see `breaker status`, and decide anew";
            Err(refused(args, "resetting", "it tripped again meanwhile", cure))
        }
    })?;
    let inline = breaker.meta().mode == mode::INLINE;
    let (ended, told) = match if inline { Ok(0) } else { end(&breaker, scope, Selection::Fenced) } {
        Ok(count) => (count, format!("connections ended: {count}")),
        Err(error) => (0, format!("none was ended ({error:#}): they are at their next message")),
    };
    let mut told = format!("connections fenced: {fenced}, and what they had queued is dead; {told}");
    if guarded(&breaker, scope)? {
        told += REPLAYS;
    }
    counts["connections_ended"] = ended.into();
    let shown = show(&breaker, scope, args.json, counts, &told);
    if breaker.switch(scope)?.causes != 0 {
        let text = format!(
            "resetting {}: it was reset, and has tripped again since: see `breaker status`",
            args.scope
        );
        return Err(CliError::new(Code::Unexpected, text).into());
    }
    shown
}

/// What an engine that keeps its messages does after a reset, and the ways out.
const REPLAYS: &str = "
an engine that keeps its messages sends them again with PossDupFlag=Y, which trips it again until midnight UTC: have it drop them (a \
sequence reset agreed with the venue; QuickFIX: PersistMessages=N), or set possdup = \"pass\" and reload to let them through";

/// Whether orders that are sent again would trip a session of a scope.
fn guarded(breaker: &Breaker, scope: ScopeIndex) -> Result<bool> {
    let sessions = breaker.sessions_of(scope)?;
    let flags = sessions.into_iter().map(|session| breaker.session(session).map(|found| found.flags));
    Ok(flags.collect::<Result<Vec<_>>>()?.into_iter().any(|flags| flags & flag::REPLAYS_PASS == 0))
}

/// Connections of a scope that a reset fences, or that are fenced.
fn connections(breaker: &Breaker, scope: ScopeIndex) -> Result<u64> {
    let counts = breaker.connection_counts()?;
    let of = breaker.sessions_of(scope)?;
    Ok(of
        .iter()
        .filter_map(|session| counts.get(session.get() as usize))
        .map(|count| count.fenced + count.live)
        .sum())
}

/// Why a reset is refused, and what to do about it.
fn objection(
    breaker: &Breaker,
    scope: ScopeIndex,
    held: u64,
    force: bool,
) -> Result<Option<(String, String)>> {
    if held == 0 {
        return Ok(Some(("it is not tripped".to_owned(), "`breaker status` lists what is".to_owned())));
    }
    if let Some((after, age)) = breaker.heartbeat_silence_ns()?
        && held & cause::DEADMAN != 0
        && age > after
    {
        let (after, age) = (view::status::duration(after), age / 1_000_000);
        let found = format!("the agent is still silent, for {age} ms where the policy allows {after}");
        return Ok(Some((
            found,
            "start `breaker agent`, or the next message would trip it again".to_owned(),
        )));
    }
    let program = breaker.program()?;
    if program.tag() != breaker.meta().program_tag {
        let found = format!(
            "the program is {:016x}, where {:016x} was armed",
            program.tag(),
            breaker.meta().program_tag
        );
        return Ok(Some((found, "unload --force, and load what you trust".to_owned())));
    }
    let full = breaker
        .limits(scope)?
        .into_iter()
        .find(|found| found.limit.per_ns != 0 && found.used >= found.limit.max);
    // The one objection that a person may know better about. A window that is full of what crossed hours ago is none.
    if let Some(full) = full.filter(|_| !force)
        && let Some(age) = breaker.withheld_age_ns(scope)?.filter(|age| *age < STOPPED_NS)
    {
        let (class, per) = (view::status::class_name(full.limit.class), view::status::per(&full.limit));
        let found = format!(
            "its rate is at the limit, {} {class} messages in the last {per}, and its sender has not stopped: something of it was withheld {} \
             ms ago",
            full.used,
            age / 1_000_000
        );
        let cure = "stop it and wait 5s, or reset with --force, which is logged as such";
        return Ok(Some((found, cure.to_owned())));
    }
    Ok(None)
}

fn open(root: &PinRoot, args: &SwitchArgs) -> Result<(Breaker, ScopeIndex)> {
    let breaker = Breaker::open(root)?;
    let scope = breaker.find(&args.scope)?;
    Ok((breaker, scope))
}

fn refused(args: &SwitchArgs, verb: &str, found: &str, cure: &str) -> anyhow::Error {
    CliError::new(
        Code::Refused,
        format!("{verb} {}: refused, nothing is changed: {found}: {cure}", args.scope),
    )
    .into()
}

/// Prints the scope as the kernel now has it.
fn show(breaker: &Breaker, scope: ScopeIndex, json: bool, counts: Value, told: &str) -> Result<ExitCode> {
    let state = view::status::scope(breaker, scope)?;
    let enforced = Enforced::read(breaker);
    let text = if json {
        serde_json::to_string_pretty(&json!({ "scope": state, "counts": counts, "enforced": enforced }))?
    } else if told.is_empty() {
        view::table::scope(&state)
    } else {
        format!("{}; {told}", view::table::scope(&state))
    };
    match say(&text) {
        // Where nobody reads on, the code alone tells whether it holds.
        Err(error) if super::has_no_reader(&error) => {}
        said => said?,
    }
    Ok(in_force(&enforced))
}
