//! `breaker status`.

use std::process::ExitCode;

use anyhow::Result;

use super::output::print;
use crate::cli::StatusArgs;
use crate::kernel::{Breaker, PinRoot};
use crate::view::{Status, table};

/// Prints the status, and ends with its exit code.
pub fn run(root: &PinRoot, args: &StatusArgs) -> Result<ExitCode> {
    let breaker = Breaker::open(root)?;
    let only = args.scope.as_deref().map(|scope| breaker.find(scope)).transpose()?;
    let status = Status::read(&breaker, only)?;
    print(&if args.json { serde_json::to_string_pretty(&status)? } else { table::status(&status) })?;
    Ok(status.code().map_or(ExitCode::SUCCESS, ExitCode::from))
}
