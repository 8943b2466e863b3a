//! Arms and disarms a scope in the maps.

use anyhow::{Context, Result};
use breaker_common::abi::Scope;

use super::memory::{Mapped, ORDER, atomic_u32};

/// Arms or disarms a scope. Raises [`Scope::armed_changes`] first, so the agent can recognise a write by
/// another process.
pub fn set_armed(scopes: &Mapped<Scope>, number: u32, armed: bool) -> Result<()> {
    let scope = scopes.ptr(number).with_context(|| format!("scope {number} is not in its map"))?.as_ptr();
    // SAFETY: both words lie inside the mapping, which `scopes` holds.
    let (changes, word) =
        unsafe { (atomic_u32(&raw mut (*scope).armed_changes), atomic_u32(&raw mut (*scope).armed)) };
    changes.fetch_add(1, ORDER);
    word.store(armed as u32, ORDER);
    Ok(())
}
