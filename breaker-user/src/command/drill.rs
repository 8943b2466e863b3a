//! `breaker drill`.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};

use super::say;
use crate::cli::DrillArgs;
use crate::cli_error::Code;
use crate::drill::{self, Scenario};

/// Rehearses, and fails where a promise was broken.
pub fn run(args: &DrillArgs) -> Result<ExitCode> {
    let scenario = match args.scenario {
        crate::cli::ScenarioName::Knight => Scenario::Knight,
    };
    let report = drill::run(scenario)?;
    say(&format!("\n{}\n", report.table()))?;
    if let Some(path) = &args.report {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    if report.kept() {
        say("every promise was kept")?;
        return Ok(ExitCode::SUCCESS);
    }
    say("A PROMISE WAS BROKEN: do not rely on this host")?;
    Ok(Code::Unexpected.into())
}
