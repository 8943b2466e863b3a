//! `breaker reload`.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use super::check;
use super::output::{not_saved, print, warn};
use crate::cli::ConfigArgs;
use crate::cli_error::{self, Code};
use crate::config::Policy;
use crate::display;
use crate::journal::{self, Action};
use crate::kernel::reload::PolicyDiff;
use crate::kernel::text::trim_padding;
use crate::kernel::{Breaker, PinRoot};
use crate::load_log::LoadLog;
use crate::reload::reload;
use crate::state::{self, Act};
use crate::view::policy_diff;

/// Replaces the configuration in force, and prints the changes.
pub fn run(root: &PinRoot, args: &ConfigArgs) -> Result<ExitCode> {
    let policy = check::policy(args)?;
    let mut logged = None;
    let done = reload(&policy, root, |breaker, diff| {
        let action = Action::on_load("policy_changed", policy_diff::counts(diff, &policy));
        let (log, entry) = (LoadLog::open(breaker), action.entry(policy.name().to_string()));
        journal::log_before(&log, "reloading", entry.clone())?;
        logged = Some((log, entry));
        Ok(())
    });
    let done = match (done, logged) {
        (Err(error), Some((log, entry))) => {
            // The reload may have failed after the new policy came into force.
            if Breaker::open(root).is_ok_and(|breaker| breaker.policy().sha256 != *policy.sha256()) {
                journal::log_failure(&log, "policy_change_failed", &entry, &error);
            }
            return Err(error);
        }
        (done, _) => done.inspect_err(|error| log_refusal(root, &policy, error))?,
    };
    let changed = done.is_some();
    let diff = done.unwrap_or_default();
    let breaker = Breaker::open(root)?;
    if let Err(error) = state::save(&breaker, Act::Reloaded(&policy)) {
        warn(&not_saved("the policy is in force", &error));
    }
    let sha256 = display::hex(&breaker.policy().sha256);
    let name = trim_padding(&breaker.policy().name);
    print(&if args.json {
        serde_json::to_string_pretty(&json!({
            "changed": changed,
            "policy": { "name": name, "sha256": sha256 },
            "side": breaker.side(),
            "loosened": policy_diff::lines(&diff.loosened),
            "added": diff.added,
            "removed": diff.removed,
        }))?
    } else {
        text(changed.then_some(&diff), &name, &sha256, breaker.side())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Logs a refused reload.
fn log_refusal(root: &PinRoot, policy: &Policy, error: &anyhow::Error) {
    if cli_error::code_of(error) == Code::Refused
        && let Ok(breaker) = Breaker::open(root)
    {
        let counts = json!({ "sha256": policy.sha256_hex(), "found": cli_error::text_of(error) });
        journal::log_after(&breaker, &Action::on_load("policy_refused", counts));
    }
}

/// The changes of a reload as text.
fn text(diff: Option<&PolicyDiff>, name: &str, sha256: &str, side: usize) -> String {
    let Some(diff) = diff else {
        return format!("policy {name} with sha256 {sha256} is already in force: nothing is changed");
    };
    let mut lines = vec![format!("policy {name} with sha256 {sha256} is in force, on side {side}")];
    let loosened = policy_diff::lines(&diff.loosened);
    let lists = [("loosened", &loosened), ("added", &diff.added), ("removed", &diff.removed)];
    for (what, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        lines.push(format!("{what}:"));
        lines.extend(list.iter().map(|found| format!("  {found}")));
    }
    lines.join("\n")
}
