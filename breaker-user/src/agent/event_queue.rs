//! The events that wait for the program of `[agent].on_event`.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::audit::{Entry, Line};
use crate::config::{OnEvent, Word};

/// Most events that wait.
const MAX_WAITING: usize = 1000;
/// Most entries that were offered before the log contained them.
const MAX_EARLY: usize = 4096;
/// Largest difference of the times of one kernel event that was read twice: the conversion reads two clocks.
const SAME_EVENT: SignedDuration = SignedDuration::from_millis(5);

/// An event for the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Kind of the event.
    pub kind: String,
    /// Scope of the event.
    pub scope: Option<String>,
    /// The event as JSON.
    pub json: String,
}

/// Counts for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Runs of the program that failed.
    pub failures: u64,
    /// Events that found no room.
    pub lost: u64,
}

/// The queue.
#[derive(Default)]
pub struct EventQueue {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    settings: Option<OnEvent>,
    waiting: VecDeque<Waiting>,
    /// Entries that were offered while the log could not be written, and that the log will contain later.
    early: VecDeque<(Timestamp, String, Option<String>)>,
    counts: Counts,
    /// Lost events that no event reports yet.
    unreported: u64,
    is_ended: bool,
}

impl EventQueue {
    /// Sets the program and the kinds; `None` for no program.
    pub fn configure(&self, settings: Option<OnEvent>) {
        self.state().settings = settings;
    }

    /// Offers a line of the log.
    pub fn offer(&self, line: &Line) {
        let mut state = self.state();
        if state.take_early(&line.entry) {
            return;
        }
        self.push(&mut state, line);
    }

    /// Offers an entry that the log does not contain yet, because the log cannot be written.
    pub fn offer_early(&self, entry: &Entry) {
        let mut state = self.state();
        if !state.wants(&entry.kind) {
            return;
        }
        if state.early.len() == MAX_EARLY {
            state.early.pop_front();
        }
        state.early.push_back((entry.time, entry.kind.clone(), entry.scope.clone()));
        // The number of a line that is not written yet is 0.
        self.push(&mut state, &Line { seq: 0, entry: entry.clone(), prev: String::new() });
    }

    fn push(&self, state: &mut State, line: &Line) {
        let entry = &line.entry;
        if !state.wants(&entry.kind) {
            return;
        }
        if state.waiting.len() == MAX_WAITING {
            state.counts.lost += 1;
            state.unreported += 1;
            return;
        }
        // A line has no member that JSON cannot express.
        let json = serde_json::to_string(line).unwrap_or_default();
        state.waiting.push_back(Waiting { kind: entry.kind.clone(), scope: entry.scope.clone(), json });
        self.wake.notify_one();
    }

    /// Waits for the next event and returns it with the program; `None` at the end.
    pub fn next(&self) -> Option<(OnEvent, Waiting)> {
        let mut state = self.state();
        loop {
            if state.is_ended {
                return None;
            }
            // Events from before a change of the settings run the new program.
            let next =
                state.settings.clone().and_then(|settings| Some((settings, state.waiting.pop_front()?)));
            if next.is_some() {
                return next;
            }
            state.waiting.clear();
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Number of lost events since the last call.
    pub fn take_lost(&self) -> u64 {
        std::mem::take(&mut self.state().unreported)
    }

    /// Counts a failed run.
    pub fn count_failure(&self) {
        self.state().counts.failures += 1;
    }

    /// Counts for the metrics.
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Ends the queue. Returns the number of events that still wait.
    pub fn end(&self) -> usize {
        let mut state = self.state();
        state.is_ended = true;
        self.wake.notify_all();
        state.waiting.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wants(&self, kind: &str) -> bool {
        self.settings
            .as_ref()
            .is_some_and(|settings| settings.kinds.iter().any(|wanted| wanted.word() == kind))
    }

    /// Returns true if the entry was offered early.
    fn take_early(&mut self, entry: &Entry) -> bool {
        let is_same = |(time, kind, scope): &(Timestamp, String, Option<String>)| {
            *kind == entry.kind
                && *scope == entry.scope
                && time.duration_since(entry.time).abs() <= SAME_EVENT
        };
        let found = self.early.iter().position(is_same);
        found.is_some_and(|at| self.early.remove(at).is_some())
    }
}
