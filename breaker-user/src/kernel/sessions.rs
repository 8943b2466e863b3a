//! Reads the sessions of a loaded breaker, and the epoch sums that fence their connections.

use anyhow::{Context, Result};
use breaker_common::abi::{SIDES, Session, flag};
use breaker_common::decide::Switches;

use super::Breaker;
use super::memory::{Mapped, ORDER, atomic_u64};
use crate::config::{ScopeIndex, SessionIndex};

impl Breaker {
    /// Returns the settings of a session.
    pub fn session(&self, session: SessionIndex) -> Result<Session> {
        let found = self.maps().sessions()?.get(self.session_entry(session.get()));
        found.with_context(|| format!("session {} is not in its map", session.get()))
    }

    /// The index of a session in map SESSIONS.
    fn session_entry(&self, session: u32) -> u32 {
        session * SIDES as u32 + self.side() as u32
    }

    /// Returns the sessions that a scope applies to.
    pub fn sessions_of(&self, scope: ScopeIndex) -> Result<Vec<SessionIndex>> {
        let sessions = self.maps().sessions()?;
        let has_scope = |session: &SessionIndex| {
            let found = sessions.get(self.session_entry(session.get()));
            found.is_some_and(|found| scopes(&found).contains(&scope.get()))
        };
        Ok(self.names().sessions().filter(has_scope).collect())
    }

    /// Returns those of the sessions whose fenced connections end with a TCP reset; the others' segments are
    /// dropped.
    pub fn with_tcp_resets(&self, sessions: Vec<SessionIndex>) -> Result<Vec<SessionIndex>> {
        let mut found = Vec::new();
        for session in sessions {
            if self.session(session)?.flags & flag::DROP == 0 {
                found.push(session);
            }
        }
        Ok(found)
    }

    /// Returns the sum of the epochs of a session's scopes. A connection that carries another sum is fenced.
    /// Returns 0 if the sessions cannot be read.
    pub(super) fn epoch_sum(&self, session: u32) -> u64 {
        self.maps().sessions().map_or(0, |sessions| self.epoch_sum_in(sessions, session))
    }

    /// As [`Breaker::epoch_sum`], from the map of sessions.
    pub(super) fn epoch_sum_in(&self, sessions: &Mapped<Session>, session: u32) -> u64 {
        let Some(found) = sessions.get(self.session_entry(session)) else { return 0 };
        let switch_of = |scope| self.scopes().get(scope).map(|scope| scope.switch);
        Switches::combined(&found, |scope| switch_of(scope).map(|switch| (switch.epoch, switch.causes))).epoch
    }

    /// Starts a new trading day. A replay after a reset of an earlier day passes again, for each session
    /// without a tripped scope.
    pub fn start_trading_day(&self) -> Result<()> {
        let sessions = self.maps().sessions()?;
        for number in 0..self.policy().sessions {
            let entry = self.session_entry(number);
            let Some(found) = sessions.get(entry) else { continue };
            let is_tripped =
                |scope: &u32| self.scopes().get(*scope).is_none_or(|scope| scope.switch.causes != 0);
            // The sum is read before the switches, so that a later trip makes it outdated.
            let epoch = self.epoch_sum_in(sessions, number);
            if let Some(session) = sessions.ptr(entry)
                && !scopes(&found).iter().any(is_tripped)
            {
                // SAFETY: the word lies inside the mapping, which self holds.
                unsafe { atomic_u64(&raw mut (*session.as_ptr()).day_epoch) }.store(epoch, ORDER);
            }
        }
        Ok(())
    }
}

/// The numbers of the scopes that apply to a session: its own, its groups' and the host's.
pub fn scopes(session: &Session) -> &[u32] {
    &session.scopes[..(session.scope_count as usize).min(session.scopes.len())]
}
