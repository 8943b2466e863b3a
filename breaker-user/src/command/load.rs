//! `breaker load`.

use std::process::ExitCode;

use anyhow::Result;
use breaker_common::abi::ABI_VERSION;
use serde_json::json;

use super::{check, in_force, say};
use crate::audit;
use crate::cli::ConfigArgs;
use crate::journal::{self, Deed};
use crate::kernel::{Breaker, PinRoot, load};
use crate::view;

/// Loads, and shows what the kernel then says.
pub fn run(root: &PinRoot, args: &ConfigArgs) -> Result<ExitCode> {
    let policy = check::policy(args)?;
    audit::require(policy.agent().audit.as_path())?;
    load::preflight(&policy, root)?;
    let path = policy.agent().audit.as_path();
    let entry = Deed::of_all("loaded", json!({ "abi": ABI_VERSION })).entry(policy.name().to_string());
    journal::before(path, "loading", entry.clone())?;
    load::load(&policy, root).inspect_err(|error| journal::failed(path, "loading_failed", &entry, error))?;
    let breaker = Breaker::open(root)?;
    let status = view::Status::read(&breaker, None)?;
    say(&if args.json { serde_json::to_string_pretty(&status)? } else { view::table::status(&status) })?;
    Ok(in_force(&status.enforced))
}
