//! `breaker attach`.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use super::output::{enforcement_code, print};
use crate::cli::AttachArgs;
use crate::cli_error::{self, CliError, Code};
use crate::enforced::Enforced;
use crate::journal::{self, Action};
use crate::kernel::reattach::{detached, reattach};
use crate::kernel::text::trim_padding;
use crate::kernel::{Breaker, PinRoot};
use crate::load_log::LoadLog;

/// Attaches the pinned programs again on every interface where a program is detached.
pub fn run(root: &PinRoot, args: &AttachArgs) -> Result<ExitCode> {
    let breaker = Breaker::open(root)?;
    let lost = detached(&breaker)?;
    let name = |position: &usize| trim_padding(&breaker.interfaces()[*position].name);
    let names: Vec<_> = lost.iter().map(name).collect();
    let mut attached = Vec::new();
    if !lost.is_empty() {
        let action = Action::on_load("reattached", json!({ "interfaces": names }));
        let (log, entry) = (LoadLog::open(&breaker), action.entry(trim_padding(&breaker.policy().name)));
        journal::log_before(&log, "attaching", entry.clone())?;
        let mut failures = Vec::new();
        for position in &lost {
            match reattach(root, *position) {
                Ok(ifindex) => attached.push(json!({ "name": name(position), "ifindex": ifindex })),
                Err(error) => failures.push(error),
            }
        }
        if let Some(error) = combine(failures) {
            journal::log_failure(&log, "reattach_failed", &entry, &error);
            return Err(error);
        }
    }
    let breaker = Breaker::open(root)?;
    let enforced = Enforced::read(&breaker, journal::problem(&breaker));
    print(&if args.json {
        serde_json::to_string_pretty(&json!({ "attached": attached, "enforced": enforced }))?
    } else if names.is_empty() {
        "nothing is detached: nothing is changed".to_owned()
    } else {
        format!("attached again: {}", names.join(", "))
    })?;
    Ok(enforcement_code(&enforced))
}

/// Combines all failures into one, with the exit code of the first failure.
fn combine(failures: Vec<anyhow::Error>) -> Option<anyhow::Error> {
    let code = match cli_error::code_of(failures.first()?) {
        Code::Unexpected => Code::Interface,
        code => code,
    };
    let texts: Vec<_> = failures.iter().map(cli_error::text_of).collect();
    Some(CliError::new(code, texts.join("; ")).into())
}
