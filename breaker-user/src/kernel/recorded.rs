//! The program that META records as the enforcing one, compared with the pinned program.

use anyhow::{Context, Result};
use aya::programs::ProgramInfo;
use breaker_common::abi::Meta;

use super::memory::{Mapped, open_error};
use super::pins::PinRoot;

/// Returns true if META names this pinned program or its pinned successor.
pub fn is_recorded(root: &PinRoot, program: &ProgramInfo) -> Result<bool> {
    let successor = || ProgramInfo::from_pin(root.successors().program()).map(|next| next.tag());
    if program.tag() == tag(root)?
        || successor().is_ok_and(|next| tag(root).is_ok_and(|recorded| recorded == next))
    {
        return Ok(true);
    }
    // An upgrade may have ended since the program was opened.
    let now = ProgramInfo::from_pin(root.program()).map_err(|error| open_error(&root.program(), error))?;
    Ok(now.tag() == tag(root)?)
}

/// Reads the tag of the program that META names.
pub fn tag(root: &PinRoot) -> Result<u64> {
    let map = Mapped::<Meta>::open(&root.map("META"))?;
    Ok(map.get(0).context("META is empty")?.program_tag)
}
