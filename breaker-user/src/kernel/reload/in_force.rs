//! The policy in force, copied out of the maps.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use breaker_common::abi::{
    self, CompId, IdentityKey, LIMITS_PER_SCOPE, Label, Limit, Rules, Scope, Session, Target, TargetWords,
    label,
};

use super::endpoints::Entry;
use crate::kernel::Breaker;
use crate::kernel::maps;
use crate::kernel::memory::Mapped;
use crate::kernel::tables::limits::ScopeLimits;
use crate::kernel::tables::numbers::Allocated;
use crate::kernel::text::trim_padding;

/// The policy in force, and the state of its scopes.
pub struct InForce {
    /// The side that it is on.
    pub side: usize,
    /// The policy as a whole.
    pub policy: abi::Policy,
    /// Labels, by scope number.
    pub labels: Vec<Label>,
    /// Scopes, by number.
    pub scopes: Vec<Scope>,
    /// Sessions, by number.
    pub sessions: Vec<Session>,
    /// Endpoints, with the words of both sides.
    pub endpoints: Vec<Entry>,
    /// Numbers of CompIDs.
    pub comp_ids: BTreeMap<CompId, u32>,
    /// Sessions of shared endpoints, with the numbers of both sides.
    pub identities: Vec<(IdentityKey, TargetWords)>,
}

impl InForce {
    /// Reads the whole policy.
    pub fn read(breaker: &Breaker) -> Result<Self> {
        let (root, policy, side) = (breaker.root(), *breaker.policy(), breaker.side());
        let labels = Mapped::<Label>::open(&root.map("LABELS"))?;
        let sessions = breaker.maps().sessions()?;
        let session_index = |session: u32| session * abi::SIDES as u32 + side as u32;
        let endpoints = maps::endpoints(root)?;
        let endpoints =
            endpoints.iter().map(|entry| entry.map(|(key, words)| (key.data().0, key.prefix_len(), words)));
        let comp_ids = maps::comp_ids(root)?;
        let identities = maps::identities(root)?;
        Ok(Self {
            labels: (0..policy.scopes)
                .map(|n| labels.get(n).context("reading LABELS"))
                .collect::<Result<_>>()?,
            scopes: (0..policy.scopes)
                .map(|n| breaker.scopes().get(n).context("reading SCOPES"))
                .collect::<Result<_>>()?,
            sessions: (0..policy.sessions)
                .map(|n| sessions.get(session_index(n)).context("reading SESSIONS"))
                .collect::<Result<_>>()?,
            endpoints: endpoints.collect::<Result<_, _>>().context("reading ENDPOINTS")?,
            comp_ids: comp_ids.iter().collect::<Result<_, _>>().context("reading COMP_IDS")?,
            identities: identities
                .iter()
                .map(|entry| entry.map(|(key, words)| (key.0, words)))
                .collect::<Result<_, _>>()
                .context("reading IDENTITIES")?,
            side,
            policy,
        })
    }

    /// The numbers and ring slots that the next policy must not assign anew.
    pub fn allocated(&self) -> Allocated {
        let shared = |(endpoint, bits, words): &Entry| match Target::unpack(words[self.side]) {
            Target::Shared { endpoint: number, .. } => Some(((*endpoint, *bits), number)),
            Target::None | Target::Session(_) => None,
        };
        let rings = (0..self.scopes.len())
            .flat_map(|scope| self.limits(scope))
            .filter(|(_, limit)| limit.per_ns != 0);
        Allocated {
            labels: self.labels.clone(),
            rules: (0..self.scopes.len()).map(|scope| self.rules(scope)).collect(),
            sessions: self.policy.sessions,
            comp_ids: self.comp_ids.clone(),
            shared_endpoints: self.endpoints.iter().filter_map(shared).collect(),
            rings: rings
                .map(|(_, limit)| limit.ring.base..limit.ring.base + (1 << limit.ring.ring_bits))
                .collect(),
        }
    }

    /// The limits of a scope as the map has them.
    pub fn rules(&self, scope: usize) -> ScopeLimits {
        self.scopes
            .get(scope)
            .map(|found| (found.rules[self.side], found.limits[self.side]))
            .unwrap_or_default()
    }

    /// The limits of a scope, with their positions.
    pub fn limits(&self, scope: usize) -> Vec<(usize, Limit)> {
        limits(&self.rules(scope))
    }

    /// Returns true if the policy declares the scope.
    pub fn declares(&self, scope: usize) -> bool {
        self.rules(scope).0.positions & Rules::DECLARED != 0
    }

    /// Returns true if the policy declares the session.
    pub fn declares_session(&self, session: u32) -> bool {
        self.sessions.get(session as usize).is_some_and(|found| found.scope_count != 0)
    }

    /// Names of the scopes that are tripped.
    pub fn tripped_scopes(&self) -> Vec<String> {
        let is_tripped = |scope: &usize| self.declares(*scope) && self.scopes[*scope].switch.causes != 0;
        (0..self.scopes.len()).filter(is_tripped).map(|scope| scope_name(&self.labels[scope])).collect()
    }
}

/// The limits in use, with their positions.
pub fn limits((rules, limits): &ScopeLimits) -> Vec<(usize, Limit)> {
    (0..LIMITS_PER_SCOPE).filter(|i| rules.positions >> i & 1 == 1).map(|i| (i, limits[i])).collect()
}

/// The scope of a label as an operator types it: `host`, `group/NAME` or `session/NAME`.
pub fn scope_name(found: &Label) -> String {
    match found.kind {
        label::HOST => "host".to_owned(),
        label::GROUP => format!("group/{}", trim_padding(&found.name)),
        label::SESSION => format!("session/{}", trim_padding(&found.name)),
        _ => "nothing".to_owned(),
    }
}
