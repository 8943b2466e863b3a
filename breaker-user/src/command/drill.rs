//! `breaker drill`.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::ValueEnum;
use jiff::Timestamp;

use super::output::print;
use crate::cli::{DrillArgs, ScenarioName};
use crate::cli_error::{CliError, Code, code_of};
use crate::drill::record::Record;
use crate::drill::{Report, SCENARIOS, live, page};
use crate::kernel::PinRoot;

/// Runs the drill, and fails if a promise was broken.
pub fn run(root: &PinRoot, args: &DrillArgs) -> Result<ExitCode> {
    if let Some(path) = &args.report {
        require_writable(path)?;
    }
    let started = Timestamp::now();
    let mut reports = Vec::new();
    let command = if let Some(name) = &args.live {
        reports.push(live::run(root, name)?);
        print(&format!("\n{}", reports[0].table()))?;
        print(&format!("\n{name} stays tripped: breaker reset {name} --reason TEXT"))?;
        format!("breaker drill --live {name}")
    } else {
        let wanted = name(args.scenario);
        for (name, scenario) in SCENARIOS.iter().filter(|(name, _)| args.all || *name == wanted) {
            let report = match scenario() {
                Ok(report) => report,
                // Without root no scenario can run; another failure is one of this scenario.
                Err(error) if args.all && code_of(&error) != Code::Permission => Report::failed(name, &error),
                Err(error) => return Err(error.context(format!("the scenario {name}"))),
            };
            print(&format!("\n{}\n", report.table()))?;
            reports.push(report);
        }
        if args.all { "breaker drill --all".to_owned() } else { format!("breaker drill --scenario {wanted}") }
    };
    let record = Record::new(command, started, reports)?;
    if let Some(path) = &args.report {
        let text = match path.extension().and_then(OsStr::to_str) {
            Some("html") => page::html(&record),
            _ => serde_json::to_string_pretty(&record)? + "\n",
        };
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    if record.kept {
        print("every promise was kept")?;
        return Ok(ExitCode::SUCCESS);
    }
    print("A PROMISE WAS BROKEN: do not rely on this host")?;
    Ok(Code::Unexpected.into())
}

/// The name of a scenario, as the command line spells it.
fn name(scenario: ScenarioName) -> String {
    scenario.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Refuses a report that cannot be written, before a session is tripped for it.
fn require_writable(path: &Path) -> Result<()> {
    let opened = fs::OpenOptions::new().append(true).create(true).open(path);
    opened.map(drop).map_err(|error| {
        let text = format!("writing the report {}: {error}: name a file that can be written", path.display());
        CliError::new(Code::Usage, text).into()
    })
}
