//! `breaker agent`.
use crate::cli::ConfigArgs;
use crate::kernel::PinRoot;
use anyhow::Result;
use std::process::ExitCode;
/// x
pub fn run(_: &PinRoot, _: &ConfigArgs) -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
