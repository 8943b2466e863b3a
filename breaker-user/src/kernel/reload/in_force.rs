//! What is in force, copied out of the maps: what a new policy is laid beside and compared with.

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
use crate::kernel::tables::{Allocated, trim_padding};

/// See the module.
pub struct InForce {
    /// The side that it is on.
    pub side: usize,
    /// The policy as a whole.
    pub policy: abi::Policy,
    /// What each scope number stands for.
    pub labels: Vec<Label>,
    /// The scopes.
    pub scopes: Vec<Scope>,
    /// The sessions.
    pub sessions: Vec<Session>,
    /// The endpoints, with both sides' words.
    pub endpoints: Vec<Entry>,
    /// The numbers of CompIDs.
    pub comp_ids: BTreeMap<CompId, u32>,
    /// The sessions at shared places, with both sides' numbers.
    pub identities: Vec<(IdentityKey, TargetWords)>,
}

impl InForce {
    /// Reads all of it.
    pub fn read(breaker: &Breaker) -> Result<Self> {
        let (root, policy, side) = (breaker.root(), *breaker.policy(), breaker.side());
        let labels = Mapped::<Label>::open(&root.map("LABELS"))?;
        let sessions = breaker.maps().sessions()?;
        let place = |session: u32| session * abi::SIDES as u32 + side as u32;
        let endpoints = maps::endpoints(root)?;
        let endpoints =
            endpoints.iter().map(|entry| entry.map(|(key, place)| (key.data().0, key.prefix_len(), place)));
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
                .map(|n| sessions.get(place(n)).context("reading SESSIONS"))
                .collect::<Result<_>>()?,
            endpoints: endpoints.collect::<Result<_, _>>().context("reading ENDPOINTS")?,
            comp_ids: comp_ids.iter().collect::<Result<_, _>>().context("reading COMP_IDS")?,
            identities: identities
                .iter()
                .map(|entry| entry.map(|(key, place)| (key.0, place)))
                .collect::<Result<_, _>>()
                .context("reading IDENTITIES")?,
            side,
            policy,
        })
    }

    /// What a new policy must leave as it is.
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
            places: self.endpoints.iter().filter_map(shared).collect(),
            rings: rings
                .map(|(_, limit)| limit.ring.base..limit.ring.base + (1 << limit.ring.ring_bits))
                .collect(),
        }
    }

    /// Which limits a scope has.
    pub fn rules(&self, scope: usize) -> (Rules, [Limit; LIMITS_PER_SCOPE]) {
        self.scopes
            .get(scope)
            .map(|found| (found.rules[self.side], found.limits[self.side]))
            .unwrap_or_default()
    }

    /// The limits of a scope, with their positions.
    pub fn limits(&self, scope: usize) -> Vec<(usize, Limit)> {
        limits(&self.rules(scope))
    }

    /// Whether the policy has the scope.
    pub fn declares(&self, scope: usize) -> bool {
        self.rules(scope).0.positions & Rules::DECLARED != 0
    }

    /// Names of the scopes that are tripped.
    pub fn tripped(&self) -> Vec<String> {
        let tripped = |scope: &usize| self.declares(*scope) && self.scopes[*scope].switch.causes != 0;
        (0..self.scopes.len()).filter(tripped).map(|scope| named(&self.labels[scope])).collect()
    }
}

/// The limits that are in use, with their positions.
pub fn limits((rules, limits): &(Rules, [Limit; LIMITS_PER_SCOPE])) -> Vec<(usize, Limit)> {
    (0..LIMITS_PER_SCOPE).filter(|i| rules.positions >> i & 1 == 1).map(|i| (i, limits[i])).collect()
}

/// What a label says, as a person types it.
pub fn named(found: &Label) -> String {
    match found.kind {
        label::HOST => "host".to_owned(),
        label::GROUP => format!("group/{}", trim_padding(&found.name)),
        label::SESSION => format!("session/{}", trim_padding(&found.name)),
        _ => "nothing".to_owned(),
    }
}
