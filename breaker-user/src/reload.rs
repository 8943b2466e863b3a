//! Replaces the policy in force, for `breaker reload` and for the agent.

use anyhow::Result;

use crate::config::Policy;
use crate::kernel::reload::{PendingReload, PolicyDiff, refused};
use crate::kernel::{Breaker, PinRoot};
use crate::view::policy_diff;
use crate::{audit, journal};

/// Puts a policy in force. Returns the differences; `None` if this very file is in force already. Calls `log`
/// before the policy takes effect; an error of `log` refuses the reload.
///
/// # Errors
/// Refuses a policy that only a load can put in force. Refuses a policy that loosens anything while a scope
/// is tripped, or while the audit log cannot be written.
pub fn reload(
    policy: &Policy,
    root: &PinRoot,
    log: impl FnOnce(&Breaker, &PolicyDiff) -> Result<()>,
) -> Result<Option<PolicyDiff>> {
    let Some(pending) = PendingReload::prepare(policy, root)? else { return Ok(None) };
    check_loosening(&pending)?;
    let laid_out = pending.lay_out()?;
    log(laid_out.breaker(), laid_out.diff())?;
    laid_out.activate().map(Some)
}

/// Refuses a loosening while a scope is tripped, and one that the audit log cannot record.
fn check_loosening(pending: &PendingReload) -> Result<()> {
    let loosened = policy_diff::lines(&pending.diff().loosened).join("; ");
    if loosened.is_empty() {
        return Ok(());
    }
    let tripped = pending.tripped_scopes();
    if !tripped.is_empty() {
        let are = if tripped.len() == 1 { "is" } else { "are" };
        let found = format!("{} {are} tripped, and it would loosen: {loosened}", tripped.join(", "));
        return Err(refused(&format!("{found}: reset first, or only tighten")));
    }
    audit::reserve(&journal::path(pending.breaker())).map_err(|error| {
        let found = format!("the audit log cannot be written ({error:#}), and it would loosen: {loosened}");
        refused(&format!("{found}: free space, or correct [agent].audit"))
    })
}
