//! `breaker load`.

use std::process::ExitCode;

use anyhow::Result;
use breaker_common::abi::ABI_VERSION;
use serde_json::json;

use super::check;
use super::output::{enforcement_code, not_saved, print, warn};
use crate::audit;
use crate::cli::LoadArgs;
use crate::cli_error;
use crate::config::Policy;
use crate::journal::{self, Action};
use crate::kernel::{Breaker, PinRoot, load};
use crate::load_log::LoadLog;
use crate::state::{self, Restoring};
use crate::view;

/// Loads a configuration, and prints the status that the kernel then shows.
pub fn run(root: &PinRoot, args: &LoadArgs) -> Result<ExitCode> {
    let policy = policy(root, args)?;
    audit::check_path(policy.agent().audit.as_path())?;
    load::preflight(&policy, root)?;
    let path = policy.agent().audit.as_path();
    let mut restoring = Restoring::begin(&policy, root);
    let counts = json!({ "abi": ABI_VERSION, "state": restoring.path() });
    let action = Action::on_load("loaded", counts);
    let entry = action.entry(policy.name().to_string());
    journal::log_before(path, "loading", entry.clone())?;
    restoring.load(root).inspect_err(|error| journal::log_failure(path, "loading_failed", &entry, error))?;
    let breaker = Breaker::open(root)?;
    let log = LoadLog::open(&breaker);
    log.catch_up();
    restoring.entries("cli").into_iter().for_each(|entry| journal::append_or_warn(&log, entry));
    restoring.lines().iter().for_each(|line| warn(&format!("breaker: {line}")));
    if let Err(error) = restoring.save(&breaker) {
        warn(&not_saved("the policy is loaded", &error));
    }
    let status = view::Status::read(&breaker, None)?;
    print(&if args.config.json {
        serde_json::to_string_pretty(&status)?
    } else {
        view::table::status(&status)
    })?;
    Ok(enforcement_code(&status.enforced))
}

/// Reads the policy to load. With `--last-if-invalid`, an invalid configuration is a warning if the policy
/// that was in force before is known.
fn policy(root: &PinRoot, args: &LoadArgs) -> Result<Policy> {
    let invalid = match check::policy(&args.config) {
        Err(error) if args.last_if_invalid && !root.exists() => error,
        read => return read,
    };
    let Some((policy, path)) = state::last_policy(root) else { return Err(invalid) };
    warn(&cli_error::text_of(&invalid));
    warn(&format!(
        "breaker: policy {} was in force before, and is loaded from {}: correct {}, then run \
         `breaker reload`",
        policy.name(),
        path.display(),
        args.config.config.display()
    ));
    Ok(policy)
}
