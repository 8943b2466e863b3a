//! The numbers that scopes, sessions, CompIDs and shared endpoints have in the maps.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::Result;
use breaker_common::abi::{CompId, Endpoint, Label, identity, label};

use super::limits::ScopeLimits;
use crate::config::{self, Policy, ScopeIndex, ScopeName, SessionIndex};
use crate::kernel::text::pad_to;

/// The numbers and rings that the policy in force has, which the next policy keeps. Empty at a load.
#[derive(Default)]
pub struct Allocated {
    /// Labels, by scope number.
    pub labels: Vec<Label>,
    /// Limits, by scope number.
    pub rules: Vec<ScopeLimits>,
    /// Number of the first session that is added.
    pub sessions: u32,
    /// Numbers of CompIDs.
    pub comp_ids: BTreeMap<CompId, u32>,
    /// Numbers of shared endpoints, by key and length of the prefix in bits.
    pub shared_endpoints: Vec<((Endpoint, u32), u32)>,
    /// Slots of the rings in use.
    pub rings: Vec<Range<u32>>,
}

/// The numbers of the scopes and sessions of a policy.
pub struct Numbers {
    /// Labels, by scope number.
    pub labels: Vec<Label>,
    /// Sessions, those included that this policy does not declare.
    pub session_count: u32,
    scopes: Vec<u32>,
    sessions: Vec<u32>,
}

impl Numbers {
    /// Assigns numbers. A scope that is allocated keeps its number, and a new one gets the next.
    pub fn assign(policy: &Policy, allocated: &Allocated) -> Result<Self> {
        let scopes = policy.scopes();
        let mut made = Self {
            labels: allocated.labels.clone(),
            scopes: vec![u32::MAX; scopes.count() as usize],
            sessions: vec![u32::MAX; scopes.session_count() as usize],
            session_count: allocated.sessions,
        };
        for scope in scopes.iter() {
            let mut wanted = label_of(&scopes.name(scope))?;
            let is_same = |known: &Label| known.kind == wanted.kind && known.name == wanted.name;
            let number = match made.labels.iter().position(is_same) {
                Some(number) => number,
                None => {
                    if wanted.kind == label::SESSION {
                        wanted.session = made.session_count;
                        made.session_count += 1;
                    }
                    made.labels.push(wanted);
                    made.labels.len() - 1
                }
            };
            made.scopes[scope.get() as usize] = number as u32;
            if let config::Scope::Session(session) = scopes.what(scope) {
                made.sessions[session.get() as usize] = made.labels[number].session;
            }
        }
        Ok(made)
    }

    /// The number of a scope.
    pub fn scope(&self, scope: ScopeIndex) -> u32 {
        self.scopes[scope.get() as usize]
    }

    /// The number of a session.
    pub fn session(&self, session: SessionIndex) -> u32 {
        self.sessions[session.get() as usize]
    }
}

/// Returns the label of a scope, without the session's number.
pub fn label_of(name: &ScopeName) -> Result<Label> {
    let (kind, text) = match name {
        ScopeName::Host => (label::HOST, ""),
        ScopeName::Group(name) => (label::GROUP, name.as_str()),
        ScopeName::Session(name) => (label::SESSION, name.as_str()),
    };
    Ok(Label { kind, session: 0, name: pad_to(text)? })
}

/// Returns the number of a CompID. A new one gets the next number.
pub fn comp_id(known: &mut BTreeMap<CompId, u32>, id: &config::CompId) -> u32 {
    let mut bytes = [0; size_of::<CompId>()];
    bytes[..id.as_str().len()].copy_from_slice(id.as_str().as_bytes());
    let next = identity::FIRST + known.len() as u32;
    *known.entry(bytemuck::cast(bytes)).or_insert(next)
}

/// The numbers of shared endpoints: the assigned ones, and the next.
pub struct SharedEndpoints {
    known: Vec<((Endpoint, u32), u32)>,
    next: u32,
}

impl SharedEndpoints {
    /// Continues after the assigned numbers.
    pub fn new(known: Vec<((Endpoint, u32), u32)>) -> Self {
        let next = known.iter().map(|(_, number)| number + 1).max().unwrap_or(0);
        Self { known, next }
    }

    /// Returns the number of an endpoint of which the first `bits` count. A new one gets the next number.
    pub fn number(&mut self, key: Endpoint, bits: u32) -> u32 {
        let known = self.known.iter().find(|(known, _)| *known == (key, bits)).map(|(_, number)| *number);
        let number = known.unwrap_or(self.next);
        self.next += u32::from(known.is_none());
        number
    }
}
