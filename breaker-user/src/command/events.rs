//! `breaker events`, and `breaker audit verify`: the audit log, shown and checked.

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{say, warn};
use crate::audit::{self, Line, Reader};
use crate::cli::{AuditVerb, EventsArgs, LogArgs};
use crate::journal;
use crate::kernel::{PinRoot, Switchboard};

/// How often a followed log is looked at.
const PAUSE: Duration = Duration::from_millis(200);

/// Shows the log, and goes on where told to.
pub fn run(root: &PinRoot, args: &EventsArgs) -> Result<ExitCode> {
    let mut log = Reader::new(path(root, &args.log)?);
    loop {
        let path = log.path().display().to_string();
        log.read_on(|text| match serde_json::from_slice::<Line>(text) {
            Ok(_) if args.json => say(&String::from_utf8_lossy(text)),
            Ok(line) => say(&readable(&line)),
            // One bad line hides none of the others.
            Err(_) => {
                let text = String::from_utf8_lossy(text);
                warn(&format!("breaker: reading {path}: {text:?} is no event: see `breaker audit verify`"));
                Ok(())
            }
        })?;
        if !args.follow {
            return Ok(ExitCode::SUCCESS);
        }
        sleep(PAUSE);
    }
}

/// Checks the log.
pub fn audit(root: &PinRoot, verb: &AuditVerb) -> Result<ExitCode> {
    let AuditVerb::Verify(args) = verb;
    let path = path(root, &args.log)?;
    let found = audit::verify(&path)?;
    say(&if args.json {
        serde_json::to_string_pretty(&found)?
    } else {
        format!(
            "{}: {} lines, none changed, removed or moved; the last has hash {}",
            path.display(),
            found.lines,
            found.hash
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

fn path(root: &PinRoot, args: &LogArgs) -> Result<PathBuf> {
    match &args.audit {
        Some(path) => Ok(path.clone()),
        None => {
            Ok(journal::path(&Switchboard::open(root).context("finding the audit log, which --audit FILE names too")?))
        }
    }
}

/// A line for a person.
fn readable(line: &Line) -> String {
    let scope = line.scope.as_deref().unwrap_or("-");
    let mut words = vec![format!("{:.3}  {:<16}", line.time, line.kind), scope.to_owned()];
    words.extend(line.cause.as_ref().map(|cause| format!("({cause})")));
    words.push(format!("by {} via {}", line.actor.user.escape_debug(), line.actor.via));
    words.extend(line.reason.as_ref().map(|reason| format!("{reason:?}")));
    if line.counts.as_object().is_some_and(|counts| !counts.is_empty()) {
        words.push(line.counts.to_string());
    }
    words.join(" ")
}
