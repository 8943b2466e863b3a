//! The window of each limit over the captures, as if there were no limit.
//!
//! The rings of the kernel program are as long as their limits, so that they do not show how far a window
//! goes above its limit.

use breaker_common::abi::{LIMITS_PER_SCOPE, Limit, Session};
use breaker_common::counts::SegmentCounts;
use breaker_replay::engine::Engine;

use super::meter::{EXACT, Entries, Meter, Series};

/// The window of a limit.
#[derive(Clone)]
pub struct Window {
    /// Scope number.
    pub scope: u32,
    /// Position in the scope.
    pub position: usize,
    /// The limit.
    pub limit: Limit,
    /// Most messages in the window.
    pub peak: u64,
    /// Time of the first window with so many, ns since 1970.
    pub peak_ns: u64,
    /// The messages over the time, if they are plotted.
    pub series: Option<Series>,
    meter: Meter,
}

/// The windows of all limits.
pub struct Windows {
    sessions: Vec<Session>,
    /// By scope number and position.
    windows: Vec<Option<Window>>,
    entries: Entries,
    is_plotted: bool,
}

impl Windows {
    /// Makes an empty window for each limit.
    pub fn new(engine: &Engine, is_plotted: bool) -> Self {
        let maps = &engine.open().maps;
        let mut windows = Vec::new();
        for (scope, state) in maps.scopes.iter().enumerate() {
            let state = state.borrow();
            windows.extend(state.limits[0].iter().enumerate().map(|(position, limit)| {
                let is_used = state.rules[0].positions >> position & 1 == 1;
                is_used.then(|| Window {
                    scope: scope as u32,
                    position,
                    limit: *limit,
                    peak: 0,
                    peak_ns: 0,
                    series: None,
                    meter: Meter::new(limit.per_ns, EXACT),
                })
            }));
        }
        Self { sessions: maps.sessions.clone(), windows, entries: Entries::default(), is_plotted }
    }

    /// Adds the messages of a segment to the windows of its session's limits.
    #[inline(always)]
    pub fn add(&mut self, at_ns: u64, session: u32, counts: &SegmentCounts) {
        let Some(session) = self.sessions.get(session as usize) else { return };
        for limit_ref in &session.limit_refs {
            let Some(count) = counts.for_counter(limit_ref.counter) else { break };
            let at = limit_ref.scope as usize * LIMITS_PER_SCOPE + limit_ref.position as usize;
            if count != 0
                && let Some(Some(window)) = self.windows.get_mut(at)
            {
                let used = window.meter.add(at_ns, count, &mut self.entries);
                if used > window.peak {
                    (window.peak, window.peak_ns) = (used, at_ns);
                }
                if self.is_plotted {
                    window.series.get_or_insert_with(|| Series::new(at_ns)).add(at_ns, used);
                }
            }
        }
    }

    /// Returns the window of a limit.
    pub fn get(&self, scope: u32, position: usize) -> Option<&Window> {
        self.windows.get(scope as usize * LIMITS_PER_SCOPE + position)?.as_ref()
    }

    /// Returns the windows of all limits.
    pub fn iter(&self) -> impl Iterator<Item = &Window> {
        self.windows.iter().flatten()
    }
}
