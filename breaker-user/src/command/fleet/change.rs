//! `breaker fleet trip`, `reset`, `arm` and `disarm`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use jiff::Timestamp;

use super::connection::{Connection, Fleet, failure};
use super::ssh;
use super::wait::{Given, concerned};
use crate::cli::{FleetArgs, FleetSwitchArgs, FleetTripArgs};
use crate::cli_error::{self, CliError, Code};
use crate::command::output::warn;
use crate::fleet::FleetScope;
use crate::fleet::engine::Created;
use crate::fleet::record::{self, Ack, Command, Reset, Trip, Verb, encode, new_id};
use crate::fleet::sameness::compare;

/// Writes a command with the records of its effect.
pub async fn give(
    connection: &Connection,
    id: &str,
    command: &Command,
    also: &[(String, Vec<u8>)],
) -> Result<()> {
    let value = encode(command).map_err(|error| anyhow!(error))?;
    let created = connection.engine.create(&connection.prefix.command(id), &value, also).await;
    match created.map_err(failure)? {
        Created::New { .. } => Ok(()),
        Created::Exists { .. } => {
            Err(anyhow!("giving the command {id}: another command has this id: give it again"))
        }
    }
}

/// Makes a command of this person at this moment.
pub fn command(verb: Verb, subject: &str, why: &str) -> (String, Command) {
    let (by, from) = Connection::author();
    let (subject, why) = (subject.to_owned(), why.to_owned());
    (new_id(), Command { verb, subject, by, from, why, at: Timestamp::now() })
}

/// Trips a scope by etcd and by SSH at once.
pub async fn trip(connection: &Connection, args: &FleetArgs, switch: &FleetTripArgs) -> Result<ExitCode> {
    let began = Instant::now();
    let (reason, problem) = switch.reason();
    let (id, command) = command(Verb::Trip, &switch.scope.to_string(), &reason);
    let trip = Trip { id: id.clone(), by: command.by.clone(), why: command.why.clone(), at: command.at };
    let value = encode(&trip).map_err(|error| anyhow!(error))?;
    let also = [(connection.prefix.trip(&switch.scope), value)];
    let known = ssh::Inventory::read(connection.inventory.clone());
    let mut by_ssh = ssh::Trips::start(&known, &switch.scope);
    let mut given = Given::begin(connection, args, id, began);
    if let Err(error) = give(connection, &given.id, &command, &also).await {
        let deadline = began + Duration::from_millis(args.timeout);
        let (hosts, acks) = (by_ssh.hosts.clone(), by_ssh.collect(deadline).await);
        return without_etcd(args, given, (&switch.scope, hosts, acks), &error);
    }
    if let Some(problem) = problem {
        warn(&format!("breaker: the reason: {problem}: logged as {reason:?}"));
    }
    let fleet = given.read().await?;
    known.keep(&fleet);
    let hosts = concerned(&fleet, &switch.scope);
    let acks = given.collect(&fleet, &hosts, Some(&mut by_ssh)).await;
    given.outcome(format!("tripped {}", switch.scope), &hosts, &acks).print(args)
}

/// Prints the result of a trip that etcd did not take, and the command for each host. Ends with 13.
fn without_etcd(
    args: &FleetArgs,
    given: Given<'_>,
    (scope, hosts, acks): (&FleetScope, Vec<String>, BTreeMap<String, Ack>),
    error: &anyhow::Error,
) -> Result<ExitCode> {
    let hosts = hosts.into_iter().collect();
    given.outcome(format!("tripped {scope} by SSH alone"), &hosts, &acks).print(args)?;
    warn(&format!("breaker: etcd did not take the trip: {}", cli_error::text_of(error)));
    warn("breaker: the trip may still take effect later; run on each host that is not tripped:");
    for host in &hosts {
        if let Some(local) = ssh::local_scope(host, scope) {
            warn(&format!("  {host}: breaker trip {local} --reason TEXT"));
        }
    }
    if hosts.is_empty() {
        warn("  breaker trip host --reason TEXT (no host is known here)");
    }
    Ok(cli_error::code_of(error).into())
}

