//! Replaces the policy in force, whole or not at all, under traffic.
//!
//! The next policy is laid out on the side that is not in force, which no packet reads. One store then
//! switches the side. A packet reads the side once, and only that policy applies to it. Everything that both
//! policies declare keeps its number, and with it switch, epoch, window, counters and connections. A reload
//! that dies before the store has changed nothing in force. The next reload writes the whole side anew.

mod activate;
mod connections;
pub mod diff;
mod endpoints;
mod epoch_sums;
pub(super) mod in_force;
mod layout;
mod loosening;
mod rings;
mod unchangeable;
mod windows;

#[cfg(test)]
mod tests;

use anyhow::Result;
use breaker_common::abi::Scope;

pub(super) use self::activate::wait_for_packets;
pub use self::diff::PolicyDiff;
use self::in_force::InForce;
use super::Breaker;
use super::pins::{Claim, Lock, PinRoot};
use super::tables::Tables;
use crate::cli_error::{CliError, Code};
use crate::config::Policy;

/// A reload that has passed every check of the kernel layer, and has changed nothing yet. Other loads,
/// unloads, reloads and resets wait until it is dropped. A trip never waits.
pub struct PendingReload {
    change: PolicyChange,
    sha256: [u8; 32],
    diff: PolicyDiff,
    sums: Vec<(u32, Scope)>,
    // A reset voids windows and raises epochs, which the reload carries over.
    _lock: Lock,
    _claim: Claim,
}

/// The policy in force and the next one.
struct PolicyChange {
    breaker: Breaker,
    now: InForce,
    next: Tables,
    /// The side that is not in force.
    side: usize,
}

impl PendingReload {
    /// Prepares to replace the policy in force. Returns `None` if this very file is in force already.
    ///
    /// # Errors
    /// Refuses a policy that only a load can put in force, and one for which the maps have no room.
    pub fn prepare(policy: &Policy, root: &PinRoot) -> Result<Option<Self>> {
        root.require()?;
        let claim = root.claim()?;
        root.require()?;
        let lock = root.lock()?;
        let breaker = Breaker::open(root)?;
        if breaker.policy().sha256 == *policy.sha256() {
            return Ok(None);
        }
        let differences = unchangeable::differences(breaker.meta(), policy);
        if !differences.is_empty() {
            return Err(requires_load(&differences.join("; ")));
        }
        let now = InForce::read(&breaker)?;
        let mut next = Tables::new(policy, now.allocated())
            .map_err(|error| CliError::new(Code::Usage, format!("reading the configuration: {error:#}")))?;
        let sums = epoch_sums::preserve(&now, &mut next).map_err(|found| requires_load(&found))?;
        let diff = loosening::diff(&now, &next);
        let side = 1 - now.side;
        let change = PolicyChange { breaker, now, next, side };
        change.require_room()?;
        Ok(Some(Self { change, sha256: *policy.sha256(), diff, sums, _lock: lock, _claim: claim }))
    }

    /// The load whose policy is replaced.
    pub fn breaker(&self) -> &Breaker {
        &self.change.breaker
    }

    /// The differences between the two policies.
    pub fn diff(&self) -> &PolicyDiff {
        &self.diff
    }

    /// The names of the scopes that are tripped.
    pub fn tripped_scopes(&self) -> Vec<String> {
        self.change.now.tripped_scopes()
    }

    /// Lays the next policy out beside the one in force, which stays in force.
    pub fn lay_out(self) -> Result<LaidOutReload> {
        self.change.lay_out(&self.sums)?;
        Ok(LaidOutReload(self))
    }
}

/// A reload whose policy is in the maps, on the side that is not in force.
pub struct LaidOutReload(PendingReload);

impl LaidOutReload {
    /// The load whose policy is replaced.
    pub fn breaker(&self) -> &Breaker {
        self.0.breaker()
    }

    /// The differences between the two policies.
    pub fn diff(&self) -> &PolicyDiff {
        self.0.diff()
    }

    /// Puts the policy in force, and reads it back from the kernel.
    pub fn activate(self) -> Result<PolicyDiff> {
        let Self(pending) = self;
        pending.change.activate()?;
        let found = Breaker::open(pending.breaker().root())?;
        if found.policy().sha256 != pending.sha256 {
            return Err(CliError::new(
                Code::Unexpected,
                "reloading: the kernel still reports the old policy",
            )
            .into());
        }
        Ok(pending.diff)
    }
}

/// A refusal before anything has changed.
pub(crate) fn refused(found: &str) -> anyhow::Error {
    CliError::new(Code::Refused, format!("reloading: refused, nothing is changed: {found}")).into()
}

/// A refusal of a policy that only a load can put in force.
fn requires_load(found: &str) -> anyhow::Error {
    refused(&format!("{found}: `breaker unload`, then `breaker load`"))
}
