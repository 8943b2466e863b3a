//! State that the audit log preserves across restarts of the agent: trip counts, tripped causes, logged
//! losses, and the newest lines.
//!
//! Each reading continues where the last one ended. After a rotation it starts with the new file, and keeps
//! its counts.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;

use anyhow::Result;
use breaker_common::abi::cause;

use crate::audit::{Entry, Line, Reader};
use crate::config::Scopes;
use crate::state::warnings::Warning;

/// Trips of a scope by cause, in the order of [`cause::NAMES`].
pub type Trips = [u64; cause::NAMES.len()];

/// The state of a load, as far as its audit log contains it.
pub struct History {
    reader: Reader,
    state: State,
}

/// Events of this load that the log reports as missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// The kernel's count of events without room in the ring.
    pub ring: u64,
    /// The kernel's count of events that it left out, because there were too many of their kind.
    pub left_out: u64,
}

/// The state after the lines read so far.
struct State {
    loaded_at: u64,
    trips: HashMap<String, Trips>,
    /// Cause bits of tripped scopes.
    causes: HashMap<String, u64>,
    /// Cause bits that the last reset of a scope cleared, and the process that made it.
    cleared: HashMap<String, (u32, u64)>,
    losses: Losses,
    /// Warnings that nobody has acknowledged, by scope and limit.
    warnings: BTreeMap<(String, String), Warning>,
    /// Newest lines, the oldest first.
    newest: VecDeque<Vec<u8>>,
}

/// Number of newest lines that are kept.
const NEWEST: usize = 50;

impl History {
    /// Makes the history of a load with this log. Reads nothing yet.
    pub fn new(path: PathBuf, names: &Scopes, loaded_at: u64) -> Self {
        let state = State {
            loaded_at,
            trips: HashMap::new(),
            causes: HashMap::new(),
            cleared: HashMap::new(),
            losses: Losses::default(),
            warnings: BTreeMap::new(),
            newest: VecDeque::new(),
        };
        let mut history = Self { reader: Reader::new(path), state };
        history.add_scopes(names);
        history
    }

    /// Counts the trips of these scopes too, from now on.
    pub fn add_scopes(&mut self, names: &Scopes) {
        for scope in names.iter() {
            self.state.trips.entry(names.name(scope).to_string()).or_default();
        }
    }

    /// Logged trips of a scope.
    pub fn trips(&self, scope: &str) -> Trips {
        self.state.trips.get(scope).copied().unwrap_or_default()
    }

    /// Cause bits of a scope according to the log.
    pub fn causes(&self, scope: &str) -> u64 {
        self.state.causes.get(scope).copied().unwrap_or_default()
    }

    /// The kernel's counts at the last logged loss.
    pub fn losses(&self) -> Losses {
        self.state.losses
    }

    /// Warnings that nobody has acknowledged, by scope and limit.
    pub fn warnings(&self) -> Vec<Warning> {
        self.state.warnings.values().cloned().collect()
    }

    /// The warning of a limit that nobody has acknowledged.
    pub fn warning(&self, scope: &str, limit: String) -> Option<&Warning> {
        self.state.warnings.get(&(scope.to_owned(), limit))
    }

    /// The newest lines of the log, the newest first. Lines that are no events are left out.
    pub fn newest(&self) -> Vec<Line> {
        self.state.newest.iter().rev().filter_map(|text| serde_json::from_slice(text).ok()).collect()
    }

    /// Reads the lines that were added since the last call.
    pub fn read_new(&mut self) -> Result<()> {
        let Self { reader, state } = self;
        reader.read_new(|text| {
            if state.newest.len() == NEWEST {
                state.newest.pop_front();
            }
            state.newest.push_back(text.to_owned());
            state.apply_line(text);
            Ok(())
        })
    }
}

