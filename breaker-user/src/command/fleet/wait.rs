//! Waits until every concerned host has acknowledged a command.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;
use tokio::select;
use tokio::time::{sleep_until, timeout_at};

use super::connection::{Connection, Fleet};
use super::ssh::Trips;
use crate::cli::FleetArgs;
use crate::cli_error::Code;
use crate::command::output::print;
use crate::config::{Name, ScopeName};
use crate::fleet::FleetScope;
use crate::fleet::engine::{Update, Watch};
use crate::fleet::record::{self, Ack};

/// The result of a command, as it is printed.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Id of the command.
    pub id: String,
    /// What was done, such as `tripped all`.
    pub done: String,
    /// Hosts whose kernel enforces the command.
    pub hosts_done: usize,
    /// Hosts that the command concerns.
    pub hosts: usize,
    /// Time from the start of the verb to the last acknowledgement, in ms.
    pub ms: f64,
    /// Hosts that did not do it, and why.
    pub missing: BTreeMap<String, String>,
    /// What hosts said besides.
    pub notes: BTreeMap<String, String>,
}

impl Outcome {
    /// Prints the result. Ends with 12 if a host is missing, or if no host is concerned.
    pub fn print(&self, args: &FleetArgs) -> Result<ExitCode> {
        let text = if args.json { serde_json::to_string_pretty(self)? } else { self.text() };
        print(&text)?;
        let is_done = self.missing.is_empty() && self.hosts != 0;
        Ok(if is_done { ExitCode::SUCCESS } else { Code::Differs.into() })
    }

    fn text(&self) -> String {
        let Self { done, hosts_done, hosts, ms, .. } = self;
        let mut text = format!("{done}: {hosts_done} of {hosts} hosts in {ms:.1} ms");
        for (host, found) in self.missing.iter().chain(&self.notes) {
            text += &format!("\n  {host}: {found}");
        }
        if *hosts == 0 {
            text += "\n  no host of the inventory is concerned: `breaker fleet inventory list`";
        }
        text
    }
}

/// The hosts that a scope concerns: those of the inventory, and live ones without an entry. A host whose
/// state is unknown is concerned.
pub fn concerned(fleet: &Fleet, scope: &FleetScope) -> BTreeSet<String> {
    let live = fleet.hosts.iter().filter(|(_, report)| report.is_live).map(|(host, _)| host.clone());
    let all: BTreeSet<String> = fleet.inventory_hosts().into_iter().chain(live).collect();
    let is_concerned = |host: &String| {
        let Ok(name) = host.parse::<Name>() else { return true };
        let state = fleet.hosts.get(host).and_then(|report| report.state.as_ref()?.as_ref().ok());
        let declares =
            |scope: &ScopeName| state.is_none_or(|state| state.scopes.contains(&scope.to_string()));
        scope.on_host(&name, declares).is_some()
    };
    all.into_iter().filter(is_concerned).collect()
}

/// A command whose acknowledgements are awaited.
///
/// etcd delivers changes to a watch from an earlier revision only every 100 ms (syncWatchersLoop in
/// server/storage/mvcc/watchable_store.go). The watch therefore begins with the present revision, before the
/// command is given.
pub struct Given<'c> {
    connection: &'c Connection,
    watch: Watch,
    /// Id of the command.
    pub id: String,
    /// Start of the verb.
    pub began: Instant,
    deadline: Instant,
}

impl<'c> Given<'c> {
    /// Begins to watch for the acknowledgements of a command.
    pub fn begin(connection: &'c Connection, args: &FleetArgs, id: String, began: Instant) -> Self {
        let watch = connection.engine.watch(&connection.prefix.hosts(), 0);
        Self { connection, watch, id, began, deadline: began + Duration::from_millis(args.timeout) }
    }

    /// Reads the fleet after the watch is established, so that no acknowledgement is missed.
    pub async fn read(&mut self) -> Result<Fleet> {
        let _ = timeout_at(self.deadline.into(), self.watch.next()).await;
        self.connection.read().await
    }

    /// Waits for the hosts, and prints the result.
    pub async fn finish(
        mut self,
        args: &FleetArgs,
        done: String,
        hosts_of: impl FnOnce(&Fleet) -> BTreeSet<String>,
    ) -> Result<ExitCode> {
        let fleet = self.read().await?;
        let hosts = hosts_of(&fleet);
        let acks = self.collect(&fleet, &hosts, None).await;
        self.outcome(done, &hosts, &acks).print(args)
    }

    /// Collects the acknowledgements until the deadline, those by SSH too.
    pub async fn collect(
        &mut self,
        fleet: &Fleet,
        hosts: &BTreeSet<String>,
        mut by_ssh: Option<&mut Trips>,
    ) -> BTreeMap<String, Ack> {
        let mut acks = fleet.acks.get(&self.id).cloned().unwrap_or_default();
        while !hosts.iter().all(|host| acks.contains_key(host)) {
            let next_by_ssh = async {
                match &mut by_ssh {
                    Some(trips) => trips.next().await,
                    None => pending().await,
                }
            };
            let update = select! {
                () = sleep_until(self.deadline.into()) => break,
                (host, ack) = next_by_ssh => {
                    acks.entry(host).or_insert(ack);
                    continue;
                }
                update = self.watch.next() => update,
            };
            match update {
                Update::Changed { key, entry: Some(entry), .. } => {
                    let Some((host, found)) = self.connection.prefix.host_and_command(&key) else { continue };
                    if found == self.id
                        && let Ok(ack) = record::decode::<Ack>(&entry.value)
                    {
                        acks.insert(host.to_owned(), ack);
                    }
                }
                // A stream that is opened again may begin behind an acknowledgement.
                Update::Lost { .. } | Update::Compacted => {
                    let Ok(fleet) = self.connection.read().await else { break };
                    acks.extend(fleet.acks.get(&self.id).cloned().unwrap_or_default());
                }
                Update::Changed { .. } | Update::Progress { .. } => {}
            }
        }
        acks
    }

    /// The result from the acknowledgements.
    pub fn outcome(self, done: String, hosts: &BTreeSet<String>, acks: &BTreeMap<String, Ack>) -> Outcome {
        outcome((self.id, done), hosts, acks, self.began.elapsed())
    }
}

/// The result from the acknowledgements.
pub fn outcome(
    (id, done): (String, String),
    hosts: &BTreeSet<String>,
    acks: &BTreeMap<String, Ack>,
    elapsed: Duration,
) -> Outcome {
    let mut missing = BTreeMap::new();
    let mut notes = BTreeMap::new();
    for host in hosts {
        match acks.get(host) {
            Some(Ack { done: true, found: Some(found), .. }) => {
                notes.insert(host.clone(), found.clone());
            }
            Some(Ack { done: true, found: None, .. }) => {}
            Some(Ack { found, .. }) => {
                missing.insert(host.clone(), found.clone().unwrap_or_else(|| "refused".to_owned()));
            }
            None => {
                missing.insert(host.clone(), "no answer".to_owned());
            }
        }
    }
    let hosts_done = hosts.len() - missing.len();
    Outcome { id, done, hosts_done, hosts: hosts.len(), ms: elapsed.as_secs_f64() * 1e3, missing, notes }
}
