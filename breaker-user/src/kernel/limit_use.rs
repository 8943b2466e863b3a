//! Reads the use of the limits of a loaded breaker.

use anyhow::Result;
use breaker_common::abi::{self, LIMITS_PER_SCOPE};
use breaker_common::window;

use super::{Breaker, clock};
use crate::config::ScopeIndex;

/// A limit and the number of messages in its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitUse {
    /// Position of the limit in its scope.
    pub position: usize,
    /// The limit.
    pub limit: abi::Limit,
    /// Messages in the window now.
    pub used: u64,
    /// Messages that the window may hold now. For a ratio this number grows with the fills.
    pub max_messages: u64,
    /// The most messages that the window has held.
    pub peak: u64,
}

impl Breaker {
    /// Returns the limits of a scope with their use.
    pub fn limits(&self, scope: ScopeIndex) -> Result<Vec<LimitUse>> {
        let times = self.maps().times()?;
        let now = clock::now_ns();
        let state = self.scope(scope)?;
        let read = |position: usize| {
            let (limit, window) = (state.limits[self.side()][position], state.windows[position]);
            let used = window.issued.saturating_sub(window::tail(&limit, &window, &times, now));
            let max_messages = window::max_messages(&limit, &window);
            LimitUse { position, limit, used, max_messages, peak: window.peak }
        };
        let positions = state.rules[self.side()].positions;
        Ok((0..LIMITS_PER_SCOPE).filter(|i| positions >> i & 1 == 1).map(read).collect())
    }

    /// Returns the limit at a position of a scope.
    pub fn limit(&self, scope: ScopeIndex, position: usize) -> Result<Option<abi::Limit>> {
        let state = self.scope(scope)?;
        let is_used = state.rules[self.side()].positions >> (position & 31) & 1 == 1;
        Ok(state.limits[self.side()].get(position).filter(|_| is_used).copied())
    }

    /// Returns the time since a switch or a limit last withheld a segment of a scope's sessions, in ns;
    /// `None` for never.
    pub fn withheld_age_ns(&self, scope: ScopeIndex) -> Result<Option<u64>> {
        let mut last = 0;
        for session in self.sessions_of(scope)? {
            last = last.max(self.scope(self.names().of_session(session))?.withheld_ns);
        }
        Ok((last != 0).then(|| clock::now_ns().saturating_sub(last)))
    }
}
