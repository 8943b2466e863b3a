//! `breaker unload`.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use super::output::{not_saved, print, warn};
use crate::cli::UnloadArgs;
use crate::cli_error::{CliError, Code};
use crate::journal::{self, Action};
use crate::kernel::text::trim_padding;
use crate::kernel::{Breaker, PinRoot, load};
use crate::load_log::LoadLog;
use crate::state::{self, Act};

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
    // Before the detachment: a trip that is not on disk must not be removed.
    if let Err(error) = state::save(&breaker, Act::Changed) {
        if !tripped.is_empty() {
            let text = format!(
                "unloading: refused, nothing is changed: {} tripped, and the state file cannot be written \
                 ({error:#}): free space, or correct [agent].state",
                tripped.join(", ")
            );
            return Err(CliError::new(Code::Refused, text).into());
        }
        warn(&not_saved("nothing is tripped", &error));
    }
    let names: Vec<_> = breaker.interfaces().iter().map(|interface| trim_padding(&interface.name)).collect();
    let action = Action::on_load("unloaded", json!({ "forced": args.force, "tripped": tripped }));
    let (log, entry) = (LoadLog::open(&breaker), action.entry(trim_padding(&breaker.policy().name)));
    journal::log_before(&log, "unloading", entry.clone())?;
    load::unload(breaker.root())
        .inspect_err(|error| journal::log_failure(&log, "unloading_failed", &entry, error))?;
    // After the detachment: the maps are still open, and the kernel may have tripped a scope meanwhile.
    if let Err(error) = state::save(&breaker, Act::Unloaded) {
        warn(&not_saved("the load is removed", &error));
    }
    print(&format!("unloaded: nothing is enforced on {} any more", names.join(", ")))?;
    Ok(ExitCode::SUCCESS)
}
