//! Refuses an upgrade unless every hook has a program and a pinned link.

use anyhow::Result;

use super::super::attachment::Attachment;
use crate::cli_error::{CliError, Code};

/// Refuses the upgrade if a hook has no program of this load, or a link has no pin.
pub fn refuse_lost(found: Vec<Attachment>) -> Result<()> {
    let lost = |found: &Attachment| !found.attached || !found.pinned;
    let lost: Vec<_> = found.into_iter().filter(lost).collect();
    if lost.is_empty() {
        return Ok(());
    }
    let found = |found: &Attachment| match (found.attached, found.remade) {
        (true, _) => format!("{}: the pin of its link is gone", found.name),
        (false, Some(_)) => format!("{}: the interface was made again", found.name),
        (false, None) => format!("{}: detached", found.name),
    };
    let text = format!(
        "upgrading: refused, nothing is changed: {}: `breaker attach` puts the program back",
        lost.iter().map(found).collect::<Vec<_>>().join(", ")
    );
    Err(CliError::new(Code::Interface, text).into())
}
