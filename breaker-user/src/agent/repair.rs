//! Repairs by the agent: re-attaches detached programs, and restores removed pins.

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

/// Most repairs of one target within [`WINDOW`]. Further detachments need a person: repeated repairs would
/// race with the process that detaches.
const MAX_REPAIRS: usize = 3;
const WINDOW: Duration = Duration::from_secs(60);
/// Time within which a verb replaces pins that it has removed.
const GRACE_PERIOD: Duration = Duration::from_millis(200);
/// The target name of the pins.
const PINS: &str = "pins";

/// The repairs of a load.
pub struct Repairs {
    loaded: Arc<Loaded>,
    log: Arc<Log>,
    last: Arc<LastCheck>,
    tampering: Arc<Tampering>,
    history: BTreeMap<String, History>,
    /// Time at which missing pins were first found.
    missing_since: Option<Instant>,
}

/// The repairs of one target: an interface, or the pins.
#[derive(Default)]
struct History {
    /// Times of the repairs within [`WINDOW`].
    repaired_at: Vec<Instant>,
    /// The last reported reason why the target is not repaired.
    reported_reason: Option<String>,
}

/// A detached program.
pub struct Detached<'a> {
    /// Position of the interface in the load.
    pub position: usize,
    /// The attachment.
    pub attachment: &'a Attachment,
    /// Time of the last check that found the program attached.
    pub attached_until: Instant,
    /// Time at which the interface was created again, if it was.
    pub recreated_at: Option<Instant>,
}

impl Repairs {
    /// Makes an empty history of repairs.
    pub fn new(loaded: Arc<Loaded>, log: Arc<Log>, last: Arc<LastCheck>, tampering: Arc<Tampering>) -> Self {
        Self { loaded, log, last, tampering, history: BTreeMap::new(), missing_since: None }
    }

    /// Attaches the programs of an interface again. Returns true if they were attached.
    pub fn reattach(&mut self, detached: &Detached<'_>) -> bool {
        let name = &detached.attachment.name;
        // A missing interface cannot be repaired.
        if links::ifindex(name).is_err() || !self.may_repair(name) {
            return false;
        }
        let ifindex = match self.loaded.reattach(detached.position) {
            Ok(ifindex) => ifindex,
            // Another verb holds the claim of the pin root.
            Err(error) if cli_error::code_of(&error) == Code::Refused => return false,
            Err(error) => {
                self.report_refusal(name, &format!("the program could not be attached again: {error:#}"));
                return false;
            }
        };
        let gap = detached.attached_until.elapsed();
        // Packets cannot leave while the interface does not exist.
        let exposed = detached.recreated_at.map_or(gap, |at| at.elapsed().min(gap));
        self.record_repair(name);
        self.last.count_reattachment(name, exposed);
        let (gap_ms, exposed_ms) = (gap.as_millis() as u64, exposed.as_millis() as u64);
        if ifindex == detached.attachment.ifindex {
            self.tampering.record(Finding {
                place: name,
                scope: None,
                causes: 0,
                found: format!("the {} program was detached: it is attached again", detached.attachment.mode),
                fields: json!({ "interface": name, "ifindex": ifindex, "hook": detached.attachment.hook }),
            });
        }
        notice(&format!("{name}: attached again as interface {ifindex}, without a hook for {exposed_ms} ms"));
        self.log.record(self.loaded.entry(
            "reattached",
            json!({ "interface": name, "ifindex": ifindex, "gap_ms": gap_ms, "exposed_ms": exposed_ms }),
        ));
        true
    }

    /// Restores removed pins.
    pub fn restore_pins(&mut self) {
        let missing = self.loaded.missing_pins();
        if missing.is_empty() {
            self.missing_since = None;
            return;
        }
        let since = *self.missing_since.get_or_insert_with(Instant::now);
        if since.elapsed() < GRACE_PERIOD || !self.may_repair(PINS) {
            return;
        }
        if let Err(error) = self.loaded.restore_pins() {
            // Another verb holds the claim of the pin root.
            if cli_error::code_of(&error) == Code::Refused {
                return;
            }
            return self.report_refusal(
                PINS,
                &format!("{} are removed, and cannot be pinned again: {error:#}", missing.join(", ")),
            );
        }
        self.record_repair(PINS);
        self.tampering.record(Finding {
            place: PINS,
            scope: None,
            causes: 0,
            found: format!("{} pins were removed, and not by `breaker unload`: pinned again", missing.len()),
            fields: json!({ "pins": missing }),
        });
    }

    /// Returns false if a target was repaired too often within [`WINDOW`].
    fn may_repair(&mut self, target: &str) -> bool {
        let history = self.history.entry(target.to_owned()).or_default();
        history.repaired_at.retain(|at| at.elapsed() < WINDOW);
        if history.repaired_at.len() < MAX_REPAIRS {
            return true;
        }
        let found = format!("repaired {MAX_REPAIRS} times within a minute: it is left as it is for a while");
        self.report_refusal(target, &found);
        false
    }

    fn record_repair(&mut self, target: &str) {
        let history = self.history.entry(target.to_owned()).or_default();
        history.repaired_at.push(Instant::now());
        history.reported_reason = None;
    }

    /// Reports why a target is not repaired, once for each reason.
    fn report_refusal(&mut self, target: &str, found: &str) {
        let history = self.history.entry(target.to_owned()).or_default();
        if history.reported_reason.as_deref() == Some(found) {
            return;
        }
        history.reported_reason = Some(found.to_owned());
        self.tampering.record(Finding {
            place: target,
            scope: None,
            causes: 0,
            found: found.to_owned(),
            fields: json!({}),
        });
    }
}
