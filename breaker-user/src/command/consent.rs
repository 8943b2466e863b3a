//! Consent of a second person to a reset, if the policy sets `two_person`.

use anyhow::Result;
use serde_json::json;

use super::scope::refused;
use crate::audit::Actor;
use crate::cli::{ResetArgs, SwitchArgs};
use crate::journal::{self, Action};
use crate::kernel::Breaker;
use crate::kernel::text::trim_padding;
use crate::load_log::LoadLog;
use crate::rules::two_people_reason;
use crate::state::pending::{self, ResetRequest};
use crate::state::store;

/// Returns the request of the first person if this is the second one; `None` if one person is enough.
///
/// # Errors
/// Refuses the reset of the first person, and keeps that person's request.
pub fn obtain(
    breaker: &Breaker,
    ResetArgs { switch: args, force, break_glass }: &ResetArgs,
    epoch: u64,
) -> Result<Option<ResetRequest>> {
    let Some(reason) = two_people_reason(breaker) else { return Ok(None) };
    let person = Actor::this_process("cli");
    let entry = |kind, counts| {
        let action = Action { kind, scope: Some(&args.scope), causes: 0, reason: Some(&args.reason), counts };
        action.entry(trim_padding(&breaker.policy().name))
    };
    let log =
        |entry| journal::log_before(&LoadLog::open(breaker), &format!("resetting {}", args.scope), entry);
    // A person who can open the pins is root, or has the same power as root over this load.
    if person.uid == 0 || person.via != "control" {
        if *break_glass {
            log(entry("break_glass", json!({ "forced": force })))?;
            return Ok(None);
        }
        let cure =
            "have two people of [people].risk reset it, or break the glass with --break-glass, which alerts";
        return Err(refused(args, "resetting", &reason, cure));
    }
    let own = ResetRequest::new(&args.scope, epoch, *force, (person.uid, &person.user), &args.reason);
    if let Some(first) = pending::second(&store(breaker), &own)? {
        return Ok(Some(first));
    }
    let minutes = pending::VALID.as_secs() / 60;
    log(entry("reset_requested", json!({ "forced": force, "valid_minutes": minutes })))?;
    let found = format!("{reason}, and {} is the first: the request is kept", person.user);
    let force = if *force { " --force" } else { "" };
    let cure = format!(
        "another person of [people].risk runs `breaker reset {}{force} --reason TEXT` within {minutes} \
         minutes",
        args.scope
    );
    Err(refused(args, "resetting", &found, &cure))
}

/// Removes the requests for a scope that was reset. The result is ignored, because the reset has raised the
/// epoch: a request that stays is void.
pub fn withdraw(breaker: &Breaker, args: &SwitchArgs) {
    let _ = pending::withdraw(&store(breaker), &args.scope);
}
