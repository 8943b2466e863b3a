//! Policies that the fleet publishes: whether this host would take one, and the reload of the active one.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::agent::loaded::Loaded;
use crate::agent::log::Log;
use crate::audit::Entry;
use crate::config::{self, Policy};
use crate::display::hex;
use crate::kernel::Breaker;
use crate::kernel::reload::PendingReload;
use crate::reload::reload;
use crate::state::{self, Act};
use crate::view::policy_diff;

/// Parses the text of a policy whose SHA-256 is known.
///
/// # Errors
/// If the text has another hash, or is no valid policy.
pub fn parse(text: &[u8], sha256: &str) -> Result<Policy> {
    let found = hex(&Sha256::digest(text));
    ensure!(found == sha256, "the published text has the sha256 {found}, and {sha256} is its name");
    let text = std::str::from_utf8(text).context("the published text is not UTF-8")?;
    match config::parse("the published policy", text) {
        Ok(policy) => Ok(policy),
        Err(errors) => bail!("{errors}"),
    }
}

/// Fails if a reload would refuse the policy.
pub fn check(policy: &Policy, loaded: &Loaded) -> Result<()> {
    let root = loaded.in_force().breaker.root().clone();
    PendingReload::prepare(policy, &root).map(drop)
}

/// Puts a policy in force, unless it is.
pub fn activate(policy: &Policy, id: &str, loaded: &Arc<Loaded>, log: &Log) -> Result<()> {
    let root = loaded.in_force().breaker.root().clone();
    let changed = reload(policy, &root, |_, diff| {
        let mut counts = policy_diff::counts(diff, policy);
        counts["id"] = json!(id);
        log.record_now(Entry { policy: policy.name().to_string(), ..loaded.entry("policy_changed", counts) });
        Ok(())
    })?;
    if changed.is_some() {
        let breaker = Breaker::open(&root)?;
        state::save(&breaker, Act::Reloaded(policy)).context("the state file is not written")?;
        loaded.follow_policy()?;
    }
    Ok(())
}
