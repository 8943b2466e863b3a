//! `breaker events`: shows the audit log.

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};

use super::output::{print, warn};
use crate::audit::{Line, Reader};
use crate::cli::{EventsArgs, LogArgs};
use crate::journal;
use crate::kernel::{PinRoot, Switchboard};
use crate::view::event::{escape_controls, event_line};

/// Time between two reads of a followed log.
const PAUSE: Duration = Duration::from_millis(200);

/// Prints the log, and with `--follow` each new event.
pub fn run(root: &PinRoot, args: &EventsArgs) -> Result<ExitCode> {
    let mut log = Reader::new(path(root, &args.log)?);
    loop {
        let path = log.path().display().to_string();
        log.read_new(|text| match serde_json::from_slice::<Line>(text) {
            Ok(_) if args.json => print(&escape_controls(&String::from_utf8_lossy(text))),
            Ok(line) => print(&event_line(&line.entry)),
            // An invalid line does not hide the others.
            Err(_) => {
                let text = String::from_utf8_lossy(text);
                warn(&format!(
                    "breaker: reading {path}: {text:?} is not an event: run `breaker audit verify`"
                ));
                Ok(())
            }
        })?;
        if !args.follow {
            return Ok(ExitCode::SUCCESS);
        }
        sleep(PAUSE);
    }
}

/// Path of a log: that of the arguments, or that of what is loaded.
pub fn path(root: &PinRoot, args: &LogArgs) -> Result<PathBuf> {
    match &args.audit {
        Some(path) => Ok(path.clone()),
        None => Ok(journal::path(
            &Switchboard::open(root).context("finding the audit log: name it with --audit FILE")?,
        )),
    }
}
