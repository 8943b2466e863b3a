//! `breaker load`.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use super::{check, in_force, say};
use crate::cli::ConfigArgs;
use crate::kernel::{Breaker, PinRoot};
use crate::{journal, view};

/// Loads, and shows what the kernel then says.
pub fn run(root: &PinRoot, args: &ConfigArgs) -> Result<ExitCode> {
    let policy = check::policy(args)?;
    crate::kernel::load::load(&policy, root)?;
    let breaker = Breaker::open(root)?;
    journal::note(&breaker, "loaded", None, None, json!({ "abi": breaker.meta().abi }));
    let status = view::Status::read(&breaker, None)?;
    say(&if args.json { serde_json::to_string_pretty(&status)? } else { view::table::status(&status) })?;
    Ok(in_force(&status.enforced))
}
