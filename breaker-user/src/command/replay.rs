//! `breaker replay`.

use std::process::ExitCode;

use anyhow::Result;

use super::check;
use super::output::print;
use crate::cli::{ConfigArgs, ReplayArgs};
use crate::cli_error::{CliError, Code};
use crate::replay::collect::Collector;
use crate::replay::{captures, engine, plot};
use crate::view::replay::{Replay, scope_name};
use crate::view::replay_table;

/// Replays captures against a policy. Ends with 9 if a capture breaks off.
pub fn run(args: &ReplayArgs) -> Result<ExitCode> {
    let policy = check::policy(&ConfigArgs { config: args.config.clone(), json: args.json })?;
    let mut engine = engine(&policy, true)?;
    let mut found = Collector::new(&engine, args.plot.is_some());
    let read = captures::read(&args.captures, &mut engine, &mut found)?;
    let view = Replay::new(&policy, &engine, &found, &read);
    if let Some(path) = &args.plot {
        let span = engine.span().unwrap_or_default();
        let svg = plot::svg(&found.windows, span, |number| scope_name(&policy, number));
        std::fs::write(path, svg).map_err(|error| {
            let text = format!(
                "writing the plot {}: {error}: name a file in a directory that you may write",
                path.display()
            );
            CliError::new(Code::Usage, text)
        })?;
    }
    print(&if args.json { serde_json::to_string_pretty(&view)? } else { replay_table::replay(&view) })?;
    Ok(if view.is_broken() { Code::Capture.into() } else { ExitCode::SUCCESS })
}
