//! Repairs of the agent: it attaches programs again, and pins again what was removed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::last_check::LastCheck;
use super::loaded::Loaded;
use super::log::Log;
use super::notice::notice;
use super::tampering::{Finding, Tampering};
use crate::cli_error::{self, Code};
use crate::kernel::attachment::Attachment;
use crate::kernel::links;

/// Most repairs of one thing in [`WINDOW`]: who detaches again and again needs a person, not a race.
const MAX_REPAIRS: usize = 3;
const WINDOW: Duration = Duration::from_secs(60);
/// Time for a verb to put other pins in place of the missing ones.
const PATIENCE: Duration = Duration::from_millis(200);
/// The thing that all pins are.
const PINS: &str = "pins";

/// The repairs of a load.
pub struct Repairs {
    loaded: Arc<Loaded>,
    log: Arc<Log>,
    last: Arc<LastCheck>,
    tampering: Arc<Tampering>,
    history: BTreeMap<String, History>,
    /// When pins were found missing.
    missing_since: Option<Instant>,
}

/// The repairs of one thing: an interface, or the pins.
#[derive(Default)]
struct History {
    /// Times of recent repairs.
    done: Vec<Instant>,
    /// The last reported reason why nothing is repaired.
    refused: Option<String>,
}

/// A program that is not attached.
pub struct Lost<'a> {
    /// Position of the interface in the load.
    pub position: usize,
    /// The attachment.
    pub attachment: &'a Attachment,
    /// When the program was last seen attached.
    pub attached_until: Instant,
    /// When the interface was made again, if it was.
    pub appeared: Option<Instant>,
}

impl Repairs {
    /// No repair was made yet.
    pub fn new(loaded: Arc<Loaded>, log: Arc<Log>, last: Arc<LastCheck>, tampering: Arc<Tampering>) -> Self {
        Self { loaded, log, last, tampering, history: BTreeMap::new(), missing_since: None }
    }

    /// Attaches the programs of an interface again. Returns true if it did.
    pub fn reattach(&mut self, lost: &Lost<'_>) -> bool {
        let name = &lost.attachment.name;
        // Without an interface there is nothing to attach to.
        if links::ifindex(name).is_err() || !self.may_repair(name) {
            return false;
        }
        let ifindex = match self.loaded.reattach(lost.position) {
            Ok(ifindex) => ifindex,
            // A verb is at work.
            Err(error) if cli_error::code_of(&error) == Code::Refused => return false,
            Err(error) => {
                self.refuse(name, &format!("the program could not be attached again: {error:#}"));
                return false;
            }
        };
        let gap = lost.attached_until.elapsed();
        // Nothing could leave while there was no interface.
        let exposed = lost.appeared.map_or(gap, |at| at.elapsed().min(gap));
        self.done(name);
        self.last.count_reattachment(name, exposed);
        let (gap_ms, exposed_ms) = (gap.as_millis() as u64, exposed.as_millis() as u64);
        if ifindex == lost.attachment.ifindex {
            self.tampering.record(Finding {
                place: name,
                scope: None,
                causes: 0,
                found: format!("the {} program was detached: it is attached again", lost.attachment.mode),
                fields: json!({ "interface": name, "ifindex": ifindex, "hook": lost.attachment.hook }),
            });
        }
        notice(&format!("{name}: attached again as interface {ifindex}, without a hook for {exposed_ms} ms"));
        self.log.record(self.loaded.entry(
            "reattached",
            json!({ "interface": name, "ifindex": ifindex, "gap_ms": gap_ms, "exposed_ms": exposed_ms }),
        ));
        true
    }

    /// Pins again what was removed.
    pub fn restore_pins(&mut self) {
        let missing = self.loaded.missing_pins();
        if missing.is_empty() {
            self.missing_since = None;
            return;
        }
        let since = *self.missing_since.get_or_insert_with(Instant::now);
        if since.elapsed() < PATIENCE || !self.may_repair(PINS) {
            return;
        }
        if let Err(error) = self.loaded.restore_pins() {
            // A verb is at work.
            if cli_error::code_of(&error) == Code::Refused {
                return;
            }
            return self.refuse(
                PINS,
                &format!("{} are removed, and cannot be pinned again: {error:#}", missing.join(", ")),
            );
        }
        self.done(PINS);
        self.tampering.record(Finding {
            place: PINS,
            scope: None,
            causes: 0,
            found: format!("{} pins were removed, and not by `breaker unload`: pinned again", missing.len()),
            fields: json!({ "pins": missing }),
        });
    }

    /// Returns false while a thing was repaired too often.
    fn may_repair(&mut self, thing: &str) -> bool {
        let history = self.history.entry(thing.to_owned()).or_default();
        history.done.retain(|at| at.elapsed() < WINDOW);
        if history.done.len() < MAX_REPAIRS {
            return true;
        }
        let found = format!("repaired {MAX_REPAIRS} times within a minute: it is left as it is for a while");
        self.refuse(thing, &found);
        false
    }

    fn done(&mut self, thing: &str) {
        let history = self.history.entry(thing.to_owned()).or_default();
        history.done.push(Instant::now());
        history.refused = None;
    }

    /// Reports why a thing is not repaired, once for each reason.
    fn refuse(&mut self, thing: &str, found: &str) {
        let history = self.history.entry(thing.to_owned()).or_default();
        if history.refused.as_deref() == Some(found) {
            return;
        }
        history.refused = Some(found.to_owned());
        self.tampering.record(Finding {
            place: thing,
            scope: None,
            causes: 0,
            found: found.to_owned(),
            fields: json!({}),
        });
    }
}
