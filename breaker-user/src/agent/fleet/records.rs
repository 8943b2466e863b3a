//! The records of the fleet that concern this host, as the agent has read them last.

use std::collections::BTreeMap;

use crate::fleet::engine::{Entry, Snapshot};
use crate::fleet::record::{self, ActivePolicy, Command, Reset, Trip};
use crate::fleet::standing;
use crate::fleet::{FleetScope, Prefix};

/// The records behind the keys that every agent follows.
#[derive(Default)]
pub struct Records {
    /// Trips and resets.
    pub switches: standing::Records,
    /// The value of the active policy.
    pub active: Option<Vec<u8>>,
    /// Revision of the last change of each key. What was read before a change was watched is older.
    revisions: BTreeMap<String, i64>,
}

/// A record that is new since the last revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A trip; its record is `None` if it cannot be read.
    Trip {
        /// The rest of the key behind `trip/`.
        key: String,
        /// The record.
        trip: Option<Trip>,
    },
    /// A reset of the trip with this id.
    Reset {
        /// Id of the trip.
        trip: String,
        /// The record.
        reset: Reset,
    },
    /// A policy was activated.
    Active(ActivePolicy),
    /// A command without a record of its own: `arm`, `disarm` or `publish`.
    Command {
        /// Id of the command.
        id: String,
        /// The record.
        command: Command,
    },
}

impl Records {
    /// Returns true if a change of a key, without its prefix, is newer than what is known.
    pub fn is_newer(&self, key: &str, revision: i64) -> bool {
        self.revisions.get(key).is_none_or(|known| revision > *known)
    }

    /// Takes over a change of a key, without its prefix, if it is newer. Returns what is new.
    pub fn change(&mut self, key: &str, value: Option<Vec<u8>>, revision: i64) -> Option<News> {
        if !self.is_newer(key, revision) {
            return None;
        }
        self.revisions.insert(key.to_owned(), revision);
        let value_of = |value: &Option<Vec<u8>>| value.clone().unwrap_or_default();
        match key.split_once('/')? {
            ("trip", rest) => {
                let trip = record::decode(&value_of(&value)).ok();
                set(&mut self.switches.trips, rest, value.clone());
                value.map(|_| News::Trip { key: rest.to_owned(), trip })
            }
            ("reset", id) => {
                let reset = record::decode(&value_of(&value)).ok();
                set(&mut self.switches.resets, id, value);
                reset.map(|reset| News::Reset { trip: id.to_owned(), reset })
            }
            ("policy", "active") => {
                self.active.clone_from(&value);
                record::decode(&value?).ok().map(News::Active)
            }
            ("command", id) => {
                let command = record::decode(&value?).ok()?;
                Some(News::Command { id: id.to_owned(), command })
            }
            _ => None,
        }
    }

    /// Id, person and reason of the trip behind a key.
    pub fn author_of_trip(&self, key: &str) -> Option<[String; 3]> {
        let trip = record::decode::<Trip>(self.switches.trips.get(key)?).ok()?;
        Some([trip.id, trip.by, trip.why])
    }

    /// The active policy, if its record can be read.
    pub fn active(&self) -> Option<ActivePolicy> {
        record::decode(self.active.as_ref()?).ok()
    }

    /// The scope of the trip with this id.
    pub fn scope_of_trip(&self, id: &str) -> Option<FleetScope> {
        let has_id = |value: &Vec<u8>| record::decode::<Trip>(value).is_ok_and(|trip| trip.id == id);
        let (key, _) = self.switches.trips.iter().find(|(_, value)| has_id(value))?;
        key.parse().ok()
    }
}

fn set(records: &mut BTreeMap<String, Vec<u8>>, key: &str, value: Option<Vec<u8>>) {
    match value {
        Some(value) => records.insert(key.to_owned(), value),
        None => records.remove(key),
    };
}

/// Returns the entries of snapshots in the order of their last change, with their keys without the prefix.
pub fn in_order(prefix: &Prefix, snapshots: Vec<Snapshot>) -> Vec<(String, Entry)> {
    let entries = snapshots.into_iter().flat_map(|snapshot| snapshot.entries);
    let mut entries: Vec<_> =
        entries.filter_map(|(key, entry)| Some((prefix.strip(&key)?.to_owned(), entry))).collect();
    entries.sort_by_key(|(_, entry)| entry.mod_revision);
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_reading_does_not_replace_what_was_watched() {
        let mut records = Records::default();
        let trip = |id: &str| {
            format!(r#"{{"schema":1,"id":"{id}","by":"a","why":"w","at":"2026-11-27T10:00:00Z"}}"#)
        };
        let change = |records: &mut Records, id: &str, revision| {
            records.change("trip/all", Some(trip(id).into_bytes()), revision).is_some()
        };
        assert!(change(&mut records, "a", 5));
        assert!(change(&mut records, "b", 9));
        assert!(!change(&mut records, "a", 5) && !change(&mut records, "c", 9));
        assert_eq!(records.author_of_trip("all").expect("a trip")[0], "b");
        assert!(!records.is_newer("trip/all", 9) && records.is_newer("reset/b", 1));
    }
}
