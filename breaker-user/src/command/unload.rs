//! `breaker unload`.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use super::output::print;
use crate::cli::UnloadArgs;
use crate::cli_error::{CliError, Code};
use crate::journal::{self, Action};
use crate::kernel::text::trim_padding;
use crate::kernel::{Breaker, PinRoot};

/// Detaches the programs and removes every pin. Refuses while a scope is tripped, unless forced.
pub fn run(root: &PinRoot, args: &UnloadArgs) -> Result<ExitCode> {
    let breaker = Breaker::open(root)?;
    let mut tripped = Vec::new();
    for scope in breaker.names().iter() {
        if breaker.scope(scope)?.switch.causes != 0 {
            tripped.push(breaker.names().name(scope).to_string());
        }
    }
    if !tripped.is_empty() && !args.force {
        let found = match &tripped[..] {
            [one] => format!("{one} is tripped, and its"),
            several => format!("{} are tripped, and their", several.join(", ")),
        };
        let text = format!(
            "unloading: refused, nothing is changed: {found} orders would pass again: reset first, or \
             unload with \
             --force"
        );
        return Err(CliError::new(Code::Refused, text).into());
    }
    let names: Vec<_> = breaker.interfaces().iter().map(|interface| trim_padding(&interface.name)).collect();
    let action = Action::on_load("unloaded", json!({ "forced": args.force, "tripped": tripped }));
    let (path, entry) = (journal::path(&breaker), action.entry(trim_padding(&breaker.policy().name)));
    journal::log_before(&path, "unloading", entry.clone())?;
    breaker.unload().inspect_err(|error| journal::log_failure(&path, "unloading_failed", &entry, error))?;
    print(&format!("unloaded: nothing is enforced on {} any more", names.join(", ")))?;
    Ok(ExitCode::SUCCESS)
}
