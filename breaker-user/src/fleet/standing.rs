//! The trips of a fleet that stand: which scopes of a host are tripped by the fleet.
//!
//! A host is tripped unless each trip that concerns it has a valid reset. A record that cannot be read counts
//! as a trip under `trip/`, and as nothing under `reset/`. A trip whose key is gone still stands: only a
//! reset lifts it. Records of a cluster that is not trusted can trip, and lift nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::record::{self, Reset, Trip, is_id};
use super::scope::FleetScope;
use crate::config::{Name, ScopeName};

/// Most ids of lifted trips that are kept. An id begins with its time, so the oldest are dropped.
const MAX_LIFTED: usize = 1_000;

/// What is known of the trip of a fleet's scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Id of the trip; `None` if its record could not be read.
    pub id: Option<String>,
    /// Whether a reset has lifted it.
    pub lifted: bool,
}

/// The trips that a host knows, by the rest of their key behind `trip/`. They are kept on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    trips: BTreeMap<String, Known>,
    /// Ids of lifted trips. A cluster that was restored from a backup may still have them.
    lifted: BTreeSet<String>,
}

/// Records under `trip/` and `reset/`, by the rest of their key.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// Values of the trips.
    pub trips: BTreeMap<String, Vec<u8>>,
    /// Values of the resets.
    pub resets: BTreeMap<String, Vec<u8>>,
}

/// A trip of a host's scope that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandingTrip {
    /// Scope of the host.
    pub scope: ScopeName,
    /// The rest of the key behind `trip/`.
    pub key: String,
    /// Id of the trip; `None` if its record could not be read.
    pub id: Option<String>,
}

impl Standing {
    /// Takes over the records of the cluster. If the cluster is not `trusted`, its resets are ignored.
    pub fn update(&mut self, records: &Records, trusted: bool) {
        for (key, value) in &records.trips {
            let id = record::decode::<Trip>(value).ok().map(|trip| trip.id).filter(|id| is_id(id));
            let is_lifted = |id: &String| {
                let reset = records.resets.get(id);
                trusted && reset.is_some_and(|reset| record::decode::<Reset>(reset).is_ok())
            };
            let lifted = id.as_ref().is_some_and(|id| self.lifted.contains(id) || is_lifted(id));
            self.lifted.extend(id.clone().filter(|_| lifted));
            self.trips.insert(key.clone(), Known { id, lifted });
        }
        while self.lifted.len() > MAX_LIFTED {
            self.lifted.pop_first();
        }
    }

    /// Adds a trip of this host that etcd does not have yet.
    pub fn add(&mut self, scope: &FleetScope, id: String) {
        self.trips.insert(scope.to_string(), Known { id: Some(id), lifted: false });
    }

    /// Returns the trips that stand on a host. A key that names no scope concerns every host.
    pub fn on_host(&self, host: &Name, declares: impl Fn(&ScopeName) -> bool) -> Vec<StandingTrip> {
        let standing = self.trips.iter().filter(|(_, known)| !known.lifted);
        standing
            .filter_map(|(key, known)| {
                let scope = match key.parse::<FleetScope>() {
                    Ok(scope) => scope.on_host(host, &declares)?,
                    Err(_) => ScopeName::Host,
                };
                Some(StandingTrip { scope, key: key.clone(), id: known.id.clone() })
            })
            .collect()
    }

    /// Returns the scopes of a host whose trips are all lifted, of which there is at least one.
    pub fn lifted_on_host(&self, host: &Name, declares: impl Fn(&ScopeName) -> bool) -> BTreeSet<ScopeName> {
        let concerns = |key: &String| key.parse::<FleetScope>().ok()?.on_host(host, &declares);
        let lifted = self.trips.iter().filter(|(_, known)| known.lifted).filter_map(|(key, _)| concerns(key));
        let mut lifted: BTreeSet<_> = lifted.collect();
        for trip in self.on_host(host, &declares) {
            lifted.remove(&trip.scope);
        }
        lifted
    }

    /// Returns the keys behind `trip/` that are known and that the records do not have.
    pub fn missing<'s>(&'s self, records: &'s Records) -> impl Iterator<Item = &'s String> {
        self.trips.keys().filter(|key| !records.trips.contains_key(*key))
    }
}

#[cfg(test)]
mod tests;
