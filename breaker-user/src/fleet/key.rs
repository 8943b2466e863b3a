//! The keys of a fleet in etcd, under `/breaker/FLEET/`.

use super::scope::FleetScope;
use crate::config::Name;

/// The keys of one fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// The keys of the fleet with this name.
    pub fn new(fleet: &Name) -> Self {
        Self(format!("/breaker/{fleet}/"))
    }

    /// The beginning of every key.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Removes the prefix from a key; `None` for a key of something else.
    pub fn strip<'k>(&self, key: &'k str) -> Option<&'k str> {
        key.strip_prefix(&self.0)
    }

    fn key(&self, rest: impl AsRef<str>) -> String {
        format!("{}{}", self.0, rest.as_ref())
    }

    /// The hosts that must exist.
    pub fn inventory(&self) -> String {
        self.key("inventory/")
    }

    /// The inventory entry of a host.
    pub fn inventory_of(&self, host: &Name) -> String {
        self.key(format!("inventory/{host}"))
    }

    /// The policy that every host must enforce.
    pub fn active_policy(&self) -> String {
        self.key("policy/active")
    }

    /// The text of a published policy.
    pub fn policy(&self, sha256: &str) -> String {
        self.key(format!("policy/{sha256}"))
    }

    /// The trips of all scopes.
    pub fn trips(&self) -> String {
        self.key("trip/")
    }

    /// The trip of a scope.
    pub fn trip(&self, scope: &FleetScope) -> String {
        self.key(format!("trip/{scope}"))
    }

    /// The resets of all trips.
    pub fn resets(&self) -> String {
        self.key("reset/")
    }

    /// The reset of a trip.
    pub fn reset(&self, trip: &str) -> String {
        self.key(format!("reset/{trip}"))
    }

    /// The first key of policies, resets and trips, and the key behind the last one. Nothing else is between.
    pub fn switches(&self) -> [String; 2] {
        [self.key("policy/"), self.key("trip0")]
    }

    /// The commands, every verb since the fleet exists.
    pub fn commands(&self) -> String {
        self.key("command/")
    }

    /// A command.
    pub fn command(&self, id: &str) -> String {
        self.key(format!("command/{id}"))
    }

    /// What the hosts report.
    pub fn hosts(&self) -> String {
        self.key("hosts/")
    }

    /// That a host's agent runs: a key with a lease.
    pub fn live(&self, host: &Name) -> String {
        self.key(format!("hosts/{host}/live"))
    }

    /// What a host's kernel enforces.
    pub fn state(&self, host: &Name) -> String {
        self.key(format!("hosts/{host}/state"))
    }

    /// A host's acknowledgement of a command.
    pub fn ack(&self, host: &Name, id: &str) -> String {
        self.key(format!("hosts/{host}/ack/{id}"))
    }

    /// Splits the key of an acknowledgement into host and command.
    pub fn host_and_command<'k>(&self, key: &'k str) -> Option<(&'k str, &'k str)> {
        self.strip(key)?.strip_prefix("hosts/")?.split_once("/ack/")
    }
}