impl State {
    fn apply_line(&mut self, text: &[u8]) {
        // Parsing only lines that may have one of these kinds keeps the start fast with a long log.
        const KINDS: [&str; 8] = [
            "\"warned\"",
            "\"acknowledged\"",
            "\"tripped\"",
            "\"restored\"",
            "\"reset",
            "\"loaded\"",
            "\"unloaded\"",
            "\"events_lost\"",
        ];
        let Ok(text) = std::str::from_utf8(text) else { return };
        if !KINDS.iter().any(|kind| text.contains(kind)) {
            return;
        }
        let Ok(Line { entry, .. }) = serde_json::from_str(text) else { return };
        match entry.kind.as_str() {
            "tripped" => self.trip(&entry),
            "warned" => self.warn(&entry),
            "acknowledged" => {
                self.warnings.retain(|(scope, _), _| entry.scope.as_ref() != Some(scope));
            }
            "restored" => self.restore(&entry),
            "reset" => self.reset(&entry),
            "reset_refused" => self.undo_reset(&entry),
            "loaded" | "unloaded" => {
                self.causes.clear();
                self.cleared.clear();
            }
            "events_lost" if entry.counts.get("loaded_at") == Some(&self.loaded_at.into()) => {
                let figure = |name: &str| {
                    entry.counts.get(name).and_then(|figure| figure.as_u64()).unwrap_or_default()
                };
                self.losses =
                    Losses { ring: figure("ring_since_load"), left_out: figure("left_out_since_load") };
            }
            _ => {}
        }
    }

    /// The first warning of a limit has the time, and the highest one the figures.
    fn warn(&mut self, entry: &Entry) {
        let limit = entry.counts.get("limit").and_then(|limit| limit.as_str());
        // The warning about a silent agent is about no limit.
        let (Some(scope), Some(limit)) = (&entry.scope, limit) else { return };
        let figure =
            |name: &str| entry.counts.get(name).and_then(|figure| figure.as_u64()).unwrap_or_default();
        let key = (scope.clone(), limit.to_owned());
        let warning = self.warnings.entry(key).or_insert_with(|| Warning {
            scope: scope.clone(),
            limit: limit.to_owned(),
            level: 0,
            used: 0,
            since: entry.time,
        });
        warning.level = warning.level.max(figure("level"));
        warning.used = warning.used.max(figure("used"));
    }

    /// A reset is logged before it is performed, with the causes that it clears.
    fn reset(&mut self, entry: &Entry) {
        let Some(scope) = &entry.scope else { return };
        let known = self.causes.entry(scope.clone()).or_default();
        let cleared = *known & cause_bits(entry);
        *known &= !cleared;
        self.cleared.insert(scope.clone(), (entry.actor.pid, cleared));
    }

    /// A refusal by the same process means that the logged reset was not performed.
    fn undo_reset(&mut self, entry: &Entry) {
        let Some(scope) = &entry.scope else { return };
        if let Some((pid, causes)) = self.cleared.remove(scope)
            && pid == entry.actor.pid
        {
            *self.causes.entry(scope.clone()).or_default() |= causes;
        }
    }

    /// A load restored a trip of an earlier load: this is no new trip.
    fn restore(&mut self, entry: &Entry) {
        let Some(scope) = &entry.scope else { return };
        *self.causes.entry(scope.clone()).or_default() |= cause_bits(entry);
    }

    fn trip(&mut self, entry: &Entry) {
        let Some(scope) = &entry.scope else { return };
        for name in entry.cause.iter().flat_map(|causes| causes.split(',')) {
            let Some(position) = cause::NAMES.iter().position(|(_, known)| *known == name) else { continue };
            *self.causes.entry(scope.clone()).or_default() |= cause::NAMES[position].0;
            if let Some(count) = self.trips.get_mut(scope).and_then(|trips| trips.get_mut(position)) {
                *count += 1;
            }
        }
    }
}

/// The bits of the causes of an entry.
fn cause_bits(entry: &Entry) -> u64 {
    let names = entry.cause.iter().flat_map(|causes| causes.split(','));
    let bits = names.filter_map(|name| cause::NAMES.iter().find(|(_, known)| *known == name));
    bits.fold(0, |all, (bit, _)| all | bit)
}
