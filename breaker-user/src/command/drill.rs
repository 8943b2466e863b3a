//! `breaker drill`.
use crate::cli::DrillArgs;
use anyhow::Result;
use std::process::ExitCode;
/// x
pub fn run(_: &DrillArgs) -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
