//! `breaker drill`.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};

use super::output::print;
use crate::cli::DrillArgs;
use crate::cli_error::Code;
use crate::drill::{self, Scenario};

/// Runs the drill, and fails if a promise was broken.
pub fn run(args: &DrillArgs) -> Result<ExitCode> {
    let scenario = match args.scenario {
        crate::cli::ScenarioName::Knight => Scenario::Knight,
    };
    let report = drill::run(scenario)?;
    print(&format!("\n{}\n", report.table()))?;
    if let Some(path) = &args.report {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    if report.kept() {
        print("every promise was kept")?;
        return Ok(ExitCode::SUCCESS);
    }
    print("A PROMISE WAS BROKEN: do not rely on this host")?;
    Ok(Code::Unexpected.into())
}
