//! `breaker events`, and `breaker audit verify`: the audit log, shown and checked.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{say, warn};
use crate::audit::{self, Line, Reader, Verified};
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
            Ok(_) if args.json => say(&escaped(&String::from_utf8_lossy(text))),
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
    say(&if args.json { serde_json::to_string_pretty(&found)? } else { told(&path, &found) })?;
    Ok(ExitCode::SUCCESS)
}

/// What was found of a whole log, in words.
fn told(path: &Path, found: &Verified) -> String {
    let mut text = format!("{}: {} lines, none changed, removed or moved", path.display(), found.lines);
    if found.files.len() > 1 {
        text += &format!(", in {} files", found.files.len());
    }
    if found.first > 1 {
        text += &format!(
            "; it begins with number {}: what came before is in a file that is not here",
            found.first
        );
    }
    for apart in &found.apart {
        text += &format!("; {} is no part of it", apart.display());
    }
    format!("{text}; the last has hash {}", found.hash)
}

fn path(root: &PinRoot, args: &LogArgs) -> Result<PathBuf> {
    match &args.audit {
        Some(path) => Ok(path.clone()),
        None => Ok(journal::path(
            &Switchboard::open(root).context("finding the audit log, which --audit FILE names too")?,
        )),
    }
}

/// JSON with what a terminal would obey, or would show in another order, as escapes: controls that JSON lets through, and marks of direction.
/// All of them can stand in strings alone, and it is the same JSON.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text
}

/// A line for a person.
fn readable(line: &Line) -> String {
    let scope = line.scope.as_deref().unwrap_or("-");
    let mut words = vec![format!("{:.3}  {:<16}", line.time, line.kind), scope.to_owned()];
    words.extend(line.cause.as_ref().map(|cause| format!("({cause})")));
    words.push(format!("by {} via {}", line.actor.user.escape_debug(), line.actor.via));
    words.extend(line.reason.as_ref().map(|reason| format!("{reason:?}")));
    if line.counts.as_object().is_some_and(|counts| !counts.is_empty()) {
        words.push(escaped(&line.counts.to_string()));
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn nothing_that_a_terminal_obeys_is_shown_and_the_json_is_the_same() {
        let strange: String = (0u32..=0x2100).filter_map(char::from_u32).collect();
        let json = serde_json::to_string(&strange).expect("JSON");
        let shown = escaped(&json);
        assert_eq!(serde_json::from_str::<String>(&shown).expect("JSON"), strange);
        let obeyed = |c: &char| {
            c.is_control()
                || matches!(*c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        assert_eq!(shown.chars().find(obeyed), None);
        assert_eq!(escaped("{\"reason\":\"ü — 漢\"}"), "{\"reason\":\"ü — 漢\"}");
    }
}
