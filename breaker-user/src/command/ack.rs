//! `breaker ack`.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use super::scope::{Outcome, not_durable, open, perform_logged, refused, show};
use crate::cli::SwitchArgs;
use crate::journal::Action;
use crate::kernel::PinRoot;
use crate::state::{self, warnings};

/// Acknowledges the warnings of a scope.
pub fn run(root: &PinRoot, args: &SwitchArgs) -> Result<ExitCode> {
    let doing = "acknowledging the warnings of";
    let (breaker, scope) = open(root, args)?;
    let store = state::store(&breaker);
    let mut found = warnings::read(&store);
    found.retain(|warning| warning.scope == args.scope);
    if found.is_empty() {
        return Err(refused(args, doing, "it has no warning", "see `breaker status`"));
    }
    let limits: Vec<_> = found.iter().map(|warning| warning.limit.as_str()).collect();
    let counts = json!({ "warnings": found });
    let action = Action {
        kind: "acknowledged",
        scope: Some(&args.scope),
        causes: 0,
        reason: Some(&args.reason),
        counts: counts.clone(),
    };
    let removed = perform_logged(&breaker, (doing, "acknowledging_failed"), &action, || {
        warnings::remove(&store, &args.scope)
    });
    removed.map_err(|error| not_durable(args, doing, &error))?;
    let details = format!("acknowledged: {}", limits.join(", "));
    show(&breaker, scope, args.json, Outcome { counts, details, explanation: None })
}
