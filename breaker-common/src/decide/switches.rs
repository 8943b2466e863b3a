//! The combined state of several scopes: epoch sum, causes, history.

use crate::abi::{SCOPES_PER_SESSION, Session, Switch};

/// Scope number of the host.
pub const HOST: u32 = 0;

/// The combined switches of all scopes of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switches {
    /// Epoch sum. The sum changes with every trip and reset, because epochs only rise.
    pub epoch: u64,
    /// Union of the causes.
    pub causes: u64,
}

impl Switches {
    /// Combines the switches of a session's scopes.
    ///
    /// `switch_of` returns the epoch and the causes of a scope, or `None` if there is no such scope. The sum
    /// wraps: after a reload, a session may have a scope whose epoch is a negative difference.
    #[inline(always)]
    pub fn combined(session: &Session, mut switch_of: impl FnMut(u32) -> Option<(u64, u64)>) -> Self {
        let mut sum = Self { epoch: 0, causes: 0 };
        for_each_scope(session, |scope| {
            if let Some((epoch, causes)) = switch_of(scope) {
                sum.add(epoch, causes);
            }
        });
        sum
    }

    /// Adds the epoch and the causes of a scope.
    #[inline(always)]
    pub fn add(&mut self, epoch: u64, causes: u64) {
        self.epoch = self.epoch.wrapping_add(epoch);
        self.causes |= causes;
    }
}

/// The combined history of all scopes of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScopeHistory {
    /// Time of the last trip or reset of any scope, CLOCK_MONOTONIC, ns; 0 for never.
    pub raised_ns: u64,
    /// Sum of the resets. The sum wraps, like the epoch sum.
    pub resets: u64,
}

impl ScopeHistory {
    /// Combines the histories of a session's scopes. `switch_of` returns the switch of a scope.
    #[inline(always)]
    pub fn combined(session: &Session, mut switch_of: impl FnMut(u32) -> Option<Switch>) -> Self {
        let mut history = Self { raised_ns: 0, resets: 0 };
        for_each_scope(session, |scope| {
            if let Some(switch) = switch_of(scope) {
                history.add(switch);
            }
        });
        history
    }

    /// Adds the history of a scope.
    #[inline(always)]
    pub fn add(&mut self, switch: Switch) {
        self.raised_ns = self.raised_ns.max(switch.raised_ns);
        self.resets = self.resets.wrapping_add(switch.resets);
    }
}

/// The combined state of the scopes of all sessions at a shared endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedEndpointState {
    /// Union of the causes.
    pub causes: u64,
    /// Time of the last trip or reset of any scope, CLOCK_MONOTONIC, ns; 0 for never.
    pub raised_ns: u64,
}

impl SharedEndpointState {
    /// Adds the scopes of a session at the endpoint. `switch_of` returns the switch of a scope.
    #[inline(always)]
    pub fn add_session(&mut self, session: &Session, mut switch_of: impl FnMut(u32) -> Option<Switch>) {
        for_each_scope(session, |scope| {
            if let Some(switch) = switch_of(scope) {
                self.raised_ns = self.raised_ns.max(switch.raised_ns);
                self.causes |= switch.causes;
            }
        });
    }
}

/// Calls `visit` with the number of each scope of a session.
#[inline(always)]
fn for_each_scope(session: &Session, mut visit: impl FnMut(u32)) {
    let mut i = 0;
    while i < SCOPES_PER_SESSION && (i as u32) < session.scope_count {
        visit(session.scopes[i]);
        i += 1;
    }
}
