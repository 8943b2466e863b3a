//! The tables and the JSON of `breaker fleet status`, `verify` and `history`.

use serde::Serialize;

use super::connection::Fleet;
use crate::fleet::record::{self, Command, Reset, Trip};
use crate::fleet::sameness::{HostCheck, compare};
use crate::view::columns::{Cell, Columns};

/// `fleet status` and `fleet verify`.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Name of the fleet.
    pub fleet: String,
    /// Revision of everything below.
    pub revision: i64,
    /// Every host of the inventory is the same, and there is one.
    pub is_same: bool,
    /// Name and SHA-256 of the active policy; null if none is active.
    pub active: Option<[String; 2]>,
    /// The hosts.
    pub hosts: Vec<Host>,
    /// The trips that stand.
    pub trips: Vec<StandingTrip>,
}

/// A host of a fleet.
#[derive(Debug, Serialize)]
pub struct Host {
    /// The comparison with the active policy.
    #[serde(flatten)]
    pub check: HostCheck,
    /// The agent answers.
    pub live: bool,
    /// Name of the policy in force; null if unknown.
    pub policy: Option<String>,
    /// Tripped scopes with their causes.
    pub tripped: Vec<String>,
    /// Disarmed scopes.
    pub disarmed: Vec<String>,
    /// Revision that the host has applied; null if unknown.
    pub revision: Option<i64>,
}

/// A trip of the fleet that stands.
#[derive(Debug, Serialize)]
pub struct StandingTrip {
    /// Scope of the fleet, or the rest of a key that names none.
    pub scope: String,
    /// Id, person, reason and time; null if the record cannot be read.
    pub trip: Option<Trip>,
}

impl Status {
    /// The fleet at one revision.
    pub fn of(fleet: &Fleet) -> Self {
        let checks = compare(fleet.active(), &fleet.inventory_hosts(), &fleet.hosts);
        let is_same = !checks.is_empty() && checks.iter().all(|check| check.differences.is_empty());
        let hosts = checks.into_iter().map(|check| {
            let report = fleet.hosts.get(&check.host);
            let state = report.and_then(|report| report.state.as_ref()?.as_ref().ok());
            let tripped = state.map(|state| &state.tripped).into_iter().flatten();
            Host {
                live: report.is_some_and(|report| report.is_live),
                policy: state.map(|state| state.policy.clone()),
                tripped: tripped.map(|(scope, causes)| format!("{scope} ({})", causes.join(", "))).collect(),
                disarmed: state.map(|state| state.disarmed.clone()).unwrap_or_default(),
                revision: state.map(|state| state.revision),
                check,
            }
        });
        let stands = |value: &[u8]| match record::decode::<Trip>(value) {
            Ok(trip) => {
                let reset = fleet.switches.resets.get(&trip.id);
                let is_reset = reset.is_some_and(|value| record::decode::<Reset>(value).is_ok());
                (!is_reset).then_some(Some(trip))
            }
            Err(_) => Some(None),
        };
        let trips =
            fleet.switches.trips.iter().filter_map(|(scope, value)| {
                Some(StandingTrip { scope: scope.clone(), trip: stands(value)? })
            });
        Self {
            fleet: fleet.name.clone(),
            revision: fleet.revision,
            is_same,
            active: fleet.active().map(|active| [active.name.clone(), active.sha256.clone()]),
            trips: trips.collect(),
            hosts: hosts.collect(),
        }
    }

    /// What is wrong first, then a line for each host.
    pub fn text(&self) -> String {
        let mut lines = Vec::new();
        for StandingTrip { scope, trip } in &self.trips {
            lines.push(match trip {
                Some(Trip { by, why, at, .. }) => format!("TRIPPED: {scope} by {by} at {at:.3}: {why}"),
                None => format!("TRIPPED: {scope}: its record cannot be read"),
            });
        }
        for Host { check: HostCheck { host, differences }, .. } in &self.hosts {
            lines.extend(differences.iter().map(|found| format!("DIFFERS: {host}: {found}")));
        }
        let same = self.hosts.iter().filter(|host| host.check.differences.is_empty()).count();
        let active = match &self.active {
            Some([name, sha256]) => {
                format!("active policy {name} (sha256 {})", &sha256.get(..16).unwrap_or(sha256))
            }
            None => "no policy is activated".to_owned(),
        };
        lines.push(format!(
            "fleet {}, revision {}: {same} of {} hosts are the same; {active}",
            self.fleet,
            self.revision,
            self.hosts.len()
        ));
        if self.hosts.is_empty() {
            lines.push("the inventory is empty: `breaker fleet inventory add HOST`".to_owned());
            return lines.join("\n");
        }
        let mut table = Columns::new(&["host", "agent", "policy", "tripped", "disarmed", "revision"]);
        for host in &self.hosts {
            let none_or = |list: &[String]| if list.is_empty() { "-".to_owned() } else { list.join(", ") };
            let agent = if host.live { Cell::new("answers") } else { Cell::bad("no answer") };
            let tripped = none_or(&host.tripped);
            table.row([
                Cell::new(host.check.host.clone()),
                agent,
                Cell::new(host.policy.clone().unwrap_or_else(|| "unknown".to_owned())),
                if host.tripped.is_empty() { Cell::new(tripped) } else { Cell::bad(tripped) },
                Cell::new(none_or(&host.disarmed)),
                Cell::new(host.revision.map_or_else(|| "-".to_owned(), |revision| revision.to_string()))
                    .right(),
            ]);
        }
        format!("{}\n\n{}", lines.join("\n"), table.text(false))
    }
}

/// `fleet history`.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct History(Vec<Past>);

/// A command.
#[derive(Debug, Serialize)]
struct Past {
    id: String,
    /// Null if the record cannot be read.
    command: Option<Command>,
    /// Hosts that have acknowledged.
    hosts_done: usize,
}

impl History {
    /// Every command, the oldest first.
    pub fn of(fleet: &Fleet) -> Self {
        let past = fleet.commands.iter().map(|(id, command)| Past {
            id: id.clone(),
            command: command.as_ref().ok().cloned(),
            hosts_done: fleet.acks.get(id).map_or(0, |acks| acks.values().filter(|ack| ack.done).count()),
        });
        Self(past.collect())
    }

    /// A line for each command.
    pub fn text(&self) -> String {
        let mut table = Columns::new(&["time", "verb", "subject", "by", "hosts", "reason"]);
        for Past { id, command, hosts_done } in &self.0 {
            let Some(Command { verb, subject, by, why, at, .. }) = command else {
                table.row([Cell::bad(id.clone()), Cell::bad("its record cannot be read")]);
                continue;
            };
            let subject = subject.get(..32).unwrap_or(subject).to_owned();
            table.row([
                Cell::new(format!("{at:.3}")),
                Cell::new(verb.to_string()),
                Cell::new(subject),
                Cell::new(by.clone()),
                Cell::number(*hosts_done as u64).right(),
                Cell::new(why.clone()),
            ]);
        }
        table.text(false)
    }
}
