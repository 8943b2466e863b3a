//! `breaker fleet publish` and `breaker fleet activate`.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};

use super::change::{command, give};
use super::connection::{Connection, Fleet};
use super::wait::Given;
use crate::cli::{ActivateArgs, FleetArgs, PublishArgs};
use crate::cli_error::{CliError, Code};
use crate::config;
use crate::fleet::record::{ActivePolicy, HostState, Verb, encode};

/// Longest text of a policy in bytes: etcd takes requests of at most 1.5 MiB by default.
const MAX_POLICY: usize = 1 << 20;

/// Publishes a policy. Every host of the inventory answers whether it would take it.
pub async fn publish(connection: &Connection, args: &FleetArgs, publish: &PublishArgs) -> Result<ExitCode> {
    let began = Instant::now();
    let policy = config::load(&publish.file)?.policy;
    if policy.text().len() > MAX_POLICY {
        let text = format!("publishing {}: it is longer than 1 MiB", publish.file.display());
        return Err(CliError::new(Code::Refused, text).into());
    }
    let sha256 = policy.sha256_hex();
    let (id, command) = command(Verb::Publish, &sha256, &publish.reason);
    let entry = (connection.prefix.policy(&sha256), policy.text().as_bytes().to_vec());
    let given = Given::begin(connection, args, id, began);
    give(connection, &given.id, &command, &[entry]).await?;
    let done = format!("published policy {} (sha256 {}), taken", policy.name(), &sha256[..16]);
    given.finish(args, done, |fleet| fleet.inventory_hosts().into_iter().collect()).await
}

/// Activates the policy that was published last.
pub async fn activate(
    connection: &Connection,
    args: &FleetArgs,
    activate: &ActivateArgs,
) -> Result<ExitCode> {
    let began = Instant::now();
    let fleet = connection.read().await?;
    let refused = |found: &str| {
        CliError::new(Code::Refused, format!("activating: refused, nothing is changed: {found}"))
    };
    let published = fleet.commands.iter().rev().find_map(|(id, command)| {
        let command = command.as_ref().ok().filter(|command| command.verb == Verb::Publish)?;
        Some((id, command.subject.clone()))
    });
    let Some((published, sha256)) = published else {
        return Err(refused("no policy is published: `breaker fleet publish FILE`").into());
    };
    let hosts: BTreeSet<_> = fleet.inventory_hosts().into_iter().collect();
    if hosts.is_empty() {
        return Err(refused("the inventory is empty: `breaker fleet inventory add HOST`").into());
    }
    let answers = fleet.acks.get(published);
    let unready: Vec<_> = hosts
        .iter()
        .filter_map(|host| match answers.and_then(|answers| answers.get(host)) {
            Some(ack) if ack.done => None,
            Some(ack) => Some(format!("{host}: {}", ack.found.as_deref().unwrap_or("refused"))),
            None => Some(format!("{host}: no answer")),
        })
        .collect();
    if !unready.is_empty() {
        let text = format!(
            "activating: refused, nothing is changed: hosts have not said that they would take it:\n  {}\n\
             correct that, and publish again",
            unready.join("\n  ")
        );
        return Err(CliError::new(Code::Differs, text).into());
    }
    let name = policy_name(connection, &sha256).await?;
    let state = first_state(&fleet, &hosts).ok_or_else(|| refused("no host reports a state"))?;
    let (id, command) = command(Verb::Activate, &sha256, &activate.reason);
    let active = ActivePolicy {
        sha256,
        name: name.clone(),
        min_version: crate::VERSION.to_owned(),
        object_sha256: state.object_sha256.clone(),
        layout: state.layout,
        id: id.clone(),
    };
    let value = encode(&active).map_err(|error| anyhow!(error))?;
    let given = Given::begin(connection, args, id, began);
    give(connection, &given.id, &command, &[(connection.prefix.active_policy(), value)]).await?;
    given.finish(args, format!("activated policy {name}"), |_| hosts).await
}

/// The state of the first host that reports one. A host with another kernel object then differs.
fn first_state<'f>(fleet: &'f Fleet, hosts: &BTreeSet<String>) -> Option<&'f HostState> {
    hosts.iter().find_map(|host| fleet.hosts.get(host)?.state.as_ref()?.as_ref().ok())
}

/// The name in the text of a published policy.
async fn policy_name(connection: &Connection, sha256: &str) -> Result<String> {
    let key = connection.prefix.policy(sha256);
    let snapshot = connection.engine.snapshot(&key).await.map_err(super::connection::failure)?;
    let entry = snapshot.entries.get(&key).with_context(|| format!("{key} is missing"))?;
    let text = std::str::from_utf8(&entry.value).context("the published policy is not UTF-8")?;
    Ok(config::parse("the published policy", text)?.name().to_string())
}
