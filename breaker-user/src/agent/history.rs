//! What the audit log tells of the past, so that figures survive a restart of the agent: trips, and losses already told of.
//!
//! Read on from where the last reading ended; a log that was rotated is read from its start, and what it had told stays counted.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::Result;
use breaker_common::abi::cause;

use crate::audit::{Line, Reader};
use crate::config::Scopes;

/// Trips of a scope, by cause in the order of [`cause::NAMES`].
pub type Trips = [u64; cause::NAMES.len()];

/// See the module.
pub struct History {
    reader: Reader,
    told: Told,
}

/// Events of this load that the log tells the loss of: no room was in the ring for them, or they were left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// By the kernel's count.
    pub ring: u64,
    /// Likewise.
    pub left_out: u64,
}

/// What was read so far.
struct Told {
    loaded_at: u64,
    trips: HashMap<String, Trips>,
    /// Causes that scopes are tripped for, and those that a reset of theirs has cleared, with the process that made it.
    causes: HashMap<String, u64>,
    cleared: HashMap<String, (u32, u64)>,
    losses: Losses,
}

impl History {
    /// The history of a load that is told in this log. Reads nothing yet.
    pub fn new(path: PathBuf, names: &Scopes, loaded_at: u64) -> Self {
        let told = Told {
            loaded_at,
            trips: HashMap::new(),
            causes: HashMap::new(),
            cleared: HashMap::new(),
            losses: Losses::default(),
        };
        let mut made = Self { reader: Reader::new(path), told };
        made.know(names);
        made
    }

    /// Counts the trips of these scopes too, from here on.
    pub fn know(&mut self, names: &Scopes) {
        for scope in names.iter() {
            self.told.trips.entry(names.name(scope).to_string()).or_default();
        }
    }

    /// Trips of a scope that the log tells of.
    pub fn trips(&self, scope: &str) -> Trips {
        self.told.trips.get(scope).copied().unwrap_or_default()
    }

    /// Causes that a scope is tripped for, as far as the log tells.
    pub fn causes(&self, scope: &str) -> u64 {
        self.told.causes.get(scope).copied().unwrap_or_default()
    }

    /// The kernel's counts when the log last told of losses.
    pub fn losses(&self) -> Losses {
        self.told.losses
    }

    /// Reads what has been added.
    pub fn read_on(&mut self) -> Result<()> {
        let Self { reader, told } = self;
        reader.read_on(|text| {
            told.take(text);
            Ok(())
        })
    }
}

impl Told {
    fn take(&mut self, text: &[u8]) {
        // Most lines are of no such kind, and a log may be long.
        const KINDS: [&str; 5] = ["\"tripped\"", "\"reset", "\"loaded\"", "\"unloaded\"", "\"events_lost\""];
        let Ok(text) = std::str::from_utf8(text) else { return };
        if !KINDS.iter().any(|kind| text.contains(kind)) {
            return;
        }
        let Ok(line) = serde_json::from_str::<Line>(text) else { return };
        match line.kind.as_str() {
            "tripped" => self.trip(&line),
            "reset" => self.reset(&line),
            "reset_refused" => self.undo_reset(&line),
            "loaded" | "unloaded" => {
                self.causes.clear();
                self.cleared.clear();
            }
            "events_lost" if line.counts.get("loaded_at") == Some(&self.loaded_at.into()) => {
                let figure =
                    |name: &str| line.counts.get(name).and_then(|figure| figure.as_u64()).unwrap_or_default();
                self.losses =
                    Losses { ring: figure("ring_since_load"), left_out: figure("left_out_since_load") };
            }
            _ => {}
        }
    }

    /// A reset is told of before it is made,
    fn reset(&mut self, line: &Line) {
        let Some(scope) = &line.scope else { return };
        let causes = self.causes.remove(scope).unwrap_or_default();
        self.cleared.insert(scope.clone(), (line.actor.pid, causes));
    }

    /// and once more where it then was not.
    fn undo_reset(&mut self, line: &Line) {
        let Some(scope) = &line.scope else { return };
        if let Some((pid, causes)) = self.cleared.remove(scope)
            && pid == line.actor.pid
        {
            *self.causes.entry(scope.clone()).or_default() |= causes;
        }
    }

    fn trip(&mut self, line: &Line) {
        let Some(scope) = &line.scope else { return };
        for name in line.cause.iter().flat_map(|causes| causes.split(',')) {
            let Some(position) = cause::NAMES.iter().position(|(_, known)| *known == name) else { continue };
            *self.causes.entry(scope.clone()).or_default() |= cause::NAMES[position].0;
            if let Some(count) = self.trips.get_mut(scope).and_then(|trips| trips.get_mut(position)) {
                *count += 1;
            }
        }
    }
}
