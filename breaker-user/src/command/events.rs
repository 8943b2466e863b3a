//! `breaker events`.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};

use super::say;
use crate::audit::{self, Line};
use crate::cli::EventsArgs;
use crate::journal;
use crate::kernel::{Breaker, PinRoot};

/// How often a followed log is looked at.
const PAUSE: Duration = Duration::from_millis(200);

/// Shows the log, and goes on where told to.
pub fn run(root: &PinRoot, args: &EventsArgs) -> Result<ExitCode> {
    let path = match &args.audit {
        Some(path) => path.clone(),
        None => journal::path(&Breaker::open(root)?),
    };
    let mut shown = 0;
    loop {
        let lines = match audit::read(&path) {
            Err(_) if !path.exists() => Vec::new(),
            lines => lines?,
        };
        // A log that became shorter was rotated: it is shown from its start.
        shown = if lines.len() < shown { 0 } else { shown };
        for text in &lines[shown..] {
            say(&if args.json { text.clone() } else { readable(text)? })?;
        }
        shown = lines.len();
        if !args.follow {
            return Ok(ExitCode::SUCCESS);
        }
        sleep(PAUSE);
    }
}

/// A line for a person.
fn readable(text: &str) -> Result<String> {
    let line: Line =
        serde_json::from_str(text).with_context(|| format!("reading the line {text:?}: it is no event"))?;
    let mut words =
        vec![line.time.to_string(), format!("{:<16}", line.kind), line.scope.unwrap_or_else(|| "-".to_owned())];
    words.extend(line.cause.map(|cause| format!("({cause})")));
    words.push(format!("by {} via {}", line.actor.user, line.actor.via));
    words.extend(line.reason.map(|reason| format!("{reason:?}")));
    if line.counts.as_object().is_some_and(|counts| !counts.is_empty()) {
        words.push(line.counts.to_string());
    }
    Ok(words.join(" "))
}
