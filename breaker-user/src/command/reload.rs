//! `breaker reload`.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use super::{check, say};
use crate::cli::ConfigArgs;
use crate::cli_error::{self, Code};
use crate::config::Policy;
use crate::journal::{self, Deed};
use crate::kernel::reload::{Reloaded, reload};
use crate::kernel::tables::trim_padding;
use crate::kernel::{Breaker, PinRoot};

/// Puts another configuration in force, and shows what the kernel then says.
pub fn run(root: &PinRoot, args: &ConfigArgs) -> Result<ExitCode> {
    let policy = check::policy(args)?;
    let mut noted = None;
    let done = reload(&policy, root, |breaker, done| {
        let entry = Deed::of_all("policy_changed", done.counts(&policy)).entry(policy.name().to_string());
        journal::before(&journal::path(breaker), "reloading", entry.clone())?;
        noted = Some((journal::path(breaker), entry));
        Ok(())
    });
    let done = match (done, noted) {
        (Err(error), Some((path, entry))) => {
            // It may have failed after the new policy took over.
            if Breaker::open(root).is_ok_and(|breaker| breaker.policy().sha256 != *policy.sha256()) {
                journal::failed(&path, "policy_change_failed", &entry, &error);
            }
            return Err(error);
        }
        (done, _) => done.inspect_err(|error| note_refusal(root, &policy, error))?,
    };
    let breaker = Breaker::open(root)?;
    let sha256: String = breaker.policy().sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    let name = trim_padding(&breaker.policy().name);
    say(&if args.json {
        serde_json::to_string_pretty(&json!({
            "changed": done.changed,
            "policy": { "name": name, "sha256": sha256 },
            "side": breaker.side(),
            "loosened": done.loosened,
            "added": done.added,
            "removed": done.removed,
        }))?
    } else {
        text(&done, &name, &sha256, breaker.side())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Notes what was refused: somebody wanted it.
fn note_refusal(root: &PinRoot, policy: &Policy, error: &anyhow::Error) {
    if cli_error::code_of(error) == Code::Refused
        && let Ok(breaker) = Breaker::open(root)
    {
        let counts = json!({ "sha256": policy.sha256_hex(), "found": cli_error::text_of(error) });
        journal::note(&breaker, &Deed::of_all("policy_refused", counts));
    }
}

fn text(done: &Reloaded, name: &str, sha256: &str, side: usize) -> String {
    if !done.changed {
        return format!("policy {name} with sha256 {sha256} is in force already: nothing is changed");
    }
    let mut lines = vec![format!("policy {name} with sha256 {sha256} is in force, on side {side}")];
    let lists = [("loosened", &done.loosened), ("added", &done.added), ("removed", &done.removed)];
    for (what, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        lines.push(format!("{what}:"));
        lines.extend(list.iter().map(|found| format!("  {found}")));
    }
    lines.join("\n")
}
