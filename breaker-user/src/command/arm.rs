//! `breaker arm` and `breaker disarm`.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use super::scope::{Outcome, not_durable, open, perform_logged, refused, require_state, show};
use crate::cli::SwitchArgs;
use crate::cli_error::{CliError, Code};
use crate::display::causes;
use crate::journal::Action;
use crate::kernel::PinRoot;
use crate::state::{self, Act};

/// Arms or disarms a scope. A tripped scope can be armed, but not disarmed.
pub fn run(root: &PinRoot, args: &SwitchArgs, armed: bool) -> Result<ExitCode> {
    let (breaker, scope) = open(root, args)?;
    let doing = if armed { "arming" } else { "disarming" };
    let tripped_for = breaker.scope(scope)?.switch.causes;
    if !armed && tripped_for != 0 {
        let found = format!("it is tripped ({})", causes(tripped_for).join(", "));
        return Err(refused(args, doing, &found, "reset it first"));
    }
    let (kind, failure_kind) =
        if armed { ("armed", "arming_failed") } else { ("disarmed", "disarming_failed") };
    let action =
        Action { kind, scope: Some(&args.scope), causes: 0, reason: Some(&args.reason), counts: json!({}) };
    if !armed {
        require_state(&breaker, args, doing)?;
    }
    perform_logged(&breaker, (doing, failure_kind), &action, || {
        breaker.set_armed(scope, armed)?;
        if (breaker.scope(scope)?.armed != 0) == armed {
            return Ok(());
        }
        let text = format!("{doing} {}: the kernel shows the old state: run `breaker status`", args.scope);
        Err(CliError::new(Code::Unexpected, text).into())
    })?;
    let saved = state::save(&breaker, Act::Changed);
    let code = show(&breaker, scope, args.json, Outcome { counts: json!({}), ..Outcome::default() })?;
    saved.map_err(|error| not_durable(args, doing, &error))?;
    // A disarmed scope enforces nothing, so that a missing hook is no error.
    Ok(if armed { code } else { ExitCode::SUCCESS })
}
