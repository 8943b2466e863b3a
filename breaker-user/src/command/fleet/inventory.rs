//! `breaker fleet inventory`.

use std::process::ExitCode;

use anyhow::{Result, anyhow};
use serde_json::json;

use super::change::{command, give};
use super::connection::{Connection, failure};
use super::ssh;
use crate::cli::{FleetArgs, InventoryVerb};
use crate::cli_error::{CliError, Code};
use crate::command::output::print;
use crate::fleet::record::{Inventory, Verb, encode};

/// Runs a verb of the inventory.
pub async fn run(connection: &Connection, args: &FleetArgs, verb: &InventoryVerb) -> Result<ExitCode> {
    match verb {
        InventoryVerb::Add { host, ssh } => {
            if let Some(destination) = ssh {
                ssh::check_destination(destination)?;
            }
            let entry = Inventory { ssh: ssh.clone() };
            let value = encode(&entry).map_err(|error| anyhow!(error))?;
            let (id, command) = command(Verb::InventoryAdd, host.as_str(), "inventory add");
            give(connection, &id, &command, &[(connection.prefix.inventory_of(host), value)]).await?;
        }
        InventoryVerb::Remove { host } => {
            if !connection.read().await?.inventory.contains_key(host.as_str()) {
                let text =
                    format!("removing {host}: it is not in the inventory: `breaker fleet inventory list`");
                return Err(CliError::new(Code::Refused, text).into());
            }
            let (id, command) = command(Verb::InventoryRemove, host.as_str(), "inventory remove");
            give(connection, &id, &command, &[]).await?;
            connection.engine.delete(&connection.prefix.inventory_of(host)).await.map_err(failure)?;
        }
        InventoryVerb::List => {}
    }
    let fleet = connection.read().await?;
    ssh::Inventory::read(connection.inventory.clone()).keep(&fleet);
    let hosts: Vec<_> = fleet
        .inventory
        .iter()
        .map(|(host, entry)| match entry {
            Ok(entry) => json!({ "host": host, "ssh": entry.ssh }),
            Err(error) => json!({ "host": host, "error": error }),
        })
        .collect();
    if args.json {
        print(&serde_json::to_string_pretty(&hosts)?)?;
    } else if hosts.is_empty() {
        print("the inventory is empty: `breaker fleet inventory add HOST`")?;
    } else {
        for (host, entry) in &fleet.inventory {
            let way = match entry {
                Ok(Inventory { ssh: Some(ssh) }) => format!("ssh {ssh}"),
                Ok(Inventory { ssh: None }) => "no second way".to_owned(),
                Err(error) => format!("the entry cannot be read: {error}"),
            };
            print(&format!("{host}  {way}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
