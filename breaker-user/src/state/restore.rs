//! The state file during a load: read while the pin root is claimed, and written once everything is
//! attached.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use breaker_common::abi::cause;
use jiff::Timestamp;
use serde_json::json;

use super::contents::Contents;
use super::now;
use super::plan::{Plan, Wanted, plan};
use super::save::{Act, save};
use super::store::{Found, Store};
use crate::audit::{self, Actor, Entry, Line, Reader};
use crate::config::Policy;
use crate::journal;
use crate::kernel::load;
use crate::kernel::{Breaker, PinRoot};

/// How long a load waits for another writer.
const LOCK_TIMEOUT: Duration = Duration::from_secs(3);

/// Restores the state in one load.
pub struct Restoring<'a> {
    policy: &'a Policy,
    store: Store,
    has_history: bool,
    plan: Plan,
}

impl<'a> Restoring<'a> {
    /// Determines whether this host has a history, and writes a first state file if it has none. Must run
    /// before the load writes its line to the audit log. Otherwise a load that dies after the line would look
    /// like a removed state file.
    pub fn begin(policy: &'a Policy, root: &PinRoot) -> Self {
        let store = Store::new(policy.agent().state.as_path(), root);
        let has_history = has_history(policy.agent().audit.as_path(), &store);
        if !has_history && let Ok(lock) = store.lock(LOCK_TIMEOUT) {
            // The result of the write is ignored: `save` reports a file that cannot be written.
            if store.read() == Found::Nothing {
                let root = root.path().display().to_string();
                let first = Contents { generation: 1, ..Contents::empty(root, now::boot_id()) };
                let _ = store.write(&first, &lock);
            }
        }
        Self { policy, store, has_history, plan: Plan::default() }
    }

    /// Loads the policy and restores its scopes from the state file.
    pub fn load(&mut self, root: &PinRoot) -> Result<()> {
        let wanted = Wanted::of(self.policy, self.has_history);
        load::load_with(self.policy, root, || {
            self.plan = plan(&self.store.read(), &wanted);
            self.plan.states.clone()
        })
    }

    /// Writes the state of the new load.
    ///
    /// # Errors
    /// Fails if the state cannot be written. The load is enforced all the same.
    pub fn save(&self, breaker: &Breaker) -> Result<()> {
        save(breaker, Act::Loaded(self.policy))
    }

    /// Returns the path of the state file.
    pub fn path(&self) -> PathBuf {
        self.store.path()
    }

    /// Describes to a person how the scopes came up, one line for each fact.
    pub fn lines(&self) -> Vec<String> {
        let path = self.store.path();
        let path = path.display();
        let mut lines = Vec::new();
        if let Some(found) = &self.plan.closed {
            let scopes: Vec<_> = self.plan.closed_scopes().collect();
            lines.push(format!(
                "the state file {path}: {found}: a trip may be missing, so every armed scope comes up \
                 TRIPPED (state): {}: see `breaker events`, then `breaker reset` each",
                scopes.join(", ")
            ));
        }
        for (scope, causes) in &self.plan.restored {
            lines.push(format!(
                "{scope} comes up TRIPPED ({}), as the state file {path} has it",
                names(*causes)
            ));
        }
        for (scope, armed) in &self.plan.decided {
            let armed = if *armed { "armed" } else { "DISARMED" };
            lines
                .push(format!("{scope} comes up {armed}, as a person decided: the state file {path} has it"));
        }
        for (scope, causes) in &self.plan.absent {
            lines.push(format!(
                "{scope} was tripped ({}), and this policy does not have it: the state file {path} keeps \
                 the trip for a policy that has",
                names(*causes)
            ));
        }
        lines.extend(self.plan.notes.iter().map(|note| format!("the state file {path}: {note}")));
        lines
    }

    /// Returns the entries for the audit log: `tripped` for each scope that came up with the cause `state`,
    /// and `restored` for each scope that came up tripped as before.
    pub fn entries(&self, via: &str) -> Vec<Entry> {
        let path = self.store.path().display().to_string();
        let entry = |kind: &str, scope: &str, causes: u64, found: &str| Entry {
            time: Timestamp::now(),
            kind: kind.to_owned(),
            scope: Some(scope.to_owned()),
            cause: journal::cause_field(causes),
            actor: Actor::this_process(via),
            reason: None,
            counts: json!({ "state": path, "found": found }),
            policy: self.policy.name().to_string(),
        };
        let restored = self.plan.restored.iter();
        let restored = restored.map(|(scope, causes)| entry("restored", scope, *causes, "as it was"));
        let found = self.plan.closed.as_deref().unwrap_or_default();
        let closed = self.plan.closed_scopes().map(|scope| entry("tripped", scope, cause::STATE, found));
        restored.chain(closed).collect()
    }
}

/// Returns true if the audit log does not rule out an earlier load with this state file. Several pin roots
/// may share a log. No earlier load exists if the log is complete from its first line and every load in the
/// log names another state file.
fn has_history(log: &Path, store: &Store) -> bool {
    if audit::is_empty(log) {
        return false;
    }
    let own = store.path().display().to_string();
    let (mut first, mut own_loads, mut others) = (None, 0, 0);
    let read = Reader::new(log.to_owned()).read_new(|text| {
        let Line { seq, entry, .. } = serde_json::from_slice(text)?;
        first.get_or_insert(seq);
        if entry.kind == "loaded" {
            let is_other =
                entry.counts.get("state").and_then(|state| state.as_str()).is_some_and(|state| state != own);
            *(if is_other { &mut others } else { &mut own_loads }) += 1;
        }
        Ok(())
    });
    read.is_err() || first != Some(1) || own_loads != 0 || others == 0
}

/// Returns the names of cause bits.
fn names(causes: u64) -> String {
    journal::cause_field(causes).unwrap_or_default()
}
