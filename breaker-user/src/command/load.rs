//! `breaker load`.

use std::process::ExitCode;

use anyhow::Result;
use breaker_common::abi::ABI_VERSION;
use serde_json::json;

use super::check;
use super::output::{enforcement_code, not_saved, print, warn};
use crate::audit;
use crate::cli::ConfigArgs;
use crate::journal::{self, Action};
use crate::kernel::{Breaker, PinRoot, load};
use crate::load_log::LoadLog;
use crate::state::Restoring;
use crate::view;

/// Loads a configuration, and prints the status that the kernel then shows.
pub fn run(root: &PinRoot, args: &ConfigArgs) -> Result<ExitCode> {
    let policy = check::policy(args)?;
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
    print(&if args.json { serde_json::to_string_pretty(&status)? } else { view::table::status(&status) })?;
    Ok(enforcement_code(&status.enforced))
}