/// Lifts the fleet's trip of a scope.
pub async fn reset(connection: &Connection, args: &FleetArgs, switch: &FleetSwitchArgs) -> Result<ExitCode> {
    let began = Instant::now();
    let trip = standing_id(&connection.read().await?, &switch.scope)?;
    let (id, command) = command(Verb::Reset, &switch.scope.to_string(), &switch.reason);
    let Command { by, why, at, .. } = command.clone();
    let value =
        encode(&Reset { id: id.clone(), by, second: None, why, at }).map_err(|error| anyhow!(error))?;
    let also = [(connection.prefix.reset(&trip), value)];
    let given = Given::begin(connection, args, id, began);
    give(connection, &given.id, &command, &also).await?;
    given.finish(args, format!("reset {}", switch.scope), |fleet| concerned(fleet, &switch.scope)).await
}

/// Arms or disarms a scope.
pub async fn arm(
    connection: &Connection,
    args: &FleetArgs,
    (switch, verb): (&FleetSwitchArgs, Verb),
) -> Result<ExitCode> {
    let began = Instant::now();
    let scope = &switch.scope;
    if verb == Verb::Arm {
        require_same(&connection.read().await?, scope)?;
    }
    let (id, command) = command(verb, &scope.to_string(), &switch.reason);
    let given = Given::begin(connection, args, id, began);
    give(connection, &given.id, &command, &[]).await?;
    let done = if verb == Verb::Arm { "armed" } else { "disarmed" };
    given.finish(args, format!("{done} {scope}"), |fleet| concerned(fleet, scope)).await
}

/// The id of the fleet's trip of a scope that stands.
fn standing_id(fleet: &Fleet, scope: &FleetScope) -> Result<String> {
    let refused = |found: &str, cure: &str| {
        let text = format!("resetting {scope}: refused, nothing is changed: {found}: {cure}");
        Err(CliError::new(Code::Refused, text).into())
    };
    let Some(value) = fleet.switches.trips.get(&scope.to_string()) else {
        return refused(
            "the fleet has not tripped exactly this scope",
            "`breaker fleet status` lists the trips",
        );
    };
    let Ok(trip) = record::decode::<Trip>(value) else {
        let cure = format!(
            "trip it again with `breaker fleet trip {scope}`, which replaces the record, then reset it"
        );
        return refused("the record of its trip cannot be read", &cure);
    };
    let is_reset =
        fleet.switches.resets.get(&trip.id).is_some_and(|value| record::decode::<Reset>(value).is_ok());
    if is_reset {
        return refused("its trip is reset already", "`breaker fleet status` lists the trips that stand");
    }
    Ok(trip.id)
}

/// Fails unless every host of the inventory is the same.
fn require_same(fleet: &Fleet, scope: &FleetScope) -> Result<()> {
    let checks = compare(fleet.active(), &fleet.inventory_hosts(), &fleet.hosts);
    let differing = checks.iter().filter(|check| !check.differences.is_empty());
    let lines: Vec<_> = differing
        .flat_map(|check| check.differences.iter().map(move |found| format!("{}: {found}", check.host)))
        .collect();
    if fleet.inventory.is_empty() {
        let found = "the inventory is empty: `breaker fleet inventory add HOST`";
        let text = format!("arming {scope}: refused, nothing is changed: {found}");
        return Err(CliError::new(Code::Refused, text).into());
    }
    if lines.is_empty() {
        return Ok(());
    }
    let text = format!(
        "arming {scope}: refused, nothing is changed: hosts differ:\n  {}\nmake them the same: \
         `breaker fleet verify`",
        lines.join("\n  ")
    );
    Err(CliError::new(Code::Differs, text).into())
}
