//! Warnings that nobody has acknowledged. The agent keeps them in a file of the state directory, so that the
//! verbs show them, and so that they outlive the agent.

use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::store::Store;

/// Longest wait for the lock of the state directory.
const LOCK_TIMEOUT: Duration = Duration::from_secs(3);

/// The warnings of one limit since the last acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// Scope of the limit.
    pub scope: String,
    /// The limit, such as `500 order per 3s`.
    pub limit: String,
    /// Highest warning level that was reached.
    pub level: u64,
    /// Most messages in the window at a warning.
    pub used: u64,
    /// Time of the first warning.
    pub since: Timestamp,
}

/// Reads the warnings. A file that is missing or cannot be read counts as empty: the agent writes it again.
pub fn read(store: &Store) -> Vec<Warning> {
    store.warnings().ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Replaces the warnings.
pub fn write(store: &Store, warnings: &[Warning]) -> Result<()> {
    let lock = store.lock(LOCK_TIMEOUT)?;
    store.write_warnings(&serde_json::to_vec(warnings).context("writing the warnings")?, &lock)
}

/// Removes the warnings of a scope.
pub fn remove(store: &Store, scope: &str) -> Result<()> {
    let lock = store.lock(LOCK_TIMEOUT)?;
    let mut kept = read(store);
    kept.retain(|warning| warning.scope != scope);
    store.write_warnings(&serde_json::to_vec(&kept).context("writing the warnings")?, &lock)
}
